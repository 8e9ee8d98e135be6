"""The first documents of a federation, signed by the operators, in the order in which they take effect.

Runs in: cli, demo.
Trusts: the plan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from sfrl_secure.crypto.envelope import Envelope, sign_envelope
from sfrl_secure.crypto.keys import PublicKey, SigningKey
from sfrl_secure.crypto.possession import prove_possession
from sfrl_secure.governance.aggregation_terms import MaskTerms
from sfrl_secure.governance.build import (
    build_genesis,
    build_participant,
    build_root,
    build_rules,
    build_services,
    build_terms,
)
from sfrl_secure.governance.documents import (
    GenesisDocument,
    ParticipantRecord,
    RootDocument,
    RulesDocument,
    SegmentTerms,
    ServicesDocument,
)
from sfrl_secure.governance.root import Thresholds
from sfrl_secure.governance.services import Signatory
from sfrl_secure.governance.terms import (
    LeakageBound,
    LeakageTerms,
    ModelTerms,
    QuotaTerms,
    RoundTerms,
    UpdateLimits,
)
from sfrl_secure.ids import ZERO_DIGEST, Digest, SpiffeId, parse_spiffe_id, sha256
from sfrl_secure.limits import VALUE_MAX
from sfrl_secure.operating.aggregation_tables import cap_of, clip_of, rule_of, server_of
from sfrl_secure.services.federation.plan import FederationPlan, LeakageBoundPlan, ParticipantPlan, SegmentPlan

_NORM_MAX = 2**62


@dataclass(frozen=True, slots=True)
class Operators:
    """The operators' keys and how many of them sign.

    Attributes:
        keys: by name; the first `threshold` in order of names sign.
        expires_us: of every document.
    """

    keys: Mapping[str, SigningKey]
    threshold: int
    expires_us: int

    def sign(self, payload_type: str, document: bytes) -> Envelope:
        """Sign with as many operators as it takes."""
        names = sorted(self.keys)[: self.threshold]
        return sign_envelope(payload_type, document, [self.keys[name] for name in names])


def root_envelope(plan: FederationPlan, operators: Operators) -> Envelope:
    """Root v1; its digest is the federation id. One operator may revoke, all else takes the threshold."""
    document = build_root(
        expires_us=operators.expires_us,
        trust_domain=plan.trust_domain,
        log_host=plan.log_host,
        operators={name: key.public_key for name, key in operators.keys.items()},
        thresholds=Thresholds(
            root=plan.threshold, governance=plan.threshold, enrolment=plan.threshold, revocation=1
        ),
    )
    return operators.sign(RootDocument.payload_type, document)


def genesis_envelope(root: Envelope, log_keys: tuple[str, str], operators: Operators) -> Envelope:
    """Genesis: entry 0."""
    return operators.sign(GenesisDocument.payload_type, build_genesis(root_envelope=root, log_keys=log_keys))


def services_envelope(
    federation_id: Digest,
    plan: FederationPlan,
    services: Mapping[SpiffeId, PublicKey],
    auditors: Mapping[SpiffeId, PublicKey],
    operators: Operators,
) -> Envelope:
    """Which service and which auditor signs with which key, and which key exchanges are admitted."""
    document = build_services(
        federation_id=federation_id,
        expires_us=operators.expires_us,
        services=[Signatory(name, key) for name, key in sorted(services.items())],
        auditors=[Signatory(name, key) for name, key in sorted(auditors.items())],
        key_exchange=plan.key_exchange,
    )
    return operators.sign(ServicesDocument.payload_type, document)


def rules_envelope(federation_id: Digest, operators: Operators) -> Envelope:
    """The rules to begin with."""
    document = build_rules(federation_id=federation_id, expires_us=operators.expires_us)
    return operators.sign(RulesDocument.payload_type, document)


def terms_document(
    federation_id: Digest, plan: SegmentPlan, initial_model: Digest, expires_us: int, *, mask: MaskTerms | None = None,
    version: int = 1, previous: Digest = ZERO_DIGEST,
) -> bytes:
    """A segment's terms; what the plan says in parameter units becomes grid integers.

    Raises:
        MalformedError: a value is out of its range, or does not fit the others.
    """
    unit = 2**plan.grid_exponent
    return build_terms(
        federation_id=federation_id,
        expires_us=expires_us,
        version=version,
        previous=previous,
        segment=plan.name,
        sensitivity=plan.sensitivity,
        groups=plan.groups,
        operations=plan.operations,
        model=ModelTerms(manifest=plan.manifest, grid_exponent=plan.grid_exponent, initial=initial_model),
        value_types=plan.value_types,
        support_modes=plan.support_modes,
        mask=mask,
        relay_groups=plan.relay_groups,
        suites=plan.suites,
        limits=UpdateLimits(
            payload_bytes_max=plan.longest_payload_bytes,
            nonzeros_max=plan.nonzeros_max,
            norm_max=min(int(plan.norm_max * unit), _NORM_MAX),
            magnitude_max=min(int(plan.magnitude_max * unit), VALUE_MAX),
            weight_max=plan.weight_max,
        ),
        quota=QuotaTerms(
            window_us=plan.quota.window_seconds * 1_000_000,
            updates_max=plan.quota.updates_max,
            bytes_max=plan.quota.bytes_max,
        ),
        leakage=LeakageTerms(
            nonzeros_min=plan.leakage.nonzeros_min,
            weight_min=plan.leakage.weight_min,
            noise_std_min=min(ceil(plan.leakage.noise_std_min * unit), VALUE_MAX),
            rows=_bounds(plan.leakage.rows),
            labels=_bounds(plan.leakage.labels),
        ),
        round_terms=RoundTerms(
            duration_us=plan.duration_seconds * 1_000_000,
            cohort_min=plan.cohort_min,
            cohort_max=plan.cohort_max,
            rounds_max=plan.rounds_max,
        ),
        rule=rule_of(plan.rule),
        clip=clip_of(plan.clip, plan.grid_exponent),
        cap=cap_of(plan.cap, plan.grid_exponent),
        server=server_of(plan.server, plan.grid_exponent),
        evidence_days=plan.evidence_days,
        retention_days=plan.retention_days,
    )


def _bounds(plans: Sequence[LeakageBoundPlan]) -> tuple[LeakageBound, ...]:
    return tuple(LeakageBound(each.tensor, each.axis, each.min) for each in plans)


def terms_envelope(
    federation_id: Digest, plan: SegmentPlan, initial_model: Digest, operators: Operators,
    mask: MaskTerms | None = None,
) -> Envelope:
    """A segment's first terms."""
    document = terms_document(federation_id, plan, initial_model, operators.expires_us, mask=mask)
    return operators.sign(SegmentTerms.payload_type, document)


def participant_envelope(
    federation_id: Digest, plan: ParticipantPlan, key: SigningKey, operators: Operators
) -> Envelope:
    """A participant's record, with the proof that it holds its key."""
    document = build_participant(
        federation_id=federation_id,
        expires_us=operators.expires_us,
        name=plan.name,
        key=key.public_key,
        possession=prove_possession(key, federation_id, plan.name),
        clearance=plan.clearance,
        groups=plan.groups,
    )
    return operators.sign(ParticipantRecord.payload_type, document)


def federation_id_of(root: Envelope) -> Digest:
    """SHA-256 of the root document's bytes."""
    return sha256(root.statement)


def spiffe_id_of(plan: FederationPlan, path: str) -> SpiffeId:
    """An identity of this federation's trust domain."""
    return parse_spiffe_id(f"spiffe://{plan.trust_domain}/{path}")
