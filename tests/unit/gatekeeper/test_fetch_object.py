"""FetchObject: what lies under a digest, for whoever audits, in bounded chunks, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from simulator import Context, Simulator

from sfrl_secure.errors import DigestError, ExhaustedError, MalformedError, NotFoundError
from sfrl_secure.ids import Digest, sha256
from sfrl_secure.limits import CHUNK_BYTES_MAX, OBJECT_BYTES_MAX
from sfrl_secure.services.gatekeeper.bounds import FETCHES_AT_ONCE_MAX
from sfrl_secure.wire import gatekeeper_service as wire


@pytest.fixture
def fetch(sim: Simulator) -> Any:
    servicer = sim.gatekeeper().servicer
    context: Any = Context("rover-1")  # The roles are the interceptor's business.

    def chunks(digest: bytes) -> Iterator[bytes]:
        request = wire.encode_object_request(Digest(digest))
        return map(wire.parse_object_chunk, servicer.fetch_object(request, context))

    return chunks


def test_only_auditors_and_verifiers_may_call_it(sim: Simulator) -> None:
    (method,) = (each for each in sim.gatekeeper().servicer.methods() if each.path == wire.FETCH_OBJECT)
    assert method.roles == {"auditor", "verifier"}
    assert method.is_stream


def test_payloads_and_models_come_under_their_digests(sim: Simulator, fetch: Any) -> None:
    sim.open_round()
    sim.admit("rover-1")
    _, update, payload = sim.update("rover-1")
    assert b"".join(fetch(update.payload_sha256)) == payload
    assert sha256(b"".join(fetch(sim.segment.model))) == sim.segment.model


def test_a_long_object_comes_in_chunks(sim: Simulator, fetch: Any) -> None:
    data = bytes(2 * CHUNK_BYTES_MAX + 5)
    chunks = list(fetch(sim.objects.put(data)))
    assert [len(chunk) for chunk in chunks] == [CHUNK_BYTES_MAX, CHUNK_BYTES_MAX, 5]
    assert b"".join(chunks) == data


def test_what_is_not_stored_is_not_found(fetch: Any) -> None:
    with pytest.raises(NotFoundError, match="no object of this digest"):
        list(fetch(sha256(b"never seen")))


def test_damaged_bytes_are_not_given_out(sim: Simulator, fetch: Any) -> None:
    digest = sim.objects.put(b"as it was")
    sim.objects.path(digest).write_bytes(b"as it is.")
    with pytest.raises(DigestError):
        list(fetch(digest))


def test_no_file_beside_the_objects_is_given_out(sim: Simulator, fetch: Any, tmp_path: Path) -> None:
    # A name of another file would have to be a digest: the request has 32 bytes, and nothing else is parsed.
    servicer = sim.gatekeeper().servicer
    context: Any = Context("rover-1")
    longer, more = b"\x0a\x21" + bytes(33), b"\x0a\x20" + bytes(32) + b"\x10\x01"
    for raw in (b"", b"\x0a\x00", b"\x0a\x0c../../secret", longer, more):
        with pytest.raises(MalformedError):
            list(servicer.fetch_object(raw, context))


def test_one_caller_holds_so_many_fetches_and_no_more(sim: Simulator, fetch: Any) -> None:
    digest = sim.objects.put(b"held")
    held = [fetch(digest) for _ in range(FETCHES_AT_ONCE_MAX)]
    for each in held:
        next(each)
    with pytest.raises(ExhaustedError):
        next(fetch(digest))
    list(held[0])
    assert list(fetch(digest)) == [b"held"]


def test_an_object_is_read_within_the_bound_of_all_objects(
    sim: Simulator, fetch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    get = sim.objects.get

    def bounded(digest: Digest, bytes_max: int) -> bytes:
        asked.append(bytes_max)
        return get(digest, bytes_max)

    digest = sim.objects.put(b"one")
    monkeypatch.setattr(sim.objects, "get", bounded)
    list(fetch(digest))
    assert asked == [OBJECT_BYTES_MAX]
