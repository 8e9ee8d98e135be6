"""What is kept of the fold: a service that starts from it has the state of one that folds the whole log."""

from __future__ import annotations

import copy
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sfrl_secure.errors import ExhaustedError, MalformedError, UncertainStateError
from sfrl_secure.ids import ZERO_DIGEST, Digest
from sfrl_secure.rounds import snapshot
from sfrl_secure.rpc import follower as follower_module
from sfrl_secure.services import kept_fold
from sfrl_secure.services.following import FollowedFederation, follow_kept
from sfrl_secure.services.kept_fold import KeptFold, decode_kept, encode_kept
from sfrl_secure.storage.index import SqliteStatements
from sfrl_secure.wire.audit_service import FollowBatch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from simulator import Simulator

SECONDS = 10.0


class Batches:
    """The simulated log as its server sends it: entries up to its head with the head's note, then witnessed notes."""

    def __init__(self, sim: Simulator, first_index: int) -> None:
        self._sim, self._next = sim, first_index
        self._cancelled = threading.Event()

    def __iter__(self) -> Iterator[FollowBatch]:
        witnessed = b""
        while not self._cancelled.wait(0.002):
            signed, then = self._sim.log.signed, self._sim.log.witnessed
            if signed.tree_size > self._next:
                yield FollowBatch(self._next, tuple(self._sim.log.raw[self._next : signed.tree_size]), signed.note)
                self._next = signed.tree_size
            if then.note != witnessed:
                witnessed = then.note
                yield FollowBatch(0, (), witnessed)

    def cancel(self) -> None:
        self._cancelled.set()


@dataclass
class Source:
    sim: Simulator

    def follow(self, first_index: int) -> Batches:
        return Batches(self.sim, first_index)


class Closing:
    def close(self) -> None:
        pass


class Service:
    """A service that follows, put together as `follow_federation` does."""

    def __init__(self, sim: Simulator, folder: Path) -> None:
        self.sim = sim
        self.uncertain: list[UncertainStateError] = []
        self.kept = KeptFold(folder, sim.origin, sim.log.fold.log_vkeys, sim.policy)
        self.began_at = self.kept.fold.state.size
        self.view, follower = follow_kept(
            self.kept, Source(sim), sim.origin, sim.policy, on_uncertain=self.uncertain.append
        )
        nothing: Any = None
        channel: Any = Closing()
        self.federation = FollowedFederation(
            nothing, channel, follower, self.view, self.kept, nothing, nothing, threading.Event()
        )

    def run(self) -> Service:
        """Start, and read all that is there."""
        self.federation.start()
        self.view.wait_size(len(self.sim.log.raw), SECONDS)
        return self

    def stop(self) -> None:
        self.federation.stop()

    def assert_has_folded_all(self) -> None:
        """Its state is that of the log's own fold, statement by statement."""
        witnessed = self.sim.log.witnessed.tree_size
        assert self.view.wait_until(lambda _: self.view.witnessed_size == witnessed, SECONDS)
        with self.view.reading() as state:
            ours = copy.copy(state)
            found = {self.sim.log.envelope_at(i).digest for i in range(len(self.sim.log.raw))}
            indices = {digest: state.index_of_statement(digest) for digest in found}
        ours.statements = self.sim.state.statements
        assert ours == self.sim.state
        assert indices == {digest: self.sim.state.index_of_statement(digest) for digest in found}


@pytest.fixture
def sim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    monkeypatch.setattr(follower_module, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(kept_fold, "FLUSH_SECONDS", 0.005)
    made = Simulator(tmp_path / "federation")
    yield made
    made.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "state"


def go_on(sim: Simulator) -> None:
    """A round, and an entry that is void."""
    sim.open_round()
    for name in ("rover-1", "rover-2", "rover-3"):
        sim.admit(name)
    sim.log.force(sim.log.envelope_at(1))
    sim.close_round()


def keep(sim: Simulator, folder: Path) -> None:
    service = Service(sim, folder).run()
    service.stop()


def test_a_service_that_starts_again_goes_on_from_what_it_kept(sim: Simulator, folder: Path) -> None:
    keep(sim, folder)
    half = len(sim.log.raw)
    go_on(sim)
    service = Service(sim, folder)
    assert service.began_at == half
    assert service.view.witnessed_size == half
    service.run().assert_has_folded_all()
    assert sim.log.voids
    service.stop()
    again = Service(sim, folder)
    assert again.began_at == len(sim.log.raw)
    again.run().assert_has_folded_all()
    sim.record("rover-4", state="suspended")
    again.view.wait_size(len(sim.log.raw), SECONDS)
    again.assert_has_folded_all()
    again.stop()


def test_what_a_killed_service_wrote_in_between_is_gone_on_from(
    sim: Simulator, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_fold, "ENTRIES_BETWEEN", 3)
    monkeypatch.setattr(kept_fold, "SHARE_OF_TIME", 1.0)
    service = Service(sim, folder).run()
    go_on(sim)
    path = folder / kept_fold.SNAPSHOT_NAME
    deadline = time.monotonic() + SECONDS
    while not path.exists() or decode_kept(path.read_bytes())[0].signed.tree_size < len(sim.log.raw) - 3:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    # Nothing more is written, as if it had been killed here; the operating system has what was flushed.
    service.federation.follower.stop()
    service.kept.stop(None)
    sim.record("rover-4", state="suspended")
    again = Service(sim, folder)
    assert 0 < again.began_at < len(sim.log.raw)
    again.run().assert_has_folded_all()
    again.stop()


def discarded(sim: Simulator, folder: Path) -> None:
    """The next start folds anew, and says so."""
    with structlog.testing.capture_logs() as lines:
        service = Service(sim, folder)
    assert [line["event"] for line in lines if line["event"].startswith("snapshot")] == ["snapshot_discarded"]
    assert service.began_at == 0
    service.run().assert_has_folded_all()
    service.stop()


def test_a_damaged_snapshot_is_thrown_away(sim: Simulator, folder: Path) -> None:
    path = folder / kept_fold.SNAPSHOT_NAME
    for at in (0, 3, 40, -40, -1):
        keep(sim, folder)
        raw = bytearray(path.read_bytes())
        raw[at] ^= 1
        path.write_bytes(raw)
        discarded(sim, folder)


def test_a_snapshot_of_other_code_is_thrown_away_with_its_index(
    sim: Simulator, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(sim, folder)
    # Other rules may have found this statement in another entry.
    index = SqliteStatements(folder / kept_fold.INDEX_NAME, log_id=kept_fold.sha256(sim.origin.encode()))
    digest = sim.log.envelope_at(0).digest
    assert index.get(digest) == 0
    index.add(ZERO_DIGEST, 1)
    index.flush(index.indexed_size)
    index.close()
    monkeypatch.setattr(snapshot, "code_digest", lambda: "00" * 32)
    discarded(sim, folder)
    index = SqliteStatements(folder / kept_fold.INDEX_NAME, log_id=kept_fold.sha256(sim.origin.encode()))
    assert index.get(ZERO_DIGEST) is None
    assert index.get(digest) == 0
    index.close()


def test_what_the_log_has_signed_outlives_the_fold_that_was_kept_with_it(
    sim: Simulator, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(sim, folder)
    signed = decode_kept((folder / kept_fold.SNAPSHOT_NAME).read_bytes())[0].signed
    monkeypatch.setattr(snapshot, "code_digest", lambda: "00" * 32)
    for _ in range(2):
        # Killed before it has come so far again, it still knows at the next start.
        service = Service(sim, folder)
        assert (service.began_at, service.kept.floor) == (0, signed)
        service.kept.stop(None)
    keep(sim, folder)
    assert Service(sim, folder).kept.floor is None


def test_a_snapshot_whose_index_is_lost_is_thrown_away(sim: Simulator, folder: Path) -> None:
    keep(sim, folder)
    (folder / kept_fold.INDEX_NAME).unlink()
    discarded(sim, folder)


def test_a_snapshot_of_another_log_is_thrown_away(sim: Simulator, folder: Path, tmp_path: Path) -> None:
    keep(sim, folder)
    other = Simulator(tmp_path / "other")
    discarded(other, folder)
    other.close()


def test_an_index_without_a_snapshot_is_not_believed(sim: Simulator, folder: Path) -> None:
    keep(sim, folder)
    (folder / kept_fold.SNAPSHOT_NAME).unlink()
    service = Service(sim, folder)
    assert service.began_at == 0
    assert service.kept.fold.state.statements.get(sim.log.envelope_at(0).digest) is None
    service.run().assert_has_folded_all()
    service.stop()


def test_a_snapshot_that_the_log_does_not_go_on_from_is_thrown_away(sim: Simulator, folder: Path) -> None:
    keep(sim, folder)
    path = folder / kept_fold.SNAPSHOT_NAME
    start, fold_raw = decode_kept(path.read_bytes())
    path.write_bytes(encode_kept(replace(start, chain=replace(start.chain, prev=Digest(bytes(32)))), fold_raw))
    go_on(sim)
    service = Service(sim, folder)
    assert service.began_at > 0
    service.run().assert_has_folded_all()
    service.stop()
    again = Service(sim, folder)
    assert again.began_at == len(sim.log.raw)
    again.run().assert_has_folded_all()
    again.stop()


def test_a_fault_of_ours_leaves_no_snapshot_to_fail_on_again(
    sim: Simulator, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(sim, folder)
    service = Service(sim, folder).run()

    def broken(*_: object) -> None:
        raise KeyError

    monkeypatch.setattr(service.kept.fold, "apply", broken)
    go_on(sim)
    with pytest.raises(UncertainStateError):
        service.federation.follower.wait_for(10**9, SECONDS)
    service.stop()
    assert len(service.uncertain) == 1
    assert not (folder / kept_fold.SNAPSHOT_NAME).exists()


def test_a_folder_has_one_service(sim: Simulator, folder: Path) -> None:
    service = Service(sim, folder)
    with pytest.raises(MalformedError, match="another process"):
        Service(sim, folder)
    service.stop()
    Service(sim, folder).stop()


def test_a_full_disk_costs_the_snapshot_and_nothing_else(
    sim: Simulator, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise ExhaustedError("the disk is full")

    monkeypatch.setattr(kept_fold, "write_atomically", full)
    service = Service(sim, folder).run()
    go_on(sim)
    service.view.wait_size(len(sim.log.raw), SECONDS)
    service.assert_has_folded_all()
    with structlog.testing.capture_logs() as lines:
        service.stop()
    assert "snapshot_not_written" in [line["event"] for line in lines]
    monkeypatch.undo()
    again = Service(sim, folder)
    assert again.began_at == 0
    again.stop()


def test_snapshots_are_written_as_often_as_they_are_worth_it(
    sim: Simulator, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]

    class Time:
        monotonic = staticmethod(lambda: now[0])

    monkeypatch.setattr(kept_fold, "time", Time)
    keep(sim, folder)
    kept = KeptFold(folder, sim.origin, sim.log.fold.log_vkeys, sim.policy)
    asked: list[int] = []
    begin = kept.begin
    assert begin is not None

    def freeze() -> Callable[[], bytes]:
        def encode() -> bytes:
            now[0] += 2.0
            return b""

        return encode

    def offer(size: int) -> bool:
        def position() -> Any:
            asked.append(size)
            return begin

        before = len(asked)
        kept.offer(size, position, freeze)
        return len(asked) > before

    first = kept.fold.state.size
    between = kept_fold.ENTRIES_BETWEEN
    assert not offer(first + between - 1)
    assert offer(first + between)
    assert not offer(first + 3 * between), "one is waiting to be written"
    kept._write()
    # It took 2 s of 40.
    assert not offer(first + 3 * between)
    now[0] += 39.0
    assert not offer(first + 3 * between)
    now[0] += 1.0
    assert offer(first + 3 * between)
    kept.stop(None)


def test_a_snapshot_that_could_not_be_written_is_offered_again(
    sim: Simulator, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_fold, "ENTRIES_BETWEEN", 1)
    kept = KeptFold(folder, sim.origin, sim.log.fold.log_vkeys, sim.policy)
    position: Any = lambda: None  # noqa: E731
    encoded: list[int] = []
    monkeypatch.setattr(kept_fold, "encode_kept", lambda *_: encoded.append(1) or b"")

    def full(*_: object, **__: object) -> None:
        raise ExhaustedError("the disk is full")

    monkeypatch.setattr(kept_fold, "write_atomically", full)
    kept.offer(5, position, lambda: lambda: b"")
    for _ in range(3):
        kept._try(kept._write)
    assert len(encoded) == 1
    kept._free_at = 0.0
    kept.offer(5, position, lambda: lambda: b"")
    kept._try(kept._write)
    assert len(encoded) == 2
    kept.offer(6, position, lambda: lambda: b"")
    kept.forget()
    kept.stop(None)
    assert len(encoded) == 2


def test_beside_a_snapshot_the_index_holds_only_what_the_log_has_signed_for(sim: Simulator, folder: Path) -> None:
    service = Service(sim, folder)
    service.kept.fold.state.size = 4
    service.kept._write()
    assert service.kept._index.indexed_size == 4, "without a snapshot it is begun anew"
    service.stop()
    keep(sim, folder)
    size = len(sim.log.raw)
    again = Service(sim, folder)
    again.kept.fold.state.size = size + 5
    again.kept._write()
    assert again.kept._index.indexed_size == size
    again.kept.offer(size + 5, lambda: pytest.fail("none is due"), lambda: pytest.fail("none is due"))
    again.kept._write()
    assert again.kept._index.indexed_size == size + 5
    again.stop()


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=st.binary(max_size=200), length=st.integers(0, 2**32 - 1))
def test_what_is_no_snapshot_file_raises_nothing_but_a_typed_error(raw: bytes, length: int) -> None:
    head = raw[: length % 64]
    sealed = len(head).to_bytes(4, "little") + head + kept_fold.sha256(head) + raw
    for each in (raw, length.to_bytes(4, "little") + raw, sealed, sealed[:-1]):
        with pytest.raises(MalformedError):
            decode_kept(each)


def test_a_position_goes_through_the_file_unchanged(sim: Simulator, folder: Path) -> None:
    keep(sim, folder)
    start, fold_raw = decode_kept((folder / kept_fold.SNAPSHOT_NAME).read_bytes())
    assert decode_kept(encode_kept(start, fold_raw)) == (start, fold_raw)
    assert start.signed.tree_size == len(sim.log.raw)
    assert start.chain.prev == sim.log.leaf(len(sim.log.raw) - 1)
    assert set(start.chain.streams) == set(sim.state.streams)
