"""What a federation is made of while its folder is being written: names, keys, certificates, addresses.

Runs in: cli, demo.
Trusts: the plan.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.ids import Digest, SpiffeId, parse_spiffe_id
from sfrl_secure.services.federation.folder import Addresses, FederationFolder, write_secret_file
from sfrl_secure.services.federation.identities import IssuingAuthorities, TlsIdentity
from sfrl_secure.services.federation.plan import FederationPlan
from sfrl_secure.storage.files import make_folder, write_new


@dataclass(frozen=True, slots=True, kw_only=True)
class Founding:
    """Everything that is known of a federation that is being made.

    Attributes:
        keys: the signing key of everybody who has a name; `tls` the first TLS identity.
    """

    folder: FederationFolder
    plan: FederationPlan
    origin: str
    federation_id: Digest
    addresses: Addresses
    keys: Mapping[SpiffeId, SigningKey]
    tls: Mapping[SpiffeId, TlsIdentity]
    authorities: IssuingAuthorities

    def spiffe_id(self, path: str) -> SpiffeId:
        """An identity of the federation's trust domain."""
        return parse_spiffe_id(f"spiffe://{self.plan.trust_domain}/{path}")

    @property
    def service_ca(self) -> Path:
        """The one CA whose services are talked to."""
        return self.folder.root / "ca" / "service.crt"

    @property
    def client_ca(self) -> Path:
        """The CA of participants, operators and auditors."""
        return self.folder.root / "ca" / "client.crt"

    def write_authorities(self) -> None:
        """Write both CAs. The keys belong to the machine of the gatekeeper that issues, and to no other."""
        make_folder(self.folder.root / "ca")
        for path, authority in ((self.service_ca, self.authorities.service), (self.client_ca, self.authorities.client)):
            write_new(path, authority.certificate_pem)
            write_secret_file(path.with_suffix(".key"), authority.key_pem)

    def write_keys(self, folder: Path, name: SpiffeId) -> None:
        """Write somebody's signing key, TLS key and certificate."""
        write_secret_file(folder / "signing.key", self.keys[name].to_pem())
        write_secret_file(folder / "tls.key", self.tls[name].key)
        write_new(folder / "tls.crt", self.tls[name].certificate)


def relative(path: Path, folder: Path) -> str:
    """A path as it stands in a file of `folder`, so that the whole can be moved."""
    return os.path.relpath(path.absolute(), folder.absolute())
