"""Room for models, used again once nobody looks at what was in it.

To have 45 MB of fresh memory from the system takes longer than to add a step to a model that is there: the system
clears each page first. So whoever makes one model out of another, round after round, keeps the room of the one before
the last. Where the system has large pages it is asked for those: in small ones the first time takes four times as long.

Runs in: aggregator, participant.
Trusts: the interpreter, which counts who looks at a bytearray or a map of memory, and resizes none that somebody looks
at.
"""

from __future__ import annotations

import mmap

ROOMS_KEPT = 3
"""For a model, for what comes of it, and for the one before, which somebody may still hold."""

Room = bytearray | mmap.mmap


class ModelRooms:
    """Some rooms. For one thread."""

    def __init__(self) -> None:
        self._rooms: list[Room] = []

    def take(self, length: int) -> Room:
        """Give room for `length` bytes, at least 1, whatever they are, that nobody looks at.

        It is given again when no view of it is left: whoever wants to keep what is in it keeps a view.
        """
        for room in self._rooms:
            if len(room) == length and _is_free(room):
                return room
        fresh = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            fresh.madvise(mmap.MADV_HUGEPAGE)
        self._keep(fresh)
        return fresh

    def give(self, view: memoryview) -> None:
        """Let the bytearray under a view be a room, once nobody looks at it: nobody else writes into it any more."""
        if isinstance(view.obj, bytearray):
            self._keep(view.obj)

    def _keep(self, room: Room) -> None:
        self._rooms = [*self._rooms, room][-ROOMS_KEPT:]


def _is_free(room: Room) -> bool:
    try:
        if isinstance(room, bytearray):
            room.append(0)
            room.pop()
        else:
            room.resize(len(room))
    except BufferError:
        return False
    return True
