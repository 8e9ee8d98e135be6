"""Closing: which updates a round counts, and what its closing entry must say.

The closing entry reports what anyone can compute (PROTOCOL R3): nobody chooses a cohort.

Format: proto/README.md, "round_closed" and "Counted root".

Runs in: gatekeeper, aggregator, audit_log.
Trusts: the state of the fold.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from sfrl_secure.errors import RoundStateError
from sfrl_secure.governance.statements import CloseCause, CloseOutcome, DroppedUpdate, RoundClosed
from sfrl_secure.ids import Digest
from sfrl_secure.rounds.state import Admission, RoundState
from sfrl_secure.translog.merkle import leaf_hash, root_of

WITHDRAWN = "withdrawn"
EXCLUDED = "excluded"
INACTIVE = "participant_inactive"
DEFECTIVE = "defective"


def counted_leaf(admission: Admission) -> bytes:
    """Leaf of one counted update: participant, zero byte, statement digest, weight."""
    update = admission.update
    return (
        update.participant.encode("ascii") + b"\0" + admission.statement_digest + update.weight.to_bytes(4, "big")
    )


def counted_root(counted: Collection[Admission]) -> Digest:
    """RFC 9162 tree hash over the counted updates, which come sorted by participant."""
    return root_of([leaf_hash(counted_leaf(admission)) for admission in counted])


def counted_of(current: RoundState, closed: RoundClosed) -> tuple[Admission, ...]:
    """The round's admissions that `closed` does not drop, sorted by participant."""
    dropped = {drop.participant for drop in closed.dropped}
    return tuple(current.admissions[name] for name in sorted(current.admissions) if name not in dropped)


def close_cause(current: RoundState, now_us: int) -> CloseCause | None:
    """Why the round may be closed now, or None where it may not."""
    if current.ended_by_order:
        return CloseCause.ORDER
    if current.is_full:
        return CloseCause.FULL
    return CloseCause.DEADLINE if now_us >= current.deadline_us else None


def drop_reason(
    current: RoundState, name: str, *, defective: Collection[str], is_active: Callable[[str], bool]
) -> str | None:
    """Why this participant's admission is dropped at the close: the first reason that holds, or None."""
    if name in current.withdrawn:
        return WITHDRAWN
    if name in current.excluded:
        return EXCLUDED
    if not is_active(name):
        return INACTIVE
    # A round that an order ended publishes nothing, so nobody has to have seen its payloads.
    return DEFECTIVE if name in defective and not current.ended_by_order else None


def close_round(
    current: RoundState, *, defective: Collection[str], is_active: Callable[[str], bool], now_us: int
) -> RoundClosed:
    """Work out the closing of an open round.

    Args:
        defective: participants whose admission fails from its object's bytes; not looked at where an order ended the
            round, or where another reason comes first.
        is_active: whether a participant may take part at the close's index and time.

    Raises:
        RoundStateError: `round_not_over`, neither ended by order nor full nor past its deadline.
    """
    cause = close_cause(current, now_us)
    if cause is None:
        raise RoundStateError("round_not_over", "the round is neither full nor past its deadline")
    dropped = []
    for name in sorted(current.admissions):
        reason = drop_reason(current, name, defective=defective, is_active=is_active)
        if reason is not None:
            dropped.append(DroppedUpdate(name, current.admissions[name].statement_digest, reason))
    names = {drop.participant for drop in dropped}
    counted = [current.admissions[name] for name in sorted(current.admissions) if name not in names]
    enough = len(counted) >= current.terms.round.cohort_min and cause is not CloseCause.ORDER
    return RoundClosed(
        round=current.number,
        cause=cause,
        outcome=CloseOutcome.CLOSED if enough else CloseOutcome.ABORTED,
        counted_count=len(counted),
        counted_root=counted_root(counted),
        dropped=tuple(dropped),
    )
