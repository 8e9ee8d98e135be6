"""Quota: more than one's share, at the edges of a window, by another door, under another key, or on a service's word.

So many updates, or bytes, in a window of 90 s; a round lasts 60 s. The attacker is rover 1, or a gatekeeper.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from simulator import SEGMENT, participant_id, payload_of, service_id

from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.statements import RoundOpened, UpdateRefused
from sfrl_secure.governance.terms import QuotaTerms, RoundTerms
from sfrl_secure.ids import sha256
from sfrl_secure.wire.entries import encode_envelope

from .arena import LOG, NONE, Arena, Signed

G1, G2 = service_id("gatekeeper", "g1"), service_id("gatekeeper", "g2")
STREAM = f"segment/{SEGMENT}"
SECOND = 1_000_000
WINDOW = 90 * SECOND
ROUND = 60 * SECOND
ROUNDS = RoundTerms(duration_us=ROUND, cohort_min=2, cohort_max=3, rounds_max=50)
SMALL = {1: 5}
BYTES = len(payload_of(SMALL))
ONE = QuotaTerms(WINDOW, 1, 2**20)


def limited(quota: QuotaTerms) -> dict[str, Any]:
    return {"terms": {"quota": quota, "round_terms": ROUNDS}}


@pytest.fixture
def arena(tmp_path: Path) -> Iterator[Arena]:
    """One update in a window; the first was admitted the moment the round opened."""
    with Arena(tmp_path, **limited(ONE)) as made:
        made.sim.open_round()
        made.send("rover-1", small(made))
        yield made


def small(arena: Arena, name: str = "rover-1", **changes: Any) -> Signed:
    return arena.sim.update(name, SMALL, **changes)


def next_round(arena: Arena) -> None:
    """End the round at its deadline and open the next at once."""
    current = arena.sim.segment.open_round
    assert current is not None
    arena.sim.clock.advance(current.deadline_us - arena.sim.clock.now_us())
    arena.sim.close_round()
    if arena.sim.segment.awaits_model:
        arena.sim.publish_model()
    arena.sim.open_round()


def wait_until(arena: Arena, since_begin_us: int) -> None:
    """Let the time since the first round opened become this."""
    first = arena.sim.segment.rounds[1]
    arena.sim.clock.advance(first.opened_us + since_begin_us - arena.sim.clock.now_us())


def test_a_window_ends_one_microsecond_after_its_last(arena: Arena) -> None:
    next_round(arena)
    wait_until(arena, WINDOW - 1)
    early = small(arena)
    arena.refused("quota_updates", lambda: arena.send("rover-1", early))
    wait_until(arena, WINDOW)
    arena.send("rover-1", small(arena))
    arena.verify()


def test_the_log_holds_a_stolen_gatekeeper_to_the_same_microsecond(arena: Arena) -> None:
    sim = arena.sim
    next_round(arena)
    wait_until(arena, WINDOW - 1)
    body = sim.admission("rover-1", SMALL)
    arena.denied("quota_updates", "quota_updates", sim.sign(sim.statement(G2, STREAM, body)))
    wait_until(arena, WINDOW)
    sim.log.order(sim.sign(sim.statement(G2, STREAM, body)))
    arena.verify()


def test_what_one_gatekeeper_admitted_another_counts(arena: Arena) -> None:
    next_round(arena)
    signed = small(arena)
    arena.refused("quota_updates", lambda: arena.send("rover-1", signed, at="g2"))


def test_a_gatekeeper_that_has_not_heard_of_the_first_is_told_by_the_log(tmp_path: Path) -> None:
    with Arena(tmp_path, **limited(ONE)) as arena:
        arena.gatekeeper("g2").view.is_held = True
        arena.sim.open_round()
        arena.send("rover-1", small(arena))
        next_round(arena)
        # To it no round is open at all, and it says so: the log does not take that, and it reads on.
        second = small(arena)
        arena.refused("quota_updates", lambda: arena.send("rover-1", second, at="g2"))


def test_two_in_a_window_leave_no_room_for_a_third(tmp_path: Path) -> None:
    with Arena(tmp_path, **limited(QuotaTerms(10 * WINDOW, 2, 2**20))) as arena:
        arena.sim.open_round()
        for _ in range(2):
            arena.send("rover-1", small(arena))
            next_round(arena)
        for _ in range(3):
            more = small(arena)
            arena.refused("quota_updates", partial(arena.send, "rover-1", more))
            next_round(arena)
        # Another participant has its own window.
        arena.send("rover-2", small(arena, "rover-2"))
        arena.verify()


@pytest.mark.parametrize(("room", "reason"), [(2 * BYTES, ""), (2 * BYTES - 1, "quota_bytes")])
def test_bytes_are_added_up_over_the_window(tmp_path: Path, room: int, reason: str) -> None:
    with Arena(tmp_path, **limited(QuotaTerms(WINDOW, 10, room))) as arena:
        sim = arena.sim
        sim.open_round()
        arena.send("rover-1", small(arena))
        next_round(arena)
        second = small(arena)
        if reason:
            arena.refused(reason, lambda: arena.send("rover-1", second))
            body = sim.admission("rover-1", SMALL)
            arena.denied(reason, reason, sim.sign(sim.statement(G1, STREAM, body)))
        else:
            arena.send("rover-1", second)
            arena.verify()


def test_one_update_larger_than_the_window_is_refused(tmp_path: Path) -> None:
    with Arena(tmp_path, **limited(QuotaTerms(WINDOW, 10, BYTES - 1))) as arena:
        arena.sim.open_round()
        first = small(arena)
        arena.refused("quota_bytes", lambda: arena.send("rover-1", first))


def test_a_header_that_claims_fewer_bytes_gains_nothing(tmp_path: Path) -> None:
    """What it claims is what is counted, and what it claims must be what it sends."""
    with Arena(tmp_path, **limited(QuotaTerms(WINDOW, 10, 2 * BYTES - 1))) as arena:
        sim = arena.sim
        sim.open_round()
        arena.send("rover-1", small(arena))
        next_round(arena)
        small_claim = small(arena, payload_bytes=1)
        # More than was signed for is no decision; as much as was signed for is not what was signed.
        with pytest.raises(MalformedError):
            arena.send("rover-1", small_claim)
        arena.refused(
            "digest_mismatch", lambda: arena.send("rover-1", small_claim, payload=small_claim[2][:1]), NONE
        )
        body = sim.admission("rover-2", SMALL)
        envelope, update, payload = small_claim
        sim.objects.put(payload)
        told = type(body)(encode_envelope(envelope), envelope, update, body.facts, body.rule_ids, body.retain_until_us)
        arena.found("defective", sim.sign(sim.statement(G1, STREAM, told)))


def test_a_withdrawn_update_gives_no_room_back(arena: Arena) -> None:
    said = arena.sim.withdrawal("rover-1")
    arena.withdraw("rover-1", said.envelope)
    next_round(arena)
    again = small(arena)
    arena.refused("quota_updates", lambda: arena.send("rover-1", again))


def test_neither_does_an_excluded_one_nor_one_of_an_aborted_round(arena: Arena) -> None:
    sim = arena.sim
    sim.exclude("rover-1")
    next_round(arena)
    closed = sim.segment.rounds[1].closed
    assert closed is not None
    assert closed.outcome.name == "ABORTED"
    again = small(arena)
    arena.refused("quota_updates", lambda: arena.send("rover-1", again))


def test_a_new_key_is_no_new_participant(arena: Arena) -> None:
    sim = arena.sim
    key = SigningKey.generate("ed25519")
    sim.record("rover-1", signing_key=key)
    sim.rovers["rover-1"] = key
    next_round(arena)
    again = small(arena)
    arena.refused("quota_updates", lambda: arena.send("rover-1", again))


def test_nobody_spends_anothers_share(arena: Arena) -> None:
    """What is refused counts for nobody, whoever sends it and as often as it is sent."""
    next_round(arena)
    wait_until(arena, WINDOW)
    signed = small(arena)
    for thief in ("rover-2", "rover-3"):
        arena.refused("wrong_peer", partial(arena.send, thief, signed))
    for weight in (101, 102, 103):
        lie = small(arena, weight=weight)
        arena.refused("weight_limit", partial(arena.send, "rover-1", lie))
    arena.send("rover-1", signed)
    arena.verify()


def test_a_full_window_here_is_none_elsewhere_and_an_empty_one_there_is_none_here(arena: Arena) -> None:
    sim = arena.sim
    sim.publish_terms(segment="sand", quota=ONE, round_terms=ROUNDS)
    next_round(arena)
    here = small(arena)
    arena.refused("quota_updates", lambda: arena.send("rover-1", here))
    sand = sim.state.segments["sand"]
    sim.write(service_id("aggregator", "a1"), "segment/sand", RoundOpened(1, sand.model, sand.terms.digest))
    opened = sand.open_round
    assert opened is not None
    there = small(
        arena, segment="sand", round=1, round_opened=opened.opened, base_model=opened.base_model
    )
    arena.send("rover-1", there)
    assert set(opened.admissions) == {"rover-1"}
    assert sim.segment.quota_uses["rover-1"] != sand.quota_uses["rover-1"]
    arena.verify()


def test_terms_of_the_round_hold_until_its_end(arena: Arena) -> None:
    """Operators widen the quota: not for a round that is open. They narrow it: the past counts under the new window."""
    sim = arena.sim
    next_round(arena)
    sim.publish_terms(quota=QuotaTerms(SECOND, 10, 2**20), round_terms=ROUNDS)
    again = small(arena)
    arena.refused("quota_updates", lambda: arena.send("rover-1", again))
    next_round(arena)
    arena.send("rover-1", small(arena))
    sim.publish_terms(quota=QuotaTerms(3 * ROUND, 2, 2**20), round_terms=ROUNDS)
    next_round(arena)
    # Rounds 1 and 3: at 180 s the first is just out of 180 s, and 1 us before it is not.
    wait_until(arena, 3 * ROUND)
    arena.send("rover-1", small(arena))
    next_round(arena)
    third = small(arena)
    arena.refused("quota_updates", lambda: arena.send("rover-1", third))


def test_a_gatekeeper_does_not_use_the_quota_to_censor(arena: Arena) -> None:
    sim = arena.sim
    next_round(arena)
    wait_until(arena, WINDOW)
    for reason in ("quota_updates", "quota_bytes"):
        envelope, update, _ = small(arena)
        raw = encode_envelope(envelope)
        body = UpdateRefused(participant_id("rover-1"), raw, envelope, update, sha256(raw), reason, None, (), LOG)
        arena.denied("refusal", "refusal_reason", sim.sign(sim.statement(G1, STREAM, body)))
    arena.send("rover-1", small(arena))


def test_the_fourth_attempt_in_a_round_is_counted(arena: Arena) -> None:
    next_round(arena)
    for weight in (1, 2, 3):
        more = small(arena, weight=weight)
        arena.refused("quota_updates", partial(arena.send, "rover-1", more))
    fourth = small(arena, weight=4)
    arena.counted("quota_updates", lambda: arena.send("rover-1", fourth))


def test_an_update_that_was_admitted_is_answered_again_and_counted_once(arena: Arena) -> None:
    sim = arena.sim
    uses = list(sim.segment.quota_uses["rover-1"])
    (admission,) = sim.segment.rounds[1].admissions.values()
    envelope = sim.log.statement_at(admission.index).body.envelope
    for at in ("g1", "g2"):
        again = (envelope, admission.update, payload_of(SMALL))
        assert arena.send("rover-1", again, at=at).logged.index == admission.index
    assert sim.segment.quota_uses["rover-1"] == uses
