"""A follower that goes on where another was: what the log has signed is not forgotten over a restart."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from sfrl_secure.errors import (
    ConsistencyError,
    MalformedError,
    NotFoundError,
    SfrlError,
    SignatureError,
    UnavailableError,
    UncertainStateError,
    VerificationError,
)
from sfrl_secure.ids import Digest, sha256
from sfrl_secure.rpc import follower as follower_module
from sfrl_secure.rpc.follower import LogFollower
from sfrl_secure.rpc.follower_start import CoveredTree, FollowerStart, open_start
from sfrl_secure.translog.merkle import EMPTY_ROOT
from sfrl_secure.translog.policy import TrustedLog
from sfrl_secure.wire.audit_service import FollowBatch

from .test_follower import ORIGIN, SECONDS, FakeLog, Keys, Source, wait_until


@pytest.fixture(scope="module")
def keys() -> Keys:
    return Keys()


@pytest.fixture
def log(keys: Keys) -> FakeLog:
    return grown(FakeLog(keys), 12)


def grown(log: FakeLog, size: int, streams: tuple[str, ...] = ("segment/north", "identity")) -> FakeLog:
    for number in range(len(log.entries), size):
        log.append(streams[number % len(streams)])
    return log


class Following:
    """Followers one after the other, each of its own source."""

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        self.running: list[LogFollower] = []
        self.taken: list[int] = []
        self.restarts = 0
        self.failures: list[SfrlError] = []
        self.positions: list[FollowerStart] = []

    def begin(self, start: FollowerStart | None = None, policy_keys: Keys | None = None) -> tuple[Source, LogFollower]:
        def restarted() -> None:
            self.restarts += 1
            self.taken.clear()

        source = Source()
        follower = LogFollower(
            source,
            origin=ORIGIN,
            policy=(policy_keys or self.keys).policy(),
            on_entry=lambda index, leaf, entry, content: self.taken.append(index),
            on_covered=lambda: self.positions.append(follower.position()),
            on_failed=self.failures.append,
            start=start,
            on_restart=restarted,
        )
        follower.start()
        self.running.append(follower)
        return source, follower

    def stopped_at(self, log: FakeLog, size: int, witnessed: int) -> FollowerStart:
        """Where a follower of `log` was when it ended."""
        source, follower = self.begin()
        call = source.next_call()
        call.messages.put(log.batch(0, size))
        call.messages.put(log.witnessed(witnessed))
        follower.wait_for(size, SECONDS)
        follower.wait_witnessed(witnessed, SECONDS)
        follower.stop()
        self.taken.clear()
        return follower.position()


@pytest.fixture
def following(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> Iterator[Following]:
    monkeypatch.setattr(follower_module, "FIRST_PAUSE_SECONDS", 0.001)
    made = Following(keys)
    yield made
    for follower in made.running:
        follower.stop()


def test_a_follower_goes_on_where_another_was(following: Following, log: FakeLog) -> None:
    start = following.stopped_at(log, 8, 5)
    source, follower = following.begin(start)
    assert (follower.size, follower.witnessed_size) == (8, 5)
    assert follower.signed == CoveredTree(8, log.tree.root(8), follower.signed.note)
    call = source.next_call()
    # The last entry again: with it comes the checkpoint that says so.
    assert call.first_index == 7
    call.messages.put(log.batch(7, 10))
    follower.wait_for(10, SECONDS)
    call.messages.put(log.batch(10, 12))
    call.messages.put(log.witnessed(11))
    follower.wait_witnessed(11, SECONDS)
    assert following.taken == [8, 9, 10, 11]
    assert follower.signed.root == log.tree.root(12)
    assert following.restarts == 0
    # From here on it asks like any other.
    call.messages.put(None)
    assert source.next_call().first_index == 12


def test_the_position_is_the_same_whichever_way_it_was_reached(following: Following, log: FakeLog) -> None:
    at_once = following.stopped_at(log, 12, 12)
    source, follower = following.begin(following.stopped_at(log, 8, 5))
    call = source.next_call()
    call.messages.put(log.batch(7, 12))
    call.messages.put(log.witnessed(12))
    follower.wait_witnessed(12, SECONDS)
    follower.stop()
    reached = follower.position()
    assert (reached.hashes, reached.chain) == (at_once.hashes, at_once.chain)
    assert (reached.signed.tree_size, reached.signed.root) == (12, log.tree.root(12))


def test_a_position_is_whole_whenever_it_is_offered(following: Following, log: FakeLog) -> None:
    following.stopped_at(log, 8, 5)
    assert [position.signed.tree_size for position in following.positions] == [8, 8]
    assert [position.witnessed.tree_size for position in following.positions] == [0, 5]
    for position in following.positions:
        assert position.chain.streams == {"segment/north": (4, position.chain.streams["segment/north"][1]),
                                          "identity": (4, log.tree.leaf(7))}  # fmt: skip
        assert position.chain.prev == log.tree.leaf(7)
        open_start(position, ORIGIN, following.keys.policy())


def test_nothing_is_agreed_before_the_log_has_signed_for_it(following: Following, log: FakeLog) -> None:
    source, follower = following.begin(following.stopped_at(log, 8, 5))
    call = source.next_call()
    call.messages.put(log.witnessed(5))
    call.messages.put(FollowBatch(7, (log.entries[7],), b""))
    with pytest.raises(UnavailableError):
        follower.wait_agreed(0.2)
    call.messages.put(FollowBatch(0, (), log.note(8)))
    follower.wait_agreed(SECONDS)
    assert following.taken == []


def test_a_log_with_our_last_entry_is_read_on_at_once_and_any_other_is_held(following: Following, log: FakeLog) -> None:
    start = following.stopped_at(log, 8, 5)
    source, _ = following.begin(start)
    source.next_call().messages.put(log.batch(7, 12, note=False))
    wait_until(lambda: following.taken == [8, 9, 10, 11])
    following.taken.clear()
    other = grown(grown(FakeLog(log.keys), 7), 12, ("segment/south",))
    source, follower = following.begin(start)
    source.next_call().messages.put(other.batch(7, 12, note=False))
    with pytest.raises(UnavailableError):
        follower.wait_agreed(0.1)
    assert following.taken == []


def test_a_log_that_is_behind_what_it_has_signed_is_waited_for(following: Following, log: FakeLog) -> None:
    source, follower = following.begin(following.stopped_at(log, 8, 5))
    call = source.next_call()
    call.messages.put(NotFoundError("the log has not so many entries"))
    again = source.next_call()
    assert again.first_index == 7
    with pytest.raises(UnavailableError):
        follower.wait_agreed(0.1)
    assert (following.restarts, following.failures) == (0, [])


@pytest.mark.parametrize("size", [8, 9, 12])
@pytest.mark.parametrize("fork", [0, 3, 7])
def test_another_history_after_a_restart_contradicts_the_note_that_we_hold(
    fork: int, size: int, following: Following, log: FakeLog
) -> None:
    start = following.stopped_at(log, 8, 5)
    other = grown(grown(FakeLog(log.keys), fork), 12, ("segment/south",))
    source, follower = following.begin(start)
    note = other.note(size)
    source.next_call().messages.put(FollowBatch(7, tuple(other.entries[7:size]), note))
    with pytest.raises(ConsistencyError) as caught:
        follower.wait_agreed(SECONDS)
    assert (caught.value.older, caught.value.newer) == (start.signed.note, note)
    assert (following.taken, following.restarts) == ([], 0)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda start: replace(start.chain, prev=Digest(bytes(32))),
        lambda start: replace(start.chain, log_time_us=2**62),
        lambda start: replace(start.chain, streams={}),
    ],
)
def test_a_start_that_does_not_fit_is_thrown_away_and_everything_comes_anew(
    spoil: Callable[[FollowerStart], object], following: Following, log: FakeLog
) -> None:
    start = following.stopped_at(log, 8, 5)
    source, follower = following.begin(replace(start, chain=spoil(start)))  # type: ignore[arg-type]
    source.next_call().messages.put(log.batch(7, 12))
    call = source.next_call()
    assert call.first_index == 0
    assert (follower.size, follower.witnessed_size, following.restarts) == (0, 0, 1)
    call.messages.put(log.batch(0, 12))
    follower.wait_for(12, SECONDS)
    assert following.taken == list(range(12))
    # A second time it is the log's fault.
    log.append(alter=lambda entry: replace(entry, prev=Digest(bytes(32))))
    call.messages.put(log.batch(12, 13))
    with pytest.raises(VerificationError):
        follower.wait_for(13, SECONDS)
    assert following.restarts == 1


def test_after_the_log_has_agreed_what_does_not_fit_is_its_own_fault(following: Following, log: FakeLog) -> None:
    source, follower = following.begin(following.stopped_at(log, 8, 5))
    call = source.next_call()
    call.messages.put(log.batch(7, 8))
    follower.wait_agreed(SECONDS)
    call.messages.put(log.batch(8, 12, note=False))
    log.append(alter=lambda entry: replace(entry, log_time_us=1))
    call.messages.put(log.batch(12, 13))
    with pytest.raises(VerificationError):
        follower.wait_for(13, SECONDS)
    assert following.restarts == 0


def test_a_checkpoint_from_before_the_start_gives_nothing(following: Following, log: FakeLog) -> None:
    source, follower = following.begin(following.stopped_at(log, 8, 5))
    call = source.next_call()
    call.messages.put(log.witnessed(7))
    call.messages.put(FollowBatch(0, (), log.keys.note(6, sha256(b"another root"), witnessed=True)))
    call.messages.put(log.batch(7, 9))
    follower.wait_for(9, SECONDS)
    assert follower.witnessed_size == 5
    call.messages.put(log.witnessed(8))
    follower.wait_witnessed(8, SECONDS)


def test_a_fault_behind_a_follower_that_goes_on_ends_the_following(
    following: Following, log: FakeLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = following.stopped_at(log, 8, 5)

    def broken() -> None:
        raise RuntimeError("bug")

    source = Source()
    follower = LogFollower(
        source, origin=ORIGIN, policy=log.keys.policy(), on_entry=lambda *entry: None, start=start, on_covered=broken
    )
    follower.start()
    source.next_call().messages.put(log.batch(7, 9))
    with pytest.raises(UncertainStateError):
        follower.wait_for(10, SECONDS)
    follower.stop()


# A log that forks after our restart


@pytest.mark.parametrize("bad", ["a garbage note", "a garbage entry"])
@pytest.mark.parametrize("fork", [0, 3, 7])
def test_a_bad_message_does_not_make_us_forget_what_the_log_has_signed(
    following: Following, log: FakeLog, fork: int, bad: str
) -> None:
    start = following.stopped_at(log, 8, 5)
    other = grown(grown(FakeLog(log.keys), fork), 12, ("segment/south",))
    source, follower = following.begin(start)
    call = source.next_call()
    call.messages.put(
        FollowBatch(7, (log.entries[7],), b"garbage")
        if bad == "a garbage note"
        else FollowBatch(7, (log.entries[7], b"\xff"), b"")
    )
    call = source.next_call()
    assert call.first_index == 0
    call.messages.put(other.batch(0, 12))
    with pytest.raises(ConsistencyError) as found:
        follower.wait_agreed(SECONDS)
    assert found.value.older == start.signed.note


def test_a_log_that_comes_to_less_than_it_has_signed_has_not_agreed(following: Following, log: FakeLog) -> None:
    start = following.stopped_at(log, 8, 5)
    source, follower = following.begin(start)
    source.next_call().messages.put(FollowBatch(7, (log.entries[7],), b"garbage"))
    call = source.next_call()
    call.messages.put(log.batch(0, 6))
    with pytest.raises(UnavailableError):
        follower.wait_agreed(0.3)
    call.messages.put(log.batch(6, 8))
    follower.wait_agreed(SECONDS)
    assert follower.signed.root == start.signed.root


# What is no start


def refuses(kind: type[SfrlError], start: FollowerStart, keys: Keys, origin: str = ORIGIN) -> None:
    with pytest.raises(kind):
        open_start(start, origin, keys.policy())


def test_a_start_is_held_to_the_notes_that_it_names(following: Following, keys: Keys, log: FakeLog) -> None:
    start = following.stopped_at(log, 8, 5)
    frontier, witnessed = open_start(start, ORIGIN, keys.policy())
    assert (frontier.root(), witnessed) == (log.tree.root(8), start.witnessed)
    signed = start.signed
    refuses(MalformedError, replace(start, hashes=()), keys)
    refuses(VerificationError, replace(start, hashes=(sha256(b"another"),)), keys)
    refuses(VerificationError, replace(start, signed=replace(signed, root=sha256(b"another"))), keys)
    refuses(VerificationError, replace(start, signed=replace(signed, note=log.note(7))), keys)
    refuses(MalformedError, replace(start, signed=replace(signed, note=b"")), keys)
    refuses(SignatureError, replace(start, signed=replace(signed, note=signed.note.replace(b"\n8\n", b"\n9\n"))), keys)
    refuses(VerificationError, start, keys, "other.example/sfrl/00112233445566778899aabbccddeeff")
    refuses(SignatureError, start, Keys())
    refuses(VerificationError, replace(start, witnessed=replace(start.witnessed, tree_size=6)), keys)
    ahead = CoveredTree(9, log.tree.root(9), log.note(9, witnessed=True))
    refuses(VerificationError, replace(start, witnessed=ahead), keys)
    refuses(MalformedError, FollowerStart((), start.chain, CoveredTree(), CoveredTree()), keys)
    empty = CoveredTree(0, EMPTY_ROOT, keys.note(0, EMPTY_ROOT))
    refuses(MalformedError, FollowerStart((), start.chain, empty, CoveredTree()), keys)


def test_what_todays_quorum_or_keys_have_not_signed_is_not_witnessed(following: Following, log: FakeLog) -> None:
    start = following.stopped_at(log, 8, 5)
    policy, newer = log.keys.policy(), Keys()
    first = policy.logs[0].keys
    rotated = replace(policy, logs=(TrustedLog(ORIGIN, (*first, newer.signer.key, newer.cosigner.key)),))
    assert open_start(start, ORIGIN, rotated)[1] == CoveredTree()
    others = replace(policy, witnesses=newer.policy().witnesses)
    assert open_start(start, ORIGIN, others)[1] == CoveredTree()
    unwitnessed = replace(start, witnessed=CoveredTree())
    assert open_start(unwitnessed, ORIGIN, policy)[1] == CoveredTree()
