"""Proofs come from the log, and nothing of them goes on before it was held against the root that we followed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from simulator import SEGMENT, SimulatedGatekeeper, Simulator

from sfrl_secure.errors import (
    DeniedError,
    ExhaustedError,
    MalformedError,
    NotFoundError,
    RoundStateError,
    SfrlError,
    UnavailableError,
)
from sfrl_secure.governance.orders import OrderAction
from sfrl_secure.ids import Digest
from sfrl_secure.limits import PROVE_ENTRIES_MAX, ROOTS_MAX
from sfrl_secure.services.gatekeeper import proved_entries
from sfrl_secure.services.gatekeeper.proofs import ProofBuilder
from sfrl_secure.translog.entries import LoggedEntry
from sfrl_secure.wire.receipts import ReceiptKind

Answer = tuple[LoggedEntry, ...]


class AskedLog:
    """The log, as it is asked for entries; `answer` changes what it says."""

    def __init__(self, sim: Simulator) -> None:
        self.sim = sim
        self.asked: list[tuple[tuple[int, ...], int]] = []
        self.answer: Callable[[Answer], Answer] = lambda found: found

    def prove(self, indices: Sequence[int], tree_size: int) -> Answer:
        self.asked.append((tuple(indices), tree_size))
        return self.answer(self.sim.log.prove(indices, tree_size))


@pytest.fixture
def asked(sim: Simulator) -> AskedLog:
    return AskedLog(sim)


@pytest.fixture
def builder(sim: Simulator, asked: AskedLog) -> ProofBuilder:
    gatekeeper: SimulatedGatekeeper = sim.gatekeeper()
    return ProofBuilder(gatekeeper.view, sim.log, asked)


def refusing(error: SfrlError) -> Callable[[Answer], Answer]:
    def answer(_: Answer) -> Answer:
        raise error

    return answer


def first(change: Callable[[LoggedEntry], LoggedEntry]) -> Callable[[Answer], Answer]:
    return lambda found: (change(found[0]), *found[1:])


LIES: dict[str, Callable[[Answer], Answer]] = {
    "another entry's bytes": first(lambda logged: replace(logged, raw=logged.raw + b"\0")),
    "another index": first(lambda logged: replace(logged, index=logged.index + 1)),
    "a path with a step too many": first(lambda logged: replace(logged, path=(*logged.path, Digest(bytes(32))))),
    "a path with a step too few": first(lambda logged: replace(logged, path=logged.path[:-1])),
    "a path that no tree has": first(lambda logged: replace(logged, path=(Digest(b"short"),))),
    "the last entry changed": lambda found: (*found[:-1], replace(found[-1], raw=b"another")),
    "one entry too few": lambda found: found[:-1],
    "one entry too many": lambda found: (*found, found[-1]),
    "in another order": lambda found: found[::-1],
    "nothing": lambda found: (),
    "it has not so many entries": refusing(NotFoundError("no")),
    "it does not know us": refusing(DeniedError("role", "no")),
    "it is busy": refusing(ExhaustedError("no")),
    "no answer that can be read": refusing(MalformedError("no")),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_log_that_lies_is_not_handed_on(lie: str, sim: Simulator, asked: AskedLog, builder: ProofBuilder) -> None:
    sim.open_round()
    index = sim.admit("rover-1")
    (digest,) = sim.state.admitted_updates
    asked.answer = LIES[lie]
    calls: list[Callable[[], Any]] = [
        lambda: builder.open_round(SEGMENT, 0, 0),
        lambda: builder.receipt(SEGMENT, digest, ReceiptKind.WITNESSED),
    ]
    if lie != "in another order":  # of one entry there is no other
        calls.append(lambda: builder.acknowledged(index))
    for call in calls:
        with pytest.raises(UnavailableError, match="does not give what it has signed for"):
            call()
    # Nothing of it was kept.
    asked.answer = lambda found: found
    assert builder.open_round(SEGMENT, 0, 0).genesis == sim.log.logged_entry(0, len(sim.log.raw))


def test_an_entry_under_another_size_is_not_handed_on(sim: Simulator, asked: AskedLog, builder: ProofBuilder) -> None:
    index = sim.publish_rules()
    sim.publish_terms(sensitivity=1)
    older = sim.log.logged_entry(index, index + 1)
    asked.answer = lambda found: (older,)
    with pytest.raises(UnavailableError):
        builder.acknowledged(index)


def test_one_answer_is_one_call_and_the_same_again_is_none(
    sim: Simulator, asked: AskedLog, builder: ProofBuilder
) -> None:
    sim.open_round()
    size = len(sim.log.raw)
    answer = builder.open_round(SEGMENT, 0, 0)
    segment = sim.segment
    current = segment.open_round
    assert current is not None
    assert asked.asked == [((0, 1, segment.terms_index, current.opened_index), size)]
    assert answer.round_opened == sim.log.logged_entry(current.opened_index, size)
    assert answer.terms == sim.log.logged_entry(segment.terms_index, size)
    assert builder.open_round(SEGMENT, 0, 0) == answer
    assert len(asked.asked) == 1
    # Another checkpoint has other paths.
    sim.admit("rover-1")
    (digest,) = sim.state.admitted_updates
    later = builder.open_round(SEGMENT, 0, 0)
    assert later.genesis == sim.log.logged_entry(0, size + 1) != answer.genesis
    # A receipt asks for what the round has not brought.
    builder.receipt(SEGMENT, digest, ReceiptKind.WITNESSED)
    record = sim.state.index_of_document(("participant", "rover-1"))
    assert [indices for indices, _ in asked.asked[1:]] == [
        (0, 1, segment.terms_index, current.opened_index), (record, size),
    ]  # fmt: skip


def test_what_is_kept_is_bounded(
    sim: Simulator, asked: AskedLog, builder: ProofBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proved_entries, "PROVED_MAX", 5)
    sim.open_round()
    for _ in range(4):
        builder.open_round(SEGMENT, 0, 0)
        sim.publish_rules()
    assert len(builder._entries._proved) == 5
    assert len(asked.asked) == 4


def test_a_round_is_shown_under_the_checkpoint_that_covers_it(sim: Simulator, builder: ProofBuilder) -> None:
    sim.open_round()
    sim.log.witnessing = False
    sim.publish_rules()
    answer = builder.open_round(SEGMENT, 0, 0)
    assert answer.checkpoint == sim.log.witnessed.note
    assert answer.genesis == sim.log.logged_entry(0, len(sim.log.raw) - 1)


def test_a_halted_segment_is_said_to_be_so(sim: Simulator, builder: ProofBuilder) -> None:
    sim.open_round()
    sim.order(OrderAction.HALT)
    with pytest.raises(RoundStateError) as halted:
        builder.open_round(SEGMENT, 0, 0.0)
    assert halted.value.reason == "halted"
    sim.order(OrderAction.RESUME)
    assert not builder.open_round(SEGMENT, 0, 0.0).finished
    with pytest.raises(NotFoundError):
        builder.open_round(SEGMENT, 1, 0.0)


def test_an_entry_whose_checkpoint_has_not_come_is_not_acknowledged(sim: Simulator, builder: ProofBuilder) -> None:
    with pytest.raises(UnavailableError, match="has not arrived"):
        builder.acknowledged(len(sim.log.raw))


def test_more_entries_than_one_call_proves_are_asked_for_in_several(
    sim: Simulator, asked: AskedLog, builder: ProofBuilder
) -> None:
    sim.open_round()
    for _ in range(ROOTS_MAX):
        sim.rotate_root()
    answer = builder.open_round(SEGMENT, 0, 0)
    assert [logged.index for logged in answer.roots] == sim.state.root_indices
    assert max(len(indices) for indices, _ in asked.asked) <= PROVE_ENTRIES_MAX
    assert sum(len(indices) for indices, _ in asked.asked) > PROVE_ENTRIES_MAX
    # A chain with a gap proves nothing, so a root beyond what an answer holds is no answer.
    sim.rotate_root()
    with pytest.raises(UnavailableError, match="64"):
        builder.open_round(SEGMENT, 0, 0)


def test_roots_that_no_checkpoint_covers_yet_are_left_out(sim: Simulator, builder: ProofBuilder) -> None:
    sim.open_round()
    sim.log.witnessing = False
    sim.rotate_root()
    assert builder.open_round(SEGMENT, 0, 0).roots == ()
    sim.log.witness()
    assert len(builder.open_round(SEGMENT, 0, 0).roots) == 1
