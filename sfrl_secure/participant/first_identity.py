"""The first identity of an operator, auditor or service whom governance newly names.

Its signing key stands in root or the services document, so it needs no invitation: it makes a TLS key, asks for it with
the signing key at the door for newcomers, and is answered with a log entry and a certificate. Whatever interrupts it,
the same call again goes on with the same TLS key, for it gets an identity this way for one TLS key only. An operator or
auditor gets a profile as well, which comes last.

Format: proto/README.md, "Enrolment"; `audit.profile`.

Runs in: operators' and auditors' machines, all services' machines, cli.
Trusts: service CA and trust policy, which whoever calls brought. Nothing that a gatekeeper answers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sfrl_secure.audit.profile import CERTIFICATES_BYTES_MAX, OverseerProfile
from sfrl_secure.clock import Clock
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.crypto.secret import SecretBytes
from sfrl_secure.crypto.x509 import generate_tls_key
from sfrl_secure.errors import MalformedError, NotFoundError, UnavailableError, VerificationError
from sfrl_secure.ids import Digest, SpiffeId, parse_hex_digest
from sfrl_secure.limits import TRUST_POLICY_BYTES_MAX
from sfrl_secure.rpc.channel import AnonymousTls, RpcChannel
from sfrl_secure.rpc.clients import IdentityClient
from sfrl_secure.rpc.identity_requests import IdentityAsker, open_identity
from sfrl_secure.storage.files import FolderLock, make_folder, read_bounded, write_atomically
from sfrl_secure.storage.secrets import read_secret, write_secret
from sfrl_secure.storage.settings import parse_peer_address
from sfrl_secure.translog.policy import TrustPolicy, parse_trust_policy

OVERSEER_ROLES = ("operator", "auditor")

PROFILE_NAME = "profile.toml"
TLS_KEY_NAME = "tls.key"
CERTIFICATE_NAME = "tls.crt"
SERVICE_CA_NAME = "service-ca.crt"
TRUST_POLICY_NAME = "trust-policy.txt"


@dataclass(frozen=True, slots=True)
class Door:
    """Where newcomers are taken, and whom to trust for what is answered there.

    Attributes:
        address: of the gatekeeper that issues, host:port.
        service_ca: the one CA whose services are talked to, PEM.
        policy: lists exactly one log, that of `federation_id`.
    """

    address: str
    trust_domain: str
    federation_id: Digest
    service_ca: bytes
    policy: TrustPolicy

    def __post_init__(self) -> None:
        parse_peer_address(self.address)
        # With two logs a gatekeeper could choose which federation records the identity.
        origins = [log.origin for log in self.policy.logs]
        if len(origins) != 1 or not origins[0].endswith(f"/sfrl/{self.federation_id.hex()[:32]}"):
            raise MalformedError("the trust policy lists exactly one log, that of the federation id")


@dataclass(frozen=True, slots=True)
class FirstIdentity:
    """An identity that was got.

    Attributes:
        index: leaf index of its entry.
        not_after_us: end of its certificate.
    """

    spiffe_id: SpiffeId
    index: int
    not_after_us: int


Connect = Callable[[Door], RpcChannel]


def connect_to_door(door: Door) -> RpcChannel:
    """A channel to the gatekeeper that takes newcomers. Close it."""
    return RpcChannel(
        door.address, role="gatekeeper", trust_domain=door.trust_domain, tls=AnonymousTls(door.service_ca)
    )


def get_first_identity(
    spiffe_id: SpiffeId,
    key: SigningKey,
    door: Door,
    clock: Clock,
    *,
    certificate: Path,
    tls_key: Path,
    connect: Connect = connect_to_door,
) -> FirstIdentity:
    """Ask for a first identity, and write its certificate; the TLS key is made where its file is not there.

    The caller has seen that the files are of nobody who has an identity.

    Args:
        key: the signing key that root or the services document names.

    Raises:
        MalformedError: the TLS key is none of ours, or another process works in its folder.
        DeniedError: refused, with the reason; or a key that others can read.
        VerificationError: what was answered does not prove an identity; no certificate was written.
        UnavailableError: the gatekeeper does not answer; the same call goes on later.
    """
    with FolderLock(tls_key.parent):
        asker = IdentityAsker(spiffe_id, door.federation_id, key, clock, tls_key=_tls_key(tls_key))
        with connect(door) as channel:
            try:
                asked, answer = IdentityClient(channel).enrol_with(asker, None)
            except UnavailableError:
                raise UnavailableError(
                    f"the gatekeeper does not answer at {door.address}: check the network, and run the same command "
                    "again; it goes on with the same TLS key"
                ) from None
        if answer.recorded is not None:
            raise VerificationError("the answer holds a record, and none was sent")
        issued = open_identity(
            asked, answer.issued, answer.checkpoint, answer.certificate, door.policy, renews=None
        )
        write_atomically(certificate, answer.certificate)
    return FirstIdentity(spiffe_id, answer.issued.index, issued.not_after_us)


@dataclass(frozen=True, slots=True, kw_only=True)
class OverseerAsks:
    """An operator or auditor who was newly named, and what it was given.

    Attributes:
        key: the signing key that governance names; `key_file`, where it is and stays.
        like: somebody else's profile: where the federation's services are, and whom to trust.
        enrol_address: where newcomers are taken.
    """

    spiffe_id: SpiffeId
    key: SigningKey
    key_file: Path
    like: OverseerProfile
    enrol_address: str


def enrol_overseer(
    asks: OverseerAsks, folder: Path, clock: Clock, *, connect: Connect = connect_to_door
) -> FirstIdentity:
    """Get an operator's or auditor's first identity, and write TLS key, certificate and profile into `folder`.

    Raises:
        NotFoundError, MalformedError: a file is not there, or is something else; the folder is somebody's already;
            `like` lacks `federation_id`.
        SfrlError: as `get_first_identity`.
    """
    like, spiffe_id = asks.like, asks.spiffe_id
    if spiffe_id.role not in OVERSEER_ROLES or spiffe_id.trust_domain != like.trust_domain:
        raise MalformedError("a profile is written for an operator or auditor of the same trust domain")
    if (folder / PROFILE_NAME).exists():
        raise MalformedError(f"{folder} holds a profile already: choose a new folder, or renew it (`sfrl renew`)")
    if like.federation_id is None:
        raise MalformedError("the profile of --like has no `federation_id`: ask an operator for it, and add the line")
    service_ca = read_bounded(like.service_ca, CERTIFICATES_BYTES_MAX)
    trust_policy = read_bounded(like.trust_policy, TRUST_POLICY_BYTES_MAX)
    door = Door(
        asks.enrol_address, like.trust_domain, parse_hex_digest(like.federation_id), service_ca,
        parse_trust_policy(trust_policy),
    )  # fmt: skip
    make_folder(folder)
    folder.chmod(0o700)
    got = get_first_identity(
        spiffe_id, asks.key, door, clock, certificate=folder / CERTIFICATE_NAME, tls_key=folder / TLS_KEY_NAME,
        connect=connect,
    )  # fmt: skip
    write_atomically(folder / SERVICE_CA_NAME, service_ca)
    write_atomically(folder / TRUST_POLICY_NAME, trust_policy)
    write_atomically(folder / PROFILE_NAME, _profile(asks, folder))
    return got


def _tls_key(path: Path) -> SecretBytes:
    """The key of an earlier call, or a new one."""
    try:
        return read_secret(path)
    except NotFoundError:
        key, _ = generate_tls_key()
        write_secret(path, key)
        return key


def _profile(asks: OverseerAsks, folder: Path) -> bytes:
    like, role = asks.like, asks.spiffe_id.role
    values: dict[str, object] = {
        "name": asks.spiffe_id.name,
        "trust_domain": like.trust_domain,
        "audit_log": like.audit_log,
        "gatekeepers": list(like.gatekeepers),
        "certificate": CERTIFICATE_NAME,
        "tls_key": TLS_KEY_NAME,
        "service_ca": SERVICE_CA_NAME,
        "signing_key": str(_seen_from(folder, asks.key_file)),
        "suite": asks.key.public_key.suite,
        "trust_policy": TRUST_POLICY_NAME,
        "federation_id": like.federation_id,
    }
    if like.public_log is not None:
        values["public_log"] = like.public_log
    if role == "operator":
        # It stands in the join files that operators hand out.
        values["enrol_address"] = asks.enrol_address
    # Strings as JSON writes them, which TOML reads alike.
    lines = [f"[{role}]", *(f"{name} = {json.dumps(value)}" for name, value in values.items())]
    return ("\n".join(lines) + "\n").encode("ascii")


def _seen_from(folder: Path, path: Path) -> Path:
    """A path as it stands in a file of `folder`: what lies there moves with it."""
    path, folder = path.resolve(), folder.resolve()
    return path.relative_to(folder) if path.is_relative_to(folder) else path
