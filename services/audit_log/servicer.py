"""The audit log's methods: append entries, follow the log, prove entries, read bundles.

Appending is for everybody whom the door admits: what they bring authenticates itself, and `intake` refuses what is
not theirs to bring. Reading is for services, auditors and operators: entries name participants, who see only their own
through a gatekeeper. Services decide by what they follow, so others cannot take all places from them.

Whoever follows is told at least once a second that there is nothing new, when it is so: who has not heard it for some
seconds knows that its view may be old.

Format: proto/sfrl/audit/v1/audit_service.proto.

Runs in: audit_log.
Trusts: the interceptor, for who calls. Nothing in a request.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import grpc

from sfrl_secure.errors import MalformedError, MissingEvidenceError, NotFoundError, UnavailableError
from sfrl_secure.limits import CHUNK_BYTES_MAX, FOLLOW_BYTES_MAX
from sfrl_secure.rpc.identity import ROLES, SERVICE_ROLES, peer_of
from sfrl_secure.rpc.server import Method
from sfrl_secure.sequencer.sequencer import LogHead, Sequencer
from sfrl_secure.services.audit_log.appending import Appending
from sfrl_secure.services.audit_log.bounds import CallBound
from sfrl_secure.services.audit_log.exchange import EntryExchange
from sfrl_secure.storage.log_store import LogFiles
from sfrl_secure.translog.tiles import BUNDLE_BYTES_MAX
from sfrl_secure.wire.append_entries import encode_entries_response, parse_entries_request
from sfrl_secure.wire.audit_service import (
    APPEND_ENTRIES,
    APPEND_ENTRY,
    FOLLOW_LOG,
    HEARTBEAT,
    PROVE_ENTRIES,
    READ_ENTRY_BUNDLE,
    STREAM_ENTRIES,
    FollowBatch,
    encode_append_response,
    encode_follow_response,
    parse_append_request,
    parse_follow_request,
)
from sfrl_secure.wire.content import Content
from sfrl_secure.wire.log_reads import (
    encode_bundle_chunk,
    encode_prove_response,
    parse_bundle_request,
    parse_prove_request,
)

FOLLOWS_OF_ONE_MAX = 4
"""FollowLog calls of one caller at once: one, and those of its connections that we do not know yet to be dead."""

STREAMS_OF_ONE_MAX = 4
STREAMS_MAX = 32
"""StreamEntries calls at once, likewise, and of all callers."""

PROOFS_OF_ONE_MAX = 48
PROOFS_MAX = 64
"""ProveEntries calls at once: a gatekeeper makes one for each receipt that it is asked for."""

BUNDLES_OF_ONE_MAX = 4
BUNDLES_MAX = 16
"""ReadEntryBundle calls at once: each holds a bundle, 16 MiB at most, in memory."""

HEARTBEAT_SECONDS = 0.75
"""A follower that has all entries is told so this often, and a look later at most: once a second."""

HEAD_AGE_SECONDS = 0.5
"""What a heartbeat says is true of a head that was the newest this long ago, or less."""

_READERS = SERVICE_ROLES | {"auditor", "operator"}
_LOOK_SECONDS = 0.25


class AuditLogServicer:
    """Answers calls. Safe for any number of threads."""

    def __init__(
        self,
        sequencer: Sequencer[Content],
        appending: Appending,
        files: LogFiles,
        *,
        followers_max: int,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Serve `sequencer` and the published `files`.

        Args:
            followers_max: FollowLog calls at once, of all callers; of those that are no services, half as many.
        """
        self._sequencer = sequencer
        self._appending = appending
        self._files = files
        self._monotonic = monotonic
        self._follows = CallBound(FOLLOWS_OF_ONE_MAX, followers_max)
        self._guests = CallBound(FOLLOWS_OF_ONE_MAX, max(1, followers_max // 2))
        self._streams = CallBound(STREAMS_OF_ONE_MAX, STREAMS_MAX)
        self._proofs = CallBound(PROOFS_OF_ONE_MAX, PROOFS_MAX)
        self._bundles = CallBound(BUNDLES_OF_ONE_MAX, BUNDLES_MAX)
        self._closing = threading.Event()

    def methods(self) -> tuple[Method, ...]:
        """What the server has, and for whom."""
        return (
            Method(APPEND_ENTRY, self.append_entry, ROLES),
            Method(APPEND_ENTRIES, self.append_entries, ROLES),
            Method(STREAM_ENTRIES, self.stream_entries, SERVICE_ROLES, is_stream=True, takes_stream=True),
            Method(FOLLOW_LOG, self.follow_log, _READERS, is_stream=True),
            Method(PROVE_ENTRIES, self.prove_entries, _READERS, is_stream=True),
            Method(READ_ENTRY_BUNDLE, self.read_entry_bundle, _READERS, is_stream=True),
        )

    def close(self) -> None:
        """End all streams soon, and begin none."""
        self._closing.set()

    def append_entry(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        """Append one envelope; answer with receipt A when it is durable and signed for."""
        return encode_append_response(self._appending.append(parse_append_request(request), peer_of(context)))

    def append_entries(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        """Append envelopes; answer when all that may be is durable and signed for."""
        peer = peer_of(context)
        pending = self._appending.submit(self._appending.judge(parse_entries_request(request), peer))
        return encode_entries_response(self._appending.finish(pending, peer))

    def stream_entries(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """Append the envelopes of one request after the other; answer in their order."""
        peer = peer_of(context)
        self._check_open()
        with self._streams.call_of(peer.spiffe_id):
            yield from EntryExchange(self._appending, peer, self._closing).answers(requests)

    def follow_log(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        """Send the entries from an index on, then what is new, until the caller goes away or we end."""
        first_index = parse_follow_request(request)
        if first_index > self._sequencer.head.size:
            # A caller that knows more than we do is no follower of this log.
            raise NotFoundError("the log has not so many entries")
        self._check_open()
        caller = peer_of(context).spiffe_id
        with ExitStack() as places:
            if caller.role not in SERVICE_ROLES:
                places.enter_context(self._guests.call_of(caller))
            places.enter_context(self._follows.call_of(caller))
            for batch in self._batches(first_index, context):
                yield encode_follow_response(batch)

    def prove_entries(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        """Send entries with their paths to the root at one size that was signed for."""
        asked = parse_prove_request(request)
        with self._proofs.call_of(peer_of(context).spiffe_id):
            for index in asked.indices:
                yield encode_prove_response(self._sequencer.prove(index, asked.tree_size))

    def read_entry_bundle(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        """Send one published bundle."""
        bundle = parse_bundle_request(request)
        with self._bundles.call_of(peer_of(context).spiffe_id):
            try:
                raw = self._files.read(bundle.path, BUNDLE_BYTES_MAX)
            except MalformedError:  # ours is too long: not the caller's mistake
                raise MissingEvidenceError("the bundle cannot be read") from None
            for at in range(0, len(raw), CHUNK_BYTES_MAX):
                yield encode_bundle_chunk(raw[at : at + CHUNK_BYTES_MAX])

    def _check_open(self) -> None:
        if self._closing.is_set():
            raise UnavailableError("the log is stopping")

    def _batches(self, first_index: int, context: grpc.ServicerContext) -> Iterator[FollowBatch]:
        index, witnessed_note = first_index, b""
        beaten = -math.inf
        head, head_read = self._sequencer.head, self._monotonic()
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
                now = self._monotonic()
                # Behind a caller that is slow to take entries the head is an old one: then it is read again first.
                if now - beaten >= HEARTBEAT_SECONDS and now - head_read < HEAD_AGE_SECONDS:
                    yield HEARTBEAT
                    beaten = now
                if self._closing.is_set() or not context.is_active():
                    return
                try:
                    head = self._sequencer.wait_for_change(known, _LOOK_SECONDS)
                except UnavailableError:
                    return  # The log is ending, and all of it was sent.
                head_read = self._monotonic()
