"""A federation in memory, and drafts of what is in force in it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from simulator import NOW_US, Simulator

from sfrl_secure.operating.draft_writing import draft_of
from sfrl_secure.operating.drafting import Ground, build_draft
from sfrl_secure.operating.drafts import read_draft

from .built import Outcome


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[Simulator]:
    simulator = Simulator(tmp_path / "sim")
    yield simulator
    simulator.close()


@pytest.fixture
def drafted(sim: Simulator, tmp_path: Path) -> Callable[..., Outcome]:
    """Draft what is in force, replace texts in the draft, and build it."""

    def build(kind: str, name: str = "", *changes: tuple[str, str], alone: bool = False) -> Outcome:
        in_force = sim.state.placed[kind, name].document
        text = draft_of(in_force)
        for old, new in changes:
            assert old in text, text
            text = text.replace(old, new)
        path = tmp_path / "draft.toml"
        path.write_text(text)
        read = read_draft(path)
        return read if isinstance(read, tuple) else build_draft(read, Ground(None if alone else sim.state, NOW_US))

    return build
