"""What of an update betrays single examples, as the verifier finds it: each floor, from below and from above."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sfrl_secure.replay.leakage import Floor, Leakage, leak_reason

from .builder import Writer, codes
from .void_rows import terms_with


def clean(writer: Writer) -> None:
    replay = writer.replay()
    assert replay.docket.findings == []
    assert replay.missing == ()


def labels(tensor: str, least: int, axis: int = 0) -> dict[str, Any]:
    return {"labels": [{"tensor": tensor, "axis": axis, "min": least}]}


LEAKS = [
    # Tensor a is 3 x 4: rows 0 to 2 are the coordinates 0-3, 4-7, 8-11.
    ({"rows": [{"tensor": "a", "axis": 0, "min": 2}]}, {0: 5, 3: 1}, {0: 5, 4: 1}, "leak_rows"),
    ({"rows": [{"tensor": "a", "axis": 1, "min": 2}]}, {1: 5, 9: 1}, {1: 5, 2: 1}, "leak_rows"),
    # Of labels, as many are raised as lowered; coordinates 12 to 16 are the five of tensor b.
    (labels("b", 1), {12: 5}, {12: 5, 13: -5}, "leak_labels"),
    (labels("b", 1), {12: -5}, {12: -5, 16: 5}, "leak_labels"),
    (labels("b", 1), {12: 5, 13: 5, 14: 5}, {12: 5, 13: 5, 14: -5}, "leak_labels"),
    (labels("b", 2), {12: 5, 13: 5, 14: -5}, {12: 5, 13: 5, 14: -5, 15: -5}, "leak_labels"),
    (labels("b", 2), {12: 5, 13: -5, 14: -5}, {12: 5, 13: -5, 14: -5, 15: 5}, "leak_labels"),
    # More than an eighth of the largest, on either side.
    (labels("b", 1), {12: 8, 13: -1}, {12: 7, 13: -1}, "leak_labels"),
    (labels("b", 1), {12: -8, 13: 1}, {12: -7, 13: 1}, "leak_labels"),
    (labels("b", 1), {12: 9, 13: -1}, {12: 15, 13: -2}, "leak_labels"),
    (labels("b", 2), {12: 16, 13: 2, 14: -3, 15: -3}, {12: 16, 13: 3, 14: -3, 15: -3}, "leak_labels"),
    # Sums count, not values: a row of which nothing is left is neither raised nor lowered.
    (labels("a", 1), {0: 5, 1: -5}, {0: 5, 1: -4, 4: -5}, "leak_labels"),
    (labels("a", 1), {0: 5, 1: -5, 4: 3}, {0: 5, 1: -9, 4: 3}, "leak_labels"),
    (labels("a", 1, axis=1), {0: 5, 4: -5, 1: 1}, {0: 5, 4: -4, 1: -1}, "leak_labels"),
]


@pytest.mark.parametrize(("floors", "bad", "good", "reason"), LEAKS)
def test_what_betrays_single_examples_is_refused_and_never_counted(
    floors: dict[str, Any], bad: dict[int, int], good: dict[int, int], reason: str
) -> None:
    writer = Writer().begin()
    least = {"nonzeros_min": 1, "weight_min": 1, "noise_std_min": 0, "rows": [], "labels": []} | floors
    writer.publish_terms(terms_with(writer, leakage=least))
    writer.open_round()
    writer.refuse("r1", reason, evidence=2, update=bad, facts=writer.facts(bad))
    writer.admit("r1", good)
    # A tensor that is not touched betrays nothing.
    writer.admit("r2", {15: 7} if floors.get("labels", [{}])[0].get("tensor") != "b" else {1: 7})
    clean(writer)
    writer.admit("r3", bad)
    assert codes(writer.replay().docket.findings) == ["defective"]


@pytest.mark.parametrize("sign", [1, -1])
def test_sums_that_eight_times_would_not_fit_64_bits_are_compared_all_the_same(sign: int) -> None:
    of_each = 2**21 - 1
    indices = np.arange(2 * of_each)
    values = np.where(indices < of_each, sign * 2**40, -sign * 2**40)
    tensor = SimpleNamespace(name="w", shape=(2, of_each), start=0, end=2 * of_each)
    manifest: Any = SimpleNamespace(tensors=(tensor,))
    floors = Leakage(1, 1, 0, (), (Floor(0, 0, 1),))
    decoded: Any = SimpleNamespace(indices=indices, values=values)
    assert leak_reason(floors, manifest, decoded, noise_std=0, sum_of_squares=0) == ""
    decoded.values = np.where(indices < of_each, sign * 2**40, -sign * 2**37)
    assert leak_reason(floors, manifest, decoded, noise_std=0, sum_of_squares=0) == "leak_labels"
    decoded.values[-1] -= sign
    assert leak_reason(floors, manifest, decoded, noise_std=0, sum_of_squares=0) == ""


@pytest.mark.parametrize(("noise", "is_refused"), [(0, False), (8, False), (9, True)])
def test_values_that_were_not_given_the_noise_are_refused(noise: int, is_refused: bool) -> None:
    writer = Writer().begin()
    writer.open_round()
    # 4 * (16 + 16) = 128 = 2 * 8**2.
    update = {0: 4, 5: -4}
    if is_refused:
        writer.refuse("r1", "leak_noise", evidence=2, update=update, fields={"noise_std": noise})
    else:
        writer.admit("r1", update, fields={"noise_std": noise})
    clean(writer)


def test_leaks_are_looked_for_in_the_order_of_the_specification() -> None:
    writer = Writer().begin()
    rows = [{"tensor": "a", "axis": 0, "min": 3}]
    least = {"nonzeros_min": 1, "weight_min": 1, "noise_std_min": 0, "rows": rows} | labels("a", 1)
    writer.publish_terms(terms_with(writer, leakage=least, tensors=["a"]))
    writer.open_round()
    claim = {"noise_std": 1000}
    writer.refuse("r1", "tensor_not_allowed", evidence=2, update={0: 1, 12: 1}, fields=claim)
    writer.refuse("r1", "leak_rows", evidence=2, update={0: 1, 4: 1}, fields=claim)
    writer.refuse("r1", "leak_labels", evidence=2, update={0: 1, 4: 1, 8: 1}, fields=claim)
    writer.refuse("r1", "leak_noise", evidence=2, update={0: 1, 4: 1, 8: -1}, fields=claim)
    clean(writer)
