"""Rooms: used again, and never while somebody looks at what is in one."""

from __future__ import annotations

import errno
import mmap
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from sfrl_secure.aggregation import buffers
from sfrl_secure.aggregation.buffers import LARGE_PAGE, ROOMS_KEPT, Rooms
from sfrl_secure.aggregation.models import ModelSnapshot, model_bytes
from sfrl_secure.governance.manifest import ModelManifest, TensorSpec

MANIFEST = ModelManifest((TensorSpec("w", (5,), "int32"), TensorSpec("b", (2,), "int64")))
ONE = np.ones(7, dtype=np.int64)


def test_a_room_is_given_again_when_no_view_of_it_is_left() -> None:
    rooms = Rooms()
    room = rooms.take(100)
    memory = id(room.obj)
    assert id(rooms.take(100).obj) != memory
    view = room[10:20].toreadonly()
    del room
    assert id(rooms.take(100).obj) != memory
    array = np.frombuffer(view, dtype=np.uint8)[2:]
    del view
    assert id(rooms.take(100).obj) != memory
    del array
    assert id(rooms.take(100).obj) == memory


def test_a_room_has_the_length_that_was_asked_for_and_may_be_written() -> None:
    room = Rooms().take(100)
    assert (len(room), room.readonly) == (100, False)


def test_what_is_a_little_longer_or_shorter_fits_where_something_was_and_nothing_else_does() -> None:
    rooms = Rooms()
    memory = id(rooms.take(LARGE_PAGE).obj)
    assert id(rooms.take(1).obj) == memory
    assert id(rooms.take(LARGE_PAGE + 1).obj) != memory
    longer = Rooms()
    memory = id(longer.take(LARGE_PAGE + 1).obj)
    assert id(longer.take(LARGE_PAGE).obj) != memory
    assert id(longer.take(2 * LARGE_PAGE).obj) == memory


def test_two_threads_that_ask_at_once_never_get_the_same_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trainer's weights and the next round's model: whoever writes second would write over a proven model."""
    looked = buffers._is_free

    def look_slowly(room: bytearray | mmap.mmap) -> bool:
        is_free = looked(room)
        time.sleep(0.05)
        return is_free

    rooms = Rooms()
    rooms.take(100).release()
    monkeypatch.setattr(buffers, "_is_free", look_slowly)
    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(rooms.take, (100, 100))
    assert first.obj is not second.obj


def test_a_kernel_without_large_pages_gives_room_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    class SmallPages(mmap.mmap):
        def madvise(self, *_args: int) -> None:
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(mmap, "mmap", SmallPages)
    assert len(Rooms().take(100)) == 100


def test_no_more_rooms_are_kept_than_it_takes() -> None:
    rooms = Rooms()
    views = [rooms.take(8) for _ in range(ROOMS_KEPT + 2)]
    assert len(rooms._rooms) == ROOMS_KEPT
    last = views.pop().obj
    views.clear()
    assert {id(rooms.take(8).obj)} <= {id(each) for each in rooms._rooms}
    assert any(each is last for each in rooms._rooms)


def test_rounds_of_models_beyond_a_large_page_soon_ask_for_nothing_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two models are kept; weights, the change where the next model will be, and a payload that asks for far more."""
    made: list[int] = []
    keep = Rooms._keep
    monkeypatch.setattr(Rooms, "_keep", lambda rooms, room: (made.append(len(room)), keep(rooms, room)))
    rooms, model = Rooms(), 3 * LARGE_PAGE - 100
    kept: list[memoryview] = []
    made_by = []
    for _ in range(8):
        kept = [*kept, rooms.take(model)][-2:]
        weights = rooms.take(model - 90)
        change = rooms.take(model - 90)
        payload = rooms.take(6 * model)
        del weights, change, payload
        made_by.append(len(made))
    assert made_by[2:] == [made_by[2]] * 6


def test_what_arrived_in_a_bytearray_is_a_room_later() -> None:
    rooms = Rooms()
    arrived = bytearray(b"model")
    view = memoryview(arrived).toreadonly()
    rooms.give(view)
    rooms.give(memoryview(b"model"))
    assert rooms.take(5).obj is not arrived
    view.release()
    del view
    taken = [rooms.take(5) for _ in range(2)]
    assert any(room.obj is arrived for room in taken)


def test_a_model_that_is_held_is_not_written_over() -> None:
    """Round after round in the same rooms, while somebody keeps the weights, and another the bytes, of one model."""
    rooms, length = Rooms(), model_bytes(MANIFEST)
    model = ModelSnapshot(MANIFEST, 16, np.zeros(7, dtype=np.int64))
    held: list[tuple[int, ModelSnapshot]] = []
    looked_at: list[tuple[bytes, memoryview]] = []
    for number in range(1, 20):
        model = model.add(ONE, room=rooms.take(length))
        assert model.values.tolist() == [number] * 7
        assert model.raw.readonly
        if number == 4:
            held.append((number, model))
        if number == 6:
            looked_at.append((model.to_bytes(), model.raw))
    for number, kept in held:
        assert kept.values.tolist() == [number] * 7
    for copy, raw in looked_at:
        assert raw == copy


def test_a_model_in_a_room_has_the_same_bytes_as_one_in_new_memory() -> None:
    base = ModelSnapshot(MANIFEST, 16, np.arange(7, dtype=np.int64))
    room = Rooms().take(model_bytes(MANIFEST))
    room[:] = b"\xff" * len(room)
    assert base.add(ONE, room=room).to_bytes() == base.add(ONE).to_bytes()
