"""The profile of an auditor or an operator: who it is, where the log and its objects are, whom it trusts.

One TOML file, table `[auditor]` or `[operator]`, every key known, every path relative to the file. It names key files
and holds no key.

Runs in: auditors' and operators' machines, cli.
Trusts: whoever wrote the file; its form is checked.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from sfrl_secure.audit.public_log import parse_public_url
from sfrl_secure.crypto.keys import SigningKey, signing_key_from_pem
from sfrl_secure.crypto.svid import open_svid
from sfrl_secure.errors import DeniedError, MalformedError, NotFoundError
from sfrl_secure.ids import SpiffeId, parse_spiffe_id
from sfrl_secure.limits import TRUST_POLICY_BYTES_MAX
from sfrl_secure.rpc.channel import ClientTls
from sfrl_secure.storage.files import read_bounded
from sfrl_secure.storage.secrets import read_secret
from sfrl_secure.storage.settings import (
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
from sfrl_secure.storage.tls_pair import read_tls_pair
from sfrl_secure.translog.policy import TrustPolicy, parse_trust_policy

PROFILE_BYTES_MAX = 64 * 1024
CERTIFICATES_BYTES_MAX = 64 * 1024
GATEKEEPERS_MAX = 16

ROLES = ("auditor", "operator", "participant")
"""Tables that a profile.toml of this federation can have."""


class OverseerProfile(Section):
    """What somebody needs who watches a federation or governs it. Made by `read_auditor_profile` and
    `read_operator_profile`.

    Attributes:
        audit_log: address of the log's gRPC server.
        gatekeepers: addresses, 1 to 16; any of them answers for all.
        public_log: address of the log's public endpoint; without it the checkpoint comes over gRPC, behind the entries.
        certificate: the TLS chain, PEM; `tls_key` its private key.
        service_ca: the one CA whose services are talked to.
        signing_key: the key that governance names, of `suite`; an operator may keep it on another machine.
        trust_policy: the federation's log, its witnesses and the quorum (c2sp.org/tlog-policy).
        federation_id: SHA-256 of root v1, in hex; without it the certificate is not renewed.
    """

    role: ClassVar[str]

    name: Name
    trust_domain: TrustDomain
    audit_log: PeerAddress
    gatekeepers: Annotated[tuple[PeerAddress, ...], Field(min_length=1, max_length=GATEKEEPERS_MAX)]
    public_log: Annotated[str, AfterValidator(checked_by(parse_public_url))] | None = None
    certificate: SettingsPath
    tls_key: SettingsPath
    service_ca: SettingsPath
    signing_key: SettingsPath | None = None
    suite: Suite = "ed25519"
    trust_policy: SettingsPath
    federation_id: HexDigest | None = None

    @property
    def spiffe_id(self) -> SpiffeId:
        """Who the profile is of."""
        return parse_spiffe_id(f"spiffe://{self.trust_domain}/{self.role}/{self.name}")

    def open_tls(self) -> ClientTls:
        """Read certificate, key and service CA.

        Raises:
            NotFoundError, DeniedError, MalformedError: no file, a key that others can read, too long; a certificate of
                somebody else, or another certificate's key.
        """
        pair = read_tls_pair(self.certificate, self.tls_key)
        try:
            found = open_svid(pair.chain, self.trust_domain).spiffe_id
        except DeniedError:
            found = None
        if found != self.spiffe_id:
            raise MalformedError(f"the profile's certificate is not that of {self.spiffe_id}")
        return ClientTls(
            key=pair.key, chain=pair.chain, service_roots=read_bounded(self.service_ca, CERTIFICATES_BYTES_MAX)
        )

    def open_signing_key(self) -> SigningKey:
        """Read the key that governance names.

        Raises:
            NotFoundError, DeniedError, MalformedError: the profile names none; no file, readable by others, not such a
                key.
        """
        if self.signing_key is None:
            raise NotFoundError("the profile names no `signing_key`")
        return signing_key_from_pem(self.suite, read_secret(self.signing_key))

    def open_trust_policy(self) -> TrustPolicy:
        """Read the trust policy.

        Raises:
            NotFoundError, MalformedError: no file, or not a policy.
        """
        return parse_trust_policy(read_bounded(self.trust_policy, TRUST_POLICY_BYTES_MAX))


class AuditorProfile(OverseerProfile):
    """An auditor's: it signs for each object that it reads, so the key is there."""

    role = "auditor"

    signing_key: SettingsPath
    suite: Suite


class OperatorProfile(OverseerProfile):
    """An operator's. Without `signing_key` it brings what was signed elsewhere, and renews nothing.

    Attributes:
        enrol_address: where the gatekeeper that issues takes newcomers; it stands in the join files of invitations.
    """

    role = "operator"

    enrol_address: PeerAddress | None = None


class _AuditorFile(Section):
    auditor: AuditorProfile


class _OperatorFile(Section):
    operator: OperatorProfile


def read_auditor_profile(path: Path) -> AuditorProfile:
    """Read an auditor's profile.

    Raises:
        NotFoundError: there is no such file.
        MalformedError: not TOML, an unknown key, a missing key, a value of another form. The sentence names the keys.
            Or it is somebody else's.
    """
    try:
        return read_settings(path, _AuditorFile, bytes_max=PROFILE_BYTES_MAX, what="profile").auditor
    except MalformedError:
        _say_whose(path, "auditor")
        raise


def read_operator_profile(path: Path) -> OperatorProfile:
    """Read an operator's profile.

    Raises:
        NotFoundError, MalformedError: as `read_auditor_profile`.
    """
    try:
        return read_settings(path, _OperatorFile, bytes_max=PROFILE_BYTES_MAX, what="profile").operator
    except MalformedError:
        _say_whose(path, "operator")
        raise


def role_of_profile(path: Path) -> str:
    """Say whose profile a file is: the name of its one table, one of `ROLES`.

    Raises:
        NotFoundError, MalformedError: no file, or not the profile of anybody in a federation.
    """
    try:
        tables = tomllib.loads(read_bounded(path, PROFILE_BYTES_MAX).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        raise MalformedError(f"{path}: the profile is not TOML") from None
    if len(tables) != 1 or (role := next(iter(tables))) not in ROLES:
        raise MalformedError(f"{path}: a profile has one table, {', '.join(f'[{role}]' for role in ROLES)}")
    return role


def _say_whose(path: Path, wanted: str) -> None:
    """Refuse another's profile by saying whose it is; return where it is nobody's, or who was wanted."""
    try:
        role = role_of_profile(path)
    except MalformedError:
        return
    if role != wanted:
        raise MalformedError(f"{path} is the profile of {_WITH_ARTICLE[role]}, and {_WITH_ARTICLE[wanted]}'s is needed")


_WITH_ARTICLE = {"auditor": "an auditor", "operator": "an operator", "participant": "a participant"}
