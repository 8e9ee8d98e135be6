"""Several gatekeepers as one: the next one answers where one does not.

Any gatekeeper of a federation answers for all, because the log decides between them; so a call that one leaves
unanswered may be made to the next, for every method of theirs is idempotent, but that a request for an identity has
effect once: whoever asks for one uses `preferred`, and signs again for the next. What a gatekeeper refuses is refused:
nobody shops for a milder one.

Runs in: participant, cli.
Trusts: the channels, for who answers. Nothing in the answers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from sfrl_secure.errors import ClosedError, UnavailableError
from sfrl_secure.rpc.channel import RpcChannel, RpcStream


class FailoverChannel(RpcChannel):
    """A channel to whichever gatekeeper answers; stays with one until it does not. For one thread. Close it."""

    def __init__(self, channels: Sequence[RpcChannel], *, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Take 1 channel or more, in order of preference, and own them."""
        # No connection of its own: the base class's `__init__` would open one.
        assert channels
        self._channels = tuple(channels)
        self._preferred = 0
        self._monotonic = monotonic

    def call(self, path: str, request: bytes, *, deadline_seconds: float) -> bytes:
        """Call a method of the first gatekeeper that answers, each tried once at most.

        Each gets an equal share of the time that is left, so that one that hangs leaves time for the others.

        Raises:
            ClosedError: after `close`.
            UnavailableError: none answered in time.
            SfrlError: what the one that answered says.
        """
        end = self._monotonic() + deadline_seconds
        for left in range(len(self._channels), 0, -1):
            share = max((end - self._monotonic()) / left, 0.001)
            try:
                return self._channels[self._preferred].call(path, request, deadline_seconds=share)
            except ClosedError:
                raise
            except UnavailableError:
                self.turn()
        raise UnavailableError("no gatekeeper answers: check the addresses in the profile, then try again")

    def stream(self, path: str, request: bytes, *, deadline_seconds: float) -> RpcStream:
        """Call a method that answers with a stream; where it breaks, `UnavailableError` and the next call's gatekeeper
        is another."""
        channel = self._channels[self._preferred]
        return _TurningStream(channel.stream(path, request, deadline_seconds=deadline_seconds), self.turn)

    def exchange(self, path: str, requests: Iterator[bytes], *, deadline_seconds: float) -> RpcStream:
        """Call a method that takes a stream and answers with one. Where it breaks before any answer, the next call's
        gatekeeper is another; where it breaks later the same one is asked first, which has what was sent."""
        channel = self._channels[self._preferred]
        stream = channel.exchange(path, requests, deadline_seconds=deadline_seconds)
        return _TurningStream(stream, self.turn, once_answered=False)

    @property
    def preferred(self) -> RpcChannel:
        """The channel to the gatekeeper that the next call goes to first."""
        return self._channels[self._preferred]

    def turn(self) -> None:
        """Prefer the next gatekeeper from now on."""
        self._preferred = (self._preferred + 1) % len(self._channels)

    def close(self) -> None:
        """End every call and connection."""
        for channel in self._channels:
            channel.close()


class _TurningStream(RpcStream):
    def __init__(self, stream: RpcStream, turn: Callable[[], None], *, once_answered: bool = True) -> None:
        super().__init__(stream)
        self._stream = stream
        self._turn = turn
        self._once_answered = once_answered

    def __iter__(self) -> Iterator[bytes]:
        is_answered = False
        try:
            for raw in self._stream:
                is_answered = True
                yield raw
        except UnavailableError:
            if self._once_answered or not is_answered:
                self._turn()
            raise
