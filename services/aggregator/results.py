"""What a round gives: step, model and what the next round begins with, stored under their digests.

Nothing here is in effect: objects that no entry names are bytes. So a result may be made before its entry may be
written, and is made once, however often the entry has to be tried.

Format: proto/README.md, "Models and aggregates", "Re-aggregation".

Runs in: aggregator.
Trusts: its caller, who says of what it is made. No object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from sfrl_secure.aggregation.buffers import Rooms
from sfrl_secure.aggregation.models import ModelSnapshot, encode_step, model_bytes
from sfrl_secure.aggregation.round_result import RoundResult, result_of
from sfrl_secure.errors import DeniedError, PayloadError
from sfrl_secure.governance.statements import Cluster
from sfrl_secure.governance.terms import SegmentTerms
from sfrl_secure.ids import Digest
from sfrl_secure.rounds.state import Admission, RoundState
from sfrl_secure.services.aggregator.bases import Bases
from sfrl_secure.services.aggregator.cohort import Cohort
from sfrl_secure.services.masks import Masks
from sfrl_secure.sparse.mask import Mask
from sfrl_secure.sparse.update import UpdatePart
from sfrl_secure.storage.objects import Objects
from sfrl_secure.storage.passing import PassingObjects

_Key = tuple[Digest, Digest, Digest | None, bool, tuple[Digest, ...]]


@dataclass(frozen=True, slots=True, eq=False)
class Wanted:
    """A result that is due.

    Attributes:
        counted: the updates that are added up, sorted by participant.
        base, server_state: what they are added to.
        is_again: the model was published before, with others; it is made without clusters.
    """

    current: RoundState
    counted: tuple[Admission, ...]
    base: Digest
    server_state: Digest | None
    is_again: bool = False

    @property
    def key(self) -> _Key:
        """All that the result depends on: the opening, which names the terms and the mask; what it stands on; whether
        it is made again; the updates that are added up."""
        counted = tuple(admission.statement_digest for admission in self.counted)
        return self.current.opened, self.base, self.server_state, self.is_again, counted


@dataclass(frozen=True, slots=True)
class Result:
    """Names of objects that are durable: what model_published says."""

    aggregate: Digest
    model: Digest
    server_state: Digest | None = None
    next_mask: Digest | None = None
    clusters: tuple[Cluster, ...] = ()


class Results:
    """Makes results; keeps of each segment the last one, and what the next one will stand on."""

    def __init__(self, objects: Objects, *, threads: int = 1) -> None:
        """Read from and store in `objects`; `threads` judge updates and add them up."""
        self._objects, self._passing = objects, PassingObjects(objects)
        self._threads = threads
        self._masks = Masks(objects)
        self._rooms = Rooms()
        self._bases = Bases(objects)
        self._cohorts: dict[str, Cohort] = {}
        self._made: dict[str, tuple[_Key, Result]] = {}

    def cohort(self, segment: str) -> Cohort:
        """Where a segment's updates are decided and added up."""
        if segment not in self._cohorts:
            self._cohorts[segment] = Cohort(self._objects, self._masks, threads=self._threads)
        return self._cohorts[segment]

    def is_made(self, wanted: Wanted) -> bool:
        """Whether the segment's last result is this one."""
        made = self._made.get(wanted.current.terms.segment)
        return made is not None and made[0] == wanted.key

    def of(self, wanted: Wanted) -> Result:
        """The result of a round: the one that was made, or one that is made now.

        Raises:
            DeniedError: `counted_defective`: one of the updates is forbidden by its payload.
            NotFoundError, MissingEvidenceError, DigestError, MalformedError: an update, the round's mask, the base or
                the server state is not here, or is not what its name says; and what the store raises.
        """
        terms = wanted.current.terms
        made = self._made.get(terms.segment)
        if made is not None and made[0] == wanted.key:
            return made[1]
        is_enough = len(wanted.counted) >= terms.round.cohort_min
        result = self._make(wanted) if is_enough else self._unmoved(wanted)
        self._made[terms.segment] = wanted.key, result
        return result

    def _unmoved(self, wanted: Wanted) -> Result:
        """Too few to hide among, as only an order leaves them: nothing is added up, and the step leads nowhere."""
        terms, nothing = wanted.current.terms, np.empty(0, dtype=np.int64)
        aggregate = encode_step(terms.model.manifest, terms.model.grid_exponent, UpdatePart(nothing, nothing))
        next_mask = wanted.current.mask if _mask_changes(terms) else None
        return Result(self._objects.put(aggregate), wanted.base, wanted.server_state, next_mask)

    def _make(self, wanted: Wanted) -> Result:
        current, terms = wanted.current, wanted.current.terms
        base = self._bases.model(terms, wanted.base)
        state = self._bases.server_state(terms, wanted.server_state)
        mask = self._mask(current)
        combined = self.cohort(terms.segment).combine(current, wanted.counted)
        if combined is None:
            # Whoever closed the round counted what its payload forbids. There is no model of it that anyone should
            # publish; operators can roll back, which gives the round up.
            raise DeniedError("counted_defective", "the round counts an update that its payload forbids")
        room = self._rooms.take(model_bytes(terms.model.manifest))
        result = result_of(terms, current.opened, combined, base, state, mask, room=room)
        # All are hashed and synced, which needs no interpreter: side by side they take the time of the longer.
        with ThreadPoolExecutor(1) as pool:
            beside = pool.submit(lambda: [self._objects.put(encode()) for encode in _beside(terms, result)])
            # Whoever has the base fetches the step, which is shorter as a rule.
            model = self._passing.put(result.model.raw)
            clusters = () if wanted.is_again else tuple(self._clusters(base, result))
        names = iter(beside.result())
        made = Result(
            aggregate=next(names),
            model=model,
            server_state=None if result.server_state is None else next(names),
            next_mask=None if result.next_mask is None else next(names),
            clusters=clusters,
        )
        self._bases.keep(terms, (made.model, result.model), (made.server_state, result.server_state))
        return made

    def _mask(self, current: RoundState) -> Mask | None:
        """The round's mask, where the next one follows from it."""
        if not _mask_changes(current.terms):
            return None
        assert current.mask is not None, "a round has a mask where its terms have one"
        try:
            return self._masks.of(current.mask, current.terms)
        except PayloadError:
            # What has this digest is none, and no wait helps.
            return None

    def _clusters(self, base: ModelSnapshot, result: RoundResult) -> Iterator[Cluster]:
        """Each cluster's model, made and stored one after the other. What is added up is the whole counted list."""
        for cluster in result.clusters:
            room = self._rooms.take(model_bytes(base.manifest))
            yield Cluster(cluster.members, self._objects.put(cluster.model_on(base, room=room).raw))


def _beside(terms: SegmentTerms, result: RoundResult) -> Iterator[Callable[[], bytes]]:
    """Writes the objects beside the models, in the order of `Result`."""
    grid_exponent, state, next_mask = terms.model.grid_exponent, result.server_state, result.next_mask
    yield lambda: encode_step(terms.model.manifest, grid_exponent, result.step)
    if state is not None:
        yield lambda: state.to_bytes(grid_exponent)
    if next_mask is not None:
        yield lambda: next_mask


def _mask_changes(terms: SegmentTerms) -> bool:
    return terms.mask is not None and terms.mask.next is not None
