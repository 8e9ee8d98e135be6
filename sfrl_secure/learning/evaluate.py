"""How good a model is on samples that it was not trained on.

Runs in: participant.
Trusts: the samples, and the model, whose digest the caller has checked.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from sfrl_secure.governance.manifest import ModelManifest
from sfrl_secure.learning.mlp import build_mlp
from sfrl_secure.learning.samples import Samples, check_fit


def accuracy(weights: npt.NDArray[np.float32], manifest: ModelManifest, samples: Samples) -> float:
    """Give the share of samples whose label has the highest score, from 0 to 1; of equal scores the lowest label wins.

    Raises:
        MalformedError: weights or samples do not fit the manifest.
    """
    check_fit(samples, manifest)
    with torch.inference_mode():
        scores = build_mlp(weights, manifest)(torch.tensor(samples.inputs)).numpy()
    # numpy's argmax promises the first of equal ones, torch's does not.
    return float(np.count_nonzero(scores.argmax(axis=1) == samples.labels) / len(samples))
