"""The updates that a round adds up, read from their objects: any range of coordinates, a leaf at a time.

Each of them was decoded whole when it was admitted, and found to be what was signed. Read again, every leaf is held
against the hash in the payload's table, and the table against the signed root: so no more than a leaf is in memory, and
nobody can put other bytes in its place between two readings.

Format: proto/README.md, "Aggregation", conventions and clip; "Codec".

Runs in: verifier.
Trusts: nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from sfrl_secure.errors import PayloadError
from sfrl_secure.ids import Digest
from sfrl_secure.replay.aggregation_terms import Clip
from sfrl_secure.replay.arithmetic import divide_half_even
from sfrl_secure.replay.decoder import Part, decode_leaf
from sfrl_secure.replay.docket import Docket
from sfrl_secure.replay.payload_codes import Integers
from sfrl_secure.replay.payload_header import Expected, header_bytes, parse_header

_SCALE: Final = 2**20


class Gone(Exception):
    """An object that was there and sound is there no more, or is another. Never leaves replay."""

    def __init__(self, digest: Digest) -> None:
        super().__init__("an object has changed while the log was read")
        self.digest = digest


class StoredUpdate:
    """A payload that was admitted, leaf by leaf."""

    def __init__(
        self, docket: Docket, digest: Digest, payload_bytes: int, expected: Expected, leaf_ends: Integers
    ) -> None:
        """Read the header again.

        Args:
            leaf_ends: of each leaf the coordinate behind its last one, as they were when the payload was decided.

        Raises:
            Gone: it is there no more.
        """
        self._docket, self._digest, self._expected, self._ends = docket, digest, expected, leaf_ends
        self._begins = np.concatenate([np.zeros(1, np.int64), leaf_ends])[:-1]
        try:
            raw = docket.read_at(digest, 0, header_bytes(expected))
            self._header = parse_header(raw, expected, payload_bytes)
        except PayloadError:
            raise Gone(digest) from None
        self._counts = np.array(self._header.counts, np.int64)

    def at_most(self, start: int, stop: int) -> int:
        """A number that its values in a range of coordinates do not exceed."""
        overlaps = np.minimum(self._ends, stop) - np.maximum(self._begins, start)
        return int(np.clip(overlaps, 0, self._counts).sum())

    def parts(self, start: int, stop: int) -> Iterator[Part]:
        """What it carries of the coordinates from `start` to before `stop`, in order.

        Raises:
            Gone: it is there no more, or another payload is.
        """
        first = int(np.searchsorted(self._ends, start, side="right"))
        offset = self._header.begin + sum(self._header.lengths[:first])
        for number in range(first, len(self._ends)):
            base, length = int(self._begins[number]), self._header.lengths[number]
            if base >= stop:
                return
            leaf = memoryview(self._docket.read_at(self._digest, offset, length))
            try:
                part = decode_leaf(leaf, number, self._header, self._expected, base)
            except PayloadError:
                raise Gone(self._digest) from None
            yield part.within(start, stop)
            offset += length


@dataclass(frozen=True, slots=True, eq=False)
class Counted:
    """One of the updates that are added up.

    Attributes:
        position: in the round's counted list.
        tie: SHA-256 of round_opened and the participant's name.
        norm: as it was measured at the admission.
        factor: each value is multiplied by it and divided by 2**20; None where the values stay.
    """

    position: int
    tie: Digest
    weight: int
    norm: int
    stored: StoredUpdate
    factor: int | None = None

    def parts(self, start: int, stop: int) -> Iterator[Part]:
        """What it carries of the coordinates from `start` to before `stop`, after the clip.

        Raises:
            Gone: its payload is there no more.
        """
        for part in self.stored.parts(start, stop):
            if self.factor is None:
                yield part
            else:
                # |value| <= 2**40 and factor < 2**20.
                yield Part(part.at, divide_half_even(part.values * self.factor, _SCALE))


def clip_factors(clip: Clip | None, norms: Sequence[int]) -> list[int | None]:
    """By what the values of each update are multiplied, in units of 2**-20; None where they stay. "Clip".

    Args:
        norms: of all that are added up, one or more.
    """
    if clip is None:
        return [None] * len(norms)
    if clip.norm is not None:
        bound = clip.norm
    else:
        assert clip.median_ppm is not None, "a clip has one of the two"
        bound = sorted(norms)[(len(norms) - 1) // 2] * clip.median_ppm // 10**6
    return [_SCALE * bound // (norm + 1) if norm > bound else None for norm in norms]
