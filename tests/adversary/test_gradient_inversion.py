"""Gradient inversion: what a batch of one gives away, that an unguarded round would let it out, and that the gate does
not.

The attack needs no search. The first layer of a perceptron has, for each hidden unit, a gradient of its weights that is
the input times the gradient of its bias: one divided by the other is the input. The bias of the last layer rises at the
label and falls everywhere else (Zhao et al. 2020, "iDLG"); where inputs are negative, or weights decay, it is the one
that moves against all others, or by far the most. A step of descent is a gradient times a number, so a model
update says the same. The rock is a reference material of the USGS, BHVO-2, a basalt from Kilauea.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install sfrl-secure[learning]")

from simulator import Simulator, submission  # noqa: E402
from torch.nn import functional  # noqa: E402

from sfrl_secure.errors import DeniedError  # noqa: E402
from sfrl_secure.governance.manifest import ModelManifest, TensorSpec  # noqa: E402
from sfrl_secure.governance.statements import Evidence, PayloadFormat, UpdateRefused  # noqa: E402
from sfrl_secure.governance.terms import (  # noqa: E402
    LeakageBound,
    LeakageTerms,
    ModelTerms,
    UpdateLimits,
)
from sfrl_secure.ids import sha256  # noqa: E402
from sfrl_secure.learning.local import LocalTraining, train_locally  # noqa: E402
from sfrl_secure.learning.mlp import use_one_thread  # noqa: E402
from sfrl_secure.learning.perceptron import initial_model, perceptron_manifest  # noqa: E402
from sfrl_secure.learning.samples import Samples  # noqa: E402
from sfrl_secure.learning.tensors import unflatten  # noqa: E402
from sfrl_secure.rounds.measuring import measured  # noqa: E402
from sfrl_secure.sparse.decode import decode_update  # noqa: E402
from sfrl_secure.sparse.encode import EncodedUpdate, encode_update, payload_root  # noqa: E402
from sfrl_secure.sparse.expected import ExpectedPayload  # noqa: E402
from sfrl_secure.sparse.header import ValueType  # noqa: E402
from sfrl_secure.wire.audit_service import AppendedEntry  # noqa: E402

GRID = 30
BHVO_2 = {
    "SiO2": 49.9, "TiO2": 2.73, "Al2O3": 13.5, "Fe2O3T": 12.3, "MnO": 0.17,
    "MgO": 7.23, "CaO": 11.4, "Na2O": 2.22, "K2O": 0.52, "P2O5": 0.27,
}  # fmt: skip
"""Weight percent, as the certificate of analysis gives them."""

SCALE = 10.0

LABELS = 6
LABEL = 4
ROCKS = perceptron_manifest((len(BHVO_2), 16, LABELS))
FIRST = initial_model(ROCKS, 5, GRID).to_float32()
ONE_STEP = {"steps": 1, "learning_rate": 0.1, "momentum": 0.0}

Floats = npt.NDArray[np.float64]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    use_one_thread()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


# What the rover does


def scaled(percent: Floats) -> npt.NDArray[np.float32]:
    """Oxides as a rover feeds them."""
    return (percent / SCALE).astype(np.float32)


def one_rock() -> Samples:
    return Samples(scaled(np.array([list(BHVO_2.values())])), np.array([LABEL]))


def many_rocks(count: int = 32) -> Samples:
    """Rocks of all kinds: the basalt's oxides, each between nothing and three times of it; every label."""
    rng = np.random.default_rng(7)
    percent = np.array(list(BHVO_2.values())) * rng.uniform(0.0, 3.0, (count, len(BHVO_2)))
    return Samples(scaled(percent), np.arange(count) % LABELS)


def learnt_from(samples: Samples) -> Floats:
    """What one step of descent over all samples at once changes."""
    training = LocalTraining(batch=len(samples), **ONE_STEP)
    return train_locally(FIRST, ROCKS, samples, training=training, seed=0).astype(np.float64)


def encoded(delta: Floats, value_type: ValueType = "fp32") -> EncodedUpdate:
    indices = np.flatnonzero(delta).astype(np.int64)
    return encode_update(
        delta.size, indices, delta[indices], value_type=value_type, grid_exponent=GRID, rng=np.random.default_rng(1)
    )


# What the outsider does, with the payload alone


@dataclass(frozen=True)
class Inverted:
    """What somebody who has the payload and the manifest makes of it.

    Attributes:
        guesses: an input for each hidden unit that changed.
        labels: those that the last layer raises.
    """

    guesses: Floats
    labels: list[int]


def invert(payload: bytes, nonzeros: int, value_type: ValueType = "fp32") -> Inverted:
    update = decode_update(payload, ExpectedPayload(
        coordinates=ROCKS.coordinates, nonzeros=nonzeros, support="free", value_type=value_type, grid_exponent=GRID,
        payload_bytes=len(payload), root=payload_root(payload),
    ))  # fmt: skip
    flat = np.zeros(ROCKS.coordinates, dtype=np.float32)
    flat[update.indices] = update.values * 2.0**-GRID
    found = unflatten(flat, ROCKS)
    weight, bias = found["layer1.weight"].astype(np.float64), found["layer1.bias"].astype(np.float64)
    active = np.abs(bias) > 2.0**-20
    return Inverted(weight[active] / bias[active, None], np.flatnonzero(found["layer2.bias"] > 0).tolist())


def error_to(samples: Samples, guesses: Floats) -> float:
    """The smallest distance of a guess to a sample, as a share of the sample's length."""
    truth = samples.inputs.astype(np.float64)
    distances = np.linalg.norm(guesses[:, None, :] - truth[None, :, :], axis=2) / np.linalg.norm(truth, axis=1)
    return float(distances.min())


# The federation


def terms_of(manifest: ModelManifest, tensors: list[str], **leakage: Any) -> dict[str, Any]:
    gate = {"nonzeros_min": 1, "weight_min": 1, "noise_std_min": 0, "rows": (), "labels": (), **leakage}
    return {
        "model": ModelTerms(manifest, GRID, sha256(b"the model before round 1")),
        "tensors": tensors,
        "value_types": ["fp32", "int8"],
        "limits": UpdateLimits(
            payload_bytes_max=2**20, nonzeros_max=manifest.coordinates, norm_max=2**40, magnitude_max=2**36,
            weight_max=100,
        ),
        "leakage": LeakageTerms(**gate),
    }  # fmt: skip


PERMIT = '@id("permit") permit (principal, action, resource);'
GUARDED = {"labels": (LeakageBound("layer2.bias", 0, 2),)}
GUARDED_UNITS = {"rows": (LeakageBound("layer1.weight", 0, 12),)}


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Callable[..., Simulator]]:
    """Make a federation over rocks with a leakage gate, and open its round."""
    made: list[Simulator] = []

    def make(manifest: ModelManifest = ROCKS, **leakage: Any) -> Simulator:
        names = [tensor.name for tensor in manifest.tensors]
        terms = terms_of(manifest, names, **leakage)
        made.append(Simulator(tmp_path / str(len(made)), terms=terms, rules=PERMIT))
        made[-1].open_round()
        return made[-1]

    yield make
    for each in made:
        each.close()


def send(sim: Simulator, update: EncodedUpdate, value_type: str = "fp32", **header: Any) -> AppendedEntry:
    """Submit as rover 1, whose own look at the update is left out: this rover is careless."""
    signed = sim.update(
        "rover-1", payload=update.payload, nonzeros=update.update.nonzeros,
        format=PayloadFormat(2, "free", value_type), **header,
    )  # fmt: skip
    answer = sim.gatekeeper().admitter.submit(submission("rover-1", signed))
    assert isinstance(answer, AppendedEntry)
    return answer


def refused(sim: Simulator, update: EncodedUpdate, reason: str, **header: Any) -> None:
    """The gatekeeper refuses, the log has it with the payload as evidence, and the SDK would have said the same."""
    with pytest.raises(DeniedError) as denied:
        send(sim, update, **header)
    assert denied.value.reason == reason
    assert denied.value.entry_index == len(sim.log.raw) - 1
    body = sim.log.statement_at(len(sim.log.raw) - 1).body
    assert isinstance(body, UpdateRefused)
    assert (body.reason, body.evidence) == (reason, Evidence.OBJECT)
    assert sim.segment.rounds[1].admissions == {}
    with pytest.raises(DeniedError) as at_home:
        measured(sim.segment.terms, update.parts()).check_leakage(header.get("noise_std", 0))
    assert at_home.value.reason == reason


# A batch of one


@pytest.mark.parametrize(("value_type", "error_max"), [("fp32", 1e-4), ("int8", 0.05)])
def test_an_unguarded_round_gives_away_the_rock_and_its_label(
    federation: Callable[..., Simulator], value_type: ValueType, error_max: float
) -> None:
    sim, rock = federation(), one_rock()
    update = encoded(learnt_from(rock), value_type)
    send(sim, update, value_type)
    admission = sim.segment.rounds[1].admissions["rover-1"]
    # Whoever may read the stored payload has the rock, digit for digit; without search, model or luck.
    stored = sim.objects.get(admission.update.payload_sha256, 2**20)
    inverted = invert(stored, admission.update.nonzeros, value_type)
    assert inverted.labels == [LABEL]
    assert error_to(rock, inverted.guesses) < error_max
    if value_type == "fp32":
        oxides = np.median(inverted.guesses, axis=0) * SCALE
        assert dict(zip(BHVO_2, np.round(oxides, 2).tolist(), strict=True)) == BHVO_2


def test_a_round_with_a_label_bound_refuses_it(federation: Callable[..., Simulator]) -> None:
    refused(federation(**GUARDED), encoded(learnt_from(one_rock())), "leak_labels")


def test_rocks_of_one_kind_are_refused_however_many(federation: Callable[..., Simulator]) -> None:
    rocks = many_rocks()
    alike = Samples(rocks.inputs, np.full(len(rocks), LABEL))
    refused(federation(**GUARDED), encoded(learnt_from(alike)), "leak_labels")


def test_leaving_the_guarded_layer_out_gets_past_the_gate_and_hides_the_label(
    federation: Callable[..., Simulator],
) -> None:
    """What the gate cannot see, and says so: the first layer still has the rock."""
    rock = one_rock()
    delta = learnt_from(rock)
    delta[-LABELS:] = 0.0
    update = encoded(delta)
    send(federation(**GUARDED), update)
    inverted = invert(update.payload, update.update.nonzeros)
    assert inverted.labels == []
    assert error_to(rock, inverted.guesses) < 1e-4
    # A rock moves the hidden units that it makes active, and no others: terms can ask for more of them.
    refused(federation(**GUARDED_UNITS), update, "leak_rows")
    send(federation(**GUARDED_UNITS), encoded(learnt_from(many_rocks())))


# A batch of many


def test_many_rocks_of_many_kinds_are_admitted_and_give_none_away(federation: Callable[..., Simulator]) -> None:
    rocks = many_rocks()
    update = encoded(learnt_from(rocks))
    send(federation(**GUARDED), update)
    inverted = invert(update.payload, update.update.nonzeros)
    assert 2 <= len(inverted.labels) <= LABELS - 2
    assert error_to(rocks, inverted.guesses) > 0.1


# A last layer whose inputs have both signs, and one whose weights decay


KINDS_OF_ROCK, UNITS = 10, 64
HEAD = ModelManifest((TensorSpec("head.weight", (KINDS_OF_ROCK, UNITS), "int32"),))
GUARDED_HEAD = {"labels": (LeakageBound("head.weight", 0, 2),)}
BIAS = ModelManifest((TensorSpec("head.bias", (KINDS_OF_ROCK,), "int32"),))
GUARDED_BIAS = {"labels": (LeakageBound("head.bias", 0, 2),)}


def errors_of(scores: Floats, kinds: Floats) -> Floats:
    """What cross-entropy says each score should have been less, a row for each example."""
    likely = np.exp(scores - scores.max(axis=1, keepdims=True))
    likely /= likely.sum(axis=1, keepdims=True)
    return likely - (np.arange(KINDS_OF_ROCK) == kinds[:, None])


def head_learnt(seed: int, count: int) -> tuple[Floats, int]:
    """A step of a last layer behind tanh, and the label of the first example."""
    rng = np.random.default_rng(seed)
    units, weight = np.tanh(rng.normal(size=(count, UNITS))), rng.normal(size=(KINDS_OF_ROCK, UNITS)) * 0.1
    kinds = rng.integers(0, KINDS_OF_ROCK, count)
    return -0.1 * (errors_of(units @ weight.T, kinds).T @ units).reshape(-1) / count, int(kinds[0])


def bias_learnt(seed: int, count: int) -> tuple[Floats, int]:
    """A step with weight decay of the bias of a model that is sure of itself, and the label of the first example.

    The first example moves its label more than nine times as far as any decays: the model had not learnt it yet. Of
    one that it had, the step is mostly decay, and the gate makes no difference.
    """
    rng = np.random.default_rng(seed)
    decay = 5e-4 * rng.normal(size=KINDS_OF_ROCK)
    while True:
        kinds = rng.integers(0, KINDS_OF_ROCK, count)
        errors = errors_of(rng.normal(size=(count, KINDS_OF_ROCK)) * 12, kinds)
        if -errors[0, kinds[0]] > 9 * np.abs(decay).max():
            return -0.1 * (errors.mean(axis=0) + decay), int(kinds[0])


def odd_one_out(delta: Floats) -> int:
    """The row whose sum has another sign than all others."""
    raised = delta.reshape(KINDS_OF_ROCK, -1).sum(axis=1) > 0
    return int(np.flatnonzero(raised != (raised.sum() > KINDS_OF_ROCK // 2))[0])


STEPS = [
    pytest.param(HEAD, GUARDED_HEAD, head_learnt, odd_one_out, id="inputs of both signs"),
    pytest.param(BIAS, GUARDED_BIAS, bias_learnt, lambda delta: int(np.argmax(delta)), id="weight decay"),
]


@pytest.mark.parametrize(("manifest", "guard", "learnt", "read"), STEPS)
def test_no_sign_of_the_inputs_and_no_decay_gets_one_label_past_the_gate(
    federation: Callable[..., Simulator], manifest: ModelManifest, guard: dict[str, Any],
    learnt: Callable[[int, int], tuple[Floats, int]], read: Callable[[Floats], int],
) -> None:  # fmt: skip
    sim = federation(manifest, **guard)
    rising = 0
    for seed in range(200):
        delta, label = learnt(seed, 1)
        assert read(delta) == label
        rising += np.count_nonzero(delta.reshape(KINDS_OF_ROCK, -1).sum(axis=1) > 0) >= 2
        with pytest.raises(DeniedError) as denied:
            measured(sim.segment.terms, encoded(delta).parts()).check_leakage(0)
        assert denied.value.reason == "leak_labels"
    # To count what rises would not do.
    assert rising > 50
    refused(sim, encoded(learnt(0, 1)[0]), "leak_labels")


@pytest.mark.parametrize(("manifest", "guard", "learnt", "read"), STEPS)
def test_batches_of_many_labels_pass_it_nearly_all(
    federation: Callable[..., Simulator], manifest: ModelManifest, guard: dict[str, Any],
    learnt: Callable[[int, int], tuple[Floats, int]], read: object,
) -> None:  # fmt: skip
    sim = federation(manifest, **guard)
    held_up = 0
    for seed in range(200):
        try:
            measured(sim.segment.terms, encoded(learnt(seed, 64)[0]).parts()).check_leakage(0)
        except DeniedError:
            held_up += 1
    assert held_up <= 6
    send(sim, encoded(learnt(0, 64)[0]))


# Noise


def test_noise_that_was_claimed_and_not_added_is_refused(federation: Callable[..., Simulator]) -> None:
    noise_std = 2**28  # a quarter, in parameter units: more than any value of a step
    sim = federation(noise_std_min=noise_std)
    refused(sim, encoded(learnt_from(one_rock())), "leak_noise", noise_std=noise_std)


def test_noise_that_was_added_is_admitted_and_hides_the_rock(federation: Callable[..., Simulator]) -> None:
    noise_std, rock = 2**28, one_rock()
    noise = np.random.default_rng(3).normal(0.0, noise_std * 2.0**-GRID, ROCKS.coordinates)
    update = encoded(learnt_from(rock) + noise)
    send(federation(noise_std_min=noise_std), update, noise_std=noise_std)
    assert error_to(rock, invert(update.payload, update.update.nonzeros).guesses) > 0.3


# An embedding


TOKENS, WIDTH, KINDS = 200, 8, 3
TEXTS = ModelManifest(
    (
        TensorSpec("embedding", (TOKENS, WIDTH), "int32"),
        TensorSpec("head.weight", (KINDS, WIDTH), "int32"),
        TensorSpec("head.bias", (KINDS,), "int32"),
    )
)
GUARDED_TOKENS = {"rows": (LeakageBound("embedding", 0, 40),)}


def learnt_from_texts(texts: list[list[int]], kinds: list[int]) -> Floats:
    """One step of descent of a classifier over the mean of its tokens' embeddings."""
    generator = torch.Generator().manual_seed(5)
    embedding = torch.randn((TOKENS, WIDTH), generator=generator, requires_grad=True)
    weight = torch.randn((KINDS, WIDTH), generator=generator, requires_grad=True)
    bias = torch.zeros(KINDS, requires_grad=True)
    scores = torch.stack([embedding[text].mean(dim=0) for text in texts]) @ weight.T + bias
    functional.cross_entropy(scores, torch.tensor(kinds)).backward()
    flat = [parameter.grad.reshape(-1).numpy() for parameter in (embedding, weight, bias)]
    return -0.1 * np.concatenate(flat).astype(np.float64)


def tokens_in(update: EncodedUpdate) -> set[int]:
    """What the support alone says."""
    return {int(index) // WIDTH for index in update.update.indices if index < TOKENS * WIDTH}


def test_an_embeddings_support_names_the_words_of_a_text_and_the_gate_refuses_it(
    federation: Callable[..., Simulator],
) -> None:
    text = [3, 17, 99, 150]
    update = encoded(learnt_from_texts([text], [1]))
    assert tokens_in(update) == set(text)
    send(federation(TEXTS), update)
    refused(federation(TEXTS, **GUARDED_TOKENS), update, "leak_rows")


def test_many_texts_are_admitted_and_no_text_is_the_support(federation: Callable[..., Simulator]) -> None:
    rng = np.random.default_rng(2)
    texts = [sorted(rng.choice(TOKENS, 6, replace=False).tolist()) for _ in range(30)]
    update = encoded(learnt_from_texts(texts, [number % KINDS for number in range(30)]))
    send(federation(TEXTS, **GUARDED_TOKENS), update)
    assert len(tokens_in(update)) > 10 * len(texts[0])

