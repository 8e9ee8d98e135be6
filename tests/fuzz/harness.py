"""Runs cases and judges them: a typed error is a refusal, an acceptance must be true, anything else is a finding.

A case has a name, `target/number`, and with the seed that is all it takes to make it again. Of some targets each 64th
case is also measured: what it takes of memory at once is in proportion to its own bytes, whatever it claims.
"""

from __future__ import annotations

import resource
import time
import tracemalloc
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from random import Random

from sfrl_secure.errors import SfrlError

from .mutators import Mutator, mutate

SLOW_SECONDS = 5.0
"""No input of these sizes may keep anybody busy for so long, on whatever machine."""

ACCEPTED = "accepted"

MEASURED_EACH = 64
_LENT_BYTES, _BYTES_A_BYTE = 2**21, 2_000
"""What a case may take: 2 MiB, and for each of its bytes so much. A value may be one bit, and an integer in some arrays
of a reader is eight bytes."""

_PROCESS_BYTES = 2**32
"""What a process may have: what measuring does not see, the compiled loops' memory, ends there in a finding."""

_PIECE = 4_000
"""Cases that a process does before it takes others."""


@dataclass(frozen=True)
class Target:
    """Something that takes hostile bytes.

    Attributes:
        seeds: bytes to begin with: valid ones, and some that are well made and hostile.
        check: takes bytes; raises a typed error where it refuses them, and `AssertionError` where it believes what is
            not true.
        mutate: how seeds are damaged.
        share: its part of all cases, in comparison with other targets.
        is_measured: whether memory is.
    """

    name: str
    seeds: tuple[bytes, ...]
    check: Callable[[bytes], None]
    mutate: Mutator = mutate
    share: int = 1
    is_measured: bool = False


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
    largest: tuple[int, str] = (0, "")

    def add(self, other: Tally) -> None:
        """Take in what came of other cases."""
        self.outcomes += other.outcomes
        self.findings += other.findings
        self.slowest = max(self.slowest, other.slowest)
        self.largest = max(self.largest, other.largest)


def case_bytes(target: Target, number: int, seed: int) -> bytes:
    """Make a case."""
    random = Random(f"{seed}/{target.name}/{number}")
    return target.mutate(random, random.choice(target.seeds), target.seeds)


def outcome_of(target: Target, raw: bytes) -> str:
    """The class of the error by which bytes are refused, or `accepted`. Anything else comes out as it is."""
    try:
        target.check(raw)
    except SfrlError as refused:
        return type(refused).__name__
    return ACCEPTED


def run(targets: Sequence[Target], cases: int, seed: int) -> Tally:
    """Run `cases` cases, divided between the targets by their shares."""
    tally = Tally()
    for target, count in shares(targets, cases):
        _run_piece(tally, target, range(count), seed)
    return tally


Load = Callable[[str], Sequence[Target]]
"""Gives the targets of some name; a function of a module, called in each process."""


def run_in_processes(load: Load, name: str, cases: int, seed: int, processes: int) -> Tally:
    """The same in processes of their own."""
    tally = Tally()
    pieces = [
        (load, target.name, range(at, min(at + _PIECE, count)), seed)
        for target, count in shares(load(name), cases)
        for at in range(0, count, _PIECE)
    ]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for part in pool.map(_piece, pieces):
            tally.add(part)
    return tally


def shares(targets: Sequence[Target], cases: int) -> Iterable[tuple[Target, int]]:
    """Each target with the number of its cases."""
    whole = sum(target.share for target in targets)
    return [(target, -(-cases * target.share // whole)) for target in targets]


def _piece(given: tuple[Load, str, range, int]) -> Tally:
    load, name, numbers, seed = given
    warnings.simplefilter("error")
    resource.setrlimit(resource.RLIMIT_AS, (_PROCESS_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    tally = Tally()
    _run_piece(tally, next(target for target in load(name) if target.name == name), numbers, seed)
    return tally


def _run_piece(tally: Tally, target: Target, numbers: range, seed: int) -> None:
    _warm_up(target)
    for number in numbers:
        _run_case(tally, target, number, seed)


_warm: set[str] = set()


def _warm_up(target: Target) -> None:
    """Load, or compile, what the first cases need: it is no case's time or memory."""
    if target.name not in _warm:
        _warm.add(target.name)
        for raw in target.seeds:
            with suppress(Exception):
                target.check(raw)


def _run_case(tally: Tally, target: Target, number: int, seed: int) -> None:
    name = f"{target.name}/{number}"
    raw = case_bytes(target, number, seed)
    is_measured = target.is_measured and number % MEASURED_EACH == 0
    if is_measured:
        tracemalloc.start()
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
    if is_measured:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        tally.largest = max(tally.largest, (peak, name))
        if peak > _LENT_BYTES + _BYTES_A_BYTE * len(raw):
            tally.findings.append(Finding(name, f"took {peak:,} bytes for {len(raw):,}", raw))
