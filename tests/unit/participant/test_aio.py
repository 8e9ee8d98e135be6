"""The awaited face: the same rounds, one call at a time, and what a cancelled call leaves behind."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest
from simulator import MANIFEST, SEGMENT, DirectChannel, Simulator

from sfrl_secure.errors import ClosedError, DeniedError, NotFoundError
from sfrl_secure.participant import aio
from sfrl_secure.participant.aio import AsyncParticipant, AsyncTraining
from sfrl_secure.participant.membership import Membership, Training
from sfrl_secure.participant.sdk import Participant
from sfrl_secure.participant.update_receipt import UpdateReceipt
from sfrl_secure.wire.gatekeeper_service import GET_ROUND
from sfrl_secure.wire.receipts import ReceiptKind
from sfrl_secure.wire.uploads import SUBMIT_UPDATE


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 30))


def interruptible(sim: Simulator, name: str = "rover-1") -> tuple[AsyncParticipant, DirectChannel]:
    """A participant whose pauses are those of its thread, as `from_profile` makes it."""
    thread, channel = aio._Thread(), DirectChannel(sim.gatekeeper(), name)
    made = Participant(
        name=name, key=sim.rovers[name], policy=sim.policy, channel=channel,
        receipts=sim.folder / "receipts" / name, clock=sim.clock, sleep=thread.pause,
    )  # fmt: skip
    return AsyncParticipant(made, thread), channel


async def hand_in(training: AsyncTraining, **more: Any) -> Any:
    base = await training.fetch()
    weights = base.state_dict()
    weights["a.bias"] += np.float32(0.25)
    return await training.submit(weights, num_samples=3, **more)


def test_a_federation_learns_with_awaited_participants(sim: Simulator) -> None:
    aggregator = sim.aggregator()

    async def take_part(name: str) -> list[int]:
        counted = []
        async with AsyncParticipant(sim.participant(name)) as rover:
            rocks = rover.join(SEGMENT)
            async for training in rocks.rounds(wait_seconds=20):
                receipt = await hand_in(training)
                counted.append((await receipt.wait(wait_seconds=20)).counted_count)
            assert (await rocks.final_model()).manifest == MANIFEST
        return counted

    async def aggregate() -> None:
        while sim.segment.last_round < 3 or sim.segment.open_round is not None or sim.segment.awaits_model:
            if sim.segment.open_round is not None and len(sim.segment.open_round.admissions) < 2:
                await asyncio.sleep(0.01)
                continue
            if sim.segment.open_round is not None:
                sim.clock.advance(60_000_000)
            await asyncio.to_thread(aggregator.step)

    async def work() -> None:
        first, second, _ = await asyncio.gather(take_part("rover-1"), take_part("rover-2"), aggregate())
        assert first == second == [2, 2, 2]

    run(work)


def test_the_loop_goes_on_while_a_call_waits(sim: Simulator) -> None:
    async def work() -> None:
        rover, _ = interruptible(sim)
        async with rover:
            waiting = asyncio.create_task(rover.open_round(SEGMENT, wait_seconds=0.5))
            turns = 0
            while not waiting.done():
                await asyncio.sleep(0.01)
                turns += 1
            assert turns > 10
            with pytest.raises(NotFoundError):
                await waiting

    run(work)


def test_progress_is_told_in_the_callers_own_loop_and_thread(sim: Simulator) -> None:
    sim.open_round()

    async def work() -> None:
        told: list[tuple[int, threading.Thread]] = []
        async with AsyncParticipant(sim.participant("rover-1")) as rover:
            training = await rover.join(SEGMENT).next_round(wait_seconds=0)
            assert training is not None
            receipt = await hand_in(
                training, on_progress=lambda done, total: told.append((done, threading.current_thread()))
            )
            await asyncio.sleep(0)
        assert told[-1] == (receipt.sync.submitted.update.payload_bytes, threading.main_thread())

    run(work)


def test_typed_errors_come_through(sim: Simulator) -> None:
    sim.open_round()

    async def work() -> None:
        async with AsyncParticipant(sim.participant("rover-1")) as rover:
            training = await rover.join(SEGMENT).next_round(wait_seconds=0)
            assert training is not None
            assert (training.number, training.terms.segment) == (1, SEGMENT)
            assert 0 < training.seconds_left <= 60
            with pytest.raises(DeniedError) as denied:
                await training.submit(delta=np.ones(24, np.float32), num_samples=101)
            assert denied.value.reason == "weight_limit"

    run(work)


def test_a_cancelled_wait_ends_and_the_next_call_begins(sim: Simulator) -> None:
    async def work() -> None:
        rover, channel = interruptible(sim)
        async with rover:
            waiting = asyncio.create_task(rover.open_round(SEGMENT, wait_seconds=float("inf")))
            while GET_ROUND not in channel.calls:
                await asyncio.sleep(0.01)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await asyncio.to_thread(sim.open_round)
            opened = await asyncio.wait_for(rover.open_round(SEGMENT, wait_seconds=5), 10)
            assert opened.segment == SEGMENT

    run(work)


def test_a_cancelled_submit_is_kept_as_if_it_had_been_awaited(sim: Simulator) -> None:
    sim.open_round()

    async def work() -> None:
        rover, channel = interruptible(sim)
        going, may_go = threading.Event(), threading.Event()

        def slow(raw: bytes) -> bytes:
            going.set()
            assert may_go.wait(10)
            return raw

        channel.answers[SUBMIT_UPDATE] = slow
        async with rover:
            training = await rover.join(SEGMENT).next_round(wait_seconds=0)
            assert training is not None
            sending = asyncio.create_task(hand_in(training))
            await asyncio.to_thread(going.wait, 10)
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
            may_go.set()
            # The next call begins after it: the admission is kept by then, and the round is not trained for again.
            with pytest.raises(NotFoundError):
                await rover.join(SEGMENT).next_round(wait_seconds=0)
        assert rover.sync.submitted(SEGMENT).update.weight == 3

    run(work)


def test_a_call_that_was_cancelled_before_its_turn_is_never_made(sim: Simulator) -> None:
    sim.open_round()

    async def work() -> None:
        rover, channel = interruptible(sim)
        async with rover:
            first = asyncio.create_task(rover.open_round(SEGMENT, 1, wait_seconds=float("inf")))
            while GET_ROUND not in channel.calls:
                await asyncio.sleep(0.01)
            second = asyncio.create_task(rover.join(SEGMENT).next_round(wait_seconds=0))
            await asyncio.sleep(0.01)
            second.cancel()
            with pytest.raises(asyncio.CancelledError):
                await second
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
        assert channel.calls == [GET_ROUND]

    run(work)


def test_whoever_leaves_waits_for_nobody(sim: Simulator) -> None:
    async def work() -> None:
        rover, channel = interruptible(sim)
        before = time.monotonic()
        async with rover:
            waiting = asyncio.create_task(rover.open_round(SEGMENT, wait_seconds=float("inf")))
            while GET_ROUND not in channel.calls:
                await asyncio.sleep(0.01)
        assert channel.is_closed
        assert time.monotonic() - before < 8
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not [each for each in threading.enumerate() if each.name.startswith("participant")]

    run(work)


def test_a_participant_that_was_closed_says_so_at_once(sim: Simulator) -> None:
    async def work() -> None:
        async with AsyncParticipant(sim.participant("rover-1")) as rover:
            rocks = rover.join(SEGMENT)
        for call in (rover.open_round(SEGMENT, wait_seconds=600), rocks.next_round(wait_seconds=600)):
            with pytest.raises(ClosedError, match="was closed"):
                await call
        await rover.close()

    run(work)


@pytest.mark.parametrize(
    ("face", "sync", "names"),
    [
        (aio.AsyncTraining, Training, ("fetch", "prepare", "send", "submit")),
        (aio.AsyncMembership, Membership, ("next_round", "final_model")),
        (aio.AsyncReceipt, UpdateReceipt, ("wait", "cluster_model", "withdraw")),
        (aio.AsyncParticipant, Participant, (
            "open_round", "model", "cluster_model", "send", "relay", "take_receipt", "complaint", "submitted",
        )),
    ],
)
def test_awaited_methods_have_the_same_parameters_and_words(face: type, sync: type, names: tuple[str, ...]) -> None:
    for name in names:
        assert inspect.signature(getattr(face, name)) == inspect.signature(getattr(sync, name))
        assert getattr(face, name).__doc__ == getattr(sync, name).__doc__
        assert inspect.iscoroutinefunction(getattr(face, name))


def test_receipts_of_other_kinds_are_awaited_too(sim: Simulator) -> None:
    sim.open_round()

    async def work() -> None:
        async with AsyncParticipant(sim.participant("rover-1")) as rover:
            training = await rover.join(SEGMENT).next_round(wait_seconds=0)
            assert training is not None
            receipt = await hand_in(training)
            assert (await receipt.wait(ReceiptKind.WITNESSED, wait_seconds=5)).index == receipt.sync.index
            assert (receipt.index, receipt.round) == (receipt.sync.index, 1)
            assert receipt.path(ReceiptKind.WITNESSED).is_file()
            assert receipt.path() == receipt.sync.path(ReceiptKind.COUNTED)
            assert repr(receipt) == f"AsyncReceipt(rocks, round 1, rover-1: entry {receipt.index})"
            assert (await rover.submitted(SEGMENT)).index == receipt.index
            with pytest.raises(NotFoundError, match="nothing to complain of"):
                await rover.complaint(SEGMENT)
            assert (await receipt.withdraw()).index == receipt.sync.index + 1

    run(work)
