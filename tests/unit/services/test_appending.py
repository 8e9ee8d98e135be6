from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from sfrl_secure.clock import SystemClock
from sfrl_secure.crypto.envelope import Envelope
from sfrl_secure.errors import (
    ConflictError,
    DeniedError,
    ExhaustedError,
    MalformedError,
    SfrlError,
    UnavailableError,
    UncertainStateError,
)
from sfrl_secure.governance.statements import PeerClass, RefusalCount
from sfrl_secure.limits import MESSAGE_BYTES_MAX
from sfrl_secure.rounds.refusals import RefusalCounter
from sfrl_secure.rpc.status import error_of_refusal
from sfrl_secure.services.audit_log import appending as module
from sfrl_secure.services.audit_log.appending import Appending
from sfrl_secure.translog.entries import LoggedEntry
from sfrl_secure.wire.append_entries import EntriesAnswer, Refusal, encode_entries_response

from .memory import PEER, Intake, Memory, envelope


@dataclass
class Site:
    memory: Memory = field(default_factory=Memory)
    counter: RefusalCounter = field(default_factory=lambda: RefusalCounter(SystemClock()))

    def __post_init__(self) -> None:
        self.appending = Appending(self.memory, Intake(), self.counter)  # type: ignore[arg-type]

    def append(self, *statements: bytes | MalformedError) -> EntriesAnswer:
        envelopes = [each if isinstance(each, MalformedError) else envelope(each) for each in statements]
        return self.appending.finish(self.appending.submit(self.appending.judge(envelopes, PEER)), PEER)

    def counts(self) -> tuple[RefusalCount, ...]:
        taken = self.counter.take()
        return () if taken is None else taken.counts


@pytest.fixture
def site() -> Site:
    return Site()


def error(result: LoggedEntry | Refusal) -> SfrlError:
    assert isinstance(result, Refusal)
    return error_of_refusal(result)


def test_what_is_refused_keeps_no_neighbour_out(site: Site) -> None:
    site.memory.refuse[b"stale"] = ConflictError("read on", reason="stale", log_size=9)
    answer = site.append(b"one", b"forged", b"stale", MalformedError("no envelope"), b"two")
    one, forged, stale, malformed, two = answer.results
    assert (one, two) == (LoggedEntry(0, b"one", ()), LoggedEntry(2, b"two", ()))
    assert answer.checkpoint == b"note of 3"
    denied, conflict = error(forged), error(stale)
    assert isinstance(denied, DeniedError)
    assert denied.reason == "bad_signature"
    assert isinstance(conflict, ConflictError)
    assert (conflict.reason, conflict.log_size) == ("stale", 9)
    assert isinstance(error(malformed), MalformedError)
    # What was refused before was not even queued; the others went as one group.
    assert site.memory.groups == [[b"one", b"stale", b"two"]]


def test_a_request_of_which_nothing_is_left_asks_the_sequencer_nothing(site: Site) -> None:
    answer = site.append(b"forged", b"foreign")
    assert answer.checkpoint == b""
    assert [type(error(each)) for each in answer.results] == [DeniedError, DeniedError]
    assert site.memory.groups == []


def test_whatever_is_refused_for_good_is_counted(site: Site) -> None:
    site.memory.refuse[b"short"] = DeniedError("threshold", "two sign")
    site.memory.refuse[b"other"] = DeniedError("role", "this writer may not write this kind")
    site.append(b"short", b"foreign", b"short", b"forged", b"other", b"one")
    assert site.counts() == (
        RefusalCount("bad_signature", PeerClass.SERVICE, 1),
        RefusalCount("role", PeerClass.SERVICE, 2),
        RefusalCount("threshold", PeerClass.SERVICE, 2),
    )


def test_one_envelope_alone_is_answered_or_refused_as_the_call(site: Site) -> None:
    appended = site.appending.append(envelope(b"one"), PEER)
    assert (appended.logged, appended.checkpoint) == (LoggedEntry(0, b"one", ()), b"note of 1")
    site.memory.refuse[b"short"] = DeniedError("threshold", "two sign")
    for statement, reason in ((b"short", "threshold"), (b"foreign", "role"), (b"forged", "bad_signature")):
        with pytest.raises(DeniedError) as refused:
            site.appending.append(envelope(statement), PEER)
        assert refused.value.reason == reason
    assert len(site.counts()) == 3


def test_a_log_that_fails_ends_the_call_and_not_one_result(site: Site) -> None:
    site.memory.refuse[b"two"] = UncertainStateError("fsync failed")
    with pytest.raises(UncertainStateError):
        site.append(b"one", b"two")


def test_a_full_queue_and_a_slow_log_are_the_whole_requests(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "APPEND_SECONDS", 0.01)
    site.memory.room = 1
    with pytest.raises(ExhaustedError):
        site.append(b"one", b"two")
    site.memory.holds = True
    with pytest.raises(UnavailableError):
        site.append(b"one")


def test_an_answer_that_would_be_too_long_leaves_entries_to_be_asked_for_again(site: Site) -> None:
    # Entries that are in the log may bear more signatures than the envelopes that ask for them.
    site.memory.grow = lambda statement: statement + bytes(40_000)
    answer = site.append(*(b"%d" % number for number in range(256)))
    assert len(encode_entries_response(answer)) < MESSAGE_BYTES_MAX
    kept = [each for each in answer.results if isinstance(each, LoggedEntry)]
    assert 70 < len(kept) < 80
    assert all(isinstance(error(each), UnavailableError) for each in answer.results[len(kept) :])


def test_what_was_judged_is_the_envelope_that_is_counted(site: Site) -> None:
    digests: list[Any] = []
    site.counter.count = lambda reason, peer_class, digest: digests.append(digest)  # type: ignore[method-assign]
    first: Envelope = envelope(b"foreign")
    for _ in range(2):
        site.appending.judge([first], PEER)
    assert len(digests) == 2
    assert len(set(digests)) == 1
