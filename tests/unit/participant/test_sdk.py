"""The SDK against a real gatekeeper in memory: what it proves before it believes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from simulator import GRID, MANIFEST, ROVERS, SEGMENT, DirectChannel, Simulator

from sfrl_secure.aggregation.models import ModelSnapshot, encode_step, model_bytes
from sfrl_secure.aggregation.weighted_mean import WeightedMean
from sfrl_secure.errors import (
    ConflictError,
    DeniedError,
    DigestError,
    ExhaustedError,
    MalformedError,
    NotFoundError,
    PayloadError,
    RoundStateError,
    SfrlError,
    UnavailableError,
    VerificationError,
)
from sfrl_secure.ids import sha256
from sfrl_secure.participant.receipts import open_receipt
from sfrl_secure.participant.rounds import FinishedSegment, OpenRound
from sfrl_secure.participant.sdk import Participant
from sfrl_secure.participant.sending import ClaimedPayload
from sfrl_secure.participant.submissions import Submitted
from sfrl_secure.rpc.channel import RpcStream
from sfrl_secure.sparse.encode import EncodedUpdate, encode_update
from sfrl_secure.translog.entries import LoggedEntry
from sfrl_secure.wire import gatekeeper_service as wire
from sfrl_secure.wire.audit_service import AppendedEntry
from sfrl_secure.wire.downloads import (
    FETCH_MODEL,
    ModelRequest,
    ModelSource,
    encode_model_chunk,
    encode_model_source,
    parse_model_request,
)
from sfrl_secure.wire.receipts import ReceiptKind
from sfrl_secure.wire.uploads import SUBMIT_UPDATE, encode_admitted, parse_upload_answer

INDICES = np.array([1, 4, 18], dtype=np.int64)
VALUES = np.array([0.5, -0.25, 0.125])


class Rover:
    """A participant and the channel under it."""

    def __init__(self, sim: Simulator, name: str = "rover-1") -> None:
        self.channel = DirectChannel(sim.gatekeeper(), name)
        self.sleeping: Callable[[float], object] = lambda seconds: None
        self.sdk = Participant(
            name=name, key=sim.rovers[name], policy=sim.policy, channel=self.channel,
            receipts=sim.folder / "receipts" / name, clock=sim.clock, sleep=self._sleep,
        )  # fmt: skip

    def _sleep(self, seconds: float) -> None:
        self.sleeping(seconds)

    def open(self) -> OpenRound:
        opened = self.sdk.open_round(SEGMENT, wait_seconds=0)
        assert isinstance(opened, OpenRound)
        return opened

    def submit(self, weight: int = 10) -> Submitted:
        return self.sdk.submit(self.open(), INDICES, VALUES, weight, rng=np.random.default_rng(1))

    def encoded(self) -> EncodedUpdate:
        return encode_update(
            MANIFEST.coordinates, INDICES, VALUES, value_type="int8", grid_exponent=GRID, rng=np.random.default_rng(1)
        )


def test_a_federation_learns_and_everybody_gets_receipts(sim: Simulator) -> None:
    aggregator = sim.aggregator()
    rovers = [Rover(sim, name) for name in ROVERS[:3]]
    last, model = 0, sim.initial
    for number in (1, 2, 3):
        assert aggregator.step() == ["OpenRound"]
        sent = []
        mean = WeightedMean(MANIFEST.coordinates)
        for weight, rover in enumerate(rovers, start=1):
            opened = rover.sdk.open_round(SEGMENT, last, wait_seconds=0)
            assert isinstance(opened, OpenRound)
            assert opened.number == number
            assert rover.sdk.model(opened).to_bytes() == model.to_bytes()
            submitted = rover.sdk.submit(opened, INDICES, VALUES, weight, rng=np.random.default_rng(weight))
            assert submitted.encoded is not None
            mean.add(submitted.encoded.update.indices, submitted.encoded.update.values, weight)
            sent.append(submitted)
            raw = rover.sdk.receipt(submitted, ReceiptKind.WITNESSED, wait_seconds=0)
            assert open_receipt(raw, sim.policy).index == submitted.index
        last, model = number, model.add(mean.result())
        assert [aggregator.step(), aggregator.step()] == [["CloseRound"], ["PublishModel"]]
        for rover, submitted in zip(rovers, sent, strict=True):
            raw = rover.sdk.receipt(submitted, ReceiptKind.COUNTED, wait_seconds=0)
            assert open_receipt(raw, sim.policy).model == sha256(model.to_bytes())
            path = rover.sdk.receipt_path(SEGMENT, number, ReceiptKind.COUNTED)
            assert path.name == f"rocks-{number}-counted.receipt"
            assert path.read_bytes() == raw
            assert path.stat().st_mode & 0o777 == 0o600
    finished = rovers[0].sdk.open_round(SEGMENT, last, wait_seconds=0)
    assert isinstance(finished, FinishedSegment)
    assert rovers[0].sdk.model(finished).to_bytes() == model.to_bytes()
    assert sim.log.voids == {}


def test_request_bytes_are_those_of_the_messages(sim: Simulator) -> None:
    sim.open_round()
    rover = Rover(sim)
    sent: list[int] = []
    exchange = rover.channel.exchange

    def counted(path: str, requests: Iterator[bytes], *, deadline_seconds: float) -> RpcStream:
        def each() -> Iterator[bytes]:
            for request in requests:
                sent.append(len(request))
                yield request

        return exchange(path, each(), deadline_seconds=deadline_seconds)

    rover.channel.exchange = counted  # type: ignore[method-assign]
    assert rover.submit().request_bytes == sum(sent)


def test_the_same_envelope_is_admitted_once(sim: Simulator) -> None:
    sim.open_round()
    rover = Rover(sim)
    first = rover.submit()
    assert first.encoded is not None
    again = rover.sdk.submit_update(first.update, first.encoded.payload)
    assert (again.index, again.statement_digest) == (first.index, first.statement_digest)
    assert len(sim.segment.rounds[1].admissions) == 1


# Rounds


def test_no_round_in_time_is_not_found(sim: Simulator) -> None:
    rover = Rover(sim)
    slept: list[float] = []
    seconds = iter(range(100))
    sdk = Participant(
        name="rover-1", key=sim.rovers["rover-1"], policy=sim.policy, channel=rover.channel,
        receipts=sim.folder / "r", clock=sim.clock, sleep=slept.append, monotonic=lambda: float(next(seconds)),
    )  # fmt: skip
    rover.channel._methods[wire.GET_ROUND] = replace(  # the wait itself is the gatekeeper's: see its tests
        rover.channel._methods[wire.GET_ROUND], behaviour=_not_yet
    )
    with pytest.raises(NotFoundError, match="wait longer"):
        sdk.open_round(SEGMENT, wait_seconds=6)
    assert rover.channel.calls.count(wire.GET_ROUND) >= 2
    assert slept


def test_whoever_waits_through_a_halt_is_told_of_it_in_the_end(sim: Simulator) -> None:
    rover = Rover(sim)
    seconds = iter(range(100))
    sdk = Participant(
        name="rover-1", key=sim.rovers["rover-1"], policy=sim.policy, channel=rover.channel,
        receipts=sim.folder / "r", clock=sim.clock, sleep=lambda _: None, monotonic=lambda: float(next(seconds)),
    )  # fmt: skip
    rover.channel._methods[wire.GET_ROUND] = replace(rover.channel._methods[wire.GET_ROUND], behaviour=_halted)
    with pytest.raises(RoundStateError, match="halted"):
        sdk.open_round(SEGMENT, wait_seconds=6)
    assert rover.channel.calls.count(wire.GET_ROUND) >= 2
    with pytest.raises(RoundStateError, match="halted"):
        sdk.open_round(SEGMENT, wait_seconds=60, through_halt=False)
    assert rover.channel.calls.count(wire.GET_ROUND) <= 4


def _halted(raw: bytes, context: object) -> bytes:
    raise RoundStateError("halted", "halted by order")


def _not_yet(raw: bytes, context: object) -> bytes:
    assert wire.parse_round_request(raw).wait_ms <= 5_000
    raise NotFoundError("not yet")


def test_a_round_that_is_over_is_not_opened_again(sim: Simulator) -> None:
    sim.open_round()
    rover = Rover(sim)
    replayed = rover.channel.call(
        wire.GET_ROUND, wire.encode_round_request(wire.RoundRequest(SEGMENT, 0, 0)), deadline_seconds=1
    )
    rover.channel._methods[wire.GET_ROUND] = replace(
        rover.channel._methods[wire.GET_ROUND], behaviour=lambda raw, context: replayed
    )
    assert rover.open().number == 1
    with pytest.raises(VerificationError, match="round that is over"):
        rover.sdk.open_round(SEGMENT, 1, wait_seconds=0)


def test_an_unproven_round_is_refused(sim: Simulator) -> None:
    sim.open_round()
    rover = Rover(sim)
    unwitnessed = sim.log.note(len(sim.log.raw))
    rover.channel.answers[wire.GET_ROUND] = lambda raw: wire.encode_round_response(
        replace(wire.parse_round_response(raw), checkpoint=unwitnessed)
    )
    with pytest.raises(VerificationError):
        rover.open()


# Models


def fetches(rover: Rover) -> int:
    return rover.channel.calls.count(FETCH_MODEL)


def serve(rover: Rover, *messages: bytes) -> list[ModelRequest]:
    """Let the gatekeeper answer every fetch so; give what is asked."""
    asked: list[ModelRequest] = []

    def fetch(raw: bytes, context: object) -> Iterator[bytes]:
        asked.append(parse_model_request(raw))
        yield from messages

    rover.channel._methods[FETCH_MODEL] = replace(rover.channel._methods[FETCH_MODEL], behaviour=fetch)
    return asked


def whole(raw: bytes) -> tuple[bytes, ...]:
    return (encode_model_source(ModelSource(None, (len(raw),))), encode_model_chunk(raw))


def test_a_model_is_fetched_once_and_the_kept_rounds_and_the_last_are_kept(sim: Simulator) -> None:
    sim.open_round()
    rover = Rover(sim)
    opened = rover.open()
    fetched: list[tuple[int, int]] = []
    model = rover.sdk.model(opened, on_progress=lambda done, total: fetched.append((done, total)))
    assert fetched == [(model_bytes(MANIFEST), model_bytes(MANIFEST))]
    assert rover.sdk.model(opened) is model
    assert fetches(rover) == 1
    # Another process of the same rover has them too.
    again = Rover(sim)
    assert again.sdk.model(opened).to_bytes() == model.to_bytes()
    assert fetches(again) == 0
    others = [ModelSnapshot(MANIFEST, GRID, np.full(MANIFEST.coordinates, n)) for n in (1, 2)]
    names = [sha256(other.to_bytes()) for other in others]
    for other, name in zip(others, names, strict=True):
        serve(again, *whole(other.to_bytes()))
        again.sdk.model(replace(opened, base_model=name))
    folder = sim.folder / "receipts" / "rover-1" / "models" / SEGMENT
    # The one that the kept round begins from, which was used longest ago, and the last.
    assert {path.name for path in folder.iterdir()} == {opened.base_model.hex(), names[1].hex()}
    asked = serve(again)
    again.sdk.model(replace(opened, base_model=names[0]))
    again.sdk.model(opened)
    assert not asked
    with pytest.raises(MalformedError):
        again.sdk.model(replace(opened, base_model=sha256(b"a third")))
    assert set(asked[0].has) == {opened.base_model, *names}


def test_a_kept_model_that_is_damaged_is_fetched_again(sim: Simulator) -> None:
    sim.open_round()
    rover = Rover(sim)
    opened = rover.open()
    rover.sdk.model(opened)
    path = sim.folder / "receipts" / "rover-1" / "models" / SEGMENT / opened.base_model.hex()
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    again = Rover(sim)
    assert again.sdk.model(opened).to_bytes() == sim.initial.to_bytes()
    assert fetches(again) == 1


def test_whoever_has_a_model_gets_what_is_to_be_added_to_it(sim: Simulator) -> None:
    aggregator = sim.aggregator()
    aggregator.step()
    rover, late = Rover(sim), Rover(sim, "rover-2")
    opened = rover.open()
    rover.sdk.model(opened)
    for name in ROVERS[:3]:
        Rover(sim, name).submit()
    done = [aggregator.step() for _ in range(3)]
    assert done == [["CloseRound"], ["PublishModel"], ["OpenRound"]]
    opened = rover.sdk.open_round(SEGMENT, 1, wait_seconds=0)
    taken: list[tuple[int, int]] = []
    stepped = rover.sdk.model(opened, on_progress=lambda *now: taken.append(now))
    assert taken[-1][1] < model_bytes(MANIFEST)
    taken.clear()
    assert stepped.to_bytes() == late.sdk.model(opened, on_progress=lambda *now: taken.append(now)).to_bytes()
    assert taken[-1][1] == model_bytes(MANIFEST)


def test_what_does_not_lead_to_the_model_is_thrown_away_and_the_whole_is_fetched(sim: Simulator) -> None:
    sim.open_round()
    rover = Rover(sim)
    opened = rover.open()
    base = rover.sdk.model(opened)
    moved = np.zeros(MANIFEST.coordinates, np.int64)
    moved[2] = 5
    wanted = base.add(moved)
    name = sha256(wanted.to_bytes())
    moved[2] = 6
    for step in (encode_step(MANIFEST, GRID, moved), b"no step at all", b"\0" * 28):
        rover = Rover(sim)
        asked: list[ModelRequest] = []

        def poisoned(raw: bytes, context: object, step: bytes = step, asked: list[ModelRequest] = asked) -> object:
            asked.append(parse_model_request(raw))
            if asked[-1].has:
                yield encode_model_source(ModelSource(asked[-1].has[0], (len(step),)))
                yield encode_model_chunk(step)
            else:
                yield from whole(wanted.to_bytes())

        rover.channel._methods[FETCH_MODEL] = replace(
            rover.channel._methods[FETCH_MODEL], behaviour=poisoned  # type: ignore[arg-type]
        )
        rover.sdk.model(opened)
        assert rover.sdk.model(replace(opened, base_model=name)).to_bytes() == wanted.to_bytes()
        assert [bool(each.has) for each in asked] == [True, False]
        (sim.folder / "receipts" / "rover-1" / "models" / SEGMENT / name.hex()).unlink()


def test_another_model_than_the_logs_is_refused(sim: Simulator) -> None:
    sim.open_round()
    true = sim.initial.to_bytes()
    for raw in (true[:-1] + bytes([true[-1] ^ 1]), true[:-1]):
        rover = Rover(sim)
        serve(rover, *whole(raw))
        with pytest.raises(DigestError):
            rover.sdk.model(rover.open())


def test_more_than_a_model_is_not_taken(sim: Simulator) -> None:
    sim.open_round()
    rover = Rover(sim)
    opened, true = rover.open(), sim.initial.to_bytes()
    serve(rover, *whole(true), encode_model_chunk(b"x"))
    with pytest.raises(MalformedError, match="more arrived"):
        rover.sdk.model(opened)
    serve(rover, encode_model_source(ModelSource(None, (len(true) + 1,))))
    with pytest.raises(MalformedError, match="more are announced"):
        rover.sdk.model(opened)
    serve(rover, encode_model_source(ModelSource(sha256(b"whose?"), (10,))))
    with pytest.raises(MalformedError, match="not named"):
        rover.sdk.model(opened)


def test_a_broken_fetch_goes_on_where_it_broke(sim: Simulator) -> None:
    sim.open_round()
    rover = Rover(sim)
    opened, true = rover.open(), sim.initial.to_bytes()
    asked: list[int] = []

    def fetch(raw: bytes, context: object) -> Iterator[bytes]:
        asked.append(parse_model_request(raw).offset)
        yield encode_model_source(ModelSource(None, (len(true),)))
        for at in range(asked[-1], len(true), 40):
            if at > asked[-1] and len(asked) < 3:
                raise UnavailableError("away")
            yield encode_model_chunk(true[at : at + 40])

    rover.channel._methods[FETCH_MODEL] = replace(rover.channel._methods[FETCH_MODEL], behaviour=fetch)
    rover.channel.broken = [UnavailableError("away")]
    assert rover.sdk.model(opened).to_bytes() == true
    assert asked == [0, 40, 80]


def test_a_fetch_that_another_gatekeeper_answers_in_another_way_begins_anew(sim: Simulator) -> None:
    sim.open_round()
    rover = Rover(sim)
    opened, true = rover.open(), sim.initial.to_bytes()
    asked: list[int] = []

    def fetch(raw: bytes, context: object) -> Iterator[bytes]:
        asked.append(parse_model_request(raw).offset)
        if len(asked) == 1:
            yield encode_model_source(ModelSource(None, (30,)))
            yield encode_model_chunk(b"x" * 20)
            raise UnavailableError("away")
        if asked[-1] and len(asked) == 2:
            raise MalformedError("there is no such offset")
        yield encode_model_source(ModelSource(None, (len(true),)))
        yield encode_model_chunk(true[asked[-1] :])

    rover.channel._methods[FETCH_MODEL] = replace(rover.channel._methods[FETCH_MODEL], behaviour=fetch)
    assert rover.sdk.model(opened).to_bytes() == true
    assert asked == [0, 20, 0]


# Submitting


def test_a_refusal_has_its_reason_and_its_entry(sim: Simulator) -> None:
    sim.open_round()
    rover = Rover(sim)
    opened, encoded = rover.open(), rover.encoded()
    with pytest.raises(DeniedError) as denied:
        rover.sdk.submit_payload(opened, ClaimedPayload(encoded.payload, encoded.nonzeros, 101))
    assert denied.value.reason == "weight_limit"
    assert denied.value.entry_index == len(sim.log.raw) - 1
    assert rover.channel.calls.count(SUBMIT_UPDATE) == 1


@pytest.mark.parametrize("weight", [0, 101])
def test_a_weight_that_the_terms_do_not_take_is_not_sent_and_not_cut(sim: Simulator, weight: int) -> None:
    sim.open_round()
    rover = Rover(sim)
    with pytest.raises(DeniedError, match="1 to 100") as denied:
        rover.submit(weight=weight)
    assert (denied.value.reason, denied.value.entry_index) == ("weight_limit", None)
    assert SUBMIT_UPDATE not in rover.channel.calls


def test_what_breaks_the_codec_is_not_sent(sim: Simulator) -> None:
    sim.open_round()
    rover = Rover(sim)
    opened = rover.open()
    for indices, values in ((INDICES[::-1], VALUES), (INDICES + 10, VALUES), (INDICES, VALUES * np.nan)):
        with pytest.raises(PayloadError):
            rover.sdk.submit(opened, indices, values, 10, rng=np.random.default_rng(1))
    assert SUBMIT_UPDATE not in rover.channel.calls


@pytest.mark.parametrize("error", [ConflictError("lost"), ExhaustedError("busy"), UnavailableError("away")])
def test_where_nothing_was_decided_the_update_is_sent_again_until_the_deadline(
    sim: Simulator, error: SfrlError
) -> None:
    sim.open_round()
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    channel = DirectChannel(sim.gatekeeper(), "rover-1")
    sdk = Participant(
        name="rover-1", key=sim.rovers["rover-1"], policy=sim.policy, channel=channel,
        receipts=sim.folder / "r", clock=sim.clock, sleep=sleep, monotonic=lambda: now[0],
    )  # fmt: skip
    opened = sdk.open_round(SEGMENT, wait_seconds=0)
    assert isinstance(opened, OpenRound)
    channel.broken = [error] * 5
    sdk.submit(opened, INDICES, VALUES, 10)
    assert 1.0 < now[0] < 10.0
    channel.broken, now[0] = [error] * 10_000, 0.0
    with pytest.raises(type(error)):
        sdk.submit(opened, INDICES, VALUES, 10)
    left = (opened.deadline_us - sim.clock.now_us()) / 1_000_000
    assert left - 10.0 < now[0] < left - 2.0


def _changed(change: Callable[[AppendedEntry], AppendedEntry]) -> Callable[[bytes], bytes]:
    def answered(raw: bytes) -> bytes:
        answer = parse_upload_answer(raw)
        return encode_admitted(change(answer)) if isinstance(answer, AppendedEntry) else raw

    return answered


def test_receipt_a_is_verified(sim: Simulator) -> None:
    sim.open_round()
    other = sim.admit("rover-2")
    rover = Rover(sim)
    honest = rover.submit()
    opened, payload = rover.open(), honest.encoded.payload if honest.encoded else b""

    def log_entry(index: int) -> LoggedEntry:
        return sim.log.logged_entry(index, len(sim.log.raw))

    def log_note() -> bytes:
        return sim.log.signed.note

    lies: list[Callable[[AppendedEntry], AppendedEntry]] = [
        lambda said: replace(said, checkpoint=sim.log.note(len(sim.log.raw), root=sha256(b"another tree"))),
        lambda said: replace(said, checkpoint=sim.log.note(len(sim.log.raw) - 1)),
        lambda said: AppendedEntry(log_entry(other), log_note()),
        lambda said: AppendedEntry(log_entry(0), log_note()),
        lambda said: AppendedEntry(log_entry(sim.segment.rounds[1].opened_index), log_note()),
        lambda said: replace(said, logged=replace(said.logged, index=2**40)),
        lambda said: replace(said, logged=replace(said.logged, path=said.logged.path[:-1])),
        lambda said: replace(said, logged=replace(said.logged, raw=said.logged.raw[:-1])),
    ]
    for lie in lies:
        rover.channel.answers[SUBMIT_UPDATE] = _changed(lie)
        with pytest.raises((VerificationError, MalformedError)):
            rover.sdk.submit_update(honest.update, payload)
    rover.channel.answers.clear()
    assert rover.sdk.submit_update(honest.update, payload).index == honest.index
    assert opened.number == honest.update.round


def test_receipt_a_of_another_participant_in_the_same_words_is_refused(sim: Simulator) -> None:
    """The envelope is compared byte for byte: the same statement with another signature is another envelope."""
    sim.open_round()
    rover = Rover(sim)
    honest = rover.submit()
    forged = sim.participant("rover-2", rover.channel)
    assert honest.encoded is not None
    with pytest.raises(VerificationError, match="envelope that was sent"):
        forged.submit_update(honest.update, honest.encoded.payload)


# Receipts


def test_a_receipt_that_is_not_there_yet_is_waited_for(sim: Simulator) -> None:
    sim.open_round()
    rover = Rover(sim)
    sim.log.witnessing = False
    sent = rover.submit()
    with pytest.raises(NotFoundError, match="WITNESSED"):
        rover.sdk.receipt(sent, ReceiptKind.WITNESSED, wait_seconds=0)
    calls = rover.channel.calls.count(wire.GET_RECEIPT)
    rover.sleeping = lambda seconds: sim.log.witness()
    rover.sdk.receipt(sent, ReceiptKind.WITNESSED, wait_seconds=5)
    assert rover.channel.calls.count(wire.GET_RECEIPT) == calls + 2
    with pytest.raises(NotFoundError, match="COUNTED"):
        rover.sdk.receipt(sent, ReceiptKind.COUNTED, wait_seconds=0)


def test_a_receipt_that_proves_something_else_is_not_kept(sim: Simulator) -> None:
    sim.open_round()
    rover, other = Rover(sim), Rover(sim, "rover-2")
    sent, others = rover.submit(), other.submit()
    stranger = other.channel.call(
        wire.GET_RECEIPT,
        wire.encode_receipt_request(wire.ReceiptRequest(SEGMENT, others.statement_digest, ReceiptKind.WITNESSED)),
        deadline_seconds=1,
    )
    unwitnessed = sim.log.note(len(sim.log.raw))
    path = rover.sdk.receipt_path(SEGMENT, 1, ReceiptKind.WITNESSED)

    def stripped(raw: bytes) -> bytes:
        return wire.encode_receipt_response(replace(wire.parse_receipt_response(raw), checkpoint=unwitnessed))

    def lowered(raw: bytes) -> bytes:
        return wire.encode_receipt_response(
            replace(wire.parse_receipt_response(raw), kind=ReceiptKind.ACKNOWLEDGED)
        )

    for answer in (lambda raw: stranger, stripped, lowered):
        rover.channel.answers[wire.GET_RECEIPT] = answer
        with pytest.raises(VerificationError):
            rover.sdk.receipt(sent, ReceiptKind.WITNESSED, wait_seconds=0)
    assert not path.exists()
    rover.channel.answers.clear()
    with pytest.raises(VerificationError, match="another admission"):
        rover.sdk.receipt(replace(sent, index=sent.index + 1), ReceiptKind.WITNESSED, wait_seconds=0)
    assert not path.exists()
    rover.sdk.receipt(sent, ReceiptKind.WITNESSED, wait_seconds=0)
    assert path.exists()


def test_closing_closes_the_channel(sim: Simulator, tmp_path: Path) -> None:
    rover = Rover(sim)
    with rover.sdk:
        pass
    assert rover.channel.is_closed
