"""Leaves that break one rule each, made by a CA that keeps none."""

from __future__ import annotations

import contextlib
import ipaddress
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st

from sfrl_secure.crypto.svid import CERTIFICATE_BYTES_MAX, PeerCertificate, open_svid
from sfrl_secure.errors import DeniedError
from sfrl_secure.ids import sha256

DOMAIN = "mars.example"
ROVER = "spiffe://mars.example/participant/rover-1"
GATEKEEPER = "spiffe://mars.example/service/gatekeeper/gate-1"
BOTH = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
NAMES, CONSTRAINTS, USAGE, PURPOSES = (
    x509.SubjectAlternativeName,
    x509.BasicConstraints,
    x509.KeyUsage,
    x509.ExtendedKeyUsage,
)

CA_KEY = ec.generate_private_key(ec.SECP256R1())
LEAF_KEY = ec.generate_private_key(ec.SECP256R1())
Key = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey


def key_usage(**given: bool) -> x509.KeyUsage:
    bits = dict.fromkeys(
        (
            "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
            "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
        ),
        False,
    )
    return x509.KeyUsage(**(bits | {"digital_signature": True} | given))


def make_leaf(
    *,
    uris: Sequence[str] = (ROVER,),
    other_names: Sequence[x509.GeneralName] = (),
    ca: bool = False,
    usage: x509.KeyUsage | None = None,
    usage_is_critical: bool = True,
    purposes: Sequence[x509.ObjectIdentifier] = BOTH,
    key: Key = LEAF_KEY,
    without: type[x509.ExtensionType] | None = None,
    more: x509.ExtensionType | None = None,
) -> bytes:
    names = [*(x509.UniformResourceIdentifier(uri) for uri in uris), *other_names]
    builder = x509.CertificateBuilder(
        issuer_name=x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "CA")]),
        subject_name=x509.Name([]),
        public_key=key.public_key(),
        serial_number=5,
        not_valid_before=datetime(2026, 1, 1, tzinfo=UTC),
        not_valid_after=datetime(2026, 1, 2, tzinfo=UTC),
    )
    for value, critical in (
        (NAMES(names), True),
        (CONSTRAINTS(ca=ca, path_length=None), True),
        (usage or key_usage(), usage_is_critical),
        (PURPOSES(purposes), False),
        (more, False),
    ):
        if value is not None and not isinstance(value, without or ()):
            builder = builder.add_extension(value, critical=critical)
    return builder.sign(CA_KEY, hashes.SHA256()).public_bytes(Encoding.DER)


def pem_of(der: bytes) -> bytes:
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)


def refuse(leaf: bytes, trust_domain: str = DOMAIN) -> None:
    with pytest.raises(DeniedError) as caught:
        open_svid(leaf, trust_domain)
    assert caught.value.reason == "certificate"


def test_a_leaf_of_the_profile_is_opened_in_der_and_pem() -> None:
    der = make_leaf()
    spki = LEAF_KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    expected = PeerCertificate(
        spiffe_id=open_svid(der, DOMAIN).spiffe_id,
        serial=5,
        spki_sha256=sha256(spki),
        not_before_us=int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000,
        not_after_us=int(datetime(2026, 1, 2, tzinfo=UTC).timestamp()) * 1_000_000,
    )
    assert open_svid(der, DOMAIN) == open_svid(pem_of(der), DOMAIN) == expected
    assert (expected.spiffe_id, expected.spiffe_id.role, expected.spiffe_id.name) == (ROVER, "participant", "rover-1")


@pytest.mark.parametrize(
    "uris",
    [
        [],
        [ROVER, ROVER],
        [ROVER, "https://mars.example/"],
        ["https://mars.example/participant/rover-1"],
        ["spiffe://mars.example"],
        ["spiffe://mars.example/"],
        ["spiffe://mars.example/participant"],
        ["spiffe://mars.example/participant/rover-1/more"],
        ["spiffe://mars.example/participant/../operator/ada"],
        ["spiffe://mars.example/participant/rover%2d1"],
        ["spiffe://MARS.example/participant/rover-1"],
        ["spiffe://mars.example:443/participant/rover-1"],
        ["SPIFFE://mars.example/participant/rover-1"],
        [ROVER + "?x=1"],
        [ROVER + "#x"],
        [ROVER + "\n"],
        [""],
    ],
)
def test_a_leaf_has_exactly_one_uri_and_it_is_a_spiffe_id_of_ours(uris: list[str]) -> None:
    # With a DNS name beside, so that no URI at all still leaves a list of names.
    refuse(make_leaf(uris=uris))
    refuse(make_leaf(uris=uris, other_names=[x509.DNSName("gatekeeper.mars.example")]))


@pytest.mark.parametrize("domain", ["venus.example", "mars.exampl", "mars.example.org", "", "MARS.example"])
def test_a_leaf_is_of_our_trust_domain(domain: str) -> None:
    refuse(make_leaf(), domain)


def test_only_a_service_has_dns_names() -> None:
    names = [x509.DNSName("gatekeeper.mars.example"), x509.DNSName("localhost")]
    assert open_svid(make_leaf(uris=[GATEKEEPER], other_names=names), DOMAIN).spiffe_id == GATEKEEPER
    assert open_svid(make_leaf(uris=[GATEKEEPER]), DOMAIN).spiffe_id == GATEKEEPER
    for role in ("participant", "operator", "auditor"):
        refuse(make_leaf(uris=[f"spiffe://mars.example/{role}/x"], other_names=names[:1]))


@pytest.mark.parametrize(
    "name",
    [
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        x509.RFC822Name("gate@mars.example"),
        x509.DirectoryName(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "gate")])),
        x509.RegisteredID(x509.ObjectIdentifier("1.2.3")),
        x509.OtherName(x509.ObjectIdentifier("1.2.3"), b"\x05\x00"),
    ],
)
@pytest.mark.parametrize("spiffe_id", [ROVER, GATEKEEPER])
def test_a_leaf_has_no_names_of_other_kinds(name: x509.GeneralName, spiffe_id: str) -> None:
    refuse(make_leaf(uris=[spiffe_id], other_names=[name]))


def test_a_signing_certificate_never_authenticates() -> None:
    refuse(make_leaf(ca=True))


@pytest.mark.parametrize("bit", ["key_cert_sign", "crl_sign"])
def test_a_leaf_may_not_sign_certificates_or_lists(bit: str) -> None:
    refuse(make_leaf(usage=key_usage(**{bit: True})))


def test_a_leaf_may_sign_handshakes() -> None:
    refuse(make_leaf(usage=key_usage(digital_signature=False, content_commitment=True)))


def test_key_usage_is_critical() -> None:
    refuse(make_leaf(usage_is_critical=False))


@pytest.mark.parametrize(
    "purposes",
    [
        BOTH[:1],
        BOTH[1:],
        [ExtendedKeyUsageOID.CODE_SIGNING],
        [ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE],
        [BOTH[0], ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE],
    ],
)
def test_a_leaf_is_for_both_sides_of_tls(purposes: Sequence[x509.ObjectIdentifier]) -> None:
    refuse(make_leaf(purposes=purposes))


@pytest.mark.parametrize("extension", [NAMES, CONSTRAINTS, USAGE, PURPOSES])
def test_a_leaf_without_one_of_the_profiles_extensions_is_refused(extension: type[x509.ExtensionType]) -> None:
    refuse(make_leaf(without=extension))


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP256K1()),
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(65537, 2048),
    ],
)
def test_a_leaf_has_a_p_256_key(key: Key) -> None:
    refuse(make_leaf(key=key))


def test_a_leaf_is_at_most_16_kib() -> None:
    def padded(size: int) -> bytes:
        return make_leaf(more=x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), bytes(size)))

    size = CERTIFICATE_BYTES_MAX - 600
    while len(padded(size)) <= CERTIFICATE_BYTES_MAX:
        size += 64
    refuse(padded(size))
    open_svid(padded(size - 80), DOMAIN)


def test_a_leaf_is_one_certificate_with_nothing_behind_it() -> None:
    der = make_leaf()
    pem = pem_of(der)
    for wrong in (
        pem + pem,
        pem + pem_of(make_leaf(uris=[GATEKEEPER])),
        pem.replace(b"BEGIN CERTIFICATE", b"BEGIN PRIVATE KEY").replace(b"END CERTIFICATE", b"END PRIVATE KEY"),
        pem[:-30],
        der + b"\0",
        der + der,
        der[:-1],
        b"",
        b"-----BEGIN CERTIFICATE-----",
        b"\x30\x80",
    ):
        refuse(wrong)


def test_a_name_of_a_kind_that_the_library_does_not_know_is_refused() -> None:
    # Tag [3], an X.400 address: the library raises an error of its own for it, which is no ValueError.
    uri = b"\x86\x01a"
    names = b"\x30" + bytes([len(uri) + 2]) + b"\xa3\x00" + uri
    raw = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.17"), names)
    refuse(make_leaf(without=NAMES, more=raw))


def test_an_extension_that_stands_twice_is_refused() -> None:
    der = make_leaf(more=x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.20"), b"\x30\x00"))
    # 2.5.29.20 becomes a second 2.5.29.19: the signature breaks, which is TLS's to notice and not ours.
    twice = der.replace(b"\x06\x03\x55\x1d\x14", b"\x06\x03\x55\x1d\x13")
    assert twice != der
    refuse(twice)


def test_the_refusal_quotes_nothing_of_the_certificate() -> None:
    with pytest.raises(DeniedError) as caught:
        open_svid(make_leaf(uris=["spiffe://mars.example/participant/mallory/x"]), DOMAIN)
    assert "mallory" not in str(caught.value)


def test_a_serial_is_positive() -> None:
    der = make_leaf()
    at = der.index(b"\x02\x01\x05")
    for serial in (0x00, 0x80, 0xFF):
        damaged = der[: at + 2] + bytes([serial]) + der[at + 3 :]
        refuse(damaged)
        with warnings.catch_warnings():
            # In production the library only warns.
            warnings.simplefilter("ignore")
            refuse(damaged)


FUZZED = make_leaf()


def open_or_deny(leaf: bytes) -> None:
    """Any other exception than a denial is the test's failure."""
    with contextlib.suppress(DeniedError):
        assert open_svid(leaf, DOMAIN).spiffe_id.trust_domain == DOMAIN


@settings(deadline=None, max_examples=600)
@given(st.data())
def test_a_damaged_leaf_is_opened_or_denied_and_nothing_else(data: st.DataObject) -> None:
    raw = bytearray(FUZZED)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    open_or_deny(bytes(raw))


@pytest.mark.parametrize("value", [0x00, 0x01, 0x02, 0x05, 0x30, 0x7F, 0x80, 0xFF])
def test_a_leaf_with_any_one_byte_replaced_is_opened_or_denied(value: int) -> None:
    for at in range(len(FUZZED)):
        open_or_deny(FUZZED[:at] + bytes([value]) + FUZZED[at + 1 :])
