"""A participant's own training between two rounds.

Minibatch descent with momentum on the cross entropy, for a stated number of steps, so that participants with few and
with many samples move equally far. Each call begins with a fresh optimiser and an order of samples that the seed alone
decides: on one thread the same inputs give the same bits (see `mlp.use_one_thread`).

Runs in: participant.
Trusts: the participant's own samples, and the base model, whose digest the caller has checked.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.manifest import ModelManifest
from sfrl_secure.learning.mlp import build_mlp, weights_of
from sfrl_secure.learning.samples import Samples, check_fit


@dataclass(frozen=True, slots=True)
class LocalTraining:
    """How a participant trains in one round.

    Attributes:
        steps: steps of descent, at least 1.
        batch: samples in one step, at least 1.
        learning_rate: above 0.
        momentum: from 0 to below 1.
    """

    steps: int
    batch: int
    learning_rate: float
    momentum: float

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1:
            raise MalformedError("steps and batch are at least 1")
        if not (self.learning_rate > 0.0 and 0.0 <= self.momentum < 1.0):
            raise MalformedError("the learning rate is above 0, the momentum from 0 to below 1")


def train_locally(
    weights: npt.NDArray[np.float32], manifest: ModelManifest, samples: Samples, *, training: LocalTraining, seed: int
) -> npt.NDArray[np.float32]:
    """Train from the base model and give the difference to it.

    Args:
        weights: float32, (manifest.coordinates,), the base model.
        seed: decides the order of the samples; not negative.

    Returns: float32, (manifest.coordinates,), trained minus base, finite.

    Raises:
        MalformedError: weights or samples do not fit the manifest, or the training diverged.
    """
    check_fit(samples, manifest)
    net = build_mlp(weights, manifest)
    optimiser = torch.optim.SGD(net.parameters(), lr=training.learning_rate, momentum=training.momentum)
    order = draw_order(len(samples.labels), training.steps * training.batch, seed)
    inputs, labels = torch.tensor(samples.inputs[order]), torch.tensor(samples.labels[order])
    for start in range(0, len(order), training.batch):
        batch = slice(start, start + training.batch)
        optimiser.zero_grad()
        functional.cross_entropy(net(inputs[batch]), labels[batch]).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    # A diverged model is infinite or NaN, and so is its difference; numpy need not warn of it as well.
    with np.errstate(invalid="ignore", over="ignore"):
        delta = weights_of(net, manifest) - weights
    if not np.isfinite(delta).all():
        raise MalformedError("training diverged: the learning rate is too high for these samples")
    return delta


def draw_order(samples: int, wanted: int, seed: int) -> npt.NDArray[np.int64]:
    """Draw which samples are used, in which order: one shuffle after the other, so that none is used twice before all
    others were used once.

    Args:
        samples: how many there are, at least 1.
        wanted: how many are used.
        seed: not negative.

    Returns: int64, (wanted,), each below `samples`.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    passes = -(-wanted // samples)
    return np.concatenate([rng.permutation(samples) for _ in range(passes)])[:wanted]
