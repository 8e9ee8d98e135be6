"""Models: one form in bytes, cut at the ends of their dtypes, float last."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfrl_secure.aggregation.models import (
    ModelSnapshot,
    model_bytes,
    parse_model,
    snapshot_from_float,
)
from sfrl_secure.errors import MalformedError, PayloadError
from sfrl_secure.governance.manifest import ModelManifest, TensorSpec
from sfrl_secure.sparse.update import UpdatePart

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
    for grid in (-1, 41):
        with pytest.raises(MalformedError, match="grid exponent"):
            ModelSnapshot(MANIFEST, grid, np.zeros(7, dtype=np.int64))


def test_a_model_does_not_change() -> None:
    given = np.zeros(7, dtype=np.int64)
    snapshot = ModelSnapshot(MANIFEST, 16, given)
    raw = snapshot.to_bytes()
    given[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        snapshot.values[0] = 1
    snapshot.add(np.ones(7, dtype=np.int64))
    assert snapshot.to_bytes() == raw == ModelSnapshot(MANIFEST, 16, np.zeros(7, dtype=np.int64)).to_bytes()


def test_a_model_is_its_bytes() -> None:
    """Neither parsing nor storing it takes a copy."""
    raw = ModelSnapshot(MANIFEST, 16, np.zeros(7, dtype=np.int64)).to_bytes()
    assert parse_model(raw, MANIFEST, 16).to_bytes() is raw


MIXED = ModelManifest(
    (
        TensorSpec("a", (3,), "int32"), TensorSpec("b", (2,), "int32"), TensorSpec("c", (3,), "int64"),
        TensorSpec("d", (1,), "int32"),
    )
)  # fmt: skip


@settings(deadline=None, max_examples=120)
@given(st.data())
def test_a_step_in_parts_is_the_step(data: st.DataObject) -> None:
    """Parts of any size, as slices or with indices, over tensors of both dtypes that begin anywhere."""
    base = ModelSnapshot(MIXED, 16, np.array([HIGH32 - 3, LOW32 + 3, 0, 1, 2, HIGH64 - 3, LOW64 + 3, 5, LOW32]))
    step = np.array(data.draw(st.lists(st.integers(-9, 9), min_size=9, max_size=9)), dtype=np.int64)
    cuts = [0, *sorted(data.draw(st.sets(st.integers(1, 8)))), 9]
    parts = []
    for start, stop in pairwise(cuts):
        kept = np.arange(start, stop, dtype=np.int64)
        if data.draw(st.booleans()):
            kept = kept[step[start:stop] != 0]
            parts.append(UpdatePart(kept, step[kept]))
        else:
            parts.append(UpdatePart(slice(start, stop), step[start:stop]))
    exact = [min(max(int(b) + int(s), low), high) for b, s, (low, high) in zip(base.values, step, RANGES, strict=True)]
    assert base.add_parts(parts).values.tolist() == base.add(step).values.tolist() == exact


RANGES = [(LOW32, HIGH32)] * 5 + [(LOW64, HIGH64)] * 3 + [(LOW32, HIGH32)]


@pytest.mark.parametrize(
    ("at", "values"),
    [
        (slice(0, 10), [0] * 10), (slice(8, 10), [0] * 2), (slice(-1, 1), [0] * 2), (slice(0, 4, 2), [0] * 2),
        (slice(0, 3), [0] * 2), ([9], [0]), ([-1], [0]), ([1, 1], [0, 0]), ([2, 1], [0, 0]), ([1], [0, 0]),
        ([1], [2**40 + 1]), ([1], [-(2**40) - 1]), (slice(0, 1), [2**40 + 1]),
    ],
)  # fmt: skip
def test_a_part_that_is_not_of_the_model_is_refused_and_changes_nothing(at: object, values: list[int]) -> None:
    base = ModelSnapshot(MIXED, 16, np.zeros(9, dtype=np.int64))
    raw = base.to_bytes()
    where = at if isinstance(at, slice) else np.array(at, dtype=np.int64)
    good = UpdatePart(slice(0, 1), np.array([1], dtype=np.int64))
    with pytest.raises(MalformedError):
        base.add_parts([good, UpdatePart(where, np.array(values, dtype=np.int64))])
    assert base.to_bytes() == raw == ModelSnapshot(MIXED, 16, np.zeros(9, dtype=np.int64)).to_bytes()


def test_what_the_parts_raise_comes_out_as_it_is() -> None:
    def broken() -> Iterator[UpdatePart]:
        yield UpdatePart(slice(0, 1), np.array([1], dtype=np.int64))
        raise PayloadError("digest", "altered on the way")

    with pytest.raises(PayloadError, match="altered"):
        ModelSnapshot(MIXED, 16, np.zeros(9, dtype=np.int64)).add_parts(broken())


def test_part_values_are_integers_of_64_bits() -> None:
    part = UpdatePart(slice(0, 2), np.array([1.5, 2.5]))  # type: ignore[arg-type]
    with pytest.raises(MalformedError, match="integer"):
        ModelSnapshot(MIXED, 16, np.zeros(9, dtype=np.int64)).add(part)


def test_a_large_model_is_moved_in_blocks_and_in_place() -> None:
    """45 MB in int32 and a copy of it: never the 90 MB that it takes in 64 bits."""
    count = 2_000_003
    manifest = ModelManifest((TensorSpec("w", (count,), "int32"),))
    base = parse_model(ModelSnapshot(manifest, 16, np.arange(count)).to_bytes(), manifest, 16)
    step = np.full(count, -7, dtype=np.int64)
    tracemalloc.start()
    moved = base.add(step)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * count + 4 * 2**20
    assert np.array_equal(moved.values, np.arange(count) - 7)


def test_a_change_is_what_weights_are_more_than_the_model_to_the_last_bit() -> None:
    """Over several runs and blocks, as if the whole model were made into float32 and taken away."""
    rng = np.random.default_rng(4)
    shapes = (("a", 70_000, "int32"), ("b", 131_072, "int64"), ("c", 3, "int32"))
    manifest = ModelManifest(tuple(TensorSpec(name, (count,), dtype) for name, count, dtype in shapes))
    model = ModelSnapshot(manifest, 20, rng.integers(-(2**31), 2**31, manifest.coordinates))
    weights = rng.standard_normal(manifest.coordinates, dtype=np.float32) * np.float32(1_000)
    given = weights.copy()
    change = model.change_to(weights)
    assert change.dtype == np.float32
    assert np.array_equal(change.view(np.uint32), (weights - model.to_float32()).view(np.uint32))
    assert np.array_equal(weights, given)


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
