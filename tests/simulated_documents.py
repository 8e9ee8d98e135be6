"""What the simulated federation's operators publish: documents, invitations, revocations, a new root, orders.

Each `*_raw` builds the next version of a document, with whatever a test changes; the method without it signs and
appends it, and gives its index. What would have no effect is refused, as by any log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from simulated_federation import DAY_US, DOMAIN, GRID, HOUR_US, LOG_HOST, MANIFEST, SEGMENT, UNTIL_US, participant_id

from sfrl_secure.crypto.envelope import Envelope, sign_envelope
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.crypto.possession import prove_possession
from sfrl_secure.governance.aggregation_terms import MaskTerms, NextMaskTerms
from sfrl_secure.governance.build import (
    build_join,
    build_key_revocation,
    build_order,
    build_participant,
    build_root,
    build_rules,
    build_services,
    build_terms,
)
from sfrl_secure.governance.documents import (
    Document,
    JoinDocument,
    KeyRevocation,
    Order,
    ParticipantRecord,
    RootDocument,
    RulesDocument,
    SegmentTerms,
    ServicesDocument,
    Signatory,
    Thresholds,
)
from sfrl_secure.governance.orders import (
    AcceptTarget,
    ExcludeTarget,
    NoTarget,
    OrderAction,
    OrderTarget,
    OverrideTarget,
    ReaggregateTarget,
    RollbackTarget,
)
from sfrl_secure.governance.root import parse_root
from sfrl_secure.governance.terms import ModelTerms, RoundTerms, UpdateLimits
from sfrl_secure.ids import ZERO_DIGEST, Digest, SpiffeId
from sfrl_secure.rounds.reaggregation import left_out_by, reveals_of
from sfrl_secure.sparse.mask import encode_mask

NO_TARGET = NoTarget()


class SimulatedDocuments:
    """The operators' part of `Simulator`, which has the log, the clock, the keys and the objects."""

    def sign_document(self, payload_type: str, raw: bytes, signers: Sequence[str] | None = None) -> Envelope:
        """Sign as the first two operators, or as those named."""
        names = list(self.operators)[:2] if signers is None else signers
        return sign_envelope(payload_type, raw, [self.operators[name] for name in names])

    def publish(self, payload_type: str, raw: bytes, signers: Sequence[str] | None = None) -> int:
        """Sign and append a document; give its index."""
        return self.log.order(self.sign_document(payload_type, raw, signers))

    def succession(self, series: tuple[str, str]) -> dict[str, Any]:
        """Version, previous digest and expiry of the next document of a series."""
        placed = self.state.placed.get(series)
        before: Document | None = None if placed is None else placed.document
        return {
            "federation_id": self.federation_id,
            "expires_us": UNTIL_US,
            "version": 1 if before is None else before.version + 1,
            "previous": ZERO_DIGEST if before is None else before.digest,
        }

    # Root, services, rules, terms

    def root_raw(self, operators: Mapping[str, SigningKey] | None = None, **changes: Any) -> bytes:
        """Build the first root, or the next; `operators` are those whom it names, by their keys."""
        operators = self.operators if operators is None else operators
        given = {
            **({} if self.root is None else self.succession(("root", ""))),
            "expires_us": UNTIL_US,
            "trust_domain": DOMAIN,
            "log_host": LOG_HOST,
            "operators": {name: key.public_key for name, key in operators.items()},
            "thresholds": Thresholds(root=2, governance=2, enrolment=2, revocation=1),
        }
        return build_root(**{**given, **changes})

    def sign_root(
        self,
        raw: bytes,
        operators: Mapping[str, SigningKey],
        old_signers: Sequence[str] | None = None,
        new_signers: Sequence[str] | None = None,
    ) -> Envelope:
        """Sign a next root as the first two operators of the root in force and of its own, or as those named."""
        old = list(self.operators)[:2] if old_signers is None else old_signers
        new = list(operators)[:2] if new_signers is None else new_signers
        keys = [self.operators[name] for name in old] + [operators[name] for name in new]
        unique = {key.public_key.key_id: key for key in keys}
        return sign_envelope(RootDocument.payload_type, raw, list(unique.values()))

    def rotate_root(self, operators: Mapping[str, SigningKey] | None = None, **changes: Any) -> int:
        """Put a new root in force, signed for both; from then on its operators sign."""
        operators = dict(self.operators if operators is None else operators)
        raw = self.root_raw(operators, **changes)
        index = self.log.order(self.sign_root(raw, operators))
        self.operators, self.root = operators, parse_root(raw)
        return index

    def publish_services(self, **changes: Any) -> int:
        """Publish the services document, or its next version; `services` and `auditors` map SPIFFE IDs to keys."""
        keys, auditors = changes.pop("services", self.keys), changes.pop("auditors", self.auditors)
        given = {
            **self.succession(("services", "")),
            "services": [Signatory(spiffe_id, key.public_key) for spiffe_id, key in keys.items()],
            "auditors": [Signatory(spiffe_id, key.public_key) for spiffe_id, key in auditors.items()],
        }
        return self.publish(ServicesDocument.payload_type, build_services(**{**given, **changes}))

    def publish_rules(self, **changes: Any) -> int:
        """Publish the rules, or their next version."""
        # Unreviewed: histories may hold rules that err.
        given = {**self.succession(("rules", "")), "review": False, **changes}
        return self.publish(RulesDocument.payload_type, build_rules(**given))

    def terms_raw(self, **changes: Any) -> bytes:
        """Build the segment's next terms."""
        segment = changes.get("segment", SEGMENT)
        given = {
            **self.succession(("segment-terms", segment)),
            "segment": segment,
            "sensitivity": 3,
            "groups": ["rovers"],
            "operations": ["fetch", "record", "submit"],
            "model": ModelTerms(MANIFEST, GRID, self.objects.put(self.initial.to_bytes())),
            "tensors": ["a.weight", "a.bias"],
            "value_types": ["int8"],
            "suites": ["ed25519"],
            "limits": UpdateLimits(
                payload_bytes_max=4_096, nonzeros_max=8, norm_max=2**21, magnitude_max=2**20, weight_max=100
            ),
            "round_terms": RoundTerms(duration_us=60_000_000, cohort_min=2, cohort_max=3, rounds_max=3),
            "evidence_days": 30,
            "retention_days": 90,
        }
        return build_terms(**{**given, **changes})

    def publish_terms(self, **changes: Any) -> int:
        """Publish the segment's terms, or their next version."""
        return self.publish(SegmentTerms.payload_type, self.terms_raw(**changes))

    def agree(self, *coordinates: int, next: NextMaskTerms | None = None) -> MaskTerms:
        """Store a mask of these coordinates; give what terms say of it, and of how it changes."""
        mask = encode_mask(MANIFEST.coordinates, np.array(coordinates, dtype=np.int64))
        return MaskTerms(self.objects.put(mask), len(coordinates), next)

    # Participants

    def record_raw(self, name: str, **changes: Any) -> bytes:
        """Build a participant's next record."""
        key = changes.pop("signing_key", None) or self.rovers[name]
        given = {
            **self.succession(("participant", name)),
            "name": name,
            "key": key.public_key,
            "possession": prove_possession(key, self.federation_id, name),
            "clearance": 5,
            "groups": ["rovers"],
        }
        return build_participant(**{**given, **changes})

    def record(self, name: str, *, signers: Sequence[str] | None = None, **changes: Any) -> int:
        """Record a participant, or the next version of its record."""
        return self.publish(ParticipantRecord.payload_type, self.record_raw(name, **changes), signers)

    def join_raw(self, name: str, token: SigningKey, **changes: Any) -> bytes:
        """Build the next invitation of a name for a day; its record will be as `record` makes them."""
        given = {
            **self.succession(("join", name)),
            "expires_us": self.clock.now_us() + DAY_US,
            "name": name,
            "join_key": token.public_key,
            "clearance": 5,
            "groups": ["rovers"],
            "record_expires_us": UNTIL_US,
        }
        return build_join(**{**given, **changes})

    def invite(self, name: str, token: SigningKey | None = None, **changes: Any) -> int:
        """Invite a name; the token is kept in `tokens`."""
        token = token or SigningKey.generate("ed25519")
        index = self.publish(JoinDocument.payload_type, self.join_raw(name, token, **changes))
        self.tokens[name] = token
        return index

    def sign_join(self, name: str, key: SigningKey, token: SigningKey | None = None, **changes: Any) -> Envelope:
        """A record of this key under an invited name, signed with the name's token, or with another."""
        raw = self.record_raw(name, signing_key=key, **changes)
        return sign_envelope(ParticipantRecord.payload_type, raw, [token or self.tokens[name]])

    def join(self, name: str, key: SigningKey | None = None, **changes: Any) -> int:
        """Record a new key under an invited name by its token, and let the rover sign with it from then on."""
        key = key or SigningKey.generate("ed25519")
        index = self.log.order(self.sign_join(name, key, **changes))
        self.rovers[name] = key
        return index

    def key_revocation_raw(self, spki: Digest, spiffe_id: SpiffeId | None = None, **changes: Any) -> bytes:
        """Build the revocation of a TLS key, under the name that it was issued to or another."""
        given = {
            "federation_id": self.federation_id,
            "expires_us": UNTIL_US,
            "spiffe_id": spiffe_id or self.state.issued.get(spki, participant_id("rover-1")),
            "spki_sha256": spki,
        }
        return build_key_revocation(**{**given, **changes})

    def revoke_key(self, spki: Digest, spiffe_id: SpiffeId | None = None, **changes: Any) -> int:
        """Revoke a TLS key; for a participant's or an auditor's one operator is enough."""
        owner = spiffe_id or self.state.issued.get(spki, participant_id("rover-1"))
        raw = self.key_revocation_raw(spki, owner, **changes)
        signers = list(self.operators)[-1:] if owner.role in {"participant", "auditor"} else None
        return self.publish(KeyRevocation.payload_type, raw, signers)

    # Orders

    def order_raw(self, action: OrderAction | str, target: OrderTarget = NO_TARGET, **changes: Any) -> bytes:
        """Build the segment's next order, to be logged within a day."""
        segment = changes.get("segment", SEGMENT)
        given = {
            **self.succession(("order", segment)),
            "expires_us": self.clock.now_us() + 24 * HOUR_US,
            "segment": segment,
            "action": OrderAction(action),
            "target": target,
        }
        return build_order(**{**given, **changes})

    def order(
        self,
        action: OrderAction | str,
        target: OrderTarget = NO_TARGET,
        *,
        signers: Sequence[str] | None = None,
        **changes: Any,
    ) -> int:
        """Give an order."""
        return self.publish(Order.payload_type, self.order_raw(action, target, **changes), signers)

    def halt(self, **changes: Any) -> int:
        """Halt the segment; one operator is enough."""
        return self.order("halt", **{"signers": list(self.operators)[-1:], **changes})

    def resume(self, **changes: Any) -> int:
        """Resume the segment."""
        return self.order("resume", **changes)

    def exclude(self, name: str, round_number: int | None = None, **changes: Any) -> int:
        """Exclude a participant's update of a round, or of the last."""
        current = self.segment.rounds[round_number or self.segment.last_round]
        return self.order("exclude", ExcludeTarget(current.admissions[name].statement_digest), **changes)

    def roll_back(self, model: Digest, **changes: Any) -> int:
        """Go back to a model."""
        return self.order("rollback", RollbackTarget(model), **changes)

    def reaggregate(self, from_round: int, reveals: Sequence[str] | None = None, **changes: Any) -> int:
        """Have rounds derived again; `reveals` are those whom it does reveal, or others."""
        if reveals is None:
            reveals = reveals_of(self.segment, left_out_by(self.state, self.segment, from_round))
        return self.order("reaggregate", ReaggregateTarget(from_round, tuple(reveals)), **changes)

    def accept(self, index: int, code: str, **changes: Any) -> int:
        """Accept a finding."""
        return self.order("accept", AcceptTarget(index, code), **changes)

    def override(self, decision: Digest, decided_class: int, **changes: Any) -> int:
        """Put another class in the place of a decision's."""
        return self.order("override", OverrideTarget(decision, decided_class), **changes)
