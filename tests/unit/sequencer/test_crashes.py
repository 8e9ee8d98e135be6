"""A process that dies at any system call: what was acknowledged is there once, and nothing that was signed is untrue.

Each run is a forked process that appends until it is killed before its k-th call to the operating system, here with
half of a write done, there with everything lost that was not synced. The parent starts the log again and looks.
"""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sfrl_secure.errors import SfrlError, UncertainStateError
from sfrl_secure.sequencer.sequencer import Appended, SequencerSettings
from sfrl_secure.sequencer.signing import CheckpointSigner
from sfrl_secure.sequencer.upkeep import UpkeepSettings
from sfrl_secure.sequencer.witness_client import WitnessReply
from sfrl_secure.storage.index import SqliteStatements
from sfrl_secure.storage.log_folder import SEGMENTS_NAME
from sfrl_secure.storage.system import calls_watched_by
from sfrl_secure.translog.checkpoint import parse_checkpoint
from sfrl_secure.translog.merkle import leaf_hash, root_of
from sfrl_secure.translog.note import parse_note
from sfrl_secure.translog.opened import open_checkpoint
from sfrl_secure.translog.tiles import bundles_of, parse_bundle, tile_of_tree, tiles_of
from sfrl_secure.translog.tree import MerkleTree
from sfrl_secure.translog.witness import WitnessState
from sfrl_secure.wire.entries import parse_entry

GROUPS = 8
GROUP_ENTRIES = 60
"""Each run goes on for two tiles and more, over many segments."""

RUNS_OF_ONE_LOG = 5


class Record:
    """What a process that is to die leaves for its parent, past the calls that are watched."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def add(self, kind: str, *values: object) -> None:
        os.write(self._descriptor, json.dumps([kind, *values]).encode() + b"\n")

    @staticmethod
    def read(path: Path) -> list[list]:
        lines = path.read_bytes().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]


class KeepingWitness:
    """A witness that outlives the log's process."""

    def __init__(self, witness, path: Path) -> None:
        self._witness, self._path = witness, path
        self.names = witness.names
        if path.exists():
            note = path.read_bytes()
            witness.recorded = {
                "log.example/sfrl/00112233445566778899aabbccddeeff": WitnessState(
                    parse_checkpoint(parse_note(note).text), note
                )
            }

    def add_checkpoint(self, request: bytes) -> WitnessReply:
        reply = self._witness.add_checkpoint(request)
        for state in self._witness.recorded.values():
            self._path.with_suffix(".new").write_bytes(state.note)
            self._path.with_suffix(".new").replace(self._path)
        return reply

    def latest(self, origin: str) -> WitnessReply:
        return self._witness.latest(origin)


class NotingSigner:
    """Signs, and notes what was signed before anybody sees it."""

    def __init__(self, signer: CheckpointSigner, record: Record) -> None:
        self._signer, self._record = signer, record

    def sign(self, size: int, root: bytes) -> bytes:
        note = self._signer.sign(size, root)
        self._record.add("signed", size, root.hex())
        return note


class Death:
    """Ends the process before a call, or makes the call fail.

    Args:
        at: which of the watched calls, from 0; beyond the last one nothing happens.
        how: `kill`; `torn`, with half of a write done; `power`, with everything lost that was not synced; or the number
            of an error.
    """

    def __init__(self, at: int, how: str | int, folder: Path) -> None:
        self._at, self._how, self._folder = at, how, folder
        self.count = 0
        self._lock = threading.Lock()
        self._unsynced: dict[tuple[int, int], None] = {}

    def __call__(self, call: str, subject: Path | int, data: memoryview) -> None:
        with self._lock:
            number, self.count = self.count, self.count + 1
            if number == self._at:
                self._strike(call, subject, data)
            if isinstance(subject, int) and call in ("write_all", "sync_data"):
                status = os.fstat(subject)
                key = (status.st_dev, status.st_ino)
                if call == "write_all":
                    self._unsynced[key] = None
                else:
                    self._unsynced.pop(key, None)

    def _strike(self, call: str, subject: Path | int, data: memoryview) -> None:
        if isinstance(self._how, int):
            raise OSError(self._how, "made to fail")
        if self._how == "torn" and call == "write_all":
            os.write(subject, data[:len(data) // 2])
        if self._how == "power":
            (self._folder / "unsynced").write_text(json.dumps(list(self._unsynced)))
        os.kill(os.getpid(), signal.SIGKILL)

    def lose_what_was_not_synced(self) -> None:
        """After the death, or the process would still see it: cut the files that had no sync."""
        noted = self._folder / "unsynced"
        if not noted.exists():
            return
        unsynced = {tuple(each) for each in json.loads(noted.read_text())}
        noted.unlink()
        for path in sorted(self._folder.rglob("*")):
            status = path.lstat()
            # A segment of the journal is longer than what was appended last: `torn` cuts that.
            if (status.st_dev, status.st_ino) in unsynced and path.parent.name != SEGMENTS_NAME:
                os.truncate(path, random.choice([0, status.st_size // 2]))


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In memory where there is such a folder: what a killed process wrote is there too, and a sync takes no time."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture
def prepare(make_world, tmp_path: Path) -> Iterator[Callable[[str], Crash]]:
    crashes: list[Crash] = []

    def make(name: str) -> Crash:
        crashes.append(Crash(make_world(name=name), tmp_path / name))
        return crashes[-1]

    yield make
    for crash in crashes:
        crash.close_index()


class Crash:
    """A log whose process dies, and what is known of it from outside."""

    def __init__(self, world, folder: Path) -> None:
        self.world, self.folder = world, folder
        world.segment_bytes = 8_000
        world.settings = SequencerSettings(batch_entries_max=GROUP_ENTRIES, batch_delay_seconds=0.0)
        world.upkeep_settings = UpkeepSettings(
            interval_seconds=0.0, settle_bytes=20_000, snapshot_entries=100, snapshot_share=1.0, full_disk_seconds=0.01
        )
        world.create(*(f"governance n{i}" for i in range(30)))
        self.record_path = folder / "record"

    def open(self, record: Record | None = None):
        world = self.world
        world.index = SqliteStatements(world.journal_dir / "statements.sqlite")
        if record is not None:
            signer = type(world).signer(world)
            world.signer = lambda: NotingSigner(signer, record)
        witness = KeepingWitness(world.witnesses[0], self.folder / "witness")
        return world.open([witness])

    def close_index(self) -> None:
        if isinstance(self.world.index, SqliteStatements):
            self.world.index.close()
            self.world.index = None

    def run(self, death: Death, run: int) -> int:
        """Append in a process that dies; how it ended: 0, 9 (killed) or 70 (stopped itself)."""
        child = os.fork()
        if child == 0:
            self._append_until_death(death, run)
        deadline = time.monotonic() + 60
        while True:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                death.lose_what_was_not_synced()
                return -status if os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status)
            assert time.monotonic() < deadline, os.kill(child, signal.SIGKILL)
            time.sleep(0.002)

    def _append_until_death(self, death: Death, run: int) -> None:
        code = 3
        try:
            with calls_watched_by(death):
                record = Record(self.record_path)
                log = self.open(record)
                log.uncertain = None
                for part in (log.sequencer, log.witnessing, log.upkeep):
                    part._on_uncertain = lambda _: os._exit(70)
                log.start()
                for group in range(GROUPS):
                    results = log.submit(*(f"alpha r{run}g{group}n{i}" for i in range(GROUP_ENTRIES))).wait(20)
                    assert all(isinstance(each, Appended) for each in results)
                    record.add("taken", [[each.index, leaf_hash(each.raw).hex()] for each in results])
                log.wait_witnessed(log.history.size, 20)
                log.close()
                record.add("calls", death.count)
            code = 0
        except UncertainStateError:
            code = 70
        except SfrlError:
            code = 4
        finally:
            os._exit(code)

    def check(self) -> None:
        """Start again: what was acknowledged is there once, and every signed checkpoint is one of this tree."""
        log = self.open()
        raws = [log.history.entry(index) for index in range(log.history.size)]
        leaves = [leaf_hash(raw) for raw in raws]
        assert log.history.tree.root() == root_of(leaves)
        digests = [parse_entry(raw).envelope.digest for raw in raws]
        assert len(set(digests)) == len(digests)
        assert [parse_entry(raw).prev for raw in raws[1:]] == leaves[:-1]
        tree = MerkleTree(leaves)
        for kind, *values in Record.read(self.record_path):
            if kind == "taken":
                assert all(leaves[index].hex() == leaf for index, leaf in values[0])
            elif kind == "signed":
                assert tree.root(values[0]).hex() == values[1]
        log.start()
        assert log.append(f"beta after{len(raws)}").index == len(raws)
        log.wait_witnessed(len(raws) + 1, 20)
        log.close()
        assert not log.uncertain
        assert self.world.index.indexed_size == len(raws) + 1
        assert [self.world.index.get(digest) for digest in digests] == list(range(len(raws)))
        self.close_index()
        self._check_published(raws)

    def _check_published(self, raws: list[bytes]) -> None:
        folder = self.world.log_dir
        opened = open_checkpoint((folder / "checkpoint").read_bytes(), self.world.policy, quorum=True)
        size = opened.checkpoint.size
        assert size == len(raws) + 1
        entries: list[bytes] = []
        for bundle in bundles_of(size):
            entries += parse_bundle((folder / bundle.path).read_bytes(), bundle.width)
        assert entries[:-1] == raws
        tree = MerkleTree(leaf_hash(entry) for entry in entries)
        assert tree.root() == opened.checkpoint.root
        for tile in tiles_of(size):
            assert (folder / tile.path).read_bytes() == tile_of_tree(tree, tile)


def count_calls(crash: Crash) -> int:
    assert crash.run(Death(10**9, "kill", crash.folder), 0) == 0
    crash.check()
    (calls,) = [values[0] for kind, *values in Record.read(crash.record_path) if kind == "calls"]
    return calls


SHARES = 4


def places(crash: Crash, share: int, count: int) -> list[int]:
    """Places of death spread over a run, moved from share to share."""
    calls = count_calls(crash)
    assert calls > 150
    random.seed(share)
    found = list(range(share, calls, max(calls // count, 1)))
    random.shuffle(found)
    return found


@pytest.mark.parametrize("share", range(SHARES))
@pytest.mark.parametrize("how", ["kill", "torn", "power"])
def test_a_process_that_dies_before_any_call_loses_nothing_acknowledged(prepare, how: str, share: int) -> None:
    """Some 25 places in each share, several deaths of one log after another: 300 runs in all."""
    for run, at in enumerate(places(prepare("first"), share, 25)):
        if run % RUNS_OF_ONE_LOG == 0:
            crash = prepare(f"log{run}")
        ended = crash.run(Death(at, how, crash.folder), run)
        assert ended in (0, -9), f"died before call {at}: {ended}"
        crash.check()


@pytest.mark.parametrize("share", range(SHARES))
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_a_call_that_fails_stops_the_process_or_is_survived(prepare, number: int, share: int) -> None:
    ends = set()
    # Most calls on a full disk are survived: where the first dozen were, others are made to fail until one is not.
    for run, at in enumerate(places(prepare("first"), share, 120)):
        if run >= 12 and 70 in ends:
            break
        if run % RUNS_OF_ONE_LOG == 0:
            crash = prepare(f"log{run}")
        ended = crash.run(Death(at, number, crash.folder), run)
        # 4: a full disk at the start, before anything was ordered.
        assert ended in (0, 70, 4), f"call {at} failed: {ended}"
        ends.add(ended)
        crash.check()
    assert 70 in ends


def test_a_start_that_dies_at_every_call_can_be_tried_again(prepare) -> None:
    """The recovery itself is cut off before each of its calls, one after the other."""
    crash = prepare("recovery")
    assert crash.run(Death(150, "torn", crash.folder), 0) in (0, -9)
    for at in range(60):
        if crash.run(Death(at, "torn", crash.folder), at + 1) == 0:
            break
    crash.check()
