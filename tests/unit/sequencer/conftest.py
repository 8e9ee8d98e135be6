"""A log for the tests of `sequencer`: a fold with rules of its own, real keys, witnesses in memory."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sfrl_secure.clock import FixedClock
from sfrl_secure.crypto.envelope import Envelope, sign_envelope
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.errors import (
    ConflictError,
    DeniedError,
    MalformedError,
    NotFoundError,
    UnavailableError,
    UncertainStateError,
)
from sfrl_secure.ids import ZERO_DIGEST, Digest, parse_hex_digest
from sfrl_secure.sequencer.bootstrap import Folds, NewLog, open_log
from sfrl_secure.sequencer.history import Codec, History
from sfrl_secure.sequencer.log_keys import LogKeys
from sfrl_secure.sequencer.publication import Publication
from sfrl_secure.sequencer.sequencer import Sequencer, SequencerSettings, Submission
from sfrl_secure.sequencer.signing import CheckpointSigner, SignedHead
from sfrl_secure.sequencer.snapshot import read_snapshot
from sfrl_secure.sequencer.start_check import check_not_behind
from sfrl_secure.sequencer.upkeep import Upkeep, UpkeepSettings
from sfrl_secure.sequencer.witness_client import Witness, WitnessReply
from sfrl_secure.sequencer.witnessing import Witnessing, WitnessingSettings
from sfrl_secure.storage.log_folder import FolderLogStore
from sfrl_secure.translog.cosignature import Cosigner
from sfrl_secure.translog.entries import LogEntry
from sfrl_secure.translog.note import ED25519_COSIGNATURE, verifier_key
from sfrl_secure.translog.policy import TrustedLog, TrustedWitness, TrustPolicy, WitnessGroup
from sfrl_secure.translog.witness import WitnessState, decide_add_checkpoint
from sfrl_secure.wire.entries import encode_entry, parse_entry

ORIGIN = "log.example/sfrl/00112233445566778899aabbccddeeff"
START_US = 1_760_000_000_000_000
_FORM = re.compile(rb"([a-z]+) ([a-z0-9]+)( (?:at|deny) ?[0-9]*)?(?:\n.*)?", re.S)

_writer = SigningKey.generate("ed25519")


@dataclass(frozen=True)
class Said:
    """What a test's statement says: `<stream> <word>[ at <size>][ deny]`."""

    stream: str
    reads: int | None
    is_denied: bool


def envelope_of(text: str) -> Envelope:
    return sign_envelope("application/vnd.sfrl.statement.v1", text.encode(), [_writer])


def parse_said(envelope: Envelope) -> Said:
    matched = _FORM.fullmatch(envelope.statement)
    if matched is None:
        raise MalformedError("not what the tests say")
    option = (matched[3] or b"").split()
    return Said(
        matched[1].decode(), int(option[1]) if option[:1] == [b"at"] else None, option[:1] == [b"deny"]
    )


@dataclass(frozen=True)
class Spot:
    stream_seq: int
    stream_prev: Digest


@dataclass
class CountingFold:
    """Its rules: what says `deny` is denied; what says `at N` has effect at index N only."""

    index_by_digest: dict[Digest, int] = field(default_factory=dict)
    streams: dict[str, Spot] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    size: int = 0
    on_check: Callable[[], None] = lambda: None
    on_digest: Callable[[Digest, int], None] = lambda digest, index: None

    def index_of(self, statement_digest: Digest) -> int | None:
        return self.index_by_digest.get(statement_digest)

    def place(self, content: Said) -> Spot:
        return self.streams.get(content.stream, Spot(0, ZERO_DIGEST))

    def check(self, log_time_us: int, envelope: Envelope, content: Said, verified_by: object = None) -> None:
        self.on_check()
        if envelope.digest in self.index_by_digest:
            raise ConflictError("it is in the log", reason="known")
        if content.is_denied:
            raise DeniedError("denied", "it says so")
        if content.reads not in (None, self.size):
            raise ConflictError("the log is longer", reason="stale")

    def apply(self, index: int, leaf: Digest, entry: LogEntry, content: Said | None) -> str | None:
        assert index == self.size
        self.size += 1
        if content is None:
            return "malformed"
        self.streams[content.stream] = Spot(self.place(content).stream_seq + 1, leaf)
        self.index_by_digest[entry.envelope.digest] = index
        self.on_digest(entry.envelope.digest, index)
        self.said.append(entry.envelope.statement.decode())
        return "denied" if content.is_denied else None

    def encode(self) -> bytes:
        return json.dumps(
            [
                {digest.hex(): index for digest, index in self.index_by_digest.items()},
                {name: [spot.stream_seq, spot.stream_prev.hex()] for name, spot in self.streams.items()},
                self.said,
                self.size,
            ]
        ).encode()

    @classmethod
    def decode(cls, raw: bytes) -> CountingFold:
        try:
            digests, streams, said, size = json.loads(raw)
        except ValueError:
            raise MalformedError("no fold of the tests") from None
        return cls(
            {parse_hex_digest(digest): index for digest, index in digests.items()},
            {name: Spot(seq, parse_hex_digest(prev)) for name, (seq, prev) in streams.items()},
            said,
            size,
        )


@dataclass
class MemoryIndex:
    """An index that outlives a log's process, and can be lost."""

    pending: dict[Digest, int] = field(default_factory=dict)
    written: dict[Digest, int] = field(default_factory=dict)
    indexed_size: int = 0

    def add(self, digest: Digest, index: int) -> None:
        self.pending.setdefault(digest, index)

    def flush(self, size: int) -> None:
        for digest, index in self.pending.items():
            self.written.setdefault(digest, index)
        self.pending.clear()
        self.indexed_size = size

    def clear(self) -> None:
        self.pending, self.written, self.indexed_size = {}, {}, 0


CODEC: Codec[Said] = Codec(encode_entry, parse_entry, parse_said)


class MemoryWitness:
    """A witness that decides by the protocol, in memory; it can be cut off, and made to lie."""

    def __init__(self, name: str, log_keys: tuple) -> None:
        private = Ed25519PrivateKey.generate()
        self.name = name
        self.names = (name,)
        self.cosigner = Cosigner(
            verifier_key(f"{name}.example/witness", ED25519_COSIGNATURE, private.public_key().public_bytes_raw()),
            private.sign,
        )
        self.recorded: dict[str, WitnessState] = {}
        self.is_away = False
        self.reply: Callable[[bytes], WitnessReply] | None = None
        self.asked: list[int] = []
        self._log_keys = log_keys
        self._lock = threading.Lock()

    def add_checkpoint(self, request: bytes) -> WitnessReply:
        if self.is_away:
            raise UnavailableError("away")
        if self.reply is not None:
            return self.reply(request)
        with self._lock:
            answer = decide_add_checkpoint(
                request,
                logs={ORIGIN: TrustedLog(ORIGIN, self._log_keys)},
                recorded=self.recorded,
                cosign=lambda text: [self.cosigner.cosign(text, START_US // 1_000_000)],
            )
            self.asked.append(answer.status)
            if answer.new_state is not None:
                self.recorded[ORIGIN] = answer.new_state
            return WitnessReply(answer.status, answer.body)

    def latest(self, origin: str) -> WitnessReply:
        if self.is_away:
            raise UnavailableError("away")
        state = self.recorded.get(origin)
        return WitnessReply(404, b"") if state is None else WitnessReply(200, state.note)


@dataclass
class TestLog:
    """A running log and all its parts."""

    __test__ = False

    world: World
    fold: CountingFold
    history: History[Said]
    sequencer: Sequencer[Said]
    publication: Publication
    witnessing: Witnessing
    upkeep: Upkeep
    uncertain: list[UncertainStateError]
    closing: ExitStack

    def append(self, text: str, timeout_seconds: float = 5.0):
        envelope = envelope_of(text)
        return self.sequencer.append(envelope, parse_said(envelope), timeout_seconds=timeout_seconds)

    def submit(self, *texts: str):
        envelopes = [envelope_of(text) for text in texts]
        return self.sequencer.submit([Submission(envelope, parse_said(envelope)) for envelope in envelopes])

    def start(self) -> TestLog:
        self.sequencer.start()
        self.upkeep.start()
        self.witnessing.start()
        self.closing.callback(self.upkeep.stop)
        self.closing.callback(self.sequencer.stop)
        self.closing.callback(self.witnessing.stop)
        return self

    def wait_witnessed(self, size: int, seconds: float = 5.0) -> None:
        until = time.monotonic() + seconds
        while self.sequencer.head.witnessed_size < size:
            assert time.monotonic() < until, "not witnessed in time"
            time.sleep(0.005)

    def close(self) -> None:
        self.closing.close()


class World:
    """Folders, keys, clock, witnesses and policy that outlive a log's process."""

    def __init__(self, folder: Path, witness_count: int, threshold: int) -> None:
        self.journal_dir, self.log_dir = folder / "journal", folder / "log"
        self.clock = FixedClock(START_US)
        self.keys = LogKeys.generate()
        keys = (self.keys.note_signer(ORIGIN).key, self.keys.cosigner(ORIGIN).key)
        self.witnesses = [MemoryWitness(f"w{i}", keys) for i in range(witness_count)]
        names = tuple(witness.name for witness in self.witnesses)
        self.policy = TrustPolicy(
            (TrustedLog(ORIGIN, keys),),
            tuple(TrustedWitness(witness.name, witness.cosigner.key) for witness in self.witnesses),
            (WitnessGroup("enough", threshold, names),) if names else (),
            "enough" if names else "none",
        )
        self.settings = SequencerSettings(batch_delay_seconds=0.0)
        self.upkeep_settings = UpkeepSettings(interval_seconds=0.001, snapshot_share=1.0)
        self.segment_bytes = 16 * 1024 * 1024
        self.index = MemoryIndex()
        self.stopping = threading.Event()
        self._open: list[TestLog] = []

    def signer(self) -> CheckpointSigner:
        return CheckpointSigner(ORIGIN, [self.keys], self.clock)

    def create(self, *texts: str) -> None:
        new = NewLog(CountingFold(), CODEC, self.clock)
        for text in texts or ("governance genesis",):
            new.append(envelope_of(text))
        entries = new.entries()
        batches = [entries[at:at + 256] for at in range(0, len(entries), 256)]
        FolderLogStore.create(self.journal_dir, batches, segment_bytes=self.segment_bytes)

    def snapshot(self):
        try:
            return read_snapshot(self.journal_dir)
        except (NotFoundError, MalformedError):
            return None

    def open(self, witnesses: list[Witness] | None = None, *, refresh_seconds: float = 60.0) -> TestLog:
        """Open the log as a new process would, up to the point before anything is signed."""
        uncertain: list[UncertainStateError] = []
        folds: list[CountingFold] = []

        def kept(fold: CountingFold) -> CountingFold:
            fold.on_digest = self.index.add
            folds.append(fold)
            return fold

        asked = self.witnesses if witnesses is None else witnesses
        with ExitStack() as opening:
            store = FolderLogStore.open(self.journal_dir, self.log_dir, segment_bytes=self.segment_bytes)
            opening.callback(store.close)
            makers = Folds(lambda: kept(CountingFold()), lambda raw: kept(CountingFold.decode(raw)))
            opened = open_log(store, makers, CODEC, self.clock, self.index, self.snapshot())
            history, fold = opened.history, folds[-1]
            head = SignedHead(store.signed)
            head.check(ORIGIN, self.policy, history.tree)
            publication = Publication(
                store.files, history.tree, history.entry, self.clock, settled_size=opened.settled_size
            )
            published = publication.open(ORIGIN, self.policy)
            check_not_behind(asked, ORIGIN, self.policy, history.tree, self.stopping, pause_seconds=0.01)
            sequencer = Sequencer(
                history, self.signer(), self.settings, on_uncertain=uncertain.append,
                after_batch=lambda: history.tree.forget(publication.full_size, opened.nodes.node),
            )
            if published is not None and published.is_current:
                sequencer.set_witnessed(published.checkpoint.size, published.note)
            witnessing = Witnessing(
                sequencer, publication, head, asked, self.policy, ORIGIN,
                WitnessingSettings(0.0, 0.5, refresh_seconds), on_uncertain=uncertain.append,
            )
            upkeep = Upkeep(
                sequencer, publication, store.journal, self.index, self.journal_dir,
                lambda: fold.encode, self.upkeep_settings, on_uncertain=uncertain.append,
            )
            log = TestLog(
                self, fold, history, sequencer, publication, witnessing, upkeep, uncertain, opening.pop_all()
            )
        self._open.append(log)
        return log

    def close(self) -> None:
        self.stopping.set()
        for log in self._open:
            log.close()


@pytest.fixture
def make_world(tmp_path: Path) -> Iterator[Callable[..., World]]:
    worlds: list[World] = []

    def make(witness_count: int = 1, threshold: int = 1, name: str = "w") -> World:
        worlds.append(World(tmp_path / name, witness_count, threshold))
        return worlds[-1]

    yield make
    for world in worlds:
        world.close()


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    """One witness, which is the quorum; a log with its genesis."""
    made = make_world()
    made.create()
    return made
