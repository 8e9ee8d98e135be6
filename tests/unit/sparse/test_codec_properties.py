"""Every update survives the codec, two encodings of one update do not exist, and damage is refused or canonical."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfrl_secure.errors import PayloadError
from sfrl_secure.limits import VALUE_MAX
from sfrl_secure.sparse.decode import decode_update
from sfrl_secure.sparse.encode import pack_update, payload_root
from sfrl_secure.sparse.header import LEAF_VALUES, Header, LeafRecord, parse_preamble
from sfrl_secure.sparse.leaf import check_leaf, decode_leaf
from sfrl_secure.sparse.mask import Mask, decode_mask, encode_mask
from sfrl_secure.sparse.reader import read_parts
from sfrl_secure.sparse.update import SparseUpdate
from tests.unit.sparse.payloads import (
    FOLDER,
    MODES,
    TYPES,
    claimed,
    header_of,
    load,
    mask_of,
    plain_encoder,
    rehashed,
    vectors,
)

PLAIN = plain_encoder()
SOURCES = [(bytes.fromhex(vector["payload"]), mask_of(vector)) for path in vectors("*.json")
           if "values" in (vector := load(path))]


def support_of(kind: str, nonzeros: int, rng: np.random.Generator) -> tuple[int, np.ndarray]:
    """Return a model's coordinates and a support of exactly or nearly `nonzeros` inside it."""
    if kind == "whole":
        return max(nonzeros, 1), np.arange(nonzeros)
    if kind == "uniform":
        coordinates = int(rng.integers(nonzeros + 1, 2 ** int(rng.integers(11, 32)) + 1))
        return coordinates, np.unique(rng.integers(0, coordinates, nonzeros))
    if kind == "clustered":
        coordinates = 2**31
        starts = rng.integers(0, coordinates - 2_000, 5)
        return coordinates, np.unique(rng.choice(starts, nonzeros) + rng.integers(0, 300, nonzeros))
    ends = np.concatenate([np.arange(nonzeros // 2), 2**31 - 1 - np.arange(nonzeros - nonzeros // 2)])
    return 2**31, np.unique(ends)


def values_of(value_type: str, count: int, zeros: bool, rng: np.random.Generator) -> np.ndarray:
    """Draw values that `value_type` holds exactly, of very different magnitudes from block to block."""
    signs = rng.choice([-1, 1], count)
    shifts = np.repeat(rng.integers(0, 34, count // 64 + 1), 64)[:count]
    if value_type == "sign":
        q = rng.integers(0 if zeros else 1, 128, count // 64 + 1)
        return signs * np.repeat(q, 64)[:count] << shifts
    if value_type == "fp32":
        values = signs * rng.integers(1, 2**24, count) << rng.integers(0, 17, count)
    elif value_type == "bf16":
        values = signs * rng.integers(1, 2**8, count) << rng.integers(0, 33, count)
    elif value_type == "exact":
        values = signs * rng.integers(1, 2 ** int(rng.integers(1, 41)), count)
    else:
        low = int(rng.integers(1, 128))
        values = signs * rng.integers(low, 128, count) << shifts
    return np.where(rng.random(count) < 0.3, 0, values) if zeros else values


def mask_for(mode: str, coordinates: int, indices: np.ndarray) -> Mask | None:
    return decode_mask(encode_mask(coordinates, indices), coordinates) if mode == "agreed" else None


@given(kind=st.sampled_from(["whole", "uniform", "clustered", "ends"]), value_type=st.sampled_from(TYPES),
       mode=st.sampled_from(MODES),
       nonzeros=st.one_of(st.integers(0, 5), st.integers(60, 70), st.integers(0, 700)),
       grid_exponent=st.integers(0, 40), seed=st.integers(0, 2**32))
@settings(max_examples=250, deadline=None)
def test_every_update_survives_in_the_bytes_of_the_plain_encoder(
        kind: str, value_type: Any, mode: Any, nonzeros: int, grid_exponent: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    if mode == "dense":
        kind, nonzeros = "whole", max(nonzeros, 1)
    coordinates, indices = support_of(kind, nonzeros, rng)
    update = SparseUpdate(coordinates, indices.astype(np.int64), values_of(value_type, indices.size, mode != "free",
                                                                           rng))
    mask = mask_for(mode, coordinates, update.indices)
    payload = pack_update(update, value_type=value_type, grid_exponent=grid_exponent, support=mode, mask=mask)
    read = decode_update(payload, claimed(payload, mask))
    assert np.array_equal(read.indices, update.indices)
    assert np.array_equal(read.values, update.values)
    mask_raw = encode_mask(coordinates, update.indices) if mode == "agreed" else None
    plainly, root = PLAIN.encode(coordinates, update.indices.tolist(), update.values.tolist(), value_type,
                                 grid_exponent, mode, mask_raw)
    assert payload == plainly
    assert payload_root(payload) == root


@st.composite
def damaged(draw: st.DrawFn) -> tuple[bytes, Mask | None]:
    whole, mask = draw(st.sampled_from(SOURCES))
    payload = bytearray(whole)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(payload)))
        match draw(st.sampled_from(["flip", "flip", "flip", "cut", "extend", "splice", "set_length"])):
            case "flip" if at < len(payload):
                payload[at] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del payload[at : at + draw(st.integers(1, 20))]
            case "extend":
                payload[at:at] = draw(st.binary(min_size=1, max_size=20))
            case "splice":
                payload[at:] = draw(st.sampled_from(SOURCES))[0][at:]
            case "set_length" if len(payload) >= 96:
                start = 60 if payload[5] == 2 else 28
                payload[start : start + 4] = struct.pack("<I", max(0, len(payload) - start - 36))
    try:
        return rehashed(bytes(payload)), mask
    except PayloadError:
        return bytes(payload), mask


@given(made=damaged())
@settings(max_examples=600, deadline=None)
def test_damage_is_refused_or_is_the_one_encoding_of_another_update(made: tuple[bytes, Mask | None]) -> None:
    payload, mask = made
    try:
        expected = claimed(payload, mask)
        update = decode_update(payload, expected)
    except PayloadError:
        return
    assert pack_update(update, value_type=expected.value_type, grid_exponent=expected.grid_exponent,
                       support=expected.support, mask=expected.mask) == payload


@pytest.mark.parametrize("name", [*(f"five_{kind}" for kind in TYPES), *(f"agreed_five_{kind}" for kind in TYPES)])
def test_every_single_flipped_bit_of_a_leaf_is_refused_or_is_the_one_encoding_of_another_update(name: str) -> None:
    vector = load(FOLDER / f"{name}.json")
    whole, mask = bytes.fromhex(vector["payload"]), mask_of(vector)
    accepted = 0
    for bit in range(8 * (header_of(whole).leaf_starts[0]), 8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        payload = rehashed(bytes(flipped))
        expected = claimed(payload, mask)
        try:
            update = decode_update(payload, expected)
        except PayloadError:
            continue
        accepted += 1
        assert pack_update(update, value_type=expected.value_type, grid_exponent=30, support=expected.support,
                           mask=mask) == payload
    # Low bits of indices and values are free to be others: the check above was reached.
    assert accepted > 5


def three_leaves() -> tuple[SparseUpdate, bytes]:
    i = np.arange(2 * LEAF_VALUES + 3, dtype=np.int64)
    update = SparseUpdate(3_000_000, 7 * i + i % 5, 1 + i % 127)
    return update, pack_update(update, value_type="int8", grid_exponent=30)


def reason_of(payload: bytes) -> str:
    with pytest.raises(PayloadError) as refusal:
        for _ in read_parts([payload], claimed(payload)):
            pass
    return refusal.value.reason


def test_each_leaf_decodes_alone() -> None:
    update, payload = three_leaves()
    header = header_of(payload)
    starts = header.leaf_starts
    assert [header.preamble.leaf_values(i) for i in range(3)] == [LEAF_VALUES, LEAF_VALUES, 3]
    for i in (2, 0, 1):
        raw = payload[starts[i] : starts[i + 1]]
        check_leaf(header, i, raw)
        leaf = decode_leaf(header.preamble, i, raw)
        part = slice(i * LEAF_VALUES, (i + 1) * LEAF_VALUES)
        assert np.array_equal(leaf.indices, update.indices[part])
        assert np.array_equal(leaf.values, update.values[part])


@pytest.mark.parametrize("change", [-1, 1])
def test_a_later_leaf_continues_the_one_before(change: int) -> None:
    _, payload = three_leaves()
    start = header_of(payload).leaf_starts[1]
    moved = bytearray(payload)
    base = int.from_bytes(moved[start : start + 4], "little")
    moved[start : start + 4] = (base + change).to_bytes(4, "little")
    assert reason_of(rehashed(bytes(moved))) == "not_canonical"


def test_a_later_leaf_alone_has_room_for_the_leaves_before() -> None:
    _, payload = three_leaves()
    header = header_of(payload)
    raw = bytearray(payload[header.leaf_starts[1] : header.leaf_starts[2]])
    raw[:4] = LEAF_VALUES.to_bytes(4, "little")
    assert decode_leaf(header.preamble, 1, bytes(raw)).indices[0] == LEAF_VALUES + 7
    raw[:4] = (LEAF_VALUES - 1).to_bytes(4, "little")
    with pytest.raises(PayloadError) as refusal:
        decode_leaf(header.preamble, 1, bytes(raw))
    assert refusal.value.reason == "not_canonical"


def test_damage_in_any_leaf_is_named_by_its_hash() -> None:
    _, payload = three_leaves()
    for end in header_of(payload).leaf_starts[1:]:
        flipped = bytearray(payload)
        flipped[end - 1] ^= 1
        assert reason_of(bytes(flipped)) == "digest"


def test_the_first_broken_leaf_gives_the_reason() -> None:
    _, payload = three_leaves()
    starts = header_of(payload).leaf_starts
    broken = bytearray(payload)
    broken[starts[0]] ^= 1
    broken = bytearray(rehashed(bytes(broken)))
    broken[-1] ^= 1
    assert reason_of(bytes(broken)) == "not_canonical"


def test_leaves_in_another_order_are_refused() -> None:
    _, payload = three_leaves()
    starts = header_of(payload).leaf_starts
    swapped = bytearray(payload)
    # The two full leaves with their table lines: only the order is wrong.
    swapped[28:100] = payload[64:100] + payload[28:64]
    swapped[starts[0] : starts[2]] = payload[starts[1] : starts[2]] + payload[starts[0] : starts[1]]
    assert reason_of(bytes(swapped)) == "not_canonical"


def test_a_leaf_of_another_length_than_its_record_is_refused() -> None:
    _, payload = three_leaves()
    header = header_of(payload)
    leaf = payload[header.leaf_starts[0] : header.leaf_starts[1]]
    longer = Header(header.preamble, (LeafRecord(len(leaf) + 1, header.leaves[0].digest), *header.leaves[1:]))
    for given_header, raw in ((header, b""), (longer, leaf)):
        with pytest.raises(PayloadError) as refusal:
            check_leaf(given_header, 0, raw)
        assert refusal.value.reason == "digest"


@pytest.mark.parametrize("value_type", TYPES)
def test_the_largest_magnitude_fits_every_value_type(value_type: Any) -> None:
    update = SparseUpdate(10, np.array([1, 2]), np.array([VALUE_MAX, -VALUE_MAX]))
    payload = pack_update(update, value_type=value_type, grid_exponent=0)
    assert decode_update(payload, claimed(payload)).values.tolist() == [VALUE_MAX, -VALUE_MAX]


def test_every_byte_of_the_header_is_bound_by_the_root() -> None:
    whole = next(payload for payload, mask in SOURCES if mask is not None and mask.indices.size == 5)
    root = payload_root(whole)
    end = header_of(whole).leaf_starts[0]
    changed = 0
    for at in range(end):
        other = bytearray(whole)
        other[at] ^= 1
        try:
            parse_preamble(bytes(other))
            assert payload_root(bytes(other)) != root
            changed += 1
        except PayloadError:
            continue
    # The mask's digest and the leaf hash at least, none of which any other rule of the header looks at.
    assert changed >= 64
