"""Relays bring others' updates, and fetch the receipts of what was admitted; masks of agreed updates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from simulator import SEGMENT, Context, Simulator, participant_id, submission

from sfrl_secure.errors import DeniedError, NotFoundError, UnavailableError
from sfrl_secure.governance.statements import Evidence, UpdateRefused
from sfrl_secure.ids import Digest
from sfrl_secure.wire import gatekeeper_service as wire
from sfrl_secure.wire.audit_service import AppendedEntry
from sfrl_secure.wire.receipts import ReceiptKind

RELAYS = {"relay_groups": ["orbiters"]}


def relaying(tmp_path: Path) -> Simulator:
    """Rover 2 is a relay of the segment."""
    sim = Simulator(tmp_path, terms=RELAYS)
    sim.record("rover-2", groups=["orbiters", "rovers"])
    sim.open_round()
    return sim


def receipt(sim: Simulator, name: str, digest: Digest) -> Any:
    context: Any = Context(name)
    raw = wire.encode_receipt_request(wire.ReceiptRequest(SEGMENT, digest, ReceiptKind.WITNESSED))
    return wire.parse_receipt_response(sim.gatekeeper().servicer.get_receipt(raw, context))


def test_a_relay_brings_an_update_and_both_get_its_answer(tmp_path: Path) -> None:
    sim = relaying(tmp_path)
    gatekeeper, signed = sim.gatekeeper(), sim.update("rover-1")
    answer = gatekeeper.admitter.submit(submission("rover-2", signed))
    assert isinstance(answer, AppendedEntry)
    assert sim.segment.rounds[1].admissions.keys() == {"rover-1"}
    for name in ("rover-1", "rover-2"):
        assert gatekeeper.admitter.submit(submission(name, signed)) == answer.logged.index
        assert receipt(sim, name, signed[0].digest).kind is ReceiptKind.WITNESSED
    sim.close()


def test_a_refusal_is_booked_on_the_relay_and_does_not_answer_for_the_owner(tmp_path: Path) -> None:
    sim = relaying(tmp_path)
    gatekeeper, signed = sim.gatekeeper(), sim.update("rover-1", weight=101)
    for name in ("rover-2", "rover-1"):
        size = len(sim.log.raw)
        with pytest.raises(DeniedError) as denied:
            gatekeeper.admitter.submit(submission(name, signed))
        assert (denied.value.reason, denied.value.entry_index) == ("weight_limit", size)
        body = sim.log.statement_at(size).body
        assert isinstance(body, UpdateRefused)
        assert (body.peer, body.evidence) == (participant_id(name), Evidence.LOG)
    sim.close()


def test_who_is_no_relay_brings_and_reads_nothing_of_others(tmp_path: Path) -> None:
    sim = relaying(tmp_path)
    gatekeeper, signed = sim.gatekeeper(), sim.update("rover-1")
    for reason in ("wrong_peer", "replayed"):
        with pytest.raises(DeniedError) as denied:
            gatekeeper.admitter.submit(submission("rover-3", signed))
        assert denied.value.reason == reason
        if reason == "wrong_peer":
            gatekeeper.admitter.submit(submission("rover-1", signed))
            signed = sim.update("rover-4")
            gatekeeper.admitter.submit(submission("rover-4", signed))
    with pytest.raises(NotFoundError):
        receipt(sim, "rover-3", signed[0].digest)
    sim.close()


def test_a_relay_whose_record_has_changed_reads_no_receipt_any_more(tmp_path: Path) -> None:
    sim = relaying(tmp_path)
    envelope, _, _ = signed = sim.update("rover-1")
    sim.gatekeeper().admitter.submit(submission("rover-2", signed))
    sim.record("rover-2", groups=["rovers"])
    with pytest.raises(NotFoundError):
        receipt(sim, "rover-2", envelope.digest)
    assert receipt(sim, "rover-1", envelope.digest)
    sim.close()


def test_two_peers_that_send_one_upload_do_not_end_each_other(tmp_path: Path) -> None:
    """Else a relay could keep an owner from ever being done."""
    sim = relaying(tmp_path)
    gatekeeper, signed = sim.gatekeeper(), sim.update("rover-1")
    bounds = gatekeeper.intake.bounds
    with bounds.held_by(participant_id("rover-2"), signed[0].digest, 1) as place:
        assert isinstance(gatekeeper.admitter.submit(submission("rover-1", signed)), AppendedEntry)
        assert not place.is_taken
    sim.close()


# Masks


def agreed(tmp_path: Path) -> Simulator:
    """A segment whose updates have coordinates 0, 3 and 17."""
    sim = Simulator(tmp_path)
    sim.publish_terms(support_modes=["agreed", "free"], mask=sim.agree(0, 3, 17))
    sim.open_round()
    return sim


def test_an_update_of_agreed_coordinates_is_admitted_under_the_terms_mask(tmp_path: Path) -> None:
    sim = agreed(tmp_path)
    answer = sim.gatekeeper().admitter.submit(submission("rover-1", sim.update("rover-1", support="agreed")))
    assert isinstance(answer, AppendedEntry)
    assert sim.segment.rounds[1].admissions["rover-1"].facts.nonzeros == 3
    sim.close()


@pytest.mark.parametrize("more", [1, -1])
def test_under_a_mask_of_another_number_than_the_terms_say_nothing_is_decided(tmp_path: Path, more: int) -> None:
    """The verifier, too, has one word for it, and it is not the participant's fault."""
    sim = Simulator(tmp_path)
    mask = sim.agree(0, 3, 17)
    sim.publish_terms(support_modes=["agreed", "free"], mask=replace(mask, nonzeros=mask.nonzeros + more))
    sim.open_round()
    gatekeeper, size = sim.gatekeeper(), len(sim.log.raw)
    signed = sim.update("rover-1", support="agreed", nonzeros=mask.nonzeros + more)
    with pytest.raises(UnavailableError, match="round's mask cannot be read"):
        gatekeeper.admitter.submit(submission("rover-1", signed))
    assert len(sim.log.raw) == size
    assert isinstance(gatekeeper.admitter.submit(submission("rover-2", sim.update("rover-2"))), AppendedEntry)
    sim.close()


def test_without_its_mask_an_agreed_update_is_not_decided_and_a_free_one_is(tmp_path: Path) -> None:
    sim = agreed(tmp_path)
    signed, free = sim.update("rover-1", support="agreed"), sim.update("rover-2")
    mask = sim.segment.terms.mask
    assert mask is not None
    path = sim.objects.path(mask.digest)
    whole, size = path.read_bytes(), len(sim.log.raw)
    path.unlink()
    gatekeeper = sim.gatekeeper()
    with pytest.raises(UnavailableError, match="mask"):
        gatekeeper.admitter.submit(submission("rover-1", signed))
    assert len(sim.log.raw) == size
    assert isinstance(gatekeeper.admitter.submit(submission("rover-2", free)), AppendedEntry)
    path.write_bytes(whole)
    assert isinstance(gatekeeper.admitter.submit(submission("rover-1", signed)), AppendedEntry)
    sim.close()


def test_what_lies_there_and_is_no_mask_is_not_used(tmp_path: Path) -> None:
    sim = agreed(tmp_path)
    mask = sim.segment.terms.mask
    assert mask is not None
    signed = sim.update("rover-1", support="agreed")
    sim.objects.path(mask.digest).write_bytes(b"another file")
    with pytest.raises(UnavailableError, match="mask"):
        sim.gatekeeper().admitter.submit(submission("rover-1", signed))
    sim.close()
