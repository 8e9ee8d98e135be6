"""Quota: what a participant had admitted in a window bounds what it may have admitted now."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulator import DAY_US, HOUR_US, SEGMENT, Simulator, payload_of

from sfrl_secure.errors import DeniedError
from sfrl_secure.governance.statements import Evidence, PayloadFormat, UpdateStatement
from sfrl_secure.governance.terms import QuotaTerms, RoundTerms
from sfrl_secure.ids import ZERO_DIGEST
from sfrl_secure.limits import QUOTA_WINDOW_US_MAX
from sfrl_secure.rounds.quota import check_quota, take_use, used
from sfrl_secure.rounds.snapshot import decode_fold, encode_fold
from sfrl_secure.rounds.state import SegmentState

from .scenes import DURATION_US, G1, STREAM, findings, refused

UPDATE = UpdateStatement(
    federation_id=ZERO_DIGEST, segment=SEGMENT, participant="rover-1", key_id=ZERO_DIGEST, round=1,
    round_opened=ZERO_DIGEST, base_model=ZERO_DIGEST, payload_sha256=ZERO_DIGEST, payload_root=ZERO_DIGEST,
    payload_bytes=1, nonzeros=1, format=PayloadFormat(2, "free", "int8"), weight=1, created_us=1,
)  # fmt: skip


def made(folder: Path, quota: QuotaTerms) -> Simulator:
    """Rounds of a minute, with one participant enough."""
    rounds = RoundTerms(duration_us=DURATION_US, cohort_min=1, cohort_max=3, rounds_max=100)
    return Simulator(folder, terms={"quota": quota, "round_terms": rounds})


def play(sim: Simulator, *names: str) -> None:
    """A round without a model, of this minute."""
    sim.open_round()
    for name in names:
        sim.admit(name)
    sim.clock.advance(DURATION_US)
    sim.close_round()
    if sim.segment.awaits_model:
        sim.publish_model()


def denial(sim: Simulator, name: str, **changes: object) -> str | None:
    try:
        sim.write(G1, STREAM, sim.admission(name, **changes))
    except DeniedError as denied:
        return denied.reason
    return None


def test_the_window_has_room_for_so_many_updates_and_moves_on(tmp_path: Path) -> None:
    sim = made(tmp_path, QuotaTerms(window_us=3 * DURATION_US, updates_max=2, bytes_max=2**53))
    play(sim, "rover-1")
    play(sim, "rover-1", "rover-2")
    sim.open_round()
    assert denial(sim, "rover-1") == "quota_updates"
    # Of its own, and of this participant alone.
    assert denial(sim, "rover-2") is None
    # The first was admitted at 0: it leaves the window when three minutes are over, and not a moment before.
    sim.clock.advance(DURATION_US - 1)
    assert denial(sim, "rover-1") == "quota_updates"
    sim.clock.advance(1)
    sim.close_round()
    sim.publish_model()
    sim.open_round()
    assert denial(sim, "rover-1") is None
    assert findings(sim) == set()


def test_the_window_has_room_for_so_many_bytes(tmp_path: Path) -> None:
    size = len(payload_of({0: 5, 3: -7, 17: 100}))
    for room, reason in ((0, None), (-1, "quota_bytes")):
        sim = made(tmp_path / str(room), QuotaTerms(window_us=HOUR_US, updates_max=9, bytes_max=2 * size + room))
        play(sim, "rover-1")
        sim.open_round()
        assert denial(sim, "rover-1") == reason
        assert findings(sim) == set()


def test_what_is_dropped_later_was_admitted_all_the_same(tmp_path: Path) -> None:
    sim = made(tmp_path, QuotaTerms(window_us=HOUR_US, updates_max=1, bytes_max=2**53))
    sim.open_round()
    sim.admit("rover-1")
    sim.withdraw("rover-1")
    sim.clock.advance(DURATION_US)
    sim.close_round()
    sim.open_round()
    assert denial(sim, "rover-1") == "quota_updates"
    assert findings(sim) == set()


def test_a_refusal_for_the_quota_has_its_evidence_in_the_log(tmp_path: Path) -> None:
    sim = made(tmp_path, QuotaTerms(window_us=HOUR_US, updates_max=1, bytes_max=2**53))
    play(sim, "rover-1")
    sim.open_round()
    sim.write(G1, STREAM, refused("quota_updates", Evidence.LOG, weight=10)(sim))
    assert findings(sim) == set()


def test_the_count_comes_before_the_bytes(tmp_path: Path) -> None:
    sim = made(tmp_path, QuotaTerms(window_us=HOUR_US, updates_max=1, bytes_max=1))
    sim.open_round()
    assert denial(sim, "rover-1") == "quota_bytes"
    size = len(payload_of({0: 5, 3: -7, 17: 100}))
    sim = made(tmp_path / "2", QuotaTerms(window_us=HOUR_US, updates_max=1, bytes_max=size))
    play(sim, "rover-1")
    sim.open_round()
    assert denial(sim, "rover-1") == "quota_updates"


def test_the_rounds_own_terms_bind(tmp_path: Path) -> None:
    sim = made(tmp_path, QuotaTerms(window_us=HOUR_US, updates_max=2, bytes_max=2**53))
    play(sim, "rover-1")
    sim.open_round()
    sim.publish_terms(quota=QuotaTerms(window_us=HOUR_US, updates_max=1, bytes_max=2**53))
    assert denial(sim, "rover-1") is None
    assert findings(sim) == set()


def test_a_longer_window_sees_what_a_shorter_one_had_let_go(tmp_path: Path) -> None:
    sim = made(tmp_path, QuotaTerms(window_us=1_000_000, updates_max=1, bytes_max=2**53))
    for _ in range(3):
        play(sim, "rover-1")
        sim.clock.advance(8 * DAY_US)
    rounds = RoundTerms(duration_us=DURATION_US, cohort_min=1, cohort_max=3, rounds_max=100)
    quota = QuotaTerms(window_us=QUOTA_WINDOW_US_MAX, updates_max=3, bytes_max=2**53)
    sim.publish_terms(quota=quota, round_terms=rounds)
    sim.open_round()
    assert denial(sim, "rover-1") == "quota_updates"
    assert findings(sim) == set()


def test_uses_survive_the_snapshot(tmp_path: Path) -> None:
    sim = made(tmp_path, QuotaTerms(window_us=HOUR_US, updates_max=1, bytes_max=2**53))
    play(sim, "rover-1")
    sim.open_round()
    fold = sim.log.fold
    again = decode_fold(encode_fold(fold), sim.origin, fold.log_vkeys, sim.state.statements)
    assert again.state.segments[SEGMENT].quota_uses == sim.segment.quota_uses != {}
    statement = sim.statement(G1, STREAM, sim.admission("rover-1"))
    with pytest.raises(DeniedError) as denied:
        again.check(sim.clock.now_us(), sim.sign(statement), statement)
    assert denied.value.reason == "quota_updates"


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 9)), max_size=60), st.data())
def test_every_window_counts_what_a_plain_list_counts(steps: list[tuple[int, int]], data: st.DataObject) -> None:
    """Uses with gaps of up to 20 days, windows of up to 31: nothing that a window reaches is forgotten."""
    segment = SegmentState.__new__(SegmentState)
    segment.quota_uses = {}
    plain: list[tuple[int, int]] = []
    now_us = 10**15
    for days, size in steps:
        now_us += days * DAY_US // 2
        window_us = data.draw(st.sampled_from([1_000_000, DAY_US, 30 * DAY_US, QUOTA_WINDOW_US_MAX]))
        inside = [each for at, each in plain if at > now_us - window_us]
        assert used(segment, "rover-1", now_us - window_us) == (len(inside), sum(inside))
        this = replace(UPDATE, payload_bytes=size)
        check_quota(segment, QuotaTerms(window_us, len(inside) + 1, sum(inside) + size), this, now_us)
        for tight in (QuotaTerms(window_us, len(inside), 2**53), QuotaTerms(window_us, 10**6, sum(inside) + size - 1)):
            with pytest.raises(DeniedError):
                check_quota(segment, tight, this, now_us)
        take_use(segment, this, now_us)
        plain.append((now_us, size))
    held = segment.quota_uses.get("rover-1", [])
    assert len(held) <= 1 + sum(at > now_us - QUOTA_WINDOW_US_MAX for at, _ in plain)
