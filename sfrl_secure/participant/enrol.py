"""Joining a federation with an invitation: keys are made here, and only their public parts and signatures leave.

The newcomer signs its own record with the join token, proves that it holds its keys, and is answered with two log
entries and a certificate. Nothing is written that says "enrolled" before all three are proven: the profile comes last.
Whatever interrupts it, the same call again goes on with the same keys, for the log takes the record once and the
gatekeeper issues to one TLS key.

Format: proto/README.md, "Enrolment".

Runs in: participant, cli.
Trusts: the join file, for whom to trust; then its trust policy. Nothing that a gatekeeper answers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sfrl_secure.clock import Clock
from sfrl_secure.crypto.envelope import Envelope, envelope_to_json, parse_envelope_json, sign_envelope
from sfrl_secure.crypto.keys import SigningKey, signing_key_from_pem
from sfrl_secure.crypto.possession import prove_possession
from sfrl_secure.crypto.secret import SecretBytes
from sfrl_secure.crypto.x509 import generate_tls_key
from sfrl_secure.errors import DeniedError, MalformedError, NotFoundError, UnavailableError, VerificationError
from sfrl_secure.governance.build import build_participant
from sfrl_secure.governance.documents import ParticipantRecord
from sfrl_secure.governance.participants import parse_participant
from sfrl_secure.ids import SpiffeId
from sfrl_secure.participant.join_file import JoinFile
from sfrl_secure.rpc.channel import AnonymousTls, RpcChannel
from sfrl_secure.rpc.clients import IdentityClient
from sfrl_secure.rpc.identity_requests import IdentityAsker, open_identity, open_logged
from sfrl_secure.storage.files import FolderLock, make_folder, read_bounded, write_atomically
from sfrl_secure.storage.secrets import read_secret, write_secret
from sfrl_secure.translog.opened import open_checkpoint
from sfrl_secure.wire.identity_service import EnrolResponse

PROFILE_NAME = "profile.toml"
RECORD_NAME = "record.json"
SIGNING_KEY_NAME = "signing.key"
TLS_KEY_NAME = "tls.key"
CERTIFICATE_NAME = "tls.crt"
SERVICE_CA_NAME = "service-ca.crt"
TRUST_POLICY_NAME = "trust-policy.txt"

_RECORD_BYTES_MAX = 128 * 1024


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A participant that can take part.

    Attributes:
        record_index: leaf index of its record; `identity_index` of its first identity.
        not_after_us: end of its first certificate.
    """

    profile: Path
    spiffe_id: SpiffeId
    record_index: int
    identity_index: int
    not_after_us: int


def connect_to_issuer(join: JoinFile) -> RpcChannel:
    """A channel to the gatekeeper that takes newcomers. Close it."""
    return RpcChannel(
        join.enrol_address,
        role="gatekeeper",
        trust_domain=join.trust_domain,
        tls=AnonymousTls(join.service_ca.encode()),
    )


def enrol(
    join: JoinFile,
    folder: Path,
    clock: Clock,
    *,
    suite: str = "ed25519",
    connect: Callable[[JoinFile], RpcChannel] = connect_to_issuer,
) -> Enrolled:
    """Join, and write keys, certificate and profile into `folder`; go on where an interrupted call ended.

    Args:
        suite: of the signing key that is made where there is none yet.

    Raises:
        MalformedError: the folder is somebody's already, another process works in it, or holds something else.
        DeniedError: refused, with the reason.
        VerificationError: what was answered does not prove that we are enrolled.
        UnavailableError: the gatekeeper does not answer; the same call goes on later.
    """
    if (folder / PROFILE_NAME).exists():
        raise MalformedError(f"{folder} holds a participant already: choose a new folder")
    if clock.now_us() >= join.expires_us and not (folder / RECORD_NAME).exists():
        raise DeniedError("invitation_expired", "this invitation has expired: ask an operator for another")
    make_folder(folder)
    folder.chmod(0o700)
    with FolderLock(folder):
        key = _signing_key(folder, suite)
        record = _record(folder, join, key)
        asker = IdentityAsker(join.spiffe_id, join.federation_id, key, clock, tls_key=_tls_key(folder))
        with connect(join) as channel:
            try:
                asked, answer = IdentityClient(channel).enrol_with(asker, record)
            except UnavailableError:
                raise UnavailableError(
                    f"the gatekeeper does not answer at {join.enrol_address}: check the network, and run the same "
                    "command again; it goes on with the same keys"
                ) from None
        policy = join.open_trust_policy()
        record_index = _open_record(join, record, answer)
        issued = open_identity(
            asked, answer.issued, answer.checkpoint, answer.certificate, policy, renews=None
        )
        _write(folder, CERTIFICATE_NAME, answer.certificate)
        _write(folder, SERVICE_CA_NAME, join.service_ca.encode())
        _write(folder, TRUST_POLICY_NAME, join.trust_policy.encode())
        _write(folder, PROFILE_NAME, _profile(join, key))
    return Enrolled(
        folder / PROFILE_NAME, join.spiffe_id, record_index, answer.issued.index, issued.not_after_us
    )


def _signing_key(folder: Path, suite: str) -> SigningKey:
    """The key of an earlier call, or a new one."""
    path = folder / SIGNING_KEY_NAME
    try:
        return signing_key_from_pem(suite, read_secret(path))
    except NotFoundError:
        key = SigningKey.generate(suite)
        write_secret(path, key.to_pem())
        return key
    except MalformedError:
        raise MalformedError(f"{path} is not a key of suite {suite}: choose its suite, or a new folder") from None


def _tls_key(folder: Path) -> SecretBytes:
    path = folder / TLS_KEY_NAME
    try:
        return read_secret(path)
    except NotFoundError:
        key, _ = generate_tls_key()
        write_secret(path, key)
        return key


def _record(folder: Path, join: JoinFile, key: SigningKey) -> Envelope:
    """The record of an earlier call with this invitation, or a new one: a hybrid key signs no message alike twice."""
    path = folder / RECORD_NAME
    wanted = sign_envelope(ParticipantRecord.payload_type, _record_document(join, key), [join.join_key])
    try:
        kept = parse_envelope_json(read_bounded(path, _RECORD_BYTES_MAX))
    except NotFoundError:
        kept = None
    if kept is not None and _says_the_same(kept, wanted):
        return kept
    # Of another invitation, which was never taken up with this record.
    write_atomically(path, envelope_to_json(wanted))
    return wanted


def _says_the_same(kept: Envelope, wanted: Envelope) -> bool:
    if [each.key_id for each in kept.signatures] != [each.key_id for each in wanted.signatures]:
        return False
    first, second = parse_participant(kept.statement), parse_participant(wanted.statement)
    keys = ("federation_id", "version", "previous", "expires_us", "name", "key", "clearance", "groups", "state")
    return all(getattr(first, key) == getattr(second, key) for key in keys)


def _record_document(join: JoinFile, key: SigningKey) -> bytes:
    return build_participant(
        federation_id=join.federation_id,
        version=join.record_version,
        previous=join.record_previous,
        expires_us=join.record_expires_us,
        name=join.name,
        key=key.public_key,
        possession=prove_possession(key, join.federation_id, join.name),
        clearance=join.clearance,
        groups=join.groups,
    )


def _open_record(join: JoinFile, record: Envelope, answer: EnrolResponse) -> int:
    """Verify that the log holds exactly the record that was sent; give its leaf index.

    Raises:
        VerificationError: the checkpoint is not under every key of the log, the entry is not in it, or is another's.
    """
    checkpoint = open_checkpoint(answer.checkpoint, join.open_trust_policy(), quorum=False).checkpoint
    if answer.recorded is None or open_logged(answer.recorded, checkpoint).envelope != record:
        raise VerificationError("the entry is not the record that was sent")
    return answer.recorded.index


def _profile(join: JoinFile, key: SigningKey) -> bytes:
    values: dict[str, object] = {
        "name": join.name,
        "trust_domain": join.trust_domain,
        "gatekeepers": list(join.gatekeepers),
        "certificate": CERTIFICATE_NAME,
        "tls_key": TLS_KEY_NAME,
        "service_ca": SERVICE_CA_NAME,
        "signing_key": SIGNING_KEY_NAME,
        "suite": key.public_key.suite,
        "trust_policy": TRUST_POLICY_NAME,
        "receipts": "receipts",
        "federation_id": join.federation_id.hex(),
    }
    # Strings as JSON writes them, which TOML reads alike.
    lines = ["[participant]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    return ("\n".join(lines) + "\n").encode("ascii")


def _write(folder: Path, name: str, data: bytes) -> None:
    write_atomically(folder / name, data)
