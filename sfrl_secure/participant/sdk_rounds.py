"""A participant's rounds: opened, with their models and masks.

Format: proto/README.md, "Rounds, as a participant asks for them" and "Download".

Runs in: participant, cli, demo.
Trusts: the trust policy. Nothing that a gatekeeper answers.
"""

from __future__ import annotations

from sfrl_secure.aggregation.buffers import Room
from sfrl_secure.aggregation.models import ModelSnapshot
from sfrl_secure.clock import Clock
from sfrl_secure.errors import DeniedError, NotFoundError, SfrlError
from sfrl_secure.governance.statements import Cluster
from sfrl_secure.ids import Digest, parse_segment
from sfrl_secure.participant.kept_rounds import KeptRounds
from sfrl_secure.participant.masks import MaskFetcher
from sfrl_secure.participant.models import FETCH_SECONDS, ModelFetcher
from sfrl_secure.participant.rounds import FinishedSegment, OpenRound
from sfrl_secure.participant.waiting import RoundWaiter
from sfrl_secure.participant.wishes import Wish, choose_support
from sfrl_secure.rpc.downloads import DownloadProgress
from sfrl_secure.sparse.header import SupportMode
from sfrl_secure.sparse.mask import Mask
from sfrl_secure.translog.policy import TrustPolicy


class ParticipantRounds:
    """The part of `Participant` that is about rounds, models and masks."""

    policy: TrustPolicy
    clock: Clock
    _rounds: RoundWaiter
    _kept_rounds: KeptRounds
    _models: ModelFetcher
    _masks: MaskFetcher
    _federation_id: Digest | None
    _deadlines: dict[Digest, int]

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
            ClosedError: this participant was closed; so from every method that asks a gatekeeper.
            UnavailableError: no gatekeeper answers.
        """
        opened = self._rounds.open(
            parse_segment(segment), after_round, wait_seconds=wait_seconds, through_halt=through_halt
        )
        if isinstance(opened, OpenRound):
            self._federation_id = opened.federation_id
            self._deadlines = {opened.opened: opened.deadline_us}
        return opened

    def round_now(self, segment: str) -> OpenRound | None:
        """The round that is open at this moment; None where none is, or nobody proves one."""
        try:
            opened = self.open_round(segment, wait_seconds=0.0)
        except SfrlError:
            return None
        return opened if isinstance(opened, OpenRound) else None

    def kept_round(self, segment: str) -> OpenRound:
        """Open the segment's round that was opened here last, without a link: see `KeptRounds.open`."""
        return self._kept_rounds.open(parse_segment(segment), self.policy, self.clock.now_us())

    def model(
        self, opened: OpenRound | FinishedSegment, *, on_progress: DownloadProgress | None = None
    ) -> ModelSnapshot:
        """Fetch the round's base model, or the finished segment's newest; two of each segment are kept.

        Whoever has an earlier model gets what is to be added to it, where that is shorter.

        Raises:
            DigestError: what arrived is not the model that the log names.
            MalformedError: it is longer than the terms' manifest, or of another manifest or grid.
            NotFoundError, DeniedError, UnavailableError: the gatekeeper does not have it, refuses, does not answer.
        """
        if isinstance(opened, FinishedSegment):
            return self._models.model(opened.segment, opened.model, opened.terms.model, on_progress)
        left = (opened.deadline_us - self.clock.now_us()) / 1_000_000
        return self._models.model(
            opened.segment, opened.base_model, opened.terms.model, on_progress,
            deadline_seconds=max(left, FETCH_SECONDS),
        )  # fmt: skip

    def cluster_model(
        self, opened: OpenRound | FinishedSegment, cluster: Cluster, *, on_progress: DownloadProgress | None = None
    ) -> ModelSnapshot:
        """Fetch the model of a cluster that an update of ours was in: `ProvenReceipt.cluster`.

        It is the members' task as far as that one round saw it. Rounds go on from the model of all (`model`), never
        from a cluster's: an update is what training changed of that one. The last one that was fetched is kept.

        Args:
            opened: any round of the segment, or its end: a segment's models are all of one shape.

        Raises:
            DigestError, MalformedError, NotFoundError, DeniedError, UnavailableError: as `model`.
        """
        return self._models.cluster_model(opened.segment, cluster.model, opened.terms.model, on_progress)

    def room(self, opened: OpenRound, length: int) -> Room:
        """Give memory for what is about as large as the round's model: see `ModelFetcher.room`."""
        return self._models.room(opened.segment, length)

    def check_kept(self, opened: OpenRound, *, model: bool = True, support: SupportMode | None = None) -> None:
        """Check that what an update for a round is made of is kept here: `model` and `mask` then ask nobody.

        Args:
            model: False for an update that is made without the base model.
            support: the update's; None for the first that the terms take.

        Raises:
            NotFoundError: the model is not, or the mask of an update that has its coordinates.
            MalformedError: the mask is not what the terms say.
            DeniedError: `format_not_allowed`: the terms do not take the support.
        """
        terms, mask, what = opened.terms, opened.mask, None
        if model and self._models.kept_model(opened.segment, opened.base_model, terms.model) is None:
            what = "model"
        elif choose_support(terms, Wish(support)) == "agreed" and terms.mask is not None and mask is not None:
            kept = self._masks.kept_mask(opened.segment, mask, terms.mask, terms.model.manifest.coordinates)
            what = "mask" if kept is None else None
        if what is not None:
            raise NotFoundError(
                f"the {what} of round {opened.number} of {opened.segment} is not kept here any more: run `sfrl fetch` "
                "while there is a link"
            )

    def mask(self, opened: OpenRound, *, on_progress: DownloadProgress | None = None) -> Mask:
        """Fetch the round's mask: the coordinates of its agreed updates, and of no other round's. Two are kept.

        Raises:
            DeniedError: `format_not_allowed`: the terms have none.
            DigestError: what arrived is not the mask that the log names.
            MalformedError, NotFoundError, UnavailableError: as `model`.
        """
        terms = opened.terms
        if terms.mask is None or opened.mask is None:
            raise DeniedError("format_not_allowed", "the segment's terms have no mask, and take no agreed updates")
        return self._masks.mask(
            opened.segment, opened.mask, terms.mask, terms.model.manifest.coordinates, on_progress
        )
