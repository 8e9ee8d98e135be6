"""Division, models and squares against Python's own integers and fractions, to the last bit."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfrl_secure.errors import MalformedError
from sfrl_secure.replay.arithmetic import divide_half_even
from sfrl_secure.replay.manifest import Manifest, parse_manifest
from sfrl_secure.replay.measuring import sum_of_squares
from sfrl_secure.replay.models import add_to_model, digest_of, encode_model, model_bytes, name_of_model, parse_model

VALUE = st.integers(-(2**40), 2**40)
NARROW = st.one_of(st.sampled_from([-(2**31), 2**31 - 1, 0]), st.integers(-(2**31), 2**31 - 1))
WIDE = st.one_of(st.sampled_from([-(2**63), 2**63 - 1, 0, -1, 1]), st.integers(-(2**63), 2**63 - 1))


def manifest(*tensors: tuple[str, list[int], str]) -> Manifest:
    listed = [{"name": name, "shape": shape, "dtype": dtype} for name, shape, dtype in tensors]
    return parse_manifest({"tensors": listed, "constants_exponent": 0, "constants": {}})


def array(values: list[int]) -> Any:
    return np.array(values, np.int64)


@settings(deadline=None, max_examples=300)
@given(numerators=st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=8), denominator=st.integers(1, 2**22))
def test_division_is_exact_to_the_nearest_and_ties_go_to_even(numerators: list[int], denominator: int) -> None:
    expected = [round(Fraction(numerator, denominator)) for numerator in numerators]
    assert divide_half_even(array(numerators), denominator).tolist() == expected


@pytest.mark.parametrize("numerator", range(-9, 10))
@pytest.mark.parametrize("denominator", [1, 2, 3, 4])
def test_small_divisions_all_hold(numerator: int, denominator: int) -> None:
    assert divide_half_even(array([numerator]), denominator).tolist() == [round(Fraction(numerator, denominator))]


@pytest.mark.parametrize("denominator", [1, 2, 3, 2**22 - 1, 2**22, 2**40, 2**61])
def test_the_largest_numbers_are_divided_exactly(denominator: int) -> None:
    numerators = [sign * (2**62 - rest) for sign in (1, -1) for rest in (0, 1, denominator // 2)]
    expected = [round(Fraction(numerator, denominator)) for numerator in numerators]
    assert divide_half_even(array(numerators), denominator).tolist() == expected
    assert divide_half_even(array(numerators), array([denominator] * len(numerators))).tolist() == expected


@settings(deadline=None, max_examples=300)
@given(base=st.tuples(NARROW, NARROW, WIDE, WIDE), aggregate=st.tuples(VALUE, VALUE, VALUE, VALUE))
def test_a_model_is_base_plus_aggregate_cut_to_its_dtypes(base: tuple[int, ...], aggregate: tuple[int, ...]) -> None:
    form = manifest(("a", [2], "int32"), ("b", [1, 2], "int64"))
    bits = [31, 31, 63, 63]
    expected = [
        min(max(b + a, -(2**width)), 2**width - 1) for b, a, width in zip(base, aggregate, bits, strict=True)
    ]  # fmt: skip
    assert add_to_model(form, array(list(base)), array(list(aggregate))).tolist() == expected


@settings(deadline=None, max_examples=200)
@given(base=st.tuples(NARROW, NARROW, WIDE))
def test_a_model_object_reads_back(base: tuple[int, ...]) -> None:
    form = manifest(("a", [2], "int32"), ("b", [1], "int64"))
    raw = b"".join(encode_model(form, 7, array(list(base))))
    assert name_of_model(form, 7, array(list(base))) == digest_of(raw)
    assert len(raw) == model_bytes(form) == 56 + 8 + 8
    assert parse_model(raw, form, 7).tolist() == list(base)
    for damaged in (raw[:-1], raw + b"\0", b"X" + raw[1:], raw[:8] + b"\x08" + raw[9:], raw[:9] + b"\1" + raw[10:]):
        with pytest.raises(MalformedError):
            parse_model(damaged, form, 7)
    with pytest.raises(MalformedError):
        parse_model(raw, manifest(("a", [2], "int32"), ("c", [1], "int64")), 7)


def test_a_model_has_the_bytes_of_the_specification() -> None:
    form = manifest(("a", [2], "int32"), ("b", [1], "int64"))
    described = digest_of(b"sfrl-manifest/v1\na\0int32\x002\nb\0int64\x001\n")
    head = b"\x07" + bytes(7) + described + (3).to_bytes(8, "little")
    values = array([1, -2, 3])
    assert b"".join(encode_model(form, 7, values)) == (
        b"SFRLMDL1" + head + b"\1\0\0\0" + b"\xfe\xff\xff\xff" + b"\3" + bytes(7)
    )  # fmt: skip


@settings(deadline=None, max_examples=100)
@given(values=st.lists(VALUE, max_size=30))
def test_squares_are_added_up_beyond_64_bits(values: list[int]) -> None:
    assert sum_of_squares(array(values)) == sum(value * value for value in values)


@pytest.mark.parametrize("value", [2**40, -(2**40), 2**40 - 1, 2**21 - 1])
def test_the_squares_of_a_leaf_of_the_largest_values_are_exact(value: int) -> None:
    assert sum_of_squares(np.full(65_536, value, np.int64)) == 65_536 * value**2


@settings(deadline=None, max_examples=100)
@given(indices=st.sets(st.integers(0, 16)))
def test_tensors_that_are_touched_are_named_by_their_position(indices: set[int]) -> None:
    form = manifest(("a", [3, 4], "int32"), ("b", [1], "int32"), ("c", [4], "int64"))
    expected = sorted({0 if i < 12 else 1 if i < 13 else 2 for i in indices})
    assert list(form.touched(array(sorted(indices)))) == expected
