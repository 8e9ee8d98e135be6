"""Every update survives the codec, two encodings of one update do not exist, and damage is refused or canonical."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfrl_secure.errors import PayloadError
from sfrl_secure.limits import VALUE_MAX
from sfrl_secure.sparse.decode import decode_leaf, decode_update
from sfrl_secure.sparse.encode import pack_update
from sfrl_secure.sparse.header import LEAF_NONZEROS, Header, LeafRecord, parse_header, parse_preamble
from sfrl_secure.sparse.update import SparseUpdate

FOLDER = Path(__file__).resolve().parents[2] / "vectors" / "codec"
PAYLOADS = [bytes.fromhex(vector["payload"]) for path in sorted(FOLDER.glob("*.json"))
            if "indices" in (vector := json.loads(path.read_text(encoding="ascii")))]


def read_plainly(payload: bytes) -> tuple[list[int], list[int]]:
    """Read a canonical payload one bit after the other: a third opinion, which believes what it reads."""
    kind, grid_exponent, _, nonzeros, leaf_count = struct.unpack_from("<BBQQI", payload, 6)
    start, indices, values = 28 + 36 * leaf_count, [], []
    for leaf in range(leaf_count):
        raw = payload[start : (start := start + struct.unpack_from("<I", payload, 28 + 36 * leaf)[0])]
        bit = lambda i, raw=raw: raw[i // 8] >> (i % 8) & 1  # noqa: E731
        count = min(65_536, nonzeros - 65_536 * leaf)
        blocks = -(-count // 128)
        index, parameters, at = int.from_bytes(raw[:4], "little") - 1, raw[4 : 4 + blocks], 4 + blocks
        scales, at = (raw[at : at + blocks], at + blocks) if kind == 1 else (b"", at)
        width = 1 if kind == 1 else 4
        planes, order = 8 * (at + width * count), sorted(range(blocks), key=lambda b: -parameters[b])
        plane_of = {(j, b): n for n, (j, b) in enumerate((j, b) for j in range(31) for b in order if parameters[b] > j)}
        one = planes + 128 * len(plane_of)
        for i in range(count):
            quotient, b = 0, i // 128
            while not bit(one):
                quotient, one = quotient + 1, one + 1
            one += 1
            low = sum(bit(planes + 128 * plane_of[j, b] + i % 128) << j for j in range(parameters[b]))
            index += 1 + (quotient << parameters[b]) + low
            value = struct.unpack_from("<b" if kind == 1 else "<f", raw, at + width * i)[0]
            indices.append(index)
            values.append(value << scales[b] if kind == 1 else int(value * 2**grid_exponent))
    return indices, values


def support_of(kind: str, nonzeros: int, rng: np.random.Generator) -> tuple[int, np.ndarray]:
    """Return a model's coordinates and a support of exactly or nearly `nonzeros` inside it."""
    if kind == "dense":
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


def values_of(value_type: str, nonzeros: int, rng: np.random.Generator) -> np.ndarray:
    """Draw values that `value_type` holds exactly, of very different magnitudes from block to block."""
    signs = rng.choice([-1, 1], nonzeros)
    if value_type == "fp32":
        return signs * rng.integers(1, 2**24, nonzeros) << rng.integers(0, 17, nonzeros)
    shifts = np.repeat(rng.integers(0, 34, nonzeros // 128 + 1), 128)[:nonzeros]
    return signs * rng.integers(1, 128, nonzeros) << shifts


@given(kind=st.sampled_from(["dense", "uniform", "clustered", "ends"]), value_type=st.sampled_from(["int8", "fp32"]),
       nonzeros=st.one_of(st.integers(0, 5), st.integers(120, 135), st.integers(0, 700)),
       grid_exponent=st.integers(0, 40), seed=st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_every_update_survives(kind: str, value_type: Any, nonzeros: int, grid_exponent: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    coordinates, indices = support_of(kind, nonzeros, rng)
    update = SparseUpdate(coordinates, indices.astype(np.int64), values_of(value_type, indices.size, rng))
    payload = pack_update(update, value_type=value_type, grid_exponent=grid_exponent)
    read = decode_update(payload, coordinates=coordinates, nonzeros=update.nonzeros, value_type=value_type,
                         grid_exponent=grid_exponent)
    assert np.array_equal(read.indices, update.indices)
    assert np.array_equal(read.values, update.values)
    assert read_plainly(payload) == (update.indices.tolist(), update.values.tolist())


def rehashed(payload: bytes) -> bytes:
    """Put the digest of each leaf where the header wants it, as whoever signs a payload can."""
    header = parse_header(payload)
    out = bytearray(payload)
    starts = header.leaf_starts
    for i in range(len(header.leaves)):
        out[32 + 36 * i : 64 + 36 * i] = hashlib.sha256(payload[starts[i] : starts[i + 1]]).digest()
    return bytes(out)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    payload = bytearray(draw(st.sampled_from(PAYLOADS)))
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
                payload[at:] = draw(st.sampled_from(PAYLOADS))[at:]
            case "set_length" if len(payload) >= 64:
                payload[28:32] = struct.pack("<I", max(0, len(payload) - 64))
    try:
        return rehashed(bytes(payload))
    except PayloadError:
        return bytes(payload)


@given(payload=damaged())
@settings(max_examples=600, deadline=None)
def test_damage_is_refused_or_is_the_one_encoding_of_another_update(payload: bytes) -> None:
    try:
        claimed = parse_preamble(payload)
        update = decode_update(payload, coordinates=claimed.coordinates, nonzeros=claimed.nonzeros,
                               value_type=claimed.value_type, grid_exponent=claimed.grid_exponent)
    except PayloadError:
        return
    assert pack_update(update, value_type=claimed.value_type, grid_exponent=claimed.grid_exponent) == payload


@pytest.mark.parametrize("name", ["five_int8", "five_fp32"])
def test_every_single_flipped_bit_of_a_leaf_is_refused_or_is_the_one_encoding_of_another_update(name: str) -> None:
    whole = bytes.fromhex(json.loads((FOLDER / f"{name}.json").read_text(encoding="ascii"))["payload"])
    accepted = 0
    for bit in range(8 * 64, 8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        payload = rehashed(bytes(flipped))
        try:
            update = decode_update(payload, coordinates=1_000, nonzeros=5, value_type=name[5:], grid_exponent=30)
        except PayloadError:
            continue
        accepted += 1
        assert pack_update(update, value_type=parse_preamble(payload).value_type, grid_exponent=30) == payload
    # Low bits of indices and values are free to be others: the check above was reached.
    assert accepted > 5


def three_leaves() -> tuple[SparseUpdate, bytes]:
    i = np.arange(2 * LEAF_NONZEROS + 3, dtype=np.int64)
    update = SparseUpdate(3_000_000, 7 * i + i % 5, 1 + i % 127)
    return update, pack_update(update, value_type="int8", grid_exponent=30)


def decoded(payload: bytes) -> SparseUpdate:
    return decode_update(payload, coordinates=3_000_000, nonzeros=2 * LEAF_NONZEROS + 3, value_type="int8",
                         grid_exponent=30)


def test_each_leaf_decodes_alone() -> None:
    update, payload = three_leaves()
    assert np.array_equal(decoded(payload).indices, update.indices)
    assert np.array_equal(decoded(payload).values, update.values)
    header = parse_header(payload[:200])
    starts = header.leaf_starts
    assert [header.preamble.leaf_nonzeros(i) for i in range(3)] == [LEAF_NONZEROS, LEAF_NONZEROS, 3]
    for i in (2, 0, 1):
        leaf = decode_leaf(header, i, payload[starts[i] : starts[i + 1]])
        part = slice(i * LEAF_NONZEROS, (i + 1) * LEAF_NONZEROS)
        assert leaf.base == (update.indices[part.start - 1] + 1 if i else 0)
        assert np.array_equal(leaf.indices, update.indices[part])
        assert np.array_equal(leaf.values, update.values[part])


@pytest.mark.parametrize("change", [-1, 1])
def test_a_later_leaf_continues_the_one_before(change: int) -> None:
    _, payload = three_leaves()
    start = parse_header(payload).leaf_starts[1]
    moved = bytearray(payload)
    base = int.from_bytes(moved[start : start + 4], "little")
    moved[start : start + 4] = (base + change).to_bytes(4, "little")
    with pytest.raises(PayloadError) as refusal:
        decoded(rehashed(bytes(moved)))
    assert refusal.value.reason == "not_canonical"


def test_a_later_leaf_alone_has_room_for_the_leaves_before() -> None:
    _, payload = three_leaves()
    start = parse_header(payload).leaf_starts[1]
    moved = bytearray(payload)
    moved[start : start + 4] = (LEAF_NONZEROS - 1).to_bytes(4, "little")
    moved_payload = rehashed(bytes(moved))
    header = parse_header(moved_payload)
    with pytest.raises(PayloadError) as refusal:
        decode_leaf(header, 1, moved_payload[start : header.leaf_starts[2]])
    assert refusal.value.reason == "not_canonical"


def test_damage_in_any_leaf_is_named_by_its_digest() -> None:
    _, payload = three_leaves()
    for end in parse_header(payload).leaf_starts[1:]:
        flipped = bytearray(payload)
        flipped[end - 1] ^= 1
        with pytest.raises(PayloadError) as refusal:
            decoded(bytes(flipped))
        assert refusal.value.reason == "digest"


def test_the_first_broken_leaf_gives_the_reason() -> None:
    _, payload = three_leaves()
    starts = parse_header(payload).leaf_starts
    broken = bytearray(payload)
    broken[starts[0]] ^= 1
    broken = bytearray(rehashed(bytes(broken)))
    broken[-1] ^= 1
    with pytest.raises(PayloadError) as refusal:
        decoded(bytes(broken))
    assert refusal.value.reason == "not_canonical"


def test_leaves_in_another_order_are_refused() -> None:
    _, payload = three_leaves()
    starts = parse_header(payload).leaf_starts
    swapped = bytearray(payload)
    # The two full leaves with their table lines: only the order is wrong.
    swapped[28:100] = payload[64:100] + payload[28:64]
    swapped[starts[0] : starts[2]] = payload[starts[1] : starts[2]] + payload[starts[0] : starts[1]]
    with pytest.raises(PayloadError) as refusal:
        decoded(bytes(swapped))
    assert refusal.value.reason == "not_canonical"


def test_a_leaf_of_another_length_than_its_record_is_refused() -> None:
    _, payload = three_leaves()
    header = parse_header(payload)
    leaf = payload[header.leaf_starts[0] : header.leaf_starts[1]]
    longer = Header(header.preamble, (LeafRecord(len(leaf) + 1, header.leaves[0].digest), *header.leaves[1:]))
    for claimed, raw in ((header, b""), (longer, leaf)):
        with pytest.raises(PayloadError) as refusal:
            decode_leaf(claimed, 0, raw)
        assert refusal.value.reason == "digest"


def test_the_largest_magnitude_fits_both_value_types() -> None:
    update = SparseUpdate(10, np.array([1, 2]), np.array([VALUE_MAX, -VALUE_MAX]))
    for value_type in ("int8", "fp32"):
        payload = pack_update(update, value_type=value_type, grid_exponent=0)
        read = decode_update(payload, coordinates=10, nonzeros=2, value_type=value_type, grid_exponent=0)
        assert read.values.tolist() == [VALUE_MAX, -VALUE_MAX]
