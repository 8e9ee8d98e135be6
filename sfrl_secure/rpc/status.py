"""Which error is which gRPC status and which exit code: one table, read in both directions.

A refusal travels as a status and an `ErrorDetail` in the trailing metadata, or as a `Refusal` with the same fields
where it is one of many answers; the caller gets a typed error back. An error that is none of ours becomes INTERNAL
without a word: our own log has the rest.

Format: proto/README.md, "Admission" for the reasons; DESIGN 9 for the exit codes.

Runs in: everything that serves or calls.
Trusts: nothing; a peer's detail is parsed and bounded, and decides nothing but which error is raised.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

import grpc

from sfrl_secure.errors import (
    ClosedError,
    ConflictError,
    ConsistencyError,
    DeniedError,
    DigestError,
    ExhaustedError,
    InclusionError,
    MalformedError,
    MissingEvidenceError,
    NotFoundError,
    PayloadError,
    RoundStateError,
    SfrlError,
    SignatureError,
    UnavailableError,
    UncertainStateError,
    VerificationError,
)
from sfrl_secure.wire.append_entries import Refusal
from sfrl_secure.wire.error_detail import ErrorDetail, encode_error_detail, parse_error_detail

ERROR_METADATA = "sfrl-error-bin"

_Code = grpc.StatusCode

TABLE: dict[type[SfrlError], tuple[grpc.StatusCode, int]] = {
    SfrlError: (_Code.INTERNAL, 2),
    MalformedError: (_Code.INVALID_ARGUMENT, 2),
    PayloadError: (_Code.INVALID_ARGUMENT, 2),
    VerificationError: (_Code.DATA_LOSS, 1),
    SignatureError: (_Code.DATA_LOSS, 1),
    InclusionError: (_Code.DATA_LOSS, 1),
    ConsistencyError: (_Code.DATA_LOSS, 1),
    DigestError: (_Code.DATA_LOSS, 1),
    DeniedError: (_Code.PERMISSION_DENIED, 3),
    RoundStateError: (_Code.FAILED_PRECONDITION, 3),
    ConflictError: (_Code.ABORTED, 3),
    ExhaustedError: (_Code.RESOURCE_EXHAUSTED, 4),
    UnavailableError: (_Code.UNAVAILABLE, 4),
    ClosedError: (_Code.UNAVAILABLE, 4),
    NotFoundError: (_Code.NOT_FOUND, 2),
    MissingEvidenceError: (_Code.OUT_OF_RANGE, 2),
    UncertainStateError: (_Code.UNAVAILABLE, 4),
}
"""Status and exit code of each class: 1 does not hold, 2 wrong use or missing evidence, 3 refused, 4 not reachable."""

REASONS: dict[str, grpc.StatusCode] = {
    # The door: who are you.
    **dict.fromkeys(
        (
            "transport_version",
            "transport_group",
            "certificate",
            "unknown_identity",
            "bad_signature",
            "request_stale",
            "unknown_name",
        ),
        _Code.UNAUTHENTICATED,
    ),
    # Known, and not allowed.
    **dict.fromkeys(
        (
            "role",
            "participant_inactive",
            "wrong_peer",
            "wrong_name",
            "not_granted",
            "policy_denied",
            "policy_error",
            "tensor_not_allowed",
            "threshold",
            "no_invitation",
            "record_differs",
        ),
        _Code.PERMISSION_DENIED,
    ),
    # The state is not the one that the request needs.
    **dict.fromkeys(
        (
            "wrong_federation",
            "round_not_open",
            "wrong_prefix",
            "wrong_base",
            "deadline",
            "round_full",
            "version",
            "previous",
            "expired",
            "model_changed",
            "revoked",
            "halted",
            "invitation_expired",
            "not_issuing",
        ),
        _Code.FAILED_PRECONDITION,
    ),
    "unknown_segment": _Code.NOT_FOUND,
    **dict.fromkeys(
        (
            "replayed",
            "duplicate",
            "request_used",
            "invitation_spent",
            "not_renewed",
            "key_reused",
            "already_issued",
        ),
        _Code.ALREADY_EXISTS,
    ),
    # The caller's own quota; what a service has too much of for now is an ExhaustedError, without a reason.
    **dict.fromkeys(("quota_updates", "quota_bytes", "identity_rate"), _Code.RESOURCE_EXHAUSTED),
    # The request itself will never do.
    **dict.fromkeys(
        (
            "malformed",
            "suite_not_allowed",
            "format_not_allowed",
            "payload_too_large",
            "too_dense",
            "weight_limit",
            "digest_mismatch",
            "payload_format",
            "payload_shape",
            "payload_declared",
            "payload_length",
            "payload_digest",
            "not_canonical",
            "out_of_range",
            "not_finite",
            "off_grid",
            "magnitude",
            "norm_limit",
            "magnitude_limit",
            "too_few_coordinates",
            "noise_too_small",
            "leak_coordinates",
            "leak_rows",
            "leak_labels",
            "leak_noise",
            "csr",
        ),
        _Code.INVALID_ARGUMENT,
    ),
}
"""Status of each reason code; one that is not here has its error's class's."""

_CLASS_OF_CODE: dict[grpc.StatusCode, type[SfrlError]] = {
    _Code.INVALID_ARGUMENT: MalformedError,
    _Code.DATA_LOSS: VerificationError,
    _Code.ABORTED: ConflictError,
    _Code.RESOURCE_EXHAUSTED: ExhaustedError,
    _Code.NOT_FOUND: NotFoundError,
    _Code.OUT_OF_RANGE: MissingEvidenceError,
    _Code.UNAVAILABLE: UnavailableError,
    _Code.DEADLINE_EXCEEDED: UnavailableError,
    _Code.CANCELLED: UnavailableError,
}
# Codes with which a service refuses: without a detail of ours, gRPC or something between refused.
_REFUSING = frozenset(
    {_Code.UNAUTHENTICATED, _Code.PERMISSION_DENIED, _Code.FAILED_PRECONDITION, _Code.ALREADY_EXISTS}
)
_CODE_OF_NUMBER: dict[int, grpc.StatusCode] = {code.value[0]: code for code in _Code}


def status_of(error: BaseException) -> grpc.StatusCode:
    """Return the gRPC status of an error; INTERNAL for what is not ours."""
    if isinstance(error, DeniedError) and error.reason in REASONS:
        return REASONS[error.reason]
    return _row_of(error)[0]


def exit_code_of(error: BaseException) -> int:
    """Return the exit code with which a command ends on an error."""
    return _row_of(error)[1]


def detail_of(error: BaseException) -> ErrorDetail:
    """Return what the caller is told: nothing about errors that are not ours, or that mean INTERNAL."""
    if not isinstance(error, SfrlError) or status_of(error) is _Code.INTERNAL:
        return ErrorDetail()
    if isinstance(error, UncertainStateError):  # our state is nobody else's business
        return ErrorDetail(message="the service stops")
    return ErrorDetail(
        reason=error.reason if isinstance(error, (DeniedError, ConflictError)) else "",
        message=str(error),
        entry_index=error.entry_index if isinstance(error, DeniedError) else None,
        log_size=error.log_size if isinstance(error, ConflictError) else 0,
    )


def abort_with(context: grpc.ServicerContext, error: BaseException) -> NoReturn:
    """End the call with the error's status and detail. Only the outermost interceptor calls this; handlers raise."""
    detail = detail_of(error)
    context.set_trailing_metadata(((ERROR_METADATA, encode_error_detail(detail)),))
    context.abort(status_of(error), detail.message)


def error_of(failed: grpc.RpcError, address: str = "") -> SfrlError:
    """Return the typed error that a failed call stands for.

    Args:
        address: of whom was called, which the error names where nobody answered.

    The detail comes from the peer that the channel authenticated. It names the refusal; it proves nothing.
    """
    code, detail = failed.code() if isinstance(failed, grpc.Call) else _Code.UNKNOWN, _detail_in(failed)
    if address and code in (_Code.UNAVAILABLE, _Code.DEADLINE_EXCEEDED) and detail == ErrorDetail():
        return UnavailableError(
            f"nobody answers at {address} ({code.name}): check that the service runs and that the address is right, "
            "then try again"
        )
    return _error_from(code, detail)


def refusal_of(error: SfrlError) -> Refusal:
    """Return what is told of one envelope of many: what `abort_with` would tell of a call."""
    return Refusal(status_of(error).value[0], detail_of(error))


def error_of_refusal(refusal: Refusal) -> SfrlError:
    """Return the typed error that a refusal stands for; as for `error_of`, it proves nothing."""
    return _error_from(_CODE_OF_NUMBER[refusal.code], refusal.detail)


def _error_from(code: grpc.StatusCode, detail: ErrorDetail) -> SfrlError:
    if code is _Code.ABORTED:
        return ConflictError(
            detail.message or "the log has moved on", reason=detail.reason or "stale", log_size=detail.log_size
        )
    if detail.reason:
        denied = RoundStateError if code is _Code.FAILED_PRECONDITION else DeniedError
        return denied(detail.reason, detail.message or "refused", entry_index=detail.entry_index)
    if code in _REFUSING:
        return DeniedError("refused", "the service refused the call and gave no reason")
    kind = _CLASS_OF_CODE.get(code, SfrlError)
    # What gRPC says in details() can hold addresses and foreign text: the name of the code is enough.
    return kind(detail.message or f"the call ended with {code.name}")


def _row_of(error: BaseException) -> tuple[grpc.StatusCode, int]:
    for kind in type(error).__mro__:
        if kind in TABLE:
            return TABLE[kind]
    return TABLE[SfrlError]


def _detail_in(failed: grpc.RpcError) -> ErrorDetail:
    metadata: Iterable[tuple[str, str | bytes]] = ()
    if isinstance(failed, grpc.Call):
        metadata = failed.trailing_metadata() or ()
    for key, value in metadata:
        if key == ERROR_METADATA and isinstance(value, bytes):
            try:
                return parse_error_detail(value)
            except MalformedError:
                return ErrorDetail()
    return ErrorDetail()
