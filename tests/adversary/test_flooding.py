"""Flooding: a peer that is let in tries to fill the log, the memory or the time of everybody else."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from simulator import SEGMENT, Context, Simulator, participant_id, submission

from sfrl_secure.errors import DeniedError, ExhaustedError, MalformedError, PayloadError
from sfrl_secure.governance.cedar_text import split_policies
from sfrl_secure.governance.statements import PeerClass, RefusalsCounted, UpdateRefused
from sfrl_secure.ids import sha256
from sfrl_secure.limits import MESSAGE_BYTES_MAX, OBJECT_BYTES_MAX, SINGLE_REFUSALS_MAX, UPDATE_HEADER_BYTES_MAX
from sfrl_secure.replay.decoder import decode_parts
from sfrl_secure.replay.payload_header import Expected
from sfrl_secure.rounds.refusals import PAIRS_MAX, RefusalCounter
from sfrl_secure.sparse.expected import ExpectedPayload
from sfrl_secure.sparse.header import SupportMode
from sfrl_secure.sparse.reader import PayloadReader
from sfrl_secure.wire import uploads
from sfrl_secure.wire.entries import parse_entry
from sfrl_secure.wire.statements import parse_update_envelope

Decode = Callable[[bytes, SupportMode, int], None]


def test_many_different_wrong_updates_fill_nothing(sim: Simulator) -> None:
    sim.open_round()
    gatekeeper = sim.gatekeeper()
    before = len(sim.log.raw)
    for n in range(40):
        for change in ({"weight": 101 + n}, {"nonzeros": 9 + n}, {"round": 2 + n}, {"segment": f"sand-{n}"}):
            with pytest.raises(DeniedError):
                gatekeeper.admitter.submit(submission("rover-1", sim.update("rover-1", **change)))
    assert len(sim.log.raw) - before == 4 * SINGLE_REFUSALS_MAX
    assert gatekeeper.counter.counted == 4 * (40 - SINGLE_REFUSALS_MAX)


def test_nonsense_gets_three_entries_for_ever(sim: Simulator) -> None:
    gatekeeper = sim.gatekeeper()
    before = len(sim.log.raw)
    for n in range(20):
        with pytest.raises(DeniedError) as denied:
            list(gatekeeper.servicer.submit_update(iter([b"\xff" * n]), Context("rover-1")))  # type: ignore[arg-type]
        assert denied.value.reason == "malformed"
        if n % 7 == 0:
            sim.clock.advance(60_000_000)
    assert len(sim.log.raw) - before == SINGLE_REFUSALS_MAX
    assert all(isinstance(sim.log.statement_at(index).body, UpdateRefused) for index in range(before, len(sim.log.raw)))


def test_counting_takes_the_same_room_however_many_come(sim: Simulator) -> None:
    counter = RefusalCounter(sim.clock)
    for n in range(5_000):
        counter.count("x" + "_a" * (n % 400), PeerClass.UNKNOWN, sha256(n.to_bytes(8, "big")))
    body = counter.take()
    assert isinstance(body, RefusalsCounted)
    assert len(body.counts) <= PAIRS_MAX
    assert sum(each.count for each in body.counts) == 5_000


def test_a_message_over_the_limit_is_refused_unread() -> None:
    with pytest.raises(MalformedError):
        uploads.parse_upload_start(bytes(uploads.FIRST_REQUEST_BYTES_MAX + 1))
    with pytest.raises(MalformedError):
        uploads.parse_chunk(bytes(uploads.NEXT_REQUEST_BYTES_MAX + 1))
    with pytest.raises(MalformedError):
        parse_update_envelope(bytes(UPDATE_HEADER_BYTES_MAX + 1))
    with pytest.raises(MalformedError):
        parse_entry(bytes(MESSAGE_BYTES_MAX))


def _decode_as_service(payload: bytes, support: SupportMode, payload_bytes: int) -> None:
    expected = ExpectedPayload(2**31, 2**31, support, "int8", 16, payload_bytes, sha256(payload))
    list(PayloadReader(expected).feed(payload))
    raise PayloadError("length", "all that has come was looked at, and nothing was refused yet")


def _decode_as_verifier(payload: bytes, support: SupportMode, _: int) -> None:
    list(decode_parts(payload, Expected(2**31, 2**31, support, "int8", 16, sha256(payload))))


@pytest.mark.parametrize("support", ["free", "dense"])
@pytest.mark.parametrize("decode", [_decode_as_service, _decode_as_verifier])
def test_a_small_payload_that_claims_much_takes_no_memory(decode: Decode, support: SupportMode) -> None:
    mode = {"free": 1, "dense": 3}[support]
    claim = b"SFRU" + bytes([2, mode, 1, 16]) + (2**31).to_bytes(8, "little") * 2 + (2**15).to_bytes(4, "little")
    tracemalloc.start()
    try:
        for payload_bytes in (len(claim), 2**30):
            with pytest.raises(PayloadError):
                decode(claim, support, payload_bytes)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_payloads_in_work_are_bounded_and_it_is_no_decision(sim: Simulator) -> None:
    sim.open_round()
    signed = sim.update("rover-1")
    size = len(sim.log.raw)
    gatekeeper = sim.gatekeeper(budget=len(signed[2]) - 1)
    with pytest.raises(ExhaustedError):
        gatekeeper.admitter.submit(submission("rover-1", signed))
    assert len(sim.log.raw) == size


def test_evidence_is_kept_within_its_budget(sim: Simulator) -> None:
    sim.open_round()
    gatekeeper = sim.gatekeeper(evidence_budget=100)
    bad = [b"SFRU" + bytes([9, n]) + bytes(54) for n in range(3)]
    kept = []
    for payload in bad:
        with pytest.raises(DeniedError) as denied:
            gatekeeper.admitter.submit(submission("rover-1", sim.update("rover-1", payload=payload)))
        assert denied.value.reason == "payload_format"
        kept.append(sim.objects.is_stored(sha256(payload)))
    assert kept == [True, False, False]


def test_a_text_of_rules_costs_time_in_proportion() -> None:
    begun = time.monotonic()
    for text in ('"' * 59_999, "(" * 59_999, "/" * 59_999, '"\\' * 29_999, "if" * 29_999, "a;" * 29_999):
        with pytest.raises(MalformedError):
            split_policies(text + "\x00")
        with suppress(MalformedError):
            split_policies(text)
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("damage", ["long", "folder", "ring"])
def test_who_writes_into_the_store_does_not_end_the_aggregator(sim: Simulator, damage: str) -> None:
    aggregator = sim.aggregator()
    aggregator.step()
    for name in ("rover-1", "rover-2", "rover-3"):
        sim.admit(name, {0: int(name[-1])})
    current = sim.segment.open_round
    assert current is not None
    path: Path = sim.objects.path(current.admissions["rover-2"].update.payload_sha256)
    good = path.read_bytes()
    path.unlink()
    if damage == "long":
        with path.open("wb") as file:
            file.truncate(OBJECT_BYTES_MAX + 1)  # takes no room
    elif damage == "folder":
        path.mkdir()
    else:
        path.symlink_to(path)
    assert aggregator.step() == []
    # And where the object is there again, it goes on.
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink()
    path.write_bytes(good)
    assert aggregator.step() == ["CloseRound"]


def test_a_refused_peer_is_named_and_not_whom_it_quotes(sim: Simulator) -> None:
    sim.open_round()
    gatekeeper = sim.gatekeeper()
    for _ in range(SINGLE_REFUSALS_MAX + 1):
        with pytest.raises(DeniedError):
            gatekeeper.admitter.submit(submission("rover-2", sim.update("rover-1")))
    assert gatekeeper.admitter.submit(submission("rover-1", sim.update("rover-1")))
    key = sim.state.refusal_key(participant_id("rover-1"), f"segment/{SEGMENT}", "wrong_peer")
    assert key not in sim.state.single_refusals
