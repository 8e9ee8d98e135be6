"""One update that is added up: what a rule sees of it, and nothing of who sent it.

A rule asks for ranges of coordinates, in any order, again and again, from several threads: an update may be in memory,
or be read from its object each time. Whatever it gives is checked before it is added, by `checked_parts`.

Format: proto/README.md, "Aggregation".

Runs in: aggregator.
Trusts: its callers for tie, weight and norm, which they took from the log.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Protocol

from sfrl_secure.aggregation.parts import check_part, cut_part
from sfrl_secure.ids import Digest, sha256
from sfrl_secure.sparse.update import SparseUpdate, UpdatePart, sum_of_squares


class Contribution(Protocol):
    """One update of a cohort, in grid units."""

    @property
    def tie(self) -> Digest:
        """What decides between equals: see `tie_of`. No two of a cohort have the same."""
        ...

    @property
    def weight(self) -> int:
        """At least 1; all weights of a cohort together at most `WEIGHT_SUM_MAX`."""
        ...

    @property
    def norm(self) -> int:
        """The measured norm of the entry: the square root of the sum of squares, rounded down, before any clip."""
        ...

    @property
    def nonzeros(self) -> int:
        """Values that its payload carries."""
        ...

    def parts(self, start: int, stop: int) -> Iterator[UpdatePart]:
        """What it carries of the coordinates from `start` to before `stop`, in order, and nothing else.

        May be asked for again and again, from several threads at once, and gives the same each time.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class HeldUpdate:
    """An update in memory.

    Attributes:
        held: its parts, in order, over the whole model.
    """

    tie: Digest
    weight: int
    norm: int
    held: tuple[UpdatePart, ...]

    @property
    def nonzeros(self) -> int:
        """Values that it carries."""
        return sum(part.count for part in self.held)

    def parts(self, start: int, stop: int) -> Iterator[UpdatePart]:
        """See `Contribution`."""
        for part in self.held:
            cut = cut_part(part, start, stop)
            if cut.count:
                yield cut


def held(tie: Digest, weight: int, update: SparseUpdate | UpdatePart | Sequence[UpdatePart]) -> HeldUpdate:
    """Hold an update, with the norm that a measurement of it gives."""
    if isinstance(update, SparseUpdate):
        parts: tuple[UpdatePart, ...] = (UpdatePart(update.indices, update.values),)
    else:
        parts = (update,) if isinstance(update, UpdatePart) else tuple(update)
    return HeldUpdate(tie, weight, isqrt(sum(sum_of_squares(part.values) for part in parts)), parts)


def tie_of(round_opened: Digest, participant: str) -> Digest:
    """SHA-256 of a round's opening and a participant's name: an order of participants that nobody chose."""
    return sha256(round_opened + participant.encode())


def checked_parts(update: Contribution, start: int, stop: int) -> Iterator[UpdatePart]:
    """The parts of a range, each checked: it lies there, behind the one before, and its values are small enough.

    Raises:
        MalformedError: one does not.
    """
    for part in update.parts(start, stop):
        start = check_part(part, stop, start)
        yield part
