"""Uploads: what is said to be durable, where a broken one goes on, what ends one, and what each leaves behind."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from simulator import DAY_US, Context, SimulatedGatekeeper, Simulator, participant_id

from sfrl_secure.crypto.envelope import Envelope
from sfrl_secure.errors import (
    ConflictError,
    DeniedError,
    ExhaustedError,
    MalformedError,
    MissingEvidenceError,
    SfrlError,
    UnavailableError,
)
from sfrl_secure.governance.statements import Evidence, UpdateAdmitted, UpdateRefused
from sfrl_secure.ids import sha256
from sfrl_secure.services.gatekeeper import uploads as intake_module
from sfrl_secure.services.gatekeeper.arrivals import Arrivals
from sfrl_secure.services.gatekeeper.bounds import PeerRate
from sfrl_secure.services.gatekeeper.sweeping import UploadSweeper
from sfrl_secure.services.gatekeeper.upload_bounds import UPLOADS_OF_PEER_MAX
from sfrl_secure.services.gatekeeper.uploads import upload_name
from sfrl_secure.storage.folder_uploads import FolderUpload
from sfrl_secure.wire.audit_service import AppendedEntry
from sfrl_secure.wire.uploads import Chunk, encode_chunk, encode_upload_start, parse_upload_answer

VALUES = {0: 5, 3: -7, 17: 100}
HEADER_BYTES = 64
"""Preamble and leaf table of a payload with one leaf."""


class Call:
    """One call of SubmitUpdate: a test sends, and takes answers."""

    def __init__(
        self, gatekeeper: SimulatedGatekeeper, signed: Any, first: Chunk | None = None, *, name: str = "rover-1"
    ) -> None:
        self.envelope, self.update, self.payload = signed
        self._sending: queue.SimpleQueue[bytes | SfrlError | None] = queue.SimpleQueue()
        self._sending.put(encode_upload_start(self.envelope, first))
        context: Any = Context(name)
        self._answers = gatekeeper.servicer.submit_update(self._requests(), context)

    def _requests(self) -> Iterator[bytes]:
        while (message := self._sending.get(timeout=10)) is not None:
            if isinstance(message, SfrlError):
                raise message
            yield message

    def send(self, first: int, end: int) -> None:
        """Send these bytes of the payload."""
        self.raw(encode_chunk(Chunk(first, self.payload[first:end])))

    def raw(self, message: bytes) -> None:
        """Send a message."""
        self._sending.put(message)

    def close(self) -> None:
        """Send nothing more."""
        self._sending.put(None)

    def break_off(self, error: SfrlError | None = None) -> None:
        """Let the stream end in an error, as a broken connection's does; take what the call ends with."""
        self._sending.put(error or UnavailableError("the caller has gone"))
        with pytest.raises(type(error or UnavailableError(""))):
            list(self._answers)

    def answer(self) -> AppendedEntry | int:
        """The next answer."""
        return parse_upload_answer(next(self._answers))

    def rest(self) -> list[AppendedEntry | int]:
        """All that is still answered."""
        return [parse_upload_answer(raw) for raw in self._answers]


def wait_for(found: Callable[[], Any]) -> Any:
    """Wait until there is something, and give it."""
    for _ in range(10_000):
        if value := found():
            return value
        threading.Event().wait(0.001)
    raise AssertionError("it did not come true")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake_module, "SAY_SECONDS", 0.02)


@pytest.fixture
def gatekeeper(sim: Simulator) -> SimulatedGatekeeper:
    sim.open_round()
    return sim.gatekeeper()


def left(sim: Simulator) -> list[int]:
    """Lengths of what uploads have left on the disk."""
    return sorted(path.stat().st_size for path in (sim.folder / "objects" / "uploads").iterdir())


def bodies(sim: Simulator, kind: type) -> list[Any]:
    found = [sim.log.statement_at(index).body for index in range(sim.segment.terms_index + 1, len(sim.log.raw))
             if sim.log.envelope_at(index).payload_type.endswith("statement.v1")]  # fmt: skip
    return [body for body in found if isinstance(body, kind)]


def is_admitted_as_sent(sim: Simulator, call: Call, answer: AppendedEntry | int) -> bool:
    assert isinstance(answer, AppendedEntry)
    stored = sim.objects.get(call.update.payload_sha256, 10_000)
    return stored == call.payload and sim.segment.rounds[1].admissions["rover-1"].index == answer.logged.index


# What is said


def test_an_update_that_comes_in_one_request_gets_one_answer(sim: Simulator, gatekeeper: SimulatedGatekeeper) -> None:
    signed = sim.update("rover-1")
    call = Call(gatekeeper, signed, Chunk(0, signed[2]))
    (answer,) = call.rest()
    assert is_admitted_as_sent(sim, call, answer)
    assert left(sim) == []


def test_who_sends_the_envelope_alone_learns_that_nothing_is_there(
    sim: Simulator, gatekeeper: SimulatedGatekeeper
) -> None:
    call = Call(gatekeeper, sim.update("rover-1"))
    assert call.answer() == 0
    call.send(0, len(call.payload))
    (answer,) = call.rest()
    assert is_admitted_as_sent(sim, call, answer)


def test_a_sender_that_waits_is_told_what_is_durable(sim: Simulator, gatekeeper: SimulatedGatekeeper) -> None:
    signed = sim.update("rover-1")
    call = Call(gatekeeper, signed, Chunk(0, signed[2][:30]))
    assert call.answer() == 0
    assert call.answer() == 30
    call.send(30, 50)
    assert call.answer() == 50
    assert left(sim) == [50]
    call.send(50, len(call.payload))
    (answer,) = call.rest()
    assert is_admitted_as_sent(sim, call, answer)


def test_a_fast_sender_is_told_before_more_than_so_much_is_unsaid(
    sim: Simulator, gatekeeper: SimulatedGatekeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_module, "SAY_BYTES", 40)
    monkeypatch.setattr(intake_module, "SAY_SECONDS", 1e6)
    call = Call(gatekeeper, sim.update("rover-1"))
    for at in range(0, len(call.payload), 10):
        call.send(at, min(at + 10, len(call.payload)))
    answers = call.rest()
    assert answers[:-1] == [0, *range(40, len(call.payload), 40)]
    assert is_admitted_as_sent(sim, call, answers[-1])


def test_nothing_of_the_payload_is_waited_for_where_the_header_is_refused(
    sim: Simulator, gatekeeper: SimulatedGatekeeper
) -> None:
    call = Call(gatekeeper, sim.update("rover-1", weight=101))
    with pytest.raises(DeniedError) as denied:
        call.answer()
    assert denied.value.reason == "weight_limit"
    assert left(sim) == []


def test_an_update_that_is_known_is_answered_without_its_payload(
    sim: Simulator, gatekeeper: SimulatedGatekeeper
) -> None:
    signed = sim.update("rover-1")
    (first,) = Call(gatekeeper, signed, Chunk(0, signed[2])).rest()
    (again,) = Call(gatekeeper, signed).rest()
    assert isinstance(first, AppendedEntry)
    assert isinstance(again, AppendedEntry)
    assert again.logged.raw == first.logged.raw
    refused = sim.update("rover-2", {0: 1, 20: 1})
    for first_chunk in (Chunk(0, refused[2]), None):
        with pytest.raises(DeniedError) as denied:
            Call(gatekeeper, refused, first_chunk, name="rover-2").rest()
        assert denied.value.reason == "tensor_not_allowed"
    assert len(bodies(sim, UpdateRefused)) == 1


# Going on


@pytest.mark.parametrize("broken_at", [1, HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + 3])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_broken_upload_goes_on_where_it_was_durable(sim: Simulator, broken_at: int, elsewhere: bool) -> None:
    sim.open_round()
    gatekeeper, signed = sim.gatekeeper("g1"), sim.update("rover-1")
    call = Call(gatekeeper, signed, Chunk(0, signed[2][:broken_at]))
    assert call.answer() == 0
    call.break_off()
    assert left(sim) == [broken_at]
    again = Call(sim.gatekeeper("g2") if elsewhere else gatekeeper, signed)
    assert again.answer() == broken_at
    again.send(broken_at, len(again.payload))
    answers = again.rest()
    assert is_admitted_as_sent(sim, again, answers[-1])
    assert left(sim) == []


def test_all_that_is_there_already_is_decided_at_once(sim: Simulator, gatekeeper: SimulatedGatekeeper) -> None:
    signed = sim.update("rover-1")
    whole = len(signed[2])
    with gatekeeper.uploads.begin(upload_name(signed[0].digest, participant_id("rover-1")), whole) as upload:
        upload.append(signed[2])
        upload.sync()
    (answer,) = Call(gatekeeper, signed).rest()
    assert is_admitted_as_sent(sim, Call(gatekeeper, signed), answer)


def test_what_is_there_is_skipped_unseen(sim: Simulator, gatekeeper: SimulatedGatekeeper) -> None:
    signed = sim.update("rover-1")
    call = Call(gatekeeper, signed, Chunk(0, signed[2][:70]))
    call.answer()
    call.break_off()
    again = Call(gatekeeper, signed, Chunk(0, bytes(70)))
    assert again.answer() == 70
    again.raw(encode_chunk(Chunk(60, bytes(10) + signed[2][70:])))
    answers = again.rest()
    assert is_admitted_as_sent(sim, again, answers[-1])


def test_a_call_that_ends_early_decides_nothing_and_keeps_what_came(
    sim: Simulator, gatekeeper: SimulatedGatekeeper
) -> None:
    size = len(sim.log.raw)
    call = Call(gatekeeper, sim.update("rover-1"), Chunk(0, sim.update("rover-1")[2][:9]))
    call.close()
    with pytest.raises(UnavailableError, match="ended before its payload"):
        call.rest()
    assert (left(sim), len(sim.log.raw)) == ([9], size)


def test_a_handler_that_is_dropped_keeps_what_came(sim: Simulator, gatekeeper: SimulatedGatekeeper) -> None:
    """So gRPC ends the call of somebody who has gone while we answer."""
    signed = sim.update("rover-1")
    call = Call(gatekeeper, signed, Chunk(0, signed[2][:9]))
    assert call.answer() == 0
    assert call.answer() == 9
    call._answers.close()  # type: ignore[attr-defined]
    assert left(sim) == [9]
    assert Call(gatekeeper, signed).answer() == 9


# Requests that do not follow each other


@pytest.mark.parametrize(
    "message",
    [
        lambda call: encode_chunk(Chunk(31, b"x")),
        lambda call: encode_chunk(Chunk(len(call.payload), b"x")),
        lambda call: encode_chunk(Chunk(30, bytes(len(call.payload) - 29))),
        lambda call: encode_upload_start(call.envelope),
        lambda call: encode_upload_start(call.envelope, Chunk(30, b"x")),
        lambda call: b"",
        lambda call: b"\x1a\x00",
    ],
    ids=["a gap", "behind the end", "over the end", "a second envelope", "with a chunk", "nothing", "empty"],
)
def test_what_does_not_follow_is_no_decision(
    sim: Simulator, gatekeeper: SimulatedGatekeeper, message: Callable[[Call], bytes]
) -> None:
    signed, size = sim.update("rover-1"), len(sim.log.raw)
    call = Call(gatekeeper, signed, Chunk(0, signed[2][:30]))
    call.raw(message(call))
    with pytest.raises(MalformedError):
        call.rest()
    assert (left(sim), len(sim.log.raw)) == ([30], size)
    assert gatekeeper.counter.counted == 0


@pytest.mark.parametrize(("offset", "length"), [(1, 1), (0, 999)])
def test_a_first_chunk_is_held_to_the_same(
    sim: Simulator, gatekeeper: SimulatedGatekeeper, offset: int, length: int
) -> None:
    with pytest.raises(MalformedError):
        Call(gatekeeper, sim.update("rover-1"), Chunk(offset, bytes(length))).rest()


def test_nobody_repeats_for_ever_what_is_there(sim: Simulator, gatekeeper: SimulatedGatekeeper) -> None:
    signed = sim.update("rover-1")
    call = Call(gatekeeper, signed, Chunk(0, signed[2][:50]))
    for _ in range(len(signed[2]) // 50 + 1):
        call.send(0, 50)
    with pytest.raises(MalformedError, match="repeats"):
        call.rest()


# Refusals


def test_what_does_not_lead_to_the_root_ends_the_call_before_the_rest_has_come(
    sim: Simulator, gatekeeper: SimulatedGatekeeper
) -> None:
    call = Call(gatekeeper, sim.update("rover-1"))
    call.payload = sim.update("rover-1", {0: 6, 3: -7, 17: 100})[2]
    call.send(0, HEADER_BYTES)
    with pytest.raises(DeniedError) as denied:
        call.rest()
    assert denied.value.reason == "digest_mismatch"
    (body,) = bodies(sim, UpdateRefused)
    assert (body.reason, body.evidence) == ("digest_mismatch", Evidence.NONE)
    assert left(sim) == []


def test_what_is_refused_for_its_content_is_kept_as_evidence_and_nothing_is_left(
    sim: Simulator, gatekeeper: SimulatedGatekeeper
) -> None:
    signed = sim.update("rover-1", {0: 1, 20: 1})
    call = Call(gatekeeper, signed, Chunk(0, signed[2][:70]))
    call.send(70, len(signed[2]))
    with pytest.raises(DeniedError) as denied:
        call.rest()
    assert denied.value.reason == "tensor_not_allowed"
    assert sim.objects.get(call.update.payload_sha256, 10_000) == signed[2]
    assert left(sim) == []


def test_what_is_refused_without_room_for_evidence_leaves_nothing(sim: Simulator) -> None:
    sim.open_round()
    signed = sim.update("rover-1", {0: 1, 20: 1})
    with pytest.raises(DeniedError):
        Call(sim.gatekeeper(evidence_budget=1), signed, Chunk(0, signed[2])).rest()
    assert not sim.objects.is_stored(signed[1].payload_sha256)
    assert left(sim) == []


def test_what_another_call_left_is_not_held_against_who_goes_on(
    sim: Simulator, gatekeeper: SimulatedGatekeeper
) -> None:
    """Whoever has a signed envelope can send what it likes under it; the owner is refused for none of that."""
    signed, size = sim.update("rover-1"), len(sim.log.raw)
    for foul in (bytes(40), signed[2][:70] + b"\xff"):
        name = upload_name(signed[0].digest, participant_id("rover-1"))
        with gatekeeper.uploads.begin(name, len(signed[2])) as upload:
            upload.append(foul)
            upload.sync()
        call = Call(gatekeeper, signed)
        assert call.answer() == len(foul)
        call.send(len(foul), len(signed[2]))
        with pytest.raises(UnavailableError, match="begin again"):
            call.rest()
        assert (left(sim), len(sim.log.raw)) == ([], size)
    call = Call(gatekeeper, signed)
    assert call.answer() == 0
    call.send(0, len(signed[2]))
    assert is_admitted_as_sent(sim, call, call.rest()[-1])


@pytest.mark.parametrize("broken_at", [9, HEADER_BYTES + 3, None])
def test_a_payload_that_is_not_what_its_owner_signed_is_refused_however_often_he_breaks_off(
    sim: Simulator, gatekeeper: SimulatedGatekeeper, broken_at: int | None
) -> None:
    """Root and leaves are what he signed, and the digest of the whole is not: nobody else can have made that."""
    signed = sim.update("rover-1", payload_sha256=sha256(b"another"))
    broken_at = len(signed[2]) if broken_at is None else broken_at
    call = Call(gatekeeper, signed, Chunk(0, signed[2][: broken_at - 1]))
    while call.answer() != broken_at - 1:
        pass
    call.break_off()
    again = Call(gatekeeper, signed)
    assert again.answer() == broken_at - 1
    again.send(broken_at - 1, len(signed[2]))
    with pytest.raises(DeniedError) as denied:
        again.rest()
    (body,) = bodies(sim, UpdateRefused)
    assert denied.value.reason == body.reason == "digest_mismatch"
    assert left(sim) == []


def test_a_peer_that_is_judged_away_in_between_is_not_refused_in_the_log(
    sim: Simulator, gatekeeper: SimulatedGatekeeper
) -> None:
    """The door has counted it; what it sent is not decided."""
    signed, size = sim.update("rover-1"), len(sim.log.raw)
    call = Call(gatekeeper, signed, Chunk(0, signed[2][:30]))
    call.answer()
    call.break_off(DeniedError("unknown_identity", "revoked"))
    assert (left(sim), len(sim.log.raw)) == ([30], size)


def test_an_update_that_cannot_be_admitted_any_more_is_not_waited_for(
    sim: Simulator, gatekeeper: SimulatedGatekeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_module, "RECHECK_SECONDS", 0.0)
    signed = sim.update("rover-1")
    call = Call(gatekeeper, signed, Chunk(0, signed[2][:30]))
    assert call.answer() == 0
    sim.clock.advance(60_000_000)
    sim.close_round()
    with pytest.raises(DeniedError) as denied:
        call.rest()
    assert denied.value.reason == "round_not_open"
    assert bodies(sim, UpdateRefused)[0].evidence is Evidence.LOG
    assert left(sim) == []


def test_rules_that_change_while_it_comes_decide_what_was_kept(tmp_path: Path) -> None:
    """The payload is decided again from the store: it does not come twice."""
    sim = Simulator(tmp_path, rules='@id("permit") permit (principal, action, resource);')
    sim.open_round()
    gatekeeper = sim.gatekeeper()
    call = Call(gatekeeper, sim.update("rover-1"))
    assert call.answer() == 0
    loud = '@id("no") forbid (principal, action == Action::"admit", resource) when { context.norm > 10 };'
    sim.publish_rules(cedar=f'@id("permit") permit (principal, action, resource);\n{loud}')
    call.send(0, len(call.payload))
    with pytest.raises(DeniedError) as denied:
        call.rest()
    assert denied.value.reason == "policy_denied"
    assert bodies(sim, UpdateRefused)[0].rule_ids == ("no",)
    assert left(sim) == []
    sim.close()


# Several calls


def test_a_second_call_of_an_upload_ends_the_first(sim: Simulator, gatekeeper: SimulatedGatekeeper) -> None:
    signed = sim.update("rover-1")
    first = Call(gatekeeper, signed, Chunk(0, signed[2][:30]))
    assert [first.answer(), first.answer()] == [0, 30]
    second = Call(gatekeeper, signed)
    assert second.answer() == 30
    with pytest.raises(ConflictError) as superseded:
        first.rest()
    assert superseded.value.reason == "superseded"
    second.send(30, len(signed[2]))
    assert is_admitted_as_sent(sim, second, second.rest()[-1])


def test_a_call_that_hangs_in_an_answer_leaves_nothing_behind_when_another_goes_on(
    sim: Simulator, gatekeeper: SimulatedGatekeeper
) -> None:
    signed = sim.update("rover-1")
    calls = [Call(gatekeeper, signed, Chunk(0, signed[2][:30]))]
    while calls[0].answer() != 30:
        pass
    for _ in range(5):
        calls.append(Call(gatekeeper, signed))
        assert calls[-1].answer() == 30
        assert left(sim) == [30], "each call leaves a copy"
    for call in calls[:-1]:
        with pytest.raises(ConflictError):
            call.rest()
    assert left(sim) == [30]
    calls[-1].send(30, len(signed[2]))
    assert is_admitted_as_sent(sim, calls[-1], calls[-1].rest()[-1])


@pytest.mark.parametrize("hears", [True, False])
def test_what_came_and_was_not_said_yet_is_not_lost_when_another_call_goes_on(
    sim: Simulator, gatekeeper: SimulatedGatekeeper, monkeypatch: pytest.MonkeyPatch, hears: bool
) -> None:
    """Whether the first call lets go by itself or the second does in its name."""
    monkeypatch.setattr(intake_module, "SAY_SECONDS", 1e6)
    if not hears:
        monkeypatch.setattr(Arrivals, "end", lambda self, error: None)
    signed = sim.update("rover-1")
    first = Call(gatekeeper, signed, Chunk(0, signed[2][:30]))
    ended: list[SfrlError] = []

    def go_on() -> None:
        try:
            first.rest()
        except SfrlError as error:
            ended.append(error)

    waiting = threading.Thread(target=go_on)
    waiting.start()
    (slot,) = wait_for(lambda: list(gatekeeper.intake.bounds._slots.values()))
    wait_for(lambda: left(sim) == [30] and slot.inside is not None and slot.inside.is_resting)
    assert Call(gatekeeper, signed).answer() == 30
    first.close()
    waiting.join(10)
    assert isinstance(ended[0], ConflictError)


def test_while_one_call_lets_go_in_the_name_of_another_that_one_touches_nothing(
    sim: Simulator, gatekeeper: SimulatedGatekeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_module, "SAY_SECONDS", 1e6)
    monkeypatch.setattr(Arrivals, "end", lambda self, error: None)
    signed = sim.update("rover-1")
    first = Call(gatekeeper, signed, Chunk(0, signed[2][:30]))
    ended: list[SfrlError] = []
    honest, synced = FolderUpload.sync, []

    def go_on() -> None:
        try:
            first.rest()
        except SfrlError as error:
            ended.append(error)

    def sync(self: FolderUpload) -> int:
        synced.append(self)
        if len(synced) == 1:
            first.close()
            waiting.join(10)
            assert ended, "it waits for who works in its name"
        return honest(self)

    waiting = threading.Thread(target=go_on)
    waiting.start()
    (slot,) = wait_for(lambda: list(gatekeeper.intake.bounds._slots.values()))
    wait_for(lambda: left(sim) == [30] and slot.inside is not None and slot.inside.is_resting)
    monkeypatch.setattr(FolderUpload, "sync", sync)
    assert Call(gatekeeper, signed).answer() == 30
    assert synced.count(synced[0]) == 1, "both let go"
    assert left(sim) == [30]


def test_a_call_that_copies_what_was_left_makes_way_for_the_next(
    sim: Simulator, gatekeeper: SimulatedGatekeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed = sim.update("rover-1")
    call = Call(gatekeeper, signed, Chunk(0, signed[2][:30]))
    while call.answer() != 30:
        pass
    call.break_off()
    honest, began, goes_on, copied = FolderUpload.take_over, threading.Event(), threading.Event(), []

    def in_single_bytes(self: FolderUpload) -> Iterator[bytes]:
        for part in honest(self):
            for at in range(len(part)):
                copied.append(at)
                began.set()
                assert goes_on.wait(10)
                yield part[at : at + 1]

    monkeypatch.setattr(FolderUpload, "take_over", in_single_bytes)
    slow: list[BaseException] = []

    def copy() -> None:
        try:
            Call(gatekeeper, signed).rest()
        except SfrlError as error:
            slow.append(error)

    copying = threading.Thread(target=copy)
    copying.start()
    assert began.wait(10)
    monkeypatch.undo()
    monkeypatch.setattr(intake_module, "SAY_SECONDS", 0.02)
    answers: list[object] = []
    next_call = Call(gatekeeper, signed)
    waiting = threading.Thread(target=lambda: answers.append(next_call.answer()))
    waiting.start()
    waiting.join(0.05)
    assert answers == [], "two calls copy"
    goes_on.set()
    for thread in (copying, waiting):
        thread.join(10)
    assert copied == [0], "it went on copying"
    assert isinstance(slow[0], ConflictError)
    assert slow[0].reason == "superseded"
    assert (answers, left(sim)) == ([30], [30])


def test_who_calls_again_while_it_is_decided_gets_what_was_decided(
    sim: Simulator, gatekeeper: SimulatedGatekeeper
) -> None:
    signed = sim.update("rover-1")
    second, answers = Call(gatekeeper, signed), list[AppendedEntry | int]()
    waiting = threading.Thread(target=lambda: answers.extend(second.rest()))

    def call_again(envelope: Envelope) -> None:
        if not waiting.ident:
            waiting.start()
            waiting.join(0.1)

    sim.log.before_append = call_again
    first = Call(gatekeeper, signed, Chunk(0, signed[2]))
    (answer,) = first.rest()
    waiting.join(10)
    assert is_admitted_as_sent(sim, first, answer)
    assert is_admitted_as_sent(sim, second, answers[-1])
    assert (len(answers), len(bodies(sim, UpdateAdmitted)), left(sim)) == (1, 1, [])


def test_what_a_peer_has_us_copy_in_a_minute_is_bounded_and_nothing_is_lost(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call costs it a few hundred bytes, and us all that it left."""
    monkeypatch.setattr(intake_module, "TAKEN_OVER_A_MINUTE_MAX", 100)
    sim.open_round()
    gatekeeper, seconds = sim.gatekeeper(), 0.0
    gatekeeper.intake.monotonic = lambda: seconds
    monkeypatch.setattr(intake_module, "TAKEN_OVER_TIMES", 0)
    signed, other = sim.update("rover-1"), sim.update("rover-2")

    def begin(name: str, update: Any) -> Call:
        call = Call(gatekeeper, update, Chunk(0, update[2][:40]), name=name)
        while call.answer() != 40:
            pass
        call.break_off()
        return Call(gatekeeper, update, name=name)

    call = begin("rover-1", signed)
    for _ in range(2):
        assert call.answer() == 40
        call.break_off()
        call = Call(gatekeeper, signed)
    size = len(sim.log.raw)
    with pytest.raises(ExhaustedError, match="at most 100 bytes of broken uploads copied in 60 s"):
        call.answer()
    assert (len(sim.log.raw), left(sim)) == (size, [40])
    assert begin("rover-2", other).answer() == 40
    # A payload that is long beside the bound may still be gone on with.
    monkeypatch.setattr(intake_module, "TAKEN_OVER_TIMES", 4)
    Call(gatekeeper, signed).answer()
    monkeypatch.setattr(intake_module, "TAKEN_OVER_TIMES", 0)
    seconds = 60.0
    again = Call(gatekeeper, signed)
    assert again.answer() == 40
    again.send(40, len(signed[2]))
    assert is_admitted_as_sent(sim, again, again.rest()[-1])


def test_what_could_not_be_copied_counts_as_left(
    sim: Simulator, gatekeeper: SimulatedGatekeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed = sim.update("rover-1")
    call = Call(gatekeeper, signed, Chunk(0, signed[2][:30]))
    while call.answer() != 30:
        pass
    call.break_off()
    gatekeeper = sim.gatekeeper()  # as after a restart: it knows nothing of what was left
    limits, gatekeeper.intake._taken_over = gatekeeper.intake._taken_over, PeerRate(0, 60_000_000)
    short = Call(gatekeeper, signed)
    monkeypatch.setattr(intake_module, "TAKEN_OVER_TIMES", 0)
    with pytest.raises(ExhaustedError):
        short.answer()
    gatekeeper.intake._taken_over = limits
    assert list(gatekeeper.intake.bounds._left.values()) == [30]

    def broken(self: FolderUpload) -> Iterator[bytes]:
        yield from ()
        raise MissingEvidenceError("a disk that gives nothing back")

    monkeypatch.setattr(FolderUpload, "take_over", broken)
    with pytest.raises(MissingEvidenceError):
        Call(gatekeeper, signed).answer()
    assert list(gatekeeper.intake.bounds._left.values()) == left(sim) == [30]


def test_two_gatekeepers_take_one_upload_and_admit_it_once(sim: Simulator) -> None:
    sim.open_round()
    signed = sim.update("rover-1")
    calls = [Call(sim.gatekeeper(name), signed, Chunk(0, signed[2][:30])) for name in ("g1", "g2")]
    for call in calls:
        while call.answer() != 30:
            pass  # the second one may have taken over what the first one left
    for call in calls:
        call.send(30, len(signed[2]))
    answers = [call.rest()[-1] for call in calls]
    assert all(is_admitted_as_sent(sim, call, answer) for call, answer in zip(calls, answers, strict=True))
    assert len(bodies(sim, UpdateAdmitted)) == 1


def test_over_its_bound_a_call_is_refused_and_nothing_is_decided(
    sim: Simulator, gatekeeper: SimulatedGatekeeper
) -> None:
    size = len(sim.log.raw)
    calls = [Call(gatekeeper, sim.update("rover-1", {0: 1 + n})) for n in range(UPLOADS_OF_PEER_MAX)]
    assert [call.answer() for call in calls] == [0] * UPLOADS_OF_PEER_MAX
    with pytest.raises(ExhaustedError):
        Call(gatekeeper, sim.update("rover-1", {0: 99})).answer()
    assert len(sim.log.raw) == size
    other = sim.update("rover-2")
    assert isinstance(Call(gatekeeper, other, Chunk(0, other[2]), name="rover-2").rest()[0], AppendedEntry)
    calls[0].break_off()
    assert Call(gatekeeper, sim.update("rover-1", {0: 99})).answer() == 0


# What is left


def test_what_nobody_went_on_with_is_swept_after_a_day(sim: Simulator, gatekeeper: SimulatedGatekeeper) -> None:
    signed = sim.update("rover-1")
    call = Call(gatekeeper, signed, Chunk(0, signed[2][:30]))
    call.answer()
    call.break_off()
    (file,) = (sim.folder / "objects" / "uploads").iterdir()
    written_us = file.stat().st_mtime_ns // 1_000
    sweeper = UploadSweeper(gatekeeper.uploads, sim.clock)
    sim.clock.advance(written_us + DAY_US - sim.clock.now_us())
    sweeper.sweep()
    assert left(sim) == [30]
    sim.clock.advance(1_000)
    sweeper.start()
    sweeper.stop()
    assert left(sim) == []
