"""Stolen keys: a gatekeeper's, an aggregator's, one operator's, a participant's. Each does what it may, and no more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from simulator import SEGMENT, Simulator, service_id

from sfrl_secure.crypto.envelope import Envelope, sign_envelope
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.errors import DeniedError, VerificationError
from sfrl_secure.governance.statements import RoundOpened, UpdateAdmitted
from sfrl_secure.ids import sha256
from sfrl_secure.participant.receipts import open_receipt
from sfrl_secure.wire.entries import encode_envelope
from sfrl_secure.wire.receipts import Receipt, ReceiptKind, encode_receipt
from sfrl_secure.wire.statements import encode_update

from ..unit.replay.builder import Writer, codes
from .arena import Arena

G1, G2, A1 = service_id("gatekeeper", "g1"), service_id("gatekeeper", "g2"), service_id("aggregator", "a1")
STREAM = f"segment/{SEGMENT}"
UPDATES = {"r1": {1: 5}, "r2": {2: 6}, "r3": {3: 7}}


def in_round(*, full: bool = False) -> Writer:
    log = Writer().begin()
    log.open_round()
    for name in ("r1", "r2", "r3") if full else ("r1", "r2"):
        log.admit(name, UPDATES[name])
    return log


def own_key_for_anothers_update(log: Writer) -> None:
    key = SigningKey.generate("ed25519")
    log.admit("r3", UPDATES["r3"], keys=[key], fields={"key_id": key.public_key.key_id}, void=True)


def over_the_cohort(log: Writer) -> None:
    log.admit("r3", UPDATES["r3"])
    log.admit("r4", {4: 1}, void=True)


def close_full(log: Writer, **wrong: object) -> None:
    log.admit("r3", UPDATES["r3"])
    log.close(void=True, **wrong)  # type: ignore[arg-type]


GATEKEEPER: list[tuple[str, Callable[[Writer], object]]] = [
    ("role", lambda log: log.close(writer=log.gatekeeper, void=True)),
    ("role", lambda log: log.open_round(writer=log.gatekeeper, void=True)),
    ("bad_signature", own_key_for_anothers_update),
    ("duplicate", lambda log: log.admit("r1", {4: 1}, void=True)),
    ("round_full", over_the_cohort),
    ("defective", lambda log: log.admit("r3", {3: 127 * 64})),
    ("defective", lambda log: log.admit("r3", UPDATES["r3"], facts={"norm": 1})),
    ("retention", lambda log: log.admit("r3", UPDATES["r3"], retain_until_us=log.now, void=True)),
    ("refusal_reason", lambda log: log.refuse("r3", "weight_limit", void=True)),
    ("refusal_reason", lambda log: log.refuse("r3", "policy_denied", evidence=2)),
    ("bad_signature", lambda log: log.refuse("r3", "weight_limit", keys=[log.participants["r1"]], void=True)),
    ("identity_unknown", lambda log: log.issue("spiffe://rover.example/participant/nobody", void=True)),
    (
        "key_reused",
        lambda log: log.issue("spiffe://rover.example/operator/ann", sha256(b"spiffe://rover.example/participant/r1")),
    ),
    ("fetch", lambda log: log.fetch([("r1", b"\1" * 32)], void=True)),
]
AGGREGATOR: list[tuple[str, Callable[[Writer], object]]] = [
    ("role", lambda log: log.admit("r3", UPDATES["r3"], writer=log.aggregator, void=True)),
    ("role", lambda log: log.issue("spiffe://rover.example/participant/r1", writer=log.aggregator, void=True)),
    ("close_early", lambda log: log.close(void=True)),
    ("round_not_due", lambda log: log.open_round(void=True)),
    ("no_model_due", lambda log: log.publish_model(void=True)),
    ("close_cause", lambda log: close_full(log, body={"cause": 2})),
    ("close_outcome", lambda log: close_full(log, body={"outcome": 2})),
    ("close_counted", lambda log: close_full(log, body={"count": 2})),
    ("close_counted", lambda log: close_full(log, body={"root": b"\1" * 32})),
    ("close_dropped", lambda log: close_full(log, dropped={"r2": "defective"})),
    ("close_dropped", lambda log: close_full(log, dropped={"r2": "participant_inactive"})),
]


@pytest.mark.parametrize(("code", "act"), GATEKEEPER + AGGREGATOR)
def test_a_stolen_services_key_is_named_for_each_false_statement(code: str, act: Callable[[Writer], object]) -> None:
    log = in_round()
    act(log)
    assert codes(log.replay().docket.findings) == [code]


def test_an_admission_with_the_wrong_facts_does_not_reach_the_model() -> None:
    log = in_round()
    log.admit("r3", UPDATES["r3"], facts={"norm": 1})
    log.close(dropped={"r3": "defective"})
    log.publish_model()
    replayed = log.replay()
    assert codes(replayed.docket.findings) == ["defective"]
    assert replayed.docket.models == 1


def test_a_service_that_is_no_longer_named_reads_and_writes_nothing(sim: Simulator) -> None:
    spki = sha256(b"the second gatekeeper's TLS key")
    sim.issue(G2, spki=spki)
    assert sim.view().lookup(spki) is not None
    left = {name: key for name, key in sim.keys.items() if name != G2}
    sim.publish_services(services=left)
    # No identity, so the interceptors let nobody in under it; no key, so nothing that it signs has effect.
    assert sim.view().lookup(spki) is None
    assert sim.view().lookup(sha256(b"rover-1")) is not None
    with pytest.raises(DeniedError) as denied:
        sim.write(G2, "identity", sim.identity("rover-1", spki=sha256(b"x")))
    assert denied.value.reason == "writer"


def test_one_operator_alone_changes_nothing(sim: Simulator) -> None:
    before = sim.state.governance_head
    thief = SigningKey.generate("ed25519")
    for payload_type, raw in (
        ("application/vnd.sfrl.segment-terms.v1+json", sim.terms_raw()),
        ("application/vnd.sfrl.participant.v1+json", sim.record_raw("rover-1", signing_key=thief)),
        ("application/vnd.sfrl.participant.v1+json", sim.record_raw("rover-1", state="suspended")),
    ):
        with pytest.raises(DeniedError) as denied:
            sim.publish(payload_type, raw, signers=("eve",))
        assert denied.value.reason == "threshold"
    assert sim.state.governance_head == before


def test_a_revocation_lends_its_key_to_nobody(sim: Simulator) -> None:
    """One operator may revoke. The record that does so names a key; receipts must not take it for the participant's."""
    aggregator = sim.aggregator()
    aggregator.step()
    thief = SigningKey.generate("ed25519")
    honest = sim.admission("rover-1")
    record = sim.record_raw("rover-1", signing_key=thief, state="revoked")
    revoked = sim.publish("application/vnd.sfrl.participant.v1+json", record, signers=("eve",))
    envelope, update, _ = sim.update("rover-1", key=thief)
    forged = replace(honest, envelope_raw=encode_envelope(envelope), envelope=envelope, update=update)
    admitted = sim.log.force(sim.sign(sim.statement(G1, STREAM, forged)))
    assert sim.log.voids[admitted] == "participant_inactive"
    size = len(sim.log.raw)
    receipt = Receipt(
        ReceiptKind.WITNESSED,
        sim.log.note(size, sim.log.witnesses[:2]),
        genesis=sim.log.logged_entry(0, size),
        services=(sim.log.logged_entry(1, size),),
        participant=sim.log.logged_entry(revoked, size),
        admitted=sim.log.logged_entry(admitted, size),
    )
    with pytest.raises(VerificationError, match="active"):
        open_receipt(encode_receipt(receipt), sim.policy)


@pytest.mark.parametrize("owner", ["operator", "service", "participant", "revoked participant"])
def test_a_key_that_served_a_name_serves_no_other(sim: Simulator, owner: str) -> None:
    sim.rovers["rover-9"] = {
        "operator": sim.operators["ann"], "service": sim.keys[A1], "participant": sim.rovers["rover-1"],
        "revoked participant": sim.rovers["rover-2"],
    }[owner]  # fmt: skip
    sim.record("rover-2", state="revoked")
    with pytest.raises(DeniedError) as denied:
        sim.record("rover-9")
    assert denied.value.reason == "key_reused"


def test_a_revoked_participant_gets_no_identity_and_no_second_life(sim: Simulator) -> None:
    sim.record("rover-1", state="revoked")
    with pytest.raises(DeniedError) as denied:
        sim.issue("rover-1", spki=sha256(b"new"))
    assert denied.value.reason == "revoked"
    with pytest.raises(DeniedError) as denied:
        sim.record("rover-1", state="active")
    assert denied.value.reason == "revoked"


def test_a_key_does_not_move_between_services(sim: Simulator) -> None:
    swapped = dict(sim.keys)
    swapped[G1], swapped[A1] = swapped[A1], swapped[G1]
    with pytest.raises(DeniedError) as denied:
        sim.publish_services(services=swapped)
    assert denied.value.reason == "key_reused"


def test_a_participants_key_writes_no_statement(sim: Simulator) -> None:
    body = RoundOpened(1, sim.segment.model, sim.segment.terms.digest)
    statement = sim.statement(A1, STREAM, body, key_id=sim.rovers["rover-1"].public_key.key_id)
    with pytest.raises(DeniedError) as denied:
        sim.log.append(sim.sign(statement, sim.rovers["rover-1"]))
    assert denied.value.reason == "writer"


def test_a_participant_that_was_suspended_in_the_round_is_not_counted() -> None:
    log = in_round(full=True)
    log.record("r2", state="suspended")
    log.close(void=True)
    log.close(dropped={"r2": "participant_inactive"})
    log.publish_model()
    replayed = log.replay()
    assert codes(replayed.docket.findings) == ["close_dropped"]
    assert replayed.docket.models == 1


# A gatekeeper's key was stolen: no update is counted that its participant did not sign


@pytest.fixture(scope="module")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    with Arena(tmp_path_factory.mktemp("arena")) as made:
        made.sim.open_round()
        yield made


def with_envelope(honest: UpdateAdmitted, envelope: Envelope) -> UpdateAdmitted:
    return replace(honest, envelope_raw=encode_envelope(envelope), envelope=envelope)


def by_the_thief(sim: Simulator) -> UpdateAdmitted:
    honest = sim.admission("rover-1")
    return with_envelope(honest, sign_envelope(honest.envelope.payload_type, honest.envelope.statement, [thief()]))


def under_the_participants_key_id(sim: Simulator) -> UpdateAdmitted:
    honest = sim.admission("rover-1")
    forged = sign_envelope(honest.envelope.payload_type, honest.envelope.statement, [thief()]).signatures[0]
    named = replace(forged, key_id=honest.update.key_id)
    return with_envelope(honest, replace(honest.envelope, signatures=(named,)))


def by_another_participant(sim: Simulator) -> UpdateAdmitted:
    honest = sim.admission("rover-1")
    by = sim.rovers["rover-2"]
    return with_envelope(honest, sign_envelope(honest.envelope.payload_type, honest.envelope.statement, [by]))


def with_another_weight(sim: Simulator) -> UpdateAdmitted:
    """The participant did sign, but something else."""
    honest = sim.admission("rover-1")
    heavier = replace(honest.update, weight=honest.update.weight + 1)
    envelope = replace(honest.envelope, statement=encode_update(heavier))
    return replace(with_envelope(honest, envelope), update=heavier)


def by_the_gatekeeper_too(sim: Simulator) -> UpdateAdmitted:
    honest = sim.admission("rover-1")
    keys = [sim.rovers["rover-1"], sim.keys[G1]]
    return with_envelope(honest, sign_envelope(honest.envelope.payload_type, honest.envelope.statement, keys))


def thief() -> SigningKey:
    return SigningKey.generate("ed25519")


FORGED = [
    by_the_thief, under_the_participants_key_id, by_another_participant, with_another_weight, by_the_gatekeeper_too,
]  # fmt: skip


@pytest.mark.parametrize("forge", FORGED)
def test_a_stolen_gatekeeper_makes_nobody_believe_an_update_that_its_participant_did_not_sign(
    arena: Arena, forge: Callable[[Simulator], UpdateAdmitted]
) -> None:
    before = arena.admissions()
    body = forge(arena.sim)
    arena.denied("bad_signature", "bad_signature", arena.sim.sign(arena.sim.statement(G1, STREAM, body)))
    assert arena.admissions() == before
