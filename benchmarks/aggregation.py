"""Adding up a round: how fast, in how much memory, and what a mask costs.

100 updates of a hundredth of 11.2 million coordinates, and 1,000 of a thousandth, each with a support of its own:
random ones, and in the full run, of 40 participants, those that a real round would send (`supports`). Rates are million
values a second of one thread, in its CPU time; those that are compared take turns, ten updates each, so that a
neighbour disturbs all alike. Figures are medians, with the quartiles beside them.

`mnnz_s_numpy` and `mnnz_s_numba` are `RunningMean` under `weighted_mean/v1`, from decoded updates into the sum of the
whole model, with all of its checks; `..._decode` the same from payload bytes, with every rule of the codec but the
hashes (L1, T4), and `..._digest` with those too. `union_mnnz_s_...` are `union_mean/v1`, which adds weights as well,
and `counted_mnnz_s_...` the weighted mean that counts carriers beside it. `add_at_ratio` is the union's rate in numpy
over that of `np.add.at` into an int64 numerator and an int64 denominator, of products that were made before.
`cohort_mnnz_s_...` are a cohort that is all there, from `combine` to the finished step, division and all.

`bytes_per_coordinate` is the most resident memory that a process takes beyond what it had, from 100 payloads to the
step: the larger one of the two means, with both counts. `bytes_per_coordinate_tenth` is the same with 10 payloads.

`nnm_agreed_seconds` and `nnm_free_seconds` are `nnm_trimmed_mean/v1` with a fifth of liars over 100 updates that are
decoded, on two threads, by the clock on the wall: one support that all agreed on, and one of its own for each. BLAS
has one thread then.

`mask_bytes` is a mask of a hundredth: by the codec, as a bitmap, as one byte a coordinate, and as run lengths (LEB128).

Runs in: a developer's machine.
Trusts: nothing.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.aggregation_memory import peak_bytes
from benchmarks.aggregation_nnm import nnm_seconds
from benchmarks.aggregation_sums import Prepared, prepared, sum_rates
from benchmarks.pseudo_gradient import PARAMETERS, pseudo_gradients
from benchmarks.supports import Support, random_supports, top
from sfrl_secure.errors import SfrlError
from sfrl_secure.governance.aggregation_terms import UNION_MEAN, WEIGHTED_MEAN
from sfrl_secure.sparse.mask import encode_mask

UPDATES, SHARE = 100, 100
GRADIENTS = 40
"""Participants whose change is a real one: each of them trains."""


def run(quick: bool, folder: Path | None = None) -> dict[str, Any]:
    """Take all figures. Payloads for the processes that are measured alone are written into `folder`."""
    rng = np.random.default_rng(0)
    errors: list[str] = []
    updates = prepared(_random(UPDATES, SHARE, rng), rng)
    figures: dict[str, Any] = {"coordinates": PARAMETERS, "updates": UPDATES, "nonzeros": updates[0].nonzeros}
    try:
        figures |= sum_rates(updates, turns=1 if quick else 4)
        figures |= _alone(updates, folder, nnm_repeats=3 if quick else 9)
        figures["mask_bytes"] = mask_bytes(updates[0].part.indices)
        updates = prepared(_random(10 * UPDATES, 10 * SHARE, rng), rng)
        many = {"updates": len(updates), "nonzeros": updates[0].nonzeros}
        figures["thousand"] = many | sum_rates(updates, turns=1 if quick else 2, group=100) | _alone(updates, folder)
        if not quick:
            changes = pseudo_gradients(GRADIENTS, warm_steps=20, local_steps=4, batch=16)
            updates = prepared([top(each, PARAMETERS // SHARE) for each in changes], rng)
            real = {"updates": len(updates), "mask_bytes": mask_bytes(updates[0].part.indices)}
            figures["gradient"] = real | sum_rates(updates, turns=3) | _alone(updates, folder, nnm_repeats=5)
    except (SfrlError, subprocess.CalledProcessError) as error:
        errors.append(f"{error}")
    return figures | {"errors": errors}


def _random(count: int, share: int, rng: np.random.Generator) -> list[Support]:
    k = PARAMETERS // share
    # As the largest of a change are: above a threshold, and fewer the larger.
    values = ((1 + rng.exponential(1, k)) * rng.choice([-1e-3, 1e-3], k)).astype(np.float32)
    return list(random_supports(PARAMETERS, k, values, count, rng))


def _alone(updates: list[Prepared], folder: Path | None, nnm_repeats: int = 0) -> dict[str, Any]:
    """What processes of their own take: memory; and time, where it is to be measured."""
    figures: dict[str, Any] = {}
    with TemporaryDirectory(dir=folder) as name:
        for number, update in enumerate(updates):
            (Path(name) / f"{number}.payload").write_bytes(update.payload)
        for key, count in (("", len(updates)), ("_tenth", max(1, len(updates) // 10))):
            most = max(peak_bytes(Path(name), rule, count) for rule in (WEIGHTED_MEAN, UNION_MEAN))
            figures["bytes_per_coordinate" + key] = round(most / PARAMETERS, 2)
        if nnm_repeats:
            for kind, seconds in nnm_seconds(Path(name), len(updates), nnm_repeats).items():
                figures[f"nnm_{kind}_seconds"] = round(median(seconds), 3)
                figures[f"nnm_{kind}_seconds_range"] = [round(min(seconds), 3), round(max(seconds), 3)]
    return figures


def mask_bytes(indices: NDArray[np.int64]) -> dict[str, float]:
    """What the mask of these coordinates takes in four forms, and the share that the codec saves of the others."""
    forms = {
        "codec": len(encode_mask(PARAMETERS, indices)),
        "bitmap": -(-PARAMETERS // 8),
        "bool_array": PARAMETERS,
        "run_lengths": run_length_bytes(indices),
    }
    saved = {f"saved_of_{name}": round(1 - forms["codec"] / size, 4) for name, size in forms.items() if name != "codec"}
    return {**forms, **saved}


def run_length_bytes(indices: NDArray[np.int64]) -> int:
    """Bytes of alternating runs of coordinates that are not in the mask and that are, each length in LEB128."""
    ends = np.flatnonzero(np.diff(indices) != 1)
    starts_of_runs = indices[np.concatenate([[0], ends + 1])]
    ends_of_runs = indices[np.concatenate([ends, [indices.size - 1]])] + 1
    inside = ends_of_runs - starts_of_runs
    outside = starts_of_runs - np.concatenate([[0], ends_of_runs[:-1]])
    lengths = np.concatenate([inside, outside])
    return int(sum((lengths >= 1 << bits).sum() for bits in range(7, 63, 7)) + lengths.size)
