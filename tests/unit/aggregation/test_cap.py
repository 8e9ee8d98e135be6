"""The cap: no coordinate that few carry moves far, and no other is touched."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfrl_secure.aggregation.cap import capped, cut
from sfrl_secure.aggregation.combined import Combined
from sfrl_secure.governance.aggregation_terms import CapTerms
from sfrl_secure.limits import VALUE_MAX
from sfrl_secure.sparse.update import UpdatePart

N = 20


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.integers(-VALUE_MAX, VALUE_MAX) | st.integers(-9, 9), min_size=N, max_size=N),
    st.lists(st.integers(0, 5), min_size=N, max_size=N), st.integers(1, 6),
    st.integers(1, 9) | st.integers(1, VALUE_MAX), st.booleans(),
)  # fmt: skip
def test_where_few_carry_a_coordinate_its_step_is_cut(
    step: list[int], carriers: list[int], below: int, magnitude: int, dense: bool
) -> None:
    at = [n for n in range(N) if step[n]]
    part = UpdatePart(slice(0, N), np.array(step))
    if not dense:
        part = UpdatePart(np.array(at, dtype=np.int64), np.array([step[n] for n in at], dtype=np.int64))
    combined = Combined(part, np.array(carriers, dtype=np.uint16))
    found = capped(CapTerms(below, magnitude), combined)
    whole = np.zeros(N, dtype=np.int64)
    whole[found.at] = found.values
    assert whole.tolist() == [
        max(-magnitude, min(magnitude, value)) if count < below else value
        for value, count in zip(step, carriers, strict=True)
    ]
    assert isinstance(found.at, slice) == dense


def test_the_step_that_was_combined_stays_as_it_was() -> None:
    step = UpdatePart(slice(0, 2), np.array([50, 50]))
    combined = Combined(step, np.array([1, 2], dtype=np.uint16))
    assert capped(CapTerms(2, 10), combined).values.tolist() == [10, 50]
    assert step.values.tolist() == [50, 50]


def test_the_terms_say_whether_there_is_a_cap() -> None:
    combined = Combined(UpdatePart(slice(0, 1), np.array([50])), np.array([1], dtype=np.uint16))
    assert cut(SimpleNamespace(cap=None), combined) is combined.step  # type: ignore[arg-type]
    assert cut(SimpleNamespace(cap=CapTerms(2, 10)), combined).values.tolist() == [10]  # type: ignore[arg-type]


def test_a_cap_without_counts_is_a_mistake_of_ours() -> None:
    with pytest.raises(AssertionError):
        capped(CapTerms(2, 10), Combined(UpdatePart(slice(0, 1), np.array([50]))))
