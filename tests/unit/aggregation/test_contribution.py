"""Contributions: the parts of a range, and nothing that a rule could not add up."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfrl_secure.aggregation.contribution import checked_parts, held, tie_of
from sfrl_secure.aggregation.parts import cut_part, moved_part
from sfrl_secure.errors import MalformedError
from sfrl_secure.ids import sha256
from sfrl_secure.limits import VALUE_MAX
from sfrl_secure.sparse.update import SparseUpdate, UpdatePart

N = 30
TIE = sha256(b"tie")


def free(*pairs: tuple[int, int]) -> UpdatePart:
    return UpdatePart(
        np.array([at for at, _ in pairs], dtype=np.int64), np.array([value for _, value in pairs], dtype=np.int64)
    )


@settings(deadline=None, max_examples=200)
@given(st.sets(st.integers(0, N - 1)), st.booleans(), st.data())
def test_the_parts_of_ranges_are_the_update(support: set[int], dense: bool, data: st.DataObject) -> None:
    whole = free(*((at, at + 1) for at in sorted(support)))
    if dense:
        whole = UpdatePart(slice(0, N), np.arange(N))
    update = held(TIE, 1, whole)
    edges = [0, *sorted(data.draw(st.sets(st.integers(1, N - 1), max_size=4))), N]
    found: list[tuple[int, int]] = []
    for start, stop in pairwise(edges):
        for part in checked_parts(update, start, stop):
            assert part.count
            found += zip(part.indices.tolist(), part.values.tolist(), strict=True)
    assert found == list(zip(whole.indices.tolist(), whole.values.tolist(), strict=True))


def test_what_is_cut_is_not_copied() -> None:
    for part in (UpdatePart(slice(5, 25), np.arange(20)), UpdatePart(np.arange(5, 25), np.arange(20))):
        assert cut_part(part, 7, 12).values.base is part.values
        assert cut_part(part, 7, 12).indices.tolist() == [7, 8, 9, 10, 11]
        assert cut_part(part, 25, 30).count == cut_part(part, 0, 5).count == 0
        assert cut_part(part, 0, 30).count == 20


def test_a_part_is_moved_with_its_values() -> None:
    assert moved_part(free((3, 7)), -3).indices.tolist() == [0]
    assert moved_part(UpdatePart(slice(3, 4), np.array([7])), 2).at == slice(5, 6)
    same = free((3, 7))
    assert moved_part(same, 0) is same


class Given:
    """An update that gives these parts, whatever it is asked for."""

    tie, weight, norm, nonzeros = TIE, 1, 1, 1

    def __init__(self, *parts: UpdatePart) -> None:
        self._parts = parts

    def parts(self, start: int, stop: int) -> Iterator[UpdatePart]:
        yield from self._parts


@pytest.mark.parametrize(
    "parts",
    [
        [free((9, 1))], [free((20, 1))], [free((12, 1), (11, 1))], [free((11, 1), (11, 1))],
        [free((12, 1)), free((11, 1))], [free((12, 1)), free((12, 1))],
        [UpdatePart(slice(12, 14), np.array([1, 1])), free((13, 1))], [free((11, VALUE_MAX + 1))],
        [UpdatePart(slice(9, 11), np.array([1, 1]))], [UpdatePart(slice(19, 21), np.array([1, 1]))],
        [UpdatePart(slice(10, 20, 2), np.ones(5, dtype=np.int64))],
        [UpdatePart(slice(10, 12), np.array([1]))],
        [UpdatePart(np.array([11], dtype=np.int32), np.array([1]))],  # type: ignore[arg-type]
        [UpdatePart(np.array([11]), np.array([1.0]))],  # type: ignore[arg-type]
        [UpdatePart(np.array([[11]]), np.array([[1]]))],
    ],
)  # fmt: skip
def test_what_does_not_lie_in_the_range_or_not_in_order_is_refused(parts: list[UpdatePart]) -> None:
    with pytest.raises(MalformedError):
        list(checked_parts(Given(*parts), 10, 20))


def test_parts_that_follow_each_other_are_taken() -> None:
    parts = [free((10, 1)), free(), UpdatePart(slice(11, 13), np.array([1, 1])), free((19, VALUE_MAX))]
    assert list(checked_parts(Given(*parts), 10, 20)) == parts


def test_a_held_update_is_measured() -> None:
    update = SparseUpdate(N, np.array([1, 5]), np.array([30, -40]))
    found = held(TIE, 3, update)
    assert (found.norm, found.nonzeros, found.weight) == (50, 2, 3)
    assert held(TIE, 3, [free((1, 3)), free((2, 4))]).norm == 5
    assert held(TIE, 3, free((1, 7), (2, 1))).norm == 7
    assert held(TIE, 3, [UpdatePart(slice(0, 4), np.full(4, VALUE_MAX))]).norm == 2 * VALUE_MAX


def test_a_tie_is_of_a_round_and_a_participant() -> None:
    opened = sha256(b"opened")
    assert tie_of(opened, "rover-1") == sha256(opened + b"rover-1")
