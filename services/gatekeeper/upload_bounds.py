"""What uploads may hold at once: how many there are in all and of one peer, and how many bytes of them lie on the disk.

Over a bound a call is refused, which is no decision (step 10). What a broken call left behind still counts, until it is
gone on with, or forgotten: the oldest first, of the same peer where that has left too many, else where others need the
room. A second call of one upload by one peer takes the first one's place: see `upload_places`.

Format: proto/README.md, "Upload".

Runs in: gatekeeper.
Trusts: nothing.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sfrl_secure.errors import ExhaustedError
from sfrl_secure.ids import Digest, SpiffeId
from sfrl_secure.limits import PAYLOAD_BYTES_MAX
from sfrl_secure.services.gatekeeper.upload_places import WAIT_SECONDS, UploadPlace, UploadSlot
from sfrl_secure.storage.uploads import Uploads

UPLOADS_OF_PEER_MAX = 4
"""Uploads that one peer has under way, and as many that it has left unfinished."""

_Name = tuple[SpiffeId, Digest]


class UploadBounds:
    """Counts uploads. Safe for several threads."""

    def __init__(
        self,
        count_max: int,
        bytes_max: int,
        forget: Callable[[Digest], None],
        *,
        peer_max: int = UPLOADS_OF_PEER_MAX,
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        """Allow `count_max` at once with `bytes_max` in all, `peer_max` of one peer.

        Args:
            forget: drops what an upload of this name has left.
            wait_seconds: how long a call waits for the one whose place it takes.
        """
        self._count_max, self._peer_max, self._bytes_max = count_max, peer_max, bytes_max
        self._forget, self._wait_seconds = forget, wait_seconds
        self._slots: dict[_Name, UploadSlot] = {}
        self._of_peer: Counter[SpiffeId] = Counter()
        self._left: OrderedDict[_Name, int] = OrderedDict()  # the oldest first
        self._changed = threading.Condition()

    @contextmanager
    def held_by(self, peer: SpiffeId, digest: Digest, size: int) -> Iterator[UploadPlace]:
        """Hold the place of an upload of `size` bytes; end the call that had it, and wait until it has let go.

        Raises:
            ExhaustedError: there is none now; no decision was made.
            CallEndedError: a newer call of the same upload came meanwhile.
        """
        name, place = (peer, digest), UploadPlace(self._changed)
        with self._changed:
            slot, replaced, forgotten = self._enter(name, size, place)
        try:
            for before in replaced:
                before.take()
            self._forget_all(forgotten)
            if slot.inside is not place:
                slot.move_in(place, self._changed, self._wait_seconds)
            yield place
        finally:
            with self._changed:
                forgotten = self._leave(name, slot, place)
                self._changed.notify_all()
            self._forget_all(forgotten)

    @property
    def count(self) -> int:
        """Uploads under way."""
        return len(self._slots)

    def _enter(
        self, name: _Name, size: int, place: UploadPlace
    ) -> tuple[UploadSlot, list[UploadPlace], list[Digest]]:
        """The upload's slot, whose place is taken, and what is forgotten for it."""
        slot = self._slots.get(name)
        if slot is not None:
            replaced = {before for before in (slot.newest, slot.inside) if before is not None}
            slot.newest = place
            return slot, list(replaced), []
        if len(self._slots) >= self._count_max:
            raise ExhaustedError(f"at most {self._count_max} uploads are under way at once: try again")
        if self._of_peer[name[0]] >= self._peer_max:
            raise ExhaustedError(f"one participant has at most {self._peer_max} uploads under way at once")
        if self._under_way + size > self._bytes_max:
            raise ExhaustedError(f"at most {self._bytes_max} bytes of uploads are under way at once: try again")
        self._of_peer[name[0]] += 1
        place.left_bytes = self._left.pop(name, 0)
        slot = self._slots[name] = UploadSlot(size, place, place, place.left_bytes)
        return slot, [], self._make_room(self._bytes_max - self._under_way)

    def _leave(self, name: _Name, slot: UploadSlot, place: UploadPlace) -> list[Digest]:
        if not slot.leave(place) or self._slots.get(name) is not slot:
            return []  # another call has it, with what this one left
        peer = name[0]
        del self._slots[name]
        self._of_peer[peer] -= 1
        if not self._of_peer[peer]:
            del self._of_peer[peer]
        if not slot.left_bytes:
            return []
        self._left[name] = slot.left_bytes
        of_peer = [each for each in self._left if each[0] == peer]
        forgotten = [self._drop(each) for each in of_peer[: -self._peer_max]]
        return forgotten + self._make_room(self._bytes_max - self._under_way)

    @property
    def _under_way(self) -> int:
        return sum(slot.size for slot in self._slots.values())

    def _forget_all(self, names: list[Digest]) -> None:
        for name in names:
            self._forget(name)

    def _make_room(self, left_max: int) -> list[Digest]:
        forgotten = []
        while self._left and sum(self._left.values()) > left_max:
            forgotten.append(self._drop(next(iter(self._left))))
        return forgotten

    def _drop(self, name: _Name) -> Digest:
        del self._left[name]
        return name[1]


def forget_in(uploads: Uploads) -> Callable[[Digest], None]:
    """What drops all that is left of an upload, but for what a call is writing."""

    def forget(digest: Digest) -> None:
        with uploads.begin(digest, PAYLOAD_BYTES_MAX) as upload:
            upload.discard()

    return forget
