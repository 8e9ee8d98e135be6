"""Runs cases and judges them: a typed error is a refusal, an acceptance must be true, anything else is a finding.

A case has a name, `target/number`, and with the seed that is all it takes to make it again.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from sfrl_secure.errors import SfrlError

from .mutators import mutate

SLOW_SECONDS = 5.0
"""No input of these sizes may keep anybody busy for so long, on whatever machine."""

ACCEPTED = "accepted"


@dataclass(frozen=True)
class Target:
    """Something that takes hostile bytes.

    Attributes:
        seeds: bytes to begin with: valid ones, and some that are well made and hostile.
        check: takes bytes; raises a typed error where it refuses them, and `AssertionError` where it believes what is
            not true.
    """

    name: str
    seeds: tuple[bytes, ...]
    check: Callable[[bytes], None]


@dataclass(frozen=True)
class Finding:
    """A case that went wrong."""

    case: str
    what: str
    raw: bytes


@dataclass
class Tally:
    """What came of many cases."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    slowest: tuple[float, str] = (0.0, "")


def case_bytes(target: Target, number: int, seed: int) -> bytes:
    """Make a case."""
    random = Random(f"{seed}/{target.name}/{number}")
    return mutate(random, random.choice(target.seeds), target.seeds)


def outcome_of(target: Target, raw: bytes) -> str:
    """The class of the error by which bytes are refused, or `accepted`. Anything else comes out as it is."""
    try:
        target.check(raw)
    except SfrlError as refused:
        return type(refused).__name__
    return ACCEPTED


def run(targets: Sequence[Target], cases: int, seed: int) -> Tally:
    """Run `cases` cases, divided between the targets."""
    tally = Tally()
    share = -(-cases // len(targets))
    for target in targets:
        for number in range(share):
            _run_case(tally, target, number, seed)
    return tally


def _run_case(tally: Tally, target: Target, number: int, seed: int) -> None:
    name = f"{target.name}/{number}"
    raw = case_bytes(target, number, seed)
    begun = time.monotonic()
    try:
        outcome = outcome_of(target, raw)
    except Exception as error:  # noqa: BLE001 - whatever is no typed error is what is looked for
        outcome = "finding"
        tally.findings.append(Finding(name, f"{type(error).__name__}: {error}"[:300], raw))
    taken = time.monotonic() - begun
    tally.outcomes[target.name, outcome] += 1
    tally.slowest = max(tally.slowest, (taken, name))
    if taken > SLOW_SECONDS:
        tally.findings.append(Finding(name, f"took {taken:.1f} s", raw))
