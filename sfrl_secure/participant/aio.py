"""The participant's face for asyncio: the same methods, awaited.

    async with AsyncParticipant.from_profile("rover-1.toml") as rover:
        async for training in rover.join("rocks").rounds():
            base = await training.fetch()
            receipt = await training.submit(train(base.state_dict()), num_samples=812)
        await receipt.wait()

Each participant has one thread of its own, in which its calls run one after the other: a second one waits for the
first. Two segments at once take two participants.

A call that is cancelled is not torn apart. It ends where it would pause: a wait within a few seconds, an upload when it
is answered or its connection breaks; an admission that comes by then is kept. The next call begins after it. Whoever
leaves the `async with` ends it with its connections.

Runs in: participant.
Trusts: what the synchronous face does. Nothing that arrives.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

import numpy as np

from sfrl_secure.errors import ClosedError
from sfrl_secure.governance.terms import SegmentTerms
from sfrl_secure.participant.membership import Membership, Training
from sfrl_secure.participant.profile import Profile
from sfrl_secure.participant.sdk import Participant
from sfrl_secure.participant.update_receipt import UpdateReceipt
from sfrl_secure.wire.receipts import ReceiptKind

S = TypeVar("S")
T = TypeVar("T")
A = TypeVar("A")
P = ParamSpec("P")


class _Thread:
    """One thread, in which calls run one after the other; a pause in a call that nobody waits for ends it."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="participant")
        self._left = threading.Event()
        """Set while the call that runs is one that nobody waits for any more."""
        self._has_ended = False

    async def run(self, call: Callable[[], T]) -> T:
        """Run a call in the thread.

        Raises:
            ClosedError: after `end`.
        """
        if self._has_ended:
            raise ClosedError("the participant was closed: open another to go on")
        left = threading.Event()

        def begin() -> T:
            self._left = left
            return call()

        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._executor, functools.partial(copy_context().run, begin)
            )
        except asyncio.CancelledError:
            left.set()
            raise

    def pause(self, seconds: float) -> None:
        """Wait, in the thread.

        Raises:
            CancelledError: nobody waits for this call any more.
        """
        if self._left.wait(seconds):
            raise asyncio.CancelledError

    async def end(self, close: Callable[[], None]) -> None:
        """End the call that runs, and the thread."""
        self._has_ended = True
        self._left.set()
        self._executor.shutdown(wait=False, cancel_futures=True)
        # Not in the thread, which may be in a call that this is to end.
        await asyncio.shield(asyncio.to_thread(close))
        await asyncio.shield(asyncio.to_thread(self._executor.shutdown))


class _Async(Generic[S]):
    """Something of the synchronous face, `sync`, and the thread that it lives in."""

    def __init__(self, sync: S, thread: _Thread) -> None:
        self.sync, self._thread = sync, thread


def _awaited(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[_Async[S], P], Coroutine[Any, Any, T]]:
    """The same method, to be awaited; its `on_progress` is called in the caller's own loop."""

    @functools.wraps(method)
    async def call(self: _Async[S], /, *args: P.args, **kwargs: P.kwargs) -> T:
        told, loop = kwargs.get("on_progress"), asyncio.get_running_loop()
        if callable(told):
            kwargs["on_progress"] = lambda done, total: loop.call_soon_threadsafe(told, done, total)
        return await self._thread.run(lambda: method(self.sync, *args, **kwargs))

    return call


def _awaited_as(
    method: Callable[Concatenate[S, P], T], made: Callable[[T, _Thread], A]
) -> Callable[Concatenate[_Async[S], P], Coroutine[Any, Any, A]]:
    """The same, where what is given is to be awaited too."""
    awaited = _awaited(method)

    @functools.wraps(method)
    async def call(self: _Async[S], /, *args: P.args, **kwargs: P.kwargs) -> A:
        return made(await awaited(self, *args, **kwargs), self._thread)

    return call


class AsyncReceipt(_Async[UpdateReceipt]):
    """`UpdateReceipt`, awaited."""

    wait = _awaited(UpdateReceipt.wait)
    cluster_model = _awaited(UpdateReceipt.cluster_model)
    withdraw = _awaited(UpdateReceipt.withdraw)

    @property
    def index(self) -> int:
        """Leaf index of the admission in the log."""
        return self.sync.index

    @property
    def round(self) -> int:
        """The update's round."""
        return self.sync.round

    def path(self, kind: ReceiptKind = ReceiptKind.COUNTED) -> Path:
        """Where a receipt is kept once it was waited for."""
        return self.sync.path(kind)

    def __repr__(self) -> str:
        return f"AsyncReceipt({self.sync.submitted.in_words})"


class AsyncTraining(_Async[Training]):
    """`Training`, awaited; its model is what `fetch` gives."""

    fetch = _awaited(Training.fetch)
    prepare = _awaited(Training.prepare)
    send = _awaited_as(Training.send, AsyncReceipt)
    submit = _awaited_as(Training.submit, AsyncReceipt)

    @property
    def number(self) -> int:
        """The round's number."""
        return self.sync.number

    @property
    def terms(self) -> SegmentTerms:
        """What the operators signed for the segment."""
        return self.sync.terms

    @property
    def seconds_left(self) -> float:
        """Until the round's deadline, by this machine's clock."""
        return self.sync.seconds_left


def _training(training: Training | None, thread: _Thread) -> AsyncTraining | None:
    return None if training is None else AsyncTraining(training, thread)


class AsyncMembership(_Async[Membership]):
    """`Membership`, awaited."""

    final_model = _awaited(Membership.final_model)
    next_round = _awaited_as(Membership.next_round, _training)

    async def rounds(self, *, wait_seconds: float = float("inf")) -> AsyncIterator[AsyncTraining]:
        """As `Membership.rounds`."""
        after = 0
        while (training := await self.next_round(after, wait_seconds=wait_seconds)) is not None:
            after = training.number
            yield training


class AsyncParticipant(_Async[Participant]):
    """`Participant`, awaited. Close it, or use it in an `async with`."""

    def __init__(self, participant: Participant, thread: _Thread | None = None) -> None:
        """Take over a participant, which nobody else uses from here on; `from_profile` is the usual way."""
        super().__init__(participant, thread or _Thread())

    @classmethod
    def from_profile(
        cls, profile: str | Path | Profile, *, rng: np.random.Generator | None = None
    ) -> AsyncParticipant:
        """As `Participant.from_profile`. Reads files, and connects when the first call is made."""
        thread = _Thread()
        return cls(Participant.from_profile(profile, rng=rng, sleep=thread.pause), thread)

    def join(self, segment: str) -> AsyncMembership:
        """Take part in a segment's rounds. Nothing is sent yet."""
        return AsyncMembership(self.sync.join(segment), self._thread)

    open_round = _awaited(Participant.open_round)
    model = _awaited(Participant.model)
    cluster_model = _awaited(Participant.cluster_model)
    mask = _awaited(Participant.mask)
    send = _awaited(Participant.send)
    withdraw = _awaited(Participant.withdraw)
    receipt = _awaited(Participant.receipt)
    pack = _awaited(Participant.pack)
    relay = _awaited(Participant.relay)
    take_receipt = _awaited(Participant.take_receipt)
    record_decision = _awaited(Participant.record_decision)
    complaint = _awaited(Participant.complaint)
    submitted = _awaited(Participant.submitted)

    async def close(self) -> None:
        """End every call and connection."""
        await self._thread.end(self.sync.close)

    async def __aenter__(self) -> AsyncParticipant:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()
