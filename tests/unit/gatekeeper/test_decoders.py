"""Lanes of parts that a few threads take: in order, bounded in memory, and an error is its own lane's."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from sfrl_secure.errors import DeniedError
from sfrl_secure.services.gatekeeper.decoders import PART_BYTES, Decoders, Part, held_by


@pytest.fixture
def decoders() -> Iterator[Decoders]:
    made = Decoders(threads=2, waiting_bytes_max=2 * held_by(b"12345"))
    made.start()
    yield made
    made.stop()


class Gate:
    """Takes parts, once it is open."""

    def __init__(self) -> None:
        self.opened, self.begun = threading.Event(), threading.Event()
        self.taken: list[bytes] = []

    def __call__(self, part: Part) -> None:
        self.begun.set()
        assert self.opened.wait(10)
        self.taken.append(bytes(part))


def test_parts_of_a_lane_are_taken_in_order_and_by_one_thread(decoders: Decoders) -> None:
    taken: dict[int, list[bytes]] = {0: [], 1: [], 2: []}
    inside: dict[int, int] = dict.fromkeys(taken, 0)

    def taker(number: int) -> Gate:
        def take(part: Part) -> None:
            inside[number] += 1
            assert inside[number] == 1, "two threads are in one lane"
            taken[number].append(bytes(part))
            inside[number] -= 1

        return take  # type: ignore[return-value]

    lanes = [decoders.lane(taker(number)) for number in taken]
    for n in range(200):
        for lane in lanes:
            lane.put(b"%d" % n)
    for lane in lanes:
        lane.finish()
    assert all(parts == [b"%d" % n for n in range(200)] for parts in taken.values())


def test_who_puts_waits_while_too_much_is_waiting(decoders: Decoders) -> None:
    gate = Gate()
    lane = decoders.lane(gate)
    lane.put(b"12345")
    assert gate.begun.wait(10)
    lane.put(b"67890")
    more = threading.Thread(target=lane.put, args=(b"more",))
    more.start()
    more.join(0.1)
    assert more.is_alive(), "two parts of 5 bytes wait, and a third was taken"
    gate.opened.set()
    more.join(10)
    lane.finish()
    assert gate.taken == [b"12345", b"67890", b"more"]


def test_a_lane_that_stands_still_does_not_stop_the_others(decoders: Decoders) -> None:
    stuck, gate = decoders.lane(standing := Gate()), Gate()
    stuck.put(b"01234")
    assert standing.begun.wait(10)
    other = decoders.lane(gate)
    gate.opened.set()
    for part in (b"56789", b"abcde"):
        other.put(part)
        other.finish()
    assert gate.taken == [b"56789", b"abcde"]
    standing.opened.set()
    stuck.finish()


def test_a_part_that_is_longer_than_all_that_may_wait_waits_alone(decoders: Decoders) -> None:
    gate = Gate()
    gate.opened.set()
    lane = decoders.lane(gate)
    lane.put(bytes(3 * PART_BYTES))
    lane.finish()
    assert len(gate.taken) == 1


def test_a_part_counts_for_all_that_it_keeps_in_memory() -> None:
    """Of a chunk that was skipped but for its last byte the whole message is held; and an empty object is one too."""
    assert held_by(b"") == PART_BYTES
    assert held_by(bytes(9)) == PART_BYTES + 9
    assert held_by(memoryview(bytes(9))[-1:]) == PART_BYTES + 9


def test_what_taking_raises_is_told_to_who_puts_and_to_who_finishes(decoders: Decoders) -> None:
    def refuse(part: Part) -> None:
        raise DeniedError("digest_mismatch", "no")

    lane = decoders.lane(refuse)
    lane.put(b"one")
    with pytest.raises(DeniedError):
        lane.finish()
    with pytest.raises(DeniedError):
        lane.put(b"two")
    lane.drop()
    fine: list[bytes] = []
    other = decoders.lane(lambda part: fine.append(bytes(part)))
    other.put(b"fine")
    other.finish()
    assert fine == [b"fine"]


def test_after_an_error_nothing_more_is_taken_and_its_room_is_given_back(decoders: Decoders) -> None:
    gate = Gate()

    def take(part: Part) -> None:
        gate(part)
        raise DeniedError("digest_mismatch", "no")

    lane = decoders.lane(take)
    lane.put(b"1")
    assert gate.begun.wait(10)
    lane.put(b"23456789")
    gate.opened.set()
    with pytest.raises(DeniedError):
        lane.finish()
    assert gate.taken == [b"1"]
    assert decoders._waiting_bytes == 0


def test_a_lane_that_is_dropped_takes_nothing_more(decoders: Decoders) -> None:
    gate = Gate()
    lane = decoders.lane(gate)
    lane.put(b"1")
    assert gate.begun.wait(10)
    lane.put(b"2")
    dropping = threading.Thread(target=lane.drop)
    dropping.start()
    dropping.join(0.1)
    assert dropping.is_alive(), "what is being taken is taken to its end first"
    gate.opened.set()
    dropping.join(10)
    assert gate.taken == [b"1"]
    assert decoders._waiting_bytes == 0
