"""Split view: one log, two stories. Somebody shows one part of the world another log, or an older one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from simulator import SEGMENT, Simulator

from sfrl_secure.audit.report import FALSE, MISSING, VERIFIED
from sfrl_secure.audit.verify import verify_log
from sfrl_secure.errors import SignatureError, VerificationError
from sfrl_secure.participant.rounds import open_round
from sfrl_secure.translog.merkle import leaf_hash
from sfrl_secure.translog.note import format_note, parse_note
from sfrl_secure.translog.policy import format_trust_policy
from sfrl_secure.translog.tiles import bundles_of, encode_bundle, tile_of_tree, tiles_of
from sfrl_secure.translog.tree import MerkleTree

from ..unit.replay.builder import Writer, codes

LOG = Writer().begin()
LOG.run_round({"r1": {1: 5}, "r2": {2: 6}, "r3": {3: 7}})
LOG_POLICY = format_trust_policy(LOG.policy)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    LOG.write(tmp_path)
    return tmp_path


def verify(folder: Path, *older: bytes) -> tuple[str, list[str]]:
    report = verify_log(folder / "log", LOG_POLICY, folder / "objects", older=older)
    return report.verdict, codes(report.findings)


def publish(folder: Path, entries: list[bytes], checkpoint: bytes) -> None:
    """Put another history in the place of the log's."""
    tree = MerkleTree(leaf_hash(entry) for entry in entries)
    (folder / "log" / "checkpoint").write_bytes(checkpoint)
    for tile in tiles_of(tree.size):
        (folder / "log" / tile.path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "log" / tile.path).write_bytes(tile_of_tree(tree, tile))
    for bundle in bundles_of(tree.size):
        (folder / "log" / bundle.path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "log" / bundle.path).write_bytes(encode_bundle(entries[256 * bundle.index :][: bundle.width]))


def fork() -> tuple[list[bytes], bytes]:
    """The same size with another last entry, signed by the log and the quorum."""
    kept = list(LOG.entries)
    try:
        LOG.entries = [*kept[:-1], kept[-2]]
        return LOG.entries, LOG.checkpoint()
    finally:
        LOG.entries = kept


def test_the_log_as_it_is_verifies(folder: Path) -> None:
    assert verify(folder, LOG.checkpoint(3), LOG.checkpoint()) == (VERIFIED, [])


def test_two_roots_of_one_size_are_equivocation(folder: Path) -> None:
    assert verify(folder, fork()[1]) == (FALSE, ["equivocation"])
    publish(folder, *fork())
    assert verify(folder, LOG.checkpoint()) == (FALSE, ["equivocation"])


def test_an_older_log_is_missing_what_it_had(folder: Path) -> None:
    size = len(LOG.entries) - 2
    publish(folder, LOG.entries[:size], LOG.checkpoint(size))
    assert verify(folder) == (VERIFIED, [])
    assert verify(folder, LOG.checkpoint()) == (MISSING, [])


def test_an_older_checkpoint_over_newer_files_is_the_older_log(folder: Path) -> None:
    size = len(LOG.entries) - 2
    (folder / "log" / "checkpoint").write_bytes(LOG.checkpoint(size))
    # The partial tiles of that size are not there; the wider partial ones are no substitute.
    assert verify(folder)[0] == MISSING


@pytest.mark.parametrize("witnesses", [(), ("w1",), ("w2",)])
def test_the_logs_own_keys_are_not_enough(folder: Path, witnesses: tuple[str, ...]) -> None:
    (folder / "log" / "checkpoint").write_bytes(LOG.checkpoint(None, witnesses))
    assert verify(folder) == (FALSE, ["checkpoint"])


@pytest.mark.parametrize("line", range(4))
def test_a_checkpoint_lacks_no_line(folder: Path, line: int) -> None:
    note = parse_note(LOG.checkpoint())
    assert len(note.signatures) == 4
    left = tuple(each for place, each in enumerate(note.signatures) if place != line)
    (folder / "log" / "checkpoint").write_bytes(format_note(replace(note, signatures=left)))
    assert verify(folder) == (FALSE, ["checkpoint"])


def test_lines_of_strangers_change_nothing(folder: Path) -> None:
    other = Writer().begin()
    stranger = other.witnesses["w1"].cosign(parse_note(LOG.checkpoint()).text, 1_700_000_000)
    stranger = replace(stranger, name="stranger.example/witness")
    note = parse_note(LOG.checkpoint())
    (folder / "log" / "checkpoint").write_bytes(format_note(replace(note, signatures=(*note.signatures, stranger))))
    assert verify(folder) == (VERIFIED, [])


def test_a_log_of_another_federation_is_not_taken_for_ours(folder: Path) -> None:
    other = Writer().begin()
    publish(folder, other.entries, other.checkpoint())
    assert verify(folder) == (FALSE, ["checkpoint"])


def test_a_participant_trains_on_nothing_that_no_quorum_saw(sim: Simulator) -> None:
    sim.open_round()
    answer = sim.gatekeeper().proofs.open_round(SEGMENT, 0, 0.0)
    size, now_us = len(sim.log.raw), sim.clock.now_us()
    assert open_round(answer, SEGMENT, sim.policy, now_us)
    with pytest.raises(SignatureError):
        open_round(replace(answer, checkpoint=sim.log.note(size, sim.log.witnesses[:1])), SEGMENT, sim.policy, now_us)
    held_back = sim.log.note(size, sim.log.witnesses[:2], age_seconds=601)
    with pytest.raises(VerificationError, match="older than"):
        open_round(replace(answer, checkpoint=held_back), SEGMENT, sim.policy, now_us)


def test_a_round_of_another_segment_is_no_answer(sim: Simulator) -> None:
    sim.open_round()
    sim.publish_terms(segment="sand")
    answer = sim.gatekeeper().proofs.open_round(SEGMENT, 0, 0.0)
    with pytest.raises(VerificationError):
        open_round(answer, "sand", sim.policy, sim.clock.now_us())
    terms = sim.log.logged_entry(len(sim.log.raw) - 1, len(sim.log.raw))
    with pytest.raises(VerificationError):
        open_round(replace(answer, terms=terms), "sand", sim.policy, sim.clock.now_us())
