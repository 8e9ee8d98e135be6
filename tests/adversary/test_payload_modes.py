"""Agreed and dense updates: a mask that is another one, zeros that hide what is touched, two readers of one payload.

Whoever attacks is a participant, operators who publish terms that cannot be met, or whoever writes into the store. Two
honest readers must give one reason for one payload: else an honest gatekeeper is found to have lied.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulator import MANIFEST, payload_of, service_id

from sfrl_secure.errors import DeniedError, SfrlError, UnavailableError
from sfrl_secure.governance.aggregation_terms import MaskTerms, NextMaskTerms
from sfrl_secure.governance.statements import PayloadFormat
from sfrl_secure.governance.terms import LeakageBound, LeakageTerms, UpdateLimits
from sfrl_secure.ids import sha256
from sfrl_secure.sparse.header import CODEC_VERSION, SupportMode
from sfrl_secure.sparse.mask import Mask, encode_mask

from .arena import LOG, OBJECT, Arena

PLACES = (0, 3, 17)
DENSE = dict.fromkeys(range(MANIFEST.coordinates), 0)
GATE = LeakageTerms(
    nonzeros_min=2, weight_min=5, noise_std_min=0,
    rows=(LeakageBound("a.weight", 0, 2),), labels=(LeakageBound("a.bias", 0, 2),),
)  # fmt: skip


@pytest.fixture
def arena(tmp_path: Path) -> Iterator[Arena]:
    """A segment without a round, whose terms the test publishes."""
    with Arena(tmp_path) as made:
        yield made


def agree(arena: Arena, mask: MaskTerms) -> None:
    arena.sim.publish_terms(support_modes=["agreed", "free"], mask=mask)
    arena.sim.open_round()


def limits(arena: Arena) -> UpdateLimits:
    return replace(arena.sim.segment.terms.limits, nonzeros_max=MANIFEST.coordinates)


def dense(arena: Arena, name: str, values: dict[int, int], **changes: Any) -> Any:
    return arena.sim.update(name, DENSE | values, support="dense", **changes)


# The mask


def test_an_update_under_another_mask_of_the_same_size_is_refused(arena: Arena) -> None:
    agree(arena, arena.sim.agree(*PLACES))
    honest = arena.sim.update("rover-1", support="agreed")
    digest = sha256(encode_mask(MANIFEST.coordinates, np.array([0, 3, 16], dtype=np.int64)))
    raw = honest[2][:28] + digest + honest[2][60:]
    arena.sim.objects.put(encode_mask(MANIFEST.coordinates, np.array([0, 3, 16], dtype=np.int64)))
    format_ = PayloadFormat(CODEC_VERSION, "agreed", "int8")
    swapped = arena.sim.update("rover-2", payload=raw, format=format_)
    arena.refused("payload_format", partial(arena.send, "rover-2", swapped), OBJECT)
    arena.send("rover-1", honest)
    arena.verify()


def under(arena: Arena, mask: Mask, name: str) -> Any:
    """An update of this participant's under a mask."""
    payload = payload_of(dict.fromkeys(mask.indices.tolist(), 3), support="agreed", mask=mask)
    format_ = PayloadFormat(CODEC_VERSION, "agreed", "int8")
    return arena.sim.update(name, payload=payload, format=format_)


def change_masks(arena: Arena) -> None:
    """Terms whose mask changes, and a round that makes the next one have the coordinates that were voted for."""
    sim = arena.sim
    sim.publish_terms(support_modes=["agreed", "free"], mask=sim.agree(*PLACES, next=NextMaskTerms("votes", 3)))
    sim.open_round()
    for name in ("rover-1", "rover-2", "rover-3"):
        sim.admit(name, dict.fromkeys((1, 4, 8), 5))
    sim.close_round()


def test_an_update_under_the_mask_of_the_round_before_is_refused_and_told_what_to_do(arena: Arena) -> None:
    """It was kept, or shown by whoever would like values to land elsewhere: the values are of other coordinates."""
    sim = arena.sim
    change_masks(arena)
    sim.publish_model()
    old, new = sim.mask_of(sim.segment.rounds[1]), sim.mask_of(sim.open_round())
    assert old is not None
    assert new is not None
    assert (old.indices.tolist(), new.indices.tolist()) == ([*PLACES], [1, 4, 8])
    said: list[str] = []

    def attempt() -> object:
        try:
            return arena.send("rover-1", under(arena, old, "rover-1"))
        except DeniedError as denied:
            said.append(str(denied))
            raise

    arena.refused("payload_format", attempt, OBJECT)
    assert "another mask than its round's" in said[0]
    # The same values, of the round's coordinates, are taken.
    arena.send("rover-1", under(arena, new, "rover-1"))
    arena.verify()


def test_a_next_mask_that_is_none_decides_no_update_and_an_operators_rollback_helps(arena: Arena) -> None:
    """An aggregator that lies: what it names is no mask, so that nobody's agreed update can be decided."""
    sim = arena.sim
    change_masks(arena)
    current = sim.segment.rounds[1]
    lie = sim.model_of(current, current.base_model, next_mask=sim.objects.put(b"no mask, but bytes"))
    a1 = service_id("aggregator", "a1")
    arena.found("next_mask", sim.sign(sim.statement(a1, "segment/rocks", lie)))
    assert sim.open_round().mask == lie.next_mask
    mask = sim.mask_of(current)
    assert mask is not None
    with pytest.raises(UnavailableError, match="mask"):
        arena.send("rover-1", under(arena, mask, "rover-1"))
    arena.send("rover-2", sim.update("rover-2"))
    sim.roll_back(sim.initial_digest)
    sim.close_round()
    assert sim.open_round().mask == mask.digest
    arena.send("rover-1", under(arena, mask, "rover-1"))
    arena.verify()


@pytest.mark.parametrize("more", [1, -1])
def test_a_mask_of_another_number_than_the_terms_say_makes_nobody_a_liar(arena: Arena, more: int) -> None:
    """Operators' error, or their trap: the verifier has one reason for it, and the gatekeeper gives that or none."""
    mask = arena.sim.agree(*PLACES)
    agree(arena, replace(mask, nonzeros=mask.nonzeros + more))
    payload = payload_of({0: 5, 3: -7, 17: 100}, support="agreed", mask=arena.sim.mask)
    for nonzeros in (mask.nonzeros, mask.nonzeros + more):
        raw = payload[:16] + nonzeros.to_bytes(8, "little") + payload[24:]
        format_ = PayloadFormat(CODEC_VERSION, "agreed", "int8")
        signed = arena.sim.update("rover-1", payload=raw, nonzeros=nonzeros, format=format_)
        with pytest.raises(SfrlError):
            arena.send("rover-1", signed)
        arena.verify()
    assert arena.admissions() == frozenset()


def test_a_mask_that_was_swapped_in_the_store_decides_nothing(arena: Arena) -> None:
    mask = arena.sim.agree(*PLACES)
    agree(arena, mask)
    signed, size = arena.sim.update("rover-1", support="agreed"), len(arena.sim.log.raw)
    path = arena.sim.objects.path(mask.digest)
    honest = path.read_bytes()
    path.write_bytes(encode_mask(MANIFEST.coordinates, np.array([0, 3, 16], dtype=np.int64)))
    with pytest.raises(UnavailableError, match="mask"):
        arena.send("rover-1", signed)
    assert len(arena.sim.log.raw) == size
    path.write_bytes(honest)
    arena.send("rover-1", signed)
    arena.verify()


def test_a_mask_is_no_update_and_an_update_is_no_mask(arena: Arena) -> None:
    agree(arena, arena.sim.agree(*PLACES))
    mask = encode_mask(MANIFEST.coordinates, np.array(PLACES, dtype=np.int64))
    as_update = arena.sim.update("rover-1", payload=mask)
    arena.refused("payload_format", partial(arena.send, "rover-1", as_update), OBJECT)
    # An update whose bytes are also what the terms name as the mask: nothing is decided by it.
    payload = payload_of({0: 5, 3: -7, 17: 100})
    arena.sim.objects.put(payload)
    arena.sim.clock.advance(arena.sim.segment.rounds[1].deadline_us - arena.sim.clock.now_us())
    arena.sim.close_round()
    agree(arena, MaskTerms(sha256(payload), 3))
    format_ = PayloadFormat(CODEC_VERSION, "agreed", "int8")
    signed = arena.sim.update("rover-2", payload=payload, format=format_)
    with pytest.raises(UnavailableError, match="mask"):
        arena.send("rover-2", signed)
    arena.verify()


# Zeros


def test_zeros_touch_nothing_where_the_gate_counts_rows_and_labels(arena: Arena) -> None:
    """A dense update names every row; of those that do not change nobody can say that they hide the one that does."""
    arena.sim.publish_terms(support_modes=["dense"], limits=limits(arena), leakage=GATE)
    arena.sim.open_round()
    one_row = dense(arena, "rover-1", {0: 5, 3: -7})
    arena.refused("leak_rows", partial(arena.send, "rover-1", one_row), OBJECT)
    one_label = dense(arena, "rover-1", {16: 5, 17: -3, 18: -4})
    arena.refused("leak_labels", partial(arena.send, "rover-1", one_label), OBJECT)
    sound = dense(arena, "rover-1", {0: 5, 7: -7, 16: 3, 17: -3, 18: 4, 19: -4})
    arena.send("rover-1", sound)
    arena.verify()


@pytest.mark.parametrize("support", ["agreed", "dense"])
def test_zeros_are_not_counted_among_the_coordinates_that_are_touched(arena: Arena, support: SupportMode) -> None:
    """A header may claim as many values as the terms ask for, and all but one of them be zeros."""
    mask = arena.sim.agree(*PLACES) if support == "agreed" else None
    leakage = LeakageTerms(nonzeros_min=2, weight_min=1, noise_std_min=0, rows=(), labels=())
    arena.sim.publish_terms(support_modes=[support], limits=limits(arena), leakage=leakage, mask=mask)
    arena.sim.open_round()
    zeros = dict.fromkeys(PLACES, 0) if support == "agreed" else DENSE
    for name, values in (("rover-1", {}), ("rover-2", {3: -7})):
        betrays = arena.sim.update(name, zeros | values, support=support)
        assert betrays[1].nonzeros >= leakage.nonzeros_min
        arena.refused("leak_coordinates", partial(arena.send, name, betrays), OBJECT)
    arena.send("rover-3", arena.sim.update("rover-3", zeros | {3: -7, 17: 1}, support=support))
    arena.verify()


def test_zeros_have_no_noise_and_are_counted_as_values(arena: Arena) -> None:
    """Noise is added to every value that is sent: zeros between large values betray that it was not."""
    arena.sim.publish_terms(support_modes=["dense"], limits=limits(arena))
    arena.sim.open_round()
    silent = dense(arena, "rover-1", {0: 30}, noise_std=20)
    arena.refused("leak_noise", partial(arena.send, "rover-1", silent), OBJECT)


def test_a_tensor_that_is_frozen_may_be_named_and_not_changed(arena: Arena) -> None:
    sim = arena.sim
    sim.publish_terms(support_modes=["dense"], limits=limits(arena))
    sim.open_round()
    allowed = sim.segment.terms.allowed_tensor_indices
    offsets = MANIFEST.offsets
    frozen = next(offsets[at] for at in range(len(offsets)) if at not in allowed)
    touching = dense(arena, "rover-1", {0: 1, frozen: 1})
    arena.refused("tensor_not_allowed", partial(arena.send, "rover-1", touching), OBJECT)
    arena.send("rover-2", dense(arena, "rover-2", {0: 1}))
    arena.verify()


def test_a_mode_that_the_terms_do_not_name_is_refused_by_its_header(arena: Arena) -> None:
    agree(arena, arena.sim.agree(*PLACES))
    arena.refused("format_not_allowed", partial(arena.send, "rover-1", dense(arena, "rover-1", {0: 1})), LOG)
    fewer = arena.sim.update("rover-2", {0: 1, 3: 1}, format=PayloadFormat(CODEC_VERSION, "agreed", "int8"))
    arena.refused("format_not_allowed", partial(arena.send, "rover-2", fewer), LOG)
