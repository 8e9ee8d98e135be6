"""The replay's decoder against the codec's vectors, and what a payload may cost before and after it is believed."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfrl_secure.errors import PayloadError
from sfrl_secure.ids import Digest
from sfrl_secure.replay.decoder import decode_parts
from sfrl_secure.replay.payload_header import Expected

from .bad_payloads import MASK, UPDATE, written
from .memory import MIB, memory_below
from .payloads import assemble, payload_root, step_code


@pytest.mark.parametrize("support", ["free", "dense"])
def test_a_header_that_claims_a_large_model_takes_no_memory(support: str) -> None:
    mode = {"free": 1, "dense": 3}[support]
    hostile = b"SFRU" + bytes([2, mode, 1, 30]) + (2**31).to_bytes(8, "little") * 2 + (2**15).to_bytes(4, "little")
    expected = Expected(2**31, 2**31, support, "int8", 30, Digest(bytes(32)))
    with memory_below(MIB), pytest.raises(PayloadError):
        list(decode_parts(hostile, expected))


def test_a_leaf_that_claims_large_planes_takes_no_memory() -> None:
    leaf = bytes(4) + struct.pack("<HI", 61, 8) + step_code([30]) + bytes(53)
    payload = assemble(b"SFRU" + bytes([2, 1, 1, 10]) + struct.pack("<QQI", 2**31, 64, 1), [leaf])
    expected = Expected(2**31, 64, "free", "int8", 10, Digest(payload_root(payload)))
    with memory_below(MIB), pytest.raises(PayloadError):
        list(decode_parts(payload, expected))


def test_a_large_dense_update_is_read_a_leaf_at_a_time() -> None:
    count = 48 * 65_536
    leaf = struct.pack("<H", 128) + step_code([0] * 1024) + bytes(range(1, 65)) * 1024
    payload = assemble(b"SFRU" + bytes([2, 3, 1, 10]) + struct.pack("<QQI", count, count, 48), [leaf] * 48)
    expected = Expected(count, count, "dense", "int8", 10, Digest(payload_root(payload)))
    total = np.zeros(count, np.int64)
    with memory_below(8 * MIB):
        for part in decode_parts(payload, expected):
            total[part.at] += 3 * part.values
    assert total[:65].tolist() == [3 * (1 + i % 64) for i in range(65)]
    assert int(total.sum()) == 3 * 32.5 * count


@settings(deadline=None, max_examples=300)
@given(
    value_type=st.sampled_from(["int8", "fp32", "packed", "exact"]),
    support=st.sampled_from(["free", "agreed", "dense"]),
    data=st.data(),
)
def test_a_damaged_payload_is_refused_for_a_reason(value_type: str, support: str, data: st.DataObject) -> None:
    payload, expected = written(value_type, support)
    damaged = bytearray(payload)
    where = data.draw(st.integers(0, len(payload) - 1))
    damaged[where] ^= 1 << data.draw(st.integers(0, 7))
    cut = data.draw(st.integers(0, 3))
    # Every byte of a payload is under the signed root, so nothing that is damaged decodes.
    with pytest.raises(PayloadError):
        list(decode_parts(bytes(damaged[: len(payload) - cut]), expected))


def test_agreed_parts_name_the_coordinates_of_the_mask() -> None:
    (part,) = decode_parts(*written(support="agreed", update={90: 5}))
    assert not isinstance(part.at, slice)
    assert part.at.tolist() == MASK
    indices, values = part.touched()
    assert (indices.tolist(), values.tolist()) == ([90], [5])


def test_dense_parts_touch_where_their_values_are_not_zero() -> None:
    (part,) = decode_parts(*written(support="dense"))
    indices, values = part.touched()
    assert dict(zip(indices.tolist(), values.tolist(), strict=True)) == UPDATE
