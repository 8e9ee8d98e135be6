"""Updates that wait are read side by side: the same sum, the same refusals, whoever is read beside whom."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulator import Simulator, service_id
from structlog.testing import capture_logs

from sfrl_secure.aggregation.running import RunningMean
from sfrl_secure.errors import MissingEvidenceError, NotFoundError
from sfrl_secure.governance.aggregation_terms import MEDIAN, WEIGHTED_MEAN, RuleTerms
from sfrl_secure.ids import Digest
from sfrl_secure.rounds.state import RoundState
from sfrl_secure.services.aggregator.cohort import Cohort
from sfrl_secure.services.aggregator.work import Aggregator
from sfrl_secure.services.masks import Masks
from sfrl_secure.sparse.update import UpdatePart

from .cohorts import LEAF, admit_dense, large_round

NAMES = tuple(f"rover-{number}" for number in range(1, 5))
COUNT = 2 * LEAF + 1_000
VALUES = {name: np.arange(COUNT) % (1_000 + at) - 300 * at for at, name in enumerate(NAMES)}


@pytest.fixture
def large(tmp_path: Path) -> Iterator[Simulator]:
    """An open round with four dense updates of three leaves."""
    sim = large_round(tmp_path, COUNT, rovers=4)
    for name in NAMES:
        admit_dense(sim, name, VALUES[name])
    yield sim
    sim.close()


class Watched:
    """Objects that say how often each was opened, and what to do then."""

    def __init__(self, sim: Simulator) -> None:
        self._objects = sim.objects
        self._names = {each.update.payload_sha256: name for name, each in round_of(sim).admissions.items()}
        self.opened: Counter[str] = Counter()
        self.broken: dict[str, list[bool]] = {}
        """By participant, for its next readings: whether each breaks off before the last byte, or at once."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._objects, name)

    def open(self, digest: Digest, bytes_max: int) -> Any:
        reader, name = self._objects.open(digest, bytes_max), self._names[digest]
        self.opened[name] += 1
        if self.broken.get(name):
            late = self.broken[name].pop(0)

            def chunks() -> Iterator[bytes]:
                yield reader.read(0, reader.size - 1 if late else 0)
                raise MissingEvidenceError("the disk does not give it")

            reader.chunks = chunks  # type: ignore[method-assign]
        return reader


def round_of(sim: Simulator) -> RoundState:
    return sim.segment.rounds[1]


def cohort_of(objects: Any, threads: int) -> Cohort:
    return Cohort(objects, Masks(objects), threads=threads)


def mean_of(sim: Simulator, cohort: Cohort, *names: str) -> list[int]:
    combined = cohort.combine(round_of(sim), tuple(round_of(sim).admissions[name] for name in names))
    assert combined is not None
    values = np.zeros(COUNT, dtype=np.int64)
    values[combined.step.at] = combined.step.values
    return values.tolist()


def exact_mean(*names: str) -> list[int]:
    return [round(each / len(names)) for each in sum(VALUES[name] for name in names).tolist()]


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_any_number_of_threads_gives_the_same_sum(large: Simulator, threads: int) -> None:
    watched = Watched(large)
    assert mean_of(large, cohort_of(watched, threads), *NAMES) == exact_mean(*NAMES)
    assert watched.opened == dict.fromkeys(NAMES, 1)


@pytest.mark.parametrize("rule", [WEIGHTED_MEAN, MEDIAN])
def test_two_updates_are_read_at_the_same_time(large: Simulator, monkeypatch: pytest.MonkeyPatch, rule: str) -> None:
    """Each waits until the other is open too."""
    current = round_of(large)
    current = replace(current, terms=replace(current.terms, rule=RuleTerms(rule)))
    both, given = threading.Barrier(2), large.objects.open

    def opened(digest: Digest, bytes_max: int) -> Any:
        both.wait(10)
        return given(digest, bytes_max)

    monkeypatch.setattr(large.objects, "open", opened)
    assert cohort_of(large.objects, 2).decide(current, tuple(current.admissions.values())) == frozenset()


def test_leaves_are_added_one_at_a_time(large: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the rule does with them, it does alone."""
    given, busy = RunningMean.add_part, threading.Lock()

    def alone(rule: RunningMean, part: UpdatePart, weight: int, norm: int) -> None:
        assert busy.acquire(blocking=False)
        time.sleep(0.005)
        given(rule, part, weight, norm)
        busy.release()

    monkeypatch.setattr(RunningMean, "add_part", alone)
    assert mean_of(large, cohort_of(large.objects, 4), *NAMES) == exact_mean(*NAMES)


def test_what_is_decided_beside_something_that_is_missing_stays_decided(large: Simulator) -> None:
    current, watched = round_of(large), Watched(large)
    lied = current.admissions["rover-2"]
    current.admissions["rover-2"] = replace(lied, facts=replace(lied.facts, norm=lied.facts.norm + 1))
    path = large.objects.path(current.admissions["rover-1"].update.payload_sha256)
    raw = path.read_bytes()
    path.unlink()
    everybody, cohort = tuple(current.admissions[name] for name in NAMES), cohort_of(watched, 4)
    for _ in range(2):
        with pytest.raises(NotFoundError):
            cohort.decide(current, everybody)
    path.write_bytes(raw)
    assert cohort.decide(current, everybody) == {"rover-2"}
    # The defective one once more, to take it out.
    assert watched.opened == {"rover-1": 1, "rover-2": 2, "rover-3": 1, "rover-4": 1}
    assert mean_of(large, cohort, "rover-1", "rover-3", "rover-4") == exact_mean("rover-1", "rover-3", "rover-4")


@pytest.mark.parametrize("again", [(), (False,)])
def test_where_two_break_off_beside_others_the_sum_is_of_the_others(large: Simulator, again: tuple[bool, ...]) -> None:
    """They are taken out; or the first cannot be, the sum begins anew, and nothing is taken out of the new one."""
    current, watched = round_of(large), Watched(large)
    everybody, cohort = tuple(current.admissions[name] for name in NAMES), cohort_of(watched, 4)
    watched.broken = {"rover-2": [True, *again], "rover-3": [True, *again]}
    with pytest.raises(MissingEvidenceError):
        cohort.decide(current, everybody)
    watched.broken.clear()
    left = [each.update.participant for each in cohort.undecided(current, everybody)]
    assert left == (list(NAMES) if again else ["rover-2", "rover-3"])
    assert mean_of(large, cohort, "rover-1", "rover-4") == exact_mean("rover-1", "rover-4")
    assert mean_of(large, cohort, *NAMES) == exact_mean(*NAMES)


def test_the_aggregator_decides_as_many_as_it_has_threads_and_leaves_what_is_missing(large: Simulator) -> None:
    view = large.view()
    writer = large.writer(service_id("aggregator", "a1"), view)
    aggregator = Aggregator(view, writer, large.objects, large.clock, threads=2)
    path = large.objects.path(round_of(large).admissions["rover-2"].update.payload_sha256)
    raw = path.read_bytes()
    path.unlink()
    watched = Watched(large)
    aggregator._results._objects = watched  # type: ignore[assignment] # the cohort is made with them
    with capture_logs() as lines:
        assert [aggregator.work_ahead() for _ in range(3)] == [True, True, False]
    assert [(line["event"], line["index"]) for line in lines] == [
        ("update_decided_later", round_of(large).admissions["rover-2"].index)
    ]
    assert watched.opened == {"rover-1": 1, "rover-3": 1, "rover-4": 1}
    path.write_bytes(raw)
    assert not aggregator.work_ahead()
