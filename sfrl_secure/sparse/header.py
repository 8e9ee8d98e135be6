"""A payload's header: what it claims, and one record for each leaf.

The first 28 bytes (the preamble) are parsed and compared with what the update's signed statement declares before
anything else is read, so that a claim of any size costs nothing. The leaf table follows: length and SHA-256 of each
leaf, so that an upload resumes, a shard is fetched and a spot is checked alone.

Rules P1 to P4, E1 to E3 and T1 to T3 of the format are here, in that order: the first that is broken gives the reason.

Format: proto/README.md, "Codec".

Runs in: gatekeeper, aggregator, participant.
Trusts: nothing.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, Literal

from sfrl_secure.errors import PayloadError
from sfrl_secure.ids import Digest, parse_digest
from sfrl_secure.limits import COORDINATES_MAX, GRID_EXPONENT_MAX

ValueType = Literal["int8", "fp32"]

MAGIC: Final = b"SFRU"
CODEC_VERSION: Final = 1
SUPPORT_FREE: Final = 1
VALUE_TYPES: Final[dict[int, ValueType]] = {1: "int8", 2: "fp32"}
VALUE_TYPE_NUMBERS: Final[dict[str, int]] = {name: number for number, name in VALUE_TYPES.items()}
VALUE_BYTES: Final[dict[ValueType, int]] = {"int8": 1, "fp32": 4}

BLOCK_NONZEROS: Final = 128
LEAF_NONZEROS: Final = 65_536
RICE_PARAMETER_MAX: Final = 30
"""No canonical parameter is larger, since a model has at most 2**31 coordinates."""

_PREAMBLE = struct.Struct("<4sBBBBQQI")
_LEAF = struct.Struct("<I32s")
PREAMBLE_BYTES: Final = _PREAMBLE.size
LEAF_RECORD_BYTES: Final = _LEAF.size


@dataclass(frozen=True, slots=True)
class Preamble:
    """What the first 28 bytes claim. Made by `parse_preamble`, or by the encoder from an update.

    Attributes:
        value_type: how values are written.
        grid_exponent: the grid is 2**-grid_exponent, 0 to `GRID_EXPONENT_MAX`.
        coordinates: coordinates of the model, 1 to `COORDINATES_MAX`.
        nonzeros: coordinates in the update, at most `coordinates`.
    """

    value_type: ValueType
    grid_exponent: int
    coordinates: int
    nonzeros: int

    @property
    def leaf_count(self) -> int:
        """Leaves: each but the last holds `LEAF_NONZEROS`; none where there are no nonzeros."""
        return -(-self.nonzeros // LEAF_NONZEROS)

    @property
    def header_bytes(self) -> int:
        """Length of preamble and leaf table; the first leaf begins here."""
        return PREAMBLE_BYTES + LEAF_RECORD_BYTES * self.leaf_count

    def leaf_nonzeros(self, leaf_index: int) -> int:
        """Nonzeros of leaf `leaf_index`, which is from 0 to `leaf_count` - 1."""
        return min(LEAF_NONZEROS, self.nonzeros - leaf_index * LEAF_NONZEROS)


@dataclass(frozen=True, slots=True)
class LeafRecord:
    """One line of the leaf table.

    Attributes:
        byte_length: length of the leaf.
        digest: SHA-256 of the leaf's bytes.
    """

    byte_length: int
    digest: Digest


@dataclass(frozen=True, slots=True)
class Header:
    """A whole header. Made by `parse_header` and `parse_leaf_table`.

    Attributes:
        preamble: the first 28 bytes.
        leaves: one record for each leaf; each length is possible for the leaf's nonzeros and value type.
    """

    preamble: Preamble
    leaves: tuple[LeafRecord, ...]

    @property
    def leaf_starts(self) -> tuple[int, ...]:
        """Where each leaf begins in the payload; the last item is the payload's whole length."""
        lengths = (record.byte_length for record in self.leaves)
        return tuple(accumulate(lengths, initial=self.preamble.header_bytes))


def parse_preamble(raw: bytes) -> Preamble:
    """Parse the first 28 bytes of a payload; `raw` may hold any number of further bytes. Rules P1 to P4.

    Raises:
        PayloadError: `length`, `format`, `shape` or `not_canonical`.
    """
    if len(raw) < PREAMBLE_BYTES:
        raise PayloadError("length", f"a payload begins with {PREAMBLE_BYTES} bytes")
    magic, version, mode, type_number, grid_exponent, coordinates, nonzeros, leaf_count = _PREAMBLE.unpack_from(raw)
    value_type = VALUE_TYPES.get(type_number)
    if magic != MAGIC or version != CODEC_VERSION:
        raise PayloadError("format", f"not a payload of codec version {CODEC_VERSION}")
    if mode != SUPPORT_FREE:
        raise PayloadError("format", "the only support mode of this version is free")
    if value_type is None:
        raise PayloadError("format", "the value types of this version are int8 and fp32")
    if grid_exponent > GRID_EXPONENT_MAX:
        raise PayloadError("format", f"a grid exponent is at most {GRID_EXPONENT_MAX}")
    if not 1 <= coordinates <= COORDINATES_MAX:
        raise PayloadError("shape", f"a model has 1 to {COORDINATES_MAX} coordinates")
    if nonzeros > coordinates:
        raise PayloadError("shape", "an update has at most as many nonzeros as the model has coordinates")
    preamble = Preamble(value_type, grid_exponent, coordinates, nonzeros)
    if leaf_count != preamble.leaf_count:
        raise PayloadError("not_canonical", f"every leaf but the last holds {LEAF_NONZEROS} nonzeros")
    return preamble


def check_preamble(preamble: Preamble, *, coordinates: int, nonzeros: int, value_type: str,
                   grid_exponent: int) -> None:
    """Check that a payload claims what its signed statement and the round's terms say. Rules E1 to E3.

    Raises:
        PayloadError: `format`, `shape` or `declared`.
    """
    if preamble.value_type != value_type:
        raise PayloadError("format", "the value type is not the one that was declared")
    if preamble.grid_exponent != grid_exponent:
        raise PayloadError("format", "the grid is not the one of the terms")
    if preamble.coordinates != coordinates:
        raise PayloadError("shape", "the model has another number of coordinates")
    if preamble.nonzeros != nonzeros:
        raise PayloadError("declared", "the update has another number of nonzeros than was declared")


def parse_leaf_table(raw: bytes, preamble: Preamble) -> Header:
    """Parse the leaf table that follows `preamble` in `raw`, which may end anywhere after it. Rules T1 and T2.

    The caller has compared the preamble with what it expects: the table takes memory in proportion to it.

    Raises:
        PayloadError: `length`.
    """
    if len(raw) < preamble.header_bytes:
        raise PayloadError("length", "the payload ends inside its leaf table")
    leaves = []
    for leaf_index in range(preamble.leaf_count):
        byte_length, digest = _LEAF.unpack_from(raw, PREAMBLE_BYTES + leaf_index * LEAF_RECORD_BYTES)
        shortest, longest = leaf_byte_bounds(preamble.leaf_nonzeros(leaf_index), preamble.value_type)
        if not shortest <= byte_length <= longest:
            raise PayloadError("length", f"this leaf has {shortest} to {longest} bytes")
        leaves.append(LeafRecord(byte_length, parse_digest(digest)))
    return Header(preamble, tuple(leaves))


def parse_header(raw: bytes) -> Header:
    """Parse the header at the beginning of `raw`, which may be a whole payload or a prefix of one.

    For bytes from a peer, call `parse_preamble` and `check_preamble` first, as `decode_update` does.

    Raises:
        PayloadError: as `parse_preamble` and `parse_leaf_table`.
    """
    return parse_leaf_table(raw, parse_preamble(raw))


def write_header(header: Header) -> bytes:
    """Write a header, byte for byte what `parse_header` takes."""
    preamble = header.preamble
    first = _PREAMBLE.pack(MAGIC, CODEC_VERSION, SUPPORT_FREE, VALUE_TYPE_NUMBERS[preamble.value_type],
                           preamble.grid_exponent, preamble.coordinates, preamble.nonzeros, len(header.leaves))
    return first + b"".join(_LEAF.pack(record.byte_length, record.digest) for record in header.leaves)


def block_count(nonzeros: int) -> int:
    """Blocks of a leaf with `nonzeros`: each but the last holds `BLOCK_NONZEROS`."""
    return -(-nonzeros // BLOCK_NONZEROS)


def unary_byte_bounds(nonzeros: int) -> tuple[int, int]:
    """Return the shortest and the longest unary plane of a leaf with `nonzeros`.

    Each nonzero ends with a one bit. A block's parameter b keeps its span below 2**(b+1) * count * 1024/985, so its
    quotients add up to less than 2.08 bits a nonzero, and four bits a nonzero hold any canonical plane.
    """
    return -(-nonzeros // 8), -(-nonzeros // 2)


def leaf_byte_bounds(nonzeros: int, value_type: ValueType) -> tuple[int, int]:
    """Return the shortest and the longest leaf of `nonzeros`, whatever its support is."""
    fixed = leaf_fixed_bytes(nonzeros, value_type)
    shortest, longest = unary_byte_bounds(nonzeros)
    planes = block_count(nonzeros) * RICE_PARAMETER_MAX * BLOCK_NONZEROS // 8
    return fixed + shortest, fixed + planes + longest


def leaf_fixed_bytes(nonzeros: int, value_type: ValueType) -> int:
    """Length of a leaf's part before the bit planes: base, parameters, scales (int8 only), values."""
    scales = block_count(nonzeros) if value_type == "int8" else 0
    return 4 + block_count(nonzeros) + scales + VALUE_BYTES[value_type] * nonzeros
