"""The process's heaps, and where uploads lie until they are objects."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from sfrl_secure.services.config import GatekeeperConfig
from sfrl_secure.services.gatekeeper.memory import share_heaps


def test_all_threads_share_the_heaps_where_the_library_knows_how() -> None:
    """In a process of its own: what is said to the library holds for the rest of this one."""
    code = "from sfrl_secure.services.gatekeeper.memory import share_heaps; print(share_heaps())"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert said == str(hasattr(ctypes.CDLL(None), "mallopt"))


def test_another_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert not share_heaps()


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"objects_dir": "here", "objects_url": "s3://bucket/prefix"}, "s3://bucket/prefix/uploads"),
        ({"objects_dir": "here", "objects_url": "s3://bucket/prefix/"}, "s3://bucket/prefix/uploads"),
        ({"objects_dir": "here", "objects_url": "s3://bucket"}, "s3://bucket/uploads"),
    ],
)
def test_uploads_lie_below_the_objects_of_whoever_shares_them(fields: dict[str, str], place: str) -> None:
    assert GatekeeperConfig.model_construct(**fields).uploads_place == place  # type: ignore[arg-type]
