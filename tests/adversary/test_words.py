"""Words put into mouths: withdrawals, decisions and complaints that their participant did not say, or said elsewhere.

The attacker has the key of a gatekeeper, a verifier or an auditor; or is a participant that would frame a gatekeeper.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from simulator import Simulator, auditor_id, participant_id, service_id

from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.governance.documents import Order
from sfrl_secure.governance.orders import AcceptTarget, OrderAction
from sfrl_secure.governance.statements import ComplaintRecorded, UpdateRefused
from sfrl_secure.ids import sha256

from .arena import NONE, Arena, full, opened, said, waiting

G1, V1, IRIS = service_id("gatekeeper", "g1"), service_id("verifier", "v1"), auditor_id("iris")
SECOND = 1_000_000
DURATION_US = 60 * SECOND
NOWHERE = sha256(b"nothing that there is")

Stage = Callable[[Simulator], object]


@pytest.fixture
def arena(tmp_path: Path) -> Iterator[Arena]:
    with Arena(tmp_path) as made:
        yield made


def nothing(sim: Simulator) -> None:
    pass


def test_a_stolen_gatekeeper_takes_nothing_back_for_anybody(arena: Arena) -> None:
    sim = arena.sim
    full(sim)
    theirs = sim.segment.rounds[1].admissions["rover-1"]
    for reason, code, body in (
        ("bad_signature", "bad_signature", sim.withdrawal("rover-1", key=sim.keys[G1])),
        ("bad_signature", "bad_signature", sim.withdrawal("rover-1", key=sim.rovers["rover-2"])),
        ("not_admitted", "withdrawal", sim.withdrawal("rover-4")),
        ("not_admitted", "withdrawal", sim.withdrawal("rover-2", update=theirs.statement_digest)),
        ("wrong_federation", "wrong_federation", sim.withdrawal("rover-1", federation_id=NOWHERE)),
        ("stream", "stream", sim.withdrawal("rover-1", segment="sand")),
    ):
        arena.denied(reason, code, said(sim, G1, body))
    assert sim.segment.rounds[1].withdrawn == {}


def test_a_round_that_is_closed_takes_nothing_back(arena: Arena) -> None:
    sim = arena.sim
    full(sim)
    body = sim.withdrawal("rover-1")
    sim.close_round()
    arena.counted("round_not_open", lambda: arena.withdraw("rover-1", body.envelope))
    arena.denied("round_not_open", "round_not_open", said(sim, G1, body))


DECISIONS: list[tuple[str, str, str, Stage, dict[str, Any]]] = [
    ("that the participant did not sign", "bad_signature", "bad_signature", nothing,
     {"key": SigningKey.generate("ed25519")}),
    ("with a number that falls", "record_seq", "record_seq", lambda sim: sim.decide("rover-1", record_seq=9),
     {"record_seq": 8}),
    ("with a number again", "record_seq", "record_seq", lambda sim: sim.decide("rover-1", record_seq=9),
     {"record_seq": 9, "predicted_class": 4}),
    ("with a model that is none of the segment's", "unknown_model", "model_unknown", nothing, {"model": NOWHERE}),
    ("of a suspended participant", "participant_inactive", "participant_inactive",
     lambda sim: sim.record("rover-1", state="suspended"), {}),
    ("of a revoked participant", "participant_inactive", "participant_inactive",
     lambda sim: sim.record("rover-1", state="revoked"), {}),
    ("of a participant without a grant", "not_granted", "not_granted",
     lambda sim: sim.record("rover-1", groups=["orbiters"]), {}),
    ("where nothing is recorded", "not_granted", "not_granted",
     lambda sim: sim.publish_terms(operations=["fetch", "submit"]), {}),
    ("of another federation", "wrong_federation", "wrong_federation", nothing, {"federation_id": NOWHERE}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("reason", "code", "stage", "changes"), [pytest.param(*row[1:], id=row[0]) for row in DECISIONS]
)
def test_a_decision_is_put_on_record_neither_at_the_door_nor_by_a_stolen_gatekeeper(
    arena: Arena, reason: str, code: str, stage: Stage, changes: dict[str, Any]
) -> None:
    sim = arena.sim
    stage(sim)
    body = sim.decision("rover-1", **changes)
    before = dict(sim.state.decisions)
    arena.counted(reason, lambda: arena.record("rover-1", body.envelope))
    arena.denied(reason, code, said(sim, G1, body))
    assert sim.state.decisions == before


def test_what_operators_overrode_is_not_decided_again_by_anybody(arena: Arena) -> None:
    sim = arena.sim
    digest = sim.decide("rover-1")
    sim.override(digest, 7)
    index = sim.state.decisions[digest].index
    arena.repeated("repeated", sim.log.envelope_at(index))
    assert sim.state.decisions[digest].overridden == 7


# Complaints


COMPLAINTS: list[tuple[str, str, str, Stage, Callable[[Simulator], ComplaintRecorded]]] = [
    ("in another's name", "bad_signature", "bad_signature", opened,
     lambda sim: sim.complaint("rover-3", key=sim.keys[V1])),
    ("of a participant who was suspended", "participant_inactive", "participant_inactive",
     lambda sim: (opened(sim), sim.record("rover-3", state="suspended")), lambda sim: sim.complaint("rover-3")),
    ("about a round that is over", "round_not_open", "round_not_open", waiting,
     lambda sim: sim.complaint("rover-4")),
    ("about a round to come", "round_not_open", "round_not_open", opened,
     lambda sim: sim.complaint("rover-3", round=2)),
    ("about another history", "wrong_prefix", "wrong_prefix", opened,
     lambda sim: sim.complaint("rover-3", round_opened=NOWHERE)),
    ("about another federation", "wrong_federation", "wrong_federation", opened,
     lambda sim: sim.complaint("rover-3", federation_id=NOWHERE)),
    ("about another segment", "stream", "stream", opened, lambda sim: sim.complaint("rover-3", segment="sand")),
    ("a second time", "complained", "complaint", lambda sim: (opened(sim), sim.complain("rover-3")),
     lambda sim: sim.complaint("rover-3", weight=9)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("reason", "code", "stage", "complaint"), [pytest.param(*row[1:], id=row[0]) for row in COMPLAINTS]
)
@pytest.mark.parametrize("writer", [V1, IRIS], ids=["verifier", "auditor"])
def test_a_false_complaint_is_none(
    arena: Arena, writer: Any, reason: str, code: str, stage: Stage, complaint: Callable[[Simulator], ComplaintRecorded]
) -> None:
    stage(arena.sim)
    arena.denied(reason, code, said(arena.sim, writer, complaint(arena.sim)))


def close_late(sim: Simulator) -> int:
    sim.clock.advance(DURATION_US)
    sim.close_round()
    return len(sim.log.raw) - 1


def test_a_participant_frames_no_gatekeeper_with_an_update_that_it_never_sent(arena: Arena) -> None:
    sim = arena.sim
    opened(sim)
    sim.complain("rover-3")
    gatekeeper = arena.gatekeeper()
    gatekeeper.complaints.look()
    sim.clock.advance(3 * SECOND)
    assert gatekeeper.complaints.look() == 1
    (answer,) = arena.bodies(UpdateRefused)
    assert (answer.reason, answer.evidence) == ("not_received", NONE)
    close_late(sim)
    arena.verify()


def test_nor_with_a_complaint_just_before_the_close(arena: Arena) -> None:
    sim = arena.sim
    opened(sim)
    sim.clock.advance(DURATION_US - 10 * SECOND + 1)
    sim.complain("rover-3")
    sim.clock.advance(10 * SECOND - 1)
    sim.close_round()
    arena.verify()


def test_nor_with_what_was_admitted_or_refused(arena: Arena) -> None:
    sim = arena.sim
    sim.open_round()
    sent, heavy = sim.update("rover-1"), sim.update("rover-2", weight=101)
    sim.complain("rover-1", signed=sent)
    sim.complain("rover-2", IRIS, signed=heavy)
    arena.send("rover-1", sent)
    arena.refused("weight_limit", lambda: arena.send("rover-2", heavy))
    close_late(sim)
    arena.verify()


def test_a_thiefs_refusal_is_no_answer_to_a_complaint(arena: Arena) -> None:
    """A gatekeeper that refuses the update to somebody else has not answered the one that it is of."""
    sim = arena.sim
    opened(sim)
    shown = sim.update("rover-3")
    sim.complain("rover-3", signed=shown)
    arena.refused("wrong_peer", lambda: arena.send("rover-4", shown))
    index = close_late(sim)
    arena.known.append(("censorship", index))
    findings = arena.verify().docket.findings
    assert [each.writer for each in findings] == ["gatekeepers"]


def test_gatekeepers_that_answer_nothing_for_ten_seconds_are_found_out_and_operators_may_accept_it(
    arena: Arena,
) -> None:
    sim = arena.sim
    opened(sim)
    sim.complain("rover-3", IRIS)
    index = close_late(sim)
    arena.known.append(("censorship", index))
    assert arena.verify().accepted == {}
    # One operator does not sweep it under the carpet.
    raw = sim.order_raw(OrderAction.ACCEPT, AcceptTarget(index, "censorship"))
    arena.denied("threshold", "threshold", sim.sign_document(Order.payload_type, raw, ["ann"]))
    sim.accept(index, "censorship")
    assert [each.code for each in arena.verify().accepted] == ["censorship"]


def test_a_gatekeeper_does_not_call_a_participant_unheard_that_did_not_sign(arena: Arena) -> None:
    """`not_received` is on its word alone; whose words they are is not."""
    sim = arena.sim
    opened(sim)
    forged = sim.complaint("rover-3", key=sim.keys[G1])
    body = UpdateRefused(
        participant_id("rover-3"), forged.envelope_raw, forged.envelope, forged.update, NOWHERE, "not_received", None,
        (), NONE,
    )  # fmt: skip
    arena.denied("bad_signature", "bad_signature", said(sim, G1, body))
