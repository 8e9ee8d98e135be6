"""The audit log as it runs: real keys, mutual TLS on loopback, and the verifier's witness beside it."""

from __future__ import annotations

import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from sfrl_secure.clock import SystemClock
from sfrl_secure.crypto.envelope import Envelope, parse_envelope_json, sign_envelope
from sfrl_secure.crypto.keys import signing_key_from_pem
from sfrl_secure.errors import (
    ConflictError,
    DeniedError,
    ExhaustedError,
    MalformedError,
    NotFoundError,
    SfrlError,
    UnavailableError,
    UncertainStateError,
)
from sfrl_secure.governance.build import build_rules
from sfrl_secure.governance.documents import RulesDocument
from sfrl_secure.governance.statements import STATEMENT_TYPE, PeerClass, RefusalCount, RefusalsCounted, Statement
from sfrl_secure.ids import ZERO_DIGEST, Digest, parse_hex_digest, parse_spiffe_id, sha256
from sfrl_secure.rpc.channel import ClientTls, RpcChannel
from sfrl_secure.rpc.clients import AuditLogClient
from sfrl_secure.rpc.follower import LogFollower
from sfrl_secure.sequencer.log_keys import LogKeys
from sfrl_secure.services.audit_log.anchors import is_anchor
from sfrl_secure.services.audit_log.identities import LogIdentities
from sfrl_secure.services.audit_log.servicer import FOLLOWS_OF_ONE_MAX, STREAMS_OF_ONE_MAX
from sfrl_secure.services.audit_log.wiring import AuditLog, open_audit_log
from sfrl_secure.services.config import AuditLogConfig, VerifierConfig, read_config
from sfrl_secure.services.federation.create import Federation, create_federation
from sfrl_secure.services.federation.plan import default_plan
from sfrl_secure.services.verifier.wiring import open_verifier
from sfrl_secure.storage.files import read_bounded
from sfrl_secure.storage.log_store import NOTHING_SIGNED
from sfrl_secure.storage.secrets import read_secret, write_secret
from sfrl_secure.translog.opened import open_checkpoint
from sfrl_secure.translog.policy import TrustPolicy, format_trust_policy, parse_trust_policy
from sfrl_secure.translog.proofs import InclusionProof, verify_inclusion
from sfrl_secure.translog.tiles import parse_bundle
from sfrl_secure.wire import audit_service
from sfrl_secure.wire.audit_service import AppendedEntry
from sfrl_secure.wire.content import parse_content
from sfrl_secure.wire.entries import parse_entry
from sfrl_secure.wire.statements import encode_statement

YEAR_US = 365 * 86_400_000_000


@dataclass
class Site:
    """A federation whose verifier and audit log run in this process."""

    federation: Federation
    log: AuditLog
    address: str
    policy: TrustPolicy
    channels: list[RpcChannel] = field(default_factory=list)
    rules: list[Digest] = field(default_factory=list)
    witnessed_at_open: int = 0

    def channel(self, who: str) -> RpcChannel:
        """A channel of `operators/alice`, `participants/rover-1`, `services/gatekeeper-gatekeeper-1`..."""
        folder = self.federation.folder.root
        tls = ClientTls(
            read_secret(folder / who / "tls.key"),
            (folder / who / "tls.crt").read_bytes(),
            (folder / "ca" / "service.crt").read_bytes(),
        )
        made = RpcChannel(self.address, role="audit_log", trust_domain="sfrl.example", tls=tls)
        self.channels.append(made)
        return made

    def client(self, who: str) -> AuditLogClient:
        return AuditLogClient(self.channel(who))

    def rules_envelope(self, *operators: str) -> Envelope:
        """The next version of the rules, signed by these operators."""
        folder = self.federation.folder
        if not self.rules:
            (first,) = (folder.root / "documents").glob("*-rules.json")
            self.rules.append(sha256(parse_envelope_json(first.read_bytes()).statement))
        raw = build_rules(
            federation_id=self.federation.federation_id,
            version=len(self.rules) + 1,
            previous=self.rules[-1],
            expires_us=SystemClock().now_us() + YEAR_US,
        )
        keys = [
            signing_key_from_pem("ed25519", read_secret(folder.operator(name) / "signing.key")) for name in operators
        ]
        return sign_envelope(RulesDocument.payload_type, raw, keys)

    def statement(self, number: int, **changes: Any) -> Envelope:
        """A gatekeeper's statement, decided on the log as it is."""
        folder = self.federation.folder.service("gatekeeper", "gatekeeper-1")
        key = signing_key_from_pem("ed25519", read_secret(folder / "signing.key"))
        history = self.log.sequencer.history
        with history.lock:
            governance_head = history.fold.state.governance_head
        now_us = SystemClock().now_us()
        statement = Statement(
            federation_id=self.federation.federation_id,
            stream="log",
            writer=parse_spiffe_id("spiffe://sfrl.example/service/gatekeeper/gatekeeper-1"),
            key_id=key.public_key.key_id,
            reads_governance=governance_head,
            reads_segment=ZERO_DIGEST,
            valid_until_us=now_us + 20_000_000,
            request_id=secrets.token_bytes(16),
            body=RefusalsCounted(
                now_us, now_us, (RefusalCount("role", PeerClass.UNKNOWN, number + 1),), sha256(b"requests")
            ),
        )
        return sign_envelope(STATEMENT_TYPE, encode_statement(replace(statement, **changes)), [key])

    def append_rules(self, who: str = "operators/alice") -> tuple[Envelope, AppendedEntry]:
        envelope = self.rules_envelope("alice", "bob")
        appended = self.client(who).append(envelope)
        self.rules.append(sha256(envelope.statement))
        return envelope, appended


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Site]]:
    """Start a federation's verifier, then its log; again after `site.log.stop()`."""
    folder = tmp_path_factory.mktemp("federation") / "f"
    federation = create_federation(folder, default_plan(), SystemClock())
    uncertain: list[UncertainStateError] = []
    stopping = threading.Event()
    verifier_config = read_config(federation.folder.service("verifier", "verifier-1") / "config.toml", VerifierConfig)
    verifier = open_verifier(verifier_config, SystemClock(), stopping, on_uncertain=uncertain.append)
    verifier.start()
    sites: list[Site] = []
    running: list[AuditLog] = []

    def start() -> Site:
        log = open_audit_log(log_config(federation), SystemClock(), stopping, on_uncertain=uncertain.append)
        witnessed_at_open = log.sequencer.head.witnessed_size
        port = log.start()
        running.append(log)
        policy = parse_trust_policy(read_bounded(federation.folder.trust_policy, 10**6))
        rules = sites[-1].rules if sites else []
        sites.append(
            Site(federation, log, f"127.0.0.1:{port}", policy, rules=rules, witnessed_at_open=witnessed_at_open)
        )
        return sites[-1]

    yield start
    for site in sites:
        for channel in site.channels:
            channel.close()
    running[-1].stop()
    verifier.stop()
    assert uncertain == []


def log_config(federation: Federation) -> AuditLogConfig:
    return read_config(federation.folder.service("audit_log", "audit-log-1") / "config.toml", AuditLogConfig)


@pytest.fixture(scope="module")
def running(started: Callable[[], Site]) -> list[Site]:
    return [started()]


@pytest.fixture
def site(running: list[Site]) -> Site:
    return running[-1]


def test_a_document_is_appended_under_receipt_a(site: Site) -> None:
    envelope, appended = site.append_rules()
    opened = open_checkpoint(appended.checkpoint, site.policy, quorum=False)
    proof = InclusionProof(appended.logged.index, opened.checkpoint.size, appended.logged.path)
    verify_inclusion(appended.logged.raw, proof, opened.checkpoint.root)
    assert parse_entry(appended.logged.raw).envelope == envelope
    # Brought again, by somebody else, it is the same entry.
    again = site.client("services/gatekeeper-gatekeeper-1").append(envelope)
    assert (again.logged.index, again.logged.raw) == (appended.logged.index, appended.logged.raw)


def test_a_follower_gets_all_entries_signed_and_then_witnessed(site: Site) -> None:
    seen: list[int] = []
    follower = LogFollower(
        site.client("services/aggregator-aggregator-1"),
        origin=site.federation.origin,
        policy=site.policy,
        on_entry=lambda index, leaf, raw, entry: seen.append(index),
    )
    follower.start()
    size = site.federation.log_size
    follower.wait_for(size, 10)
    _, appended = site.append_rules()
    follower.wait_witnessed(appended.logged.index + 1, 10)
    assert seen[: appended.logged.index + 1] == list(range(appended.logged.index + 1))
    assert open_checkpoint(follower.witnessed.note, site.policy, quorum=True).quorum_met
    follower.stop()
    assert follower.failure is None


def test_following_begins_where_the_caller_is_and_its_order_is_entries_then_notes(site: Site) -> None:
    _, appended = site.append_rules()
    last = appended.logged.index
    stream = site.client("auditors/auditor-1").follow(last)
    batches = iter(stream)
    first = next(batches)
    assert (first.first_index, first.entries) == (last, (appended.logged.raw,))
    assert open_checkpoint(first.checkpoint, site.policy, quorum=False).checkpoint.size == last + 1
    while True:
        batch = next(batches)
        assert batch.entries == ()
        if batch.is_heartbeat:
            continue
        opened = open_checkpoint(batch.checkpoint, site.policy, quorum=True)
        if opened.checkpoint.size == last + 1:
            break
    stream.cancel()


def test_a_long_log_comes_in_messages_within_the_bound(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfrl_secure.services.audit_log.servicer.FOLLOW_BYTES_MAX", 4_000)
    stream = site.client("auditors/auditor-1").follow(0)
    index = 0
    for batch in stream:
        assert batch.first_index == index
        assert len(batch.entries) == 1 or sum(map(len, batch.entries)) <= 4_000
        index += len(batch.entries)
        if batch.checkpoint:
            break
    stream.cancel()
    # The note comes with the last of them only: what it signs for is there.
    assert open_checkpoint(batch.checkpoint, site.policy, quorum=False).checkpoint.size == index


def test_who_knows_more_than_the_log_is_told_so(site: Site) -> None:
    stream = site.client("auditors/auditor-1").follow(10**6)
    with pytest.raises(NotFoundError):
        next(iter(stream))


@pytest.mark.parametrize(
    ("who", "may_append", "may_follow"),
    [
        # Documents authenticate themselves: nobody who is recorded is kept from bringing one.
        ("participants/rover-1", True, False),
        ("operators/alice", True, True),
        ("auditors/auditor-1", True, True),
        ("services/gatekeeper-gatekeeper-1", True, True),
        ("services/aggregator-aggregator-1", True, True),
        ("services/verifier-verifier-1", True, True),
    ],
)
def test_who_may_append_and_follow(site: Site, who: str, may_append: bool, may_follow: bool) -> None:
    client = site.client(who)
    genesis = parse_entry(site.log.sequencer.history.entry(0)).envelope
    for allowed, call in (
        (may_append, lambda: client.append(genesis)),
        (may_append, lambda: client.append_all([genesis])),
        (may_follow, lambda: next(iter(client.follow(0)))),
        (may_follow, lambda: client.prove([0], 1)),
    ):
        if allowed:
            assert call()
        else:
            with pytest.raises(DeniedError) as refused:
                call()
            assert refused.value.reason == "role"


@pytest.mark.parametrize("request_bytes", [b"", b"\xff" * 40, bytes(70_000)])
def test_a_request_that_is_none_is_refused(site: Site, request_bytes: bytes) -> None:
    with pytest.raises(MalformedError):
        site.channel("operators/alice").call(audit_service.APPEND_ENTRY, request_bytes, deadline_seconds=5)


def test_documents_that_lack_signatures_and_callers_at_the_door_are_counted_in_the_log(site: Site) -> None:
    site.log.refusals.flush()
    before = site.log.sequencer.history.size
    short = site.rules_envelope("alice")
    with pytest.raises(DeniedError) as refused:
        site.client("operators/bob").append(short)
    assert refused.value.reason == "threshold"
    for call in (
        lambda client: client.append(site.statement(0)),
        lambda client: next(iter(client.follow(0))),
    ):
        with pytest.raises(DeniedError) as refused:
            call(site.client("participants/rover-1"))
        assert refused.value.reason == "role"
    short_again, foreign = site.client("participants/rover-1").append_all([short, site.statement(1)])
    assert isinstance(short_again, DeniedError)
    assert isinstance(foreign, DeniedError)
    assert (short_again.reason, foreign.reason) == ("threshold", "role")
    assert site.log.refusals.flush()
    entry = parse_entry(site.log.sequencer.history.entry(before))
    content = parse_content(entry.envelope)
    assert isinstance(content, Statement)
    assert isinstance(content.body, RefusalsCounted)
    assert (content.stream, content.writer.role) == ("log", "audit_log")
    assert content.body.counts == (
        RefusalCount("role", PeerClass.PARTICIPANT, 3),
        RefusalCount("threshold", PeerClass.PARTICIPANT, 1),
        RefusalCount("threshold", PeerClass.OPERATOR, 1),
    )
    assert site.log.sequencer.history.size == before + 1


def test_the_streams_of_one_caller_are_bounded_and_come_free_again(site: Site) -> None:
    client = site.client("services/verifier-verifier-1")
    wait_until(lambda: site.log.servicer._follows.total() == 0)
    streams = [client.follow(0) for _ in range(FOLLOWS_OF_ONE_MAX)]
    for stream in streams:
        next(iter(stream))
    with pytest.raises(ExhaustedError, match="one caller"):
        next(iter(client.follow(0)))
    # Another caller is not kept out by it.
    assert next(iter(site.client("auditors/auditor-1").follow(0)))
    streams[0].cancel()
    wait_until(lambda: follows(client))
    for stream in streams:
        stream.cancel()


def follows(client: AuditLogClient) -> bool:
    try:
        return bool(next(iter(client.follow(0))))
    except ExhaustedError:
        return False


def wait_until(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_all_streams_together_are_bounded(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site.log.servicer._follows, "_all_max", 1)
    wait_until(lambda: site.log.servicer._follows.total() == 0)
    stream = site.client("auditors/auditor-1").follow(0)
    next(iter(stream))
    with pytest.raises(ExhaustedError, match="at most 1 such"):
        next(iter(site.client("services/verifier-verifier-1").follow(0)))
    stream.cancel()


def test_auditors_and_operators_take_no_services_place(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site.log.servicer._guests, "_all_max", 1)
    wait_until(lambda: site.log.servicer._follows.total() == 0)
    watching = site.client("auditors/auditor-1").follow(0)
    next(iter(watching))
    with pytest.raises(ExhaustedError, match="at most 1 such"):
        next(iter(site.client("operators/alice").follow(0)))
    service = site.client(GATEKEEPER).follow(0)
    assert next(iter(service)).entries
    service.cancel()
    watching.cancel()
    wait_until(lambda: site.log.servicer._follows.total() == 0)
    assert site.log.servicer._guests.total() == 0


def test_a_follower_of_an_idle_log_is_told_so_each_second_and_first_when_it_has_all(site: Site) -> None:
    stream = site.client("auditors/auditor-1").follow(0)
    batches = iter(stream)
    beats: list[float] = []
    reached = -1
    until = time.monotonic() + 10
    while len(beats) < 4 and time.monotonic() < until:
        batch = next(batches)
        if batch.is_heartbeat:
            # Never before the note that covers what was sent.
            assert reached >= site.federation.log_size
            beats.append(time.monotonic())
        elif batch.entries:
            reached = batch.first_index + len(batch.entries) if batch.checkpoint else -1
    stream.cancel()
    assert len(beats) == 4
    assert max(later - earlier for earlier, later in pairwise(beats)) < 1.5


def test_a_revoked_callers_idle_stream_ends_with_the_next_heartbeat(site: Site) -> None:
    state = site.log.sequencer.history.fold.state
    stream = site.client("auditors/auditor-1").follow(0)
    batches = iter(stream)
    next(batches)
    (spki,) = (key for key, each in state.identities.items() if each.spiffe_id.role == "auditor")
    recorded = state.identities.pop(spki)
    begun = time.monotonic()
    try:
        with pytest.raises(DeniedError) as refused:
            for _ in batches:
                pass
    finally:
        state.identities[spki] = recorded
    assert refused.value.reason == "unknown_identity"
    assert time.monotonic() - begun < 2


GATEKEEPER = "services/gatekeeper-gatekeeper-1"


def verify_receipt(site: Site, appended: AppendedEntry | SfrlError, envelope: Envelope) -> AppendedEntry:
    assert isinstance(appended, AppendedEntry)
    opened = open_checkpoint(appended.checkpoint, site.policy, quorum=False)
    proof = InclusionProof(appended.logged.index, opened.checkpoint.size, appended.logged.path)
    verify_inclusion(appended.logged.raw, proof, opened.checkpoint.root)
    assert parse_entry(appended.logged.raw).envelope == envelope
    return appended


def test_a_batch_is_appended_in_its_order_and_each_refusal_is_that_of_one(site: Site) -> None:
    good = [site.statement(number) for number in range(40)]
    (signature,) = good[0].signatures
    forged = replace(good[0], signatures=(replace(signature, value=bytes(64)),))
    stale = site.statement(50, reads_governance=ZERO_DIGEST)
    size = site.log.sequencer.history.size
    first, bad, old, *others = site.client(GATEKEEPER).append_all([good[0], forged, stale, *good[1:]])
    assert isinstance(bad, DeniedError)
    assert bad.reason == "bad_signature"
    assert isinstance(old, ConflictError)
    assert old.log_size == size + 1
    receipts = [verify_receipt(site, each, envelope) for each, envelope in zip([first, *others], good, strict=True)]
    assert [each.logged.index for each in receipts] == list(range(size, size + 40))
    assert len({each.checkpoint for each in receipts}) == 1
    # Brought again, each is the same entry.
    again = site.client(GATEKEEPER).append_all(good)
    assert [each.logged.raw for each in again if isinstance(each, AppendedEntry)] == [e.logged.raw for e in receipts]


def test_a_stream_appends_many_messages_and_ends_when_it_is_closed(site: Site) -> None:
    messages = [[site.statement(10 * at + number) for number in range(10)] for at in range(8)]
    with site.client(GATEKEEPER).open_stream() as stream:
        futures = [stream.submit(message) for message in messages]
        for message, future in zip(messages, futures, strict=True):
            for envelope, appended in zip(message, future.result(10), strict=True):
                verify_receipt(site, appended, envelope)
    wait_until(lambda: site.log.servicer._streams.total() == 0)


def test_only_services_open_streams_and_each_a_few(site: Site) -> None:
    with site.client("operators/alice").open_stream() as stream, pytest.raises(DeniedError) as refused:
        stream.submit([site.rules_envelope("alice")]).result(10)
    assert refused.value.reason == "role"
    client = site.client(GATEKEEPER)
    streams = [client.open_stream() for _ in range(STREAMS_OF_ONE_MAX)]
    wait_until(lambda: site.log.servicer._streams.total() == STREAMS_OF_ONE_MAX)
    with client.open_stream() as one_more, pytest.raises(ExhaustedError, match="one caller"):
        one_more.submit([site.statement(0)]).result(10)
    for stream in streams:
        stream.close()
    wait_until(lambda: site.log.servicer._streams.total() == 0)


def test_entries_are_proven_against_any_tree_that_was_signed_for(site: Site) -> None:
    _, appended = site.append_rules()
    opened = open_checkpoint(appended.checkpoint, site.policy, quorum=False).checkpoint
    client = site.client("auditors/auditor-1")
    indices = (0, 2, appended.logged.index)
    proven = client.prove(indices, opened.size)
    for index, logged in zip(indices, proven, strict=True):
        assert logged.index == index
        verify_inclusion(logged.raw, InclusionProof(index, opened.size, logged.path), opened.root)
    with pytest.raises(NotFoundError):
        client.prove([0], site.log.sequencer.head.size + 1)


def test_a_published_bundle_is_read_and_holds_the_entries(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    _, appended = site.append_rules()
    size = appended.logged.index + 1
    wait_until(lambda: site.log.sequencer.head.witnessed_size >= size)
    index, width = divmod(size, 256)
    # Smaller chunks than a mebibyte: a bundle of this log is a small one.
    monkeypatch.setattr("sfrl_secure.services.audit_log.servicer.CHUNK_BYTES_MAX", 1_000)
    for who in ("auditors/auditor-1", "services/verifier-verifier-1", "operators/alice"):
        entries = parse_bundle(site.client(who).read_bundle(index, width), width)
        assert entries[-1] == appended.logged.raw
    with pytest.raises(NotFoundError):
        site.client("auditors/auditor-1").read_bundle(10**6, 256)
    with pytest.raises(DeniedError) as refused:
        site.client("participants/rover-1").read_bundle(index, width)
    assert refused.value.reason == "role"


def test_a_second_log_on_the_same_folder_does_not_start(site: Site) -> None:
    with pytest.raises(MalformedError, match="another process"):
        open_audit_log(log_config(site.federation), SystemClock(), threading.Event(), on_uncertain=lambda _: None)


def test_a_stop_ends_the_streams_well_and_a_start_goes_on(running: list[Site], started: Callable[[], Site]) -> None:
    site = running[-1]
    assert site.log.refusals.flush()  # none is left to be written at the stop
    _, appended = site.append_rules()
    wait_until(lambda: site.log.sequencer.head.witnessed_size == appended.logged.index + 1)
    ended: list[object] = []

    def follow() -> None:
        try:
            ended.append(sum(len(batch.entries) for batch in site.client("auditors/auditor-1").follow(0)))
        except SfrlError as error:
            ended.append(error)

    following = threading.Thread(target=follow)
    following.start()
    wait_until(lambda: site.log.servicer._follows.total() > 0)
    begun = time.monotonic()
    site.log.stop()
    following.join(10)
    assert time.monotonic() - begun < 4
    assert ended == [appended.logged.index + 1]
    with pytest.raises(UnavailableError):
        site.client("operators/alice").append(site.rules_envelope("alice", "bob"), deadline_seconds=1)

    running.append(started())
    again = running[-1]
    # What was witnessed is known at once, before any witness is asked for a cosignature.
    assert again.witnessed_at_open == appended.logged.index + 1
    # The log's own anchor of what was published may come before or behind.
    assert again.log.sequencer.history.size in (appended.logged.index + 1, appended.logged.index + 2)
    _, more = again.append_rules()
    assert more.logged.index in (appended.logged.index + 1, appended.logged.index + 2)
    history = again.log.sequencer.history
    wait_until(lambda: any(map(is_anchor, history.entries(appended.logged.index + 1, history.size, 10**6))))
    wait_until(lambda: again.log.sequencer.head.witnessed_size > more.logged.index)
    published = (again.federation.folder.log_dir / "checkpoint").read_bytes()
    assert open_checkpoint(published, again.policy, quorum=True).checkpoint.size > more.logged.index


@pytest.mark.parametrize("remembered_by", ["the last signed note", "the published checkpoint", "the witness"])
def test_a_log_put_back_to_an_older_state_does_not_start(site: Site, tmp_path: Path, remembered_by: str) -> None:
    older = tmp_path / "older"
    shutil.copytree(site.federation.folder.journal_dir / "segments", older)
    _, appended = site.append_rules()
    wait_until(lambda: site.log.sequencer.head.witnessed_size == appended.logged.index + 1)
    config = log_config(site.federation)
    unwitnessed = tmp_path / "trust-policy.txt"
    unwitnessed.write_bytes(format_trust_policy(TrustPolicy(site.policy.logs, (), (), "none")))
    (tmp_path / "journal").mkdir()
    shutil.move(older, tmp_path / "journal" / "segments")
    (tmp_path / "journal" / "signed").write_bytes(NOTHING_SIGNED)
    changes: dict[str, object] = {"journal_dir": tmp_path / "journal", "log_dir": tmp_path / "log"}
    if remembered_by != "the witness":
        changes |= {"trust_policy": unwitnessed, "witnesses": ()}
    if remembered_by == "the last signed note":
        shutil.copy(config.journal_dir / "signed", tmp_path / "journal" / "signed")
    if remembered_by == "the published checkpoint":
        shutil.copytree(config.log_dir, tmp_path / "log")
    with pytest.raises(UncertainStateError, match="signed for more entries"):
        open_audit_log(
            config.model_copy(update=changes), SystemClock(), threading.Event(), on_uncertain=lambda _: None
        )


# Configurations that do not fit together


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda config: {"witnesses": ()}, "quorum"),
        (lambda config: {"witnesses": config.witnesses * 2}, "once"),
        (
            lambda config: {"witnesses": (config.witnesses[0].model_copy(update={"names": ("unknown",)}),)},
            "trust policy",
        ),
        (lambda config: {"origin": "another.example/log"}, "origin"),
    ],
)
def test_a_configuration_that_does_not_fit_its_trust_policy_is_refused(
    tmp_path: Path, site: Site, change, sentence: str
) -> None:
    config = log_config(site.federation)
    with pytest.raises(MalformedError, match=sentence):
        open_audit_log(
            config.model_copy(update={**change(config), "journal_dir": tmp_path}),
            SystemClock(), threading.Event(), on_uncertain=lambda _: None,
        )


def test_keys_that_the_trust_policy_does_not_name_are_refused(tmp_path: Path, site: Site) -> None:
    write_secret(tmp_path / "log.key", LogKeys.generate().to_pem())
    config = log_config(site.federation).model_copy(update={"log_keys": (tmp_path / "log.key",)})
    with pytest.raises(MalformedError, match="newest generations"):
        open_audit_log(config, SystemClock(), threading.Event(), on_uncertain=lambda _: None)


def test_a_key_file_that_others_may_read_is_refused(tmp_path: Path, site: Site) -> None:
    config = log_config(site.federation)
    copy = tmp_path / "log.key"
    copy.write_bytes(config.log_keys[0].read_bytes())
    copy.chmod(0o644)
    with pytest.raises(DeniedError, match="chmod 600"):
        open_audit_log(
            config.model_copy(update={"log_keys": (copy,)}), SystemClock(), threading.Event(),
            on_uncertain=lambda _: None,
        )


def test_identities_are_those_of_the_log(site: Site) -> None:
    state = site.log.sequencer.history.fold.state
    registry = LogIdentities(state)
    (spki, recorded), *_ = state.identities.items()
    found = registry.lookup(spki)
    assert found is not None
    assert (found.spiffe_id, found.not_after_us) == (recorded.spiffe_id, recorded.not_after_us)
    assert registry.lookup(parse_hex_digest("00" * 32)) is None
