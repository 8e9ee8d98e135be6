"""A payload as it comes, in pieces of any size: each leaf is checked and handed out as soon as it is whole.

Nothing is taken that the signed root does not lead to: the root is computed from the header before any leaf is read,
and each leaf is hashed before it is decoded. The reader holds the header and at most one leaf of bytes, whatever the
header claims, and takes memory in proportion to what has come.

Format: proto/README.md, "Codec", "Decoding"; this module holds rules T4 and L1, and the order of all steps.

Runs in: gatekeeper, aggregator, participant.
Trusts: what its caller expects. Nothing in the payload.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sfrl_secure.errors import PayloadError
from sfrl_secure.sparse.expected import ExpectedPayload, check_expected, check_mask
from sfrl_secure.sparse.header import (
    PREAMBLE_BYTES,
    Header,
    Preamble,
    parse_leaf_table,
    parse_preamble,
)
from sfrl_secure.sparse.leaf import check_leaf, decode_leaf
from sfrl_secure.sparse.update import UpdatePart


class PayloadReader:
    """One payload on its way. After a `PayloadError` it is of no more use. Not for several threads at once."""

    def __init__(self, expected: ExpectedPayload) -> None:
        """Wait for the payload that `expected` describes."""
        self._expected = expected
        self._preamble: Preamble | None = None
        self._header: Header | None = None
        self._pending = bytearray()
        self._taken = 0
        self._leaf_index = 0
        self._base = 0
        self._wanted = PREAMBLE_BYTES

    def feed(self, data: bytes | memoryview) -> Iterator[UpdatePart]:
        """Take the next bytes, and yield the part of each leaf that they complete.

        The caller goes through all that is yielded before it feeds again. `data` may be changed after that: no part
        refers to it.

        Raises:
            PayloadError: the reason of the first rule that is broken.
        """
        view = memoryview(data)
        self._taken += len(view)
        if self._taken > self._expected.payload_bytes:
            raise PayloadError("length", "the payload is longer than was declared")
        while True:
            missing = self._wanted - len(self._pending)
            if self._complete or len(view) < missing:
                break
            if self._pending:
                self._pending += view[:missing]
                piece: bytes | memoryview = bytes(self._pending) if self._header is None else memoryview(self._pending)
            else:
                piece = view[:missing]
            view = view[missing:]
            if self._header is None:
                self._take_header(bytes(piece))
                continue
            part = self._take_leaf(self._header, piece)
            # A new one: arrays of the leaf may still look at the old one while they are collected.
            self._pending = bytearray()
            yield part
        self._pending += view

    def finish(self) -> None:
        """Say that no more bytes come.

        Raises:
            PayloadError: `length`, the payload is not complete.
        """
        if not self._complete or self._taken != self._expected.payload_bytes:
            raise PayloadError("length", "the payload ends before its last leaf does")

    @property
    def _complete(self) -> bool:
        return self._header is not None and self._leaf_index == len(self._header.leaves)

    def _take_header(self, raw: bytes) -> None:
        """Read what has come of the header, and say how much of it is wanted next. Rules P1 to T4."""
        expected = self._expected
        if self._preamble is None:
            preamble = parse_preamble(raw)
            check_expected(preamble, expected)
            if len(raw) == PREAMBLE_BYTES != preamble.preamble_bytes:
                self._want_header(raw, preamble.preamble_bytes)
                return
            self._preamble = check_mask(preamble, raw, expected)
            if expected.payload_bytes < self._preamble.header_bytes:
                raise PayloadError("length", "the payload ends inside its leaf table")
            if len(raw) < self._preamble.header_bytes:
                self._want_header(raw, self._preamble.header_bytes)
                return
        header = parse_leaf_table(raw, self._preamble, expected.payload_bytes)
        if header.root != expected.root:
            raise PayloadError("digest", "the header does not lead to the root that was signed")
        self._header = header
        self._pending = bytearray()
        self._wanted = header.leaves[0].byte_length if header.leaves else 0

    def _want_header(self, raw: bytes, wanted: int) -> None:
        self._pending = bytearray(raw)
        self._wanted = wanted

    def _take_leaf(self, header: Header, raw: bytes | memoryview) -> UpdatePart:
        """Check and decode the next leaf. Rules L1 to L4."""
        mask = self._expected.mask
        check_leaf(header, self._leaf_index, raw)
        part = decode_leaf(header.preamble, self._leaf_index, raw, base=self._base,
                           mask_indices=None if mask is None else mask.indices)
        self._leaf_index += 1
        if self._leaf_index < len(header.leaves):
            self._wanted = header.leaves[self._leaf_index].byte_length
            if not isinstance(part.at, slice) and mask is None:
                self._base = int(part.at[-1]) + 1
        return part


def read_parts(source: Iterable[bytes | memoryview], expected: ExpectedPayload) -> Iterator[UpdatePart]:
    """Read a whole payload from its pieces, one leaf after the other.

    Raises:
        PayloadError: the reason of the first rule that is broken; parts that came before it are of no use.
    """
    reader = PayloadReader(expected)
    for data in source:
        yield from reader.feed(data)
    reader.finish()
