"""The folder of a federation on one machine: where everything lies, and what stands in the configurations.

Runs in: cli, demo.
Trusts: whoever owns the folder.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfrl_secure.crypto.secret import SecretBytes
from sfrl_secure.errors import MalformedError, NotFoundError
from sfrl_secure.ids import Digest
from sfrl_secure.services.federation.plan import FederationPlan
from sfrl_secure.storage.files import make_folder, read_bounded, write_new
from sfrl_secure.storage.secrets import write_secret

_INDEX_BYTES_MAX = 64 * 1024


@dataclass(frozen=True, slots=True)
class FederationFolder:
    """Paths of a federation's folder."""

    root: Path

    @property
    def log_dir(self) -> Path:
        """The published log: `checkpoint` and `tile/`."""
        return self.root / "log"

    @property
    def journal_dir(self) -> Path:
        """The log's own journal."""
        return self.root / "journal"

    @property
    def objects_dir(self) -> Path:
        """Payloads and models."""
        return self.root / "objects"

    @property
    def trust_policy(self) -> Path:
        """The file that everybody who verifies needs."""
        return self.root / "trust-policy.txt"

    @property
    def index(self) -> Path:
        """`federation.json`: names and addresses."""
        return self.root / "federation.json"

    def service(self, role: str, name: str) -> Path:
        """A service's folder."""
        return self.root / "services" / f"{role}-{name}"

    def participant(self, name: str) -> Path:
        """A participant's folder; it would lie on the participant's own machine."""
        return self.root / "participants" / name

    def auditor(self, name: str) -> Path:
        """An auditor's folder; it would lie on the auditor's own machine."""
        return self.root / "auditors" / name

    def operator(self, name: str) -> Path:
        """An operator's folder; it would lie on the operator's own machine."""
        return self.root / "operators" / name


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the services listen, `host:port`; the public log and the witness over HTTP.

    Attributes:
        enrol: where the gatekeeper that issues takes newcomers.
    """

    audit_log: str
    public_log: str
    aggregator: str
    verifier: str
    witness: str
    enrol: str
    gatekeepers: Mapping[str, str]


def choose_addresses(plan: FederationPlan) -> Addresses:
    """Take free ports now; they stand in the configurations from then on."""
    count = 6 + len(plan.gatekeepers)
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(count)]
    try:
        for each in sockets:
            each.bind((plan.host, 0))
        found = [f"{plan.host}:{each.getsockname()[1]}" for each in sockets]
    finally:
        for each in sockets:
            each.close()
    audit_log, public_log, aggregator, verifier, witness, enrol, *gatekeepers = found
    named = dict(zip(plan.gatekeepers, gatekeepers, strict=True))
    return Addresses(audit_log, public_log, aggregator, verifier, witness, enrol, named)


def toml_of(values: Mapping[str, Any]) -> bytes:
    """Write configuration values as TOML: tables last, strings as JSON writes them, which TOML reads alike."""
    plain = {key: value for key, value in values.items() if not isinstance(value, dict) and not _is_tables(value)}
    lines = [f"{key} = {_literal(value)}" for key, value in plain.items()]
    for key, value in values.items():
        if isinstance(value, dict):
            lines += ["", f"[{key}]", *(f"{name} = {_literal(each)}" for name, each in value.items())]
        elif _is_tables(value):
            for table in value:
                lines += ["", f"[[{key}]]", *(f"{name} = {_literal(each)}" for name, each in table.items())]
    return ("\n".join(lines) + "\n").encode()


def write_index(
    folder: FederationFolder, plan: FederationPlan, origin: str, federation_id: Digest, addresses: Addresses
) -> None:
    """Write `federation.json`: names and addresses, for whoever runs or tries the federation on this machine."""
    services = [
        {"role": "verifier", "name": plan.verifier, "address": addresses.verifier},
        {"role": "audit_log", "name": plan.audit_log, "address": addresses.audit_log},
        *({"role": "gatekeeper", "name": name, "address": at} for name, at in addresses.gatekeepers.items()),
        {"role": "aggregator", "name": plan.aggregator, "address": addresses.aggregator},
    ]
    values = {
        "federation_id": federation_id.hex(),
        "origin": origin,
        "trust_domain": plan.trust_domain,
        "services": services,
        "enrol_address": addresses.enrol,
        "operators": list(plan.operators),
        "participants": [each.name for each in plan.participants],
        "segments": [each.name for each in plan.segments],
    }
    write_new(folder.index, json.dumps(values, indent=1).encode() + b"\n")


def write_secret_file(path: Path, secret: SecretBytes) -> None:
    """Make a key file and the folders above it."""
    make_folder(path.parent)
    write_secret(path, secret)


def read_index(folder: FederationFolder) -> dict[str, Any]:
    """Read `federation.json`.

    Raises:
        NotFoundError: this is no federation's folder.
        MalformedError: it is not JSON.
    """
    try:
        found = json.loads(read_bounded(folder.index, _INDEX_BYTES_MAX))
    except NotFoundError:
        raise NotFoundError("the folder is no federation's: `sfrl init` makes one") from None
    except ValueError:
        raise MalformedError("federation.json is not JSON") from None
    if not isinstance(found, dict):
        raise MalformedError("federation.json is one JSON object")
    return found


def _is_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _literal(value: object) -> str:
    return json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=True)
