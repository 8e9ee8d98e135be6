"""Entries to append, signed before any clock starts.

A `refusals_counted` statement whose counts make the whole entry as long as is asked for. One statement goes through
the library's encoder; its siblings differ from it in the request id alone, which has a fixed place, so that hundreds of
thousands can be signed in seconds. What comes out is the request of AppendEntry; a request of many entries is their
concatenation, because both begin with the envelope as field 1.

Format: proto/sfrl/audit/v1/entry.proto, audit_service.proto.

Runs in: a developer's machine.
Trusts: nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

from sfrl_secure.crypto.envelope import Envelope, sign_envelope
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.crypto.pae import pae
from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.statements import STATEMENT_TYPE, PeerClass, RefusalCount, RefusalsCounted, Statement
from sfrl_secure.ids import ZERO_DIGEST, Digest, SpiffeId
from sfrl_secure.translog.entries import LogEntry
from sfrl_secure.wire.audit_service import encode_append_request
from sfrl_secure.wire.entries import encode_entry
from sfrl_secure.wire.statements import REQUEST_ID_BYTES, encode_statement

VALID_US = 24 * 3_600_000_000
"""The entries are still good when the run takes long."""

_REASON_CHARACTERS = 64
"""As long as a reason may be: few counts make a long entry."""


class PresignedEntries:
    """Makes requests of one writer, all of one length."""

    def __init__(
        self,
        key: SigningKey,
        writer: SpiffeId,
        *,
        federation_id: Digest,
        governance_head: Digest,
        now_us: int,
        entry_bytes: int,
    ) -> None:
        """Sign as `writer`; an entry has at most `entry_bytes`, and as many as fit."""
        self._key = key
        self._mark = os.urandom(REQUEST_ID_BYTES)
        statement = Statement(
            federation_id=federation_id,
            stream="log",
            writer=writer,
            key_id=key.public_key.key_id,
            reads_governance=governance_head,
            reads_segment=ZERO_DIGEST,
            valid_until_us=now_us + VALID_US,
            request_id=self._mark,
            body=RefusalsCounted(now_us - 1_000_000, now_us, (), ZERO_DIGEST),
        )
        statement, self.entry_bytes = _padded(statement, key, now_us, entry_bytes)
        raw = encode_statement(statement)
        envelope = sign_envelope(STATEMENT_TYPE, raw, [key])
        request = encode_append_request(envelope)
        signature = envelope.signatures[0].value
        self._statement = _around(raw, self._mark)
        # The signature of an entry stands behind its statement.
        before, between = _around(request, self._mark)
        between, after = _around(between, signature)
        self._request = before, between, after
        self.request_bytes = len(request)

    def make(self, count: int) -> Iterator[bytes]:
        """Sign `count` requests, each with a request id of its own."""
        before, after = self._statement
        request_before, request_between, request_after = self._request
        sign = self._key.sign
        ids = os.urandom(REQUEST_ID_BYTES * count)
        for at in range(0, len(ids), REQUEST_ID_BYTES):
            request_id = ids[at : at + REQUEST_ID_BYTES]
            signature = sign(pae(STATEMENT_TYPE, before + request_id + after))
            yield b"".join((request_before, request_id, request_between, signature, request_after))


def _padded(statement: Statement, key: SigningKey, now_us: int, entry_bytes: int) -> tuple[Statement, int]:
    """The statement with as many counts as fit, and the length of its entry."""
    body, length = statement.body, 0
    assert isinstance(body, RefusalsCounted)
    while True:
        reason = "padding_" + "".join(chr(ord("a") + int(digit)) for digit in f"{len(body.counts):03d}")
        room = _REASON_CHARACTERS
        while room >= len(reason):
            longer = replace(body, counts=(*body.counts, RefusalCount(reason.ljust(room, "x"), PeerClass.UNKNOWN, 1)))
            length_then = _entry_bytes(replace(statement, body=longer), key, now_us)
            if length_then <= entry_bytes:
                body, length = longer, length_then
                break
            room -= 1
        else:
            return replace(statement, body=body), length


def _entry_bytes(statement: Statement, key: SigningKey, now_us: int) -> int:
    envelope: Envelope = sign_envelope(STATEMENT_TYPE, encode_statement(statement), [key])
    # A position of three bytes: what the middle of a long run has.
    return len(encode_entry(LogEntry(ZERO_DIGEST, now_us, 100_000, ZERO_DIGEST, envelope)))


def _around(raw: bytes, mark: bytes) -> tuple[bytes, bytes]:
    before, found, after = raw.partition(mark)
    if not found or mark in after:
        raise MalformedError("the mark stands in the bytes exactly once")
    return before, after
