"""X.509-SVID leaves: what BoringSSL does not check.

TLS has verified the chain; the leaf rules of SPIFFE are checked here, on every call (SPIFFE X.509-SVID, sections 2
to 5).

Profile: certs/README.md.

Runs in: everything that serves.
Trusts: TLS, for the chain. Nothing that the certificate says until the rules hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import ExtendedKeyUsageOID

from sfrl_secure.crypto.secret import SecretBytes
from sfrl_secure.errors import DeniedError, MalformedError
from sfrl_secure.ids import Digest, SpiffeId, parse_spiffe_id, sha256

CERTIFICATE_BYTES_MAX = 16 * 1024

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# Whatever the library raises for a certificate that it cannot read whole; most are no ValueError. The warning is one
# where warnings are errors: a peer must not choose which exception leaves this module.
_UNREADABLE = (
    ValueError,
    CryptographyDeprecationWarning,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.ExtensionNotFound,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """What a leaf certificate says, after the leaf rules held. Times are microseconds since 1970."""

    spiffe_id: SpiffeId
    serial: int
    spki_sha256: Digest
    not_before_us: int
    not_after_us: int


def open_svid(leaf: bytes, trust_domain: str) -> PeerCertificate:
    """Check the leaf rules of a certificate whose chain TLS has verified.

    Args:
        leaf: PEM or DER, at most 16 KiB.

    Raises:
        DeniedError: `certificate`, a rule does not hold.
    """
    try:
        return _open(leaf, trust_domain)
    except (MalformedError, *_UNREADABLE):
        raise DeniedError("certificate", "the certificate is not an X.509-SVID of this trust domain") from None


def _open(leaf: bytes, trust_domain: str) -> PeerCertificate:
    if len(leaf) > CERTIFICATE_BYTES_MAX:
        raise MalformedError("a certificate is at most 16 KiB")
    is_pem = leaf.lstrip().startswith(b"-----BEGIN")
    # The library reads the first block of a PEM file and is silent about the others.
    if is_pem and leaf.count(b"-----BEGIN") != 1:
        raise MalformedError("a leaf is exactly one certificate")
    certificate = x509.load_pem_x509_certificate(leaf) if is_pem else x509.load_der_x509_certificate(leaf)
    if certificate.serial_number < 1:
        raise MalformedError("a serial is positive")
    extensions = certificate.extensions
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1:
        raise MalformedError("an SVID has exactly one URI")
    spiffe_id = parse_spiffe_id(uris[0])
    if spiffe_id.trust_domain != trust_domain:
        raise MalformedError("an SVID is of our trust domain")
    # gRPC clients look at DNS names only: a participant with one could pose as that service.
    hosts = names.get_values_for_type(x509.DNSName)
    if len(uris) + len(hosts) != len(names) or (hosts and "/service/" not in spiffe_id):
        raise MalformedError("besides its URI, a service has DNS names and nobody else has names")
    if extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
        raise MalformedError("a CA never authenticates")
    usage = extensions.get_extension_for_class(x509.KeyUsage)
    allowed = usage.value.digital_signature and not usage.value.key_cert_sign and not usage.value.crl_sign
    if not usage.critical or not allowed:
        raise MalformedError("a leaf signs handshakes and nothing else")
    # SPIFFE lets a leaf leave its purposes out; the leaves of this profile never do.
    purposes = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    if not {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH} <= set(purposes):
        raise MalformedError("a leaf serves both sides of TLS")
    public = certificate.public_key()
    if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP256R1):
        raise MalformedError("a TLS key is ECDSA P-256")
    return PeerCertificate(
        spiffe_id=spiffe_id,
        serial=certificate.serial_number,
        spki_sha256=sha256(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)),
        not_before_us=_microseconds(certificate.not_valid_before_utc),
        not_after_us=_microseconds(certificate.not_valid_after_utc),
    )


def _microseconds(when: datetime) -> int:
    return (when - _EPOCH) // timedelta(microseconds=1)


def check_tls_key(leaf: bytes, key: SecretBytes) -> None:
    """Check that a PEM private key is the one of a PEM leaf: TLS libraries say so only when a handshake fails.

    Raises:
        MalformedError: it is another key, or not a key at all.
    """
    try:
        found = load_pem_private_key(key.expose(), None).public_key()
        same = found == x509.load_pem_x509_certificate(leaf).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        same = False
    if not same:
        raise MalformedError("the TLS key is not that of the certificate")
