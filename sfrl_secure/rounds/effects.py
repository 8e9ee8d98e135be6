"""Effects: what each kind of statement asks of its segment, and what it changes.

`check_*` raises and changes nothing; `take_*` changes and cannot fail, because its check came first.

Format: proto/README.md, "Statements".

Runs in: gatekeeper, aggregator, audit_log.
Trusts: the fold, which verified writer, stream and reads.
"""

from __future__ import annotations

from sfrl_secure.errors import ConflictError, DeniedError
from sfrl_secure.governance.statements import (
    IdentityIssued,
    ModelPublished,
    ModelsFetched,
    RefusalsCounted,
    RoundClosed,
    RoundOpened,
    Statement,
    TimeAnchored,
    UpdateAdmitted,
    UpdateRefused,
)
from sfrl_secure.governance.terms import SegmentTerms
from sfrl_secure.ids import Digest
from sfrl_secure.rounds.state import (
    Admission,
    FederationState,
    RecordedIdentity,
    RefusedUpdate,
    RoundState,
    SegmentState,
)
from sfrl_secure.translog.entries import LogEntry

ARITHMETIC = 1
"""Version of the integer arithmetic (proto/README.md, "Aggregation")."""


def check_round_opened(segment: SegmentState, body: RoundOpened, log_time_us: int) -> None:
    """Check that a round may open.

    Raises:
        ConflictError: `round_open`, a round is open or waits for its model.
        DeniedError: `terms`, `expired`, `round`, `base`.
    """
    terms = segment.terms
    if segment.open_round is not None or segment.awaits_model:
        raise ConflictError("a round is open or waits for its model", reason="round_open")
    if log_time_us >= terms.expires_us:
        raise DeniedError("expired", "expired terms open no round")
    if body.terms_digest != terms.digest:
        raise DeniedError("terms", "the round names other terms than those in force")
    if body.round != segment.last_round + 1 or body.round > terms.round.rounds_max:
        raise DeniedError("round", f"rounds are numbered without gaps up to {terms.round.rounds_max}")
    if body.base_model != segment.model:
        raise DeniedError("base", "the round begins from another model than the segment's newest")


def check_model_published(segment: SegmentState, body: ModelPublished) -> None:
    """Check that a model belongs to the last round; its digests are the verifier's to recompute.

    Raises:
        ConflictError: `no_model_due`.
        DeniedError: `model`.
    """
    current = segment.current
    if current is None or not segment.awaits_model or body.round != current.number:
        raise ConflictError("no model is due for this round", reason="no_model_due")
    if (
        body.round_closed != current.closed_hash
        or body.base_model != current.base_model
        or body.rule != current.terms.rule
        or body.arithmetic != ARITHMETIC
    ):
        raise DeniedError("model", "the model names another closing, base, rule or arithmetic than its round's")


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
        state.segments[terms.segment] = SegmentState(terms, index, initial, models={initial})
    else:
        segment.terms, segment.terms_index = terms, index


def take_statement(state: FederationState, index: int, leaf: Digest, entry: LogEntry, statement: Statement) -> None:
    """Let an effective statement change the state."""
    body = statement.body
    match body:
        case IdentityIssued():
            state.identities[body.spki_sha256] = RecordedIdentity(
                body.spiffe_id, body.spki_sha256, body.serial, body.not_after_us
            )
            state.issued[body.spki_sha256] = body.spiffe_id
            state.recorded_peers.add(body.spiffe_id)
        case UpdateRefused():
            key = state.refusal_key(body.peer, statement.stream, body.reason)
            state.single_refusals[key] = state.single_refusals.get(key, 0) + 1
            if body.envelope is not None:
                state.refused_updates.setdefault((body.envelope.digest, body.peer), RefusedUpdate(index, body.reason))
        case RefusalsCounted():
            pass  # A record for people; no decision rests on it.
        case TimeAnchored():
            state.last_anchor_size = body.checkpoint.size
        case ModelsFetched():
            segment = state.segments[statement.stream.removeprefix("segment/")]
            segment.fetches.update((fetch.participant, fetch.model) for fetch in body.fetches)
        case RoundOpened() | UpdateAdmitted() | RoundClosed() | ModelPublished():
            segment = state.segments[statement.stream.removeprefix("segment/")]
            _take_round_body(state, segment, index, leaf, entry, body)


def _take_round_body(
    state: FederationState,
    segment: SegmentState,
    index: int,
    leaf: Digest,
    entry: LogEntry,
    body: RoundOpened | UpdateAdmitted | RoundClosed | ModelPublished,
) -> None:
    if isinstance(body, RoundOpened):
        terms = segment.terms
        segment.last_round = body.round
        segment.rounds[body.round] = RoundState(
            number=body.round,
            opened=leaf,
            opened_index=index,
            opened_us=entry.log_time_us,
            deadline_us=entry.log_time_us + terms.round.duration_us,
            terms=terms,
            terms_index=segment.terms_index,
            base_model=body.base_model,
        )
        return
    current = segment.current
    assert current is not None, "its check found the round"
    match body:
        case UpdateAdmitted():
            record = state.participant(body.update.participant)
            assert record is not None, "its check found the participant"
            admission = Admission(
                index=index,
                statement_digest=body.envelope.digest,
                update=body.update,
                facts=body.facts,
                rule_ids=body.rule_ids,
                participant=record,
                participant_index=state.index_of_document(record.series),
                services_index=state.index_of_document(("services", "")),
                rules=state.rules(entry.log_time_us),
                retain_until_us=body.retain_until_us,
            )
            current.admissions[record.name] = admission
            state.admitted_updates[admission.statement_digest] = admission
        case RoundClosed():
            current.closed, current.closed_hash, current.closed_index = body, leaf, index
            current.closed_services_index = state.index_of_document(("services", ""))
        case ModelPublished():
            current.model, current.model_index = body.model, index
            current.model_services_index = state.index_of_document(("services", ""))
            segment.model, segment.model_index = body.model, index
            segment.models.add(body.model)
