"""A checkpoint around a change of the log's keys: what a trust policy cannot judge is missing, what is wrong false."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from sfrl_secure.audit.fsck import check_log_folder
from sfrl_secure.audit.known_keys import open_kept
from sfrl_secure.audit.verify import verify_log
from sfrl_secure.errors import MissingEvidenceError, NotFoundError
from sfrl_secure.translog.note import parse_note
from sfrl_secure.translog.policy import TrustPolicy, format_trust_policy

from ..replay.builder import Writer


@dataclass(frozen=True)
class Rotated:
    """A log in a folder, before its keys changed, and who signs for it afterwards."""

    old: Writer
    new: Writer
    folder: Path

    @property
    def both(self) -> TrustPolicy:
        log = replace(self.old.trust, keys=(*self.old.trust.keys, *self.new.trust.keys))
        return replace(self.old.policy, logs=(log,))

    def put(self, checkpoint: bytes) -> None:
        (self.folder / "log/checkpoint").write_bytes(checkpoint)

    def codes(self, policy: TrustPolicy) -> tuple[int, int, str]:
        """Exit codes of `verify` and `fsck`, and what both say."""
        audited = verify_log(self.folder / "log", format_trust_policy(policy), self.folder / "objects")
        checked = check_log_folder(self.folder / "log", policy, lambda *_: None)
        return audited.exit_code, checked.exit_code, audited.to_text() + checked.to_text()


@pytest.fixture
def rotated(tmp_path: Path) -> Rotated:
    old = Writer().begin()
    old.write(tmp_path)
    new = Writer()
    new.origin = old.origin
    new._log_keys()
    new.entries, new.now, new.witnesses = old.entries, old.now, old.witnesses
    return Rotated(old, new, tmp_path)


def without_line(note: bytes, number: int) -> bytes:
    text, lines = note.decode().split("\n\n")
    kept = lines.splitlines()
    del kept[number]
    return f"{text}\n\n{chr(10).join(kept)}\n".encode()


def with_false_line(note: bytes, number: int) -> bytes:
    text, lines = note.decode().split("\n\n")
    all_lines = lines.splitlines()
    line = all_lines[number]
    middle = len(line) - 40
    all_lines[number] = line[:middle] + ("A" if line[middle] != "A" else "B") + line[middle + 1 :]
    return f"{text}\n\n{chr(10).join(all_lines)}\n".encode()


def test_an_older_generation_is_missing_evidence_and_the_way_on_is_named(rotated: Rotated) -> None:
    audited, checked, said = rotated.codes(rotated.both)
    assert (audited, checked) == (2, 2)
    sentence = (
        "the checkpoint is signed by generation 1; the trust policy's newest is 2: get a checkpoint from after the"
        " rotation, or verify with the policy of its time"
    )
    assert said.count(sentence) == 2


def test_keys_that_the_policy_does_not_have_are_missing_evidence(rotated: Rotated) -> None:
    rotated.put(rotated.new.checkpoint())
    audited, checked, said = rotated.codes(rotated.old.policy)
    assert (audited, checked) == (2, 2)
    assert said.count("signed with keys that this trust policy does not have: if the log's keys were replaced") == 2


def test_the_newest_generation_is_verified(rotated: Rotated) -> None:
    rotated.put(rotated.new.checkpoint())
    assert rotated.codes(rotated.both)[:2] == (0, 0)


@pytest.mark.parametrize(
    "change",
    [
        lambda note: without_line(note, 0),
        lambda note: without_line(note, 1),
        lambda note: without_line(without_line(note, 0), 0),
        lambda note: with_false_line(note, 0),
        lambda note: with_false_line(note, 1),
        lambda note: with_false_line(note, 2),
    ],
    ids=["one line", "other line", "no line", "false line", "other false line", "false witness"],
)
def test_a_known_generation_that_is_not_whole_or_not_right_is_false(
    rotated: Rotated, change: Callable[[bytes], bytes]
) -> None:
    rotated.put(change(rotated.old.checkpoint()))
    assert rotated.codes(rotated.both)[:2] == (1, 1)


def test_a_false_witness_beside_unknown_keys_is_false(rotated: Rotated) -> None:
    note = rotated.new.checkpoint()
    names = [line.name for line in parse_note(note).signatures]
    first_witness = next(number for number, name in enumerate(names) if name != rotated.old.origin)
    rotated.put(with_false_line(note, first_witness))
    assert rotated.codes(rotated.old.policy)[:2] == (1, 1)


def test_another_logs_trust_policy_is_wrong_use(rotated: Rotated) -> None:
    with pytest.raises(NotFoundError, match="lists no log of this origin"):
        rotated.codes(Writer().policy)
    with pytest.raises(NotFoundError, match="lists no log of this origin"):
        check_log_folder(rotated.folder / "log", Writer().policy, lambda *_: None)


def test_an_older_checkpoint_under_unknown_keys_is_missing_evidence(rotated: Rotated) -> None:
    (rotated.folder / "log/checkpoints").mkdir()
    (rotated.folder / "log/checkpoints/1").write_bytes(rotated.new.checkpoint(1))
    report = check_log_folder(rotated.folder / "log", rotated.old.policy, lambda *_: None)
    assert (report.exit_code, [each.path for each in report.missing]) == (2, ["checkpoints/1"])
    with pytest.raises(MissingEvidenceError):
        open_kept(rotated.new.checkpoint(1), rotated.old.policy)
