"""A changed aggregator: whatever it makes of a round that is not what its updates make, the verifier says so.

The aggregator here is the real one with one lie in it: everything that it publishes is stored, signed and taken by the
log, and fits together. Who has the payloads computes the round again and names the round, and what is false of it; the
rounds after it, which stand on the lie, are judged for themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulator import SEGMENT, Simulator, service_id

from sfrl_secure.aggregation.combined import Combined
from sfrl_secure.aggregation.contribution import Contribution, HeldUpdate, held, tie_of
from sfrl_secure.aggregation.round_result import RoundResult, result_of
from sfrl_secure.aggregation.rules import combine
from sfrl_secure.aggregation.server_state import ServerState
from sfrl_secure.audit.report import Report
from sfrl_secure.audit.verify import verify_log
from sfrl_secure.errors import ConflictError, DeniedError
from sfrl_secure.governance.aggregation_terms import (
    CLUSTERED_MEAN,
    MEDIAN,
    MULTI_KRUM,
    NNM_TRIMMED_MEAN,
    UNION_MEAN,
    WEIGHTED_MEAN,
    CapTerms,
    ClipTerms,
    MomentumTerms,
    NextMaskTerms,
    RuleTerms,
)
from sfrl_secure.governance.statements import CloseCause, CloseOutcome, ModelPublished, RoundClosed
from sfrl_secure.governance.terms import SegmentTerms
from sfrl_secure.ids import sha256
from sfrl_secure.rounds.closing import counted_of, counted_root
from sfrl_secure.rounds.payloads import expected_of
from sfrl_secure.rounds.state import Admission, RoundState
from sfrl_secure.services.aggregator import results
from sfrl_secure.services.aggregator.cohort import Cohort
from sfrl_secure.sparse.decode import decode_update
from sfrl_secure.sparse.mask import decode_mask, encode_mask
from sfrl_secure.sparse.update import UpdatePart
from sfrl_secure.translog.policy import NO_QUORUM, format_trust_policy

from ..unit.aggregator.ruled import COUNT, MOMENTUM, NAMES, ruled, send
from ..unit.audit.histories import History

A1 = service_id("aggregator", "a1")
STREAM = f"segment/{SEGMENT}"
STEP = frozenset({"aggregate", "model"})


def same(given: Any) -> Any:
    return given


@dataclass(frozen=True)
class Lie:
    """What an aggregator does otherwise, and what is false of what it publishes.

    Attributes:
        codes: findings about the entry, and no others.
        terms, cohort, combined, result: what it puts in the place of the round's terms, of the updates that are added
            up, of what comes of them, and of the round's result.
    """

    codes: frozenset[str]
    terms: Callable[[SegmentTerms], Any] = same
    cohort: Callable[[list[HeldUpdate]], Sequence[Contribution]] = same
    combined: Callable[[Combined], Combined] = same
    result: Callable[[RoundResult], RoundResult] = same


# Lies


def one_unit_more(combined: Combined) -> Combined:
    values = np.zeros(COUNT, dtype=np.int64)
    values[combined.step.at] = combined.step.values
    values[3] += 1
    return replace(combined, step=UpdatePart(slice(0, COUNT), values))


def one_unit_in_the_model(result: RoundResult) -> RoundResult:
    return replace(result, model=result.model.add(UpdatePart(np.array([3]), np.array([1]))))


def without_the_first(cohort: list[HeldUpdate]) -> list[HeldUpdate]:
    return cohort[1:]


def with_the_first_twice(cohort: list[HeldUpdate]) -> list[HeldUpdate]:
    return [*cohort, replace(cohort[0], tie=sha256(b"another"))]


def heavier(cohort: list[HeldUpdate]) -> list[HeldUpdate]:
    return [replace(cohort[0], weight=cohort[0].weight + 1), *cohort[1:]]


def by_rule(name: str, **keys: int) -> Callable[[SegmentTerms], SegmentTerms]:
    return lambda terms: replace(terms, rule=RuleTerms(name, **keys))


def with_terms(**changes: Any) -> Callable[[SegmentTerms], SegmentTerms]:
    return lambda terms: replace(terms, **changes)


def with_score(score: str) -> Callable[[SegmentTerms], SegmentTerms]:
    def changed(terms: SegmentTerms) -> SegmentTerms:
        assert terms.mask is not None
        return replace(terms, mask=replace(terms.mask, next=NextMaskTerms(score, 4)))

    return changed


def another_state(result: RoundResult) -> RoundResult:
    assert result.server_state is not None
    values = np.zeros(COUNT, dtype=np.int64)
    values[result.server_state.values.at] = result.server_state.values.values
    values[0] += 1
    return replace(result, server_state=ServerState(COUNT, UpdatePart(slice(0, COUNT), values)))


def another_mask(result: RoundResult) -> RoundResult:
    assert result.next_mask is not None
    chosen = set(decode_mask(result.next_mask, COUNT).indices.tolist())
    instead = next(at for at in range(20) if at not in chosen)
    return replace(result, next_mask=encode_mask(COUNT, sorted({*sorted(chosen)[1:], instead})))


def no_mask(result: RoundResult) -> RoundResult:
    return replace(result, next_mask=None)


def no_state(result: RoundResult) -> RoundResult:
    return replace(result, server_state=None)


def other_members(result: RoundResult) -> RoundResult:
    first, second = result.clusters
    return replace(result, clusters=(replace(first, members=second.members), replace(second, members=first.members)))


def another_clusters_model(result: RoundResult) -> RoundResult:
    first, second = result.clusters
    return replace(result, clusters=(first, replace(second, step=first.step)))


def one_cluster_less(result: RoundResult) -> RoundResult:
    return replace(result, clusters=result.clusters[:1])


SUMS = {
    "one update dropped": Lie(STEP, cohort=without_the_first),
    "one counted twice": Lie(STEP, cohort=with_the_first_twice),
}
LIES: dict[str, tuple[dict[str, Any], dict[str, Lie]]] = {
    "mean": (
        {},
        SUMS | {
            "one unit more on one coordinate": Lie(STEP, combined=one_unit_more),
            "one unit more in the model alone": Lie(frozenset({"model"}), result=one_unit_in_the_model),
            "one with more weight": Lie(STEP, cohort=heavier),
            "the median": Lie(STEP, by_rule(MEDIAN)),
            "the union's mean": Lie(STEP, by_rule(UNION_MEAN)),
        },
    ),
    "union": ({"rule": RuleTerms(UNION_MEAN)}, SUMS | {"the mean": Lie(STEP, by_rule(WEIGHTED_MEAN))}),
    "median": ({"rule": RuleTerms(MEDIAN)}, SUMS),
    "nnm": (
        {"rule": RuleTerms(NNM_TRIMMED_MEAN, liars_ppm=250_000)},
        SUMS | {
            "the mean": Lie(STEP, by_rule(WEIGHTED_MEAN)),
            "no liars": Lie(STEP, by_rule(NNM_TRIMMED_MEAN, liars_ppm=0)),
        },
    ),
    "krum": (
        {"rule": RuleTerms(MULTI_KRUM, liars_ppm=250_000, selected_ppm=500_000)},
        {"one selected": Lie(STEP, by_rule(MULTI_KRUM, liars_ppm=250_000))},
    ),
    "clip": ({"clip": ClipTerms(norm=20)}, {"no clip": Lie(STEP, with_terms(clip=None))}),
    "clip to the median": (
        {"clip": ClipTerms(median_ppm=500_000)},
        {"another share": Lie(STEP, with_terms(clip=ClipTerms(median_ppm=600_000)))},
    ),
    "cap": (
        {"cap": CapTerms(2, 2)},
        {
            "no cap": Lie(STEP, with_terms(cap=None)),
            "a cap for all": Lie(STEP, with_terms(cap=CapTerms(5, 2))),
        },
    ),
    "momentum": (
        {"server": MOMENTUM},
        {
            "one unit more, which is kept": Lie(STEP | {"server_state"}, combined=one_unit_more),
            "no momentum": Lie(STEP | {"server_state"}, with_terms(server=MomentumTerms(0, 65_536))),
            "another rate": Lie(STEP, with_terms(server=MomentumTerms(MOMENTUM.decay, 2**18))),
            "another state handed on": Lie(frozenset({"server_state"}), result=another_state),
            "no state handed on": Lie(frozenset({"server_state"}), result=no_state),
        },
    ),
    "mask": (
        {"next": NextMaskTerms("contribution", 4)},
        {
            "another mask": Lie(frozenset({"next_mask"}), result=another_mask),
            "no mask": Lie(frozenset({"next_mask"}), result=no_mask),
            "by votes": Lie(frozenset({"next_mask"}), with_score("votes")),
        },
    ),
    "clusters": (
        {"rule": RuleTerms(CLUSTERED_MEAN, alike_ppm=1)},
        {
            "members changed": Lie(frozenset({"clusters"}), result=other_members),
            "another cluster's model": Lie(frozenset({"clusters"}), result=another_clusters_model),
            "a cluster hidden": Lie(frozenset({"clusters"}), result=one_cluster_less),
        },
    ),
}  # fmt: skip
"""Terms that a segment may have, and what its aggregator may do otherwise."""


@pytest.fixture
def lying(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Simulator, Lie], None]]:
    """Changes every aggregator from now on."""

    def begin(sim: Simulator, lie: Lie) -> None:
        def combined_of(cohort: Cohort, current: RoundState, counted: Sequence[Admission]) -> Combined:
            found = [_held(sim, current, each) for each in counted]
            return lie.combined(combine(lie.terms(current.terms), lie.cohort(found)))

        def lied(terms: SegmentTerms, *given: Any, **room: Any) -> RoundResult:
            return lie.result(result_of(lie.terms(terms), *given, **room))

        monkeypatch.setattr(Cohort, "combine", combined_of)
        monkeypatch.setattr(results, "result_of", lied)

    yield begin
    monkeypatch.undo()


def _held(sim: Simulator, current: RoundState, admission: Admission) -> HeldUpdate:
    update = admission.update
    payload = sim.objects.get(update.payload_sha256, 4_096)
    decoded = decode_update(payload, expected_of(current.terms, update, sim.mask_of(current)))
    return held(tie_of(current.opened, update.participant), update.weight, decoded)


def run_round(sim: Simulator, draw: np.random.Generator) -> ModelPublished:
    """A round by an aggregator that has just been started; what it published."""
    aggregator = sim.aggregator()
    if sim.segment.open_round is None:
        assert aggregator.step() == ["OpenRound"]
    number = sim.segment.last_round
    for name in NAMES:
        send(sim, name, draw)
    assert [aggregator.step(), aggregator.step()] == [["CloseRound"], ["PublishModel"]]
    body = sim.log.statement_at(sim.segment.rounds[number].model_index).body
    assert isinstance(body, ModelPublished)
    return body


def verify(sim: Simulator, folder: Path) -> Report:
    """Audit the log as files, with its objects, as anybody may."""
    log = History(sim, sim.log.raw).write(folder)
    # Witnesses' clocks are not asked: the simulation does not keep them.
    policy = replace(sim.policy, witnesses=(), groups=(), quorum=NO_QUORUM)
    return verify_log(log, format_trust_policy(policy), sim.folder / "objects")


@pytest.mark.parametrize("case", LIES)
def test_every_lie_is_found_and_its_round_named(
    tmp_path: Path, case: str, lying: Callable[[Simulator, Lie], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A round without a lie first, one for each lie, and one without: whatever they stand on, those two are right."""
    terms, lies = LIES[case]
    sim = ruled(tmp_path / "sim", terms)
    draw = np.random.default_rng(11)
    run_round(sim, draw)
    expected: dict[int, frozenset[str]] = {}
    for name, lie in lies.items():
        lying(sim, lie)
        body = run_round(sim, draw)
        monkeypatch.undo()
        current = sim.segment.rounds[body.round]
        assert body != sim.model_of(current, current.base_model, current.server_state), f"{name} has to be a lie"
        expected[current.number] = lie.codes
    run_round(sim, draw)
    assert sim.log.voids == {}

    report = verify(sim, tmp_path / "files")
    assert (report.verdict, report.results_sound, report.missing) == ("false", False, ()), report.to_text()
    for number, codes in expected.items():
        current = sim.segment.rounds[number]
        found = [finding for finding in report.findings if finding.index == current.model_index]
        assert sorted(finding.code for finding in found) == sorted(codes)
        for finding in found:
            assert finding.writer == str(A1)
            assert finding.expected.startswith(f"in round {number} ")
    assert len(report.findings) == sum(map(len, expected.values()))
    sim.close()


def test_no_lie_hides_behind_an_object_that_is_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The honest one makes nothing of it. A liar that goes on as if nothing were is found, with each of its rounds."""
    sim = ruled(tmp_path / "sim", {})
    draw = np.random.default_rng(11)
    run_round(sim, draw)
    model, base, named = results.Results.of, results.Bases.model, sim.objects.put(b"no model")
    last = sim.segment.model
    monkeypatch.setattr(results.Results, "of", lambda self, wanted: replace(model(self, wanted), model=named))
    run_round(sim, draw)
    monkeypatch.undo()
    aggregator = sim.aggregator()
    assert aggregator.step() == ["OpenRound"]
    for name in NAMES:
        send(sim, name, draw)
    assert [aggregator.step(), aggregator.step()] == [["CloseRound"], []]
    monkeypatch.setattr(results.Bases, "model", lambda self, terms, _digest: base(self, terms, last))
    assert sim.aggregator().step() == ["PublishModel"]
    monkeypatch.undo()
    run_round(sim, draw)

    report = verify(sim, tmp_path / "files")
    rounds = {sim.segment.rounds[number].model_index: number for number in range(1, 5)}
    assert [(rounds[each.index or 0], each.code) for each in report.findings] == [
        (2, "model"), (2, "model"), (3, "model")
    ]  # fmt: skip
    assert report.findings[-1].expected == "in round 3 none, on a base that is no model"
    assert (report.verdict, report.results_sound, report.missing) == ("false", False, ())
    sim.close()


# Too early


def model_before_its_closing(sim: Simulator) -> tuple[ModelPublished, str]:
    """The round is open, and has had two of its updates."""
    current = sim.segment.open_round
    assert current is not None
    closing = RoundClosed(current.number, CloseCause.FULL, CloseOutcome.CLOSED, 2, sha256(b""), ())
    shut = replace(current, closed=closing)
    return sim.model_of(shut, current.base_model), "no_model_due"


def closing_before_its_deadline(sim: Simulator) -> tuple[RoundClosed, str]:
    """Neither full nor over."""
    current = sim.segment.open_round
    assert current is not None
    shut = RoundClosed(current.number, CloseCause.DEADLINE, CloseOutcome.CLOSED, 2, sha256(b""), ())
    root = counted_root(counted_of(current, shut))
    return replace(shut, counted_root=root), "close_early"


def model_again_without_an_order(sim: Simulator) -> tuple[ModelPublished, str]:
    """Of a round that has its model: a second one in its place, which nobody ordered."""
    (step,) = sim.segment.lineage
    body = sim.log.statement_at(step.index).body
    assert isinstance(body, ModelPublished)
    return replace(body, supersedes=step.published), "supersedes"


@pytest.mark.parametrize(
    "early", [model_before_its_closing, closing_before_its_deadline, model_again_without_an_order]
)
def test_what_is_published_early_is_refused_and_changes_nothing(
    tmp_path: Path, early: Callable[[Simulator], tuple[Any, str]]
) -> None:
    """An honest log does not take it; a log that does is found out with its aggregator, and the round goes on."""
    sim = ruled(tmp_path / "sim", {})
    draw = np.random.default_rng(11)
    run_round(sim, draw)
    sim.open_round()
    for name in NAMES[:2]:
        send(sim, name, draw)
    body, code = early(sim)
    envelope = sim.sign(sim.statement(A1, STREAM, body))
    with pytest.raises((ConflictError, DeniedError)):
        sim.log.order(envelope)
    index = sim.log.force(envelope)
    assert index in sim.log.voids
    for name in NAMES[2:]:
        send(sim, name, draw)
    aggregator = sim.aggregator()
    assert [aggregator.step(), aggregator.step()] == [["CloseRound"], ["PublishModel"]]
    report = verify(sim, tmp_path / "files")
    assert [(each.code, each.index, each.writer) for each in report.findings] == [(code, index, str(A1))]
    # What had no effect makes no model false.
    assert report.results_sound
    assert report.verdict == "false"
    sim.close()


def test_a_step_that_an_order_has_derived_again_is_computed_again_too(
    tmp_path: Path, lying: Callable[[Simulator, Lie], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A liar that leaves in whom the order leaves out."""
    sim = ruled(tmp_path / "sim", {"server": MOMENTUM})
    draw = np.random.default_rng(11)
    for _ in range(2):
        run_round(sim, draw)
    sim.exclude("rover-1", 1)
    sim.reaggregate(1)
    first = sim.segment.rounds[1]

    def with_the_excluded(cohort: list[HeldUpdate]) -> list[HeldUpdate]:
        return [_held(sim, first, first.admissions["rover-1"]), *cohort]

    lying(sim, Lie(STEP, cohort=with_the_excluded))
    assert sim.aggregator().step() == ["DeriveAgain"]
    monkeypatch.undo()
    assert sim.aggregator().step() == ["DeriveAgain"]
    report = verify(sim, tmp_path / "files")
    assert {each.code for each in report.findings} == STEP | {"server_state"}
    assert {each.index for each in report.findings} == {first.model_index}
    assert all(each.expected.startswith("in round 1 ") for each in report.findings)
    assert not report.results_sound
    sim.close()


