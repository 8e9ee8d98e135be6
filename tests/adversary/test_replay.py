"""Replay: what was said once is said again, elsewhere, later, by somebody else, or in other bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
from simulator import SEGMENT, Simulator, submission

from sfrl_secure.crypto.keys import HYBRID
from sfrl_secure.errors import ConflictError, DeniedError, InclusionError
from sfrl_secure.governance.statements import UPDATE_TYPE
from sfrl_secure.ids import ZERO_DIGEST, sha256
from sfrl_secure.participant.acknowledgement import open_acknowledgement
from sfrl_secure.translog.entries import LoggedEntry
from sfrl_secure.wire.audit_service import AppendedEntry
from sfrl_secure.wire.entries import encode_envelope, parse_entry

from ..unit.replay.builder import Writer, codes


@pytest.fixture
def hybrid(tmp_path: Path) -> Simulator:
    """A federation whose first rover signs with both suites: ML-DSA signatures of one message differ."""
    return Simulator(tmp_path, suites={"rover-1": HYBRID}, terms={"suites": ["ed25519", "ed25519+ml-dsa-44"]})


def test_a_second_signature_over_one_update_is_the_same_update(hybrid: Simulator) -> None:
    hybrid.open_round()
    gatekeeper = hybrid.gatekeeper()
    sent = hybrid.update("rover-1")
    first = gatekeeper.admitter.submit(submission("rover-1", sent))
    assert isinstance(first, AppendedEntry)
    again = hybrid.update("rover-1", key=hybrid.rovers["rover-1"])
    assert again[0].digest == sent[0].digest
    assert encode_envelope(again[0]) != encode_envelope(sent[0])
    assert gatekeeper.admitter.submit(submission("rover-1", again)) == first.logged.index
    size = len(hybrid.log.raw)
    with pytest.raises(ConflictError) as refused:
        hybrid.admit("rover-1")
    assert refused.value.reason == "duplicate"
    assert len(hybrid.log.raw) == size
    hybrid.close()


def test_a_captured_update_is_refused_from_whoever_else_sends_it(sim: Simulator) -> None:
    sim.open_round()
    gatekeeper, captured = sim.gatekeeper(), sim.update("rover-1")
    for thief, reason in (("rover-2", "wrong_peer"), ("rover-3", "replayed")):
        with pytest.raises(DeniedError) as denied:
            gatekeeper.admitter.submit(submission(thief, captured))
        assert denied.value.reason == reason
        # The thief's refusal is no answer to the owner.
        assert gatekeeper.admitter.submit(submission("rover-1", captured))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"federation_id": sha256(b"another federation")}, "wrong_federation"),
        ({"round_opened": sha256(b"another history")}, "wrong_prefix"),
        ({"round_opened": ZERO_DIGEST}, "wrong_prefix"),
        ({"round": 2}, "round_not_open"),
        ({"base_model": sha256(b"another model")}, "wrong_base"),
        ({"segment": "sand"}, "unknown_segment"),
    ],
)
def test_an_update_for_elsewhere_is_refused_with_its_reason(
    sim: Simulator, change: dict[str, object], reason: str
) -> None:
    sim.open_round()
    with pytest.raises(DeniedError) as denied:
        sim.gatekeeper().admitter.submit(submission("rover-1", sim.update("rover-1", **change)))
    assert denied.value.reason == reason


def test_last_rounds_update_does_not_count_in_the_next(sim: Simulator) -> None:
    sim.open_round()
    late = sim.update("rover-1")
    sim.clock.advance(60_000_000)
    sim.close_round()
    sim.open_round()
    with pytest.raises(DeniedError) as denied:
        sim.gatekeeper().admitter.submit(submission("rover-1", late))
    assert denied.value.reason == "round_not_open"


def test_a_log_that_writes_a_statement_twice_is_found_out() -> None:
    log = Writer().begin()
    log.count()
    log.append(parse_entry(log.entries[-1]).envelope, "log")
    assert codes(log.replay().docket.findings) == ["repeated"]


def test_an_update_is_not_an_entry_of_its_own(sim: Simulator) -> None:
    sim.open_round()
    envelope, _, _ = sim.update("rover-1")
    assert envelope.payload_type == UPDATE_TYPE
    index = sim.log.force(envelope)
    assert sim.log.voids == {index: "malformed"}
    assert sim.segment.open_round is not None
    assert sim.segment.open_round.admissions == {}


def test_a_path_of_one_entry_does_not_carry_another(sim: Simulator) -> None:
    sim.open_round()
    index = sim.admit("rover-1")
    other = sim.admit("rover-2")
    size = len(sim.log.raw)
    moved = LoggedEntry(index, sim.log.raw[other], sim.log.logged_entry(index, size).path)
    envelope, _, _ = sim.update("rover-2")
    with pytest.raises(InclusionError):
        open_acknowledgement(AppendedEntry(moved, sim.log.note(size)), envelope, SEGMENT, sim.policy)
