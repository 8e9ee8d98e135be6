"""Statements of services, as the replay knows them: types of its own, small and without behaviour.

Format: proto/README.md, "Statements"; the schemas beside it.

Runs in: verifier.
Trusts: nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sfrl_secure.crypto.envelope import Envelope
from sfrl_secure.ids import Digest, SpiffeId
from sfrl_secure.replay.words import Decision, IdentityRequest, Update, Withdrawal
from sfrl_secure.translog.checkpoint import Checkpoint

STATEMENT_TYPE: Final = "application/vnd.sfrl.statement.v1"

LOG_EVIDENCE, OBJECT_EVIDENCE, NO_EVIDENCE = 1, 2, 3
FULL, DEADLINE, ORDER = 1, 2, 3
CLOSED, ABORTED = 1, 2


@dataclass(frozen=True, slots=True)
class Facts:
    """Measured in a payload; norm and magnitude in grid units, tensors as positions in the manifest."""

    nonzeros: int
    density_ppm: int
    norm: int
    largest_magnitude: int
    tensors: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class IdentityIssued:
    """A TLS key may be used under a SPIFFE ID.

    Attributes:
        envelope, request: of whom it names, who asks for it.
        renews: SHA-256 of the public key over whose connection it asks; None for a first identity.
    """

    spiffe_id: SpiffeId
    spki_sha256: Digest
    not_after_us: int
    envelope: Envelope
    request: IdentityRequest
    renews: Digest | None


@dataclass(frozen=True, slots=True)
class RoundOpened:
    """A round begins.

    Attributes:
        server_state: what its step stands on; None where there is none, or none yet.
        mask: of its agreed updates; None where its terms have none.
    """

    round: int
    base_model: Digest
    terms_digest: Digest
    server_state: Digest | None
    mask: Digest | None


@dataclass(frozen=True, slots=True)
class UpdateAdmitted:
    """An update may be counted."""

    envelope: Envelope
    update: Update
    facts: Facts
    rule_ids: tuple[str, ...]
    retain_until_us: int


@dataclass(frozen=True, slots=True)
class UpdateRefused:
    """A request of a recorded peer is refused; envelope and update where the participant's signature held."""

    peer: SpiffeId
    envelope: Envelope | None
    update: Update | None
    reason: str
    facts: Facts | None
    rule_ids: tuple[str, ...]
    evidence: int


@dataclass(frozen=True, slots=True)
class UpdateWithdrawn:
    """An update is taken back."""

    envelope: Envelope
    withdrawal: Withdrawal


@dataclass(frozen=True, slots=True)
class ComplaintRecorded:
    """An update was shown that no gatekeeper answered."""

    envelope: Envelope
    update: Update


@dataclass(frozen=True, slots=True)
class DecisionRecorded:
    """A participant decided something with a model."""

    envelope: Envelope
    decision: Decision


@dataclass(frozen=True, slots=True)
class RefusalsCounted:
    """Refusals without an entry of their own; how many."""

    total: int


@dataclass(frozen=True, slots=True)
class Dropped:
    """An admission that a round does not count."""

    participant: str
    statement_digest: Digest
    reason: str


@dataclass(frozen=True, slots=True)
class RoundClosed:
    """A round ends."""

    round: int
    cause: int
    outcome: int
    counted_count: int
    counted_root: Digest
    dropped: tuple[Dropped, ...]


@dataclass(frozen=True, slots=True)
class Cluster:
    """Updates that are alike, as positions in the counted list, and their own model."""

    members: tuple[int, ...]
    model: Digest


@dataclass(frozen=True, slots=True)
class ModelPublished:
    """A round's model, and what else comes of it.

    Attributes:
        supersedes: the entry hash of the model_published whose place it takes; None where it is the round's first.
        server_state: after the step; next_mask, of the round that follows; each None where there is none.
    """

    round: int
    round_closed: Digest
    base_model: Digest
    aggregate: Digest
    model: Digest
    rule: str
    arithmetic: int
    supersedes: Digest | None
    server_state: Digest | None
    next_mask: Digest | None
    clusters: tuple[Cluster, ...]


@dataclass(frozen=True, slots=True)
class ModelsFetched:
    """Who fetched which model."""

    fetches: tuple[tuple[str, Digest], ...]


@dataclass(frozen=True, slots=True)
class TimeAnchored:
    """A checkpoint of the log's past, as the note in it has it; the note's lines are for whoever has a trust policy."""

    note: bytes
    checkpoint: Checkpoint


Body = (
    IdentityIssued
    | RoundOpened
    | UpdateAdmitted
    | UpdateRefused
    | RefusalsCounted
    | RoundClosed
    | ModelPublished
    | ModelsFetched
    | TimeAnchored
    | UpdateWithdrawn
    | ComplaintRecorded
    | DecisionRecorded
)


@dataclass(frozen=True, slots=True)
class Statement:
    """What a service signs: a header and one body."""

    federation_id: Digest
    stream: str
    kind: int
    writer: SpiffeId
    key_id: Digest
    reads_governance: Digest
    reads_segment: Digest
    valid_until_us: int
    body: Body

    @property
    def segment(self) -> str | None:
        """The segment whose stream it is, or None."""
        return self.stream.removeprefix("segment/") if self.stream.startswith("segment/") else None
