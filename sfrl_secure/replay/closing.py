"""Rounds, as they close, and what their models are.

The closing entry reports what anyone can compute, and so does the model: both are computed here and compared.

Format: proto/README.md, "round_closed", "Counted root", "Aggregation".

Runs in: verifier.
Trusts: the replay's state. No writer.
"""

from __future__ import annotations

from collections.abc import Sequence

from sfrl_secure.errors import MalformedError, PayloadError
from sfrl_secure.ids import Digest
from sfrl_secure.replay.arithmetic import (
    Integers,
    add_to_model,
    digest_of,
    encode_aggregate,
    encode_model,
    model_bytes,
    parse_model,
)
from sfrl_secure.replay.decoder import decode_payload
from sfrl_secure.replay.docket import Docket, Position
from sfrl_secure.replay.findings import Void
from sfrl_secure.replay.state import Admission, Round, Segment, State, Verdict
from sfrl_secure.replay.statements import ABORTED, CLOSED, DEADLINE, FULL, Dropped, ModelPublished, RoundClosed
from sfrl_secure.translog.merkle import leaf_hash, root_of

ARITHMETIC = 1


def apply_closed(state: State, docket: Docket, segment: Segment, body: RoundClosed, at: Position) -> None:
    """round_closed: it says what anyone can compute."""
    opened = segment.open_round
    if opened is None or body.round != opened.number:
        raise Void("round_not_open", "the open round", f"round {body.round}")
    if not opened.is_full and at.log_time_us < opened.deadline_us:
        raise Void("close_early", f"a full cohort or log time {opened.deadline_us}", str(at.log_time_us))
    cause = FULL if opened.is_full else DEADLINE
    if body.cause != cause:
        raise Void("close_cause", "full" if cause == FULL else "deadline", "full" if body.cause == FULL else "deadline")
    due = _due_drops(state, opened, body, at.log_time_us)
    claimed = {each.participant for each in body.dropped if each.reason == "defective"}
    if not claimed <= opened.admissions.keys() or body.dropped != _drops(state, opened, claimed, at.log_time_us):
        raise Void("close_dropped", _names(due) or "none", _names(body.dropped) or "none")
    gone = {each.participant for each in body.dropped}
    counted = [opened.admissions[name] for name in sorted(opened.admissions.keys() - gone)]
    if body.counted_count != len(counted) or body.counted_root != counted_root(counted):
        raise Void("close_counted", f"{len(counted)} updates under their root", f"{body.counted_count}, or another")
    outcome = ABORTED if len(counted) < opened.terms.cohort_min else CLOSED
    if body.outcome != outcome:
        raise Void("close_outcome", "aborted" if outcome == ABORTED else "closed", "the other")
    if body.dropped != due:
        # False, and in effect: who holds no payloads cannot see it, and goes on from this closing.
        docket.find("close_dropped", at, _names(due) or "none", _names(body.dropped) or "none")
    _take_out(docket, opened, gone, at)
    opened.closed, opened.closed_hash = body, at.leaf
    if outcome == ABORTED:
        opened.release()
    segment.control_head = at.leaf


def _due_drops(state: State, opened: Round, body: RoundClosed, now_us: int) -> tuple[Dropped, ...]:
    """Who falls out. Where a payload is not there, the close's word is taken on whether it is defective."""
    claimed = {each.participant for each in body.dropped if each.reason == "defective"}
    defective = {
        name
        for name, admission in opened.admissions.items()
        if admission.verdict is Verdict.DEFECTIVE or (admission.verdict is Verdict.UNKNOWN and name in claimed)
    }
    return _drops(state, opened, defective, now_us)


def _drops(state: State, opened: Round, defective: set[str], now_us: int) -> tuple[Dropped, ...]:
    dropped: list[Dropped] = []
    for name, admission in sorted(opened.admissions.items()):
        if name in defective:
            dropped.append(Dropped(name, admission.statement_digest, "defective"))
        elif not state.is_active(name, now_us):
            dropped.append(Dropped(name, admission.statement_digest, "participant_inactive"))
    return tuple(dropped)


def _names(dropped: tuple[Dropped, ...]) -> str:
    return ", ".join(f"{each.participant} ({each.reason})" for each in dropped)


def _take_out(docket: Docket, opened: Round, gone: set[str], at: Position) -> None:
    """Take sound updates that fell out after their admission out of the running sum, and see whether it is complete."""
    for name, admission in opened.admissions.items():
        if admission.verdict is Verdict.SOUND and name in gone:
            _subtract(docket, opened, admission, at)
        if admission.verdict is not Verdict.SOUND and name not in gone:
            opened.is_summed = False


def _subtract(docket: Docket, opened: Round, admission: Admission, at: Position) -> None:
    update, terms = admission.update, opened.terms
    payload = docket.read(update.payload_sha256, at, update.payload_bytes, "the payload of an update that fell out")
    try:
        decoded = decode_payload(
            payload or b"",
            coordinates=terms.manifest.coordinates,
            nonzeros=update.nonzeros,
            value_type=update.values,
            grid_exponent=terms.grid_exponent,
        )
    except PayloadError:
        # It was there and sound at its admission: the store has changed under our hands.
        opened.is_summed = False
        return
    opened.total.remove(decoded.indices, decoded.values, update.weight)


def counted_root(counted: Sequence[Admission]) -> Digest:
    """Tree hash over the counted updates, which come sorted by participant."""
    return root_of(
        leaf_hash(
            admission.update.participant.encode("ascii")
            + b"\0"
            + admission.statement_digest
            + admission.update.weight.to_bytes(4, "big")
        )
        for admission in counted
    )


def apply_model(docket: Docket, segment: Segment, body: ModelPublished, at: Position) -> None:
    """model_published: the closed round's model, computed again where everything is there."""
    closed = segment.round
    if closed is None or not closed.awaits_model or body.round != closed.number:
        raise Void("no_model_due", "a closed round without its model", f"round {body.round}")
    if body.round_closed != closed.closed_hash:
        raise Void("no_model_due", closed.closed_hash.hex(), body.round_closed.hex())
    if body.base_model != closed.base_model:
        raise Void("base_model", closed.base_model.hex(), body.base_model.hex())
    if body.rule != closed.terms.rule or body.arithmetic != ARITHMETIC:
        raise Void("rule", f"{closed.terms.rule} in arithmetic {ARITHMETIC}", f"{body.rule} in {body.arithmetic}")
    values = _recompute(docket, closed, segment, body, at)
    docket.look_for(body.aggregate, at, f"the aggregate of round {closed.number}")
    if values is None:
        values = _read_model(docket, closed, body, at)
    else:
        docket.look_for(body.model, at, f"the model of round {closed.number}")
    closed.has_model = True
    closed.release()
    segment.model, segment.values = body.model, values
    segment.models.add(body.model)
    segment.control_head = at.leaf
    docket.models += 1


def _recompute(
    docket: Docket, closed: Round, segment: Segment, body: ModelPublished, at: Position
) -> Integers | None:
    """Work the aggregate and the model out and compare their names; None where an update or the base is not there.

    A false name is a finding and voids nothing: who holds no payloads cannot see it, and goes on from this model. So
    the walk goes on from it too, and what honest services write afterwards is not stale.
    """
    terms = closed.terms
    if not closed.is_summed:
        return None
    aggregate = closed.total.mean()
    name = digest_of(encode_aggregate(terms.manifest, terms.grid_exponent, aggregate))
    if name != body.aggregate:
        docket.find("aggregate", at, name.hex(), body.aggregate.hex())
    if segment.values is None:
        return None
    values = add_to_model(terms.manifest, segment.values, aggregate)
    name = digest_of(encode_model(terms.manifest, terms.grid_exponent, values))
    if name != body.model:
        docket.find("model", at, name.hex(), body.model.hex())
        return None
    return values


def _read_model(docket: Docket, closed: Round, body: ModelPublished, at: Position) -> Integers | None:
    """Go on from the model that was published, on the aggregator's word, so that later rounds can be checked."""
    terms = closed.terms
    raw = docket.read(body.model, at, model_bytes(terms.manifest), f"the model of round {closed.number}")
    if raw is None:
        return None
    try:
        return parse_model(raw, terms.manifest, terms.grid_exponent)
    except MalformedError:
        docket.find("model", at, "a model of the terms' manifest and grid", "another object")
        return None
