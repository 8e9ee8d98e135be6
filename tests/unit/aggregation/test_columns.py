"""A cohort by coordinate: each value once, what is refused, and how much is held at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfrl_secure.aggregation import columns as columns_module
from sfrl_secure.aggregation.columns import columns_over
from sfrl_secure.aggregation.members import mean_over
from sfrl_secure.aggregation.tiles import Overfull
from sfrl_secure.errors import MalformedError
from sfrl_secure.ids import sha256
from sfrl_secure.limits import COHORT_MAX, VALUE_MAX
from sfrl_secure.sparse.update import UpdatePart
from tests.unit.aggregation.robust_reference import WIDTH, Plain, all_products, cohorts, contributions, nnm, plain


@settings(deadline=None, max_examples=150)
@given(cohorts(12), st.integers(0, WIDTH - 1), st.integers(1, WIDTH), st.integers(0, 13))
def test_groups_and_matrices_have_each_value_once(cohort: list[Plain], start: int, width: int, most: int) -> None:
    stop = min(start + width, WIDTH)
    columns = columns_over(contributions(cohort), start, stop)
    found = np.zeros((len(cohort), WIDTH), dtype=np.int64)
    for group in columns.groups(most):
        assert (group.values != 0).all()
        found[group.who, columns.at[group.at]] += group.values
    for matrix in columns.matrices(most + 1):
        found[:, columns.at[matrix.at]] += matrix.values
    assert found.tolist() == [
        [value if start <= at < stop else 0 for at, value in enumerate(each.values)] for each in cohort
    ]
    assert (np.abs(found) <= 2**columns.bits).all()
    assert not (found % 2**columns.zeros).any()


@pytest.mark.parametrize("count", [0, COHORT_MAX + 1])
def test_no_cohort_and_too_large_ones_are_refused(count: int) -> None:
    with pytest.raises(MalformedError):
        columns_over(contributions([plain(at, {}) for at in range(count)]), 0, WIDTH)


class Giving:
    """An update that gives whatever it was made with."""

    tie, weight, norm, nonzeros = sha256(b"giving"), 1, 0, 0

    def __init__(self, *parts: UpdatePart) -> None:
        self._parts = parts

    def parts(self, start: int, stop: int) -> Iterator[UpdatePart]:
        return iter(self._parts)


@pytest.mark.parametrize("others", [0, 1, 30])
@pytest.mark.parametrize(
    "parts",
    [
        [([3], [VALUE_MAX + 1])],
        [([3], [-VALUE_MAX - 1])],
        [([3], [-(2**63)])],
        [([-1], [1])],
        [([WIDTH], [1])],
        [([3, 3], [1, 1])],
        [([3], [1]), ([3], [1])],
        [([3, 4], [1])],
        [([[3]], [[1]])],
        [(slice(0, 2), [1])],
        [(slice(-2, 0), [1, 2])],
        [(slice(0, 4, 2), [1, 2, 3, 4])],
        [(slice(WIDTH - 1, WIDTH + 1), [1, 2])],
        [(slice(0, WIDTH), [1] * WIDTH), ([3], [1])],
        [([3.0], [1])],
        [([3], [1.0])],
    ],
)
def test_what_is_out_of_bounds_is_refused(parts: list[tuple[object, object]], others: int) -> None:
    bad = Giving(*(
        UpdatePart(at if isinstance(at, slice) else np.array(at), np.array(values)) for at, values in parts
    ))  # fmt: skip
    rest = [plain(at, {3: 1}).contribution() for at in range(others)]
    for cohort in ([bad, *rest], [*rest, bad]):
        with pytest.raises(MalformedError):
            columns_over(cohort, 0, WIDTH)
        with pytest.raises(MalformedError):
            mean_over(cohort, 0, WIDTH, range(others + 1), weighted=True)


@pytest.mark.parametrize("width", [WIDTH, 4])
def test_what_all_carry_alike_rises(width: int) -> None:
    """Shared coordinates are not sorted, and neither are those of a range that is full of values."""
    falling = UpdatePart(np.array([2, 1, 0]), np.array([1, 2, 3]))
    beside = plain(0, [1, 1]).contribution()
    for cohort in ([Giving(falling)], [Giving(falling), Giving(falling)], [beside, Giving(falling)]):
        with pytest.raises(MalformedError):
            columns_over(cohort, 0, 3)
    assert columns_over([plain(0, [1, 1, 1]).contribution()], 0, width).at.tolist() == [0, 1, 2]


def test_a_range_with_too_many_values_is_done_in_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    cohort = contributions([plain(at, rng.integers(-99, 99, WIDTH).tolist()) for at in range(9)])
    products, mean = all_products(cohort), nnm(cohort, 250_000)
    monkeypatch.setattr(columns_module, "VALUES_MAX", 20)
    assert np.array_equal(all_products(cohort).limbs, products.limbs)
    assert nnm(cohort, 250_000) == mean
    with pytest.raises(Overfull):
        columns_over(cohort, 0, 3)
    monkeypatch.setattr(columns_module, "VALUES_MAX", 2)
    assert columns_over(cohort, 3, 4).at.tolist() == [3]


def test_matrices_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = contributions([plain(at, [1] * WIDTH) for at in range(3)])
    scattered = contributions([plain(at, {at: 1, 5: 1, 6: 1, 7: 1, 8: 1}) for at in range(30)])
    products = [all_products(cohort) for cohort in (shared, scattered)]
    monkeypatch.setattr(columns_module, "MATRIX_CELLS", 60)
    for cohort, expected in zip((shared, scattered), products, strict=True):
        assert all(matrix.values.size <= 60 for matrix in columns_over(cohort, 0, WIDTH).matrices(2))
        assert np.array_equal(all_products(cohort).limbs, expected.limbs)
