"""The network behind a flat model, in torch.

Runs in: participant.
Trusts: the manifest, whose signatures the caller has verified, and the weights, whose digest the caller has checked.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.manifest import ModelManifest
from sfrl_secure.learning.perceptron import perceptron_widths
from sfrl_secure.learning.tensors import flatten, unflatten


def use_one_thread() -> None:
    """Let torch compute on one thread, by algorithms that give the same bits on each run.

    Called once, at the start of a process that trains, before torch does any work: sums in float32 move with the
    number of threads, and five rovers on two cores would fight for them.
    """
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)


def build_mlp(weights: npt.NDArray[np.float32], manifest: ModelManifest) -> nn.Sequential:
    """Build the network with a copy of the weights.

    Raises:
        MalformedError: the manifest is not a perceptron's, or the weights do not fit it or are not finite.
    """
    widths = perceptron_widths(manifest)
    values = list(unflatten(weights, manifest).values())
    if not np.isfinite(weights).all():
        raise MalformedError("a model's weights are finite")
    layers: list[nn.Module] = []
    for (width_in, width_out), weight, bias in zip(pairwise(widths), values[::2], values[1::2], strict=True):
        # Made empty: torch's own random draw would cost time and move a global generator.
        linear = nn.Linear(width_in, width_out, device="meta").to_empty(device="cpu")
        with torch.no_grad():
            linear.weight.copy_(torch.tensor(weight))
            linear.bias.copy_(torch.tensor(bias))
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def weights_of(net: nn.Sequential, manifest: ModelManifest) -> npt.NDArray[np.float32]:
    """Read the network's weights back as a flat model, float32, (manifest.coordinates,)."""
    values = [parameter.detach().numpy() for parameter in net.parameters()]
    return flatten({spec.name: value for spec, value in zip(manifest.tensors, values, strict=True)}, manifest)
