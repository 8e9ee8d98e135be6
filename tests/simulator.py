"""A federation in memory: real documents, keys, fold, proofs and services; a log and a network of our own.

`Simulator` makes a federation with one segment and its log. The log orders by the real `FederationFold`, signs real
checkpoints and has three witnesses, of whom two are the quorum. Services that are given a view read what it orders, at
once, or when a test lets them (`LaggingView`). Nothing here is a mock: a statement that would be void is refused, a
proof that is wrong does not verify.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sfrl_secure.aggregation.models import ModelSnapshot
from sfrl_secure.clock import FixedClock
from sfrl_secure.crypto.envelope import Envelope, sign_envelope
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.crypto.possession import prove_possession
from sfrl_secure.errors import ConflictError, MalformedError, SfrlError
from sfrl_secure.governance.build import (
    build_genesis,
    build_participant,
    build_root,
    build_rules,
    build_services,
    build_terms,
)
from sfrl_secure.governance.documents import Document, Signatory, Thresholds, parse_document
from sfrl_secure.governance.manifest import ModelManifest, TensorSpec
from sfrl_secure.governance.origin import origin_of
from sfrl_secure.governance.root import GenesisDocument, RootDocument, parse_root
from sfrl_secure.governance.rules import RulesDocument
from sfrl_secure.governance.services import ServicesDocument
from sfrl_secure.governance.statements import (
    STATEMENT_TYPE,
    UPDATE_TYPE,
    Body,
    IdentityIssued,
    PayloadFormat,
    RoundOpened,
    Statement,
    UpdateAdmitted,
    UpdateStatement,
)
from sfrl_secure.governance.terms import ModelTerms, RoundTerms, SegmentTerms, UpdateLimits
from sfrl_secure.ids import ZERO_DIGEST, Digest, SpiffeId, parse_spiffe_id, sha256
from sfrl_secure.participant.sdk import Participant
from sfrl_secure.rounds.closing import close_round
from sfrl_secure.rounds.fold import FederationFold
from sfrl_secure.rounds.payloads import check_payload
from sfrl_secure.rounds.refusals import RefusalCounter
from sfrl_secure.rounds.state import FederationState, RoundState, SegmentState
from sfrl_secure.rpc.channel import RpcChannel, RpcStream
from sfrl_secure.rpc.identity import Peer, record_peer
from sfrl_secure.sequencer.log_keys import LogKeys
from sfrl_secure.services.aggregator.work import Aggregator
from sfrl_secure.services.gatekeeper.admit import Admitter, ByteBudget, Submission
from sfrl_secure.services.gatekeeper.fetches import FetchLog
from sfrl_secure.services.gatekeeper.proofs import ProofBuilder
from sfrl_secure.services.gatekeeper.refuse import Refuser
from sfrl_secure.services.gatekeeper.servicer import GatekeeperServicer
from sfrl_secure.services.view import FederationView
from sfrl_secure.services.writer import StatementWriter
from sfrl_secure.sparse.encode import pack_update
from sfrl_secure.sparse.update import SparseUpdate
from sfrl_secure.storage.objects import ObjectStore
from sfrl_secure.translog.checkpoint import Checkpoint, format_checkpoint
from sfrl_secure.translog.cosignature import Cosigner, sign_checkpoint
from sfrl_secure.translog.entries import LogEntry, LoggedEntry
from sfrl_secure.translog.merkle import EMPTY_ROOT, leaf_hash
from sfrl_secure.translog.note import ED25519_COSIGNATURE, add_signatures, format_note, parse_note, verifier_key
from sfrl_secure.translog.policy import TrustedLog, TrustedWitness, TrustPolicy, WitnessGroup
from sfrl_secure.translog.tree import MerkleTree
from sfrl_secure.wire.audit_service import AppendedEntry
from sfrl_secure.wire.content import Content, parse_content
from sfrl_secure.wire.entries import encode_entry, encode_envelope
from sfrl_secure.wire.statements import encode_statement, encode_update

NOW_US = 1_780_000_000_000_000
DAY_US = 86_400_000_000
UNTIL_US = NOW_US + 400 * DAY_US
DOMAIN = "mars.example"
SEGMENT = "rocks"
GRID = 16
MANIFEST = ModelManifest(
    (
        TensorSpec("a.weight", (4, 4), "int32"),
        TensorSpec("a.bias", (4,), "int64"),
        TensorSpec("frozen", (4,), "int32"),
    )
)
WITNESSES = ("w1", "w2", "w3")
ROVERS = ("rover-1", "rover-2", "rover-3", "rover-4")


def service_id(role: str, name: str) -> SpiffeId:
    """SPIFFE ID of a service."""
    return parse_spiffe_id(f"spiffe://{DOMAIN}/service/{role}/{name}")


def participant_id(name: str) -> SpiffeId:
    """SPIFFE ID of a participant."""
    return parse_spiffe_id(f"spiffe://{DOMAIN}/participant/{name}")


@dataclass(frozen=True)
class Covered:
    """A checkpoint and the size of its tree."""

    tree_size: int
    root: Digest
    note: bytes


class LaggingView(FederationView):
    """A view that reads when a test says so: `let` takes in what has come meanwhile."""

    def __init__(self, fold: FederationFold) -> None:
        super().__init__(fold)
        self.is_held = False
        self._held: list[Callable[[], None]] = []

    def on_entry(self, index: int, leaf: Digest, entry: LogEntry, content: Content | None) -> None:
        if self.is_held:
            self._held.append(lambda: FederationView.on_entry(self, index, leaf, entry, content))
        else:
            super().on_entry(index, leaf, entry, content)

    def let(self) -> None:
        """Take in what was held, and hold nothing more."""
        held, self._held, self.is_held = self._held, [], False
        for take in held:
            take()

    def wait_size(self, size: int, timeout_seconds: float) -> None:
        # Whoever was told to read on does read on.
        self.let()
        super().wait_size(size, timeout_seconds)


class SimulatedLog:
    """A sequencer without a disk, and a follower of itself: what it orders is in every view before it answers."""

    def __init__(self, origin: str, keys: LogKeys, witnesses: Sequence[Cosigner], clock: FixedClock) -> None:
        self.origin = origin
        self.keys = keys
        self.fold = FederationFold(origin, keys.vkeys(origin))
        self.clock = clock
        self.witnesses = list(witnesses)
        self.witnessing = True
        self.raw: list[bytes] = []
        self.tree = MerkleTree()
        self.voids: dict[int, str] = {}
        self.before_append: Callable[[Envelope], None] = lambda envelope: None
        self._entries: list[tuple[Digest, LogEntry, Content | None]] = []
        self._views: list[FederationView] = []
        self._witnessed = Covered(0, EMPTY_ROOT, b"")
        self._lock = threading.RLock()

    def append(self, envelope: Envelope) -> AppendedEntry:
        """Order an envelope once, if it has effect; answer with receipt A."""
        self.before_append(envelope)
        with self._lock:
            index, signed = self.order(envelope), self.signed
            return AppendedEntry(self.logged_entry(index, signed.tree_size), signed.note)

    def order(self, envelope: Envelope) -> int:
        """Order an envelope once, if it has effect; give its index."""
        with self._lock:
            content = parse_content(envelope)
            known = self.fold.index_of(envelope.digest)
            if known is None:
                try:
                    self.fold.check(self._time_us(), envelope, content)
                except ConflictError as conflict:
                    raise ConflictError(str(conflict), reason=conflict.reason, log_size=len(self.raw)) from None
                known = self.force(envelope)
            return known

    def force(self, envelope: Envelope) -> int:
        """Order an envelope whatever it is, as a log that lies would; give its index. `voids` has what is void."""
        with self._lock:
            content = None
            with suppress(MalformedError):
                content = parse_content(envelope)
            seq, stream_prev = 0, ZERO_DIGEST
            if content is not None:
                place = self.fold.place(content)
                seq, stream_prev = place.stream_seq, place.stream_prev
            prev = self._entries[-1][0] if self._entries else ZERO_DIGEST
            entry = LogEntry(prev, self._time_us(), seq, stream_prev, envelope)
            raw, index = encode_entry(entry), len(self.raw)
            leaf = leaf_hash(raw)
            void = self.fold.apply(index, leaf, entry, content)
            if void is not None:
                self.voids[index] = void
            self.raw.append(raw)
            self._entries.append((leaf, entry, content))
            self.tree.append(leaf)
            for view in self._views:
                view.on_entry(index, leaf, entry, content)
            if self.witnessing:
                self.witness()
            return index

    def witness(self) -> None:
        """Let the quorum cosign what is signed."""
        size = len(self.raw)
        self._witnessed = Covered(size, self.tree.root(size), b"")
        for view in self._views:
            view.on_witnessed(size)

    def follow(self, view: FederationView) -> None:
        """Bring a view up to date and keep it so."""
        with self._lock:
            for index, taken in enumerate(self._entries):
                view.on_entry(index, *taken)
            view.on_witnessed(self._witnessed.tree_size)
            self._views.append(view)

    @property
    def signed(self) -> Covered:
        """Newest checkpoint under the log's keys."""
        with self._lock:
            size = len(self.raw)
            return Covered(size, self.tree.root(size), self.note(size))

    @property
    def witnessed(self) -> Covered:
        """Newest checkpoint under the quorum."""
        with self._lock:
            if self._witnessed.tree_size and not self._witnessed.note:
                size = self._witnessed.tree_size
                self._witnessed = replace(self._witnessed, note=self.note(size, self.witnesses[:2]))
            return self._witnessed

    def note(
        self, size: int, cosigners: Sequence[Cosigner] = (), *, age_seconds: int = 0, root: Digest | None = None
    ) -> bytes:
        """Sign a checkpoint of any size, with any cosigners, as old as asked, over any root."""
        seconds = self.clock.now_us() // 1_000_000 - age_seconds
        checkpoint = Checkpoint(self.origin, size, root or self.tree.root(size))
        keys = self.keys.note_signer(self.origin), self.keys.cosigner(self.origin)
        note = parse_note(sign_checkpoint(checkpoint, *keys, seconds))
        text = format_checkpoint(checkpoint)
        return format_note(add_signatures(note, [cosigner.cosign(text, seconds) for cosigner in cosigners]))

    def logged_entry(self, index: int, tree_size: int) -> LoggedEntry:
        """An entry with its path to the root at `tree_size`."""
        with self._lock:
            return LoggedEntry(index, self.raw[index], self.tree.inclusion_proof(index, tree_size).path)

    def prove(self, indices: Sequence[int], tree_size: int) -> tuple[LoggedEntry, ...]:
        """The same of several."""
        return tuple(self.logged_entry(index, tree_size) for index in indices)

    def leaf(self, index: int) -> Digest:
        """Entry hash at an index."""
        return self._entries[index][0]

    def envelope_at(self, index: int) -> Envelope:
        """The envelope of an entry."""
        return self._entries[index][1].envelope

    def statement_at(self, index: int) -> Statement:
        """The statement of an entry."""
        content = parse_content(self.envelope_at(index))
        assert isinstance(content, Statement)
        return content

    def _time_us(self) -> int:
        return max(self.clock.now_us(), self._entries[-1][1].log_time_us if self._entries else 0)


class Simulator:
    """A federation with its log; the segment's first terms, rules, services and participants are in force.

    `terms` and `rules` change what is built: see `build_terms` and Cedar. Documents come in the order genesis,
    services, rules, terms; then each participant's record and identity.
    """

    def __init__(
        self,
        folder: Path,
        *,
        rovers: Sequence[str] = ROVERS,
        suites: dict[str, str] | None = None,
        terms: dict[str, Any] | None = None,
        rules: str | None = None,
    ) -> None:
        self.folder = folder
        self.clock = FixedClock(NOW_US)
        self.operators = {name: SigningKey.generate("ed25519") for name in ("ann", "bob", "eve")}
        self.keys = {
            service_id(role, name): SigningKey.generate("ed25519")
            for role, name in (("gatekeeper", "g1"), ("gatekeeper", "g2"), ("aggregator", "a1"), ("audit_log", "l1"))
        }
        self.rovers = {name: SigningKey.generate((suites or {}).get(name, "ed25519")) for name in rovers}
        root_raw = build_root(
            expires_us=UNTIL_US,
            trust_domain=DOMAIN,
            log_host="log.mars.example",
            operators={name: key.public_key for name, key in self.operators.items()},
            thresholds=Thresholds(root=2, governance=2, enrolment=2, revocation=1),
        )
        self.root = parse_root(root_raw)
        self.federation_id = self.root.digest
        self.origin = origin_of(self.root.log_host, self.federation_id)
        log_keys = LogKeys.generate()
        self.objects = ObjectStore(folder / "objects")
        self.initial = ModelSnapshot(MANIFEST, GRID, np.arange(MANIFEST.coordinates, dtype=np.int64))
        cosigners = [make_witness(name) for name in WITNESSES]
        self.initial_digest = sha256(self.initial.to_bytes())
        self.policy = TrustPolicy(
            logs=(
                TrustedLog(self.origin, (log_keys.note_signer(self.origin).key, log_keys.cosigner(self.origin).key)),
            ),
            witnesses=tuple(TrustedWitness(name, w.key) for name, w in zip(WITNESSES, cosigners, strict=True)),
            groups=(WitnessGroup("quorum", 2, WITNESSES),),
            quorum="quorum",
        )
        self.log = SimulatedLog(self.origin, log_keys, cosigners, self.clock)
        self._closing: list[Callable[[], None]] = []
        genesis = build_genesis(
            root_envelope=self.sign_document(RootDocument.payload_type, root_raw), log_keys=log_keys.vkeys(self.origin)
        )
        self.publish(GenesisDocument.payload_type, genesis)
        self.publish_services()
        self.publish_rules(**({} if rules is None else {"cedar": rules}))
        self.publish_terms(**(terms or {}))
        for name in rovers:
            self.record(name)
            self.issue(name)

    # Documents

    @property
    def state(self) -> FederationState:
        """State of the whole log."""
        return self.log.fold.state

    @property
    def segment(self) -> SegmentState:
        """The one segment."""
        return self.state.segments[SEGMENT]

    def sign_document(self, payload_type: str, raw: bytes, signers: Sequence[str] = ("ann", "bob")) -> Envelope:
        """Sign as operators."""
        return sign_envelope(payload_type, raw, [self.operators[name] for name in signers])

    def publish(self, payload_type: str, raw: bytes, signers: Sequence[str] = ("ann", "bob")) -> int:
        """Sign and append a document; give its index."""
        return self.log.order(self.sign_document(payload_type, raw, signers))

    def succession(self, series: tuple[str, str]) -> dict[str, Any]:
        """Version, previous digest and expiry of the next document of a series."""
        placed = self.state.placed.get(series)
        before: Document | None = None if placed is None else placed.document
        return {
            "federation_id": self.federation_id,
            "expires_us": UNTIL_US,
            "version": 1 if before is None else before.version + 1,
            "previous": ZERO_DIGEST if before is None else before.digest,
        }

    def publish_services(self, **changes: Any) -> int:
        """Publish the services document, or its next version; `services` maps SPIFFE IDs to keys."""
        keys = changes.pop("services", self.keys)
        services = [Signatory(spiffe_id, key.public_key) for spiffe_id, key in keys.items()]
        given = {**self.succession(("services", "")), "services": services, **changes}
        return self.publish(ServicesDocument.payload_type, build_services(**given))

    def publish_rules(self, **changes: Any) -> int:
        """Publish the rules, or their next version."""
        return self.publish(RulesDocument.payload_type, build_rules(**{**self.succession(("rules", "")), **changes}))

    def terms_raw(self, **changes: Any) -> bytes:
        """Build the segment's next terms."""
        segment = changes.get("segment", SEGMENT)
        given = {
            **self.succession(("segment-terms", segment)),
            "segment": segment,
            "sensitivity": 3,
            "groups": ["rovers"],
            "model": ModelTerms(MANIFEST, GRID, self.objects.put(self.initial.to_bytes())),
            "tensors": ["a.weight", "a.bias"],
            "value_types": ["int8"],
            "suites": ["ed25519"],
            "limits": UpdateLimits(
                payload_bytes_max=4_096, nonzeros_max=8, norm_max=2**21, magnitude_max=2**20, weight_max=100
            ),
            "round_terms": RoundTerms(duration_us=60_000_000, cohort_min=2, cohort_max=3, rounds_max=3),
            "evidence_days": 30,
            "retention_days": 90,
        }
        return build_terms(**{**given, **changes})

    def publish_terms(self, **changes: Any) -> int:
        """Publish the segment's terms, or their next version."""
        return self.publish(SegmentTerms.payload_type, self.terms_raw(**changes))

    def record_raw(self, name: str, **changes: Any) -> bytes:
        """Build a participant's next record."""
        key = changes.pop("signing_key", None) or self.rovers[name]
        given = {
            **self.succession(("participant", name)),
            "name": name,
            "key": key.public_key,
            "possession": prove_possession(key, self.federation_id, name),
            "clearance": 5,
            "groups": ["rovers"],
        }
        return build_participant(**{**given, **changes})

    def record(self, name: str, **changes: Any) -> int:
        """Record a participant, or the next version of its record."""
        document = parse_document("application/vnd.sfrl.participant.v1+json", self.record_raw(name, **changes))
        return self.publish(document.payload_type, document.raw)

    # Statements

    def statement(self, writer: SpiffeId, stream: str, body: Body, **changes: Any) -> Statement:
        """State something on the newest heads."""
        segment = self.state.segments.get(stream.removeprefix("segment/"))
        given = Statement(
            federation_id=self.federation_id,
            stream=stream,
            writer=writer,
            key_id=self.keys[writer].public_key.key_id,
            reads_governance=self.state.governance_head,
            reads_segment=ZERO_DIGEST if segment is None else segment.control_head,
            valid_until_us=self.clock.now_us() + 30_000_000,
            request_id=sha256(b"%d %d" % (len(self.log.raw), self.clock.now_us()))[:16],
            body=body,
        )
        return replace(given, **changes)

    def sign(self, statement: Statement, key: SigningKey | None = None) -> Envelope:
        """Sign a statement as its writer, or with another key."""
        return sign_envelope(STATEMENT_TYPE, encode_statement(statement), [key or self.keys[statement.writer]])

    def write(self, writer: SpiffeId, stream: str, body: Body, **changes: Any) -> int:
        """State, sign and append; give the index."""
        return self.log.order(self.sign(self.statement(writer, stream, body, **changes)))

    def issue(self, name: str, *, spki: Digest | None = None) -> int:
        """Record a participant's TLS key."""
        body = IdentityIssued(participant_id(name), spki or sha256(name.encode()), 7, UNTIL_US)
        return self.write(service_id("gatekeeper", "g1"), "identity", body)

    def open_round(self) -> RoundState:
        """Open the segment's next round."""
        segment = self.segment
        body = RoundOpened(segment.last_round + 1, segment.model, segment.terms.digest)
        self.write(service_id("aggregator", "a1"), f"segment/{SEGMENT}", body)
        assert segment.open_round is not None
        return segment.open_round

    def close_round(self, *, defective: Sequence[str] = ()) -> RoundState:
        """Close the open round; it must be full or over."""
        current = self.segment.open_round
        assert current is not None
        now_us = self.clock.now_us()
        body = close_round(
            current, defective=defective, is_active=lambda name: self.state.is_active(name, now_us), now_us=now_us
        )
        self.write(service_id("aggregator", "a1"), f"segment/{SEGMENT}", body)
        return current

    def update(
        self,
        name: str,
        values: dict[int, int] | None = None,
        *,
        key: SigningKey | None = None,
        payload: bytes | None = None,
        **changes: Any,
    ) -> tuple[Envelope, UpdateStatement, bytes]:
        """An update for the open round, signed: envelope, statement and payload. `values`: coordinate to grid units."""
        values = {0: 5, 3: -7, 17: 100} if values is None else values
        if payload is None:
            payload = payload_of(values)
        key = key or self.rovers[name]
        current = self.segment.current
        given = UpdateStatement(
            federation_id=self.federation_id,
            segment=SEGMENT,
            participant=name,
            key_id=key.public_key.key_id,
            round=current.number if current is not None else 1,
            round_opened=current.opened if current is not None else ZERO_DIGEST,
            base_model=current.base_model if current is not None else ZERO_DIGEST,
            payload_sha256=sha256(payload),
            payload_bytes=len(payload),
            nonzeros=len(values),
            format=PayloadFormat(1, "free", "int8"),
            weight=10,
            created_us=self.clock.now_us(),
        )
        update = replace(given, **changes)
        return sign_envelope(UPDATE_TYPE, encode_update(update), [key]), update, payload

    def admission(self, name: str, values: dict[int, int] | None = None, **changes: Any) -> UpdateAdmitted:
        """What an honest gatekeeper would write about an update; its payload is stored."""
        envelope, update, payload = self.update(name, values, **changes)
        self.objects.put(payload)
        current, record = self.segment.current, self.state.participant(name)
        assert current is not None
        assert record is not None
        measured = check_payload(current.terms, self.state.rules(self.clock.now_us()), record, update, payload)
        return UpdateAdmitted(
            envelope_raw=encode_envelope(envelope),
            envelope=envelope,
            update=update,
            facts=measured.facts,
            rule_ids=measured.rule_ids,
            retain_until_us=self.clock.now_us() + 91 * DAY_US,
        )

    def admit(self, name: str, values: dict[int, int] | None = None, **changes: Any) -> int:
        """Admit an update; give the index."""
        body = self.admission(name, values, **changes)
        return self.write(service_id("gatekeeper", "g1"), f"segment/{SEGMENT}", body)

    # Services

    def view(self) -> LaggingView:
        """A service's view, up to date."""
        view = LaggingView(FederationFold(self.origin, self.log.keys.vkeys(self.origin)))
        self.log.follow(view)
        return view

    def writer(self, spiffe_id: SpiffeId, view: FederationView) -> StatementWriter:
        """A service's writer."""
        return StatementWriter(self.log, view, self.keys[spiffe_id], spiffe_id, self.clock)

    def aggregator(self) -> SteppedAggregator:
        """The real aggregator, one step at a time."""
        view = self.view()
        writer = self.writer(service_id("aggregator", "a1"), view)
        return SteppedAggregator(view, writer, self.objects, self.clock)

    def gatekeeper(self, name: str = "g1", **budgets: int) -> SimulatedGatekeeper:
        """The real gatekeeper, without a server."""
        made = SimulatedGatekeeper(self, name, **budgets)
        self._closing.append(made.fetches.stop)
        return made

    def participant(self, name: str, channel: RpcChannel | None = None) -> Participant:
        """The real SDK, over a channel or straight to a new gatekeeper."""
        return Participant(
            name=name,
            key=self.rovers[name],
            policy=self.policy,
            channel=channel or DirectChannel(self.gatekeeper(), name),
            receipts=self.folder / "receipts" / name,
            clock=self.clock,
            sleep=lambda seconds: None,
        )

    def close(self) -> None:
        """End the threads of all gatekeepers."""
        for close in self._closing:
            close()


class SteppedAggregator(Aggregator):
    """The aggregator, without its loop."""

    def step(self) -> list[str]:
        """Do what the segments need now; name what was done."""
        with self._view.reading() as state:
            actions = self._actions(state)
        return [type(action).__name__ for action in actions if self._try(action)]


class SimulatedGatekeeper:
    """A gatekeeper's parts, put together as its wiring does."""

    def __init__(
        self, simulator: Simulator, name: str, *, budget: int = 2**24, evidence_budget: int = 2**24
    ) -> None:
        self.view = simulator.view()
        writer = simulator.writer(service_id("gatekeeper", name), self.view)
        self.counter = RefusalCounter(simulator.clock)
        self.refuser = Refuser(writer, self.counter)
        self.admitter = Admitter(
            self.view, writer, self.refuser, simulator.objects, simulator.clock,
            ByteBudget(budget), ByteBudget(evidence_budget),
        )  # fmt: skip
        self.proofs = ProofBuilder(self.view, simulator.log, simulator.log)
        self.fetches = FetchLog(writer, simulator.clock, interval_seconds=0.001)
        self.fetches.start()
        self.servicer = GatekeeperServicer(
            self.view, self.admitter, self.refuser, self.proofs, self.fetches, simulator.objects, simulator.clock
        )


class Context:
    """Stands where gRPC's context stands; `peer_of` knows who calls."""

    def __init__(self, name: str) -> None:
        record_peer(self, Peer(participant_id(name), 7, sha256(name.encode())))  # type: ignore[arg-type]


class DirectChannel(RpcChannel):
    """A channel that ends at a gatekeeper's methods: typed errors come as they are raised.

    Attributes:
        broken: raised instead of the next calls, one each.
        answers: changes an answer's bytes on the way, by method.
        calls: paths that were called.
    """

    def __init__(self, gatekeeper: SimulatedGatekeeper, name: str) -> None:
        self._methods = {method.path: method for method in gatekeeper.servicer.methods()}
        self._name = name
        self.broken: list[SfrlError] = []
        self.answers: dict[str, Callable[[bytes], bytes]] = {}
        self.calls: list[str] = []
        self.is_closed = False

    def call(self, path: str, request: bytes, *, deadline_seconds: float) -> bytes:
        assert deadline_seconds > 0
        self.calls.append(path)
        if self.broken:
            raise self.broken.pop(0)
        answer = self._methods[path].behaviour(request, Context(self._name))  # type: ignore[arg-type]
        assert isinstance(answer, bytes)
        return self.answers.get(path, lambda raw: raw)(answer)

    def stream(self, path: str, request: bytes, *, deadline_seconds: float) -> RpcStream:
        return RpcStream(_Stream(self._messages(path, request)))

    def _messages(self, path: str, request: bytes) -> Iterator[bytes]:
        self.calls.append(path)
        if self.broken:
            raise self.broken.pop(0)
        for raw in self._methods[path].behaviour(request, Context(self._name)):  # type: ignore[arg-type]
            assert isinstance(raw, bytes)
            yield self.answers.get(path, lambda each: each)(raw)

    def close(self) -> None:
        self.is_closed = True


class _Stream:
    def __init__(self, messages: Iterator[bytes]) -> None:
        self._messages = messages

    def __iter__(self) -> Iterator[bytes]:
        return self._messages

    def cancel(self) -> None:
        pass


def submission(
    peer: str, signed: tuple[Envelope, UpdateStatement, bytes], *, payload: bytes | None = None
) -> Submission:
    """What a gatekeeper is asked when `peer` sends a signed update, with its payload or another."""
    envelope, update, sent = signed
    sent = sent if payload is None else payload
    raw = encode_envelope(envelope)
    return Submission(participant_id(peer), raw, envelope, update, sent, sha256(raw + sent))


def make_witness(name: str) -> Cosigner:
    """A witness with a new key."""
    key = SigningKey.generate("ed25519")
    return Cosigner(verifier_key(f"{name}.example", ED25519_COSIGNATURE, key.public_key.parts[0]), key.sign)


def payload_of(values: dict[int, int], *, coordinates: int = MANIFEST.coordinates, grid_exponent: int = GRID) -> bytes:
    """The int8 payload of an update in grid units; each value must be one that int8 holds exactly in its block."""
    indices = np.array(sorted(values), dtype=np.int64)
    units = np.array([values[index] for index in sorted(values)], dtype=np.int64)
    update = SparseUpdate(coordinates, indices, units)
    return pack_update(update, value_type="int8", grid_exponent=grid_exponent)
