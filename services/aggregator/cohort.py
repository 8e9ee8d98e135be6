"""A round's cohort: each update that may be counted, decided again and added up while it is read.

The aggregator takes updates from the log and from nowhere else, and believes no gatekeeper: signatures are checked by
its fold, payloads here. An admission that fails is defective and is dropped. An object that is not there decides
nothing: it is asked for again.

No update is ever in memory. Its leaves are added to the round's sum as they are decoded, before it is known whether it
holds; what does not is read again and taken out, to the last bit, since all of it is integers under a hash. Where that
fails the sum is thrown away and begun anew, from the objects: it holds nothing that they do not.

Runs in: aggregator.
Trusts: the state of the fold. No object, no gatekeeper.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from itertools import islice

import structlog

from sfrl_secure.aggregation.rules import RunningRule, begin_rule
from sfrl_secure.errors import DeniedError, PayloadError, SfrlError
from sfrl_secure.governance.terms import SegmentTerms
from sfrl_secure.ids import Digest
from sfrl_secure.limits import PAYLOAD_BYTES_MAX
from sfrl_secure.rounds.payloads import check_admission, expected_of
from sfrl_secure.rounds.state import Admission, RoundState
from sfrl_secure.services.aggregator.masks import Masks
from sfrl_secure.sparse.mask import Mask
from sfrl_secure.sparse.reader import read_parts
from sfrl_secure.sparse.update import UpdatePart
from sfrl_secure.storage.objects import Objects

_log = structlog.get_logger()


@dataclass(slots=True)
class _Round:
    """What is decided of one round.

    Attributes:
        opened: entry hash of its round_opened.
        inside: sound updates, in the sum, by participant's name.
        defective: the others.
    """

    opened: Digest
    terms: SegmentTerms
    rule: RunningRule
    inside: dict[str, Admission] = field(default_factory=dict)
    defective: dict[str, Admission] = field(default_factory=dict)

    def knows(self, admission: Admission) -> bool:
        """Whether this very admission was decided."""
        name = admission.update.participant
        return admission in (self.inside.get(name), self.defective.get(name))


class Cohort:
    """Decided updates of one round, and their sum; each payload is decided once."""

    def __init__(self, objects: Objects, masks: Masks) -> None:
        self._objects = objects
        self._masks = masks
        self._round: _Round | None = None
        self._spare: tuple[str, int, RunningRule] | None = None
        """A rule that is empty, with its name and its coordinates: to have its memory anew costs more than a round."""

    def decide(self, current: RoundState, admissions: Collection[Admission]) -> frozenset[str]:
        """Decide these admissions of the round, and add up the sound ones; give the names of the defective ones.

        Raises:
            NotFoundError, MissingEvidenceError, DigestError: an object is not there, or is not what its name says:
                nothing can be decided.
        """
        known = self._begun(current)
        # One at a time: where the sum has to begin anew, those that were inside are undecided again.
        while undecided := self.undecided(current, admissions):
            self._decide(known, undecided[0])
        names = {admission.update.participant for admission in admissions}
        return frozenset(names & known.defective.keys())

    def undecided(self, current: RoundState, admissions: Collection[Admission]) -> tuple[Admission, ...]:
        """Those of the round's admissions that were not decided yet."""
        known = self._round
        if known is None or known.opened != current.opened:
            return tuple(admissions)
        return tuple(admission for admission in admissions if not known.knows(admission))

    def step(self, current: RoundState, counted: Collection[Admission]) -> UpdatePart | None:
        """What the round's rule makes of exactly these updates; None where one of them is defective.

        Whoever is inside and not counted is taken out first. The sum is used up: to be asked again is to read again.

        Raises:
            NotFoundError, MissingEvidenceError, DigestError: as `decide`.
        """
        known = self._begun(current)
        names = {admission.update.participant for admission in counted}
        while extra := known.inside.keys() - names:
            self._take_out(known, known.inside.pop(min(extra)), None)
        if self.decide(current, counted):
            return None
        self._round = None
        step = known.rule.step()
        if known.rule.is_empty:
            self._spare = (known.terms.rule, known.terms.model.manifest.coordinates, known.rule)
        return step

    def _begun(self, current: RoundState) -> _Round:
        if self._round is None or self._round.opened != current.opened:
            # One sum at a time: the last one's memory goes before the next one's is taken.
            self._round = None
            spare, self._spare = self._spare, None
            if spare is None or spare[:2] != (current.terms.rule, current.terms.model.manifest.coordinates):
                del spare
                rule = _rule_of(current.terms)
            else:
                rule = spare[2]
            self._round = _Round(current.opened, current.terms, rule)
        return self._round

    def _decide(self, known: _Round, admission: Admission) -> None:
        """Add an update while it is decided. It ends inside, or defective, or, with an error, as if never read."""
        name, weight, added = admission.update.participant, admission.update.weight, 0
        # What was decided of this name before was of a log that was given up since.
        known.defective.pop(name, None)
        stale = known.inside.pop(name, None)
        if stale is not None:
            self._take_out(known, stale, None)

        def add(part: UpdatePart) -> None:
            nonlocal added
            known.rule.add_part(part, weight)
            added += 1

        known.rule.enter(weight)
        try:
            is_sound = self._is_sound(known, admission, add)
        except BaseException:
            self._take_out(known, admission, added)
            raise
        if is_sound:
            known.inside[name] = admission
            return
        known.defective[name] = admission
        self._take_out(known, admission, added)

    def _is_sound(self, known: _Round, admission: Admission, add: Callable[[UpdatePart], None]) -> bool:
        try:
            mask = self._mask_of(known, admission)
        except PayloadError as error:
            # The digest in the terms is of something else: no payload can be what it should be, and no wait helps.
            _log.warning("admission_defective", index=admission.index, reason=f"mask_{error.reason}")
            return False
        with self._objects.open(admission.update.payload_sha256, PAYLOAD_BYTES_MAX) as reader:
            try:
                # What is hashed is what is judged, in one reading: whoever alters what is stored, and be it for a
                # moment, gets no update dropped. Then nothing is decided.
                check_admission(admission, known.terms, reader.chunks(), mask, on_part=add)
            except DeniedError as denial:
                _log.warning("admission_defective", index=admission.index, reason=denial.reason)
                return False
        return True

    def _take_out(self, known: _Round, admission: Admission, parts: int | None) -> None:
        """Subtract the first so many parts of an update, or all, by reading it again; or else begin the sum anew.

        The reader gives what leads to the signed root and nothing else: what is subtracted is what was added.
        """
        weight = admission.update.weight
        try:
            if parts != 0:
                expected = expected_of(known.terms, admission.update, self._mask_of(known, admission))
                with self._objects.open(admission.update.payload_sha256, PAYLOAD_BYTES_MAX) as reader:
                    for part in islice(read_parts(reader.chunks(), expected), parts):
                        known.rule.take_out_part(part, weight)
        except SfrlError:
            known.inside.clear()
            known.rule = _rule_of(known.terms)
        else:
            known.rule.leave(weight)

    def _mask_of(self, known: _Round, admission: Admission) -> Mask | None:
        return self._masks.of(known.terms) if admission.update.format.support == "agreed" else None


def _rule_of(terms: SegmentTerms) -> RunningRule:
    return begin_rule(terms.rule, terms.model.manifest.coordinates)
