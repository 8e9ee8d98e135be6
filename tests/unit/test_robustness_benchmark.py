"""What the attack bench counts on: liars as strong as they say, payloads that a gatekeeper admits, and honest bars."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
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
from benchmarks.robustness.plan import Cell, Line, Trial, attacks_on, lines_of, main_rows, strengths_of
from benchmarks.robustness.rows import MEDIAN_CLIP, Row, bare, combined_step
from benchmarks.robustness.run import bars_of, gaps_of
from benchmarks.robustness.tables import lines_json, tables_text
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


def view_of(honest: np.ndarray, liars: int = 4, step_of: Callable[[np.ndarray], np.ndarray] | None = None) -> View:
    shape = Shape(6, 24, 4)
    own = np.ones((liars, honest.shape[1]), dtype=np.float32)
    return View(shape, honest, own, np.arange(shape.coordinates), shape.coordinates // 10,
                np.zeros(shape.coordinates, np.float32), honest, step_of or (lambda sent: sent.mean(axis=0)),
                np.random.default_rng(3))


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


@pytest.mark.parametrize("direction", [0.0, 1.0])
def test_min_sum_is_as_far_from_all_together_as_the_honest_update_that_is_furthest(direction: float) -> None:
    honest = honest_vectors()
    sent = attacks.min_sum(view_of(honest), direction)[0].astype(np.float64)
    furthest = max((np.linalg.norm(honest - one, axis=1) ** 2).sum() for one in honest)
    assert (np.linalg.norm(honest - sent, axis=1) ** 2).sum() == pytest.approx(furthest, rel=1e-4)


def test_mimic_is_the_one_who_is_furthest_out_along_what_all_differ_in_most() -> None:
    rng = np.random.default_rng(6)
    axis = rng.normal(0, 1, Shape(6, 24, 4).coordinates).astype(np.float32)
    places = rng.permutation(np.linspace(-1.0, 1.2, 16)).astype(np.float32)
    honest = 3.0 * places[:, np.newaxis] * axis + honest_vectors()
    assert np.array_equal(attacks.mimic(view_of(honest), 1.0)[0], honest[places.argmax()])


def test_what_tries_sends_is_the_lie_that_this_rule_stands_least() -> None:
    honest = honest_vectors()
    mean = honest.mean(axis=0)

    def easily_led(sent: np.ndarray) -> np.ndarray:
        return mean + sent.mean(axis=0)

    def deaf_to_long_ones(sent: np.ndarray) -> np.ndarray:
        return mean + (sent.mean(axis=0) if np.linalg.norm(sent[0]) < 3 * np.linalg.norm(mean) else 0.0)

    assert np.allclose(attacks.tries(view_of(honest, step_of=easily_led), 1.0), attacks.min_max(view_of(honest), 1.0))
    assert np.allclose(attacks.tries(view_of(honest, step_of=deaf_to_long_ones), 1.0), -2.0 * mean)


def test_a_try_is_what_the_rule_makes_of_the_others_and_that_lie_and_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps: list[np.ndarray] = []

    def looks(view: View, strength: float) -> np.ndarray:
        for reach in (0.0, -50.0, strength):
            steps.append(view.step_of(view.own * np.float32(reach)))
        return view.own * np.float32(strength)

    row = Row(WEIGHTED_MEAN)
    plain = run(scene(), row, "sign_flip", -1.0)
    monkeypatch.setattr(federation, "ATTACKS", {**ATTACKS, "sign_flip": attacks.Attack(looks)})
    assert run(scene(), row, "sign_flip", 1.0) == plain
    kept, pulled, own = steps[:3]
    assert np.linalg.norm(pulled - kept) == pytest.approx(50.0 * np.linalg.norm(own - kept), rel=0.05)


def test_lies_have_the_lengths_and_directions_that_they_are_named_for() -> None:
    honest = honest_vectors()
    view, mean, std = view_of(honest), honest.mean(axis=0), honest.std(axis=0)
    assert np.allclose(attacks.ipm(view, 2.0), -2 * mean)
    assert np.allclose(attacks.sign_flip(view, 3.0), -3.0)
    assert np.allclose(attacks.alie(view, 1.5), mean - 1.5 * std)
    assert np.allclose(np.linalg.norm(attacks.one_head(view, 10.0), axis=1), 10 * view.norm, rtol=1e-4)


def test_rare_indices_are_those_that_nobody_else_carries_and_the_same_way_in_every_round() -> None:
    honest = honest_vectors(sparse=True)
    sent = [attacks.rare_indices(view_of(honest), 1.0) for _ in range(2)]
    assert np.array_equal(*sent)
    touched = np.flatnonzero(sent[0][0])
    assert touched.size
    assert not np.count_nonzero(honest[:, touched])


def test_a_model_is_rolled_back_where_it_went_furthest_and_outvoted_where_few_others_carry() -> None:
    honest = honest_vectors(sparse=True)
    view, gone = view_of(honest), honest.sum(axis=0)
    for attack in (attacks.roll_back, attacks.outvote):
        sent = attack(view, 3.0)
        touched = np.flatnonzero(sent[0])
        assert len(touched) == view.width
        assert np.array_equal(np.sign(sent[0][touched]), -np.sign(gone[touched]))
        assert np.linalg.norm(sent[0]) == pytest.approx(3.0 * view.norm, rel=1e-4)
        few = np.count_nonzero(honest, axis=0) < len(view.own)
        allowed = few if attack is attacks.outvote else np.ones_like(few)
        least = np.abs(gone[touched]).min()
        assert allowed[touched].all()
        assert not (np.abs(gone) > least)[allowed & (sent[0] == 0)].any()


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
    assert len(seen) == 2 * (5 if attack == "tries" else 1)  # Four lies are tried before one is sent.
    for update in (update for updates in seen for update in updates):
        at = np.arange(coordinates)[update.at]
        whole = SparseUpdate(coordinates, at, update.values)
        mask = decode_mask(encode_mask(coordinates, at), coordinates) if support == "agreed" else None
        pack_update(whole, value_type="int8", grid_exponent=GRID_EXPONENT, support=support, mask=mask)
        if support == "agreed":
            assert np.array_equal(at, federations.mask_of(coordinates // 4))
        assert at.size <= {"dense": coordinates, "free": coordinates // 10, "agreed": coordinates // 4}[support]


def test_of_equally_large_coordinates_no_more_are_sent_than_a_payload_has(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[UpdatePart] = []

    def watched(row: Row, updates: list[UpdatePart], *rest: object) -> UpdatePart:
        sent.extend(updates[-4:])
        return combined_step(row, updates, *rest)

    def level(view: View, strength: float) -> np.ndarray:
        return view.same(np.full(view.shape.coordinates, strength))

    monkeypatch.setattr(federation, "combined_step", watched)
    monkeypatch.setattr(federation, "ATTACKS", {**ATTACKS, "level": attacks.Attack(level)})
    federations = scene(rounds=1)
    run(federations, Row(WEIGHTED_MEAN, "free"), "level", 1.0)
    assert [list(update.at) for update in sent] == [list(range(federations.shape.coordinates // 10))] * 4


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


def line(row: Row, *, none: float, worst: float) -> Line:
    cells = {"none": Cell((none, none), 1.0), "alie": Cell((worst, worst + 0.02), 1.5), "ipm": Cell((0.9, 0.9), 2.0)}
    return Line("blobs", 4, row, cells)


LINES = [
    line(bare(WEIGHTED_MEAN, "dense"), none=0.86, worst=0.1),
    line(bare(plain_rules.TRIMMED_MEAN, "dense"), none=0.8, worst=0.6),
    line(Row(WEIGHTED_MEAN), none=0.85, worst=0.2),
    line(Row(plain_rules.TRIMMED_MEAN), none=0.84, worst=0.72),
    line(Row(NNM_TRIMMED_MEAN), none=0.85, worst=0.78),
    line(Row(NNM_TRIMMED_MEAN, clip=MEDIAN_CLIP), none=0.85, worst=0.79),
    line(Row(UNION_MEAN, clip=MEDIAN_CLIP), none=0.85, worst=0.81),
]


def test_bars_compare_worst_attacks_and_the_gap_counts_from_the_better_mean_that_nobody_attacks() -> None:
    bars = {name.removeprefix("blobs/dense/"): bar for name, bar in bars_of(LINES).items()}
    assert {name: (bar.value, bar.holds) for name, bar in bars.items()} == {
        "lead_over_mean": (0.58, True), "lead_over_bare_mean": (0.68, True), "lead_over_trimmed_mean": (0.06, True),
        "lead_over_bare_trimmed_mean": (0.18, True), "gap": (0.06, True)}
    worse = [*LINES[:4], line(Row(NNM_TRIMMED_MEAN), none=0.85, worst=0.76),
             line(Row(NNM_TRIMMED_MEAN, clip=MEDIAN_CLIP), none=0.85, worst=0.78)]
    assert [name for name, bar in bars_of(worse).items() if not bar.holds] == [
        "blobs/dense/lead_over_trimmed_mean", "blobs/dense/gap"]
    weaker_bare = [line(bare(WEIGHTED_MEAN, "dense"), none=0.8, worst=0.1), *LINES[1:]]
    assert bars_of(weaker_bare)["blobs/dense/gap"].value == 0.05


def test_a_bare_row_has_nothing_of_what_the_default_brings_and_says_so() -> None:
    alone = bare(plain_rules.TRIMMED_MEAN, "free")
    assert alone.is_bare
    assert alone.label == "free, bare trimmed mean"
    for change in ({"participant_momentum": 0.9}, {"server": Row(MEDIAN).server}, {"clip": MEDIAN_CLIP},
                   {"cap": CapTerms(5, 1)}, {"server_top": 0.1}):
        assert not replace(alone, **change).is_bare


def test_every_bar_is_taken_for_each_support_and_rows_that_it_compares_stand_the_same_attacks() -> None:
    lines = [Line("blobs", 4, row, {name: Cell((0.5,), 1.0) for name in strengths_of(row, attacks_on(row))})
             for row in main_rows()]
    bars = bars_of(lines)
    assert len(bars) == 3 * 5
    for support in ("dense", "free", "agreed"):
        compared = [line for line in lines if line.row.support == support
                    and line.row.rule in (plain_rules.TRIMMED_MEAN, NNM_TRIMMED_MEAN)]
        assert len(compared) == 4
        assert len({tuple(line.cells) for line in compared}) == 1
    assert set().union(*(line.cells for line in lines)) == set(ATTACKS)


def test_every_strength_is_tried_on_one_seed_and_the_hardest_attacks_in_their_strongest_on_all() -> None:
    asked: list[list[Trial]] = []

    def run_trials(trials: Sequence[Trial]) -> list[float]:
        asked.append(list(trials))
        return [0.9 - 0.1 * list(ATTACKS).index(trial.attack) / 10 - trial.strength / 100 for trial in trials]

    attacks_tried = {"none": (1.0,), "alie": (1.0, 2.0), "ipm": (3.0, 1.0), "min_max": (0.0,), "one_head": (1.0,)}
    (found,) = lines_of([("blobs", 4, Row(MEDIAN), attacks_tried)], (1, 2, 3), run_trials)
    assert {(trial.attack, trial.strength) for trial in asked[0]} == {
        (name, strength) for name, strengths in attacks_tried.items() for strength in strengths}
    assert {trial.seed for trial in asked[0]} == {1}
    assert {(trial.attack, trial.strength) for trial in asked[1]} == {
        ("none", 1.0), ("ipm", 3.0), ("min_max", 0.0), ("one_head", 1.0)}
    assert {name: len(cell.metrics) for name, cell in found.cells.items()} == {
        "none": 3, "alie": 1, "ipm": 3, "min_max": 3, "one_head": 3}
    assert found.cells["alie"].strength == 2.0
    assert found.worst == "one_head"


def test_the_gap_is_published_with_its_attack_and_the_rule_that_leaves_least() -> None:
    gap = gaps_of(LINES)["blobs/dense"]
    assert gap == {"attack": "alie", "points": 0.06, "best_rule": "dense, union mean, clip to the median",
                   "best_rule_attack": "alie", "best_rule_points": 0.04}
    spared = Line("blobs", 4, Row(MEDIAN, clip=MEDIAN_CLIP), {name: Cell((0.9, 0.9), 1.0) for name in ("none", "ipm")})
    assert gaps_of([*LINES, spared])["blobs/dense"] == gap


def test_tables_show_every_row_with_its_worst_attack_and_no_spread_of_a_single_seed() -> None:
    single = Line("blobs", 4, Row(MEDIAN), {name: Cell((0.5,), 1.0) for name in ("none", "ipm")})
    text = tables_text([*LINES, single])
    assert text.count("\n| dense") == len(LINES) + 1
    assert "**73.0** ±1.0" in text
    assert "| 50.0 |  | **50.0** |" in text
    told = [(each["rule"], each["bare"], each["gate"]) for each in lines_json(LINES)]
    assert len(set(told)) == len(LINES)


def test_the_figure_has_a_ring_and_a_disc_for_each_row_that_the_bars_compare_and_names_its_attack() -> None:
    drawn = ElementTree.fromstring(figure_of(LINES, "a < b", 0.06))
    svg = "{http://www.w3.org/2000/svg}"
    shown, legend = 5, 2  # Not the mean with momentum, which is lost as well, and not the union mean.
    assert len(drawn.findall(f".//{svg}circle")) == legend + 2 * shown
    said = [each.text for each in drawn.findall(f".//{svg}text")]
    assert said[0] == "a < b"
    assert {"80  ALIE", "73  ALIE", "61  ALIE", "11  ALIE"} <= set(said)


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
