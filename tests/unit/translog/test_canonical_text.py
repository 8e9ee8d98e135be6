import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfrl_secure.errors import MalformedError
from sfrl_secure.translog.canonical_text import (
    check_encodable,
    format_base64,
    parse_base64,
    parse_base64_digest,
    parse_decimal,
    parse_utf8,
)


@pytest.mark.parametrize("number", [0, 1, 10, 2**63 - 1])
def test_a_canonical_decimal_is_taken(number: int) -> None:
    assert parse_decimal(str(number)) == number


@pytest.mark.parametrize(
    "text",
    ["", "00", "01", "-1", "+1", " 1", "1 ", "1\n", "1_0", "0x1", "1.0", "١", "²", "9" * 19, str(2**63), "1" * 5000],
)
def test_every_other_decimal_is_refused(text: str) -> None:
    with pytest.raises(MalformedError):
        parse_decimal(text)


@given(st.binary(max_size=100))
@settings(deadline=None, max_examples=100)
def test_base64_comes_back(value: bytes) -> None:
    assert parse_base64(format_base64(value), bytes_max=100) == value


@pytest.mark.parametrize(
    "text", ["QQ", "QQ=", "QR==", "QQ==\n", " QQ==", "Q Q=", "_-8=", "QQ==QQ==", "Q===", "é=", "QQ\u00a0="]
)
def test_every_other_spelling_of_base64_is_refused(text: str) -> None:
    with pytest.raises(MalformedError):
        parse_base64(text, bytes_max=100)


@pytest.mark.parametrize("bytes_max", range(12))
def test_base64_is_bounded_exactly(bytes_max: int) -> None:
    assert parse_base64(format_base64(bytes(bytes_max)), bytes_max=bytes_max) == bytes(bytes_max)
    with pytest.raises(MalformedError):
        parse_base64(format_base64(bytes(bytes_max + 1)), bytes_max=bytes_max)


def test_base64_is_bounded_before_it_is_decoded() -> None:
    with pytest.raises(MalformedError, match="more than 32 bytes"):
        parse_base64("!" * 45, bytes_max=32)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_hash_is_exactly_32_bytes(length: int) -> None:
    with pytest.raises(MalformedError):
        parse_base64_digest(base64.b64encode(bytes(length)).decode())
    assert parse_base64_digest(base64.b64encode(bytes(32)).decode()) == bytes(32)


@pytest.mark.parametrize("raw", [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"12345"])
def test_text_is_bounded_utf8(raw: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_utf8(raw, bytes_max=4)


def test_a_lone_surrogate_has_no_utf8_form() -> None:
    with pytest.raises(MalformedError):
        check_encodable("a\ud800")
