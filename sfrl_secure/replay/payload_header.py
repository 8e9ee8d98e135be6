"""A payload's beginning: what is expected of it, its preamble and its leaf table, and the root over both.

The rules bear their names in the specification (P1 to T4) and stand in its order. Whatever a payload claims is compared
with what was signed, and with the bytes that are there, before any leaf is looked at.

Format: proto/README.md, "Codec", payload and decoding.

Runs in: verifier.
Trusts: nothing. What is expected comes from the signed statement and the round's terms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NoReturn

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.errors import PayloadError
from sfrl_secure.ids import Digest
from sfrl_secure.translog.merkle import leaf_hash, root_of

VERSION: Final = 2
LEAF: Final = 65_536
BLOCK: Final = 64
SUPPORTS: Final = {1: "free", 2: "agreed", 3: "dense"}
VALUE_TYPES: Final = {0: "none", 1: "int8", 2: "fp32", 3: "bf16", 4: "sign", 5: "packed", 6: "exact"}
PREAMBLE_BYTES: Final = 28
ROW_BYTES: Final = 36

_MASK_DIGEST_BYTES: Final = 32
_COORDINATES_MAX: Final = 2**31
_GRID_MAX: Final = 40


@dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """The coordinates that agreed updates have.

    Attributes:
        indices: int64, strictly ascending; None where the object of that digest is no mask of the terms, so that no
            payload can have the expected one.
    """

    digest: Digest
    indices: NDArray[np.int64] | None


@dataclass(frozen=True, slots=True, eq=False)
class Expected:
    """What a payload has to be.

    Attributes:
        nonzeros: values that it carries.
        root: None for a mask, whose name its bytes already have.
        mask: set in agreed mode.
    """

    coordinates: int
    nonzeros: int
    support: str
    value_type: str
    grid_exponent: int
    root: Digest | None
    mask: Mask | None = None


@dataclass(frozen=True, slots=True)
class Header:
    """The leaf table, and where the first leaf begins; `counts` are the leaves' values."""

    begin: int
    lengths: tuple[int, ...]
    hashes: tuple[Digest, ...]
    counts: tuple[int, ...]


def refuse(rule: str, reason: str, message: str) -> NoReturn:
    """Refuse a payload for the first rule that it breaks.

    Raises:
        PayloadError: always.
    """
    raise PayloadError(reason, f"{rule}: {message}")


def header_bytes(expected: Expected) -> int:
    """How long preamble and leaf table of such a payload are."""
    mask_bytes = _MASK_DIGEST_BYTES if expected.support == "agreed" else 0
    return PREAMBLE_BYTES + mask_bytes + ROW_BYTES * -(-expected.nonzeros // LEAF)


def parse_header(raw: bytes, expected: Expected, payload_bytes: int | None = None) -> Header:
    """Read preamble and leaf table, and hold them against what is expected.

    Args:
        raw: a payload, or its first bytes.
        payload_bytes: length of the payload; without it, that of `raw`.

    Raises:
        PayloadError: with the reason of the first rule that is broken.
    """
    leaves = _check_preamble(raw)
    _check_expected(raw, expected)
    preamble_bytes = PREAMBLE_BYTES
    if expected.support == "agreed":
        preamble_bytes += _MASK_DIGEST_BYTES
        _check_mask(raw, expected)
    return _parse_table(raw, len(raw) if payload_bytes is None else payload_bytes, preamble_bytes, leaves, expected)


def _check_preamble(raw: bytes) -> int:
    """P1 to P4; gives the number of leaves."""
    if len(raw) < PREAMBLE_BYTES:
        refuse("P1", "length", f"a payload has {PREAMBLE_BYTES} bytes or more")
    version, support, value_type, grid = raw[4:8]
    is_known = raw[:4] == b"SFRU" and version == VERSION and support in SUPPORTS and value_type in VALUE_TYPES
    if not is_known or grid > _GRID_MAX or (VALUE_TYPES[value_type] == "none" and (support, grid) != (1, 0)):
        refuse("P2", "format", "magic, version, support mode, value type and grid exponent are ours")
    coordinates, nonzeros = _claimed(raw)
    if not 1 <= coordinates <= _COORDINATES_MAX or nonzeros > coordinates:
        refuse("P3", "shape", f"a model has 1 to {_COORDINATES_MAX} coordinates, and a payload not more values")
    if SUPPORTS[support] == "dense" and nonzeros != coordinates:
        refuse("P3", "shape", "a dense payload has a value of each coordinate")
    leaves = int.from_bytes(raw[24:28], "little")
    if leaves != -(-nonzeros // LEAF):
        refuse("P4", "not_canonical", f"every leaf but the last has {LEAF} values")
    return leaves


def _check_expected(raw: bytes, expected: Expected) -> None:
    """E1 to E3."""
    found = (SUPPORTS[raw[5]], VALUE_TYPES[raw[6]], raw[7])
    if found != (expected.support, expected.value_type, expected.grid_exponent):
        refuse("E1", "format", "support mode, value type and grid are those of the statement and the terms")
    coordinates, nonzeros = _claimed(raw)
    if coordinates != expected.coordinates:
        refuse("E2", "shape", "the coordinates are the model's")
    if nonzeros != expected.nonzeros:
        refuse("E3", "declared", "there are as many values as declared")


def _check_mask(raw: bytes, expected: Expected) -> None:
    """E4 to E6."""
    mask = expected.mask
    assert mask is not None, "the terms of agreed updates name a mask"
    end = PREAMBLE_BYTES + _MASK_DIGEST_BYTES
    if len(raw) < end:
        refuse("E4", "length", f"an agreed payload has {end} bytes or more")
    if mask.indices is None or raw[PREAMBLE_BYTES:end] != mask.digest:
        refuse("E5", "format", "the mask is that of the terms")
    if len(mask.indices) != expected.nonzeros:
        refuse("E6", "shape", "there is a value for each coordinate of the mask")


def _parse_table(raw: bytes, payload_bytes: int, preamble_bytes: int, leaves: int, expected: Expected) -> Header:
    """T1 to T4."""
    begin = preamble_bytes + ROW_BYTES * leaves
    if len(raw) < begin:
        refuse("T1", "length", "the leaf table is whole")
    rows = [raw[at : at + ROW_BYTES] for at in range(preamble_bytes, begin, ROW_BYTES)]
    lengths = tuple(int.from_bytes(row[:4], "little") for row in rows)
    counts = tuple(min(LEAF, expected.nonzeros - LEAF * number) for number in range(leaves))
    for length, count in zip(lengths, counts, strict=True):
        if not -(-count // 8) <= length <= 24 * count + 4_096:
            refuse("T2", "length", "a leaf's length is possible for its values")
    if begin + sum(lengths) != payload_bytes:
        refuse("T3", "length", "the leaves are the rest of the payload")
    hashes = tuple(Digest(row[4:]) for row in rows)
    first = leaf_hash(raw[:preamble_bytes] + b"".join(row[:4] for row in rows))
    if expected.root is not None and root_of([first, *hashes]) != expected.root:
        refuse("T4", "digest", "preamble, lengths and leaf hashes lead to the root that was signed")
    return Header(begin, lengths, hashes, counts)


def _claimed(raw: bytes) -> tuple[int, int]:
    """Coordinates and values, as the preamble says."""
    return int.from_bytes(raw[8:16], "little"), int.from_bytes(raw[16:24], "little")
