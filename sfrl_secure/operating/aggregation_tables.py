"""How rounds are added up, as operators write it: the tables rule, clip, cap, server and mask.next of a draft.

Shares are written as 0.2, decays as 0.9, norms and steps in parameter units; documents hold millionths, 65,536ths and
grid units. Every key of a rule is required, and none that it does not have is taken.

Format: proto/README.md, "Documents", segment-terms; "Aggregation".

Runs in: operators' machines, cli.
Trusts: nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal

from pydantic import Field

from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.aggregation_terms import (
    ADAPTIVE,
    ADAPTIVE_RATE_MAX,
    CLIP_MEDIAN_PPM_MAX,
    CLIP_NORM_MAX,
    DECAY_MAX,
    MOMENTUM,
    MOMENTUM_RATE_MAX,
    PPM,
    RULE_KEYS,
    AdaptiveTerms,
    CapTerms,
    ClipTerms,
    MomentumTerms,
    NextMaskTerms,
    RuleTerms,
    ServerTerms,
)
from sfrl_secure.governance.manifest import parse_tensor_name
from sfrl_secure.limits import COHORT_MAX, VALUE_MAX
from sfrl_secure.operating.draft_numbers import Number, Table
from sfrl_secure.operating.units import from_grid, from_parts, shortest_on_grid, to_grid, to_parts

DECAY_PARTS = 2**16
_WRITTEN = {"liars_ppm": "liars", "selected_ppm": "selected", "alike_ppm": "alike"}
"""A rule's keys in a document, and in a draft."""


class RuleTable(Table):
    """The rule; shares and the cosine from 0 to 1."""

    name: str
    liars: Number | None = None
    selected: Number | None = None
    alike: Number | None = None


class ClipTable(Table):
    """The norm that longer updates are cut to: in parameter units, or as so much of the round's median."""

    norm: Number | None = None
    of_median: Number | None = None


class CapTable(Table):
    """The largest step, in parameter units, of a coordinate that fewer updates carry."""

    contributors_below: int
    magnitude: Number


class ServerTable(Table):
    """The server step. Decays from 0 to below 1; the rate of an adaptive step, and its floor, in parameter units."""

    name: str
    decay: Number
    rate: Number
    decay_max: Number | None = None
    floor: Number | None = None


class NextMaskTable(Table):
    """How the mask changes from round to round."""

    score: str
    regrow: int
    protected: list[str] = Field(default_factory=list)


def rule_of(table: RuleTable) -> RuleTerms:
    """The rule.

    Raises:
        MalformedError: there is none of this name, a key of it is missing or out of range, or is another's.
    """
    if table.name not in RULE_KEYS:
        raise MalformedError(f"rule.name: it is one of {', '.join(sorted(RULE_KEYS))}")
    bounds, values = RULE_KEYS[table.name], {}
    for key, written in _WRITTEN.items():
        value: int | Decimal | None = getattr(table, written)
        if key in bounds:
            if value is None:
                raise MalformedError(f"rule: {table.name} wants the key {written}")
            values[key] = _parts(value, PPM, *bounds[key], f"rule.{written}")
        elif value is not None:
            raise MalformedError(f"rule.{written}: {table.name} has no such key")
    return RuleTerms(table.name, **values)


def clip_of(table: ClipTable | None, exponent: int) -> ClipTerms | None:
    """The clip, of a model on this grid.

    Raises:
        MalformedError: not exactly one of the two keys, or out of range.
    """
    if table is None:
        return None
    if table.norm is not None and table.of_median is None:
        return ClipTerms(norm=_units(table.norm, exponent, CLIP_NORM_MAX, "clip.norm"))
    if table.of_median is not None and table.norm is None:
        return ClipTerms(median_ppm=_parts(table.of_median, PPM, 1, CLIP_MEDIAN_PPM_MAX, "clip.of_median"))
    raise MalformedError("clip: it has one of the keys norm and of_median")


def cap_of(table: CapTable | None, exponent: int) -> CapTerms | None:
    """The cap, of a model on this grid.

    Raises:
        MalformedError: out of range.
    """
    if table is None:
        return None
    if not 1 <= table.contributors_below <= COHORT_MAX + 1:
        raise MalformedError(f"cap.contributors_below: it is from 1 to {COHORT_MAX + 1}")
    return CapTerms(table.contributors_below, _units(table.magnitude, exponent, VALUE_MAX, "cap.magnitude"))


def server_of(table: ServerTable | None, exponent: int) -> ServerTerms | None:
    """The server step, of a model on this grid.

    Raises:
        MalformedError: there is none of this name, a key of it is missing or out of range, or is another's.
    """
    if table is None:
        return None
    decay = _parts(table.decay, DECAY_PARTS, 0, DECAY_MAX, "server.decay", is_rounded=True)
    if table.name == MOMENTUM:
        for key in ("decay_max", "floor"):
            if getattr(table, key) is not None:
                raise MalformedError(f"server.{key}: {table.name} has no such key")
        return MomentumTerms(
            decay, _parts(table.rate, DECAY_PARTS, 1, MOMENTUM_RATE_MAX, "server.rate", is_rounded=True)
        )
    if table.name != ADAPTIVE:
        raise MalformedError(f"server.name: it is one of {ADAPTIVE}, {MOMENTUM}")
    if table.decay_max is None or table.floor is None:
        missing = "decay_max" if table.decay_max is None else "floor"
        raise MalformedError(f"server: {table.name} wants the key {missing}")
    return AdaptiveTerms(
        decay=decay,
        decay_max=_parts(table.decay_max, DECAY_PARTS, 0, DECAY_MAX, "server.decay_max", is_rounded=True),
        rate=_units(table.rate, exponent, ADAPTIVE_RATE_MAX, "server.rate"),
        floor=_units(table.floor, exponent, VALUE_MAX, "server.floor"),
    )


def next_mask_of(table: NextMaskTable | None) -> NextMaskTerms | None:
    """How the mask changes; whether it fits the model is the terms' to check.

    Raises:
        MalformedError: what stands in `protected` is no tensor's name, or stands there twice.
    """
    if table is None:
        return None
    for name in table.protected:
        try:
            parse_tensor_name(name)
        except MalformedError as error:
            raise MalformedError(f"mask.next.protected: {error}") from None
    if len(set(table.protected)) != len(table.protected):
        raise MalformedError("mask.next.protected: nothing stands there twice")
    return NextMaskTerms(table.score, table.regrow, frozenset(table.protected))


def rule_lines(rule: RuleTerms) -> Iterator[str]:
    """The keys of [rule] that give this rule."""
    yield f'name = "{rule.name}"'
    for key in RULE_KEYS[rule.name]:
        yield f"{_WRITTEN[key]} = {from_parts(getattr(rule, key), PPM)}"


def clip_lines(clip: ClipTerms, exponent: int) -> Iterator[str]:
    """The keys of [clip] that give this clip."""
    if clip.norm is not None:
        yield f"norm = {shortest_on_grid(clip.norm, exponent)}"
    if clip.median_ppm is not None:
        yield f"of_median = {from_parts(clip.median_ppm, PPM)}"


def cap_lines(cap: CapTerms, exponent: int) -> Iterator[str]:
    """The keys of [cap] that give this cap."""
    yield f"contributors_below = {cap.contributors_below}"
    yield f"magnitude = {shortest_on_grid(cap.magnitude, exponent)}"


def server_lines(server: ServerTerms, exponent: int) -> Iterator[str]:
    """The keys of [server] that give this step."""
    yield f'name = "{server.name}"'
    yield f"decay = {from_parts(server.decay, DECAY_PARTS)}"
    if isinstance(server, MomentumTerms):
        yield f"rate = {from_parts(server.rate, DECAY_PARTS)}"
        return
    yield f"decay_max = {from_parts(server.decay_max, DECAY_PARTS)}"
    yield f"rate = {shortest_on_grid(server.rate, exponent)}"
    yield f"floor = {shortest_on_grid(server.floor, exponent)}"


def next_mask_lines(chosen: NextMaskTerms) -> Iterator[str]:
    """The keys of [mask.next] that give this choice."""
    yield f'score = "{chosen.score}"'
    yield f"regrow = {chosen.regrow}"
    quoted = ", ".join(json.dumps(name) for name in sorted(chosen.protected))
    yield f"protected = [{quoted}]"


def _parts(value: int | Decimal, parts: int, low: int, high: int, where: str, *, is_rounded: bool = False) -> int:
    try:
        found = to_parts(value, parts, is_rounded=is_rounded)
    except MalformedError as error:
        raise MalformedError(f"{where}: {error}") from None
    if not low <= found <= high:
        raise MalformedError(f"{where}: it is from {from_parts(low, parts)} to {from_parts(high, parts)}")
    return found


def _units(value: int | Decimal, exponent: int, high: int, where: str) -> int:
    found = to_grid(value, exponent)
    if not 1 <= found <= high:
        raise MalformedError(f"{where}: it is from {from_grid(1, exponent)} to {from_grid(high, exponent)}")
    return found
