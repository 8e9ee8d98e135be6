from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfrl_secure.errors import MalformedError
from sfrl_secure.ids import Digest, sha256
from sfrl_secure.translog.frontier import Frontier
from sfrl_secure.translog.merkle import EMPTY_ROOT, leaf_hash
from sfrl_secure.translog.tree import MerkleTree

LEAVES = [leaf_hash(b"%d" % number) for number in range(300)]
TREE = MerkleTree(LEAVES)


def grown(size: int, frontier: Frontier | None = None) -> Frontier:
    frontier = frontier or Frontier()
    for leaf in LEAVES[frontier.size : size]:
        frontier.append(leaf)
    return frontier


def test_the_root_is_the_trees_at_every_size() -> None:
    frontier = Frontier()
    assert (frontier.size, frontier.root(), frontier.hashes) == (0, EMPTY_ROOT, ())
    for size, leaf in enumerate(LEAVES, start=1):
        frontier.append(leaf)
        assert (frontier.size, frontier.root()) == (size, TREE.root(size))


@given(size=st.integers(0, len(LEAVES)), end=st.integers(0, len(LEAVES)))
def test_a_frontier_that_was_stored_goes_on_as_if_it_had_not_been(size: int, end: int) -> None:
    before = grown(size)
    after = grown(end, Frontier(before.size, before.hashes))
    assert after.root() == TREE.root(max(size, end))
    assert before.root() == TREE.root(size)


@given(size=st.integers(1, len(LEAVES)))
def test_the_hashes_are_the_complete_subtrees_from_left_to_right(size: int) -> None:
    first, expected = 0, []
    for height in reversed(range(size.bit_length())):
        if size >> height & 1:
            expected.append(MerkleTree(LEAVES[first : first + (1 << height)]).root())
            first += 1 << height
    assert grown(size).hashes == tuple(expected)


@pytest.mark.parametrize(
    ("size", "hashes"),
    [
        (0, [sha256(b"")]),
        (1, []),
        (3, [sha256(b"")]),
        (4, [sha256(b"")] * 2),
        (1, [Digest(b"short")]),
        (-1, [sha256(b"")]),
        (2**63, [sha256(b"")]),
    ],
)
def test_what_is_no_frontier_is_refused(size: int, hashes: list[Digest]) -> None:
    with pytest.raises(MalformedError):
        Frontier(size, hashes)


def test_a_leaf_that_is_no_digest_is_refused() -> None:
    frontier = grown(3)
    with pytest.raises(MalformedError):
        frontier.append(Digest(b"short"))
    assert frontier.root() == TREE.root(3)
