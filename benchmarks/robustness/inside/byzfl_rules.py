"""ByzFL's rules over given vectors.

    python byzfl_rules.py INPUTS OUTPUTS

INPUTS is an .npz file with `liars` and cohorts `0`, `1`, ...: float64, (updates, coordinates). OUTPUTS becomes one
with `RULE/0`, `RULE/1`, ... for each rule.

Runs in: an environment with byzfl.
Trusts: the inputs.
"""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np

# Its own benchmark, which the package imports, wants torchvision; the rules do not.
sys.modules["byzfl.benchmark"] = ModuleType("byzfl.benchmark")

from byzfl import NNM, Krum, Median, MultiKrum, TrMean  # noqa: E402


def main() -> None:
    """Apply every rule to every cohort."""
    with np.load(sys.argv[1], allow_pickle=False) as inputs:
        liars = int(inputs["liars"])
        cohorts = {name: inputs[name] for name in inputs.files if name != "liars"}
    rules = {
        "trimmed_mean": TrMean(liars),
        "nnm_trimmed_mean": lambda cohort: TrMean(liars)(NNM(liars)(cohort)),
        "median": Median(),
        "krum": Krum(liars),
        "multi_krum": MultiKrum(liars),
    }
    np.savez(sys.argv[2], **{f"{rule}/{name}": apply(cohort) for rule, apply in rules.items()
                             for name, cohort in cohorts.items()})


if __name__ == "__main__":
    main()
