"""What is measured on an update, while its leaves come: the facts of its admission, and what would betray examples.

All in exact integers, and in memory that grows with the model's tensors and never with the update. A coordinate is
touched where its value is not zero.

Format: proto/README.md, "Codec", decoding; "Policy"; "Leakage".

Runs in: verifier.
Trusts: nothing.
"""

from __future__ import annotations

from math import isqrt, prod
from typing import Final

import numpy as np

from sfrl_secure.replay.decoder import Part
from sfrl_secure.replay.leakage import Floor
from sfrl_secure.replay.manifest import Tensor
from sfrl_secure.replay.payload_codes import Integers
from sfrl_secure.replay.statements import Facts
from sfrl_secure.replay.terms import Terms

_HALF_BITS: Final = 21
_HALF: Final = 2**_HALF_BITS


class Meter:
    """Takes an update in leaf by leaf, and says what it was."""

    def __init__(self, terms: Terms) -> None:
        """Begin with nothing."""
        self._terms = terms
        self._count = 0
        self._touched = 0
        self._largest = 0
        self._squares = 0
        self._tensors: set[int] = set()
        tensors, floors = terms.manifest.tensors, terms.leakage
        self._rows = [RowMeter(floor, tensors[floor.position]) for floor in floors.rows]
        self._labels = [LabelMeter(floor, tensors[floor.position]) for floor in floors.labels]

    def add(self, part: Part) -> None:
        """Take the next leaf in."""
        self._count += len(part.values)
        indices, values = part.touched()
        if len(indices) == 0:
            return
        self._touched += len(indices)
        self._largest = max(self._largest, int(np.abs(values).max()))
        self._squares += sum_of_squares(values)
        self._tensors.update(self._terms.manifest.touched(indices))
        for rows in self._rows:
            rows.add(indices, values)
        for labels in self._labels:
            labels.add(indices, values)

    def facts(self) -> Facts:
        """What the admission has to say of all leaves so far."""
        return Facts(
            nonzeros=self._count,
            density_ppm=self._count * 1_000_000 // self._terms.manifest.coordinates,
            norm=isqrt(self._squares),
            largest_magnitude=self._largest,
            tensors=tuple(sorted(self._tensors)),
        )

    def leak_reason(self, noise_std: int) -> str:
        """Give the reason for which the update would betray too much, empty where there is none.

        Args:
            noise_std: what the header claims.
        """
        if self._touched < self._terms.leakage.nonzeros_min:
            return "leak_coordinates"
        if any(meter.is_below for meter in self._rows):
            return "leak_rows"
        if any(meter.is_below for meter in self._labels):
            return "leak_labels"
        if noise_std and 4 * self._squares < self._count * noise_std**2:
            return "leak_noise"
        return ""


class RowMeter:
    """The indices along an axis of a tensor that an update touches."""

    def __init__(self, floor: Floor, tensor: Tensor) -> None:
        """Begin with none."""
        self._floor, self._tensor = floor, tensor
        self._seen = np.zeros(tensor.shape[floor.axis], np.bool_)

    def add(self, indices: Integers, values: Integers) -> None:
        """Take touched coordinates of the model in, ascending, and their values."""
        along, _ = _along(self._floor, self._tensor, indices, values)
        self._seen[along] = True

    @property
    def is_below(self) -> bool:
        """The tensor is touched, at fewer different indices than the floor asks for."""
        return 0 < int(self._seen.sum()) < self._floor.least


class LabelMeter:
    """The sum of an update's values at each index along an axis of a tensor.

    Up to 2**31 values of 2**40 leave 64 bits: a sum is kept as `high` * 2**21 + `low`.
    """

    def __init__(self, floor: Floor, tensor: Tensor) -> None:
        """Begin with sums of 0."""
        self._floor, self._tensor = floor, tensor
        self._high: Integers = np.zeros(tensor.shape[floor.axis], np.int64)
        self._low: Integers = np.zeros(tensor.shape[floor.axis], np.int64)
        self._is_touched = False

    def add(self, indices: Integers, values: Integers) -> None:
        """Take touched coordinates of the model in, ascending, and their values."""
        along, values = _along(self._floor, self._tensor, indices, values)
        self._is_touched = self._is_touched or len(along) > 0
        np.add.at(self._high, along, values >> _HALF_BITS)
        np.add.at(self._low, along, values & (_HALF - 1))

    @property
    def is_below(self) -> bool:
        """The tensor is touched, and fewer sums are raised, or lowered, by more than an eighth than the floor asks."""
        if not self._is_touched:
            return False
        high = self._high + (self._low >> _HALF_BITS)
        low = self._low & (_HALF - 1)
        top, bottom = int(high.max()), int(high.min())
        most = top * _HALF + int(low[high == top].max())
        least = bottom * _HALF + int(low[high == bottom].min())
        # 8 * s > M says of an integer s that it is above floor(M / 8).
        eighth = max(most, -least) // 8
        over, rest = divmod(eighth, _HALF)
        raised = (high > over) | ((high == over) & (low > rest))
        under, rest = divmod(-eighth, _HALF)
        lowered = (high < under) | ((high == under) & (low < rest))
        return int(raised.sum()) < self._floor.least or int(lowered.sum()) < self._floor.least


def _along(floor: Floor, tensor: Tensor, indices: Integers, values: Integers) -> tuple[Integers, Integers]:
    """Of each coordinate that is the tensor's: its index along the floor's axis, and its value."""
    begin, end = np.searchsorted(indices, (tensor.start, tensor.end))
    behind = prod(tensor.shape[floor.axis + 1 :])
    along = (indices[begin:end] - tensor.start) // behind % tensor.shape[floor.axis]
    return along, values[begin:end]


def sum_of_squares(values: Integers) -> int:
    """Add up squares of a leaf beyond 64 bits: each |value| <= 2**40 is cut into a high and a low half of 21 bits."""
    magnitudes = np.abs(values)
    high, low = magnitudes >> _HALF_BITS, magnitudes & (_HALF - 1)
    # Sums of at most 2**16 products of two numbers below 2**21 stay below 2**58.
    crossed = int((high * low).sum()) << (_HALF_BITS + 1)
    return (int((high * high).sum()) << 2 * _HALF_BITS) + crossed + int((low * low).sum())
