from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.manifest import ModelManifest, TensorSpec

SHAPES = st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple)


def manifest_of(shapes: list[tuple[int, ...]]) -> ModelManifest:
    return ModelManifest(tuple(TensorSpec(f"t{i}", shape, "int32") for i, shape in enumerate(shapes)))


@settings(max_examples=50, deadline=None)
@given(st.lists(SHAPES, min_size=1, max_size=5))
def test_every_coordinate_belongs_to_exactly_one_tensor(shapes: list[tuple[int, ...]]) -> None:
    manifest = manifest_of(shapes)
    owners = [i for i, tensor in enumerate(manifest.tensors) for _ in range(tensor.coordinates)]
    assert manifest.coordinates == len(owners)
    assert [manifest.tensor_index_of(c) for c in range(manifest.coordinates)] == owners
    assert manifest.offsets == tuple(owners.index(i) for i in range(len(shapes)))


@pytest.mark.parametrize("coordinate", [-1, 24])
def test_a_coordinate_outside_the_model_is_refused(coordinate: int) -> None:
    manifest = manifest_of([(4, 3), (12,)])
    assert manifest.tensor_index_of(23) == 1
    with pytest.raises(MalformedError):
        manifest.tensor_index_of(coordinate)


def test_the_digest_is_the_one_that_the_format_states() -> None:
    manifest = ModelManifest((TensorSpec("a.weight", (4, 3), "int32"), TensorSpec("a.bias", (4,), "int64")))
    stated = b"sfrl-manifest/v1\na.weight\0int32\x004x3\na.bias\0int64\x004\n"
    assert manifest.digest == hashlib.sha256(stated).digest()


def test_the_digest_changes_with_name_shape_dtype_and_order() -> None:
    a, b = TensorSpec("a", (2, 6), "int32"), TensorSpec("b", (12,), "int32")
    variants = [
        (a, b), (b, a), (TensorSpec("c", (2, 6), "int32"), b), (TensorSpec("a", (6, 2), "int32"), b),
        (TensorSpec("a", (12,), "int32"), b), (TensorSpec("a", (2, 6), "int64"), b), (a,),
    ]  # fmt: skip
    assert len({ModelManifest(tensors).digest for tensors in variants}) == len(variants)


def test_constants_belong_to_the_manifest_and_not_to_its_digest() -> None:
    tensors = (TensorSpec("a", (1,), "int32"),)
    plain, scaled = ModelManifest(tensors), ModelManifest(tensors, 3, {"c": (1,)})
    assert plain.digest == scaled.digest
    assert plain != scaled


@pytest.mark.parametrize(
    ("name", "shape", "dtype"),
    [("", (1,), "int32"), ("a b", (1,), "int32"), ("a", (), "int32"), ("a", (0,), "int32"), ("a", (1,), "int8")],
)
def test_a_tensor_out_of_its_ranges_is_refused(name: str, shape: tuple[int, ...], dtype: str) -> None:
    with pytest.raises(MalformedError):
        TensorSpec(name, shape, dtype)


def test_a_manifest_has_tensors_and_no_name_twice() -> None:
    tensor = TensorSpec("a", (1,), "int32")
    for tensors in ((), (tensor, tensor), tuple(TensorSpec(f"t{i}", (1,), "int32") for i in range(4_097))):
        with pytest.raises(MalformedError):
            ModelManifest(tensors)


def test_a_model_of_more_than_2_to_the_31_coordinates_is_refused() -> None:
    half = 2**30
    assert ModelManifest((TensorSpec("a", (half,), "int32"), TensorSpec("b", (half,), "int32"))).coordinates == 2**31
    with pytest.raises(MalformedError):
        ModelManifest((TensorSpec("a", (half,), "int32"), TensorSpec("b", (half + 1,), "int32")))
