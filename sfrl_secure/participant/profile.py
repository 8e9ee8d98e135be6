"""A participant's profile: who it is, where its keys lie, whom it trusts.

One TOML file, table `[participant]`, every key known, every path relative to the file, and all but `federation_id`
present. An unknown key is refused: a misspelt one would leave something in force that nobody chose. The file names key
files; it holds no key.

Runs in: participant, cli.
Trusts: whoever wrote the file; its form is checked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

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
    read_settings,
)
from sfrl_secure.storage.tls_pair import read_tls_pair
from sfrl_secure.translog.policy import TrustPolicy, parse_trust_policy

PROFILE_BYTES_MAX = 64 * 1024
CERTIFICATES_BYTES_MAX = 64 * 1024
GATEKEEPERS_MAX = 16


class Profile(Section):
    """What a participant needs to take part. Made by `read_profile`.

    Attributes:
        gatekeepers: addresses, 1 to 16; any of them answers for all.
        certificate: the TLS chain, PEM; `tls_key` its private key.
        service_ca: the one CA whose services are talked to.
        signing_key: what updates are signed with, of `suite`.
        trust_policy: the federation's log, its witnesses and the quorum (c2sp.org/tlog-policy).
        receipts: folder for verified receipts; made where it is missing.
        federation_id: SHA-256 of root v1, in hex; without it the certificate is not renewed.
    """

    name: Name
    trust_domain: TrustDomain
    gatekeepers: Annotated[tuple[PeerAddress, ...], Field(min_length=1, max_length=GATEKEEPERS_MAX)]
    certificate: SettingsPath
    tls_key: SettingsPath
    service_ca: SettingsPath
    signing_key: SettingsPath
    suite: Suite
    trust_policy: SettingsPath
    receipts: SettingsPath
    federation_id: HexDigest | None = None

    def check_files(self) -> None:
        """Check that every file which the profile names is there.

        Raises:
            NotFoundError: names the first that is not.
        """
        for path in (self.certificate, self.tls_key, self.service_ca, self.signing_key, self.trust_policy):
            if not path.is_file():
                raise NotFoundError(f"a file that the profile names: there is no file {path}")

    @property
    def spiffe_id(self) -> SpiffeId:
        """Who the profile is of."""
        return parse_spiffe_id(f"spiffe://{self.trust_domain}/participant/{self.name}")

    def open_signing_key(self) -> SigningKey:
        """Read the key that signs updates.

        Raises:
            NotFoundError, DeniedError, MalformedError: no file, readable by others, not such a key.
        """
        return signing_key_from_pem(self.suite, read_secret(self.signing_key))

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
            key=pair.key,
            chain=pair.chain,
            service_roots=read_bounded(self.service_ca, CERTIFICATES_BYTES_MAX),
        )

    def open_trust_policy(self) -> TrustPolicy:
        """Read the trust policy, which lists one log.

        Raises:
            NotFoundError, MalformedError: no file, not a policy, or not exactly one log.
        """
        policy = parse_trust_policy(read_bounded(self.trust_policy, TRUST_POLICY_BYTES_MAX))
        # With two logs a gatekeeper could choose which federation the participant signs an update for.
        if len(policy.logs) != 1:
            raise MalformedError("a participant's trust policy lists exactly one log, its federation's")
        return policy


class _ProfileFile(Section):
    participant: Profile


def read_profile(path: Path) -> Profile:
    """Read a profile.

    Raises:
        NotFoundError: there is no such file; names it.
        MalformedError: not TOML, an unknown key, a missing key, a value of another form. The sentence names the keys.
    """
    try:
        return read_settings(path, _ProfileFile, bytes_max=PROFILE_BYTES_MAX, what="profile").participant
    except NotFoundError:
        raise NotFoundError(f"the profile: there is no file {path}") from None
