"""The federation in memory (`tests/simulator.py`) for the tests of this folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from simulator import Simulator


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[Simulator]:
    """A federation whose segment has no round yet."""
    made = Simulator(tmp_path)
    yield made
    made.close()
