"""Admission, the part that needs the payload: steps 11 to 14.

The gatekeeper decides with it before it admits, the aggregator again before it counts: an admission that fails here is
defective and is dropped, whoever signed it.

Format: proto/README.md, "Admission".

Runs in: gatekeeper, aggregator.
Trusts: the state of the fold. Nothing in the payload.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt

import numpy as np

from sfrl_secure.errors import DeniedError, PayloadError
from sfrl_secure.governance.documents import ParticipantRecord, RulesDocument
from sfrl_secure.governance.policy import MeasuredPolicyFacts
from sfrl_secure.governance.statements import MeasuredFacts, UpdateStatement
from sfrl_secure.governance.terms import SegmentTerms
from sfrl_secure.ids import sha256
from sfrl_secure.rounds.admission import (
    PolicyDenial,
    check_decision,
    check_submit_policy,
    header_facts,
    policy_of,
    subject_of,
)
from sfrl_secure.rounds.leakage import check_leakage
from sfrl_secure.rounds.state import Admission
from sfrl_secure.sparse.decode import decode_update
from sfrl_secure.sparse.update import SparseUpdate

_PREFIXED = frozenset({"format", "shape", "declared", "length", "digest"})


@dataclass(frozen=True, slots=True)
class MeasuredUpdate:
    """A decoded update with what was measured in it and the rules that allowed it."""

    update: SparseUpdate
    facts: MeasuredFacts
    rule_ids: tuple[str, ...]


class MeasuredDenial(DeniedError):
    """A denial that came after measuring. Carries the facts, and the ids of the rules that forbid the update."""

    def __init__(self, denial: DeniedError, facts: MeasuredFacts) -> None:
        super().__init__(denial.reason, str(denial))
        self.facts = facts
        self.rule_ids = denial.rule_ids if isinstance(denial, PolicyDenial) else ()


def measure(update: SparseUpdate, terms: SegmentTerms) -> MeasuredFacts:
    """Measure a decoded update in exact integers."""
    offsets = np.asarray(terms.model.manifest.offsets, dtype=np.int64)
    touched = np.unique(np.searchsorted(offsets, update.indices, side="right") - 1)
    return MeasuredFacts(
        nonzeros=int(update.indices.size),
        density_ppm=int(update.indices.size) * 1_000_000 // terms.model.manifest.coordinates,
        norm=isqrt(update.norm_squared()),
        largest_magnitude=update.largest_magnitude(),
        tensors=tuple(int(tensor) for tensor in touched),
    )


def check_payload(
    terms: SegmentTerms,
    rules: RulesDocument | None,
    record: ParticipantRecord,
    statement: UpdateStatement,
    payload: bytes,
) -> MeasuredUpdate:
    """Steps 9 and 11 to 14: the rules, the digest, the canonical form, the limits on what was measured, what would
    leak, the rules again.

    Raises:
        DeniedError: the first step that fails; `MeasuredDenial` once there were facts.
    """
    submit_ids = check_submit_policy(rules, terms, record, statement)
    assert rules is not None, "check_submit_policy denies without rules"
    if len(payload) != statement.payload_bytes or sha256(payload) != statement.payload_sha256:
        raise DeniedError("digest_mismatch", "the payload is not the one that the header names")
    try:
        update = decode_update(
            payload,
            coordinates=terms.model.manifest.coordinates,
            nonzeros=statement.nonzeros,
            value_type=statement.format.values,
            grid_exponent=terms.model.grid_exponent,
        )
    except PayloadError as error:
        reason = f"payload_{error.reason}" if error.reason in _PREFIXED else error.reason
        raise DeniedError(reason, str(error)) from None
    facts = measure(update, terms)
    try:
        check_measured(terms, facts)
        check_leakage(terms, update, statement.noise_std)
        names = tuple(terms.model.manifest.tensors[tensor].name for tensor in facts.tensors)
        decision = policy_of(rules).decide_admit(
            subject_of(record),
            (terms.segment, terms.sensitivity),
            header_facts(terms, record, statement),
            MeasuredPolicyFacts(norm=facts.norm, largest_magnitude=facts.largest_magnitude, tensors=names),
        )
        admit_ids = check_decision(decision)
    except DeniedError as denial:
        raise MeasuredDenial(denial, facts) from None
    return MeasuredUpdate(update, facts, submit_ids + admit_ids)


def check_measured(terms: SegmentTerms, facts: MeasuredFacts) -> None:
    """Step 13, its beginning: norm, largest magnitude and tensors are within the terms.

    Raises:
        DeniedError: `norm_limit`, `magnitude_limit`, `tensor_not_allowed`.
    """
    limits = terms.limits
    if facts.norm > limits.norm_max:
        raise DeniedError("norm_limit", f"an update's norm is at most {limits.norm_max} grid units")
    if facts.largest_magnitude > limits.magnitude_max:
        raise DeniedError("magnitude_limit", f"a value is at most {limits.magnitude_max} grid units")
    if not terms.allowed_tensor_indices.issuperset(facts.tensors):
        raise DeniedError("tensor_not_allowed", "the update touches a tensor that the terms do not allow")


def check_admission(admission: Admission, terms: SegmentTerms, payload: bytes) -> SparseUpdate:
    """Decide an admission again from its payload.

    Raises:
        DeniedError: it is defective: it should have been refused, or its entry states other facts or rules.
    """
    again = check_payload(terms, admission.rules, admission.participant, admission.update, payload)
    if again.facts != admission.facts or again.rule_ids != admission.rule_ids:
        raise DeniedError("facts", "the admission states other facts or rules than its payload gives")
    return again.update
