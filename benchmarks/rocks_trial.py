"""The demo's learning, without services: does the shared sparse model meet its bars, on every seed?

The whole path of the numbers is the real one: top-k with error feedback, int8 payloads encoded and decoded, the
integer weighted mean in which missing is zero, the integer model. Only transport, signatures and the log are left out.

    python benchmarks/rocks_trial.py --data .venv/data --seeds 1 2 3 4 5 6

Runs in: a developer's machine.
Trusts: the digests in `demo/rocks.py`.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

import numpy as np

from sfrl_secure.aggregation.weighted_mean import WeightedMean
from sfrl_secure.demo.baselines import metric_alone, metric_dense
from sfrl_secure.demo.rocks import REGIONS, Rocks, load_rocks
from sfrl_secure.demo.scaling import scaling_of
from sfrl_secure.demo.task import (
    GRID_EXPONENT,
    ROUNDS,
    coordinates_to_send,
    first_model,
    held_out_samples,
    rover_samples,
    rover_update,
)
from sfrl_secure.errors import SfrlError
from sfrl_secure.learning.evaluate import accuracy
from sfrl_secure.learning.mlp import use_one_thread
from sfrl_secure.learning.samples import Samples
from sfrl_secure.sparse.decode import decode_update
from sfrl_secure.sparse.encode import encode_update
from sfrl_secure.sparse.topk import ErrorFeedback

GAIN_MIN = 0.06
GAP_MIN = -0.02
BYTES_RATIO_MIN = 40.0


@dataclass(frozen=True, slots=True)
class Trial:
    """One seed's figures; times in seconds, sizes in bytes."""

    seed: int
    held_out: int
    alone: float
    dense: float
    sparse: float
    update_bytes_max: int
    bytes_ratio: float
    seconds: tuple[float, float, float]

    @property
    def gain(self) -> float:
        return self.sparse - self.alone

    @property
    def gap(self) -> float:
        return self.sparse - self.dense

    @property
    def meets_bars(self) -> bool:
        return self.gain >= GAIN_MIN and self.gap >= GAP_MIN and self.bytes_ratio >= BYTES_RATIO_MIN


def train_sparse(shares: list[Samples], *, seed: int, rounds: int) -> tuple[np.ndarray, list[int]]:
    """Run the rounds; give the last model as float32, and the size of each payload."""
    model = first_model(seed)
    manifest = model.manifest
    kept = [ErrorFeedback(manifest.coordinates) for _ in shares]
    noise = [np.random.Generator(np.random.PCG64([seed, region])) for region in range(len(shares))]
    sizes = []
    for number in range(1, rounds + 1):
        mean = WeightedMean(manifest.coordinates)
        weights = model.to_float32()
        for region, samples in enumerate(shares):
            update = rover_update(
                weights, manifest, samples, region=region, seed=seed, round_number=number, rounds=rounds
            )
            indices, values = kept[region].select(update, coordinates_to_send(manifest))
            encoded = encode_update(
                manifest.coordinates, indices, values, value_type="int8", grid_exponent=GRID_EXPONENT, rng=noise[region]
            )
            kept[region].keep(encoded.update, GRID_EXPONENT)
            sent = decode_update(
                encoded.payload,
                coordinates=manifest.coordinates,
                nonzeros=encoded.update.nonzeros,
                value_type="int8",
                grid_exponent=GRID_EXPONENT,
            )
            mean.add(sent.indices, sent.values, len(samples))
            sizes.append(len(encoded.payload))
        model = model.add(mean.result())
    return model.to_float32(), sizes


def run_trial(rocks: Rocks, seed: int, rounds: int) -> Trial:
    """Measure one seed."""
    first = first_model(seed)
    manifest = first.manifest
    scaling = scaling_of(manifest)
    shares = [rover_samples(rocks, scaling, region=region, seed=seed) for region in range(REGIONS)]
    held_out = held_out_samples(rocks, scaling, seed=seed)
    marks = [time.perf_counter()]
    alone = metric_alone(first.to_float32(), manifest, shares, held_out, seed=seed, rounds=rounds)
    marks.append(time.perf_counter())
    dense = metric_dense(first.to_float32(), manifest, shares, held_out, seed=seed, rounds=rounds)
    marks.append(time.perf_counter())
    weights, sizes = train_sparse(shares, seed=seed, rounds=rounds)
    marks.append(time.perf_counter())
    return Trial(
        seed=seed,
        held_out=len(held_out),
        alone=alone,
        dense=dense,
        sparse=accuracy(weights, manifest, held_out),
        update_bytes_max=max(sizes),
        bytes_ratio=4 * manifest.coordinates / max(sizes),
        seconds=(marks[1] - marks[0], marks[2] - marks[1], marks[3] - marks[2]),
    )


def main() -> int:
    """Print the table; 1 where a seed misses a bar."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path(".venv/data"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5, 6])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    use_one_thread()
    try:
        rocks = load_rocks(arguments.data)
    except SfrlError as error:
        print(error, file=sys.stderr)
        return 2
    print("seed  held out  alone  dense  sparse    gain     gap  bytes  ratio  seconds (alone, dense, sparse)")
    trials = []
    for seed in arguments.seeds:
        trial = run_trial(rocks, seed, arguments.rounds)
        trials.append(trial)
        seconds = " ".join(f"{part:.1f}" for part in trial.seconds)
        print(
            f"{seed:4}  {trial.held_out:8}  {trial.alone:.3f}  {trial.dense:.3f}   {trial.sparse:.3f}"
            f"  {trial.gain:+.3f}  {trial.gap:+.3f}  {trial.update_bytes_max:5}  {trial.bytes_ratio:5.0f}  {seconds}",
            flush=True,
        )
    missed = [trial.seed for trial in trials if not trial.meets_bars]
    print(
        f"worst gain {min(trial.gain for trial in trials):+.3f} (bar {GAIN_MIN:+.2f}), worst gap "
        f"{min(trial.gap for trial in trials):+.3f} (bar {GAP_MIN:+.2f}), mean sparse "
        f"{fmean(trial.sparse for trial in trials):.3f}, median update {median(t.update_bytes_max for t in trials):.0f}"
        f" bytes; seeds that miss a bar: {missed or 'none'}"
    )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
