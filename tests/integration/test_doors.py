"""Who is not let in: each refused for its reason, and counted in the log where a service could see it."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable

import grpc
import pytest

from sfrl_secure.clock import SystemClock
from sfrl_secure.crypto.envelope import Envelope, Signature
from sfrl_secure.crypto.x509 import CertificateAuthority, generate_tls_key
from sfrl_secure.errors import DeniedError, UnavailableError
from sfrl_secure.governance.services import KEY_EXCHANGES
from sfrl_secure.governance.statements import STATEMENT_TYPE, PeerClass, RefusalsCounted, Statement
from sfrl_secure.ids import ZERO_DIGEST, Digest, SpiffeId, parse_spiffe_id
from sfrl_secure.rpc.channel import ClientTls, RpcChannel, service_dns_name
from sfrl_secure.rpc.identity import DoorTerms, RecordedIdentity, TransportPolicy
from sfrl_secure.rpc.server import Method, RpcServer, ServerSettings, ServerTls
from sfrl_secure.storage.secrets import read_secret
from sfrl_secure.wire import audit_service, gatekeeper_service
from sfrl_secure.wire.gatekeeper_service import RoundRequest

from .conftest import ROVERS, SEGMENT, Site, Start, small_plan

HOUR_US = 3_600_000_000
GET_ROUND = gatekeeper_service.encode_round_request(RoundRequest(SEGMENT, 0, 0))
FOLLOW = audit_service.encode_follow_request(0)
STATEMENT = audit_service.encode_append_request(
    Envelope(STATEMENT_TYPE, b"a statement", (Signature(ZERO_DIGEST, "ed25519", bytes(64)),))
)


Counted = Callable[[str, PeerClass], int]


@pytest.fixture(scope="module")
def site(start: Start) -> Site:
    return start(small_plan())


@pytest.fixture
def counted(site: Site) -> Counted:
    """How many refusals of a reason and class the published log has counted so far."""
    from sfrl_secure.audit.published import read_unverified_entries

    def count(reason: str, peer_class: PeerClass) -> int:
        bodies = [
            each.content.body
            for each in read_unverified_entries(site.folder.log_dir, site.reading().state.size)
            if isinstance(each.content, Statement) and isinstance(each.content.body, RefusalsCounted)
        ]
        counts = [each for body in bodies for each in body.counts]
        return sum(each.count for each in counts if (each.reason, each.peer_class) == (reason, peer_class))

    return count


def wait_counted(site: Site, counted: Counted, reason: str, peer_class: PeerClass, more_than: int) -> None:
    site.wait_published(lambda _: counted(reason, peer_class) > more_than)


def address_of(site: Site, role: str) -> str:
    return site.federation.addresses.gatekeepers["g1"] if role == "gatekeeper" else site.federation.addresses.audit_log


def authority(site: Site, name: str) -> CertificateAuthority:
    folder = site.folder.root / "ca"
    return CertificateAuthority.from_pem((folder / f"{name}.crt").read_bytes(), read_secret(folder / f"{name}.key"))


def issued(site: Site, ca: str, path: str, *, dns_names: tuple[str, ...] = ()) -> ClientTls:
    """A new key under a certificate of one of the federation's own CAs, which no entry of the log names."""
    key, spki = generate_tls_key()
    now_us = SystemClock().now_us()
    name: SpiffeId = parse_spiffe_id(f"spiffe://sfrl.example/{path}")
    chain = authority(site, ca).issue_svid(
        name, spki, not_before_us=now_us - HOUR_US, not_after_us=now_us + HOUR_US, dns_names=dns_names
    )
    return ClientTls(key, chain, (site.folder.root / "ca/service.crt").read_bytes())


def call(site: Site, role: str, tls: ClientTls, path: str, request: bytes, *, port: int = 0) -> None:
    address = f"127.0.0.1:{port}" if port else address_of(site, role)
    with RpcChannel(address, role=role, trust_domain="sfrl.example", tls=tls) as channel:
        if path == audit_service.FOLLOW_LOG:
            list(channel.stream(path, request, deadline_seconds=10))
        else:
            channel.call(path, request, deadline_seconds=10)


@pytest.mark.parametrize("role", ["gatekeeper", "audit_log"])
@pytest.mark.parametrize(
    ("ca", "path"),
    [("client", "participant/rover-1"), ("client", "operator/alice"), ("service", "service/aggregator/aggregator-1")],
)
def test_whoever_stole_a_ca_opens_no_door(site: Site, counted: Counted, role: str, ca: str, path: str) -> None:
    before = counted("unknown_identity", PeerClass.UNKNOWN)
    method, request = (
        (gatekeeper_service.GET_ROUND, GET_ROUND) if role == "gatekeeper" else (audit_service.FOLLOW_LOG, FOLLOW)
    )
    dns = (service_dns_name("aggregator", "sfrl.example"),) if ca == "service" else ()
    with pytest.raises(DeniedError) as refused:
        call(site, role, issued(site, ca, path, dns_names=dns), method, request)
    assert refused.value.reason == "unknown_identity"
    wait_counted(site, counted, "unknown_identity", PeerClass.UNKNOWN, before)


@pytest.mark.parametrize(("ca", "is_asked"), [("client", False), ("service", True)])
def test_a_server_under_the_client_ca_is_not_spoken_to_whatever_names_it_has(
    site: Site, ca: str, is_asked: bool
) -> None:
    name = service_dns_name("gatekeeper", "sfrl.example")
    tls = issued(site, ca, "service/gatekeeper/g1", dns_names=(name,))
    roots = (site.folder.root / "ca/client.crt").read_bytes() + tls.service_roots
    asked: list[object] = []

    class Nobody:
        def lookup(self, spki_sha256: Digest) -> RecordedIdentity | None:
            asked.append(spki_sha256)
            return None

        def door_terms(self) -> DoorTerms:
            return DoorTerms(KEY_EXCHANGES, 2**62)

    server = RpcServer(
        ServerSettings("127.0.0.1:0", threads=4),
        tls=lambda: ServerTls(tls.key, tls.chain, roots),
        methods=[Method(gatekeeper_service.GET_ROUND, lambda request, _context: request, frozenset({"participant"}))],
        registry=Nobody(),
        policy=TransportPolicy("sfrl.example"),
        clock=SystemClock(),
        on_refused=lambda *_refusal: None,
    )
    server.start()
    try:
        with pytest.raises(DeniedError if is_asked else UnavailableError):
            call(
                site, "gatekeeper", site.profile(ROVERS[0]).open_tls(), gatekeeper_service.GET_ROUND, GET_ROUND,
                port=server.port,
            )  # fmt: skip
    finally:
        server.stop(0)
    assert bool(asked) is is_asked


@pytest.mark.parametrize(
    ("path", "request_bytes"), [(audit_service.APPEND_ENTRY, STATEMENT), (audit_service.FOLLOW_LOG, FOLLOW)]
)
def test_a_participant_neither_writes_nor_reads_the_log_itself(
    site: Site, counted: Counted, path: str, request_bytes: bytes
) -> None:
    before = counted("role", PeerClass.PARTICIPANT)
    with pytest.raises(DeniedError) as refused:
        call(site, "audit_log", site.profile(ROVERS[0]).open_tls(), path, request_bytes)
    assert refused.value.reason == "role"
    wait_counted(site, counted, "role", PeerClass.PARTICIPANT, before)


def test_an_operator_has_no_rounds_to_ask_for(site: Site, counted: Counted) -> None:
    before = counted("role", PeerClass.OPERATOR)
    folder = site.folder.operator("alice")
    tls = ClientTls(
        read_secret(folder / "tls.key"), (folder / "tls.crt").read_bytes(),
        (site.folder.root / "ca/service.crt").read_bytes(),
    )  # fmt: skip
    with pytest.raises(DeniedError) as refused:
        call(site, "gatekeeper", tls, gatekeeper_service.GET_ROUND, GET_ROUND)
    assert refused.value.reason == "role"
    wait_counted(site, counted, "role", PeerClass.OPERATOR, before)


def test_nobody_speaks_without_tls(site: Site) -> None:
    for role in ("gatekeeper", "audit_log"):
        with grpc.insecure_channel(address_of(site, role)) as channel:
            with pytest.raises(grpc.RpcError) as refused:
                channel.unary_unary(gatekeeper_service.GET_ROUND)(GET_ROUND, timeout=5)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_participant_asks_no_service_that_speaks_without_tls(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        heard: list[bytes] = []
        profile = site.profile(ROVERS[0])
        tls = profile.open_tls()
        server.settimeout(5)
        with RpcChannel(
            f"127.0.0.1:{server.getsockname()[1]}", role="gatekeeper", trust_domain="sfrl.example", tls=tls
        ) as channel:
            method = channel._take().channel.unary_unary(gatekeeper_service.GET_ROUND)
            asked = method.future(GET_ROUND, timeout=3)
            peer, _ = server.accept()
            with peer:
                peer.settimeout(5)
                heard.append(peer.recv(3))
                peer.sendall(b"\x00\x00\x00\x04\x00\x00\x00\x00\x00")  # an HTTP/2 server's first frame, in the clear
            with pytest.raises(grpc.RpcError):
                asked.result()
    assert heard == [b"\x16\x03\x01"], "a TLS handshake, and nothing else"


def tls_context(site: Site, version: ssl.TLSVersion, *, with_certificate: bool = True) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(site.folder.root / "ca/service.crt"))
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2"])
    if with_certificate:
        folder = site.folder.participant(ROVERS[0])
        context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    return context


def frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body


def literal(name: str, value: str) -> bytes:
    """A header that no table holds (RFC 7541, section 6.2.2)."""
    return b"\x00" + b"".join(bytes([len(each)]) + each.encode() for each in (name, value))


def raw_call(site: Site, version: ssl.TLSVersion, *, with_certificate: bool = True) -> tuple[str | None, bytes]:
    """One gRPC call in handmade HTTP/2 frames: the TLS version, and what came back."""
    host, _, port = address_of(site, "gatekeeper").rpartition(":")
    name = service_dns_name("gatekeeper", "sfrl.example")
    headers = [
        (":method", "POST"), (":scheme", "https"), (":path", gatekeeper_service.GET_ROUND), (":authority", name),
        ("content-type", "application/grpc"), ("te", "trailers"),
    ]  # fmt: skip
    message = b"\x00" + len(GET_ROUND).to_bytes(4, "big") + GET_ROUND
    context = tls_context(site, version, with_certificate=with_certificate)
    with socket.create_connection((host, int(port)), timeout=10) as plain:
        try:
            with context.wrap_socket(plain, server_hostname=name) as secure:
                secure.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b""))
                secure.sendall(frame(1, 4, 1, b"".join(literal(*each) for each in headers)))
                secure.sendall(frame(0, 1, 1, message))
                return secure.version(), answer_on(secure)
        except (ssl.SSLError, ConnectionError):
            return None, b""


def answer_on(secure: ssl.SSLSocket) -> bytes:
    """Everything up to the frame that ends stream 1."""
    answer = b""
    while True:
        head = exactly(secure, 9)
        body = exactly(secure, int.from_bytes(head[:3], "big"))
        if int.from_bytes(head[5:9], "big") == 1:
            answer += body
            if head[3] in (0, 1) and head[4] & 1:
                return answer


def exactly(secure: ssl.SSLSocket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        part = secure.recv(count - len(found))
        if not part:
            raise ConnectionError("the server hung up")
        found += part
    return found


def test_tls_1_2_is_refused_for_that_and_counted_and_the_same_call_over_1_3_is_not(
    site: Site, counted: Counted
) -> None:
    before = counted("transport_version", PeerClass.UNKNOWN)
    version, answer = raw_call(site, ssl.TLSVersion.TLSv1_2)
    assert version == "TLSv1.2", "the library shakes hands: the interceptor is what refuses"
    assert b"the connection is not TLS 1.3" in answer
    wait_counted(site, counted, "transport_version", PeerClass.UNKNOWN, before)
    version, answer = raw_call(site, ssl.TLSVersion.TLSv1_3)
    assert version == "TLSv1.3"
    assert b"the connection is not TLS 1.3" not in answer


def test_without_a_certificate_there_is_no_call(site: Site) -> None:
    _, answer = raw_call(site, ssl.TLSVersion.TLSv1_3, with_certificate=False)
    assert answer == b""


def test_what_was_refused_at_the_doors_is_true_in_the_log_too(site: Site) -> None:
    assert set(site.stop().values()) == {0}
    report = site.verify()
    assert report.exit_code == 0, report.to_text()
    assert report.conduct_clean
    assert report.refusals_counted >= 9
