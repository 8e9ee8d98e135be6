"""Where attacks on running services are fought: a federation of real processes, and what its log holds of each attack.

Whoever attacks has stolen a key file, a CA, or nothing. `refused` sends one attack and waits until the published log
has counted exactly that refusal, by the service at whose door it was. Counts are held as a whole: a refusal too many,
of whatever reason, fails the next attack, so what leaves no trace (`unseen`) is held too.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from sfrl_secure.audit.profile import OperatorProfile, read_operator_profile
from sfrl_secure.audit.published import read_unverified_checkpoint, read_unverified_entries, read_unverified_entry
from sfrl_secure.clock import SystemClock
from sfrl_secure.crypto.envelope import Envelope, sign_envelope
from sfrl_secure.crypto.secret import SecretBytes
from sfrl_secure.crypto.svid import PeerCertificate, open_svid
from sfrl_secure.crypto.x509 import generate_tls_key
from sfrl_secure.errors import DeniedError, NotFoundError, SfrlError, UnavailableError
from sfrl_secure.governance.statements import Body, Evidence, PeerClass, RefusalsCounted, Statement, UpdateRefused
from sfrl_secure.operating.signing import SigningRequest
from sfrl_secure.rounds.state import FederationState
from sfrl_secure.rpc.channel import AnonymousTls, ClientTls, RpcChannel, Tls
from sfrl_secure.rpc.clients import AuditLogClient
from sfrl_secure.services.federation.create import create_federation
from sfrl_secure.services.federation.plan import FederationPlan
from sfrl_secure.services.federation.supervise import Supervisor
from sfrl_secure.storage.secrets import read_secret
from sfrl_secure.wire import audit_service, downloads, gatekeeper_service, uploads
from sfrl_secure.wire.gatekeeper_service import RoundRequest

from ..integration.conftest import SEGMENT, Site, small_plan

DOMAIN = "sfrl.example"
LOG, ENROL = "audit-log-1", "enrol"
"""Doors besides `g1` and `g2`: the log's, and the one of `g1` for newcomers."""

NO_ROUND = gatekeeper_service.encode_round_request(RoundRequest(SEGMENT, 1_000, 0))
"""Asks for a round that there is not: whoever is let in is answered NOT_FOUND."""

UNKNOWN = PeerClass.UNKNOWN
_SETTLE_SECONDS = 20.0
_STREAMS = {audit_service.FOLLOW_LOG, downloads.FETCH_MODEL, gatekeeper_service.FETCH_OBJECT}

Refusal = tuple[str, str, PeerClass]
"""Who counted it, the reason, the class of the peer."""


class Live:
    """A running federation under attack.

    Attributes:
        counted: every refusal that the log has every reason to have counted by now.
    """

    def __init__(self, site: Site) -> None:
        self.site = site
        self.counted: Counter[Refusal] = Counter()

    # What becomes of attacks

    def refused(
        self, reason: str, attempt: Callable[[], object], *, at: str = "g1", peer_class: PeerClass = UNKNOWN
    ) -> None:
        """A service refuses an attack for this reason, and counts it in the log."""
        with pytest.raises(DeniedError) as refused:
            attempt()
        assert refused.value.reason == reason
        assert refused.value.entry_index is None
        self.counted["g1" if at == ENROL else at, reason, peer_class] += 1
        self.settle()

    def refused_update(self, reason: str, peer: str, attempt: Callable[[], object], evidence: Evidence) -> None:
        """A gatekeeper refuses an update of a peer that it knows: the refusal is an entry, and the answer names it."""
        with pytest.raises(DeniedError) as refused:
            attempt()
        assert refused.value.reason == reason
        index = refused.value.entry_index
        assert index is not None
        folder = self.site.folder.log_dir
        self.site.wait_published(lambda log: log.state.size > index)
        found = read_unverified_entry(folder, read_unverified_checkpoint(folder).size, index).content
        assert isinstance(found, Statement)
        assert isinstance(found.body, UpdateRefused)
        assert (found.body.reason, found.body.evidence, found.body.peer.name) == (reason, evidence, peer)

    def unseen(self, attempt: Callable[[], object]) -> None:
        """TLS refuses the connection: there is no call, so there is nobody to refuse and nothing to count."""
        with pytest.raises(UnavailableError):
            attempt()

    def settle(self) -> None:
        """Wait until the published log has counted what it must have, and look that it has counted nothing else."""
        until = time.monotonic() + _SETTLE_SECONDS
        while (found := self._published()).total() < self.counted.total():
            assert time.monotonic() < until, f"the log does not come to count {self.counted - found}"
            time.sleep(0.05)
        assert found == self.counted, f"counted too much: {found - self.counted}, too little: {self.counted - found}"

    def bodies(self, kind: type[Body]) -> list[tuple[str, Body]]:
        """Statements of a kind in the published log, each with its writer's name."""
        folder = self.site.folder.log_dir
        entries = read_unverified_entries(folder, read_unverified_checkpoint(folder).size)
        stated = [each.content for each in entries if isinstance(each.content, Statement)]
        return [(each.writer.name, each.body) for each in stated if isinstance(each.body, kind)]

    def _published(self) -> Counter[Refusal]:
        found: Counter[Refusal] = Counter()
        try:
            for writer, body in self.bodies(RefusalsCounted):
                assert isinstance(body, RefusalsCounted)
                for each in body.counts:
                    found[writer, each.reason, each.peer_class] += each.count
        except SfrlError:
            return Counter()  # read while it was being replaced
        return found

    def check_history(self) -> None:
        """Stop everything: every process ends well, and the verifier finds nothing, and every refusal."""
        self.settle()
        assert set(self.site.stop().values()) == {0}
        report = self.site.verify()
        assert report.exit_code == 0, report.to_text()
        assert report.conduct_clean
        assert report.refusals_counted == self.counted.total()

    # Whom and what there is to steal

    def tls(self, name: str) -> ClientTls:
        """A participant's TLS key and certificate."""
        return self.site.profile(name).open_tls()

    def operator(self, name: str) -> OperatorProfile:
        """An operator's keys."""
        return read_operator_profile(self.site.folder.operator(name) / "profile.toml")

    def service_tls(self, role: str, name: str) -> ClientTls:
        """A service's TLS key and certificate."""
        folder = self.site.folder.service(role, name)
        return ClientTls(read_secret(folder / "tls.key"), (folder / "tls.crt").read_bytes(), self.service_roots)

    @property
    def service_roots(self) -> bytes:
        """The service CA's certificate, which is public."""
        return (self.site.folder.root / "ca/service.crt").read_bytes()

    def anonymous(self) -> AnonymousTls:
        """What a newcomer has: no certificate."""
        return AnonymousTls(self.service_roots)

    def forge(
        self,
        names: Sequence[x509.GeneralName],
        *,
        ca: str = "client",
        key: SecretBytes | None = None,
        serial: int | None = None,
        seconds: float = 3_600,
        is_ca: bool = False,
    ) -> ClientTls:
        """A certificate by a stolen CA: for a new key or a stolen one, with any names that the thief likes."""
        folder = self.site.folder.root / "ca"
        authority = x509.load_pem_x509_certificate((folder / f"{ca}.crt").read_bytes())
        return signed_leaf(
            names, authority.subject, _private(read_secret(folder / f"{ca}.key")), key=key, serial=serial,
            seconds=seconds, is_ca=is_ca,
        )(self.service_roots)  # fmt: skip

    # Doors

    def address(self, door: str) -> str:
        """Where a door is."""
        addresses = self.site.federation.addresses
        return {**addresses.gatekeepers, LOG: addresses.audit_log, ENROL: addresses.enrol}[door]

    def channel(self, tls: Tls, at: str = "g1") -> RpcChannel:
        """A channel to a door. Close it."""
        role = "audit_log" if at == LOG else "gatekeeper"
        return RpcChannel(self.address(at), role=role, trust_domain=DOMAIN, tls=tls)

    def call(self, tls: Tls, path: str = gatekeeper_service.GET_ROUND, raw: bytes = NO_ROUND, at: str = "g1") -> None:
        """Call a method once, over a connection of its own."""
        with self.channel(tls, at) as channel:
            call_on(channel, path, raw)

    def is_let_in(self, tls: ClientTls) -> bool:
        """Whether a participant is served."""
        try:
            self.call(tls)
        except NotFoundError:
            return True
        except DeniedError:
            return False
        raise AssertionError("there is no such round")

    def append(self, envelope: Envelope, tls: ClientTls) -> int:
        """Bring an envelope to the log's door; give its index."""
        with self.channel(tls, LOG) as channel:
            return AuditLogClient(channel).append(envelope).logged.index

    # What honest operators do

    def state(self) -> FederationState:
        """The federation as the published log has it."""
        return self.site.reading().state

    def publish(self, draft: Callable[[FederationState, int], SigningRequest], *signers: str) -> int:
        """Let operators sign a document, and the first of them bring it to the log; wait until it is published."""
        request = draft(self.state(), SystemClock().now_us())
        profiles = [self.operator(name) for name in signers]
        keys = [each.open_signing_key() for each in profiles]
        index = self.append(sign_envelope(request.payload_type, request.payload, keys), profiles[0].open_tls())
        self.site.wait_published(lambda log: log.state.size > index)
        return index


def call_on(channel: RpcChannel, path: str = gatekeeper_service.GET_ROUND, raw: bytes = NO_ROUND) -> None:
    """Call a method once, with one request; read an answer that is a stream to its end."""
    if path == uploads.SUBMIT_UPDATE:
        list(channel.exchange(path, iter([raw]), deadline_seconds=10))
    elif path in _STREAMS:
        list(channel.stream(path, raw, deadline_seconds=10))
    else:
        channel.call(path, raw, deadline_seconds=10)


def certificate_of(tls: ClientTls) -> PeerCertificate:
    """What a certificate says."""
    return open_svid(tls.chain, DOMAIN)


def uri(path: str, domain: str = DOMAIN) -> x509.UniformResourceIdentifier:
    """A SPIFFE ID as a certificate's name."""
    return x509.UniformResourceIdentifier(f"spiffe://{domain}/{path}")


def signed_leaf(
    names: Sequence[x509.GeneralName],
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    key: SecretBytes | None = None,
    serial: int | None = None,
    seconds: float = 3_600,
    is_ca: bool = False,
) -> Callable[[bytes], ClientTls]:
    """A certificate that is what a leaf must be in all that is not asked for otherwise."""
    key = key or generate_tls_key()[0]
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(issuer)
        .public_key(_private(key).public_key())
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(seconds=seconds))
        .add_extension(x509.SubjectAlternativeName(names), critical=True)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(_usage(is_ca=is_ca), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
    chain = certificate.public_bytes(Encoding.PEM)
    return lambda service_roots: ClientTls(key, chain, service_roots)


@contextmanager
def running(folder: Path, plan: FederationPlan | None = None) -> Iterator[Live]:
    """Make a federation of two gatekeepers and run its services until the block ends."""
    federation = create_federation(folder / "federation", plan or two_gatekeepers(), SystemClock())
    site = Site(federation, Supervisor(federation.folder))
    try:
        site.supervisor.start()
        site.wait_published(lambda log: log.state.segments[SEGMENT].open_round is not None)
        yield Live(site)
    finally:
        site.stop()


def two_gatekeepers() -> FederationPlan:
    """The plan: `g1` issues identities, `g2` does not."""
    return small_plan(gatekeepers=("g1", "g2"))


def _private(key: SecretBytes) -> ec.EllipticCurvePrivateKey:
    loaded = load_pem_private_key(key.expose(), None)
    assert isinstance(loaded, ec.EllipticCurvePrivateKey)
    return loaded


def _usage(*, is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True, key_cert_sign=is_ca, crl_sign=False, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
