"""What a payload must be, from the signed statement and the round's terms: known before its first byte comes.

Rules E1 to E6 of the format are here.

Format: proto/README.md, "Codec".

Runs in: gatekeeper, aggregator, participant.
Trusts: its caller, who took all of it from a verified statement and the terms in force.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sfrl_secure.errors import PayloadError
from sfrl_secure.ids import Digest, parse_digest
from sfrl_secure.sparse.header import AGREED_PREAMBLE_BYTES, PREAMBLE_BYTES, Preamble, SupportMode, ValueType
from sfrl_secure.sparse.mask import Mask


@dataclass(frozen=True, slots=True)
class ExpectedPayload:
    """What the signed statement and the terms say of one payload.

    Attributes:
        coordinates: coordinates of the round's base model.
        nonzeros: values that the statement declares.
        support: mode that the statement declares.
        value_type: type that the statement declares.
        grid_exponent: the terms' grid is 2**-grid_exponent.
        payload_bytes: length that the statement declares.
        root: tree hash that the statement binds.
        mask: the terms' mask, in agreed mode and in no other.
    """

    coordinates: int
    nonzeros: int
    support: SupportMode
    value_type: ValueType
    grid_exponent: int
    payload_bytes: int
    root: Digest
    mask: Mask | None = None

    def __post_init__(self) -> None:
        # From our caller, never from a peer: the mask is the terms', and the mode was compared with the terms.
        assert (self.mask is not None) == (self.support == "agreed"), "a mask is there in agreed mode exactly"


def check_expected(preamble: Preamble, expected: ExpectedPayload) -> None:
    """Check that the first 28 bytes claim what is expected. Rules E1 to E3, and E4 for the length that was declared.

    Raises:
        PayloadError: `format`, `shape`, `declared` or `length`.
    """
    if preamble.support != expected.support:
        raise PayloadError("format", "the support mode is not the one that was declared")
    if preamble.value_type != expected.value_type:
        raise PayloadError("format", "the value type is not the one that was declared")
    if preamble.grid_exponent != expected.grid_exponent:
        raise PayloadError("format", "the grid is not the one of the terms")
    if preamble.coordinates != expected.coordinates:
        raise PayloadError("shape", "the model has another number of coordinates")
    if preamble.nonzeros != expected.nonzeros:
        raise PayloadError("declared", "the payload has another number of values than was declared")
    if preamble.support == "agreed" and expected.payload_bytes < AGREED_PREAMBLE_BYTES:
        raise PayloadError("length", f"in agreed mode a payload begins with {AGREED_PREAMBLE_BYTES} bytes")


def check_mask(preamble: Preamble, raw: bytes | bytearray | memoryview, expected: ExpectedPayload) -> Preamble:
    """Check the mask of a preamble that `check_expected` took, and return the whole preamble. Rules E5 and E6.

    Args:
        preamble: what the first 28 bytes say.
        raw: at least the preamble's bytes.
        expected: what is expected.

    Raises:
        PayloadError: `format` or `shape`.
    """
    if expected.mask is None:
        return preamble
    if raw[PREAMBLE_BYTES:AGREED_PREAMBLE_BYTES] != expected.mask.digest:
        raise PayloadError("format", "the update is of another mask than its round's: fetch that, and encode it again")
    if preamble.nonzeros != expected.mask.indices.size or preamble.coordinates != expected.mask.coordinates:
        raise PayloadError("shape", "an update has one value for each coordinate of the mask")
    return replace(preamble, mask_digest=parse_digest(expected.mask.digest))
