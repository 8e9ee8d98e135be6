"""Updates that are added up as they come, where the rule is a mean: none is ever in memory.

An update's leaves are added to the sum as they are decoded, before it is known whether it holds; what does not is read
again and taken out, to the last bit, since all of it is integers under a hash. Where that fails the sum is thrown away
and begun anew, from the objects: it holds nothing that they do not. Several may be decoded side by side; their leaves
are added one at a time, and integers do not know their order.

Runs in: aggregator.
Trusts: the state of the fold. No object.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from threading import Lock

from sfrl_secure.aggregation.combined import Combined
from sfrl_secure.aggregation.running import RunningRule
from sfrl_secure.errors import SfrlError
from sfrl_secure.rounds.state import Admission
from sfrl_secure.services.aggregator.payloads import RoundPayloads, Taken, side_by_side
from sfrl_secure.sparse.update import UpdatePart


@dataclass(slots=True)
class _Tried:
    """How far an update came.

    Attributes:
        is_entered: the rule counts its weight, and `parts` of its leaves were added.
        error: why nothing is decided of it.
    """

    admission: Admission
    is_entered: bool = False
    parts: int = 0
    is_sound: bool = False
    error: BaseException | None = None


class Streamed:
    """The sum of a round's sound updates so far. See `Gathered`."""

    def __init__(
        self, payloads: RoundPayloads, rule: RunningRule, begin: Callable[[], RunningRule], *, threads: int = 1
    ) -> None:
        """Begin with no updates.

        Args:
            rule: an empty one.
            begin: gives another empty one.
            threads: that make a step of the sum.
        """
        self.inside: dict[str, Admission] = {}
        self.rule = rule
        self._begin = begin
        self._threads = threads
        self._payloads = payloads
        self._adding = Lock()

    def take(self, admissions: Sequence[Admission]) -> Taken:
        """Add updates while they are judged, side by side. Each ends inside, or, where it is not sound or with an
        error, as if never read."""
        tried = side_by_side(self._try, admissions)
        # Only now that nobody adds any more: the sum may have to begin anew.
        self.inside |= {each.admission.update.participant: each.admission for each in tried if each.is_sound}
        for each in tried:
            if each.is_entered and not each.is_sound and not self._take_out(each.admission, each.parts):
                break
        errors = [each.error for each in tried if each.error is not None]
        defective = tuple(each.admission for each in tried if each.error is None and not each.is_sound)
        return Taken(defective, errors[0] if errors else None)

    def _try(self, admission: Admission) -> _Tried:
        """Add an update while it is judged. Any number of threads at once."""
        weight, norm, tried = admission.update.weight, admission.facts.norm, _Tried(admission)

        def add(part: UpdatePart) -> None:
            with self._adding:
                self.rule.add_part(part, weight, norm)
            tried.parts += 1

        try:
            with self._adding:
                self.rule.enter(weight, norm)
            tried.is_entered = True
            tried.is_sound = self._payloads.judge(admission, add)
        except BaseException as error:  # noqa: BLE001 - whatever it is: the caller raises it once all threads are done
            tried.error = error
        return tried

    def drop(self, name: str) -> None:
        """Let this participant's update be as if never read."""
        self._take_out(self.inside.pop(name), None)

    def combine(self, counted: Sequence[Admission]) -> Combined:
        """What the rule makes of all that is inside, which are exactly the counted ones. It is used up."""
        assert self.inside.keys() == {each.update.participant for each in counted}, "the others were dropped"
        self.inside = {}
        return self.rule.finish(threads=self._threads)

    def _take_out(self, admission: Admission, parts: int | None) -> bool:
        """Subtract the first so many parts of an update, or all, by reading it again; or else begin the sum anew.

        The reader gives what leads to the signed root and nothing else: what is subtracted is what was added.

        Returns: whether the others are still inside.
        """
        weight, norm = admission.update.weight, admission.facts.norm
        try:
            if parts != 0:
                for part in islice(self._payloads.parts(admission), parts):
                    self.rule.take_out_part(part, weight, norm)
        except SfrlError:
            self.inside.clear()
            self.rule = self._begin()
            return False
        self.rule.leave(weight, norm)
        return True
