"""Steps: the aggregate object is what whoever has the base needs, in one form."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfrl_secure.aggregation.exact_object import decode_exact
from sfrl_secure.aggregation.models import ModelSnapshot, decode_step, encode_step
from sfrl_secure.errors import MalformedError, PayloadError
from sfrl_secure.governance.manifest import ModelManifest, TensorSpec
from sfrl_secure.limits import VALUE_MAX
from sfrl_secure.sparse.encode import pack_dense, pack_update
from sfrl_secure.sparse.update import SparseUpdate, UpdatePart

N = 16
MANIFEST = ModelManifest((TensorSpec("w", (3, 5), "int32"), TensorSpec("b", (1,), "int64")))
FREE, DENSE = 1, 3

few = st.dictionaries(st.integers(0, N - 1), st.integers(-VALUE_MAX, VALUE_MAX), max_size=N)


def vector(values: dict[int, int], size: int = N) -> np.ndarray:
    step = np.zeros(size, dtype=np.int64)
    for at, value in values.items():
        step[at] = value
    return step


def decoded(raw: bytes, manifest: ModelManifest = MANIFEST, grid: int = 16) -> np.ndarray:
    step = np.zeros(manifest.coordinates, dtype=np.int64)
    for part in decode_step(raw, manifest, grid):
        step[part.at] += part.values
    return step


@settings(deadline=None, max_examples=120)
@given(few)
def test_a_step_comes_back_from_its_bytes(values: dict[int, int]) -> None:
    step = vector(values)
    raw = encode_step(MANIFEST, 16, step)
    assert decoded(raw).tolist() == step.tolist()
    base = ModelSnapshot(MANIFEST, 16, np.arange(N, dtype=np.int64))
    assert base.add_parts(decode_step(raw, MANIFEST, 16)).to_bytes() == base.add(step).to_bytes()


@pytest.mark.parametrize("touched", range(N + 1))
def test_it_is_free_where_four_times_its_coordinates_are_at_most_all(touched: int) -> None:
    step = vector({at: -at - 1 for at in range(touched)})
    raw = encode_step(MANIFEST, 16, step)
    version, mode, value_type, grid, coordinates, nonzeros = struct.unpack_from("<4xBBBBQQ", raw)
    assert (version, value_type, grid, coordinates) == (2, 6, 16, N)
    assert (mode, nonzeros) == ((FREE, touched) if 4 * touched <= N else (DENSE, N))
    assert decoded(raw).tolist() == step.tolist()


def test_a_step_that_leads_nowhere_is_a_header() -> None:
    nothing = encode_step(MANIFEST, 16, np.zeros(N, dtype=np.int64))
    assert len(nothing) == 28
    assert list(decode_step(nothing, MANIFEST, 16)) == []
    empty = np.empty(0, dtype=np.int64)
    assert encode_step(MANIFEST, 16, UpdatePart(empty, empty)) == nothing


@settings(deadline=None, max_examples=60)
@given(few)
def test_parts_and_vectors_give_the_same_bytes(values: dict[int, int]) -> None:
    step = vector(values)
    raw = encode_step(MANIFEST, 16, step)
    assert encode_step(MANIFEST, 16, UpdatePart(slice(0, N), step)) == raw
    at = np.flatnonzero(step)
    if 4 * at.size <= N:
        assert encode_step(MANIFEST, 16, UpdatePart(at, step[at])) == raw


def test_what_is_no_step_of_the_model_is_not_encoded() -> None:
    at = np.arange(5, dtype=np.int64)
    for bad in (
        np.zeros(N - 1, dtype=np.int64), np.zeros(N, dtype=np.int32), np.zeros((N, 1), dtype=np.int64),
        vector({3: VALUE_MAX + 1}), vector({3: -VALUE_MAX - 1}),
        UpdatePart(slice(0, 4), np.ones(4, dtype=np.int64)), UpdatePart(slice(1, N), np.ones(N - 1, dtype=np.int64)),
        UpdatePart(at, np.ones(5, dtype=np.int64)), UpdatePart(at + N - 2, np.ones(5, dtype=np.int64)),
    ):  # fmt: skip
        with pytest.raises(MalformedError):
            encode_step(MANIFEST, 16, bad)
    with pytest.raises(MalformedError):
        encode_step(MANIFEST, 16, UpdatePart(at[:2], np.array([1, 0])))


def refusal(raw: bytes, manifest: ModelManifest = MANIFEST, grid: int = 16) -> str:
    with pytest.raises(PayloadError) as refused:
        decoded(raw, manifest, grid)
    return refused.value.reason


def test_each_step_has_one_form() -> None:
    """What is sparse is written free, what is not is dense, whichever decodes."""
    four, five = vector(dict.fromkeys(range(4), 7)), vector(dict.fromkeys(range(5), 7))
    at = np.arange(5, dtype=np.int64)
    assert refusal(pack_dense(four, value_type="exact", grid_exponent=16)) == "format"
    free = pack_update(SparseUpdate(N, at, five[at]), value_type="exact", grid_exponent=16)
    assert refusal(free) == "format"
    assert decoded(pack_dense(five, value_type="exact", grid_exponent=16)).tolist() == five.tolist()


def test_a_step_of_another_model_grid_or_type_is_refused() -> None:
    raw = encode_step(MANIFEST, 16, vector({1: 2}))
    assert refusal(raw, grid=17) == "format"
    assert refusal(raw, ModelManifest((TensorSpec("w", (17,), "int32"),))) == "shape"
    update = SparseUpdate(N, np.array([1]), np.array([2]))
    assert refusal(pack_update(update, value_type="int8", grid_exponent=16)) == "format"
    assert refusal(raw[:5] + b"\x02" + raw[6:]) == "format"
    assert refusal(b"SFRLAGG1" + raw[8:]) == "format"


def test_of_several_leaves_each_begins_where_the_one_before_ends() -> None:
    """Free and dense: the same parts as whoever looks at their digests gets."""
    size = 4 * 70_000
    manifest = ModelManifest((TensorSpec("w", (size,), "int32"),))
    draw = np.random.default_rng(5)
    for touched in (70_000, 70_001, 140_000):
        step = np.zeros(size, dtype=np.int64)
        step[draw.choice(size, touched, replace=False)] = draw.integers(1, 2**20, touched)
        raw = encode_step(manifest, 16, step)
        assert raw[5] == (FREE if touched == 70_000 else DENSE)
        assert decoded(raw, manifest).tolist() == step.tolist()
        parts, checked = list(decode_step(raw, manifest, 16)), list(decode_exact(raw, size, 16))
        assert [part.count for part in parts] == [part.count for part in checked]


def test_where_digests_are_looked_at_a_leaf_that_is_altered_with_its_vector_kept_is_refused() -> None:
    """As of a server state, which is its bytes; a step is what comes of it."""
    raw = bytearray(encode_step(MANIFEST, 16, vector({1: 2})))
    raw[40] ^= 1
    assert decoded(bytes(raw)).tolist() == vector({1: 2}).tolist()
    with pytest.raises(PayloadError) as refused:
        list(decode_exact(bytes(raw), N, 16))
    assert refused.value.reason == "digest"


@settings(deadline=None, max_examples=300)
@given(few, st.data())
def test_damage_is_refused_or_is_another_step(values: dict[int, int], data: st.DataObject) -> None:
    """Nobody signed a step: what is well-formed is taken, and the model's digest tells. Nothing else comes out, and
    nobody asks for the digests of leaves, which whoever alters a leaf alters too."""
    raw = bytearray(encode_step(MANIFEST, 16, vector(values)))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    kept = data.draw(st.integers(0, len(raw)))
    for damaged in (bytes(raw), bytes(raw[:kept])):
        try:
            step = decoded(damaged)
        except PayloadError:
            continue
        assert without_digests(encode_step(MANIFEST, 16, step)) == without_digests(damaged)


def without_digests(raw: bytes) -> bytes:
    """A step of at most one leaf, without that leaf's digest."""
    return raw[:32] + raw[64:]
