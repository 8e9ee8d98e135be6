"""Re-aggregation: which published rounds are derived again, without whom, and what the difference gives away.

Pure functions of the state: the fold judges an order by them, the aggregator obeys it by them, and whoever drafts one
learns from them what to ask for.

Format: proto/README.md, "Re-aggregation".

Runs in: gatekeeper, aggregator, audit_log, operator.
Trusts: the state of the fold.
"""

from __future__ import annotations

from collections.abc import Mapping

from sfrl_secure.governance.aggregation_terms import CLUSTERED_MEAN
from sfrl_secure.ids import Digest
from sfrl_secure.rounds.closing import counted_of
from sfrl_secure.rounds.state import Admission, FederationState, LineageStep, RoundState, SegmentState


def steps_from(segment: SegmentState, from_round: int) -> tuple[LineageStep, ...]:
    """The steps of the lineage from this round's on; none where the round has no step."""
    at = segment.step_of(from_round)
    return () if at is None else tuple(segment.lineage[at:])


def counted_of_round(current: RoundState) -> tuple[Admission, ...]:
    """The counted list of a closed round, sorted by participant; of an open one, nobody."""
    return () if current.closed is None else counted_of(current, current.closed)


def counted_in_step(current: RoundState) -> tuple[Admission, ...]:
    """The updates of which the model of the round's step is made, or is to be made where the step is due."""
    return tuple(each for each in counted_of_round(current) if each.update.participant not in current.left_out)


def left_out_of(state: FederationState, current: RoundState) -> frozenset[str]:
    """Participants of the round's counted list whose update is excluded, or whose record is revoked by now."""
    return frozenset(
        name
        for name in (each.update.participant for each in counted_of_round(current))
        if name in current.excluded or _is_revoked(state, name)
    )


def left_out_by(state: FederationState, segment: SegmentState, from_round: int) -> dict[int, frozenset[str]]:
    """Whom deriving again from this round on would newly leave out, by round; rounds with nobody are absent."""
    newly = {
        step.round: left_out_of(state, segment.rounds[step.round]) - segment.rounds[step.round].left_out_derived
        for step in steps_from(segment, from_round)
    }
    return {number: names for number, names in newly.items() if names}


def reveals_of(segment: SegmentState, newly: Mapping[int, frozenset[str]]) -> tuple[str, ...]:
    """Participants of whose updates the difference of two models says too much: fewer than a cohort, added up. Where
    clusters' models were published beside it, whoever was counted: also of those who stay in.

    Args:
        newly: what `left_out_by` gives.
    """
    betrayed: set[str] = set()
    for number, names in newly.items():
        current = segment.rounds[number]
        if current.terms.rule.name == CLUSTERED_MEAN:
            betrayed.update(each.update.participant for each in counted_of_round(current))
        elif len(names) < current.terms.round.cohort_min:
            betrayed.update(names)
    return tuple(sorted(betrayed))


def may_begin_at(segment: SegmentState, from_round: int) -> bool:
    """Whether a re-aggregation may begin with this round: it has a step, and none that is due lies before it."""
    return segment.step_of(from_round) is not None and (not segment.due or from_round <= segment.due[0])


def due_step(segment: SegmentState) -> LineageStep | None:
    """The step that is derived again next, as it still is."""
    at = segment.step_of(segment.due[0]) if segment.due else None
    return None if at is None else segment.lineage[at]


def due_base(segment: SegmentState) -> Digest:
    """The model that the next step due is derived from: what the step before has become. Something is due.

    Not the step's own base: a second order may begin behind a step that was derived again already.
    """
    at = segment.step_of(segment.due[0])
    assert at is not None, "steps leave the lineage by a rollback, which leaves nothing due"
    return segment.lineage[at - 1].model if at else segment.terms.model.initial


def _is_revoked(state: FederationState, name: str) -> bool:
    record = state.participant(name)
    return record is not None and record.state == "revoked"
