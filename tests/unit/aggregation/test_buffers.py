"""Rooms for models: used again, and never while somebody looks at what is in one."""

from __future__ import annotations

import numpy as np

from sfrl_secure.aggregation.buffers import ROOMS_KEPT, ModelRooms
from sfrl_secure.aggregation.models import ModelSnapshot, model_bytes
from sfrl_secure.governance.manifest import ModelManifest, TensorSpec

MANIFEST = ModelManifest((TensorSpec("w", (5,), "int32"), TensorSpec("b", (2,), "int64")))
ONE = np.ones(7, dtype=np.int64)


def test_a_room_is_given_again_when_no_view_of_it_is_left() -> None:
    rooms = ModelRooms()
    room = rooms.take(100)
    view = memoryview(room)[10:20].toreadonly()
    assert rooms.take(100) is not room
    array = np.frombuffer(view, dtype=np.uint8)[2:]
    del view
    assert rooms.take(100) is not room
    del array
    assert rooms.take(100) is room
    assert len(room) == 100


def test_a_room_of_another_length_is_not_given() -> None:
    rooms = ModelRooms()
    room = rooms.take(100)
    assert len(rooms.take(101)) == 101
    assert rooms.take(100) is room


def test_no_more_rooms_are_kept_than_it_takes() -> None:
    rooms = ModelRooms()
    views = [memoryview(rooms.take(8)) for _ in range(ROOMS_KEPT + 2)]
    assert len(rooms._rooms) == ROOMS_KEPT
    last = views.pop().obj
    views.clear()
    assert {id(rooms.take(8))} <= {id(each) for each in rooms._rooms}
    assert any(each is last for each in rooms._rooms)


def test_what_arrived_in_a_bytearray_is_a_room_later() -> None:
    rooms = ModelRooms()
    arrived = bytearray(b"model")
    view = memoryview(arrived).toreadonly()
    rooms.give(view)
    rooms.give(memoryview(b"model"))
    assert rooms.take(5) is not arrived
    view.release()
    del view
    assert rooms.take(5) is arrived


def test_a_model_that_is_held_is_not_written_over() -> None:
    """Round after round in the same rooms, while somebody keeps the weights, and another the bytes, of one model."""
    rooms, length = ModelRooms(), model_bytes(MANIFEST)
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
    room = ModelRooms().take(model_bytes(MANIFEST))
    memoryview(room)[:] = b"\xff" * len(room)
    assert base.add(ONE, room=room).to_bytes() == base.add(ONE).to_bytes()
