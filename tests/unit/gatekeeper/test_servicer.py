"""The gatekeeper's methods: who gets what, what is logged first, and proofs that lead to one checkpoint."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from simulator import SEGMENT, Context, Simulator, participant_id, service_id

from sfrl_secure.errors import (
    DeniedError,
    ExhaustedError,
    MalformedError,
    NotFoundError,
    SfrlError,
    UnavailableError,
)
from sfrl_secure.governance.statements import Evidence, ModelsFetched, UpdateRefused
from sfrl_secure.ids import sha256
from sfrl_secure.limits import SINGLE_REFUSALS_MAX
from sfrl_secure.participant.rounds import FinishedSegment, OpenRound, open_round
from sfrl_secure.services.gatekeeper import fetches as fetch_module
from sfrl_secure.services.gatekeeper.bounds import FETCHES_AT_ONCE_MAX
from sfrl_secure.services.gatekeeper.fetches import FetchLog
from sfrl_secure.services.gatekeeper.servicer import GatekeeperServicer
from sfrl_secure.wire import downloads, uploads
from sfrl_secure.wire import gatekeeper_service as wire
from sfrl_secure.wire.receipts import ReceiptKind


class Caller:
    """Calls a gatekeeper's methods as one participant."""

    def __init__(self, sim: Simulator, name: str = "rover-1") -> None:
        self.gatekeeper = sim.gatekeeper()
        self.servicer: GatekeeperServicer = self.gatekeeper.servicer
        self.context: Any = Context(name)

    def round(self, after: int = 0, wait_ms: int = 0, segment: str = SEGMENT) -> wire.RoundAnswer:
        raw = wire.encode_round_request(wire.RoundRequest(segment, after, wait_ms))
        return wire.parse_round_response(self.servicer.get_round(raw, self.context))

    def model(self, digest: Any, segment: str = SEGMENT) -> Iterator[bytes]:
        answers = self.servicer.fetch_model(
            downloads.encode_model_request(downloads.ModelRequest(segment, digest)), self.context
        )
        source = downloads.parse_model_source(next(answers))
        assert source.base is None
        return map(downloads.parse_model_chunk, answers)

    def submit(self, signed: Any) -> Any:
        envelope, _, payload = signed
        raw = uploads.encode_upload_start(envelope, uploads.Chunk(0, payload))
        (answer,) = self.servicer.submit_update(iter([raw]), self.context)
        return uploads.parse_upload_answer(answer)

    def send(self, raw: bytes) -> None:
        list(self.servicer.submit_update(iter([raw]), self.context))

    def receipt(self, digest: Any, kind: ReceiptKind) -> Any:
        raw = wire.encode_receipt_request(wire.ReceiptRequest(SEGMENT, digest, kind))
        return wire.parse_receipt_response(self.servicer.get_receipt(raw, self.context))


def test_every_method_is_for_participants_but_the_one_for_auditors(sim: Simulator) -> None:
    methods = {method.path.rsplit("/", 1)[1]: method.roles for method in sim.gatekeeper().servicer.methods()}
    for_participants = {"GetRound", "FetchModel", "SubmitUpdate", "GetReceipt", "WithdrawUpdate", "RecordDecision"}
    assert methods.keys() == for_participants | {"FetchObject"}
    assert {methods[name] for name in for_participants} == {frozenset({"participant"})}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"state": "suspended"}, "participant_inactive"),
        ({"groups": ["orbiters"]}, "not_granted"),
        ({"groups": []}, "not_granted"),
    ],
)
def test_rounds_and_models_are_for_those_who_are_granted(
    sim: Simulator, changes: dict[str, Any], reason: str
) -> None:
    sim.open_round()
    sim.record("rover-1", **changes)
    caller = Caller(sim)
    for call in (caller.round, lambda: list(caller.model(sim.segment.model))):
        with pytest.raises(DeniedError) as denied:
            call()
        assert denied.value.reason == reason


def test_an_expired_participant_reads_nothing(sim: Simulator) -> None:
    sim.open_round()
    sim.record("rover-1", expires_us=sim.clock.now_us() + 1_000)
    caller = Caller(sim)
    caller.round()
    sim.clock.advance(1_000)
    with pytest.raises(DeniedError, match="expired"):
        caller.round()


def test_without_the_operation_nobody_fetches(sim: Simulator) -> None:
    sim.publish_terms(operations=["submit"])
    sim.open_round()
    with pytest.raises(DeniedError) as denied:
        Caller(sim).round()
    assert denied.value.reason == "not_granted"


def test_an_unknown_segment_is_named_so(sim: Simulator) -> None:
    caller = Caller(sim)
    for call in (lambda: caller.round(segment="sand"), lambda: list(caller.model(sha256(b""), "sand"))):
        with pytest.raises(DeniedError) as denied:
            call()
        assert denied.value.reason == "unknown_segment"


# Rounds


def test_a_round_is_shown_once_it_is_witnessed(sim: Simulator) -> None:
    caller = Caller(sim)
    with pytest.raises(NotFoundError):
        caller.round()
    sim.log.witnessing = False
    sim.open_round()
    with pytest.raises(NotFoundError):
        caller.round()
    sim.log.witness()
    opened = open_round(caller.round(), SEGMENT, sim.policy, sim.clock.now_us())
    assert isinstance(opened, OpenRound)
    with pytest.raises(NotFoundError):
        caller.round(after=1)


def test_who_waits_is_woken_by_the_round(sim: Simulator) -> None:
    caller = Caller(sim)
    opener = threading.Timer(0.1, sim.open_round)
    opener.start()
    begun = time.monotonic()
    assert caller.round(wait_ms=20_000).round_opened is not None
    assert time.monotonic() - begun < 10
    opener.join()


def test_only_so_many_wait(sim: Simulator) -> None:
    """Each who waits holds a thread of the server; the others must still be able to submit."""
    caller = Caller(sim)
    servicer = caller.servicer
    few = GatekeeperServicer(
        caller.gatekeeper.view, servicer._admitter, servicer._refuser, servicer._proofs, servicer._fetches,
        servicer._words, servicer._intake, sim.objects, sim.clock, waiters_max=1,
    )  # fmt: skip
    caller.servicer = few
    answers: list[object] = []
    waiter = threading.Thread(target=lambda: answers.append(caller.round(wait_ms=20_000)))
    waiter.start()
    while few._waiters._value:
        time.sleep(0.001)
    begun = time.monotonic()
    with pytest.raises(NotFoundError):
        caller.round(wait_ms=20_000)
    assert time.monotonic() - begun < 10
    sim.open_round()
    waiter.join()
    assert len(answers) == 1
    assert few._waiters._value == 1


def test_the_end_of_a_segment_is_shown_when_its_rounds_are_used_up(sim: Simulator) -> None:
    caller = Caller(sim)
    for _ in range(3):
        sim.open_round()
        sim.clock.advance(60_000_000)
        sim.close_round()
    answer = caller.round(after=3)
    assert answer.finished
    finished = open_round(answer, SEGMENT, sim.policy, sim.clock.now_us())
    assert isinstance(finished, FinishedSegment)
    assert finished.model == sim.initial_digest


# Models


def test_a_fetch_is_logged_before_its_first_byte(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfrl_secure.services.gatekeeper.downloads.CHUNK_BYTES_MAX", 50)
    sim.open_round()
    size = len(sim.log.raw)
    chunks = Caller(sim).model(sim.segment.model)
    body = sim.log.statement_at(size).body
    assert isinstance(body, ModelsFetched)
    assert [(each.participant, each.model) for each in body.fetches] == [("rover-1", sim.segment.model)]
    assert b"".join(chunks) == sim.initial.to_bytes()
    assert len(sim.log.raw) == size + 1


def test_a_fetch_that_cannot_be_logged_gives_nothing(sim: Simulator) -> None:
    sim.open_round()
    caller = Caller(sim)
    sim.publish_services(expires_us=sim.clock.now_us() + 1_000)
    sim.clock.advance(1_000)
    with pytest.raises(SfrlError):
        caller.model(sim.segment.model)


def test_a_participant_is_on_record_once_for_each_model(sim: Simulator) -> None:
    """Each time would be a line of an entry: nobody may fill the log by fetching."""
    sim.open_round()
    caller, size = Caller(sim), len(sim.log.raw)
    for _ in range(5):
        assert list(caller.model(sim.segment.model))
    assert len(sim.log.raw) == size + 1
    assert list(Caller(sim, "rover-2").model(sim.segment.model))
    assert len(sim.log.raw) == size + 2
    # Who is on record needs no log to go on.
    other = Caller(sim, "rover-3")
    other.servicer = caller.servicer
    caller.gatekeeper.fetches.stop()
    assert list(caller.model(sim.segment.model))
    with pytest.raises(UnavailableError, match="stopping"):
        other.model(sim.segment.model)


def test_a_fetch_that_was_written_while_it_waited_is_not_written_again(sim: Simulator) -> None:
    sim.open_round()
    assert list(Caller(sim).model(sim.segment.model))
    fetches = FetchLog(sim.writer(service_id("gatekeeper", "g1"), sim.view()), sim.clock, interval_seconds=0.001)
    fetches.start()
    size = len(sim.log.raw)
    fetches.record(SEGMENT, "rover-1", sim.segment.model, 10.0)
    assert len(sim.log.raw) == size
    fetches.stop()


def test_a_participant_reads_a_stated_number_of_models_at_once(sim: Simulator) -> None:
    """A slow reader keeps a thread; the others must find one."""
    sim.open_round()
    caller = Caller(sim)
    raw = downloads.encode_model_request(downloads.ModelRequest(SEGMENT, sim.segment.model))
    slow: list[Any] = [caller.servicer.fetch_model(raw, caller.context) for _ in range(FETCHES_AT_ONCE_MAX)]
    for stream in slow:
        next(stream)
    with pytest.raises(ExhaustedError, match="at most 4"):
        next(caller.servicer.fetch_model(raw, caller.context))
    slow[0].close()
    assert next(caller.servicer.fetch_model(raw, caller.context))


def test_only_models_of_the_segment_are_given(sim: Simulator) -> None:
    sim.open_round()
    caller = Caller(sim)
    for digest in (sha256(b"nothing"), sim.objects.put(b"an update's payload")):
        with pytest.raises(NotFoundError, match="segment's"):
            list(caller.model(digest))


def test_fetches_of_one_interval_share_an_entry(sim: Simulator) -> None:
    fetches = FetchLog(sim.writer(service_id("gatekeeper", "g1"), sim.view()), sim.clock, interval_seconds=0.2)
    fetches.start()
    size = len(sim.log.raw)
    names = [name for name in sim.rovers for _ in range(2)]
    threads = [
        threading.Thread(target=fetches.record, args=(SEGMENT, name, sim.initial_digest, 10.0)) for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    fetches.stop()
    assert len(sim.log.raw) == size + 1
    body = sim.log.statement_at(size).body
    assert isinstance(body, ModelsFetched)
    assert [each.participant for each in body.fetches] == sorted(sim.rovers)
    with pytest.raises(UnavailableError, match="stopping"):
        fetches.record(SEGMENT, "rover-1", sim.initial_digest, 1.0)


def test_stopping_writes_what_is_pending(sim: Simulator) -> None:
    fetches = FetchLog(sim.writer(service_id("gatekeeper", "g1"), sim.view()), sim.clock, interval_seconds=60.0)
    fetches.start()
    waiting = threading.Thread(target=fetches.record, args=(SEGMENT, "rover-1", sim.initial_digest, 10.0))
    waiting.start()
    while not fetches._pending:
        time.sleep(0.001)
    fetches.stop()
    waiting.join()
    assert isinstance(sim.log.statement_at(len(sim.log.raw) - 1).body, ModelsFetched)


def test_more_fetches_than_an_entry_holds_take_two(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch_module, "FETCHES_MAX", 3)
    fetches = FetchLog(sim.writer(service_id("gatekeeper", "g1"), sim.view()), sim.clock, interval_seconds=0.2)
    size = len(sim.log.raw)
    threads = [
        threading.Thread(target=fetches.record, args=(SEGMENT, name, sim.initial_digest, 10.0)) for name in sim.rovers
    ]
    for thread in threads:
        thread.start()
    while len(fetches._pending) < len(threads):
        time.sleep(0.001)
    fetches.start()
    for thread in threads:
        thread.join()
    fetches.stop()
    found = [sim.log.statement_at(index).body for index in range(size, len(sim.log.raw))]
    assert [len(body.fetches) for body in found] == [3, 1]


# Submits


def test_a_submit_is_answered_with_receipt_a(sim: Simulator) -> None:
    sim.open_round()
    caller = Caller(sim)
    signed = sim.update("rover-1")
    admitted = caller.submit(signed)
    assert admitted.logged.index == len(sim.log.raw) - 1
    sim.log.force(sim.log.envelope_at(admitted.logged.index))
    again = caller.submit(signed)
    assert (again.logged.index, again.logged.raw) == (admitted.logged.index, admitted.logged.raw)
    assert again.checkpoint != admitted.checkpoint


@pytest.mark.parametrize("raw", [b"", b"\xff", b"\x0a\x00", b"x" * (uploads.FIRST_REQUEST_BYTES_MAX + 1)])
def test_what_is_malformed_is_logged_by_its_digest(sim: Simulator, raw: bytes) -> None:
    caller = Caller(sim)
    with pytest.raises(DeniedError) as denied:
        caller.send(raw)
    assert denied.value.reason == "malformed"
    assert denied.value.entry_index == len(sim.log.raw) - 1
    statement = sim.log.statement_at(len(sim.log.raw) - 1)
    body = statement.body
    assert isinstance(body, UpdateRefused)
    assert (statement.stream, body.reason, body.evidence, body.envelope) == ("log", "malformed", Evidence.NONE, None)
    assert (body.peer, body.request_digest) == (participant_id("rover-1"), sha256(raw))


def test_a_header_over_its_limit_is_malformed(sim: Simulator) -> None:
    sim.open_round()
    caller = Caller(sim)
    envelope, _, payload = sim.update("rover-1")
    raw = uploads.encode_upload_start(envelope, uploads.Chunk(0, payload))
    for damaged in (raw + b"\0", raw[:-1], b"\x12\x01x" + raw):
        with pytest.raises(DeniedError) as denied:
            caller.send(damaged)
        assert denied.value.reason == "malformed"


def test_malformed_requests_do_not_fill_the_log(sim: Simulator) -> None:
    caller = Caller(sim)
    size = len(sim.log.raw)
    for n in range(10):
        with pytest.raises(DeniedError):
            caller.send(b"%d" % n)
    assert len(sim.log.raw) == size + SINGLE_REFUSALS_MAX
    assert caller.gatekeeper.counter.counted == 10 - SINGLE_REFUSALS_MAX


# Receipts


def test_a_receipt_is_for_the_participant_of_the_update(sim: Simulator) -> None:
    sim.open_round()
    caller = Caller(sim)
    envelope, update, payload = sim.update("rover-1")
    caller.submit((envelope, update, payload))
    assert caller.receipt(envelope.digest, ReceiptKind.WITNESSED).kind is ReceiptKind.WITNESSED
    with pytest.raises(NotFoundError) as another:
        Caller(sim, "rover-2").receipt(envelope.digest, ReceiptKind.WITNESSED)
    with pytest.raises(NotFoundError) as nothing:
        caller.receipt(sha256(b"no update"), ReceiptKind.WITNESSED)
    assert str(another.value) == str(nothing.value)


def test_there_is_no_receipt_before_its_entries_are_witnessed(sim: Simulator) -> None:
    aggregator = sim.aggregator()
    aggregator.step()
    for name in ("rover-2", "rover-3"):
        sim.admit(name)
    sim.log.witnessing = False
    caller = Caller(sim)
    signed = sim.update("rover-1")
    caller.submit(signed)
    digest = signed[0].digest
    with pytest.raises(NotFoundError):
        caller.receipt(digest, ReceiptKind.WITNESSED)
    sim.log.witness()
    caller.receipt(digest, ReceiptKind.WITNESSED)
    assert aggregator.step() == ["CloseRound"]
    with pytest.raises(NotFoundError):
        caller.receipt(digest, ReceiptKind.COUNTED)
    sim.log.witness()
    with pytest.raises(NotFoundError):
        caller.receipt(digest, ReceiptKind.COUNTED)
    assert aggregator.step() == ["PublishModel"]
    with pytest.raises(NotFoundError):
        caller.receipt(digest, ReceiptKind.COUNTED)
    sim.log.witness()
    assert caller.receipt(digest, ReceiptKind.COUNTED).kind is ReceiptKind.COUNTED


def test_a_dropped_update_gets_no_counted_receipt(sim: Simulator) -> None:
    aggregator = sim.aggregator()
    aggregator.step()
    for name in ("rover-1", "rover-2", "rover-3"):
        sim.admit(name)
    digests = {name: each.statement_digest for name, each in sim.segment.rounds[1].admissions.items()}
    sim.record("rover-1", state="suspended")
    assert [aggregator.step(), aggregator.step()] == [["CloseRound"], ["PublishModel"]]
    with pytest.raises(NotFoundError):
        Caller(sim).receipt(digests["rover-1"], ReceiptKind.COUNTED)
    assert Caller(sim, "rover-2").receipt(digests["rover-2"], ReceiptKind.COUNTED).counted.index == 0


def test_an_acknowledgement_waits_for_its_checkpoint(sim: Simulator) -> None:
    proofs = sim.gatekeeper().proofs
    with pytest.raises(UnavailableError):
        proofs.acknowledged(len(sim.log.raw))
    assert proofs.acknowledged(0).logged.index == 0


def test_requests_of_another_form_are_malformed(sim: Simulator) -> None:
    caller = Caller(sim)
    for call in (caller.servicer.get_round, caller.servicer.get_receipt):
        with pytest.raises(MalformedError):
            call(b"\xff", caller.context)
    with pytest.raises(MalformedError):
        list(caller.servicer.fetch_model(b"\xff", caller.context))
    with pytest.raises(MalformedError):
        caller.round(wait_ms=30_001)
