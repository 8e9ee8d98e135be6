"""The cohort: exactly the counted updates are in the sum, whatever came before, and none is in memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from simulator import MANIFEST, Simulator

from sfrl_secure.errors import DigestError, MissingEvidenceError, NotFoundError
from sfrl_secure.governance.aggregation_terms import UNION_MEAN, CapTerms, MaskTerms, RuleTerms
from sfrl_secure.governance.terms import RoundTerms, UpdateLimits
from sfrl_secure.ids import Digest, sha256
from sfrl_secure.rounds.state import Admission, RoundState
from sfrl_secure.services.aggregator.cohort import Cohort
from sfrl_secure.services.masks import Masks
from sfrl_secure.sparse.mask import encode_mask
from sfrl_secure.storage.objects import Objects

from .cohorts import LEAF, admit_dense, broken_at_the_end, large_round

NAMES = ("rover-1", "rover-2", "rover-3", "rover-4")
ALL_TYPES = ("bf16", "exact", "fp32", "int8", "packed", "sign")
AGREED = (0, 3, 7, 17)


def cohort_of(sim: Simulator) -> Cohort:
    return Cohort(sim.objects, Masks(sim.objects))


def admissions_of(current: RoundState, *names: str) -> tuple[Admission, ...]:
    return tuple(current.admissions[name] for name in names)


def step_of(cohort: Cohort, current: RoundState, *names: str) -> list[int]:
    combined = cohort.combine(current, admissions_of(current, *names))
    assert combined is not None
    values = np.zeros(current.terms.model.manifest.coordinates, dtype=np.int64)
    values[combined.step.at] = combined.step.values
    return values.tolist()


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    """An open round with four updates, of each support mode and several value types."""
    sim = Simulator(tmp_path_factory.mktemp("mixed"))
    count = MANIFEST.coordinates
    sim.publish_terms(
        tensors=["a.weight", "a.bias", "frozen"], value_types=ALL_TYPES, support_modes=["agreed", "dense", "free"],
        mask=sim.agree(*AGREED), limits=UpdateLimits(4_096, count, 2**21, 2**20, 100),
        round_terms=RoundTerms(60_000_000, 1, 4, 9),
    )  # fmt: skip
    sim.open_round()
    sim.admit("rover-1", {0: 9, 5: 4}, weight=3)
    sim.admit("rover-2", {at: at - 7 for at in range(count)}, support="dense", value_type="fp32", weight=2)
    sim.admit("rover-3", dict(zip(AGREED, (5, 0, -3, 8), strict=True)), support="agreed", value_type="packed", weight=7)
    sim.admit("rover-4", {at: 6 if at % 2 else -6 for at in range(count)}, support="dense", value_type="sign", weight=1)
    yield sim
    sim.close()


def expected_of_mixed(*names: str) -> list[int]:
    count = MANIFEST.coordinates
    rows = {
        "rover-1": ({0: 9, 5: 4}, 3),
        "rover-2": ({at: at - 7 for at in range(count)}, 2),
        "rover-3": (dict(zip(AGREED, (5, 0, -3, 8), strict=True)), 7),
        "rover-4": ({at: 6 if at % 2 else -6 for at in range(count)}, 1),
    }
    total = sum(rows[name][1] for name in names)
    return [
        round(Fraction(sum(rows[name][0].get(at, 0) * rows[name][1] for name in names), total)) for at in range(count)
    ]


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(decided=st.lists(st.sampled_from(NAMES), unique=True), counted=st.sets(st.sampled_from(NAMES), min_size=1))
def test_the_sum_is_of_the_counted_updates_whoever_was_added_before(
    mixed: Simulator, decided: list[str], counted: set[str]
) -> None:
    """In all modes, in any order: who is not counted is taken out, who was not added is."""
    current = mixed.segment.rounds[1]
    cohort = cohort_of(mixed)
    for name in decided:
        assert cohort.decide(current, admissions_of(current, name)) == frozenset()
    assert step_of(cohort, current, *sorted(counted)) == expected_of_mixed(*sorted(counted))
    # The sum is used up, and made again of what is stored.
    assert step_of(cohort, current, *sorted(counted)) == expected_of_mixed(*sorted(counted))


def opened_objects(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> list[Digest]:
    """Which objects are opened from now on."""
    found: list[Digest] = []
    given_open = sim.objects.open

    def watched(digest: Digest, bytes_max: int) -> Any:
        found.append(digest)
        return given_open(digest, bytes_max)

    monkeypatch.setattr(sim.objects, "open", watched)
    return found


def test_each_payload_is_read_once_and_a_dropped_one_once_more(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    current = sim.open_round()
    for name in NAMES[:3]:
        sim.admit(name, {0: 9, 1 + NAMES.index(name): 4})
    opened = opened_objects(sim, monkeypatch)
    cohort, everybody = cohort_of(sim), admissions_of(current, *NAMES[:3])
    assert cohort.undecided(current, everybody) == everybody
    for _ in range(2):
        assert cohort.decide(current, everybody) == frozenset()
        assert len(opened) == 3
    assert cohort.undecided(current, everybody) == ()
    assert step_of(cohort, current, "rover-1", "rover-3")[:4] == [9, 2, 0, 2]
    assert opened[3:] == [current.admissions["rover-2"].update.payload_sha256]


def test_another_round_begins_anew(sim: Simulator) -> None:
    current = sim.open_round()
    sim.admit("rover-1", {0: 9})
    cohort = cohort_of(sim)
    cohort.decide(current, admissions_of(current, "rover-1"))
    later = replace(current, opened=sha256(b"another"))
    sim.objects.path(current.admissions["rover-1"].update.payload_sha256).unlink()
    assert cohort.undecided(later, admissions_of(later, "rover-1")) != ()
    with pytest.raises(NotFoundError):
        cohort.decide(later, admissions_of(later, "rover-1"))


def test_another_admission_of_the_same_name_takes_the_place_of_the_first(sim: Simulator) -> None:
    """As after a log that was given up for one that agrees until the round's opening."""
    current = sim.open_round()
    for name in NAMES[:2]:
        sim.admit(name, {0: 9, 1: 4})
    sim.admit("rover-3", {0: 3})
    cohort = cohort_of(sim)
    cohort.decide(current, admissions_of(current, *NAMES[:2]))
    moved = replace(
        current,
        admissions={
            "rover-1": replace(current.admissions["rover-3"], index=99),
            "rover-2": replace(current.admissions["rover-2"], facts=current.admissions["rover-3"].facts),
        },
    )
    renamed = replace(moved.admissions["rover-1"].update, participant="rover-1")
    moved.admissions["rover-1"] = replace(moved.admissions["rover-1"], update=renamed)
    both = admissions_of(moved, "rover-1", "rover-2")
    assert cohort.undecided(moved, both) == both
    assert cohort.decide(moved, both) == {"rover-2"}
    assert step_of(cohort, moved, "rover-1")[:2] == [3, 0]
    # And back: what was defective of the other log is not so of this one.
    cohort.decide(moved, both)
    assert cohort.decide(current, admissions_of(current, "rover-2")) == frozenset()


@pytest.mark.parametrize("how", ["facts", "last leaf", "length"])
def test_a_defective_update_leaves_nothing_in_the_sum(tmp_path: Path, how: str) -> None:
    """Of the second, leaves are added before the last one breaks; of the first, all; of the third, none."""
    count = 2 * LEAF + 1_000
    sim = large_round(tmp_path, count)
    current = sim.segment.rounds[1]
    sound, bad = np.arange(count) % 1_000 + 1, np.arange(count) % 700 - 300
    admit_dense(sim, "rover-1", sound)
    if how == "last leaf":
        admit_dense(sim, "rover-2", bad, refused=broken_at_the_end(bad))
    elif how == "length":
        admit_dense(sim, "rover-2", bad, refused=b"SFRU" + bytes(24))
    else:
        admit_dense(sim, "rover-2", bad)
        lied = current.admissions["rover-2"]
        current.admissions["rover-2"] = replace(lied, facts=replace(lied.facts, norm=lied.facts.norm + 1))
    cohort = cohort_of(sim)
    assert cohort.decide(current, admissions_of(current, "rover-1", "rover-2")) == {"rover-2"}
    assert cohort.combine(current, admissions_of(current, "rover-1", "rover-2")) is None
    assert step_of(cohort, current, "rover-1") == sound.tolist()
    sim.close()


def test_a_dropped_update_that_is_no_longer_stored_is_out_all_the_same(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sum is made anew of those that are counted: nobody else's object is needed."""
    current = sim.open_round()
    for name in NAMES[:3]:
        sim.admit(name, {0: 9, 1 + NAMES.index(name): 4})
    cohort = cohort_of(sim)
    cohort.decide(current, admissions_of(current, *NAMES[:3]))
    sim.objects.path(current.admissions["rover-2"].update.payload_sha256).unlink()
    opened = opened_objects(sim, monkeypatch)
    assert step_of(cohort, current, "rover-1", "rover-3")[:4] == [9, 2, 0, 2]
    assert len(opened) == 3


class Failing:
    """Objects whose next reads break off: the first before its last byte, the others at once."""

    def __init__(self, objects: Objects, times: int) -> None:
        self._objects = objects
        self._times = times
        self._given = 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._objects, name)

    def open(self, digest: Digest, bytes_max: int) -> Any:
        reader = self._objects.open(digest, bytes_max)
        if self._times:
            self._times -= 1
            given, self._given = self._given, 0

            def chunks() -> Iterator[bytes]:
                yield reader.read(0, given and reader.size - 1)
                raise MissingEvidenceError("the disk does not give it")

            reader.chunks = chunks  # type: ignore[method-assign]
        return reader


@pytest.mark.parametrize("times", [1, 2])
def test_an_update_that_cannot_be_read_to_its_end_is_as_if_never_read(tmp_path: Path, times: int) -> None:
    """With the second failure it cannot be taken out either, and the sum begins anew."""
    count = 2 * LEAF
    sim = large_round(tmp_path, count)
    current = sim.segment.rounds[1]
    first, second = np.arange(count) % 1_000 + 1, np.arange(count) % 700 - 300
    admit_dense(sim, "rover-1", first)
    admit_dense(sim, "rover-2", second)
    objects: Any = Failing(sim.objects, 0)
    cohort = Cohort(objects, Masks(objects))
    cohort.decide(current, admissions_of(current, "rover-1"))
    objects._times = times
    with pytest.raises(MissingEvidenceError):
        cohort.decide(current, admissions_of(current, "rover-2"))
    inside = cohort.undecided(current, admissions_of(current, "rover-1", "rover-2"))
    assert [each.update.participant for each in inside] == (["rover-2"] if times == 1 else ["rover-1", "rover-2"])
    assert step_of(cohort, current, "rover-1") == first.tolist()
    exact = [round(each / 2) for each in (first + second).tolist()]
    assert step_of(cohort, current, "rover-1", "rover-2") == exact
    sim.close()


def test_whoever_alters_an_object_gets_nobody_dropped(tmp_path: Path) -> None:
    """In the last leaf: those before it were added, and are taken out again."""
    count = 2 * LEAF
    sim = large_round(tmp_path, count)
    current = sim.segment.rounds[1]
    admit_dense(sim, "rover-1", np.full(count, 5))
    path = sim.objects.path(current.admissions["rover-1"].update.payload_sha256)
    raw = path.read_bytes()
    cohort = cohort_of(sim)
    for altered in (raw[:-1] + b"x", raw[:-1], raw + b"x", b"", raw[:40] + b"x" + raw[41:]):
        path.write_bytes(altered)
        with pytest.raises(DigestError):
            cohort.decide(current, admissions_of(current, "rover-1"))
    path.write_bytes(raw)
    assert cohort.decide(current, admissions_of(current, "rover-1")) == frozenset()
    assert step_of(cohort, current, "rover-1") == [5] * count
    sim.close()


class Elsewhere:
    """Objects whose next readers give other bytes, though what lies there is right whenever somebody looks again."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self.altered: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._objects, name)

    def open(self, digest: Digest, bytes_max: int) -> Any:
        reader = self._objects.open(digest, bytes_max)
        if self.altered:
            raw = self.altered.pop(0)
            reader.chunks = lambda: iter((raw[:100], raw[100:]))  # type: ignore[assignment, method-assign]
        return reader


def test_bytes_that_are_others_for_one_reading_drop_nobody_and_add_nothing(tmp_path: Path) -> None:
    """For the reading that decides, for the one that takes out, or for both; the sum is of what was signed."""
    count = 2 * LEAF
    sim = large_round(tmp_path, count)
    current = sim.segment.rounds[1]
    first, second = np.arange(count) % 1_000 + 1, np.arange(count) % 700 - 300
    admit_dense(sim, "rover-1", first)
    admit_dense(sim, "rover-2", second)
    raw = sim.objects.get(current.admissions["rover-2"].update.payload_sha256, 2**27)
    other = sim.objects.get(current.admissions["rover-1"].update.payload_sha256, 2**27)
    both = admissions_of(current, "rover-1", "rover-2")
    for altered in (raw[:-1] + b"x", raw[:-1], raw + b"x", b"", raw[:40] + b"x" + raw[41:], other):
        objects: Any = Elsewhere(sim.objects)
        cohort = Cohort(objects, Masks(objects))
        cohort.decide(current, both[:1])
        for times in (1, 2):
            objects.altered = [altered] * times
            with pytest.raises(DigestError):
                cohort.decide(current, both[1:])
            objects.altered = []
        exact = [round(each / 2) for each in (first + second).tolist()]
        assert step_of(cohort, current, "rover-1", "rover-2") == exact
        # And what is taken out is what was added, whatever lies there by then.
        cohort = Cohort(objects, Masks(objects))
        cohort.decide(current, both)
        objects.altered = [altered]
        assert step_of(cohort, current, "rover-1") == first.tolist()
    sim.close()


def test_a_missing_mask_decides_nothing_and_a_false_one_neither(mixed: Simulator) -> None:
    current = mixed.segment.rounds[1]
    terms = current.terms.mask
    assert terms is not None
    path = mixed.objects.path(terms.digest)
    raw = path.read_bytes()
    try:
        path.unlink()
        cohort = cohort_of(mixed)
        # Who needs no mask is decided without it.
        assert cohort.decide(current, admissions_of(current, "rover-1", "rover-2")) == frozenset()
        with pytest.raises(NotFoundError):
            cohort.decide(current, admissions_of(current, "rover-3"))
        path.write_bytes(raw[:-1] + b"x")
        with pytest.raises(DigestError):
            cohort.decide(current, admissions_of(current, "rover-3"))
    finally:
        path.write_bytes(raw)
    assert step_of(cohort, current, "rover-1", "rover-3") == expected_of_mixed("rover-1", "rover-3")


@pytest.mark.parametrize("how", ["no mask", "another number", "another model"])
def test_where_what_the_round_names_is_no_mask_agreed_updates_are_defective(mixed: Simulator, how: str) -> None:
    """Nobody could have admitted them, and nothing that may come later makes them sound: the round goes on."""
    current = mixed.segment.rounds[1]
    false = {
        "no mask": MaskTerms(mixed.objects.put(b"SFRU and no more"), len(AGREED)),
        "another number": MaskTerms(mixed.agree(*AGREED).digest, len(AGREED) + 1),
        "another model": MaskTerms(mixed.objects.put(encode_mask(5, np.array(AGREED[:2]))), 2),
    }[how]
    terms = replace(current.terms, mask=false)
    moved = replace(current, opened=sha256(b"moved"), mask=false.digest, terms=terms)
    cohort = cohort_of(mixed)
    assert cohort.decide(moved, admissions_of(moved, *NAMES)) == {"rover-3"}
    assert step_of(cohort, moved, "rover-1", "rover-2") == expected_of_mixed("rover-1", "rover-2")


def test_a_round_under_another_rule_begins_with_nothing_of_the_one_before(mixed: Simulator) -> None:
    """Its sum is a rule's own, whatever room there is from the round before."""
    current, cohort = mixed.segment.rounds[1], cohort_of(mixed)
    terms = current.terms
    union = replace(current, opened=sha256(b"union"), terms=replace(terms, rule=RuleTerms(UNION_MEAN)))
    capped = replace(current, opened=sha256(b"capped"), terms=replace(terms, cap=CapTerms(2, 1)))
    alone = admissions_of(current, "rover-1")
    assert step_of(cohort, current, "rover-1", "rover-3")[5] == round(Fraction(3 * 4, 10))
    assert step_of(cohort, union, "rover-1", "rover-3")[5] == 4
    combined = cohort.combine(capped, alone)
    assert combined is not None
    assert combined.carriers is not None
    assert combined.carriers.tolist() == [1 if at in (0, 5) else 0 for at in range(MANIFEST.coordinates)]
    assert step_of(cohort, current, "rover-1", "rover-3")[5] == round(Fraction(3 * 4, 10))


def test_memory_is_bounded_by_the_model_and_not_by_the_participants(tmp_path: Path) -> None:
    """Eight bytes a coordinate for the sum; beside it a chunk and a leaf, and never an update of 3 MB."""
    count = 16 * LEAF
    sim = large_round(tmp_path, count, rovers=5)
    current = sim.segment.rounds[1]
    names = sorted(sim.rovers)
    for at, name in enumerate(names):
        admit_dense(sim, name, np.arange(count) % 40_000 - at)
    assert all(each.update.payload_bytes > 3 * 2**20 for each in current.admissions.values())
    cohort = cohort_of(sim)
    tracemalloc.start()
    cohort.decide(current, admissions_of(current, *names))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * count + 6 * 2**20
    sim.close()
