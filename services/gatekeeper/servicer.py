"""The gatekeeper's methods: parse, decide, record, answer.

Format: proto/sfrl/gatekeeper/v1/gatekeeper_service.proto.

Runs in: gatekeeper.
Trusts: the interceptor, for who calls. Nothing in a request.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from threading import BoundedSemaphore
from typing import NoReturn

import grpc

from sfrl_secure.clock import Clock
from sfrl_secure.errors import DeniedError, MalformedError, NotFoundError
from sfrl_secure.ids import Digest, SpiffeId, sha256
from sfrl_secure.limits import OBJECT_BYTES_MAX
from sfrl_secure.rounds.admission import is_relay
from sfrl_secure.rounds.state import FederationState
from sfrl_secure.rpc.identity import peer_class_of, peer_of
from sfrl_secure.rpc.server import Method
from sfrl_secure.services.gatekeeper.admit import Admitter, Payload, Submission
from sfrl_secure.services.gatekeeper.arrivals import CallEndedError
from sfrl_secure.services.gatekeeper.bounds import (
    DECISIONS_A_MINUTE_MAX,
    FETCHES_AT_ONCE_MAX,
    PeerBound,
    PeerRate,
)
from sfrl_secure.services.gatekeeper.decisions import decide_record
from sfrl_secure.services.gatekeeper.downloads import Downloads, Wanted, wanted_of
from sfrl_secure.services.gatekeeper.fetches import FetchLog
from sfrl_secure.services.gatekeeper.object_requests import check_object_request
from sfrl_secure.services.gatekeeper.proofs import ProofBuilder
from sfrl_secure.services.gatekeeper.refuse import DecisionChangedError, RefusedRequest, Refuser
from sfrl_secure.services.gatekeeper.uploads import UploadIntake
from sfrl_secure.services.gatekeeper.withdrawals import decide_withdrawal
from sfrl_secure.services.gatekeeper.words import WordTaker
from sfrl_secure.services.view import FederationView
from sfrl_secure.storage.objects import Objects
from sfrl_secure.wire import downloads, uploads
from sfrl_secure.wire import gatekeeper_service as wire
from sfrl_secure.wire.audit_service import AppendedEntry

_FETCH_LOG_SECONDS = 15.0
_PARTICIPANTS = frozenset({"participant"})
_AUDITING = frozenset({"auditor", "verifier"})


class GatekeeperServicer:
    """Answers participants, and auditors who copy objects."""

    def __init__(
        self,
        view: FederationView,
        admitter: Admitter,
        refuser: Refuser,
        proofs: ProofBuilder,
        fetches: FetchLog,
        words: WordTaker,
        intake: UploadIntake,
        objects: Objects,
        clock: Clock,
        *,
        waiters_max: int = 8,
    ) -> None:
        """Bind the parts together.

        Args:
            waiters_max: calls that wait for a round at once, each on a thread of the server; the others are answered
                at once, and ask again.
        """
        self._view = view
        self._admitter = admitter
        self._refuser = refuser
        self._proofs = proofs
        self._fetches = fetches
        self._words = words
        self._intake = intake
        self._objects, self._downloads = objects, Downloads(objects)
        self._clock = clock
        self._waiters = BoundedSemaphore(waiters_max)
        self._fetching = PeerBound(FETCHES_AT_ONCE_MAX)
        self._recording = PeerRate(DECISIONS_A_MINUTE_MAX, 60_000_000)

    def methods(self) -> list[Method]:
        """What the server serves, and to whom."""
        return [
            Method(wire.GET_ROUND, self.get_round, _PARTICIPANTS),
            Method(downloads.FETCH_MODEL, self.fetch_model, _PARTICIPANTS, is_stream=True),
            Method(
                uploads.SUBMIT_UPDATE, self.submit_update, _PARTICIPANTS,
                is_stream=True, takes_stream=True, is_watched=True,
            ),
            Method(wire.GET_RECEIPT, self.get_receipt, _PARTICIPANTS),
            Method(wire.WITHDRAW_UPDATE, self.withdraw_update, _PARTICIPANTS),
            Method(wire.RECORD_DECISION, self.record_decision, _PARTICIPANTS),
            Method(wire.FETCH_OBJECT, self.fetch_object, _AUDITING, is_stream=True),
        ]

    def get_round(self, raw: bytes, context: grpc.ServicerContext) -> bytes:
        """Give the segment's open round with its proofs."""
        asked = wire.parse_round_request(raw)
        with self._view.reading() as state:
            self._check_granted(state, peer_of(context).spiffe_id, asked.segment, sha256(raw))
        may_wait = self._waiters.acquire(blocking=False)
        try:
            wait_seconds = asked.wait_ms / 1000 if may_wait else 0.0
            answer = self._proofs.open_round(asked.segment, asked.after_round, wait_seconds)
        finally:
            if may_wait:
                self._waiters.release()
        return wire.encode_round_response(answer)

    def fetch_model(self, raw: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        """Give a model, what leads to it, or a mask, in chunks; a model's fetch is in the log before the first byte."""
        peer = peer_of(context).spiffe_id
        with self._fetching.held_by(peer):
            asked = downloads.parse_model_request(raw)
            wanted = self._wanted(asked, peer, sha256(raw))
            download = self._downloads.prepare(asked, wanted)
            if wanted.needs_entry and download.pieces:
                self._fetches.record(asked.segment, peer.name, asked.model, _FETCH_LOG_SECONDS)
            yield downloads.encode_model_source(download.source)
            yield from map(downloads.encode_model_chunk, self._downloads.chunks(download))

    def _wanted(self, asked: downloads.ModelRequest, peer: SpiffeId, request_digest: Digest) -> Wanted:
        with self._view.reading() as state:
            self._check_granted(state, peer, asked.segment, request_digest)
            return wanted_of(state.segment(asked.segment), asked, peer.name)

    def submit_update(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """Admit an update or refuse it; either is in the log before it is answered. Until then, say what is durable."""
        peer = peer_of(context).spiffe_id
        raw = next(requests, None)
        if raw is None:
            raise MalformedError("the call brought no message")
        digest = sha256(raw)
        try:
            sent = uploads.parse_upload_start(raw)
        except MalformedError as error:
            self._refuse_malformed(peer, digest, error)
        del raw
        request = Submission(peer, sent.envelope_raw, sent.envelope, sent.update, digest)
        with self._intake.payload(request, sent.chunk, requests) as payload:
            del sent
            try:
                answer = yield from self._deciding(request, payload)
            except CallEndedError as ended:
                raise ended.error from None
        yield uploads.encode_admitted(self._acknowledged(answer))

    def _deciding(self, request: Submission, payload: Payload) -> Generator[bytes, None, AppendedEntry | int]:
        deciding = self._admitter.decide(request, payload)
        with closing(deciding):
            while True:
                try:
                    durable_bytes = next(deciding)
                except StopIteration as decided:
                    answer: AppendedEntry | int = decided.value
                    return answer
                yield uploads.encode_durable(durable_bytes)

    def _refuse_malformed(self, peer: SpiffeId, request_digest: Digest, error: MalformedError) -> NoReturn:
        denial = DeniedError("malformed", str(error))
        try:
            raise self._refuser.refuse(RefusedRequest(peer, request_digest), denial, payload_kept=False) from None
        except DecisionChangedError:
            raise AssertionError("a malformed request quotes nothing that could be decided again") from None

    def withdraw_update(self, raw: bytes, context: grpc.ServicerContext) -> bytes:
        """Take an update back: it is in the log before it is answered."""
        peer, digest = peer_of(context).spiffe_id, sha256(raw)
        try:
            asked = wire.parse_withdraw_request(raw)
        except MalformedError as error:
            raise self._words.malformed(error, digest) from None
        taken = self._words.take(
            "update_withdrawn", asked.withdrawal.segment, digest,
            lambda state, _now_us: decide_withdrawal(state, peer, asked),
        )  # fmt: skip
        return wire.encode_withdraw_response(self._acknowledged(taken))

    def record_decision(self, raw: bytes, context: grpc.ServicerContext) -> bytes:
        """Put a decision on record: it is in the log before it is answered."""
        peer, digest = peer_of(context).spiffe_id, sha256(raw)
        try:
            asked = wire.parse_record_request(raw)
        except MalformedError as error:
            raise self._words.malformed(error, digest) from None
        self._recording.take(peer, self._clock.now_us())
        taken = self._words.take(
            "decision_recorded", asked.decision.segment, digest,
            lambda state, now_us: decide_record(state, peer, asked, now_us),
        )  # fmt: skip
        return wire.encode_record_response(self._acknowledged(taken))

    def _acknowledged(self, answer: AppendedEntry | int) -> AppendedEntry:
        """Receipt A of a new entry, or of the one that was there."""
        return self._proofs.acknowledged(answer) if isinstance(answer, int) else answer

    def get_receipt(self, raw: bytes, context: grpc.ServicerContext) -> bytes:
        """Give a receipt for the caller's own update, or for one of a segment whose relay it is."""
        asked, peer = wire.parse_receipt_request(raw), peer_of(context).spiffe_id
        with self._view.reading() as state:
            may_read_all = is_relay(state, peer, asked.segment, self._clock.now_us())
        if self._proofs.owner_of(asked.segment, asked.statement_digest) != peer.name and not may_read_all:
            # The same answer as for an update that does not exist: nobody learns of another's.
            raise NotFoundError("no update of this segment has this statement digest")
        return wire.encode_receipt_response(
            self._proofs.receipt(asked.segment, asked.statement_digest, asked.kind)
        )

    def fetch_object(self, raw: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        """Give an object in chunks to whoever audits and signed for it: all that lies under digests, nothing else."""
        asked, peer = wire.parse_object_request(raw), peer_of(context).spiffe_id
        with self._view.reading() as state:
            services, federation_id = state.services(), state.federation_id
        try:
            check_object_request(asked, peer, services, federation_id, self._clock.now_us())
        except DeniedError as denial:
            raise self._words.refused(denial, sha256(raw), peer_class_of(peer)) from None
        with self._fetching.held_by(peer):
            try:
                stored = self._objects.open(asked.digest, OBJECT_BYTES_MAX)
            except NotFoundError:
                raise NotFoundError("no object of this digest is stored") from None
            with stored:
                stored.check_digest()
                yield from map(wire.encode_object_chunk, stored.chunks())

    def _check_granted(
        self, state: FederationState, peer: SpiffeId, segment_name: str, request_digest: Digest
    ) -> None:
        """Check that the participant may read this segment's rounds and models; who may not is counted.

        Raises:
            DeniedError: `unknown_segment`, `participant_inactive`, `not_granted`.
        """
        try:
            terms = state.segment(segment_name).terms
            record = state.participant(peer.name)
            if record is None or not state.is_active(peer.name, self._clock.now_us()):
                raise DeniedError("participant_inactive", "the participant is suspended, revoked or expired")
            if "fetch" not in terms.operations or not record.groups & terms.groups:
                raise DeniedError("not_granted", "no group of the participant is granted this segment")
        except DeniedError as denial:
            raise self._words.refused(denial, request_digest) from None
