"""Every order in which the requests of several processes can reach one bucket, and every request that gets lost.

A process is a script of calls of the journal. Its code runs as it is, on answers that were written down: at the first
request without one it stops and says what it asks. So a process is where its answers have brought it, a state is what
the bucket holds and where each process is, and all states that can come about are visited, each once. A process that
has crashed is one that is never let go on: what must hold, holds in every state.

The store is S3 as documented: each request at once and whole, listings up to date, e-tags a hash of what an object
holds, several removals in any order.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, NoReturn
from unittest.mock import patch

import obstore
from obstore.exceptions import AlreadyExistsError, GenericError, PreconditionError

from sfrl_secure.errors import UncertainStateError
from sfrl_secure.storage import bucket_journal
from sfrl_secure.storage.bucket import Bucket
from sfrl_secure.storage.bucket_batch import parse_batch_object
from sfrl_secure.storage.bucket_floor import parse_floor
from sfrl_secure.storage.bucket_journal import BucketJournal

Objects = Mapping[str, bytes]
Ask = Callable[["Request"], Any]

OPEN, APPEND, DROP = "open", "append", "drop"


class Request(NamedTuple):
    """What a process asks: `get`, `list`, `put`, `create`, `replace` or `delete`; a `delete` is of one of `paths`."""

    verb: str
    path: str = ""
    data: bytes = b""
    tag: str = ""
    paths: tuple[str, ...] = ()


class State(NamedTuple):
    """A moment.

    Attributes:
        objects: what the bucket holds.
        written: each batch that ever stood there, by the index of its record; there is one record a batch.
        on_the_way: requests that got no answer, and may still take effect.
        losses: how many requests may yet be lost.
        places: how far each process is.
    """

    objects: frozenset[tuple[str, bytes]]
    written: frozenset[tuple[int, bytes]]
    on_the_way: frozenset[Request]
    losses: int
    places: tuple[Place, ...]


@dataclass(eq=False, slots=True)
class Place:
    """Where its answers have brought a process.

    Attributes:
        request: what it asks now; None where it has ended.
        done: how many actions of its script it has done.
        acknowledged: index and record of what it was told is durable.
    """

    number: int
    script: tuple[str, ...]
    answers: tuple[Any, ...]
    request: Request | None = None
    done: int = 0
    acknowledged: frozenset[tuple[int, bytes]] = frozenset()
    after: dict[Any, Place] = field(default_factory=dict)


class _NoAnswerYet(BaseException):
    def __init__(self, request: Request) -> None:
        self.request = request


class _InTurn:
    """A pool of threads that has none."""

    def __init__(self, *_: Any) -> None:
        pass

    def __enter__(self) -> _InTurn:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    map = map


def tag_of(data: bytes) -> str:
    """An e-tag, as S3 makes them: the same for the same bytes."""
    return hashlib.sha256(data).hexdigest()[:16]


@contextmanager
def asking(ask: Ask, run: int) -> Iterator[Bucket]:
    """A bucket whose every request goes to `ask`; the runs of those who open count up from `run`."""
    runs = iter(range(run, run + 100))

    def put(_: object, path: str, data: bytes, *, mode: Any = None, **__: Any) -> dict[str, str]:
        verb, tag = ("create", "") if mode == "create" else ("replace", mode["e_tag"]) if mode else ("put", "")
        while (answer := ask(Request(verb, path, bytes(data), tag))) == "repeat":
            pass
        if answer == "lost":
            raise GenericError("made to fail")
        if answer == "refused":
            raise AlreadyExistsError("there is one") if mode == "create" else PreconditionError("another one")
        return {"e_tag": tag_of(bytes(data))}

    def get(_: object, path: str) -> Any:
        data = ask(Request("get", path))
        if data is None:
            raise FileNotFoundError
        return type("Found", (), {"meta": {"size": len(data), "e_tag": tag_of(data)}, "bytes": lambda _: data})()

    def delete(_: object, paths: Sequence[str]) -> None:
        left = tuple(sorted(paths))
        while left:
            gone = ask(Request("delete", paths=left))
            if gone == "lost":
                raise GenericError("made to fail")
            left = tuple(path for path in left if path != gone)

    def list_(_: object, prefix: str, **__: Any) -> Any:
        yield [{"path": path, "size": size} for path, size in ask(Request("list", prefix))]

    with patch.multiple(obstore, put=put, get=get, delete=delete, list=list_), \
            patch.object(bucket_journal, "ThreadPoolExecutor", _InTurn), \
            patch.object(bucket_journal.secrets, "token_bytes", lambda length: next(runs).to_bytes(length, "big")):
        yield Bucket(object())  # type: ignore[arg-type] # whatever is asked of it goes to `ask`


def act(bucket: Bucket, number: int, script: Sequence[str], said: set[tuple[int, bytes]]) -> Iterator[None]:
    """Do what a script says, one action a turn; each append is of one record. Who could not open the log does nothing
    with it.
    """
    journal = None
    for at, action in enumerate(script):
        try:
            if action == OPEN:
                journal = None
                journal = BucketJournal(bucket)
            elif journal is not None and action == DROP:
                journal.drop_before(journal.count)
            elif journal is not None:
                index, record = journal.count, b"%d of process %d" % (at, number)
                journal.append_batch([record])
                said.add((index, record))
        except UncertainStateError:
            pass
        yield


def answer(objects: dict[str, bytes], request: Request) -> Any:
    """Do at once what is asked of a store, to `objects`, and give its answer; of several removals, the first."""
    there = objects.get(request.path)
    if request.verb == "get":
        return there
    if request.verb == "list":
        return tuple(sorted((path, len(data)) for path, data in objects.items() if path.startswith(request.path)))
    if request.verb == "delete":
        objects.pop(request.paths[0], None)
        return request.paths[0]
    is_refused = there is not None if request.verb == "create" else there is None or tag_of(there) != request.tag
    if request.verb != "put" and is_refused:
        return "refused"
    objects[request.path] = request.data
    return "done"


def created() -> dict[str, bytes]:
    """The objects of a new log of one record."""
    objects: dict[str, bytes] = {}
    with asking(lambda request: answer(objects, request), 0) as bucket:
        BucketJournal.create(bucket, [[b"the first"]])
    return objects


class Exploration:
    """The states that processes can come to, from a log of one record.

    In each it is checked that no name ever had two batches, that no process was told of another record than the one
    that stands there, that nothing is missing above the floor, and that a process which is alone from there on opens
    the log, finds all this, and goes on with it.
    """

    def __init__(self, objects: Objects, scripts: Sequence[Sequence[str]], *, losses: int = 0) -> None:
        """Let processes with `scripts` meet at `objects`; up to `losses` of their requests get lost."""
        self.visited = 0
        self._opened: set[tuple[frozenset[tuple[str, bytes]], frozenset[tuple[int, bytes]]]] = set()
        self._came_from: dict[State, tuple[State | None, str]] = {}
        places = tuple(self._go_on(Place(number, tuple(script), ())) for number, script in enumerate(scripts))
        here = frozenset(objects.items())
        self._first = State(here, _batches_of(objects), frozenset(), losses, places)

    def let(self, *numbers: int) -> Exploration:
        """Begin later: let each of these processes do the next action of its script at once."""
        for number in numbers:
            done = self._first.places[number].done
            while (place := self._first.places[number]).done == done:
                assert place.request is not None, "a script is at its end"
                _, self._first = next(self._answers(self._first, place, place.request))
        return self

    def walk(self, choices: Iterable[int]) -> None:
        """Visit the states on one way, each step the choice's share of those that are there."""
        state = self._first
        self._came_from[state] = (None, "")
        for choice in choices:
            steps = list(self._steps(state))
            if not steps:
                return
            step, later = steps[choice % len(steps)]
            if later not in self._came_from:
                self._came_from[later] = (state, step)
                self._check(later)
            state = later
            self.visited += 1

    def visit_all(self) -> None:
        """Visit every state; the first fault is an AssertionError that says how it came about."""
        self._came_from[self._first] = (None, "")
        waiting = deque([self._first])
        while waiting:
            state = waiting.popleft()
            self.visited += 1
            for step, later in self._steps(state):
                if later not in self._came_from:
                    self._came_from[later] = (state, step)
                    self._check(later)
                    waiting.append(later)

    def _steps(self, state: State) -> Iterator[tuple[str, State]]:
        for place in state.places:
            request = place.request
            if request is None:
                continue
            # Several removals come in any order.
            for one in [request._replace(paths=(path,)) for path in request.paths] or [request]:
                yield from self._answers(state, place, one)
        for request in state.on_the_way:
            objects = dict(state.objects)
            answer(objects, request)
            yield f"arrives late: {request}", _put_down(state, objects)._replace(
                on_the_way=state.on_the_way - {request}
            )

    def _answers(self, state: State, place: Place, request: Request) -> Iterator[tuple[str, State]]:
        objects = dict(state.objects)
        given = answer(objects, request)
        done = _put_down(state, objects)
        name = f"{place.number}: {request}"
        yield f"{name}: {given!r}", self._step(done, place, given)
        if state.losses and request.verb not in ("get", "list"):
            fewer = state.losses - 1
            lost = state._replace(losses=fewer, on_the_way=state.on_the_way | {request})
            yield f"{name}: no answer, on the way", self._step(lost, place, "lost")
            yield f"{name}: no answer, done", self._step(done._replace(losses=fewer), place, "lost")
            if request.verb != "delete":
                yield f"{name}: done, and asked again", self._step(done._replace(losses=fewer), place, "repeat")

    def _step(self, state: State, place: Place, given: Any) -> State:
        if given not in place.after:
            place.after[given] = self._go_on(Place(place.number, place.script, (*place.answers, given)))
        places = tuple(place.after[given] if each is place else each for each in state.places)
        return state._replace(places=places)

    def _go_on(self, place: Place) -> Place:
        given = iter(place.answers)

        def ask(request: Request) -> Any:
            for each in given:
                return each
            raise _NoAnswerYet(request)

        said: set[tuple[int, bytes]] = set()
        with asking(ask, 100 * (place.number + 1)) as bucket:
            try:
                for _ in act(bucket, place.number, place.script, said):
                    place.done += 1
            except _NoAnswerYet as stopped:
                place.request = stopped.request
        place.acknowledged = frozenset(said)
        return place

    def _check(self, state: State) -> None:
        written = dict(state.written)
        if len(written) != len(state.written):
            self._fail(state, "a name had two batches")
        for place in state.places:
            for index, record in place.acknowledged:
                if index not in written or parse_batch_object(written[index]).records != (record,):
                    self._fail(state, "a process was told of another record than the one that is there")
        if (state.objects, state.written) not in self._opened:
            self._opened.add((state.objects, state.written))
            self._check_opening(state)

    def _check_opening(self, state: State) -> None:
        objects = dict(state.objects)
        floor = parse_floor(objects["floor"]).first_index
        above = {index: data for index, data in state.written if index >= floor}
        if above != {index: data for index, data in _batches_of(objects) if index >= floor}:
            self._fail(state, "a batch above the floor is gone")
        with asking(lambda request: answer(objects, request), 10_000) as bucket:
            try:
                journal = BucketJournal(bucket)
                found = {index: journal.record(index) for index in range(journal.first_index, journal.count)}
                journal.append_batch([b"the last"])
                journal.drop_before(journal.count - 1)
            except UncertainStateError as error:
                self._fail(state, f"a process that is alone is refused: {error}")
        if found != {index: parse_batch_object(data).records[0] for index, data in above.items()}:
            self._fail(state, "a process that is alone finds another log")
        if journal.count != len(state.written) + 1:
            self._fail(state, "a process that is alone appends elsewhere than at the end")

    def _fail(self, state: State, what: str) -> NoReturn:
        steps = []
        at: State | None = state
        while at is not None:
            at, step = self._came_from[at]
            steps.append(step)
        raise AssertionError("\n".join([what, *reversed(steps)]))


def _batches_of(objects: Objects) -> frozenset[tuple[int, bytes]]:
    return frozenset(
        (int(path.removeprefix("journal/")), data)
        for path, data in objects.items()
        if path.startswith("journal/") and data
    )


def _put_down(state: State, objects: Objects) -> State:
    """The state with other objects; what was written stays written."""
    here = frozenset(objects.items())
    if here == state.objects:
        return state
    return state._replace(objects=here, written=state.written | _batches_of(objects))
