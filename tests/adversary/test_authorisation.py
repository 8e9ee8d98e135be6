"""Authorisation: whoever does what is for others to do.

Services have roles: every role writes every kind that is another's, in a moment in which its words are all true, and
the log refuses it; a log that does not is found out. Participants have grants, operators thresholds, auditors their
own signature.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from simulator import (
    SEGMENT,
    Simulator,
    auditor_id,
    operator_id,
    participant_id,
    service_id,
)

from sfrl_secure.crypto.envelope import Envelope, sign_envelope
from sfrl_secure.crypto.keys import HYBRID, SigningKey
from sfrl_secure.governance.build import build_rules, build_services
from sfrl_secure.governance.documents import ParticipantRecord, RulesDocument, SegmentTerms, ServicesDocument
from sfrl_secure.governance.services import Signatory
from sfrl_secure.governance.statements import (
    OBJECT_REQUEST_TYPE,
    Body,
    EntryKind,
    Evidence,
    ModelFetch,
    ModelsFetched,
    ObjectRequest,
    PayloadFormat,
    PeerClass,
    RefusalCount,
    RefusalsCounted,
    RoundOpened,
    TimeAnchored,
    UpdateRefused,
)
from sfrl_secure.ids import Digest, SpiffeId, sha256
from sfrl_secure.rounds.closing import close_round
from sfrl_secure.translog.checkpoint import Checkpoint
from sfrl_secure.wire import gatekeeper_service as wire
from sfrl_secure.wire.entries import encode_envelope
from sfrl_secure.wire.participants import encode_object_request

from .arena import LOG, OBJECT, Arena

G1, A1 = service_id("gatekeeper", "g1"), service_id("aggregator", "a1")
L1, V1, IRIS = service_id("audit_log", "l1"), service_id("verifier", "v1"), auditor_id("iris")
WRITERS = (G1, A1, L1, V1, IRIS)
STREAM = f"segment/{SEGMENT}"


@pytest.fixture
def arena(tmp_path: Path) -> Iterator[Arena]:
    with Arena(tmp_path) as made:
        yield made


# Services: kinds and roles


def opened(sim: Simulator) -> None:
    sim.open_round()
    sim.admit("rover-1")


def full(sim: Simulator) -> None:
    opened(sim)
    sim.admit("rover-2")
    sim.admit("rover-3")


def closed(sim: Simulator) -> None:
    full(sim)
    sim.close_round()


def nothing(sim: Simulator) -> None:
    pass


def refusal(sim: Simulator) -> UpdateRefused:
    envelope, update, _ = sim.update("rover-2", weight=0)
    raw = encode_envelope(envelope)
    peer = participant_id("rover-2")
    return UpdateRefused(peer, raw, envelope, update, sha256(raw), "weight_limit", None, (), LOG)


def closing(sim: Simulator) -> Body:
    current = sim.segment.open_round
    assert current is not None
    return close_round(current, defective=(), is_active=lambda name: True, now_us=sim.clock.now_us())


def published(sim: Simulator) -> Body:
    current = sim.segment.current
    assert current is not None
    return sim.model_of(current, current.base_model)


def anchor(sim: Simulator) -> Body:
    note = sim.log.note(5, sim.log.witnesses[:2])
    return TimeAnchored(note, Checkpoint(sim.origin, 5, sim.log.tree.root(5)))


KINDS: list[tuple[EntryKind, str, Callable[[Simulator], None], Callable[[Simulator], Body], set[SpiffeId]]] = [
    (EntryKind.IDENTITY_ISSUED, "identity", nothing, lambda sim: sim.identity(operator_id("ann")), {G1}),
    (EntryKind.ROUND_OPENED, STREAM, nothing,
     lambda sim: RoundOpened(1, sim.segment.model, sim.segment.terms.digest), {A1}),
    (EntryKind.UPDATE_ADMITTED, STREAM, opened, lambda sim: sim.admission("rover-2"), {G1}),
    (EntryKind.UPDATE_REFUSED, STREAM, opened, refusal, {G1}),
    (EntryKind.REFUSALS_COUNTED, "log", nothing, lambda sim: RefusalsCounted(
        1, 2, (RefusalCount("role", PeerClass.UNKNOWN, 1),), sha256(b"requests")), {G1, L1}),
    (EntryKind.UPDATE_WITHDRAWN, STREAM, opened, lambda sim: sim.withdrawal("rover-1"), {G1}),
    (EntryKind.COMPLAINT_RECORDED, STREAM, opened, lambda sim: sim.complaint("rover-2"), {V1, IRIS}),
    (EntryKind.ROUND_CLOSED, STREAM, full, closing, {A1}),
    (EntryKind.MODEL_PUBLISHED, STREAM, closed, published, {A1}),
    (EntryKind.TIME_ANCHORED, "log", nothing, anchor, {L1}),
    (EntryKind.MODELS_FETCHED, STREAM, nothing, lambda sim: ModelsFetched(
        1, 2, (ModelFetch("rover-1", sim.segment.model),)), {G1}),
    (EntryKind.DECISION_RECORDED, STREAM, nothing, lambda sim: sim.decision("rover-1"), {G1}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "stream", "stage", "say", "may"), KINDS, ids=[each[0].name for each in KINDS])
def test_no_role_writes_what_is_anothers_even_where_every_word_is_true(
    arena: Arena, kind: EntryKind, stream: str, stage: Callable[[Simulator], None],
    say: Callable[[Simulator], Body], may: set[SpiffeId],
) -> None:  # fmt: skip
    sim = arena.sim
    stage(sim)
    body = say(sim)
    for writer in WRITERS:
        if writer not in may:
            # An auditor is named for complaints alone: for all else it is nobody.
            code = "writer" if writer == IRIS else "role"
            arena.denied(code, code, sim.sign(sim.statement(writer, stream, body)))
    honest = sim.statement(next(each for each in WRITERS if each in may), stream, body)
    assert honest.kind is kind
    sim.log.order(sim.sign(honest))
    arena.verify()


def test_every_kind_that_a_service_writes_has_a_row() -> None:
    documents = {
        EntryKind.GENESIS, EntryKind.GOVERNANCE_PUBLISHED, EntryKind.PARTICIPANT_RECORDED, EntryKind.ORDER_GIVEN
    }  # fmt: skip
    assert {row[0] for row in KINDS} == set(EntryKind) - documents


def test_a_participants_an_operators_and_a_retired_services_keys_write_nothing(arena: Arena) -> None:
    sim = arena.sim
    body = RoundOpened(1, sim.segment.model, sim.segment.terms.digest)
    for thief in (sim.rovers["rover-1"], sim.operators["ann"]):
        statement = sim.statement(A1, STREAM, body, key_id=thief.public_key.key_id)
        arena.denied("writer", "writer", sim.sign(statement, thief))
    sim.publish_services(services={name: key for name, key in sim.keys.items() if name != A1})
    arena.denied("writer", "writer", sim.sign(sim.statement(A1, STREAM, body)))


def test_a_statement_stands_in_its_own_stream(arena: Arena) -> None:
    sim = arena.sim
    opened(sim)
    arena.denied("stream", "stream", sim.sign(sim.statement(G1, "log", sim.identity(operator_id("ann")))))
    arena.denied("stream", "stream", sim.sign(sim.statement(G1, "log", sim.admission("rover-2"))))
    arena.denied("stream", "stream", sim.sign(sim.statement(G1, "log", refusal(sim))))
    arena.denied("unknown_segment", "unknown_segment",
                 sim.sign(sim.statement(G1, "segment/sand", sim.admission("rover-2"))))  # fmt: skip
    sim.publish_terms(segment="sand")
    arena.denied("stream", "stream", sim.sign(sim.statement(G1, "segment/sand", sim.admission("rover-2"))))
    arena.denied("stream", "stream", sim.sign(sim.statement(G1, "segment/sand", sim.withdrawal("rover-1"))))
    arena.denied("stream", "stream", sim.sign(sim.statement(G1, "segment/sand", sim.decision("rover-1"))))
    arena.denied("stream", "stream", sim.sign(sim.statement(V1, "segment/sand", sim.complaint("rover-2"))))


# Participants: grants


def after(prepare: Callable[[Simulator], object], **changes: Any) -> Callable[[Arena], object]:
    """Rover 1 signs, something happens, and it sends."""

    def attempt(arena: Arena) -> object:
        signed = arena.sim.update("rover-1", **changes)
        prepare(arena.sim)
        return lambda: arena.send("rover-1", signed)

    return attempt


GRANTS: list[tuple[str, str, Evidence, dict[str, Any], Callable[[Arena], Any]]] = [
    ("no group of the segment's", "not_granted", LOG, {}, after(lambda s: s.record("rover-1", groups=["orbiters"]))),
    ("no group at all", "not_granted", LOG, {}, after(lambda s: s.record("rover-1", groups=[]))),
    ("no operation submit", "not_granted", LOG, {"terms": {"operations": ["fetch", "record"]}}, after(nothing)),
    ("a suspended record", "participant_inactive", LOG, {}, after(lambda s: s.record("rover-1", state="suspended"))),
    ("a revoked record", "participant_inactive", LOG, {}, after(lambda s: s.record("rover-1", state="revoked"))),
    ("an expired record", "participant_inactive", LOG, {}, after(lambda s: (
        s.record("rover-1", expires_us=s.clock.now_us() + 1_000), s.clock.advance(1_000)))),
    ("too little clearance", "policy_denied", LOG, {}, after(lambda s: s.record("rover-1", clearance=2))),
    ("a suite that is not the segment's", "suite_not_allowed", LOG, {"suites": {"rover-1": HYBRID}}, after(nothing)),
    ("a value type that is not the segment's", "format_not_allowed", LOG, {},
     after(nothing, format=PayloadFormat(2, "free", "fp32"))),
    ("a codec of tomorrow", "format_not_allowed", LOG, {}, after(nothing, format=PayloadFormat(3, "free", "int8"))),
    ("a tensor that is not the segment's", "tensor_not_allowed", OBJECT, {}, after(nothing, values={0: 1, 20: 1})),
    ("no rules in force", "policy_denied", LOG, {}, after(lambda s: s.publish_rules(cedar=""))),
    ("rules that name others", "policy_denied", LOG, {"rules": '@id("a") permit (principal == Participant::"rover-2", '
     "action, resource);"}, after(nothing)),
    ("rules that err", "policy_error", LOG, {"rules": '@id("a") permit (principal, action, resource); @id("b") forbid '
     "(principal, action, resource) when { context.weight * 9223372036854775807 > 5 };"}, after(nothing)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("reason", "evidence", "federation", "attack"), [pytest.param(*row[1:], id=row[0]) for row in GRANTS]
)
def test_an_update_beyond_its_participants_grant_is_refused(
    tmp_path: Path, reason: str, evidence: Evidence, federation: dict[str, Any], attack: Callable[[Arena], Any]
) -> None:
    with Arena(tmp_path, **federation) as arena:
        arena.sim.open_round()
        arena.refused(reason, attack(arena), evidence)


STOLEN: list[tuple[str, str, Callable[[Simulator], object]]] = [
    ("of no group", "not_granted", lambda s: s.record("rover-2", groups=["orbiters"])),
    ("who is suspended", "participant_inactive", lambda s: s.record("rover-2", state="suspended")),
    ("who is revoked", "participant_inactive", lambda s: s.record("rover-2", state="revoked")),
    ("with another key", "bad_signature",
     lambda s: s.record("rover-2", signing_key=SigningKey.generate("ed25519"))),
]


@pytest.mark.parametrize(("code", "prepare"), [pytest.param(*row[1:], id=row[0]) for row in STOLEN])
def test_a_stolen_gatekeeper_admits_nobody(
    arena: Arena, code: str, prepare: Callable[[Simulator], object]
) -> None:
    sim = arena.sim
    opened(sim)
    body = sim.admission("rover-2")
    prepare(sim)
    arena.denied(code, code, sim.sign(sim.statement(G1, STREAM, body)))


def test_a_stolen_gatekeeper_makes_up_no_update_that_its_participant_did_not_sign(arena: Arena) -> None:
    sim = arena.sim
    opened(sim)
    thief = SigningKey.generate("ed25519")
    good = sim.admission("rover-2")
    for key, changes in ((thief, {"key_id": thief.public_key.key_id}), (sim.keys[G1], {}), (thief, {})):
        key_id = sim.rovers["rover-2"].public_key.key_id
        envelope, update, _ = sim.update("rover-2", key=key, **{"key_id": key_id, **changes})
        forged = replace(good, envelope_raw=encode_envelope(envelope), envelope=envelope, update=update)
        arena.denied("bad_signature", "bad_signature", sim.sign(sim.statement(G1, STREAM, forged)))
    assert set(sim.segment.rounds[1].admissions) == {"rover-1"}


def test_what_the_payload_or_the_rules_do_not_allow_is_found_though_the_log_cannot_see_it(tmp_path: Path) -> None:
    heavy = '@id("a") permit (principal, action, resource); @id("b") forbid (principal, action, resource) when {'
    with Arena(tmp_path, rules=heavy + " context.weight == 77 };") as arena:
        sim = arena.sim
        sim.open_round()
        good = sim.admission("rover-1")
        for name, changes in (("rover-1", {"values": {0: 1, 20: 1}}), ("rover-2", {"weight": 77})):
            envelope, update, payload = sim.update(name, **changes)
            sim.objects.put(payload)
            told = replace(good, envelope_raw=encode_envelope(envelope), envelope=envelope, update=update)
            arena.found("defective", sim.sign(sim.statement(G1, STREAM, told)))
        sim.admit("rover-3")
        # Neither is counted: the aggregator drops both, and the round has too few.
        current = sim.close_round(defective=("rover-1", "rover-2"))
        assert current.closed is not None
        assert current.closed.outcome.name == "ABORTED"
        arena.verify()


# Operators: thresholds


def documents(sim: Simulator) -> list[tuple[str, bytes]]:
    services = [Signatory(spiffe_id, key.public_key) for spiffe_id, key in sim.keys.items() if spiffe_id != G1]
    thief = SigningKey.generate("ed25519")
    return [
        (SegmentTerms.payload_type, sim.terms_raw(value_types=["fp32", "int8"])),
        (SegmentTerms.payload_type, sim.terms_raw(segment="sand")),
        (RulesDocument.payload_type, build_rules(**sim.succession(("rules", "")))),
        (ServicesDocument.payload_type, build_services(**sim.succession(("services", "")), services=services)),
        (ParticipantRecord.payload_type, sim.record_raw("rover-1", signing_key=thief)),
        (ParticipantRecord.payload_type, sim.record_raw("rover-1", clearance=9)),
        (ParticipantRecord.payload_type, sim.record_raw("rover-9", signing_key=thief)),
    ]


@pytest.mark.parametrize("number", range(7))
def test_one_operator_alone_or_with_whoever_is_none_changes_nothing(arena: Arena, number: int) -> None:
    sim = arena.sim
    payload_type, raw = documents(sim)[number]
    alone = sign_envelope(payload_type, raw, [sim.operators["eve"]])
    arena.counted_by_log("threshold", partial(arena.bring, operator_id("eve"), alone), PeerClass.OPERATOR)
    arena.denied("threshold", "threshold", alone)
    for other in (SigningKey.generate("ed25519"), sim.keys[G1], sim.rovers["rover-1"]):
        both = sign_envelope(payload_type, raw, [sim.operators["eve"], other])
        arena.denied("threshold", "threshold", both)
    # One more than enough is refused too, where it is nobody's.
    three = [sim.operators["ann"], sim.operators["eve"], SigningKey.generate("ed25519")]
    arena.denied("threshold", "threshold", sign_envelope(payload_type, raw, three))
    assert sim.log.order(sign_envelope(payload_type, raw, three[:2])) == len(sim.log.raw) - 1


def test_enough_operators_make_no_second_name_of_one_key(arena: Arena) -> None:
    sim = arena.sim
    for key in (sim.keys[G1], sim.operators["ann"], sim.rovers["rover-2"]):
        raw = sim.record_raw("rover-9", signing_key=key)
        arena.denied("key_reused", "key_reused", sim.sign_document(ParticipantRecord.payload_type, raw))
    swapped = {**sim.keys, G1: sim.keys[A1], A1: sim.keys[G1]}
    listed = [Signatory(spiffe_id, key.public_key) for spiffe_id, key in swapped.items()]
    raw = build_services(**sim.succession(("services", "")), services=listed)
    arena.denied("key_reused", "key_reused", sim.sign_document(ServicesDocument.payload_type, raw))
    foreign = [Signatory(SpiffeId("spiffe://venus.example/service/gatekeeper/g1"), sim.keys[G1].public_key)]
    raw = build_services(**sim.succession(("services", "")), services=foreign)
    arena.denied("trust_domain", "trust_domain", sim.sign_document(ServicesDocument.payload_type, raw))


# Auditors: payloads


def ask(arena: Arena, reader: SpiffeId, digest: Digest, key: SigningKey, **changes: Any) -> Envelope:
    request = ObjectRequest(
        arena.sim.federation_id, reader, key.public_key.key_id, digest, arena.sim.clock.now_us()
    )
    return sign_envelope(OBJECT_REQUEST_TYPE, encode_object_request(replace(request, **changes)), [key])


def test_a_certificate_alone_reads_no_payload(arena: Arena) -> None:
    sim = arena.sim
    opened(sim)
    digest = sim.segment.rounds[1].admissions["rover-1"].update.payload_sha256
    own, thief = sim.auditors[IRIS], SigningKey.generate("ed25519")
    asked: list[tuple[str, Envelope]] = [
        ("bad_signature", ask(arena, IRIS, digest, thief)),
        ("bad_signature", ask(arena, IRIS, digest, thief, key_id=own.public_key.key_id)),
        ("bad_signature", ask(arena, IRIS, digest, sim.rovers["rover-1"])),
        ("wrong_peer", ask(arena, V1, digest, sim.keys[V1])),
        ("wrong_federation", ask(arena, IRIS, digest, own, federation_id=sha256(b"another"))),
        ("request_stale", ask(arena, IRIS, digest, own, created_us=sim.clock.now_us() - 60_000_001)),
        ("request_stale", ask(arena, IRIS, digest, own, created_us=sim.clock.now_us() + 60_000_001)),
    ]
    for reason, envelope in asked:
        raw = wire.encode_object_request(digest, envelope)
        arena.counted(reason, partial(arena.call, wire.FETCH_OBJECT, IRIS, raw), peer_class=PeerClass.AUDITOR)
    sim.publish_services(auditors={})
    raw = wire.encode_object_request(digest, ask(arena, IRIS, digest, own))
    arena.counted(
        "bad_signature", partial(arena.call, wire.FETCH_OBJECT, IRIS, raw), peer_class=PeerClass.AUDITOR
    )
    sim.publish_services()
    assert arena.call(wire.FETCH_OBJECT, IRIS, raw)


def test_a_participant_records_and_takes_back_for_itself_alone(arena: Arena) -> None:
    sim = arena.sim
    opened(sim)
    arena.counted("wrong_peer", lambda: arena.withdraw("rover-2", sim.withdrawal("rover-1").envelope))
    arena.counted("wrong_peer", lambda: arena.record("rover-2", sim.decision("rover-1").envelope))
    # A service's certificate of the same name is no participant's.
    arena.counted("wrong_peer", lambda: arena.call(
        wire.WITHDRAW_UPDATE, service_id("gatekeeper", "rover-1"),
        wire.encode_withdraw_request(sim.withdrawal("rover-1").envelope)))  # fmt: skip
    sim.record("rover-3", groups=["orbiters"])
    arena.counted("not_granted", lambda: arena.record("rover-3", sim.decision("rover-3").envelope))
    assert sim.state.decisions == {}
    assert sim.segment.rounds[1].withdrawn == {}


def test_an_operator_who_was_out_of_root_for_an_entry_comes_back_without_the_old_identity(tmp_path: Path) -> None:
    with Arena(tmp_path) as arena:
        sim = arena.sim
        old = sha256(b"bob's TLS key")
        sim.write(G1, "identity", sim.identity(operator_id("bob"), spki=old, renews=None))
        everybody = dict(sim.operators)
        sim.rotate_root({name: key for name, key in everybody.items() if name != "bob"})
        sim.rotate_root(everybody)
        assert sim.view().lookup(old) is None
        body = sim.identity(operator_id("bob"), spki=sha256(b"bob's next TLS key"), renews=old)
        arena.denied("not_renewed", "renews", sim.sign(sim.statement(G1, "identity", body)))
