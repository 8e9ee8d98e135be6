"""Altered copies of a true log: every entry, hash, object and neighbouring pair in turn, each found and named."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from sfrl_secure.audit.report import Report
from sfrl_secure.audit.verify import verify_log
from sfrl_secure.translog.checkpoint import parse_checkpoint
from sfrl_secure.translog.merkle import leaf_hash
from sfrl_secure.translog.note import parse_note
from sfrl_secure.translog.tiles import Bundle, Tile, encode_bundle, parse_bundle, tile_of_tree
from sfrl_secure.translog.tree import MerkleTree

from .conftest import ROVERS, SEGMENT, Start, small_plan, submit

ROUNDS = 2


@dataclass(frozen=True)
class Original:
    """A log that ended, with its objects.

    Attributes:
        older: its checkpoint after the first round, under the quorum.
    """

    root: Path
    size: int
    older: bytes

    @property
    def bundle(self) -> Bundle:
        return Bundle(0, self.size)

    @property
    def tile(self) -> Tile:
        return Tile(0, 0, self.size)

    @property
    def entries(self) -> list[bytes]:
        return list(parse_bundle((self.root / "log" / self.bundle.path).read_bytes(), self.size))

    @property
    def objects(self) -> list[Path]:
        return sorted(path for path in (self.root / "objects").rglob("*") if path.is_file())


Verify = Callable[[str, bytes | None], Report]


@pytest.fixture(scope="module")
def original(start: Start) -> Original:
    site = start(small_plan())
    rovers = [site.participant(name) for name in ROVERS]
    older = b""
    for number in range(1, ROUNDS + 1):
        for rover in rovers:
            submit(rover, number)
        site.wait_published(lambda log, number=number: log.state.segments[SEGMENT].last_round > number)
        older = older or (site.folder.log_dir / "checkpoint").read_bytes()
    site.stop()
    assert site.verify().exit_code == 0
    note = parse_note((site.folder.log_dir / "checkpoint").read_bytes())
    found = Original(site.folder.root, parse_checkpoint(note.text).size, older)
    assert found.size < 256, "one bundle and one tile, which the tests take apart"
    return found


@pytest.fixture
def verify_with(original: Original, tmp_path: Path) -> Verify:
    """Verify a copy in which one file, named below the federation's folder, has other bytes, or is gone."""
    copy = tmp_path / "copy"
    for name in ("log", "objects"):
        shutil.copytree(original.root / name, copy / name, copy_function=os.link)

    def verify(name: str, raw: bytes | None) -> Report:
        path = copy / name
        path.unlink()  # a hard link: the original keeps its bytes
        if raw is not None:
            path.write_bytes(raw)
        trust_policy = (original.root / "trust-policy.txt").read_bytes()
        report = verify_log(copy / "log", trust_policy, copy / "objects")
        path.unlink(missing_ok=True)
        os.link(original.root / name, path)
        return report

    return verify


def flipped(raw: bytes, at: int) -> bytes:
    return raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]


def test_the_unchanged_copy_is_verified(original: Original, verify_with: Verify) -> None:
    name = f"log/{original.tile.path}"
    assert verify_with(name, (original.root / name).read_bytes()).verdict == "verified"


def test_one_byte_of_any_entry_is_false_and_the_entry_is_named(original: Original, verify_with: Verify) -> None:
    for index, entry in enumerate(original.entries):
        changed = original.entries
        changed[index] = flipped(entry, len(entry) // 2)
        report = verify_with(f"log/{original.bundle.path}", encode_bundle(changed))
        assert (report.exit_code, [each.index for each in report.findings]) == (1, [index])
        assert f"entry {index}" in report.to_text()


def test_any_two_neighbours_in_the_other_order_are_false_and_the_first_is_named(
    original: Original, verify_with: Verify
) -> None:
    for index in range(original.size - 1):
        changed = original.entries
        changed[index], changed[index + 1] = changed[index + 1], changed[index]
        report = verify_with(f"log/{original.bundle.path}", encode_bundle(changed))
        assert (report.exit_code, [each.index for each in report.findings]) == (1, [index])


def test_one_byte_of_any_hash_is_false_and_the_tile_is_named(original: Original, verify_with: Verify) -> None:
    name = f"log/{original.tile.path}"
    raw = (original.root / name).read_bytes()
    for index in range(original.size):
        report = verify_with(name, flipped(raw, 32 * index + 7))
        assert (report.exit_code, len(report.findings)) == (1, 1)
        assert report.findings[0].subject == original.tile.path
        assert original.tile.path in report.to_text()


def test_one_byte_of_any_object_is_false_and_the_object_is_named(original: Original, verify_with: Verify) -> None:
    # The first model, and per round three updates, an aggregate and a model.
    assert len(original.objects) == 1 + ROUNDS * 5
    for path in original.objects:
        raw = path.read_bytes()
        report = verify_with(str(path.relative_to(original.root)), flipped(raw, len(raw) // 2))
        assert report.exit_code == 1
        assert path.name in {each.subject for each in report.findings}
        assert path.name in report.to_text()


def test_an_object_that_is_not_there_is_missing_and_named_and_nothing_is_false(
    original: Original, verify_with: Verify
) -> None:
    for path in original.objects:
        report = verify_with(str(path.relative_to(original.root)), None)
        assert (report.exit_code, report.findings) == (2, ())
        assert path.name in {each.digest.hex() for each in report.missing if each.digest is not None}
        assert path.name in report.to_text()


@pytest.mark.parametrize("which", ["tile", "bundle", "checkpoint"])
def test_a_file_of_the_log_that_is_not_there_is_missing_and_named(
    original: Original, verify_with: Verify, which: str
) -> None:
    name = {"tile": original.tile.path, "bundle": original.bundle.path, "checkpoint": "checkpoint"}[which]
    report = verify_with(f"log/{name}", None)
    assert (report.exit_code, report.findings) == (2, ())
    assert name in {each.path for each in report.missing}


def test_one_byte_of_the_checkpoint_is_false_wherever_it_stands(original: Original, verify_with: Verify) -> None:
    raw = (original.root / "log/checkpoint").read_bytes()
    first_signature = raw.index("—".encode())
    for at in (0, first_signature // 2, first_signature - 3, first_signature + 300, len(raw) - 20):
        report = verify_with("log/checkpoint", flipped(raw, at))
        assert report.exit_code == 1
        assert {each.code for each in report.findings} == {"checkpoint"}


def test_an_older_log_is_true_by_itself_and_found_out_by_whoever_holds_a_newer_checkpoint(
    original: Original, tmp_path: Path
) -> None:
    size = parse_checkpoint(parse_note(original.older).text).size
    tree = MerkleTree(leaf_hash(entry) for entry in original.entries[:size])
    older = tmp_path / "log"
    for name, raw in (
        (Bundle(0, size).path, encode_bundle(original.entries[:size])),
        (Tile(0, 0, size).path, tile_of_tree(tree, Tile(0, 0, size))),
        ("checkpoint", original.older),
    ):
        (older / name).parent.mkdir(parents=True, exist_ok=True)
        (older / name).write_bytes(raw)
    trust_policy = (original.root / "trust-policy.txt").read_bytes()
    newest = (original.root / "log/checkpoint").read_bytes()
    objects = original.root / "objects"
    assert verify_log(older, trust_policy, objects).exit_code == 0
    held = verify_log(older, trust_policy, objects, older=[newest])
    assert (held.exit_code, held.findings) == (2, ())
    assert "checkpoint" in {each.path for each in held.missing}
    assert verify_log(original.root / "log", trust_policy, objects, older=[original.older]).exit_code == 0
