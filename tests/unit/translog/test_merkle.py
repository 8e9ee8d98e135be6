import hashlib

import pytest

from sfrl_secure.ids import Digest
from sfrl_secure.translog.merkle import EMPTY_ROOT, leaf_hash, node_hash, root_of


def mth(entries: list[bytes]) -> bytes:
    """RFC 9162, section 2.1.1, word for word."""
    if not entries:
        return hashlib.sha256(b"").digest()
    if len(entries) == 1:
        return hashlib.sha256(b"\x00" + entries[0]).digest()
    k = 1
    while k * 2 < len(entries):
        k *= 2
    return hashlib.sha256(b"\x01" + mth(entries[:k]) + mth(entries[k:])).digest()


@pytest.mark.parametrize("size", range(70))
def test_the_root_is_that_of_the_definition(size: int) -> None:
    entries = [b"%d" % i for i in range(size)]
    assert root_of(map(leaf_hash, entries)) == mth(entries)


def test_the_empty_tree_has_the_hash_of_nothing() -> None:
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert root_of([]) == EMPTY_ROOT


def test_an_entry_cannot_pose_as_a_node() -> None:
    left, right = leaf_hash(b"a"), leaf_hash(b"b")
    assert leaf_hash(left + right) != node_hash(left, right)
    assert leaf_hash(b"\x01" + left + right) != node_hash(left, right)


def test_the_last_leaf_is_not_duplicated() -> None:
    a, b, c = (leaf_hash(x) for x in (b"a", b"b", b"c"))
    assert root_of([a, b, c]) != root_of([a, b, c, c])
    assert root_of([a, b, c]) == node_hash(node_hash(a, b), c)


def test_the_root_of_one_leaf_is_the_leaf() -> None:
    assert root_of([leaf_hash(b"x")]) == leaf_hash(b"x")
    assert isinstance(root_of([Digest(bytes(32))]), bytes)
