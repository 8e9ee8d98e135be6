"""Effects: what rounds, models and anchors ask of the state, and what they change.

`check_*` raises and changes nothing; `take_*` changes and cannot fail, because its check came first.

Format: proto/README.md, "Statements".

Runs in: gatekeeper, aggregator, audit_log.
Trusts: the fold, which verified writer, stream and reads.
"""

from __future__ import annotations

from itertools import pairwise

from sfrl_secure.errors import ConflictError, DeniedError, RoundStateError
from sfrl_secure.governance.aggregation_terms import CLUSTERED_MEAN
from sfrl_secure.governance.statements import (
    ModelPublished,
    ModelsFetched,
    RoundClosed,
    RoundOpened,
    TimeAnchored,
)
from sfrl_secure.governance.terms import SegmentTerms
from sfrl_secure.ids import Digest
from sfrl_secure.limits import CLUSTERS_MAX
from sfrl_secure.rounds.begins import round_begins_with
from sfrl_secure.rounds.closing import DEFECTIVE, close_round
from sfrl_secure.rounds.reaggregation import counted_of_round, due_base, due_step
from sfrl_secure.rounds.state import FederationState, LineageStep, RoundState, SegmentState

ARITHMETIC = 1
"""Version of the integer arithmetic (proto/README.md, "Aggregation")."""


def check_round_opened(segment: SegmentState, body: RoundOpened, log_time_us: int) -> None:
    """Check that a round may open.

    Raises:
        ConflictError: `round_open`, a round is open or waits for its model; `halted`; `due`, rounds are derived again.
        DeniedError: `terms`, `expired`, `round`, `base`, `server_state`, `mask`.
    """
    terms = segment.terms
    if segment.open_round is not None or segment.awaits_model:
        raise ConflictError("a round is open or waits for its model", reason="round_open")
    if segment.is_halted:
        raise ConflictError("operators have halted the segment", reason="halted")
    if segment.due:
        raise ConflictError("rounds of the segment are to be derived again first", reason="due")
    if log_time_us >= terms.expires_us:
        raise DeniedError("expired", "expired terms open no round")
    if body.terms_digest != terms.digest:
        raise DeniedError("terms", "the round names other terms than those in force")
    if body.round != segment.last_round + 1 or body.round > terms.round.rounds_max:
        raise DeniedError("round", f"rounds are numbered without gaps up to {terms.round.rounds_max}")
    if body.base_model != segment.model:
        raise DeniedError("base", "the round begins from another model than the segment's newest")
    begins = round_begins_with(segment)
    if body.server_state != begins.server_state:
        raise DeniedError("server_state", "the round begins with another server state than the newest step's")
    if body.mask != begins.mask:
        raise DeniedError("mask", "the round begins with another mask than the newest step, or the terms, give it")


def check_round_closed(state: FederationState, segment: SegmentState, body: RoundClosed, log_time_us: int) -> None:
    """Check that a closing says what the log says; which updates are defective, objects say.

    Raises:
        ConflictError: `round_not_open`; `close`, another closing is due.
        DeniedError: `close`, `round_not_over`.
    """
    opened = segment.open_round
    if opened is None or body.round != opened.number:
        raise ConflictError("the round is not open", reason="round_not_open")
    defective = {drop.participant for drop in body.dropped if drop.reason == DEFECTIVE}
    if not defective <= opened.admissions.keys():
        raise DeniedError("close", "an update that was not admitted cannot be dropped")
    try:
        due = close_round(
            opened,
            defective=defective,
            is_active=lambda name: state.is_active(name, log_time_us),
            now_us=log_time_us,
        )
    except RoundStateError as early:
        raise DeniedError(early.reason, str(early)) from None
    if body != due:
        # Not denied for good: an admission may have come between the reading and the writing.
        raise ConflictError("the closing does not say what the log says", reason="close")


def check_model_published(segment: SegmentState, body: ModelPublished) -> None:
    """Check that a model belongs to the last round, or to the next step that is due; its digests are the verifier's.

    Raises:
        ConflictError: `no_model_due`; `halted`.
        DeniedError: `model`, `server_state`, `next_mask`, `clusters`.
    """
    if body.supersedes is None:
        current = segment.current
        if current is None or not segment.awaits_model or body.round != current.number:
            raise ConflictError("no model is due for this round", reason="no_model_due")
        if segment.is_halted:
            raise ConflictError("operators have halted the segment", reason="halted")
        base = current.base_model
    else:
        step = due_step(segment)
        if step is None or body.round != step.round:
            raise ConflictError("this round's model is not to be derived again next", reason="no_model_due")
        if body.supersedes != step.published:
            raise DeniedError("model", "the model takes another one's place than the one that is due")
        current, base = segment.rounds[step.round], due_base(segment)
    if (
        body.round_closed != current.closed_hash
        or body.base_model != base
        or body.rule != current.terms.rule.name
        or body.arithmetic != ARITHMETIC
    ):
        raise DeniedError("model", "the model names another closing, base, rule or arithmetic than its round's")
    _check_beside(current, body)


def _check_beside(current: RoundState, body: ModelPublished) -> None:
    """Check what a model_published names beside its model: nothing that the round's terms do not have."""
    terms = current.terms
    if body.server_state is not None and terms.server is None:
        raise DeniedError("server_state", "the round's terms have no server step")
    if body.next_mask is not None and (terms.mask is None or terms.mask.next is None):
        raise DeniedError("next_mask", "the round's terms choose no next mask")
    if not body.clusters:
        return
    if terms.rule.name != CLUSTERED_MEAN:
        raise DeniedError("clusters", "the round's rule makes no clusters")
    if body.supersedes is not None:
        # The difference of a cluster's two models could be one participant's update.
        raise DeniedError("clusters", "a model that is derived again comes without clusters")
    if len(body.clusters) > CLUSTERS_MAX:
        raise DeniedError("clusters", f"a round has at most {CLUSTERS_MAX} clusters")
    counted = len(counted_of_round(current))
    seen: set[int] = set()
    for cluster in body.clusters:
        members = cluster.members
        # Fewer would give away what each of them sent: the difference of two models is a sum over a cluster.
        if len(members) < terms.round.cohort_min:
            raise DeniedError("clusters", "a cluster has at least as many members as a cohort")
        if any(low >= high for low, high in pairwise(members)) or not 0 <= members[0] <= members[-1] < counted:
            raise DeniedError("clusters", "members are ascending positions in the round's counted list")
        if not seen.isdisjoint(members):
            raise DeniedError("clusters", "an update is in one cluster at most")
        seen.update(members)


def check_models_fetched(state: FederationState, segment: SegmentState, body: ModelsFetched) -> None:
    """Check that participants and models exist.

    Raises:
        DeniedError: `unknown_name`, `unknown_model`.
    """
    for fetch in body.fetches:
        if state.participant(fetch.participant) is None:
            raise DeniedError("unknown_name", "no record names this participant")
        if fetch.model not in segment.models:
            raise DeniedError("unknown_model", "the model is not one of the segment's")


def check_time_anchored(state: FederationState, body: TimeAnchored) -> None:
    """Check that an anchor is of an earlier size of this log than the entry's own, and of a later one than the last.

    Its root and its signatures are the verifier's to judge, by its trust policy.

    Raises:
        DeniedError: `anchor`.
    """
    checkpoint = body.checkpoint
    if checkpoint.origin != state.origin or not state.last_anchor_size < checkpoint.size <= state.size:
        raise DeniedError("anchor", "an anchor is a checkpoint of this log's past, larger than the one anchored last")


def take_terms(state: FederationState, terms: SegmentTerms, index: int) -> None:
    """Put segment terms in force; a round that is open keeps its own."""
    segment = state.segments.get(terms.segment)
    if segment is None:
        initial = terms.model.initial
        segment = state.segments[terms.segment] = SegmentState(terms, index, initial, models={initial})
    segment.terms, segment.terms_index = terms, index
    if terms.mask is not None:
        segment.masks.add(terms.mask.digest)


def take_round_opened(
    segment: SegmentState, body: RoundOpened, index: int, leaf: Digest, log_time_us: int
) -> None:
    """Open a round under the terms in force."""
    terms = segment.terms
    segment.last_round = body.round
    segment.rounds[body.round] = RoundState(
        number=body.round,
        opened=leaf,
        opened_index=index,
        opened_us=log_time_us,
        deadline_us=log_time_us + terms.round.duration_us,
        terms=terms,
        terms_index=segment.terms_index,
        base_model=body.base_model,
        server_state=body.server_state,
        mask=body.mask,
    )


def take_round_closed(
    state: FederationState, segment: SegmentState, body: RoundClosed, index: int, leaf: Digest
) -> None:
    """Close the open round."""
    current = segment.rounds[body.round]
    current.closed, current.closed_hash, current.closed_index = body, leaf, index
    current.closed_services_index = state.index_of_document(("services", ""))


def take_model_published(
    state: FederationState, segment: SegmentState, body: ModelPublished, index: int, leaf: Digest
) -> None:
    """Make the model the segment's newest; or put it in the place of the step's that was due, and the newest with the
    last of them."""
    current = segment.rounds[body.round]
    step = LineageStep(
        body.round,
        body.model,
        body.base_model,
        body.aggregate,
        leaf,
        index,
        server_state=body.server_state,
        next_mask=body.next_mask,
    )
    current.model, current.model_index = body.model, index
    current.model_services_index = state.index_of_document(("services", ""))
    segment.models.update((body.model, *(cluster.model for cluster in body.clusters)))
    if body.next_mask is not None:
        segment.masks.add(body.next_mask)
    if body.supersedes is None:
        current.first_model_index, current.first_services_index = index, current.model_services_index
        segment.lineage.append(step)
    else:
        at = segment.step_of(body.round)
        assert at is not None, "its check found the step"
        segment.lineage[at] = step
        current.left_out_derived = current.left_out
        segment.due.pop(0)
        if segment.due:
            return
    segment.model, segment.model_index = body.model, index
