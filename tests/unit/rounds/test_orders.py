"""Orders: each has effect where the specification says so, and does what it says to its own segment."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest
from simulator import HOUR_US, NOW_US, Simulator

from sfrl_secure.crypto.envelope import sign_envelope
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.errors import ConflictError, DeniedError
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
from sfrl_secure.governance.statements import CloseCause, CloseOutcome
from sfrl_secure.ids import ZERO_DIGEST, sha256
from sfrl_secure.limits import ORDER_LIFETIME_US

from .scenes import (
    A1,
    STREAM,
    Case,
    Prepare,
    Send,
    check_sound,
    check_void,
    closed,
    findings,
    full,
    halted,
    ids,
    model,
    nothing,
    one_admitted,
    one_excluded,
    one_withdrawn,
    open_,
    published,
)  # fmt: skip

STRANGER = SigningKey.generate("ed25519")


def ordered(action: str, target: OrderTarget | None = None, signers: Any = None, **changes: Any) -> Send:
    def send(sim: Simulator) -> Any:
        raw = sim.order_raw(action, target or NoTarget(), **changes)
        return sim.sign_document(Order.payload_type, raw, signers)

    return send


def by_a_stranger(sim: Simulator) -> Any:
    return sign_envelope(Order.payload_type, sim.order_raw("halt"), [STRANGER])


def excluding(name: str = "rover-1", **changes: Any) -> Send:
    return lambda sim: ordered(
        "exclude", ExcludeTarget(sim.segment.rounds[1].admissions[name].statement_digest), **changes
    )(sim)


def to_initial(sim: Simulator) -> Any:
    return ordered("rollback", RollbackTarget(sim.initial_digest))(sim)


def to_newest(sim: Simulator) -> Any:
    return ordered("rollback", RollbackTarget(sim.segment.model))(sim)


def overriding(number: int = 0, **changes: Any) -> Send:
    return lambda sim: ordered("override", OverrideTarget(list(sim.state.decisions)[number], 9), **changes)(sim)


def admitted_and_two_segments(sim: Simulator) -> None:
    one_admitted(sim)
    sim.publish_terms(segment="sand")


def decided(sim: Simulator) -> None:
    sim.publish_terms(segment="sand")
    sim.decide("rover-1")


def overridden(sim: Simulator) -> None:
    decided(sim)
    sim.override(next(iter(sim.state.decisions)), 4)


def rolled_back(sim: Simulator) -> None:
    """One step, which has left the lineage; its model is one of the segment's still."""
    sim.play_round("rover-1", "rover-2", "rover-3")
    sim.stepped = sim.segment.model
    sim.roll_back(sim.initial_digest)


VOID: list[Case] = [
    ("threshold", nothing, by_a_stranger),
    ("threshold", halted, ordered("resume", signers=["ann"])),
    ("threshold", one_admitted, excluding(signers=["ann"])),
    ("threshold", published, lambda sim: ordered("rollback", RollbackTarget(sim.initial_digest), ["eve"])(sim)),
    ("threshold", nothing, ordered("accept", AcceptTarget(0, "void"), ["eve"])),
    ("threshold", decided, overriding(signers=["eve"])),
    ("unknown_segment", nothing, ordered("halt", segment="sand")),
    ("wrong_federation", nothing, ordered("halt", federation_id=sha256(b"another"))),
    ("lifetime", nothing, ordered("halt", expires_us=NOW_US + ORDER_LIFETIME_US + 1)),
    ("expired", nothing, ordered("halt", expires_us=NOW_US)),
    ("version", nothing, ordered("halt", version=2)),
    ("version", halted, ordered("resume", version=1, previous=ZERO_DIGEST)),
    ("previous", halted, ordered("resume", previous=sha256(b"another"))),
    ("halted", halted, ordered("halt")),
    ("not_halted", nothing, ordered("resume")),
    ("unknown_update", open_, ordered("exclude", ExcludeTarget(sha256(b"none")))),
    ("unknown_update", admitted_and_two_segments, excluding(segment="sand")),
    ("excluded", one_excluded, excluding()),
    ("newest_model", nothing, to_initial),
    ("newest_model", published, to_newest),
    ("unknown_model", published, ordered("rollback", RollbackTarget(sha256(b"none")))),
    ("unknown_model", rolled_back, lambda sim: ordered("rollback", RollbackTarget(sim.stepped))(sim)),
    ("unknown_round", nothing, ordered("reaggregate", ReaggregateTarget(1, ()))),
    ("unknown_round", closed, ordered("reaggregate", ReaggregateTarget(1, ()))),
    ("nothing_left_out", published, ordered("reaggregate", ReaggregateTarget(1, ()))),
    ("unknown_entry", nothing, lambda sim: ordered("accept", AcceptTarget(sim.state.size, "void"))(sim)),
    ("unknown_decision", nothing, ordered("override", OverrideTarget(sha256(b"none"), 1))),
    ("unknown_decision", decided, overriding(segment="sand")),
    ("overridden", overridden, overriding()),
]  # fmt: skip


@pytest.mark.parametrize("case", VOID, ids=ids(VOID))
def test_a_void_order_changes_nothing_but_the_position(prepare: Prepare, case: Case) -> None:
    reason, scene, send = case
    check_void(prepare(scene), reason, send)


SOUND: list[Case] = [
    ("halt-by-one", nothing, ordered("halt", signers=["eve"])),
    ("halt-for-72-hours", nothing, ordered("halt", expires_us=NOW_US + ORDER_LIFETIME_US)),
    ("resume", halted, ordered("resume")),
    ("exclude", one_admitted, excluding()),
    ("exclude-what-is-withdrawn", one_withdrawn, excluding()),
    ("exclude-from-a-closed-round", published, excluding()),
    ("exclude-another", one_excluded, excluding("rover-2")),
    ("rollback", published, to_initial),
    ("accept", nothing, lambda sim: ordered("accept", AcceptTarget(sim.state.size - 1, "void"))(sim)),
    ("accept-what-nobody-found", nothing, ordered("accept", AcceptTarget(0, "x"))),
    ("override", decided, overriding()),
    ("second-segment", lambda sim: (sim.publish_terms(segment="sand"), sim.halt()), ordered("halt", segment="sand")),
]  # fmt: skip


@pytest.mark.parametrize("case", SOUND, ids=[case[0] for case in SOUND])
def test_a_sound_order_has_effect_here_and_in_the_verifier(tmp_path: Path, case: Case) -> None:
    _, scene, send = case
    check_sound(tmp_path, scene, send)


def test_every_sequence_of_halts_and_resumes_leaves_the_segment_as_the_last_effective_one_says(sim: Simulator) -> None:
    for actions in product(("halt", "resume"), repeat=5):
        for action in actions:
            is_halted = sim.segment.is_halted
            if is_halted == (action == "halt"):
                with pytest.raises(DeniedError):
                    sim.order(action)
                assert sim.segment.is_halted == is_halted
            else:
                sim.order(action)
                assert sim.segment.is_halted == (action == "halt")
    # A series is numbered by what had effect alone.
    orders = [sim.log.envelope_at(index).payload_type for index in range(len(sim.log.raw))].count(Order.payload_type)
    assert sim.state.placed["order", "rocks"].document.version == orders > 32


def test_a_halted_segment_opens_and_admits_and_publishes_nothing_and_closes(sim: Simulator) -> None:
    full(sim)
    sim.halt()
    sim.withdraw("rover-1")
    sim.decide("rover-2")
    sim.close_round()
    with pytest.raises(ConflictError) as stopped:
        sim.write(A1, STREAM, model()(sim))
    assert stopped.value.reason == "halted"
    sim.resume()
    sim.publish_model()
    sim.halt()
    with pytest.raises(ConflictError) as stopped:
        sim.open_round()
    assert stopped.value.reason == "halted"
    sim.resume()
    sim.open_round()
    sim.halt()
    with pytest.raises(ConflictError) as stopped:
        sim.admit("rover-1")
    assert stopped.value.reason == "halted"
    assert findings(sim) == set()


def test_an_order_holds_after_it_has_expired(sim: Simulator) -> None:
    sim.halt()
    sim.clock.advance(100 * HOUR_US)
    assert sim.segment.is_halted
    with pytest.raises(ConflictError):
        sim.open_round()
    sim.resume()


def test_an_order_touches_its_own_segment_alone(sim: Simulator) -> None:
    sim.publish_terms(segment="sand")
    sim.halt(segment="sand")
    assert not sim.segment.is_halted
    sim.open_round()
    assert sim.state.segments["sand"].is_halted


def test_an_excluded_update_falls_out_of_an_open_round_and_stays_in_a_closed_one(sim: Simulator) -> None:
    full(sim)
    sim.exclude("rover-2")
    current = sim.close_round()
    assert current.closed is not None
    assert [(each.participant, each.reason) for each in current.closed.dropped] == [("rover-2", "excluded")]
    counted = current.closed
    sim.exclude("rover-1")
    assert current.closed == counted
    sim.publish_model()
    assert findings(sim) == set()


def test_a_rollback_goes_back_to_every_step_and_to_the_beginning(tmp_path: Path) -> None:
    for steps in range(1, 4):
        for kept in range(steps):
            sim = Simulator(tmp_path / f"{steps}-{kept}")
            models = [sim.initial_digest]
            for _ in range(steps):
                models.append(sim.play_round("rover-1", "rover-2", "rover-3").model or ZERO_DIGEST)
            assert len(set(models)) == steps + 1
            lineage = list(sim.segment.lineage)
            sim.roll_back(models[kept])
            segment = sim.segment
            assert segment.model == models[kept]
            assert segment.model_index == (lineage[kept - 1].index if kept else -1)
            assert segment.lineage == lineage[:kept]
            assert segment.models == set(models)
            if steps < segment.terms.round.rounds_max:
                assert sim.open_round().base_model == models[kept]
                assert segment.last_round == steps + 1
            assert findings(sim) == set()


def test_a_rollback_ends_an_open_round_which_then_closes_by_order_at_once(sim: Simulator) -> None:
    published(sim)
    sim.open_round()
    for name in ("rover-1", "rover-2", "rover-3"):
        sim.admit(name)
    sim.withdraw("rover-2")
    sim.roll_back(sim.initial_digest)
    # Full, and within its time: the order comes first. Who is defective is nobody's business any more.
    current = sim.close_round(defective=["rover-1"])
    assert current.closed is not None
    assert (current.closed.cause, current.closed.outcome) == (CloseCause.ORDER, CloseOutcome.ABORTED)
    assert current.closed.counted_count == 2
    assert [(each.participant, each.reason) for each in current.closed.dropped] == [("rover-2", "withdrawn")]
    assert not sim.segment.awaits_model
    with pytest.raises(ConflictError) as none_due:
        sim.publish_model()
    assert none_due.value.reason == "no_model_due"
    assert sim.open_round().base_model == sim.initial_digest
    assert findings(sim) == set()


def test_a_round_that_waits_for_its_model_is_abandoned_by_a_rollback(sim: Simulator) -> None:
    published(sim)
    sim.open_round()
    for name in ("rover-1", "rover-2", "rover-3"):
        sim.admit(name)
    sim.close_round()
    assert sim.segment.awaits_model
    sim.roll_back(sim.initial_digest)
    assert not sim.segment.awaits_model
    with pytest.raises(ConflictError) as none_due:
        sim.publish_model()
    assert none_due.value.reason == "no_model_due"
    assert sim.open_round().base_model == sim.initial_digest
    assert findings(sim) == set()


def test_what_is_accepted_is_kept_in_order(sim: Simulator) -> None:
    sim.accept(3, "void")
    sim.accept(0, "censorship")
    assert sim.state.accepted == [(3, "void"), (0, "censorship")]

