"""A participant: opens rounds, fetches models, sends updates, keeps receipts.

Rounds and models stand in `sdk_rounds`, updates in `sdk_updates`, what is carried in `sdk_bundles`, what it says beside
its updates in `sdk_words`.

Nothing that a gatekeeper says is acted on before it is proven: a round under the witness quorum, a model by its
digest, an admission by the log's signature over exactly our envelope, a receipt by its proofs. There is no switch to
skip any of it.

`join` is the usual way in (`membership`); the other methods are what it is made of.

Runs in: participant, cli, demo.
Trusts: the profile, its keys and its trust policy. Nothing that arrives.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sfrl_secure.clock import Clock, SystemClock
from sfrl_secure.crypto.keys import PublicKey, SigningKey
from sfrl_secure.errors import NotFoundError
from sfrl_secure.ids import Digest, parse_hex_digest, parse_segment
from sfrl_secure.participant.kept_rounds import KeptRounds
from sfrl_secure.participant.known_roots import KnownRoots
from sfrl_secure.participant.masks import MaskFetcher
from sfrl_secure.participant.models import ModelFetcher
from sfrl_secure.participant.profile import Profile, read_profile
from sfrl_secure.participant.renewal import RenewingChannel
from sfrl_secure.participant.sdk_bundles import ParticipantBundles
from sfrl_secure.participant.sdk_rounds import ParticipantRounds
from sfrl_secure.participant.sdk_updates import ParticipantUpdates
from sfrl_secure.participant.sdk_words import ParticipantWords
from sfrl_secure.participant.sending import UpdateSender
from sfrl_secure.participant.submissions import Submitted
from sfrl_secure.participant.waiting import ReceiptWaiter, RoundWaiter
from sfrl_secure.participant.words import WordsOnRecord
from sfrl_secure.rpc.channel import RpcChannel
from sfrl_secure.rpc.clients import GatekeeperClient
from sfrl_secure.rpc.trying import Patience
from sfrl_secure.translog.policy import TrustPolicy
from sfrl_secure.wire.receipts import ReceiptKind

if TYPE_CHECKING:
    from sfrl_secure.participant.membership import Membership


class Participant(ParticipantRounds, ParticipantUpdates, ParticipantWords, ParticipantBundles):
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
        rng: np.random.Generator | None = None,
    ) -> None:
        """Take part as `name`; owns `channel`. `from_profile` is the usual way.

        Args:
            rng: source of the rounding noise of updates; a new one where it is None.
        """
        self.name = name
        self.clock = clock
        self.patience = Patience(monotonic, sleep)
        self.rng = rng or np.random.default_rng()
        self.policy = policy
        self._channel = channel
        self._receipts = receipts
        self._gatekeeper = gatekeeper = GatekeeperClient(channel, self.patience)
        known = KnownRoots(receipts)
        self._kept_rounds = KeptRounds(receipts)
        self._rounds = RoundWaiter(gatekeeper, policy, known, self._kept_rounds, clock, self.patience)
        self._models = ModelFetcher(
            gatekeeper, receipts, monotonic=monotonic,
            spared=lambda segment: self._kept_rounds.base(segment, policy),
        )  # fmt: skip
        self._masks = MaskFetcher(
            gatekeeper, receipts, spared=lambda segment: self._kept_rounds.mask(segment, policy)
        )
        self._sender = UpdateSender(name, key, policy, gatekeeper, receipts, clock)
        self._waiter = ReceiptWaiter(gatekeeper, policy, known, receipts, self.patience)
        self._words = WordsOnRecord(name, key, policy, gatekeeper, receipts, clock, sleep)
        self._federation_id = federation_id
        self._deadlines: dict[Digest, int] = {}

    @classmethod
    def from_profile(
        cls,
        profile: str | Path | Profile,
        *,
        rng: np.random.Generator | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> Participant:
        """Take part as a profile says. Connects when the first call is made, and renews its certificate in time.

        Args:
            profile: the file, or what was read from it.
            rng: source of the rounding noise of updates; a new one where it is None.
            sleep: waits so many seconds.

        Raises:
            NotFoundError: the profile or a file that it names is missing; says which.
            MalformedError, DeniedError: one of them does not fit, or is a key that others can read.
        """
        if not isinstance(profile, Profile):
            profile = read_profile(Path(profile))
        clock = SystemClock()
        try:
            key, policy = profile.open_signing_key(), profile.open_trust_policy()
            channel = RenewingChannel(profile, clock)
        except NotFoundError:
            profile.check_files()
            raise
        return cls(
            name=profile.name,
            key=key,
            policy=policy,
            channel=channel,
            receipts=profile.receipts,
            clock=clock,
            sleep=sleep,
            federation_id=None if profile.federation_id is None else parse_hex_digest(profile.federation_id),
            rng=rng,
        )

    @property
    def public_key(self) -> PublicKey:
        """The key that this participant signs with."""
        return self._sender.key.public_key

    def join(self, segment: str) -> Membership:
        """Take part in a segment's rounds: see `Membership`. Nothing is sent yet.

        Raises:
            MalformedError: that is no segment's name.
        """
        from sfrl_secure.participant.membership import Membership

        return Membership(self, parse_segment(segment))

    # Receipts

    def receipt(self, submitted: Submitted, kind: ReceiptKind, *, wait_seconds: float = 60.0) -> bytes:
        """Wait for a receipt, WITNESSED or COUNTED, verify it and keep it in the profile's folder.

        Returns: the receipt file's bytes, which prove what they prove by themselves: `receipts.open_receipt`.

        Raises:
            NotFoundError: there is none of this kind in time; says why, and what to do. A round that was aborted gives
                no COUNTED receipt.
            VerificationError: the receipt does not prove this update; nothing was kept.
            UnavailableError: no gatekeeper answers.
        """
        why = (lambda: self._why_uncounted(submitted)) if kind is ReceiptKind.COUNTED else None
        return self._waiter.receipt(submitted, kind, wait_seconds, why)

    def receipt_path(self, segment: str, round_number: int, kind: ReceiptKind) -> Path:
        """Where a receipt is kept."""
        return self._waiter.path(segment, round_number, kind)

    def close(self) -> None:
        """Keep the newest model for the next time, and end every connection."""
        try:
            self._models.write()
        finally:
            self._channel.close()

    def __enter__(self) -> Participant:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _why_uncounted(self, submitted: Submitted) -> str:
        update = submitted.update
        opened = self.round_now(update.segment)
        if opened is None:
            return f"round {update.round} is still open, or was aborted with too few: wait longer, or read the log"
        if opened.opened == update.round_opened:
            return f"round {update.round} is still open: wait longer"
        return (
            f"round {update.round} is over without it: aborted with too few, or it was taken out "
            "(see `sfrl round show`); submit to the round that is open"
        )
