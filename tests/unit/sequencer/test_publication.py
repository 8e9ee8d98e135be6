"""Published files are what the journal says, and the checkpoint comes last."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sfrl_secure.clock import FixedClock
from sfrl_secure.errors import NotFoundError, UncertainStateError
from sfrl_secure.sequencer.publication import Publication
from sfrl_secure.translog.merkle import leaf_hash
from sfrl_secure.translog.tiles import bundles_of, encode_bundle, tile_of_tree, tiles_of
from sfrl_secure.translog.tree import MerkleTree

ENTRIES = [b"entry %d" % i for i in range(700)]


def tree_of(size: int) -> MerkleTree:
    return MerkleTree(leaf_hash(entry) for entry in ENTRIES[:size])


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def due_files(size: int) -> dict[str, bytes]:
    """What a log of this size must serve, from nothing but its entries."""
    tree = tree_of(size)
    files = {tile.path: tile_of_tree(tree, tile) for tile in tiles_of(size)}
    for bundle in bundles_of(size):
        files[bundle.path] = encode_bundle(ENTRIES[bundle.index * 256:bundle.index * 256 + bundle.width])
    return files


class Files:
    """`log_store.LogFiles` in memory, in the order of writing."""

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}
        self.order: list[str] = []

    def read(self, name: str, bytes_max: int) -> bytes:
        if name not in self.data:
            raise NotFoundError("no such file")
        return self.data[name]

    def write(self, name: str, data: bytes) -> None:
        self.data[name] = data
        self.order.append(name)

    def sync(self) -> None:
        self.order.append("sync")

    def remove(self, name: str) -> None:
        self.data.pop(name, None)

    def names(self, folder: str) -> list[str]:
        return sorted(name for name in self.data if name.startswith(folder + "/"))


@pytest.fixture
def files() -> Files:
    return Files()


def publication_of(files: Files, tree: MerkleTree, clock: FixedClock | None = None) -> Publication:
    return Publication(files, tree, ENTRIES.__getitem__, clock or FixedClock(1_760_000_000_000_000))


def test_every_size_to_600_has_the_files_of_a_recomputation_and_older_ones_stay_readable(files: Files) -> None:
    tree = MerkleTree()
    publication = publication_of(files, tree)
    for size in range(1, 601):
        tree.append(leaf_hash(ENTRIES[size - 1]))
        publication.publish(size, b"note %d" % size)
        if size % 37 == 1 or size % 256 in (0, 1, 2, 255):
            found = dict(files.data)
            assert found.pop("checkpoint") == b"note %d" % size
            assert due_files(size).items() <= found.items()
            assert all(name.startswith(("tile/", "checkpoints/")) for name in found)
            # Whoever read an older checkpoint a moment ago finds its files, or the full ones in their place.
            for older in (size - 1, size - 10):
                for name, data in due_files(max(older, 0)).items():
                    full = name.split(".p/")[0]
                    assert found.get(name) == data or found[full].startswith(data)


def test_sizes_far_apart_leave_no_gap_at_any_level(files: Files) -> None:
    entries = [b"%d" % i for i in range(70_000)]
    tree = MerkleTree()
    publication = Publication(files, tree, entries.__getitem__, FixedClock(1))
    for size in (3, 300, 65_535, 65_536, 65_537, 70_000):
        tree.extend(leaf_hash(entry) for entry in entries[tree.size:size])
        publication.publish(size, b"note")
        for tile in tiles_of(size):
            assert files.data[tile.path] == tile_of_tree(tree, tile)
        for bundle in bundles_of(size):
            assert bundle.path in files.data


def test_full_files_follow_whoever_witnesses_and_the_checkpoint_does_not(files: Files) -> None:
    tree = tree_of(700)
    publication = publication_of(files, tree)
    publication.advance(600)
    assert publication.full_size == 512
    assert set(files.data) == {"tile/0/000", "tile/0/001", "tile/entries/000", "tile/entries/001"}
    publication.advance(600)
    assert len(files.order) == 4


def test_nothing_counts_as_settled_before_the_sync(files: Files) -> None:
    publication = publication_of(files, tree_of(700))
    publication.advance(700)
    assert (publication.settled_size, publication.unsettled_bytes) == (0, sum(
        len(data) for name, data in files.data.items() if "entries" in name
    ))
    publication.settle()
    assert files.order[-1] == "sync"
    assert (publication.settled_size, publication.unsettled_bytes) == (512, 0)


def test_partial_files_go_when_the_tile_after_theirs_is_full(files: Files) -> None:
    tree = tree_of(0)
    publication = publication_of(files, tree)
    for size in range(10, 701, 10):
        tree.extend(leaf_hash(entry) for entry in ENTRIES[tree.size:size])
        publication.publish(size, b"note")
    for kind in ("tile/0", "tile/entries"):
        assert not {name for name in files.data if name.startswith(f"{kind}/000.p/")}
        assert {name for name in files.data if name.startswith(f"{kind}/001.p/")}
        assert {f"{kind}/000", f"{kind}/001"} <= files.data.keys()


def test_an_older_size_is_not_published_over_a_newer(files: Files) -> None:
    publication = publication_of(files, tree_of(20))
    publication.publish(20, b"newer")
    publication.publish(19, b"older")
    assert files.data["checkpoint"] == b"newer"


def test_the_checkpoint_comes_after_what_it_stands_for(files: Files) -> None:
    publication_of(files, tree_of(300)).publish(300, b"note")
    assert files.order[-2:] == ["checkpoint", "checkpoints/300"]
    assert set(files.order[:-2]) == set(due_files(300))


def test_one_checkpoint_a_minute_is_kept_for_good(files: Files) -> None:
    clock = FixedClock(1_760_000_000_000_000)
    publication = publication_of(files, tree_of(100), clock)
    for size in range(1, 100):
        publication.publish(size, b"note %d" % size)
        clock.advance(5_000_000)
    kept = {name: data for name, data in files.data.items() if name.startswith("checkpoints/")}
    assert kept == {f"checkpoints/{size}": b"note %d" % size for size in range(1, 100, 12)}


# Starts, with a whole log


def published_log(world, entries: int = 5):
    log = world.open().start()
    for i in range(entries):
        log.append(f"alpha n{i}")
    log.wait_witnessed(entries + 1)
    log.close()


def test_a_start_makes_again_what_is_missing_or_short(world) -> None:
    published_log(world, 300)
    due = {"tile/entries/000", "tile/0/000", "tile/entries/001.p/45", "tile/0/001.p/45", "tile/1/000.p/1"}
    before = files_of(world.log_dir)
    assert due <= before.keys()
    for damage in (lambda path: path.unlink(), lambda path: path.write_bytes(b""),
                   lambda path: path.write_bytes(path.read_bytes()[:-1])):
        for name in due:
            damage(world.log_dir / name)
        world.open().close()
        assert files_of(world.log_dir).items() >= {name: before[name] for name in due}.items()


def test_a_start_without_any_published_file_publishes_anew(world) -> None:
    published_log(world)
    shutil.rmtree(world.log_dir)
    log = world.open().start()
    log.wait_witnessed(6)
    assert {"checkpoint", "tile/entries/000.p/6", "tile/0/000.p/6"} <= files_of(world.log_dir).keys()


def test_a_published_checkpoint_under_our_keys_that_is_not_of_our_tree_stops_a_start(world) -> None:
    published_log(world)
    for size, root in ((7, leaf_hash(b"longer")), (6, leaf_hash(b"other"))):
        (world.log_dir / "checkpoint").write_bytes(world.signer().sign(size, root))
        with pytest.raises(UncertainStateError):
            world.open()


def test_a_published_checkpoint_without_our_signatures_proves_nothing_and_is_published_anew(world) -> None:
    published_log(world)
    path = world.log_dir / "checkpoint"
    data = path.read_bytes()
    # Empty or cut is what a power failure leaves.
    damaged = [b"", data[:200], data * 100]
    damaged += [data[:at] + bytes([data[at] ^ 1]) + data[at + 1:] for at in (0, len(data) // 2, len(data) - 2)]
    for raw in damaged:
        path.write_bytes(raw)
        log = world.open().start()
        log.wait_witnessed(6)
        assert path.read_bytes() == log.sequencer.head.witnessed_note
        log.close()


def test_files_that_are_none_of_ours_are_left_alone(world) -> None:
    published_log(world)
    for name in ("tile/0/000.p/006", "tile/00/000", "tile/0/000.p/.6.abc.tmp", "index.html", "tile/64/000"):
        (world.log_dir / name).parent.mkdir(exist_ok=True, parents=True)
        (world.log_dir / name).write_bytes(b"?")
    world.open()
    assert (world.log_dir / "index.html").read_bytes() == b"?"
