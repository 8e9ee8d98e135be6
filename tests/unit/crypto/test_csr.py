"""PKCS #10 requests: the key is taken and nothing else, and only where its holder has signed."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from sfrl_secure.crypto.secret import SecretBytes
from sfrl_secure.crypto.x509 import SKEW_US, build_csr, generate_tls_key, open_csr, renewal_due_us, tls_spki
from sfrl_secure.errors import MalformedError, SfrlError, SignatureError
from sfrl_secure.limits import CSR_BYTES_MAX

KEY, SPKI = generate_tls_key()
RSA = rsa.generate_private_key(65537, 2048)
HOUR = 3_600_000_000


def signed(key: object, algorithm: object = hashes.SHA256(), builder: object = None) -> bytes:
    builder = builder or x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, algorithm).public_bytes(Encoding.DER)  # type: ignore[attr-defined]


def test_a_request_gives_its_key_back() -> None:
    assert open_csr(build_csr(KEY)) == SPKI == tls_spki(KEY)


def test_a_request_asks_for_nothing_and_names_nobody() -> None:
    request = x509.load_der_x509_csr(build_csr(KEY))
    assert list(request.subject) == []
    assert list(request.extensions) == []


def test_what_a_request_asks_for_is_not_read() -> None:
    private = load_pem_private_key(KEY.expose(), None)
    greedy = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "root")]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("*")]), critical=True)
        .add_attribute(x509.oid.AttributeOID.CHALLENGE_PASSWORD, b"secret")
    )
    assert open_csr(signed(private, builder=greedy)) == SPKI


def test_no_damaged_byte_gives_another_key() -> None:
    """A request holds its key, so a changed key is another's, and a changed anything else breaks the signature.

    What may change is how many bits of the signature's last byte count, where the last of them is a zero.
    """
    raw = build_csr(KEY)
    for at in range(len(raw)):
        for bit in (1, 0x80):
            damaged = bytearray(raw)
            damaged[at] ^= bit
            try:
                assert open_csr(bytes(damaged)) == SPKI
            except SfrlError:
                continue
            assert (damaged[at - 1], raw[at], bit) == (len(raw) - at, 0, 1)


@pytest.mark.parametrize("raw", [b"", b"\x30", build_csr(KEY)[:-1], build_csr(KEY) + b"\0", bytes(CSR_BYTES_MAX)])
def test_what_is_no_request_is_malformed(raw: bytes) -> None:
    with pytest.raises(MalformedError):
        open_csr(raw)


def test_a_request_over_its_bound_is_not_parsed() -> None:
    with pytest.raises(MalformedError, match=str(CSR_BYTES_MAX)):
        open_csr(build_csr(KEY).ljust(CSR_BYTES_MAX + 1, b"\0"))


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (ec.generate_private_key(ec.SECP384R1()), hashes.SHA256()),
        (ec.generate_private_key(ec.SECP256K1()), hashes.SHA256()),
        (RSA, hashes.SHA256()),
        (ed25519.Ed25519PrivateKey.generate(), None),
        (ec.generate_private_key(ec.SECP256R1()), hashes.SHA512()),
        (ec.generate_private_key(ec.SECP256R1()), hashes.SHA3_256()),
    ],
    ids=["P-384", "secp256k1", "RSA", "Ed25519", "SHA-512", "SHA3-256"],
)
def test_only_p_256_with_sha_256_is_taken(key: object, algorithm: object) -> None:
    with pytest.raises(MalformedError):
        open_csr(signed(key, algorithm))


def test_a_request_with_anothers_key_in_it_is_refused() -> None:
    """The victim's public key, signed by somebody who does not have the private one."""
    victim, thief = build_csr(KEY), build_csr(generate_tls_key()[0])
    cut = len(victim) - len(x509.load_der_x509_csr(victim).signature)
    forged = victim[:cut] + x509.load_der_x509_csr(thief).signature
    with pytest.raises((SignatureError, MalformedError)):
        open_csr(forged)


@pytest.mark.parametrize("pem", [b"", RSA.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())])
def test_a_key_that_is_no_tls_key_asks_for_nothing(pem: bytes) -> None:
    with pytest.raises(MalformedError):
        build_csr(SecretBytes(pem))
    with pytest.raises(MalformedError):
        tls_spki(SecretBytes(pem))


def test_a_certificate_is_renewed_when_half_of_its_life_is_over() -> None:
    made = 10**15
    assert renewal_due_us(made - SKEW_US, made + 24 * HOUR) == made + 12 * HOUR
    assert renewal_due_us(made - SKEW_US, made + 60_000_000) == made + 30_000_000
    # A certificate of somebody else's making, which was valid for less than clocks differ.
    assert renewal_due_us(made, made + SKEW_US) == made + SKEW_US // 2
