"""Local training: the same bits again, what it learns, and what it refuses."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install sfrl-secure[learning]")

from sfrl_secure.errors import MalformedError  # noqa: E402
from sfrl_secure.learning.evaluate import accuracy  # noqa: E402
from sfrl_secure.learning.local import LocalTraining, draw_order, train_locally  # noqa: E402
from sfrl_secure.learning.mlp import build_mlp, use_one_thread, weights_of  # noqa: E402
from sfrl_secure.learning.perceptron import initial_model, perceptron_manifest  # noqa: E402
from sfrl_secure.learning.samples import Samples  # noqa: E402

MANIFEST = perceptron_manifest((6, 16, 3))
FIRST = initial_model(MANIFEST, 5, 24).to_float32()
TRAINING = LocalTraining(steps=40, batch=16, learning_rate=0.1, momentum=0.9)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    use_one_thread()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


def clusters(seed: int, n: int = 200) -> Samples:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    inputs = rng.normal(0.0, 0.3, (n, 6))
    inputs[np.arange(n), labels] += 1.0
    return Samples(inputs.astype(np.float32), labels)


def test_one_thread_is_what_torch_then_uses() -> None:
    assert torch.get_num_threads() == 1
    assert torch.are_deterministic_algorithms_enabled()


def test_training_gives_the_same_bits_again_and_others_for_another_seed() -> None:
    first = train_locally(FIRST, MANIFEST, clusters(1), training=TRAINING, seed=3)
    torch.manual_seed(99)  # Nothing global takes part.
    again = train_locally(FIRST, MANIFEST, clusters(1), training=TRAINING, seed=3)
    other = train_locally(FIRST, MANIFEST, clusters(1), training=TRAINING, seed=4)
    assert first.dtype == np.float32
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()


def test_the_first_step_is_the_gradient_of_the_cross_entropy() -> None:
    samples = clusters(1, 8)
    training = LocalTraining(steps=1, batch=8, learning_rate=0.5, momentum=0.0)
    delta = train_locally(FIRST, MANIFEST, samples, training=training, seed=0)

    def loss(weights: np.ndarray) -> float:
        parts = np.split(weights, [96, 112, 160])
        hidden = np.maximum(samples.inputs @ parts[0].reshape(16, 6).T + parts[1], 0.0)
        scores = hidden @ parts[2].reshape(3, 16).T + parts[3]
        return float(np.mean(np.log(np.exp(scores).sum(1)) - scores[np.arange(8), samples.labels]))

    base = FIRST.astype(np.float64)
    for coordinate in (0, 50, 100, 130, 161):
        nudge = np.zeros_like(base)
        nudge[coordinate] = 1e-5
        slope = (loss(base + nudge) - loss(base - nudge)) / 2e-5
        assert delta[coordinate] == pytest.approx(-0.5 * slope, abs=1e-5)


def test_training_learns_and_leaves_its_base_model_alone() -> None:
    before = FIRST.copy()
    delta = train_locally(FIRST, MANIFEST, clusters(1), training=TRAINING, seed=3)
    assert (before == FIRST).all()
    assert accuracy(FIRST, MANIFEST, clusters(2)) < 0.7
    assert accuracy(FIRST + delta, MANIFEST, clusters(2)) > 0.95


def test_momentum_and_steps_count() -> None:
    deltas = {
        train_locally(FIRST, MANIFEST, clusters(1), training=dataclasses.replace(TRAINING, **change), seed=3).tobytes()
        for change in ({}, {"momentum": 0.0}, {"steps": 41}, {"batch": 17}, {"learning_rate": 0.2})
    }
    assert len(deltas) == 5


def test_no_sample_is_used_twice_before_all_others_were_used() -> None:
    order = draw_order(7, 25, 1)
    assert len(order) == 25
    for start in (0, 7, 14):
        assert sorted(order[start : start + 7]) == list(range(7))
    assert len(set(order[21:])) == 4
    assert draw_order(7, 3, 1).tolist() == order[:3].tolist()


def test_a_network_gives_its_weights_back_to_the_bit() -> None:
    assert weights_of(build_mlp(FIRST, MANIFEST), MANIFEST).tobytes() == FIRST.tobytes()


def test_accuracy_counts_right_answers_and_ties_go_to_the_lowest_label() -> None:
    manifest = perceptron_manifest((2, 2))
    identity = np.array([1, 0, 0, 1, 0, 0], dtype=np.float32)
    inputs = np.array([[2, 1], [1, 2], [1, 1], [1, 1]], dtype=np.float32)
    assert accuracy(identity, manifest, Samples(inputs, np.array([0, 0, 0, 1]))) == 0.5


def test_training_that_diverges_is_refused() -> None:
    wild = dataclasses.replace(TRAINING, learning_rate=1e30)
    with pytest.raises(MalformedError, match="diverged"):
        train_locally(FIRST, MANIFEST, clusters(1), training=wild, seed=3)


def test_weights_that_are_not_finite_are_refused() -> None:
    for bad in (np.nan, np.inf):
        weights = FIRST.copy()
        weights[7] = bad
        with pytest.raises(MalformedError, match="finite"):
            accuracy(weights, MANIFEST, clusters(1))


@pytest.mark.parametrize(
    ("inputs", "labels"),
    [
        (np.zeros((2, 6), np.float32), np.zeros(3, np.int64)),
        (np.zeros((0, 6), np.float32), np.zeros(0, np.int64)),
        (np.zeros((2, 6), np.float64), np.zeros(2, np.int64)),
        (np.zeros((2, 6), np.float32), np.zeros(2, np.int32)),
        (np.zeros((2, 6), np.float32), np.zeros((2, 1), np.int64)),
        (np.zeros((2, 6), np.float32), np.array([0, -1])),
        (np.full((2, 6), np.nan, np.float32), np.zeros(2, np.int64)),
        (np.zeros(2, np.float32), np.zeros(2, np.int64)),
    ],
)
def test_samples_that_are_none_are_refused(inputs: np.ndarray, labels: np.ndarray) -> None:
    with pytest.raises(MalformedError):
        Samples(inputs, labels)


def test_samples_that_do_not_fit_the_model_are_refused() -> None:
    for samples in (
        Samples(np.zeros((1, 5), np.float32), np.zeros(1, np.int64)),
        Samples(np.zeros((1, 6), np.float32), np.array([3])),
    ):
        with pytest.raises(MalformedError):
            train_locally(FIRST, MANIFEST, samples, training=TRAINING, seed=1)
        with pytest.raises(MalformedError):
            accuracy(FIRST, MANIFEST, samples)


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 0}, {"batch": 0}, {"learning_rate": 0.0}, {"learning_rate": float("nan")}, {"momentum": 1.0},
        {"momentum": -0.1},
    ],
)  # fmt: skip
def test_training_out_of_range_is_refused(change: dict[str, float]) -> None:
    with pytest.raises(MalformedError):
        dataclasses.replace(TRAINING, **change)
