"""Labelled samples.

Runs in: participant.
Trusts: its caller for the truth of the labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.manifest import ModelManifest
from sfrl_secure.learning.perceptron import perceptron_widths


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Inputs and their labels, one row each.

    Attributes:
        inputs: float32, (n, d), finite.
        labels: int64, (n,), n at least 1, none negative.
    """

    inputs: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.labels.ndim != 1 or self.labels.dtype != np.int64 or len(self.labels) == 0:
            raise MalformedError("labels are an int64 vector, of at least one")
        if self.inputs.ndim != 2 or self.inputs.dtype != np.float32 or len(self.inputs) != len(self.labels):
            raise MalformedError("inputs are float32, one row for each label")
        if not np.isfinite(self.inputs).all() or int(self.labels.min()) < 0:
            raise MalformedError("an input is finite, and a label not negative")

    def __len__(self) -> int:
        return len(self.labels)


def check_fit(samples: Samples, manifest: ModelManifest) -> None:
    """Check that a perceptron of this manifest can take the inputs and has an output for each label.

    Raises:
        MalformedError: it cannot, or has not, or the manifest is not a perceptron's.
    """
    widths = perceptron_widths(manifest)
    if samples.inputs.shape[1] != widths[0]:
        raise MalformedError("the samples have another number of inputs than the model")
    if int(samples.labels.max()) >= widths[-1]:
        raise MalformedError("a label has no output of the model")
