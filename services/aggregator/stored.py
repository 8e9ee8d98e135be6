"""Updates whose rule has to see the whole cohort: judged as they come, and read again from the store, range by range.

A leaf decodes alone, and nothing of it is given before its hash is the one under the signed root: that it is canonical
was judged when the update was decided, of the very same bytes. So what the store holds by now may be missing, and is
asked for again later, but it cannot be another update.

Leaves that the next range needs too are kept decoded, as many as a fixed number of bytes holds: memory does not grow
with the participants.

Runs in: aggregator.
Trusts: the decision on each update. No object.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.aggregation.combined import Combined
from sfrl_secure.aggregation.contribution import tie_of
from sfrl_secure.aggregation.parts import cut_part
from sfrl_secure.aggregation.rules import combine
from sfrl_secure.errors import DigestError, PayloadError
from sfrl_secure.ids import ZERO_DIGEST, Digest
from sfrl_secure.rounds.state import Admission
from sfrl_secure.services.aggregator.payloads import RoundPayloads, Taken, side_by_side
from sfrl_secure.sparse.header import Header, Preamble, parse_leaf_table
from sfrl_secure.sparse.leaf import check_leaf, decode_leaf
from sfrl_secure.sparse.update import UpdatePart
from sfrl_secure.storage.object_reader import ObjectReader

DECODED_BYTES_MAX = 2**29
"""Decoded leaves that are kept: one of each of 500 updates, of 1 MiB where it has indices. With fewer, each range would
push out what the next one wants."""


class DecodedLeaves:
    """Leaves that were decoded last, by update and number. Safe for several threads."""

    def __init__(self, bytes_max: int = DECODED_BYTES_MAX) -> None:
        self._left = bytes_max
        self._leaves: OrderedDict[tuple[Digest, int], UpdatePart] = OrderedDict()
        self._lock = Lock()

    def get(self, tie: Digest, leaf_index: int) -> UpdatePart | None:
        """The leaf, if it is here."""
        with self._lock:
            found = self._leaves.get((tie, leaf_index))
            if found is not None:
                self._leaves.move_to_end((tie, leaf_index))
            return found

    def put(self, tie: Digest, leaf_index: int, part: UpdatePart) -> None:
        """Keep a leaf, in the place of those that nobody asked for the longest."""
        with self._lock:
            if (tie, leaf_index) in self._leaves:
                return
            self._leaves[tie, leaf_index] = part
            self._left -= _bytes_of(part)
            while self._left < 0:
                self._left += _bytes_of(self._leaves.popitem(last=False)[1])


class StoredUpdate:
    """A sound update in the store. See `Contribution`."""

    def __init__(
        self, payloads: RoundPayloads, admission: Admission, firsts: NDArray[np.int64], decoded: DecodedLeaves
    ) -> None:
        """Take an update that was decided.

        Args:
            firsts: the first coordinate of each of its leaves, as they were when it was decided.
            decoded: shared by the cohort.

        Raises:
            DigestError: the object has another header by now; and what reading raises.
        """
        self.tie = tie_of(payloads.round.opened, admission.update.participant)
        self.weight = admission.update.weight
        self.norm = admission.facts.norm
        self.nonzeros = admission.update.nonzeros
        self._payloads = payloads
        self._admission = admission
        self._firsts = firsts
        self._decoded = decoded
        self._mask = payloads.expected(admission).mask
        self._header = self._read_header()
        self._starts = self._header.leaf_starts

    def parts(self, start: int, stop: int) -> Iterator[UpdatePart]:
        """See `Contribution`.

        Raises:
            DigestError: the object is another by now; and what reading raises.
        """
        first = max(int(np.searchsorted(self._firsts, start, "right")) - 1, 0)
        end = int(np.searchsorted(self._firsts, stop, "left"))
        reader: ObjectReader | None = None
        try:
            for leaf_index in range(first, end):
                part = self._decoded.get(self.tie, leaf_index)
                if part is None:
                    reader = reader or self._payloads.open(self._admission)
                    part = self._read_leaf(reader, leaf_index)
                    if leaf_index == end - 1 and not _ends_before(part, stop):
                        self._decoded.put(self.tie, leaf_index, part)
                cut = cut_part(part, start, stop)
                if cut.count:
                    yield cut
        finally:
            if reader is not None:
                reader.close()

    def _read_header(self) -> Header:
        """The leaf table under the signed root; the preamble is what was expected, or the root would be another."""
        update, model = self._admission.update, self._payloads.round.terms.model
        preamble = Preamble(
            update.format.support, update.format.values, model.grid_exponent, model.manifest.coordinates,
            update.nonzeros, ZERO_DIGEST if self._mask is None else self._mask.digest,
        )  # fmt: skip
        with self._payloads.open(self._admission) as reader:
            raw = reader.read(0, preamble.header_bytes)
        try:
            header = parse_leaf_table(raw, preamble, update.payload_bytes)
        except PayloadError:
            raise _altered() from None
        if header.root != update.payload_root:
            raise _altered()
        return header

    def _read_leaf(self, reader: ObjectReader, leaf_index: int) -> UpdatePart:
        raw = reader.read(self._starts[leaf_index], self._header.leaves[leaf_index].byte_length)
        try:
            check_leaf(self._header, leaf_index, raw)
        except PayloadError:
            raise _altered() from None
        indices = None if self._mask is None else self._mask.indices
        return decode_leaf(self._header.preamble, leaf_index, raw, mask_indices=indices)


class Stored:
    """A round's sound updates so far, none of them in memory. See `Gathered`."""

    def __init__(self, payloads: RoundPayloads, threads: int) -> None:
        """Begin with no updates.

        Args:
            threads: that combine them; they change no bit.
        """
        self.inside: dict[str, Admission] = {}
        self._firsts: dict[str, NDArray[np.int64]] = {}
        self._payloads = payloads
        self._threads = threads

    def take(self, admissions: Sequence[Admission]) -> Taken:
        """Judge updates side by side; the sound ones are inside from now on."""
        judged = side_by_side(self._firsts_of, admissions)
        defective: list[Admission] = []
        errors: list[BaseException] = []
        for admission, firsts in zip(admissions, judged, strict=True):
            if isinstance(firsts, BaseException):
                errors.append(firsts)
            elif firsts is None:
                defective.append(admission)
            else:
                name = admission.update.participant
                self.inside[name], self._firsts[name] = admission, firsts
        return Taken(tuple(defective), errors[0] if errors else None)

    def _firsts_of(self, admission: Admission) -> NDArray[np.int64] | BaseException | None:
        """The first coordinate of each leaf of a sound update; None of another; or why nothing is decided."""
        firsts: list[int] = []

        def note(part: UpdatePart) -> None:
            firsts.append(part.at.start if isinstance(part.at, slice) else int(part.at[0]))

        try:
            return np.array(firsts, dtype=np.int64) if self._payloads.judge(admission, note) else None
        except BaseException as error:  # noqa: BLE001 - whatever it is: the caller raises it once all threads are done
            return error

    def drop(self, name: str) -> None:
        """Let this participant's update be as if never read."""
        del self.inside[name], self._firsts[name]

    def combine(self, counted: Sequence[Admission]) -> Combined:
        """What the rule makes of the counted ones, which are inside; in their order."""
        decoded = DecodedLeaves()
        cohort = [
            StoredUpdate(self._payloads, each, self._firsts[each.update.participant], decoded) for each in counted
        ]
        return combine(self._payloads.round.terms, cohort, threads=self._threads)


def _bytes_of(part: UpdatePart) -> int:
    # Indices of an agreed update are the mask's, which all share; to count them again is to keep a little less.
    return part.values.nbytes + (0 if isinstance(part.at, slice) else part.at.nbytes)


def _ends_before(part: UpdatePart, stop: int) -> bool:
    return (part.at.stop if isinstance(part.at, slice) else int(part.at[-1]) + 1) <= stop


def _altered() -> DigestError:
    return DigestError("an object's bytes are not those that were decided")
