"""What the attack bench counts on: liars as strong as they say, payloads that a gatekeeper admits, and honest bars."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.__main__ import main
from benchmarks.robustness import attacks, byzfl, federation, plain_rules
from benchmarks.robustness.attacks import ATTACKS, View
from benchmarks.robustness.federation import GRID_EXPONENT, Scene, run
from benchmarks.robustness.figure import figure_of
from benchmarks.robustness.perceptrons import Shape, local_changes
from benchmarks.robustness.plan import Cell, Line, main_rows
from benchmarks.robustness.rows import MEDIAN_CLIP, Row, combined_step
from benchmarks.robustness.run import bars_of, gaps_of
from benchmarks.robustness.tables import tables_text
from benchmarks.robustness.tasks import PARTICIPANTS, SAMPLES_EACH, Task, dirichlet_split
from sfrl_secure.aggregation.rules import RULES
from sfrl_secure.governance.aggregation_terms import (
    MEDIAN,
    MULTI_KRUM,
    NNM_TRIMMED_MEAN,
    UNION_MEAN,
    WEIGHTED_MEAN,
    CapTerms,
)
from sfrl_secure.ids import sha256
from sfrl_secure.sparse.encode import pack_update
from sfrl_secure.sparse.mask import decode_mask, encode_mask
from sfrl_secure.sparse.update import SparseUpdate, UpdatePart

TIES = tuple(sha256(b"%d" % each) for each in range(PARTICIPANTS))


def blobs(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    centres, labels = rng.normal(0, 2, (4, 6)), rng.integers(4, size=1_200)
    inputs = (centres[labels] + rng.normal(0, 1, (1_200, 6))).astype(np.float32)
    return inputs[:1_000], labels[:1_000], inputs[1_000:], labels[1_000:]


BLOBS = Task("blobs", 4, 0.2, blobs)


def scene(**changes: int) -> Scene:
    return Scene(**{"task": BLOBS, "seed": 1, "liars": 4, "rounds": 4, **changes})


def view_of(honest: np.ndarray, liars: int = 4) -> View:
    shape = Shape(6, 24, 4)
    own = np.ones((liars, honest.shape[1]), dtype=np.float32)
    return View(shape, honest, own, np.arange(shape.coordinates), shape.coordinates // 10,
                np.zeros(shape.coordinates, np.float32), honest.sum(axis=0), np.random.default_rng(3))


def honest_vectors(sparse: bool = False) -> np.ndarray:
    rng = np.random.default_rng(2)
    vectors = rng.normal(0.1, 1.0, (16, Shape(6, 24, 4).coordinates)).astype(np.float32)
    if sparse:
        vectors[rng.random(vectors.shape) < 0.9] = 0.0
    return vectors


def test_every_participant_has_as_many_samples_and_a_mixture_of_its_own() -> None:
    labels = np.arange(1_000) % 4
    chosen = dirichlet_split(labels, 4, np.random.default_rng(1))
    assert chosen.shape == (PARTICIPANTS, SAMPLES_EACH)
    shares = [tuple(np.bincount(labels[row], minlength=4)) for row in chosen]
    assert len(set(shares)) == PARTICIPANTS
    # 250 samples of a class are fewer than are wanted of it: all are used before one is used twice.
    often = np.bincount(chosen.reshape(-1), minlength=1_000)
    assert all(often[labels == label].max() - often[labels == label].min() <= 1 for label in range(4))


def test_local_steps_go_down_the_gradient_of_each_participants_own_loss() -> None:
    shape = Shape(3, 5, 4)
    rng = np.random.default_rng(4)
    model = rng.normal(0, 0.5, shape.coordinates).astype(np.float32)
    inputs, labels = rng.normal(0, 1, (2, 1, 7, 3)).astype(np.float32), rng.integers(4, size=(2, 1, 7))
    changes = local_changes(shape, model, inputs, labels, 0.5)

    def loss(values: np.ndarray, participant: int) -> float:
        first, second, third, end = shape.ends
        hidden = np.maximum(
            inputs[participant, 0].astype(float) @ values[:first].reshape(5, 3).T + values[first:second], 0)
        scores = hidden @ values[second:third].reshape(4, 5).T + values[third:end]
        likely = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
        return -float(likely[np.arange(7), labels[participant, 0]].mean())

    for participant in range(2):
        for at in range(shape.coordinates):
            bump = np.zeros(shape.coordinates)
            bump[at] = 1e-5
            slope = (loss(model + bump, participant) - loss(model - bump, participant)) / 2e-5
            assert changes[participant, at] == pytest.approx(-0.5 * slope, abs=1e-4)


@pytest.mark.parametrize("rule", [WEIGHTED_MEAN, UNION_MEAN, NNM_TRIMMED_MEAN, MULTI_KRUM, MEDIAN])
@pytest.mark.parametrize("support", ["dense", "free"])
@pytest.mark.parametrize("largest", [60, 2**20, 2**40])
def test_the_plain_rules_and_the_librarys_give_the_same_bits(rule: str, support: str, largest: int) -> None:
    rng = np.random.default_rng([largest, len(support)])
    for clip, cap in ((None, None), (MEDIAN_CLIP, CapTerms(5, max(1, largest // 9)))):
        updates = []
        for _ in range(11):
            values = rng.integers(-largest, largest, 200, endpoint=True) >> rng.integers(0, 3)
            at = np.flatnonzero((rng.random(200) < 0.6) & (values != 0)) if support == "free" else slice(0, 200)
            updates.append(UpdatePart(at, values[at]))
        row = Row(rule, support, clip, cap)
        steps = np.zeros((2, 200), dtype=np.int64)
        for step, each in zip(steps, (row, replace(row, is_plain=True)), strict=True):
            part = combined_step(each, updates, TIES[:11], 3, 200)
            step[part.at] = part.values
        assert steps[0].any()
        assert np.array_equal(steps[0], steps[1])


def test_every_rule_of_the_library_that_gives_one_model_is_in_the_tables() -> None:
    assert {row.rule for row in main_rows()} == set(RULES) - {"clustered_mean/v1"} | {plain_rules.TRIMMED_MEAN}


@pytest.mark.parametrize("direction", [0.0, 1.0])
def test_min_max_goes_as_far_as_honest_updates_are_apart_and_no_further(direction: float) -> None:
    honest = honest_vectors()
    sent = attacks.min_max(view_of(honest), direction)[0].astype(np.float64)
    widest = max(np.linalg.norm(one - other) for one in honest for other in honest)
    assert np.linalg.norm(honest - sent, axis=1).max() == pytest.approx(widest, rel=1e-4)


def test_lies_have_the_lengths_and_directions_that_they_are_named_for() -> None:
    honest = honest_vectors()
    view, mean, std = view_of(honest), honest.mean(axis=0), honest.std(axis=0)
    assert np.allclose(attacks.ipm(view, 2.0), -2 * mean)
    assert np.allclose(attacks.sign_flip(view, 3.0), -3.0)
    assert np.allclose(attacks.alie(view, 1.5), mean - 1.5 * std)
    assert np.allclose(attacks.alie_against(view, 1.5) - mean, -1.5 * std * np.sign(honest.sum(axis=0)), atol=1e-5)
    assert np.allclose(np.linalg.norm(attacks.one_head(view, 10.0), axis=1), 10 * view.norm, rtol=1e-4)


def test_rare_indices_are_those_that_nobody_else_carries_and_the_same_way_in_every_round() -> None:
    honest = honest_vectors(sparse=True)
    sent = [attacks.rare_indices(view_of(honest), 1.0) for _ in range(2)]
    assert np.array_equal(*sent)
    touched = np.flatnonzero(sent[0][0])
    assert touched.size
    assert not np.count_nonzero(honest[:, touched])


@pytest.mark.parametrize("support", ["dense", "free", "agreed"])
@pytest.mark.parametrize("attack", sorted(ATTACKS))
def test_what_liars_and_others_send_is_a_payload_of_its_support(
    support: str, attack: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[UpdatePart]] = []

    def watched(row: Row, updates: list[UpdatePart], *rest: object) -> UpdatePart:
        seen.append(updates)
        return combined_step(row, updates, *rest)

    monkeypatch.setattr(federation, "combined_step", watched)
    federations = scene(rounds=2)
    run(federations, Row(WEIGHTED_MEAN, support), attack, 10.0)
    coordinates = federations.shape.coordinates
    assert len(seen) == 2
    for update in (update for updates in seen for update in updates):
        at = np.arange(coordinates)[update.at]
        whole = SparseUpdate(coordinates, at, update.values)
        mask = decode_mask(encode_mask(coordinates, at), coordinates) if support == "agreed" else None
        pack_update(whole, value_type="int8", grid_exponent=GRID_EXPONENT, support=support, mask=mask)
        if support == "agreed":
            assert np.array_equal(at, federations.mask_of(coordinates // 4))
        assert at.size <= {"dense": coordinates, "free": coordinates // 10, "agreed": coordinates // 4}[support]


def test_a_run_is_the_same_each_time_and_another_with_another_seed() -> None:
    row = Row(NNM_TRIMMED_MEAN, "free", MEDIAN_CLIP)
    metrics = [run(scene(seed=seed, rounds=12), row, "ipm", 2.0) for seed in (1, 1, 2)]
    assert metrics[0] == metrics[1]
    assert metrics[0] != metrics[2]


def test_a_mean_learns_without_liars_and_is_lost_to_long_lies_that_the_default_stands() -> None:
    rows = {rule: Row(rule) for rule in (WEIGHTED_MEAN, NNM_TRIMMED_MEAN)}
    honest = run(scene(rounds=40), rows[WEIGHTED_MEAN], "none", 1.0)
    assert honest > 0.8
    assert run(scene(rounds=40), rows[WEIGHTED_MEAN], "ipm", 10.0) < 0.4
    assert run(scene(rounds=40), rows[NNM_TRIMMED_MEAN], "ipm", 10.0) > honest - 0.1


def line(rule: str, *, gated: bool, none: float, worst: float, support: str = "dense") -> Line:
    cells = {"none": Cell((none, none), 1.0), "alie": Cell((worst, worst + 0.02), 1.5), "ipm": Cell((0.9, 0.9), 2.0)}
    return Line("blobs", 4, Row(rule, support, MEDIAN_CLIP if gated else None), cells)


LINES = [
    line(WEIGHTED_MEAN, gated=False, none=0.85, worst=0.2),
    line(plain_rules.TRIMMED_MEAN, gated=False, none=0.84, worst=0.72),
    line(NNM_TRIMMED_MEAN, gated=False, none=0.85, worst=0.78),
    line(NNM_TRIMMED_MEAN, gated=True, none=0.85, worst=0.79),
    line(UNION_MEAN, gated=True, none=0.85, worst=0.81),
]


def test_bars_compare_worst_attacks_and_the_gap_counts_from_a_mean_that_nobody_attacks() -> None:
    bars = {name.removeprefix("blobs/dense/"): bar for name, bar in bars_of(LINES).items()}
    assert {name: (bar.value, bar.holds) for name, bar in bars.items()} == {
        "lead_over_mean": (0.58, True), "lead_over_trimmed_mean": (0.06, True), "gap": (0.05, True)}
    worse = [*LINES[:2], line(NNM_TRIMMED_MEAN, gated=False, none=0.85, worst=0.76),
             line(NNM_TRIMMED_MEAN, gated=True, none=0.85, worst=0.77)]
    assert [bar.holds for bar in bars_of(worse).values()] == [True, False, False]


def test_the_gap_is_published_with_its_attack_and_the_rule_that_leaves_least() -> None:
    gap = gaps_of(LINES)["blobs/dense"]
    assert gap == {"attack": "alie", "points": 0.05, "best_rule": "dense, union mean, clip to the median",
                   "best_rule_attack": "alie", "best_rule_points": 0.03}


def test_tables_and_figure_show_every_row_and_name_its_worst_attack() -> None:
    text = tables_text(LINES)
    assert text.count("\n| dense") == len(LINES)
    assert "**73.0** ±1.0" in text
    drawn = ElementTree.fromstring(figure_of(LINES, "a < b"))
    circles = drawn.findall(".//{http://www.w3.org/2000/svg}circle")
    legend = len(ATTACKS)
    assert len(circles) == legend + 3 * len(LINES)


def test_byzfl_is_not_looked_for_where_no_peers_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(byzfl.PEERS, raising=False)
    assert byzfl.byzfl_python() is None
    monkeypatch.setenv(byzfl.PEERS, str(tmp_path))
    assert byzfl.byzfl_python() is None


def test_data_that_are_not_there_are_an_error_that_says_where_they_are_looked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SFRL_DATA", str(tmp_path))
    monkeypatch.delenv(byzfl.PEERS, raising=False)
    assert main(["robustness", "--json", "--quick"]) == 1
    figures = json.loads(capsys.readouterr().out)
    assert str(tmp_path) in figures["errors"]["data"]
    assert figures["byzfl_difference_units"] is None
    assert figures["bars_hold"] is False
