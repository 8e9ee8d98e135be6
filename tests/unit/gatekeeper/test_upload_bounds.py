"""Places for uploads: in all, of a peer, by bytes; what broken calls left counts; a second call takes the place, when
the first has let go of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

from sfrl_secure.errors import ConflictError, ExhaustedError, SfrlError
from sfrl_secure.ids import Digest, parse_spiffe_id, sha256
from sfrl_secure.services.gatekeeper.arrivals import CallEndedError
from sfrl_secure.services.gatekeeper.upload_bounds import UploadBounds
from sfrl_secure.services.gatekeeper.upload_places import UploadPlace

ROVER, OTHER = (parse_spiffe_id(f"spiffe://farm.example/participant/rover-{n}") for n in (1, 2))


def name(number: int) -> Digest:
    return sha256(b"%d" % number)


class Bounds:
    """Bounds, what they have forgotten, and places that are held."""

    def __init__(self, **changes: Any) -> None:
        self.forgotten: list[Digest] = []
        settings = {"count_max": 9, "bytes_max": 100, "forget": self.forgotten.append, "wait_seconds": 60.0}
        self.bounds = UploadBounds(**settings | changes)
        self._held: dict[int, tuple[ExitStack, UploadPlace]] = {}

    def hold(self, number: int, peer: Any = ROVER, size: int = 1) -> UploadPlace:
        stack = ExitStack()
        place = stack.enter_context(self.bounds.held_by(peer, name(number), size))
        self._held[id(place)] = stack, place
        return place

    def leave(self, place: UploadPlace, left_bytes: int = 0) -> None:
        place.left_bytes = left_bytes
        self._held.pop(id(place))[0].close()


def test_so_many_are_under_way_and_no_more() -> None:
    bounds = Bounds(count_max=3)
    places = [bounds.hold(n, peer) for n, peer in enumerate((ROVER, ROVER, OTHER))]
    with pytest.raises(ExhaustedError, match="at most 3 uploads"):
        bounds.hold(3, OTHER)
    bounds.leave(places[0])
    bounds.hold(3, OTHER)


def test_one_peer_has_four_and_leaves_room_for_others() -> None:
    bounds = Bounds()
    places = [bounds.hold(n) for n in range(4)]
    with pytest.raises(ExhaustedError, match="one participant has at most 4"):
        bounds.hold(4)
    bounds.hold(4, OTHER)
    bounds.leave(places[3])
    bounds.hold(5)


def test_bytes_are_counted_by_what_was_signed_for() -> None:
    bounds = Bounds()
    place = bounds.hold(0, size=60)
    with pytest.raises(ExhaustedError, match="at most 100 bytes"):
        bounds.hold(1, OTHER, size=41)
    bounds.hold(1, OTHER, size=40)
    bounds.leave(place)
    bounds.hold(2, size=60)


def nothing(*_: object) -> None:
    """What a call that holds nothing does when its place is taken."""


def wait_for(holds: Callable[[], bool]) -> None:
    for _ in range(10_000):
        if holds():
            return
        threading.Event().wait(0.001)
    raise AssertionError("it did not come true")


class Holding(threading.Thread):
    """A call in a thread of its own, which holds a place until it is let go, or is told why it has none."""

    def __init__(self, bounds: UploadBounds, number: int = 0, size: int = 1) -> None:
        super().__init__()
        self.has_place, self.goes = threading.Event(), threading.Event()
        self.error: SfrlError | None = None
        self.place: UploadPlace | None = None
        self._bounds, self._number, self._size = bounds, number, size
        self.start()

    def run(self) -> None:
        try:
            with self._bounds.held_by(ROVER, name(self._number), self._size) as self.place:
                self.has_place.set()
                assert self.goes.wait(10)
        except SfrlError as error:
            self.error = error

    def end(self) -> None:
        self.goes.set()
        self.join(10)


def newest(bounds: UploadBounds) -> UploadPlace | None:
    return next(iter(bounds._slots.values())).newest


def test_a_second_call_ends_the_first_and_has_the_place_when_it_has_left() -> None:
    bounds, ended = Bounds(count_max=1), list[SfrlError]()
    first = bounds.hold(0, size=100)
    first.on_taken(ended.append, nothing)
    second = Holding(bounds.bounds, size=100)
    wait_for(lambda: bool(ended))
    assert first.is_taken
    assert isinstance(ended[0], ConflictError)
    assert not second.has_place.wait(0.05), "two calls are at one upload"
    with pytest.raises(CallEndedError):
        first.check()
    late: list[SfrlError] = []
    first.on_taken(late.append, nothing)
    assert len(late) == 1, "who asks after it was taken is told at once"
    bounds.leave(first, left_bytes=50)
    assert second.has_place.wait(10)
    assert second.place is not None
    # The first one's end gives nothing back: the place is the second one's, and so is what was left.
    # And since the first came to its own end, it may have decided.
    assert (second.place.left_bytes, second.place.had_to_wait, second.place.is_taken) == (50, True, False)
    with pytest.raises(ExhaustedError):
        bounds.hold(1, OTHER)
    second.end()
    assert bounds.forgotten == []
    bounds.hold(1, OTHER, size=60)
    assert bounds.forgotten == [name(0)], "what the first had left was counted on"


def test_of_a_call_that_rests_the_second_lets_go_at_once_and_the_first_touches_nothing_more() -> None:
    """It hangs in an answer to a link that is dead, for a minute perhaps."""
    bounds = Bounds()
    first, seconds = bounds.hold(0), list[UploadPlace]()

    def release() -> None:
        assert first.is_released
        first.left_bytes = 7

    first.on_taken(nothing, release)
    with pytest.raises(CallEndedError), first.resting():
        seconds.append(bounds.hold(0))
    (second,) = seconds
    assert (second.left_bytes, second.had_to_wait) == (7, False)
    assert first.is_released
    assert not second.is_taken
    bounds.leave(first, left_bytes=99)
    bounds.hold(1, OTHER, size=99)
    bounds.leave(second)
    assert bounds.forgotten == []


def test_a_call_that_was_taken_while_it_worked_does_not_begin_to_rest() -> None:
    bounds = Bounds()
    first = bounds.hold(0)
    second = Holding(bounds.bounds)
    wait_for(lambda: first.is_taken)
    with pytest.raises(CallEndedError), first.resting():
        raise AssertionError("it rests")
    bounds.leave(first)
    assert second.has_place.wait(10)
    second.end()


def test_of_many_calls_that_wait_the_last_one_stays() -> None:
    """Each waits on a thread: whoever calls a hundred times has two of them."""
    bounds = Bounds()
    first = bounds.hold(0)
    waiting: list[Holding] = []
    for _ in range(5):
        before = newest(bounds.bounds)
        waiting.append(Holding(bounds.bounds))
        wait_for(lambda before=before: newest(bounds.bounds) is not before)  # type: ignore[misc]
        for each in waiting[:-1]:
            each.join(10)
            assert isinstance(each.error, CallEndedError)
            assert getattr(each.error.error, "reason", None) == "superseded"
    assert bounds.bounds.count == 1
    bounds.leave(first)
    assert waiting[-1].has_place.wait(10)
    waiting[-1].end()
    assert bounds.bounds.count == 0


def test_who_waits_too_long_is_sent_away_and_the_first_keeps_its_place() -> None:
    bounds = Bounds(wait_seconds=0.01, count_max=1)
    first = bounds.hold(0)
    with pytest.raises(ExhaustedError, match="still at this upload"):
        bounds.hold(0)
    with pytest.raises(ExhaustedError, match="at most 1 uploads"):
        bounds.hold(1, OTHER)
    bounds.leave(first, left_bytes=5)
    bounds.hold(0)


def test_another_peers_call_of_the_same_upload_has_a_place_of_its_own() -> None:
    """Or whoever carries an update could end its owner's calls for ever."""
    bounds = Bounds()
    first = bounds.hold(0)
    bounds.hold(0, OTHER)
    assert not first.is_taken


def test_what_was_left_counts_until_there_is_need_of_the_room_and_the_oldest_goes_first() -> None:
    bounds = Bounds()
    for n in range(3):
        bounds.leave(bounds.hold(n, size=40), left_bytes=30)
    bounds.hold(3, OTHER, size=10)
    assert bounds.forgotten == []
    bounds.hold(4, OTHER, size=1)
    assert bounds.forgotten == [name(0)]
    bounds.hold(5, OTHER, size=89 - 30)
    assert bounds.forgotten == [name(0), name(1)]


def test_what_is_gone_on_with_is_not_forgotten_for_itself() -> None:
    bounds = Bounds()
    bounds.leave(bounds.hold(0, size=100), left_bytes=99)
    bounds.hold(0, size=100)
    assert bounds.forgotten == []


def test_a_peer_leaves_four_unfinished_and_for_a_fifth_its_oldest_is_forgotten() -> None:
    bounds = Bounds()
    bounds.leave(bounds.hold(9, OTHER), left_bytes=1)
    for n in range(5):
        bounds.leave(bounds.hold(n), left_bytes=1)
    assert bounds.forgotten == [name(0)]


def test_an_upload_that_leaves_nothing_is_not_remembered() -> None:
    bounds = Bounds(bytes_max=1)
    for n in range(9):
        bounds.leave(bounds.hold(n))
    assert bounds.forgotten == []
