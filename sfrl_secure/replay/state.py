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
from sfrl_secure.replay.documents import Content, Document, Participant, Root, Rules, Services
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
        total: sum over the sound admissions, and after the close over the counted ones; None where one is unknown.
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
    total: RunningSum | None
    admissions: dict[str, Admission] = field(default_factory=dict)
    closed: RoundClosed | None = None
    closed_hash: Digest = ZERO_DIGEST
    has_model: bool = False
    overdue_index: int | None = None

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
        identities: SPIFFE ID by public key of every identity that was ever issued.
        streams: next position and last entry hash by stream.
        statements: digests of all statements and documents so far.
        admitted: participant by statement digest of its admitted update.
        refusals: single refusals so far by peer, stream, reason and last round of the segment.
    """

    root: Root | None = None
    federation_id: Digest = ZERO_DIGEST
    in_force: dict[tuple[str, str], Document] = field(default_factory=dict)
    owners: dict[Digest, tuple[str, str]] = field(default_factory=dict)
    rule_set: RuleSet | None = None
    governance_head: Digest = ZERO_DIGEST
    identities: dict[Digest, SpiffeId] = field(default_factory=dict)
    segments: dict[str, Segment] = field(default_factory=dict)
    streams: dict[str, tuple[int, Digest]] = field(default_factory=dict)
    statements: set[Digest] = field(default_factory=set)
    admitted: dict[Digest, str] = field(default_factory=dict)
    refusals: dict[tuple[str, str, str, int], int] = field(default_factory=dict)

    def _content(self, kind: str, subject: str = "") -> tuple[Content, int] | None:
        document = self.in_force.get((kind, subject))
        return None if document is None else (document.content, document.expires_us)

    def services(self) -> tuple[Services, int] | None:
        """The services document in force and its expiry."""
        found = self._content("services")
        return found if found is not None and isinstance(found[0], Services) else None  # type: ignore[return-value] # narrowed

    def rules(self, now_us: int) -> RuleSet | None:
        """The rules in force, unless they have expired."""
        found = self._content("rules")
        return self.rule_set if found is not None and isinstance(found[0], Rules) and now_us < found[1] else None

    def terms(self, segment: str) -> Terms | None:
        """The segment's terms in force, expired or not."""
        found = self._content("segment-terms", segment)
        return found[0] if found is not None and isinstance(found[0], Terms) else None

    def participant(self, name: str) -> Participant | None:
        """The participant's record in force, active or not."""
        found = self._content("participant", name)
        return found[0] if found is not None and isinstance(found[0], Participant) else None

    def is_active(self, name: str, now_us: int) -> bool:
        """Whether the participant may take part."""
        found = self._content("participant", name)
        return found is not None and isinstance(found[0], Participant) and found[0].state == "active" and now_us < found[1]
