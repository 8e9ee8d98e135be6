from __future__ import annotations

import json
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfrl_secure.crypto.strict_json import DEPTH_MAX, parse_strict_json
from sfrl_secure.errors import MalformedError

TEXTS = st.text(st.characters(codec="utf-8"), max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63) + 1, 2**63 - 1) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


def refuse(raw: bytes, bytes_max: int = 1_000_000) -> None:
    with pytest.raises(MalformedError) as caught:
        parse_strict_json(raw, bytes_max=bytes_max)
    assert caught.value.__cause__ is None


@settings(deadline=None, max_examples=150)
@given(st.dictionaries(TEXTS, VALUES, max_size=4), st.booleans(), st.sampled_from([None, 1]))
def test_an_object_of_text_and_integers_is_read_as_it_stands(
    value: dict[str, object], escaped: bool, indent: int | None
) -> None:
    raw = json.dumps(value, ensure_ascii=escaped, indent=indent).encode()
    assert parse_strict_json(raw, bytes_max=len(raw)) == value


@settings(deadline=None, max_examples=400)
@given(st.binary(max_size=60) | st.text('{}[]":,01e.-\\ud8ab nulltrueNaN\ufeff', max_size=40).map(str.encode))
def test_any_bytes_are_one_object_or_malformed(raw: bytes) -> None:
    try:
        value = parse_strict_json(raw, bytes_max=60)
    except MalformedError:
        return
    assert value == json.loads(raw)


def test_a_document_beyond_its_limit_is_refused() -> None:
    assert parse_strict_json(b"{}", bytes_max=2) == {}
    refuse(b"{} ", 2)
    refuse(b"{}", 0)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a":1,"a":1}',
        b'{"a":1,"b":2,"a":3}',
        b'{"x":{"a":1,"a":2}}',
        b'{"x":[0,{"y":{"a":1,"a":2}}]}',
        b'{"a":1,"\\u0061":2}',
        b'{"":1,"":2}',
    ],
)
def test_a_key_that_stands_twice_at_any_depth_is_refused(raw: bytes) -> None:
    assert json.loads(raw)
    refuse(raw)


@pytest.mark.parametrize(
    "number",
    ["1.0", "1e3", "1E3", "-1.5", "0.0", "NaN", "Infinity", "-Infinity", "-0", "1e999", str(2**63), str(-(2**63))],
)
def test_a_number_that_is_no_bounded_integer_is_refused(number: str) -> None:
    json.loads(number)
    refuse(b'{"n":%s}' % number.encode())
    refuse(b'{"n":[[%s]]}' % number.encode())


@pytest.mark.parametrize("digits", [20, 21, 4_300, 5_000, 100_000])
def test_a_number_of_many_digits_is_refused_before_it_is_read(digits: int) -> None:
    refuse(b'{"n":' + b"9" * digits + b"}")
    refuse(b'{"n":-' + b"9" * digits + b"}")


@pytest.mark.parametrize("number", [0, 1, -1, 2**63 - 1, -(2**63) + 1])
def test_an_integer_up_to_the_bound_is_taken(number: int) -> None:
    assert parse_strict_json(b'{"n":%d}' % number, bytes_max=100) == {"n": number}


@pytest.mark.parametrize("number", ["01", "+1", "0x1", "1_000", "\u0661", "- 1", "--1"])
def test_a_number_that_is_not_json_is_refused(number: str) -> None:
    refuse(b'{"n":%s}' % number.encode())


def nested(depth: int, left: bytes, right: bytes) -> bytes:
    return b'{"x":' + left * (depth - 1) + b"1" + right * (depth - 1) + b"}"


@pytest.mark.parametrize(("left", "right"), [(b"[", b"]"), (b'{"x":', b"}")])
def test_a_document_nests_at_most_32_levels(left: bytes, right: bytes) -> None:
    assert DEPTH_MAX == 32
    assert parse_strict_json(nested(32, left, right), bytes_max=1_000)
    refuse(nested(33, left, right))


@pytest.mark.parametrize("opening", [b"[", b'{"x":', b'{"x":['])
def test_a_very_deep_document_is_malformed_and_no_recursion_error(opening: bytes) -> None:
    refuse(opening * 100_000)
    refuse(b'{"x":' + opening * 100_000)


def test_brackets_inside_text_do_not_nest() -> None:
    text = "[{" * 100 + '"' + "\\" + "]}[{" * 50
    raw = json.dumps({"x": text, "y": [text]}).encode()
    assert parse_strict_json(raw, bytes_max=len(raw)) == {"x": text, "y": [text]}


@pytest.mark.parametrize("raw", [b"[]", b"1", b'"x"', b"null", b"true", b'[{"a":1}]'])
def test_what_is_not_an_object_is_refused(raw: bytes) -> None:
    json.loads(raw)
    refuse(raw)


@pytest.mark.parametrize(
    "raw",
    [b'{"a":"\\ud800"}', b'{"a":["\\udfff"]}', b'{"\\ud800":1}', b'{"a":{"b":"x\\udc00\\ud800"}}'],
)
def test_a_lone_surrogate_is_refused_in_values_and_keys(raw: bytes) -> None:
    json.loads(raw)
    refuse(raw)


def test_a_pair_of_surrogates_is_one_character() -> None:
    assert parse_strict_json(b'{"a":"\\ud83d\\ude80"}', bytes_max=100) == {"a": "\U0001f680"}


@pytest.mark.parametrize(
    "raw",
    [
        b'\xef\xbb\xbf{"a":1}',
        '{"a":1}'.encode("utf-16"),
        '{"a":1}'.encode("utf-32-le"),
        b'{"a":"\xff"}',
        b'{"a":"\xed\xa0\x80"}',
        b'{"a":"\xc0\xaf"}',
    ],
)
def test_bytes_that_are_not_utf_8_without_bom_are_refused(raw: bytes) -> None:
    refuse(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" ",
        b"{",
        b"{}}",
        b"{} {}",
        b'{"a":1,}',
        b"{'a':1}",
        b"{a:1}",
        b'{"a":1}\0',
        b'{"a":"\n"}',
        b'{"a":"\\x41"}',
        b'{"a":1}//',
        b'{"a":undefined}',
        b'\xc2\xa0{"a":1}',
    ],
)
def test_what_is_not_exactly_one_json_text_is_refused(raw: bytes) -> None:
    refuse(raw)


def test_an_error_does_not_quote_the_document() -> None:
    with pytest.raises(MalformedError) as caught:
        parse_strict_json(b'{"a":"secret", "a":2}', bytes_max=100)
    assert "secret" not in str(caught.value)


def test_a_document_of_escapes_takes_no_more_memory_than_its_own_size_many_times() -> None:
    raw = b'{"a":"' + b"\\n" * 100_000 + b'"}'
    tracemalloc.start()
    try:
        parse_strict_json(raw, bytes_max=len(raw))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * len(raw)
