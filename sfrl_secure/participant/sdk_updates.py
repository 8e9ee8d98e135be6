"""A participant's updates: encoded and looked at, or as they are; signed, sent until they are decided, acknowledged.

Format: proto/README.md, "Codec", "What participants sign" and "Upload".

Runs in: participant, cli, demo.
Trusts: the trust policy, and its caller. Nothing that a gatekeeper answers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.aggregation.buffers import Room
from sfrl_secure.crypto.envelope import Envelope
from sfrl_secure.governance.statements import UpdateStatement
from sfrl_secure.ids import Digest, parse_segment
from sfrl_secure.participant.encoding import Encoding, encode_change, encode_coordinates
from sfrl_secure.participant.first_look import look_before
from sfrl_secure.participant.places import naming_places
from sfrl_secure.participant.rounds import OpenRound
from sfrl_secure.participant.sending import ClaimedPayload, SignedUpdate, UpdateSender
from sfrl_secure.participant.submissions import Submitted, newest_submitted, read_submitted
from sfrl_secure.participant.wishes import (
    Wish,
    check_density,
    check_takes_indices,
    check_weight,
    choose_support,
    choose_value_type,
    noise_units,
)
from sfrl_secure.rpc.downloads import DownloadProgress
from sfrl_secure.rpc.sources import PayloadSource
from sfrl_secure.rpc.uploads import UploadProgress
from sfrl_secure.sparse.header import ValueType
from sfrl_secure.sparse.mask import Mask
from sfrl_secure.sparse.topk import ErrorFeedback
from sfrl_secure.translog.policy import TrustPolicy


class ParticipantUpdates(ABC):
    """The part of `Participant` that is about its updates."""

    name: str
    policy: TrustPolicy
    rng: np.random.Generator
    _sender: UpdateSender
    _receipts: Path
    _deadlines: dict[Digest, int]

    @abstractmethod
    def mask(self, opened: OpenRound, *, on_progress: DownloadProgress | None = None) -> Mask:
        """Fetch the round's mask."""

    @abstractmethod
    def room(self, opened: OpenRound, length: int) -> Room:
        """Give memory to write into."""

    def submit(
        self,
        opened: OpenRound,
        indices: NDArray[np.int64],
        values: NDArray[np.floating],
        weight: int,
        *,
        value_type: ValueType | None = None,
        noise_std: float = 0.0,
        rng: np.random.Generator | None = None,
        on_progress: UploadProgress | None = None,
    ) -> Submitted:
        """Encode, sign and send the changes of some coordinates; what would betray single examples stays here.

        For free support; in other segments new weights are handed in: `Training.submit`.

        Args:
            indices: int64, shape (k,), strictly rising; numbered as the manifest does.
            values: float32 or float64, shape (k,), parameter units: trained minus base.
            weight: such as the number of samples: a whole number, 1 to the terms' `weight_max`.
            value_type: None for the first of `wishes.VALUE_TYPES` that the terms take.
            noise_std: standard deviation of the noise that the caller has added to each value, parameter units.
            rng: source of the rounding noise, in place of the participant's own.

        Raises:
            PayloadError: indices or values break a bound of the codec; nothing was sent.
            DeniedError: without an `entry_index`, nothing was sent: the terms do not take it (`look_before`).
            DeniedError, RoundStateError: refused, with the reason; `entry_index` where the refusal is in the log. It
                stands for this signed update for ever; the same change signed again is another update.
            VerificationError: the answer does not prove the admission.
            ConflictError, ExhaustedError, UnavailableError: nothing was decided until the round's deadline.
        """
        signed = self.prepare_changes(
            opened, indices, values, weight, value_type=value_type, noise_std=noise_std, rng=rng
        )
        return self.send(signed, on_progress=on_progress)

    def prepare_changes(
        self,
        opened: OpenRound,
        indices: NDArray[np.int64],
        values: NDArray[np.floating],
        weight: int,
        *,
        value_type: ValueType | None = None,
        noise_std: float = 0.0,
        rng: np.random.Generator | None = None,
    ) -> SignedUpdate:
        """Encode and sign the changes of some coordinates, without sending them.

        Args, Raises: as `submit`, where nothing was sent.
        """
        terms, wish = opened.terms, Wish("free", value_type)
        weight = check_weight(terms, weight)
        check_takes_indices(terms)
        with naming_places(terms.model.manifest, values, indices):
            encoding = encode_coordinates(terms, indices, values, choose_value_type(terms, wish), rng or self.rng)
        return self._prepared(opened, encoding, weight, noise_std)

    def prepare(
        self,
        opened: OpenRound,
        change: NDArray[np.float32],
        weight: int,
        feedback: ErrorFeedback,
        *,
        wish: Wish | None = None,
        noise_std: float = 0.0,
    ) -> SignedUpdate:
        """Encode and sign a change of all coordinates, without sending it: see `encode_change`.

        Args:
            change: float32, shape (n,), parameter units: trained minus base.
            feedback: what is still owed; the caller calls its `keep` once the update is admitted.

        Raises:
            PayloadError, DeniedError, MalformedError: as `submit`, where nothing was sent.
        """
        terms, wish = opened.terms, wish or Wish()
        weight = check_weight(terms, weight)
        check_density(terms, wish)
        mask = self.mask(opened) if choose_support(terms, wish) == "agreed" else None
        with naming_places(terms.model.manifest, change):
            encoding = encode_change(terms, change, feedback, mask, wish, self.rng, partial(self.room, opened))
        return self._prepared(opened, encoding, weight, noise_std)

    def _prepared(self, opened: OpenRound, encoding: Encoding, weight: int, noise_std: float) -> SignedUpdate:
        noise = noise_units(noise_std, opened.terms.model.grid_exponent)
        look_before(opened.terms, encoding, weight, noise)
        return self._sender.prepare(opened, encoding.encoded, weight, noise)

    def send(
        self,
        signed: SignedUpdate,
        *,
        deadline_seconds: float | None = None,
        on_progress: UploadProgress | None = None,
    ) -> Submitted:
        """Send a signed update until it is decided; verify receipt A and keep it: see `UpdateSender.send`."""
        return self._sender.send(signed, deadline_seconds=deadline_seconds, on_progress=on_progress)

    def submit_payload(self, opened: OpenRound, claimed: ClaimedPayload) -> Submitted:
        """Sign and send a payload that is encoded already, as it is: nothing in it is looked at but whose mask it has.

        Raises:
            PayloadError: it has no header to read the root from.
            DeniedError: `payload_format`, without an `entry_index`: it is of another mask than the round's.
            DeniedError, VerificationError, ConflictError, ExhaustedError, UnavailableError: as `submit`.
        """
        return self.submit_update(self.update_of(opened, claimed), claimed.payload)

    def update_of(self, opened: OpenRound, claimed: ClaimedPayload) -> UpdateStatement:
        """What this participant signs for a payload in the round: see `UpdateSender.statement_of`."""
        return self._sender.statement_of(opened, claimed)

    def sign(self, update: UpdateStatement) -> Envelope:
        """Sign an update statement with this participant's key.

        Raises:
            MalformedError: the statement has no canonical form.
        """
        return self._sender.sign(update)

    def submit_update(
        self,
        update: UpdateStatement,
        payload: bytes | memoryview | PayloadSource,
        *,
        on_progress: UploadProgress | None = None,
    ) -> Submitted:
        """Sign and send exactly this statement with exactly this payload; verify receipt A and keep it.

        The envelope is kept before it is sent, until its admission is acknowledged: see `complaint`.

        Raises:
            MalformedError: the statement has no canonical form.
            DeniedError, VerificationError, ConflictError, ExhaustedError, UnavailableError: as `submit`.
        """
        deadline_us = self._deadlines.get(update.round_opened, 0)
        return self.send(SignedUpdate(update, self.sign(update), payload, deadline_us), on_progress=on_progress)

    def submitted(self, segment: str, round_number: int = 0) -> Submitted:
        """Read an admitted update of ours back from the receipt that was kept.

        Args:
            round_number: 0 for the newest.

        Raises:
            NotFoundError: no receipt of that round is kept.
            MalformedError, VerificationError: what is kept does not prove it.
        """
        return read_submitted(self._receipts, self.policy, self.name, parse_segment(segment), round_number)

    def newest_submitted(self, segment: str) -> int:
        """The highest round of which an admitted update's receipt is kept; 0 where there is none. Nothing is proven."""
        return newest_submitted(self._receipts, parse_segment(segment))
