"""Updates that are added up, read again from their objects: by range, a leaf at a time, and only what was admitted."""

from __future__ import annotations

import struct
from random import Random
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from sfrl_secure.ids import Digest
from sfrl_secure.replay import columns
from sfrl_secure.replay.aggregation_terms import Clip
from sfrl_secure.replay.columns import Cohort
from sfrl_secure.replay.counted import Counted, Gone, StoredUpdate, clip_factors
from sfrl_secure.replay.decoder import Part, decode_parts
from sfrl_secure.replay.docket import Docket
from sfrl_secure.replay.payload_header import Expected, Mask
from sfrl_secure.replay.recomputation import recompute
from sfrl_secure.replay.terms import parse_terms

from .builder import MemoryObjects, sha
from .cases import AT, SHAPES, Case, document, objects_of, of_cohort
from .memory import MIB, memory_below
from .payloads import assemble, encode_mask, encode_payload, payload_root, step_code

COUNT = 140_000
MASK = list(range(0, COUNT, 2))
SPARSE = {c: 1 + c % 50 for c in range(1, COUNT, 2)}


class CountingObjects(MemoryObjects):
    """Says how many bytes were read."""

    taken = 0

    def read_at(self, digest: Any, offset: int, length: int) -> bytes | None:
        found = super().read_at(digest, offset, length)
        self.taken += len(found or b"")
        return found


def stored(support: str, objects: MemoryObjects | None = None) -> tuple[StoredUpdate, dict[int, int], MemoryObjects]:
    """An update of more than one leaf, and what it carries."""
    objects = CountingObjects() if objects is None else objects
    raw_mask = encode_mask(MASK, COUNT) if support == "agreed" else b""
    update = {"free": SPARSE, "agreed": {c: c % 97 - 40 for c in MASK},
              "dense": {c: c % 101 - 50 for c in range(COUNT)}}[support]  # fmt: skip
    payload = encode_payload(update, COUNT, "int8", 10, support=support, mask=raw_mask, mask_indices=MASK)
    mask = Mask(sha(raw_mask), np.array(MASK)) if raw_mask else None
    expected = Expected(COUNT, len(update), support, "int8", 10, Digest(payload_root(payload)), mask)
    ends = np.array([part.end for part in decode_parts(payload, expected)], np.int64)
    digest = objects.put(payload)
    return StoredUpdate(Docket(objects), digest, len(payload), expected, ends), update, objects


def values_of(parts: list[Part]) -> dict[int, int]:
    found: dict[int, int] = {}
    for part in parts:
        at = range(part.at.start, part.at.stop) if isinstance(part.at, slice) else part.at.tolist()
        found |= dict(zip(at, part.values.tolist(), strict=True))
    return found


@pytest.mark.parametrize("support", ["free", "agreed", "dense"])
def test_a_range_has_what_the_update_carries_there(support: str) -> None:
    update, carried, _ = stored(support)
    rng = Random(support)
    borders = [0, 1, 65_535, 65_536, 65_537, 131_071, 131_072, COUNT - 1, COUNT]
    ranges = [(low, high) for low in borders for high in borders if low < high]
    ranges += [tuple(sorted(rng.sample(range(COUNT + 1), 2))) for _ in range(20)]  # type: ignore[misc]
    for low, high in ranges:
        expected = {c: v for c, v in carried.items() if low <= c < high}
        assert values_of(list(update.parts(low, high))) == expected
        assert update.at_most(low, high) >= len(expected)
    assert update.at_most(0, COUNT) == len(carried)


@pytest.mark.parametrize("support", ["free", "agreed", "dense"])
def test_leaves_outside_the_range_are_not_read(support: str) -> None:
    update, _, objects = stored(support)
    assert isinstance(objects, CountingObjects)
    whole = len(next(iter(objects.values())))
    objects.taken = 0
    list(update.parts(COUNT - 10, COUNT))
    assert 0 < objects.taken < whole / 2


@pytest.mark.parametrize("support", ["free", "agreed", "dense"])
def test_whatever_is_changed_after_the_admission_is_gone(support: str) -> None:
    update, _, objects = stored(support)
    digest, raw = next(iter(objects.items()))
    for at in (100, len(raw) // 2, len(raw) - 1):
        objects[digest] = raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]
        with pytest.raises(Gone):
            list(stored_again(update, objects).parts(0, COUNT))
    for other in (b"", raw[:50], raw[:-1]):
        objects[digest] = other
        with pytest.raises(Gone):
            list(stored_again(update, objects).parts(0, COUNT))
    del objects[digest]
    with pytest.raises(Gone):
        list(update.parts(0, 1))


def stored_again(update: StoredUpdate, objects: MemoryObjects) -> StoredUpdate:
    return StoredUpdate(Docket(objects), update._digest, update._header.begin + sum(update._header.lengths),
                        update._expected, update._ends)  # fmt: skip


def test_a_leaf_that_was_cut_short_is_gone() -> None:
    update, _, objects = stored("dense")
    digest, raw = next(iter(objects.items()))
    objects[digest] = raw[:-1]
    list(update.parts(0, 65_536))
    with pytest.raises(Gone):
        list(update.parts(COUNT - 1, COUNT))


def test_what_is_gone_while_a_round_is_worked_out_is_missing_and_nothing_else_is_said() -> None:
    terms = of_cohort(document(SHAPES), 1, 3)
    case = Case(terms, (("free", {1: 5}, 1), ("free", {2: 6}, 1), ("free", {}, 1)), [0] * 24, None, [])
    objects = MemoryObjects()
    docket = Docket(objects)
    task = objects_of(case, parse_terms(terms), objects)
    gone = task.counted[1].update.payload_sha256
    objects[gone] = objects[gone][:-1]
    result = recompute(docket, task, AT)
    assert (result.names, result.values, result.clusters) == ({}, None, None)
    assert [(each.digest, each.index) for each in docket.missing] == [(gone, AT.index)]
    assert docket.findings == []


@pytest.mark.parametrize(("clip", "norms", "factors"), [
    (None, [5, 9], [None, None]),
    (Clip(9, None), [9, 10, 0], [None, 2**20 * 9 // 11, None]),
    (Clip(2**62, None), [2**62 - 1], [None]),
    (Clip(1, None), [2**62], [0]),
    (Clip(None, 10**6), [7, 3, 5], [2**20 * 5 // 8, None, None]),
    # Of an even number, the lower of the two in the middle.
    (Clip(None, 10**6), [7, 3, 5, 1], [2**20 * 3 // 8, None, 2**20 * 3 // 6, None]),
    (Clip(None, 1_500_000), [3, 3, 5, 4], [None, None, 2**20 * 4 // 6, None]),
    (Clip(None, 1), [999_999, 999_999], [0, 0]),
    (Clip(None, 1), [10**6, 10**6], [2**20 // (10**6 + 1)] * 2),
    (Clip(None, 10**6), [0, 0, 8], [None, None, 0]),
])  # fmt: skip
def test_who_is_beyond_the_bound_is_scaled_down(
    clip: Clip | None, norms: list[int], factors: list[int | None]
) -> None:
    assert clip_factors(clip, norms) == factors


def test_a_clipped_update_carries_what_it_carried() -> None:
    update, carried, _ = stored("agreed")
    clipped = Counted(0, sha(b"tie"), 1, 1, update, 2**19)
    expected = {c: round(v / 2) for c, v in carried.items()}
    assert values_of(list(clipped.parts(0, COUNT))) == expected


def test_many_long_updates_are_not_in_memory_at_once() -> None:
    """60 dense updates of a million coordinates would take half a gigabyte."""
    count = 16 * 65_536
    leaf = struct.pack("<H", 128) + step_code([0] * 1024) + bytes(range(1, 65)) * 1024
    payload = assemble(b"SFRU" + bytes([2, 3, 1, 10]) + struct.pack("<QQI", count, count, 16), [leaf] * 16)
    objects = MemoryObjects()
    digest = objects.put(payload)
    ends = np.arange(65_536, count + 1, 65_536)
    expected = Expected(count, count, "dense", "int8", 10, Digest(payload_root(payload)))
    update = StoredUpdate(Docket(objects), digest, len(payload), expected, ends)
    cohort = Cohort(count, [Counted(i, sha(bytes([i])), 1, 1, update) for i in range(60)])
    with patch.object(columns, "_HELD_MAX", 2**22), memory_below(96 * MIB):
        ranges = [(each.start, each.stop, len(each.values)) for each in cohort.columns()]
    assert [start for start, _, _ in ranges[1:]] == [stop for _, stop, _ in ranges[:-1]]
    assert (ranges[0][0], ranges[-1][1]) == (0, count)
    assert sum(entries for _, _, entries in ranges) == 60 * count


def test_the_columns_of_one_range_are_read_once() -> None:
    update, _, objects = stored("free")
    cohort = Cohort(COUNT, [Counted(0, sha(b"tie"), 1, 1, update)])
    assert isinstance(objects, CountingObjects)
    assert len(list(cohort.columns())) > 0
    taken = objects.taken
    assert len(list(cohort.columns())) > 0
    assert objects.taken == taken

