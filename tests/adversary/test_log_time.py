"""A log that lies about the time: each lie that it can tell, and what the verifier makes of it.

`Witnessed` keeps two clocks: the log's, whose time its entries bear, and the world's, which is in the cosignatures.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sfrl_secure.audit.report import FALSE, MISSING, VERIFIED, Report
from sfrl_secure.audit.verify import verify_log
from sfrl_secure.ids import Digest
from sfrl_secure.translog.anchor import open_anchor
from sfrl_secure.translog.opened import open_checkpoint
from sfrl_secure.translog.policy import format_trust_policy

from ..unit.replay.builder import DAY, SECOND, Writer, codes
from ..unit.translog.conftest import make_note_signer

BASE = Writer().begin()
FOUNDING = len(BASE.entries)


class Witnessed:
    """A log that writes an entry a second by its own clock, which is `ahead` seconds ahead of the world's."""

    def __init__(self, ahead: int = 0) -> None:
        self.log = Writer().begin()
        self.ahead = ahead

    @property
    def world(self) -> int:
        """Seconds since 1970, as everybody else has them."""
        return self.log.now // SECOND - self.ahead

    def write(self, entries: int) -> int:
        """Write entries; give the index of the first."""
        first = len(self.log.entries)
        for _ in range(entries):
            self.log.count()
        return first

    def anchor(self, size: int | None = None, *, times: Mapping[str, int] | None = None, **other: Any) -> int:
        """Anchor everything so far, as witnessed now, or something else; give the entry's index."""
        times = {"w1": self.world, "w2": self.world} if times is None else times
        note = self.log.anchor_note(size, times=times, **{k: other.pop(k) for k in ("root", "signer") if k in other})
        self.log.anchor(other.pop("note", note), **other)
        return len(self.log.entries) - 1

    def wait(self, seconds: int) -> None:
        """Let time pass, for the log and the world."""
        self.log.now += seconds * SECOND

    def live(self, seconds: int) -> None:
        """What an honest log does for a while: an entry a second, and an anchor every 30 s and at the end."""
        for _ in range(0, seconds, 30):
            self.write(30)
            self.anchor()

    def verify(self, folder: Path) -> Report:
        """Have the newest checkpoint witnessed at the world's time, publish, and verify."""
        self.log.now -= self.ahead * SECOND
        return verify_log(*self.log.write(folder))


def test_a_log_that_keeps_time_is_verified(tmp_path: Path) -> None:
    log = Witnessed()
    log.live(150)
    log.wait(3_600)
    log.live(60)
    report = log.verify(tmp_path)
    assert (report.verdict, report.missing, report.anchors) == (VERIFIED, (), 7)
    assert report.gap_us == 29 * SECOND
    assert "7 anchors; longest time from an entry to its witnesses 29 s" in report.to_text()
    assert json.loads(json.dumps(report.to_json()))["gap_us"] == 29 * SECOND


# The clock


@pytest.mark.parametrize(("ahead", "verdict"), [(119, VERIFIED), (120, VERIFIED), (600, FALSE)])
def test_a_clock_that_is_ahead_is_false(tmp_path: Path, ahead: int, verdict: str) -> None:
    """It would close rounds before their deadlines."""
    log = Witnessed(ahead)
    log.live(150)
    report = log.verify(tmp_path)
    assert report.verdict == verdict
    if verdict == FALSE:
        # One run: it is told of once, from genesis to the last entry.
        (finding,) = report.findings
        assert (finding.code, finding.index, finding.writer) == ("time_ahead", 0, "log")
        assert finding.found == f"up to 600 s after, entries 0 to {report.size - 1}"
        assert report.results_sound


def test_the_limit_ahead_is_exact(tmp_path: Path) -> None:
    for over_us, expected in ((0, []), (1, ["time_ahead"])):
        log = Witnessed()
        world = log.world
        log.log.now = (world + 120 - 1) * SECOND + over_us
        log.write(1)
        log.anchor(times={"w1": world, "w2": world})
        report = log.verify(tmp_path / str(over_us))
        assert codes(report.findings) == expected


@pytest.mark.parametrize(("behind", "is_false"), [(119, False), (600, True)])
def test_a_clock_that_is_behind_is_false(tmp_path: Path, behind: int, is_false: bool) -> None:
    """It would take what comes after a deadline. What it puts on record is younger than it says that it is."""
    log = Witnessed(-behind)
    # An honest log anchors this often, so that no entry is 120 s from its anchor by a clock that is 119 s behind.
    for _ in range(100):
        log.write(1)
        log.anchor()
    report = log.verify(tmp_path)
    assert report.verdict == (FALSE if is_false else VERIFIED)
    if is_false:
        (finding,) = report.findings
        last = report.size - 1
        assert (finding.code, finding.index, finding.writer) == ("time_behind", FOUNDING + 1, "log")
        # The anchor's own entry comes a second after its cosignatures.
        assert finding.found == f"up to 599 s before, entries {FOUNDING + 1} to {last}"
        assert "time not witnessed within 120 s" in report.missing[0].why


def test_the_limit_behind_is_exact(tmp_path: Path) -> None:
    for over, expected in ((0, []), (1, ["time_behind"])):
        log = Witnessed()
        log.write(1)
        index = log.anchor(times=dict.fromkeys(("w1", "w2"), log.log.now // SECOND + 1 + 120 + over))
        report = log.verify(tmp_path / str(over))
        assert codes(report.findings) == expected
        assert [each.index for each in report.findings] == [index] * len(expected)


def test_each_while_in_which_a_clock_was_wrong_is_told_of(tmp_path: Path) -> None:
    log = Witnessed()
    expected = []
    for seconds in (300, 400):
        log.live(60)
        log.ahead = seconds
        log.wait(seconds)
        first = log.write(5)
        last = log.anchor()
        # The world catches up while nothing is written.
        log.ahead = 0
        expected.append(("time_ahead", first, f"up to {seconds} s after, entries {first} to {last - 1}"))
    for seconds in (300, 400):
        log.live(60)
        index = log.anchor(times={"w1": log.world + 1 + seconds, "w2": log.world + 1 + seconds})
        expected.append(("time_behind", index, f"{seconds} s before"))
    log.live(30)
    report = log.verify(tmp_path)
    assert [(each.code, each.index, each.found) for each in report.findings] == expected


# Pauses


def test_a_jump_into_a_pause_is_not_shown(tmp_path: Path) -> None:
    """Ten minutes of silence, and then an entry that claims to be from their beginning."""
    log = Witnessed()
    log.live(60)
    begin_us = log.log.now
    first = log.write(2)
    log.log.now = begin_us + 600 * SECOND
    log.anchor()
    report = log.verify(tmp_path)
    assert (report.verdict, report.exit_code, report.findings) == (MISSING, 2, ())
    (missing,) = report.missing
    assert (missing.index, missing.digest) == (first, None)
    assert missing.why == f"time not witnessed within 120 s, but up to 599 s later, entries {first} to {first + 1}"
    assert f"  entry {first}: time not witnessed" in report.to_text()
    # No model is wrong for that.
    assert report.results_sound


@pytest.mark.parametrize(("seconds", "is_shown"), [(120, True), (121, False)])
def test_the_limit_of_what_is_shown_is_exact(tmp_path: Path, seconds: int, is_shown: bool) -> None:
    log = Witnessed()
    log.live(30)
    index = log.write(1)
    log.wait(seconds)
    log.anchor()
    report = log.verify(tmp_path)
    assert (report.verdict, [each.index for each in report.missing]) == (
        (VERIFIED, []) if is_shown else (MISSING, [index])
    )
    assert report.gap_us == seconds * SECOND


def test_a_jump_ahead_in_a_pause_is_false(tmp_path: Path) -> None:
    log = Witnessed()
    log.live(60)
    world = log.world
    log.wait(400)
    index = log.write(1)
    log.anchor(times={"w1": world + 100, "w2": world + 100})
    log.live(60)
    report = log.verify(tmp_path)
    assert [(each.code, each.index) for each in report.findings] == [("time_ahead", index)]


def test_an_anchor_dated_ahead_excuses_nothing(tmp_path: Path) -> None:
    """The last entry's time says which payloads may be gone: that of an anchor is held against the witnesses too."""
    log = Witnessed()
    log.live(30)
    world = log.log.now
    log.wait(DAY // SECOND)
    index = log.anchor(FOUNDING + 30 + 1, times={"w1": world // SECOND, "w2": world // SECOND})
    log.log.now = world
    report = log.verify(tmp_path)
    assert [(each.code, each.index) for each in report.findings] == [("time_ahead", index)]


def test_witnesses_that_were_away_are_missing_and_not_false(tmp_path: Path) -> None:
    log = Witnessed()
    log.live(60)
    first = log.write(300)
    log.anchor()
    log.live(60)
    report = log.verify(tmp_path)
    assert (report.verdict, report.findings) == (MISSING, ())
    # The last two minutes before they came back are shown.
    assert [(each.index, each.why) for each in report.missing] == [
        (first, f"time not witnessed within 120 s, but up to 299 s later, entries {first} to {first + 178}")
    ]


def test_each_while_without_witnesses_is_told_of(tmp_path: Path) -> None:
    log = Witnessed()
    begins = []
    for _ in range(2):
        log.live(30)
        begins.append(log.write(10))
        log.wait(200)
        log.anchor()
    assert [each.index for each in log.verify(tmp_path).missing] == begins


def test_a_log_that_never_anchored_shows_its_last_two_minutes(tmp_path: Path) -> None:
    log = Witnessed()
    first = log.write(300)
    report = log.verify(tmp_path)
    assert (report.verdict, report.anchors, len(report.missing)) == (MISSING, 0, 1)
    assert report.missing[0].index == first
    assert f"entries {first} to {first + 179}" in report.missing[0].why


@pytest.mark.parametrize(("is_anchored", "verdict"), [(True, VERIFIED), (False, MISSING)])
def test_a_log_that_falls_silent_is_shown_if_it_anchored_before(
    tmp_path: Path, is_anchored: bool, verdict: str
) -> None:
    log = Witnessed()
    log.live(30)
    log.write(5)
    if is_anchored:
        log.anchor()
    log.wait(3_600)
    assert log.verify(tmp_path).verdict == verdict


# The founding


def test_what_was_written_before_any_witness_is_not_asked_for(tmp_path: Path) -> None:
    """A federation that is made today and started next week."""
    log = Witnessed()
    log.wait(7 * 86_400)
    assert log.verify(tmp_path / "unanchored").verdict == VERIFIED
    log.anchor()
    log.wait(3_600)
    assert log.verify(tmp_path / "anchored").verdict == VERIFIED


def add_terms(log: Witnessed) -> None:
    log.log.publish_terms()


@pytest.mark.parametrize("act", [lambda log: log.write(1), lambda log: log.log.open_round()])
def test_the_founding_ends_with_the_first_entry_of_another_stream(
    tmp_path: Path, act: Callable[[Witnessed], None]
) -> None:
    log = Witnessed()
    act(log)
    add_terms(log)
    log.wait(7 * 86_400)
    log.anchor()
    report = log.verify(tmp_path)
    assert [each.index for each in report.missing] == [FOUNDING]
    assert f"entries {FOUNDING} to {FOUNDING + 1}" in report.missing[0].why


def test_the_founding_ends_with_the_first_anchor(tmp_path: Path) -> None:
    log = Witnessed()
    size = len(log.log.entries)
    add_terms(log)
    log.anchor(size)
    log.wait(7 * 86_400)
    log.anchor()
    report = log.verify(tmp_path)
    assert [(each.index, report.verdict) for each in report.missing] == [(FOUNDING, MISSING)]


# Anchors that are none


def other_root(log: Witnessed) -> dict[str, Any]:
    return {"root": Digest(b"\7" * 32)}


@pytest.mark.parametrize(
    ("code", "other"),
    [
        ("anchor", lambda log: {"times": {"w1": log.world}}),
        ("anchor", lambda log: {"times": {}}),
        ("anchor", lambda log: {"times": {"w1": log.world, "w2": 0}}),
        ("anchor", lambda log: {"signer": make_note_signer(log.log.origin)}),
        ("anchor", lambda log: {"note": spoilt(log)}),
        ("anchor", lambda log: {"size": 0}),
        ("anchor", lambda log: {"note": log.log.anchor_note().replace(b"log.example", b"lag.example")}),
        ("equivocation", other_root),
        ("role", lambda log: {"writer": log.log.gatekeeper}),
    ],
)
def test_an_anchor_that_is_none_covers_nothing_and_is_found(
    tmp_path: Path, code: str, other: Callable[[Witnessed], dict[str, Any]]
) -> None:
    log = Witnessed()
    log.live(30)
    first = log.write(10)
    index = log.anchor(**other(log))
    log.wait(300)
    log.anchor()
    report = log.verify(tmp_path)
    assert [(each.code, each.index) for each in report.findings] == [(code, index)]
    assert report.anchors == 2
    # Nor is such an entry excused from being witnessed itself.
    assert [each.index for each in report.missing] == [first]
    assert f"entries {first} to {index}" in report.missing[0].why


def spoilt(log: Witnessed) -> bytes:
    """A note with a witness's line that does not hold."""
    note = log.log.anchor_note()
    return note.replace(note.splitlines()[-1][-8:-4], b"AAAA")


def test_who_wrote_it_answers_for_an_anchor_that_is_none(tmp_path: Path) -> None:
    log = Witnessed()
    log.anchor(times={})
    log.anchor(root=Digest(b"\7" * 32))
    report = log.verify(tmp_path)
    assert [each.writer for each in report.findings] == [log.log.audit_log, "log"]


def test_an_anchor_of_another_history_is_equivocation_with_both_notes(tmp_path: Path) -> None:
    """The log showed its witnesses another history, which they signed, and put their word into this one."""
    log = Witnessed()
    log.live(30)
    size = len(log.log.entries)
    index = log.anchor(size, root=Digest(b"\7" * 32))
    log.live(30)
    report = log.verify(tmp_path)
    assert [(each.code, each.index) for each in report.findings] == [("equivocation", index)]
    (both,) = report.contradictions
    older, newer = open_anchor(both.older, log.log.policy), open_checkpoint(both.newer, log.log.policy, quorum=True)
    assert (both.index, older.checkpoint.size, older.checkpoint.root) == (index, size, b"\7" * 32)
    assert newer.checkpoint.size == report.size
    said = json.loads(json.dumps(report.to_json()))["contradictions"]
    assert said == [{"index": index, "older": both.older.decode(), "newer": both.newer.decode()}]


# Others


def test_a_policy_that_asks_for_no_witness_asks_for_no_time(tmp_path: Path) -> None:
    log = Witnessed(ahead=DAY // SECOND)
    log.write(200)
    log.anchor(times={})
    log.anchor(root=Digest(b"\7" * 32))
    folder, _, objects = log.log.write(tmp_path)
    report = verify_log(folder, format_trust_policy(replace(log.log.policy, quorum="none")), objects)
    assert (codes(report.findings), report.missing) == (["equivocation"], ())
    assert (report.anchors, report.gap_us) == (0, None)
    assert "asks for no witness" in report.to_text()


def test_what_follows_a_missing_file_is_not_called_unwitnessed(tmp_path: Path) -> None:
    """The anchors that cover the last readable entries may be in it."""
    log = Witnessed()
    log.write(250 - FOUNDING)
    log.anchor()
    log.live(300)
    folder, policy, objects = log.log.write(tmp_path)
    assert verify_log(folder, policy, objects).missing[0].why.startswith("time not witnessed within 120 s")
    for bundle in (folder / "tile/entries").glob("001*"):
        if bundle.is_dir():
            next(bundle.iterdir()).unlink()
        else:
            bundle.unlink()
    report = verify_log(folder, policy, objects)
    assert report.verdict == MISSING
    assert len([each for each in report.missing if each.index is not None]) == 1
