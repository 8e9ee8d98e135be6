"""Room for what is as large as a model, used again once nobody looks at what was in it.

To have 45 MB of fresh memory from the system takes longer than to add a step to a model that is there: the system
clears each page first, and a virtual machine's host may have to find it. So whoever makes one model out of another,
round after round, and weights and a payload from it, keeps the room of what is gone. Where the system has large pages
it is asked for those: in small ones the first time takes four times as long.

Runs in: aggregator, participant.
Trusts: the interpreter, which counts who looks at a bytearray or a map of memory, and resizes none that somebody looks
at.
"""

from __future__ import annotations

import mmap
from contextlib import suppress
from threading import Lock
from typing import Final

ROOMS_KEPT: Final = 5
"""For a model, for what comes of it, for the one before, which somebody may still hold, for weights, and for a payload,
which asks for as much as it could come to and mostly touches less.
"""
LARGE_PAGE: Final = 2 * 1024 * 1024
"""Rooms have a whole number of these bytes, so that what is a little longer than a model fits where a model was."""

Room = memoryview
"""Memory to be written into. It is given again when no view of it is left: whoever wants to keep what is in it keeps a
view, or an array over it."""


class Rooms:
    """Some rooms. Safe for several threads: weights are asked for wherever somebody trains."""

    def __init__(self) -> None:
        self._rooms: list[bytearray | mmap.mmap] = []
        self._lock = Lock()

    def take(self, length: int) -> Room:
        """Give room for exactly `length` bytes, at least 1, whatever they are, that nobody looks at."""
        with self._lock:
            for room in self._rooms:
                if length <= len(room) < length + LARGE_PAGE and _is_free(room):
                    return memoryview(room)[:length]
            fresh = mmap.mmap(-1, -(-length // LARGE_PAGE) * LARGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            # A kernel that was built without large pages refuses the question.
            with suppress(AttributeError, OSError):
                fresh.madvise(mmap.MADV_HUGEPAGE)
            self._keep(fresh)
            return memoryview(fresh)[:length]

    def give(self, view: memoryview) -> None:
        """Let the bytearray under a view be a room, once nobody looks at it: nobody else writes into it any more."""
        if isinstance(view.obj, bytearray):
            with self._lock:
                self._keep(view.obj)

    def _keep(self, room: bytearray | mmap.mmap) -> None:
        self._rooms = [*self._rooms, room][-ROOMS_KEPT:]


def _is_free(room: bytearray | mmap.mmap) -> bool:
    try:
        if isinstance(room, bytearray):
            room.append(0)
            room.pop()
        else:
            room.resize(len(room))
    except (BufferError, SystemError):  # the second where the system cannot ask: it is then new memory each time
        return False
    return True
