"""Decoding beside receiving: payloads are read, leaf by leaf, by a few threads for the whole gatekeeper.

Whoever receives puts parts into its own lane and goes on; parts of one lane are taken in order, by one thread at a
time. What waits in all lanes together is bounded, so that many uploads at once take no more memory than a few.

Runs in: gatekeeper.
Trusts: nothing.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from sfrl_secure.limits import CHUNK_BYTES_MAX

DECODERS = 2
"""Threads that decode: numpy and SHA-256 let the others run meanwhile."""

PART_BYTES = 512
"""What a part takes beside its bytes, or a little more: its objects, and its place in the lane."""

WAITING_BYTES_MAX = 4 * (CHUNK_BYTES_MAX + 2 * PART_BYTES)
"""Bytes of memory that wait in all lanes: four chunks as they come. A part that is longer waits alone."""

Part = bytes | memoryview


def held_by(part: Part) -> int:
    """Bytes of memory that a part keeps alive: of a view, all that it is a view of."""
    return PART_BYTES + (len(part) if isinstance(part, bytes) else memoryview(part.obj).nbytes)


class Decoders:
    """The threads. `start`, then `stop` once."""

    def __init__(self, threads: int = DECODERS, waiting_bytes_max: int = WAITING_BYTES_MAX) -> None:
        """Begin with nothing to do."""
        self._waiting_bytes_max = waiting_bytes_max
        self._waiting_bytes = 0
        self._ready: deque[Lane] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._run, name=f"decoder-{number}", daemon=True) for number in range(threads)
        ]

    def start(self) -> None:
        """Begin to decode."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End; no lane is in use any more."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def lane(self, take: Callable[[Part], None], on_error: Callable[[], None] = lambda: None) -> Lane:
        """Give a lane whose parts `take` is called with; after an error of it, it is called no more.

        Args:
            on_error: called once there is one, by another thread, for whoever waits for something else meanwhile.
        """
        return Lane(self, take, on_error)

    def _put(self, lane: Lane, part: Part) -> None:
        size = held_by(part)
        with self._changed:
            self._changed.wait_for(
                lambda: lane.error is not None
                or not self._waiting_bytes
                or self._waiting_bytes + size <= self._waiting_bytes_max
            )
            if lane.error is not None:
                raise lane.error
            lane.parts.append(part)
            self._waiting_bytes += size
            if not lane.is_queued:
                lane.is_queued = True
                self._ready.append(lane)
                self._changed.notify_all()

    def _finish(self, lane: Lane) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not lane.is_queued)
            if lane.error is not None:
                raise lane.error

    def _drop(self, lane: Lane) -> None:
        with self._changed:
            self._forget_parts(lane)
            # A part that is being taken is taken to its end: its memory is given back before the lane's.
            self._changed.wait_for(lambda: not lane.is_queued)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or bool(self._ready))
                if not self._ready:
                    return
                lane = self._ready.popleft()
                part = lane.parts.popleft() if lane.parts else None
            if part is not None:
                self._take(lane, part)
            size, part = (0 if part is None else held_by(part)), None
            with self._changed:
                self._waiting_bytes -= size
                if lane.error is not None:
                    self._forget_parts(lane)
                if lane.parts:
                    self._ready.append(lane)  # behind the others: each gets its turn
                else:
                    lane.is_queued = False
                self._changed.notify_all()

    @staticmethod
    def _take(lane: Lane, part: Part) -> None:
        try:
            lane.take(part)
        except Exception as error:  # noqa: BLE001 - it is whoever waits for the lane that it belongs to
            lane.error = error
            lane.on_error()

    def _forget_parts(self, lane: Lane) -> None:
        self._waiting_bytes -= sum(map(held_by, lane.parts))
        lane.parts.clear()


class Lane:
    """One payload's parts, in order. For one thread that puts."""

    def __init__(self, decoders: Decoders, take: Callable[[Part], None], on_error: Callable[[], None]) -> None:
        self._decoders = decoders
        self.on_error = on_error
        # These are the decoders': under their lock, but for `take`, which one of their threads calls at a time.
        self.take = take
        self.parts: deque[Part] = deque()
        self.error: Exception | None = None
        self.is_queued = False

    def put(self, part: Part) -> None:
        """Have `part` taken later; wait while too much is waiting. Nobody changes its bytes any more.

        Raises:
            Exception: what taking an earlier part raised.
        """
        self._decoders._put(self, part)

    def check(self) -> None:
        """Look how it goes.

        Raises:
            Exception: what taking a part raised.
        """
        if self.error is not None:
            raise self.error

    def finish(self) -> None:
        """Wait until all parts were taken.

        Raises:
            Exception: what taking one of them raised.
        """
        self._decoders._finish(self)

    def drop(self) -> None:
        """Forget what waits; when this returns, nothing is being taken."""
        self._decoders._drop(self)
