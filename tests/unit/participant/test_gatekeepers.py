"""Several gatekeepers: the next one where one does not answer, and no shopping for another answer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sfrl_secure.errors import DeniedError, NotFoundError, SfrlError, UnavailableError
from sfrl_secure.participant.gatekeepers import FailoverChannel
from sfrl_secure.rpc.channel import RpcChannel, RpcStream


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Gatekeeper(RpcChannel):
    """Answers with its name, or with an error; takes its time."""

    def __init__(self, name: str, time: Time, error: SfrlError | None = None, *, hangs: bool = False) -> None:
        self.name = name
        self.time = time
        self.error = error
        self.hangs = hangs
        self.deadlines: list[float] = []
        self.is_closed = False
        self.is_mute = False

    def call(self, path: str, request: bytes, *, deadline_seconds: float) -> bytes:
        self.deadlines.append(deadline_seconds)
        if self.hangs:
            self.time.now += deadline_seconds
        if self.error is not None:
            raise self.error
        return self.name.encode()

    def stream(self, path: str, request: bytes, *, deadline_seconds: float) -> RpcStream:
        self.deadlines.append(deadline_seconds)
        return RpcStream(self)  # type: ignore[arg-type]

    def exchange(self, path: str, requests: Iterator[bytes], *, deadline_seconds: float) -> RpcStream:
        return self.stream(path, b"".join(requests), deadline_seconds=deadline_seconds)

    def __iter__(self) -> Iterator[bytes]:
        if self.is_mute:
            raise away()
        yield self.name.encode()
        if self.error is not None:
            raise self.error

    def cancel(self) -> None:
        pass

    def close(self) -> None:
        self.is_closed = True


def away() -> UnavailableError:
    return UnavailableError("away")


def test_the_next_one_answers_and_is_kept() -> None:
    time = Time()
    first, second = Gatekeeper("first", time, away()), Gatekeeper("second", time)
    channel = FailoverChannel([first, second], monotonic=time)
    assert channel.call("/m", b"", deadline_seconds=10) == b"second"
    assert channel.call("/m", b"", deadline_seconds=10) == b"second"
    assert (len(first.deadlines), len(second.deadlines)) == (1, 2)


def test_each_is_tried_once_and_then_none_answers() -> None:
    time = Time()
    gatekeepers = [Gatekeeper(name, time, away()) for name in "abc"]
    with pytest.raises(UnavailableError, match="no gatekeeper answers"):
        FailoverChannel(gatekeepers, monotonic=time).call("/m", b"", deadline_seconds=9)
    assert [len(each.deadlines) for each in gatekeepers] == [1, 1, 1]


def test_one_that_hangs_leaves_time_for_the_others() -> None:
    time = Time()
    first, second = Gatekeeper("first", time, away(), hangs=True), Gatekeeper("second", time)
    channel = FailoverChannel([first, second], monotonic=time)
    assert channel.call("/m", b"", deadline_seconds=10) == b"second"
    assert (first.deadlines, second.deadlines) == ([5.0], [5.0])


@pytest.mark.parametrize("said", [DeniedError("policy_denied", "no"), NotFoundError("not yet")])
def test_what_one_refuses_is_not_asked_of_another(said: SfrlError) -> None:
    time = Time()
    first, second = Gatekeeper("first", time, said), Gatekeeper("second", time)
    with pytest.raises(type(said)):
        FailoverChannel([first, second], monotonic=time).call("/m", b"", deadline_seconds=10)
    assert second.deadlines == []


def test_a_stream_that_breaks_makes_the_next_call_anothers() -> None:
    time = Time()
    first, second = Gatekeeper("first", time, away()), Gatekeeper("second", time)
    channel = FailoverChannel([first, second], monotonic=time)
    messages = iter(channel.stream("/m", b"", deadline_seconds=10))
    assert next(messages) == b"first"
    with pytest.raises(UnavailableError):
        next(messages)
    assert list(channel.stream("/m", b"", deadline_seconds=10)) == [b"second"]


def test_an_upload_that_breaks_stays_with_the_one_that_has_a_part_of_it() -> None:
    time = Time()
    first, second = Gatekeeper("first", time, away()), Gatekeeper("second", time)
    channel = FailoverChannel([first, second], monotonic=time)

    def upload() -> list[bytes]:
        return list(channel.exchange("/m", iter([b"x"]), deadline_seconds=10))

    for _ in range(2):
        with pytest.raises(UnavailableError):
            upload()
    assert second.deadlines == []
    # One that says nothing has nothing.
    first.is_mute = True
    with pytest.raises(UnavailableError):
        upload()
    assert upload() == [b"second"]


def test_closing_closes_all() -> None:
    time = Time()
    gatekeepers = [Gatekeeper(name, time) for name in "ab"]
    with FailoverChannel(gatekeepers, monotonic=time):
        pass
    assert all(each.is_closed for each in gatekeepers)
