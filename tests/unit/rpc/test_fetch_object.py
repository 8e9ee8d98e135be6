"""FetchObject from the caller's side: bounded and hashed while it arrives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sfrl_secure.crypto.envelope import Envelope, sign_envelope, verify_single
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.errors import DeniedError, DigestError, MalformedError, NotFoundError
from sfrl_secure.governance.statements import OBJECT_REQUEST_TYPE, ObjectRequest
from sfrl_secure.ids import Digest, parse_spiffe_id, sha256
from sfrl_secure.rpc.clients import GatekeeperClient
from sfrl_secure.rpc.server import Method
from sfrl_secure.wire import gatekeeper_service
from sfrl_secure.wire.participants import encode_object_request

OBJECT = b"an object of three chunks"
DIGEST = sha256(OBJECT)
AUDITING = frozenset({"auditor", "verifier"})


READER = SigningKey.generate("ed25519")


def sign(digest: Digest) -> Envelope:
    """What a reader signs for an object; who it is the gatekeeper asks, and not this transport."""
    request = ObjectRequest(
        federation_id=sha256(b"federation"),
        reader=parse_spiffe_id("spiffe://farm_1.example/auditor/eve"),
        key_id=READER.public_key.key_id,
        digest=digest,
        created_us=1,
    )
    return sign_envelope(OBJECT_REQUEST_TYPE, encode_object_request(request), [READER])


@pytest.fixture
def chunks() -> list[bytes]:
    """What the server sends."""
    return [OBJECT[:9], OBJECT[9:20], OBJECT[20:]]


@pytest.fixture
def server(site: Any, chunks: list[bytes]) -> Any:
    def fetch(request: bytes, context: object) -> Iterator[bytes]:
        asked = gatekeeper_service.parse_object_request(request)
        verify_single(asked.envelope, READER.public_key)
        if asked.digest != DIGEST:
            raise NotFoundError("no object of this digest is stored")
        for chunk in chunks:
            yield gatekeeper_service.encode_object_chunk(chunk)

    return site.serve(Method(gatekeeper_service.FETCH_OBJECT, fetch, AUDITING, is_stream=True))


@pytest.fixture
def client(site: Any, server: Any) -> GatekeeperClient:
    return GatekeeperClient(site.channel(server, site.known("auditor/eve")))


def test_an_object_comes_whole(client: GatekeeperClient) -> None:
    assert client.fetch_object(DIGEST, len(OBJECT), sign=sign) == OBJECT


def test_a_verifier_may_fetch_too(site: Any, server: Any) -> None:
    client = GatekeeperClient(site.channel(server, site.known("service/verifier/v1")))
    assert client.fetch_object(DIGEST, len(OBJECT), sign=sign) == OBJECT


@pytest.mark.parametrize("path", ["participant/r1", "operator/ann", "service/aggregator/a1", "service/gatekeeper/g2"])
def test_nobody_else_may(site: Any, server: Any, path: str) -> None:
    client = GatekeeperClient(site.channel(server, site.known(path)))
    with pytest.raises(DeniedError) as refused:
        client.fetch_object(DIGEST, 100, sign=sign)
    assert refused.value.reason == "role"


def test_one_byte_too_many_ends_it(client: GatekeeperClient) -> None:
    with pytest.raises(MalformedError, match=f"longer than {len(OBJECT) - 1} bytes"):
        client.fetch_object(DIGEST, len(OBJECT) - 1, sign=sign)


@pytest.mark.parametrize("change", [lambda sent: sent[:-1], lambda sent: [sent[1], sent[0], sent[2]], lambda sent: []])
def test_other_bytes_are_not_given_on(client: GatekeeperClient, chunks: list[bytes], change: Any) -> None:
    chunks[:] = change(list(chunks))
    with pytest.raises(DigestError):
        client.fetch_object(DIGEST, 100, sign=sign)


def test_what_is_not_stored_is_not_found(client: GatekeeperClient) -> None:
    with pytest.raises(NotFoundError, match="no object of this digest"):
        client.fetch_object(sha256(b"another"), 100, sign=sign)


def test_each_object_is_signed_for(client: GatekeeperClient) -> None:
    signed: list[Digest] = []

    def noted(digest: Digest) -> Envelope:
        signed.append(digest)
        return sign(digest)

    for _ in range(2):
        client.fetch_object(DIGEST, len(OBJECT), sign=noted)
    assert signed == [DIGEST, DIGEST]
    # What was signed for another object is not even sent.
    with pytest.raises(MalformedError, match="another object"):
        client.fetch_object(DIGEST, len(OBJECT), sign=lambda _digest: sign(sha256(b"another")))


def test_chunks_go_there_and_back_and_nothing_else_is_taken() -> None:
    for chunk in (b"", bytes(2**20 + 1)):
        with pytest.raises(MalformedError):
            gatekeeper_service.encode_object_chunk(chunk)
    with pytest.raises(MalformedError):
        gatekeeper_service.parse_object_chunk(b"")
