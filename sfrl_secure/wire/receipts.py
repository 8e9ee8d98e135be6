"""Receipts: what a participant keeps, as a value and as bytes.

A parsed receipt proves nothing yet: `audit` verifies it from the trust policy alone. It has one form, so that two
receipts are the same when their bytes are.

Format: proto/README.md, "Receipts"; proto/sfrl/receipt/v1/receipt.proto.

Runs in: gatekeeper, participant, verifier.
Trusts: nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from sfrl_secure.errors import MalformedError
from sfrl_secure.ids import Digest
from sfrl_secure.limits import NOTE_BYTES_MAX, RECEIPT_BYTES_MAX, ROOTS_MAX
from sfrl_secure.translog.entries import LoggedEntry
from sfrl_secure.wire.bodies import take_enum
from sfrl_secure.wire.canonical import (
    build_message,
    check_ascending,
    encode_canonical,
    parse_canonical,
    take_bytes,
    take_digests,
)
from sfrl_secure.wire.entries import PATH_HASHES_MAX, logged_entry_message, logged_entry_of
from sfrl_secure.wire.gen.sfrl.audit.v1 import audit_service_pb2
from sfrl_secure.wire.gen.sfrl.receipt.v1 import receipt_pb2

SERVICES_MAX = 16


class ReceiptKind(IntEnum):
    """What a receipt proves; the numbers of `sfrl.receipt.v1.ReceiptKind`."""

    ACKNOWLEDGED = 1
    WITNESSED = 2
    COUNTED = 3


@dataclass(frozen=True, slots=True)
class CountedProof:
    """What a receipt of kind COUNTED has more.

    Attributes:
        round_closed: the entry that names the counted root.
        index: place of the update in the counted list, from zero.
        path: audit path of the update under the counted root, at most 63 hashes.
        model_published: the entry that names `round_closed`.
    """

    round_closed: LoggedEntry
    index: int
    path: tuple[Digest, ...]
    model_published: LoggedEntry


@dataclass(frozen=True, slots=True)
class Receipt:
    """Proofs that all lead to one checkpoint. `encode_receipt` and `parse_receipt` check the bounds.

    Attributes:
        checkpoint: signed note, at most 128 KiB.
        genesis: entry 0.
        services: the services documents in force when the entries were written, 1 to 16, by rising index.
        participant: the record in force at the admission.
        admitted: the admission.
        counted: present exactly for COUNTED.
        roots: the root documents after genesis, 0 to 64, by rising index, and so by rising version.
        join: the invitation by whose key the record is signed; None where operators signed it.
    """

    kind: ReceiptKind
    checkpoint: bytes
    genesis: LoggedEntry
    services: tuple[LoggedEntry, ...]
    participant: LoggedEntry
    admitted: LoggedEntry
    counted: CountedProof | None = None
    roots: tuple[LoggedEntry, ...] = ()
    join: LoggedEntry | None = None


def encode_receipt(receipt: Receipt) -> bytes:
    """Write a receipt.

    Raises:
        MalformedError: `parse_receipt` would refuse it.
    """
    raw = encode_canonical(receipt_message(receipt))
    if parse_receipt(raw) != receipt:
        raise MalformedError("the receipt does not fit its format")
    return raw


def parse_receipt(raw: bytes) -> Receipt:
    """Take a receipt; nothing in it is verified.

    Raises:
        MalformedError: over 2 MiB, not a receipt in canonical form, or one whose parts do not fit its kind.
    """
    message = parse_canonical(receipt_pb2.Receipt, raw, RECEIPT_BYTES_MAX)
    kind = take_enum(ReceiptKind, message.kind, "the kind of a receipt")
    genesis = logged_entry_of(message.genesis, "genesis")
    if genesis.index != 0:
        raise MalformedError("genesis is entry 0")
    return Receipt(
        kind=kind,
        checkpoint=take_bytes(message.checkpoint, "a checkpoint", NOTE_BYTES_MAX),
        genesis=genesis,
        services=services_of(message.services),
        participant=logged_entry_of(message.participant, "the participant record"),
        admitted=logged_entry_of(message.admitted, "the admission"),
        counted=_counted_of(message, kind),
        roots=roots_of(message.roots),
        join=logged_entry_of(message.join, "the invitation") if message.HasField("join") else None,
    )


def services_of(messages: Sequence[audit_service_pb2.LoggedEntry]) -> tuple[LoggedEntry, ...]:
    """Take the services documents that a proof carries, by rising index.

    Raises:
        MalformedError: none, more than 16, or out of order.
    """
    if not 0 < len(messages) <= SERVICES_MAX:
        raise MalformedError(f"a proof carries 1 to {SERVICES_MAX} services documents")
    services = tuple(logged_entry_of(each, "a services document") for each in messages)
    check_ascending([each.index for each in services], "services documents")
    return services


def roots_of(messages: Sequence[audit_service_pb2.LoggedEntry]) -> tuple[LoggedEntry, ...]:
    """Take the root documents after genesis that a proof carries, by rising index.

    Raises:
        MalformedError: more than 64, or out of order; or genesis among them.
    """
    if len(messages) > ROOTS_MAX:
        raise MalformedError(f"a proof carries at most {ROOTS_MAX} root documents")
    roots = tuple(logged_entry_of(each, "a root document") for each in messages)
    check_ascending([0, *(each.index for each in roots)], "root documents after genesis")
    return roots


def receipt_message(receipt: Receipt) -> receipt_pb2.Receipt:
    """Return the message of a receipt, for an answer that carries it."""

    def fill() -> receipt_pb2.Receipt:
        message = receipt_pb2.Receipt(
            kind=receipt_pb2.ReceiptKind.ValueType(receipt.kind),
            checkpoint=receipt.checkpoint,
            genesis=logged_entry_message(receipt.genesis),
            services=[logged_entry_message(each) for each in receipt.services],
            admitted=logged_entry_message(receipt.admitted),
            participant=logged_entry_message(receipt.participant),
            roots=[logged_entry_message(each) for each in receipt.roots],
        )
        if receipt.join is not None:
            message.join.CopyFrom(logged_entry_message(receipt.join))
        if receipt.counted is not None:
            message.round_closed.CopyFrom(logged_entry_message(receipt.counted.round_closed))
            message.counted_index = receipt.counted.index
            message.counted_path.extend(receipt.counted.path)
            message.model_published.CopyFrom(logged_entry_message(receipt.counted.model_published))
        return message

    return build_message(fill)


def _counted_of(message: receipt_pb2.Receipt, kind: ReceiptKind) -> CountedProof | None:
    if kind is not ReceiptKind.COUNTED:
        if (
            message.HasField("round_closed")
            or message.HasField("model_published")
            or message.counted_index
            or message.counted_path
        ):
            raise MalformedError("only a COUNTED receipt has a round's end and a model")
        return None
    return CountedProof(
        round_closed=logged_entry_of(message.round_closed, "the round's end"),
        index=message.counted_index,
        path=take_digests(message.counted_path, "the counted path", PATH_HASHES_MAX),
        model_published=logged_entry_of(message.model_published, "the model's entry"),
    )
