"""What a rover and an auditor of the world have signed: envelopes that services quote or that stand in requests."""

from __future__ import annotations

from sfrl_secure.crypto.envelope import Envelope, sign_envelope
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.governance.statements import (
    DECISION_TYPE,
    IDENTITY_REQUEST_TYPE,
    OBJECT_REQUEST_TYPE,
    UPDATE_TYPE,
    WITHDRAWAL_TYPE,
    Attribution,
    DecisionStatement,
    IdentityRequest,
    ObjectRequest,
    PayloadFormat,
    UpdateStatement,
    WithdrawalStatement,
)
from sfrl_secure.ids import Digest, SpiffeId, parse_spiffe_id, sha256
from sfrl_secure.wire import participants
from sfrl_secure.wire.statements import encode_update

ROVER: SpiffeId = parse_spiffe_id("spiffe://sfrl.example/participant/rover-7")
AUDITOR: SpiffeId = parse_spiffe_id("spiffe://sfrl.example/auditor/lea")
FEDERATION = sha256(b"federation")
OBJECT = sha256(b"object")


def update_of(key_id: Digest, now_us: int) -> UpdateStatement:
    """An update with every field set."""
    return UpdateStatement(
        FEDERATION, "rocks", ROVER.name, key_id, 3, sha256(b"round"), sha256(b"base"), sha256(b"payload"),
        sha256(b"root"), 1_000, 50, PayloadFormat(2, "free", "fp32"), 40, now_us, 2_048,
    )  # fmt: skip


def withdrawal_of(key_id: Digest, now_us: int) -> WithdrawalStatement:
    """A withdrawal of some update."""
    return WithdrawalStatement(
        FEDERATION, "rocks", ROVER.name, key_id, 3, sha256(b"round"), sha256(b"update"), now_us
    )  # fmt: skip


def decision_of(key_id: Digest, now_us: int) -> DecisionStatement:
    """A decision with latent dimensions and shares of either sign."""
    shares = (Attribution(0, 0), Attribution(3, -250_000), Attribution(9, 900_000))
    return DecisionStatement(
        FEDERATION, "rocks", ROVER.name, key_id, 9, sha256(b"input"), sha256(b"model"), 4, 930_000, (1, 2, 130, 70_000),
        shares, now_us,
    )  # fmt: skip


def identity_request_of(key_id: Digest, now_us: int) -> IdentityRequest:
    """A request for a TLS identity."""
    return IdentityRequest(FEDERATION, ROVER, key_id, sha256(b"key"), now_us)


def object_request_of(key_id: Digest, now_us: int) -> ObjectRequest:
    """A request for an object."""
    return ObjectRequest(FEDERATION, AUDITOR, key_id, OBJECT, now_us)


def quotes(key: SigningKey, now_us: int) -> dict[str, Envelope]:
    """Each of them signed, by the name in its payload type."""
    key_id = key.public_key.key_id
    raws = {
        UPDATE_TYPE: encode_update(update_of(key_id, now_us)),
        WITHDRAWAL_TYPE: participants.encode_withdrawal(withdrawal_of(key_id, now_us)),
        DECISION_TYPE: participants.encode_decision(decision_of(key_id, now_us)),
        IDENTITY_REQUEST_TYPE: participants.encode_identity_request(identity_request_of(key_id, now_us)),
        OBJECT_REQUEST_TYPE: participants.encode_object_request(object_request_of(key_id, now_us)),
    }
    signed = {payload_type: sign_envelope(payload_type, raw, [key]) for payload_type, raw in raws.items()}
    return {payload_type.removeprefix("application/vnd.sfrl.")[:-3]: each for payload_type, each in signed.items()}
