from __future__ import annotations

import pytest

from sfrl_secure.translog.frontier import Frontier
from sfrl_secure.translog.merkle import leaf_hash
from sfrl_secure.translog.recent_roots import RecentRoots
from sfrl_secure.translog.tree import MerkleTree

LEAVES = [leaf_hash(b"%d" % number) for number in range(6_000)]
TREE = MerkleTree(LEAVES)


@pytest.mark.parametrize("begin", [0, 1, 700, 1_023, 1_024, 1_025])
def test_every_root_from_the_beginning_on_is_known(begin: int) -> None:
    frontier = Frontier()
    for leaf in LEAVES[:begin]:
        frontier.append(leaf)
    roots = RecentRoots(frontier)
    for leaf in LEAVES[begin:3_000]:
        roots.append(leaf)
    assert (roots.size, roots.hashes) == (3_000, frontier.hashes)
    sizes = [begin, begin + 1, *range(begin, 3_000, 97), 1_024, 2_047, 2_048, 2_049, 2_999, 3_000]
    for size in (size for size in sizes if size >= begin):
        assert roots.root(size) == TREE.root(size)
    assert roots.root(begin - 1) is None
    assert roots.root(3_001) is None


def test_what_was_asked_for_changes_nothing() -> None:
    roots = RecentRoots(Frontier())
    for size, leaf in enumerate(LEAVES[:1_300], start=1):
        roots.append(leaf)
        assert roots.root(size // 2) == TREE.root(size // 2)
        assert roots.root(size) == TREE.root(size)


@pytest.mark.parametrize("kept", [1, 1_024, 2_000])
def test_no_more_is_kept_than_asked_for_and_no_less(kept: int) -> None:
    roots = RecentRoots(Frontier(), leaves_kept=kept)
    for size, leaf in enumerate(LEAVES, start=1):
        roots.append(leaf)
        oldest = max(0, size - kept)
        if size % 331 == 0:
            assert roots.root(oldest) == TREE.root(oldest)
            assert roots.root(size - kept - 2 * 1_024) is None
    assert len(roots._leaves) <= 32 * (kept + 2 * 1_024)
    assert len(roots._marks) <= kept // 1_024 + 3
