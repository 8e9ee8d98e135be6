from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from sfrl_secure import errors
from sfrl_secure.errors import (
    ConflictError,
    DeniedError,
    MalformedError,
    PayloadError,
    RoundStateError,
    SfrlError,
    SignatureError,
    UnavailableError,
    UncertainStateError,
    VerificationError,
)
from sfrl_secure.rpc.status import (
    ERROR_METADATA,
    REASONS,
    TABLE,
    abort_with,
    detail_of,
    error_of,
    error_of_refusal,
    exit_code_of,
    refusal_of,
    status_of,
)
from sfrl_secure.wire.error_detail import ErrorDetail, encode_error_detail

README = Path(__file__).parents[3] / "proto" / "README.md"


def subclasses(kind: type[SfrlError]) -> Iterator[type[SfrlError]]:
    for each in kind.__subclasses__():
        yield each
        yield from subclasses(each)


def test_every_error_of_ours_has_a_row_of_its_own() -> None:
    defined = {kind for kind in (SfrlError, *subclasses(SfrlError)) if kind.__module__ == errors.__name__}
    assert defined == set(TABLE)
    assert {exit_code for _, exit_code in TABLE.values()} == {1, 2, 3, 4}


def test_a_subclass_elsewhere_has_its_parents_row() -> None:
    class OtherError(SignatureError):
        pass

    assert status_of(OtherError("x")) is grpc.StatusCode.DATA_LOSS
    assert exit_code_of(OtherError("x")) == 1


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (VerificationError("x"), 1),
        (SignatureError("x"), 1),
        (MalformedError("x"), 2),
        (DeniedError("role", "x"), 3),
        (RoundStateError("deadline", "x"), 3),
        (UnavailableError("x"), 4),
        (ValueError("x"), 2),
    ],
)
def test_exit_codes_are_those_of_the_design(error: Exception, exit_code: int) -> None:
    assert exit_code_of(error) == exit_code


def test_every_reason_of_the_admission_table_has_a_status() -> None:
    table = README.read_text().split("\n## Admission\n")[1].split("\n### ")[0]
    rows = [line for line in table.splitlines() if re.match(r"\| \d+ \|", line)]
    reasons = {reason for row in rows for reason in re.findall(r"`([a-z_]+)`", row.rsplit("|", 2)[1])}
    assert len(reasons) > 30
    assert reasons - REASONS.keys() == set()


def test_every_reason_of_enrolment_and_of_objects_has_a_status() -> None:
    section = README.read_text().split("\n## Enrolment\n")[1].split("\n## ")[0]
    listed = section.split("Reason codes: ")[1].split("; ")[0] + section.rsplit("gatekeeper's time: ", 1)[1]
    reasons = set(re.findall(r"`([a-z_]+)`", listed))
    assert len(reasons) > 12
    assert reasons - REASONS.keys() == set()


@pytest.mark.parametrize("reason", ["quota_updates", "quota_bytes"])
def test_a_quota_that_is_used_up_is_a_refusal_and_not_a_service_that_is_too_busy(reason: str) -> None:
    refusal = refusal_of(DeniedError(reason, "used up"))
    assert refusal.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
    told = error_of_refusal(refusal)
    assert isinstance(told, DeniedError)
    assert told.reason == reason


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DeniedError("unknown_identity", "x"), grpc.StatusCode.UNAUTHENTICATED),
        (DeniedError("duplicate", "x"), grpc.StatusCode.ALREADY_EXISTS),
        (DeniedError("round_not_open", "x"), grpc.StatusCode.FAILED_PRECONDITION),
        (DeniedError("malformed", "x"), grpc.StatusCode.INVALID_ARGUMENT),
        (DeniedError("a_new_reason", "x"), grpc.StatusCode.PERMISSION_DENIED),
        (RoundStateError("a_new_reason", "x"), grpc.StatusCode.FAILED_PRECONDITION),
        (KeyError("x"), grpc.StatusCode.INTERNAL),
    ],
)
def test_a_reason_decides_before_the_class(error: Exception, code: grpc.StatusCode) -> None:
    assert status_of(error) is code


def test_nothing_is_told_of_errors_that_are_not_for_peers() -> None:
    assert detail_of(KeyError("secret")) == ErrorDetail()
    assert detail_of(SfrlError("secret")) == ErrorDetail()
    assert "secret" not in detail_of(UncertainStateError("secret")).message


class Failed(grpc.RpcError, grpc.Call):  # type: ignore[misc]
    def __init__(self, code: grpc.StatusCode, metadata: tuple[tuple[str, object], ...] | None) -> None:
        self._code, self._metadata = code, metadata

    def code(self) -> grpc.StatusCode:
        return self._code

    def trailing_metadata(self):  # type: ignore[no-untyped-def]
        return self._metadata

    def details(self) -> str:
        return "foreign text"

    def initial_metadata(self):  # type: ignore[no-untyped-def]
        return ()

    def is_active(self) -> bool:
        return False

    def time_remaining(self) -> None:
        return None

    def cancel(self) -> bool:
        return False

    def add_callback(self, callback: object) -> bool:
        return False


class Context:
    def set_trailing_metadata(self, metadata: tuple[tuple[str, bytes], ...]) -> None:
        self.metadata = metadata

    def abort(self, code: grpc.StatusCode, details: str) -> None:
        raise Failed(code, self.metadata)


@pytest.mark.parametrize("kind", sorted(TABLE, key=lambda kind: kind.__name__))
def test_every_error_comes_back_with_its_exit_code(kind: type[SfrlError]) -> None:
    has_reason = issubclass(kind, (DeniedError, PayloadError))
    error = kind("refused_so", "x") if has_reason else kind("x")  # type: ignore[call-arg]
    with pytest.raises(Failed) as caught:
        abort_with(Context(), error)  # type: ignore[arg-type]
    back = error_of(caught.value)
    assert exit_code_of(back) == exit_code_of(error)
    assert isinstance(error, (type(back), UncertainStateError))


@pytest.mark.parametrize("code", list(grpc.StatusCode))
@pytest.mark.parametrize(
    "metadata",
    [None, (), ((ERROR_METADATA, b"\xff\xff"),), ((ERROR_METADATA, "text"),), ((ERROR_METADATA, bytes(5_000)),)],
)
def test_a_status_without_a_readable_detail_is_still_an_error_of_ours(
    code: grpc.StatusCode, metadata: tuple[tuple[str, object], ...] | None
) -> None:
    error = error_of(Failed(code, metadata))
    assert isinstance(error, SfrlError)
    assert "foreign" not in str(error)


def test_what_is_no_call_at_all_is_an_error_of_ours() -> None:
    assert type(error_of(grpc.RpcError())) is SfrlError


def test_a_refusal_without_a_reason_is_not_taken_for_a_malformed_request() -> None:
    assert isinstance(error_of(Failed(grpc.StatusCode.PERMISSION_DENIED, ())), DeniedError)
    assert isinstance(error_of(Failed(grpc.StatusCode.CANCELLED, ())), UnavailableError)


def test_a_conflict_names_the_size_to_read_to() -> None:
    detail = encode_error_detail(ErrorDetail("control_head", "read on", None, 99))
    error = error_of(Failed(grpc.StatusCode.ABORTED, ((ERROR_METADATA, detail),)))
    assert isinstance(error, ConflictError)
    assert (error.reason, error.log_size, str(error)) == ("control_head", 99, "read on")


def raised_by_a_call(error: SfrlError) -> SfrlError:
    with pytest.raises(Failed) as caught:
        abort_with(Context(), error)  # type: ignore[arg-type]
    return error_of(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        DeniedError("threshold", "two operators sign", entry_index=0),
        DeniedError("bad_signature", "x"),
        DeniedError("a_new_reason", "x"),
        RoundStateError("round_not_open", "x"),
        ConflictError("read on", reason="stale", log_size=77),
        MalformedError("a digest is 32 bytes"),
        UnavailableError("ask again"),
        UncertainStateError("secret"),
        SfrlError("secret"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_one_envelope_of_many_is_refused_as_a_call_would_be(error: SfrlError) -> None:
    alone, of_many = raised_by_a_call(error), error_of_refusal(refusal_of(error))
    assert (type(alone), str(alone), vars(alone)) == (type(of_many), str(of_many), vars(of_many))
    assert "secret" not in str(of_many)


@pytest.mark.parametrize("kind", sorted(TABLE, key=lambda kind: kind.__name__))
def test_every_error_comes_back_from_a_refusal_with_its_exit_code(kind: type[SfrlError]) -> None:
    has_reason = issubclass(kind, (DeniedError, PayloadError))
    error = kind("refused_so", "x") if has_reason else kind("x")  # type: ignore[call-arg]
    assert exit_code_of(error_of_refusal(refusal_of(error))) == exit_code_of(error)
