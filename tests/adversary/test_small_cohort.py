"""Too small a cohort: a model of too few shows what one of them sent."""

from __future__ import annotations

from dataclasses import replace

import pytest
from simulator import SEGMENT, Simulator, service_id

from sfrl_secure.errors import ConflictError, NotFoundError
from sfrl_secure.governance.statements import CloseOutcome
from sfrl_secure.rounds.closing import close_round
from sfrl_secure.wire.receipts import ReceiptKind

from ..unit.replay.builder import SECOND, Writer, codes


def one_in_round() -> Writer:
    log = Writer().begin()
    log.open_round()
    log.admit("r1", {1: 5})
    log.now += 600 * SECOND
    return log


def test_a_round_of_one_is_aborted_and_cannot_be_called_closed() -> None:
    log = one_in_round()
    log.close(body={"outcome": 1}, void=True)
    log.close()
    log.publish_model(void=True)
    assert codes(log.replay().docket.findings) == ["close_outcome", "no_model_due"]


def test_a_revocation_before_the_close_can_leave_too_few() -> None:
    log = one_in_round()
    log.now -= 600 * SECOND
    log.admit("r2", {2: 6})
    log.admit("r3", {3: 7})
    for name in ("r2", "r3"):
        log.record(name, state="revoked")
    gone = {"r2": "participant_inactive", "r3": "participant_inactive"}
    log.close(dropped=gone, body={"outcome": 1}, void=True)
    log.close(dropped=gone)
    log.open_round()
    assert codes(log.replay().docket.findings) == ["close_outcome"]


def test_defective_updates_do_not_make_up_the_numbers() -> None:
    log = one_in_round()
    log.now -= 600 * SECOND
    log.admit("r2", {2: 6}, facts={"norm": 1})
    log.now += 600 * SECOND
    log.close(dropped={"r2": "defective"}, body={"outcome": 1}, void=True)
    log.close(dropped={"r2": "defective"})
    assert codes(log.replay().docket.findings) == ["defective", "close_outcome"]


def test_an_aborted_round_gives_no_model_and_no_counted_receipt(sim: Simulator) -> None:
    aggregator = sim.aggregator()
    aggregator.step()
    index = sim.admit("rover-1")
    sim.clock.advance(60_000_000)
    aggregator.step()
    current = sim.segment.rounds[1]
    assert current.closed is not None
    assert current.closed.outcome.name == "ABORTED"
    assert aggregator.step() == ["OpenRound"]
    (admission,) = current.admissions.values()
    assert admission.index == index
    with pytest.raises(NotFoundError):
        sim.gatekeeper().proofs.receipt(SEGMENT, admission.statement_digest, ReceiptKind.COUNTED)


def test_the_log_takes_no_closing_that_counts_too_few(sim: Simulator) -> None:
    sim.open_round()
    sim.admit("rover-1")
    sim.clock.advance(60_000_000)
    current = sim.segment.open_round
    assert current is not None
    due = close_round(current, defective=(), is_active=lambda name: True, now_us=sim.clock.now_us())
    with pytest.raises(ConflictError) as refused:
        sim.write(service_id("aggregator", "a1"), f"segment/{SEGMENT}", replace(due, outcome=CloseOutcome.CLOSED))
    assert refused.value.reason == "close"
