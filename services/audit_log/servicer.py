"""The audit log's two methods: append an entry, follow the log.

AppendEntry is for services, operators and auditors: what they bring authenticates itself, so nobody can sit on
another's revocation. FollowLog is for services and auditors: entries name participants, who see only their own
through a gatekeeper.

Format: proto/sfrl/audit/v1/audit_service.proto.

Runs in: audit_log.
Trusts: the interceptor, for who calls. Nothing in a request.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from sfrl_secure.errors import DeniedError, ExhaustedError, NotFoundError, UnavailableError
from sfrl_secure.ids import SpiffeId, sha256
from sfrl_secure.limits import FOLLOW_BYTES_MAX
from sfrl_secure.rounds.refusals import RefusalCounter
from sfrl_secure.rpc.identity import SERVICE_ROLES, peer_class_of, peer_of
from sfrl_secure.rpc.server import Method
from sfrl_secure.sequencer.sequencer import LogHead, Sequencer
from sfrl_secure.translog.entries import LoggedEntry
from sfrl_secure.wire.audit_service import (
    APPEND_ENTRY,
    FOLLOW_LOG,
    AppendedEntry,
    FollowBatch,
    encode_append_response,
    encode_follow_response,
    parse_append_request,
    parse_follow_request,
)
from sfrl_secure.wire.content import Content, parse_content

FOLLOWS_OF_ONE_MAX = 4
"""Streams of one caller at once: one, and those of its connections that we do not know yet to be dead."""

APPEND_SECONDS = 15.0
"""An entry that is not ordered by then is answered with UNAVAILABLE; asked again, it is found or ordered."""

_LOOK_SECONDS = 0.25


class AuditLogServicer:
    """Answers calls from the sequencer's state. Safe for any number of threads."""

    def __init__(self, sequencer: Sequencer[Content], counter: RefusalCounter, *, followers_max: int) -> None:
        """Serve `sequencer`; count documents that lack signatures in `counter`.

        Args:
            followers_max: streams at once, of all callers.
        """
        self._sequencer = sequencer
        self._counter = counter
        self._followers_max = followers_max
        self._follows: Counter[SpiffeId] = Counter()
        self._lock = threading.Lock()
        self._closing = threading.Event()

    def methods(self) -> tuple[Method, ...]:
        """What the server has, and for whom."""
        return (
            Method(APPEND_ENTRY, self.append_entry, SERVICE_ROLES | {"operator", "auditor"}),
            Method(FOLLOW_LOG, self.follow_log, SERVICE_ROLES | {"auditor"}, is_stream=True),
        )

    def close(self) -> None:
        """End all streams soon, and begin none."""
        self._closing.set()

    def append_entry(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        """Append one envelope; answer with receipt A when it is durable and signed for."""
        envelope = parse_append_request(request)
        content = parse_content(envelope)
        try:
            appended = self._sequencer.append(envelope, content, timeout_seconds=APPEND_SECONDS)
        except DeniedError as refusal:
            if refusal.reason == "threshold":
                peer = peer_of(context).spiffe_id
                self._counter.count(refusal.reason, peer_class_of(peer), sha256(request))
            raise
        logged = LoggedEntry(appended.index, appended.raw, appended.path)
        return encode_append_response(AppendedEntry(logged, appended.checkpoint))

    def follow_log(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        """Send the entries from an index on, then what is new, until the caller goes away or we end."""
        first_index = parse_follow_request(request)
        if first_index > self._sequencer.head.size:
            # A caller that knows more than we do is no follower of this log.
            raise NotFoundError("the log has not so many entries")
        with self._follow_of(peer_of(context).spiffe_id):
            for batch in self._batches(first_index, context):
                yield encode_follow_response(batch)

    def _batches(self, first_index: int, context: grpc.ServicerContext) -> Iterator[FollowBatch]:
        index, witnessed_note = first_index, b""
        head = self._sequencer.head
        while True:
            while index < head.size:
                entries = self._sequencer.history.entries(index, head.size, FOLLOW_BYTES_MAX)
                following = index + len(entries)
                # Only the note of the size that is reached: a caller takes nothing in that is not signed for.
                yield FollowBatch(index, entries, head.note if following == head.size else b"")
                index = following
            if head.witnessed_note != witnessed_note:
                witnessed_note = head.witnessed_note
                yield FollowBatch(0, (), witnessed_note)
            known: LogHead = head
            while head == known:
                if self._closing.is_set() or not context.is_active():
                    return
                try:
                    head = self._sequencer.wait_for_change(known, _LOOK_SECONDS)
                except UnavailableError:
                    return  # The log is ending, and all of it was sent.

    @contextmanager
    def _follow_of(self, caller: SpiffeId) -> Iterator[None]:
        with self._lock:
            if self._closing.is_set():
                raise UnavailableError("the log is stopping")
            if self._follows[caller] >= FOLLOWS_OF_ONE_MAX:
                raise ExhaustedError(f"{FOLLOWS_OF_ONE_MAX} streams of one caller follow already")
            if self._follows.total() >= self._followers_max:
                raise ExhaustedError(f"{self._followers_max} streams follow already")
            self._follows[caller] += 1
        try:
            yield
        finally:
            with self._lock:
                self._follows[caller] -= 1
                if not self._follows[caller]:
                    del self._follows[caller]
