"""Entries one after the other: canonical, each naming the one before it in the log and in its stream, time not falling.

What a statement means is the replay's to judge, and so is whether its body is well formed; of a statement, only the two
fields that stand first in every canonical form are read here. That is five times as fast, and says the same of every
log whose sequencer refuses what is malformed. An entry that does not fit is parsed in full before it is blamed.

Format: proto/README.md, "Entry", "Canonical form".

Runs in: auditors' machines, the log's own machine.
Trusts: nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sfrl_secure.crypto.envelope import Envelope
from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.statements import STATEMENT_TYPE
from sfrl_secure.ids import ZERO_DIGEST, Digest
from sfrl_secure.translog.entries import LogEntry
from sfrl_secure.wire.content import stream_of
from sfrl_secure.wire.entries import parse_entry

_FEDERATION_ID = b"\x0a\x20"
"""Field 1, 32 bytes."""
_STREAM = 0x12
"""Field 2, a string."""
_STREAM_AT = len(_FEDERATION_ID) + 32


@dataclass(frozen=True, slots=True)
class Misplaced:
    """The first entry that does not follow the one before it."""

    index: int
    what: str


class EntryChain:
    """Takes entries in order, up to the first that does not fit.

    Attributes:
        misplaced: the first entry that does not fit.
    """

    def __init__(self) -> None:
        self.misplaced: Misplaced | None = None
        self._index = 0
        self._prev = ZERO_DIGEST
        self._log_time_us = 0
        self._streams: dict[str, tuple[int, Digest]] = {}

    def take(self, first: int, entries: Sequence[bytes], leaves: Sequence[Digest]) -> None:
        """Take the next entries; what comes after one that does not fit is not looked at."""
        assert first == self._index or self.misplaced is not None, "entries come in order"
        for raw, leaf in zip(entries, leaves, strict=True):
            if self.misplaced is not None:
                return
            try:
                entry = parse_entry(raw)
            except MalformedError as error:
                self.misplaced = Misplaced(self._index, f"is no entry: {error}")
                return
            what = self._follow(entry, leaf)
            if what:
                self.misplaced = Misplaced(self._index, what)
                return
            self._index += 1

    def _follow(self, entry: LogEntry, leaf: Digest) -> str:
        """Move on to an entry; why it does not follow, if it does not."""
        if entry.prev != self._prev:
            return "does not name the entry before it"
        if entry.log_time_us < self._log_time_us:
            return "is earlier than the entry before it"
        here = (entry.stream_seq, entry.stream_prev)
        stream = _stream_at_first_sight(entry.envelope)
        if stream is None or here != self._streams.get(stream, (0, ZERO_DIGEST)):
            # What is malformed belongs to no stream and moves none.
            stream = stream_of(entry.envelope)
            if stream is not None and here != self._streams.get(stream, (0, ZERO_DIGEST)):
                return f"is not the next one of stream {stream}"
        if stream is not None:
            self._streams[stream] = (entry.stream_seq + 1, leaf)
        self._prev, self._log_time_us = leaf, entry.log_time_us
        return ""


def _stream_at_first_sight(envelope: Envelope) -> str | None:
    """The stream of a statement in canonical form; None where that takes a closer look."""
    raw = envelope.statement
    if envelope.payload_type != STATEMENT_TYPE or raw[:2] != _FEDERATION_ID or len(raw) < _STREAM_AT + 2:
        return None
    length = raw[_STREAM_AT + 1]
    # A longer name would have a second byte of length.
    if raw[_STREAM_AT] != _STREAM or length > 127:
        return None
    try:
        return raw[_STREAM_AT + 2 : _STREAM_AT + 2 + length].decode("ascii")
    except UnicodeDecodeError:
        return None
