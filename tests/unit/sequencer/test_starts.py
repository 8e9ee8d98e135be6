"""A start takes its time from what is new: trimmed journals, snapshots, lost indexes, and what may not be ahead."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from sfrl_secure.errors import MissingEvidenceError, UncertainStateError
from sfrl_secure.sequencer.sequencer import SequencerSettings
from sfrl_secure.sequencer.snapshot import SNAPSHOT_NAME, read_snapshot, write_snapshot
from sfrl_secure.sequencer.upkeep import UpkeepSettings
from sfrl_secure.storage.log_folder import SEGMENTS_NAME
from sfrl_secure.storage.log_store import NOTHING_SIGNED
from sfrl_secure.translog.merkle import leaf_hash, root_of
from sfrl_secure.translog.proofs import InclusionProof, verify_inclusion
from sfrl_secure.translog.tiles import encode_bundle, parse_bundle
from sfrl_secure.wire.entries import parse_entry

ENTRIES = 1_000


@pytest.fixture
def long_log(world):
    """A log of 1,001 entries in small segments, whose journal has dropped what lies in tiles."""
    world.segment_bytes = 20_000
    world.settings = SequencerSettings(batch_entries_max=50, batch_delay_seconds=0.0)
    world.upkeep_settings = UpkeepSettings(
        interval_seconds=0.0, settle_bytes=20_000, snapshot_entries=100, snapshot_share=1.0
    )
    log = world.open().start()
    texts = [[f"{'abc'[part % 3]} p{part}n{i}" for i in range(100)] for part in range(10)]
    done = [threading.Thread(target=lambda part=part: [log.append(text) for text in part]) for part in texts]
    for thread in done:
        thread.start()
    for thread in done:
        thread.join()
    log.wait_witnessed(ENTRIES + 1)
    log.close()
    assert not log.uncertain
    return log


def segments(world) -> list[int]:
    return sorted(int(path.name) for path in (world.journal_dir / SEGMENTS_NAME).iterdir())


def check_whole(world, again, before) -> None:
    """Every entry is there once, in order, and every proof leads to the root of a recomputation."""
    raws = [again.history.entry(index) for index in range(ENTRIES + 1)]
    leaves = [leaf_hash(raw) for raw in raws]
    assert again.history.tree.root() == root_of(leaves)
    assert again.fold.said == [parse_entry(raw).envelope.statement.decode() for raw in raws] == before.fold.said
    assert again.fold.streams == before.fold.streams
    for index in (0, 1, 255, 256, 511, 600, ENTRIES):
        for size in (index + 1, ENTRIES + 1):
            proof = InclusionProof(index, size, again.history.tree.inclusion_proof(index, size).path)
            verify_inclusion(raws[index], proof, root_of(leaves[:size]))


def test_a_trimmed_journal_and_the_tiles_are_the_whole_log(world, long_log) -> None:
    assert segments(world)[0] > 255
    again = world.open()
    check_whole(world, again, long_log)
    again.start()
    appended = again.append("a more")
    assert appended.index == ENTRIES + 1
    assert again.append("a p0n7").index < ENTRIES + 1


def test_only_entries_after_the_snapshot_are_folded_again(world, long_log) -> None:
    snapshot = read_snapshot(world.journal_dir)
    assert snapshot.size == ENTRIES + 1
    again = world.open().start()
    again.append("a more")
    again.close()
    world.upkeep_settings = UpkeepSettings(snapshot_entries=10**6)
    write_snapshot(world.journal_dir, snapshot)
    folded = []
    third = world.open()
    third.fold.on_check = lambda: folded.append(1)
    assert third.fold.said[-1] == "a more"
    assert third.fold.size == ENTRIES + 2
    check_size_of_replay = third.history.next_index - snapshot.size
    assert check_size_of_replay == 1


@pytest.mark.parametrize("loss", ["snapshot", "index", "both", "damaged snapshot", "foreign fold"])
def test_what_can_be_made_again_may_be_gone(world, long_log, loss: str) -> None:
    path = world.journal_dir / SNAPSHOT_NAME
    if loss in ("snapshot", "both"):
        path.unlink()
    if loss in ("index", "both"):
        world.index.clear()
    if loss == "foreign fold":
        kept = read_snapshot(world.journal_dir)
        write_snapshot(
            world.journal_dir,
            replace(kept, fold=b"of other code"),
        )
    if loss == "damaged snapshot":
        path.write_bytes(path.read_bytes()[:100])
    again = world.open()
    check_whole(world, again, long_log)
    again.start()
    assert again.append("a more").index == ENTRIES + 1
    again.close()
    assert world.index.written.keys() | world.index.pending.keys() <= again.fold.index_by_digest.keys()


def test_a_lost_index_is_made_again_from_the_tiles_entry_for_entry(world, long_log) -> None:
    due = {parse_entry(long_log_entry).envelope.digest: index
           for index, long_log_entry in enumerate(_entries(world))}
    world.index.clear()
    world.open().close()
    assert world.index.written | world.index.pending == due


def test_a_lost_index_beside_void_entries_makes_the_fold_take_everything_again(world, long_log) -> None:
    kept = read_snapshot(world.journal_dir)
    write_snapshot(world.journal_dir, replace(kept, void_entries=1))
    world.index.clear()
    again = world.open()
    assert again.history.void_entries == 0
    check_whole(world, again, long_log)


def _entries(world) -> list[bytes]:
    log = world.open()
    raws = [log.history.entry(index) for index in range(ENTRIES + 1)]
    log.close()
    return raws


def test_an_index_or_a_snapshot_ahead_of_the_journal_stops_a_start(world, long_log) -> None:
    world.index.indexed_size = ENTRIES + 2
    with pytest.raises(UncertainStateError, match="put back"):
        world.open()
    world.index.indexed_size = ENTRIES + 1
    kept = read_snapshot(world.journal_dir)
    write_snapshot(
        world.journal_dir,
        replace(kept, size=kept.size + 1),
    )
    with pytest.raises(UncertainStateError, match="put back"):
        world.open()


def test_a_snapshot_of_another_history_stops_a_start(world, long_log) -> None:
    kept = read_snapshot(world.journal_dir)
    write_snapshot(
        world.journal_dir,
        replace(kept, last_leaf=leaf_hash(b"other")),
    )
    with pytest.raises(UncertainStateError, match="another log"):
        world.open()


def rewritten_in_files(world, index: int, keep_tile: bool = False) -> None:
    """Change an entry in its bundle and in its tile, as one who can write the published folder would."""
    number, place = divmod(index, 256)
    bundle, tile = world.log_dir / f"tile/entries/{number:03}", world.log_dir / f"tile/0/{number:03}"
    entries = list(parse_bundle(bundle.read_bytes(), 256))
    entries[place] = entries[place][:-1] + bytes([entries[place][-1] ^ 1])
    bundle.write_bytes(encode_bundle(entries))
    if not keep_tile:
        raw = tile.read_bytes()
        tile.write_bytes(raw[: 32 * place] + leaf_hash(entries[place]) + raw[32 * place + 32 :])


def test_files_that_were_changed_behind_the_snapshot_stop_a_start(world, long_log) -> None:
    """Nothing signed covers them: the snapshot says what the tree was."""
    (world.journal_dir / "signed").write_bytes(NOTHING_SIGNED)
    (world.log_dir / "checkpoint").unlink()
    world.witnesses[0].recorded.clear()
    rewritten_in_files(world, 40)
    with pytest.raises(UncertainStateError, match="another log"):
        world.open()


def test_a_running_log_gives_out_nothing_from_files_that_were_changed(world, long_log) -> None:
    again = world.open().start()
    rewritten_in_files(world, 40, keep_tile=True)
    rewritten_in_files(world, 300)
    for index in (40, 41, 300, 301):
        with pytest.raises(MissingEvidenceError):
            again.sequencer.prove(index, ENTRIES + 1)
    (known,) = again.submit(long_log.fold.said[40]).wait(5)
    assert isinstance(known, MissingEvidenceError)
    assert again.append("a more").index == ENTRIES + 1


@pytest.mark.parametrize("name", ["tile/0/000", "tile/0/001"])
@pytest.mark.parametrize("damage", ["gone", "short", "changed"])
def test_a_tile_that_the_journal_goes_on_from_is_there_and_right(world, long_log, name: str, damage: str) -> None:
    path = world.log_dir / name
    raw = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(raw[:-32] if damage == "short" else bytes([raw[0] ^ 1]) + raw[1:])
    with pytest.raises(UncertainStateError):
        world.open()
    path.write_bytes(raw)
    world.open()


def test_a_signed_note_that_is_missing_stops_a_start(world, long_log) -> None:
    (world.journal_dir / "signed").unlink()
    with pytest.raises(UncertainStateError, match="signed note"):
        world.open()
    (world.journal_dir / "signed").write_bytes(NOTHING_SIGNED)
    world.open()


def test_tiles_index_and_snapshot_are_behind_by_little(world) -> None:
    world.upkeep_settings = UpkeepSettings(snapshot_entries=100, snapshot_share=1.0)
    log = world.open().start()
    threads = [threading.Thread(target=lambda part=part: [log.append(f"alpha p{part}n{i}") for i in range(64)])
               for part in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done = threading.Event()
    for _ in range(100):
        if world.index.indexed_size == 1025 and (world.log_dir / "tile/entries/003").exists():
            break
        done.wait(0.01)
    assert world.index.indexed_size == 1025
    assert {path.name for path in (world.log_dir / "tile/0").iterdir()} >= {"000", "001", "002", "003"}
    assert read_snapshot(world.journal_dir).size > 100


def test_a_snapshot_is_never_ahead_of_what_is_durable(world, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk takes its time while a batch is staged: the snapshot that covers it waits."""
    world.upkeep_settings = UpkeepSettings(interval_seconds=0.0, snapshot_entries=1, snapshot_share=10**6)
    log = world.open()
    go_on, reached = threading.Event(), threading.Event()
    commit = log.history.commit

    def slowly() -> None:
        reached.set()
        assert go_on.wait(5)
        commit()

    monkeypatch.setattr(log.history, "commit", slowly)
    log.start()
    appending = threading.Thread(target=lambda: log.append("alpha one"))
    appending.start()
    assert reached.wait(5)
    log.upkeep._stopping.wait(0.1)
    assert world.snapshot() is None or world.snapshot().size == 1
    go_on.set()
    appending.join()
    log.close()
    assert world.snapshot().size == 2
