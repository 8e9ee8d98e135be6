"""A participant's profile: who it is, where its keys lie, whom it trusts.

One TOML file, table `[participant]`, every key known and present, every path relative to the file. An unknown key is
refused: a misspelt one would leave something in force that nobody chose. The file names key files; it holds no key.

Runs in: participant, cli.
Trusts: whoever wrote the file; its form is checked.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo

from sfrl_secure.crypto.keys import PUBLIC_BYTES, SigningKey, signing_key_from_pem
from sfrl_secure.crypto.svid import check_tls_key, open_svid
from sfrl_secure.errors import DeniedError, MalformedError
from sfrl_secure.ids import parse_name, parse_trust_domain
from sfrl_secure.limits import TRUST_POLICY_BYTES_MAX
from sfrl_secure.rpc.channel import ClientTls
from sfrl_secure.storage.files import read_bounded
from sfrl_secure.storage.secrets import read_secret
from sfrl_secure.translog.policy import TrustPolicy, parse_trust_policy

PROFILE_BYTES_MAX = 64 * 1024
CERTIFICATES_BYTES_MAX = 64 * 1024
GATEKEEPERS_MAX = 16

_ADDRESS = re.compile(r"([A-Za-z0-9.-]{1,253}|\[[0-9a-f:.]{2,45}\]):([0-9]{1,5})")


def _resolve(path: Path, info: ValidationInfo) -> Path:
    folder = (info.context or {}).get("folder")
    assert isinstance(folder, Path), "profiles are read by read_profile"
    return folder / path


def _check_address(address: str) -> str:
    matched = _ADDRESS.fullmatch(address)
    if matched is None or not 1 <= int(matched[2]) <= 65_535:
        raise ValueError("an address is host:port")
    return address


def _check_name(name: str) -> str:
    try:
        return parse_name(name)
    except MalformedError as error:
        raise ValueError(str(error)) from None  # What pydantic gathers.


def _check_domain(domain: str) -> str:
    try:
        return parse_trust_domain(domain)
    except MalformedError as error:
        raise ValueError(str(error)) from None


def _check_suite(suite: str) -> str:
    if suite not in PUBLIC_BYTES:
        raise ValueError(f"a suite is one of {', '.join(sorted(PUBLIC_BYTES))}")
    return suite


_ProfilePath = Annotated[Path, AfterValidator(_resolve)]
_Address = Annotated[str, AfterValidator(_check_address)]


class Profile(BaseModel):
    """What a participant needs to take part. Made by `read_profile`.

    Attributes:
        gatekeepers: addresses, 1 to 16; any of them answers for all.
        certificate: the TLS chain, PEM; `tls_key` its private key.
        service_ca: the one CA whose services are talked to.
        signing_key: what updates are signed with, of `suite`.
        trust_policy: the federation's log, its witnesses and the quorum (c2sp.org/tlog-policy).
        receipts: folder for verified receipts; made where it is missing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, AfterValidator(_check_name)]
    trust_domain: Annotated[str, AfterValidator(_check_domain)]
    gatekeepers: Annotated[tuple[_Address, ...], Field(min_length=1, max_length=GATEKEEPERS_MAX)]
    certificate: _ProfilePath
    tls_key: _ProfilePath
    service_ca: _ProfilePath
    signing_key: _ProfilePath
    suite: Annotated[str, AfterValidator(_check_suite)]
    trust_policy: _ProfilePath
    receipts: _ProfilePath

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
        key, chain = read_secret(self.tls_key), read_bounded(self.certificate, CERTIFICATES_BYTES_MAX)
        wanted = f"spiffe://{self.trust_domain}/participant/{self.name}"
        try:
            found = str(open_svid(chain, self.trust_domain).spiffe_id)
        except DeniedError:
            found = ""
        if found != wanted:
            raise MalformedError(f"the profile's certificate is not that of {wanted}")
        check_tls_key(chain, key)
        return ClientTls(
            key=key,
            chain=chain,
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


class _ProfileFile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    participant: Profile


def read_profile(path: Path) -> Profile:
    """Read a profile.

    Raises:
        NotFoundError: there is no such file.
        MalformedError: not TOML, an unknown key, a missing key, a value of another form. The sentence names the keys.
    """
    raw = read_bounded(path, PROFILE_BYTES_MAX)
    try:
        values = tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        raise MalformedError("the profile is not TOML") from None
    try:
        return _ProfileFile.model_validate(values, context={"folder": path.absolute().parent}).participant
    except ValidationError as error:
        problems = {".".join(map(str, each["loc"])): each["msg"] for each in error.errors(include_input=False)}
        sentence = "; ".join(f"{key}: {problem}" for key, problem in sorted(problems.items())[:8])
        raise MalformedError(f"the profile does not fit: {sentence}") from None
