"""A round's payloads: judged in one reading, and read again by whoever needs their values a second time.

What is hashed is what is judged, in one reading: whoever alters what is stored, and be it for a moment, gets no update
dropped. Then nothing is decided. What is read again leads to the root that was signed, or is not given at all.

Runs in: aggregator.
Trusts: the state of the fold. No object, no gatekeeper.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import structlog

from sfrl_secure.errors import DeniedError, PayloadError
from sfrl_secure.limits import PAYLOAD_BYTES_MAX
from sfrl_secure.rounds.payloads import OnPart, check_admission, expected_of
from sfrl_secure.rounds.state import Admission, RoundState
from sfrl_secure.services.masks import Masks
from sfrl_secure.sparse.expected import ExpectedPayload
from sfrl_secure.sparse.mask import Mask
from sfrl_secure.sparse.reader import read_parts
from sfrl_secure.sparse.update import UpdatePart
from sfrl_secure.storage.object_reader import ObjectReader
from sfrl_secure.storage.objects import Objects

_log = structlog.get_logger()

_Found = TypeVar("_Found")


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of updates that were judged side by side. Those that are in neither are sound.

    Attributes:
        defective: those that are not sound.
        error: the first thing for which of one, or of several, nothing is decided.
    """

    defective: tuple[Admission, ...]
    error: BaseException | None


class RoundPayloads:
    """The payloads of one round's admissions."""

    def __init__(self, objects: Objects, masks: Masks, current: RoundState) -> None:
        self._objects = objects
        self._masks = masks
        self.round = current

    def judge(self, admission: Admission, on_part: OnPart) -> bool:
        """Decide an admission again; whether it is sound.

        Args:
            on_part: is given each part before that is known.

        Raises:
            NotFoundError, MissingEvidenceError, DigestError, MalformedError: the object, or the round's mask, is not
                here, or is not what its name says: nothing is decided.
        """
        try:
            mask = self._mask_of(admission)
        except PayloadError as error:
            # The round's digest is of something else: no payload can be what it should be, and no wait helps.
            _log.warning("admission_defective", index=admission.index, reason=f"mask_{error.reason}")
            return False
        with self.open(admission) as reader:
            try:
                check_admission(
                    admission, self.round.terms, reader.chunks(), mask, mask_digest=self.round.mask, on_part=on_part
                )
            except DeniedError as denial:
                _log.warning("admission_defective", index=admission.index, reason=denial.reason)
                return False
        return True

    def parts(self, admission: Admission) -> Iterator[UpdatePart]:
        """Read an update again, part by part.

        Raises:
            PayloadError: it does not lead to the signed root; and what `judge` raises.
        """
        expected = self.expected(admission)
        with self.open(admission) as reader:
            yield from read_parts(reader.chunks(), expected)

    def expected(self, admission: Admission) -> ExpectedPayload:
        """What the terms, the round's mask and the signed statement say of a payload."""
        return expected_of(self.round.terms, admission.update, self._mask_of(admission))

    def open(self, admission: Admission) -> ObjectReader:
        """Open the object. Nothing in it is trusted."""
        return self._objects.open(admission.update.payload_sha256, PAYLOAD_BYTES_MAX)

    def _mask_of(self, admission: Admission) -> Mask | None:
        if admission.update.format.support != "agreed":
            return None
        assert self.round.mask is not None, "a round has a mask where its terms allow the agreed mode"
        return self._masks.of(self.round.mask, self.round.terms)


def side_by_side(judge: Callable[[Admission], _Found], admissions: Sequence[Admission]) -> list[_Found]:
    """What `judge` gives for each, in their order: a thread each where there are several, since most of it is hashing
    and arithmetic, which need no interpreter."""
    if len(admissions) == 1:
        return [judge(admissions[0])]
    with ThreadPoolExecutor(len(admissions)) as pool:
        return list(pool.map(judge, admissions))
