"""What the simulated federation's aggregator says: rounds, their closings and their models.

A method named as a thing builds it; one named as a deed writes it to the log.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from simulated_federation import GRID, MANIFEST, SEGMENT, service_id

from sfrl_secure.aggregation.contribution import Contribution, held, tie_of
from sfrl_secure.aggregation.models import encode_step, model_bytes, parse_model
from sfrl_secure.aggregation.round_result import result_of
from sfrl_secure.aggregation.rules import combine
from sfrl_secure.aggregation.server_state import ServerState, parse_server_state
from sfrl_secure.governance.statements import Cluster, ModelPublished, RoundOpened
from sfrl_secure.governance.terms import SegmentTerms
from sfrl_secure.ids import ZERO_DIGEST, Digest
from sfrl_secure.rounds.begins import due_server_state, round_begins_with
from sfrl_secure.rounds.closing import close_round
from sfrl_secure.rounds.effects import ARITHMETIC
from sfrl_secure.rounds.payloads import expected_of
from sfrl_secure.rounds.reaggregation import counted_in_step, due_base, due_step
from sfrl_secure.rounds.state import Admission, RoundState
from sfrl_secure.sparse.decode import decode_update
from sfrl_secure.sparse.update import UpdatePart

A1 = service_id("aggregator", "a1")
STREAM = f"segment/{SEGMENT}"


class SimulatedRounds:
    """The aggregator's part of `Simulator`, which has the log, the clock, the objects and everybody's statements."""

    def open_round(self) -> RoundState:
        """Open the segment's next round."""
        self.write(A1, STREAM, self.opening())
        opened = self.segment.open_round
        assert opened is not None
        return opened

    def opening(self, **changes: Any) -> RoundOpened:
        """What an honest aggregator would write of the segment's next round."""
        segment = self.segment
        begins = round_begins_with(segment)
        given = RoundOpened(
            segment.last_round + 1, segment.model, segment.terms.digest, begins.server_state, begins.mask
        )
        return replace(given, **changes)

    def close_round(self, *, defective: Sequence[str] = ()) -> RoundState:
        """Close the open round; it must be full, over or ended by order."""
        current = self.segment.open_round
        assert current is not None
        now_us = self.clock.now_us()
        body = close_round(
            current, defective=defective, is_active=lambda name: self.state.is_active(name, now_us), now_us=now_us
        )
        self.write(A1, STREAM, body)
        return current

    def model_of(
        self, current: RoundState, base: Digest, server_state: Digest | None = None, **changes: Any
    ) -> ModelPublished:
        """What an honest aggregator would write of a closed round's model over base and server state; all objects are
        stored."""
        terms, counted = current.terms, counted_in_step(current)
        given = ModelPublished(
            round=current.number,
            round_closed=current.closed_hash,
            base_model=base,
            aggregate=ZERO_DIGEST,
            model=base,
            rule=terms.rule.name,
            arithmetic=ARITHMETIC,
            server_state=server_state,
            next_mask=None if terms.mask is None or terms.mask.next is None else current.mask,
        )
        if len(counted) < terms.round.cohort_min:
            # A step that is derived again of fewer than a cohort adds nothing up.
            nothing = self._stored_step(np.zeros(MANIFEST.coordinates, dtype=np.int64))
            given = replace(given, aggregate=nothing)
        else:
            before = parse_model(self.objects.get(base, model_bytes(MANIFEST)), MANIFEST, GRID)
            combined = combine(terms, [self._contribution(current, admission) for admission in counted])
            made = result_of(
                terms, current.opened, combined, before, self._server_state(terms, server_state), self.mask_of(current)
            )
            given = replace(
                given,
                aggregate=self._stored_step(made.step),
                model=self.objects.put(made.model.to_bytes()),
                server_state=None if made.server_state is None else self.objects.put(made.server_state.to_bytes(GRID)),
                next_mask=None if made.next_mask is None else self.objects.put(made.next_mask),
                clusters=tuple(
                    Cluster(each.members, self.objects.put(each.model_on(before).to_bytes())) for each in made.clusters
                ),
            )
        return replace(given, **changes)

    def _stored_step(self, step: NDArray[np.int64] | UpdatePart) -> Digest:
        return self.objects.put(encode_step(MANIFEST, GRID, step))

    def _contribution(self, current: RoundState, admission: Admission) -> Contribution:
        payload = self.objects.get(admission.update.payload_sha256, 4_096)
        update = decode_update(payload, expected_of(current.terms, admission.update, self.mask_of(current)))
        return held(tie_of(current.opened, admission.update.participant), admission.update.weight, update)

    def _server_state(self, terms: SegmentTerms, digest: Digest | None) -> ServerState | None:
        if digest is None or terms.server is None:
            return None
        raw = self.objects.get(digest, 8_192)
        return parse_server_state(raw, terms.server, MANIFEST.coordinates, GRID)

    def due_model(self, **changes: Any) -> ModelPublished:
        """What an honest aggregator would write of the step that is due next."""
        step = due_step(self.segment)
        assert step is not None
        current = self.segment.rounds[step.round]
        again = self.model_of(current, due_base(self.segment), due_server_state(self.segment))
        given = replace(again, supersedes=step.published, clusters=())
        return replace(given, **changes)

    def publish_model(self, **changes: Any) -> int:
        """Publish the model of the round that waits for it, or of the step that is due next."""
        if self.segment.due:
            return self.write(A1, STREAM, self.due_model(**changes))
        current = self.segment.current
        assert current is not None
        body = self.model_of(current, current.base_model, current.server_state, **changes)
        return self.write(A1, STREAM, body)

    def play_round(self, *names: str) -> RoundState:
        """A round from its opening to its model, with an update of its own for each name."""
        current = self.open_round()
        for name in names:
            at = sorted(self.rovers).index(name)
            self.admit(name, {0: 5 + current.number, 1 + at: 10 * current.number + at}, weight=at + 1)
        if not current.is_full:
            self.clock.advance(current.terms.round.duration_us)
        self.close_round()
        if self.segment.awaits_model:
            self.publish_model()
        return current
