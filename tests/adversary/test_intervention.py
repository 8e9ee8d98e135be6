"""Intervention: orders that operators did not give together, of another time or place, and orders that nobody obeys.

The attacker is one operator, holds orders of yesterday or of elsewhere, or has the key of a service and goes on as it
likes. What the log cannot see, since it has no payloads, the verifier finds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from simulator import HOUR_US, Simulator, auditor_id, operator_id, service_id

from sfrl_secure.crypto.envelope import Envelope, sign_envelope
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.governance.documents import Order
from sfrl_secure.governance.orders import (
    AcceptTarget,
    ExcludeTarget,
    NoTarget,
    OrderTarget,
    OverrideTarget,
    ReaggregateTarget,
    RollbackTarget,
)
from sfrl_secure.governance.statements import (
    Body,
    CloseCause,
    CloseOutcome,
    DroppedUpdate,
    PeerClass,
    RoundClosed,
    RoundOpened,
)
from sfrl_secure.ids import Digest, sha256
from sfrl_secure.rounds.closing import close_round, counted_root
from sfrl_secure.rounds.reaggregation import due_base

from .arena import Arena, full, opened, said, waiting

G1, A1 = service_id("gatekeeper", "g1"), service_id("aggregator", "a1")
IRIS = auditor_id("iris")
SECOND = 1_000_000
DURATION_US = 60 * SECOND
NOWHERE = sha256(b"nothing that there is")
THREE = ("rover-1", "rover-2", "rover-3")
ALL = ("ann", "bob", "eve")

Stage = Callable[[Simulator], object]


@pytest.fixture
def arena(tmp_path: Path) -> Iterator[Arena]:
    with Arena(tmp_path) as made:
        yield made


def order(
    sim: Simulator, action: str, target: OrderTarget | None = None, *, signers: Sequence[str] = ("ann", "bob"),
    **changes: Any,
) -> Envelope:  # fmt: skip
    """An order, signed and not given yet."""
    raw = sim.order_raw(action, NoTarget() if target is None else target, **changes)
    return sim.sign_document(Order.payload_type, raw, signers)


def nothing(sim: Simulator) -> None:
    pass


def one_round(sim: Simulator) -> None:
    sim.play_round(*THREE)


def two_rounds(sim: Simulator) -> None:
    one_round(sim)
    one_round(sim)


def halted(sim: Simulator) -> None:
    sim.halt()


def excluded(sim: Simulator) -> None:
    two_rounds(sim)
    sim.exclude("rover-1", 1)


def due(sim: Simulator) -> None:
    """Both rounds are to be derived again, the first without rover 1."""
    excluded(sim)
    sim.reaggregate(1)


def decided(sim: Simulator) -> None:
    sim.decide("rover-1")


def decision_of(sim: Simulator) -> Digest:
    return next(iter(sim.state.decisions))


def admitted(sim: Simulator, name: str = "rover-1", round_number: int = 1) -> Digest:
    return sim.segment.rounds[round_number].admissions[name].statement_digest


# One operator, or none


ALONE: list[tuple[str, Stage, Callable[[Simulator], tuple[str, OrderTarget]]]] = [
    ("resume", halted, lambda sim: ("resume", NoTarget())),
    ("exclude", opened, lambda sim: ("exclude", ExcludeTarget(admitted(sim)))),
    ("rollback", two_rounds, lambda sim: ("rollback", RollbackTarget(sim.initial_digest))),
    ("reaggregate", excluded, lambda sim: ("reaggregate", ReaggregateTarget(1, ("rover-1",)))),
    ("accept", one_round, lambda sim: ("accept", AcceptTarget(3, "weight_limit"))),
    ("override", decided, lambda sim: ("override", OverrideTarget(decision_of(sim), 9))),
]


@pytest.mark.parametrize(("stage", "make"), [pytest.param(*row[1:], id=row[0]) for row in ALONE])
def test_one_operator_alone_gives_no_order_but_a_halt(
    arena: Arena, stage: Stage, make: Callable[[Simulator], tuple[str, OrderTarget]]
) -> None:
    sim = arena.sim
    stage(sim)
    action, target = make(sim)
    alone = order(sim, action, target, signers=["eve"])
    arena.counted_by_log("threshold", partial(arena.bring, operator_id("eve"), alone), PeerClass.OPERATOR)
    arena.denied("threshold", "threshold", alone)
    raw = sim.order_raw(action, target)
    for other in (sim.keys[A1], sim.rovers["rover-1"], SigningKey.generate("ed25519")):
        both = sign_envelope(Order.payload_type, raw, [sim.operators["eve"], other])
        arena.denied("threshold", "threshold", both)
    # Two operators are enough for the very same words.
    sim.log.order(order(sim, action, target))
    arena.verify()


def test_whoever_is_no_operator_does_not_even_halt(arena: Arena) -> None:
    sim = arena.sim
    raw = sim.order_raw("halt")
    for key in (sim.keys[G1], sim.rovers["rover-1"], sim.auditors[IRIS], SigningKey.generate("ed25519")):
        arena.denied("threshold", "threshold", sign_envelope(Order.payload_type, raw, [key]))
    sim.halt()
    assert sim.segment.is_halted


def test_operators_who_left_root_give_no_orders(arena: Arena) -> None:
    sim = arena.sim
    kept_back = order(sim, "halt", signers=["eve"])
    together = order(sim, "halt", signers=["ann", "eve"])
    left = {name: key for name, key in sim.operators.items() if name != "eve"}
    sim.rotate_root(left)
    arena.denied("threshold", "threshold", kept_back)
    arena.denied("threshold", "threshold", together)


# Orders of another time or place


SERIES: list[tuple[str, str, str, Callable[[Simulator], dict[str, Any]]]] = [
    ("a number skipped", "version", "version", lambda sim: {"version": 4}),
    ("the number in force again", "version", "version", lambda sim: {"version": 2}),
    ("another history's", "previous", "previous", lambda sim: {"previous": NOWHERE}),
    ("another federation's", "wrong_federation", "wrong_federation", lambda sim: {"federation_id": NOWHERE}),
    ("for a segment that is none", "unknown_segment", "unknown_segment",
     lambda sim: {"segment": "sand", "version": 1, "previous": Digest(bytes(32))}),
    ("that has expired", "expired", "expired", lambda sim: {"expires_us": sim.clock.now_us()}),
    ("that is good for more than 72 hours", "lifetime", "lasts_too_long",
     lambda sim: {"expires_us": sim.clock.now_us() + 72 * HOUR_US + 1}),
]  # fmt: skip


@pytest.mark.parametrize(("reason", "code", "change"), [pytest.param(*row[1:], id=row[0]) for row in SERIES])
def test_an_order_of_another_time_or_place_is_none(
    arena: Arena, reason: str, code: str, change: Callable[[Simulator], dict[str, Any]]
) -> None:
    sim = arena.sim
    sim.halt()
    sim.resume()
    arena.denied(reason, code, order(sim, "halt", signers=ALL, **change(sim)))
    assert not sim.segment.is_halted


def test_an_old_order_is_not_given_twice(arena: Arena) -> None:
    sim = arena.sim
    halt = sim.log.envelope_at(sim.halt())
    sim.resume()
    arena.repeated("version", halt)
    assert not sim.segment.is_halted


def test_an_order_that_was_withheld_is_superseded_by_its_number(arena: Arena) -> None:
    """Whoever sits on a resumption does not bring it out after the next halt."""
    sim = arena.sim
    sim.halt()
    withheld = order(sim, "resume")
    sim.order("accept", AcceptTarget(1, "weight_limit"))
    arena.denied("version", "version", withheld)
    late = order(sim, "resume")
    sim.clock.advance(24 * HOUR_US)
    arena.denied("expired", "expired", late)
    assert sim.segment.is_halted


def test_one_segments_orders_reach_no_other(arena: Arena) -> None:
    sim = arena.sim
    sim.publish_terms(segment="sand")
    two_rounds(sim)
    sim.decide("rover-1")
    for reason, action, target in (
        ("unknown_update", "exclude", ExcludeTarget(admitted(sim))),
        ("unknown_model", "rollback", RollbackTarget(sim.segment.lineage[0].model)),
        ("unknown_round", "reaggregate", ReaggregateTarget(1, ())),
        ("unknown_decision", "override", OverrideTarget(decision_of(sim), 4)),
    ):
        arena.denied(reason, "order_target", order(sim, action, target, segment="sand"))
    sim.log.order(order(sim, "halt", segment="sand"))
    assert (sim.state.segments["sand"].is_halted, sim.segment.is_halted) == (True, False)
    arena.verify()


# Orders about what is not there


def rolled_back(sim: Simulator) -> None:
    two_rounds(sim)
    sim.roll_back(sim.segment.lineage[0].model)


def left_the_lineage(sim: Simulator) -> RollbackTarget:
    """The model of round 2, which is published and leads nowhere any more."""
    model = sim.segment.rounds[2].model
    assert model is not None
    return RollbackTarget(model)


TARGETS: list[tuple[str, Stage, str, str, str, Callable[[Simulator], OrderTarget]]] = [
    ("a halt of what is halted", halted, "halted", "order_state", "halt", lambda sim: NoTarget()),
    ("a resumption of what goes on", nothing, "not_halted", "order_state", "resume", lambda sim: NoTarget()),
    ("an exclusion of what was not admitted", opened, "unknown_update", "order_target", "exclude",
     lambda sim: ExcludeTarget(NOWHERE)),
    ("an exclusion again", excluded, "excluded", "order_target", "exclude", lambda sim: ExcludeTarget(admitted(sim))),
    ("a rollback to a model never published", two_rounds, "unknown_model", "order_target", "rollback",
     lambda sim: RollbackTarget(NOWHERE)),
    ("a rollback to the newest model", two_rounds, "newest_model", "order_target", "rollback",
     lambda sim: RollbackTarget(sim.segment.model)),
    ("a rollback forward", rolled_back, "unknown_model", "order_target", "rollback", left_the_lineage),
    ("a re-aggregation of a round that never was", two_rounds, "unknown_round", "order_target", "reaggregate",
     lambda sim: ReaggregateTarget(3, ())),
    ("a re-aggregation of a round that left", rolled_back, "unknown_round", "order_target", "reaggregate",
     lambda sim: ReaggregateTarget(2, ())),
    ("a re-aggregation that leaves nobody out", two_rounds, "nothing_left_out", "nothing_left_out", "reaggregate",
     lambda sim: ReaggregateTarget(1, ())),
    ("a re-aggregation that begins too late", excluded, "nothing_left_out", "nothing_left_out", "reaggregate",
     lambda sim: ReaggregateTarget(2, ())),
    ("a re-aggregation behind one that is not done", due, "unknown_round", "order_target", "reaggregate",
     lambda sim: ReaggregateTarget(2, ())),
    ("a re-aggregation that hides whom it reveals", excluded, "reveals", "reveals", "reaggregate",
     lambda sim: ReaggregateTarget(1, ())),
    ("a re-aggregation that names somebody else", excluded, "reveals", "reveals", "reaggregate",
     lambda sim: ReaggregateTarget(1, ("rover-2",))),
    ("a re-aggregation that names one too many", excluded, "reveals", "reveals", "reaggregate",
     lambda sim: ReaggregateTarget(1, ("rover-1", "rover-2"))),
    ("an acceptance of what is to come", one_round, "unknown_entry", "order_target", "accept",
     lambda sim: AcceptTarget(len(sim.log.raw), "weight_limit")),
    ("an override of nothing", decided, "unknown_decision", "order_target", "override",
     lambda sim: OverrideTarget(NOWHERE, 1)),
    ("an override of an update", opened, "unknown_decision", "order_target", "override",
     lambda sim: OverrideTarget(admitted(sim), 1)),
    ("an override again", lambda sim: (decided(sim), sim.override(decision_of(sim), 4)), "overridden", "order_target",
     "override", lambda sim: OverrideTarget(decision_of(sim), 5)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("stage", "reason", "code", "action", "target"), [pytest.param(*row[1:], id=row[0]) for row in TARGETS]
)
def test_an_order_about_what_is_not_there_has_no_effect_whoever_signs_it(
    arena: Arena, stage: Stage, reason: str, code: str, action: str, target: Callable[[Simulator], OrderTarget]
) -> None:
    stage(arena.sim)
    arena.denied(reason, code, order(arena.sim, action, target(arena.sim), signers=ALL))


def test_those_whom_several_models_reveal_are_all_asked_for(arena: Arena) -> None:
    """Two of a cohort of two hide among each other; one alone in another round does not."""
    sim = arena.sim
    two_rounds(sim)
    sim.exclude("rover-1", 1)
    sim.exclude("rover-2", 1)
    sim.exclude("rover-3", 2)
    for reveals in ((), ("rover-1", "rover-2", "rover-3"), ("rover-1",)):
        arena.denied("reveals", "reveals", order(sim, "reaggregate", ReaggregateTarget(1, reveals)))
    sim.log.order(order(sim, "reaggregate", ReaggregateTarget(1, ("rover-3",))))
    arena.verify()


# Services that do not obey


def open_next(sim: Simulator) -> Body:
    return RoundOpened(sim.segment.last_round + 1, sim.segment.model, sim.segment.terms.digest)


def closing(sim: Simulator) -> RoundClosed:
    """An honest close of the open round as it would be if nobody had given an order, or taken anything back."""
    current = sim.segment.open_round
    assert current is not None
    heedless = replace(current, withdrawn={}, excluded=set(), ended_by_order=False)
    return close_round(heedless, defective=(), is_active=lambda name: True, now_us=sim.clock.now_us())


def called(sim: Simulator, name: str, reason: str) -> RoundClosed:
    """A close that drops one update for this reason."""
    body, current = closing(sim), sim.segment.open_round
    assert current is not None
    kept = [each for who, each in sorted(current.admissions.items()) if who != name]
    dropped = DroppedUpdate(name, current.admissions[name].statement_digest, reason)
    return replace(body, dropped=(dropped,), counted_count=len(kept), counted_root=counted_root(kept))


def model_of_last(sim: Simulator, **changes: Any) -> Body:
    current = sim.segment.current
    assert current is not None
    return sim.model_of(current, current.base_model, **changes)


def ended(sim: Simulator) -> None:
    """An order ends the second round, which is open."""
    one_round(sim)
    opened(sim)
    sim.roll_back(sim.initial_digest)


def abandoned(sim: Simulator) -> None:
    """An order abandons the second round, which waits for its model."""
    one_round(sim)
    waiting(sim)
    sim.roll_back(sim.initial_digest)


def full_and(deed: Callable[[Simulator], object]) -> Stage:
    return lambda sim: (full(sim), deed(sim))


def waiting_and_halted(sim: Simulator) -> None:
    waiting(sim)
    sim.halt()


def opened_and_halted(sim: Simulator) -> None:
    opened(sim)
    sim.halt()


def first_is_derived(sim: Simulator) -> None:
    due(sim)
    sim.publish_model()


def second_first(sim: Simulator) -> Body:
    step = sim.segment.lineage[1]
    return replace(sim.model_of(sim.segment.rounds[2], step.base), supersedes=step.published)


def on_old_base(sim: Simulator) -> Body:
    return replace(sim.due_model(), base_model=sim.segment.lineage[1].base)


DISOBEYED: list[tuple[str, Stage, str, str, Any, Callable[[Simulator], Body]]] = [
    ("a round of a halted segment", halted, "halted", "halted", A1, open_next),
    ("a model of a halted segment", waiting_and_halted, "halted", "halted", A1, model_of_last),
    ("an admission in a halted segment", opened_and_halted, "halted", "halted", G1,
     lambda sim: sim.admission("rover-3")),
    ("an admission in a round that an order ended", ended, "round_not_open", "round_not_open", G1,
     lambda sim: sim.admission("rover-3")),
    ("a close that counts what was withdrawn", full_and(lambda sim: sim.withdraw("rover-1")), "close",
     "close_dropped", A1, closing),
    ("a close that counts what was excluded", full_and(lambda sim: sim.exclude("rover-1")), "close",
     "close_dropped", A1, closing),
    ("a close that counts whom operators revoked", full_and(lambda sim: sim.record("rover-1", state="revoked")),
     "close", "close_dropped", A1, closing),
    ("a close that counts whom operators suspended", full_and(lambda sim: sim.record("rover-1", state="suspended")),
     "close", "close_dropped", A1, closing),
    ("an exclusion that nobody ordered", full, "close", "close_dropped", A1,
     lambda sim: called(sim, "rover-1", "excluded")),
    ("a withdrawal that nobody signed", full, "close", "close_dropped", A1,
     lambda sim: called(sim, "rover-1", "withdrawn")),
    ("an exclusion that is called a defect", full_and(lambda sim: sim.exclude("rover-1")), "close", "close_dropped",
     A1, lambda sim: called(sim, "rover-1", "defective")),
    ("a close on an order that nobody gave", full, "close", "close_cause", A1,
     lambda sim: replace(closing(sim), cause=CloseCause.ORDER, outcome=CloseOutcome.ABORTED)),
    ("a close as if no order had ended it", lambda sim: (ended(sim), sim.clock.advance(DURATION_US)), "close",
     "close_cause", A1, closing),
    ("a model of an abandoned round", abandoned, "no_model_due", "no_model_due", A1, model_of_last),
    ("a round on a model that was rolled back", rolled_back, "base", "base_model", A1,
     lambda sim: RoundOpened(3, left_the_lineage(sim).model, sim.segment.terms.digest)),
    ("a round while models are due", due, "due", "round_not_due", A1, open_next),
    ("a model without superseding, while models are due", due, "no_model_due", "no_model_due", A1, model_of_last),
    ("the second model that is due before the first", due, "no_model_due", "supersedes", A1, second_first),
    ("a model in the place of another than the one due", due, "model", "supersedes", A1,
     lambda sim: replace(sim.due_model(), supersedes=NOWHERE)),
    ("a model of another close", due, "model", "supersedes", A1, lambda sim: sim.due_model(round_closed=NOWHERE)),
    ("a model again from another base", due, "model", "base_model", A1, lambda sim: sim.due_model(base_model=NOWHERE)),
    ("a later model again on its old base", first_is_derived, "model", "base_model", A1, on_old_base),
    ("a model again by another rule", due, "model", "rule", A1, lambda sim: sim.due_model(rule="krum/v1")),
    ("a model again that nobody ordered", two_rounds, "no_model_due", "supersedes", A1, second_first),
]  # fmt: skip


@pytest.mark.parametrize(
    ("stage", "reason", "code", "writer", "body"), [pytest.param(*row[1:], id=row[0]) for row in DISOBEYED]
)
def test_a_service_that_does_not_obey_is_refused_and_found_out(
    arena: Arena, stage: Stage, reason: str, code: str, writer: Any, body: Callable[[Simulator], Body]
) -> None:
    stage(arena.sim)
    arena.denied(reason, code, said(arena.sim, writer, body(arena.sim)))


def test_a_participant_is_told_that_the_segment_is_halted_or_the_round_over(arena: Arena) -> None:
    sim = arena.sim
    one_round(sim)
    opened(sim)
    first, second = sim.update("rover-3"), sim.update("rover-4")
    sim.halt()
    arena.refused("halted", lambda: arena.send("rover-3", first))
    sim.resume()
    sim.roll_back(sim.initial_digest)
    arena.refused("round_not_open", lambda: arena.send("rover-4", second, at="g2"))


def test_a_revoked_participant_drops_out_of_the_open_round_at_once(arena: Arena) -> None:
    sim = arena.sim
    full(sim)
    late = sim.update("rover-4")
    sim.record("rover-4", state="revoked")
    arena.refused("participant_inactive", lambda: arena.send("rover-4", late))
    sim.record("rover-1", state="revoked")
    aggregator = sim.aggregator()
    assert [aggregator.step(), aggregator.step()] == [["CloseRound"], ["PublishModel"]]
    closed = sim.segment.rounds[1].closed
    assert closed is not None
    assert [(drop.participant, drop.reason) for drop in closed.dropped] == [("rover-1", "participant_inactive")]
    arena.verify()


def test_an_aggregator_that_counts_an_excluded_update_again_is_found_by_its_result(arena: Arena) -> None:
    """The log sees the right round, base and place; that the sum is another, the payloads say."""
    sim = arena.sim
    due(sim)
    honest = sim.due_model()
    heedless = sim.model_of(replace(sim.segment.rounds[1], left_out=frozenset()), due_base(sim.segment))
    forged = replace(heedless, supersedes=honest.supersedes)
    assert forged.model == sim.segment.lineage[0].model
    arena.found(("aggregate", "model"), said(sim, A1, forged))
    # What honest services write on top of it frames nobody.
    sim.publish_model()
    sim.open_round()
    arena.verify()


def test_an_aggregator_that_leaves_out_more_than_was_ordered_is_found_by_its_result(arena: Arena) -> None:
    sim = arena.sim
    due(sim)
    more = replace(sim.segment.rounds[1], left_out=frozenset({"rover-1", "rover-2"}))
    forged = replace(sim.model_of(more, due_base(sim.segment)), supersedes=sim.due_model().supersedes)
    arena.found(("aggregate", "model"), said(sim, A1, forged))


def test_an_honest_aggregator_obeys_each_order_and_nothing_is_found(arena: Arena) -> None:
    """Else every attack above would say nothing."""
    sim = arena.sim
    due(sim)
    sim.halt()
    aggregator = sim.aggregator()
    assert [aggregator.step() for _ in range(3)] == [["DeriveAgain"], ["DeriveAgain"], []]
    sim.resume()
    assert aggregator.step() == ["OpenRound"]
    sim.roll_back(sim.initial_digest)
    assert aggregator.step() == ["CloseRound"]
    closed = sim.segment.rounds[3].closed
    assert closed is not None
    assert (closed.cause, closed.outcome) == (CloseCause.ORDER, CloseOutcome.ABORTED)
    arena.verify()


# Findings that operators accept


def test_accepting_one_finding_hides_no_other_and_no_false_result(arena: Arena) -> None:
    sim = arena.sim
    current = sim.open_round()
    for at, name in enumerate(THREE):
        sim.admit(name, {at: 5})
    sim.close_round()
    void = arena.denied("role", "role", said(sim, G1, open_next(sim)))
    told = sim.model_of(replace(current, left_out=frozenset({"rover-1"})), current.base_model)
    false = arena.found(("aggregate", "model"), said(sim, A1, told))
    for index, code in ((void, "writer"), (void + 1, "role"), (false, "model"), (false, "aggregate")):
        sim.accept(index, code)
    assert arena.verify().accepted == {}
    accepted = sim.accept(void, "role")
    assert {(each.code, each.index): at for each, at in arena.verify().accepted.items()} == {("role", void): accepted}
