"""What joins the entries of the log: each names the one before it, in the log and in its stream, and time never falls.

The checkpoint signs the entries one by one; this says that they are a history. Whether an entry has effect is another
matter: a void entry moves the chain like any other.

Format: proto/README.md, "Entry".

Runs in: gatekeeper, aggregator, verifier.
Trusts: nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sfrl_secure.errors import VerificationError
from sfrl_secure.ids import ZERO_DIGEST, Digest
from sfrl_secure.translog.entries import LogEntry


@dataclass(slots=True)
class Chain:
    """What the next entry must join on to: its predecessor, the last time, and the end of each stream."""

    prev: Digest = ZERO_DIGEST
    log_time_us: int = 0
    streams: dict[str, tuple[int, Digest]] = field(default_factory=dict)

    def copy(self) -> Chain:
        """The chain as it is now."""
        return Chain(self.prev, self.log_time_us, dict(self.streams))

    def check_and_extend(self, leaf: Digest, entry: LogEntry, stream: str | None) -> None:
        """Check that the entry is the next one, and move on to it.

        Args:
            stream: the one that the entry's content belongs to. Malformed content names none, so that its position
                cannot be checked here; it is void, and a finding, for whoever folds the log.

        Raises:
            VerificationError: it is not the next one; the chain is as it was.
        """
        if entry.prev != self.prev:
            raise VerificationError("an entry does not name the one before it")
        if entry.log_time_us < self.log_time_us:
            raise VerificationError("the log's time goes back")
        if stream is not None:
            if (entry.stream_seq, entry.stream_prev) != self.streams.get(stream, (0, ZERO_DIGEST)):
                raise VerificationError("an entry is not the next one of its stream")
            self.streams[stream] = (entry.stream_seq + 1, leaf)
        self.prev, self.log_time_us = leaf, entry.log_time_us
