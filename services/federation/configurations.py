"""The trust policy and the services' folders of a new federation.

Runs in: cli, demo.
Trusts: the plan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from sfrl_secure.sequencer.log_keys import LogKeys
from sfrl_secure.services.federation.folder import Addresses, FederationFolder, toml_of, write_secret_file
from sfrl_secure.services.federation.founding import Founding, relative
from sfrl_secure.services.federation.plan import FederationPlan
from sfrl_secure.storage.files import write_new
from sfrl_secure.translog.note import parse_vkey
from sfrl_secure.translog.policy import TrustedLog, TrustedWitness, TrustPolicy, WitnessGroup, format_trust_policy
from sfrl_secure.translog.witness_keys import WitnessKey

WITNESSES = ("verifier-witness", "verifier-witness-ml-dsa")
"""Names in the trust policy of the one witness's two keys: the verifier's, Ed25519 and ML-DSA-44."""

_WITNESS_KEY_FILES = ("witness.key", "witness-ml-dsa.key")


def write_trust_policy(
    folder: FederationFolder,
    plan: FederationPlan,
    origin: str,
    addresses: Addresses,
    log_keys: LogKeys,
    witness_keys: Sequence[WitnessKey],
) -> None:
    """Write the file that everybody who verifies needs."""
    name = f"{plan.verifier}.{plan.trust_domain}/witness"
    url = f"http://{addresses.witness}/witness"
    policy = TrustPolicy(
        logs=(TrustedLog(origin, tuple(parse_vkey(vkey) for vkey in log_keys.vkeys(origin))),),
        witnesses=tuple(
            TrustedWitness(each, key.verifier_key(name), url)
            for each, key in zip(WITNESSES, witness_keys, strict=True)
        ),
        # One operator, two keys: it counts when both have signed.
        groups=(WitnessGroup("verifier", len(WITNESSES), WITNESSES),),
        quorum="verifier",
    )
    write_new(folder.trust_policy, format_trust_policy(policy))


def write_services(founding: Founding, log_keys: LogKeys, witness_keys: Sequence[WitnessKey]) -> None:
    """Write each service's configuration and keys; the first gatekeeper is the one that issues identities."""
    folder, plan, addresses = founding.folder, founding.plan, founding.addresses
    counted = {"refusals_seconds": plan.refusals_seconds}
    issuer = plan.gatekeepers[0]
    renewing = {"renew_address": addresses.gatekeepers[issuer]}
    log = {"log_dir": folder.log_dir, "journal_dir": folder.journal_dir, "log_keys": ["log.key"], **counted}
    log["public_listen"] = addresses.public_log
    client = {"log_address": addresses.audit_log, "objects_dir": folder.objects_dir, "state_dir": "state"}
    if plan.log_url is not None:
        log["log_url"] = plan.log_url
    if plan.objects_url is not None:
        client["objects_url"] = plan.objects_url
    url = f"http://{addresses.witness}/witness"
    witnesses = [{"names": list(WITNESSES), "submission_url": url, "monitoring_url": url}]
    log |= {**renewing, "witnesses": witnesses}
    _write_service(founding, "audit_log", plan.audit_log, addresses.audit_log, log)
    for name, address in addresses.gatekeepers.items():
        special = {"issuing": _issuing(founding)} if name == issuer else renewing
        _write_service(founding, "gatekeeper", name, address, {**client, **counted, **special})
    _write_service(founding, "aggregator", plan.aggregator, addresses.aggregator, {**client, **renewing})
    verifier = {
        "witness_listen": addresses.witness,
        "witness_keys": list(_WITNESS_KEY_FILES),
        "state_dir": folder.root / "witness",
        "callers": [
            {"spiffe_id": str(name), "spki_sha256": founding.tls[name].peer.spki_sha256.hex()}
            for name in (founding.spiffe_id(f"operator/{each}") for each in plan.operators)
        ],
        **renewing,
    }
    _write_service(founding, "verifier", plan.verifier, addresses.verifier, verifier)
    write_secret_file(folder.service("audit_log", plan.audit_log) / "log.key", log_keys.to_pem())
    for file, key in zip(_WITNESS_KEY_FILES, witness_keys, strict=True):
        write_secret_file(folder.service("verifier", plan.verifier) / file, key.to_pem())


def _issuing(founding: Founding) -> dict[str, object]:
    return {
        "client_ca_key": founding.client_ca.with_suffix(".key"),
        "service_ca_key": founding.service_ca.with_suffix(".key"),
        "lifetime_seconds": founding.plan.certificate_seconds,
        "people_lifetime_seconds": founding.plan.people_certificate_seconds,
        "enrol_listen": founding.addresses.enrol,
    }


def _write_service(
    founding: Founding, role: str, name: str, address: str, more: Mapping[str, object]
) -> None:
    folder, spiffe_id = founding.folder.service(role, name), founding.spiffe_id(f"service/{role}/{name}")
    founding.write_keys(folder, spiffe_id)
    values: dict[str, object] = {
        "name": name,
        "trust_domain": founding.plan.trust_domain,
        "listen": address,
        "trust_policy": founding.folder.trust_policy,
        "origin": founding.origin,
        "federation_id": founding.federation_id.hex(),
        **more,
        "tls": {
            "certificate": "tls.crt",
            "key": "tls.key",
            "client_ca": founding.client_ca,
            "service_ca": founding.service_ca,
        },
        "signing": {"key": "signing.key", "suite": founding.keys[spiffe_id].public_key.suite},
    }
    write_new(folder / "config.toml", toml_of({key: _relative(value, folder) for key, value in values.items()}))


def _relative(value: object, folder: Path) -> object:
    if isinstance(value, dict):
        return {key: _relative(inner, folder) for key, inner in value.items()}
    return relative(value, folder) if isinstance(value, Path) else value
