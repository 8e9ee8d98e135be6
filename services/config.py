"""Configuration: one TOML file a service, every key known, every path relative to the file.

An unknown key is refused: a misspelt one would leave a default in force that nobody chose. Files hold paths of keys,
never keys.

Runs in: gatekeeper, aggregator, audit_log, verifier.
Trusts: whoever wrote the file; its form is checked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, TypeVar

from pydantic import AfterValidator, Field

from sfrl_secure.crypto.keys import SigningKey, signing_key_from_pem
from sfrl_secure.crypto.svid import PeerCertificate, open_svid
from sfrl_secure.errors import DeniedError, MalformedError
from sfrl_secure.ids import SpiffeId, parse_hex_digest, parse_spiffe_id
from sfrl_secure.limits import TRUST_POLICY_BYTES_MAX
from sfrl_secure.storage.files import read_bounded
from sfrl_secure.storage.secrets import read_secret
from sfrl_secure.storage.settings import (
    Address,
    HexDigest,
    Name,
    PeerAddress,
    Section,
    SettingsPath,
    Suite,
    TrustDomain,
    checked_by,
    read_settings,
)
from sfrl_secure.storage.tls_pair import TlsPair, read_tls_pair
from sfrl_secure.translog.policy import TrustPolicy, parse_trust_policy

CONFIG_BYTES_MAX = 256 * 1024
CERTIFICATES_BYTES_MAX = 64 * 1024

LOG_GENERATIONS_MAX = 4
"""Generations of the log's keys that sign at once: each adds 3.4 kB to every checkpoint."""

WITNESS_KEYS_MAX = 4
"""Keys of one witness."""


class TlsFiles(Section):
    """Certificate and key of the service, and the CAs of those who may call it.

    Attributes:
        service_ca: also what the service trusts when it calls another.
    """

    certificate: SettingsPath
    key: SettingsPath
    client_ca: SettingsPath
    service_ca: SettingsPath


class SigningFile(Section):
    """The key with which the service signs its statements."""

    key: SettingsPath
    suite: Suite = "ed25519"

    def open(self) -> SigningKey:
        """Read the key.

        Raises:
            NotFoundError, DeniedError, MalformedError: no file, readable by others, not such a key.
        """
        return signing_key_from_pem(self.suite, read_secret(self.key))


class ServiceConfig(Section):
    """What every service has; `role` is the class's.

    Attributes:
        listen: where its gRPC server listens; port 0 takes a free one.
        trust_policy: which log, witnesses and quorum count (c2sp.org/tlog-policy).
        origin: of the federation's log; it stands in the trust policy.
        federation_id: SHA-256 of root v1, in hex; what a service that renews its certificate signs.
        renew_address: a gatekeeper that issues, where the service gets its next certificate; without it none is got,
            except by a gatekeeper that issues itself.
        threads: calls served at once.
        grace_seconds: running calls have this long to end at a stop.
    """

    role: ClassVar[str]

    name: Name
    trust_domain: TrustDomain
    listen: Address
    trust_policy: SettingsPath
    origin: str
    tls: TlsFiles
    federation_id: HexDigest | None = None
    renew_address: PeerAddress | None = None
    threads: Annotated[int, Field(ge=4, le=512)] = 48
    grace_seconds: Annotated[float, Field(ge=0, le=300)] = 5.0

    def open_trust_policy(self) -> TrustPolicy:
        """Read the trust policy, which lists the origin.

        Raises:
            NotFoundError, MalformedError: no file, not a policy, or another log's.
        """
        policy = parse_trust_policy(read_bounded(self.trust_policy, TRUST_POLICY_BYTES_MAX))
        if policy.log(self.origin) is None:
            raise MalformedError("the trust policy does not list the origin of the configuration")
        return policy

    def read_tls(self) -> TlsPair:
        """Read the service's certificate chain, whose leaf is for exactly this service, and its key, in PEM.

        Raises:
            NotFoundError, DeniedError, MalformedError: no file, a key that others can read, the certificate of another
                service or role, or another certificate's key.
        """
        pair = read_tls_pair(self.tls.certificate, self.tls.key)
        self.open_certificate(pair)
        return pair

    def open_certificate(self, pair: TlsPair) -> PeerCertificate:
        """Check that a chain's leaf is for exactly this service, and say what the leaf says.

        Raises:
            MalformedError: it is the certificate of another service or role.
        """
        wanted = f"spiffe://{self.trust_domain}/service/{self.role}/{self.name}"
        try:
            found = open_svid(_leaf_of(pair.chain), self.trust_domain)
        except DeniedError:
            found = None
        if found is None or found.spiffe_id != wanted:
            raise MalformedError(f"the certificate in the configuration is not that of {wanted}")
        return found

    def read_client_roots(self) -> bytes:
        """Read the CAs whose certificates may shake hands: the client CA and the service CA, in PEM."""
        return read_bounded(self.tls.client_ca, CERTIFICATES_BYTES_MAX) + self.read_service_roots()

    def read_service_roots(self) -> bytes:
        """Read the service CA, in PEM."""
        return read_bounded(self.tls.service_ca, CERTIFICATES_BYTES_MAX)


class WitnessUrls(Section):
    """Where a witness is asked; `names` are those that the trust policy gives its keys."""

    names: Annotated[tuple[str, ...], Field(min_length=1, max_length=WITNESS_KEYS_MAX)]
    submission_url: str
    monitoring_url: str


class Batches(Section):
    """How the log gathers entries into batches."""

    entries_max: Annotated[int, Field(ge=1, le=256)] = 256
    delay_ms: Annotated[float, Field(ge=0, le=1000)] = 5.0
    queue_max: Annotated[int, Field(ge=256, le=65_536)] = 4096


class AuditLogConfig(ServiceConfig):
    """The audit log's.

    Attributes:
        log_dir: published: `checkpoint` and `tile/`.
        journal_dir: private: the journal, the last signed note, the statement index and the fold's snapshot.
        log_url: `s3://bucket/prefix`, where journal, signed note and published files lie instead of in the two folders;
            index and snapshot stay in `journal_dir`.
        log_keys: files of the log's keys, one a generation, the oldest first: the newest of the trust policy's.
        public_listen: where everyone is given checkpoints and hash tiles over HTTP; without it, nowhere.
        threads: each append waits in one, each stream keeps one: enough for 64 appends, all streams, and whoever asks
            meanwhile.
        followers_max: streams of FollowLog at once; fewer than `threads`.
        refusals_seconds: counted refusals are written this often.
        anchor_seconds: an entry is under an anchor of time after this long at the latest.
    """

    role = "audit_log"

    signing: SigningFile
    threads: Annotated[int, Field(ge=4, le=512)] = 160
    log_dir: SettingsPath
    journal_dir: SettingsPath
    log_url: str | None = None
    log_keys: Annotated[tuple[SettingsPath, ...], Field(min_length=1, max_length=LOG_GENERATIONS_MAX)]
    witnesses: tuple[WitnessUrls, ...] = ()
    batches: Batches = Batches()
    public_listen: Address | None = None
    followers_max: Annotated[int, Field(ge=1, le=256)] = 16
    refusals_seconds: Annotated[float, Field(gt=0, le=3600)] = 10.0
    anchor_seconds: Annotated[float, Field(gt=0, le=60)] = 30.0


class Issuing(Section):
    """What a gatekeeper needs to issue identities. The CAs' certificates are the first of `tls.client_ca` and
    `tls.service_ca`.

    Attributes:
        client_ca_key: for participants, operators and auditors; without it none of them gets an identity here.
        service_ca_key: for services; likewise.
        lifetime_seconds: of a certificate of a service or participant; never beyond the CA's.
        people_lifetime_seconds: of one of an operator or auditor.
        enrol_listen: where newcomers are taken, without a client certificate; without it, nowhere.
    """

    client_ca_key: SettingsPath | None = None
    service_ca_key: SettingsPath | None = None
    lifetime_seconds: Annotated[int, Field(ge=10, le=365 * 86_400)] = 86_400
    people_lifetime_seconds: Annotated[int, Field(ge=10, le=365 * 86_400)] = 90 * 86_400
    enrol_listen: Address | None = None


class GatekeeperConfig(ServiceConfig):
    """A gatekeeper's.

    Attributes:
        log_address: where the audit log listens.
        objects_dir: payloads and models.
        objects_url: `s3://bucket/prefix`, where they lie instead.
        state_dir: private: what it keeps of the log over a restart.
        threads: each upload under way keeps one, each waiter for a round and each reader of a model too.
        uploads_max: uploads at once, but never more than half of `threads`: whoever asks meanwhile finds one.
        upload_bytes_max: bytes of uploads that are under way, or that broke and wait to be gone on with, on the disk or
            in the bucket.
        refusals_seconds: counted refusals are written this often.
        issuing: where it issues TLS identities.
    """

    role = "gatekeeper"

    signing: SigningFile
    threads: Annotated[int, Field(ge=4, le=512)] = 128
    log_address: Address
    objects_dir: SettingsPath
    objects_url: str | None = None
    state_dir: SettingsPath
    uploads_max: Annotated[int, Field(ge=1, le=256)] = 64
    upload_bytes_max: Annotated[int, Field(ge=1, le=2**50)] = 2**34
    refusals_seconds: Annotated[float, Field(gt=0, le=3600)] = 10.0
    issuing: Issuing | None = None

    @property
    def uploads_place(self) -> Path | str:
        """Where uploads lie until they are objects: below the objects, on the same file system, for all gatekeepers
        that share these."""
        return f"{self.objects_url.rstrip('/')}/uploads" if self.objects_url else self.objects_dir / "uploads"


class AggregatorConfig(ServiceConfig):
    """The aggregator's.

    Attributes:
        log_address: where the audit log listens.
        objects_dir: payloads and models.
        objects_url: `s3://bucket/prefix`, where they lie instead.
        state_dir: private: what it keeps of the log over a restart.
    """

    role = "aggregator"

    signing: SigningFile
    log_address: Address
    objects_dir: SettingsPath
    objects_url: str | None = None
    state_dir: SettingsPath


class KnownCaller(Section):
    """A peer that may call where no log is followed."""

    spiffe_id: Annotated[str, AfterValidator(checked_by(parse_spiffe_id))]
    spki_sha256: Annotated[str, AfterValidator(checked_by(parse_hex_digest))]

    @property
    def identity(self) -> SpiffeId:
        """The SPIFFE ID as a value."""
        return parse_spiffe_id(self.spiffe_id)


class VerifierConfig(ServiceConfig):
    """The verifier's.

    Attributes:
        witness_listen: where its witness answers over HTTP.
        witness_keys: files of the witness's keys, one a file, each of which the trust policy names.
        state_dir: what it has cosigned.
        callers: who may ask its gRPC server for its health.
        signing: the key with which it asks for its next certificate.
    """

    role = "verifier"

    signing: SigningFile | None = None
    witness_listen: Address
    witness_keys: Annotated[tuple[SettingsPath, ...], Field(min_length=1, max_length=WITNESS_KEYS_MAX)]
    state_dir: SettingsPath
    callers: tuple[KnownCaller, ...] = ()


CONFIGS: dict[str, type[ServiceConfig]] = {
    kind.role: kind for kind in (GatekeeperConfig, AggregatorConfig, AuditLogConfig, VerifierConfig)
}
"""By role."""

_RENAMED = {
    "log_key": "it is `log_keys` now, a list, such as [\"log.key\"]",
    "witness_key": "it is `witness_keys` now, a list, such as [\"witness.key\"]",
    "witnesses.*.name": "it is `names` now, a list of the trust policy's names of the witness's keys",
}
"""Keys of version 0.1.0."""


def _leaf_of(chain: bytes) -> bytes:
    """The first certificate of a PEM chain."""
    end = b"-----END CERTIFICATE-----\n"
    first, separator, _ = chain.partition(end)
    return first + separator


ConfigT = TypeVar("ConfigT", bound=ServiceConfig)


def read_config(path: Path, kind: type[ConfigT]) -> ConfigT:
    """Read a service's configuration.

    Raises:
        NotFoundError: there is no such file.
        MalformedError: not TOML, an unknown key, a missing key, a value of another form. The sentence names the keys.
    """
    return read_settings(path, kind, bytes_max=CONFIG_BYTES_MAX, what="configuration", renamed=_RENAMED)
