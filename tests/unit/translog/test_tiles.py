from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfrl_secure.errors import MalformedError, NotFoundError
from sfrl_secure.translog.merkle import leaf_hash, root_of
from sfrl_secure.translog.tiles import (
    Bundle,
    Tile,
    bundle_path,
    bundles_between,
    bundles_of,
    encode_bundle,
    parse_bundle,
    parse_tile,
    tile_of_tree,
    tile_path,
    tiles_between,
    tiles_of,
)
from sfrl_secure.translog.tree import MerkleTree


@pytest.mark.parametrize(
    ("index", "width", "place"),
    [
        (0, 256, "000"),
        (999, 256, "999"),
        (1000, 256, "x001/000"),
        (1234067, 256, "x001/x234/067"),
        (1234067, 255, "x001/x234/067.p/255"),
        (5, 1, "005.p/1"),
        (2**63 - 1, 256, "x009/x223/x372/x036/x854/x775/807"),
    ],
)
def test_paths_are_canonical(index: int, width: int, place: str) -> None:
    assert tile_path(3, index, width) == f"tile/3/{place}"
    assert bundle_path(index, width) == f"tile/entries/{place}"


@pytest.mark.parametrize(
    ("level", "index", "width"), [(-1, 0, 1), (64, 0, 1), (0, -1, 1), (0, 2**63, 1), (0, 0, 0), (0, 0, 257)]
)
def test_what_is_no_tile_has_no_path(level: int, index: int, width: int) -> None:
    with pytest.raises(MalformedError):
        tile_path(level, index, width)
    if 0 <= level < 64:
        with pytest.raises(MalformedError):
            bundle_path(index, width)


def test_the_tiles_of_70000_leaves_are_those_of_the_specification() -> None:
    tiles = list(tiles_of(70_000))
    assert [sum(t.level == level and t.width == 256 for t in tiles) for level in (0, 1, 2)] == [273, 1, 0]
    assert [t for t in tiles if t.width < 256] == [Tile(0, 273, 112), Tile(1, 1, 17), Tile(2, 0, 1)]
    assert list(tiles_of(256)) == [Tile(0, 0, 256), Tile(1, 0, 1)]
    assert list(tiles_of(0)) == []
    assert list(bundles_of(257)) == [Bundle(0, 256), Bundle(1, 1)]


def test_the_largest_size_is_listed_lazily() -> None:
    assert next(tiles_of(2**63 - 1)) == Tile(0, 0, 256)
    assert next(bundles_of(2**63 - 1)) == Bundle(0, 256)
    assert next(tiles_between(2**63 - 2, 2**63 - 1)) == Tile(0, 2**55 - 1, 255)


@pytest.mark.parametrize(("old", "new"), [(2, 1), (-1, 1), (0, 2**63)])
def test_a_log_that_shrinks_has_no_list(old: int, new: int) -> None:
    with pytest.raises(MalformedError):
        tiles_between(old, new)
    with pytest.raises(MalformedError):
        bundles_between(old, new)


@given(st.lists(st.integers(0, 200_000), min_size=2, max_size=5))
@settings(deadline=None, max_examples=60)
def test_growing_in_steps_writes_every_tile_of_the_last_size(sizes: list[int]) -> None:
    sizes = sorted(sizes)
    for listed, whole in ((tiles_between, tiles_of), (bundles_between, bundles_of)):
        written = set(whole(sizes[0]))
        for old, new in pairwise(sizes):
            step = list(listed(old, new))
            assert not written.intersection(step), "a tile that is there is not written again"
            assert len(step) == len(set(step))
            written.update(step)
        assert written >= set(whole(sizes[-1]))


def test_a_tile_holds_the_roots_of_its_subtrees() -> None:
    leaves = [leaf_hash(b"%d" % i) for i in range(600)]
    tree = MerkleTree(leaves)
    for tile in tiles_of(600):
        span, first = 256**tile.level, tile.index * 256
        hashes = [root_of(leaves[i * span:(i + 1) * span]) for i in range(first, first + tile.width)]
        assert parse_tile(tile_of_tree(tree, tile), tile.width) == tuple(hashes)
    assert [t.path for t in tiles_of(600)] == ["tile/0/000", "tile/0/001", "tile/0/002.p/88", "tile/1/000.p/2"]
    with pytest.raises(NotFoundError):
        tile_of_tree(tree, Tile(0, 2, 89))
    with pytest.raises(NotFoundError):
        tile_of_tree(tree, Tile(1, 0, 3))


@pytest.mark.parametrize(("length", "width"), [(0, 1), (31, 1), (33, 1), (32, 2), (64, 1), (0, 0), (257 * 32, 257)])
def test_a_tile_has_exactly_its_hashes(length: int, width: int) -> None:
    with pytest.raises(MalformedError):
        parse_tile(bytes(length), width)


def test_a_bundle_is_lengths_and_entries() -> None:
    raw = encode_bundle([b"one", b"", b"x" * 65_535])
    assert raw == b"\x00\x03one" + b"\x00\x00" + b"\xff\xff" + b"x" * 65_535
    assert parse_bundle(raw, 3) == (b"one", b"", b"x" * 65_535)


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=256), st.integers(-300, 300))
@settings(deadline=None, max_examples=100)
def test_a_bundle_comes_back_and_at_its_own_width_only(entries: list[bytes], wrong: int) -> None:
    raw = encode_bundle(entries)
    assert parse_bundle(raw, len(entries)) == tuple(entries)
    if wrong:
        with pytest.raises(MalformedError):
            parse_bundle(raw, len(entries) + wrong)


@pytest.mark.parametrize(
    "raw",
    [b"", b"\x00", b"\x00\x01", b"\xff\xff" + b"x" * 65_534, b"\x00\x00\x00", b"\x00\x01ab", b"x" * 65_538],
)
def test_a_bundle_that_ends_early_or_late_is_refused(raw: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_bundle(raw, 1)


@pytest.mark.parametrize("raw", [b"\x00", b"\x00\x02a", b"\x00\x00\x00"])
def test_an_entry_that_ends_early_is_named_as_such(raw: bytes) -> None:
    with pytest.raises(MalformedError, match="within an entry"):
        parse_bundle(raw, 2)


@pytest.mark.parametrize("width", [-1, 0, 257])
def test_a_bundle_has_1_to_256_entries(width: int) -> None:
    with pytest.raises(MalformedError):
        parse_bundle(bytes(2 * max(width, 0)), width)


@pytest.mark.parametrize("entries", [[], [b""] * 257, [b"x" * 65_536]])
def test_what_fits_no_bundle_is_refused(entries: list[bytes]) -> None:
    with pytest.raises(MalformedError):
        encode_bundle(entries)


@given(st.binary(max_size=600), st.integers(1, 256))
@settings(deadline=None, max_examples=200)
def test_any_bytes_are_a_bundle_that_comes_back_or_malformed(junk: bytes, width: int) -> None:
    try:
        entries = parse_bundle(junk, width)
    except MalformedError:
        return
    assert encode_bundle(entries) == junk
