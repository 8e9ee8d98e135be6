"""The join file: everything that a newcomer needs, on one sheet that is handed over in person.

It holds the join token, the private part of the key that operators named in a join document: whoever has the file may,
once and until it expires, record a signing key under the invited name. It is therefore a key file, of mode 0600, and
belongs on no server and in no chat. The token signs the newcomer's record and is never sent to anybody. All else in the
file is public, and tells the newcomer whom to trust: nobody else has told it yet.

Strict JSON, every key known and present. What clearance and groups it names are shown to the newcomer and put into its
record; the log compares them with the join document, so that a changed file records nothing.

Format: this docstring and `JoinFile`. Rules: proto/README.md, "Enrolment".

Runs in: participant, cli.
Trusts: whoever handed the file over.
"""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.crypto.secret import SecretBytes
from sfrl_secure.crypto.strict_json import parse_strict_json
from sfrl_secure.errors import DeniedError, MalformedError, NotFoundError
from sfrl_secure.ids import (
    ZERO_DIGEST,
    Digest,
    SpiffeId,
    parse_hex_digest,
    parse_name,
    parse_spiffe_id,
    parse_trust_domain,
)
from sfrl_secure.limits import CLEARANCE_MAX, GROUPS_MAX, TRUST_POLICY_BYTES_MAX
from sfrl_secure.participant.profile import CERTIFICATES_BYTES_MAX, GATEKEEPERS_MAX
from sfrl_secure.storage.files import read_bounded_with_mode
from sfrl_secure.storage.secrets import write_secret
from sfrl_secure.translog.policy import TrustPolicy, parse_trust_policy

JOIN_FILE_TYPE: Final = "sfrl-join/v1"
JOIN_FILE_BYTES_MAX = 512 * 1024
TOKEN_BYTES = 32

_ORIGIN_CHARACTERS_MAX = 256
_TIME_US_MAX = 2**63 - 1
_ADDRESS = re.compile(r"([A-Za-z0-9.-]{1,253}|\[[0-9a-f:.]{2,45}\]):([0-9]{1,5})")
_TEXTS = {
    "type": 32,
    "name": 64,
    "trust_domain": 128,
    "federation_id": 64,
    "record_previous": 64,
    "origin": _ORIGIN_CHARACTERS_MAX,
    "enrol_address": 300,
    "service_ca": CERTIFICATES_BYTES_MAX,
    "trust_policy": TRUST_POLICY_BYTES_MAX,
    "token": 2 * TOKEN_BYTES,
}
_NUMBERS = {
    "expires_us": (1, _TIME_US_MAX),
    "record_expires_us": (1, _TIME_US_MAX),
    "record_version": (1, _TIME_US_MAX),
    "clearance": (0, CLEARANCE_MAX),
}
_LISTS = {"gatekeepers": (1, GATEKEEPERS_MAX), "groups": (0, GROUPS_MAX)}


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinFile:
    """An invitation, as it is handed to a newcomer. Checked when it is made.

    Attributes:
        name: the participant's.
        federation_id: SHA-256 of root v1; with `origin` it pins the federation.
        origin: of the log; the one log of `trust_policy`.
        gatekeepers: addresses, 1 to 16, for the newcomer's profile.
        enrol_address: where the gatekeeper that issues takes newcomers.
        service_ca: the one CA whose services are talked to, PEM, at most 64 KiB.
        trust_policy: text of the trust policy (c2sp.org/tlog-policy), with exactly one log.
        token: seed of the Ed25519 join key, 32 bytes.
        expires_us: end of the invitation: the join document's.
        clearance, groups, record_expires_us: of the record, as the join document wants them; groups are 0 to 64 names.
        record_version, record_previous: of the record: 1 and zeros for a new name; for a participant that joins again,
            because its keys or its certificate are lost, what follows its record in force.
    """

    name: str
    trust_domain: str
    federation_id: Digest
    origin: str
    gatekeepers: tuple[str, ...]
    enrol_address: str
    service_ca: str
    trust_policy: str
    token: SecretBytes = field(compare=False)
    expires_us: int
    clearance: int
    groups: frozenset[str]
    record_expires_us: int
    record_version: int = 1
    record_previous: Digest = ZERO_DIGEST

    def __post_init__(self) -> None:
        parse_name(self.name)
        parse_trust_domain(self.trust_domain)
        for group in self.groups:
            parse_name(group)
        for key, (least, most) in _NUMBERS.items():
            if not least <= getattr(self, key) <= most:
                raise MalformedError(f"{key} of a join file is from {least} to {most}")
        for key, (least, most) in _LISTS.items():
            if not least <= len(getattr(self, key)) <= most:
                raise MalformedError(f"a join file has {least} to {most} {key}")
        for address in (*self.gatekeepers, self.enrol_address):
            matched = _ADDRESS.fullmatch(address)
            if matched is None or not 1 <= int(matched[2]) <= 65_535:
                raise MalformedError("an address in a join file is host:port")
        if len(self.service_ca.encode()) > CERTIFICATES_BYTES_MAX or "-----BEGIN" not in self.service_ca:
            raise MalformedError(f"the service CA in a join file is PEM of at most {CERTIFICATES_BYTES_MAX} bytes")
        if len(self.token.expose()) != TOKEN_BYTES:
            raise MalformedError(f"the token of a join file is {TOKEN_BYTES} bytes")
        if (self.record_version == 1) != (self.record_previous == ZERO_DIGEST):
            raise MalformedError("a first record follows none, and every other follows one")
        policy = parse_trust_policy(self.trust_policy.encode())
        # As in a profile: with two logs a gatekeeper could choose which federation is joined.
        if len(policy.logs) != 1 or policy.log(self.origin) is None:
            raise MalformedError("the trust policy in a join file lists exactly one log, that of its origin")
        if not self.origin.endswith(f"/sfrl/{self.federation_id.hex()[:32]}"):
            raise MalformedError("the origin in a join file is that of its federation id")

    @property
    def spiffe_id(self) -> SpiffeId:
        """What the newcomer's certificate will name."""
        return parse_spiffe_id(f"spiffe://{self.trust_domain}/participant/{self.name}")

    @property
    def join_key(self) -> SigningKey:
        """The key that signs the newcomer's first record."""
        return join_key_of(self.token)

    def open_trust_policy(self) -> TrustPolicy:
        """The trust policy; it lists exactly the log of `origin`."""
        return parse_trust_policy(self.trust_policy.encode())


def generate_token() -> SecretBytes:
    """Make a join token with the operating system's randomness."""
    return SecretBytes(secrets.token_bytes(TOKEN_BYTES))


def join_key_of(token: SecretBytes) -> SigningKey:
    """Give the signing key of a token; its public part is the `join_key` of the join document.

    Raises:
        MalformedError: the token is not 32 bytes.
    """
    seed = token.expose()
    if len(seed) != TOKEN_BYTES:
        raise MalformedError(f"a join token is {TOKEN_BYTES} bytes")
    return SigningKey(Ed25519PrivateKey.from_private_bytes(seed), None)


def format_join_file(join: JoinFile) -> SecretBytes:
    """Write a join file's bytes: for a file of mode 0600 (`write_join_file`)."""
    values: dict[str, Any] = {
        "type": JOIN_FILE_TYPE,
        "name": join.name,
        "trust_domain": join.trust_domain,
        "federation_id": join.federation_id.hex(),
        "origin": join.origin,
        "gatekeepers": list(join.gatekeepers),
        "enrol_address": join.enrol_address,
        "service_ca": join.service_ca,
        "trust_policy": join.trust_policy,
        "token": join.token.expose().hex(),
        "expires_us": join.expires_us,
        "clearance": join.clearance,
        "groups": sorted(join.groups),
        "record_expires_us": join.record_expires_us,
        "record_version": join.record_version,
        "record_previous": join.record_previous.hex(),
    }
    return SecretBytes(json.dumps(values, indent=1).encode("ascii") + b"\n")


def parse_join_file(raw: SecretBytes) -> JoinFile:
    """Parse a join file.

    Raises:
        MalformedError: any other form. The sentence quotes nothing of the file.
    """
    fields = parse_strict_json(raw.expose(), bytes_max=JOIN_FILE_BYTES_MAX)
    if fields.get("type") != JOIN_FILE_TYPE:
        raise MalformedError(f"not a join file of type {JOIN_FILE_TYPE}: ask the operator who invited you for yours")
    wanted = {*_TEXTS, *_NUMBERS, *_LISTS}
    if fields.keys() != wanted:
        raise MalformedError(f"a join file has exactly the keys {', '.join(sorted(wanted))}")
    for key, most in _TEXTS.items():
        if not isinstance(fields[key], str) or not 1 <= len(fields[key]) <= most:
            raise MalformedError(f"{key} of a join file is text of 1 to {most} characters")
    for key in _NUMBERS:
        if type(fields[key]) is not int:
            raise MalformedError(f"{key} of a join file is an integer")
    for key, (least, most) in _LISTS.items():
        listed = fields[key]
        if not isinstance(listed, list) or len(listed) > most or not all(isinstance(each, str) for each in listed):
            raise MalformedError(f"{key} of a join file is a list of {least} to {most} texts")
        if len(set(listed)) != len(listed):
            raise MalformedError(f"{key} of a join file has nothing twice")
    return JoinFile(
        name=fields["name"],
        trust_domain=fields["trust_domain"],
        federation_id=parse_hex_digest(fields["federation_id"]),
        origin=fields["origin"],
        gatekeepers=tuple(fields["gatekeepers"]),
        enrol_address=fields["enrol_address"],
        service_ca=fields["service_ca"],
        trust_policy=fields["trust_policy"],
        # The token has the form of a digest: 64 lower-case hexadecimal digits.
        token=SecretBytes(parse_hex_digest(fields["token"])),
        expires_us=fields["expires_us"],
        clearance=fields["clearance"],
        groups=frozenset(fields["groups"]),
        record_expires_us=fields["record_expires_us"],
        record_version=fields["record_version"],
        record_previous=parse_hex_digest(fields["record_previous"]),
    )


def read_join_file(path: Path) -> JoinFile:
    """Read a join file that only its owner can read.

    Raises:
        NotFoundError: there is none.
        DeniedError: `key_permissions`: others could have read the token.
        MalformedError: not a join file.
    """
    try:
        raw, mode = read_bounded_with_mode(path, JOIN_FILE_BYTES_MAX)
    except NotFoundError:
        raise NotFoundError(f"there is no join file {path}: an operator makes one with `sfrl invite`") from None
    if mode & 0o077:
        raise DeniedError(
            "key_permissions",
            f"others can read the join file {path}, and its token with it: chmod 600, or ask for a new invitation if "
            "somebody may have copied it",
        )
    return parse_join_file(SecretBytes(raw))


def write_join_file(path: Path, join: JoinFile) -> None:
    """Make a join file of mode 0600, durably; never replace one.

    Raises:
        MalformedError: there is a file of this name.
        UncertainStateError: it could not be made durable.
    """
    if path.exists():
        raise MalformedError(f"there is a file {path}: a join file is not written over another")
    write_secret(path, format_join_file(join))
