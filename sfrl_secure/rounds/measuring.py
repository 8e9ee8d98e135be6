"""Measuring an update while it comes: norm, largest magnitude, touched tensors, and what it would betray.

Parts come in the order of their coordinates. What is held is one number each, one bit a tensor, and what the guarded
axes take: nothing in proportion to the update. All of it is exact.

Format: proto/README.md, "Codec" (what is measured) and "Leakage".

Runs in: gatekeeper, aggregator, participant.
Trusts: the terms. Of the update, that its parts are a decoder's: in order, inside the model, of bounded magnitude.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import isqrt

import numpy as np

from sfrl_secure.errors import DeniedError
from sfrl_secure.governance.manifest import ModelManifest, TensorSpec
from sfrl_secure.governance.statements import MeasuredFacts
from sfrl_secure.governance.terms import LeakageBound, SegmentTerms
from sfrl_secure.rounds.leakage import LabelGuard, RowGuard
from sfrl_secure.sparse.update import UpdatePart, largest_magnitude, sum_of_squares


class UpdateMeter:
    """Measures one update. For one thread."""

    def __init__(self, terms: SegmentTerms) -> None:
        """Begin with nothing touched."""
        self._terms = terms
        manifest = terms.model.manifest
        self._offsets = np.asarray(manifest.offsets, dtype=np.int64)
        self._ends = np.append(self._offsets[1:], manifest.coordinates)
        self._count = 0
        self._touched_count = 0
        self._squares = 0
        self._largest = 0
        self._touched = np.zeros(len(manifest.tensors), dtype=np.bool_)
        self._rows = [(place, RowGuard(tensor, bound.axis, bound.least))
                      for place, tensor, bound in _guarded(manifest, terms.leakage.rows)]
        self._labels = [(place, LabelGuard(tensor, bound.axis, bound.least))
                        for place, tensor, bound in _guarded(manifest, terms.leakage.labels)]
        self._guarded = {place for place, _ in (*self._rows, *self._labels)}

    def add(self, part: UpdatePart) -> None:
        """Take in the next part of the update."""
        values = part.values
        if not values.size:
            return
        self._count += values.size
        largest = largest_magnitude(values)
        if not largest:
            return
        self._largest = max(self._largest, largest)
        self._squares += sum_of_squares(values)
        if self._touched_count < self._terms.leakage.nonzeros_min:
            self._touched_count += int(np.count_nonzero(values))
        for tensor, first, end in self._spans(part):
            if tensor in self._guarded:
                self._watch(tensor, part, first, end)
            elif not self._touched[tensor]:
                self._touched[tensor] = bool(values[first:end].any())

    def facts(self) -> MeasuredFacts:
        """What has come so far amounts to this."""
        return MeasuredFacts(
            nonzeros=self._count,
            density_ppm=self._count * 1_000_000 // self._terms.model.manifest.coordinates,
            norm=isqrt(self._squares),
            largest_magnitude=self._largest,
            tensors=tuple(int(tensor) for tensor in np.flatnonzero(self._touched)),
        )

    def check_leakage(self, noise_std: int) -> None:
        """Step 13, its end: coordinates, then rows, then labels, then noise. Everything has come.

        Args:
            noise_std: as the header claims it, in grid units; 0 for none.

        Raises:
            DeniedError: `leak_coordinates`, `leak_rows`, `leak_labels`, `leak_noise`.
        """
        least = self._terms.leakage.nonzeros_min
        if self._touched_count < least:
            raise DeniedError("leak_coordinates", f"fewer than {least} coordinates are touched")
        for _, row_guard in self._rows:
            row_guard.check()
        for _, label_guard in self._labels:
            label_guard.check()
        if noise_std > 0 and 4 * self._squares < self._count * noise_std**2:
            raise DeniedError("leak_noise", "the values are smaller than the noise that is claimed")

    def _spans(self, part: UpdatePart) -> Iterator[tuple[int, int, int]]:
        """Each tensor that the part has coordinates of, and where they begin and end in it."""
        if isinstance(part.at, slice):
            start, last = int(part.at.start), int(part.at.start) + part.values.size - 1
        else:
            start, last = int(part.at[0]), int(part.at[-1])
        lowest, highest = np.searchsorted(self._offsets, (start, last), side="right") - 1
        tensors = range(int(lowest), int(highest) + 1)
        ends = self._ends[lowest : highest + 1]
        if isinstance(part.at, slice):
            found = np.minimum(ends - start, part.values.size)
        else:
            found = np.searchsorted(part.at, ends)
        first = 0
        for tensor, end in zip(tensors, found.tolist(), strict=True):
            if end > first:
                yield tensor, first, end
            first = end

    def _watch(self, tensor: int, part: UpdatePart, first: int, end: int) -> None:
        """Show a guarded tensor's touched coordinates to its guards."""
        values = part.values[first:end]
        offset = int(self._offsets[tensor])
        if isinstance(part.at, slice):
            start = int(part.at.start) + first - offset
            positions = np.arange(start, start + values.size, dtype=np.int64)
        else:
            positions = part.at[first:end] - offset
        touched = np.flatnonzero(values)
        if touched.size < values.size:
            positions, values = positions[touched], values[touched]
        if not values.size:
            return
        self._touched[tensor] = True
        for place, row_guard in self._rows:
            if place == tensor:
                row_guard.add(positions, values)
        for place, label_guard in self._labels:
            if place == tensor:
                label_guard.add(positions, values)


def measured(terms: SegmentTerms, parts: Iterable[UpdatePart]) -> UpdateMeter:
    """Measure all parts of an update."""
    meter = UpdateMeter(terms)
    for part in parts:
        meter.add(part)
    return meter


def _guarded(
    manifest: ModelManifest, bounds: Iterable[LeakageBound]
) -> Iterator[tuple[int, TensorSpec, LeakageBound]]:
    """Each bound with its tensor and that one's place in the manifest."""
    places = {tensor.name: place for place, tensor in enumerate(manifest.tensors)}
    for bound in bounds:
        yield places[bound.tensor], manifest.tensors[places[bound.tensor]], bound
