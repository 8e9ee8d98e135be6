"""What of an update betrays single examples, as the verifier finds it: each floor, from below and from above."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sfrl_secure.replay.leakage import Floor
from sfrl_secure.replay.manifest import Tensor
from sfrl_secure.replay.measuring import LabelMeter, RowMeter

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


def labels_below(values: list[tuple[int, int]], least: int = 1) -> bool:
    """Whether a tensor of two labels falls below the floor, whose leaves repeat one value each: (label, value)."""
    per_label = 2**31
    meter = LabelMeter(Floor(0, 0, least), Tensor("w", (2, per_label), "int32", 0, 2 * per_label))
    for label, value in values:
        meter.add(np.arange(65_536) + label * per_label, np.full(65_536, value, np.int64))
    return meter.is_below


@pytest.mark.parametrize("sign", [1, -1])
def test_sums_beyond_64_bits_are_compared_exactly(sign: int) -> None:
    # 256 leaves of 2**16 values of 2**40 are a sum of 2**64.
    largest = [(0, sign * 2**40)] * 256
    assert not labels_below([*largest, *[(1, -sign * 2**40)] * 256])
    # An eighth of the largest is not more than an eighth; one unit in each of 2**16 values is.
    assert labels_below([*largest, *[(1, -sign * 2**40)] * 32])
    assert not labels_below([*largest, *[(1, -sign * 2**40)] * 32, (1, -sign)])


def test_a_sum_that_passes_64_bits_on_its_way_and_comes_back_is_what_it_is() -> None:
    there_and_back = [*[(0, 2**40)] * 300, *[(0, -(2**40))] * 300]
    assert labels_below([*there_and_back, (1, 5)])
    assert not labels_below([*there_and_back, (0, -1), (1, 5)])


def test_the_rows_of_an_update_are_counted_over_its_leaves() -> None:
    meter = RowMeter(Floor(0, 0, 3), Tensor("w", (4, 10), "int32", 100, 140))
    for at in ([99, 100], [101, 125], [126, 140]):
        meter.add(np.array(at), np.ones(2, np.int64))
    assert meter.is_below
    meter.add(np.array([139]), np.ones(1, np.int64))
    assert not meter.is_below


@pytest.mark.parametrize("support", ["agreed", "dense"])
def test_a_zero_touches_nothing(support: str) -> None:
    writer = Writer().begin()
    rows = {"rows": [{"tensor": "a", "axis": 0, "min": 2}], "labels": [{"tensor": "b", "axis": 0, "min": 1}]}
    least = {"nonzeros_min": 1, "weight_min": 1, "noise_std_min": 0} | rows
    modes = {"support_modes": [support], "limits__nonzeros_max": 17, "leakage": least}
    mask = writer.put_mask([0, 4, 12, 13]) if support == "agreed" else None
    writer.publish_terms(terms_with(writer, mask=mask, **modes))
    writer.open_round()
    # Neither row 1 nor a label is touched by its zero, and so the first row alone is one too few.
    betrays = {0: 5, 4: 0, 12: 0, 13: 0}
    writer.refuse("r1", "leak_rows", evidence=2, update=betrays, payload=writer.payload_of(betrays, support=support),
                  fields=writer.form_of(betrays, support=support))  # fmt: skip
    writer.admit("r1", betrays | {4: -1}, support=support)
    clean(writer)


@pytest.mark.parametrize("support", ["agreed", "dense"])
@pytest.mark.parametrize("least", [1, 3])
def test_coordinates_that_are_carried_and_not_touched_are_too_few(support: str, least: int) -> None:
    writer = Writer().begin()
    rows = [{"tensor": "a", "axis": 0, "min": 2}]
    floors = {"nonzeros_min": least, "weight_min": 1, "noise_std_min": 0, "rows": rows, "labels": []}
    mask = writer.put_mask([0, 1, 4, 8, 13]) if support == "agreed" else None
    modes = {"support_modes": [support], "limits__nonzeros_max": 17, "leakage": floors}
    writer.publish_terms(terms_with(writer, mask=mask, **modes))
    writer.open_round()
    # Before rows: of the first, with one row touched, there are too few coordinates too.
    betrays = dict(list({0: 5, 1: 3, 4: 2}.items())[: least - 1]) | {13: 0}
    writer.refuse("r1", "leak_coordinates", evidence=2, update=betrays,
                  payload=writer.payload_of(betrays, support=support),
                  fields={"noise_std": 1_000} | writer.form_of(betrays, support=support))  # fmt: skip
    writer.admit("r1", {0: 5, 4: -1, 13: 2}, support=support)
    clean(writer)
    writer.admit("r2", betrays, support=support)
    assert codes(writer.replay().docket.findings) == ["defective"]


@pytest.mark.parametrize(("noise", "is_refused"), [(8, False), (9, True)])
def test_noise_is_expected_of_the_zeros_that_a_payload_carries_too(noise: int, is_refused: bool) -> None:
    writer = Writer().begin()
    writer.publish_terms(terms_with(writer, support_modes=["dense"], limits__nonzeros_max=17))
    writer.open_round()
    # 4 * 272 = 17 * 8**2.
    update = {0: 16, 5: -4}
    if is_refused:
        writer.refuse("r1", "leak_noise", evidence=2, update=update, payload=writer.payload_of(update, support="dense"),
                      fields={"noise_std": noise} | writer.form_of(update, support="dense"))  # fmt: skip
    else:
        writer.admit("r1", update, support="dense", fields={"noise_std": noise})
    clean(writer)


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
