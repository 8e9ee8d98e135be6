from __future__ import annotations

import hashlib
import threading
import time
from dataclasses import replace
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from grpc_health.v1 import health_pb2, health_pb2_grpc

from sfrl_secure.errors import (
    ConflictError,
    DeniedError,
    ExhaustedError,
    MalformedError,
    NotFoundError,
    RoundStateError,
    SfrlError,
    UnavailableError,
    UncertainStateError,
)
from sfrl_secure.governance.statements import PeerClass
from sfrl_secure.ids import parse_spiffe_id
from sfrl_secure.rpc.channel import call_with_retry
from sfrl_secure.rpc.identity import NOBODY, ROLES, DoorTerms, TransportPolicy, peer_of
from sfrl_secure.rpc.server import HEALTH_CHECK, Method
from sfrl_secure.wire.audit_service import (
    APPEND_ENTRY,
    FOLLOW_LOG,
    FollowBatch,
    encode_follow_response,
    parse_follow_request,
)
from sfrl_secure.wire.gen.sfrl.audit.v1 import audit_service_pb2, audit_service_pb2_grpc

ECHO = "/test.Service/Echo"
PARTICIPANTS = frozenset({"participant"})
DEADLINE = 10.0


def echo(roles: frozenset[str] = PARTICIPANTS) -> Method:
    return Method(ECHO, lambda request, context: b"echo " + request, roles)


def method(behaviour: Any, *, is_stream: bool = False) -> Method:
    return Method(ECHO, behaviour, PARTICIPANTS, is_stream)


def certificate_digest(chain: bytes) -> bytes:
    der = x509.load_pem_x509_certificate(chain).public_bytes(Encoding.DER)
    return hashlib.sha256(der).digest()


def test_a_recorded_participant_is_served_and_known_to_the_handler(site: Any) -> None:
    seen = []
    server = site.serve(method(lambda request, context: seen.append(peer_of(context)) or request))
    rover = site.known("participant/rover-7")
    assert site.channel(server, rover).call(ECHO, b"hello", deadline_seconds=DEADLINE) == b"hello"
    assert [(peer.spiffe_id, peer.spki_sha256) for peer in seen] == [(rover.spiffe_id, rover.spki_sha256)]
    assert site.refused == []


def refused(site: Any, server: Any, identity: Any, path: str = ECHO) -> str:
    with pytest.raises(DeniedError) as caught:
        site.channel(server, identity).call(path, b"", deadline_seconds=DEADLINE)
    return caught.value.reason


def test_a_key_that_the_log_has_not_recorded_is_refused_and_counted(site: Any) -> None:
    server = site.serve(echo())
    stranger = site.pki.identity("participant/rover-8")
    assert refused(site, server, stranger) == "unknown_identity"
    assert site.refused == [("unknown_identity", PeerClass.UNKNOWN, certificate_digest(stranger.chain))]


def test_a_recorded_key_under_another_name_is_refused(site: Any) -> None:
    server = site.serve(echo(ROLES))
    mallory = site.pki.identity("participant/mallory")
    aggregator = parse_spiffe_id(f"spiffe://{mallory.spiffe_id.trust_domain}/service/aggregator/a1")
    site.registry.record(mallory, site.pki.now_us * 2, spiffe_id=aggregator)
    assert refused(site, server, mallory) == "unknown_identity"
    assert site.refused[0][:2] == ("unknown_identity", PeerClass.UNKNOWN)


def test_an_expired_or_revoked_record_is_refused_on_an_open_connection(site: Any) -> None:
    server = site.serve(echo())
    rover = site.known("participant/rover-7")
    channel = site.channel(server, rover)
    assert channel.call(ECHO, b"1", deadline_seconds=DEADLINE) == b"echo 1"
    record = site.registry.recorded[rover.spki_sha256]
    site.registry.recorded[rover.spki_sha256] = replace(record, not_after_us=site.clock.now_us())
    with pytest.raises(DeniedError) as expired:
        channel.call(ECHO, b"2", deadline_seconds=DEADLINE)
    # A revocation takes the record away: the fold forgets the identity.
    del site.registry.recorded[rover.spki_sha256]
    with pytest.raises(DeniedError) as revoked:
        channel.call(ECHO, b"3", deadline_seconds=DEADLINE)
    assert (expired.value.reason, revoked.value.reason) == ("unknown_identity", "unknown_identity")
    assert [row[:2] for row in site.refused] == [
        ("unknown_identity", PeerClass.PARTICIPANT),
        ("unknown_identity", PeerClass.UNKNOWN),
    ]


def test_a_certificate_that_has_run_out_is_refused_on_an_open_connection(site: Any) -> None:
    server = site.serve(echo())
    rover = site.known("participant/rover-7")
    channel = site.channel(server, rover)
    channel.call(ECHO, b"1", deadline_seconds=DEADLINE)
    site.registry.record(rover, site.pki.now_us * 2)
    site.clock.advance(3_600_000_000)
    with pytest.raises(DeniedError) as caught:
        channel.call(ECHO, b"2", deadline_seconds=DEADLINE)
    assert caught.value.reason == "certificate"


def test_certificates_without_one_uri_are_refused(site: Any) -> None:
    server = site.serve(echo())
    uri = x509.UniformResourceIdentifier
    two = [uri(f"spiffe://farm_1.example/participant/rover-{i}") for i in (1, 2)]
    elsewhere = [uri("spiffe://other.example/participant/rover-1")]
    for names in ([], [x509.DNSName("gatekeeper.farm-1.example")], two, elsewhere):
        odd = site.pki.odd_identity("participant/rover-1", names)
        site.registry.record(odd, site.pki.now_us * 2)
        assert refused(site, server, odd) == "certificate"
    assert {row[:2] for row in site.refused} == {("certificate", PeerClass.UNKNOWN)}
    assert len(site.refused) == 4


@pytest.mark.parametrize(
    ("path", "peer_class"),
    [
        ("operator/ada", PeerClass.OPERATOR),
        ("auditor/eve", PeerClass.AUDITOR),
        ("service/aggregator/a1", PeerClass.SERVICE),
    ],
)
def test_a_role_that_may_not_call_is_refused_and_counted(path: str, peer_class: PeerClass, site: Any) -> None:
    server = site.serve(echo())
    peer = site.known(path)
    assert refused(site, server, peer) == "role"
    assert site.refused == [("role", peer_class, certificate_digest(peer.chain))]


@pytest.mark.parametrize(
    "path", ["/test.Service/Other", "/grpc.health.v1.Health/Watch", "/grpc.reflection.v1.ServerReflection/Info"]
)
def test_a_method_that_is_not_in_the_table_is_refused_to_everybody(path: str, site: Any) -> None:
    server = site.serve(echo(ROLES))
    rover = site.known("participant/rover-7")
    assert refused(site, server, rover, path) == "role"
    assert site.refused[0][:2] == ("role", PeerClass.PARTICIPANT)


def test_a_stranger_learns_nothing_of_which_methods_there_are(site: Any) -> None:
    server = site.serve(echo())
    stranger = site.pki.identity("participant/rover-8")
    assert {refused(site, server, stranger, path) for path in (ECHO, "/test.Service/Other", HEALTH_CHECK)} == {
        "unknown_identity"
    }


def test_a_group_that_the_services_document_does_not_name_is_refused(site: Any) -> None:
    site.registry.terms = DoorTerms(frozenset({"P-256"}), 2**62)
    server = site.serve(echo())
    assert refused(site, server, site.known("participant/rover-7")) == "transport_group"
    assert site.refused[0][1] is PeerClass.UNKNOWN


def test_the_hybrid_group_is_what_two_of_us_agree_on(site: Any) -> None:
    site.registry.terms = DoorTerms(frozenset({"X25519MLKEM768"}), 2**62)
    server = site.serve(echo())
    rover = site.known("participant/rover-7")
    assert site.channel(server, rover).call(ECHO, b"", deadline_seconds=DEADLINE) == b"echo "


def test_without_a_services_document_no_connection_is_good_enough(site: Any) -> None:
    site.registry.terms = NOBODY
    server = site.serve(echo(ROLES))
    assert {refused(site, server, site.known(path)) for path in ("participant/rover-7", "operator/ada")} == {
        "transport_group"
    }


def test_under_an_expired_services_document_operators_alone_are_let_in(site: Any) -> None:
    site.registry.terms = DoorTerms(frozenset({"X25519MLKEM768"}), site.clock.now_us())
    server = site.serve(echo(ROLES))
    for path in ("participant/rover-7", "auditor/eve", "service/aggregator/a1"):
        assert refused(site, server, site.known(path)) == "unknown_identity"
    ada = site.channel(server, site.known("operator/ada"))
    assert ada.call(ECHO, b"the next one", deadline_seconds=DEADLINE) == b"echo the next one"


def test_a_certificate_that_the_log_has_not_recorded_is_refused_though_its_key_is(site: Any) -> None:
    server = site.serve(echo())
    rover = site.known("participant/rover-7")
    site.registry.record(rover, site.pki.now_us * 2, serial=rover.serial + 1)
    assert refused(site, server, rover) == "unknown_identity"


def test_a_registry_that_may_be_out_of_date_admits_nobody_and_refuses_nobody(site: Any) -> None:
    server = site.serve(echo())
    channel = site.channel(server, site.known("participant/rover-7"))
    channel.call(ECHO, b"", deadline_seconds=DEADLINE)
    site.registry.is_stale = True
    with pytest.raises(UnavailableError, match="not been heard"):
        channel.call(ECHO, b"", deadline_seconds=DEADLINE)
    assert site.refused == []
    site.registry.is_stale = False
    assert channel.call(ECHO, b"again", deadline_seconds=DEADLINE) == b"echo again"


def test_a_registry_that_fails_lets_nobody_in(site: Any) -> None:
    class Broken(type(site.registry)):  # type: ignore[misc]
        def lookup(self, spki_sha256: bytes) -> None:
            raise RuntimeError("the secret word")

    server = site.serve(echo(), registry=Broken(site.registry.recorded))
    with pytest.raises(SfrlError) as caught:
        site.channel(server, site.known("participant/rover-7")).call(ECHO, b"", deadline_seconds=DEADLINE)
    assert type(caught.value) is SfrlError
    assert "secret" not in str(caught.value)


def test_peers_without_a_certificate_of_ours_do_not_shake_hands(site: Any) -> None:
    server = site.serve(echo())
    foreign = type(site.pki)()
    with pytest.raises(UnavailableError):
        site.channel(server, foreign.identity("participant/rover-7")).call(ECHO, b"", deadline_seconds=2)
    bare = grpc.secure_channel(
        f"127.0.0.1:{server.port}",
        grpc.ssl_channel_credentials(site.pki.services.certificate_pem),
        options=(("grpc.ssl_target_name_override", "gatekeeper.farm-1.example"),),
    )
    with bare, pytest.raises(grpc.RpcError) as caught:
        bare.unary_unary(ECHO)(b"", timeout=2)
    assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    assert site.refused == []


def test_a_server_with_a_participants_certificate_is_not_called(site: Any) -> None:
    site.tls = site.server_tls("service/gatekeeper/g1", authority=site.pki.clients)
    server = site.serve(echo())
    with pytest.raises(UnavailableError):
        site.channel(server, site.known("participant/rover-7")).call(ECHO, b"", deadline_seconds=2)


def test_a_service_of_another_role_is_not_called(site: Any) -> None:
    server = site.serve(echo())
    rover = site.known("participant/rover-7")
    site.channel(server, rover, role="gatekeeper").call(ECHO, b"", deadline_seconds=DEADLINE)
    with pytest.raises(UnavailableError):
        site.channel(server, rover, role="audit_log").call(ECHO, b"", deadline_seconds=2)


def test_a_renewed_certificate_serves_the_next_handshake_and_keeps_the_open_connection(site: Any) -> None:
    server = site.serve(echo())
    rover = site.known("participant/rover-7")
    old = site.channel(server, rover)
    old.call(ECHO, b"", deadline_seconds=DEADLINE)
    site.tls = site.server_tls("service/aggregator/a1")
    with pytest.raises(UnavailableError):
        site.channel(server, rover).call(ECHO, b"", deadline_seconds=2)
    assert site.channel(server, rover, role="aggregator").call(ECHO, b"", deadline_seconds=DEADLINE) == b"echo "
    assert old.call(ECHO, b"still", deadline_seconds=DEADLINE) == b"echo still"


@pytest.mark.parametrize(
    ("raised", "fields"),
    [
        (DeniedError("norm_limit", "at most 7", entry_index=12), {"reason": "norm_limit", "entry_index": 12}),
        (RoundStateError("round_not_open", "no round is open"), {"reason": "round_not_open", "entry_index": None}),
        (ConflictError("read on", reason="stale", log_size=77), {"reason": "stale", "log_size": 77}),
        (MalformedError("a digest is exactly 32 bytes"), {}),
        (ExhaustedError("the queue is full"), {}),
        (NotFoundError("there is no such model"), {}),
    ],
)
@pytest.mark.parametrize("is_stream", [False, True])
def test_a_typed_error_arrives_as_it_was_raised(
    raised: SfrlError, fields: dict[str, object], is_stream: bool, site: Any
) -> None:
    def fail(request: bytes, context: grpc.ServicerContext) -> bytes:
        raise raised

    def fail_later(request: bytes, context: grpc.ServicerContext) -> Any:
        yield b"first"
        raise raised

    server = site.serve(method(fail_later if is_stream else fail, is_stream=is_stream))
    channel = site.channel(server, site.known("participant/rover-7"))
    messages = iter(channel.stream(ECHO, b"", deadline_seconds=DEADLINE))
    if is_stream:
        assert next(messages) == b"first"
    with pytest.raises(type(raised)) as caught:
        next(messages) if is_stream else channel.call(ECHO, b"", deadline_seconds=DEADLINE)
    assert type(caught.value) is type(raised)
    assert str(caught.value) == str(raised)
    assert {name: getattr(caught.value, name) for name in fields} == fields


def test_a_fault_of_ours_says_nothing(site: Any) -> None:
    def fail(request: bytes, context: grpc.ServicerContext) -> bytes:
        raise KeyError("the secret word")

    server = site.serve(method(fail))
    rover = site.known("participant/rover-7")
    with grpc.secure_channel(
        f"127.0.0.1:{server.port}",
        grpc.ssl_channel_credentials(site.pki.services.certificate_pem, rover.key.expose(), rover.chain),
        options=(("grpc.ssl_target_name_override", "gatekeeper.farm-1.example"),),
    ) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(ECHO)(b"", timeout=DEADLINE)
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert caught.value.details() == ""
    assert "secret" not in repr(caught.value.trailing_metadata())


def test_an_uncertain_state_is_told_to_the_process_and_not_to_the_peer(site: Any) -> None:
    def fail(request: bytes, context: grpc.ServicerContext) -> bytes:
        raise UncertainStateError("fsync failed on the secret disk")

    server = site.serve(method(fail))
    with pytest.raises(UnavailableError, match="the service stops"):
        site.channel(server, site.known("participant/rover-7")).call(ECHO, b"", deadline_seconds=DEADLINE)
    assert [str(error) for error in site.uncertain] == ["fsync failed on the secret disk"]


def test_a_call_ends_at_its_deadline(site: Any) -> None:
    release = threading.Event()

    def slow(request: bytes, context: grpc.ServicerContext) -> bytes:
        release.wait(20)
        return b""

    server = site.serve(method(slow))
    begun = time.monotonic()
    with pytest.raises(UnavailableError):
        site.channel(server, site.known("participant/rover-7")).call(ECHO, b"", deadline_seconds=0.3)
    assert time.monotonic() - begun < 5
    release.set()


def test_calls_beyond_what_may_wait_are_refused_at_once(site: Any) -> None:
    release = threading.Event()

    def wait(request: bytes, context: grpc.ServicerContext) -> bytes:
        release.wait(20)
        return b"done"

    server = site.serve(method(wait))
    channel = site.channel(server, site.known("participant/rover-7"))
    calls = [channel._take().channel.unary_unary(ECHO).future(b"", timeout=30) for _ in range(8 * 4 + 1)]
    refusals: list[grpc.StatusCode] = []
    done = threading.Event()

    def note(call: Any) -> None:
        if call.code() is not grpc.StatusCode.OK:
            refusals.append(call.code())
            done.set()

    for call in calls:
        call.add_done_callback(note)
    assert done.wait(10)
    release.set()
    assert sum(call.exception() is None for call in calls) == 32
    assert refusals == [grpc.StatusCode.RESOURCE_EXHAUSTED]


def test_a_message_over_the_limit_never_reaches_the_handler(site: Any) -> None:
    calls: list[int] = []
    server = site.serve(method(lambda request, context: calls.append(len(request)) or b""))
    channel = site.channel(server, site.known("participant/rover-7"))
    limit = 4 * 1024 * 1024 + 64 * 1024
    channel.call(ECHO, bytes(limit), deadline_seconds=DEADLINE)
    with pytest.raises(ExhaustedError):
        channel.call(ECHO, bytes(limit + 1), deadline_seconds=DEADLINE)
    assert calls == [limit]


def test_a_cancelled_stream_ends_on_both_sides(site: Any) -> None:
    ended = threading.Event()

    def count(request: bytes, context: grpc.ServicerContext) -> Any:
        try:
            for number in range(10_000):
                yield b"%d" % number
                time.sleep(0.01)
        finally:
            ended.set()

    server = site.serve(method(count, is_stream=True))
    stream = site.channel(server, site.known("participant/rover-7")).stream(ECHO, b"", deadline_seconds=60)
    messages = iter(stream)
    assert [next(messages), next(messages)] == [b"0", b"1"]
    stream.cancel()
    with pytest.raises(UnavailableError):
        list(messages)
    assert ended.wait(10)


def test_no_connection_outlives_its_age_and_grace(site: Any) -> None:
    def hold(request: bytes, context: grpc.ServicerContext) -> Any:
        yield b"begun"
        while context.is_active():
            time.sleep(0.02)

    # Long enough for the first message on a machine that is busy.
    server = site.serve(method(hold, is_stream=True), connection_age_ms=2_000, connection_grace_ms=200)
    stream = site.channel(server, site.known("participant/rover-7")).stream(ECHO, b"", deadline_seconds=30)
    messages = iter(stream)
    assert next(messages) == b"begun"
    begun = time.monotonic()
    with pytest.raises(UnavailableError):
        next(messages)
    assert time.monotonic() - begun < 15


def test_health_is_told_to_known_peers_and_a_running_call_is_let_finish(site: Any) -> None:
    blocked, release = threading.Event(), threading.Event()

    def block(request: bytes, context: grpc.ServicerContext) -> bytes:
        blocked.set()
        release.wait(20)
        return b"finished"

    server = site.serve(method(block))
    channel = site.channel(server, site.known("participant/rover-7"))
    stub = health_pb2_grpc.HealthStub(channel._take().channel)
    health = stub.Check(health_pb2.HealthCheckRequest(), timeout=DEADLINE)
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    answers: list[bytes] = []
    caller = threading.Thread(target=lambda: answers.append(channel.call(ECHO, b"", deadline_seconds=20)))
    caller.start()
    assert blocked.wait(10)
    stopper = threading.Thread(target=lambda: server.stop(10))
    stopper.start()
    release.set()
    caller.join(10)
    stopper.join(10)
    # The call that was running got its answer; the next one finds nobody.
    assert answers == [b"finished"]
    with pytest.raises(UnavailableError):
        channel.call(ECHO, b"", deadline_seconds=1)


def test_a_port_in_use_is_not_shared(site: Any) -> None:
    server = site.serve(echo())
    from sfrl_secure.rpc.server import RpcServer, ServerSettings

    with pytest.raises(UnavailableError):
        RpcServer(
            ServerSettings(f"127.0.0.1:{server.port}"),
            tls=lambda: site.tls,
            methods=(echo(),),
            registry=site.registry,
            policy=TransportPolicy("farm_1.example"),
            clock=site.clock,
            on_refused=lambda *row: None,
        )


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_peer_is_judged_before_its_message_is_waited_for(site: Any, is_stream: bool) -> None:
    server = site.serve(method(lambda request, context: iter(()) if is_stream else b"", is_stream=is_stream))
    raw = site.channel(server, site.pki.identity("participant/revoked"))._take().channel
    silent = threading.Event()

    def nothing() -> Any:
        silent.wait(DEADLINE)
        yield b""

    begun = time.monotonic()
    call = raw.stream_stream(ECHO)(nothing(), timeout=DEADLINE)
    assert call.code() is grpc.StatusCode.UNAUTHENTICATED
    assert time.monotonic() - begun < DEADLINE / 2
    silent.set()


def exchange(behaviour: Any) -> Method:
    return Method(ECHO, behaviour, PARTICIPANTS, is_stream=True, takes_stream=True)


def test_a_method_takes_a_stream_and_answers_with_one(site: Any) -> None:
    seen: list[object] = []

    def double(requests: Any, context: grpc.ServicerContext) -> Any:
        seen.append(peer_of(context).spiffe_id)
        for request in requests:
            yield request * 2

    server = site.serve(exchange(double))
    rover = site.known("participant/rover-7")
    channel = site.channel(server, rover)
    assert list(channel.exchange(ECHO, iter([b"a", b"b"]), deadline_seconds=DEADLINE)) == [b"aa", b"bb"]
    assert seen == [rover.spiffe_id]
    stranger = site.channel(server, site.known("operator/ada"))
    with pytest.raises(DeniedError) as caught:
        list(stranger.exchange(ECHO, iter([b"a"]), deadline_seconds=DEADLINE))
    assert caught.value.reason == "role"
    assert len(seen) == 1


@pytest.mark.parametrize("is_watched", [True, False])
def test_a_stream_whose_messages_are_watched_for_is_cut_when_it_rests(
    site: Any, monkeypatch: pytest.MonkeyPatch, is_watched: bool
) -> None:
    """An upload that brings nothing keeps a thread; a stream to the log may rest as long as it likes."""
    monkeypatch.setattr("sfrl_secure.rpc.server.MESSAGE_SECONDS", 0.2)
    goes_on, ended = threading.Event(), threading.Event()

    def take(requests: Any, context: grpc.ServicerContext) -> Any:
        try:
            yield from requests
        finally:
            ended.set()

    method = Method(ECHO, take, PARTICIPANTS, is_stream=True, takes_stream=True, is_watched=is_watched)
    channel = site.channel(site.serve(method), site.known("participant/rover-7"))

    def requests() -> Any:
        yield b"first"
        goes_on.wait(DEADLINE)
        yield b"second"

    answers = iter(channel.exchange(ECHO, requests(), deadline_seconds=DEADLINE))
    assert next(answers) == b"first"
    if is_watched:
        with pytest.raises(UnavailableError):
            next(answers)
        assert ended.wait(DEADLINE)
        goes_on.set()
    else:
        assert not ended.wait(1.5)
        goes_on.set()
        assert list(answers) == [b"second"]


@pytest.mark.parametrize("change", ["revoked", "expired", "certificate"])
def test_a_peer_is_judged_again_before_each_request_of_a_stream(site: Any, change: str) -> None:
    taken: list[bytes] = []

    def take(requests: Any, context: grpc.ServicerContext) -> Any:
        for request in requests:
            taken.append(request)
            yield request

    server = site.serve(exchange(take))
    rover = site.known("participant/rover-7")
    goes_on = threading.Event()

    def requests() -> Any:
        yield b"before"
        goes_on.wait(DEADLINE)
        yield b"after"

    answers = iter(site.channel(server, rover).exchange(ECHO, requests(), deadline_seconds=DEADLINE))
    assert next(answers) == b"before"
    record = site.registry.recorded[rover.spki_sha256]
    if change == "revoked":
        del site.registry.recorded[rover.spki_sha256]
    elif change == "expired":
        site.registry.recorded[rover.spki_sha256] = replace(record, not_after_us=site.clock.now_us())
    else:
        site.registry.recorded[rover.spki_sha256] = replace(record, not_after_us=site.clock.now_us() * 2)
        site.clock.advance(3_600_000_000)
    goes_on.set()
    with pytest.raises(DeniedError) as caught:
        next(answers)
    assert caught.value.reason == ("certificate" if change == "certificate" else "unknown_identity")
    assert taken == [b"before"]
    assert [row[0] for row in site.refused] == [caught.value.reason]


@pytest.mark.parametrize("change", ["revoked", "stale", "group"])
def test_a_peer_is_judged_again_before_each_answer_of_a_stream(site: Any, change: str) -> None:
    goes_on, ended = threading.Event(), threading.Event()

    def count(request: bytes, context: grpc.ServicerContext) -> Any:
        try:
            yield b"before"
            goes_on.wait(DEADLINE)
            yield b"after"
        finally:
            ended.set()

    server = site.serve(method(count, is_stream=True))
    rover = site.known("participant/rover-7")
    answers = iter(site.channel(server, rover).stream(ECHO, b"", deadline_seconds=DEADLINE))
    assert next(answers) == b"before"
    if change == "revoked":
        del site.registry.recorded[rover.spki_sha256]
    elif change == "stale":
        site.registry.is_stale = True
    else:
        site.registry.terms = DoorTerms(frozenset({"X25519"}), 2**62)
    goes_on.set()
    with pytest.raises(UnavailableError if change == "stale" else DeniedError) as caught:
        next(answers)
    reasons = {"revoked": ["unknown_identity"], "stale": [], "group": ["transport_group"]}[change]
    assert [getattr(caught.value, "reason", None)] == (reasons or [None])
    assert [row[0] for row in site.refused] == reasons
    # What the handler holds is let go at once, not when the collector comes by.
    assert ended.wait(1)


def test_an_answer_that_was_long_in_coming_is_not_given_to_who_was_revoked_meanwhile(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sfrl_secure.rpc.interceptor.LONG_CALL_SECONDS", 0.05)
    rover = site.known("participant/rover-7")

    def slow(request: bytes, context: grpc.ServicerContext) -> bytes:
        if request == b"revoked":
            del site.registry.recorded[rover.spki_sha256]
        time.sleep(0.1)
        return b"the round"

    server = site.serve(method(slow))
    channel = site.channel(server, rover)
    assert channel.call(ECHO, b"", deadline_seconds=DEADLINE) == b"the round"
    with pytest.raises(DeniedError) as caught:
        channel.call(ECHO, b"revoked", deadline_seconds=DEADLINE)
    assert caught.value.reason == "unknown_identity"


def test_a_certificate_is_read_once_and_judged_on_every_call(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from sfrl_secure.crypto import svid

    read: list[bytes] = []
    inner = svid._open
    monkeypatch.setattr(svid, "_open", lambda leaf, domain: read.append(leaf) or inner(leaf, domain))
    server = site.serve(echo())
    rover = site.known("participant/rover-7")
    channel = site.channel(server, rover)
    for _ in range(3):
        channel.call(ECHO, b"", deadline_seconds=DEADLINE)
    assert read == [rover.chain]
    # A certificate that was refused is read again each time: nothing of it is kept.
    odd = site.pki.odd_identity("participant/rover-1", [])
    for _ in range(2):
        assert refused(site, server, odd) == "certificate"
    assert read.count(odd.chain) == 2


def test_methods_that_nobody_has_leave_nothing_behind(site: Any) -> None:
    server = site.serve(echo())
    rover = site.known("participant/rover-7")
    channel = site.channel(server, rover)
    for number in range(5):
        with pytest.raises(DeniedError):
            channel.call(f"/test.Service/Other{number}", b"", deadline_seconds=DEADLINE)
    channel.call(ECHO, b"", deadline_seconds=DEADLINE)
    outer, inner = server._interceptors
    assert set(outer._handlers) == {ECHO, HEALTH_CHECK}
    assert set(inner._handlers) == {ECHO}


def test_a_client_made_from_the_proto_files_is_served(site: Any) -> None:
    def follow(request: bytes, context: grpc.ServicerContext) -> Any:
        yield encode_follow_response(FollowBatch(parse_follow_request(request), (b"one", b"two"), b"note"))

    def append(request: bytes, context: grpc.ServicerContext) -> bytes:
        raise DeniedError("threshold", "two operators sign")

    site.tls = site.server_tls("service/audit_log/l1")
    server = site.serve(Method(FOLLOW_LOG, follow, PARTICIPANTS, True), Method(APPEND_ENTRY, append, PARTICIPANTS))
    channel = site.channel(server, site.known("participant/rover-7"), role="audit_log")
    stub = audit_service_pb2_grpc.AuditLogServiceStub(channel._take().channel)
    [batch] = stub.FollowLog(audit_service_pb2.FollowLogRequest(first_index=5), timeout=DEADLINE)
    assert (batch.first_index, list(batch.entries), batch.checkpoint) == (5, [b"one", b"two"], b"note")
    with pytest.raises(grpc.RpcError) as caught:
        stub.AppendEntry(audit_service_pb2.AppendEntryRequest(), timeout=DEADLINE)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert caught.value.details() == "two operators sign"


class FakeTime:
    def __init__(self) -> None:
        self.now, self.pauses = 0.0, []  # type: ignore[var-annotated]

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


def test_only_unavailability_is_tried_again_and_only_within_the_deadline() -> None:
    fake = FakeTime()
    left: list[float] = []

    def away(seconds: float) -> None:
        left.append(seconds)
        raise UnavailableError("away")

    with pytest.raises(UnavailableError):
        call_with_retry(away, deadline_seconds=10, monotonic=fake.monotonic, sleep=fake.sleep)
    assert 5 < len(left) < 40
    assert left == sorted(left, reverse=True)
    assert fake.now < 10
    assert max(fake.pauses) <= 2
    assert min(fake.pauses) >= 0.05

    tries: list[int] = []

    def denied(seconds: float) -> None:
        tries.append(1)
        raise DeniedError("role", "no")

    with pytest.raises(DeniedError):
        call_with_retry(denied, deadline_seconds=10, monotonic=fake.monotonic, sleep=fake.sleep)
    assert tries == [1]

    def third_time(seconds: float) -> str:
        tries.append(1)
        if len(tries) < 4:
            raise UnavailableError("away")
        return "here"

    assert call_with_retry(third_time, deadline_seconds=10, monotonic=fake.monotonic, sleep=fake.sleep) == "here"
