"""The multilayer perceptron: its manifest, and the model before round 1.

Layers are linear, with a rectifier between them; the last layer's outputs are the classes' scores. Everything here is
plain numpy, so that an operator can prepare a federation without torch.

Runs in: participant, and an operator's machine when a segment is prepared.
Trusts: nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from sfrl_secure.aggregation.models import ModelSnapshot, snapshot_from_float
from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.manifest import ModelManifest, TensorSpec


def perceptron_manifest(
    widths: Sequence[int], *, constants: Mapping[str, tuple[int, ...]] | None = None, constants_exponent: int = 0
) -> ModelManifest:
    """Build the manifest of a perceptron: `layer1.weight` (out, in), `layer1.bias` (out,), `layer2.weight`, ...

    Args:
        widths: inputs, hidden widths, outputs; at least two, each from 1.
        constants: what participants apply to their inputs, in units of 2**-constants_exponent.

    Raises:
        MalformedError: the widths make no model.
    """
    tensors: list[TensorSpec] = []
    for number, (width_in, width_out) in enumerate(pairwise(widths), start=1):
        tensors.append(TensorSpec(f"layer{number}.weight", (width_out, width_in), "int32"))
        tensors.append(TensorSpec(f"layer{number}.bias", (width_out,), "int32"))
    return ModelManifest(tuple(tensors), constants_exponent, dict(constants or {}))


def perceptron_widths(manifest: ModelManifest) -> tuple[int, ...]:
    """Read a manifest as a perceptron: inputs, hidden widths, outputs.

    Raises:
        MalformedError: the tensors are not weight (out, in) and bias (out,) in turn, each layer fitting the last.
    """
    shapes = [spec.shape for spec in manifest.tensors]
    fits = len(shapes) % 2 == 0 and all(
        len(weight) == 2 and bias == weight[:1] for weight, bias in zip(shapes[::2], shapes[1::2], strict=True)
    )
    if not fits or any(below[0] != above[1] for below, above in pairwise(shapes[::2])):
        raise MalformedError("the tensors do not form layers, each a weight (out, in) and a bias (out,)")
    return (shapes[0][1], *(weight[0] for weight in shapes[::2]))


def initial_model(manifest: ModelManifest, seed: int, grid_exponent: int) -> ModelSnapshot:
    """Draw the model before round 1.

    Weights are uniform in +-sqrt(6 / inputs) (He et al. 2015, for rectified layers), biases zero, drawn from PCG64 and
    rounded to the grid. The model's digest pins what was drawn, so that nobody has to draw it again.

    Raises:
        MalformedError: the manifest is not a perceptron's, the seed negative, or the grid unfit for the weights.
    """
    perceptron_widths(manifest)
    if seed < 0:
        raise MalformedError("a seed is not negative")
    rng = np.random.Generator(np.random.PCG64(seed))
    parts: list[npt.NDArray[np.float32]] = []
    for spec in manifest.tensors:
        if len(spec.shape) == 2:
            limit = float(np.sqrt(6.0 / spec.shape[1]))
            parts.append(rng.uniform(-limit, limit, size=spec.coordinates).astype(np.float32))
        else:
            parts.append(np.zeros(spec.coordinates, dtype=np.float32))
    return snapshot_from_float(manifest, grid_exponent, np.concatenate(parts))
