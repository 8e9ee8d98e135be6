"""What participants, and whoever wants a TLS identity, sign: types of the replay's own, small and without behaviour.

Such a statement is no entry of its own. It stands in its envelope inside the statement of the service that took it.

Format: proto/README.md, "What participants sign", "Enrolment"; the schemas beside it.

Runs in: verifier.
Trusts: nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sfrl_secure.ids import Digest, SpiffeId

UPDATE_TYPE: Final = "application/vnd.sfrl.update.v1"
WITHDRAWAL_TYPE: Final = "application/vnd.sfrl.withdrawal.v1"
DECISION_TYPE: Final = "application/vnd.sfrl.decision.v1"
IDENTITY_REQUEST_TYPE: Final = "application/vnd.sfrl.identity-request.v1"


@dataclass(frozen=True, slots=True)
class Update:
    """What a participant signs for one round.

    Attributes:
        payload_root: of the payload's leaves, so that a part can be checked alone.
        nonzeros: values that the payload carries.
        noise_std: in grid units, 0 where it claims no noise.
    """

    federation_id: Digest
    segment: str
    participant: str
    key_id: Digest
    round: int
    round_opened: Digest
    base_model: Digest
    payload_sha256: Digest
    payload_root: Digest
    payload_bytes: int
    nonzeros: int
    codec: int
    support: str
    values: str
    weight: int
    noise_std: int


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """What a participant signs to take its update back; `update` is the statement digest of it."""

    federation_id: Digest
    segment: str
    participant: str
    key_id: Digest
    round: int
    round_opened: Digest
    update: Digest


@dataclass(frozen=True, slots=True)
class Decision:
    """What a participant signs about a decision that it made; whatever decides nothing here is read and let go."""

    federation_id: Digest
    segment: str
    participant: str
    key_id: Digest
    record_seq: int
    model: Digest
    predicted_class: int


@dataclass(frozen=True, slots=True)
class IdentityRequest:
    """What somebody signs, with the key that governance knows of him, who wants a TLS identity."""

    federation_id: Digest
    spiffe_id: SpiffeId
    key_id: Digest
    spki_sha256: Digest
    created_us: int


ByParticipant = Update | Withdrawal | Decision
