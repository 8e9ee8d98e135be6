"""Scaling: contents and back, missing marks, and constants that the manifest carries."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from sfrl_secure.demo.rocks import FEATURE_NAMES
from sfrl_secure.demo.scaling import BASALT, CENTRES, SPREADS, Scaling, basalt_scaling, scale_features, scaling_of
from sfrl_secure.demo.task import rock_manifest
from sfrl_secure.errors import MalformedError
from sfrl_secure.learning.perceptron import perceptron_manifest

FEATURES = len(FEATURE_NAMES)


def test_the_table_of_basalt_names_each_feature_once() -> None:
    assert set(BASALT) == set(FEATURE_NAMES)
    assert len(set(FEATURE_NAMES)) == FEATURES == 44


def test_contents_come_back_from_their_inputs() -> None:
    typical = np.array([BASALT[name][0] for name in FEATURE_NAMES])
    fold = np.array([BASALT[name][1] for name in FEATURE_NAMES])
    steps = np.linspace(-3.9, 3.9, 40)[:, None]
    inputs = scale_features(typical * fold**steps, basalt_scaling())
    assert inputs.dtype == np.float32
    np.testing.assert_allclose(inputs[:, :FEATURES], np.broadcast_to(steps, (40, FEATURES)), atol=2e-3)
    assert not inputs[:, FEATURES:].any()


@pytest.mark.parametrize("content", [np.nan, 0.0, -3.0])
def test_a_missing_content_is_marked_and_gives_the_typical_rock(content: float) -> None:
    features = np.full((1, FEATURES), 1e9)
    features[0, 5] = content
    inputs = scale_features(features, basalt_scaling())
    assert inputs[0, 5] == 0.0
    assert np.flatnonzero(inputs[0, FEATURES:]).tolist() == [5]


def test_inputs_are_cut_at_four() -> None:
    inputs = scale_features(np.array([[1e9] * FEATURES, [1e-9] * FEATURES]), basalt_scaling())
    assert (inputs[0, :FEATURES] == 4.0).all()
    assert (inputs[1, :FEATURES] == -4.0).all()


def test_the_constants_travel_in_the_manifest_as_integers() -> None:
    manifest = rock_manifest()
    assert all(type(value) is int for values in manifest.constants.values() for value in values)
    assert scaling_of(manifest) == basalt_scaling()
    assert basalt_scaling().centres[:2] == (255_720, 26_573)


def test_only_the_constants_decide() -> None:
    features = np.full((1, FEATURES), 7.0)
    constants = {CENTRES: (0,) * FEATURES, SPREADS: (2,) * FEATURES}
    scaling = scaling_of(perceptron_manifest((88, 3), constants=constants, constants_exponent=1))
    np.testing.assert_allclose(scale_features(features, scaling)[0, :FEATURES], np.log(7.0), rtol=1e-6)


@pytest.mark.parametrize("missing", [CENTRES, SPREADS])
def test_a_manifest_without_the_constants_is_refused(missing: str) -> None:
    constants = basalt_scaling().to_constants()
    del constants[missing]
    with pytest.raises(MalformedError, match="lacks the constants"):
        scaling_of(perceptron_manifest((88, 3), constants=constants, constants_exponent=16))


@pytest.mark.parametrize(
    "change",
    [
        {"centres": (0,) * 43},
        {"spreads": (1,) * 45},
        {"spreads": (0, *(1,) * 43)},
        {"spreads": (-1, *(1,) * 43)},
        {"spreads": ((64 << 16) + 1, *(1,) * 43)},
        {"centres": (-(64 << 16) - 1, *(1,) * 43)},
    ],
)
def test_constants_out_of_range_are_refused(change: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(MalformedError):
        dataclasses.replace(basalt_scaling(), **change)


def test_the_widest_constants_are_taken() -> None:
    Scaling((64 << 16,) * 44, (64 << 16,) * 44, 16)


def test_a_table_of_other_columns_is_refused() -> None:
    for table in (np.ones((1, 43)), np.ones(44)):
        with pytest.raises(MalformedError, match="44 columns"):
            scale_features(table, basalt_scaling())
