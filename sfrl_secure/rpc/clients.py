"""The services as objects: typed calls, one method a method.

Nothing that comes back is verified here; proofs and signatures are checked by whoever acts on them.

Format: proto/sfrl/audit/v1/audit_service.proto, proto/sfrl/gatekeeper/v1/gatekeeper_service.proto,
proto/sfrl/identity/v1/identity_service.proto.

Runs in: gatekeeper, aggregator, audit_log, verifier, participant, cli.
Trusts: the channel, for who answers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence

from sfrl_secure.crypto.envelope import Envelope
from sfrl_secure.errors import DigestError, MalformedError, SfrlError
from sfrl_secure.ids import Digest
from sfrl_secure.limits import OBJECT_BYTES_MAX
from sfrl_secure.rpc.append_stream import AppendStream, appended_of
from sfrl_secure.rpc.channel import RpcChannel, RpcStream, call_with_retry
from sfrl_secure.rpc.downloads import DownloadProgress, Fetched, fetch
from sfrl_secure.rpc.identity_requests import AskedIdentity, IdentityAsker
from sfrl_secure.rpc.sources import PayloadSource
from sfrl_secure.rpc.trying import Patience
from sfrl_secure.rpc.uploads import Uploaded, Uploader, UploadProgress
from sfrl_secure.translog.entries import LoggedEntry
from sfrl_secure.translog.tiles import BUNDLE_BYTES_MAX, Bundle
from sfrl_secure.wire import append_entries, audit_service, gatekeeper_service, identity_service, log_reads
from sfrl_secure.wire.audit_service import AppendedEntry, FollowBatch
from sfrl_secure.wire.downloads import ModelRequest
from sfrl_secure.wire.gatekeeper_service import ReceiptRequest, RoundAnswer, RoundRequest
from sfrl_secure.wire.identity_service import EnrolResponse, RenewResponse
from sfrl_secure.wire.receipts import Receipt

CALL_SECONDS = 20.0
STREAM_SECONDS = 3600.0

ISSUE_SECONDS = 60.0
"""For an identity: the issuer appends two entries and follows the log until it has them."""

ObjectSigner = Callable[[Digest], Envelope]
"""Signs an ObjectRequest for the object of a digest, for one call."""


class AuditLogClient:
    """The audit log, as its writers and followers see it."""

    def __init__(self, channel: RpcChannel) -> None:
        self._channel = channel

    def append(self, envelope: Envelope, *, deadline_seconds: float = CALL_SECONDS) -> AppendedEntry:
        """Append an envelope, once, however often it is tried.

        Raises:
            ConflictError: the log is newer than what the statement read; `log_size` says how far to read.
            DeniedError: the log does not take it.
        """
        request = audit_service.encode_append_request(envelope)
        return audit_service.parse_append_response(
            call_with_retry(
                lambda left: self._channel.call(audit_service.APPEND_ENTRY, request, deadline_seconds=left),
                deadline_seconds=deadline_seconds,
            )
        )

    def append_all(
        self, envelopes: Sequence[Envelope], *, deadline_seconds: float = CALL_SECONDS
    ) -> tuple[AppendedEntry | SfrlError, ...]:
        """Append 1 to 256 envelopes, each once, however often the call is tried.

        Returns: for each what `append` returns, or the error that it would raise.

        Raises:
            MalformedError: more envelopes than one message takes, or an answer that is none.
            DeniedError, ExhaustedError: the call as a whole is refused, for the role or because too much waits.
        """
        request = append_entries.encode_entries_request(envelopes)
        raw = call_with_retry(
            lambda left: self._channel.call(audit_service.APPEND_ENTRIES, request, deadline_seconds=left),
            deadline_seconds=deadline_seconds,
        )
        return appended_of(raw, len(envelopes))

    def open_stream(self, *, deadline_seconds: float = STREAM_SECONDS) -> AppendStream:
        """Open a stream that keeps many envelopes under way. It lasts as long as its connection may: open another
        when it ends. Close it."""
        return AppendStream(
            lambda requests: self._channel.exchange(
                audit_service.STREAM_ENTRIES, requests, deadline_seconds=deadline_seconds
            )
        )

    def prove(
        self, indices: Sequence[int], tree_size: int, *, deadline_seconds: float = CALL_SECONDS
    ) -> tuple[LoggedEntry, ...]:
        """Ask for 1 to 64 entries, ascending, with their paths to the root at `tree_size`.

        Raises:
            NotFoundError: the log has signed for no such size.
            MalformedError: not one answer for each index.
        """
        wanted = tuple(indices)
        request = log_reads.encode_prove_request(log_reads.ProveRequest(wanted, tree_size))
        return call_with_retry(lambda left: self._prove(request, wanted, left), deadline_seconds=deadline_seconds)

    def read_bundle(self, index: int, width: int, *, deadline_seconds: float = CALL_SECONDS) -> bytes:
        """Read one entry bundle of the published log; its bytes are not parsed.

        Raises:
            NotFoundError: it is not published, or a wider one has replaced it.
            MalformedError: no such bundle can be, or it is longer than any.
        """
        request = log_reads.encode_bundle_request(Bundle(index, width))
        return call_with_retry(lambda left: self._read_bundle(request, left), deadline_seconds=deadline_seconds)

    def _prove(self, request: bytes, wanted: tuple[int, ...], left: float) -> tuple[LoggedEntry, ...]:
        stream = self._channel.stream(audit_service.PROVE_ENTRIES, request, deadline_seconds=left)
        found: list[LoggedEntry] = []
        try:
            for raw in stream:
                logged = log_reads.parse_prove_response(raw)
                if len(found) == len(wanted) or logged.index != wanted[len(found)]:
                    raise MalformedError("the log answers with other entries than those that were asked for")
                found.append(logged)
        finally:
            stream.cancel()
        if len(found) != len(wanted):
            raise MalformedError("the log answers with fewer entries than were asked for")
        return tuple(found)

    def _read_bundle(self, request: bytes, left: float) -> bytes:
        stream = self._channel.stream(audit_service.READ_ENTRY_BUNDLE, request, deadline_seconds=left)
        taken = bytearray()
        try:
            for raw in stream:
                taken += log_reads.parse_bundle_chunk(raw)
                if len(taken) > BUNDLE_BYTES_MAX:
                    raise MalformedError(f"an entry bundle is at most {BUNDLE_BYTES_MAX} bytes")
        finally:
            stream.cancel()
        return bytes(taken)

    def follow(self, first_index: int, *, deadline_seconds: float = STREAM_SECONDS) -> FollowStream:
        """Follow the log from an index on; not tried again."""
        request = audit_service.encode_follow_request(first_index)
        return FollowStream(
            self._channel.stream(audit_service.FOLLOW_LOG, request, deadline_seconds=deadline_seconds)
        )


class FollowStream:
    """Batches of the log, in order, as they come."""

    def __init__(self, stream: RpcStream) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[FollowBatch]:
        """Yield each batch."""
        for raw in self._stream:
            yield audit_service.parse_follow_response(raw)

    def cancel(self) -> None:
        """End the call."""
        self._stream.cancel()


class GatekeeperClient:
    """The gatekeeper, as a participant sees it, and as an auditor does."""

    def __init__(self, channel: RpcChannel, patience: Patience | None = None) -> None:
        """Call over `channel`; `patience` says how it waits before it tries again."""
        self._channel = channel
        self._patience = patience or Patience()
        self._uploader = Uploader(channel, self._patience)

    def get_round(self, request: RoundRequest, *, deadline_seconds: float = CALL_SECONDS) -> RoundAnswer:
        """Ask for an open round. The deadline is for the answer beyond the wait that the request allows.

        Raises:
            NotFoundError: none within the wait.
        """
        raw = self._call(
            gatekeeper_service.GET_ROUND,
            gatekeeper_service.encode_round_request(request),
            deadline_seconds + request.wait_ms / 1000,
        )
        return gatekeeper_service.parse_round_response(raw)

    def fetch_model(
        self,
        request: ModelRequest,
        bytes_max: int = OBJECT_BYTES_MAX,
        *,
        deadline_seconds: float = 600.0,
        on_progress: DownloadProgress | None = None,
    ) -> Fetched:
        """Fetch a model or a mask, or what is to be added to a model that the caller has; on where it broke off.

        The caller checks the digest.

        Raises:
            MalformedError: more than `bytes_max` bytes.
            NotFoundError, DeniedError: it is not there, or refused.
            ExhaustedError, UnavailableError: not everything came in time.
        """
        return fetch(
            self._channel, self._patience, request, bytes_max,
            deadline_seconds=deadline_seconds, on_progress=on_progress,
        )  # fmt: skip

    def fetch_object(
        self, digest: Digest, bytes_max: int, *, sign: ObjectSigner, deadline_seconds: float = 600.0
    ) -> bytes:
        """Fetch an object under its digest, for whoever audits. Not tried again.

        Raises:
            DeniedError: the reader's key in the services document did not sign for it, or not lately.
            NotFoundError: it is not stored, or not any more.
            MalformedError: it is longer than `bytes_max`.
            DigestError: what came has another SHA-256.
        """
        stream = self._channel.stream(
            gatekeeper_service.FETCH_OBJECT,
            gatekeeper_service.encode_object_request(digest, sign(digest)),
            deadline_seconds=deadline_seconds,
        )
        taken, hasher = bytearray(), hashlib.sha256()
        try:
            for raw in stream:
                chunk = gatekeeper_service.parse_object_chunk(raw)
                if len(taken) + len(chunk) > bytes_max:
                    raise MalformedError(f"the object is longer than {bytes_max} bytes")
                taken += chunk
                hasher.update(chunk)
        finally:
            stream.cancel()
        if hasher.digest() != digest:
            raise DigestError("what came is not the object of this digest")
        return bytes(taken)

    def submit(
        self,
        envelope: Envelope,
        payload: bytes | memoryview | PayloadSource,
        *,
        deadline_seconds: float = CALL_SECONDS,
        on_progress: UploadProgress | None = None,
    ) -> Uploaded:
        """Submit an update in chunks until it is decided, over as many calls as it takes; give receipt A.

        Raises:
            DeniedError: refused, with the reason and, where it has one, the entry's index.
            ConflictError, ExhaustedError, UnavailableError: nothing was decided in time; sent again, it goes on.
        """
        return self._uploader.send(envelope, payload, deadline_seconds=deadline_seconds, on_progress=on_progress)

    def withdraw_update(self, envelope: Envelope, *, deadline_seconds: float = CALL_SECONDS) -> AppendedEntry:
        """Take an update back, by the envelope over a WithdrawalStatement; return its entry.

        Raises:
            DeniedError: refused, with the reason.
        """
        request = gatekeeper_service.encode_withdraw_request(envelope)
        return gatekeeper_service.parse_withdraw_response(
            self._call(gatekeeper_service.WITHDRAW_UPDATE, request, deadline_seconds)
        )

    def record_decision(self, envelope: Envelope, *, deadline_seconds: float = CALL_SECONDS) -> AppendedEntry:
        """Put a decision on record, by the envelope over a DecisionStatement; return its entry.

        Raises:
            DeniedError: refused, with the reason.
        """
        request = gatekeeper_service.encode_record_request(envelope)
        return gatekeeper_service.parse_record_response(
            self._call(gatekeeper_service.RECORD_DECISION, request, deadline_seconds)
        )

    def get_receipt(self, request: ReceiptRequest, *, deadline_seconds: float = CALL_SECONDS) -> Receipt:
        """Ask for a receipt.

        Raises:
            NotFoundError: there is none of that kind yet.
        """
        raw = self._call(
            gatekeeper_service.GET_RECEIPT, gatekeeper_service.encode_receipt_request(request), deadline_seconds
        )
        return gatekeeper_service.parse_receipt_response(raw)

    def _call(self, path: str, request: bytes, deadline_seconds: float) -> bytes:
        return call_with_retry(
            lambda left: self._channel.call(path, request, deadline_seconds=left),
            deadline_seconds=deadline_seconds,
            monotonic=self._patience.monotonic,
            sleep=self._patience.sleep,
        )


class IdentityClient:
    """A gatekeeper that issues identities: to newcomers at an address of its own, to everybody else at its usual one.

    A newcomer's channel is one with `AnonymousTls`; it verifies the service CA and the gatekeeper's name. No request is
    sent twice, for it has effect once, and whether it had is not known where the answer is lost.
    """

    def __init__(self, channel: RpcChannel) -> None:
        self._channel = channel

    def enrol(
        self, record: Envelope | None, request: Envelope, csr: bytes, *, deadline_seconds: float = ISSUE_SECONDS
    ) -> EnrolResponse:
        """Record a participant by its join key, and ask for its first identity; others ask without a record.

        Raises:
            DeniedError: refused, with the reason.
            UnavailableError: no answer; it may have had effect all the same.
        """
        raw = identity_service.encode_enrol_request(record, request, csr)
        return identity_service.parse_enrol_response(
            self._channel.call(identity_service.ENROL, raw, deadline_seconds=deadline_seconds)
        )

    def enrol_with(
        self, asker: IdentityAsker, record: Envelope | None, *, deadline_seconds: float = ISSUE_SECONDS
    ) -> tuple[AskedIdentity, EnrolResponse]:
        """Enrol, by another request each time that it is tried; give the one that was answered, and the answer.

        Raises:
            DeniedError: refused, with the reason.
            UnavailableError: no answer in time.
        """

        def attempt(left: float) -> tuple[AskedIdentity, EnrolResponse]:
            asked = asker.ask()
            return asked, self.enrol(record, asked.request, asked.csr, deadline_seconds=left)

        return call_with_retry(attempt, deadline_seconds=deadline_seconds)

    def renew(self, request: Envelope, csr: bytes, *, deadline_seconds: float = ISSUE_SECONDS) -> RenewResponse:
        """Ask for the caller's next identity.

        Raises:
            DeniedError: refused, with the reason.
            UnavailableError: no answer; it may have had effect all the same.
        """
        raw = identity_service.encode_renew_request(request, csr)
        return identity_service.parse_renew_response(
            self._channel.call(identity_service.RENEW_IDENTITY, raw, deadline_seconds=deadline_seconds)
        )
