"""Paths read back: what `tiles` writes, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfrl_secure.errors import MalformedError
from sfrl_secure.translog.tile_paths import parse_tile_path
from sfrl_secure.translog.tiles import LEVEL_MAX, Bundle, Tile

INDICES = st.integers(0, 2**63 - 1)
WIDTHS = st.integers(1, 256)


@given(st.integers(0, LEVEL_MAX), INDICES, WIDTHS)
def test_the_path_of_every_tile_is_read_back(level: int, index: int, width: int) -> None:
    assert parse_tile_path(Tile(level, index, width).path) == Tile(level, index, width)


@given(INDICES, WIDTHS)
def test_the_path_of_every_bundle_is_read_back(index: int, width: int) -> None:
    assert parse_tile_path(Bundle(index, width).path) == Bundle(index, width)


@pytest.mark.parametrize(
    "path",
    [
        "", "tile", "tile/", "tile/0", "tile/0/", "tile/0/0", "tile/0/00", "tile/0/0000", "/tile/0/000",
        "tile/00/000", "tile/01/000", "tile/64/000", "tile/100/000", "tile/-1/000", "tile/+1/000", "tile/data/000",
        "tile/0/000/", "tile//0/000", "tile/0//000", "tile/0/000.p", "tile/0/000.p/", "tile/0/000.p/0",
        "tile/0/000.p/01", "tile/0/000.p/256", "tile/0/000.p/999", "tile/0/000.p/1/", "tile/0/000.P/1",
        "tile/0/x000/000", "tile/0/x000/x001/000", "tile/0/001/000", "tile/0/X001/000", "tile/0/x001/x000",
        "tile/0/x009/x223/x372/x036/x854/x775/808", "tile/0/x001/x009/x223/x372/x036/x854/x775/807",
        "tile/0/x" + "9" * 60, "tile/entries/../0/000", "tile/0/../0/000", "tile/0/000\n", "tile/0/000\0",
        "tile/0/\u0660\u0660\u0660", "TILE/0/000", "tile/0/000?", "8/tile/0/000",
    ],
)  # fmt: skip
def test_another_spelling_is_refused(path: str) -> None:
    with pytest.raises(MalformedError):
        parse_tile_path(path)


@given(st.text(max_size=80))
def test_any_text_is_one_spelling_or_a_typed_error(text: str) -> None:
    try:
        found = parse_tile_path(text)
    except MalformedError:
        return
    assert found.path == text


@given(st.from_regex(r"tile/[0-9]{1,2}/(x[0-9]{3}/){0,6}[0-9]{3}(\.p/[0-9]{1,3})?", fullmatch=True))
def test_what_looks_like_a_path_is_one_spelling_or_a_typed_error(text: str) -> None:
    try:
        found = parse_tile_path(text)
    except MalformedError:
        return
    assert found.path == text
