"""The witness: on the disk before it is answered, remembered over a restart, and never two roots for one size."""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from sfrl_secure.clock import FixedClock
from sfrl_secure.errors import NotFoundError, UncertainStateError
from sfrl_secure.sequencer.log_keys import LogKeys
from sfrl_secure.services.verifier import witness as module
from sfrl_secure.services.verifier.witness import EVIDENCE_MAX, Witness
from sfrl_secure.translog.note import parse_vkey
from sfrl_secure.translog.opened import open_checkpoint
from sfrl_secure.translog.policy import TrustedLog
from sfrl_secure.translog.witness import open_cosignature_lines, parse_recorded_size

from .conftest import ORIGIN, SECONDS, WitnessedLog

ORIGIN_DIGEST = hashlib.sha256(ORIGIN.encode()).hexdigest()


def kept(folder: Path) -> Path:
    return folder / ORIGIN_DIGEST / "checkpoint"


def test_growth_is_cosigned_and_what_is_given_out_meets_the_quorum(log: WitnessedLog, tmp_path: Path) -> None:
    witness = log.witness(tmp_path)
    for old, new in ((0, 4), (4, 4), (4, 11)):
        answer = witness.add_checkpoint(log.request(old, new))
        assert answer.status == 200
        text = log.note(new).decode().split("\n\n")[0] + "\n"
        lines = open_cosignature_lines(answer.body, text, [each.key for each in log.cosigners])
        assert [line.key_id for line in lines] == [each.key.key_id for each in log.cosigners]
        opened = open_checkpoint(witness.latest(ORIGIN_DIGEST), log.policy, quorum=True)
        assert (opened.checkpoint.size, opened.witness_times) == (new, {"w": SECONDS, "w-pq": SECONDS})


def test_what_was_cosigned_is_on_the_disk_before_it_is_answered(
    log: WitnessedLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    witness = log.witness(tmp_path)
    written: list[bytes] = []
    real = module.write_atomically

    def write(path: Path, data: bytes) -> None:
        assert witness._recorded == {}
        real(path, data)
        written.append(data)

    monkeypatch.setattr(module, "write_atomically", write)
    answer = witness.add_checkpoint(log.request(0, 4))
    assert answer.status == 200
    (note,) = written
    assert answer.body in note
    assert kept(tmp_path).read_bytes() == note


@pytest.mark.parametrize("error", [UncertainStateError("the disk"), KeyboardInterrupt()])
def test_when_the_write_fails_nothing_is_cosigned_and_nothing_ever_will_be(
    log: WitnessedLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    witness = log.witness(tmp_path)
    assert witness.add_checkpoint(log.request(0, 4)).status == 200

    def fail(_path: Path, _data: bytes) -> None:
        raise error

    monkeypatch.setattr(module, "write_atomically", fail)
    with pytest.raises(type(error)):
        witness.add_checkpoint(log.request(4, 8))
    monkeypatch.undo()
    for request in (log.request(4, 8), log.request(4, 4)):
        with pytest.raises(UncertainStateError):
            witness.add_checkpoint(request)
    # A start reads what the disk has: the state before.
    assert log.witness(tmp_path).add_checkpoint(log.request(4, 8)).status == 200


def test_a_restart_remembers_what_was_cosigned(log: WitnessedLog, tmp_path: Path) -> None:
    before = log.witness(tmp_path)
    assert before.add_checkpoint(log.request(0, 7)).status == 200
    after = log.witness(tmp_path)
    assert after.latest(ORIGIN_DIGEST) == before.latest(ORIGIN_DIGEST)
    answer = after.add_checkpoint(log.request(0, 9))
    assert (answer.status, parse_recorded_size(answer.body)) == (409, 7)
    assert after.add_checkpoint(log.request(7, 9)).status == 200


@pytest.mark.parametrize(
    "raw",
    [b"", b"not a note", b"origin\n1\n", None],
    ids=["empty", "no note", "half", "another log's"],
)
def test_a_kept_checkpoint_that_cannot_be_read_stops_the_start(
    log: WitnessedLog, tmp_path: Path, raw: bytes | None
) -> None:
    log.witness(tmp_path).add_checkpoint(log.request(0, 7))
    if raw is None:
        raw = kept(tmp_path).read_bytes().replace(ORIGIN.encode(), b"log.mars.example/sfrl/other")
    kept(tmp_path).write_bytes(raw)
    with pytest.raises(UncertainStateError):
        log.witness(tmp_path)


def test_two_roots_for_one_size_are_never_cosigned_and_the_evidence_is_kept(
    log: WitnessedLog, tmp_path: Path
) -> None:
    witness = log.witness(tmp_path)
    assert witness.add_checkpoint(log.request(0, 7)).status == 200
    answer = witness.add_checkpoint(log.request(7, 7, tree=log.other))
    assert answer.status == 422
    evidence = [path.read_bytes() for path in (tmp_path / "equivocation").iterdir()]
    assert len(evidence) == 2
    roots = {open_checkpoint(note, log.policy, quorum=False).checkpoint.root for note in evidence}
    assert roots == {log.tree.root(7), log.other.root(7)}
    # Nothing has changed for the honest history, after a restart neither.
    assert witness.add_checkpoint(log.request(7, 9)).status == 200
    assert log.witness(tmp_path).add_checkpoint(log.request(9, 12)).status == 200


def test_a_history_that_does_not_contain_the_recorded_one_is_refused(log: WitnessedLog, tmp_path: Path) -> None:
    witness = log.witness(tmp_path)
    assert witness.add_checkpoint(log.request(0, 7)).status == 200
    assert witness.add_checkpoint(log.request(7, 12, tree=log.other)).status == 422
    assert kept(tmp_path).read_bytes() == witness.latest(ORIGIN_DIGEST)


def test_while_one_request_waits_for_the_disk_others_are_answered(
    log: WitnessedLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    witness = log.witness(tmp_path)
    assert witness.add_checkpoint(log.request(0, 4)).status == 200
    disk, waiting = threading.Event(), threading.Event()
    real = module.write_atomically

    def write(path: Path, data: bytes) -> None:
        waiting.set()
        assert disk.wait(10)
        real(path, data)

    monkeypatch.setattr(module, "write_atomically", write)
    with ThreadPoolExecutor(1) as threads:
        growing = threads.submit(witness.add_checkpoint, log.request(4, 8))
        assert waiting.wait(10)
        # Nobody sees the state that is not durable yet, and nobody waits for it.
        assert witness.latest(ORIGIN_DIGEST).startswith(f"{ORIGIN}\n4\n".encode())
        assert witness.add_checkpoint(b"rubbish").status == 400
        assert witness.add_checkpoint(log.request(4, 8, keys=LogKeys.generate())).status == 403
        assert not growing.done()
        disk.set()
        assert growing.result(10).status == 200
    assert witness.latest(ORIGIN_DIGEST).startswith(f"{ORIGIN}\n8\n".encode())


def test_after_the_log_got_new_keys_the_witness_goes_on_from_what_it_recorded(
    log: WitnessedLog, tmp_path: Path
) -> None:
    log.witness(tmp_path).add_checkpoint(log.request(0, 4))
    new = LogKeys.generate()
    keys = (*log.policy.logs[0].keys, *(parse_vkey(vkey) for vkey in new.vkeys(ORIGIN)))
    policy = replace(log.policy, logs=(TrustedLog(ORIGIN, keys),))
    witness = Witness(tmp_path, policy, log.cosigners, FixedClock(SECONDS * 1_000_000))
    assert open_checkpoint(witness.latest(ORIGIN_DIGEST), policy, quorum=True, archived=True).checkpoint.size == 4
    assert witness.add_checkpoint(log.request(4, 8)).status == 403
    answer = witness.add_checkpoint(log.request(0, 8, keys=new))
    assert (answer.status, parse_recorded_size(answer.body)) == (409, 4)
    assert witness.add_checkpoint(log.request(4, 8, keys=new)).status == 200
    assert open_checkpoint(witness.latest(ORIGIN_DIGEST), policy, quorum=True).is_current


def test_evidence_without_end_does_not_fill_the_disk(log: WitnessedLog, tmp_path: Path) -> None:
    folder = tmp_path / "equivocation"
    folder.mkdir()
    for number in range(2 * EVIDENCE_MAX):
        (folder / str(number)).write_bytes(b"")
    witness = log.witness(tmp_path)
    witness.add_checkpoint(log.request(0, 7))
    assert witness.add_checkpoint(log.request(7, 7, tree=log.other)).status == 422
    assert len(list(folder.iterdir())) == 2 * EVIDENCE_MAX


def test_of_two_histories_asked_for_at_once_one_is_cosigned(log: WitnessedLog, tmp_path: Path) -> None:
    requests = [log.request(0, 7, tree=tree) for tree in (log.tree, log.other)] * 4
    for attempt in range(5):
        witness = log.witness(tmp_path / str(attempt))
        assert witness.add_checkpoint(log.request(0, 0)).status == 200
        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(witness.add_checkpoint, requests))
        assert sorted(answer.status for answer in answers) == [200] + 7 * [409]
        # Who comes back with the size that the witness told gets the same history again, or no cosignature.
        again = [log.request(7, 7, tree=tree) for tree in (log.tree, log.other)]
        assert sorted(witness.add_checkpoint(request).status for request in again) == [200, 422]


@pytest.mark.parametrize("asked", ["", "0" * 64, ORIGIN_DIGEST.upper(), ORIGIN])
def test_only_the_digest_of_a_cosigned_origin_is_answered(log: WitnessedLog, tmp_path: Path, asked: str) -> None:
    witness = log.witness(tmp_path)
    with pytest.raises(NotFoundError):
        witness.latest(ORIGIN_DIGEST)
    witness.add_checkpoint(log.request(0, 4))
    with pytest.raises(NotFoundError):
        witness.latest(asked)


def test_the_time_of_a_cosignature_is_the_witnesses_own(log: WitnessedLog, tmp_path: Path) -> None:
    witness = Witness(tmp_path, log.policy, log.cosigners, FixedClock((SECONDS + 60) * 1_000_000 + 999_999))
    witness.add_checkpoint(log.request(0, 4))
    opened = open_checkpoint(witness.latest(ORIGIN_DIGEST), log.policy, quorum=True)
    assert opened.witness_times == {"w": SECONDS + 60, "w-pq": SECONDS + 60}
