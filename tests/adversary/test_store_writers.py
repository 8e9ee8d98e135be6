"""The store's writer: whoever can write where payloads lie gets no honest update dropped, and none counted.

He sees when an object is read, and can put other bytes there for that moment and the right ones back. The aggregator
decides by the bytes that it read; what was not what its name says decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from simulator import Simulator

from sfrl_secure.ids import Digest
from sfrl_secure.storage.object_reader import FileReader, ObjectReader
from sfrl_secure.storage.objects import ObjectStore

from .arena import Arena

Change = Callable[[bytes], bytes]

ROVERS = ("rover-1", "rover-2", "rover-3")

CHANGES: dict[str, Change] = {
    "the last byte of a leaf": lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]),
    "the header": lambda raw: raw[:9] + b"\xff" + raw[10:],
    "a leaf hash": lambda raw: raw[:40] + bytes([raw[40] ^ 1]) + raw[41:],
    "everything": lambda raw: bytes(len(raw)),
    "a byte more": lambda raw: raw + b"\0",
    "a byte fewer": lambda raw: raw[:-1],
}


class FlickeringObjects(ObjectStore):
    """Objects of which one is another for the next so many times that it is opened, and then for one pass of reading.

    Attributes:
        left: how many times its bytes are still changed.
    """

    def __init__(self, folder: Path, digest: Digest, change: Change, times: int) -> None:
        super().__init__(folder)
        self._digest, self._change, self.left = digest, change, times

    def open(self, digest: Digest, bytes_max: int) -> ObjectReader:
        if digest != self._digest or not self.left:
            return super().open(digest, bytes_max)
        self.left -= 1
        path = self.path(digest)
        good = path.read_bytes()
        path.write_bytes(self._change(good))
        return _PutBack(path, good, digest, bytes_max, self._hashed)


class _PutBack(FileReader):
    """Once what is there was read, or given up, the right bytes are there again."""

    def __init__(self, path: Path, good: bytes, digest: Digest, bytes_max: int, hashed: object) -> None:
        super().__init__(path, digest, bytes_max, hashed)  # type: ignore[arg-type]
        self._path, self._good = path, good

    def check_digest(self) -> None:
        self._path.write_bytes(self._good)
        self.size = len(self._good)
        super().check_digest()

    def close(self) -> None:
        self._path.write_bytes(self._good)
        super().close()


@pytest.fixture
def arena(tmp_path: Path) -> Iterator[Arena]:
    with Arena(tmp_path) as made:
        made.sim.open_round()
        for number, name in enumerate(ROVERS):
            made.sim.admit(name, {0: 5, 3: -7, 17: 100 + number})
        yield made


def flickering(sim: Simulator, change: Change, times: int) -> FlickeringObjects:
    current = sim.segment.open_round
    assert current is not None
    digest = current.admissions["rover-2"].update.payload_sha256
    return FlickeringObjects(sim.folder / "objects", digest, change, times)


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_bytes_that_were_others_for_a_moment_drop_no_update(arena: Arena, change: Change, times: int) -> None:
    sim = arena.sim
    sim.objects = flickering(sim, change, times)
    aggregator = sim.aggregator()
    for _ in range(times + 2):
        aggregator.step()
    closed = sim.segment.rounds[1].closed
    assert closed is not None
    assert (closed.dropped, closed.counted_count) == ((), len(ROVERS))
    arena.verify()
