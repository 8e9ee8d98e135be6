"""How much of an upload is under way at once: what the link carries in a second or two, and so no more is lost where it
breaks.

What is under way is one chunk, where it is not longer than a request may be; the next is handed over when that one is
known to be durable. Three rules bound it, and none rests on another:

- What is known of a link is what it has carried end to end: bytes that are confirmed, over the time since the first of
  them was handed over. A loss that held several chunks back and lets go of them at once looks like no fast link.
- The window grows by no byte that was not confirmed: it doubles at most with each window that arrives. Only a link that
  answers within `AT_HAND_SECONDS` may leap, to what it carries in that time by its own answer and to `LEAP_BYTES` at
  most, and not where it broke with less than that under way.
- It shrinks at once, with the first answer that is late, and with every break.

Latency is told from throughput, so that a link by way of a satellite is not taken for a slow one. In all, the window is
at most what the link carries, by its last answer, in 1.5 s and twice the latency; that is never taken for more than the
quickest answer took.

Runs in: participant, cli.
Trusts: nothing; a gatekeeper that lies about what it has spoils the uploads to itself.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from sfrl_secure.errors import MalformedError
from sfrl_secure.limits import CHUNK_BYTES_MAX

FIRST_BYTES = 8 * 1024
"""Under way at first, while nothing is known of the link."""

LEAST_BYTES = 2 * 1024
MOST_BYTES = 16 * 1024 * 1024
UNPROVEN_BYTES = 1024 * 1024
"""Under way before a call's first answer, whatever was known of the link before."""

TARGET_SECONDS = 1.5
"""What is under way arrives within this, beyond the latency."""

AT_HAND_SECONDS = 0.1
LEAP_BYTES = 1024 * 1024

ANSWERS = 32
"""The latency is what the last so many answers say."""

_QUICKEST_SECONDS = 0.001


class Pace:
    """The window of uploads over one link: as many bytes may be handed over and not known to be durable."""

    def __init__(self) -> None:
        self.window = FIRST_BYTES
        self._leap = LEAP_BYTES
        self._forget_latency()

    def confirmed(self, carried_bytes: int, seconds: float, new_bytes: int) -> None:
        """Learn from an answer.

        Args:
            carried_bytes: confirmed since the oldest part that this answer confirms was handed over.
            seconds: since then.
            new_bytes: confirmed by this answer and by none before it.
        """
        seconds = max(seconds, _QUICKEST_SECONDS)
        latency = self._latency_of(carried_bytes, seconds)
        if 2 * carried_bytes < self.window and seconds < TARGET_SECONDS + latency:
            return  # little was under way: it says nothing of what the link could carry
        # Twice the latency: while the link waits for an answer, it carries nothing.
        wanted = int(carried_bytes / seconds * (TARGET_SECONDS + 2 * latency))
        grown = self.window + new_bytes
        if seconds <= AT_HAND_SECONDS:
            grown = max(grown, self._leap)
        self.window = min(max(min(wanted, grown), LEAST_BYTES), MOST_BYTES)

    def broke(self) -> None:
        """Learn that the connection broke while something was under way."""
        self._leap = min(self._leap, self.window // 2)
        self.window = max(min(self.window // 2, FIRST_BYTES), LEAST_BYTES)
        self._forget_latency()

    def _forget_latency(self) -> None:
        self._answers: deque[tuple[int, float]] = deque(maxlen=ANSWERS)

    def _latency_of(self, carried_bytes: int, seconds: float) -> float:
        """What the quickest of the last answers took, less what its bytes took at the best rate that they show.

        Losses make answers late and never quick: neither of the two is believed to be better than it is.
        """
        self._answers.append((carried_bytes, seconds))
        quickest_bytes, quickest_seconds = min(self._answers, key=lambda each: each[1])
        best_rate = max(each[0] / each[1] for each in self._answers)
        return quickest_seconds - quickest_bytes / best_rate


@dataclass(frozen=True, slots=True)
class _Part:
    """A chunk that was handed over: where it ends, when, and what was known to have arrived by then."""

    end: int
    handed_at: float
    arrived_before: int


class UnderWay:
    """The chunks of one call: handed over when the window has room, confirmed in order. The caller holds the lock."""

    def __init__(self, pace: Pace, size: int, *, is_fresh: bool) -> None:
        """Nothing is under way yet; `is_fresh` where a chunk may be sent before the first answer."""
        self._pace, self._size, self._is_fresh = pace, size, is_fresh
        self._parts: deque[_Part] = deque()
        self._arrived = 0
        self.durable: int | None = None
        """Bytes that the gatekeeper says it has; None before its first answer."""
        self.sent = 0
        """Where the next chunk begins."""

    @property
    def unconfirmed_bytes(self) -> int:
        """What a break may lose."""
        return self.sent - (self.durable or 0)

    @property
    def is_all_sent(self) -> bool:
        """Whether there is no next chunk."""
        return self.sent == self._size and (self.durable is not None or self._is_fresh)

    def room(self) -> int:
        """How long the next chunk may be now; 0 while there is none to send.

        The window is not filled up in scraps: a chunk is half of it, or half of the longest there is, at least.
        """
        window, left = self._pace.window, self._size - self.sent
        if self.durable is None:
            return min(window, UNPROVEN_BYTES, CHUNK_BYTES_MAX, left) if self._is_fresh and not self.sent else 0
        room = min(window - self.unconfirmed_bytes, CHUNK_BYTES_MAX, left)
        return room if room >= min(window // 2, CHUNK_BYTES_MAX // 2, left) else 0

    def hand_over(self, offset: int, length: int, now: float) -> None:
        """Count a chunk that is handed over now."""
        self._parts.append(_Part(offset + length, now, self._arrived))
        # Not `+=`: the first answer may have said meanwhile that more than this is there already.
        self.sent = max(self.sent, offset + length)

    def answered(self, durable: int, now: float) -> None:
        """Take an answer that is not the last.

        Raises:
            MalformedError: it has lost what it had, or has more than there is, or than was sent.
        """
        if not (self.durable or 0) <= durable <= self._size:
            raise MalformedError("the gatekeeper says that it has other bytes than it can have")
        if self.durable is None:
            # The first request has come as a whole, durable or not; what was there before it, no answer tells.
            arrived = self.sent
            self.sent = max(self.sent, durable)
        else:
            arrived = durable
        if durable > self.sent:
            raise MalformedError("the gatekeeper says that it has bytes that were not sent")
        self.durable = durable
        oldest = self._parts[0] if self._parts and self._parts[0].end <= arrived else None
        while self._parts and self._parts[0].end <= arrived:
            self._parts.popleft()
        if oldest is not None:
            carried = arrived - oldest.arrived_before
            self._pace.confirmed(carried, now - oldest.handed_at, arrived - self._arrived)
        self._arrived = max(self._arrived, arrived, durable)
