"""Sums over the coordinates of a model, in one reading of the updates, whichever order they come in.

Format: proto/README.md, "Rules".

Runs in: verifier.
Trusts: nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.replay.arithmetic import divide_half_even, pieces
from sfrl_secure.replay.counted import Counted
from sfrl_secure.replay.payload_codes import Integers


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """What was added up, each of shape (coordinates,), and None where nobody asked for it.

    Attributes:
        values: int64, sum of weight times value; |value| <= 2**40 and weights of at most 2**22 stay below 2**62.
        weights: int32, sum of the weights of those that carry the coordinate.
        carriers: uint16, how many carry it; `votes`, how many of them have a value there that is not 0.
        weight: sum of all weights.
    """

    values: Integers
    weights: NDArray[np.int32] | None
    carriers: NDArray[np.uint16] | None
    votes: NDArray[np.uint16] | None
    weight: int

    def mean(self) -> Integers:
        """The sum over the weight of all: what an update does not carry is zero in it. Takes the place of the sum."""
        for at in self._not_zero():
            self.values[at] = divide_half_even(self.values[at], self.weight)
        return self.values

    def mean_of_carriers(self) -> Integers:
        """The sum over the weight of those that carry the coordinate, 0 where none does. Takes the place of the sum."""
        assert self.weights is not None, "they were asked for"
        for at in self._not_zero():
            self.values[at] = divide_half_even(self.values[at], self.weights[at].astype(np.int64))
        return self.values

    def _not_zero(self) -> Iterator[Integers]:
        """Where a sum is not 0: of all else the mean is 0."""
        for piece in pieces(len(self.values)):
            yield np.flatnonzero(self.values[piece] != 0) + piece.start


def sums_of(
    updates: Iterable[tuple[Counted, int]], coordinates: int, *, weights: bool = False, carriers: bool = False,
    votes: bool = False,
) -> Sums:  # fmt: skip
    """Add updates up, each with a weight.

    Args:
        weights, carriers, votes: whether these are asked for.

    Raises:
        Gone: a payload is there no more.
    """
    total = 0
    sums = Sums(
        np.zeros(coordinates, np.int64),
        np.zeros(coordinates, np.int32) if weights else None,
        np.zeros(coordinates, np.uint16) if carriers else None,
        np.zeros(coordinates, np.uint16) if votes else None,
        0,
    )
    for update, weight in updates:
        total += weight
        assert total <= 2**22, "the terms bound weights and cohort"
        for part in update.parts(0, coordinates):
            sums.values[part.at] += weight * part.values
            if sums.weights is not None:
                sums.weights[part.at] += weight
            if sums.carriers is not None:
                sums.carriers[part.at] += 1
            if sums.votes is not None:
                sums.votes[part.at] += part.values != 0
    return Sums(sums.values, sums.weights, sums.carriers, sums.votes, total)
