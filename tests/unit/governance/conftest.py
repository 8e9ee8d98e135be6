"""A small federation: keys made for the run, and a valid document of each kind to start from."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from sfrl_secure.crypto.envelope import Envelope, sign_envelope
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.crypto.possession import prove_possession
from sfrl_secure.governance.aggregation_terms import (
    MULTI_KRUM,
    AdaptiveTerms,
    CapTerms,
    ClipTerms,
    MaskTerms,
    NextMaskTerms,
    RuleTerms,
)
from sfrl_secure.governance.build import (
    build_genesis,
    build_join,
    build_key_revocation,
    build_order,
    build_participant,
    build_root,
    build_rules,
    build_services,
    build_terms,
)
from sfrl_secure.governance.documents import Document, RootDocument, Signatory, Thresholds, parse_document
from sfrl_secure.governance.manifest import ModelManifest, TensorSpec
from sfrl_secure.governance.orders import OrderAction, ReaggregateTarget
from sfrl_secure.governance.origin import origin_of
from sfrl_secure.governance.root import GenesisDocument, parse_root
from sfrl_secure.governance.terms import (
    LeakageBound,
    LeakageTerms,
    ModelTerms,
    QuotaTerms,
    RoundTerms,
    UpdateLimits,
)
from sfrl_secure.ids import Digest, parse_spiffe_id, sha256
from sfrl_secure.translog.note import ED25519, ML_DSA_44_COSIGNATURE, verifier_key

NOW_US = 1_780_000_000_000_000
UNTIL_US = NOW_US + 86_400_000_000

SHORT_TYPES = {
    "root": "application/vnd.sfrl.root.v1+json",
    "next-root": "application/vnd.sfrl.root.v1+json",
    "genesis": "application/vnd.sfrl.genesis.v1+json",
    "services": "application/vnd.sfrl.services.v1+json",
    "rules": "application/vnd.sfrl.rules.v1+json",
    "segment-terms": "application/vnd.sfrl.segment-terms.v1+json",
    "agreed-segment-terms": "application/vnd.sfrl.segment-terms.v1+json",
    "changing-segment-terms": "application/vnd.sfrl.segment-terms.v1+json",
    "participant": "application/vnd.sfrl.participant.v1+json",
    "join": "application/vnd.sfrl.join.v1+json",
    "key-revocation": "application/vnd.sfrl.key-revocation.v1+json",
    "order": "application/vnd.sfrl.order.v1+json",
}


@dataclass
class Federation:
    """Three operators, two of whom must sign; one of them alone may revoke."""

    operators: dict[str, SigningKey]
    gatekeeper: SigningKey
    auditor: SigningKey
    rover: SigningKey
    token: SigningKey
    thresholds: Thresholds = field(default_factory=lambda: Thresholds(root=3, governance=2, enrolment=2, revocation=1))

    now_us = NOW_US
    until_us = UNTIL_US

    def __post_init__(self) -> None:
        self.root_raw = build_root(
            expires_us=UNTIL_US,
            trust_domain="mars.example",
            log_host="log.mars.example",
            operators={name: key.public_key for name, key in self.operators.items()},
            thresholds=self.thresholds,
        )
        self.root: RootDocument = parse_root(self.root_raw)
        self.id: Digest = self.root.digest
        self.origin = origin_of(self.root.log_host, self.id)
        self.log_keys = (
            verifier_key(self.origin, ED25519, self.gatekeeper.public_key.parts[0]).vkey,
            verifier_key(self.origin, ML_DSA_44_COSIGNATURE, self.gatekeeper.public_key.parts[1]).vkey,
        )
        self.root_envelope = self.sign(RootDocument.payload_type, self.root_raw, *self.operators)
        self.raw: Mapping[str, bytes] = {
            "root": self.root_raw,
            "next-root": self.next_root(),
            "genesis": build_genesis(root_envelope=self.root_envelope, log_keys=self.log_keys),
            "services": self.services(),
            "rules": self.rules(),
            "segment-terms": self.terms(),
            "agreed-segment-terms": self.terms(
                support_modes=["free", "agreed"],
                mask=MaskTerms(sha256(b"mask"), 7),
                relay_groups=["lorries", "orbiters"],
            ),
            "changing-segment-terms": self.terms(
                support_modes=["agreed"],
                mask=MaskTerms(sha256(b"mask"), 10, NextMaskTerms("votes", 3, frozenset({"a.bias"}))),
                rule=RuleTerms(MULTI_KRUM, liars_ppm=200_000, selected_ppm=500_000),
                clip=ClipTerms(median_ppm=1_500_000),
                cap=CapTerms(3, 2**20),
                server=AdaptiveTerms(58_982, 64_880, 2**10, 2**4),
            ),
            "participant": self.participant(),
            "join": self.join(),
            "key-revocation": self.key_revocation(),
            "order": self.order(),
        }
        self.genesis = self.parse("genesis", self.raw["genesis"])
        assert isinstance(self.genesis, GenesisDocument)

    def sign(self, payload_type: str, raw: bytes, *names: str) -> Envelope:
        """Sign with the named operators' keys."""
        return sign_envelope(payload_type, raw, [self.operators[name] for name in names])

    def parse(self, kind: str, raw: bytes) -> Document:
        """Parse by the short name of the kind."""
        return parse_document(SHORT_TYPES[kind], raw)

    def next_root(self, **changes: Any) -> bytes:
        """Build version 2 of root; as it is, another document with the same operators."""
        given = {
            "federation_id": self.id,
            "version": 2,
            "previous": self.root.digest,
            "expires_us": UNTIL_US + 1,
            "trust_domain": self.root.trust_domain,
            "log_host": self.root.log_host,
            "operators": self.root.operators,
            "thresholds": self.thresholds,
        }
        return build_root(**(given | changes))

    def services(self, **changes: Any) -> bytes:
        """Build a services document."""
        name = parse_spiffe_id("spiffe://mars.example/service/gatekeeper/g1")
        gatekeeper = Signatory(name, self.gatekeeper.public_key)
        auditor = Signatory(parse_spiffe_id("spiffe://mars.example/auditor/ada"), self.auditor.public_key)
        given = {"federation_id": self.id, "expires_us": UNTIL_US, "services": [gatekeeper], "auditors": [auditor]}
        return build_services(**(given | changes))

    def rules(self, **changes: Any) -> bytes:
        """Build a rules document."""
        return build_rules(**({"federation_id": self.id, "expires_us": UNTIL_US} | changes))

    def terms(self, **changes: Any) -> bytes:
        """Build segment terms."""
        given = {
            "federation_id": self.id,
            "expires_us": UNTIL_US,
            "segment": "rocks",
            "sensitivity": 3,
            "groups": ["rovers", "orbiters"],
            "model": ModelTerms(MANIFEST, 16, sha256(b"initial")),
            "tensors": ["a.bias", "b.weight"],
            "limits": UpdateLimits(65_536, 20, 2**40, 2**30, 1_000),
            "quota": QuotaTerms(3_600_000_000, 10, 600_000),
            "leakage": LeakageTerms(
                2,
                8,
                3,
                rows=(LeakageBound("b.weight", 1, 2), LeakageBound("b.weight", 2, 1)),
                labels=(LeakageBound("a.bias", 0, 2),),
            ),
            "round_terms": RoundTerms(60_000_000, 2, 5, 100),
            "evidence_days": 30,
            "retention_days": 90,
        }
        return build_terms(**(given | changes))

    def participant(self, **changes: Any) -> bytes:
        """Build a participant record."""
        given = {
            "federation_id": self.id,
            "expires_us": UNTIL_US,
            "name": "rover-1",
            "key": self.rover.public_key,
            "clearance": 5,
            "groups": ["rovers"],
        }
        given |= changes
        if "possession" not in given:
            given["possession"] = prove_possession(self.rover, self.id, given["name"])
        return build_participant(**given)

    def join(self, **changes: Any) -> bytes:
        """Build an invitation."""
        given = {
            "federation_id": self.id,
            "expires_us": UNTIL_US,
            "name": "rover-1",
            "join_key": self.token.public_key,
            "clearance": 5,
            "groups": ["rovers"],
            "record_expires_us": UNTIL_US,
        }
        return build_join(**(given | changes))

    def key_revocation(self, **changes: Any) -> bytes:
        """Build the revocation of a TLS key."""
        given = {
            "federation_id": self.id,
            "expires_us": UNTIL_US,
            "spiffe_id": parse_spiffe_id("spiffe://mars.example/participant/rover-1"),
            "spki_sha256": sha256(b"spki"),
            "reason": "lost with the arm",
        }
        return build_key_revocation(**(given | changes))

    def order(self, **changes: Any) -> bytes:
        """Build an order: of the actions, the one with the largest target."""
        given = {
            "federation_id": self.id,
            "expires_us": UNTIL_US,
            "segment": "rocks",
            "action": OrderAction.REAGGREGATE,
            "target": ReaggregateTarget(3, ("rover-1", "rover-2")),
        }
        return build_order(**(given | changes))


MANIFEST = ModelManifest(
    (
        TensorSpec("a.weight", (4, 3), "int32"),
        TensorSpec("a.bias", (4,), "int64"),
        TensorSpec("b.weight", (2, 2, 2), "int32"),
    ),
    16,
    {"ln_centre": (1, -2, 3)},
)


@pytest.fixture(scope="session")
def federation() -> Federation:
    """One federation for all tests; its documents are values and nothing changes them."""
    hybrid, plain = "ed25519+ml-dsa-44", "ed25519"
    return Federation(
        operators={name: SigningKey.generate(hybrid if name == "ann" else plain) for name in ("ann", "bob", "eve")},
        gatekeeper=SigningKey.generate(hybrid),
        auditor=SigningKey.generate(plain),
        rover=SigningKey.generate(plain),
        token=SigningKey.generate(plain),
    )


@pytest.fixture(scope="session")
def change() -> Callable[[bytes, tuple[str | int, ...], object], bytes]:
    """Set the member at a path of a document to a value; `...` as the value removes it."""

    def changed(raw: bytes, path: tuple[str | int, ...], value: object) -> bytes:
        document = json.loads(raw)
        at = document
        for step in path[:-1]:
            at = at[step]
        if value is ...:
            del at[path[-1]]
        else:
            at[path[-1]] = value
        return json.dumps(document).encode()

    return changed


@pytest.fixture
def build(federation: Federation) -> Callable[..., Document]:
    """Build and parse a document of a kind, with changes."""
    builders = {
        "services": federation.services,
        "rules": federation.rules,
        "segment-terms": federation.terms,
        "participant": federation.participant,
        "join": federation.join,
        "key-revocation": federation.key_revocation,
        "order": federation.order,
        "next-root": federation.next_root,
    }
    return lambda kind, **changes: federation.parse(kind, builders[kind](**changes))
