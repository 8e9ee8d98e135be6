from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from sfrl_secure.crypto.envelope import Envelope, Signature
from sfrl_secure.errors import (
    ConsistencyError,
    DeniedError,
    MalformedError,
    SfrlError,
    SignatureError,
    UnavailableError,
    UncertainStateError,
    VerificationError,
)
from sfrl_secure.governance.statements import STATEMENT_TYPE, RoundOpened, Statement
from sfrl_secure.ids import ZERO_DIGEST, Digest, parse_spiffe_id
from sfrl_secure.rpc import follower as follower_module
from sfrl_secure.rpc import verified_log
from sfrl_secure.rpc.follower import LogFollower
from sfrl_secure.translog.checkpoint import Checkpoint
from sfrl_secure.translog.cosignature import Cosigner, sign_checkpoint
from sfrl_secure.translog.entries import LogEntry
from sfrl_secure.translog.merkle import leaf_hash
from sfrl_secure.translog.note import (
    ED25519,
    ED25519_COSIGNATURE,
    ML_DSA_44_COSIGNATURE,
    NoteSigner,
    add_signatures,
    format_note,
    parse_note,
    verifier_key,
)
from sfrl_secure.translog.policy import TrustedLog, TrustedWitness, TrustPolicy
from sfrl_secure.translog.tree import MerkleTree
from sfrl_secure.wire.audit_service import HEARTBEAT, FollowBatch
from sfrl_secure.wire.content import Content, parse_content
from sfrl_secure.wire.entries import encode_entry
from sfrl_secure.wire.statements import encode_statement

ORIGIN = "log.example/sfrl/00112233445566778899aabbccddeeff"
SECONDS = 10.0
NONSENSE = b"no statement"
WRITER = parse_spiffe_id("spiffe://farm.example/service/aggregator/a1")


def cosigner(name: str, kind: int) -> Cosigner:
    private = Ed25519PrivateKey.generate() if kind == ED25519_COSIGNATURE else MLDSA44PrivateKey.generate()
    return Cosigner(verifier_key(name, kind, private.public_key().public_bytes_raw()), private.sign)


class Keys:
    def __init__(self, origin: str = ORIGIN) -> None:
        private = Ed25519PrivateKey.generate()
        self.origin = origin
        self.signer = NoteSigner(verifier_key(origin, ED25519, private.public_key().public_bytes_raw()), private.sign)
        self.cosigner = cosigner(origin, ML_DSA_44_COSIGNATURE)
        self.witness = cosigner("one.example/witness", ED25519_COSIGNATURE)

    def policy(self) -> TrustPolicy:
        return TrustPolicy(
            logs=(TrustedLog(self.origin, (self.signer.key, self.cosigner.key)),),
            witnesses=(TrustedWitness("w1", self.witness.key),),
            groups=(),
            quorum="w1",
        )

    def note(self, size: int, root: Digest, *, witnessed: bool = False) -> bytes:
        raw = sign_checkpoint(Checkpoint(self.origin, size, root), self.signer, self.cosigner, 1_760_000_000)
        if not witnessed:
            return raw
        note = parse_note(raw)
        return format_note(add_signatures(note, [self.witness.cosign(note.text, 1_760_000_001)]))


@pytest.fixture(scope="module")
def keys() -> Keys:
    return Keys()


def envelope(stream: str, number: int) -> Envelope:
    statement = Statement(
        federation_id=Digest(bytes(32)),
        stream=stream,
        writer=WRITER,
        key_id=Digest(bytes(32)),
        reads_governance=ZERO_DIGEST,
        reads_segment=ZERO_DIGEST,
        valid_until_us=1,
        request_id=number.to_bytes(16, "big"),
        body=RoundOpened(1, Digest(bytes(32)), Digest(bytes(32))),
    )
    signature = Signature(Digest(bytes(32)), "ed25519", bytes(64))
    return Envelope(STATEMENT_TYPE, encode_statement(statement), (signature,))


Alteration = Callable[[LogEntry], LogEntry]


class FakeLog:
    """A log in memory that keeps its rules; `alter` breaks one in the entry that is appended next."""

    def __init__(self, keys: Keys) -> None:
        self.keys, self.entries, self.tree = keys, [], MerkleTree()  # type: ignore[var-annotated]
        self.streams: dict[str, tuple[int, Digest]] = {}
        self.prev = ZERO_DIGEST

    def append(self, stream: str = "segment/north", alter: Alteration = lambda entry: entry) -> None:
        number = len(self.entries)
        seq, before = self.streams.get(stream, (0, ZERO_DIGEST))
        entry = alter(LogEntry(self.prev, 1_000 + number // 2, seq, before, envelope(stream, number)))
        self.append_raw(encode_entry(entry))
        self.streams[stream] = (seq + 1, self.prev)

    def append_raw(self, raw: bytes) -> None:
        self.prev = leaf_hash(raw)
        self.entries.append(raw)
        self.tree.append(self.prev)

    def note(self, size: int, *, witnessed: bool = False) -> bytes:
        return self.keys.note(size, self.tree.root(size), witnessed=witnessed)

    def batch(self, first: int, end: int, *, note: bool = True) -> FollowBatch:
        return FollowBatch(first, tuple(self.entries[first:end]), self.note(end) if note else b"")

    def witnessed(self, size: int) -> FollowBatch:
        return FollowBatch(0, (), self.note(size, witnessed=True))


@dataclass
class Call:
    first_index: int
    messages: queue.Queue[FollowBatch | SfrlError | None] = field(default_factory=queue.Queue)

    def __iter__(self) -> Iterator[FollowBatch]:
        while (message := self.messages.get(timeout=30)) is not None:
            if isinstance(message, SfrlError):
                raise message
            yield message

    def cancel(self) -> None:
        self.messages.put(UnavailableError("cancelled"))


class Source:
    """Gives each call to the test, which says what comes."""

    def __init__(self) -> None:
        self.calls: queue.Queue[Call] = queue.Queue()

    def follow(self, first_index: int) -> Call:
        call = Call(first_index)
        self.calls.put(call)
        return call

    def next_call(self) -> Call:
        return self.calls.get(timeout=SECONDS)


@dataclass
class Run:
    source: Source
    follower: LogFollower
    taken: list[tuple[int, bytes]]
    witnessed: list[int]
    failures: list[SfrlError]
    broken: threading.Event
    heard: list[int]

    def fails_with(self, kind: type[SfrlError]) -> SfrlError:
        with pytest.raises(kind) as caught:
            self.follower.wait_for(10**9, SECONDS)
        assert self.follower.failure is caught.value
        assert self.failures == [caught.value]
        return caught.value


@pytest.fixture
def run(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    monkeypatch.setattr(follower_module, "FIRST_PAUSE_SECONDS", 0.001)
    source, taken, witnessed, failures, broken = Source(), [], [], [], threading.Event()  # type: ignore[var-annotated]
    heard: list[int] = []

    def on_entry(index: int, leaf: Digest, entry: LogEntry, content: Content | None) -> None:
        raw = encode_entry(entry)
        assert leaf == leaf_hash(raw)
        assert content == (None if entry.envelope.statement == NONSENSE else parse_content(entry.envelope))
        if broken.is_set():
            raise UnavailableError("a fault behind the follower")
        taken.append((index, raw))

    def on_witnessed(size: int) -> None:
        # Whoever is woken by this finds the checkpoint.
        assert follower.witnessed.tree_size >= size
        witnessed.append(size)

    follower = LogFollower(
        source,
        origin=ORIGIN,
        policy=keys.policy(),
        on_entry=on_entry,
        on_witnessed=on_witnessed,
        on_heard=lambda: heard.append(len(taken)),
        on_failed=failures.append,
    )
    follower.start()
    yield Run(source, follower, taken, witnessed, failures, broken, heard)
    follower.stop()


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.fixture
def log(keys: Keys) -> FakeLog:
    log = FakeLog(keys)
    for number in range(12):
        log.append(("segment/north", "identity", "segment/south")[number % 3])
    return log


def test_entries_are_given_out_in_order_once_a_checkpoint_covers_them(run: Run, log: FakeLog) -> None:
    call = run.source.next_call()
    assert call.first_index == 0
    call.messages.put(log.batch(0, 3))
    run.follower.wait_for(3, SECONDS)
    call.messages.put(log.batch(3, 5, note=False))
    call.messages.put(log.batch(5, 12))
    run.follower.wait_for(12, SECONDS)
    assert run.taken == list(enumerate(log.entries))
    assert run.follower.signed.tree_size == 12
    assert parse_note(run.follower.signed.note).text == parse_note(log.note(12)).text
    assert run.follower.witnessed_size == 0


def test_the_log_is_heard_when_it_says_that_there_is_nothing_new_and_all_was_given_out(run: Run, log: FakeLog) -> None:
    call = run.source.next_call()
    # Of a log that we have nothing of, not even a checkpoint, it says nothing.
    call.messages.put(HEARTBEAT)
    call.messages.put(log.batch(0, 3))
    call.messages.put(log.witnessed(3))
    run.follower.wait_witnessed(3, SECONDS)
    assert run.heard == []
    call.messages.put(HEARTBEAT)
    wait_until(lambda: run.heard == [3])
    # Entries that no checkpoint covers were not given out: there is something new.
    call.messages.put(log.batch(3, 7, note=False))
    call.messages.put(HEARTBEAT)
    call.messages.put(log.batch(7, 9))
    run.follower.wait_for(9, SECONDS)
    assert run.heard == [3]
    call.messages.put(HEARTBEAT)
    wait_until(lambda: run.heard == [3, 9])
    assert run.follower.failure is None


def test_entries_that_no_checkpoint_covers_are_held_back(run: Run, log: FakeLog) -> None:
    call = run.source.next_call()
    call.messages.put(log.batch(0, 3))
    run.follower.wait_agreed(SECONDS)
    call.messages.put(log.batch(3, 7, note=False))
    with pytest.raises(UnavailableError):
        run.follower.wait_for(4, 0.1)
    call.messages.put(FollowBatch(7, tuple(log.entries[7:9]), log.note(5)))
    run.follower.wait_for(5, SECONDS)
    assert [index for index, _ in run.taken] == [0, 1, 2, 3, 4]
    assert run.follower.size == 5


def test_a_long_log_is_given_out_as_it_comes_and_agrees_at_its_end(run: Run, log: FakeLog) -> None:
    call = run.source.next_call()
    for first in range(0, 12, 3):
        call.messages.put(log.batch(first, first + 3, note=False))
        wait_until(lambda: len(run.taken) == first + 3)  # noqa: B023
        with pytest.raises(UnavailableError):
            run.follower.wait_for(1, 0)
    call.messages.put(log.witnessed(5))
    run.follower.wait_witnessed(5, SECONDS)
    # It has signed for five of them, and twelve were given out.
    with pytest.raises(UnavailableError):
        run.follower.wait_agreed(0.1)
    call.messages.put(FollowBatch(0, (), log.note(12)))
    run.follower.wait_agreed(SECONDS)
    assert run.taken == list(enumerate(log.entries))


def test_whoever_waits_for_a_long_log_waits_as_long_as_something_comes(run: Run, log: FakeLog) -> None:
    call = run.source.next_call()
    agreed = threading.Event()

    def wait() -> None:
        run.follower.wait_agreed(0.6)
        agreed.set()

    waiting = threading.Thread(target=wait)
    waiting.start()
    for first in range(4):
        assert not agreed.wait(0.25)
        call.messages.put(log.batch(first, first + 1, note=first == 3))
    assert agreed.wait(SECONDS)
    waiting.join(SECONDS)


def test_a_call_that_ends_before_the_log_has_agreed_repeats_the_last_entry(run: Run, log: FakeLog) -> None:
    call = run.source.next_call()
    call.messages.put(log.batch(0, 5, note=False))
    call.messages.put(None)
    again = run.source.next_call()
    assert again.first_index == 4
    again.messages.put(log.batch(4, 7))
    run.follower.wait_agreed(SECONDS)
    assert run.taken == list(enumerate(log.entries[:7]))


def test_the_root_of_what_was_given_out_before_is_compared_too(run: Run, log: FakeLog) -> None:
    call = run.source.next_call()
    call.messages.put(log.batch(0, 5, note=False))
    call.messages.put(FollowBatch(0, (), log.keys.note(5, Digest(bytes(32)))))
    run.fails_with(ConsistencyError)
    with pytest.raises(ConsistencyError):
        run.follower.wait_agreed(SECONDS)


def test_the_witnessed_size_follows_the_quorum_only(run: Run, log: FakeLog) -> None:
    call = run.source.next_call()
    call.messages.put(log.batch(0, 8))
    run.follower.wait_for(8, SECONDS)
    with pytest.raises(UnavailableError):
        run.follower.wait_witnessed(1, 0.1)
    call.messages.put(log.witnessed(5))
    run.follower.wait_witnessed(5, SECONDS)
    assert (run.follower.witnessed_size, run.follower.signed.tree_size) == (5, 8)
    assert b"one.example/witness" in run.follower.witnessed.note
    call.messages.put(log.witnessed(3))  # an older one comes late
    call.messages.put(log.batch(8, 9))
    run.follower.wait_for(9, SECONDS)
    assert run.follower.witnessed_size == 5
    call.messages.put(log.witnessed(9))
    run.follower.wait_witnessed(9, SECONDS)
    assert (run.witnessed[0], run.witnessed[-1]) == (5, 9)


def test_a_checkpoint_ahead_of_the_entries_waits_for_them(run: Run, log: FakeLog) -> None:
    call = run.source.next_call()
    call.messages.put(log.witnessed(6))
    call.messages.put(FollowBatch(0, (), log.note(7)))
    call.messages.put(log.batch(0, 4, note=False))
    call.messages.put(log.batch(4, 12, note=False))
    run.follower.wait_witnessed(6, SECONDS)
    run.follower.wait_for(7, SECONDS)
    assert run.follower.size == 7


def test_a_covered_size_has_its_root(run: Run, log: FakeLog) -> None:
    call = run.source.next_call()
    call.messages.put(log.batch(0, 12))
    call.messages.put(log.witnessed(7))
    run.follower.wait_witnessed(7, SECONDS)
    assert run.follower.signed.root == log.tree.root(12)
    assert (run.follower.witnessed.tree_size, run.follower.witnessed.root) == (7, log.tree.root(7))


@pytest.mark.parametrize(
    "ending", [None, UnavailableError("away"), DeniedError("unknown_identity", "not yet"), MalformedError("no")]
)
def test_a_call_that_ends_is_made_again_from_where_we_are(ending: SfrlError | None, run: Run, log: FakeLog) -> None:
    call = run.source.next_call()
    call.messages.put(log.batch(0, 5))
    call.messages.put(log.batch(5, 9, note=False))
    call.messages.put(ending)
    again = run.source.next_call()
    # Entries 5 to 8 were never covered: they are asked for again, and may be others by now.
    assert again.first_index == 5
    other = FakeLog(log.keys)
    for number in range(5):
        other.append(("segment/north", "identity", "segment/south")[number % 3])
    other.append("segment/west")
    again.messages.put(FollowBatch(5, (other.entries[5],), other.note(6)))
    run.follower.wait_for(6, SECONDS)
    assert [raw for _, raw in run.taken] == other.entries


def test_entries_other_than_those_asked_for_end_the_call(run: Run, log: FakeLog) -> None:
    run.source.next_call().messages.put(log.batch(1, 3))
    again = run.source.next_call()
    assert again.first_index == 0
    again.messages.put(log.batch(0, 3))
    run.follower.wait_for(3, SECONDS)


def test_more_than_is_held_without_a_checkpoint_ends_the_call(
    run: Run, log: FakeLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verified_log, "HELD_BYTES_MAX", max(map(len, log.entries)) * 3)
    call = run.source.next_call()
    for first in (0, 2, 4):  # what a checkpoint covers is held no longer
        call.messages.put(log.batch(first, first + 2))
    run.follower.wait_for(6, SECONDS)
    call.messages.put(log.batch(6, 12, note=False))
    assert run.source.next_call().first_index == 6
    assert run.follower.failure is None


ALTERATIONS: dict[str, Alteration] = {
    "another predecessor": lambda entry: replace(entry, prev=Digest(bytes([1]) * 32)),
    "time goes back": lambda entry: replace(entry, log_time_us=1),
    "a stream position twice": lambda entry: replace(entry, stream_seq=entry.stream_seq - 1),
    "a stream position left out": lambda entry: replace(entry, stream_seq=entry.stream_seq + 1),
    "another predecessor in the stream": lambda entry: replace(entry, stream_prev=Digest(bytes([1]) * 32)),
}


@pytest.mark.parametrize("alteration", ALTERATIONS)
def test_a_broken_chain_ends_the_following_although_the_log_signed_it(
    alteration: str, run: Run, log: FakeLog
) -> None:
    log.append(alter=ALTERATIONS[alteration])
    call = run.source.next_call()
    call.messages.put(log.batch(0, 12))
    run.follower.wait_for(12, SECONDS)
    call.messages.put(log.batch(12, 13))
    run.fails_with(VerificationError)
    assert len(run.taken) == run.follower.size == 12


def test_the_first_entry_of_a_stream_has_position_zero(run: Run, keys: Keys) -> None:
    log = FakeLog(keys)
    log.append(alter=lambda entry: replace(entry, stream_seq=1))
    run.source.next_call().messages.put(log.batch(0, 1))
    run.fails_with(VerificationError)


def test_bytes_that_are_no_entry_end_the_following(run: Run, log: FakeLog) -> None:
    log.append_raw(b"no entry")
    run.source.next_call().messages.put(log.batch(0, 13))
    run.fails_with(MalformedError)
    assert len(run.taken) == 12
    assert run.follower.size == 0


def test_an_entry_with_malformed_content_is_still_an_entry(run: Run, log: FakeLog) -> None:
    def damage(entry: LogEntry) -> LogEntry:
        return replace(entry, stream_seq=77, envelope=replace(entry.envelope, statement=NONSENSE))

    log.append(alter=damage)
    run.source.next_call().messages.put(log.batch(0, 13))
    run.follower.wait_for(13, SECONDS)


@pytest.mark.parametrize("when", ["new entries", "the same size", "an older size", "a witnessed note"])
def test_a_root_that_is_not_our_trees_ends_the_following_with_the_evidence(
    when: str, run: Run, log: FakeLog
) -> None:
    call = run.source.next_call()
    call.messages.put(log.batch(0, 8))
    run.follower.wait_for(8, SECONDS)
    before = run.follower.signed.note
    size, witnessed = {"new entries": (10, False), "the same size": (8, False), "an older size": (5, False)}.get(
        when, (8, True)
    )
    false_note = log.keys.note(size, Digest(bytes([7]) * 32), witnessed=witnessed)
    entries = tuple(log.entries[8:10]) if when == "new entries" else ()
    call.messages.put(FollowBatch(8, entries, false_note))
    failure = run.fails_with(ConsistencyError)
    assert isinstance(failure, ConsistencyError)
    assert (failure.older, failure.newer) == (before, false_note)
    assert run.follower.size == 8
    # What was reached before is not acted upon any more, and nothing is asked again.
    with pytest.raises(ConsistencyError):
        run.follower.wait_for(1, SECONDS)
    with pytest.raises(ConsistencyError):
        run.follower.wait_witnessed(0, SECONDS)
    assert run.source.calls.empty()


def test_an_entry_changed_on_the_way_is_not_given_out(run: Run, log: FakeLog) -> None:
    other = FakeLog(log.keys)
    other.append("segment/west")
    call = run.source.next_call()
    call.messages.put(log.batch(0, 3))
    run.follower.wait_agreed(SECONDS)
    for stream in ("segment/north", "identity", "segment/south"):
        other.append(stream)
    call.messages.put(FollowBatch(3, (other.entries[3],), log.note(4)))
    run.fails_with(ConsistencyError)
    assert [index for index, _ in run.taken] == [0, 1, 2]


@pytest.mark.parametrize("kept", [0, 1])
def test_a_checkpoint_without_every_key_of_the_log_ends_the_following(kept: int, run: Run, log: FakeLog) -> None:
    note = parse_note(log.note(3))
    stripped = format_note(replace(note, signatures=(note.signatures[kept],)))
    run.source.next_call().messages.put(FollowBatch(0, tuple(log.entries[:3]), stripped))
    run.fails_with(SignatureError)
    assert run.follower.size == 0


def test_a_checkpoint_of_another_log_that_we_trust_ends_the_following(keys: Keys) -> None:
    other = Keys("other.example/sfrl/00112233445566778899aabbccddeeff")
    mine, theirs = keys.policy(), other.policy()
    both = replace(mine, logs=(*mine.logs, *theirs.logs))
    log = FakeLog(other)
    log.append()
    source = Source()
    follower = LogFollower(source, origin=ORIGIN, policy=both, on_entry=lambda *entry: None)
    follower.start()
    source.next_call().messages.put(log.batch(0, 1))
    with pytest.raises(VerificationError, match="another log"):
        follower.wait_for(1, SECONDS)
    follower.stop()


def test_a_fault_behind_the_follower_ends_the_following(run: Run, log: FakeLog) -> None:
    run.broken.set()
    run.source.next_call().messages.put(log.batch(0, 3))
    run.fails_with(UncertainStateError)
    assert run.follower.size == 0


def test_a_source_with_a_fault_of_its_own_leaves_nobody_waiting(keys: Keys) -> None:
    class Faulty:
        def follow(self, first_index: int) -> Any:
            raise RuntimeError("bug")

    follower = LogFollower(Faulty(), origin=ORIGIN, policy=keys.policy(), on_entry=lambda *entry: None)
    follower.start()
    with pytest.raises(UncertainStateError):
        follower.wait_for(1, SECONDS)
    follower.stop()


def test_stopping_wakes_whoever_waits(keys: Keys) -> None:
    source = Source()
    follower = LogFollower(source, origin=ORIGIN, policy=keys.policy(), on_entry=lambda *entry: None)
    follower.start()
    source.next_call()
    woken: list[Exception] = []

    def wait() -> None:
        try:
            follower.wait_for(1, 60)
        except UnavailableError as error:
            woken.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    follower.stop()
    waiting.join(SECONDS)
    assert len(woken) == 1


def test_a_renewed_certificate_goes_on_with_another_call_where_the_one_before_was(
    run: Run, log: FakeLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not after a pause, as when the log is away: a pause would be felt by whoever follows.
    monkeypatch.setattr(follower_module, "FIRST_PAUSE_SECONDS", 60.0)
    call = run.source.next_call()
    call.messages.put(log.batch(0, 5))
    run.follower.wait_for(5, SECONDS)
    run.follower.call_again()
    again = run.source.next_call()
    assert again.first_index == 5
    again.messages.put(log.batch(5, 12))
    run.follower.wait_for(12, SECONDS)
    assert run.taken == list(enumerate(log.entries))
