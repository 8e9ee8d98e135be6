"""Rules that add as updates arrive: taken out is as if never there, and memory is no matter of participants."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfrl_secure.aggregation import large_arrays
from sfrl_secure.aggregation.combined import Combined, Combining
from sfrl_secure.aggregation.rules import begin_rule_by, combine_by
from sfrl_secure.aggregation.running import MEANS, RunningRule
from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.aggregation_terms import ClipTerms, RuleTerms
from sfrl_secure.limits import VALUE_MAX
from sfrl_secure.sparse.update import UpdatePart

from .robust_reference import WIDTH, Plain, cohorts, contributions
from .rule_reference import seen

clips = st.none() | st.integers(1, 2**44).map(lambda norm: ClipTerms(norm=norm))


def begun(combining: Combining) -> RunningRule:
    running = begin_rule_by(combining)
    assert running is not None
    return running


@pytest.mark.parametrize("name", sorted(MEANS))
@settings(deadline=None, max_examples=150)
@given(cohort=cohorts(), clip=clips, data=st.data())
def test_what_was_taken_out_was_never_there(
    name: str, cohort: list[Plain], clip: ClipTerms | None, data: st.DataObject
) -> None:
    combining = Combining(WIDTH, RuleTerms(name), clip, 1, True, True)
    updates = contributions(cohort, (5,))
    running = begun(combining)
    for update in updates:
        running.enter(update.weight, update.norm)
        for part in update.parts(0, WIDTH):
            running.add_part(part, update.weight, update.norm)
    stay = data.draw(st.sets(st.integers(0, len(updates) - 1), min_size=1))
    for at in set(range(len(updates))) - stay:
        for part in updates[at].parts(0, WIDTH):
            running.take_out_part(part, updates[at].weight, updates[at].norm)
        running.leave(updates[at].weight, updates[at].norm)
    kept = [updates[at] for at in sorted(stay)]
    assert seen(running.finish()) == seen(combine_by(combining, kept))


@pytest.mark.parametrize("name", sorted(MEANS))
def test_a_part_that_is_refused_leaves_all_as_it_was(name: str) -> None:
    running = begun(Combining(4, RuleTerms(name), ClipTerms(norm=1), 1, True, True))
    running.enter(2, 1)
    running.add_part(UpdatePart(slice(0, 2), np.array([1, 0])), 2, 1)
    for at, values in ((slice(3, 5), [1, 1]), (slice(0, 1), [VALUE_MAX + 1]), (np.array([2, 1]), [1, 1])):
        part = UpdatePart(at, np.array(values, dtype=np.int64))  # type: ignore[arg-type]
        for norm in (1, 2**50):
            for act in (running.add_part, running.take_out_part):
                with pytest.raises(MalformedError):
                    act(part, 2, norm)
    found = seen(running.finish(), 4)
    assert (found.step, found.carriers, found.votes) == ([1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0])


@pytest.mark.parametrize("name", sorted(MEANS))
@pytest.mark.parametrize("counted", [False, True])
def test_a_rule_without_counts_is_empty_after_a_sparse_step(name: str, counted: bool) -> None:
    running = begun(Combining(40, RuleTerms(name), None, 1, counted, False))
    for value in (5, -7):
        assert running.is_empty
        running.enter(2, 9)
        assert not running.is_empty
        running.add_part(UpdatePart(np.array([3]), np.array([value])), 2, 9)
        found = running.finish()
        assert (found.step.indices.tolist(), found.step.values.tolist()) == ([3], [value])
        assert running.is_empty != counted
        if counted:
            break


@pytest.mark.parametrize("name", sorted(MEANS))
def test_of_nothing_there_is_no_mean(name: str) -> None:
    with pytest.raises(MalformedError):
        begun(Combining(4, RuleTerms(name))).finish()


def peak_of(name: str, updates: int, coordinates: int = 1_000_000) -> tuple[float, Combined]:
    rng = np.random.default_rng(1)
    tracemalloc.start()
    running = begun(Combining(coordinates, RuleTerms(name), None, 1, True, True))
    for _ in range(updates):
        at = np.flatnonzero(rng.random(coordinates // 50) < 0.5) * 50
        running.enter(1, 9)
        running.add_part(UpdatePart(at, rng.integers(1, 99, at.size)), 1, 9)
        running.add_part(UpdatePart(np.array([coordinates - 1]), np.array([1])), 1, 9)
    found = running.finish()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak / coordinates, found


@pytest.mark.parametrize("name", sorted(MEANS))
def test_memory_is_at_most_20_bytes_a_coordinate_however_many_updates(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # From numpy's allocator, which tells who traces it.
    monkeypatch.setattr(large_arrays, "LARGE_BYTES", 2**60)
    few, many = peak_of(name, 3)[0], peak_of(name, 30)[0]
    assert 10 < many < 20
    assert many < few + 0.5


def test_large_arrays_are_zeros_that_can_be_written_and_go_when_nobody_has_them() -> None:
    for count in (1, 1_000, large_arrays.LARGE_BYTES):
        array = large_arrays.zeros(count, np.int32)
        assert (array.shape, array.dtype, array.any()) == ((count,), np.int32, False)
        array += 1
        assert array.all()
    room = array.base.obj
    assert isinstance(room, mmap.mmap)
    with pytest.raises(BufferError):
        room.close()
    del array
    room.close()


@pytest.mark.parametrize(("environment", "loaded"), [("1", True), ("0", False)])
def test_numba_is_imported_where_the_environment_asks_for_it_and_with_the_first_large_part(
    environment: str, loaded: bool
) -> None:
    program = (
        "import sys; from sfrl_secure.aggregation import fast; early = 'numba' in sys.modules; "
        "fast.kernels(5); small = 'numba' in sys.modules; fast.kernels(fast.LARGE_PART); "
        "print(early, small, 'numba' in sys.modules)"
    )
    said = subprocess.run(
        [sys.executable, "-c", program], env={"SFRL_NUMBA": environment, "PATH": os.environ["PATH"]}, check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    assert said.stdout.split() == ["False", "False", str(loaded)]
