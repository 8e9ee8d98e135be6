"""FetchObject: what lies under a digest, for whoever audits, in bounded chunks, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from simulator import Simulator, auditor_id, participant_id, service_id

from sfrl_secure.crypto.envelope import sign_envelope
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.errors import DeniedError, DigestError, ExhaustedError, MalformedError, NotFoundError
from sfrl_secure.governance.statements import OBJECT_REQUEST_TYPE, ObjectRequest, PeerClass
from sfrl_secure.ids import Digest, SpiffeId, sha256
from sfrl_secure.limits import CHUNK_BYTES_MAX, OBJECT_BYTES_MAX
from sfrl_secure.rpc.identity import Peer, record_peer
from sfrl_secure.services.gatekeeper.bounds import FETCHES_AT_ONCE_MAX
from sfrl_secure.services.gatekeeper.object_requests import FRESH_US, check_object_request
from sfrl_secure.wire import gatekeeper_service as wire
from sfrl_secure.wire.participants import encode_object_request

IRIS = auditor_id("iris")


class Calling:
    """Stands where gRPC's context stands."""

    def __init__(self, who: SpiffeId) -> None:
        record_peer(self, Peer(who, 7, sha256(who.encode())))  # type: ignore[arg-type]


def signed_for(sim: Simulator, digest: bytes, **changes: Any) -> bytes:
    """The auditor's request for an object; `key` and `sent` change who signs and what is asked for."""
    key = changes.pop("key", sim.auditors[IRIS])
    sent = changes.pop("sent", digest)
    fields: dict[str, Any] = {
        "federation_id": sim.state.federation_id,
        "reader": IRIS,
        "key_id": sim.auditors[IRIS].public_key.key_id,
        "digest": Digest(digest),
        "created_us": sim.clock.now_us(),
    }
    raw = encode_object_request(ObjectRequest(**fields | changes))
    return wire.encode_object_request(Digest(sent), sign_envelope(OBJECT_REQUEST_TYPE, raw, [key]))


@pytest.fixture
def gatekeeper(sim: Simulator) -> Any:
    return sim.gatekeeper()


@pytest.fixture
def fetch(sim: Simulator, gatekeeper: Any) -> Any:
    def chunks(digest: bytes, who: SpiffeId = IRIS, **changes: Any) -> Iterator[bytes]:
        context: Any = Calling(who)
        answers = gatekeeper.servicer.fetch_object(signed_for(sim, digest, **changes), context)
        return map(wire.parse_object_chunk, answers)

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
    context: Any = Calling(IRIS)
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
    opened = sim.objects.open

    def bounded(digest: Digest, bytes_max: int) -> Any:
        asked.append(bytes_max)
        return opened(digest, bytes_max)

    digest = sim.objects.put(b"one")
    monkeypatch.setattr(sim.objects, "open", bounded)
    list(fetch(digest))
    assert asked == [OBJECT_BYTES_MAX]


STRANGER = SigningKey.generate("ed25519")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"federation_id": sha256(b"another")}, "wrong_federation"),
        ({"reader": auditor_id("other")}, "wrong_peer"),
        ({"who": auditor_id("other")}, "wrong_peer"),
        ({"who": service_id("verifier", "v1")}, "wrong_peer"),
        # Whatever key the request names, it is not the reader's.
        ({"key": STRANGER}, "bad_signature"),
        ({"key": STRANGER, "key_id": STRANGER.public_key.key_id}, "bad_signature"),
        ({"late": -FRESH_US - 1}, "request_stale"),
        ({"late": FRESH_US + 1}, "request_stale"),
    ],
)
def test_a_certificate_alone_reads_nothing(
    sim: Simulator, gatekeeper: Any, fetch: Any, change: dict[str, Any], reason: str
) -> None:
    digest = sim.objects.put(b"a payload")
    change = dict(change)
    late = change.pop("late", 0)
    with pytest.raises(DeniedError) as refused:
        list(fetch(digest, created_us=sim.clock.now_us() + late, **change))
    assert refused.value.reason == reason
    counted = gatekeeper.counter.take()
    assert counted is not None
    (row,) = counted.counts
    role = change.get("who", IRIS).role
    assert (row.reason, row.peer_class) == (reason, PeerClass.SERVICE if role == "verifier" else PeerClass.AUDITOR)


@pytest.mark.parametrize("late", [-FRESH_US, FRESH_US])
def test_a_request_is_good_for_a_minute(sim: Simulator, fetch: Any, late: int) -> None:
    digest = sim.objects.put(b"a payload")
    assert list(fetch(digest, created_us=sim.clock.now_us() + late)) == [b"a payload"]


def test_what_was_signed_for_one_object_reads_no_other(sim: Simulator, fetch: Any) -> None:
    digest = sim.objects.put(b"a payload")
    with pytest.raises(MalformedError, match="another object"):
        list(fetch(sha256(b"what was asked for before"), sent=digest))


def test_a_verifier_reads_with_its_own_key(sim: Simulator, fetch: Any) -> None:
    verifier = service_id("verifier", "v1")
    key = sim.keys[verifier]
    digest = sim.objects.put(b"a payload")
    asked = {"who": verifier, "reader": verifier, "key": key, "key_id": key.public_key.key_id}
    assert list(fetch(digest, **asked)) == [b"a payload"]


def test_an_auditor_who_is_no_longer_named_or_whose_document_has_expired_reads_nothing(sim: Simulator) -> None:
    digest = sim.objects.put(b"a payload")
    services = sim.state.services()
    assert services is not None
    now_us = sim.clock.now_us()
    raw = signed_for(sim, digest)
    asked = wire.parse_object_request(raw)
    federation_id = sim.state.federation_id
    check_object_request(asked, IRIS, services, federation_id, now_us)
    for document in (None, replace(services, auditors=()), replace(services, expires_us=now_us)):
        with pytest.raises(DeniedError) as refused:
            check_object_request(asked, IRIS, document, federation_id, now_us)
        assert refused.value.reason == "bad_signature"


def test_participants_have_no_key_there(sim: Simulator, fetch: Any) -> None:
    rover = participant_id("rover-1")
    key = sim.rovers["rover-1"]
    with pytest.raises(DeniedError) as refused:
        list(fetch(sim.objects.put(b"one"), who=rover, reader=rover, key=key, key_id=key.public_key.key_id))
    assert refused.value.reason == "bad_signature"
