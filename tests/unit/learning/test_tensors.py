"""Flat models, the perceptron's manifest, the first model, and the export."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load

from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.manifest import ModelManifest, TensorSpec
from sfrl_secure.learning.perceptron import initial_model, perceptron_manifest, perceptron_widths
from sfrl_secure.learning.tensors import export_safetensors, flatten, unflatten

WIDTHS = st.lists(st.integers(1, 9), min_size=2, max_size=5)


def counting(manifest: ModelManifest) -> np.ndarray:
    return np.arange(manifest.coordinates, dtype=np.float32)


def test_tensors_follow_each_other_in_manifest_order_row_by_row() -> None:
    manifest = ModelManifest((TensorSpec("z", (2, 3), "int32"), TensorSpec("a", (2,), "int32")))
    tensors = unflatten(counting(manifest), manifest)
    assert tensors["z"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert tensors["a"].tolist() == [6, 7]
    assert flatten({"a": tensors["a"], "z": tensors["z"]}, manifest).tolist() == list(range(8))


@settings(deadline=None, max_examples=50)
@given(WIDTHS)
def test_flatten_undoes_unflatten(widths: list[int]) -> None:
    manifest = perceptron_manifest(widths)
    flat = counting(manifest)
    assert (flatten(unflatten(flat, manifest), manifest) == flat).all()


def test_what_does_not_fit_the_manifest_is_refused() -> None:
    manifest = perceptron_manifest((2, 3))
    flat = counting(manifest)
    tensors = unflatten(flat, manifest)
    for wrong_flat in (flat[:-1], flat.astype(np.float64), flat.reshape(1, -1)):
        with pytest.raises(MalformedError, match="flat model"):
            unflatten(wrong_flat, manifest)
    wrong: list[dict[str, np.ndarray]] = [
        {"layer1.weight": tensors["layer1.weight"]},
        {**tensors, "other": flat},
        {**tensors, "layer1.weight": tensors["layer1.weight"].T},
        {**tensors, "layer1.bias": tensors["layer1.bias"].astype(np.float64)},
    ]
    for wrong_tensors in wrong:
        with pytest.raises(MalformedError):
            flatten(wrong_tensors, manifest)


@settings(deadline=None, max_examples=50)
@given(WIDTHS)
def test_a_perceptrons_widths_come_back_from_its_manifest(widths: list[int]) -> None:
    assert perceptron_widths(perceptron_manifest(widths)) == tuple(widths)


def test_the_demos_perceptron_has_39427_parameters() -> None:
    assert perceptron_manifest((88, 256, 64, 3)).coordinates == 39_427


@pytest.mark.parametrize(
    "shapes",
    [
        [(3, 2)],
        [(3, 2), (2,)],
        [(3, 2), (3, 1)],
        [(6,), (6,)],
        [(3, 2), (3,), (4, 2), (4,)],
        [(3, 2), (3,), (4, 3)],
    ],
)
def test_tensors_that_form_no_layers_are_refused(shapes: list[tuple[int, ...]]) -> None:
    manifest = ModelManifest(tuple(TensorSpec(f"t{i}", shape, "int32") for i, shape in enumerate(shapes)))
    with pytest.raises(MalformedError, match="layers"):
        perceptron_widths(manifest)


@pytest.mark.parametrize("widths", [(), (3,), (3, 0), (0, 3), (3, -1, 2)])
def test_widths_that_make_no_model_are_refused(widths: tuple[int, ...]) -> None:
    with pytest.raises(MalformedError):
        perceptron_manifest(widths)


def test_the_first_model_follows_from_its_seed_and_stands_on_the_grid() -> None:
    manifest = perceptron_manifest((88, 256, 64, 3))
    model = initial_model(manifest, 1, 24)
    assert model.to_bytes() == initial_model(manifest, 1, 24).to_bytes()
    assert model.to_bytes() != initial_model(manifest, 2, 24).to_bytes()
    tensors = unflatten(model.to_float32(), manifest)
    assert not any(tensors[f"layer{i}.bias"].any() for i in (1, 2, 3))
    for name, inputs in (("layer1.weight", 88), ("layer2.weight", 256), ("layer3.weight", 64)):
        limit = np.sqrt(6 / inputs)
        assert 0.9 * limit < np.abs(tensors[name]).max() <= limit
        # Uniform in +-limit has the variance limit**2 / 3.
        assert tensors[name].var() == pytest.approx(limit**2 / 3, rel=0.15)


def test_a_first_model_without_a_seed_or_layers_is_refused() -> None:
    with pytest.raises(MalformedError, match="negative"):
        initial_model(perceptron_manifest((2, 2)), -1, 24)
    with pytest.raises(MalformedError, match="layers"):
        initial_model(ModelManifest((TensorSpec("t", (4,), "int32"),)), 1, 24)


def test_an_export_is_read_back_by_safetensors_itself() -> None:
    manifest = perceptron_manifest((2, 3))
    raw = export_safetensors(counting(manifest), manifest, {"model": "ab"})
    found = load(raw)
    assert found["layer1.weight"].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert found["layer1.bias"].tolist() == [6, 7, 8]
    assert b'"model":"ab"' in raw
    with pytest.raises(MalformedError):
        export_safetensors(counting(manifest)[:-1], manifest)
