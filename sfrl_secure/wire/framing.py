"""Messages that are one long field of bytes, by hand: protobuf copies 1 MiB three times, and takes a hundred times as
long as one copy.

Only what we would write ourselves is taken here; whoever gets None lets protobuf say what it is.

Format: the wire format of protocol buffers, "Base 128 Varints" and "Length-Delimited Records".

Runs in: gatekeeper, participant.
Trusts: nothing.
"""

from __future__ import annotations

from sfrl_secure.errors import MalformedError

_VARINT_BYTES_MAX = 9
"""Of numbers below 2^63."""


def encode_varint(number: int) -> bytes:
    """Write a number.

    Raises:
        MalformedError: it is not from 0 to 2^63 - 1.
    """
    if not 0 <= number < 2**63:
        raise MalformedError("a number is from 0 to 2^63 - 1")
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)


def take_varint(raw: bytes, at: int) -> tuple[int, int]:
    """The number at a place, of which nothing is believed, and where it ends; 0 where no number ends in time."""
    number = 0
    for shift, byte in enumerate(raw[at : at + _VARINT_BYTES_MAX]):
        number |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            return number, at + shift + 1
    return 0, at


def frame_bytes(tag: bytes, data: bytes | memoryview) -> bytes:
    """Write a message whose one field, which is not empty, holds `data`: one copy."""
    assert len(data) > 0, "proto3 does not write an empty field"
    return b"".join((tag, encode_varint(len(data)), data))


def view_bytes(tag: bytes, raw: bytes) -> memoryview | None:
    """What the one field of a message holds, where it stands; None where `frame_bytes` would not write it so."""
    if raw[: len(tag)] != tag:
        return None
    length, at = take_varint(raw, len(tag))
    if length < 1 or len(raw) - at != length or raw[len(tag) : at] != encode_varint(length):
        return None
    return memoryview(raw)[at:]
