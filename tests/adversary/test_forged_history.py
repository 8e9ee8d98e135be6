"""Forged history: files, objects and entries that are not what they should be, and what the verifier says of them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sfrl_secure.audit.report import FALSE, MISSING, VERIFIED, Report
from sfrl_secure.audit.verify import verify_log
from sfrl_secure.crypto.envelope import sign_envelope
from sfrl_secure.rounds.fold import FederationFold
from sfrl_secure.translog.merkle import leaf_hash
from sfrl_secure.translog.policy import format_trust_policy
from sfrl_secure.wire.content import parse_content
from sfrl_secure.wire.entries import parse_entry

from ..unit.replay.builder import NEVER, STREAM, Writer, codes, pb

UPDATES = {"r1": {1: 5}, "r2": {2: 6}, "r3": {3: 7}}
LOG = Writer().begin()
LOG.run_round(UPDATES)
POLICY = format_trust_policy(LOG.policy)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    LOG.write(tmp_path)
    return tmp_path


def verify(folder: Path) -> Report:
    return verify_log(folder / "log", POLICY, folder / "objects")


def object_of(folder: Path) -> Path:
    """The payload of r1."""
    assert LOG.round is not None
    name = parse_content(parse_entry(LOG.entries[-5]).envelope).body.update.payload_sha256.hex()  # type: ignore[union-attr]
    return folder / "objects" / name[:2] / name


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def a_ring(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def nothing_but_holes(path: Path) -> None:
    os.truncate(path, 2**40)


def a_zero_stream(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("damage", [Path.unlink, a_folder, a_pipe, a_ring, nothing_but_holes, a_zero_stream])
def test_an_object_that_is_none_is_missing_and_costs_no_time(folder: Path, damage: Callable[[Path], None]) -> None:
    damage(object_of(folder))
    begun = time.monotonic()
    report = verify(folder)
    assert time.monotonic() - begun < 20
    assert (report.verdict, len(report.missing)) == (MISSING, 1)
    assert not report.results_sound


def test_an_object_by_another_path_is_the_object(folder: Path) -> None:
    path = object_of(folder)
    path.rename(folder / "elsewhere")
    path.symlink_to(folder / "elsewhere")
    assert verify(folder).verdict == VERIFIED


def test_every_object_is_looked_at(folder: Path) -> None:
    objects = [path for path in (folder / "objects").rglob("*") if path.is_file()]
    for path in objects:
        good = path.read_bytes()
        path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        report = verify(folder)
        assert (report.verdict, codes(report.findings)) == (FALSE, ["object_altered"])
        assert report.findings[0].subject == path.name
        path.write_bytes(good)


@pytest.mark.parametrize(
    "change", [lambda raw: raw + b"\0\0", lambda raw: raw + raw[-40:], lambda raw: raw[:-1], lambda raw: b""]
)
@pytest.mark.parametrize("place", ["tile/entries", "tile/0"])
def test_files_of_the_log_have_no_byte_too_many_or_too_few(
    folder: Path, place: str, change: Callable[[bytes], bytes]
) -> None:
    (path,) = [each for each in (folder / "log" / place).rglob("*") if each.is_file()]
    path.write_bytes(change(path.read_bytes()))
    report = verify(folder)
    assert (report.verdict, codes(report.findings)) == (FALSE, ["structure"])


def test_an_update_whose_payload_is_gone_is_dropped_on_word_and_never_verified(folder: Path) -> None:
    """Aggregator and store together can drop a sound update. Then the payload is missing, and nobody says verified."""
    log = Writer().begin()
    log.open_round()
    for name, update in UPDATES.items():
        log.admit(name, update, keep=name != "r2")
    log.close(dropped={"r2": "defective"})
    log.publish_model()
    replayed = log.replay()
    assert codes(replayed.docket.findings) == []
    assert [each.why for each in replayed.missing] == ["the payload of an admitted update"]


def test_a_closing_that_drops_more_than_a_cohort_has_one_reading() -> None:
    """It is malformed to the services too: else they would count it in its stream and the verifier would not."""
    log = Writer().begin()
    dropped = [pb((1, f"x{number:03}"), (2, b"\5" * 32), (3, "defective")) for number in range(501)]
    log.statement(
        11, pb((1, 1), (2, 2), (3, 2), (5, b"\5" * 32), (6, dropped)), STREAM, log.aggregator, entry_stream=None
    )
    log.count()
    log.open_round()
    fold = FederationFold(log.origin, (log.signer.key.vkey, log.cosigner.key.vkey))
    for index, raw in enumerate(log.entries):
        entry = parse_entry(raw)
        try:
            content = parse_content(entry.envelope)
        except Exception:  # noqa: BLE001 - which error it is, is tested elsewhere
            content = None
        fold.apply(index, leaf_hash(raw), entry, content)
    assert codes(log.replay().docket.findings) == ["malformed"]
    assert fold.state.streams[STREAM].next_seq == 1


def test_a_second_genesis_changes_nothing() -> None:
    log = Writer().begin()
    log.genesis(void=True)
    log.count()
    assert codes(log.replay().docket.findings) == ["genesis"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"signers": ("ann", "bob")}, {"root_signers": ("ann", "bob")}, {"federation_id": "11" * 32},
        {"origin": "log.example/sfrl/x"},
        {"log_keys": []}, {"formats": {"entry": 2, "codec": 1, "model": 1, "arithmetic": 1}},
    ],
)  # fmt: skip
def test_a_history_that_begins_with_another_genesis_proves_nothing(wrong: dict[str, object]) -> None:
    log = Writer()
    log.genesis(**wrong)  # type: ignore[arg-type]
    log.publish_services()
    replayed = log.replay()
    assert replayed.is_ended
    assert replayed.docket.findings[0].code in ("genesis", "threshold", "malformed")
    assert replayed.state.root is None


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"prev": b"\1" * 32}, "chain"), ({"log_time_us": 1}, "time"), ({"stream_seq": 9}, "stream_position"),
        ({"stream_prev": b"\1" * 32}, "stream_position"), ({"log_time_us": 2**63}, "entry_malformed"),
    ],
)  # fmt: skip
def test_what_the_sequencer_gets_wrong_is_the_logs_fault(change: dict[str, object], code: str) -> None:
    log = Writer().begin()
    log.count(entry=change, valid_until_us=NEVER)
    findings = log.replay().docket.findings
    assert code in codes(findings)
    assert {each.writer for each in findings if each.code == code} == {"log"}


def test_the_report_has_no_characters_that_a_terminal_obeys(tmp_path: Path) -> None:
    log = Writer().begin()
    evil = "\x1b[2J\x9b31m\r\n\u202e"
    log.record("r1", body={"reason": evil}, void=True, stream=None)
    log.publish_rules(cedar='@id("' + evil + '") permit (principal, action, resource);', void=True, stream=None)
    raw = b"\x1b[2J"
    log.append(sign_envelope("application/vnd.sfrl.statement.v1", raw, [log.services[log.gatekeeper]]), None)
    log.statement(12, pb((6, evil)), STREAM, log.aggregator, named_writer=evil, entry_stream=None)
    log.statement(7, pb((1, evil), (4, evil)), "log", log.gatekeeper, entry_stream=None)
    log.entries.append(raw)
    folder, policy, objects = log.write(tmp_path)
    report = verify_log(folder, policy, objects)
    assert len(report.findings) == 6
    assert all(" " <= character <= "~" or character == "\n" for character in report.to_text() + str(report.to_json()))
