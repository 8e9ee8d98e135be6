"""Documents in the log: when one has effect, and whose doors it opens and closes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from simulator import (
    DAY_US,
    GRID,
    HOUR_US,
    MANIFEST,
    UNTIL_US,
    Simulator,
    auditor_id,
    operator_id,
    participant_id,
    service_id,
)

from sfrl_secure.crypto.envelope import Envelope, add_signature, sign_envelope
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.errors import DeniedError
from sfrl_secure.governance.build import build_rules
from sfrl_secure.governance.documents import KeyRevocation, ParticipantRecord, Thresholds
from sfrl_secure.governance.terms import ModelTerms
from sfrl_secure.ids import ZERO_DIGEST, sha256
from sfrl_secure.limits import JOIN_LIFETIME_US
from sfrl_secure.rounds.fold import FederationFold
from sfrl_secure.sequencer.log_keys import LogKeys
from sfrl_secure.translog.merkle import leaf_hash
from sfrl_secure.wire.content import parse_content
from sfrl_secure.wire.entries import parse_entry

from .scenes import (
    G1,
    Case,
    Prepare,
    Send,
    check_sound,
    check_void,
    closed,
    document,
    ids,
    nothing,
    record,
    revoked,
    terms,
)  # fmt: skip

STRANGER = SigningKey.generate("ed25519")
TOKEN = SigningKey.generate("ed25519")
NEW = {name: SigningKey.generate("ed25519") for name in ("ann", "zed", "una")}
OTHER_MODEL = ModelTerms(MANIFEST, GRID + 1, sha256(b"initial"))


def root(
    operators: Callable[[Simulator], Mapping[str, SigningKey]] = lambda sim: sim.operators, *, signers: Any = None,
    **changes: Any,
) -> Send:  # fmt: skip
    """A next root; `signers` are those of the root before and of the new one."""

    def send(sim: Simulator) -> Envelope:
        named = dict(operators(sim))
        old, new = signers or (None, None)
        return sim.sign_root(sim.root_raw(named, **changes), named, old, new)

    return send


def successors(sim: Simulator) -> Mapping[str, SigningKey]:
    """Ann stays with her key; zed and una come, bob and eve go."""
    return {"ann": sim.operators["ann"], "zed": NEW["zed"], "una": NEW["una"]}


def rotated(sim: Simulator) -> None:
    sim.former = dict(sim.operators)
    sim.rotate_root(successors(sim))


def by_former(*names: str) -> Send:
    """A record signed with keys of the root before."""
    return lambda sim: sign_envelope(
        ParticipantRecord.payload_type, sim.record_raw("rover-1", reason="late"), [sim.former[name] for name in names]
    )


def join(name: str = "rover-9", token: SigningKey | None = None, signers: Any = None, **changes: Any) -> Send:
    made = token or SigningKey.generate("ed25519")
    return document(lambda sim: sim.join_raw(name, made, **changes), "join", signers)


def invited(sim: Simulator) -> None:
    sim.invite("rover-9")


def joined(sim: Simulator) -> None:
    sim.invite("rover-9", TOKEN)
    sim.join("rover-9")


def invitation_over(sim: Simulator) -> None:
    sim.invite("rover-9", expires_us=sim.clock.now_us() + HOUR_US)
    sim.clock.advance(HOUR_US)


def invited_again(sim: Simulator) -> None:
    sim.invite("rover-9", TOKEN)
    sim.invite("rover-9")


def invited_then_revoked(sim: Simulator) -> None:
    sim.invite("rover-1")
    sim.record("rover-1", state="revoked")


def two_invited(sim: Simulator) -> None:
    sim.invite("rover-8")
    sim.invite("rover-9")


def by_token(name: str = "rover-9", token: SigningKey | str | None = None, **changes: Any) -> Send:
    """A record by a join key; `token` is another one, or another name's."""

    def send(sim: Simulator) -> Envelope:
        used = sim.tokens[token] if isinstance(token, str) else token
        return sim.sign_join(name, SigningKey.generate("ed25519"), used, **changes)

    return send


def key_revocation(spki: bytes = b"rover-1", signers: Any = ("eve",), **changes: Any) -> Send:
    return document(lambda sim: sim.key_revocation_raw(sha256(spki), **changes), "key-revocation", signers)


def ann_issued(sim: Simulator) -> None:
    sim.issue(operator_id("ann"))


def key_revoked(sim: Simulator) -> None:
    sim.revoke_key(sha256(b"rover-1"))


VOID: list[Case] = [
    ("genesis", nothing, document(lambda sim: sim.log.envelope_at(0).statement + b"\n", "genesis")),
    ("wrong_federation", nothing, record(federation_id=sha256(b"another"))),
    ("threshold", nothing, record(signers=("ann",))),
    ("threshold", nothing, lambda sim: add_signature(record(reason="two and a stranger")(sim), STRANGER)),
    ("threshold", nothing, record(state="suspended", signers=("ann",))),
    ("version", nothing, record(version=3)),
    ("version", nothing, record(version=1, previous=ZERO_DIGEST, reason="again")),
    ("previous", nothing, record(previous=sha256(b"another"))),
    ("expired", nothing, record(expires_us=1)),
    ("revoked", revoked("rover-1"), record(state="active")),
    ("possession", nothing, record(possession=bytes(64))),
    ("key_reused", nothing, lambda sim: record("rover-9", signing_key=sim.rovers["rover-1"])(sim)),
    ("key_reused", nothing, lambda sim: record("rover-9", signing_key=sim.keys[G1])(sim)),
    ("model_changed", nothing, terms(model=OTHER_MODEL)),
    # A root.
    ("threshold", nothing, root(successors, signers=(("ann",), ("zed", "una")))),
    ("threshold", nothing, root(successors, signers=(("ann", "bob"), ()))),
    ("threshold", nothing, root(successors, signers=((), ("ann", "zed")))),
    ("threshold", nothing, lambda sim: add_signature(root(successors)(sim), STRANGER)),
    ("threshold", nothing, root(thresholds=Thresholds(root=3, governance=1, enrolment=1, revocation=1))),
    ("root_changed", nothing, root(trust_domain="venus.example")),
    ("root_changed", nothing, root(log_host="log.venus.example")),
    ("version", nothing, root(version=3)),
    ("previous", nothing, root(previous=sha256(b"another"))),
    ("wrong_federation", nothing, root(federation_id=sha256(b"another"))),
    ("expired", nothing, root(expires_us=1)),
    ("key_reused", nothing, root(lambda sim: {**sim.operators, "zed": sim.rovers["rover-1"]})),
    ("key_reused", nothing, root(lambda sim: {**successors(sim), "bob": sim.operators["eve"]})),
    ("threshold", rotated, by_former("bob", "eve")),
    ("threshold", rotated, by_former("ann", "bob")),
    # Invitations.
    ("threshold", nothing, join(signers=("ann",))),
    ("revoked", revoked("rover-1"), join("rover-1")),
    ("lifetime", nothing, lambda sim: join(expires_us=sim.clock.now_us() + JOIN_LIFETIME_US + 1)(sim)),
    ("key_reused", nothing, lambda sim: join(token=sim.rovers["rover-1"])(sim)),
    ("key_reused", joined, join(token=TOKEN)),
    ("key_reused", joined, join("rover-8", token=TOKEN)),
    ("key_reused", joined, record("rover-8", signing_key=TOKEN)),
    ("threshold", nothing, by_token(token=TOKEN)),
    ("threshold", invited, by_token(token=TOKEN)),
    ("threshold", two_invited, by_token("rover-8", "rover-9")),
    ("threshold", two_invited, by_token("rover-9", "rover-8")),
    ("threshold", invited_again, by_token(token=TOKEN)),
    ("threshold", invited, lambda sim: add_signature(by_token()(sim), sim.operators["ann"])),
    ("invitation_expired", invitation_over, by_token()),
    ("invitation_spent", joined, by_token()),
    ("record_differs", invited, by_token(clearance=6)),
    ("record_differs", invited, by_token(groups=["rovers", "wheels"])),
    ("record_differs", invited, by_token(expires_us=UNTIL_US - 1)),
    ("record_differs", invited, by_token(state="suspended")),
    ("possession", invited, by_token(possession=bytes(64))),
    ("revoked", invited_then_revoked, by_token("rover-1")),
    # Revoked TLS keys.
    ("threshold", nothing, lambda sim: sign_envelope(
        KeyRevocation.payload_type, sim.key_revocation_raw(sha256(b"k")), [STRANGER])),
    ("threshold", nothing, key_revocation(spiffe_id=operator_id("ann"))),
    ("threshold", nothing, key_revocation(b"unknown", spiffe_id=service_id("gatekeeper", "g1"))),
    ("wrong_name", nothing, key_revocation(spiffe_id=participant_id("rover-2"))),
    ("wrong_name", nothing, key_revocation(spiffe_id=operator_id("ann"), signers=None)),
    ("wrong_name", ann_issued, key_revocation(b"ann", spiffe_id=participant_id("rover-1"))),
    ("version", key_revoked, key_revocation(reason="again")),
    ("expired", nothing, key_revocation(expires_us=1)),
]  # fmt: skip


@pytest.mark.parametrize("case", VOID, ids=ids(VOID))
def test_a_void_document_changes_nothing_but_the_position(prepare: Prepare, case: Case) -> None:
    reason, scene, send = case
    check_void(prepare(scene), reason, send)


def root_expired(sim: Simulator) -> None:
    sim.clock.advance(UNTIL_US - sim.clock.now_us())


SOUND: list[Case] = [
    ("suspended", nothing, record(state="suspended")),
    ("revoked-by-one", nothing, record(state="revoked", signers=("eve",))),
    ("terms", nothing, terms(sensitivity=9)),
    ("rules", nothing, document(lambda sim: build_rules(**sim.succession(("rules", ""))), "rules")),
    ("root", nothing, root(successors)),
    ("root-with-another-key-for-one", nothing, root(lambda sim: {**sim.operators, "ann": NEW["ann"]})),
    ("root-after-the-root-has-expired", root_expired, root(successors, expires_us=UNTIL_US + 1)),
    ("second-root", rotated, root()),
    ("join", nothing, join()),
    ("join-for-somebody-there", nothing, join("rover-1")),
    ("join-for-31-days", nothing, lambda sim: join(expires_us=sim.clock.now_us() + JOIN_LIFETIME_US)(sim)),
    ("by-token", invited, by_token()),
    ("by-token-to-the-last-moment", lambda sim: (
        sim.invite("rover-9", expires_us=sim.clock.now_us() + 2), sim.clock.advance(1)), by_token()),
    ("by-operators-though-invited", invited, record("rover-9", signing_key=SigningKey.generate("ed25519"))),
    ("invited-after-joining", joined, join()),
    ("key-revocation", nothing, key_revocation()),
    ("key-revocation-of-no-key-of-ours", nothing, key_revocation(b"unknown")),
    ("key-revocation-of-an-auditor", nothing, key_revocation(b"iris", spiffe_id=auditor_id("iris"))),
    ("key-revocation-of-an-operator", ann_issued, key_revocation(b"ann", ("ann", "eve"), spiffe_id=operator_id("ann"))),
    ("key-revocation-of-a-service", nothing,
     key_revocation(b"g1", ("bob", "eve"), spiffe_id=service_id("gatekeeper", "g1"))),
]  # fmt: skip


@pytest.mark.parametrize("case", SOUND, ids=[case[0] for case in SOUND])
def test_a_sound_document_has_effect_here_and_in_the_verifier(tmp_path: Path, case: Case) -> None:
    _, scene, send = case
    check_sound(tmp_path, scene, send)


# Genesis and root


def refold(sim: Simulator, origin: str, vkeys: tuple[str, str]) -> tuple[FederationFold, list[str | None]]:
    fold = FederationFold(origin, vkeys)
    codes = []
    for index, raw in enumerate(sim.log.raw):
        entry = parse_entry(raw)
        codes.append(fold.apply(index, leaf_hash(raw), entry, parse_content(entry.envelope)))
    return fold, codes


def test_the_same_entries_give_the_same_state(sim: Simulator) -> None:
    closed(sim)
    rotated(sim)
    joined(sim)
    fold, codes = refold(sim, sim.origin, sim.log.keys.vkeys(sim.origin))
    assert set(codes) == {None}
    for each in fields(sim.state):
        if each.name != "owners":
            assert getattr(fold.state, each.name) == getattr(sim.state, each.name)


def test_under_another_trust_policy_nothing_has_effect(sim: Simulator) -> None:
    vkeys = sim.log.keys.vkeys(sim.origin)
    other = LogKeys.generate().vkeys(sim.origin)
    for origin, keys in ((sim.origin + "0", vkeys), (sim.origin, other), (sim.origin, vkeys[::-1])):
        fold, codes = refold(sim, origin, keys)
        assert set(codes) == {"genesis"}
        assert fold.state.root is None
        assert fold.state.placed == {}


def test_a_log_that_does_not_begin_with_genesis_has_no_effect(sim: Simulator) -> None:
    fold = FederationFold(sim.origin, sim.log.keys.vkeys(sim.origin))
    # Genesis itself comes second, and too late.
    for index, raw in enumerate((sim.log.raw[1], sim.log.raw[0], sim.log.raw[2])):
        entry = parse_entry(raw)
        assert fold.apply(index, leaf_hash(raw), entry, parse_content(entry.envelope)) == "genesis"


def test_an_expired_root_takes_nothing_but_the_next_root(sim: Simulator) -> None:
    sim.clock.advance(UNTIL_US - sim.clock.now_us() - 1)
    sim.publish_rules(expires_us=UNTIL_US + DAY_US)
    sim.clock.advance(1)
    with pytest.raises(DeniedError) as denied:
        sim.publish_rules(expires_us=UNTIL_US + DAY_US)
    assert denied.value.reason == "expired"
    index = sim.rotate_root(expires_us=UNTIL_US + DAY_US)
    sim.publish_rules(expires_us=UNTIL_US + DAY_US)
    assert sim.state.root == sim.root
    assert sim.state.root_indices == [index]


def test_a_new_root_closes_the_door_to_operators_who_are_gone(sim: Simulator) -> None:
    keys = {name: sha256(name.encode()) for name in ("ann", "bob", "eve")}
    for name, spki in keys.items():
        sim.issue(operator_id(name), spki=spki)
    first = sim.rotate_root(successors(sim))
    assert [name for name, spki in keys.items() if spki in sim.state.identities] == ["ann"]
    assert sha256(b"rover-1") in sim.state.identities
    assert [first, sim.rotate_root()] == sim.state.root_indices
    with pytest.raises(DeniedError) as denied:
        sim.issue(operator_id("bob"), spki=keys["bob"], key=NEW["una"])
    assert denied.value.reason == "unknown_name"


# Who is let in


def test_a_document_that_lacked_signatures_may_come_again(sim: Simulator) -> None:
    raw = sim.record_raw("rover-1", clearance=9)
    alone = sim.sign_document("application/vnd.sfrl.participant.v1+json", raw, ["ann"])
    together = sim.sign_document("application/vnd.sfrl.participant.v1+json", raw)
    assert alone.digest == together.digest
    assert sim.log.voids.get(sim.log.force(alone)) == "threshold"
    index = sim.log.order(together)
    assert sim.state.index_of_document(("participant", "rover-1")) == index


def test_a_revoked_participants_keys_open_nothing(sim: Simulator) -> None:
    spki = sha256(b"rover-1")
    sim.record("rover-1", state="suspended")
    assert spki in sim.state.identities
    sim.record("rover-1", state="revoked")
    assert spki not in sim.state.identities
    assert sha256(b"rover-2") in sim.state.identities


def test_a_service_or_auditor_that_is_not_named_any_more_opens_nothing(sim: Simulator) -> None:
    g2, iris = service_id("gatekeeper", "g2"), auditor_id("iris")
    sim.issue(g2)
    sim.issue(iris)
    sim.publish_services(services={**sim.keys, g2: SigningKey.generate("ed25519")})
    assert {sha256(b"g2"), sha256(b"iris")} <= sim.state.identities.keys()
    sim.publish_services(services={who: key for who, key in sim.keys.items() if who != g2}, auditors={})
    assert not {sha256(b"g2"), sha256(b"iris")} & sim.state.identities.keys()
    assert sha256(b"rover-1") in sim.state.identities


def test_a_revoked_key_opens_nothing_and_the_others_of_its_name_do(sim: Simulator) -> None:
    sim.issue("rover-1", spki=sha256(b"second"))
    sim.revoke_key(sha256(b"rover-1"))
    assert sha256(b"rover-1") not in sim.state.identities
    assert sha256(b"second") in sim.state.identities
    assert sim.state.issued[sha256(b"rover-1")] == participant_id("rover-1")


def test_an_invitation_is_taken_up_once_and_a_newer_one_once_more(sim: Simulator) -> None:
    sim.invite("rover-1")
    former = sim.rovers["rover-1"]
    sim.join("rover-1")
    assert sim.state.participant("rover-1").key == sim.rovers["rover-1"].public_key != former.public_key  # type: ignore[union-attr]
    with pytest.raises(DeniedError) as denied:
        sim.join("rover-1")
    assert denied.value.reason == "invitation_spent"
    # Operators' own records neither spend an invitation nor free it.
    sim.record("rover-1")
    assert len(sim.state.spent_joins) == 1
    sim.invite("rover-1")
    sim.join("rover-1")
    assert len(sim.state.spent_joins) == 2
