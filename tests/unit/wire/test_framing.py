"""Long fields written by hand are what protobuf writes, and nothing else is taken."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sfrl_secure.wire.framing import encode_varint, frame_bytes, take_varint, view_bytes
from sfrl_secure.wire.gen.sfrl.gatekeeper.v1 import gatekeeper_service_pb2 as messages

TAG = b"\x12"
"""Field 2 of FetchModelResponse."""


@given(st.binary(min_size=1, max_size=900) | (st.integers(126, 129) | st.integers(16_382, 16_386)).map(bytes))
def test_what_is_framed_by_hand_is_what_protobuf_writes(data: bytes) -> None:
    raw = frame_bytes(TAG, data)
    assert raw == messages.FetchModelResponse(chunk=data).SerializeToString()
    assert view_bytes(TAG, raw) == data


def test_a_view_is_of_the_message_and_no_copy() -> None:
    raw = frame_bytes(TAG, b"chunk")
    view = view_bytes(TAG, raw)
    assert view is not None
    assert view.obj is raw


def test_what_we_would_write_otherwise_is_not_viewed() -> None:
    for raw in (
        b"",
        TAG,
        TAG + b"\x00",
        b"\x1a\x01x",
        TAG + b"\x02x",
        TAG + b"\x01xy",
        TAG + b"\x81\x00x",
        TAG + b"\x80" * 9 + b"x",
        TAG + b"\xff" * 12,
        TAG + b"\x01x" + TAG + b"\x01x",
    ):
        assert view_bytes(TAG, raw) is None, raw


@given(st.integers(0, 2**63 - 1), st.binary(max_size=3))
def test_a_number_is_taken_from_where_it_stands(number: int, before: bytes) -> None:
    raw = before + encode_varint(number) + b"\x80"
    assert take_varint(raw, len(before)) == (number, len(raw) - 1)
