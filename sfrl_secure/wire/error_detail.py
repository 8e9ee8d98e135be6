"""Why a call was refused, as it travels in the trailing metadata `sfrl-error-bin`, or for one entry of many.

The sentence quotes limits of ours and is cut to a length that metadata carries; it is for people. Programs read the
reason.

Format: proto/sfrl/gatekeeper/v1/gatekeeper_service.proto, "ErrorDetail"; proto/README.md, "Admission".

Runs in: everything that serves or calls.
Trusts: nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from sfrl_secure.wire.canonical import build_message, encode_canonical, parse_message, take_reason, take_text
from sfrl_secure.wire.gen.sfrl.audit.v1 import audit_service_pb2
from sfrl_secure.wire.gen.sfrl.gatekeeper.v1 import gatekeeper_service_pb2

DETAIL_BYTES_MAX = 1_024
MESSAGE_CHARACTERS_MAX = 500


@dataclass(frozen=True, slots=True)
class ErrorDetail:
    """Why a call was refused.

    Attributes:
        reason: code, or empty where the refusal is no decision.
        message: one sentence, may be empty.
        entry_index: leaf index of the refusal's entry; None where there is none.
        log_size: on a conflict, the size up to which the caller should read; else 0.
    """

    reason: str = ""
    message: str = ""
    entry_index: int | None = None
    log_size: int = 0


def encode_error_detail(detail: ErrorDetail) -> bytes:
    """Write a detail; a long sentence is cut, and what is not printable ASCII in it becomes `?`."""
    return encode_canonical(
        build_message(
            lambda: gatekeeper_service_pb2.ErrorDetail(
                reason=detail.reason,
                message=printable_message(detail.message),
                entry_index_plus_one=0 if detail.entry_index is None else detail.entry_index + 1,
                log_size=detail.log_size,
            )
        )
    )


def parse_error_detail(raw: bytes) -> ErrorDetail:
    """Take a detail.

    Raises:
        MalformedError: too long, or not of that form.
    """
    return error_detail_of(parse_message(gatekeeper_service_pb2.ErrorDetail, raw, DETAIL_BYTES_MAX))


def error_detail_of(message: gatekeeper_service_pb2.ErrorDetail | audit_service_pb2.Refusal) -> ErrorDetail:
    """Take the detail that stands in a message.

    Raises:
        MalformedError: not a reason code, or not a sentence.
    """
    return ErrorDetail(
        reason=take_reason(message.reason) if message.reason else "",
        message=take_text(message.message, "a message", MESSAGE_CHARACTERS_MAX) if message.message else "",
        entry_index=message.entry_index_plus_one - 1 if message.entry_index_plus_one else None,
        log_size=message.log_size,
    )


def printable_message(message: str) -> str:
    """Return a sentence as it travels: printable ASCII, at most `MESSAGE_CHARACTERS_MAX` characters."""
    if not (message.isascii() and message.isprintable()):
        message = "".join(each if each.isascii() and each.isprintable() else "?" for each in message)
    return message[:MESSAGE_CHARACTERS_MAX]
