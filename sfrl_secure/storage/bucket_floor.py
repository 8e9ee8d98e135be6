"""The floor of a journal in a bucket: below which index everything was dropped, who opened the log last, and marks.

A mark is an index at which a process that has opened the log may still append: see `bucket_journal`. Marks are kept
one by one, as far as that is bounded; beyond it the lowest ones become a range. To mark too much costs an empty object
a batch, and nothing else.

Object: the floor in decimal, a space, the run of the process that opened the log last (16 bytes in hex), a space, the
marks as `first-last` with commas between them, ascending, a line feed. A floor without marks is of a log that was never
opened, or was by a version that knew none: there everything counts as marked.

Runs in: audit_log.
Trusts: nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from sfrl_secure.errors import MalformedError
from sfrl_secure.storage.bucket_batch import RUN_BYTES

FLOOR_BYTES_MAX = 4096

RANGES_MAX = 64
"""Ranges of marks that a floor names. More than one mark is rare: see `bucket_journal`."""

_NUMBER = rb"(?:0|[1-9][0-9]{0,18})"
_RANGE = _NUMBER + rb"-" + _NUMBER
_FLOOR = re.compile(
    rb"(%b) ([0-9a-f]{%d})(?: (%b(?:,%b){0,%d}))?\n" % (_NUMBER, 2 * RUN_BYTES, _RANGE, _RANGE, RANGES_MAX - 1)
)
_ALL = (range(10**19),)


@dataclass(frozen=True, slots=True)
class Floor:
    """What the object says.

    Attributes:
        first_index: everything below it was dropped.
        run: of the process that opened the log last.
        marked: where a process may still append; 1 to 64 ranges, ascending.
    """

    first_index: int
    run: bytes
    marked: tuple[range, ...]

    def is_marked(self, index: int) -> bool:
        """Whether a process that has opened the log may still append at `index`."""
        return any(index in marks for marks in self.marked)


def ranges_of(marks: Sequence[int]) -> tuple[range, ...]:
    """Give ranges that hold `marks`, ascending: each alone, the lowest ones together where there are too many."""
    alone = [range(mark, mark + 1) for mark in marks[-RANGES_MAX:]]
    return (range(marks[0], alone[0].stop), *alone[1:])


def encode_floor(floor: Floor) -> bytes:
    """Give the object."""
    marked = ",".join(f"{marks.start}-{marks.stop - 1}" for marks in floor.marked)
    return f"{floor.first_index} {floor.run.hex()} {marked}\n".encode()


def parse_floor(raw: bytes) -> Floor:
    """Read the object, of at most `FLOOR_BYTES_MAX` bytes.

    Raises:
        MalformedError: it is none.
    """
    matched = _FLOOR.fullmatch(raw)
    if matched is None:
        raise MalformedError("the journal's floor is no number, or names no marks")
    marked = _ALL if matched[3] is None else tuple(_parse_range(marks) for marks in matched[3].split(b","))
    if any(after.start < before.stop for before, after in pairwise(marked)) or not all(marked):
        raise MalformedError("the marks of the journal's floor do not ascend")
    return Floor(int(matched[1]), bytes.fromhex(matched[2].decode()), marked)


def _parse_range(raw: bytes) -> range:
    first, last = raw.split(b"-")
    return range(int(first), int(last) + 1)


FLOOR_OF_A_NEW_LOG = f"0 {bytes(RUN_BYTES).hex()}\n".encode()
"""Never opened, so without marks; the same bytes each time, so that an interrupted creation can be asked for again."""
