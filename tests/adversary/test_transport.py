"""Transport: connections that are not good enough, certificates that are none of ours, keys that the log does not know.

The attacker is on the network, has stolen a CA, or was let in until now. Each call is refused by a running service for
its reason, and the log holds the refusal, counted; where TLS itself hangs up there is no call, and nothing is counted.
"""

from __future__ import annotations

import ipaddress
import os
import signal
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from sfrl_secure.audit.profile import read_auditor_profile
from sfrl_secure.crypto.envelope import Envelope, Signature
from sfrl_secure.errors import NotFoundError, UnavailableError
from sfrl_secure.governance.build import build_services
from sfrl_secure.governance.services import ServicesDocument
from sfrl_secure.governance.statements import STATEMENT_TYPE, PeerClass
from sfrl_secure.ids import ZERO_DIGEST, parse_spiffe_id
from sfrl_secure.operating.acts import draft_key_revocation, draft_participant_revocation, draft_root
from sfrl_secure.operating.signing import SigningRequest, open_request
from sfrl_secure.rounds.state import FederationState
from sfrl_secure.rpc.channel import ClientTls, RpcChannel, service_dns_name
from sfrl_secure.wire import audit_service, gatekeeper_service, identity_service, uploads

from .live import (
    DOMAIN,
    ENROL,
    LOG,
    NO_ROUND,
    Live,
    call_on,
    certificate_of,
    running,
    signed_leaf,
    uri,
)
from .raw_grpc import RawConnection

pytestmark = pytest.mark.integration

FOLLOW = audit_service.encode_follow_request(0)
STATEMENT = audit_service.encode_append_request(
    Envelope(STATEMENT_TYPE, b"a statement", (Signature(ZERO_DIGEST, "ed25519", bytes(64)),))
)
GATEKEEPER_NAME = service_dns_name("gatekeeper", DOMAIN)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with running(tmp_path_factory.mktemp("transport")) as made:
        yield made


# The connection


def connect(
    live: Live, *, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, group: str = "X25519", certified: bool = True
) -> RawConnection:
    context = ssl.create_default_context(cafile=str(live.site.folder.root / "ca/service.crt"))
    context.minimum_version = context.maximum_version = version
    context.set_ecdh_curve(group)
    context.set_alpn_protocols(["h2"])
    if certified:
        folder = live.site.folder.participant("rover-1")
        context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    return RawConnection(live.address("g1"), GATEKEEPER_NAME, context)


def ask(connection: RawConnection) -> object:
    return connection.call(gatekeeper_service.GET_ROUND, NO_ROUND)


def test_tls_1_2_is_spoken_and_not_listened_to(live: Live) -> None:
    with connect(live, version=ssl.TLSVersion.TLSv1_2, group="prime256v1") as old:
        assert old.version == "TLSv1.2", "the library shakes hands: the interceptor is what refuses"
        live.refused("transport_version", lambda: ask(old))
    with connect(live) as good:
        ask(good)


@pytest.mark.parametrize("group", ["prime256v1", "secp384r1"])
def test_a_group_that_the_services_document_does_not_name_is_refused(live: Live, group: str) -> None:
    with connect(live, group=group) as odd:
        live.refused("transport_group", lambda: ask(odd))


def test_who_shows_no_certificate_has_no_connection(live: Live) -> None:
    def attempt() -> None:
        with connect(live, certified=False) as bare:
            ask(bare)

    live.unseen(attempt)


def test_a_perfect_certificate_of_another_ca_has_no_connection(live: Live) -> None:
    own, ours = live.tls("rover-1"), (live.site.folder.root / "ca/client.crt").read_bytes()
    forged = signed_leaf(
        [uri("participant/rover-1")],
        x509.load_pem_x509_certificate(ours).subject,
        ec.generate_private_key(ec.SECP256R1()),
        key=own.key,
        serial=certificate_of(own).serial,
    )(live.service_roots)
    live.unseen(lambda: live.call(forged))


# The certificate: each by the true CA, whose key was stolen

ROVER = uri("participant/rover-1")
CERTIFICATES: dict[str, tuple[Sequence[x509.GeneralName], bool]] = {
    "two-uris": ([ROVER, uri("participant/rover-2")], False),
    "a-ca-as-leaf": ([ROVER], True),
    "another-trust-domain": ([uri("participant/rover-1", "sfrl.example.evil")], False),
    "a-service-s-dns-name": ([ROVER, x509.DNSName(GATEKEEPER_NAME)], False),
    "an-address": ([ROVER, x509.IPAddress(ipaddress.ip_address("127.0.0.1"))], False),
    "a-dns-name-alone": ([x509.DNSName(GATEKEEPER_NAME)], False),
    "a-role-that-there-is-not": ([uri("root/rover-1")], False),
    "an-https-uri": ([x509.UniformResourceIdentifier(f"https://{DOMAIN}/participant/rover-1")], False),
    "a-query": ([uri("participant/rover-1?role=operator")], False),
}


@pytest.mark.parametrize("made", CERTIFICATES)
@pytest.mark.parametrize("at", ["g1", LOG])
def test_a_certificate_that_is_no_svid_of_ours_is_refused_though_it_is_for_a_recorded_key(
    live: Live, made: str, at: str
) -> None:
    names, is_ca = CERTIFICATES[made]
    own = live.tls("rover-1")
    forged = live.forge(names, key=own.key, serial=certificate_of(own).serial, is_ca=is_ca)
    path, raw = (gatekeeper_service.GET_ROUND, NO_ROUND) if at == "g1" else (audit_service.FOLLOW_LOG, FOLLOW)
    live.refused("certificate", lambda: live.call(forged, path, raw, at), at=at)


def test_a_certificate_that_expires_ends_what_its_connection_may_and_the_stream_on_it(live: Live) -> None:
    own, alice = live.tls("rover-1"), live.operator("alice").open_tls()
    short = live.forge([ROVER], key=own.key, serial=certificate_of(own).serial, seconds=2)
    follower = live.forge([uri("operator/alice")], key=alice.key, serial=certificate_of(alice).serial, seconds=2)
    with live.channel(short) as channel, live.channel(follower, LOG) as following:
        with pytest.raises(NotFoundError):
            call_on(channel)
        heard = follow(following)
        live.refused("certificate", lambda: list(heard), at=LOG)
        time.sleep(0.5)
        live.refused("certificate", lambda: call_on(channel))
    assert live.is_let_in(own)


# The key


def test_a_recorded_key_under_another_certificate_than_the_log_names_is_refused(live: Live) -> None:
    """The CA is stolen and the TLS key too: the serial is not the entry's."""
    forged = live.forge([ROVER], key=live.tls("rover-1").key)
    live.refused("unknown_identity", lambda: live.call(forged), peer_class=PeerClass.PARTICIPANT)


@pytest.mark.parametrize(
    ("ca", "path", "at"),
    [
        ("client", "participant/rover-1", "g1"),
        ("client", "operator/alice", LOG),
        ("client", "auditor/auditor-1", "g1"),
        ("service", "service/aggregator/aggregator-1", LOG),
        ("service", "service/gatekeeper/g1", LOG),
    ],
)
def test_a_key_that_the_log_has_not_recorded_is_nobody_s_whatever_a_stolen_ca_says(
    live: Live, ca: str, path: str, at: str
) -> None:
    method, raw = (gatekeeper_service.GET_ROUND, NO_ROUND) if at == "g1" else (audit_service.FOLLOW_LOG, FOLLOW)
    live.refused("unknown_identity", lambda: live.call(live.forge([uri(path)], ca=ca), method, raw, at), at=at)


@pytest.mark.parametrize("path", ["participant/rover-2", "operator/alice", "service/gatekeeper/g1"])
def test_a_recorded_key_is_nobody_else_s(live: Live, path: str) -> None:
    own = live.tls("rover-1")
    forged = live.forge([uri(path)], key=own.key, serial=certificate_of(own).serial)
    live.refused(
        "unknown_identity", lambda: live.call(forged, audit_service.FOLLOW_LOG, FOLLOW, LOG), at=LOG
    )


# The role

NOTHING = b""
ROLES: list[tuple[str, str, str, bytes]] = [
    ("rover-1", LOG, audit_service.APPEND_ENTRY, STATEMENT),
    ("rover-1", LOG, audit_service.FOLLOW_LOG, FOLLOW),
    ("rover-1", "g1", gatekeeper_service.FETCH_OBJECT, NOTHING),
    ("alice", "g1", gatekeeper_service.GET_ROUND, NO_ROUND),
    ("alice", "g1", gatekeeper_service.FETCH_OBJECT, NOTHING),
    ("alice", LOG, audit_service.APPEND_ENTRY, STATEMENT),
    ("auditor-1", "g1", uploads.SUBMIT_UPDATE, NOTHING),
    ("auditor-1", "g1", gatekeeper_service.WITHDRAW_UPDATE, NOTHING),
    ("aggregator-1", "g1", uploads.SUBMIT_UPDATE, NOTHING),
    ("aggregator-1", "g1", gatekeeper_service.RECORD_DECISION, NOTHING),
]


def identity(live: Live, name: str) -> tuple[ClientTls, PeerClass]:
    if name == "aggregator-1":
        return live.service_tls("aggregator", name), PeerClass.SERVICE
    if name == "auditor-1":
        profile = read_auditor_profile(live.site.folder.auditor(name) / "profile.toml")
        return profile.open_tls(), PeerClass.AUDITOR
    if name == "alice":
        return live.operator(name).open_tls(), PeerClass.OPERATOR
    return live.tls(name), PeerClass.PARTICIPANT


@pytest.mark.parametrize(("name", "at", "path", "raw"), ROLES)
def test_a_method_for_other_roles_is_refused(live: Live, name: str, at: str, path: str, raw: bytes) -> None:
    tls, peer_class = identity(live, name)
    live.refused("role", lambda: live.call(tls, path, raw, at), at=at, peer_class=peer_class)


@pytest.mark.parametrize("at", ["g1", LOG])
@pytest.mark.parametrize(
    "path", ["/sfrl.gatekeeper.v1.GatekeeperService/GetSecrets", "/grpc.reflection.v1.ServerReflection/Info", "/x/y"]
)
def test_a_method_that_there_is_not_is_refused_like_one_that_is_another_s(live: Live, path: str, at: str) -> None:
    live.refused(
        "role", lambda: live.call(live.tls("rover-1"), path, b"", at), at=at, peer_class=PeerClass.PARTICIPANT
    )


@pytest.mark.parametrize(
    "path", [gatekeeper_service.GET_ROUND, identity_service.RENEW_IDENTITY, audit_service.APPEND_ENTRY]
)
def test_the_door_for_newcomers_has_nothing_else(live: Live, path: str) -> None:
    live.refused("role", lambda: live.call(live.anonymous(), path, NO_ROUND, ENROL), at=ENROL)


def test_the_door_for_newcomers_is_no_way_in_without_a_good_connection(live: Live) -> None:
    context = ssl.create_default_context(cafile=str(live.site.folder.root / "ca/service.crt"))
    context.set_ecdh_curve("prime256v1")
    context.set_alpn_protocols(["h2"])
    with RawConnection(live.address(ENROL), GATEKEEPER_NAME, context) as odd:
        live.refused("transport_group", lambda: odd.call(identity_service.ENROL, b""), at=ENROL)


# A view that may have missed a revocation


def test_a_gatekeeper_that_does_not_hear_the_log_admits_nobody_and_refuses_nobody(live: Live) -> None:
    """Whoever was revoked cuts the cable between log and gatekeeper, so that it does not come to know."""
    callers: list[Callable[[], object]] = [
        lambda: live.call(live.tls("rover-1")),
        lambda: live.call(live.operator("alice").open_tls(), identity_service.RENEW_IDENTITY, b""),
        lambda: live.call(live.service_tls("aggregator", "aggregator-1"), identity_service.RENEW_IDENTITY, b""),
        lambda: live.call(live.anonymous(), identity_service.ENROL, b"", ENROL),
        lambda: live.call(live.forge([ROVER])),
    ]
    log = live.site.service("audit_log").process
    assert log is not None
    os.kill(log.pid, signal.SIGSTOP)
    try:
        time.sleep(4.6)
        for call in callers:
            with pytest.raises(UnavailableError, match="has not been heard"):
                call()
    finally:
        os.kill(log.pid, signal.SIGCONT)
    until = time.monotonic() + 10
    while not is_served(live):
        assert time.monotonic() < until
    live.settle()


def is_served(live: Live) -> bool:
    try:
        return live.is_let_in(live.tls("rover-1"))
    except UnavailableError:
        return False


# Who was let in until now


def test_a_revoked_key_opens_no_door_on_the_connection_that_it_has(live: Live) -> None:
    tls = live.tls("rover-2")
    spki = certificate_of(tls).spki_sha256
    with live.channel(tls, "g1") as first, live.channel(tls, "g2") as second:
        for channel in (first, second):
            with pytest.raises(NotFoundError):
                call_on(channel)
        live.publish(lambda state, now: draft_key_revocation(state, spki, None, reason="stolen", now_us=now), "alice")
        for at, channel in (("g1", first), ("g2", second)):
            live.refused("unknown_identity", partial(call_on, channel), at=at)
    again = live.forge([uri("participant/rover-2")], key=tls.key, serial=certificate_of(tls).serial)
    live.refused("unknown_identity", lambda: live.call(again))


def test_a_revoked_name_opens_no_door_with_any_key(live: Live) -> None:
    tls = live.tls("rover-3")
    with live.channel(tls) as channel:
        with pytest.raises(NotFoundError):
            call_on(channel)
        live.publish(
            lambda state, now: draft_participant_revocation(state, "rover-3", reason="stolen", now_us=now), "bob"
        )
        live.refused("unknown_identity", lambda: call_on(channel))
    # Asking for another identity takes a door, too.
    live.refused("unknown_identity", lambda: live.call(tls, identity_service.RENEW_IDENTITY, b""))


def test_an_operator_whom_the_next_root_does_not_name_opens_no_door(live: Live) -> None:
    carol = live.operator("carol").open_tls()
    with live.channel(carol, LOG) as channel:
        heard = follow(channel)
        live.publish(
            lambda state, now: draft_root(
                state, add={}, remove=["carol"], thresholds={}, days=None, now_us=now
            ),
            "alice", "bob",
        )  # fmt: skip
        live.refused("unknown_identity", lambda: list(heard), at=LOG)
        live.refused("unknown_identity", lambda: call_on(channel, audit_service.FOLLOW_LOG, FOLLOW), at=LOG)


def follow(channel: RpcChannel) -> Iterator[bytes]:
    """Follow the log, from its first message on."""
    heard = iter(channel.stream(audit_service.FOLLOW_LOG, FOLLOW, deadline_seconds=30))
    next(heard)
    return heard


def next_services(state: FederationState, _now_us: int) -> SigningRequest:
    """The services document without `g2`, and with the hybrid group alone."""
    now = state.services()
    assert now is not None
    gone = parse_spiffe_id(f"spiffe://{DOMAIN}/service/gatekeeper/g2")
    raw = build_services(
        federation_id=state.federation_id,
        version=now.version + 1,
        previous=now.digest,
        expires_us=now.expires_us,
        services=[each for each in now.services if each.spiffe_id != gone],
        auditors=list(now.auditors),
        key_exchange=["X25519MLKEM768"],
    )
    return open_request(ServicesDocument.payload_type, raw)


def test_what_the_services_document_no_longer_names_is_refused_from_then_on(live: Live) -> None:
    """A service that was taken out, and a group that was given up, on the connections that they have."""
    second = live.service_tls("gatekeeper", "g2")
    (process,) = (each.process for each in live.site.supervisor.services if each.name == "g2")
    assert process is not None
    process.terminate()  # the thief has its keys and runs it no more
    process.wait(20)
    time.sleep(1.5)  # the log notices with its next word that nobody listens to the stream
    with connect(live) as classical, live.channel(second, LOG) as channel:
        ask(classical)
        heard = follow(channel)
        live.publish(next_services, "alice", "bob")
        live.refused("unknown_identity", lambda: list(heard), at=LOG)
        live.refused("transport_group", lambda: ask(classical))
        live.refused("unknown_identity", lambda: call_on(channel, audit_service.FOLLOW_LOG, FOLLOW), at=LOG)
    assert live.is_let_in(live.tls("rover-1")), "two of ours agree on the hybrid group"


def test_the_history_is_true_and_holds_every_refusal(live: Live) -> None:
    live.check_history()
