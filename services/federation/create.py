"""Creating a federation: keys, certificates, documents, the log with its first entries, and configurations.

Everything is made on one machine, so that it can be tried; in the field each key is made where it stays.

Runs in: cli, demo.
Trusts: whoever starts it.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sfrl_secure.aggregation.models import ModelSnapshot
from sfrl_secure.clock import Clock
from sfrl_secure.crypto.envelope import Envelope, envelope_to_json, sign_envelope
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.crypto.secret import SecretBytes
from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.origin import origin_of
from sfrl_secure.governance.statements import STATEMENT_TYPE, IdentityIssued, Statement
from sfrl_secure.ids import ZERO_DIGEST, Digest, SpiffeId
from sfrl_secure.rounds.fold import Content, FederationFold
from sfrl_secure.sequencer.bootstrap import NewLog
from sfrl_secure.sequencer.history import Codec
from sfrl_secure.sequencer.log_keys import LogKeys
from sfrl_secure.sequencer.sequencer import BATCH_ENTRIES_MAX
from sfrl_secure.services.federation import documents
from sfrl_secure.services.federation.folder import Addresses, FederationFolder, choose_addresses, toml_of
from sfrl_secure.services.federation.identities import IssuingAuthorities, TlsIdentity
from sfrl_secure.services.federation.plan import FederationPlan, check_plan
from sfrl_secure.storage.files import make_folder, write_new
from sfrl_secure.storage.log_folder import FolderLogStore
from sfrl_secure.storage.objects import open_objects
from sfrl_secure.storage.secrets import write_secret
from sfrl_secure.translog.note import ED25519_COSIGNATURE, ML_DSA_44_COSIGNATURE, parse_vkey
from sfrl_secure.translog.policy import TrustedLog, TrustedWitness, TrustPolicy, WitnessGroup, format_trust_policy
from sfrl_secure.translog.witness_keys import WitnessKey
from sfrl_secure.wire.content import parse_content
from sfrl_secure.wire.entries import encode_entry, parse_entry
from sfrl_secure.wire.statements import encode_statement

WITNESSES = ("verifier-witness", "verifier-witness-ml-dsa")
"""Names in the trust policy of the one witness's two keys: the verifier's, Ed25519 and ML-DSA-44."""

_WITNESS_KEY_FILES = ("witness.key", "witness-ml-dsa.key")

_YEAR_US = 366 * 24 * 3_600_000_000


@dataclass(frozen=True, slots=True)
class Federation:
    """A federation that was just made.

    Attributes:
        log_size: entries to begin with.
    """

    folder: FederationFolder
    origin: str
    federation_id: Digest
    addresses: Addresses
    log_size: int


def create_federation(
    root: Path, plan: FederationPlan, clock: Clock, initial_models: Mapping[str, ModelSnapshot] | None = None
) -> Federation:
    """Make a federation in a folder that is new or empty.

    Args:
        initial_models: by segment; zeros where there is none.

    Raises:
        MalformedError: the folder is not empty, or the plan cannot be: says what.
    """
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise MalformedError("the folder is not empty: a federation is made in a new one")
    check_plan(plan)
    old_mask = os.umask(0o077)
    try:
        return _Creation(root, plan, clock, dict(initial_models or {})).run()
    finally:
        os.umask(old_mask)


class _Creation:
    def __init__(
        self, root: Path, plan: FederationPlan, clock: Clock, initial_models: dict[str, ModelSnapshot]
    ) -> None:
        self._folder = FederationFolder(root)
        self._plan = plan
        self._clock = clock
        self._models = initial_models
        now_us = clock.now_us()
        self._operators = documents.Operators(
            {name: SigningKey.generate(plan.operator_suite) for name in plan.operators},
            plan.threshold,
            now_us + plan.years * _YEAR_US,
        )
        self._log_keys = LogKeys.generate()
        self._witness_keys = [WitnessKey.generate(kind) for kind in (ED25519_COSIGNATURE, ML_DSA_44_COSIGNATURE)]
        self._authorities = IssuingAuthorities(
            plan.trust_domain, now_us, years=plan.years, certificate_hours=plan.certificate_hours
        )
        self._services = {
            name: SigningKey.generate("ed25519") for name in (*self._gatekeepers(), *self._other_services())
        }
        self._participants = {each.name: SigningKey.generate(each.suite) for each in plan.participants}
        self._tls: dict[SpiffeId, TlsIdentity] = {}

    def run(self) -> Federation:
        plan, folder = self._plan, self._folder
        root = documents.root_envelope(plan, self._operators)
        federation_id = documents.federation_id_of(root)
        origin = origin_of(plan.log_host, federation_id)
        addresses = choose_addresses(plan)
        make_folder(folder.root)
        self._write_trust_policy(origin, addresses)
        envelopes = self._documents(root, federation_id, origin)
        log_size = self._write_log(envelopes, federation_id, origin)
        self._write_documents(envelopes)
        self._write_authorities_and_operators()
        self._write_services(origin, addresses)
        self._write_participants(addresses)
        self._write_auditor(addresses)
        self._write_index(origin, federation_id, addresses)
        return Federation(folder, origin, federation_id, addresses, log_size)

    # Who there is

    def _id(self, path: str) -> SpiffeId:
        return documents.spiffe_id_of(self._plan, path)

    def _gatekeepers(self) -> list[SpiffeId]:
        return [self._id(f"service/gatekeeper/{name}") for name in self._plan.gatekeepers]

    def _other_services(self) -> list[SpiffeId]:
        plan = self._plan
        return [
            self._id(f"service/aggregator/{plan.aggregator}"),
            self._id(f"service/audit_log/{plan.audit_log}"),
            self._id(f"service/verifier/{plan.verifier}"),
        ]

    def _tls_names(self) -> list[SpiffeId]:
        plan = self._plan
        return [
            *self._services,
            *(self._id(f"operator/{name}") for name in plan.operators),
            self._id(f"auditor/{plan.auditor}"),
            *(self._id(f"participant/{each.name}") for each in plan.participants),
        ]

    # The log

    def _documents(self, root: Envelope, federation_id: Digest, origin: str) -> list[Envelope]:
        operators, plan = self._operators, self._plan
        auditor = SigningKey.generate("ed25519")
        write_secret_file(self._folder.auditor(plan.auditor) / "signing.key", auditor.to_pem())
        objects = open_objects(plan.objects_url or self._folder.objects_dir)
        found = [
            documents.genesis_envelope(root, self._log_keys.vkeys(origin), operators),
            documents.services_envelope(
                federation_id,
                {name: key.public_key for name, key in self._services.items()},
                {self._id(f"auditor/{plan.auditor}"): auditor.public_key},
                operators,
            ),
            documents.rules_envelope(federation_id, operators),
        ]
        for segment in plan.segments:
            zeros = ModelSnapshot(
                segment.manifest, segment.grid_exponent, np.zeros(segment.manifest.coordinates, dtype=np.int64)
            )
            initial = objects.put(self._models.get(segment.name, zeros).to_bytes())
            found.append(documents.terms_envelope(federation_id, segment, initial, operators))
        for each in plan.participants:
            key = self._participants[each.name]
            found.append(documents.participant_envelope(federation_id, each, key, operators))
        return found

    def _write_log(self, envelopes: list[Envelope], federation_id: Digest, origin: str) -> int:
        fold = FederationFold(origin, self._log_keys.vkeys(origin))
        codec: Codec[Content] = Codec(encode_entry, parse_entry, parse_content)
        log = NewLog(fold, codec, self._clock)
        head = ZERO_DIGEST
        for envelope in envelopes:
            head = log.append(envelope)
        for name in self._tls_names():
            self._tls[name] = self._authorities.issue(name)
            log.append(self._identity(self._tls[name].issued, federation_id, head))
        entries = log.entries()
        batches = [entries[at:at + BATCH_ENTRIES_MAX] for at in range(0, len(entries), BATCH_ENTRIES_MAX)]
        if self._plan.log_url is None:
            FolderLogStore.create(self._folder.journal_dir, batches)
        else:
            # Loaded by whoever needs it: most federations have no bucket.
            from sfrl_secure.storage.log_bucket import BucketLogStore, open_bucket

            BucketLogStore.create(*open_bucket(self._plan.log_url), batches)
        return len(entries)

    def _identity(self, issued: IdentityIssued, federation_id: Digest, governance_head: Digest) -> Envelope:
        """The first gatekeeper issues the identities of the beginning."""
        writer = self._gatekeepers()[0]
        key = self._services[writer]
        statement = Statement(
            federation_id=federation_id,
            stream="identity",
            writer=writer,
            key_id=key.public_key.key_id,
            reads_governance=governance_head,
            reads_segment=ZERO_DIGEST,
            valid_until_us=self._clock.now_us() + 60_000_000,
            request_id=secrets.token_bytes(16),
            body=issued,
        )
        return sign_envelope(STATEMENT_TYPE, encode_statement(statement), [key])

    # Files

    def _write_trust_policy(self, origin: str, addresses: Addresses) -> None:
        name = f"{self._plan.verifier}.{self._plan.trust_domain}/witness"
        url = f"http://{addresses.witness}/witness"
        policy = TrustPolicy(
            logs=(TrustedLog(origin, tuple(parse_vkey(vkey) for vkey in self._log_keys.vkeys(origin))),),
            witnesses=tuple(
                TrustedWitness(each, key.verifier_key(name), url)
                for each, key in zip(WITNESSES, self._witness_keys, strict=True)
            ),
            # One operator, two keys: it counts when both have signed.
            groups=(WitnessGroup("verifier", len(WITNESSES), WITNESSES),),
            quorum="verifier",
        )
        write_new(self._folder.trust_policy, format_trust_policy(policy))

    def _write_documents(self, envelopes: list[Envelope]) -> None:
        folder = self._folder.root / "documents"
        make_folder(folder)
        for number, envelope in enumerate(envelopes):
            kind = envelope.payload_type.removeprefix("application/vnd.sfrl.").partition(".")[0]
            write_new(folder / f"{number:03d}-{kind}.json", envelope_to_json(envelope))

    def _write_authorities_and_operators(self) -> None:
        root, plan = self._folder.root, self._plan
        for name, authority in (("service", self._authorities.service), ("client", self._authorities.client)):
            make_folder(root / "ca")
            write_new(root / "ca" / f"{name}.crt", authority.certificate_pem)
            write_secret_file(root / "ca" / f"{name}.key", authority.key_pem)
        for name, key in self._operators.keys.items():
            write_secret_file(self._folder.operator(name) / "signing.key", key.to_pem())
            self._write_tls(self._folder.operator(name), self._id(f"operator/{name}"))
        self._write_tls(self._folder.auditor(plan.auditor), self._id(f"auditor/{plan.auditor}"))

    def _write_tls(self, folder: Path, name: SpiffeId) -> None:
        write_secret_file(folder / "tls.key", self._tls[name].key)
        write_new(folder / "tls.crt", self._tls[name].certificate)

    def _write_services(self, origin: str, addresses: Addresses) -> None:
        folder, plan = self._folder, self._plan
        counted = {"refusals_seconds": plan.refusals_seconds}
        log = {"log_dir": folder.log_dir, "journal_dir": folder.journal_dir, "log_keys": ["log.key"], **counted}
        log["public_listen"] = addresses.public_log
        client = {"log_address": addresses.audit_log, "objects_dir": folder.objects_dir, "state_dir": "state"}
        if plan.log_url is not None:
            log["log_url"] = plan.log_url
        if plan.objects_url is not None:
            client["objects_url"] = plan.objects_url
        url = f"http://{addresses.witness}/witness"
        witnesses = [{"names": list(WITNESSES), "submission_url": url, "monitoring_url": url}]
        self._write_service("audit_log", plan.audit_log, addresses.audit_log, origin, {**log, "witnesses": witnesses})
        for name, address in addresses.gatekeepers.items():
            self._write_service("gatekeeper", name, address, origin, {**client, **counted})
        self._write_service("aggregator", plan.aggregator, addresses.aggregator, origin, client)
        verifier = {
            "witness_listen": addresses.witness,
            "witness_keys": list(_WITNESS_KEY_FILES),
            "state_dir": folder.root / "witness",
            "callers": [
                {"spiffe_id": str(name), "spki_sha256": self._tls[name].peer.spki_sha256.hex()}
                for name in (self._id(f"operator/{each}") for each in plan.operators)
            ],
        }
        self._write_service("verifier", plan.verifier, addresses.verifier, origin, verifier)
        write_secret_file(folder.service("audit_log", plan.audit_log) / "log.key", self._log_keys.to_pem())
        for file, key in zip(_WITNESS_KEY_FILES, self._witness_keys, strict=True):
            write_secret_file(folder.service("verifier", plan.verifier) / file, key.to_pem())

    def _write_service(
        self, role: str, name: str, address: str, origin: str, more: Mapping[str, object]
    ) -> None:
        folder, spiffe_id = self._folder.service(role, name), self._id(f"service/{role}/{name}")
        write_secret_file(folder / "signing.key", self._services[spiffe_id].to_pem())
        self._write_tls(folder, spiffe_id)
        root = self._folder.root.absolute()
        values: dict[str, object] = {
            "name": name,
            "trust_domain": self._plan.trust_domain,
            "listen": address,
            "trust_policy": _relative(self._folder.trust_policy, folder),
            "origin": origin,
            **{key: _relative(value, folder) if isinstance(value, Path) else value for key, value in more.items()},
            "tls": {
                "certificate": "tls.crt",
                "key": "tls.key",
                "client_ca": _relative(root / "ca" / "client.crt", folder),
                "service_ca": _relative(root / "ca" / "service.crt", folder),
            },
        }
        if role != "verifier":
            values["signing"] = {"key": "signing.key", "suite": "ed25519"}
        write_new(folder / "config.toml", toml_of(values))

    def _write_participants(self, addresses: Addresses) -> None:
        for each in self._plan.participants:
            folder = self._folder.participant(each.name)
            write_secret_file(folder / "signing.key", self._participants[each.name].to_pem())
            self._write_tls(folder, self._id(f"participant/{each.name}"))
            values = {
                "participant": {
                    "name": each.name,
                    "trust_domain": self._plan.trust_domain,
                    "gatekeepers": list(addresses.gatekeepers.values()),
                    "certificate": "tls.crt",
                    "tls_key": "tls.key",
                    "service_ca": _relative(self._folder.root / "ca" / "service.crt", folder),
                    "signing_key": "signing.key",
                    "suite": each.suite,
                    "trust_policy": _relative(self._folder.trust_policy, folder),
                    "receipts": "receipts",
                }
            }
            write_new(folder / "profile.toml", toml_of(values))

    def _write_auditor(self, addresses: Addresses) -> None:
        folder = self._folder.auditor(self._plan.auditor)
        values = {
            "auditor": {
                "name": self._plan.auditor,
                "trust_domain": self._plan.trust_domain,
                "audit_log": addresses.audit_log,
                "gatekeepers": list(addresses.gatekeepers.values()),
                "public_log": f"http://{addresses.public_log}",
                "certificate": "tls.crt",
                "tls_key": "tls.key",
                "service_ca": _relative(self._folder.root / "ca" / "service.crt", folder),
                "trust_policy": _relative(self._folder.trust_policy, folder),
            }
        }
        write_new(folder / "profile.toml", toml_of(values))

    def _write_index(self, origin: str, federation_id: Digest, addresses: Addresses) -> None:
        plan = self._plan
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
            "operators": list(plan.operators),
            "participants": [each.name for each in plan.participants],
            "segments": [each.name for each in plan.segments],
        }
        write_new(self._folder.index, json.dumps(values, indent=1).encode() + b"\n")


def write_secret_file(path: Path, secret: SecretBytes) -> None:
    """Make a key file and the folders above it."""
    make_folder(path.parent)
    write_secret(path, secret)


def _relative(path: Path, folder: Path) -> str:
    return os.path.relpath(path.absolute(), folder.absolute())
