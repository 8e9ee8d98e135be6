"""An auditor's profile: who it is, where the log and its objects are, whom it trusts.

One TOML file, table `[auditor]`, every key known, every path relative to the file. It names key files and holds no
key.

Runs in: auditors' machines, cli.
Trusts: whoever wrote the file; its form is checked.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from sfrl_secure.audit.public_log import parse_public_url
from sfrl_secure.crypto.svid import check_tls_key, open_svid
from sfrl_secure.errors import DeniedError, MalformedError
from sfrl_secure.limits import TRUST_POLICY_BYTES_MAX
from sfrl_secure.rpc.channel import ClientTls
from sfrl_secure.storage.files import read_bounded
from sfrl_secure.storage.secrets import read_secret
from sfrl_secure.storage.settings import (
    Name,
    PeerAddress,
    Section,
    SettingsPath,
    TrustDomain,
    checked_by,
    read_settings,
)
from sfrl_secure.translog.policy import TrustPolicy, parse_trust_policy

PROFILE_BYTES_MAX = 64 * 1024
CERTIFICATES_BYTES_MAX = 64 * 1024
GATEKEEPERS_MAX = 16


class AuditorProfile(Section):
    """What an auditor needs to copy a log. Made by `read_auditor_profile`.

    Attributes:
        audit_log: address of the log's gRPC server.
        gatekeepers: addresses, 1 to 16; any of them gives objects.
        public_log: address of the log's public endpoint; without it the checkpoint comes over gRPC, behind the entries.
        certificate: the TLS chain, PEM; `tls_key` its private key.
        service_ca: the one CA whose services are talked to.
        trust_policy: the federation's log, its witnesses and the quorum (c2sp.org/tlog-policy).
    """

    name: Name
    trust_domain: TrustDomain
    audit_log: PeerAddress
    gatekeepers: Annotated[tuple[PeerAddress, ...], Field(min_length=1, max_length=GATEKEEPERS_MAX)]
    public_log: Annotated[str, AfterValidator(checked_by(parse_public_url))] | None = None
    certificate: SettingsPath
    tls_key: SettingsPath
    service_ca: SettingsPath
    trust_policy: SettingsPath

    def open_tls(self) -> ClientTls:
        """Read certificate, key and service CA.

        Raises:
            NotFoundError, DeniedError, MalformedError: no file, a key that others can read, too long; a certificate of
                somebody else, or another certificate's key.
        """
        key, chain = read_secret(self.tls_key), read_bounded(self.certificate, CERTIFICATES_BYTES_MAX)
        wanted = f"spiffe://{self.trust_domain}/auditor/{self.name}"
        try:
            found = str(open_svid(chain, self.trust_domain).spiffe_id)
        except DeniedError:
            found = ""
        if found != wanted:
            raise MalformedError(f"the profile's certificate is not that of {wanted}")
        check_tls_key(chain, key)
        return ClientTls(
            key=key, chain=chain, service_roots=read_bounded(self.service_ca, CERTIFICATES_BYTES_MAX)
        )

    def open_trust_policy(self) -> TrustPolicy:
        """Read the trust policy.

        Raises:
            NotFoundError, MalformedError: no file, or not a policy.
        """
        return parse_trust_policy(read_bounded(self.trust_policy, TRUST_POLICY_BYTES_MAX))


class _ProfileFile(Section):
    auditor: AuditorProfile


def read_auditor_profile(path: Path) -> AuditorProfile:
    """Read a profile.

    Raises:
        NotFoundError: there is no such file.
        MalformedError: not TOML, an unknown key, a missing key, a value of another form. The sentence names the keys.
            Or it is a participant's.
    """
    try:
        return read_settings(path, _ProfileFile, bytes_max=PROFILE_BYTES_MAX, what="profile").auditor
    except MalformedError:
        if _is_participants(path):
            raise MalformedError(
                f"{path} is a participant's profile; `sfrl audit mirror` takes an auditor's"
            ) from None
        raise


def _is_participants(path: Path) -> bool:
    try:
        return "participant" in tomllib.loads(read_bounded(path, PROFILE_BYTES_MAX).decode())
    except (MalformedError, tomllib.TOMLDecodeError, UnicodeDecodeError):
        return False
