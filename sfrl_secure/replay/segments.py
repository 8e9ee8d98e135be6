"""What the effective entries of one segment amount to: its rounds, its models, and how they came about.

Format: proto/README.md, "Statements", "Orders", "Re-aggregation".

Runs in: verifier.
Trusts: the replay, which alone changes it.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from enum import Enum

from sfrl_secure.ids import ZERO_DIGEST, Digest
from sfrl_secure.replay.payload_codes import Integers
from sfrl_secure.replay.payload_header import Mask
from sfrl_secure.replay.quota import Usage
from sfrl_secure.replay.statements import CLOSED, RoundClosed
from sfrl_secure.replay.terms import Terms
from sfrl_secure.replay.words import Update


class Verdict(Enum):
    """What the payload says of an admission."""

    SOUND = "sound"
    DEFECTIVE = "defective"
    UNKNOWN = "unknown"  # the payload is not there


@dataclass(frozen=True, slots=True)
class Admission:
    """An effective admission, or a defective one: both count towards the cohort.

    Attributes:
        norm: as the entry says that it was measured.
        leaf_ends: of each leaf of the payload, the coordinate behind its last one; None where the payload is not there
            or is none.
    """

    index: int
    statement_digest: Digest
    update: Update
    verdict: Verdict
    norm: int
    leaf_ends: Integers | None = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Complaint:
    """An update that was shown, while its round was open, because no gatekeeper answered it."""

    index: int
    log_time_us: int
    statement_digest: Digest


@dataclass(slots=True)
class Step:
    """One round that led to the newest model: what is needed to derive its model again.

    Attributes:
        published: entry hash of the model_published that it stands by; `index` is that entry's.
        server_state, next_mask: what that entry names.
        opened: entry hash of its round_opened; `mask`, what the round began with.
        closed_hash: entry hash of its round_closed.
        counted: the counted list, sorted by participant.
        left_out: statement digests that the model was last derived without; `leaving_out`, those of the order in force.
    """

    round: int
    model: Digest
    base: Digest
    published: Digest
    index: int
    server_state: Digest | None
    next_mask: Digest | None
    opened: Digest
    mask: Digest | None
    closed_hash: Digest
    terms: Terms
    counted: tuple[Admission, ...]
    left_out: frozenset[Digest] = frozenset()
    leaving_out: frozenset[Digest] = frozenset()


@dataclass(slots=True)
class Round:
    """The last round of a segment.

    Attributes:
        opened: entry hash of round_opened.
        terms: frozen at the opening.
        admissions: by participant.
        server_state: what its step stands on; None where there is none.
        mask: digest of the mask of agreed updates; None where the terms have none.
        mask_object: the mask; None where there is none, or its object is not there.
        withdrawn: participants that took their update back.
        complaints: by participant.
        is_ended: an order ended it while it was open; `is_abandoned`, while it waited for its model.
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
    server_state: Digest | None
    mask: Digest | None
    mask_object: Mask | None
    admissions: dict[str, Admission] = field(default_factory=dict)
    withdrawn: set[str] = field(default_factory=set)
    complaints: dict[str, Complaint] = field(default_factory=dict)
    is_ended: bool = False
    is_abandoned: bool = False
    closed: RoundClosed | None = None
    closed_hash: Digest = ZERO_DIGEST
    has_model: bool = False
    overdue_index: int | None = None

    def release(self) -> None:
        """Let the mask go: it may be as large as the model."""
        self.mask_object = None

    @property
    def is_full(self) -> bool:
        """The cohort is complete."""
        return len(self.admissions) >= self.terms.cohort_max

    @property
    def awaits_model(self) -> bool:
        """It counted enough updates, its model is not published, and no order says that it never will be."""
        is_closed = self.closed is not None and self.closed.outcome == CLOSED
        return is_closed and not self.has_model and not self.is_abandoned

    @property
    def counted(self) -> tuple[Admission, ...]:
        """The counted list of a closed round, sorted by participant."""
        assert self.closed is not None, "the round is closed"
        gone = {each.participant for each in self.closed.dropped}
        return tuple(self.admissions[name] for name in sorted(self.admissions.keys() - gone))


@dataclass(slots=True)
class Segment:
    """A segment.

    Attributes:
        initial: digest of the model before round 1.
        model: digest of the newest model; `values` its integers, None where they are not known.
        models: every model that may be fetched, those of clusters among them.
        no_models: names under which no model of the terms lies, though terms or a publication said so.
        control_head: entry hash of the last round_opened, round_closed or model_published.
        lineage: the steps that led to the newest model; `due`, those of them that are to be derived again, in order.
        excluded: statement digests of updates that orders exclude.
        usage: what each participant had admitted.
        record_seqs: each participant's last decision.
    """

    initial: Digest
    model: Digest
    values: Integers | None
    models: set[Digest]
    no_models: set[Digest] = field(default_factory=set)
    control_head: Digest = ZERO_DIGEST
    round: Round | None = None
    is_halted: bool = False
    lineage: list[Step] = field(default_factory=list)
    due: list[Step] = field(default_factory=list)
    excluded: set[Digest] = field(default_factory=set)
    usage: dict[str, Usage] = field(default_factory=dict)
    record_seqs: dict[str, int] = field(default_factory=dict)

    @property
    def open_round(self) -> Round | None:
        """The open round."""
        return self.round if self.round is not None and self.round.closed is None else None

    @property
    def newest(self) -> Step | None:
        """The newest step of the lineage."""
        return self.lineage[-1] if self.lineage else None

    @property
    def before_due(self) -> Step | None:
        """The step before the first that is due, as it is by now; None where that is the first of the lineage."""
        at = bisect_left(self.lineage, self.due[0].round, key=lambda step: step.round)
        return self.lineage[at - 1] if at else None

    @property
    def last_round(self) -> int:
        """Number of the last round, 0 before the first."""
        return 0 if self.round is None else self.round.number
