"""Taking part in a segment, round after round: train on the model, hand in the weights, wait for the receipt.

    with Participant.from_profile("rover-1.toml") as rover:
        rocks = rover.join("rocks")
        for training in rocks.rounds():
            weights = train(training.model.state_dict())
            receipt = training.submit(weights, num_samples=812)
        receipt.wait()

What an update looks like is the terms' to say; whoever wants something else of what they take, says so. What top-k does
not send is owed to the next round, for as long as the membership lives: after a restart nothing is owed.

Runs in: participant, cli, demo.
Trusts: the trust policy. Nothing that arrives.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from sfrl_secure.errors import ClosedError, MalformedError, NotFoundError, UnavailableError
from sfrl_secure.governance.terms import SegmentTerms
from sfrl_secure.participant.rounds import FinishedSegment, OpenRound
from sfrl_secure.participant.sdk import Participant
from sfrl_secure.participant.sending import SignedUpdate
from sfrl_secure.participant.update_receipt import UpdateReceipt
from sfrl_secure.participant.weights import BaseModel, Weights, change_of, delta_of
from sfrl_secure.participant.wishes import Wish
from sfrl_secure.rpc.downloads import DownloadProgress
from sfrl_secure.rpc.uploads import UploadProgress
from sfrl_secure.sparse.header import SupportMode, ValueType
from sfrl_secure.sparse.topk import ErrorFeedback

AWAY_PAUSE_SECONDS = 5.0


class Membership:
    """A participant in one segment. For one thread. Made by `Participant.join`."""

    def __init__(self, participant: Participant, segment: str) -> None:
        self.participant = participant
        self.segment = segment
        self.finished: FinishedSegment | None = None
        """The newest model, once no further round opens."""
        self._feedback: ErrorFeedback | None = None

    def rounds(self, *, wait_seconds: float = float("inf")) -> Iterator[Training]:
        """Yield each round that opens, until the segment's rounds are used up.

        A round of which an admitted update is kept here is not yielded again, so that a restart goes on with the next.
        Who does not submit in a round is not in it; the next one comes all the same.

        Args:
            wait_seconds: longest wait for one round; a gatekeeper that does not answer is asked again meanwhile.

        Raises:
            NotFoundError, UnavailableError: no round, or no gatekeeper, within `wait_seconds`.
            DeniedError, VerificationError: as `Participant.open_round`.
        """
        after = 0
        while (training := self.next_round(after, wait_seconds=wait_seconds)) is not None:
            after = training.number
            yield training

    def next_round(self, after_round: int = 0, *, wait_seconds: float = 60.0) -> Training | None:
        """Wait for a round above `after_round` that this participant is not in yet; None where there will be none.

        Raises:
            NotFoundError, UnavailableError, DeniedError, VerificationError: as `rounds`.
        """
        after_round = max(after_round, self.participant.newest_submitted(self.segment))
        patience = self.participant.patience
        end = patience.monotonic() + wait_seconds
        while True:
            left = max(end - patience.monotonic(), 0.0)
            try:
                opened = self.participant.open_round(self.segment, after_round, wait_seconds=left)
                break
            except ClosedError:
                raise
            except UnavailableError:
                if patience.monotonic() + AWAY_PAUSE_SECONDS >= end:
                    raise
                patience.sleep(AWAY_PAUSE_SECONDS * patience.jitter())
        if isinstance(opened, FinishedSegment):
            self.finished = opened
            return None
        return Training(self, opened)

    def final_model(self, *, on_progress: DownloadProgress | None = None) -> BaseModel:
        """Fetch the newest model of a segment whose rounds are used up.

        Raises:
            NotFoundError: there are rounds to come.
            DigestError, MalformedError, DeniedError, UnavailableError: as `Participant.model`.
        """
        if self.finished is None:
            raise NotFoundError("the segment's rounds are not used up: a round has a model of its own")
        return BaseModel(self.finished.model, self.participant.model(self.finished, on_progress=on_progress))

    def feedback_of(self, terms: SegmentTerms) -> ErrorFeedback:
        """What is owed from earlier rounds."""
        if self._feedback is None:
            self._feedback = ErrorFeedback(terms.model.manifest.coordinates)
        return self._feedback


class Training:
    """An open round: its model, and one update of ours.

    Attributes:
        opened: the round, proven.
    """

    def __init__(self, membership: Membership, opened: OpenRound) -> None:
        self._membership = membership
        self._participant = membership.participant
        self.opened = opened
        self._base: BaseModel | None = None
        self._prepared: SignedUpdate | None = None

    @property
    def number(self) -> int:
        """The round's number."""
        return self.opened.number

    @property
    def terms(self) -> SegmentTerms:
        """What the operators signed for the segment: manifest, limits, formats."""
        return self.opened.terms

    @property
    def seconds_left(self) -> float:
        """Until the round's deadline, by this machine's clock."""
        return (self.opened.deadline_us - self._participant.clock.now_us()) / 1_000_000

    @property
    def model(self) -> BaseModel:
        """The model to train on; fetched when it is first asked for: see `fetch`."""
        return self.fetch()

    def fetch(self, *, on_progress: DownloadProgress | None = None) -> BaseModel:
        """Fetch the model to train on, or what is to be added to one that is here already.

        Raises:
            DigestError, MalformedError, NotFoundError, DeniedError, UnavailableError: as `Participant.model`.
        """
        if self._base is None:
            snapshot = self._participant.model(self.opened, on_progress=on_progress)
            self._base = BaseModel(self.opened.base_model, snapshot, partial(self._participant.room, self.opened))
        return self._base

    def prepare(
        self,
        weights: Weights | None = None,
        *,
        delta: Weights | None = None,
        num_samples: int,
        density: float | None = None,
        support: SupportMode | None = None,
        value_type: ValueType | None = None,
        noise_std: float = 0.0,
    ) -> SignedUpdate:
        """Encode and sign an update, and send nothing: for `send`, or for somebody who carries it.

        Args, Raises: as `submit`, where nothing was sent.
        """
        if (weights is None) == (delta is None):
            raise MalformedError("give the new weights, or `delta=`, what they changed by")
        if weights is not None:
            change = change_of(weights, self.model, self.terms, partial(self._participant.room, self.opened))
        else:
            assert delta is not None
            change = delta_of(delta, self.terms)
        self._prepared = self._participant.prepare(
            self.opened,
            change,
            num_samples,
            self._membership.feedback_of(self.terms),
            wish=Wish(support, value_type, density),
            noise_std=noise_std,
        )
        return self._prepared

    def send(self, signed: SignedUpdate, *, on_progress: UploadProgress | None = None) -> UpdateReceipt:
        """Send an update that was prepared; the last one is the one that what is owed depends on.

        Raises:
            DeniedError, VerificationError, ConflictError, ExhaustedError, UnavailableError: as `submit`.
        """
        submitted = self._participant.send(signed, on_progress=on_progress)
        if signed is self._prepared:
            self._prepared = None
            if signed.encoded is not None and signed.encoded.support == "free":
                # Only now: what is not admitted stays owed.
                feedback = self._membership.feedback_of(self.terms)
                feedback.keep(signed.encoded.update, self.terms.model.grid_exponent)
        return UpdateReceipt(self._participant, submitted, self.opened)

    def submit(
        self,
        weights: Weights | None = None,
        *,
        delta: Weights | None = None,
        num_samples: int,
        density: float | None = None,
        support: SupportMode | None = None,
        value_type: ValueType | None = None,
        noise_std: float = 0.0,
        on_progress: UploadProgress | None = None,
    ) -> UpdateReceipt:
        """Hand in what training came to: encoded as the terms take it, signed, sent until it is decided, acknowledged.

        A broken connection is gone on with, at this gatekeeper or another, until the round takes no more updates.

        Args:
            weights: the new weights: arrays by name, a list of them in the manifest's order, or one flat vector.
            delta: instead, new minus base, in the same forms.
            num_samples: the update's weight in the mean, a whole number within the terms; it is never cut to fit.
            density: share of the coordinates to send, the largest ones, above 0 and at most 1; by default as many as
                the terms take. For free support alone: other updates have the coordinates that they have.
            support, value_type: of those that the terms take; by default the first of `wishes.SUPPORTS` and of
                `wishes.VALUE_TYPES` that they take.
            noise_std: standard deviation of the noise that you have added to each value, parameter units.
            on_progress: takes the bytes that are durable at the gatekeeper, and how many there are.

        Raises:
            MalformedError, PayloadError: the arrays do not fit the manifest, or hold what no update can.
            DeniedError: without an `entry_index`, nothing was sent: the terms do not take it; says what to change.
            DeniedError, RoundStateError: refused, with the reason.
            VerificationError: the answer does not prove the admission.
            ConflictError, ExhaustedError, UnavailableError: nothing was decided until the round's deadline.
        """
        signed = self.prepare(
            weights, delta=delta, num_samples=num_samples,
            density=density, support=support, value_type=value_type, noise_std=noise_std,
        )  # fmt: skip
        return self.send(signed, on_progress=on_progress)
