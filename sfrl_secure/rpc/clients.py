"""The services as objects: typed calls, one method a method.

Nothing that comes back is verified here; proofs and signatures are checked by whoever acts on them.

Format: proto/sfrl/audit/v1/audit_service.proto, proto/sfrl/gatekeeper/v1/gatekeeper_service.proto.

Runs in: gatekeeper, aggregator, verifier, participant, cli.
Trusts: the channel, for who answers.
"""

from __future__ import annotations

from collections.abc import Iterator

from sfrl_secure.crypto.envelope import Envelope
from sfrl_secure.rpc.channel import RpcChannel, RpcStream, call_with_retry
from sfrl_secure.wire import audit_service, gatekeeper_service
from sfrl_secure.wire.audit_service import AppendedEntry, FollowBatch
from sfrl_secure.wire.gatekeeper_service import ModelRequest, ReceiptRequest, RoundAnswer, RoundRequest
from sfrl_secure.wire.receipts import Receipt

CALL_SECONDS = 20.0
STREAM_SECONDS = 3600.0


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
    """The gatekeeper, as a participant sees it."""

    def __init__(self, channel: RpcChannel) -> None:
        self._channel = channel

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

    def fetch_model(self, request: ModelRequest, *, deadline_seconds: float = 600.0) -> Iterator[bytes]:
        """Yield a model's chunks; the caller bounds the sum and checks the digest. Not tried again."""
        stream = self._channel.stream(
            gatekeeper_service.FETCH_MODEL,
            gatekeeper_service.encode_model_request(request),
            deadline_seconds=deadline_seconds,
        )
        try:
            for raw in stream:
                yield gatekeeper_service.parse_model_chunk(raw)
        finally:
            stream.cancel()

    def submit(self, envelope: Envelope, payload: bytes, *, deadline_seconds: float = CALL_SECONDS) -> AppendedEntry:
        """Submit an update and return receipt A.

        Raises:
            DeniedError: refused, with the reason and, where it has one, the entry's index.
        """
        request = gatekeeper_service.encode_submit_request(envelope, payload)
        return gatekeeper_service.parse_submit_response(
            self._call(gatekeeper_service.SUBMIT_UPDATE, request, deadline_seconds)
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
            lambda left: self._channel.call(path, request, deadline_seconds=left), deadline_seconds=deadline_seconds
        )
