"""Updates that are read again range by range: the same values as when they were decided, or none."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulator import GRID, SEGMENT, Simulator, service_id

from sfrl_secure.aggregation.contribution import tie_of
from sfrl_secure.aggregation.models import ModelSnapshot
from sfrl_secure.errors import DigestError, NotFoundError, SfrlError
from sfrl_secure.governance.aggregation_terms import MEDIAN, MaskTerms, RuleTerms
from sfrl_secure.governance.manifest import ModelManifest, TensorSpec
from sfrl_secure.governance.terms import ModelTerms, RoundTerms, UpdateLimits
from sfrl_secure.ids import Digest, sha256
from sfrl_secure.services.aggregator.cohort import Cohort
from sfrl_secure.services.aggregator.payloads import RoundPayloads, Taken
from sfrl_secure.services.aggregator.stored import DecodedLeaves, Stored, StoredUpdate
from sfrl_secure.services.masks import Masks
from sfrl_secure.sparse.encode import pack_update
from sfrl_secure.sparse.mask import Mask, decode_mask, encode_mask
from sfrl_secure.sparse.update import SparseUpdate, UpdatePart

LEAF = 65_536
COUNT = 3 * LEAF + 777
NAMES = ("rover-1", "rover-2", "rover-3")
MODES = dict(zip(NAMES, ("free", "dense", "agreed"), strict=True))


class LargeSimulator(Simulator):
    """A simulator whose mask is of the large model."""

    def _mask_object(self, digest: Digest | None) -> Mask | None:
        return None if digest is None else decode_mask(self.objects.get(digest, 2**20), COUNT)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    """An open round under the median, with an update of several leaves in each mode."""
    manifest = ModelManifest((TensorSpec("w", (COUNT,), "int32"),))
    initial = ModelSnapshot(manifest, GRID, np.zeros(COUNT, dtype=np.int64)).to_bytes()
    agreed = np.arange(COUNT)[np.arange(COUNT) % 3 != 1]
    mask = encode_mask(COUNT, agreed)
    sim = LargeSimulator(
        tmp_path_factory.mktemp("large"),
        rovers=NAMES,
        terms={
            "model": ModelTerms(manifest, GRID, sha256(initial)),
            "tensors": ["w"],
            "value_types": ["exact"],
            "support_modes": ["agreed", "dense", "free"],
            "limits": UpdateLimits(2**27, COUNT, 2**60, 2**40, 100),
            "mask": MaskTerms(sha256(mask), agreed.size),
            "rule": RuleTerms(MEDIAN),
            "round_terms": RoundTerms(60_000_000, 2, 3, 9),
        },
    )
    sim.objects.put(initial)
    sim.objects.put(mask)
    sim.open_round()
    draw = np.random.default_rng(5)
    for name, mode in MODES.items():
        at = {"free": np.sort(draw.choice(COUNT, LEAF + 5_000, replace=False)), "dense": np.arange(COUNT)}.get(
            mode, agreed
        )
        update = SparseUpdate(COUNT, at, draw.integers(1, 2**20, at.size))
        support: Any = mode
        payload = pack_update(
            update, value_type="exact", grid_exponent=GRID, support=support,
            mask=decode_mask(mask, COUNT) if mode == "agreed" else None,
        )  # fmt: skip
        body = sim.admission(
            name, payload=payload, nonzeros=at.size, support=support, value_type="exact", weight=NAMES.index(name) + 1
        )
        sim.write(service_id("gatekeeper", "g1"), f"segment/{SEGMENT}", body)
    yield sim
    sim.close()


def payloads_of(sim: Simulator) -> RoundPayloads:
    return RoundPayloads(sim.objects, Masks(sim.objects), sim.segment.rounds[1])


def whole(sim: Simulator, name: str) -> np.ndarray:
    """An update as it was sent, and where it carries nothing, 0."""
    values = np.zeros(COUNT, dtype=np.int64)
    for part in payloads_of(sim).parts(sim.segment.rounds[1].admissions[name]):
        values[part.at] = part.values
    return values


def firsts_of(sim: Simulator, name: str) -> np.ndarray:
    parts = payloads_of(sim).parts(sim.segment.rounds[1].admissions[name])
    return np.array([part.indices[0] for part in parts])


def stored(sim: Simulator, name: str, decoded: DecodedLeaves | None = None) -> StoredUpdate:
    admission = sim.segment.rounds[1].admissions[name]
    return StoredUpdate(payloads_of(sim), admission, firsts_of(sim, name), decoded or DecodedLeaves())


EDGES = st.one_of(
    st.integers(0, COUNT), st.sampled_from((0, LEAF - 1, LEAF, LEAF + 1, 2 * LEAF, 3 * LEAF, COUNT - 1, COUNT))
)


@pytest.fixture(scope="module")
def updates(large: Simulator) -> dict[str, tuple[StoredUpdate, np.ndarray, np.ndarray]]:
    """Each update in the store, what it sent, and where it carries something."""
    found = {}
    for name in NAMES:
        parts = list(payloads_of(large).parts(large.segment.rounds[1].admissions[name]))
        carried = np.concatenate([part.indices for part in parts])
        found[name] = stored(large, name, DecodedLeaves(2**21)), whole(large, name), carried
    return found


@settings(deadline=None, max_examples=80)
@given(name=st.sampled_from(NAMES), edges=st.lists(EDGES, min_size=2, max_size=6))
def test_any_range_gives_what_the_update_carries_there(
    updates: dict[str, tuple[StoredUpdate, np.ndarray, np.ndarray]], name: str, edges: list[int]
) -> None:
    """In order, nothing outside, nothing twice, ranges in any order; leaves that were kept among them."""
    update, values, carried = updates[name]
    for start, stop in pairwise(edges):
        start, stop = min(start, stop), max(start, stop)
        parts = list(update.parts(start, stop))
        at = [part.indices for part in parts]
        found = np.concatenate([np.empty(0, dtype=np.int64), *at])
        assert np.array_equal(found, carried[(carried >= start) & (carried < stop)])
        assert all(np.array_equal(values[part.at], part.values) for part in parts)
        assert all(part.count for part in parts)


def test_it_says_what_the_log_says_of_it(large: Simulator) -> None:
    current = large.segment.rounds[1]
    for name in NAMES:
        admission = current.admissions[name]
        update = stored(large, name)
        assert (update.weight, update.norm, update.nonzeros) == (
            admission.update.weight, admission.facts.norm, admission.update.nonzeros
        )  # fmt: skip
        assert update.tie == tie_of(current.opened, name) == sha256(current.opened + name.encode())


def test_leaves_that_the_range_does_not_touch_are_not_read(large: Simulator) -> None:
    """An object of which all other leaves are gone gives this one all the same."""
    path = large.objects.path(large.segment.rounds[1].admissions["rover-2"].update.payload_sha256)
    update = stored(large, "rover-2")
    raw = path.read_bytes()
    start, stop = update._starts[1:3]
    try:
        path.write_bytes(bytes(start) + raw[start:stop] + bytes(len(raw) - stop))
        (part,) = update.parts(LEAF + 10, 2 * LEAF)
        assert part.at == slice(LEAF + 10, 2 * LEAF)
        for outside in ((0, LEAF + 1), (LEAF, 2 * LEAF + 1)):
            with pytest.raises(DigestError):
                list(update.parts(*outside))
    finally:
        path.write_bytes(raw)


@pytest.mark.parametrize("name", NAMES)
def test_what_lies_there_by_now_is_the_update_or_nothing(large: Simulator, name: str) -> None:
    """Altered anywhere, cut, longer, another update's, gone: nothing of it is taken, and it works once it is back."""
    path = large.objects.path(large.segment.rounds[1].admissions[name].update.payload_sha256)
    other = large.objects.path(large.segment.rounds[1].admissions["rover-2"].update.payload_sha256)
    raw, expected = path.read_bytes(), whole(large, name)
    update, firsts = stored(large, name), firsts_of(large, name)
    swapped = other.read_bytes() if other != path else raw[::-1]
    try:
        for altered in (raw[:-1] + b"x", raw[:-1], b"", swapped, raw[:2_000] + b"!" + raw[2_001:]):
            path.write_bytes(altered)
            with pytest.raises(SfrlError):
                list(update.parts(0, COUNT))
        path.write_bytes(raw[:70] + bytes([raw[70] ^ 1]) + raw[71:])
        with pytest.raises(DigestError):
            StoredUpdate(payloads_of(large), large.segment.rounds[1].admissions[name], firsts, DecodedLeaves())
        path.unlink()
        with pytest.raises(NotFoundError):
            list(update.parts(0, COUNT))
    finally:
        path.write_bytes(raw)
    found = np.zeros(COUNT, dtype=np.int64)
    for part in update.parts(0, COUNT):
        found[part.at] = part.values
    assert np.array_equal(found, expected)


def test_several_threads_read_the_same(large: Simulator) -> None:
    decoded = DecodedLeaves(2**21)
    update, expected = stored(large, "rover-1", decoded), whole(large, "rover-1")
    edges = [*range(0, COUNT, 10_007), COUNT]
    with ThreadPoolExecutor(4) as pool:
        ranges = pool.map(lambda ends: list(update.parts(*ends)), pairwise(edges))
        parts = [part for found in ranges for part in found]
    found = np.zeros(COUNT, dtype=np.int64)
    for part in parts:
        found[part.at] += part.values
    assert np.array_equal(found, expected)


def test_kept_leaves_take_no_more_than_their_bytes(large: Simulator) -> None:
    """The ones that nobody asked for the longest go; one that is larger than all is not kept."""

    def part(number: int, count: int = 100) -> UpdatePart:
        return UpdatePart(slice(0, count), np.full(count, number))

    kept, tie = DecodedLeaves(2_400), sha256(b"tie")
    for number in range(3):
        kept.put(tie, number, part(number))
    assert kept.get(tie, 0) is not None
    kept.put(tie, 3, part(3))
    assert [number for number in range(4) if kept.get(tie, number) is not None] == [0, 2, 3]
    kept.put(tie, 3, part(3))
    kept.put(tie, 4, part(4, 301))
    assert [number for number in range(5) if kept.get(tie, number) is not None] == []
    kept.put(tie, 5, UpdatePart(np.arange(200), np.arange(200)))
    assert kept.get(tie, 5) is None


def test_a_neighbouring_range_does_not_decode_its_leaf_again(
    large: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In ranges of a tenth of a leaf each leaf is decoded once."""
    read: list[int] = []
    given_read = StoredUpdate._read_leaf

    def watched(self: StoredUpdate, reader: Any, leaf_index: int) -> UpdatePart:
        read.append(leaf_index)
        return given_read(self, reader, leaf_index)

    monkeypatch.setattr(StoredUpdate, "_read_leaf", watched)
    for name in NAMES:
        read.clear()
        update = stored(large, name)
        for start in range(0, COUNT, LEAF // 10):
            list(update.parts(start, min(start + LEAF // 10, COUNT)))
        assert read == sorted(set(read))


def test_whatever_is_not_counted_is_not_in_it_and_who_is_missing_is_asked_for_again(large: Simulator) -> None:
    current = large.segment.rounds[1]
    cohort = Cohort(large.objects, Masks(large.objects), threads=2)
    everybody = tuple(current.admissions[name] for name in NAMES)
    assert cohort.decide(current, everybody) == frozenset()
    path = large.objects.path(everybody[1].update.payload_sha256)
    raw = path.read_bytes()
    path.unlink()
    try:
        # Who is not counted need not be there.
        combined = cohort.combine(current, (everybody[0], everybody[2]))
        with pytest.raises(NotFoundError):
            cohort.combine(current, everybody)
    finally:
        path.write_bytes(raw)
    assert combined is not None
    found = np.zeros(COUNT, dtype=np.int64)
    found[combined.step.at] = combined.step.values
    # Half of the sum, to even.
    both = whole(large, "rover-1") + whole(large, "rover-3")
    assert np.array_equal(found, (both + ((both >> 1) & 1)) >> 1)
    again = cohort.combine(current, everybody)
    assert again is not None
    found[again.step.at] = again.step.values
    three = np.sort([whole(large, name) for name in NAMES], axis=0)
    assert np.array_equal(found, three[1])


def test_of_a_decided_update_one_number_a_leaf_is_kept(large: Simulator) -> None:
    kept = Stored(payloads_of(large), 1)
    assert kept.take([large.segment.rounds[1].admissions[name] for name in NAMES]) == Taken((), None)
    assert sorted(firsts.size for firsts in kept._firsts.values()) == [2, 3, 4]
    kept.drop("rover-1")
    assert sorted(kept.inside) == ["rover-2", "rover-3"]
