"""Decisions on a state that the log has left, refusals that are only counted, and budgets."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from simulator import Sent, SimulatedGatekeeper, Simulator, submission

from sfrl_secure.crypto.envelope import Envelope
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.errors import ConflictError, DeniedError, ExhaustedError, SfrlError, UnavailableError
from sfrl_secure.governance.statements import Evidence, PeerClass, UpdateAdmitted, UpdateRefused
from sfrl_secure.ids import sha256
from sfrl_secure.limits import SINGLE_REFUSALS_MAX
from sfrl_secure.services.gatekeeper.admit import ByteBudget
from sfrl_secure.wire.audit_service import AppendedEntry

FORBID_LOUD = """
@id("permit") permit (principal, action, resource);
@id("no-loud") forbid (principal, action == Action::"admit", resource) when { context.norm > 10 };
"""
PERMIT = '@id("permit") permit (principal, action, resource);'


def own(sim: Simulator, name: str = "rover-1", **changes: Any) -> Sent:
    return submission(name, sim.update(name, **changes))


def refused(gatekeeper: SimulatedGatekeeper, request: Sent) -> DeniedError:
    with pytest.raises(DeniedError) as denied:
        gatekeeper.admitter.submit(request)
    return denied.value


def bodies(sim: Simulator, kind: type) -> list[Any]:
    found = [sim.log.statement_at(index).body for index in range(sim.segment.terms_index + 1, len(sim.log.raw))
             if sim.log.envelope_at(index).payload_type.endswith("statement.v1")]  # fmt: skip
    return [body for body in found if isinstance(body, kind)]


# Counted refusals


def test_the_fourth_refusal_of_a_kind_is_counted(sim: Simulator) -> None:
    sim.open_round()
    gatekeeper = sim.gatekeeper()
    answers = [refused(gatekeeper, own(sim, weight=101 + n)) for n in range(SINGLE_REFUSALS_MAX + 2)]
    assert [answer.entry_index is not None for answer in answers] == [True, True, True, False, False]
    assert {answer.reason for answer in answers} == {"weight_limit"}
    counted = gatekeeper.counter.take()
    assert counted is not None
    assert [(each.reason, each.peer_class, each.count) for each in counted.counts] == [
        ("weight_limit", PeerClass.PARTICIPANT, 2)
    ]
    # Other reasons, peers and rounds have entries of their own.
    assert refused(gatekeeper, own(sim, nonzeros=9)).entry_index is not None
    assert refused(gatekeeper, own(sim, "rover-2", weight=101)).entry_index is not None
    sim.clock.advance(60_000_000)
    sim.close_round()
    sim.open_round()
    assert refused(gatekeeper, own(sim, weight=101)).entry_index is not None


def test_another_gatekeepers_singles_count_too(sim: Simulator) -> None:
    sim.open_round()
    first, second = sim.gatekeeper("g1"), sim.gatekeeper("g2")
    second.view.is_held = True
    for n in range(SINGLE_REFUSALS_MAX):
        refused(first, own(sim, weight=101 + n))
    assert refused(second, own(sim, weight=200)).entry_index is None
    assert second.counter.counted == 1
    assert len(bodies(sim, UpdateRefused)) == SINGLE_REFUSALS_MAX


# Budgets


def test_a_budget_is_given_back(sim: Simulator) -> None:
    sim.open_round()
    gatekeeper = sim.gatekeeper(budget=max(len(own(sim).payload), len(own(sim, values={0: 1, 20: 1}).payload)))
    gatekeeper.admitter.submit(own(sim))
    refused(gatekeeper, own(sim, "rover-2", values={0: 1, 20: 1}))
    gatekeeper.admitter.submit(own(sim, "rover-3"))


def test_beyond_the_budget_nothing_is_decided(sim: Simulator) -> None:
    sim.open_round()
    request = own(sim)
    gatekeeper = sim.gatekeeper(budget=len(request.payload) - 1)
    size = len(sim.log.raw)
    with pytest.raises(ExhaustedError):
        gatekeeper.admitter.submit(request)
    assert len(sim.log.raw) == size
    sim.gatekeeper("g2").admitter.submit(request)


def test_a_budget_counts_bytes() -> None:
    budget = ByteBudget(10)
    budget.take(4)
    budget.take(6)
    with pytest.raises(ExhaustedError, match="10 bytes"):
        budget.take(1)


def test_without_room_for_evidence_a_refusal_is_on_word(sim: Simulator) -> None:
    sim.open_round()
    request = own(sim, values={0: 1, 20: 1})
    gatekeeper = sim.gatekeeper(evidence_budget=len(request.payload))
    assert refused(gatekeeper, request).reason == "tensor_not_allowed"
    other = own(sim, values={0: 2, 20: 1})
    assert refused(gatekeeper, other).reason == "tensor_not_allowed"
    assert [body.evidence for body in bodies(sim, UpdateRefused)] == [Evidence.OBJECT, Evidence.NONE]
    assert not sim.objects.is_stored(sha256(other.payload))


def test_payloads_of_counted_refusals_are_not_kept(sim: Simulator) -> None:
    """Or one peer could use up the room for everybody's evidence."""
    sim.open_round()
    gatekeeper = sim.gatekeeper()
    requests = [own(sim, values={0: 1 + n, 20: 1}) for n in range(SINGLE_REFUSALS_MAX + 1)]
    for request in requests:
        assert refused(gatekeeper, request).reason == "tensor_not_allowed"
    assert [sim.objects.is_stored(sha256(request.payload)) for request in requests] == [True, True, True, False]


def test_a_payload_that_is_decided_twice_takes_the_room_for_evidence_once(tmp_path: Path) -> None:
    sim = Simulator(tmp_path, rules=FORBID_LOUD)
    sim.open_round()
    request = own(sim)
    gatekeeper = sim.gatekeeper(evidence_budget=len(request.payload))
    gatekeeper.view.is_held = True
    sim.publish_rules(cedar=FORBID_LOUD.replace("no-loud", "silence"))
    assert refused(gatekeeper, request).reason == "policy_denied"
    (body,) = bodies(sim, UpdateRefused)
    assert (body.evidence, body.rule_ids) == (Evidence.OBJECT, ("silence",))
    sim.close()


# A log that has moved on


def test_a_decision_on_an_older_log_is_made_again(sim: Simulator) -> None:
    sim.open_round()
    gatekeeper = sim.gatekeeper()
    gatekeeper.view.is_held = True
    sim.record("rover-2", clearance=9)
    answer = gatekeeper.admitter.submit(own(sim))
    assert isinstance(answer, AppendedEntry)
    assert answer.logged.index in {each.index for each in sim.segment.rounds[1].admissions.values()}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"state": "suspended"}, "participant_inactive"),
        ({"groups": ["orbiters"]}, "not_granted"),
        ({"clearance": 2}, "policy_denied"),
    ],
)
def test_what_changed_meanwhile_decides(sim: Simulator, changes: dict[str, Any], reason: str) -> None:
    sim.open_round()
    gatekeeper = sim.gatekeeper()
    gatekeeper.view.is_held = True
    sim.record("rover-1", **changes)
    assert refused(gatekeeper, own(sim)).reason == reason
    (body,) = bodies(sim, UpdateRefused)
    assert (body.reason, body.evidence) == (reason, Evidence.LOG)
    assert sim.segment.rounds[1].admissions == {}


def test_a_key_that_was_replaced_meanwhile_signs_nothing(sim: Simulator) -> None:
    sim.open_round()
    request = own(sim)
    gatekeeper = sim.gatekeeper()
    gatekeeper.view.is_held = True
    sim.record("rover-1", signing_key=SigningKey.generate("ed25519"))
    answer = refused(gatekeeper, request)
    assert (answer.reason, answer.entry_index) == ("bad_signature", len(sim.log.raw) - 1)
    assert bodies(sim, UpdateRefused)[0].envelope is None


def test_rules_that_changed_meanwhile_decide_the_payload_again(tmp_path: Path) -> None:
    sim = Simulator(tmp_path, rules=PERMIT)
    sim.open_round()
    gatekeeper = sim.gatekeeper()
    gatekeeper.view.is_held = True
    sim.publish_rules(cedar=FORBID_LOUD)
    assert refused(gatekeeper, own(sim)).reason == "policy_denied"
    sim.close()


def test_a_refusal_under_rules_that_are_gone_is_not_written(tmp_path: Path) -> None:
    """The verifier decides it again under the rules at its own index, and they allow the update."""
    sim = Simulator(tmp_path, rules=FORBID_LOUD)
    sim.open_round()
    gatekeeper = sim.gatekeeper()
    gatekeeper.view.is_held = True
    sim.publish_rules(cedar=PERMIT)
    assert isinstance(gatekeeper.admitter.submit(own(sim)), AppendedEntry)
    assert bodies(sim, UpdateRefused) == []
    sim.close()


def test_a_round_that_closed_meanwhile_takes_nothing(sim: Simulator) -> None:
    sim.open_round()
    request = own(sim)
    gatekeeper = sim.gatekeeper()
    gatekeeper.view.is_held = True
    for name in ("rover-2", "rover-3", "rover-4"):
        sim.admit(name)
    sim.close_round()
    assert refused(gatekeeper, request).reason == "round_not_open"


def test_two_gatekeepers_admit_one_update_of_a_participant(sim: Simulator) -> None:
    sim.open_round()
    first, second = sim.gatekeeper("g1"), sim.gatekeeper("g2")
    second.view.is_held = True
    one, other = own(sim, values={0: 1}), own(sim, values={0: 2})
    assert isinstance(first.admitter.submit(one), AppendedEntry)
    assert refused(second, other).reason == "duplicate"
    assert sim.segment.rounds[1].admissions["rover-1"].statement_digest == one.envelope.digest


def test_one_update_through_two_gatekeepers_has_one_entry(sim: Simulator) -> None:
    sim.open_round()
    first, second = sim.gatekeeper("g1"), sim.gatekeeper("g2")
    second.view.is_held = True
    request = own(sim)
    answer = first.admitter.submit(request)
    assert isinstance(answer, AppendedEntry)
    assert second.admitter.submit(request) == answer.logged.index
    assert len(bodies(sim, UpdateAdmitted)) == 1


def test_the_last_place_of_a_cohort_is_given_once(sim: Simulator) -> None:
    sim.open_round()
    sim.admit("rover-3")
    sim.admit("rover-4")
    first, second = sim.gatekeeper("g1"), sim.gatekeeper("g2")
    second.view.is_held = True
    first.admitter.submit(own(sim, "rover-1"))
    assert refused(second, own(sim, "rover-2")).reason == "round_full"
    assert len(sim.segment.rounds[1].admissions) == 3


def test_threads_that_race_fill_the_cohort_and_no_more(sim: Simulator) -> None:
    sim.open_round()
    gatekeepers = [sim.gatekeeper("g1"), sim.gatekeeper("g2")]
    requests = [own(sim, name, values={n: 1}) for name in sim.rovers for n in (0, 1)]
    reasons: list[str] = []
    begin = threading.Barrier(len(requests))

    def send(gatekeeper: SimulatedGatekeeper, request: Sent) -> None:
        begin.wait()
        try:
            gatekeeper.admitter.submit(request)
        except SfrlError as error:
            reasons.append(error.reason if isinstance(error, DeniedError) else type(error).__name__)

    threads = [threading.Thread(target=send, args=(gatekeepers[n % 2], each)) for n, each in enumerate(requests)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(sim.segment.rounds[1].admissions) == 3
    assert len(reasons) == 5
    assert set(reasons) <= {"duplicate", "round_full"}
    assert sim.log.voids == {}


def test_a_log_that_moves_on_each_time_ends_in_a_conflict(sim: Simulator) -> None:
    sim.open_round()
    gatekeeper = sim.gatekeeper()

    def move(envelope: Envelope) -> None:
        # A document before each of the gatekeeper's statements.
        if envelope.payload_type.endswith("statement.v1"):
            gatekeeper.view.is_held = True
            sim.record("rover-4", clearance=6)

    sim.log.before_append = move
    with pytest.raises(ConflictError, match="moved on each time"):
        gatekeeper.admitter.submit(own(sim))
    sim.log.before_append = lambda envelope: None
    assert isinstance(gatekeeper.admitter.submit(own(sim)), AppendedEntry)


def test_without_a_services_document_in_force_nothing_is_decided(sim: Simulator) -> None:
    sim.open_round()
    gatekeeper = sim.gatekeeper()
    sim.publish_services(expires_us=sim.clock.now_us() + 1_000)
    sim.clock.advance(1_000)
    size = len(sim.log.raw)
    with pytest.raises(ConflictError):
        gatekeeper.admitter.submit(own(sim))
    with pytest.raises(UnavailableError, match="nothing was decided"):
        gatekeeper.admitter.submit(own(sim, weight=101))
    assert len(sim.log.raw) == size


def test_an_admission_that_comes_after_the_end_of_its_rules_is_not_taken(sim: Simulator) -> None:
    """Its rule ids would not be those that the rules at its index give, and it would be defective."""
    sim.publish_rules(expires_us=sim.clock.now_us() + 1_000)
    sim.open_round()
    gatekeeper = sim.gatekeeper()
    sim.log.before_append = lambda envelope: sim.clock.advance(1_000)
    assert refused(gatekeeper, own(sim)).reason == "policy_denied"
    assert sim.segment.rounds[1].admissions == {}


def test_a_deadline_that_passes_in_between_refuses(sim: Simulator) -> None:
    sim.open_round()
    gatekeeper = sim.gatekeeper()
    sim.clock.advance(57_000_000)
    sim.log.before_append = lambda envelope: sim.clock.advance(3_000_000)
    assert refused(gatekeeper, own(sim)).reason == "deadline"


def test_an_update_that_was_admitted_is_not_refused_as_late(sim: Simulator) -> None:
    """This gatekeeper hears of the admission between its own decision and its record."""
    sim.open_round()
    request = own(sim)
    late = sim.gatekeeper("g2")
    late.view.is_held = True
    sim.clock.advance(57_000_000)
    answer = sim.gatekeeper("g1").admitter.submit(request)
    assert isinstance(answer, AppendedEntry)
    sim.clock.advance(2_000_000)
    write = late.refuser._writer.write

    def hear_first(decide: Any) -> Any:
        late.view.let()
        return write(decide)

    late.refuser._writer.write = hear_first  # type: ignore[method-assign]
    assert late.admitter.submit(request) == answer.logged.index
    assert bodies(sim, UpdateRefused) == []
