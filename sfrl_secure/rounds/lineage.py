"""Steps between models: which aggregates lead from a model that somebody has to one that it wants.

A function of the state and the question. Only steps in force count: a step that was derived again, or that a rollback
left behind, leads nowhere any more; and while rounds are derived again, what was not yet does not join what was.

Format: proto/README.md, "Download".

Runs in: gatekeeper.
Trusts: the state of the fold.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sfrl_secure.ids import Digest
from sfrl_secure.limits import STEPS_MAX
from sfrl_secure.rounds.state import SegmentState


@dataclass(frozen=True, slots=True)
class StepsFrom:
    """A model, and the aggregates that lead from it to another: 1 to `STEPS_MAX`, in the order to add them."""

    base: Digest
    aggregates: tuple[Digest, ...]


def steps_between(segment: SegmentState, has: Collection[Digest], model: Digest) -> tuple[StepsFrom, ...]:
    """Each of the models that somebody has from which steps in force lead to `model`, the nearest first.

    None where `model` is not on the lineage, or none of these is near enough before it.
    """
    lineage = segment.lineage
    last = next((at for at in range(len(lineage) - 1, -1, -1) if lineage[at].model == model), -1)
    found: dict[Digest, StepsFrom] = {}
    wanted = model
    aggregates: tuple[Digest, ...] = ()
    for step in reversed(lineage[max(last + 1 - STEPS_MAX, 0) : last + 1]):
        if step.model != wanted:
            break
        wanted, aggregates = step.base, (step.aggregate, *aggregates)
        if step.base in has:
            # The nearest, where a step that changed nothing gave a model its base's name.
            found.setdefault(step.base, StepsFrom(step.base, aggregates))
    return tuple(found.values())
