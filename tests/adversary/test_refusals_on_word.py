"""Refusals on word: a stolen gatekeeper refuses sound updates, and says that nobody could see why.

What the log shows is not believed on word, and what a payload shows is not said of an update that comes no further.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from simulator import SEGMENT, Simulator, participant_id, service_id

from sfrl_secure.governance.statements import Evidence, UpdateRefused
from sfrl_secure.ids import sha256
from sfrl_secure.wire.entries import encode_envelope

from .arena import LOG, NONE, OBJECT, Arena

G1, STREAM = service_id("gatekeeper", "g1"), f"segment/{SEGMENT}"


@pytest.fixture
def arena(tmp_path: Path) -> Iterator[Arena]:
    with Arena(tmp_path) as made:
        made.sim.open_round()
        yield made


def refusal(
    sim: Simulator, reason: str, evidence: Evidence, *, weight: int = 10, quoted: bool = True,
    rule_ids: tuple[str, ...] = (),
) -> UpdateRefused:  # fmt: skip
    """Of rover 1's update, which is sound unless its weight is too large."""
    envelope, update, _ = sim.update("rover-1", weight=weight)
    raw = encode_envelope(envelope)
    peer = participant_id("rover-1")
    if not quoted:
        return UpdateRefused(peer, b"", None, None, sha256(raw), reason, None, rule_ids, evidence)
    return UpdateRefused(peer, raw, envelope, update, sha256(raw), reason, None, rule_ids, evidence)


def deny(arena: Arena, reason: str, code: str, body: UpdateRefused) -> None:
    arena.denied(reason, code, arena.sim.sign(arena.sim.statement(G1, STREAM, body)))


@pytest.mark.parametrize(
    "reason",
    ["halted", "too_dense", "quota_updates", "duplicate", "deadline", "participant_inactive", "bad_signature",
     "nonsense_reason"],
)  # fmt: skip
def test_what_the_log_shows_is_not_said_on_word(arena: Arena, reason: str) -> None:
    deny(arena, "evidence", "refusal_evidence", refusal(arena.sim, reason, NONE))
    # Nor does it help to leave the update out.
    if reason != "bad_signature":
        body = refusal(arena.sim, reason, NONE, quoted=False)
        arena.denied("evidence", "refusal_evidence", arena.sim.sign(arena.sim.statement(G1, "log", body)))
    assert arena.sim.state.refused_updates == {}


@pytest.mark.parametrize("reason", ["digest_mismatch", "not_received", "too_dense", "nonsense_reason"])
def test_an_object_shows_no_reason_that_is_not_in_a_payload(arena: Arena, reason: str) -> None:
    deny(arena, "evidence", "refusal_evidence", refusal(arena.sim, reason, OBJECT))


@pytest.mark.parametrize("reason", ["digest_mismatch", "norm_limit", "leak_rows", "policy_denied"])
def test_nothing_is_said_of_a_payload_where_the_header_is_refused(arena: Arena, reason: str) -> None:
    deny(arena, "refusal", "refusal_reason", refusal(arena.sim, reason, NONE, weight=101))
    arena.sim.write(G1, STREAM, refusal(arena.sim, "weight_limit", LOG, weight=101))
    arena.verify()


@pytest.mark.parametrize("reason", ["digest_mismatch", "norm_limit", "policy_error", "not_received"])
def test_a_word_about_a_payload_is_booked_as_one(arena: Arena, reason: str) -> None:
    arena.sim.write(G1, STREAM, refusal(arena.sim, reason, NONE))
    assert arena.verify().docket.refusals_on_word == 1
