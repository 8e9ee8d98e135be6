"""Statements and updates, as the replay knows them: types of its own, small and without behaviour.

Format: proto/README.md, "Statements"; the schemas beside it.

Runs in: verifier.
Trusts: nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sfrl_secure.crypto.envelope import Envelope
from sfrl_secure.ids import Digest, SpiffeId
from sfrl_secure.translog.checkpoint import Checkpoint

STATEMENT_TYPE: Final = "application/vnd.sfrl.statement.v1"
UPDATE_TYPE: Final = "application/vnd.sfrl.update.v1"

LOG_EVIDENCE, OBJECT_EVIDENCE, NO_EVIDENCE = 1, 2, 3
FULL, DEADLINE = 1, 2
CLOSED, ABORTED = 1, 2


@dataclass(frozen=True, slots=True)
class Update:
    """What a participant signs for one round."""

    federation_id: Digest
    segment: str
    participant: str
    key_id: Digest
    round: int
    round_opened: Digest
    base_model: Digest
    payload_sha256: Digest
    payload_bytes: int
    nonzeros: int
    codec: int
    support: str
    values: str
    weight: int


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
    """A TLS key may be used under a SPIFFE ID."""

    spiffe_id: SpiffeId
    spki_sha256: Digest
    not_after_us: int


@dataclass(frozen=True, slots=True)
class RoundOpened:
    """A round begins."""

    round: int
    base_model: Digest
    terms_digest: Digest


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
    evidence: int


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
class ModelPublished:
    """A round's model."""

    round: int
    round_closed: Digest
    base_model: Digest
    aggregate: Digest
    model: Digest
    rule: str
    arithmetic: int


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
