"""A payload's header: what it claims, and a length and a hash for each leaf.

The preamble is parsed and compared with what the signed statement and the terms say before anything else is read, so
that a claim of any size costs nothing. The leaf table follows. The root over preamble, lengths and leaf hashes is what
the statement binds: with the header at hand, each leaf is checked alone as it comes.

Rules P1 to P4 and T1 to T3 of the format are here, and the root that T4 compares.

Format: proto/README.md, "Codec". Tree: RFC 9162, section 2.1.

Runs in: gatekeeper, aggregator, participant.
Trusts: nothing.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, Literal

from sfrl_secure.errors import PayloadError
from sfrl_secure.ids import ZERO_DIGEST, Digest
from sfrl_secure.limits import COORDINATES_MAX, GRID_EXPONENT_MAX
from sfrl_secure.translog.merkle import leaf_hash, root_of

SupportMode = Literal["free", "agreed", "dense"]
ValueType = Literal["int8", "fp32", "bf16", "sign", "packed", "exact"]
NO_VALUES: Final = "none"
"""The value type of a mask, which is no update: see `mask`."""

MAGIC: Final = b"SFRU"
CODEC_VERSION: Final = 2
SUPPORT_MODE_NUMBERS: Final[dict[str, int]] = {"free": 1, "agreed": 2, "dense": 3}
SUPPORT_MODES: Final[dict[int, str]] = {number: name for name, number in SUPPORT_MODE_NUMBERS.items()}
VALUE_TYPE_NUMBERS: Final[dict[str, int]] = {
    NO_VALUES: 0, "int8": 1, "fp32": 2, "bf16": 3, "sign": 4, "packed": 5, "exact": 6,
}
VALUE_TYPES: Final[dict[int, str]] = {number: name for name, number in VALUE_TYPE_NUMBERS.items()}

BLOCK_VALUES: Final = 64
LEAF_VALUES: Final = 65_536

_PREAMBLE = struct.Struct("<4sBBBBQQI")
_LEAF = struct.Struct("<I32s")
PREAMBLE_BYTES: Final = _PREAMBLE.size
"""28: the part of the preamble that every payload has."""
AGREED_PREAMBLE_BYTES: Final = PREAMBLE_BYTES + 32
"""60: in agreed mode the mask's digest follows."""
LEAF_RECORD_BYTES: Final = _LEAF.size


@dataclass(frozen=True, slots=True)
class Preamble:
    """What the first 28 bytes claim, and in agreed mode the digest behind them.

    Attributes:
        support: `free`, `agreed` or `dense`.
        value_type: how values are written; `none` for a mask.
        grid_exponent: the grid is 2**-grid_exponent, 0 to `GRID_EXPONENT_MAX`.
        coordinates: coordinates of the model, 1 to `COORDINATES_MAX`.
        nonzeros: values in the payload, at most `coordinates`.
        mask_digest: SHA-256 of the mask; `ZERO_DIGEST` in every mode but agreed.
    """

    support: str
    value_type: str
    grid_exponent: int
    coordinates: int
    nonzeros: int
    mask_digest: Digest = ZERO_DIGEST

    @property
    def leaf_count(self) -> int:
        """Leaves: each but the last holds `LEAF_VALUES`; none where there are no values."""
        return -(-self.nonzeros // LEAF_VALUES)

    @property
    def preamble_bytes(self) -> int:
        """Length of the preamble; the leaf table begins here."""
        return AGREED_PREAMBLE_BYTES if self.support == "agreed" else PREAMBLE_BYTES

    @property
    def header_bytes(self) -> int:
        """Length of preamble and leaf table; the first leaf begins here."""
        return self.preamble_bytes + LEAF_RECORD_BYTES * self.leaf_count

    def leaf_values(self, leaf_index: int) -> int:
        """Values of leaf `leaf_index`, which is from 0 to `leaf_count` - 1."""
        return min(LEAF_VALUES, self.nonzeros - leaf_index * LEAF_VALUES)


@dataclass(frozen=True, slots=True)
class LeafRecord:
    """One line of the leaf table.

    Attributes:
        byte_length: length of the leaf.
        digest: SHA-256 of a zero byte and the leaf's bytes.
    """

    byte_length: int
    digest: Digest


@dataclass(frozen=True, slots=True)
class Header:
    """A whole header. Made by `parse_leaf_table`, or by the encoder.

    Attributes:
        preamble: the part before the table.
        leaves: one record for each leaf; each length is possible for the leaf's values.
    """

    preamble: Preamble
    leaves: tuple[LeafRecord, ...]

    @property
    def leaf_starts(self) -> tuple[int, ...]:
        """Where each leaf begins in the payload; the last item is the payload's whole length."""
        lengths = (record.byte_length for record in self.leaves)
        return tuple(accumulate(lengths, initial=self.preamble.header_bytes))

    @property
    def root(self) -> Digest:
        """The tree hash over preamble and lengths, then the leaf hashes: what a statement binds."""
        lengths = struct.pack(f"<{len(self.leaves)}I", *(record.byte_length for record in self.leaves))
        first = leaf_hash(write_preamble(self.preamble) + lengths)
        return root_of([first, *(record.digest for record in self.leaves)])


def parse_preamble(raw: bytes | bytearray | memoryview) -> Preamble:
    """Parse the first 28 bytes of a payload; `raw` may hold any number of further bytes. Rules P1 to P4.

    In agreed mode the mask's digest is left at `ZERO_DIGEST`: `check_expected` reads it after it has compared the rest.

    Raises:
        PayloadError: `length`, `format`, `shape` or `not_canonical`.
    """
    if len(raw) < PREAMBLE_BYTES:
        raise PayloadError("length", f"a payload begins with {PREAMBLE_BYTES} bytes")
    magic, version, mode_number, type_number, grid_exponent, coordinates, nonzeros, leaf_count = (
        _PREAMBLE.unpack_from(raw))
    if magic != MAGIC or version != CODEC_VERSION:
        raise PayloadError("format", f"not a payload of codec version {CODEC_VERSION}")
    support, value_type = SUPPORT_MODES.get(mode_number), VALUE_TYPES.get(type_number)
    if support is None or value_type is None:
        raise PayloadError("format", "no such support mode or value type")
    if grid_exponent > GRID_EXPONENT_MAX:
        raise PayloadError("format", f"a grid exponent is at most {GRID_EXPONENT_MAX}")
    if value_type == NO_VALUES and (support != "free" or grid_exponent):
        raise PayloadError("format", "a mask is of free mode and has grid exponent 0")
    if not 1 <= coordinates <= COORDINATES_MAX:
        raise PayloadError("shape", f"a model has 1 to {COORDINATES_MAX} coordinates")
    if nonzeros > coordinates or (support == "dense" and nonzeros != coordinates):
        raise PayloadError("shape", "a payload has at most one value for each coordinate, in dense mode exactly one")
    preamble = Preamble(support, value_type, grid_exponent, coordinates, nonzeros)
    if leaf_count != preamble.leaf_count:
        raise PayloadError("not_canonical", f"every leaf but the last holds {LEAF_VALUES} values")
    return preamble


def parse_leaf_table(raw: bytes | bytearray | memoryview, preamble: Preamble, payload_bytes: int) -> Header:
    """Parse the leaf table that follows `preamble` in `raw`, which may end anywhere after it. Rules T1 to T3.

    The caller has compared the preamble with what it expects: the table takes memory in proportion to it.

    Args:
        raw: the beginning of the payload, or all of it.
        preamble: what `check_expected` returned.
        payload_bytes: length of the whole payload.

    Raises:
        PayloadError: `length`.
    """
    if min(len(raw), payload_bytes) < preamble.header_bytes:
        raise PayloadError("length", "the payload ends inside its leaf table")
    leaves = []
    total = preamble.header_bytes
    table = memoryview(raw)[preamble.preamble_bytes : total]
    for leaf_index, (byte_length, digest) in enumerate(_LEAF.iter_unpack(table)):
        shortest, longest = leaf_byte_bounds(preamble.leaf_values(leaf_index))
        if not shortest <= byte_length <= longest:
            raise PayloadError("length", f"this leaf has {shortest} to {longest} bytes")
        leaves.append(LeafRecord(byte_length, Digest(digest)))
        total += byte_length
    if total != payload_bytes:
        raise PayloadError("length", "the payload ends with its last leaf")
    return Header(preamble, tuple(leaves))


def write_preamble(preamble: Preamble) -> bytes:
    """Write a preamble: 28 bytes, or 60 in agreed mode."""
    first = _PREAMBLE.pack(MAGIC, CODEC_VERSION, SUPPORT_MODE_NUMBERS[preamble.support],
                           VALUE_TYPE_NUMBERS[preamble.value_type], preamble.grid_exponent, preamble.coordinates,
                           preamble.nonzeros, preamble.leaf_count)
    return first + preamble.mask_digest if preamble.support == "agreed" else first


def write_header(header: Header) -> bytes:
    """Write preamble and leaf table."""
    records = (_LEAF.pack(record.byte_length, record.digest) for record in header.leaves)
    return write_preamble(header.preamble) + b"".join(records)


def payload_leaf_hash(parts: list[bytes | memoryview]) -> Digest:
    """Hash one leaf, given in parts, as the table names it: SHA-256 of a zero byte and its bytes."""
    hasher = hashlib.sha256(b"\0")
    for part in parts:
        hasher.update(part)
    return Digest(hasher.digest())


def block_count(values: int) -> int:
    """Blocks of a leaf with `values`: each but the last holds `BLOCK_VALUES`."""
    return -(-values // BLOCK_VALUES)


def leaf_byte_bounds(values: int) -> tuple[int, int]:
    """Return the shortest and the longest leaf of `values`, whatever its mode and type are."""
    return -(-values // 8), 24 * values + 4_096
