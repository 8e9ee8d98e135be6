"""A round's cohort: each update that may be counted, decided again, and what its rule makes of those that are.

The aggregator takes updates from the log and from nowhere else, and believes no gatekeeper: signatures are checked by
its fold, payloads here. An admission that fails is defective and is dropped. An object that is not there decides
nothing: it is asked for again.

No update is ever in memory. Means are added up as updates come (`streamed`); every other rule reads the sound ones
again at the end, range by range (`stored`).

Runs in: aggregator.
Trusts: the state of the fold. No object, no gatekeeper.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from sfrl_secure.aggregation.combined import Combined, Combining, combining_of
from sfrl_secure.aggregation.rules import begin_rule
from sfrl_secure.aggregation.running import RunningRule
from sfrl_secure.governance.terms import SegmentTerms
from sfrl_secure.rounds.state import Admission, RoundState
from sfrl_secure.services.aggregator.payloads import RoundPayloads, Taken
from sfrl_secure.services.aggregator.stored import Stored
from sfrl_secure.services.aggregator.streamed import Streamed
from sfrl_secure.services.masks import Masks
from sfrl_secure.storage.objects import Objects
from sfrl_secure.storage.passing import PassingObjects


class Gathered(Protocol):
    """The sound updates of a round.

    Attributes:
        inside: by participant's name. Where something is lost, all of them are, and are to be taken again.
    """

    inside: dict[str, Admission]

    def take(self, admissions: Sequence[Admission]) -> Taken:
        """Judge updates of several participants side by side, and take in those that are sound."""
        ...

    def drop(self, name: str) -> None:
        """Let an update that is inside be as if never read."""
        ...

    def combine(self, counted: Sequence[Admission]) -> Combined:
        """What the rule makes of these, which are all that is inside."""
        ...


@dataclass(slots=True)
class _Round:
    """What is decided of one round.

    Attributes:
        gathered: the sound updates; None once they were used up, and `used_up` says which those were, by name.
        defective: the other ones, by participant's name.
    """

    round: RoundState
    gathered: Gathered | None = None
    defective: dict[str, Admission] = field(default_factory=dict)
    used_up: dict[str, Admission] = field(default_factory=dict)

    def knows(self, admission: Admission) -> bool:
        """Whether this very admission was decided."""
        name = admission.update.participant
        inside = self.used_up if self.gathered is None else self.gathered.inside
        return admission in (inside.get(name), self.defective.get(name))


class Cohort:
    """Decided updates of one round; each payload is decided once."""

    def __init__(self, objects: Objects, masks: Masks, *, threads: int = 1) -> None:
        self._objects = objects
        self._masks = masks
        self._threads = threads
        self._round: _Round | None = None
        self._spare: tuple[Combining, RunningRule] | None = None
        """A rule that is empty, with what it is of: to have its memory anew costs more than a round."""

    def decide(self, current: RoundState, admissions: Collection[Admission]) -> frozenset[str]:
        """Decide these admissions of the round; give the names of the defective ones.

        Raises:
            NotFoundError, MissingEvidenceError, DigestError, MalformedError: an object is not there, or is not what
                its name says: nothing can be decided.
        """
        known = self._of(current)
        # Again and again: where the sum has to begin anew, those that were inside are undecided again.
        while undecided := self.undecided(current, admissions)[: self._threads]:
            gathered = self._gathered(known)
            for admission in undecided:
                name = admission.update.participant
                # What was decided of this name before was of a log that was given up since.
                known.defective.pop(name, None)
                if name in gathered.inside:
                    gathered.drop(name)
            taken = gathered.take(undecided)
            known.defective |= {admission.update.participant: admission for admission in taken.defective}
            if taken.error is not None:
                raise taken.error
        names = {admission.update.participant for admission in admissions}
        return frozenset(names & known.defective.keys())

    def undecided(self, current: RoundState, admissions: Collection[Admission]) -> tuple[Admission, ...]:
        """Those of the round's admissions that were not decided yet."""
        known = self._round
        if known is None or known.round.opened != current.opened:
            return tuple(admissions)
        return tuple(admission for admission in admissions if not known.knows(admission))

    def combine(self, current: RoundState, counted: Sequence[Admission]) -> Combined | None:
        """What the round's rule makes of exactly these updates; None where one of them is defective.

        Whoever is inside and not counted is dropped first. What was added up is used up: to be asked again is to read
        again.

        Raises:
            NotFoundError, MissingEvidenceError, DigestError, MalformedError: as `decide`.
        """
        known = self._of(current)
        gathered = self._gathered(known)
        names = {admission.update.participant for admission in counted}
        while extra := gathered.inside.keys() - names:
            gathered.drop(min(extra))
        if self.decide(current, counted):
            return None
        if not isinstance(gathered, Streamed):
            return gathered.combine(counted)
        known.gathered, known.used_up = None, dict(gathered.inside)
        combined = gathered.combine(counted)
        if gathered.rule.is_empty:
            self._spare = combining_of(known.round.terms), gathered.rule
        return combined

    def _of(self, current: RoundState) -> _Round:
        if self._round is None or self._round.round.opened != current.opened:
            # One sum at a time: the last one's memory goes before the next one's is taken.
            self._round = _Round(current)
        return self._round

    def _gathered(self, known: _Round) -> Gathered:
        """Where sound updates are gathered; where they were used up, none is there, and all are undecided again."""
        if known.gathered is None:
            known.gathered = self._gather(known.round)
            known.used_up.clear()
        return known.gathered

    def _gather(self, current: RoundState) -> Gathered:
        terms = current.terms
        spare, self._spare = self._spare, None
        if spare is not None and spare[0] == combining_of(terms):
            rule: RunningRule | None = spare[1]
        else:
            del spare
            rule = begin_rule(terms)
        if rule is None:
            return Stored(RoundPayloads(self._objects, self._masks, current), self._threads)
        # Each payload is read once, as a rule.
        passing = RoundPayloads(PassingObjects(self._objects), self._masks, current)
        return Streamed(passing, rule, lambda: _begun_again(terms), threads=self._threads)


def _begun_again(terms: SegmentTerms) -> RunningRule:
    rule = begin_rule(terms)
    assert rule is not None, "the same terms gave one before"
    return rule
