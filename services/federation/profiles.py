"""The folders of people in a new federation: operators, auditors and participants, each with keys and a profile.

Each would lie on its owner's own machine: nothing in one of them is another's.

Format: `participant.profile`, `audit.profile`.

Runs in: cli, demo.
Trusts: the plan.
"""

from __future__ import annotations

from pathlib import Path

from sfrl_secure.services.federation.folder import toml_of
from sfrl_secure.services.federation.founding import Founding, relative
from sfrl_secure.storage.files import write_new


def write_people(founding: Founding) -> None:
    """Write everybody's keys, certificate and profile."""
    folder, plan = founding.folder, founding.plan
    for name in plan.operators:
        _write_overseer(founding, "operator", name, folder.operator(name))
    _write_overseer(founding, "auditor", plan.auditor, folder.auditor(plan.auditor))
    for each in plan.participants:
        _write_participant(founding, each.name, folder.participant(each.name))


def _write_overseer(founding: Founding, role: str, name: str, folder: Path) -> None:
    """An operator or an auditor: both follow the log, and sign with the key that governance names."""
    spiffe_id = founding.spiffe_id(f"{role}/{name}")
    founding.write_keys(folder, spiffe_id)
    values: dict[str, object] = {
        "name": name,
        "trust_domain": founding.plan.trust_domain,
        "audit_log": founding.addresses.audit_log,
        "gatekeepers": list(founding.addresses.gatekeepers.values()),
        "public_log": f"http://{founding.addresses.public_log}",
        "certificate": "tls.crt",
        "tls_key": "tls.key",
        "service_ca": relative(founding.service_ca, folder),
        "signing_key": "signing.key",
        "suite": founding.keys[spiffe_id].public_key.suite,
        "trust_policy": relative(founding.folder.trust_policy, folder),
        "federation_id": founding.federation_id.hex(),
    }
    if role == "operator":
        # It stands in the join files that operators hand out.
        values["enrol_address"] = founding.addresses.enrol
    write_new(folder / "profile.toml", toml_of({role: values}))


def _write_participant(founding: Founding, name: str, folder: Path) -> None:
    spiffe_id = founding.spiffe_id(f"participant/{name}")
    founding.write_keys(folder, spiffe_id)
    values = {
        "name": name,
        "trust_domain": founding.plan.trust_domain,
        "gatekeepers": list(founding.addresses.gatekeepers.values()),
        "certificate": "tls.crt",
        "tls_key": "tls.key",
        "service_ca": relative(founding.service_ca, folder),
        "signing_key": "signing.key",
        "suite": founding.keys[spiffe_id].public_key.suite,
        "trust_policy": relative(founding.folder.trust_policy, folder),
        "federation_id": founding.federation_id.hex(),
        "receipts": "receipts",
    }
    write_new(folder / "profile.toml", toml_of({"participant": values}))
