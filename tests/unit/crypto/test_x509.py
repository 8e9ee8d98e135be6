from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from sfrl_secure.crypto.secret import SecretBytes
from sfrl_secure.crypto.svid import open_svid
from sfrl_secure.crypto.x509 import CertificateAuthority, generate_tls_key
from sfrl_secure.errors import MalformedError
from sfrl_secure.ids import parse_spiffe_id, sha256

SECOND = 1_000_000
START = 1_760_000_000 * SECOND
END = START + 86_400 * SECOND
CA_END = START + 10 * 86_400 * SECOND
ROVER = parse_spiffe_id("spiffe://mars.example/participant/rover-1")
GATEKEEPER = parse_spiffe_id("spiffe://mars.example/service/gatekeeper/gate-1")

CA = CertificateAuthority.create("sfrl client CA", START, CA_END)
OTHER_CA = CertificateAuthority.create("sfrl service CA", START, CA_END)
KEY, SPKI = generate_tls_key()


RSA_PEM = rsa.generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def issue(**given: object) -> bytes:
    arguments: dict[str, object] = {"not_before_us": START, "not_after_us": END} | given
    spiffe_id = arguments.pop("spiffe_id", ROVER)
    return CA.issue_svid(spiffe_id, arguments.pop("spki", SPKI), **arguments)  # type: ignore[arg-type]


def policy(authority: CertificateAuthority) -> PolicyBuilder:
    store = Store([x509.load_pem_x509_certificate(authority.certificate_pem)])
    return PolicyBuilder().store(store).time(datetime.fromtimestamp(START // SECOND + 60, UTC))


def spki_of(private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def test_a_leaf_has_exactly_the_fields_of_the_profile() -> None:
    leaf = x509.load_pem_x509_certificate(issue(serial=77))
    assert leaf.serial_number == 77
    assert list(leaf.subject) == []
    assert leaf.not_valid_before_utc == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=START)
    assert leaf.not_valid_after_utc == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=END)
    assert isinstance(leaf.signature_hash_algorithm, hashes.SHA256)
    found = {type(extension.value): extension for extension in leaf.extensions}
    assert set(found) == {
        x509.SubjectAlternativeName,
        x509.BasicConstraints,
        x509.KeyUsage,
        x509.ExtendedKeyUsage,
        x509.AuthorityKeyIdentifier,
    }
    names = found[x509.SubjectAlternativeName]
    # The subject is empty, so RFC 5280 wants the names critical.
    assert names.critical
    assert list(names.value) == [x509.UniformResourceIdentifier(str(ROVER))]
    assert found[x509.BasicConstraints].critical
    assert found[x509.BasicConstraints].value == x509.BasicConstraints(ca=False, path_length=None)
    usage = found[x509.KeyUsage]
    assert usage.critical
    assert usage.value == x509.KeyUsage(True, *[False] * 8)
    assert set(found[x509.ExtendedKeyUsage].value) == {
        ExtendedKeyUsageOID.SERVER_AUTH,
        ExtendedKeyUsageOID.CLIENT_AUTH,
    }


def test_a_ca_has_exactly_the_fields_of_the_profile() -> None:
    root = x509.load_pem_x509_certificate(CA.certificate_pem)
    assert root.subject == root.issuer
    assert root.subject.rfc4514_string() == "CN=sfrl client CA"
    constraints = root.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)
    usage = root.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.key_cert_sign
    assert not usage.value.digital_signature


def test_a_verifier_of_chains_accepts_our_leaves_on_both_sides_of_tls() -> None:
    rover = x509.load_pem_x509_certificate(issue())
    assert policy(CA).build_client_verifier().verify(rover, []).chain[0] == rover
    service = x509.load_pem_x509_certificate(issue(spiffe_id=GATEKEEPER, dns_names=["gatekeeper.mars.example"]))
    policy(CA).build_client_verifier().verify(service, [])
    policy(CA).build_server_verifier(x509.DNSName("gatekeeper.mars.example")).verify(service, [])


def test_a_verifier_of_chains_refuses_the_other_cas_leaves() -> None:
    with pytest.raises(VerificationError):
        policy(OTHER_CA).build_client_verifier().verify(x509.load_pem_x509_certificate(issue()), [])


def test_no_chain_leads_through_a_ca_below_ours() -> None:
    below = CertificateAuthority.create("below", START, CA_END)
    leaf = x509.load_pem_x509_certificate(below.issue_svid(ROVER, SPKI, not_before_us=START, not_after_us=END))
    # Somebody with our CA's key certifies another CA: the path length of 0 makes it useless.
    private = load_pem_private_key(CA.key_pem.expose(), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    copied = x509.load_pem_x509_certificate(below.certificate_pem)
    between = (
        x509.CertificateBuilder(
            issuer_name=x509.load_pem_x509_certificate(CA.certificate_pem).subject,
            subject_name=copied.subject,
            public_key=copied.public_key(),
            serial_number=9,
            not_valid_before=copied.not_valid_before_utc,
            not_valid_after=copied.not_valid_after_utc,
            extensions=list(copied.extensions),
        )
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(private.public_key()), critical=False)
        .sign(private, hashes.SHA256())
    )
    with pytest.raises(VerificationError, match="path"):
        policy(CA).build_client_verifier().verify(leaf, [between])


def test_what_is_issued_is_what_is_opened() -> None:
    opened = open_svid(issue(serial=2**159 - 1), "mars.example")
    assert opened.spiffe_id == ROVER
    assert opened.serial == 2**159 - 1
    assert opened.spki_sha256 == sha256(SPKI)
    assert (opened.not_before_us, opened.not_after_us) == (START, END)


def test_times_are_rounded_down_to_the_second() -> None:
    opened = open_svid(issue(not_before_us=START + 999_999, not_after_us=END + 999_999), "mars.example")
    assert (opened.not_before_us, opened.not_after_us) == (START, END)


def test_serials_are_random_where_none_is_given() -> None:
    serials = {x509.load_pem_x509_certificate(issue()).serial_number for _ in range(8)}
    assert len(serials) == 8
    assert max(serials) > 2**128


def test_only_services_have_dns_names() -> None:
    for role in ("participant", "operator", "auditor"):
        with pytest.raises(MalformedError):
            issue(spiffe_id=parse_spiffe_id(f"spiffe://mars.example/{role}/x"), dns_names=["gatekeeper.mars.example"])


@pytest.mark.parametrize(
    "name",
    [
        "", "*.mars.example", "Gate", "gate.", ".gate", "gate..x", "g\u00e4te", "-gate", "a" * 64, "gate\n", "a.b/c",
        "audit_log", ".".join(["a" * 60] * 5),
    ],
)
def test_a_dns_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(MalformedError):
        issue(spiffe_id=GATEKEEPER, dns_names=["gatekeeper.mars.example", name])


@pytest.mark.parametrize("serial", [0, -1, 2**159, 2**200])
def test_a_serial_out_of_range_is_refused(serial: int) -> None:
    with pytest.raises(MalformedError):
        issue(serial=serial)


@pytest.mark.parametrize(
    ("before", "after"),
    [(START, START), (END, START), (START, START + 1), (-1, END), (-(10**20), END), (START, 10**20), (START, 10**30)],
)
def test_times_out_of_range_are_refused(before: int, after: int) -> None:
    with pytest.raises(MalformedError):
        issue(not_before_us=before, not_after_us=after)
    with pytest.raises(MalformedError):
        CertificateAuthority.create("x", before, after)


def test_a_leaf_does_not_outlive_its_ca() -> None:
    assert issue(not_after_us=CA_END)
    with pytest.raises(MalformedError):
        issue(not_after_us=CA_END + SECOND)


@pytest.mark.parametrize("name", ["", "a" * 65, "a\nb", "caf\u00e9"])
def test_a_common_name_out_of_range_is_refused(name: str) -> None:
    with pytest.raises(MalformedError):
        CertificateAuthority.create(name, START, END)


@pytest.mark.parametrize(
    "spki",
    [
        b"",
        b"\0" * 91,
        SPKI[:-1],
        SPKI + b"\0",
        KEY.expose(),
        spki_of(ec.generate_private_key(ec.SECP384R1())),
        spki_of(ec.generate_private_key(ec.SECP256K1())),
        spki_of(ed25519.Ed25519PrivateKey.generate()),
        spki_of(rsa.generate_private_key(65537, 2048)),
    ],
    ids=["empty", "zeros", "cut", "longer", "private-key", "p-384", "k-256", "ed25519", "rsa"],
)
def test_a_tls_key_is_ecdsa_p_256_and_nothing_else(spki: bytes) -> None:
    with pytest.raises(MalformedError):
        issue(spki=spki)


def test_a_generated_key_fits_its_public_key() -> None:
    private = load_pem_private_key(KEY.expose(), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    assert spki_of(private) == SPKI
    assert generate_tls_key()[1] != SPKI


def test_a_ca_survives_its_files() -> None:
    again = CertificateAuthority.from_pem(CA.certificate_pem, CA.key_pem)
    assert again.certificate_pem == CA.certificate_pem
    leaf = again.issue_svid(ROVER, SPKI, not_before_us=START, not_after_us=END)
    policy(CA).build_client_verifier().verify(x509.load_pem_x509_certificate(leaf), [])


def test_a_ca_prints_nothing_of_its_key() -> None:
    assert repr(CA) == str(CA) == "CertificateAuthority(CN=sfrl client CA)"
    assert "BEGIN" not in repr(CA.key_pem)


def crafted_ca(*, ca: bool = True, path_length: int | None = 0, signs: bool = True, leaf_usage: bool = False,
               curve: ec.EllipticCurve | None = None, without: type[x509.ExtensionType] | None = None
               ) -> tuple[bytes, SecretBytes]:
    private = ec.generate_private_key(curve or ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x")])
    builder = x509.CertificateBuilder(
        issuer_name=name,
        subject_name=name,
        public_key=private.public_key(),
        serial_number=9,
        not_valid_before=datetime(2025, 1, 1, tzinfo=UTC),
        not_valid_after=datetime(2035, 1, 1, tzinfo=UTC),
    )
    for extension in (
        x509.BasicConstraints(ca=ca, path_length=path_length),
        x509.KeyUsage(leaf_usage, False, False, False, False, signs, signs, False, False),
    ):
        if not isinstance(extension, without or ()):
            builder = builder.add_extension(extension, critical=True)
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return builder.sign(private, hashes.SHA256()).public_bytes(Encoding.PEM), SecretBytes(pem)


def test_a_crafted_ca_of_the_profile_is_taken() -> None:
    CertificateAuthority.from_pem(*crafted_ca())


@pytest.mark.parametrize(
    "wrong",
    [
        crafted_ca(path_length=1),
        crafted_ca(path_length=None),
        crafted_ca(ca=False, path_length=None, signs=False),
        crafted_ca(signs=False, leaf_usage=True),
        crafted_ca(leaf_usage=True),
        crafted_ca(signs=False),
        crafted_ca(curve=ec.SECP384R1()),
        crafted_ca(without=x509.BasicConstraints),
        crafted_ca(without=x509.KeyUsage),
        (CA.certificate_pem, OTHER_CA.key_pem),
        (CA.certificate_pem, SecretBytes(RSA_PEM)),
        (issue(), KEY),
        (b"", CA.key_pem),
        (CA.certificate_pem, SecretBytes(b"")),
        (CA.certificate_pem, SecretBytes(b"-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n")),
        (CA.key_pem.expose(), SecretBytes(CA.certificate_pem)),
    ],
)
def test_files_that_are_no_ca_of_the_profile_are_refused(wrong: tuple[bytes, SecretBytes]) -> None:
    with pytest.raises(MalformedError):
        CertificateAuthority.from_pem(*wrong)
