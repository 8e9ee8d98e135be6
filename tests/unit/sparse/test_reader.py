"""A payload in pieces: the same parts and the same refusals, in memory for one leaf."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfrl_secure.errors import PayloadError
from sfrl_secure.ids import ZERO_DIGEST, sha256
from sfrl_secure.sparse.decode import decode_update
from sfrl_secure.sparse.encode import EncodedUpdate, encode_agreed, encode_dense, encode_update
from sfrl_secure.sparse.expected import ExpectedPayload
from sfrl_secure.sparse.header import LEAF_VALUES
from sfrl_secure.sparse.mask import decode_mask, encode_mask
from sfrl_secure.sparse.reader import PayloadReader, read_parts
from sfrl_secure.sparse.update import UpdatePart

COORDINATES = 3 * LEAF_VALUES


def encoded(mode: str, count: int = LEAF_VALUES + 100, value_type: Any = "int8") -> EncodedUpdate:
    rng = np.random.default_rng(4)
    indices = np.sort(rng.choice(COORDINATES, count, replace=False)).astype(np.int64)
    values = rng.uniform(0.5, 1.0, count)
    form: Any = {"value_type": value_type, "grid_exponent": 20, "rng": rng}
    if mode == "free":
        return encode_update(COORDINATES, indices, values, **form)
    if mode == "agreed":
        return encode_agreed(decode_mask(encode_mask(COORDINATES, indices), COORDINATES), values, **form)
    return encode_dense(values, **form)


UPDATES = {mode: encoded(mode) for mode in ("free", "agreed", "dense")}


def read(pieces: list[bytes], expected: ExpectedPayload) -> list[UpdatePart]:
    return list(read_parts(pieces, expected))


@given(mode=st.sampled_from(list(UPDATES)), cuts=st.lists(st.integers(0, 2**17), max_size=12), tail=st.integers(0, 200))
@settings(max_examples=60, deadline=None)
def test_pieces_of_any_size_give_the_parts_that_the_whole_gives(mode: str, cuts: list[int], tail: int) -> None:
    update = UPDATES[mode]
    ends = sorted({min(cut, len(update.payload)) for cut in [*cuts, tail, len(update.payload)]})
    pieces = [update.payload[a:b] for a, b in zip([0, *ends[:-1]], ends, strict=True)]
    parts, whole = read(pieces, update.expected), decode_update(update.payload, update.expected)
    assert [part.count for part in parts] == [LEAF_VALUES, 100]
    assert np.array_equal(np.concatenate([part.indices for part in parts]), whole.indices)
    assert np.array_equal(np.concatenate([part.values for part in parts]), whole.values)


@pytest.mark.parametrize("mode", list(UPDATES))
def test_parts_add_up_to_the_update_in_every_mode(mode: str) -> None:
    update = UPDATES[mode]
    total = np.zeros(update.coordinates, dtype=np.int64)
    for part in update.parts():
        total[part.at] += part.values * 3
        with pytest.raises(ValueError, match="read-only"):
            part.values[0] = 1
    assert np.array_equal(np.flatnonzero(total), update.update.indices)
    assert np.array_equal(total[update.update.indices], 3 * update.update.values)


def test_a_part_comes_with_the_last_byte_of_its_leaf_and_not_before() -> None:
    update = UPDATES["free"]
    end = len(update.payload)
    last = int.from_bytes(update.payload[28 + 36 : 28 + 40], "little")
    reader = PayloadReader(update.expected)
    assert list(reader.feed(update.payload[: end - last - 1])) == []
    assert [part.count for part in reader.feed(update.payload[end - last - 1 : end - last])] == [LEAF_VALUES]
    assert list(reader.feed(update.payload[end - last : -1])) == []
    with pytest.raises(PayloadError) as refusal:
        reader.finish()
    assert refusal.value.reason == "length"
    assert [part.count for part in reader.feed(update.payload[-1:])] == [100]
    reader.finish()


def test_what_is_fed_may_be_written_over_afterwards() -> None:
    for update in UPDATES.values():
        buffer = bytearray(update.payload)
        reader = PayloadReader(update.expected)
        parts = list(reader.feed(memoryview(buffer)))
        buffer[:] = bytes(len(buffer))
        assert np.array_equal(np.concatenate([part.values for part in parts]), update.update.values)


def test_one_byte_more_than_declared_is_refused_as_it_comes() -> None:
    update = UPDATES["dense"]
    reader = PayloadReader(update.expected)
    list(reader.feed(update.payload))
    with pytest.raises(PayloadError) as refusal:
        list(reader.feed(b"\0"))
    assert refusal.value.reason == "length"


def test_nothing_of_a_leaf_is_handed_out_that_does_not_lead_to_the_root() -> None:
    update = UPDATES["free"]
    start = 28 + 2 * 36
    first = int.from_bytes(update.payload[28:32], "little")
    flipped = bytearray(update.payload)
    flipped[start + first - 1] ^= 1
    reader = PayloadReader(update.expected)
    with pytest.raises(PayloadError) as refusal:
        list(reader.feed(bytes(flipped[: start + first])))
    assert refusal.value.reason == "digest"


def test_the_header_alone_is_refused_where_it_does_not_lead_to_the_root() -> None:
    update = UPDATES["agreed"]
    flipped = bytearray(update.payload[: 60 + 2 * 36])
    flipped[-1] ^= 1
    reader = PayloadReader(update.expected)
    with pytest.raises(PayloadError) as refusal:
        list(reader.feed(bytes(flipped)))
    assert refusal.value.reason == "digest"


def test_an_empty_update_is_complete_with_its_header() -> None:
    empty = encode_update(9, np.zeros(0, dtype=np.int64), np.zeros(0), value_type="packed", grid_exponent=3,
                          rng=np.random.default_rng(1))
    assert len(empty.payload) == 28
    assert list(empty.parts()) == []
    reader = PayloadReader(empty.expected)
    list(reader.feed(empty.payload[:27]))
    with pytest.raises(PayloadError):
        reader.finish()
    assert list(reader.feed(empty.payload[27:])) == []
    reader.finish()


def test_a_payload_declared_shorter_than_a_preamble_is_refused() -> None:
    expected = ExpectedPayload(9, 0, "free", "int8", 3, 20, ZERO_DIGEST)
    with pytest.raises(PayloadError) as refusal:
        read([bytes(20)], expected)
    assert refusal.value.reason == "length"


def test_a_stream_is_read_in_the_memory_of_one_leaf() -> None:
    count = 20 * LEAF_VALUES
    update = encode_dense(np.ones(count, dtype=np.float32), value_type="fp32", grid_exponent=3,
                          rng=np.random.default_rng(1))
    reader, total, payload = PayloadReader(update.expected), 0, update.payload
    tracemalloc.start()
    try:
        for start in range(0, len(payload), 50_000):
            for part in reader.feed(payload[start : start + 50_000]):
                total += int(part.values.sum())
        reader.finish()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert total == 8 * count
    # One leaf is 256 KiB of bytes and 512 KiB of values, with some arrays on the way; the payload is 5 MiB.
    assert peak < 3 * 2**20


def test_a_mask_is_expected_in_agreed_mode_and_in_no_other() -> None:
    mask = decode_mask(encode_mask(9, np.array([1])), 9)
    assert mask.digest == sha256(encode_mask(9, np.array([1])))
    with pytest.raises(AssertionError):
        ExpectedPayload(9, 1, "free", "int8", 3, 100, ZERO_DIGEST, mask)
    with pytest.raises(AssertionError):
        ExpectedPayload(9, 1, "agreed", "int8", 3, 100, ZERO_DIGEST)
