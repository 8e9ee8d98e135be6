"""The size of payloads that a plan allows where it names none: every payload of its formats fits."""

from __future__ import annotations

import numpy as np
import pytest

from sfrl_secure.governance.terms import parse_terms
from sfrl_secure.ids import ZERO_DIGEST
from sfrl_secure.limits import PAYLOAD_BYTES_MAX
from sfrl_secure.services.federation.documents import terms_document
from sfrl_secure.services.federation.plan import default_plan
from sfrl_secure.services.federation.sizes import least_payload_bytes_of, payload_bytes_of
from sfrl_secure.sparse.encode import pack_dense, pack_update
from sfrl_secure.sparse.update import SparseUpdate

GRID = 10
TYPES = ("int8", "fp32", "bf16", "sign", "packed", "exact")
COUNTS = (1, 63, 64, 65, 65_536, 65_537, 200_000)


def _values(value_type: str, count: int, rng: np.random.Generator) -> np.ndarray:
    """Grid integers that the type holds, as hard to write as it allows: scales and magnitudes that jump."""
    signs = rng.choice(np.array([-1, 1]), count)
    # Each block of 64 has one scale, and neighbours have the smallest and the largest.
    scales = np.where(np.arange(count) // 64 % 2, 33, 0)
    if value_type == "sign":
        return signs * (np.int64(127) << scales)
    magnitudes = rng.integers(64, 128, count)
    if value_type in ("int8", "packed"):
        magnitudes[rng.random(count) < 0.5] = 1
        magnitudes[::64] = 127
        return signs * (magnitudes << scales)
    if value_type == "exact":
        return signs * (2**40 - rng.integers(0, 1_000, count))
    return signs * (magnitudes << rng.integers(0, 30, count))


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("value_type", TYPES)
def test_no_payload_of_a_format_is_longer_than_what_is_given_for_it(value_type: str, count: int) -> None:
    rng = np.random.default_rng(count)
    values = _values(value_type, count, rng)
    dense = pack_dense(values, value_type=value_type, grid_exponent=GRID)
    assert len(dense) <= payload_bytes_of(count, [value_type], ["dense"])
    # Indices as far apart as a model has room, which takes the most bits, and all of them close but the last.
    far = np.sort(rng.choice(2**31 // 8, count, replace=False)) * 8
    close = np.arange(count)
    close[-1] = 2**31 - 1
    for indices in (far, close):
        update = SparseUpdate(2**31, indices.astype(np.int64), values)
        free = pack_update(update, value_type=value_type, grid_exponent=GRID)
        assert len(free) <= payload_bytes_of(count, [value_type], ["free"])
        assert len(free) <= payload_bytes_of(count, TYPES, ["agreed", "dense", "free"])


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("value_type", TYPES)
def test_no_payload_is_shorter_than_what_is_given_as_the_least(value_type: str, count: int) -> None:
    least = least_payload_bytes_of(count, value_type)
    for values in (np.zeros(count, np.int64), np.ones(count, np.int64)):
        assert least <= len(pack_dense(values, value_type=value_type, grid_exponent=GRID)) <= 5 * least + 100


def test_the_size_given_is_not_many_times_what_is_needed() -> None:
    values = _values("fp32", 200_000, np.random.default_rng(1))
    dense = pack_dense(values, value_type="fp32", grid_exponent=GRID)
    assert payload_bytes_of(200_000, ["fp32"], ["dense"]) < 1.02 * len(dense)
    assert payload_bytes_of(2**31, TYPES, ["free"]) == PAYLOAD_BYTES_MAX


def test_terms_hold_the_size_that_the_plan_names_or_else_the_one_that_fits() -> None:
    (segment,) = default_plan().segments
    for size in (None, 512):
        terms = parse_terms(
            terms_document(ZERO_DIGEST, segment.model_copy(update={"payload_bytes_max": size}), ZERO_DIGEST, 9)
        )
        fits = payload_bytes_of(segment.nonzeros_max, segment.value_types, segment.support_modes)
        assert terms.limits.payload_bytes_max == (size or fits)
