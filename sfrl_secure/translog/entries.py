"""Log entries: what a leaf of the log holds.

The sequencer sets `prev`, `log_time_us`, `stream_seq` and `stream_prev`; the checkpoint signs them. The writer signs
the envelope. A `LogEntry` says nothing about whether its signatures hold or whether it has effect.

Format: proto/README.md, "Entry".

Runs in: everything.
Trusts: nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from sfrl_secure.crypto.envelope import Envelope
from sfrl_secure.errors import MalformedError
from sfrl_secure.ids import Digest


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One entry, parsed.

    Attributes:
        prev: leaf hash of the entry before; zeros at index 0.
        log_time_us: when the log sequenced it, microseconds since 1970.
        stream_seq: position in its stream, from zero.
        stream_prev: leaf hash of the stream's entry before; zeros at position 0.
        envelope: what the writer signed.
    """

    prev: Digest
    log_time_us: int
    stream_seq: int
    stream_prev: Digest
    envelope: Envelope

    def __post_init__(self) -> None:
        if not 0 < self.log_time_us < 2**63 or not 0 <= self.stream_seq < 2**63:
            raise MalformedError("log time and stream position are below 2**63, and the time is above 0")


@dataclass(frozen=True, slots=True)
class LoggedEntry:
    """An entry's bytes with a claimed place and audit path; proves nothing until verified against a trusted root.

    Attributes:
        index: leaf index, from zero.
        raw: the entry's bytes.
        path: sibling hashes from the leaf upwards, at most 63.
    """

    index: int
    raw: bytes
    path: tuple[Digest, ...]
