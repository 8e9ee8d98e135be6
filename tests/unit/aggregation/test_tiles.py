"""Ranges: all of the model, once, in order, and no more at a time than fits."""

from __future__ import annotations

import threading
import time
import tracemalloc
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfrl_secure.aggregation.contribution import Contribution
from sfrl_secure.aggregation.tiles import Overfull, StepParts, over_ranges, ranges_of
from sfrl_secure.sparse.header import LEAF_VALUES
from sfrl_secure.sparse.update import UpdatePart


@dataclass
class Sized:
    """A contribution of which only the size is looked at."""

    nonzeros: int


def sized(*counts: int) -> list[Contribution]:
    return [Sized(count) for count in counts]  # type: ignore[misc]


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 2**31), st.lists(st.integers(0, 2**31), min_size=1, max_size=9), st.integers(10, 40))
def test_ranges_are_all_of_the_model_once(coordinates: int, counts: list[int], values_bits: int) -> None:
    carried = sum(min(count, coordinates) for count in counts)
    # Not more ranges than this test has time for.
    values_max = max(2**values_bits, carried // 500)
    ranges = ranges_of(sized(*(min(count, coordinates) for count in counts)), coordinates, values_max)
    assert ranges[0][0] == 0
    assert ranges[-1][1] == coordinates
    assert all(one[1] == other[0] for one, other in pairwise(ranges))
    assert all(start < stop for start, stop in ranges)
    width = ranges[0][1]
    assert width * carried <= values_max * coordinates // 2 or width == 1
    assert len(ranges) == 1 or width < LEAF_VALUES or width % LEAF_VALUES == 0


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_what_was_found_comes_in_order_whoever_is_done_first(threads: int) -> None:
    def work(start: int, stop: int) -> int:
        time.sleep(0.002 * (start % 3))
        return start * 10

    ranges = [(start, start + 1) for start in range(20)]
    assert list(over_ranges(work, ranges, threads=threads)) == [(start, start + 1, start * 10) for start in range(20)]


def test_threads_work_at_the_same_time() -> None:
    barrier = threading.Barrier(2, timeout=20)

    def work(start: int, stop: int) -> int:
        return barrier.wait() + 1

    assert all(found for _, _, found in over_ranges(work, [(0, 1), (1, 2)], threads=2))


def test_no_more_is_done_ahead_than_two_ranges_for_each_thread() -> None:
    begun: list[int] = []

    def work(start: int, stop: int) -> int:
        begun.append(start)
        return start

    found = over_ranges(work, [(start, start + 1) for start in range(50)], threads=2)
    next(found)
    time.sleep(0.05)
    assert len(begun) <= 5
    found.close()
    assert len(begun) <= 5


@pytest.mark.parametrize("threads", [1, 3])
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_a_range_that_holds_too_much_is_halved_until_it_does_not(threads: int, data: st.DataObject) -> None:
    weights = data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=40))

    def work(start: int, stop: int) -> int:
        if sum(weights[start:stop]) > 12 and stop - start > 1:
            raise Overfull
        return sum(weights[start:stop])

    cuts = [0, *sorted(data.draw(st.sets(st.integers(1, 40), max_size=3)) & set(range(1, len(weights)))), len(weights)]
    found = list(over_ranges(work, list(pairwise(cuts)), threads=threads))
    assert [start for start, _, _ in found] == [0, *(stop for _, stop, _ in found[:-1])]
    assert found[-1][1] == len(weights)
    assert [total for _, _, total in found] == [sum(weights[start:stop]) for start, stop, _ in found]
    assert all(total <= 12 for _, _, total in found)


@pytest.mark.parametrize("threads", [1, 2])
def test_what_work_raises_comes_out(threads: int) -> None:
    def work(start: int, stop: int) -> int:
        if start == 3:
            raise KeyError("three")
        return start

    with pytest.raises(KeyError, match="three"):
        list(over_ranges(work, [(start, start + 1) for start in range(9)], threads=threads))

    def never(start: int, stop: int) -> int:
        raise Overfull

    with pytest.raises(Overfull):
        list(over_ranges(never, [(0, 8)], threads=threads))


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_a_step_is_its_parts_in_whatever_form_and_order(data: st.DataObject) -> None:
    width = data.draw(st.integers(1, 60))
    whole = np.zeros(width, dtype=np.int64)
    for at in data.draw(st.lists(st.integers(0, width - 1), max_size=30)):
        whole[at] = data.draw(st.integers(-2, 2))
    cuts = data.draw(st.sets(st.integers(1, 60), max_size=6)) & set(range(1, width))
    ranges = list(pairwise([0, *sorted(cuts), width]))
    step = StepParts(width)
    for start, stop in data.draw(st.permutations(ranges)):
        values = whole[start:stop]
        if data.draw(st.booleans()):
            step.put(start, UpdatePart(slice(0, stop - start), values.copy()))
        else:
            at = np.flatnonzero(values) if data.draw(st.booleans()) else np.arange(stop - start)
            step.put(start, UpdatePart(at, values[at]))
    found = step.step()
    spread = np.zeros(width, dtype=np.int64)
    spread[found.at] = found.values
    assert spread.tolist() == whole.tolist()
    touched = int(np.count_nonzero(whole))
    assert isinstance(found.at, slice) == (4 * touched > width)
    assert isinstance(found.at, slice) or found.at.tolist() == np.flatnonzero(whole).tolist()


def test_a_step_takes_its_own_memory_and_little_more_and_a_sparse_one_less() -> None:
    width, tile = 2_000_000, 100_000
    for density, most in ((1, 14.0), (100, 1.5)):
        values = np.zeros(tile, dtype=np.int64)
        values[::density] = 1
        part = UpdatePart(slice(0, tile), values)
        if density > 4:
            part = UpdatePart(np.flatnonzero(values), values[values != 0])
        tracemalloc.start()
        step = StepParts(width)
        for start in range(0, width, tile):
            step.put(start, part)
        found = step.step()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert found.count == width // density
        assert peak / width < most
