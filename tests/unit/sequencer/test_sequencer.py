"""The sequencer: order, one sync a batch, answers after it, one entry a statement."""

from __future__ import annotations

import errno
import os
import re
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from sfrl_secure.errors import (
    ConflictError,
    DeniedError,
    ExhaustedError,
    MalformedError,
    NotFoundError,
    UnavailableError,
    UncertainStateError,
)
from sfrl_secure.ids import ZERO_DIGEST
from sfrl_secure.sequencer.sequencer import Appended, LogHead, SequencerSettings
from sfrl_secure.sequencer.snapshot import SNAPSHOT_NAME
from sfrl_secure.storage.files import FolderLock
from sfrl_secure.storage.journal import FolderJournal
from sfrl_secure.storage.log_folder import SEGMENTS_NAME, FolderLogStore
from sfrl_secure.storage.log_store import NOTHING_SIGNED
from sfrl_secure.translog.merkle import leaf_hash, root_of
from sfrl_secure.translog.opened import open_checkpoint
from sfrl_secure.translog.proofs import InclusionProof, verify_inclusion
from sfrl_secure.wire.entries import encode_entry, parse_entry


def verify_receipt(world, appended) -> None:
    """Receipt A holds: both keys of the log signed a root that the entry is under."""
    opened = open_checkpoint(appended.checkpoint, world.policy, quorum=False)
    assert opened.checkpoint.size == appended.tree_size
    proof = InclusionProof(appended.index, appended.tree_size, appended.path)
    verify_inclusion(appended.raw, proof, opened.checkpoint.root)


def only_segment(world):
    (path,) = (world.journal_dir / SEGMENTS_NAME).iterdir()
    return path


def test_an_appended_entry_is_durable_proven_and_signed_for(world) -> None:
    log = world.open().start()
    appended = log.append("alpha one")
    verify_receipt(world, appended)
    assert appended.index == 1
    assert parse_entry(appended.raw).envelope.statement == b"alpha one"
    log.close()
    journal = FolderJournal(world.journal_dir / SEGMENTS_NAME)
    assert journal.record(1) == appended.raw
    journal.close()


def test_entries_are_chained_in_the_log_and_in_their_streams(world) -> None:
    log = world.open().start()
    raws = [log.history.entry(0)] + [log.append(f"{name} n{i}").raw for i, name in enumerate(["a", "b", "a", "a"])]
    entries = [parse_entry(raw) for raw in raws]
    leaves = [leaf_hash(raw) for raw in raws]
    assert [entry.prev for entry in entries] == [ZERO_DIGEST, *leaves[:-1]]
    assert [entry.stream_seq for entry in entries] == [0, 0, 0, 1, 2]
    assert [entry.stream_prev for entry in entries] == [ZERO_DIGEST, ZERO_DIGEST, ZERO_DIGEST, leaves[1], leaves[3]]


def test_a_known_statement_gets_its_entry_again_with_a_fresh_proof(world) -> None:
    log = world.open().start()
    first = log.append("alpha one")
    log.append("alpha two")
    again = log.append("alpha one")
    assert (again.index, again.raw, again.tree_size) == (first.index, first.raw, 3)
    verify_receipt(world, again)
    log.close()
    # The fold remembers after a start too.
    reopened = world.open().start()
    assert reopened.append("alpha one").raw == first.raw
    assert reopened.history.size == 3


def test_one_statement_brought_many_times_at_once_is_one_entry(world) -> None:
    log = world.open().start()
    with ThreadPoolExecutor(16) as pool:
        appended = list(pool.map(lambda _: log.append("alpha one"), range(64)))
    assert {(each.index, each.raw) for each in appended} == {(1, appended[0].raw)}
    assert log.history.size == 2


def test_a_batch_is_decided_in_order_each_after_the_one_before(world) -> None:
    world.settings = SequencerSettings(batch_delay_seconds=0.2)
    log = world.open().start()
    # Three say that they come second: whichever is first in the batch does.
    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(log.append, f"alpha n{i} at 1") for i in range(3)]
    refused = [future.exception() for future in futures if future.exception()]
    assert len(refused) == 2
    assert all(isinstance(each, ConflictError) and each.log_size == 2 for each in refused)
    assert log.history.size == 2


def test_many_writers_at_once_share_syncs_and_keep_one_order(world, monkeypatch: pytest.MonkeyPatch) -> None:
    world.settings = SequencerSettings(batch_delay_seconds=0.02)
    log = world.open()
    batches: list[int] = []
    append_batch = FolderJournal.append_batch
    monkeypatch.setattr(
        FolderJournal, "append_batch",
        lambda self, records: (batches.append(len(records)), append_batch(self, records))[1],
    )
    log.start()
    with ThreadPoolExecutor(32) as pool:
        appended = list(pool.map(lambda i: log.append(f"alpha n{i}"), range(200)))
    assert sorted(each.index for each in appended) == list(range(1, 201))
    assert sum(batches) == 200
    assert len(batches) < 100
    entries = [log.history.entry(index) for index in range(201)]
    assert [parse_entry(raw).prev for raw in entries[1:]] == [leaf_hash(raw) for raw in entries[:-1]]
    assert all(entries[each.index] == each.raw for each in appended)
    for each in appended[::20]:
        verify_receipt(world, each)


def test_a_batch_has_a_bound(world, monkeypatch: pytest.MonkeyPatch) -> None:
    world.settings = SequencerSettings(batch_entries_max=3, batch_delay_seconds=0.05)
    log = world.open()
    batches: list[int] = []
    append_batch = FolderJournal.append_batch
    monkeypatch.setattr(
        FolderJournal, "append_batch",
        lambda self, records: (batches.append(len(records)), append_batch(self, records))[1],
    )
    log.start()
    with ThreadPoolExecutor(10) as pool:
        list(pool.map(lambda i: log.append(f"alpha n{i}"), range(10)))
    assert max(batches) <= 3


def test_what_the_fold_refuses_is_not_logged(world) -> None:
    log = world.open().start()
    with pytest.raises(DeniedError):
        log.append("alpha one deny")
    with pytest.raises(ConflictError) as conflict:
        log.append("alpha one at 7")
    assert (conflict.value.log_size, conflict.value.reason) == (1, "stale")
    assert log.history.size == 1
    assert log.append("alpha one at 1").index == 1


def test_an_entry_that_is_too_long_is_refused_and_the_next_is_taken(world) -> None:
    log = world.open().start()
    with pytest.raises(MalformedError, match="65535"):
        log.append("alpha one\n" + "x" * 65_500)
    assert log.append("alpha two").index == 1


def test_nobody_is_answered_before_the_sync(world, monkeypatch: pytest.MonkeyPatch) -> None:
    world.settings = SequencerSettings(batch_delay_seconds=0.1)
    log = world.open().start()
    real, reached, go_on = os.fdatasync, threading.Event(), threading.Event()

    def waiting(descriptor: int) -> None:
        if threading.current_thread().name == "sequencer":
            reached.set()
            assert go_on.wait(5)
        real(descriptor)

    monkeypatch.setattr(os, "fdatasync", waiting)
    with ThreadPoolExecutor(2) as pool:
        taken, refused = pool.submit(log.append, "alpha one"), pool.submit(log.append, "alpha two deny")
        assert reached.wait(5)
        assert not taken.done()
        assert not refused.done()
        assert log.sequencer.head.size == 1
        with pytest.raises(NotFoundError):
            log.sequencer.appended(1)
        go_on.set()
        assert taken.result(5).index == 1
        assert isinstance(refused.exception(5), DeniedError)


def test_a_failed_sync_ends_the_log_and_nobody_is_told_that_it_happened(
    world, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = world.open().start()

    def failing(_: int) -> None:
        raise OSError(errno.EIO, "made to fail")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fdatasync", failing)
        with pytest.raises(UncertainStateError):
            log.append("alpha one")
    assert len(log.uncertain) >= 1
    with pytest.raises(UncertainStateError):
        log.append("alpha two")
    with pytest.raises(UncertainStateError):
        log.sequencer.wait_for_change(log.sequencer.head, 0.1)
    assert log.sequencer.head.size == 1


def test_a_fault_of_the_fold_in_a_batch_ends_the_log(world) -> None:
    log = world.open().start()

    def broken() -> None:
        raise ZeroDivisionError

    log.fold.on_check = broken
    with pytest.raises(UncertainStateError):
        log.append("alpha one")
    assert isinstance(log.uncertain[0].__cause__, ZeroDivisionError)


def test_a_queue_that_is_full_refuses_and_loses_nothing(world) -> None:
    world.settings = SequencerSettings(batch_entries_max=1, batch_delay_seconds=0.0, queue_max=4)
    log = world.open().start()
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        assert go_on.wait(5)

    log.fold.on_check = hold
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(log.append, "alpha n0")]
        assert held.wait(5)
        futures += [pool.submit(log.append, f"alpha n{i}") for i in range(1, 5)]
        while log.sequencer._queued < 4:
            pass
        with pytest.raises(ExhaustedError, match="4 entries"):
            log.append("alpha n5")
        go_on.set()
        assert sorted(future.result(5).index for future in futures) == [1, 2, 3, 4, 5]


def test_who_does_not_wait_long_enough_finds_the_entry_later(world) -> None:
    log = world.open().start()
    held = threading.Event()
    log.fold.on_check = lambda: held.wait(5)
    with pytest.raises(UnavailableError):
        log.append("alpha one", timeout_seconds=0.05)
    held.set()
    assert log.append("alpha one").index == 1
    assert log.history.size == 2


def test_log_time_never_falls_and_a_clock_too_far_behind_ends_the_log(world) -> None:
    log = world.open().start()
    times = []
    for step in (1_000, -3_000_000, -2_000_000, 5_500_000):
        world.clock.advance(step)
        times.append(parse_entry(log.append(f"alpha n{len(times)}").raw).log_time_us)
    assert times == [times[0]] * 3 + [times[0] + 500_000]
    world.clock.advance(-5_000_001)
    with pytest.raises(UncertainStateError, match="clock"):
        log.append("alpha late")
    assert log.uncertain


def test_a_start_with_a_clock_too_far_behind_orders_nothing(world) -> None:
    world.open().close()
    world.clock.advance(-5_000_001)
    log = world.open().start()
    with pytest.raises(UncertainStateError, match="clock"):
        log.append("alpha one")
    assert log.history.size == 1


def test_a_stop_orders_what_waits_and_takes_nothing_more(world) -> None:
    world.settings = SequencerSettings(batch_entries_max=2, batch_delay_seconds=0.0)
    log = world.open().start()
    held, go_on = threading.Event(), threading.Event()
    log.fold.on_check = lambda: (held.set(), go_on.wait(5))
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(log.append, f"alpha n{i}") for i in range(7)]
        assert held.wait(5)
        while log.sequencer._queue.qsize() + len(log.sequencer._batch) < 7:
            pass
        stopping = pool.submit(log.sequencer.stop)
        while not log.sequencer._closed:
            pass
        with pytest.raises(UnavailableError):
            log.append("alpha late")
        go_on.set()
        stopping.result(5)
        assert sorted(future.result(5).index for future in futures) == list(range(1, 8))
    log.sequencer.stop = lambda: None  # type: ignore[method-assign]
    assert log.history.size == 8


def test_followers_are_woken_by_each_change_and_see_only_what_is_signed(world) -> None:
    log = world.open().start()
    seen: list[LogHead] = []
    done = threading.Event()

    def follow() -> None:
        head = LogHead()
        while head.size < 6:
            head = log.sequencer.wait_for_change(head, 5)
            opened = open_checkpoint(head.note, world.policy, quorum=False)
            assert opened.checkpoint.size == head.size
            assert opened.checkpoint.root == root_of(
                leaf_hash(raw) for raw in log.history.entries(0, head.size, 10**9)
            )
            seen.append(head)
        done.set()

    follower = threading.Thread(target=follow)
    follower.start()
    for i in range(5):
        log.append(f"alpha n{i}")
    assert done.wait(5)
    follower.join()
    assert [head.size for head in seen] == sorted(head.size for head in seen)


def test_an_older_witnessed_note_does_not_replace_a_newer(world) -> None:
    log = world.open()
    log.sequencer.set_witnessed(5, b"five")
    log.sequencer.set_witnessed(4, b"four")
    assert (log.sequencer.head.witnessed_size, log.sequencer.head.witnessed_note) == (5, b"five")
    # Of the same size, the later one: it may bear more witnesses' lines.
    log.sequencer.set_witnessed(5, b"five, and one more")
    assert log.sequencer.head.witnessed_note == b"five, and one more"


def test_reading_is_bounded_in_bytes_and_gives_one_entry_at_least(world) -> None:
    log = world.open().start()
    for i in range(5):
        log.append(f"alpha n{i}")
    entries = [log.history.entry(index) for index in range(6)]
    assert log.history.entries(0, 6, 10**9) == tuple(entries)
    assert log.history.entries(1, 3, 10**9) == tuple(entries[1:3])
    assert log.history.entries(2, 6, len(entries[2]) + len(entries[3])) == tuple(entries[2:4])
    assert log.history.entries(2, 6, 1) == (entries[2],)
    assert log.history.entries(6, 9, 10**9) == ()


# Groups


def test_a_group_gets_one_checkpoint_and_each_of_it_its_own_result_in_order(world) -> None:
    log = world.open().start()
    log.append("alpha known")
    results = log.submit("alpha one", "alpha two deny", "alpha known", "alpha three at 0", "alpha four").wait(5)
    assert [type(each) for each in results] == [Appended, DeniedError, Appended, ConflictError, Appended]
    taken = [each for each in results if isinstance(each, Appended)]
    assert [each.index for each in taken] == [2, 1, 3]
    assert {(each.tree_size, each.checkpoint) for each in taken} == {(4, taken[0].checkpoint)}
    for each in taken:
        verify_receipt(world, each)


def test_a_group_is_never_divided_between_batches(world, monkeypatch: pytest.MonkeyPatch) -> None:
    world.settings = SequencerSettings(batch_delay_seconds=0.1)
    log = world.open()
    batches: list[int] = []
    append_batch = FolderJournal.append_batch
    monkeypatch.setattr(
        FolderJournal, "append_batch",
        lambda self, records: (batches.append(len(records)), append_batch(self, records))[1],
    )
    log.start()
    waiting = [log.submit(*(f"alpha g{group}n{i}" for i in range(size))) for group, size in enumerate([200, 100, 50])]
    for each in waiting:
        results = each.wait(5)
        assert len({result.checkpoint for result in results}) == 1
        assert [result.index for result in results] == list(range(results[0].index, results[0].index + len(results)))
    assert batches == [200, 150]


def test_a_group_that_would_exceed_the_queue_is_refused_as_a_whole(world) -> None:
    world.settings = SequencerSettings(batch_delay_seconds=0.0, queue_max=5)
    log = world.open().start()
    held, go_on = threading.Event(), threading.Event()
    log.fold.on_check = lambda: (held.set(), go_on.wait(5))
    first = log.submit("alpha one")
    assert held.wait(5)
    second = log.submit("alpha two", "alpha three", "alpha four")
    with pytest.raises(ExhaustedError, match="5 entries"):
        log.submit("alpha five", "alpha six", "alpha seven")
    go_on.set()
    assert [each.index for each in (*first.wait(5), *second.wait(5))] == [1, 2, 3, 4]
    # What was ordered makes room again.
    assert len(log.submit(*(f"alpha m{i}" for i in range(5))).wait(5)) == 5


def test_what_is_held_over_at_a_stop_is_ordered(world) -> None:
    log = world.open().start()
    held, go_on = threading.Event(), threading.Event()
    log.fold.on_check = lambda: (held.set(), go_on.wait(5))
    waiting = [log.submit("alpha one")]
    assert held.wait(5)
    waiting += [log.submit(*(f"alpha g{group}n{i}" for i in range(200))) for group in range(3)]
    with ThreadPoolExecutor(1) as pool:
        stopping = pool.submit(log.sequencer.stop)
        while not log.sequencer._closed:
            pass
        go_on.set()
        stopping.result(5)
    assert [len(each.wait(5)) for each in waiting] == [1, 200, 200, 200]
    log.sequencer.stop = lambda: None  # type: ignore[method-assign]


def test_a_batch_is_verified_together_and_what_is_refused_then_is_not_logged(world) -> None:
    world.settings = SequencerSettings(batch_delay_seconds=0.1)
    log = world.open()
    asked: list[list[bytes]] = []

    def verify(submissions):
        asked.append([each.envelope.statement for each in submissions])
        forged = DeniedError("bad_signature", "it says so")
        return [forged if each.envelope.statement == b"alpha two" else each for each in submissions]

    log.sequencer._verify = verify
    log.start()
    first, second = log.submit("alpha one", "alpha two"), log.submit("alpha three")
    one, two = first.wait(5)
    (three,) = second.wait(5)
    assert asked == [[b"alpha one", b"alpha two", b"alpha three"]]
    assert isinstance(two, DeniedError)
    assert (one.index, three.index, log.history.size) == (1, 2, 3)


def test_an_entry_is_proven_in_any_tree_that_was_signed_for(world) -> None:
    log = world.open().start()
    appended = [log.append(f"alpha n{i}") for i in range(5)]
    for each in appended:
        logged = log.sequencer.prove(1, each.tree_size)
        assert (logged.index, logged.raw) == (1, appended[0].raw)
        root = open_checkpoint(each.checkpoint, world.policy, quorum=False).checkpoint.root
        verify_inclusion(logged.raw, InclusionProof(1, each.tree_size, logged.path), root)
    for index, size in ((1, 1), (5, 5), (0, 7), (-1, 3)):
        with pytest.raises(NotFoundError):
            log.sequencer.prove(index, size)


# Starts


def test_a_start_goes_on_where_the_log_was(world) -> None:
    log = world.open().start()
    for i in range(4):
        log.append(f"alpha n{i}")
    said, root = log.fold.said, log.history.tree.root()
    log.close()
    again = world.open()
    assert (again.fold.said, again.history.tree.root()) == (said, root)
    again.start()
    appended = again.append("alpha more")
    assert (appended.index, parse_entry(appended.raw).stream_seq) == (5, 4)


def test_a_crash_at_any_byte_of_an_unacknowledged_batch_loses_nothing_acknowledged(world) -> None:
    log = world.open().start()
    for i in range(3):
        log.append(f"alpha n{i}")
    log.wait_witnessed(4)
    path = only_segment(world)
    acknowledged = path.stat().st_size
    log.close()
    # A batch that came to the disk in part, and that nobody was told of.
    journal = FolderJournal(path.parent)
    journal.append_batch([b"never acknowledged"] * 2)
    journal.close()
    whole = path.read_bytes()
    for end in range(acknowledged, len(whole)):
        path.write_bytes(whole[:end])
        again = world.open()
        assert again.history.size == 4
        assert again.fold.said == ["governance genesis", "alpha n0", "alpha n1", "alpha n2"]
        again.close()


def test_a_journal_that_lost_what_was_signed_for_does_not_open(world) -> None:
    log = world.open().start()
    log.wait_witnessed(1)
    before = only_segment(world).read_bytes()
    log.append("alpha one")
    log.wait_witnessed(2)
    log.close()
    only_segment(world).write_bytes(before)
    with pytest.raises(UncertainStateError, match="more entries than the journal"):
        world.open()
    (world.journal_dir / SNAPSHOT_NAME).unlink()
    world.index.clear()
    with pytest.raises(UncertainStateError, match="signed for more entries"):
        world.open()
    # Without that note the published checkpoint says it, and without both the witness.
    (world.journal_dir / "signed").write_bytes(NOTHING_SIGNED)
    with pytest.raises(UncertainStateError, match="signed for more entries"):
        world.open()
    shutil.rmtree(world.log_dir)
    with pytest.raises(UncertainStateError, match="signed for more entries"):
        world.open()
    world.witnesses[0].recorded.clear()
    assert world.open().history.size == 1


def test_another_history_of_the_same_length_does_not_open(make_world) -> None:
    first, second = make_world(name="first"), make_world(name="second")
    first.create()
    second.create("governance other")
    first.open().start().wait_witnessed(1)
    first.close()
    shutil.copy(only_segment(second), only_segment(first))
    with pytest.raises(UncertainStateError, match="of another log"):
        first.open()
    (first.journal_dir / SNAPSHOT_NAME).unlink()
    with pytest.raises(UncertainStateError, match="another root"):
        first.open()


def test_two_processes_cannot_own_one_log(world) -> None:
    world.open()
    with pytest.raises(MalformedError, match="another process"):
        world.open()


def test_a_log_is_made_once_and_never_by_a_start(make_world) -> None:
    world = make_world()
    world.journal_dir.mkdir(parents=True)
    with pytest.raises(UncertainStateError, match="sfrl init"):
        world.open()
    assert not (world.journal_dir / SEGMENTS_NAME).exists()
    world.create("governance genesis", "identity first")
    with pytest.raises(UncertainStateError):
        world.create()
    assert world.open().fold.said == ["governance genesis", "identity first"]


def test_a_new_log_keeps_the_rules_of_every_entry(make_world) -> None:
    world = make_world()
    with pytest.raises(DeniedError):
        world.create("governance genesis", "alpha one deny")
    with pytest.raises(ConflictError):
        world.create("governance genesis", "governance genesis")
    with pytest.raises(MalformedError):
        world.create("not of the form")
    assert not world.journal_dir.exists()


def test_a_new_log_is_not_made_in_a_folder_that_another_process_owns(make_world) -> None:
    world = make_world()
    world.journal_dir.mkdir(parents=True)
    with FolderLock(world.journal_dir), pytest.raises(MalformedError, match="another process"):
        world.create()


def test_a_new_log_may_have_more_entries_than_a_batch(make_world) -> None:
    world = make_world()
    world.create(*(f"governance n{i}" for i in range(300)))
    assert world.open().history.size == 300


def test_an_empty_journal_is_no_log(make_world) -> None:
    world = make_world()
    FolderLogStore.create(world.journal_dir, [])
    with pytest.raises(UncertainStateError, match="genesis"):
        world.open()


def rewritten(world, change) -> None:
    """Write the journal anew with its entries changed, as one who can write files would."""
    journal = FolderJournal(world.journal_dir / SEGMENTS_NAME)
    raws = [journal.record(index) for index in range(journal.count)]
    journal.close()
    shutil.rmtree(world.journal_dir)
    shutil.rmtree(world.log_dir)
    world.index.clear()
    FolderLogStore.create(world.journal_dir, [change(raws)])


@pytest.mark.parametrize(
    "change",
    [
        lambda raws: [raws[0], raws[2], raws[1]],
        lambda raws: raws[1:],
        lambda raws: [raws[0], raws[2]],
        lambda raws: [*raws, raws[2]],
        lambda raws: [raws[0], raws[1], b"no entry"],
    ],
)
def test_entries_that_do_not_follow_one_another_do_not_open(world, change) -> None:
    log = world.open().start()
    log.append("alpha one")
    log.append("alpha two")
    log.close()
    rewritten(world, change)
    with pytest.raises(UncertainStateError, match=re.compile("follow one another|malformed")):
        world.open()


@pytest.mark.parametrize("field", ["log_time_us", "stream_seq", "stream_prev"])
def test_an_entry_with_another_time_or_place_does_not_open(world, field: str) -> None:
    log = world.open().start()
    log.append("alpha one")
    log.close()
    (world.journal_dir / "signed").unlink(missing_ok=True)
    changed = {"log_time_us": 1, "stream_seq": 5, "stream_prev": leaf_hash(b"x")}[field]
    rewritten(world, lambda raws: [raws[0], encode_entry(replace(parse_entry(raws[1]), **{field: changed}))])
    with pytest.raises(UncertainStateError, match=re.compile("follow|stream")):
        world.open()


def test_a_void_or_unreadable_entry_in_the_journal_changes_nothing_and_the_log_goes_on(world, monkeypatch) -> None:
    log = world.open().start()
    # Rules of an older version that took what ours refuses.
    monkeypatch.setattr(type(log.fold), "check", lambda *_: None)
    monkeypatch.setattr(type(log.fold), "apply", _apply_always(type(log.fold).apply))
    log.append("alpha one deny")
    log.close()
    monkeypatch.undo()
    (world.journal_dir / SNAPSHOT_NAME).unlink()
    again = world.open()
    assert (again.history.size, again.history.void_entries) == (2, 1)
    again.start()
    assert again.append("alpha two").index == 2


def _apply_always(apply):
    def always(*given):
        apply(*given)

    return always
