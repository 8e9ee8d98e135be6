"""What a round gives: the step that is added to its base and the model that this makes, stored under their digests.

Nothing here is in effect: objects that no entry names are bytes. So a result may be made before its entry may be
written, and is made once, however often the entry has to be tried.

Format: proto/README.md, "Models and aggregates".

Runs in: aggregator.
Trusts: its caller, who says of what it is made. No object.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from sfrl_secure.aggregation.buffers import ModelRooms
from sfrl_secure.aggregation.models import ModelSnapshot, encode_step, model_bytes, parse_model
from sfrl_secure.errors import DeniedError
from sfrl_secure.governance.terms import ModelTerms, SegmentTerms
from sfrl_secure.ids import Digest
from sfrl_secure.rounds.state import Admission, RoundState
from sfrl_secure.services.aggregator.cohort import Cohort
from sfrl_secure.services.aggregator.masks import Masks
from sfrl_secure.sparse.update import UpdatePart
from sfrl_secure.storage.objects import Objects

_Key = tuple[Digest, Digest, tuple[Digest, ...]]
"""All that a result depends on: the closing, which names the terms; the base; the updates that are added up."""


@dataclass(frozen=True, slots=True)
class Result:
    """Names of two objects that are durable."""

    aggregate: Digest
    model: Digest


class Results:
    """Makes results; keeps of each segment the last one, and one model: a base, then what came of it: the next base."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._masks = Masks(objects)
        self._rooms = ModelRooms()
        self._cohorts: dict[str, Cohort] = {}
        self._made: dict[str, tuple[_Key, Result]] = {}
        self._models: dict[str, tuple[Digest, ModelTerms, ModelSnapshot]] = {}

    def cohort(self, segment: str) -> Cohort:
        """Where a segment's updates are decided and added up."""
        return self._cohorts.setdefault(segment, Cohort(self._objects, self._masks))

    def is_made(self, current: RoundState, counted: tuple[Admission, ...], base: Digest) -> bool:
        """Whether the segment's last result is of these."""
        made = self._made.get(current.terms.segment)
        return made is not None and made[0] == _key(current, counted, base)

    def of(self, current: RoundState, counted: tuple[Admission, ...], base: Digest) -> Result:
        """The result of a closed round's updates on that base: the one that was made, or one that is made now.

        Raises:
            DeniedError: `counted_defective`: one of the updates is forbidden by its payload.
            NotFoundError, MissingEvidenceError, DigestError, MalformedError: an update, its mask or the base is not
                here, or is not what its name says; and what the store raises.
        """
        terms = current.terms
        made = self._made.get(terms.segment)
        if made is not None and made[0] == _key(current, counted, base):
            return made[1]
        before = self._base(terms, base)
        step = self._step(current, counted)
        manifest, grid_exponent = terms.model.manifest, terms.model.grid_exponent
        # Both are hashed and synced, which needs no interpreter: side by side they take the time of one.
        with ThreadPoolExecutor(1) as pool:
            stored = pool.submit(lambda: self._objects.put(encode_step(manifest, grid_exponent, step)))
            model = before.add(step, room=self._rooms.take(model_bytes(manifest)))
            name = self._objects.put(model.raw)
        result = Result(stored.result(), name)
        self._made[terms.segment] = (_key(current, counted, base), result)
        self._models[terms.segment] = (name, terms.model, model)
        return result

    def _step(self, current: RoundState, counted: tuple[Admission, ...]) -> UpdatePart:
        if len(counted) < current.terms.round.cohort_min:
            # Too few to hide among, as only an order leaves them: nothing is added up, and the step leads nowhere.
            return UpdatePart(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
        step = self.cohort(current.terms.segment).step(current, counted)
        if step is None:
            # Whoever closed the round counted what its payload forbids. There is no model of it that anyone should
            # publish; operators can roll back, which gives the round up.
            raise DeniedError("counted_defective", "the round counts an update that its payload forbids")
        return step

    def _base(self, terms: SegmentTerms, digest: Digest) -> ModelSnapshot:
        kept = self._models.get(terms.segment)
        if kept is not None and kept[:2] == (digest, terms.model):
            return kept[2]
        manifest = terms.model.manifest
        raw = self._objects.get(digest, model_bytes(manifest))
        found = parse_model(raw, manifest, terms.model.grid_exponent)
        # Kept whatever comes of it: what waits for an update is tried again, and must not read 45 MB each time.
        self._models[terms.segment] = (digest, terms.model, found)
        return found


def _key(current: RoundState, counted: tuple[Admission, ...], base: Digest) -> _Key:
    return current.closed_hash, base, tuple(admission.statement_digest for admission in counted)
