from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import grpc
import pytest

from sfrl_secure.errors import DeniedError, MalformedError
from sfrl_secure.governance.services import KEY_EXCHANGES
from sfrl_secure.governance.statements import PeerClass
from sfrl_secure.ids import parse_spiffe_id
from sfrl_secure.rpc.identity import (
    NOBODY,
    DoorTerms,
    RecordedIdentity,
    TransportPolicy,
    check_door_open,
    check_recorded,
    check_role,
    check_transport,
    door_terms_of,
    open_certificate,
    peer_class_of,
    peer_of,
)

GOOD = {
    "transport_security_type": [b"ssl"],
    "security_level": [b"TSI_PRIVACY_AND_INTEGRITY"],
    "ssl_tls_version": [b"TLSv1.3"],
    "ssl_negotiated_key_exchange_group": [b"X25519MLKEM768"],
}
POLICY = TransportPolicy("farm_1.example")
TERMS = DoorTerms(KEY_EXCHANGES, 2**62)


@pytest.mark.parametrize("group", [b"X25519MLKEM768", b"X25519"])
def test_tls_13_in_an_allowed_group_is_taken(group: bytes) -> None:
    check_transport(GOOD | {"ssl_negotiated_key_exchange_group": [group]}, TERMS)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("transport_security_type", b"insecure", "transport_version"),
        ("security_level", b"TSI_INTEGRITY_ONLY", "transport_version"),
        ("ssl_tls_version", b"TLSv1.2", "transport_version"),
        ("ssl_negotiated_key_exchange_group", b"P-256", "transport_group"),
        ("ssl_negotiated_key_exchange_group", b"", "transport_group"),
    ],
)
def test_whatever_else_or_nothing_or_two_of_it_is_refused(key: str, value: bytes, reason: str) -> None:
    missing = {name: values for name, values in GOOD.items() if name != key}
    for auth in (GOOD | {key: [value]}, missing, GOOD | {key: []}, GOOD | {key: GOOD[key] * 2}):
        with pytest.raises(DeniedError) as caught:
            check_transport(auth, TERMS)
        assert caught.value.reason == reason


def test_a_federation_may_leave_the_classical_group_out() -> None:
    with pytest.raises(DeniedError):
        check_transport(
            GOOD | {"ssl_negotiated_key_exchange_group": [b"X25519"]}, DoorTerms(frozenset({"X25519MLKEM768"}), 9)
        )


def test_the_terms_are_those_of_the_services_document_and_without_one_nothing_will_do() -> None:
    @dataclass(frozen=True)
    class Services:
        key_exchange: frozenset[str]
        expires_us: int

    services: Any = Services(frozenset({"X25519"}), 77)
    assert door_terms_of(services) == DoorTerms(frozenset({"X25519"}), 77)
    assert door_terms_of(None) == NOBODY
    for group in (b"X25519MLKEM768", b"X25519", b""):
        with pytest.raises(DeniedError):
            check_transport(GOOD | {"ssl_negotiated_key_exchange_group": [group]}, NOBODY)


def test_the_door_closes_when_the_services_document_expires_and_opens_to_operators(pki: Any) -> None:
    opened = {
        path: open_certificate({"x509_pem_cert": [pki.identity(path).chain]}, POLICY, pki.now_us)
        for path in ("participant/rover-7", "auditor/eve", "service/aggregator/a1", "operator/ada")
    }
    terms = DoorTerms(KEY_EXCHANGES, pki.now_us)
    for path, certificate in opened.items():
        check_door_open(certificate, terms, pki.now_us - 1)
        if path == "operator/ada":
            check_door_open(certificate, terms, pki.now_us)
            continue
        with pytest.raises(DeniedError) as caught:
            check_door_open(certificate, terms, pki.now_us)
        assert caught.value.reason == "unknown_identity"


def test_a_policy_has_a_trust_domain() -> None:
    with pytest.raises(MalformedError):
        TransportPolicy("")


def test_one_certificate_is_read_within_its_validity(pki: Any) -> None:
    rover = pki.identity("participant/rover-7")
    opened = open_certificate({"x509_pem_cert": [rover.chain]}, POLICY, pki.now_us)
    assert (opened.spiffe_id, opened.spki_sha256) == (rover.spiffe_id, rover.spki_sha256)
    for auth, policy, now_us in (
        ({}, POLICY, pki.now_us),
        ({"x509_pem_cert": [rover.chain, rover.chain]}, POLICY, pki.now_us),
        ({"x509_pem_cert": [b"no certificate"]}, POLICY, pki.now_us),
        ({"x509_pem_cert": [rover.chain]}, TransportPolicy("other.example"), pki.now_us),
        ({"x509_pem_cert": [rover.chain]}, POLICY, opened.not_before_us - 1),
        ({"x509_pem_cert": [rover.chain]}, POLICY, opened.not_after_us),
    ):
        with pytest.raises(DeniedError) as caught:
            open_certificate(auth, policy, now_us)
        assert caught.value.reason == "certificate"


def test_an_identity_is_in_force_under_its_own_name_until_it_expires_or_is_revoked(pki: Any) -> None:
    rover = pki.identity("participant/rover-7")
    certificate = open_certificate({"x509_pem_cert": [rover.chain]}, POLICY, pki.now_us)
    record = RecordedIdentity(rover.spiffe_id, rover.serial, pki.now_us + 5)
    check_recorded(certificate, record, pki.now_us + 4)
    # A configuration names a key alone.
    check_recorded(certificate, replace(record, serial=None), pki.now_us + 4)
    for recorded, now_us in (
        (None, pki.now_us),
        (replace(record, spiffe_id=parse_spiffe_id("spiffe://farm_1.example/participant/rover-8")), pki.now_us),
        (replace(record, serial=rover.serial + 1), pki.now_us),
        (record, pki.now_us + 5),
    ):
        with pytest.raises(DeniedError) as caught:
            check_recorded(certificate, recorded, now_us)
        assert caught.value.reason == "unknown_identity"


def test_roles_are_compared_and_no_roles_are_nobody(pki: Any) -> None:
    rover = pki.identity("participant/rover-7")
    certificate = open_certificate({"x509_pem_cert": [rover.chain]}, POLICY, pki.now_us)
    check_role(certificate, {"participant", "operator"})
    for roles in ({"operator"}, set(), None):
        with pytest.raises(DeniedError):
            check_role(certificate, roles)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("participant/a", PeerClass.PARTICIPANT),
        ("operator/a", PeerClass.OPERATOR),
        ("auditor/a", PeerClass.AUDITOR),
        *((f"service/{role}/a", PeerClass.SERVICE) for role in ("gatekeeper", "aggregator", "audit_log", "verifier")),
    ],
)
def test_each_role_has_its_class(path: str, expected: PeerClass) -> None:
    assert peer_class_of(parse_spiffe_id(f"spiffe://farm_1.example/{path}")) is expected


def test_a_call_that_admitted_nobody_has_no_peer() -> None:
    class Context:
        pass

    with pytest.raises(DeniedError):
        peer_of(Context())  # type: ignore[arg-type]
    assert issubclass(grpc.ServicerContext, object)
