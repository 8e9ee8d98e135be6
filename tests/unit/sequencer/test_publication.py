"""Published files are what the journal says, or the log does not open."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sfrl_secure.errors import UncertainStateError
from sfrl_secure.sequencer import publication as published_module
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


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write without syncs, and take any note for ours: these tests are about tiles."""
    monkeypatch.setattr(published_module, "write_atomically", lambda path, data, durable=True: path.write_bytes(data))


@pytest.mark.usefixtures("quick")
def test_every_size_to_600_has_the_files_of_a_recomputation_and_older_ones_stay_readable(tmp_path: Path) -> None:
    tree = MerkleTree()
    publication = Publication(tmp_path, tree, ENTRIES.__getitem__)
    for size in range(1, 601):
        tree.append(leaf_hash(ENTRIES[size - 1]))
        publication.publish(size, b"note %d" % size)
        if size % 37 == 1 or size % 256 in (0, 1, 2, 255):
            found = files_of(tmp_path)
            assert found.pop("checkpoint") == b"note %d" % size
            assert due_files(size).items() <= found.items()
            assert all(name.startswith("tile/") for name in found)
            # Whoever read an older checkpoint a moment ago finds its files, or the full ones in their place.
            for older in (size - 1, size - 10):
                for name, data in due_files(max(older, 0)).items():
                    full = name.split(".p/")[0]
                    assert found.get(name) == data or found[full].startswith(data)


@pytest.mark.usefixtures("quick")
def test_partial_files_go_when_the_tile_after_theirs_is_full(tmp_path: Path) -> None:
    tree = tree_of(0)
    publication = Publication(tmp_path, tree, ENTRIES.__getitem__)
    for size in range(10, 701, 10):
        tree.extend(leaf_hash(entry) for entry in ENTRIES[tree.size:size])
        publication.publish(size, b"note")
    names = set(files_of(tmp_path))
    for kind in ("tile/0", "tile/entries"):
        assert not {name for name in names if name.startswith(f"{kind}/000.p/")}
        assert {name for name in names if name.startswith(f"{kind}/001.p/")}
        assert {f"{kind}/000", f"{kind}/001"} <= names


@pytest.mark.usefixtures("quick")
def test_an_older_size_is_not_published_over_a_newer(tmp_path: Path) -> None:
    publication = Publication(tmp_path, tree_of(20), ENTRIES.__getitem__)
    publication.publish(20, b"newer")
    publication.publish(19, b"older")
    assert (tmp_path / "checkpoint").read_bytes() == b"newer"


def test_the_checkpoint_comes_after_what_it_stands_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[tuple[str, bool]] = []
    write = published_module.write_atomically

    def noting(path: Path, data: bytes, durable: bool = True) -> None:
        order.append((path.relative_to(tmp_path).as_posix(), durable))
        write(path, data, durable=durable)

    monkeypatch.setattr(published_module, "write_atomically", noting)
    Publication(tmp_path, tree_of(300), ENTRIES.__getitem__).publish(300, b"note")
    assert order[-1] == ("checkpoint", True)
    # What can be made again costs no sync.
    assert {name for name, durable in order if durable} == {"checkpoint"}
    assert {name for name, durable in order if not durable} == set(due_files(300))


# Starts, with a whole log


def published_log(world, entries: int = 5):
    log = world.open().start()
    for i in range(entries):
        log.append(f"alpha n{i}")
    log.wait_witnessed(entries + 1)
    log.close()


def test_a_start_makes_again_what_is_missing_or_short(world) -> None:
    published_log(world)
    due = {f"tile/entries/000.p/{6}", f"tile/0/000.p/{6}"}
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


def test_a_start_finds_each_changed_byte_of_each_published_file(world) -> None:
    published_log(world)
    for name, data in files_of(world.log_dir).items():
        path = world.log_dir / name
        for at in (0, len(data) // 2, len(data) - 1):
            path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1:])
            with pytest.raises(UncertainStateError):
                world.open()
        path.write_bytes(data + b"more")
        with pytest.raises(UncertainStateError):
            world.open()
        path.write_bytes(data)
    world.open()


def test_published_files_beyond_the_journal_stop_a_start(world) -> None:
    published_log(world)
    for name in ("tile/0/000.p/7", "tile/0/000", "tile/1/000.p/1", "tile/entries/000.p/7", "tile/entries/000"):
        (world.log_dir / name).parent.mkdir(exist_ok=True, parents=True)
        (world.log_dir / name).write_bytes(b"")
        with pytest.raises(UncertainStateError, match="does not reach"):
            world.open()
        (world.log_dir / name).unlink()
    world.open()


def test_files_that_are_none_of_ours_are_left_alone(world) -> None:
    published_log(world)
    for name in ("tile/0/000.p/006", "tile/00/000", "tile/0/000.p/.6.abc.tmp", "index.html", "tile/64/000"):
        (world.log_dir / name).parent.mkdir(exist_ok=True, parents=True)
        (world.log_dir / name).write_bytes(b"?")
    world.open()
    assert (world.log_dir / "index.html").read_bytes() == b"?"
