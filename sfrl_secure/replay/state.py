"""What the effective entries so far amount to.

Format: proto/README.md, "Entry", "When a document has effect", "Statements"; of a segment, see `segments`.

Runs in: verifier.
Trusts: the replay, which alone changes it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from sfrl_secure.ids import ZERO_DIGEST, Digest, SpiffeId
from sfrl_secure.replay.documents import Document, Participant, Root, Services
from sfrl_secure.replay.interventions import Join
from sfrl_secure.replay.issued import Issued
from sfrl_secure.replay.policy import RuleSet
from sfrl_secure.replay.segments import Segment
from sfrl_secure.replay.terms import Terms


@dataclass(frozen=True, slots=True)
class Identity:
    """A TLS public key, under whose name it opens the door, and until when; by the newest identity_issued for it.

    Attributes:
        requested_us: when the request was made that had effect last; a later one has to be later.
    """

    spiffe_id: SpiffeId
    not_after_us: int
    requested_us: int


@dataclass(slots=True)
class DecisionOnRecord:
    """A participant's decision, and the class that operators gave it instead."""

    segment: str
    participant: str
    predicted_class: int
    overridden: int | None = None


@dataclass(slots=True)
class State:
    """The federation after a prefix of its log.

    Attributes:
        in_force: last effective version by series; `since`, the leaf index of each.
        owners: role and name that each key id serves.
        rule_set: the rules in force, parsed.
        identities: by public key, every identity that was ever issued; `issued`, when and for which, by SPIFFE ID.
        forgotten_keys: public keys whose name stood no more since they were issued.
        revoked_keys: public keys that open nothing; `spent_joins`, digests of join documents that were used.
        streams: next position and last entry hash by stream.
        statements: digests of all statements and documents so far.
        admitted: segment and participant by statement digest of the admitted update.
        refusals: single refusals so far by peer, stream, reason and last round of the segment.
        refused_updates: statement digests of updates that their own participant was refused.
        decisions: by statement digest.
        accepted: index and code of findings that orders accept, with the order's index.
        anchored_size: of the checkpoint in the last effective time_anchored entry.
    """

    root: Root | None = None
    federation_id: Digest = ZERO_DIGEST
    in_force: dict[tuple[str, str], Document] = field(default_factory=dict)
    since: dict[tuple[str, str], int] = field(default_factory=dict)
    owners: dict[Digest, tuple[str, str]] = field(default_factory=dict)
    rule_set: RuleSet | None = None
    governance_head: Digest = ZERO_DIGEST
    identities: dict[Digest, Identity] = field(default_factory=dict)
    issued: dict[SpiffeId, Issued] = field(default_factory=dict)
    forgotten_keys: set[Digest] = field(default_factory=set)
    revoked_keys: set[Digest] = field(default_factory=set)
    spent_joins: set[Digest] = field(default_factory=set)
    segments: dict[str, Segment] = field(default_factory=dict)
    streams: dict[str, tuple[int, Digest]] = field(default_factory=dict)
    statements: set[Digest] = field(default_factory=set)
    admitted: dict[Digest, tuple[str, str]] = field(default_factory=dict)
    refusals: Counter[tuple[str, str, str, int]] = field(default_factory=Counter)
    refused_updates: set[Digest] = field(default_factory=set)
    decisions: dict[Digest, DecisionOnRecord] = field(default_factory=dict)
    accepted: dict[tuple[int, str], int] = field(default_factory=dict)
    anchored_size: int = 0

    def services(self) -> tuple[Services, int] | None:
        """The services document in force and its expiry."""
        document = self.in_force.get(("services", ""))
        if document is None or not isinstance(document.content, Services):
            return None
        return document.content, document.expires_us

    def rules(self, now_us: int) -> RuleSet | None:
        """The rules in force, unless they have expired."""
        document = self.in_force.get(("rules", ""))
        return self.rule_set if document is not None and now_us < document.expires_us else None

    def terms(self, segment: str) -> Terms | None:
        """The segment's terms in force, expired or not."""
        document = self.in_force.get(("segment-terms", segment))
        return document.content if document is not None and isinstance(document.content, Terms) else None

    def participant(self, name: str) -> Participant | None:
        """The participant's record in force, active or not."""
        document = self.in_force.get(("participant", name))
        return document.content if document is not None and isinstance(document.content, Participant) else None

    def is_active(self, name: str, now_us: int) -> bool:
        """Whether the participant may take part."""
        record = self.participant(name)
        if record is None or record.state != "active":
            return False
        return now_us < self.in_force["participant", name].expires_us

    def is_revoked(self, name: str) -> bool:
        """Whether the participant's record in force is revoked."""
        record = self.participant(name)
        return record is not None and record.state == "revoked"

    def join(self, name: str) -> tuple[Join, Document] | None:
        """The invitation of that name in force, expired or spent or not."""
        document = self.in_force.get(("join", name))
        return (document.content, document) if document is not None and isinstance(document.content, Join) else None
