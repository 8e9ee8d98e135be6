"""What an auditor's recomputation of a round costs, beside what it cost the aggregator.

One round after the other of 100 updates of a hundredth of 11.2 million coordinates, under each rule: each update with a
support of its own, and all with one that was agreed. The aggregator decides every payload again, adds up, makes the
model and stores what it publishes. The auditor is the verifier's replay of the round's entries, from its opening to
its model: signatures, every admission from its payload, and everything that the model's entry names. Both read and
write real objects, in a folder in memory, so that no disk is measured; each has the base model from the round before.

`replay_ratio` is the largest of the cases' ratios: seconds of the auditor over seconds of the aggregator, by the clock
on the wall, medians over rounds that take turns. Both use what threads they like. `cpu_ratio` is the same in CPU time
of all threads.

Runs in: a developer's machine.
Trusts: nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.figures import Bar
from benchmarks.pseudo_gradient import PARAMETERS
from benchmarks.replay_history import History
from benchmarks.supports import random_supports
from sfrl_secure.aggregation.models import ModelSnapshot
from sfrl_secure.audit.source import FolderObjects
from sfrl_secure.errors import SfrlError
from sfrl_secure.governance.aggregation_terms import (
    CLUSTERED_MEAN,
    MEDIAN,
    MULTI_KRUM,
    NNM_TRIMMED_MEAN,
    UNION_MEAN,
    WEIGHTED_MEAN,
    AdaptiveTerms,
    CapTerms,
    ClipTerms,
    MaskTerms,
    NextMaskTerms,
    RuleTerms,
)
from sfrl_secure.governance.manifest import ModelManifest, TensorSpec
from sfrl_secure.governance.statements import ModelPublished
from sfrl_secure.governance.terms import ModelTerms
from sfrl_secure.replay.fold import Replay
from sfrl_secure.rounds.closing import counted_of
from sfrl_secure.services.aggregator.results import Results, Wanted
from sfrl_secure.sparse.encode import EncodedUpdate, encode_agreed, encode_update
from sfrl_secure.sparse.mask import decode_mask, encode_mask
from sfrl_secure.storage.objects import ObjectStore

BAR = 6.0
FULL, QUICK = (PARAMETERS, 100, 3), (1_000_000, 20, 2)
"""Coordinates, updates, and rounds that are measured."""
_GRID = 30
_MEMORY = Path("/dev/shm")

RULES = {
    "weighted_mean": RuleTerms(WEIGHTED_MEAN),
    "union_mean": RuleTerms(UNION_MEAN),
    "nnm_trimmed_mean": RuleTerms(NNM_TRIMMED_MEAN, liars_ppm=200_000),
    "multi_krum": RuleTerms(MULTI_KRUM, liars_ppm=200_000, selected_ppm=600_000),
    "median": RuleTerms(MEDIAN),
    "clustered_mean": RuleTerms(CLUSTERED_MEAN, alike_ppm=500_000),
}


@dataclass(slots=True)
class Times:
    """Seconds of each round, on the wall and of the CPU."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def take(self, work: Callable[[], None], *, is_kept: bool) -> None:
        """Time a piece of work; keep it, unless it was to get warm."""
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        if is_kept:
            self.wall.append(time.perf_counter() - wall)
            self.cpu.append(time.process_time() - cpu)


@dataclass(frozen=True, slots=True, eq=False)
class Sent:
    """What participants send: of the same values with supports of their own, and with an agreed one."""

    coordinates: int
    free: list[EncodedUpdate]
    agreed: list[EncodedUpdate]
    mask: bytes
    nonzeros: int


def run(quick: bool, folder: Path | None = None) -> dict[str, Any]:
    """Take all figures, with objects in `folder`; without one, in a folder in memory where the machine has one."""
    place = folder or (_MEMORY if _MEMORY.is_dir() else None)
    errors: list[str] = []
    cases: dict[str, Any] = {}
    coordinates, updates, rounds = QUICK if quick else FULL
    sent = _prepare(coordinates, updates)
    full = {
        "clip": ClipTerms(median_ppm=1_000_000), "cap": CapTerms(3, 2**24),
        "server": AdaptiveTerms(decay=60_000, decay_max=65_000, rate=2**20, floor=2**10),
    }  # fmt: skip
    for support in ("free", "agreed"):
        for name, rule in RULES.items():
            cases[f"{name}_{support}"] = _case(sent, support, place, errors, rounds, rule=rule)
    # Everything at once, with a mask that is chosen anew.
    cases["weighted_mean_full"] = _case(
        sent, "free", place, errors, rounds, rule=RULES["weighted_mean"], changes=True, **full
    )
    # A case that went wrong has no ratio, and is an error.
    ratios = {name: case["ratio"] for name, case in cases.items() if case}
    worst = max(ratios, key=lambda name: ratios[name], default=None)
    bar = Bar(None if worst is None else ratios[worst], BAR, f"at most {BAR}, stretch 2", at_most=True)
    return {
        "coordinates": coordinates, "updates": updates, "nonzeros": sent.nonzeros, "replay_ratio": bar.value,
        "worst": worst, "bar": bar.to_json(), "cases": cases, "errors": errors,
    }  # fmt: skip


def _prepare(coordinates: int, count: int) -> Sent:
    rng = np.random.default_rng(0)
    k = coordinates // 100
    values = ((1 + rng.exponential(1, k)) * rng.choice([-1e-3, 1e-3], k)).astype(np.float32)
    supports = list(random_supports(coordinates, k, values, count, rng))
    free = [
        encode_update(coordinates, indices, own, value_type="int8", grid_exponent=_GRID, rng=rng)
        for indices, own in supports
    ]
    raw = encode_mask(coordinates, supports[0][0])
    mask = decode_mask(raw, coordinates)
    agreed = [encode_agreed(mask, own, value_type="int8", grid_exponent=_GRID, rng=rng) for _, own in supports]
    return Sent(coordinates, free, agreed, raw, k)


def _case(
    sent: Sent, support: str, place: Path | None, errors: list[str], rounds: int, *, changes: bool = False, **terms: Any
) -> dict[str, Any]:
    """One rule over some rounds, after one to get warm."""
    with TemporaryDirectory(dir=place) as name:
        aggregator, auditor = Times(), Times()
        try:
            _measure(sent, support, Path(name), rounds, changes, terms, aggregator, auditor)
        except (SfrlError, AssertionError) as error:
            errors.append(f"{support}, {terms['rule'].name}: {error}")
            return {}
    return {
        "ratio": round(median(auditor.wall) / median(aggregator.wall), 2),
        "cpu_ratio": round(median(auditor.cpu) / median(aggregator.cpu), 2),
        "aggregator_seconds": [round(each, 3) for each in aggregator.wall],
        "auditor_seconds": [round(each, 3) for each in auditor.wall],
    }


def _measure(
    sent: Sent, support: str, folder: Path, rounds: int, changes: bool, terms: dict[str, Any], aggregator: Times,
    auditor: Times,
) -> None:  # fmt: skip
    objects = ObjectStore(folder)
    updates = sent.free if support == "free" else sent.agreed
    for each in updates:
        objects.put(each.payload)
    manifest = ModelManifest((TensorSpec("all", (sent.coordinates,), "int32"),))
    model = ModelSnapshot(manifest, _GRID, np.zeros(sent.coordinates, np.int64))
    mask = None
    if support == "agreed" or changes:
        following = NextMaskTerms("contribution", sent.nonzeros // 2) if changes else None
        mask = MaskTerms(objects.put(sent.mask), sent.nonzeros, following)
    history = History(objects, len(updates), ModelTerms(manifest, _GRID, objects.put(model.to_bytes())), mask, **terms)
    results = Results(objects, threads=os.cpu_count() or 1)
    replay = Replay(history.trusted, FolderObjects(folder))
    weights = [1 + 7 * number % 1_000 for number in range(len(updates))]
    for number in range(rounds + 1):
        history.open_round()
        history.admit(updates, weights)
        history.close()
        aggregator.take(lambda: _publish(history, results), is_kept=number > 0)
        own = history.entries[replay.size :]
        if number == 0:
            # Documents are read once, and not with any round.
            before = len(own) - len(updates) - 3
            _replay(replay, own[:before])
            own = own[before:]
        auditor.take(lambda entries=own: _replay(replay, entries), is_kept=number > 0)  # type: ignore[misc]
    replay.finish()
    assert not replay.docket.findings, "an honest log is verified"
    assert not replay.missing, "nothing was taken away"


def _publish(history: History, results: Results) -> None:
    """What the aggregator does of a round once it is closed, from its payloads to its entry."""
    current = history.round
    assert current.closed is not None, "it was closed"
    counted = counted_of(current, current.closed)
    made = results.of(Wanted(current, tuple(counted), current.base_model, current.server_state))
    history.state_by("aggregator", ModelPublished(
        round=current.number, round_closed=current.closed_hash, base_model=current.base_model,
        aggregate=made.aggregate, model=made.model, rule=current.terms.rule.name, arithmetic=1,
        server_state=made.server_state, next_mask=made.next_mask, clusters=made.clusters,
    ))  # fmt: skip


def _replay(replay: Replay, entries: Sequence[bytes]) -> None:
    for raw in entries:
        findings = replay.step(raw)
        assert not findings, f"found {findings[0].code}"
