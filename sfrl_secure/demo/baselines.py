"""What the shared sparse model is compared with: rovers alone, and dense federated averaging.

Both start from the same first model, use the same rocks in the same order, and take the same number of steps as the
rovers of the demo. Alone, a rover keeps its own model and never hears of the others. Dense is federated averaging
(McMahan et al. 2017) in floating point: every coordinate, no rounding, no codec. Both run in one process, on one
thread, and are no part of the protocol.

Runs in: participant, in the demo alone.
Trusts: its caller.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import numpy as np
import numpy.typing as npt

from sfrl_secure.demo.task import ROUNDS, rover_update
from sfrl_secure.governance.manifest import ModelManifest
from sfrl_secure.learning.evaluate import accuracy
from sfrl_secure.learning.samples import Samples


def metrics_alone(
    first: npt.NDArray[np.float32],
    manifest: ModelManifest,
    shares: Sequence[Samples],
    held_out: Samples,
    *,
    seed: int,
    rounds: int = ROUNDS,
) -> list[float]:
    """Train each rover on its own rocks alone; give each one's accuracy on the held-out rocks of all regions.

    Args:
        first: float32, (manifest.coordinates,), the model before round 1.
        shares: the training rocks of each region, in the order of regions.
    """
    metrics = []
    for region, samples in enumerate(shares):
        weights = first
        for number in range(1, rounds + 1):
            weights = weights + rover_update(
                weights, manifest, samples, region=region, seed=seed, round_number=number, rounds=rounds
            )
        metrics.append(accuracy(weights, manifest, held_out))
    return metrics


def metric_alone(
    first: npt.NDArray[np.float32],
    manifest: ModelManifest,
    shares: Sequence[Samples],
    held_out: Samples,
    *,
    seed: int,
    rounds: int = ROUNDS,
) -> float:
    """Give the mean over the rovers of `metrics_alone`."""
    return fmean(metrics_alone(first, manifest, shares, held_out, seed=seed, rounds=rounds))


def metric_dense(
    first: npt.NDArray[np.float32],
    manifest: ModelManifest,
    shares: Sequence[Samples],
    held_out: Samples,
    *,
    seed: int,
    rounds: int = ROUNDS,
) -> float:
    """Give the accuracy that dense federated averaging reaches on the held-out rocks.

    Args: as `metrics_alone`.
    """
    weights = first
    total = sum(len(samples) for samples in shares)
    for number in range(1, rounds + 1):
        step = np.zeros(manifest.coordinates, dtype=np.float64)
        for region, samples in enumerate(shares):
            update = rover_update(
                weights, manifest, samples, region=region, seed=seed, round_number=number, rounds=rounds
            )
            step += len(samples) * update.astype(np.float64)
        weights = weights + (step / total).astype(np.float32)
    return accuracy(weights, manifest, held_out)
