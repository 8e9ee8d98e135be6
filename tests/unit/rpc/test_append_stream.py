"""The client's side of StreamEntries, against a server that answers as it is told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from sfrl_secure.crypto.envelope import Envelope, Signature
from sfrl_secure.errors import DeniedError, ExhaustedError, MalformedError, NotFoundError, SfrlError, UnavailableError
from sfrl_secure.ids import Digest
from sfrl_secure.rpc.append_stream import UNANSWERED_MAX, AppendStream
from sfrl_secure.rpc.clients import AuditLogClient
from sfrl_secure.rpc.server import Method
from sfrl_secure.rpc.status import refusal_of
from sfrl_secure.translog.entries import LoggedEntry
from sfrl_secure.translog.tiles import BUNDLE_BYTES_MAX
from sfrl_secure.wire import audit_service, log_reads
from sfrl_secure.wire.append_entries import EntriesAnswer, encode_entries_response, parse_entries_request
from sfrl_secure.wire.audit_service import AppendedEntry

ROLES = frozenset({"participant"})
DIGEST = Digest(bytes(32))
SECONDS = 10.0


def envelope(statement: bytes) -> Envelope:
    return Envelope("application/vnd.sfrl.statement.v1", statement, (Signature(DIGEST, "ed25519", bytes(64)),))


def answer_to(request: bytes) -> bytes:
    """Log every envelope but those that say `no`."""
    results = tuple(
        refusal_of(DeniedError("threshold", "two operators sign"))
        if isinstance(each, MalformedError) or each.statement == b"no"
        else LoggedEntry(len(each.statement), each.statement, ())
        for each in parse_entries_request(request)
    )
    return encode_entries_response(EntriesAnswer(results, b"note"))


def answer_all(requests: Iterator[bytes], context: object) -> Iterator[bytes]:
    for request in requests:
        yield answer_to(request)


Serve = Callable[..., AuditLogClient]


@pytest.fixture
def serve(site: Any) -> Serve:
    def serve(path: str, behaviour: Any, **flags: bool) -> AuditLogClient:
        site.tls = site.server_tls("service/audit_log/l1")
        server = site.serve(Method(path, behaviour, ROLES, **flags))
        return AuditLogClient(site.channel(server, site.known("participant/rover-7"), role="audit_log"))

    return serve


@pytest.fixture
def stream_of(serve: Serve) -> Iterator[Callable[[Any], AppendStream]]:
    opened: list[AppendStream] = []

    def open_stream(behaviour: Any) -> AppendStream:
        opened.append(serve(audit_service.STREAM_ENTRIES, behaviour, is_stream=True, takes_stream=True).open_stream())
        return opened[-1]

    yield open_stream
    for stream in opened:
        stream.close(timeout_seconds=0.1)


def test_answers_belong_to_the_requests_in_their_order(stream_of: Any) -> None:
    with stream_of(answer_all) as stream:
        futures = [stream.submit([envelope(b"x" * size), envelope(b"no")]) for size in range(1, 40)]
        for size, future in enumerate(futures, 1):
            logged, refused = future.result(SECONDS)
            assert logged == AppendedEntry(LoggedEntry(size, b"x" * size, ()), b"note")
            assert isinstance(refused, DeniedError)
            assert (refused.reason, str(refused)) == ("threshold", "two operators sign")


def test_many_requests_are_under_way_before_the_first_is_answered(stream_of: Any) -> None:
    seen = threading.Barrier(2)

    def answer_late(requests: Iterator[bytes], context: object) -> Iterator[bytes]:
        taken = [next(requests) for _ in range(8)]
        seen.wait(SECONDS)
        yield from map(answer_to, taken)

    stream = stream_of(answer_late)
    futures = [stream.submit([envelope(b"one")]) for _ in range(8)]
    assert not any(future.done() for future in futures)
    seen.wait(SECONDS)
    assert all(future.result(SECONDS) for future in futures)


def test_closing_takes_the_answers_that_are_due(stream_of: Any) -> None:
    stream = stream_of(answer_all)
    futures = [stream.submit([envelope(b"one")]) for _ in range(20)]
    stream.close()
    assert all(future.done() and future.exception() is None for future in futures)
    with pytest.raises(UnavailableError, match="closed"):
        stream.submit([envelope(b"one")])


def test_closing_does_not_wait_for_ever(stream_of: Any) -> None:
    release = threading.Event()

    def hold(requests: Iterator[bytes], context: object) -> Iterator[bytes]:
        release.wait(SECONDS)
        yield from ()

    stream = stream_of(hold)
    future = stream.submit([envelope(b"one")])
    stream.close(timeout_seconds=0.1)
    release.set()
    assert isinstance(future.exception(SECONDS), UnavailableError)


@pytest.mark.parametrize("error", [DeniedError("unknown_identity", "gone"), UnavailableError("stopping")])
def test_when_the_stream_ends_all_that_is_under_way_fails_with_its_error(stream_of: Any, error: SfrlError) -> None:
    def end(requests: Iterator[bytes], context: object) -> Iterator[bytes]:
        yield answer_to(next(requests))
        next(requests)
        raise error

    stream = stream_of(end)
    first, *others = [stream.submit([envelope(b"one")]) for _ in range(3)]
    assert first.result(SECONDS)
    for future in others:
        assert str(future.exception(SECONDS)) == str(error)
    with pytest.raises(type(error), match=str(error)):
        stream.submit([envelope(b"one")])


def test_an_end_without_an_error_is_one_for_what_is_under_way(stream_of: Any) -> None:
    def end(requests: Iterator[bytes], context: object) -> Iterator[bytes]:
        next(requests)
        yield from ()

    future = stream_of(end).submit([envelope(b"one")])
    assert isinstance(future.exception(SECONDS), UnavailableError)


@pytest.mark.parametrize(
    "wrong",
    [
        b"\xff",
        encode_entries_response(EntriesAnswer((LoggedEntry(1, b"x", ()),) * 2, b"note")),
    ],
)
def test_an_answer_that_is_none_ends_the_stream(stream_of: Any, wrong: bytes) -> None:
    def lie(requests: Iterator[bytes], context: object) -> Iterator[bytes]:
        for _ in requests:
            yield wrong

    stream = stream_of(lie)
    future: Future[Any] = stream.submit([envelope(b"one")])
    assert isinstance(future.exception(SECONDS), MalformedError)
    with pytest.raises(MalformedError):
        stream.submit([envelope(b"one")])


def test_an_answer_that_nobody_asked_for_ends_the_stream(stream_of: Any) -> None:
    def volunteer(requests: Iterator[bytes], context: object) -> Iterator[bytes]:
        yield answer_to(next(requests))
        yield encode_entries_response(EntriesAnswer((LoggedEntry(1, b"x", ()),), b"note"))
        next(requests, None)

    stream = stream_of(volunteer)
    assert stream.submit([envelope(b"one")]).result(SECONDS)
    stream._reader.join(SECONDS)
    with pytest.raises(MalformedError, match="not asked"):
        stream.submit([envelope(b"one")])


def test_what_is_without_an_answer_is_bounded(stream_of: Any) -> None:
    release = threading.Event()

    def answer_at_last(requests: Iterator[bytes], context: object) -> Iterator[bytes]:
        release.wait(SECONDS)
        yield from map(answer_to, requests)

    stream = stream_of(answer_at_last)
    futures = [stream.submit([envelope(b"one")]) for _ in range(UNANSWERED_MAX)]
    with pytest.raises(ExhaustedError):
        stream.submit([envelope(b"one")], timeout_seconds=0.05)
    release.set()
    assert stream.submit([envelope(b"one")], timeout_seconds=SECONDS).result(SECONDS)
    assert all(future.done() for future in futures)


def test_what_was_sent_cannot_be_called_back(stream_of: Any) -> None:
    stream = stream_of(answer_all)
    future = stream.submit([envelope(b"one")])
    assert not future.cancel()
    assert future.result(SECONDS)


def test_more_than_a_message_takes_is_refused_and_the_stream_goes_on(stream_of: Any) -> None:
    stream = stream_of(answer_all)
    for wrong in ([], [envelope(b"x")] * 257):
        with pytest.raises(MalformedError):
            stream.submit(wrong)
    assert stream.submit([envelope(b"x")]).result(SECONDS)


# The batch in one call, proofs and bundles


def test_a_batch_is_appended_in_one_call_and_tried_again(serve: Serve) -> None:
    tries: list[bytes] = []

    def append(request: bytes, context: object) -> bytes:
        tries.append(request)
        if len(tries) < 3:
            raise UnavailableError("starting")
        return answer_to(request)

    client = serve(audit_service.APPEND_ENTRIES, append)
    logged, refused = client.append_all([envelope(b"one"), envelope(b"no")])
    assert logged == AppendedEntry(LoggedEntry(3, b"one", ()), b"note")
    assert isinstance(refused, DeniedError)
    assert len(set(tries)) == 1
    assert len(tries) == 3


def test_a_batch_is_not_answered_for_another(serve: Serve) -> None:
    client = serve(audit_service.APPEND_ENTRIES, lambda request, context: answer_to(request))
    assert len(client.append_all([envelope(b"one")])) == 1
    short = encode_entries_response(EntriesAnswer((LoggedEntry(1, b"x", ()),), b"note"))
    client = serve(audit_service.APPEND_ENTRIES, lambda request, context: short)
    with pytest.raises(MalformedError):
        client.append_all([envelope(b"one"), envelope(b"two")])


def test_entries_are_proven_in_the_order_in_which_they_were_asked_for(serve: Serve) -> None:
    def prove(request: bytes, context: object) -> Iterator[bytes]:
        asked = log_reads.parse_prove_request(request)
        if asked.tree_size > 100:
            raise NotFoundError("not so many")
        for index in asked.indices:
            yield log_reads.encode_prove_response(LoggedEntry(index, b"entry %d" % index, (DIGEST,)))

    client = serve(audit_service.PROVE_ENTRIES, prove, is_stream=True)
    assert client.prove([3, 5], 9) == (LoggedEntry(3, b"entry 3", (DIGEST,)), LoggedEntry(5, b"entry 5", (DIGEST,)))
    with pytest.raises(NotFoundError):
        client.prove([3], 101)
    with pytest.raises(MalformedError):
        client.prove([5, 3], 9)


@pytest.mark.parametrize("indices", [(3,), (3, 6), (5, 3), (3, 5, 7), ()])
def test_proofs_of_other_entries_are_not_taken(serve: Serve, indices: tuple[int, ...]) -> None:
    def prove(request: bytes, context: object) -> Iterator[bytes]:
        for index in indices:
            yield log_reads.encode_prove_response(LoggedEntry(index, b"entry", ()))

    with pytest.raises(MalformedError):
        serve(audit_service.PROVE_ENTRIES, prove, is_stream=True).prove([3, 5], 9)


def test_a_bundle_comes_in_chunks_and_is_bounded(serve: Serve) -> None:
    chunks = [b"one", b"two"]

    def read(request: bytes, context: object) -> Iterator[bytes]:
        asked = log_reads.parse_bundle_request(request)
        assert (asked.index, asked.width) == (7, 256)
        yield from map(log_reads.encode_bundle_chunk, chunks)

    client = serve(audit_service.READ_ENTRY_BUNDLE, read, is_stream=True)
    assert client.read_bundle(7, 256) == b"onetwo"
    mebibytes = BUNDLE_BYTES_MAX // 2**20
    chunks[:] = [bytes(2**20)] * (mebibytes + 1)
    with pytest.raises(MalformedError, match=str(BUNDLE_BYTES_MAX)):
        client.read_bundle(7, 256)
    with pytest.raises(MalformedError):
        client.read_bundle(7, 0)
