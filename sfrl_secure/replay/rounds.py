"""Rounds, as they open and fill.

Format: proto/README.md, "Statements", round_opened; "update_admitted".

Runs in: verifier.
Trusts: the replay's state. No writer.
"""

from __future__ import annotations

from sfrl_secure.errors import MalformedError
from sfrl_secure.replay.admission import PayloadDecision, log_reason, passed, payload_decision, submit_decision
from sfrl_secure.replay.beginnings import mask_after, server_state_after
from sfrl_secure.replay.docket import Docket, Position
from sfrl_secure.replay.documents import Participant
from sfrl_secure.replay.findings import Void, hex_of
from sfrl_secure.replay.masks import read_mask
from sfrl_secure.replay.models import model_bytes, parse_model
from sfrl_secure.replay.quota import Usage
from sfrl_secure.replay.segments import Admission, Round, Segment, Verdict
from sfrl_secure.replay.state import State
from sfrl_secure.replay.statements import RoundOpened, UpdateAdmitted
from sfrl_secure.replay.terms import Terms

_DAY_US = 86_400_000_000


def begin_segment(docket: Docket, terms: Terms, at: Position) -> Segment:
    """A segment begins with its first terms, and with the model that they name."""
    raw = docket.read(terms.initial, at, model_bytes(terms.manifest), "the initial model")
    segment = Segment(initial=terms.initial, model=terms.initial, values=None, models={terms.initial})
    if raw is not None:
        try:
            segment.values = parse_model(raw, terms.manifest, terms.grid_exponent)
        except MalformedError:
            docket.find("initial_model", at, "a model of these terms")
            segment.no_models.add(terms.initial)
    return segment


def apply_opened(state: State, docket: Docket, segment: Segment, name: str, body: RoundOpened, at: Position) -> None:
    """round_opened: the next round begins, under the terms in force."""
    document = state.in_force["segment-terms", name]
    terms = document.content
    assert isinstance(terms, Terms), "the segment has terms"
    if at.log_time_us >= document.expires_us:
        raise Void("expired", f"terms that have not expired at {at.log_time_us}", f"expired at {document.expires_us}")
    if body.terms_digest != document.digest:
        raise Void("terms", document.digest.hex(), body.terms_digest.hex())
    if segment.is_halted:
        raise Void("halted", "a segment that is not halted", "halted")
    if segment.due:
        raise Void("round_not_due", "a segment that derives nothing again", f"round {segment.due[0].round} is due")
    if segment.open_round is not None or (segment.round is not None and segment.round.awaits_model):
        raise Void("round_not_due", "no round that is open or waits for its model", f"round {segment.last_round}")
    if body.round != segment.last_round + 1 or body.round > terms.rounds_max:
        raise Void("round_number", f"round {segment.last_round + 1} of {terms.rounds_max}", f"round {body.round}")
    if body.base_model != segment.model:
        raise Void("base_model", segment.model.hex(), body.base_model.hex())
    server_state, mask = server_state_after(segment.newest, terms), mask_after(segment.newest, terms)
    if body.server_state != server_state:
        raise Void("server_state", hex_of(server_state), hex_of(body.server_state))
    if body.mask != mask:
        raise Void("mask", hex_of(mask), hex_of(body.mask))
    segment.round = Round(
        number=body.round,
        opened=at.leaf,
        opened_index=at.index,
        deadline_us=at.log_time_us + terms.duration_us,
        terms=terms,
        base_model=body.base_model,
        server_state=server_state,
        mask=mask,
        mask_object=read_mask(docket, terms, mask, at, f"the mask of round {body.round}"),
    )
    segment.control_head = at.leaf
    docket.rounds += 1


def apply_admitted(state: State, docket: Docket, name: str, body: UpdateAdmitted, at: Position) -> None:
    """update_admitted: the log's part makes it effective or void, the payload's part sound or defective."""
    update = body.update
    if update.segment != name:
        raise Void("stream", f"segment/{name}", f"segment/{update.segment}")
    reason = log_reason(state, None, body.envelope, update, at.log_time_us)
    if reason:
        raise Void(reason, "an update that steps 4 to 8 admit", reason)
    opened, participant = passed(state, update)
    kept_until_us = at.log_time_us + opened.terms.retention_days * _DAY_US
    if body.retain_until_us < kept_until_us:
        raise Void("retention", f"{kept_until_us} or later", str(body.retain_until_us))
    decision = _decide(state, docket, opened, participant, body, at)
    opened.admissions[update.participant] = Admission(
        index=at.index,
        statement_digest=body.envelope.digest,
        update=update,
        verdict=_verdict(docket, body, decision, at),
        norm=body.facts.norm,
        leaf_ends=None if decision is None else decision.leaf_ends,
    )
    segment = state.segments[name]
    segment.usage.setdefault(update.participant, Usage()).add(at.log_time_us, update.payload_bytes)
    state.admitted[body.envelope.digest] = (name, update.participant)
    docket.admitted += 1


def _decide(
    state: State, docket: Docket, opened: Round, participant: Participant, body: UpdateAdmitted, at: Position
) -> PayloadDecision | None:
    """Steps 9 to 14; no decision where step 9 allows, and payload or mask are not there."""
    rules = state.rules(at.log_time_us)
    submit = submit_decision(rules, opened.terms, participant, body.update)
    if submit.reason:
        return submit
    # A payload of another length than declared is refused for its digest, so one byte more is enough to know.
    update = body.update
    payload = docket.read(update.payload_sha256, at, update.payload_bytes, "the payload of an admitted update")
    return None if payload is None else payload_decision(rules, opened, participant, update, payload)


def _verdict(docket: Docket, body: UpdateAdmitted, decision: PayloadDecision | None, at: Position) -> Verdict:
    if decision is None:
        return Verdict.UNKNOWN
    if decision.reason:
        docket.find("defective", at, "an update that steps 9 to 14 admit", decision.reason, is_acceptable=True)
    elif decision.facts != body.facts:
        docket.find("defective", at, str(decision.facts), str(body.facts), is_acceptable=True)
    elif decision.rule_ids != body.rule_ids:
        expected, found = ", ".join(decision.rule_ids), ", ".join(body.rule_ids)
        docket.find("defective", at, expected, found, is_acceptable=True)
    else:
        return Verdict.SOUND
    return Verdict.DEFECTIVE
