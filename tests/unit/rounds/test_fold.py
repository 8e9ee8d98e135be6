"""The fold: each reason for which an entry is void, and that a void entry changes nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import pytest
from simulator import (
    DAY_US,
    GRID,
    MANIFEST,
    NOW_US,
    SEGMENT,
    UNTIL_US,
    Simulator,
    participant_id,
    service_id,
)

from sfrl_secure.crypto.envelope import Envelope, Signature, add_signature
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.errors import ConflictError, DeniedError
from sfrl_secure.governance.build import build_rules
from sfrl_secure.governance.statements import (
    Body,
    CloseCause,
    CloseOutcome,
    DroppedUpdate,
    Evidence,
    IdentityIssued,
    ModelFetch,
    ModelPublished,
    ModelsFetched,
    PayloadFormat,
    PeerClass,
    RefusalCount,
    RefusalsCounted,
    RoundClosed,
    RoundOpened,
    Statement,
    UpdateAdmitted,
    UpdateRefused,
)
from sfrl_secure.governance.terms import ModelTerms
from sfrl_secure.ids import ZERO_DIGEST, Digest, parse_spiffe_id, sha256
from sfrl_secure.limits import SINGLE_REFUSALS_MAX
from sfrl_secure.replay.fold import Replay
from sfrl_secure.rounds.closing import close_round
from sfrl_secure.rounds.fold import FederationFold
from sfrl_secure.sequencer.log_keys import LogKeys
from sfrl_secure.translog.merkle import EMPTY_ROOT, leaf_hash
from sfrl_secure.wire.content import parse_content
from sfrl_secure.wire.entries import encode_envelope, parse_entry

STREAM = f"segment/{SEGMENT}"
A1, G1, L1 = service_id("aggregator", "a1"), service_id("gatekeeper", "g1"), service_id("audit_log", "l1")
DURATION_US = 60_000_000

Send = Callable[[Simulator], Envelope]


def says(body: Callable[[Simulator], Body], writer: Any = G1, stream: str = STREAM, **changes: Any) -> Send:
    """A statement of this body, on the newest heads."""
    return lambda sim: sim.sign(sim.statement(writer, stream, body(sim), **changes))


def opened(sim: Simulator) -> RoundOpened:
    segment = sim.segment
    return RoundOpened(segment.last_round + 1, segment.model, segment.terms.digest)


def identity(name: str = "rover-1", spki: bytes = b"new key", until_us: int = UNTIL_US) -> Callable[[Simulator], Body]:
    return lambda sim: IdentityIssued(participant_id(name), sha256(spki), 7, until_us)


def named(spiffe_id: str) -> Callable[[Simulator], Body]:
    return lambda sim: IdentityIssued(parse_spiffe_id(spiffe_id), sha256(b"new key"), 7, UNTIL_US)


def admitted(**changes: Any) -> Callable[[Simulator], Body]:
    """Rover 1's sound admission, with changes to its update."""

    def body(sim: Simulator) -> UpdateAdmitted:
        sound = sim.admission("rover-1")
        envelope, update, _ = sim.update("rover-1", **changes)
        return replace(sound, envelope=envelope, envelope_raw=encode_envelope(envelope), update=update)

    return body


def refused(
    reason: str = "weight_limit", evidence: Evidence = Evidence.LOG, peer: str = "rover-1", *, quoted: bool = True,
    **changes: Any,
) -> Callable[[Simulator], Body]:  # fmt: skip
    def body(sim: Simulator) -> UpdateRefused:
        envelope, update, _ = sim.update("rover-1", **{"weight": 101, **changes})
        return UpdateRefused(
            peer=participant_id(peer),
            envelope_raw=encode_envelope(envelope) if quoted else b"",
            envelope=envelope if quoted else None,
            update=update if quoted else None,
            request_digest=sha256(b"request"),
            reason=reason,
            facts=None,
            rule_ids=(),
            evidence=evidence,
        )

    return body


def closing(**changes: Any) -> Callable[[Simulator], Body]:
    def body(sim: Simulator) -> RoundClosed:
        current = sim.segment.current
        assert current is not None
        due = close_round(current, defective=(), is_active=lambda name: True, now_us=current.deadline_us)
        return replace(due, **changes)

    return body


def model(**changes: Any) -> Callable[[Simulator], Body]:
    def body(sim: Simulator) -> ModelPublished:
        current = sim.segment.current
        assert current is not None
        due = ModelPublished(
            current.number, current.closed_hash, current.base_model, sha256(b"aggregate"), sha256(b"model"),
            "weighted_mean/v1", 1,
        )  # fmt: skip
        return replace(due, **changes)

    return body


def fetched(name: str = "rover-1", digest: bytes | None = None) -> Callable[[Simulator], Body]:
    return lambda sim: ModelsFetched(
        sim.clock.now_us(), sim.clock.now_us(),
        (ModelFetch(name, sim.segment.model if digest is None else sha256(digest)),),
    )  # fmt: skip


def document(raw: Callable[[Simulator], bytes], kind: str, signers: tuple[str, ...] = ("ann", "bob")) -> Send:
    return lambda sim: sim.sign_document(f"application/vnd.sfrl.{kind}.v1+json", raw(sim), signers)


def terms(**changes: Any) -> Send:
    return document(lambda sim: sim.terms_raw(**changes), "segment-terms")


def record(name: str = "rover-1", signers: tuple[str, ...] = ("ann", "bob"), **changes: Any) -> Send:
    return document(lambda sim: sim.record_raw(name, **changes), "participant", signers)


def nothing(sim: Simulator) -> None:
    pass


def full(sim: Simulator) -> None:
    """An open round with its three admissions, one of them rover-1's."""
    sim.open_round()
    for name in ("rover-1", "rover-2", "rover-3"):
        sim.admit(name)


def closed(sim: Simulator) -> None:
    full(sim)
    sim.close_round()


def others(sim: Simulator) -> None:
    """An open round with three admissions, none of them rover-1's."""
    sim.open_round()
    for name in ("rover-2", "rover-3", "rover-4"):
        sim.admit(name)


def open_(sim: Simulator) -> None:
    sim.open_round()


def late(sim: Simulator) -> None:
    sim.open_round()
    sim.clock.advance(DURATION_US)


def two_refused(sim: Simulator) -> None:
    sim.open_round()
    for n in range(2):
        sim.write(G1, STREAM, refused(weight=101 + n)(sim))


def three_refused(sim: Simulator) -> None:
    two_refused(sim)
    assert SINGLE_REFUSALS_MAX == 3
    sim.write(G1, STREAM, refused(weight=103)(sim))


def open_then_revoked(sim: Simulator) -> None:
    sim.open_round()
    sim.record("rover-2", state="revoked")


def used_up(sim: Simulator) -> None:
    for _ in range(3):
        sim.open_round()
        sim.clock.advance(DURATION_US)
        sim.close_round()


def services_expired(sim: Simulator) -> None:
    sim.publish_services(expires_us=sim.clock.now_us() + 1)
    sim.clock.advance(1)


def terms_expired(sim: Simulator) -> None:
    sim.publish_terms(expires_us=sim.clock.now_us() + 1)
    sim.clock.advance(1)


def with_signature(send: Send, change: Callable[[Signature], Signature]) -> Send:
    def signed(sim: Simulator) -> Envelope:
        envelope = send(sim)
        return replace(envelope, signatures=tuple(change(each) for each in envelope.signatures))

    return signed


def twice_signed(sim: Simulator) -> Envelope:
    return add_signature(says(opened, A1)(sim), sim.keys[G1])


def revoked(name: str) -> Callable[[Simulator], object]:
    return lambda sim: sim.record(name, state="revoked")


def two_segments(sim: Simulator) -> None:
    sim.open_round()
    sim.publish_terms(segment="sand")


def one_admitted(sim: Simulator) -> None:
    sim.open_round()
    sim.admit("rover-1")


def counted(sim: Simulator) -> Body:
    return RefusalsCounted(1, 1, (RefusalCount("role", PeerClass.UNKNOWN, 1),), sha256(b"requests"))


A2 = service_id("aggregator", "a2")
EARLY = RoundClosed(1, CloseCause.DEADLINE, CloseOutcome.ABORTED, 0, EMPTY_ROOT, ())
STRANGER = SigningKey.generate("ed25519")
OTHER_MODEL = ModelTerms(MANIFEST, GRID + 1, sha256(b"initial"))

VOID: list[tuple[str, Callable[[Simulator], object], Send]] = [
    # Documents.
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
    # Every statement.
    ("known", nothing, lambda sim: sim.log.envelope_at(5)),  # the first identity_issued
    ("wrong_federation", nothing, says(opened, A1, federation_id=sha256(b"another"))),
    ("writer", services_expired, says(opened, A1)),
    ("writer", nothing, says(opened, A1, key_id=STRANGER.public_key.key_id)),
    ("writer", nothing, lambda sim: sim.sign(replace(sim.statement(A1, STREAM, opened(sim)), writer=A2), sim.keys[A1])),
    ("bad_signature", nothing, lambda sim: sim.sign(sim.statement(A1, STREAM, opened(sim)), STRANGER)),
    ("bad_signature", nothing, with_signature(says(opened, A1), lambda each: replace(each, value=bytes(64)))),
    ("bad_signature", nothing, twice_signed),
    ("role", nothing, says(opened, G1)),
    ("role", open_, says(admitted(), A1)),
    ("role", nothing, says(identity(), A1, "identity")),
    ("role", full, says(closing(), G1)),
    ("role", closed, says(model(), G1)),
    ("role", nothing, says(fetched(), A1)),
    ("role", open_, says(refused(), A1)),
    ("role", nothing, says(counted, A1, "log")),
    ("expired", nothing, says(opened, A1, valid_until_us=NOW_US)),
    ("stream", nothing, says(identity(), G1, STREAM)),
    ("stream", nothing, says(opened, A1, "identity")),
    ("stream", nothing, says(opened, A1, "log")),
    ("stream", open_, says(refused(), G1, "identity")),
    ("stream", open_, says(refused(), G1, "log")),
    ("stream", open_, says(refused("unknown_segment", segment="sand"), G1)),
    ("unknown_segment", open_, says(refused("malformed", Evidence.NONE, quoted=False), G1, "segment/sand")),
    ("unknown_segment", nothing, says(opened, A1, "segment/sand")),
    ("stale", nothing, says(opened, A1, reads_governance=sha256(b"older"))),
    ("stale", nothing, says(opened, A1, reads_segment=sha256(b"older"))),
    ("stale", open_, says(admitted(), reads_segment=ZERO_DIGEST)),
    ("stale", nothing, says(identity(), G1, "identity", reads_segment=sha256(b"any"))),
    # identity_issued.
    ("unknown_name", nothing, says(identity("rover-9"), G1, "identity")),
    ("unknown_name", nothing, says(named("spiffe://mars.example/operator/zoe"), G1, "identity")),
    ("unknown_name", nothing, says(named("spiffe://mars.example/auditor/ada"), G1, "identity")),
    ("unknown_name", nothing, says(named("spiffe://mars.example/service/gatekeeper/a1"), G1, "identity")),
    ("unknown_name", nothing, says(named("spiffe://venus.example/participant/rover-1"), G1, "identity")),
    ("unknown_name", revoked("rover-1"), says(identity(), G1, "identity")),
    ("key_reused", nothing, says(identity("rover-1", b"rover-2"), G1, "identity")),
    ("key_reused", revoked("rover-2"), says(identity("rover-1", b"rover-2"), G1, "identity")),
    ("expired", nothing, says(identity(until_us=1), G1, "identity")),
    # round_opened.
    ("round_open", open_, says(opened, A1)),
    ("round_open", closed, says(opened, A1)),
    ("expired", terms_expired, says(opened, A1)),
    ("terms", nothing, says(lambda sim: replace(opened(sim), terms_digest=sha256(b"other")), A1)),
    ("round", nothing, says(lambda sim: replace(opened(sim), round=2), A1)),
    ("round", used_up, says(opened, A1)),
    ("base", nothing, says(lambda sim: replace(opened(sim), base_model=sha256(b"other")), A1)),
    # update_admitted.
    ("stream", two_segments, says(admitted(), G1, "segment/sand")),
    ("bad_signature", open_, says(admitted(key=STRANGER, key_id=STRANGER.public_key.key_id))),
    ("bad_signature", open_, says(admitted(participant="rover-2"))),
    ("wrong_federation", open_, says(admitted(federation_id=sha256(b"another")))),
    ("round_not_open", open_, says(admitted(round=2))),
    ("wrong_prefix", open_, says(admitted(round_opened=sha256(b"another")))),
    ("wrong_base", open_, says(admitted(base_model=sha256(b"another")))),
    ("deadline", late, says(admitted())),
    ("duplicate", one_admitted, says(admitted(values={1: 1}))),
    ("round_full", others, says(admitted())),
    ("format_not_allowed", open_, says(admitted(format=PayloadFormat(1, "free", "fp32")))),
    ("too_dense", open_, says(admitted(nonzeros=9))),
    ("payload_too_large", open_, says(admitted(payload_bytes=4_097))),
    ("weight_limit", open_, says(admitted(weight=101))),
    ("retention", open_, says(lambda sim: replace(sim.admission("rover-1"), retain_until_us=NOW_US + 90 * DAY_US - 1))),
    # update_refused.
    ("unknown_peer", open_, says(refused(peer="rover-9"))),
    ("bad_signature", open_, says(refused(key=STRANGER, key_id=STRANGER.public_key.key_id))),
    ("bad_signature", open_, says(refused(key=STRANGER))),
    ("evidence", open_, says(refused(quoted=False))),
    ("evidence", open_, says(refused(evidence=Evidence.OBJECT, quoted=False))),
    ("refusal", open_, says(refused("too_dense"))),
    ("refusal", open_, says(refused(weight=10))),
    ("refusal", open_, says(refused("norm_limit", Evidence.OBJECT))),
    ("counted", three_refused, says(refused(weight=110))),
    ("counted", three_refused, says(refused(evidence=Evidence.NONE, quoted=False))),
    # round_closed.
    ("round_not_open", nothing, says(lambda sim: EARLY, A1)),
    ("round_not_open", full, says(closing(round=2), A1)),
    ("round_not_over", one_admitted, says(closing(), A1)),
    ("close", full, says(closing(cause=CloseCause.DEADLINE), A1)),
    ("close", full, says(closing(outcome=CloseOutcome.ABORTED), A1)),
    ("close", full, says(closing(counted_count=2), A1)),
    ("close", full, says(closing(counted_root=sha256(b"other")), A1)),
    ("close", full, says(closing(dropped=(DroppedUpdate("rover-1", sha256(b"x"), "participant_inactive"),)), A1)),
    ("close", full, says(closing(dropped=(DroppedUpdate("rover-9", sha256(b"x"), "defective"),)), A1)),
    ("close", full, says(closing(dropped=(DroppedUpdate("rover-1", sha256(b"x"), "defective"),)), A1)),
    # model_published.
    ("no_model_due", full, says(model(round_closed=sha256(b"none yet")), A1)),
    ("no_model_due", closed, says(model(round=2), A1)),
    ("model", closed, says(model(round_closed=sha256(b"other")), A1)),
    ("model", closed, says(model(base_model=sha256(b"other")), A1)),
    ("model", closed, says(model(rule="median/v1"), A1)),
    ("model", closed, says(model(arithmetic=2), A1)),
    # models_fetched.
    ("unknown_name", nothing, says(fetched("rover-9"))),
    ("unknown_model", nothing, says(fetched(digest=b"other"))),
]  # fmt: skip


@dataclass
class Prepared:
    """A federation to which only void entries are added, and the verifier's own walk over its log."""

    sim: Simulator
    replay: Replay
    found: set[int | None] = field(default_factory=set)

    def walk(self) -> set[int | None]:
        """Indices of all entries that the verifier finds fault with."""
        for raw in self.sim.log.raw[self.replay.size :]:
            self.found |= {finding.index for finding in self.replay.step(raw)}
        return self.found


class Objects:
    """The simulator's store, as the replay reads it."""

    def __init__(self, sim: Simulator) -> None:
        self._store = sim.objects

    def read(self, digest: Digest, bytes_max: int) -> bytes | None:
        return self._store.get(digest, 2**30)[: bytes_max + 1] if self._store.is_stored(digest) else None

    def holds(self, digest: Digest) -> bool:
        return self._store.is_stored(digest)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Callable[[Simulator], object]], Prepared]:
    """One federation for each way to prepare it."""
    made: dict[Callable[[Simulator], object], Prepared] = {}

    def of(prepare: Callable[[Simulator], object]) -> Prepared:
        if prepare not in made:
            sim = Simulator(tmp_path_factory.mktemp("fold"))
            prepare(sim)
            made[prepare] = Prepared(sim, Replay(sim.policy.logs[0], Objects(sim)))
            assert made[prepare].walk() == set()
        return made[prepare]

    return of


POSITION = {"streams", "statements", "size", "last_time_us", "owners"}


def without_position(sim: Simulator) -> str:
    """The state, but for where the next entry goes, written out: everything in it is a value."""
    state = sim.state
    values = {each.name: getattr(state, each.name) for each in fields(state) if each.name not in POSITION}
    return repr({**values, "owners": state.owners._owners})


@pytest.mark.parametrize("case", VOID, ids=[f"{number}-{case[0]}" for number, case in enumerate(VOID)])
def test_a_void_entry_changes_nothing_but_the_position(
    prepared: Callable[[Callable[[Simulator], object]], Prepared],
    case: tuple[str, Callable[[Simulator], object], Send],
) -> None:
    reason, prepare, send = case
    at = prepared(prepare)
    sim = at.sim
    envelope = send(sim)
    content = parse_content(envelope)
    place, before = sim.log.fold.place(content), without_position(sim)
    everything = copy.deepcopy(sim.state.streams), dict(sim.state.statements.indices), sim.state.size
    with pytest.raises((ConflictError, DeniedError)) as refusal:
        sim.log.fold.check(max(sim.clock.now_us(), sim.state.last_time_us), envelope, content)
    assert refusal.value.reason == reason
    assert without_position(sim) == before
    assert (sim.state.streams, sim.state.statements.indices, sim.state.size) == everything
    index = sim.log.force(envelope)
    assert sim.log.voids[index] == reason
    assert without_position(sim) == before
    after = sim.state.streams[place.stream]
    assert (after.next_seq, after.last) == (place.stream_seq + 1, sim.log.leaf(index))
    assert (sim.log.fold.index_of(envelope.digest) is not None) == isinstance(content, Statement)
    # The verifier's own fold, written apart from this one, says the same of every entry.
    assert at.walk() == set(sim.log.voids)


LOUD = dict.fromkeys(range(5), 2**20)
SOUND: list[tuple[str, Callable[[Simulator], object], Send]] = [
    ("identity", nothing, says(identity(), G1, "identity")),
    ("identity-again", nothing, says(identity(spki=b"rover-1"), G1, "identity")),
    ("operator", nothing, says(named("spiffe://mars.example/operator/ann"), G1, "identity")),
    ("service", nothing, says(named("spiffe://mars.example/service/audit_log/l1"), G1, "identity")),
    ("opened", nothing, says(opened, A1)),
    ("admitted", one_admitted, lambda sim: sim.sign(sim.statement(G1, STREAM, sim.admission("rover-2")))),
    ("refused-log", open_, says(refused())),
    ("refused-object", open_, says(refused("norm_limit", Evidence.OBJECT, weight=10, values=LOUD))),
    ("refused-word", open_, says(refused("deadline", Evidence.NONE))),
    ("refused-bare", open_, says(refused("bad_signature", Evidence.NONE, quoted=False))),
    ("refused-unknown", open_, says(refused("unknown_segment", segment="sand"), G1, "log")),
    ("refused-wrong-peer", open_, says(refused("wrong_peer", peer="rover-2"))),
    ("refused-replayed", one_admitted, lambda sim: says(refused("replayed", peer="rover-2", weight=10))(sim)),
    ("refused-of-a-revoked-peer", open_then_revoked, says(refused("wrong_peer", peer="rover-2"))),
    ("third-of-its-kind", two_refused, says(refused(weight=110))),
    ("counted", nothing, says(counted, L1, "log")),
    ("closed", full, says(closing(), A1)),
    ("fetched", nothing, says(fetched())),
    ("suspended", nothing, record(state="suspended")),
    ("revoked-by-one", nothing, record(state="revoked", signers=("eve",))),
    ("terms", nothing, terms(sensitivity=9)),
    ("rules", nothing, document(lambda sim: build_rules(**sim.succession(("rules", ""))), "rules")),
]  # fmt: skip


@pytest.mark.parametrize("case", SOUND, ids=[case[0] for case in SOUND])
def test_what_is_sound_has_effect_here_and_in_the_verifier(
    tmp_path: Path, case: tuple[str, Callable[[Simulator], object], Send]
) -> None:
    _, prepare, send = case
    sim = Simulator(tmp_path)
    prepare(sim)
    sim.log.append(send(sim))
    assert sim.log.voids == {}
    assert Prepared(sim, Replay(sim.policy.logs[0], Objects(sim))).walk() == set()


# Genesis


def refold(sim: Simulator, origin: str, vkeys: tuple[str, str]) -> tuple[FederationFold, list[str | None]]:
    fold = FederationFold(origin, vkeys)
    codes = []
    for index, raw in enumerate(sim.log.raw):
        entry = parse_entry(raw)
        codes.append(fold.apply(index, leaf_hash(raw), entry, parse_content(entry.envelope)))
    return fold, codes


def test_the_same_entries_give_the_same_state(sim: Simulator) -> None:
    closed(sim)
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


def test_an_expired_root_takes_no_document(sim: Simulator) -> None:
    sim.clock.advance(UNTIL_US - sim.clock.now_us() - 1)
    sim.publish_rules(expires_us=UNTIL_US + DAY_US)
    sim.clock.advance(1)
    with pytest.raises(DeniedError) as denied:
        sim.publish_rules(expires_us=UNTIL_US + DAY_US)
    assert denied.value.reason == "expired"


# What effective entries change


def test_a_document_that_lacked_signatures_may_come_again(sim: Simulator) -> None:
    raw = sim.record_raw("rover-1", clearance=9)
    alone = sim.sign_document("application/vnd.sfrl.participant.v1+json", raw, ["ann"])
    together = sim.sign_document("application/vnd.sfrl.participant.v1+json", raw)
    assert alone.digest == together.digest
    assert sim.log.voids.get(sim.log.force(alone)) == "threshold"
    index = sim.log.order(together)
    assert sim.state.index_of_document(("participant", "rover-1")) == index


def test_what_does_not_parse_is_void_and_moves_no_stream(sim: Simulator) -> None:
    streams = copy.deepcopy(sim.state.streams)
    statement = sim.sign(sim.statement(A1, STREAM, opened(sim)))
    broken = replace(statement, statement=statement.statement + b"\0")
    index = sim.log.force(broken)
    assert sim.log.voids == {index: "malformed"}
    assert sim.state.streams == streams
    assert sim.state.size == index + 1


def test_only_the_checked_envelope_needs_no_second_check(sim: Simulator) -> None:
    """The digest of an envelope does not cover its signatures."""
    sound = sim.sign(sim.statement(A1, STREAM, opened(sim)))
    sim.log.fold.check(sim.clock.now_us(), sound, parse_content(sound))
    forged = replace(sound, signatures=sim.sign(sim.statement(A1, STREAM, opened(sim)), STRANGER).signatures)
    assert forged.digest == sound.digest
    assert sim.log.voids.get(sim.log.force(forged)) == "bad_signature"


def test_a_signature_that_the_caller_has_verified_is_not_verified_again(sim: Simulator) -> None:
    statement = sim.statement(G1, "identity", identity()(sim))
    forged = sim.sign(statement, sim.keys[A1])
    forged = replace(forged, signatures=(replace(forged.signatures[0], key_id=statement.key_id),))
    fold, now_us = sim.log.fold, sim.clock.now_us()
    fold.check(now_us, forged, statement, verified_by=sim.keys[G1].public_key)
    for other in (None, sim.keys[A1].public_key):
        with pytest.raises(DeniedError) as denied:
            fold.check(now_us, forged, statement, verified_by=other)
        assert denied.value.reason == "bad_signature"


def test_documents_move_the_governance_head_and_rounds_the_control_head(sim: Simulator) -> None:
    state, segment = sim.state, sim.segment
    assert segment.control_head == ZERO_DIGEST
    head = state.governance_head
    sim.open_round()
    assert segment.control_head == sim.log.leaf(len(sim.log.raw) - 1)
    control = segment.control_head
    sim.write(G1, STREAM, refused()(sim))
    sim.admit("rover-1")
    sim.write(G1, STREAM, fetched()(sim))
    sim.issue("rover-1", spki=sha256(b"renewed"))
    assert (state.governance_head, segment.control_head) == (head, control)
    index = sim.record("rover-2")
    assert (state.governance_head, segment.control_head) == (sim.log.leaf(index), control)
    for name in ("rover-2", "rover-3"):
        sim.admit(name)
    sim.close_round()
    assert segment.control_head == sim.log.leaf(len(sim.log.raw) - 1) != control


def test_a_round_keeps_the_terms_it_was_opened_under(sim: Simulator) -> None:
    current = sim.open_round()
    frozen = sim.segment.terms
    sim.publish_terms(limits=replace(frozen.limits, weight_max=1), groups=["orbiters"])
    assert sim.segment.terms != frozen == current.terms
    sim.admit("rover-1", weight=100)
    sim.clock.advance(DURATION_US)
    sim.close_round()
    assert sim.open_round().terms == sim.segment.terms


def test_a_revoked_participants_keys_open_nothing(sim: Simulator) -> None:
    spki = sha256(b"rover-1")
    sim.record("rover-1", state="suspended")
    assert spki in sim.state.identities
    sim.record("rover-1", state="revoked")
    assert spki not in sim.state.identities
    assert sha256(b"rover-2") in sim.state.identities


def test_streams_count_their_own_entries(sim: Simulator) -> None:
    closed(sim)
    seen: dict[str, tuple[int, Digest]] = {}
    for index, raw in enumerate(sim.log.raw):
        entry = parse_entry(raw)
        content = parse_content(entry.envelope)
        stream = content.stream if isinstance(content, Statement) else "governance"
        seq, last = seen.get(stream, (0, ZERO_DIGEST))
        assert (entry.stream_seq, entry.stream_prev) == (seq, last)
        seen[stream] = (seq + 1, sim.log.leaf(index))
    assert set(seen) == {"governance", "identity", STREAM}
