"""The log over the network: where its checkpoint comes from, and who is asked again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sfrl_secure.audit import remote_log
from sfrl_secure.audit.remote_log import RemoteLog, RemoteObjects
from sfrl_secure.errors import DigestError, MissingEvidenceError, NotFoundError, UnavailableError
from sfrl_secure.ids import sha256
from sfrl_secure.wire.audit_service import FollowBatch

ADDRESS = "log.example:7000"


class Client:
    """A log of `size` entries whose note comes behind them."""

    def __init__(self, size: int, *, note: bytes = b"witnessed", fails: bool = False) -> None:
        self.size, self.note, self.fails = size, note, fails
        self.asked: list[int] = []
        self.cancelled = 0

    def follow(self, first_index: int, *, deadline_seconds: float) -> Client:
        self.asked.append(first_index)
        self._first = first_index
        return self

    def __iter__(self) -> Iterator[FollowBatch]:
        if self._first > self.size:
            raise NotFoundError("the log has not so many entries")
        if self._first < self.size:
            yield FollowBatch(self._first, (b"entry",) * (self.size - self._first), b"signed only")
        if self.fails:
            raise UnavailableError("at 10.0.0.1:443")
        if self.note:
            yield FollowBatch(0, (), self.note)

    def cancel(self) -> None:
        self.cancelled += 1

    def read_bundle(self, index: int, width: int) -> bytes:
        return b"%d %d" % (index, width)


def test_without_an_address_the_witnessed_note_comes_behind_the_entries_that_are_new() -> None:
    client: Any = Client(9)
    assert RemoteLog(client, ADDRESS).newest_checkpoint(7) == b"witnessed"
    assert (client.asked, client.cancelled) == ([7], 1)


def test_of_a_log_that_has_shrunk_the_note_is_asked_for_from_its_beginning() -> None:
    client: Any = Client(3)
    assert RemoteLog(client, ADDRESS).newest_checkpoint(7) == b"witnessed"
    assert (client.asked, client.cancelled) == ([7, 0], 2)


def test_no_note_is_no_checkpoint() -> None:
    client: Any = Client(3, note=b"")
    with pytest.raises(MissingEvidenceError):
        RemoteLog(client, ADDRESS).newest_checkpoint(0)
    client = Client(3, fails=True)
    with pytest.raises(UnavailableError, match=r"the audit log at log\.example:7000 does not answer, or no quorum"):
        RemoteLog(client, ADDRESS).newest_checkpoint(0)
    assert client.cancelled == 1


def test_with_an_address_the_log_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    client: Any = Client(3)
    monkeypatch.setattr(remote_log, "read_public_checkpoint", lambda url: f"from {url}".encode())
    log = RemoteLog(client, ADDRESS, "http://log.example")
    assert log.newest_checkpoint(1) == b"from http://log.example"
    assert client.asked == []
    assert log.read_bundle(4, 5) == b"4 5"


def test_an_object_is_asked_for_again_while_nobody_answers_and_no_longer() -> None:
    class Gatekeeper:
        failures: list[Exception]
        signed: list[bytes]

        def fetch_object(self, digest: bytes, bytes_max: int, *, sign: Any) -> bytes:
            self.signed.append(sign(digest))
            if self.failures:
                raise self.failures.pop(0)
            return b"object"

    client: Any = Gatekeeper()
    client.failures, client.signed = [UnavailableError("away"), UnavailableError("away")], []
    times = iter(range(9))

    def sign(digest: bytes) -> bytes:
        return b"%d " % next(times) + digest

    assert RemoteObjects(client, [ADDRESS, "b:2"], sign).fetch_object(sha256(b"object"), 9) == b"object"
    # A request is good for a minute: each attempt has its own.
    assert client.signed == [b"%d " % at + sha256(b"object") for at in range(3)]
    client.failures = [DigestError("others"), UnavailableError("not reached")]
    with pytest.raises(DigestError):
        RemoteObjects(client, [ADDRESS, "b:2"], sign).fetch_object(sha256(b"object"), 9)
    assert len(client.failures) == 1


def test_who_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Away:
        def read_bundle(self, index: int, width: int) -> bytes:
            raise UnavailableError("failed to connect")

        def fetch_object(self, digest: bytes, bytes_max: int, *, sign: Any) -> bytes:
            raise UnavailableError("failed to connect")

    monkeypatch.setattr(remote_log, "RETRY_SECONDS", 0.0)
    client: Any = Away()
    with pytest.raises(UnavailableError, match=r"^the audit log at log\.example:7000 does not answer$"):
        RemoteLog(client, ADDRESS).read_bundle(0, 1)
    with pytest.raises(UnavailableError, match=r"^no gatekeeper answers: log\.example:7000, b:2$"):
        RemoteObjects(client, [ADDRESS, "b:2"], lambda digest: digest).fetch_object(sha256(b"object"), 9)
