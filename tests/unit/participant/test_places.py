"""The first number that is none is named by its tensor and place, and only when the encoder has refused."""

from __future__ import annotations

import numpy as np
import pytest

from sfrl_secure.errors import PayloadError
from sfrl_secure.governance.manifest import ModelManifest, TensorSpec
from sfrl_secure.participant.places import naming_places, place_of

MANIFEST = ModelManifest(
    tensors=(TensorSpec("weight", (4, 3), "int32"), TensorSpec("bias", (4,), "int32")),
    constants_exponent=0, constants={},
)  # fmt: skip


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("coordinate", "named"), [(0, r"weight at \[0, 0\]"), (11, r"weight at \[3, 2\]"), (12, r"bias at \[0\]")]
)
def test_the_first_number_that_is_none_is_named(value: float, coordinate: int, named: str) -> None:
    values = np.zeros(16, np.float32)
    values[[coordinate, 15]] = value
    says = rf"tensor {named} is none, the first of 2"
    with pytest.raises(PayloadError, match=says) as refusal, naming_places(MANIFEST, values):
        raise PayloadError("not_finite", "a value is a finite number")
    assert refusal.value.reason == "not_finite"


def test_of_chosen_coordinates_the_index_says_where() -> None:
    indices, values = np.array([2, 13]), np.array([1.0, 1e300])
    with pytest.raises(PayloadError, match=r"tensor bias at \[1\]"), naming_places(MANIFEST, values, indices):
        raise PayloadError("not_finite", "a value is a finite number")
    assert place_of(MANIFEST, 16) == "coordinate 16"


@pytest.mark.parametrize("reason", ["magnitude", "not_finite"])
def test_another_refusal_keeps_its_words(reason: str) -> None:
    values = np.zeros(16) if reason == "not_finite" else np.full(16, np.nan)
    with pytest.raises(PayloadError, match=r"^as it was$"), naming_places(MANIFEST, values):
        raise PayloadError(reason, "as it was")
