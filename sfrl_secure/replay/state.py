"""What the effective entries so far amount to.

Format: proto/README.md, "Entry", "When a document has effect", "Statements".

Runs in: verifier.
Trusts: the replay, which alone changes it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from sfrl_secure.ids import ZERO_DIGEST, Digest, SpiffeId
from sfrl_secure.replay.arithmetic import Integers, RunningSum
from sfrl_secure.replay.documents import Document, Participant, Root, Services
from sfrl_secure.replay.policy import RuleSet
from sfrl_secure.replay.statements import CLOSED, RoundClosed, Update
from sfrl_secure.replay.terms import Terms


class Verdict(Enum):
    """What the payload says of an admission."""

    SOUND = "sound"
    DEFECTIVE = "defective"
    UNKNOWN = "unknown"  # the payload is not there


@dataclass(frozen=True, slots=True)
class Admission:
    """An effective admission, or a defective one: both count towards the cohort."""

    index: int
    statement_digest: Digest
    update: Update
    verdict: Verdict


@dataclass(slots=True)
class Round:
    """The last round of a segment.

    Attributes:
        opened: entry hash of round_opened.
        terms: frozen at the opening.
        admissions: by participant.
        total: sum over the sound admissions, after the close over those that are counted.
        is_summed: false once an update is counted whose payload is not there.
        closed: the close, and its entry hash.
        has_model: its model is published.
        overdue_index: first entry of the segment long after the deadline, while the round was open.
    """

    number: int
    opened: Digest
    opened_index: int
    deadline_us: int
    terms: Terms
    base_model: Digest
    total: RunningSum
    is_summed: bool = True
    admissions: dict[str, Admission] = field(default_factory=dict)
    closed: RoundClosed | None = None
    closed_hash: Digest = ZERO_DIGEST
    has_model: bool = False
    overdue_index: int | None = None

    def release(self) -> None:
        """Let the sum go: it is as large as the model."""
        self.total = RunningSum(0)

    @property
    def is_full(self) -> bool:
        """The cohort is complete."""
        return len(self.admissions) >= self.terms.cohort_max

    @property
    def awaits_model(self) -> bool:
        """It counted enough updates, and its model is not published."""
        return self.closed is not None and self.closed.outcome == CLOSED and not self.has_model


@dataclass(slots=True)
class Segment:
    """A segment.

    Attributes:
        model: digest of the newest model; `values` its integers, None where they are not known.
        models: every model that may be fetched.
        control_head: entry hash of the last round_opened, round_closed or model_published.
    """

    model: Digest
    values: Integers | None
    models: set[Digest]
    control_head: Digest = ZERO_DIGEST
    round: Round | None = None

    @property
    def open_round(self) -> Round | None:
        """The open round."""
        return self.round if self.round is not None and self.round.closed is None else None

    @property
    def last_round(self) -> int:
        """Number of the last round, 0 before the first."""
        return 0 if self.round is None else self.round.number


@dataclass(slots=True)
class State:
    """The federation after a prefix of its log.

    Attributes:
        in_force: last effective version by series.
        owners: role and name that each key id serves.
        rule_set: the rules in force, parsed.
        identities: SPIFFE ID by public key of every identity that was ever issued; `peers`, those SPIFFE IDs.
        streams: next position and last entry hash by stream.
        statements: digests of all statements and documents so far.
        admitted: participant by statement digest of its admitted update.
        refusals: single refusals so far by peer, stream, reason and last round of the segment.
        anchored_size: of the checkpoint in the last effective time_anchored entry.
    """

    root: Root | None = None
    federation_id: Digest = ZERO_DIGEST
    in_force: dict[tuple[str, str], Document] = field(default_factory=dict)
    owners: dict[Digest, tuple[str, str]] = field(default_factory=dict)
    rule_set: RuleSet | None = None
    governance_head: Digest = ZERO_DIGEST
    identities: dict[Digest, SpiffeId] = field(default_factory=dict)
    peers: set[SpiffeId] = field(default_factory=set)
    segments: dict[str, Segment] = field(default_factory=dict)
    streams: dict[str, tuple[int, Digest]] = field(default_factory=dict)
    statements: set[Digest] = field(default_factory=set)
    admitted: dict[Digest, str] = field(default_factory=dict)
    refusals: dict[tuple[str, str, str, int], int] = field(default_factory=dict)
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
