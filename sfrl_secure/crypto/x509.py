"""The PKI profile: issuing CAs, leaves that are X.509-SVIDs, and the requests for them.

Certificates are built from the record of whom they name; of a request (PKCS #10) nothing but the public key is taken,
and that only once the request's own signature has shown that somebody holds the private part.

Profile: certs/README.md.

Runs in: everything.
Trusts: nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_public_key,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sfrl_secure.crypto.secret import SecretBytes
from sfrl_secure.errors import MalformedError, SignatureError
from sfrl_secure.ids import SpiffeId
from sfrl_secure.limits import CSR_BYTES_MAX

SKEW_US = 300_000_000
"""Certificates are valid from five minutes before they are made: clocks differ."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_US = 253_402_300_799 * 1_000_000
"""The last second of the year 9999."""

_DNS_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")
_NOT_OURS = "not a CA certificate and key of this profile"


def generate_tls_key() -> tuple[SecretBytes, bytes]:
    """Make an ECDSA P-256 key: PKCS #8 PEM, and the DER SubjectPublicKeyInfo."""
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return SecretBytes(pem), key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def build_csr(key: SecretBytes) -> bytes:
    """Write a PKCS #10 request in DER for an ECDSA P-256 key in PEM, with an empty subject and no attributes.

    Raises:
        MalformedError: not such a key.
    """
    private = _private_key(key, "a TLS key is ECDSA P-256")
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(private, hashes.SHA256())
    return request.public_bytes(Encoding.DER)


def open_csr(raw: bytes) -> bytes:
    """Verify that whoever made a PKCS #10 request holds its key; give the DER SubjectPublicKeyInfo and nothing else.

    What else the request says, its subject and the extensions that it asks for, is not read.

    Raises:
        MalformedError: over `CSR_BYTES_MAX`, not DER of one request, not ECDSA P-256 with SHA-256.
        SignatureError: its signature does not hold.
    """
    if len(raw) > CSR_BYTES_MAX:
        raise MalformedError(f"a certificate request is at most {CSR_BYTES_MAX} bytes")
    try:
        request = x509.load_der_x509_csr(raw)
        public, algorithm = request.public_key(), request.signature_hash_algorithm
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion):
        raise MalformedError("the certificate request is not PKCS #10 in DER") from None
    if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP256R1):
        raise MalformedError("a TLS key is ECDSA P-256")
    if not isinstance(algorithm, hashes.SHA256):
        raise MalformedError("a certificate request is signed with SHA-256")
    try:
        holds = request.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature):
        holds = False
    if not holds:
        raise SignatureError("the certificate request is not signed by its own key")
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def tls_spki(key: SecretBytes) -> bytes:
    """Give the DER SubjectPublicKeyInfo of an ECDSA P-256 key in PEM.

    Raises:
        MalformedError: not such a key.
    """
    public = _private_key(key, "a TLS key is ECDSA P-256").public_key()
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def renewal_due_us(not_before_us: int, not_after_us: int) -> int:
    """Say when the holder of a certificate asks for the next: when half of its life since it was made is over.

    What renews at half-life has the other half in which to find nobody who answers.
    """
    made_us = not_before_us + SKEW_US
    if made_us >= not_after_us:  # none of ours: ours are valid for longer than clocks differ
        made_us = not_before_us
    return made_us + (not_after_us - made_us) // 2


class CertificateAuthority:
    """An issuing CA. Prints nothing of its key."""

    __slots__ = ("_certificate", "_key")

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._certificate = certificate
        self._key = key

    def __repr__(self) -> str:
        return f"CertificateAuthority({self._certificate.subject.rfc4514_string()})"

    @classmethod
    def create(cls, common_name: str, not_before_us: int, not_after_us: int) -> CertificateAuthority:
        """Make a self-signed CA with path length 0.

        Args:
            common_name: 1 to 64 characters; it tells two CAs apart for people and in a chain.

        Raises:
            MalformedError: the name or the times are out of range.
        """
        if not 1 <= len(common_name) <= 64 or not common_name.isprintable() or not common_name.isascii():
            raise MalformedError("a CA's common name is 1 to 64 printable ASCII characters")
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        certificate = (
            _builder(name, name, key.public_key(), x509.random_serial_number(), not_before_us, not_after_us)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    @classmethod
    def from_pem(cls, certificate: bytes, key: SecretBytes) -> CertificateAuthority:
        """Read what `certificate_pem` and `key_pem` wrote.

        Raises:
            MalformedError: not a CA of this profile.
        """
        loaded = _private_key(key, _NOT_OURS)
        try:
            parsed = x509.load_pem_x509_certificate(certificate)
            constraints = parsed.extensions.get_extension_for_class(x509.BasicConstraints).value
            usage = parsed.extensions.get_extension_for_class(x509.KeyUsage).value
            public = parsed.public_key()
        except (ValueError, TypeError, UnsupportedAlgorithm, x509.ExtensionNotFound, x509.DuplicateExtension):
            raise MalformedError(_NOT_OURS) from None
        if public != loaded.public_key() or not constraints.ca or constraints.path_length != 0:
            raise MalformedError(_NOT_OURS)
        if not usage.key_cert_sign or usage.digital_signature:
            raise MalformedError(_NOT_OURS)
        return cls(parsed, loaded)

    @property
    def not_after_us(self) -> int:
        """End of the CA's own validity: no leaf is valid for longer."""
        return (self._certificate.not_valid_after_utc - _EPOCH) // timedelta(microseconds=1)

    @property
    def certificate_pem(self) -> bytes:
        """The CA's certificate."""
        return self._certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> SecretBytes:
        """The CA's key, for a file of mode 0600."""
        return SecretBytes(self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    def issue_svid(
        self,
        spiffe_id: SpiffeId,
        spki: bytes,
        *,
        not_before_us: int,
        not_after_us: int,
        dns_names: Sequence[str] = (),
        serial: int | None = None,
    ) -> bytes:
        """Issue a leaf in PEM for a public key.

        Args:
            spki: DER SubjectPublicKeyInfo of an ECDSA P-256 key.
            dns_names: for services only.
            serial: 1 to 2**159 - 1; a random one where there is none.

        Raises:
            MalformedError: another kind of key, DNS names for somebody who is no service or that are none, a serial or
                times out of range, or a leaf that would outlive its CA.
        """
        try:
            public = load_der_public_key(spki)
        except (ValueError, UnsupportedAlgorithm):
            raise MalformedError("a TLS key is ECDSA P-256") from None
        if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP256R1):
            raise MalformedError("a TLS key is ECDSA P-256")
        if dns_names and "/service/" not in spiffe_id:
            raise MalformedError("only services have DNS names")
        # No wildcard, no underscore, nothing that is not ASCII.
        if not all(_DNS_NAME.fullmatch(name) for name in dns_names):
            raise MalformedError("a DNS name is 1 to 253 of a-z, 0-9, '.' and '-'")
        if _time(not_after_us) > self._certificate.not_valid_after_utc:
            raise MalformedError("a leaf does not outlive its CA")
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(spiffe_id)]
        names += [x509.DNSName(name) for name in dns_names]
        number = x509.random_serial_number() if serial is None else serial
        if not 1 <= number < 2**159:
            raise MalformedError("a serial is from 1 to 2**159 - 1")
        certificate = (
            _builder(x509.Name([]), self._certificate.subject, public, number, not_before_us, not_after_us)
            .add_extension(x509.SubjectAlternativeName(names), critical=True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )
        return certificate.public_bytes(Encoding.PEM)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    serial: int,
    not_before_us: int,
    not_after_us: int,
) -> x509.CertificateBuilder:
    if _time(not_before_us) >= _time(not_after_us):
        raise MalformedError("a certificate is valid for a second at least")
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(serial)
        .not_valid_before(_time(not_before_us))
        .not_valid_after(_time(not_after_us))
    )


def _private_key(key: SecretBytes, sentence: str) -> ec.EllipticCurvePrivateKey:
    try:
        loaded = load_pem_private_key(key.expose(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise MalformedError(sentence) from None
    if not isinstance(loaded, ec.EllipticCurvePrivateKey) or not isinstance(loaded.curve, ec.SECP256R1):
        raise MalformedError(sentence)
    return loaded


def _time(microseconds: int) -> datetime:
    """A certificate's time: whole seconds, rounded down, like the format's."""
    if not 0 <= microseconds <= _LAST_US:
        raise MalformedError("a certificate's times are from 1970 to 9999")
    return _EPOCH + timedelta(seconds=microseconds // 1_000_000)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
