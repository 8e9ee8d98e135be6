"""A participant: open a round, fetch its model, submit an update, take it back, record decisions, keep the receipts.

Nothing that a gatekeeper says is acted on before it is proven: a round under the witness quorum, a model by its
digest, an admission by the log's signature over exactly our envelope, a receipt by its proofs. There is no switch to
skip any of it.

Runs in: participant, cli, demo.
Trusts: the profile, its keys and its trust policy. Nothing that arrives.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.aggregation.models import ModelSnapshot, model_bytes, parse_model
from sfrl_secure.clock import Clock, SystemClock
from sfrl_secure.crypto.envelope import Envelope, sign_envelope
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.errors import DigestError, MalformedError, NotFoundError, RoundStateError, VerificationError
from sfrl_secure.governance.statements import UPDATE_TYPE, PayloadFormat, UpdateStatement
from sfrl_secure.ids import Digest, parse_hex_digest, parse_segment, sha256
from sfrl_secure.limits import VALUE_MAX
from sfrl_secure.participant.acknowledgement import open_acknowledgement
from sfrl_secure.participant.decisions import Decision, opening_path
from sfrl_secure.participant.exchange import CALL_SECONDS, keep_acknowledged, send_until_decided
from sfrl_secure.participant.known_roots import KnownRoots
from sfrl_secure.participant.profile import Profile, read_profile
from sfrl_secure.participant.receipts import ProvenReceipt, open_receipt
from sfrl_secure.participant.renewal import RenewingChannel
from sfrl_secure.participant.rounds import FinishedSegment, OpenRound, open_round
from sfrl_secure.participant.sent import complaint_of, forget_sent, keep_sent
from sfrl_secure.participant.submissions import ACKNOWLEDGED, Submitted, read_submitted
from sfrl_secure.participant.words import Acknowledged, AcknowledgedDecision, WordsOnRecord
from sfrl_secure.rounds.leakage import check_leakage
from sfrl_secure.rpc.channel import RpcChannel, call_with_retry
from sfrl_secure.rpc.clients import GatekeeperClient
from sfrl_secure.sparse.encode import EncodedUpdate, encode_update
from sfrl_secure.sparse.header import ValueType
from sfrl_secure.storage.files import SECRET_MODE, make_folder, write_atomically
from sfrl_secure.translog.policy import TrustPolicy
from sfrl_secure.wire import gatekeeper_service as wire
from sfrl_secure.wire import statements
from sfrl_secure.wire.receipts import ReceiptKind, encode_receipt

FETCH_SECONDS = 600.0
POLL_SECONDS = 5.0
"""Longest wait of one GetRound call; short enough for the share of time that each gatekeeper gets."""
POLL_PAUSE_SECONDS = 0.1
RECEIPT_PAUSE_SECONDS = 0.1
MODELS_KEPT = 2

Progress = Callable[[int, int], None]
"""Takes the bytes of a model that have arrived, and how many it has."""


class Participant:
    """One participant of one federation. For one thread. Close it, or use it in a `with` statement."""

    def __init__(
        self,
        *,
        name: str,
        key: SigningKey,
        policy: TrustPolicy,
        channel: RpcChannel,
        receipts: Path,
        clock: Clock,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
        federation_id: Digest | None = None,
    ) -> None:
        """Take part as `name`; owns `channel`. `from_profile` is the usual way."""
        self.name = name
        self._key = key
        self._policy = policy
        self._channel = channel
        self._gatekeeper = GatekeeperClient(channel)
        self._receipts = receipts
        self._known_roots = KnownRoots(receipts)
        self._clock = clock
        self._sleep = sleep
        self._monotonic = monotonic
        self._models: OrderedDict[Digest, ModelSnapshot] = OrderedDict()
        self._words = WordsOnRecord(name, key, policy, self._gatekeeper, receipts, clock, sleep)
        self._federation_id = federation_id

    @classmethod
    def from_profile(cls, profile: Path | Profile) -> Participant:
        """Take part as a profile says. Connects when the first call is made, and renews its certificate in time.

        Raises:
            NotFoundError, MalformedError, DeniedError: the profile or a file that it names is missing, does not fit, or
                is a key that others can read.
        """
        if isinstance(profile, Path):
            profile = read_profile(profile)
        clock = SystemClock()
        return cls(
            name=profile.name,
            key=profile.open_signing_key(),
            policy=profile.open_trust_policy(),
            channel=RenewingChannel(profile, clock),
            receipts=profile.receipts,
            clock=clock,
            federation_id=None if profile.federation_id is None else parse_hex_digest(profile.federation_id),
        )

    def open_round(
        self, segment: str, after_round: int = 0, *, wait_seconds: float = 60.0, through_halt: bool = True
    ) -> OpenRound | FinishedSegment:
        """Wait for a round with a number above `after_round` and open it, or learn that there will be none.

        Args:
            through_halt: wait for the operators to resume a halted segment; False to be told of a halt at once.

        Raises:
            NotFoundError: no such round opened in time.
            RoundStateError: `halted`, by order.
            VerificationError: what the gatekeeper showed does not prove it.
            DeniedError: `unknown_segment`, `not_granted`, `participant_inactive`.
            UnavailableError: no gatekeeper answers.
        """
        parse_segment(segment)
        end = self._monotonic() + wait_seconds
        # Whoever does not wait through a halt asks first how it stands: a halted segment's round would be waited for.
        longest = POLL_SECONDS if through_halt else 0.0
        while True:
            left = max(end - self._monotonic(), 0.0)
            request = wire.RoundRequest(segment, after_round, int(min(left, longest) * 1000))
            longest = POLL_SECONDS
            try:
                answer = self._gatekeeper.get_round(request, deadline_seconds=CALL_SECONDS)
            except (NotFoundError, RoundStateError) as error:
                is_halted = isinstance(error, RoundStateError) and error.reason == "halted"
                left = end - self._monotonic()
                if isinstance(error, RoundStateError) and (not is_halted or not through_halt or left <= 0):
                    raise
                if left <= 0:
                    raise NotFoundError(
                        "no such round opened in time: wait longer, or ask an operator whether the segment's terms "
                        "are in force"
                    ) from None
                # A gatekeeper with many who wait answers at once.
                self._sleep(min(left, POLL_PAUSE_SECONDS))
                continue
            opened = open_round(answer, segment, self._policy, self._clock.now_us(), self._known_roots)
            if isinstance(opened, OpenRound) and opened.number <= after_round:
                raise VerificationError("the gatekeeper shows a round that is over: ask another gatekeeper")
            if isinstance(opened, OpenRound):
                self._federation_id = opened.federation_id
            return opened

    def model(self, opened: OpenRound | FinishedSegment, *, on_progress: Progress | None = None) -> ModelSnapshot:
        """Fetch the round's base model, or the finished segment's newest; the last two are kept in memory.

        Raises:
            DigestError: what arrived is not the model that the log names.
            MalformedError: it is longer than the terms' manifest, or of another manifest or grid.
            NotFoundError, DeniedError, UnavailableError: the gatekeeper does not have it, refuses, does not answer.
        """
        digest = opened.base_model if isinstance(opened, OpenRound) else opened.model
        kept = self._models.get(digest)
        if kept is not None:
            self._models.move_to_end(digest)
            return kept
        terms = opened.terms.model
        request = wire.ModelRequest(opened.segment, digest)
        raw = call_with_retry(
            lambda left: self._fetch(request, model_bytes(terms.manifest), left, on_progress),
            deadline_seconds=FETCH_SECONDS,
            monotonic=self._monotonic,
            sleep=self._sleep,
        )
        if sha256(raw) != digest:
            raise DigestError("the model that arrived is not the one that the log names: ask another gatekeeper")
        model = parse_model(raw, terms.manifest, terms.grid_exponent)
        self._models[digest] = model
        while len(self._models) > MODELS_KEPT:
            self._models.popitem(last=False)
        return model

    def _fetch(
        self, request: wire.ModelRequest, bytes_max: int, deadline_seconds: float, on_progress: Progress | None
    ) -> bytes:
        raw = bytearray()
        for chunk in self._gatekeeper.fetch_model(request, deadline_seconds=deadline_seconds):
            if len(raw) + len(chunk) > bytes_max:
                raise MalformedError(f"a model of these terms has {bytes_max} bytes, and more arrived")
            raw += chunk
            if on_progress is not None:
                on_progress(len(raw), bytes_max)
        return bytes(raw)

    def submit(
        self,
        opened: OpenRound,
        indices: NDArray[np.int64],
        values: NDArray[np.floating],
        weight: int,
        *,
        value_type: ValueType = "int8",
        noise_std: float = 0.0,
        rng: np.random.Generator,
    ) -> Submitted:
        """Encode, sign and send an update; one that would betray single examples stays here.

        Args:
            indices: int64, shape (k,), strictly rising; numbered as the manifest does.
            values: float32 or float64, shape (k,), parameter units: trained minus base.
            weight: 1 to the terms' `weight_max`.
            noise_std: standard deviation of the noise that the caller has added to each value, parameter units.
            rng: source of the rounding noise of int8.

        Raises:
            PayloadError: indices or values break a bound of the codec; nothing was sent.
            DeniedError: `leak_rows`, `leak_labels`, `leak_noise` without an `entry_index`: nothing was sent.
            DeniedError, RoundStateError: refused, with the reason; `entry_index` where the refusal is in the log. It
                stands for this signed update for ever; the same change signed again is another update.
            VerificationError: the answer does not prove the admission.
            ConflictError, ExhaustedError, UnavailableError: nothing was decided; the same update may be sent again.
        """
        terms = opened.terms.model
        encoded = encode_update(
            terms.manifest.coordinates, indices, values,
            value_type=value_type, grid_exponent=terms.grid_exponent, rng=rng,
        )  # fmt: skip
        noise_units = _noise_units(noise_std, terms.grid_exponent)
        check_leakage(opened.terms, encoded.update, noise_units)
        update = self.update_of(
            opened, encoded.payload, encoded.update.nonzeros, weight, value_type=value_type, noise_std=noise_units
        )
        return self.submit_update(update, encoded.payload, encoded=encoded)

    def submit_payload(
        self,
        opened: OpenRound,
        payload: bytes,
        nonzeros: int,
        weight: int,
        *,
        value_type: str = "int8",
        noise_std: int = 0,
    ) -> Submitted:
        """Sign and send a payload that is encoded already, as it is: nothing in it is looked at.

        Args:
            noise_std: grid units.

        Raises:
            DeniedError, VerificationError, ConflictError, ExhaustedError, UnavailableError: as `submit`.
        """
        update = self.update_of(opened, payload, nonzeros, weight, value_type=value_type, noise_std=noise_std)
        return self.submit_update(update, payload)

    def update_of(
        self,
        opened: OpenRound,
        payload: bytes,
        nonzeros: int,
        weight: int,
        *,
        value_type: str = "int8",
        noise_std: int = 0,
    ) -> UpdateStatement:
        """What this participant signs for `payload` in the round."""
        return UpdateStatement(
            federation_id=opened.federation_id,
            segment=opened.segment,
            participant=self.name,
            key_id=self._key.public_key.key_id,
            round=opened.number,
            round_opened=opened.opened,
            base_model=opened.base_model,
            payload_sha256=sha256(payload),
            payload_bytes=len(payload),
            nonzeros=nonzeros,
            format=PayloadFormat(codec=1, support="free", values=value_type),
            weight=weight,
            created_us=self._clock.now_us(),
            noise_std=noise_std,
        )

    def sign(self, update: UpdateStatement) -> Envelope:
        """Sign an update statement with this participant's key.

        Raises:
            MalformedError: the statement has no canonical form.
        """
        return sign_envelope(UPDATE_TYPE, statements.encode_update(update), [self._key])

    def submit_update(
        self, update: UpdateStatement, payload: bytes, *, encoded: EncodedUpdate | None = None
    ) -> Submitted:
        """Sign and send exactly this statement with exactly this payload; verify receipt A and keep it.

        The envelope is kept before it is sent, until its admission is acknowledged: see `complaint`.

        Raises:
            MalformedError: the statement has no canonical form, or the message is over 4 MiB.
            DeniedError, VerificationError, ConflictError, ExhaustedError, UnavailableError: as `submit`.
        """
        envelope = self.sign(update)
        request_bytes = len(wire.encode_submit_request(envelope, payload))
        keep_sent(self._receipts, update, envelope)
        acknowledged = send_until_decided(
            lambda: self._gatekeeper.submit(envelope, payload, deadline_seconds=CALL_SECONDS), self._sleep
        )
        open_acknowledgement(acknowledged, envelope, update.segment, self._policy)
        keep_acknowledged(self._receipts / f"{update.segment}-{update.round}-{ACKNOWLEDGED}", acknowledged)
        forget_sent(self._receipts, update)
        return Submitted(
            update=update,
            statement_digest=envelope.digest,
            acknowledgement=wire.encode_submit_response(acknowledged),
            index=acknowledged.logged.index,
            request_bytes=request_bytes,
            encoded=encoded,
        )

    def submitted(self, segment: str, round_number: int = 0) -> Submitted:
        """Read an admitted update of ours back from the receipt that was kept.

        Args:
            round_number: 0 for the newest.

        Raises:
            NotFoundError: no receipt of that round is kept.
            MalformedError, VerificationError: what is kept does not prove it.
        """
        return read_submitted(self._receipts, self._policy, self.name, parse_segment(segment), round_number)

    def withdraw(self, submitted: Submitted) -> Acknowledged:
        """Take an admitted update back while its round is open; verify and keep the log's word.

        Asked again, it gives the entry that there is.

        Raises:
            DeniedError, RoundStateError: refused, with the reason: `round_not_open` once the round is closed.
            VerificationError: the answer does not prove the withdrawal.
            ConflictError, ExhaustedError, UnavailableError: nothing was decided; try again.
        """
        return self._words.withdraw(submitted)

    def record_decision(
        self, segment: str, raw_input: bytes, decision: Decision, *, record_seq: int = 0, wait_seconds: float = 60.0
    ) -> AcknowledgedDecision:
        """Put a decision on record: a salted hash of the input, and what the model said of it.

        The salt is kept in the profile's folder before anything is sent (`decisions`); the input is not kept.

        Args:
            record_seq: number of the record; 0 for one above the last that was kept here.
            wait_seconds: where the profile does not name the federation's id and no receipt has it, for the round from
                which it is learnt.

        Raises:
            DeniedError: refused, with the reason: `record_seq` where the log has a record with this number or above.
            MalformedError: a number or a list of the decision is outside its range.
            VerificationError: the answer does not prove the record.
            NotFoundError: the federation's id is known neither from a round nor from a receipt.
            ConflictError, ExhaustedError, UnavailableError: nothing was decided; try again.
        """
        parse_segment(segment)
        federation_id = self._known_federation(segment, wait_seconds)
        return self._words.record(federation_id, segment, raw_input, decision, record_seq)

    def complaint(self, segment: str, round_number: int = 0) -> bytes:
        """Give the file to show to an auditor about an update that was sent and never acknowledged.

        Args:
            round_number: 0 for the newest.

        Raises:
            NotFoundError: there is no such update.
        """
        return complaint_of(self._receipts, parse_segment(segment), round_number)

    def opening_path(self, segment: str, record_seq: int) -> Path:
        """Where the salt of a decision is kept."""
        return opening_path(self._receipts, segment, record_seq)

    def _known_federation(self, segment: str, wait_seconds: float) -> Digest:
        if self._federation_id is None:
            with suppress(NotFoundError):
                self._federation_id = self.submitted(segment).update.federation_id
        if self._federation_id is None:
            self.open_round(segment, wait_seconds=wait_seconds)
        if self._federation_id is None:
            raise NotFoundError("the federation's id is learnt from an open round, and none will open here")
        return self._federation_id

    def receipt(self, submitted: Submitted, kind: ReceiptKind, *, wait_seconds: float = 60.0) -> bytes:
        """Wait for a receipt, WITNESSED or COUNTED, verify it and keep it in the profile's folder.

        Returns: the receipt file's bytes, which prove what they prove by themselves: `receipts.open_receipt`.

        Raises:
            NotFoundError: there is none of this kind in time. A round that was aborted gives no COUNTED receipt.
            VerificationError: the receipt does not prove this update; nothing was kept.
            UnavailableError: no gatekeeper answers.
        """
        update = submitted.update
        request = wire.ReceiptRequest(update.segment, submitted.statement_digest, kind)
        end = self._monotonic() + wait_seconds
        while True:
            try:
                raw = encode_receipt(self._gatekeeper.get_receipt(request, deadline_seconds=CALL_SECONDS))
                break
            except NotFoundError:
                if self._monotonic() >= end:
                    raise NotFoundError(
                        f"there is no receipt of kind {kind.name} yet: wait for the round to close, or read the log"
                    ) from None
                self._sleep(RECEIPT_PAUSE_SECONDS)
        proven = open_receipt(raw, self._policy)
        self._known_roots.check(proven.roots)
        self._check_receipt(proven, submitted, kind)
        make_folder(self._receipts)
        write_atomically(self.receipt_path(update.segment, update.round, kind), raw, mode=SECRET_MODE)
        return raw

    def receipt_path(self, segment: str, round_number: int, kind: ReceiptKind) -> Path:
        """Where a receipt is kept."""
        return self._receipts / f"{segment}-{round_number}-{kind.name.lower()}.receipt"

    @staticmethod
    def _check_receipt(proven: ProvenReceipt, submitted: Submitted, kind: ReceiptKind) -> None:
        if proven.kind is not kind or proven.statement_digest != submitted.statement_digest:
            raise VerificationError("the receipt is another update's, or of another kind: ask another gatekeeper")
        if proven.index != submitted.index:
            # Both places are signed by the log: an update is admitted once.
            raise VerificationError("the receipt names another admission than the one that was acknowledged")

    def close(self) -> None:
        """End every connection."""
        self._channel.close()

    def __enter__(self) -> Participant:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _noise_units(noise_std: float, grid_exponent: int) -> int:
    """The claimed noise in grid units, rounded down: nobody claims more than was added.

    Raises:
        MalformedError: not a number from 0 to what a header holds.
    """
    units = noise_std * 2.0**grid_exponent
    if not (math.isfinite(units) and 0.0 <= units <= VALUE_MAX):
        raise MalformedError("the noise's standard deviation is from 0 to the largest value of an update")
    return math.floor(units)
