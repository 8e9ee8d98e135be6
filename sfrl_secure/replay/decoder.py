"""The payload codec, read leaf by leaf: coordinates and grid integers, or the reason of the first rule that is broken.

Whole arrays where a leaf has thousands of values, nothing cleverer. No more than one leaf is unpacked at a time: a
caller who keeps no part needs memory for one, whatever the payload's length.

Format: proto/README.md, "Codec".

Runs in: verifier.
Trusts: nothing. What is expected comes from the signed statement and the round's terms.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.replay.payload_codes import Fields, Integers, check_parameters, read_rice
from sfrl_secure.replay.payload_header import LEAF, Expected, Header, parse_header, refuse
from sfrl_secure.replay.payload_values import read_values

_SKIP_PARAMETER_MAX: Final = 30


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """What one leaf says.

    Attributes:
        at: the coordinates, strictly ascending: int64, shape (k,), or the range of them where they are all there.
        values: int64, shape (k,), grid units; empty in a mask.
    """

    at: Integers | slice
    values: Integers

    @property
    def end(self) -> int:
        """The coordinate behind the last one."""
        return self.at.stop if isinstance(self.at, slice) else int(self.at[-1]) + 1

    def within(self, start: int, stop: int) -> Part:
        """What the part says of the coordinates from `start` to before `stop`; it may be nothing."""
        if isinstance(self.at, slice):
            low = min(max(start, self.at.start), self.at.stop)
            high = max(low, min(stop, self.at.stop))
            return Part(slice(low, high), self.values[low - self.at.start : high - self.at.start])
        first, last = np.searchsorted(self.at, (start, stop))
        return Part(self.at[first:last], self.values[first:last])

    def touched(self) -> tuple[Integers, Integers]:
        """The coordinates whose value is not zero, and those values."""
        where = np.flatnonzero(self.values != 0)
        if isinstance(self.at, slice):
            return where + self.at.start, self.values[where]
        return self.at[where], self.values[where]


def decode_parts(payload: bytes, expected: Expected) -> Iterator[Part]:
    """Decode a payload, and refuse whatever is not the one encoding of its update.

    What has been given of a payload counts for nothing until its end is reached.

    Raises:
        PayloadError: with the reason of the first rule that is broken.
    """
    header = parse_header(payload, expected)
    at, base = header.begin, 0
    for number, length in enumerate(header.lengths):
        part = decode_leaf(memoryview(payload)[at : at + length], number, header, expected, base)
        yield part
        at, base = at + length, part.end


def decode_leaf(leaf: memoryview, number: int, header: Header, expected: Expected, base: int) -> Part:
    """Decode a leaf whose payload has this header, and refuse whatever is not the one encoding of its values.

    Args:
        base: in free mode, the coordinate from which on the leaf's are: behind the last one of the leaf before.

    Raises:
        PayloadError: with the reason of the first rule that is broken, from L1 on.
    """
    hashed = hashlib.sha256(b"\0")
    hashed.update(leaf)
    if hashed.digest() != header.hashes[number]:
        refuse("L1", "digest", "a leaf has the hash that the table says")
    fields, count, first = Fields(leaf), header.counts[number], LEAF * number
    where: Integers | slice = slice(first, first + count)
    if expected.support == "free":
        where = _read_indices(fields, count, base, expected.coordinates)
    elif expected.support == "agreed":
        assert expected.mask is not None, "the header is that of an agreed payload"
        assert expected.mask.indices is not None, "the header names the mask"
        where = expected.mask.indices[where]
    values = read_values(fields, count, expected)
    if fields.left:
        refuse("L4", "length", "nothing follows a leaf's values")
    return Part(where, values)


def _read_indices(fields: Fields, count: int, base: int, coordinates: int) -> NDArray[np.int64]:
    """The coordinates of a leaf that names its own: L2, R1 to R4, L3, R5."""
    if int.from_bytes(fields.take(4, "L2"), "little") != base:
        refuse("L2", "not_canonical", "a leaf begins where the one before ended")
    skips, parameters = read_rice(fields, count, _SKIP_PARAMETER_MAX)
    indices = base - 1 + np.cumsum(skips + 1)
    if int(indices[-1]) >= coordinates:
        refuse("L3", "out_of_range", "the last index is a coordinate of the model")
    check_parameters(skips, parameters)
    return indices


def decode_mask_indices(raw: bytes, coordinates: int, nonzeros: int) -> Integers:
    """Decode the coordinates of a mask object, whose digest the caller has checked.

    Raises:
        PayloadError: not the one encoding of a mask of so many of so many coordinates.
    """
    expected = Expected(coordinates, nonzeros, "free", "none", 0, None)
    parts = [part.at for part in decode_parts(raw, expected) if not isinstance(part.at, slice)]
    return np.concatenate([np.zeros(0, np.int64), *parts])
