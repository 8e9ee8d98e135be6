"""The demo's task: schedule, shares and baselines, on a small table of made rocks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install sfrl-secure[learning]")

from sfrl_secure.demo.baselines import metric_alone, metric_dense, metrics_alone  # noqa: E402
from sfrl_secure.demo.rocks import FEATURE_NAMES, REGIONS, Rocks, split_by_reference  # noqa: E402
from sfrl_secure.demo.scaling import BASALT, basalt_scaling  # noqa: E402
from sfrl_secure.demo.task import (  # noqa: E402
    GRID_EXPONENT,
    HELD_OUT_FRACTION,
    ROUNDS,
    WEIGHT_MAX,
    coordinates_to_send,
    first_model,
    held_out_samples,
    rock_manifest,
    rover_samples,
    rover_update,
    training_of_round,
)
from sfrl_secure.errors import MalformedError  # noqa: E402
from sfrl_secure.learning.evaluate import accuracy  # noqa: E402
from sfrl_secure.learning.mlp import use_one_thread  # noqa: E402
from sfrl_secure.learning.samples import Samples  # noqa: E402
from sfrl_secure.limits import COHORT_MAX, WEIGHT_SUM_MAX  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    use_one_thread()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


@pytest.fixture(scope="module")
def made_rocks() -> Rocks:
    """Rocks whose eon shows in three features; each region lacks one eon, so that no rover can learn all alone."""
    rng = np.random.default_rng(1)
    n = 1_500
    region = rng.integers(0, REGIONS, n)
    eon = (region + rng.integers(0, 2, n)) % 3
    typical = np.array([BASALT[name][0] for name in FEATURE_NAMES])
    features = typical * np.exp(rng.normal(0.0, 0.05, (n, len(FEATURE_NAMES))))
    features[np.arange(n), eon] *= 1.5
    return Rocks(features, eon, region, np.arange(n), tuple(f"reference {i}" for i in range(n)))


def test_the_demo_stays_inside_the_limits_and_the_promised_sizes() -> None:
    manifest = rock_manifest()
    assert manifest.coordinates == 39_427
    assert coordinates_to_send(manifest) == 394
    assert REGIONS * WEIGHT_MAX <= WEIGHT_SUM_MAX
    assert REGIONS <= COHORT_MAX
    assert first_model(1).grid_exponent == GRID_EXPONENT
    assert first_model(1).to_bytes() != first_model(2).to_bytes()


def test_the_learning_rate_falls_from_the_first_round_to_the_last() -> None:
    rates = [training_of_round(number, ROUNDS).learning_rate for number in range(1, ROUNDS + 1)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == pytest.approx(20 * rates[-1])
    assert training_of_round(ROUNDS + 5, ROUNDS) == training_of_round(ROUNDS, ROUNDS)
    assert training_of_round(1, 1).learning_rate == rates[0]
    for number, rounds in ((0, 3), (1, 0)):
        with pytest.raises(MalformedError):
            training_of_round(number, rounds)


def test_shares_and_held_out_rocks_are_all_rocks_each_once(made_rocks: Rocks) -> None:
    scaling = basalt_scaling()
    shares = [rover_samples(made_rocks, scaling, region=region, seed=3) for region in range(REGIONS)]
    held_out = held_out_samples(made_rocks, scaling, seed=3)
    assert sum(map(len, shares)) + len(held_out) == len(made_rocks.eon)
    train, test = split_by_reference(made_rocks, 3, HELD_OUT_FRACTION)
    for region, share in enumerate(shares):
        assert share.labels.tolist() == made_rocks.eon[train & (made_rocks.region == region)].tolist()
    assert held_out.labels.tolist() == made_rocks.eon[test].tolist()
    assert held_out.inputs.shape[1] == 2 * len(FEATURE_NAMES)


def test_each_seed_round_and_region_trains_in_an_order_of_its_own(made_rocks: Rocks) -> None:
    model = first_model(1)
    share = rover_samples(made_rocks, basalt_scaling(), region=0, seed=3)

    def update(region: int, seed: int, number: int, rounds: int = ROUNDS) -> bytes:
        return rover_update(
            model.to_float32(), model.manifest, share, region=region, seed=seed, round_number=number, rounds=rounds
        ).tobytes()

    assert update(0, 1, 1) == update(0, 1, 1)
    # Rounds 1 and 2 of very many have the same learning rate to the bit of a float32, and differ by their order alone.
    assert len({update(0, 1, 1), update(1, 1, 1), update(0, 2, 1), update(0, 1, 2, 10**9)}) == 4


def test_dense_averaging_learns_what_no_rover_learns_alone(made_rocks: Rocks) -> None:
    scaling = basalt_scaling()
    first = first_model(3)
    shares = [rover_samples(made_rocks, scaling, region=region, seed=3) for region in range(REGIONS)]
    held_out = held_out_samples(made_rocks, scaling, seed=3)
    weights = first.to_float32()
    alone = metrics_alone(weights, first.manifest, shares, held_out, seed=3, rounds=6)
    dense = metric_dense(weights, first.manifest, shares, held_out, seed=3, rounds=6)
    assert len(alone) == REGIONS
    # Two of three eons at home: two thirds of the rocks at best.
    assert 0.5 < np.mean(alone) < 0.75
    assert dense > 0.9 > accuracy(weights, first.manifest, held_out)
    assert metric_alone(weights, first.manifest, shares, held_out, seed=3, rounds=6) == pytest.approx(np.mean(alone))


def test_dense_averaging_weighs_by_the_number_of_rocks(made_rocks: Rocks) -> None:
    scaling = basalt_scaling()
    first = first_model(3)
    # Region 0 never sees eon 2; the second rover has one rock, which it takes for eon 2, and sways a mean of equals.
    many = rover_samples(made_rocks, scaling, region=0, seed=3)
    one = Samples(many.inputs[:1], np.array([2]))
    held_out = held_out_samples(made_rocks, scaling, seed=3)
    as_eon_2 = Samples(held_out.inputs, np.full(len(held_out), 2))
    share_taken_for_eon_2 = metric_dense(first.to_float32(), first.manifest, [many, one], as_eon_2, seed=3, rounds=2)
    assert share_taken_for_eon_2 < 0.05
