"""Aggregation rules: what a round's terms may name, and what each one does with the updates.

A rule takes an update in part by part while it is read, gives it back as exactly, and ends in one step that is added to
the base model. Nothing of it depends on the order in which updates come. A further rule is a further class here: what
calls it does not change.

Format: proto/README.md, "Aggregation".

Runs in: aggregator.
Trusts: nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, Protocol

from sfrl_secure.aggregation.weighted_mean import WEIGHTED_MEAN, WeightedMean
from sfrl_secure.errors import MalformedError
from sfrl_secure.sparse.update import UpdatePart


class RunningRule(Protocol):
    """A rule over the updates that are in it so far."""

    @property
    def is_empty(self) -> bool:
        """Whether it is as if it had just been begun, by its own word: after a step it may be, or be used up."""
        ...

    def enter(self, weight: int) -> None:
        """Begin with one more update."""
        ...

    def add_part(self, part: UpdatePart, weight: int) -> None:
        """Take a part of it in."""
        ...

    def take_out_part(self, part: UpdatePart, weight: int) -> None:
        """Take a part out again."""
        ...

    def leave(self, weight: int) -> None:
        """End with an update whose parts were all taken out."""
        ...

    def step(self) -> UpdatePart:
        """Give what is to be added to the base model, over all of its coordinates. What was inside is used up."""
        ...


RULES: Final[Mapping[str, Callable[[int], RunningRule]]] = MappingProxyType({WEIGHTED_MEAN: WeightedMean})
"""Each rule by its name in the terms."""


def begin_rule(name: str, coordinates: int) -> RunningRule:
    """Begin with no updates, by the rule of a round's terms.

    Raises:
        MalformedError: no rule has this name.
    """
    if name not in RULES:
        raise MalformedError("the terms name another rule")
    return RULES[name](coordinates)
