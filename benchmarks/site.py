"""A real federation on loopback for a benchmark: one log, three witnesses, gatekeepers that write, one that follows.

`create_federation` makes it, as `sfrl init` would. On top come two more witnesses, each a verifier process with a key
and a state of its own, a quorum that wants all three, and hybrid keys for half of the writers, which the operators put
in force with a second services document. All services are processes of `sfrl serve`.

Runs in: a developer's machine.
Trusts: its arguments.
"""

from __future__ import annotations

import json
import socket
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.processes import LogProcess
from sfrl_secure.clock import SystemClock
from sfrl_secure.crypto.envelope import parse_envelope_json, sign_envelope
from sfrl_secure.crypto.keys import SigningKey, signing_key_from_pem
from sfrl_secure.crypto.svid import open_svid
from sfrl_secure.governance.build import build_services
from sfrl_secure.governance.documents import ServicesDocument, parse_document
from sfrl_secure.governance.services import Signatory
from sfrl_secure.ids import Digest, SpiffeId, parse_spiffe_id
from sfrl_secure.rpc.channel import ClientTls, RpcChannel
from sfrl_secure.rpc.clients import AuditLogClient
from sfrl_secure.services.federation.create import Federation, create_federation
from sfrl_secure.services.federation.folder import toml_of, write_secret_file
from sfrl_secure.services.federation.plan import FederationPlan, default_plan
from sfrl_secure.services.federation.supervise import ServiceProcess
from sfrl_secure.storage.secrets import read_secret
from sfrl_secure.translog.merkle import leaf_hash
from sfrl_secure.translog.policy import (
    TrustedWitness,
    TrustPolicy,
    WitnessGroup,
    format_trust_policy,
    parse_trust_policy,
)
from sfrl_secure.translog.witness_keys import WitnessKey

WRITERS = tuple(f"writer-{number}" for number in (1, 2, 3, 4))
HYBRID_WRITERS = tuple(f"hybrid-{number}" for number in (1, 2, 3, 4))
FOLLOWER = "follower"
WITNESSES = 3
HYBRID = "ed25519+ml-dsa-44"


@dataclass(slots=True)
class BenchmarkSite:
    """A federation and its processes.

    Attributes:
        governance_head: what a statement reads that is written now.
        hybrid_keys: key files of the hybrid writers.
    """

    federation: Federation
    log: LogProcess
    witnesses: list[ServiceProcess]
    follower: ServiceProcess
    governance_head: Digest = field(default_factory=lambda: Digest(bytes(32)))
    hybrid_keys: dict[str, Path] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        """The federation's folder."""
        return self.federation.folder.root

    @property
    def log_config(self) -> Path:
        """The audit log's configuration."""
        return self.log.config

    @property
    def log_pid(self) -> int:
        """Process id of the log."""
        assert self.log.process is not None
        return self.log.process.pid

    def identities(self) -> dict[str, str]:
        """SPIFFE ID to SHA-256 of the TLS public key, of every gatekeeper."""
        found = {}
        for name in (*WRITERS, *HYBRID_WRITERS):
            certificate = open_svid((self._folder(name) / "tls.crt").read_bytes(), self._trust_domain)
            found[str(certificate.spiffe_id)] = certificate.spki_sha256.hex()
        return found

    def writer_config(self, name: str, entry_bytes: int) -> dict[str, Any]:
        """What a writer process needs to know."""
        folder = self._folder(name)
        return {
            "name": f"spiffe://{self._trust_domain}/service/gatekeeper/{name}",
            "trust_domain": self._trust_domain,
            "log_address": self.federation.addresses.audit_log,
            "tls_key": str(folder / "tls.key"),
            "certificate": str(folder / "tls.crt"),
            "service_ca": str(self.root / "ca" / "service.crt"),
            "signing_key": str(self.hybrid_keys.get(name, folder / "signing.key")),
            "suite": HYBRID if name in self.hybrid_keys else "ed25519",
            "trust_policy": str(self.federation.folder.trust_policy),
            "federation_id": self.federation.federation_id.hex(),
            "governance_head": self.governance_head.hex(),
            "entry_bytes": entry_bytes,
        }

    def published_size(self) -> int:
        """Size of the published checkpoint, 0 before there is one."""
        try:
            note = (self.federation.folder.log_dir / "checkpoint").read_bytes()
        except FileNotFoundError:
            return 0
        return int(note.split(b"\n", 2)[1])

    def put_hybrid_keys_in_force(self) -> None:
        """Give the hybrid writers new keys in a second services document, signed by the operators."""
        root, folder = self.root, self.federation.folder
        documents = [parse_envelope_json(path.read_bytes()) for path in sorted((root / "documents").iterdir())]
        parsed = [parse_document(each.payload_type, each.statement) for each in documents]
        before = next(each for each in parsed if isinstance(each, ServicesDocument))
        keys = {name: SigningKey.generate(HYBRID) for name in HYBRID_WRITERS}
        for name, key in keys.items():
            self.hybrid_keys[name] = root / "hybrid" / name / "signing.key"
            write_secret_file(self.hybrid_keys[name], key.to_pem())
        named = {self._spiffe_id(name): key.public_key for name, key in keys.items()}
        document = build_services(
            federation_id=self.federation.federation_id,
            version=before.version + 1,
            previous=before.digest,
            expires_us=before.expires_us,
            services=[Signatory(each.spiffe_id, named.get(each.spiffe_id, each.key)) for each in before.services],
            auditors=before.auditors,
        )
        operators = sorted(path for path in (root / "operators").iterdir())
        signing = [signing_key_from_pem("ed25519", read_secret(path / "signing.key")) for path in operators]
        envelope = sign_envelope(ServicesDocument.payload_type, document, signing[:2])
        tls = ClientTls(
            read_secret(folder.operator(operators[0].name) / "tls.key"),
            (folder.operator(operators[0].name) / "tls.crt").read_bytes(),
            (root / "ca" / "service.crt").read_bytes(),
        )
        with RpcChannel(
            self.federation.addresses.audit_log, role="audit_log", trust_domain=self._trust_domain, tls=tls
        ) as channel:
            appended = AuditLogClient(channel).append(envelope)
        self.governance_head = leaf_hash(appended.logged.raw)

    def _folder(self, name: str) -> Path:
        return self.federation.folder.service("gatekeeper", name)

    def _spiffe_id(self, name: str) -> SpiffeId:
        return parse_spiffe_id(f"spiffe://{self._trust_domain}/service/gatekeeper/{name}")

    @property
    def _trust_domain(self) -> str:
        return str(json.loads((self.root / "federation.json").read_bytes())["trust_domain"])


@contextmanager
def running_site(folder: Path, *, profile: Path | None = None) -> Iterator[BenchmarkSite]:
    """Make a federation in a new folder, and run its witnesses and its log until the end of the block."""
    federation = create_federation(folder, _plan(), SystemClock())
    logs = folder / "service-logs"
    logs.mkdir()
    verifier = _plan().verifier
    configs = [federation.folder.service("verifier", verifier) / "config.toml"]
    configs += _add_witnesses(federation, configs[0])
    site = BenchmarkSite(
        federation,
        LogProcess("audit_log", "log", _config(federation, "audit_log"), logs / "audit_log.jsonl", profile=profile),
        [
            ServiceProcess("verifier", verifier, config, logs / f"witness-{number}.jsonl")
            for number, config in enumerate(configs, 1)
        ],
        ServiceProcess(
            "gatekeeper",
            FOLLOWER,
            federation.folder.service("gatekeeper", FOLLOWER) / "config.toml",
            logs / "follower.jsonl",
        ),
    )
    try:
        for service in (*site.witnesses, site.log):
            service.start()
            service.wait_ready()
        site.put_hybrid_keys_in_force()
        yield site
    finally:
        for service in (site.follower, site.log, *site.witnesses):
            service.stop()


def _plan() -> FederationPlan:
    gatekeepers = [*WRITERS, *HYBRID_WRITERS, FOLLOWER]
    return default_plan().model_copy(update={"gatekeepers": gatekeepers, "refusals_seconds": 3600.0})


def _config(federation: Federation, role: str) -> Path:
    return federation.folder.service(role, getattr(_plan(), role)) / "config.toml"


def _add_witnesses(federation: Federation, first: Path) -> list[Path]:
    """Make two more witnesses like the one that there is; the quorum is all of them. Give their configurations."""
    policy_path, log_path = federation.folder.trust_policy, _config(federation, "audit_log")
    policy = parse_trust_policy(policy_path.read_bytes())
    verifier, log = tomllib.loads(first.read_text()), tomllib.loads(log_path.read_text())
    configs, witnesses, groups, endpoints = [], list(policy.witnesses), list(policy.groups), list(log["witnesses"])
    for number in range(2, WITNESSES + 1):
        listen, witness_listen = _free_addresses(2)
        url = f"http://{witness_listen}/witness"
        members: list[TrustedWitness] = []
        files: list[str] = []
        for original in policy.witnesses:
            key = WitnessKey.generate(original.key.key_type)
            name = f"witness-{number}-{len(members)}"
            members.append(TrustedWitness(name, key.verifier_key(f"witness-{number}.example/w"), url))
            files.append(f"{name}.key")
            write_secret_file(first.parent / files[-1], key.to_pem())
        names = tuple(witness.name for witness in members)
        groups.append(WitnessGroup(f"witness-{number}", len(names), names))
        witnesses += members
        endpoints.append({"names": list(names), "submission_url": url, "monitoring_url": url})
        config = {"listen": listen, "witness_listen": witness_listen, "witness_keys": files}
        configs.append(first.parent / f"config-{number}.toml")
        configs[-1].write_bytes(toml_of({**verifier, **config, "state_dir": f"state-{number}"}))
    everybody = WitnessGroup("everybody", WITNESSES, tuple(group.name for group in groups))
    trusted = TrustPolicy(policy.logs, tuple(witnesses), (*groups, everybody), everybody.name)
    policy_path.write_bytes(format_trust_policy(trusted))
    log_path.write_bytes(toml_of({**log, "witnesses": endpoints}))
    return configs


def _free_addresses(count: int) -> list[str]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    found = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return found
