"""What a new version of segment terms changes: who gains or loses the segment, and which limits are tighter.

Runs in: operators' machines, cli.
Trusts: the state that it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from sfrl_secure.governance.participants import ParticipantRecord
from sfrl_secure.governance.terms import LeakageBound, SegmentTerms
from sfrl_secure.operating.aggregation_words import aggregation_parts
from sfrl_secure.operating.document_words import bound_words, mask_words, names
from sfrl_secure.operating.units import format_duration, format_size, in_parameter_units
from sfrl_secure.rounds.state import FederationState


@dataclass(frozen=True, slots=True)
class _Number:
    """A number of the terms: how it is called, where it stands, how it reads, and what a larger one means."""

    name: str
    of: Callable[[SegmentTerms], int]
    words: Callable[[int, SegmentTerms], str] = lambda value, _terms: str(value)
    larger: str = "looser"


def _units(value: int, terms: SegmentTerms) -> str:
    return in_parameter_units(value, terms.model.grid_exponent)


def _size(value: int, _terms: SegmentTerms) -> str:
    return format_size(value)


def _duration(value: int, _terms: SegmentTerms) -> str:
    return format_duration(value)


_NUMBERS = (
    _Number("payload bytes at most", lambda terms: terms.limits.payload_bytes_max, _size),
    _Number("nonzeros at most", lambda terms: terms.limits.nonzeros_max),
    _Number("norm at most", lambda terms: terms.limits.norm_max, _units),
    _Number("one value at most", lambda terms: terms.limits.magnitude_max, _units),
    _Number("weight at most", lambda terms: terms.limits.weight_max),
    _Number("quota of updates", lambda terms: terms.quota.updates_max),
    _Number("quota of bytes", lambda terms: terms.quota.bytes_max, _size),
    _Number("quota's window", lambda terms: terms.quota.window_us, _duration, "tighter"),
    _Number("nonzeros at least", lambda terms: terms.leakage.nonzeros_min, larger="tighter"),
    _Number("weight at least", lambda terms: terms.leakage.weight_min, larger="tighter"),
    _Number("noise at least", lambda terms: terms.leakage.noise_std_min, _units, "tighter"),
    _Number("round lasts", lambda terms: terms.round.duration_us, _duration, "longer"),
    _Number("cohort at least", lambda terms: terms.round.cohort_min, larger="tighter"),
    _Number("cohort at most", lambda terms: terms.round.cohort_max, larger="larger"),
    _Number("rounds in all", lambda terms: terms.round.rounds_max, larger="more"),
    _Number("sensitivity", lambda terms: terms.sensitivity, larger="tighter"),
    _Number("days updates are kept", lambda terms: terms.retention_days, larger="longer"),
    _Number("days refused payloads are kept", lambda terms: terms.evidence_days, larger="longer"),
)
_OPPOSITES = {
    "looser": "TIGHTER", "tighter": "LOOSER", "longer": "shorter", "larger": "smaller", "more": "fewer",
}  # fmt: skip
_MARKED = {"looser": "LOOSER", "tighter": "TIGHTER"}


def terms_changes(before: SegmentTerms, after: SegmentTerms, state: FederationState | None) -> Iterator[str]:
    """Say what changes between two versions of a segment's terms, from the next round on."""
    yield from _participants(before, after, state)
    for operation in sorted(before.operations - after.operations):
        yield f"nobody may {operation} any more"
    for operation in sorted(after.operations - before.operations):
        yield f"whoever is granted may {operation}"
    for number in _NUMBERS:
        old, new = number.of(before), number.of(after)
        if old != new:
            word = _MARKED.get(number.larger, number.larger) if new > old else _OPPOSITES[number.larger]
            yield f"{number.name}: {number.words(old, before)} -> {number.words(new, after)} ({word})"
    yield from _sets("updates may touch tensor", before.tensors, after.tensors)
    yield from _sets("value type", before.value_types, after.value_types)
    yield from _sets("support", before.support_modes, after.support_modes)
    if before.mask != after.mask:
        yield f"mask: {mask_words(before.mask)} -> {mask_words(after.mask)}"
    yield from _sets("signature suite", before.suites, after.suites)
    yield from _sets("relay group", before.relay_groups, after.relay_groups)
    yield from _bounds("leakage.rows", before.leakage.rows, after.leakage.rows)
    yield from _bounds("leakage.labels", before.leakage.labels, after.leakage.labels)
    for (name, was), (_, becomes) in zip(aggregation_parts(before), aggregation_parts(after), strict=True):
        if was != becomes:
            yield f"{name}: {was} -> {becomes}"
    yield from _given_up(before, after)
    if before.privacy != after.privacy:
        yield f"privacy: {before.privacy} -> {after.privacy}"
    if before.model != after.model:
        yield "another model: such terms have no effect, a segment keeps its model"


def _given_up(before: SegmentTerms, after: SegmentTerms) -> Iterator[str]:
    """What the rounds so far came to and the next one does not begin with: "What a round begins with"."""
    if before.server is not None and (after.server is None or after.server.name != before.server.name):
        yield "the server's state so far is given up" + (": the next begins with zeros" if after.server else "")
    old, new = before.mask, after.mask
    if old is None or old.next is None or new is None:
        return
    if new.next is None or (new.digest, new.nonzeros) != (old.digest, old.nonzeros):
        yield "the mask that the rounds chose so far is given up: the next round begins with the terms' own"


def _participants(before: SegmentTerms, after: SegmentTerms, state: FederationState | None) -> Iterator[str]:
    if before.groups != after.groups:
        yield f"granted groups: {names(before.groups)} -> {names(after.groups)}"
    if state is None:
        return
    records = [
        record for kind, name in sorted(state.placed)
        if kind == "participant" and (record := state.participant(name)) is not None and record.state != "revoked"
    ]  # fmt: skip
    yield from _relays(records, before, after)
    gained = [each.name for each in records if each.groups & after.groups and not each.groups & before.groups]
    lost = [each.name for each in records if each.groups & before.groups and not each.groups & after.groups]
    if gained:
        yield f"gain the segment: {names(gained)}"
    if lost:
        yield f"lose the segment: {names(lost)}"
    yield from _clearances(records, before, after)


def _relays(records: list[ParticipantRecord], before: SegmentTerms, after: SegmentTerms) -> Iterator[str]:
    were = {each.name for each in records if each.groups & before.relay_groups}
    are = {each.name for each in records if each.groups & after.relay_groups}
    if are - were:
        yield f"may bring others' updates: {names(are - were)}"
    if were - are:
        yield f"may no longer bring others' updates: {names(were - are)}"


def _clearances(records: list[ParticipantRecord], before: SegmentTerms, after: SegmentTerms) -> Iterator[str]:
    granted = [each for each in records if each.groups & after.groups]
    below = [each.name for each in granted if before.sensitivity <= each.clearance < after.sensitivity]
    reach = [each.name for each in granted if after.sensitivity <= each.clearance < before.sensitivity]
    if below:
        yield f"no longer cleared, where a rule compares clearance with sensitivity: {names(below)}"
    if reach:
        yield f"now cleared, where a rule compares clearance with sensitivity: {names(reach)}"


def _sets(what: str, before: Iterable[str], after: Iterable[str]) -> Iterator[str]:
    for each in sorted(set(before) - set(after)):
        yield f"{what} {each}: no longer (TIGHTER)"
    for each in sorted(set(after) - set(before)):
        yield f"{what} {each}: new (LOOSER)"


def _bounds(what: str, before: tuple[LeakageBound, ...], after: tuple[LeakageBound, ...]) -> Iterator[str]:
    old = {(each.tensor, each.axis): each for each in before}
    new = {(each.tensor, each.axis): each for each in after}
    for place in sorted(old.keys() - new.keys()):
        yield f"{what}: {bound_words(old[place])} is gone (LOOSER)"
    for place in sorted(new.keys() - old.keys()):
        yield f"{what}: {bound_words(new[place])} is new (TIGHTER)"
    for place in sorted(old.keys() & new.keys()):
        if old[place] != new[place]:
            word = "TIGHTER" if new[place].least > old[place].least else "LOOSER"
            yield f"{what}: {bound_words(old[place])} -> {new[place].least} ({word})"
