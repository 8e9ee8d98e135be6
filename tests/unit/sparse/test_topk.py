"""The k largest, and that nothing is lost on the way."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfrl_secure.errors import PayloadError
from sfrl_secure.sparse.encode import encode_dense, encode_update
from sfrl_secure.sparse.topk import ErrorFeedback, top_k
from sfrl_secure.sparse.update import SparseUpdate

EMPTY = np.zeros(0, dtype=np.int64)


@given(st.lists(st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0, -2.5, 3.0, 1e-30]), min_size=1, max_size=30), st.data())
@settings(max_examples=150, deadline=None)
def test_the_k_largest_are_chosen_and_the_lower_index_wins(values: list[float], data: st.DataObject) -> None:
    k = data.draw(st.integers(0, len(values)))
    by_size = sorted(range(len(values)), key=lambda i: (-abs(values[i]), i))
    assert top_k(np.array(values, dtype=np.float32), k).tolist() == sorted(by_size[:k])


def test_top_k_refuses_what_it_cannot_order() -> None:
    good = np.ones(3, dtype=np.float32)
    for values, k, reason in ((good, 4, "shape"), (good, -1, "shape"), (good.astype(np.float64), 1, "shape"),
                              (good.reshape(3, 1), 1, "shape"), (np.array([1, np.nan], np.float32), 1, "not_finite"),
                              (np.array([1, -np.inf], np.float32), 1, "not_finite")):
        with pytest.raises(PayloadError) as refusal:
            top_k(values, k)
        assert refusal.value.reason == reason


def test_what_is_not_sent_is_kept_to_the_last_bit() -> None:
    rng = np.random.default_rng(8)
    feedback = ErrorFeedback(1_000)
    given, sent = np.zeros(1_000), np.zeros(1_000)
    for _ in range(30):
        # Multiples of 2**-12 that stay small: float32 sums are exact, so any loss would show.
        update = (rng.integers(-2_000, 2_000, 1_000) / 2**12).astype(np.float32)
        given += update
        indices, values = feedback.select(update, 50)
        encoded = encode_update(1_000, indices, values, value_type="int8", grid_exponent=12, rng=rng)
        sent[encoded.update.indices] += encoded.update.values / 2**12
        feedback.keep(encoded, 12)
    assert np.array_equal(sent + feedback.residual, given)


def test_a_dense_update_is_kept_leaf_by_leaf() -> None:
    values = np.random.default_rng(3).uniform(-1, 1, 70_000).astype(np.float32)
    feedback = ErrorFeedback(values.size)
    feedback.select(values, 0)
    encoded = encode_dense(values, value_type="int8", grid_exponent=20, rng=np.random.default_rng(5))
    feedback.keep(encoded, 20)
    assert np.array_equal(feedback.residual, (values - encoded.update.values / 2**20).astype(np.float32))


def test_a_coordinate_that_is_never_among_the_largest_is_sent_in_the_end() -> None:
    feedback = ErrorFeedback(2)
    update = np.array([1.0, 0.3], dtype=np.float32)
    chosen = []
    for _ in range(5):
        indices, values = feedback.select(update, 1)
        units = np.rint(values.astype(np.float64) * 2**20).astype(np.int64)
        feedback.keep(SparseUpdate(2, indices, units), 20)
        chosen.append(indices.tolist())
    assert [1] in chosen


def test_a_missed_round_changes_nothing_and_an_empty_one_keeps_everything() -> None:
    feedback = ErrorFeedback(3)
    update = np.array([1.0, 2.0, 3.0], dtype=np.float32)
    feedback.select(update, 2)
    assert feedback.residual.tolist() == [0, 0, 0]
    feedback.select(update, 2)
    feedback.keep(SparseUpdate(3, EMPTY, EMPTY), 30)
    assert feedback.residual.tolist() == [1, 2, 3]
    indices, values = feedback.select(np.zeros(3, dtype=np.float32), 2)
    assert (indices.tolist(), values.tolist()) == ([1, 2], [2, 3])


def test_the_residual_is_kept_once_for_one_selection_of_this_model() -> None:
    feedback = ErrorFeedback(3)
    empty = SparseUpdate(3, EMPTY, EMPTY)
    with pytest.raises(PayloadError):
        feedback.keep(empty, 30)
    feedback.select(np.ones(3, dtype=np.float32), 1)
    with pytest.raises(PayloadError):
        feedback.keep(SparseUpdate(4, EMPTY, EMPTY), 30)
    feedback.keep(empty, 30)
    with pytest.raises(PayloadError):
        feedback.keep(empty, 30)
    assert feedback.residual.tolist() == [1, 1, 1]


def test_a_faulty_update_leaves_what_is_owed() -> None:
    feedback = ErrorFeedback(3)
    feedback.select(np.full(3, 3e38, dtype=np.float32), 1)
    feedback.keep(SparseUpdate(3, EMPTY, EMPTY), 30)
    for faulty in (np.array([1, np.nan, 1], np.float32), np.full(3, 3e38, np.float32), np.ones(4, np.float32),
                   np.ones(3)):
        with pytest.raises(PayloadError):
            feedback.select(faulty, 1)
    assert feedback.residual.tolist() == np.full(3, 3e38, np.float32).tolist()
