"""Uploads over real connections: in order, not more under way than the link carries, on where they broke off."""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sfrl_secure.crypto.envelope import Envelope, Signature
from sfrl_secure.errors import (
    ConflictError,
    DeniedError,
    ExhaustedError,
    MalformedError,
    NotFoundError,
    SfrlError,
    UnavailableError,
)
from sfrl_secure.governance.statements import UPDATE_TYPE, PayloadFormat, UpdateStatement
from sfrl_secure.ids import Digest
from sfrl_secure.participant.gatekeepers import FailoverChannel
from sfrl_secure.rpc.channel import RpcChannel, RpcStream
from sfrl_secure.rpc.pace import FIRST_BYTES
from sfrl_secure.rpc.server import Method
from sfrl_secure.rpc.sources import BytesSource, FileSource
from sfrl_secure.rpc.trying import Patience
from sfrl_secure.rpc.uploads import Uploader
from sfrl_secure.translog.entries import LoggedEntry
from sfrl_secure.wire.audit_service import AppendedEntry
from sfrl_secure.wire.statements import encode_update
from sfrl_secure.wire.uploads import (
    SUBMIT_UPDATE,
    encode_admitted,
    encode_durable,
    encode_upload_start,
    parse_chunk,
    parse_upload_start,
)

ROLES = frozenset({"participant"})
DIGEST = Digest(bytes(range(32)))
ADMITTED = AppendedEntry(LoggedEntry(3, b"entry", (DIGEST,)), b"note")
SECONDS = 20.0
QUICK = Patience(jitter=lambda: 0.5)


def payload_of(length: int) -> bytes:
    return bytes(i * 7 % 251 for i in range(min(length, 2**16))) * (length // 2**16 + 1)


def envelope_of(payload: bytes) -> Envelope:
    update = UpdateStatement(
        federation_id=DIGEST, segment="north", participant="rover-7", key_id=DIGEST, round=1, round_opened=DIGEST,
        base_model=DIGEST, payload_sha256=DIGEST, payload_root=DIGEST, payload_bytes=len(payload), nonzeros=1,
        format=PayloadFormat(2, "free", "int8"), weight=1, created_us=0,
    )  # fmt: skip
    return Envelope(UPDATE_TYPE, encode_update(update), (Signature(DIGEST, "ed25519", bytes(64)),))


@dataclass
class Keeper:
    """A gatekeeper's half, by the letter of the protocol; what is durable outlives calls.

    Attributes:
        refuse: called with what is held, before anything is answered and after each chunk; may raise.
        starts: of each call: how many bytes the first request brought, and how many were held.
    """

    refuse: Callable[[int], None] = lambda held: None
    held: bytearray = field(default_factory=bytearray)
    starts: list[tuple[int, int]] = field(default_factory=list)
    chunks: list[int] = field(default_factory=list)

    def submit(self, requests: Iterator[bytes], context: object) -> Iterator[bytes]:
        start = parse_upload_start(next(requests))
        wanted = start.update.payload_bytes
        self.starts.append((len(start.chunk.data) if start.chunk else 0, len(self.held)))
        self.refuse(len(self.held))
        said, said_at = len(self.held), time.monotonic()
        if len(self.held) < wanted:
            yield encode_durable(said)
        chunk, coming = start.chunk, _coming(requests)
        while len(self.held) < wanted:
            if chunk is not None:
                assert chunk.offset <= len(self.held), "a gap"
                self.chunks.append(len(chunk.data))
                self.held += chunk.data[len(self.held) - chunk.offset :]
                self.refuse(len(self.held))
            due = said_at + 0.2
            if len(self.held) - said >= 2**22 or (said < len(self.held) and time.monotonic() >= due):
                said, said_at = len(self.held), time.monotonic()
                if said < wanted:
                    yield encode_durable(said)
            if len(self.held) < wanted:
                chunk = None
                with suppress(queue.Empty):
                    raw = coming.get(timeout=max(due - time.monotonic(), 0.01) if said < len(self.held) else None)
                    if raw is None:
                        return
                    chunk = parse_chunk(raw)
        yield encode_admitted(ADMITTED)

    @property
    def method(self) -> Method:
        return Method(SUBMIT_UPDATE, self.submit, ROLES, is_stream=True, takes_stream=True)


def _coming(requests: Iterator[bytes]) -> queue.Queue[bytes | None]:
    """What comes, read ahead; None at the end."""
    taken: queue.Queue[bytes | None] = queue.Queue()

    def draw() -> None:
        with suppress(Exception):  # the caller has gone
            for raw in requests:
                taken.put(raw)
        taken.put(None)

    threading.Thread(target=draw, daemon=True).start()
    return taken


class Link:
    """A path to a server that carries so many bytes a second, and can be cut."""

    def __init__(self, port: int, bytes_per_second: float = 0.0) -> None:
        self._port, self._rate = port, bytes_per_second
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self.cuts = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        with self._lock:
            self.cuts += 1
            for each in self._open:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
            self._open.clear()

    def close(self) -> None:
        self._listening.close()
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                # What has left the sender is under way: a buffer of the size of the upload would hide the link.
                near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
                far = socket.create_connection(("127.0.0.1", self._port))
                with self._lock:
                    self._open += [near, far]
                threading.Thread(target=self._carry, args=(near, far, self._rate), daemon=True).start()
                threading.Thread(target=self._carry, args=(far, near, 0.0), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, rate: float) -> None:
        with suppress(OSError):
            while data := source.recv(1_024 if rate else 65_536):
                if rate:
                    time.sleep(len(data) / rate)
                sink.sendall(data)
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


def channel_over(site: Any, port: int, identity: Any = None) -> RpcChannel:
    tls = site.client_tls(identity or site.known("participant/rover-7"))
    channel = RpcChannel(f"127.0.0.1:{port}", role="gatekeeper", trust_domain="farm_1.example", tls=tls)
    site._open.append(channel.close)
    return channel



@pytest.mark.parametrize("length", [0, 1, FIRST_BYTES, FIRST_BYTES + 1, 300_000, 9_000_000])
def test_a_payload_arrives_as_it_is(site: Any, length: int) -> None:
    payload, keeper = payload_of(length)[:length], Keeper()
    channel = channel_over(site, site.serve(keeper.method).port)
    told: list[tuple[int, int]] = []
    uploaded = Uploader(channel, QUICK).send(
        envelope_of(payload), payload, deadline_seconds=SECONDS, on_progress=lambda *now: told.append(now)
    )
    assert (uploaded.admitted, bytes(keeper.held)) == (ADMITTED, payload)
    assert len(keeper.starts) == 1
    assert told == sorted(told)
    assert told[-1] == (length, length)
    overhead = len(encode_upload_start(envelope_of(payload))) + 16 * (len(keeper.chunks) + 1)
    assert length <= uploaded.request_bytes <= length + overhead


def test_a_file_is_sent_from_where_its_payload_begins(site: Any, tmp_path: Path) -> None:
    payload, keeper = payload_of(200_000)[:200_000], Keeper()
    path = tmp_path / "bundle"
    path.write_bytes(b"head" + payload)
    channel = channel_over(site, site.serve(keeper.method).port)
    with FileSource(path, start=4) as source:
        Uploader(channel, QUICK).send(envelope_of(payload), source, deadline_seconds=SECONDS)
    assert bytes(keeper.held) == payload
    with pytest.raises(NotFoundError):
        FileSource(tmp_path / "nothing")
    with pytest.raises(MalformedError, match="before the payload begins"):
        FileSource(path, start=200_005)


def test_a_file_that_becomes_shorter_ends_the_upload(site: Any, tmp_path: Path) -> None:
    path = tmp_path / "payload"
    path.write_bytes(payload_of(2**20))
    keeper = Keeper()

    def shorten(held: int) -> None:
        if held:
            path.write_bytes(b"")

    keeper.refuse = shorten
    channel = channel_over(site, site.serve(keeper.method).port)
    with FileSource(path) as source, pytest.raises(MalformedError, match="shorter"):
        Uploader(channel, QUICK).send(envelope_of(bytes(source.size)), source, deadline_seconds=SECONDS)


def test_a_refusal_in_the_middle_ends_the_upload_at_once(site: Any) -> None:
    payload = payload_of(2**20)

    def refuse(held: int) -> None:
        if held > 100_000:
            raise DeniedError("digest_mismatch", "a part leads elsewhere", entry_index=7)

    keeper = Keeper(refuse)
    channel = channel_over(site, site.serve(keeper.method).port)
    with pytest.raises(DeniedError) as denied:
        Uploader(channel, QUICK).send(envelope_of(payload), payload, deadline_seconds=SECONDS)
    assert (denied.value.reason, denied.value.entry_index) == ("digest_mismatch", 7)
    assert len(keeper.starts) == 1


def test_a_refusal_of_the_header_costs_the_first_chunk_and_no_more(site: Any) -> None:
    payload = payload_of(2**22)

    def refuse(held: int) -> None:
        raise DeniedError("weight_limit", "too much")

    channel = channel_over(site, site.serve(Keeper(refuse).method).port)
    requests: list[int] = []
    exchange = channel.exchange

    def counted(path: str, raw: Iterator[bytes], *, deadline_seconds: float) -> RpcStream:
        def each() -> Iterator[bytes]:
            for one in raw:
                requests.append(len(one))
                yield one

        return exchange(path, each(), deadline_seconds=deadline_seconds)

    channel.exchange = counted  # type: ignore[method-assign]
    with pytest.raises(DeniedError):
        Uploader(channel, QUICK).send(envelope_of(payload), payload, deadline_seconds=SECONDS)
    assert sum(requests) <= FIRST_BYTES + len(encode_upload_start(envelope_of(payload))) + 16


@pytest.mark.parametrize("error", [ConflictError("lost"), ExhaustedError("busy"), UnavailableError("starting")])
def test_what_decides_nothing_is_gone_on_with_and_nothing_is_sent_twice(site: Any, error: SfrlError) -> None:
    payload, broken = payload_of(4_500_000)[:4_500_000], [error, error, error]

    def refuse(held: int) -> None:
        if broken and held > 1_200_000 * (4 - len(broken)):
            raise broken.pop()

    keeper = Keeper(refuse)
    channel = channel_over(site, site.serve(keeper.method).port)
    uploaded = Uploader(channel, QUICK).send(envelope_of(payload), payload, deadline_seconds=SECONDS)
    assert (uploaded.admitted, bytes(keeper.held)) == (ADMITTED, payload)
    # Only who begins sends a chunk before he knows what is there.
    assert [first > 0 for first, _ in keeper.starts] == [True, False, False, False]
    assert [held for _, held in keeper.starts] == sorted({held for _, held in keeper.starts})


def test_what_decides_nothing_is_an_error_at_the_deadline(site: Any) -> None:
    def refuse(held: int) -> None:
        raise ExhaustedError("busy")

    keeper = Keeper(refuse)
    channel = channel_over(site, site.serve(keeper.method).port)
    with pytest.raises(ExhaustedError, match="busy"):
        Uploader(channel, QUICK).send(envelope_of(b"x"), b"x", deadline_seconds=0.5)
    assert 2 <= len(keeper.starts) <= 6


def test_another_process_goes_on_where_one_stopped(site: Any) -> None:
    payload, keeper = payload_of(500_000)[:500_000], Keeper()
    keeper.held += payload[:450_000]
    channel = channel_over(site, site.serve(keeper.method).port)
    uploaded = Uploader(channel, QUICK).send(envelope_of(payload), payload, deadline_seconds=SECONDS)
    assert bytes(keeper.held) == payload
    assert uploaded.request_bytes < 50_000 + FIRST_BYTES + 2_000


@pytest.mark.parametrize("says", [[5, 4], [2**21], [2**20 + 1], [2**20]])
def test_a_gatekeeper_that_says_what_cannot_be_is_left(site: Any, says: list[int]) -> None:
    payload = payload_of(2**20)[: 2**20]

    def submit(requests: Iterator[bytes], context: object) -> Iterator[bytes]:
        next(requests)
        yield encode_durable(0)
        for each in says:
            yield encode_durable(each)

    method = Method(SUBMIT_UPDATE, submit, ROLES, is_stream=True, takes_stream=True)
    channel = channel_over(site, site.serve(method).port)
    uploader = Uploader(channel, QUICK)
    with pytest.raises(MalformedError, match="the gatekeeper says"):
        uploader.send(envelope_of(payload), Slow(payload), deadline_seconds=SECONDS)


class Slow(BytesSource):
    """A payload whose second chunk takes its time."""

    def read(self, offset: int, length: int) -> memoryview:
        if offset:
            time.sleep(0.5)
        return super().read(offset, length)


def test_a_call_over_which_nothing_goes_is_given_up(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfrl_secure.rpc.uploads.SILENCE_SECONDS", 0.3)
    payload, keeper = payload_of(1_000), Keeper()
    calls: list[float] = []

    def submit(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        calls.append(time.monotonic())
        if len(calls) == 1:
            time.sleep(1.5)
        yield from keeper.submit(requests, context)

    method = Method(SUBMIT_UPDATE, submit, ROLES, is_stream=True, takes_stream=True)
    channel = channel_over(site, site.serve(method).port)
    Uploader(channel, QUICK).send(envelope_of(payload), payload, deadline_seconds=SECONDS)
    assert len(calls) == 2
    assert calls[1] - calls[0] < 1.2


def test_the_gatekeeper_that_has_a_part_is_asked_again_and_the_next_where_it_is_away(site: Any) -> None:
    payload, stored = payload_of(400_000)[:400_000], bytearray()
    identity = site.known("participant/rover-7")
    broken = [UnavailableError("a break")]

    def refuse(held: int) -> None:
        if broken and held > 60_000:
            raise broken.pop()

    # Both share a store.
    first, second = Keeper(refuse, held=stored), Keeper(held=stored)
    one, two = site.serve(first.method), site.serve(second.method)
    channel = FailoverChannel([channel_over(site, one.port, identity), channel_over(site, two.port, identity)])
    Uploader(channel, QUICK).send(envelope_of(payload), payload, deadline_seconds=SECONDS)
    assert (len(first.starts), len(second.starts)) == (2, 0)
    one.stop(0)
    stored.clear()
    Uploader(channel, QUICK).send(envelope_of(payload), payload, deadline_seconds=SECONDS)
    assert (len(first.starts), len(second.starts)) == (2, 1)
    assert bytes(stored) == payload


def test_a_slow_link_that_is_cut_loses_a_chunk_a_cut_and_no_more(site: Any) -> None:
    payload, keeper = payload_of(90_000)[:90_000], Keeper()
    link = Link(site.serve(keeper.method).port, bytes_per_second=30_000)
    channel = channel_over(site, link.port)
    marks = [20_000, 40_000, 60_000]

    def told(durable: int, total: int) -> None:
        if marks and durable >= marks[0]:
            marks.pop(0)
            # In the middle of what comes next.
            threading.Timer(0.25, link.cut).start()

    uploaded = Uploader(channel, QUICK).send(
        envelope_of(payload), payload, deadline_seconds=SECONDS, on_progress=told
    )
    cuts = link.cuts
    link.close()
    assert bytes(keeper.held) == payload
    assert len(keeper.starts) >= 3
    message = len(encode_upload_start(envelope_of(payload))) + len(payload)
    # What a chunk is, is what is under way at once: a second or so of the link.
    assert uploaded.request_bytes <= 1.05 * message + cuts * 1.25 * 30_000
    assert max(keeper.chunks) <= 1.25 * 30_000
