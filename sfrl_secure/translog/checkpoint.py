"""Checkpoints: signed statements of the log's size and root.

A `Checkpoint` is what a note's text says; whether anybody signed it is the business of `opened`. Two checkpoints of one
log with the same size and different roots are equivocation. Stricter than the specification: extension lines are
refused, since no monitor can audit them and the ML-DSA-44 line does not sign them; an origin is at most 255 bytes,
because that line cannot name a longer one.

Format: c2sp.org/tlog-checkpoint v1.0.0.

Runs in: everything.
Trusts: nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from sfrl_secure.errors import MalformedError
from sfrl_secure.ids import Digest
from sfrl_secure.translog.canonical_text import (
    COUNT_END,
    check_encodable,
    format_base64,
    parse_base64_digest,
    parse_decimal,
)
from sfrl_secure.translog.note import has_control_characters

ORIGIN_BYTES_MAX = 255
"""An origin, in UTF-8."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log says of itself.

    Attributes:
        origin: the log's identity, 1 to 255 bytes of UTF-8 without control characters.
        size: leaves, 0 to 2**63 - 1.
        root: root of the tree over those leaves. At size 0 the reader checks that it is the empty tree's: a witness
            has an answer of its own for one that is not.
    """

    origin: str
    size: int
    root: Digest

    def __post_init__(self) -> None:
        check_encodable(self.origin)
        if not 1 <= len(self.origin.encode()) <= ORIGIN_BYTES_MAX or has_control_characters(self.origin):
            raise MalformedError(f"an origin is 1 to {ORIGIN_BYTES_MAX} bytes without control characters")
        if not 0 <= self.size < COUNT_END:
            raise MalformedError("a tree size is below 2**63")
        if len(self.root) != 32:
            raise MalformedError("a root is exactly 32 bytes")


def format_checkpoint(checkpoint: Checkpoint) -> str:
    """Write the note text of a checkpoint, with its last newline."""
    return f"{checkpoint.origin}\n{checkpoint.size}\n{format_base64(checkpoint.root)}\n"


def parse_checkpoint(text: str) -> Checkpoint:
    """Parse a note's text as a checkpoint: exactly three lines.

    Raises:
        MalformedError: not three lines of the form; extension lines.
    """
    lines = text.split("\n")
    if len(lines) != 4 or lines[3]:
        raise MalformedError("a checkpoint is three lines; extension lines are refused")
    return Checkpoint(lines[0], parse_decimal(lines[1]), parse_base64_digest(lines[2]))
