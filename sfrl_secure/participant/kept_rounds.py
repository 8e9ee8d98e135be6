"""The rounds that were opened last, kept for whoever trains where there is no link: one of each segment.

What a gatekeeper answered is kept as it came, with the time at which it was proven, and is proven again for that time
when it is opened. So a kept round is as good as it was: whether it is still open, nobody says.

Format: the time in microseconds as u64, little-endian; then a GetRoundResponse.

Runs in: participant, cli, demo.
Trusts: the trust policy, and the participant's own clock and folder for when the round was proven.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path

from sfrl_secure.errors import ExhaustedError, MalformedError, NotFoundError, RoundStateError, SfrlError
from sfrl_secure.ids import Digest
from sfrl_secure.limits import DEADLINE_MARGIN_US, MESSAGE_BYTES_MAX
from sfrl_secure.participant.rounds import FinishedSegment, OpenRound, open_round
from sfrl_secure.storage.files import SECRET_MODE, make_folder, read_bounded, write_atomically
from sfrl_secure.translog.policy import TrustPolicy
from sfrl_secure.wire.gatekeeper_service import RoundAnswer, encode_round_response, parse_round_response

_TIME = struct.Struct("<Q")


class KeptRounds:
    """A folder with the last round of each segment. For one thread."""

    def __init__(self, receipts: Path) -> None:
        """Name the profile's folder; the rounds lie below it."""
        self._folder = receipts / "rounds"
        self._proven: dict[str, OpenRound | None] = {}

    def keep(
        self, segment: str, answer: RoundAnswer, opened: OpenRound | FinishedSegment, proven_us: int
    ) -> None:
        """Keep an answer that was proven, in place of the segment's last. A full disk costs what is kept.

        Args:
            opened: what the answer proves.
        """
        self._proven[segment] = opened if isinstance(opened, OpenRound) else None
        with suppress(ExhaustedError):
            make_folder(self._folder)
            raw = _TIME.pack(proven_us) + encode_round_response(answer)
            write_atomically(self._path(segment), raw, mode=SECRET_MODE, durable=False)

    def open(self, segment: str, policy: TrustPolicy, now_us: int) -> OpenRound:
        """Prove the kept round of a segment again.

        Raises:
            NotFoundError: none is kept, or there were none to come.
            RoundStateError: `deadline`: by this machine's clock it takes no more updates.
            MalformedError, VerificationError: what is kept does not prove it.
        """
        opened = self._prove(segment, policy)
        if now_us >= opened.deadline_us - DEADLINE_MARGIN_US:
            raise RoundStateError(
                "deadline", f"round {opened.number}, which is kept, is over: fetch the next one when there is a link"
            )
        return opened

    def base(self, segment: str, policy: TrustPolicy) -> Digest | None:
        """The model that the kept round of a segment begins from; None where none is kept, or none that is proven."""
        kept = self._kept(segment, policy)
        return None if kept is None else kept.base_model

    def mask(self, segment: str, policy: TrustPolicy) -> Digest | None:
        """The mask that the kept round of a segment begins with; None where it has none, or none is kept and proven."""
        kept = self._kept(segment, policy)
        return None if kept is None else kept.mask

    def _kept(self, segment: str, policy: TrustPolicy) -> OpenRound | None:
        if segment not in self._proven:
            self._proven[segment] = None
            with suppress(SfrlError):
                self._proven[segment] = self._prove(segment, policy)
        return self._proven[segment]

    def _prove(self, segment: str, policy: TrustPolicy) -> OpenRound:
        try:
            raw = read_bounded(self._path(segment), _TIME.size + MESSAGE_BYTES_MAX)
        except NotFoundError:
            raise NotFoundError(
                f"no round of segment {segment} is kept here: `sfrl fetch` keeps one, while there is a link"
            ) from None
        if len(raw) < _TIME.size:
            raise MalformedError("what is kept as a round is none: fetch it again")
        (proven_us,) = _TIME.unpack_from(raw)
        # Not held against the roots that are known today: it was, when it was proven.
        opened = open_round(parse_round_response(raw[_TIME.size :]), segment, policy, proven_us)
        if not isinstance(opened, OpenRound):
            raise NotFoundError(f"the rounds of segment {segment} were used up when it was asked for last")
        return opened

    def _path(self, segment: str) -> Path:
        return self._folder / f"{segment}.round"
