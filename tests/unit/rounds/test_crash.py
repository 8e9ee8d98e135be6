"""State after a crash equals state before it: at every entry of long histories, snapshot and rest are the whole.

A service that starts again reads its snapshot, where it has a good one, and then the log from there on; else the whole
log. Either way it must come out as it was, to the last field, and judge every entry as it did.
"""

from __future__ import annotations

import copy
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from simulator import Simulator

from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.statements import EntryKind, Statement
from sfrl_secure.rounds.fold import Content, FederationFold
from sfrl_secure.rounds.snapshot import decode_fold, encode_fold
from sfrl_secure.rounds.statement_index import MemoryStatements
from sfrl_secure.translog.merkle import leaf_hash
from sfrl_secure.wire.content import parse_content
from sfrl_secure.wire.entries import parse_entry

from .histories import History

ENTRIES = 150


class Log:
    """A log that was parsed once, to be folded often."""

    def __init__(self, sim: Simulator) -> None:
        self.sim = sim
        self.entries: list[tuple[Any, Any, Content | None]] = []
        for raw in sim.log.raw:
            entry, content = parse_entry(raw), None
            with suppress(MalformedError):
                content = parse_content(entry.envelope)
            self.entries.append((leaf_hash(raw), entry, content))

    def begin(self) -> FederationFold:
        return FederationFold(self.sim.origin, self.sim.log.fold.log_vkeys)

    def fold_on(self, fold: FederationFold, end: int) -> list[str | None]:
        """Take in all entries up to `end`; say what is void and why."""
        first = fold.state.size
        return [fold.apply(first + n, *each) for n, each in enumerate(self.entries[first:end])]


def snapshot_of(fold: FederationFold) -> bytes:
    """Every field of the state, as bytes; the order of what is unordered is fixed."""
    return encode_fold(fold)


def after_crash(fold: FederationFold, raw: bytes) -> FederationFold:
    """What starts from a snapshot. The statement index is a file of its own, and may be ahead of it."""
    assert isinstance(fold.state.statements, MemoryStatements)
    return decode_fold(raw, fold.state.origin, fold.log_vkeys, copy.deepcopy(fold.state.statements))


def lived(folder: Path, seed: int, entries: int, *, with_everything: bool = False) -> History:
    history = History(folder, seed)
    if with_everything:
        history.begin_with_everything()
    history.live(entries)
    history.sim.close()
    return history


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> History:
    """A history in which everything happens: see the last test."""
    return lived(tmp_path_factory.mktemp("long"), 1, ENTRIES, with_everything=True)


def test_a_crash_at_any_entry_of_a_long_history_changes_nothing(long: History) -> None:
    log = Log(long.sim)
    size = len(log.entries)
    whole, snapshots, voids = log.begin(), [], []
    for end in range(size):
        snapshots.append(snapshot_of(whole))
        voids += log.fold_on(whole, end + 1)
    last = snapshot_of(whole)
    assert whole.state == log.sim.state
    for at, raw in enumerate(snapshots):
        # The index has all statements of the whole log: those from `at` on do not count yet.
        again = after_crash(whole, raw)
        assert snapshot_of(again) == raw
        assert log.fold_on(again, size) == voids[at:]
        assert snapshot_of(again) == last
        assert again.state == whole.state


@settings(deadline=None, max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(10, 2**32), data=st.data())
def test_crashes_upon_crashes_change_nothing(tmp_path_factory: Any, seed: int, data: st.DataObject) -> None:
    """One service never stops; the other begins again from its snapshot before every few entries."""
    log = Log(lived(tmp_path_factory.mktemp("history"), seed, 80).sim)
    steady, crashing = log.begin(), log.begin()
    while crashing.state.size < len(log.entries):
        crashing = after_crash(crashing, snapshot_of(crashing))
        end = min(crashing.state.size + data.draw(st.integers(1, 4)), len(log.entries))
        assert log.fold_on(steady, end) == log.fold_on(crashing, end)
        assert snapshot_of(steady) == snapshot_of(crashing)
    assert steady.state == crashing.state == log.sim.state


def test_the_long_history_has_all_that_can_be_written(long: History) -> None:
    """Else its test says less than its name."""
    log, kinds = Log(long.sim), set()
    for index, (_, _, content) in enumerate(log.entries):
        if index not in long.sim.log.voids:
            assert content is not None
            kinds.add(content.kind.name if isinstance(content, Statement) else content.series[0])
    statements = {kind.name for kind in EntryKind} - {
        "GENESIS", "GOVERNANCE_PUBLISHED", "PARTICIPANT_RECORDED", "ORDER_GIVEN",
    }  # fmt: skip
    documents = {"genesis", "root", "services", "rules", "segment-terms", "participant", "join", "order"}
    assert statements | documents <= kinds
    assert long.seen >= {
        "state", "next mask", "cluster", "due", "left out", "abandoned", "halted", "void", "FULL", "DEADLINE", "ORDER",
        "CLOSED", "ABORTED", "withdrawn", "excluded", "participant_inactive", "defective",
    }  # fmt: skip
