"""Rounds, as they close.

The closing entry reports what anyone can compute: it is computed here and compared.

Format: proto/README.md, "round_closed", "Counted root", "What participants sign", complaint_recorded.

Runs in: verifier.
Trusts: the replay's state. No writer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sfrl_secure.ids import Digest
from sfrl_secure.replay.docket import Docket, Position
from sfrl_secure.replay.findings import GATEKEEPERS, Void
from sfrl_secure.replay.segments import Admission, Round, Segment, Verdict
from sfrl_secure.replay.state import State
from sfrl_secure.replay.statements import (
    ABORTED,
    CLOSED,
    DEADLINE,
    FULL,
    ORDER,
    Dropped,
    RoundClosed,
)
from sfrl_secure.translog.merkle import leaf_hash, root_of

_CAUSES = {FULL: "full", DEADLINE: "deadline", ORDER: "order"}
_ANSWER_US = 10_000_000
"""How long a gatekeeper has, from a complaint on, before a closing shows that it did not answer."""


def apply_closed(state: State, docket: Docket, segment: Segment, body: RoundClosed, at: Position) -> None:
    """round_closed: it says what anyone can compute."""
    opened = segment.open_round
    if opened is None or body.round != opened.number:
        raise Void("round_not_open", "the open round", f"round {body.round}")
    cause = ORDER if opened.is_ended else FULL if opened.is_full else DEADLINE
    if cause == DEADLINE and at.log_time_us < opened.deadline_us:
        raise Void("close_early", f"a full cohort or log time {opened.deadline_us}", str(at.log_time_us))
    if body.cause != cause:
        raise Void("close_cause", _CAUSES[cause], _CAUSES[body.cause])
    excluded = segment.excluded
    claimed = {each.participant for each in body.dropped if each.reason == "defective"}
    due = _drops(state, opened, excluded, _defective(opened, claimed), at.log_time_us)
    if body.dropped != _drops(state, opened, excluded, claimed, at.log_time_us):
        raise Void("close_dropped", _names(due) or "none", _names(body.dropped) or "none")
    gone = {each.participant for each in body.dropped}
    counted = [opened.admissions[name] for name in sorted(opened.admissions.keys() - gone)]
    if body.counted_count != len(counted) or body.counted_root != counted_root(counted):
        raise Void("close_counted", f"{len(counted)} updates under their root", f"{body.counted_count}, or another")
    outcome = ABORTED if cause == ORDER or len(counted) < opened.terms.cohort_min else CLOSED
    if body.outcome != outcome:
        raise Void("close_outcome", "aborted" if outcome == ABORTED else "closed", "the other")
    if body.dropped != due:
        # False, and in effect: who holds no payloads cannot see it, and goes on from this closing.
        docket.find("close_dropped", at, _names(due) or "none", _names(body.dropped) or "none")
    opened.closed, opened.closed_hash = body, at.leaf
    opened.release()
    segment.control_head = at.leaf
    _note_censorship(state, docket, opened, at)


def _defective(opened: Round, claimed: set[str]) -> set[str]:
    """Whose payload does not bear its admission out. Where it is not there, the close's word is taken."""
    return {
        name
        for name, admission in opened.admissions.items()
        if admission.verdict is Verdict.DEFECTIVE or (admission.verdict is Verdict.UNKNOWN and name in claimed)
    }


def _drops(
    state: State, opened: Round, excluded: set[Digest], defective: set[str], now_us: int
) -> tuple[Dropped, ...]:
    """Who falls out, each for the first reason that holds."""
    dropped: list[Dropped] = []
    for name, admission in sorted(opened.admissions.items()):
        if name in opened.withdrawn:
            reason = "withdrawn"
        elif admission.statement_digest in excluded:
            reason = "excluded"
        elif not state.is_active(name, now_us):
            reason = "participant_inactive"
        elif name in defective and not opened.is_ended:
            reason = "defective"
        else:
            continue
        dropped.append(Dropped(name, admission.statement_digest, reason))
    return tuple(dropped)


def _note_censorship(state: State, docket: Docket, closed: Round, at: Position) -> None:
    """A complaint that nobody answered in time is a finding against the gatekeepers, and voids nothing."""
    for name, complaint in sorted(closed.complaints.items()):
        admission = closed.admissions.get(name)
        is_admitted = admission is not None and admission.statement_digest == complaint.statement_digest
        if is_admitted or complaint.statement_digest in state.refused_updates:
            continue
        if at.log_time_us >= complaint.log_time_us + _ANSWER_US:
            found = f"nothing, for the update of {name} that entry {complaint.index} shows"
            blamed = replace(at, writer=GATEKEEPERS)
            docket.find("censorship", blamed, "an admission or a refusal", found, is_acceptable=True)


def _names(dropped: tuple[Dropped, ...]) -> str:
    return ", ".join(f"{each.participant} ({each.reason})" for each in dropped)


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
