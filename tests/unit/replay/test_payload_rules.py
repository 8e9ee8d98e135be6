"""Every rule of the codec, broken first, and every format and bound that is in order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfrl_secure.errors import PayloadError
from sfrl_secure.ids import Digest
from sfrl_secure.replay.decoder import decode_mask_indices, decode_parts
from sfrl_secure.replay.encoder import encode_aggregate
from sfrl_secure.replay.payload_header import Expected

from .bad_payloads import CASES, COORDINATES, MASK, MASK_OBJECT, TWO_LEAVES, UPDATE, Case, mask_of, written
from .payloads import encode_aggregate as plain_aggregate
from .payloads import encode_mask, encode_payload, payload_root

TYPES = ["int8", "fp32", "bf16", "sign", "packed", "exact"]
RULES = {
    *(f"P{i}" for i in range(1, 5)), *(f"E{i}" for i in range(1, 7)), *(f"T{i}" for i in range(1, 5)),
    *(f"L{i}" for i in range(1, 5)), *(f"S{i}" for i in range(1, 5)), *(f"R{i}" for i in range(1, 6)),
    *(f"V{i}" for i in range(1, 16)),
}  # fmt: skip


def decode(payload: bytes, expected: Expected) -> tuple[list[int], list[int]]:
    """All coordinates that a payload carries, and their values."""
    where, values = [], []
    for part in decode_parts(payload, expected):
        at = part.at
        where += list(range(at.start, at.stop)) if isinstance(at, slice) else at.tolist()
        values += part.values.tolist()
    return where, values


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in CASES])
def test_a_payload_is_refused_for_the_first_rule_that_it_breaks(case: Case) -> None:
    with pytest.raises(PayloadError) as refused:
        decode(case.payload, case.expected)
    assert (str(refused.value).split(":")[0], refused.value.reason) == (case.rule, case.reason)


def test_every_rule_is_broken_first_by_a_payload() -> None:
    assert {case.rule for _, case in CASES} == RULES


def carried(update: dict[int, int], support: str, coordinates: int = COORDINATES) -> dict[int, int]:
    return {"free": update, "agreed": {i: update.get(i, 0) for i in MASK},
            "dense": {i: update.get(i, 0) for i in range(coordinates)}}[support]  # fmt: skip


@pytest.mark.parametrize("support", ["free", "agreed", "dense"])
@pytest.mark.parametrize("value_type", TYPES)
def test_every_format_decodes_to_its_update(value_type: str, support: str) -> None:
    update = dict.fromkeys(MASK, -5) if value_type == "sign" else UPDATE
    if (value_type, support) == ("sign", "dense"):
        update = {i: 5 - 10 * (i % 2) for i in range(COORDINATES)}
    where, values = decode(*written(value_type, support, update))
    assert dict(zip(where, values, strict=True)) == carried(update, support)
    assert where == sorted(where)


@pytest.mark.parametrize("support", ["agreed", "dense"])
@pytest.mark.parametrize("value_type", TYPES)
def test_zeros_are_values_where_the_coordinates_are_not_the_payloads(value_type: str, support: str) -> None:
    where, values = decode(*written(value_type, support, {}))
    assert dict(zip(where, values, strict=True)) == carried({}, support)


@pytest.mark.parametrize(("value_type", "value"), [
    *[(kind, sign * 2**40) for kind in ("int8", "fp32", "bf16", "sign", "packed", "exact") for sign in (1, -1)],
    ("packed", 127), ("packed", -1), ("int8", -127), ("exact", -(2**39)), ("exact", 2**39), ("exact", 127),
    ("exact", -128), ("exact", 128), ("exact", 2**31 - 1), ("exact", -(2**31) - 1),
])  # fmt: skip
def test_values_at_the_bounds_are_read(value_type: str, value: int) -> None:
    assert decode(*written(value_type, update={7: value})) == ([7], [value])


def test_an_update_of_nothing_is_one() -> None:
    payload, expected = written(update={})
    assert len(payload) == 28
    assert decode(payload, expected) == ([], [])


@pytest.mark.parametrize("value_type", ["int8", "packed", "exact"])
def test_leaves_go_on_where_the_one_before_ended(value_type: str) -> None:
    where, values = decode(*written(value_type, update=TWO_LEAVES, coordinates=200_000))
    assert dict(zip(where, values, strict=True)) == TWO_LEAVES


def test_the_last_coordinate_of_the_largest_model_is_reached() -> None:
    update = {0: 1, 2**31 - 1: -1}
    payload = encode_payload(update, 2**31)
    expected = Expected(2**31, 2, "free", "int8", 10, Digest(payload_root(payload)))
    assert decode(payload, expected) == ([0, 2**31 - 1], [1, -1])


VALUES = {
    "int8": st.integers(-127, 127), "packed": st.integers(-127, 127), "bf16": st.integers(-255, 255),
    "fp32": st.integers(-(2**24), 2**24), "exact": st.integers(-(2**40), 2**40), "sign": st.sampled_from([77, -77]),
}  # fmt: skip


@settings(deadline=None, max_examples=200)
@given(data=st.data(), value_type=st.sampled_from(TYPES), support=st.sampled_from(["free", "agreed", "dense"]))
def test_an_update_of_the_plain_encoder_decodes_to_itself(data: st.DataObject, value_type: str, support: str) -> None:
    coordinates = data.draw(st.sampled_from([1, 17, 300] if support == "dense" else [1, 17, 300, 5000, 2**31]))
    near = st.integers(max(0, coordinates - 300), coordinates - 1)
    keys = data.draw(st.sets(near if data.draw(st.booleans()) else st.integers(0, coordinates - 1), max_size=200))
    indices = sorted(range(coordinates) if support == "dense" else keys)
    values = VALUES[value_type]
    if support == "free":
        values = values.filter(bool)
    update = {i: data.draw(values) for i in indices}
    raw = encode_mask(indices, coordinates)
    payload = encode_payload(update, coordinates, value_type, 10, support=support, mask=raw, mask_indices=indices)
    mask = mask_of(indices, raw) if support == "agreed" else None
    root = Digest(payload_root(payload))
    expected = Expected(coordinates, len(indices), support, value_type, 10, root, mask)
    assert decode(payload, expected) == (indices, [update[i] for i in indices])


def test_a_mask_is_read_and_nothing_else_is_one() -> None:
    assert decode_mask_indices(MASK_OBJECT, COORDINATES, 5).tolist() == MASK
    many = list(range(1, 140_000, 2))
    assert decode_mask_indices(encode_mask(many, 140_000), 140_000, 70_000).tolist() == many
    other: list[tuple[bytes, int, int]] = [
        (MASK_OBJECT, COORDINATES, 4), (MASK_OBJECT, 999, 5), (MASK_OBJECT + b"\0", COORDINATES, 5), (b"", 1, 1),
        (encode_payload(UPDATE, COORDINATES, "int8", 0), COORDINATES, 5),
    ]  # fmt: skip
    for raw, coordinates, nonzeros in other:
        with pytest.raises(PayloadError):
            decode_mask_indices(raw, coordinates, nonzeros)


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_an_aggregate_has_the_bytes_of_the_plain_encoder(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 300))
    bits = data.draw(st.sampled_from([3, 8, 15, 16, 33, 40]))
    values = [0] * size
    for i in data.draw(st.sets(st.integers(0, size - 1))):
        values[i] = data.draw(st.integers(-(2**bits), 2**bits))
    assert encode_aggregate(np.array(values, np.int64), 7) == plain_aggregate(values, 7)


@pytest.mark.parametrize("count", [0, 1, 250, 251, 1000])
def test_an_aggregate_is_free_up_to_a_quarter_of_the_coordinates(count: int) -> None:
    values = np.zeros(1000, np.int64)
    values[:count] = -1
    raw = encode_aggregate(values, 7)
    assert raw[5] == (1 if count <= 250 else 3)
    assert raw == plain_aggregate(values.tolist(), 7)


@pytest.mark.parametrize("coordinates", [70_000, 300_000])
def test_an_aggregate_of_several_leaves_has_the_bytes_of_the_plain_encoder(coordinates: int) -> None:
    values = np.zeros(coordinates, np.int64)
    where: Any = np.arange(70_000) * (coordinates // 70_000) + np.arange(70_000) // 8000
    values[where % coordinates] = np.arange(70_000) % 300 - 100
    assert encode_aggregate(values, 10) == plain_aggregate(values.tolist(), 10)
