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
from simulated_documents import SimulatedDocuments
from simulated_federation import (
    AUDITORS,
    DAY_US,
    DOMAIN,
    GRID,
    HOUR_US,
    IDENTITY_UNTIL_US,
    LOG_HOST,
    MANIFEST,
    NOW_US,
    ROVERS,
    SEGMENT,
    SERVICES,
    UNTIL_US,
    WITNESSES,
    auditor_id,
    operator_id,
    participant_id,
    service_id,
)
from simulated_rounds import SimulatedRounds
from simulated_statements import SimulatedStatements, payload_of

from sfrl_secure.aggregation.models import ModelSnapshot
from sfrl_secure.clock import FixedClock
from sfrl_secure.crypto.envelope import Envelope
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.errors import ConflictError, MalformedError, SfrlError
from sfrl_secure.governance.build import build_genesis
from sfrl_secure.governance.origin import origin_of
from sfrl_secure.governance.root import GenesisDocument, RootDocument, parse_root
from sfrl_secure.governance.statements import Statement, UpdateStatement
from sfrl_secure.ids import ZERO_DIGEST, Digest, SpiffeId, sha256
from sfrl_secure.limits import CHUNK_BYTES_MAX
from sfrl_secure.participant.sdk import Participant
from sfrl_secure.rounds.begins import round_begins_with
from sfrl_secure.rounds.fold import FederationFold
from sfrl_secure.rounds.refusals import RefusalCounter
from sfrl_secure.rounds.state import FederationState, RoundState, SegmentState
from sfrl_secure.rpc.channel import RpcChannel, RpcStream
from sfrl_secure.rpc.identity import Peer, record_peer
from sfrl_secure.sequencer.log_keys import LogKeys
from sfrl_secure.services.aggregator.work import Aggregator
from sfrl_secure.services.gatekeeper.admit import Admitter, ByteBudget, Submission
from sfrl_secure.services.gatekeeper.arrivals import CallEndedError
from sfrl_secure.services.gatekeeper.complaints import ComplaintAnswerer
from sfrl_secure.services.gatekeeper.decoders import Decoders
from sfrl_secure.services.gatekeeper.fetches import FetchLog
from sfrl_secure.services.gatekeeper.proofs import ProofBuilder
from sfrl_secure.services.gatekeeper.refuse import Refuser
from sfrl_secure.services.gatekeeper.servicer import GatekeeperServicer
from sfrl_secure.services.gatekeeper.upload_bounds import UploadBounds, forget_in
from sfrl_secure.services.gatekeeper.uploads import UploadIntake
from sfrl_secure.services.gatekeeper.words import WordTaker
from sfrl_secure.services.masks import Masks
from sfrl_secure.services.view import FederationView
from sfrl_secure.services.writer import StatementWriter
from sfrl_secure.sparse.mask import Mask, decode_mask
from sfrl_secure.storage.folder_uploads import FolderUploads
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
from sfrl_secure.wire.uploads import Chunk, encode_chunk

# Tests take the federation's names from here, with everything else.
__all__ = [
    "DAY_US", "DOMAIN", "GRID", "HOUR_US", "IDENTITY_UNTIL_US", "LOG_HOST", "MANIFEST", "NOW_US", "ROVERS", "SEGMENT",
    "UNTIL_US", "WITNESSES", "Context", "Covered", "DirectChannel", "LaggingView", "Sent", "SimulatedGatekeeper",
    "SimulatedLog", "Simulator", "SteppedAggregator", "auditor_id", "make_witness", "operator_id", "participant_id",
    "payload_of", "service_id", "submission",
]  # fmt: skip

@dataclass(frozen=True)
class Covered:
    """A checkpoint and the size of its tree."""

    tree_size: int
    root: Digest
    note: bytes


class LaggingView(FederationView):
    """A view that reads when a test says so: `let` takes in what has come meanwhile."""

    def __init__(self, fold: FederationFold) -> None:
        # What it reads is new whenever it is asked: a simulated log is never away.
        super().__init__(fold, monotonic=lambda: 0.0)
        self.on_heard()
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


class Simulator(SimulatedDocuments, SimulatedRounds, SimulatedStatements):
    """A federation with its log; the segment's first terms, rules, services and participants are in force.

    `terms` and `rules` change what is built: see `build_terms` and Cedar. Documents come in the order genesis,
    services, rules, terms; then each participant's record and identity.

    Attributes:
        operators, keys, auditors, rovers: signing keys of operators by name, services and auditors by SPIFFE ID,
            participants by name.
        tokens: join tokens by the name that is invited.
        root: the newest.
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
        self.keys = {service_id(role, name): SigningKey.generate("ed25519") for role, name in SERVICES}
        self.auditors = {auditor_id(name): SigningKey.generate("ed25519") for name in AUDITORS}
        self.tokens: dict[str, SigningKey] = {}
        self.rovers = {name: SigningKey.generate((suites or {}).get(name, "ed25519")) for name in rovers}
        self.root: RootDocument | None = None
        root_raw = self.root_raw()
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

    @property
    def state(self) -> FederationState:
        """State of the whole log."""
        return self.log.fold.state

    @property
    def segment(self) -> SegmentState:
        """The one segment."""
        return self.state.segments[SEGMENT]

    @property
    def mask(self) -> Mask | None:
        """The mask of the last round; of the first one to come where there was none."""
        current = self.segment.current
        digest = round_begins_with(self.segment).mask if current is None else current.mask
        return self._mask_object(digest)

    def mask_of(self, current: RoundState) -> Mask | None:
        """The mask that a round began with."""
        return self._mask_object(current.mask)

    def _mask_object(self, digest: Digest | None) -> Mask | None:
        return None if digest is None else decode_mask(self.objects.get(digest, 4_096), MANIFEST.coordinates)

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
        self._closing += [made.fetches.stop, made.intake.stop]
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


@dataclass(frozen=True)
class Sent(Submission):
    """A submit and all of the payload that comes with it."""

    payload: bytes = b""


class SimulatedAdmitter(Admitter):
    """The admitter, given whole payloads."""

    intake: UploadIntake

    def submit(self, sent: Sent) -> AppendedEntry | int:
        """Decide an update whose payload comes in one call; raise what the call would end with."""
        first = Chunk(0, sent.payload[:CHUNK_BYTES_MAX]) if sent.payload else None
        later = [
            encode_chunk(Chunk(at, sent.payload[at : at + CHUNK_BYTES_MAX]))
            for at in range(CHUNK_BYTES_MAX, len(sent.payload), CHUNK_BYTES_MAX)
        ]
        with self.intake.payload(sent, first, iter(later)) as payload:
            deciding = self.decide(sent, payload)
            try:
                while True:
                    next(deciding)
            except StopIteration as decided:
                answer: AppendedEntry | int = decided.value
                return answer
            except CallEndedError as ended:
                raise ended.error from None


class SimulatedGatekeeper:
    """A gatekeeper's parts, put together as its wiring does."""

    def __init__(
        self,
        simulator: Simulator,
        name: str,
        *,
        budget: int = 2**24,
        evidence_budget: int = 2**24,
        uploads_max: int = 8,
    ) -> None:
        self.view = simulator.view()
        writer = simulator.writer(service_id("gatekeeper", name), self.view)
        self.counter = RefusalCounter(simulator.clock)
        self.refuser = Refuser(writer, self.counter)
        self.uploads = FolderUploads(simulator.folder / "objects" / "uploads")
        bounds = UploadBounds(uploads_max, budget, forget_in(self.uploads))
        self.intake = UploadIntake(self.uploads, simulator.objects, bounds, Decoders(threads=1))
        self.intake.start()
        self.admitter = SimulatedAdmitter(
            self.view, writer, self.refuser, Masks(simulator.objects), simulator.clock, ByteBudget(evidence_budget)
        )
        self.admitter.intake = self.intake
        self.proofs = ProofBuilder(self.view, simulator.log, simulator.log)
        self.fetches = FetchLog(writer, simulator.clock, interval_seconds=0.001)
        self.fetches.start()
        self.words = WordTaker(writer, self.counter)
        self.complaints = ComplaintAnswerer(
            self.view, writer, self.proofs, monotonic=lambda: simulator.clock.now_us() / 1_000_000
        )
        self.servicer = GatekeeperServicer(
            self.view, self.admitter, self.refuser, self.proofs, self.fetches, self.words, self.intake,
            simulator.objects, simulator.clock,
        )  # fmt: skip


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

    def exchange(self, path: str, requests: Iterator[bytes], *, deadline_seconds: float) -> RpcStream:
        return RpcStream(_Stream(self._messages(path, requests)))

    def _messages(self, path: str, request: bytes | Iterator[bytes]) -> Iterator[bytes]:
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
) -> Sent:
    """What a gatekeeper is asked when `peer` sends a signed update, with its payload or another."""
    envelope, update, sent = signed
    sent = sent if payload is None else payload
    raw = encode_envelope(envelope)
    return Sent(participant_id(peer), raw, envelope, update, sha256(raw + sent), sent)


def make_witness(name: str) -> Cosigner:
    """A witness with a new key."""
    key = SigningKey.generate("ed25519")
    return Cosigner(verifier_key(f"{name}.example", ED25519_COSIGNATURE, key.public_key.parts[0]), key.sign)
