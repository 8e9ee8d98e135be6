"""From what a rule made to what a round gives: the order of the steps, and who gets which of the values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sfrl_secure.aggregation.combined import Combined
from sfrl_secure.aggregation.models import ModelSnapshot
from sfrl_secure.aggregation.round_result import result_of
from sfrl_secure.governance.aggregation_terms import CapTerms, MaskTerms, MomentumTerms, NextMaskTerms
from sfrl_secure.governance.manifest import ModelManifest, TensorSpec
from sfrl_secure.ids import sha256
from sfrl_secure.limits import VALUE_MAX
from sfrl_secure.sparse.mask import Mask, decode_mask
from sfrl_secure.sparse.update import UpdatePart

MANIFEST = ModelManifest((TensorSpec("w", (6,), "int32"), TensorSpec("b", (2,), "int64")))
N = 8
GRID = 16
OPENED = sha256(b"opened")
BASE = ModelSnapshot(MANIFEST, GRID, np.arange(N, dtype=np.int64))


class Terms:
    """What terms say of a round's result."""

    def __init__(self, **given: Any) -> None:
        self.cap: CapTerms | None = None
        self.server: MomentumTerms | None = None
        self.mask: MaskTerms | None = None
        self.tensors = ("w", "b")
        self.model = type("Model", (), {"manifest": MANIFEST, "grid_exponent": GRID})
        for name, value in given.items():
            setattr(self, name, value)


def combined(values: list[int], *, carriers: list[int] | None = None, **given: Any) -> Combined:
    counted = None if carriers is None else np.array(carriers, dtype=np.uint16)
    return Combined(UpdatePart(slice(0, N), np.array(values, dtype=np.int64)), counted, **given)


def values_of(part: UpdatePart) -> list[int]:
    found = np.zeros(N, dtype=np.int64)
    found[part.at] = part.values
    return found.tolist()


def test_the_cap_comes_before_the_server_step_and_after_the_score() -> None:
    """Momentum of the capped step; the mask by what it was before."""
    terms: Any = Terms(
        cap=CapTerms(contributors_below=2, magnitude=10),
        server=MomentumTerms(decay=0, rate=2 * 65_536),
        mask=MaskTerms(sha256(b"mask"), 2, NextMaskTerms("contribution", 2)),
    )
    a = combined([100, 40, 0, 0, 30, 0, 0, -50], carriers=[1, 2, 0, 0, 3, 0, 0, 1])
    mask = Mask(sha256(b"mask"), N, np.array([2, 3]))
    result = result_of(terms, OPENED, a, BASE, None, mask)
    assert values_of(result.step) == [20, 80, 0, 0, 60, 0, 0, -20]
    assert result.server_state is not None
    assert values_of(result.server_state.values) == [10, 40, 0, 0, 30, 0, 0, -10]
    assert result.model.values.tolist() == [20, 81, 2, 3, 64, 5, 6, -13]
    assert result.next_mask is not None
    assert decode_mask(result.next_mask, N).indices.tolist() == [0, 7]


def test_the_model_is_cut_to_its_dtype_and_the_step_is_not() -> None:
    terms: Any = Terms()
    result = result_of(terms, OPENED, combined([VALUE_MAX] + [0] * 5 + [VALUE_MAX, 0]), BASE, None, None)
    assert values_of(result.step)[0] == VALUE_MAX
    assert result.model.values.tolist() == [2**31 - 1, 1, 2, 3, 4, 5, VALUE_MAX + 6, 7]
    assert (result.server_state, result.next_mask, result.clusters) == (None, None, ())


def test_a_mask_that_does_not_change_has_no_next_one() -> None:
    terms: Any = Terms(mask=MaskTerms(sha256(b"mask"), 2))
    assert result_of(terms, OPENED, combined([1] * N), BASE, None, None).next_mask is None


@pytest.mark.parametrize("score", ["contribution", "saliency", "votes"])
def test_each_score_looks_at_what_it_is_of(score: str) -> None:
    """Of three coordinates each score prefers another."""
    terms: Any = Terms(mask=MaskTerms(sha256(b"mask"), 1, NextMaskTerms(score, 1)))
    base = ModelSnapshot(MANIFEST, GRID, np.array([2**20, 2**30, 0, 0, 0, 0, 0, 0]))
    votes = np.array([1, 1, 0, 0, 0, 5, 0, 0], dtype=np.uint16)
    a = combined([90, 80, 0, 0, 0, 0, 0, 0], votes=votes)
    result = result_of(terms, OPENED, a, base, None, Mask(sha256(b"mask"), N, np.array([7])))
    assert result.next_mask is not None
    chosen = decode_mask(result.next_mask, N).indices.tolist()
    assert chosen == {"contribution": [0], "saliency": [1], "votes": [5]}[score]


def test_clusters_stand_on_the_base_and_not_on_the_round() -> None:
    terms: Any = Terms(server=MomentumTerms(decay=0, rate=1))
    means = (((0, 2), UpdatePart(np.array([1]), np.array([100]))), ((1, 3), UpdatePart(np.array([7]), np.array([-9]))))
    result = result_of(terms, OPENED, combined([8] * N, clusters=means), BASE, None, None)
    assert [cluster.members for cluster in result.clusters] == [(0, 2), (1, 3)]
    first, second = (cluster.model_on(BASE) for cluster in result.clusters)
    assert first.values.tolist() == [0, 101, 2, 3, 4, 5, 6, 7]
    assert second.values.tolist() == [0, 1, 2, 3, 4, 5, 6, -2]
