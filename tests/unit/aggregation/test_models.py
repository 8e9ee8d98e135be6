"""Models and aggregates: one form in bytes, cut at the ends of their dtypes, float last."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfrl_secure.aggregation.models import (
    ModelSnapshot,
    encode_aggregate,
    model_bytes,
    parse_model,
    snapshot_from_float,
)
from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.manifest import ModelManifest, TensorSpec

MANIFEST = ModelManifest((TensorSpec("w", (2, 2), "int32"), TensorSpec("b", (3,), "int64")))
LOW32, HIGH32, LOW64, HIGH64 = -(2**31), 2**31 - 1, -(2**63), 2**63 - 1

narrow = st.one_of(st.integers(LOW32, HIGH32), st.sampled_from([LOW32, HIGH32, 0]))
wide = st.one_of(st.integers(LOW64, HIGH64), st.sampled_from([LOW64, HIGH64, 0]))
model_values = st.tuples(*[narrow] * 4, *[wide] * 3).map(lambda values: np.array(values, dtype=np.int64))
steps = st.lists(st.integers(-(2**40), 2**40), min_size=7, max_size=7).map(lambda each: np.array(each, dtype=np.int64))


def test_the_bytes_are_those_of_the_specification() -> None:
    values = np.array([1, -2, HIGH32, LOW32, 3, HIGH64, LOW64], dtype=np.int64)
    raw = ModelSnapshot(MANIFEST, 16, values).to_bytes()
    assert raw == (
        b"SFRLMDL1" + b"\x10" + bytes(7) + MANIFEST.digest + struct.pack("<Q", 7)
        + struct.pack("<4i", 1, -2, HIGH32, LOW32) + struct.pack("<3q", 3, HIGH64, LOW64)
    )  # fmt: skip
    assert len(raw) == model_bytes(MANIFEST)
    aggregate = encode_aggregate(MANIFEST, 16, values)
    assert aggregate == b"SFRLAGG1" + raw[8:56] + struct.pack("<7q", *values.tolist())


@settings(deadline=None, max_examples=60)
@given(model_values, st.integers(0, 40))
def test_a_model_comes_back_from_its_bytes(values: np.ndarray, grid: int) -> None:
    snapshot = ModelSnapshot(MANIFEST, grid, values)
    parsed = parse_model(snapshot.to_bytes(), MANIFEST, grid)
    assert parsed.values.tolist() == values.tolist()
    assert parsed.to_bytes() == snapshot.to_bytes()


def test_another_manifest_grid_kind_or_length_is_refused() -> None:
    raw = ModelSnapshot(MANIFEST, 16, np.zeros(7, dtype=np.int64)).to_bytes()
    renamed = ModelManifest((TensorSpec("v", (2, 2), "int32"), TensorSpec("b", (3,), "int64")))
    reshaped = ModelManifest((TensorSpec("w", (4,), "int32"), TensorSpec("b", (3,), "int64")))
    for manifest in (renamed, reshaped):
        with pytest.raises(MalformedError, match="another kind"):
            parse_model(raw, manifest, 16)
    with pytest.raises(MalformedError):
        parse_model(raw, MANIFEST, 17)
    for damaged in (raw[:-1], raw + b"\0", b"", raw[:56]):
        with pytest.raises(MalformedError, match="bytes"):
            parse_model(damaged, MANIFEST, 16)
    aggregate = encode_aggregate(ModelManifest((TensorSpec("b", (3,), "int64"),)), 16, np.zeros(3, dtype=np.int64))
    with pytest.raises(MalformedError):
        parse_model(aggregate, ModelManifest((TensorSpec("b", (3,), "int64"),)), 16)
    for at in range(56):
        damaged = raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]
        with pytest.raises(MalformedError):
            parse_model(damaged, MANIFEST, 16)


@settings(deadline=None, max_examples=120)
@given(model_values, steps)
def test_each_coordinate_is_cut_to_its_dtype(values: np.ndarray, step: np.ndarray) -> None:
    moved = ModelSnapshot(MANIFEST, 16, values).add(step).values.tolist()
    exact = [base + delta for base, delta in zip(values.tolist(), step.tolist(), strict=True)]
    assert moved[:4] == [min(max(each, LOW32), HIGH32) for each in exact[:4]]
    assert moved[4:] == [min(max(each, LOW64), HIGH64) for each in exact[4:]]


def test_what_does_not_fit_is_no_model() -> None:
    for at, value in ((0, HIGH32 + 1), (3, LOW32 - 1)):
        values = np.zeros(7, dtype=np.int64)
        values[at] = value
        with pytest.raises(MalformedError, match="int32"):
            ModelSnapshot(MANIFEST, 16, values)
    for bad in (np.zeros(6, dtype=np.int64), np.zeros(7, dtype=np.int32), np.zeros((7, 1), dtype=np.int64)):
        with pytest.raises(MalformedError):
            ModelSnapshot(MANIFEST, 16, bad)
        with pytest.raises(MalformedError):
            encode_aggregate(MANIFEST, 16, bad)
    for grid in (-1, 41):
        with pytest.raises(MalformedError, match="grid exponent"):
            ModelSnapshot(MANIFEST, grid, np.zeros(7, dtype=np.int64))


def test_a_model_does_not_change() -> None:
    snapshot = ModelSnapshot(MANIFEST, 16, np.zeros(7, dtype=np.int64))
    with pytest.raises(ValueError, match="read-only"):
        snapshot.values[0] = 1


@settings(deadline=None, max_examples=80)
@given(model_values, st.integers(0, 40))
def test_float_is_the_nearest_to_the_exact_value(values: np.ndarray, grid: int) -> None:
    derived = ModelSnapshot(MANIFEST, grid, values).to_float32()
    assert derived.dtype == np.float32
    for value, found in zip(values.tolist(), derived.tolist(), strict=True):
        # float32 of an integer, by its own definition: 24 bits, half to even; the scale is a power of two.
        bits = max(value.bit_length() if value >= 0 else (-value).bit_length(), 1)
        unit = 1 << max(bits - 24, 0)
        whole, rest = divmod(value, unit)
        up = 2 * rest > unit or (2 * rest == unit and whole % 2 == 1)
        assert found == (whole + up) * unit / 2**grid


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(-100, 100, width=32), min_size=7, max_size=7), st.integers(0, 20))
def test_floats_go_to_the_nearest_grid_point(parameters: list[float], grid: int) -> None:
    snapshot = snapshot_from_float(MANIFEST, grid, np.array(parameters, dtype=np.float32))
    assert snapshot.values.tolist() == [round(value * 2**grid) for value in parameters]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38, 2.0**47])
def test_a_parameter_that_the_grid_cannot_hold_is_refused(value: float) -> None:
    parameters = np.zeros(7, dtype=np.float32)
    parameters[5] = value
    with pytest.raises(MalformedError):
        snapshot_from_float(MANIFEST, 16, parameters)


def test_what_int32_cannot_hold_is_refused_from_floats_too() -> None:
    parameters = np.zeros(7, dtype=np.float32)
    parameters[0] = 2.0**15
    with pytest.raises(MalformedError, match="int32"):
        snapshot_from_float(MANIFEST, 16, parameters)
