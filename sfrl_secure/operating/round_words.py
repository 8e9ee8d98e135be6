"""One round, as the log has it: what it began with, each update and what became of it, and what it left behind.

The facts are one JSON object, and the words for people are made of nothing else. Who was clipped follows from the
measured norms of the entries; how much of a mask changed, from the two masks, where somebody has them.

Runs in: operators' machines, auditors' machines, cli.
Trusts: the state and the entries that it is given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sfrl_secure.governance.aggregation_terms import CLUSTERED_MEAN
from sfrl_secure.governance.statements import CloseOutcome, ModelPublished, RoundClosed
from sfrl_secure.ids import Digest
from sfrl_secure.operating.aggregation_words import aggregation_parts
from sfrl_secure.operating.units import in_parameter_units, time_in_words
from sfrl_secure.rounds.state import RoundState


def round_state_word(found: RoundState) -> str:
    """How far a round is."""
    if found.closed is None:
        return "ended" if found.ended_by_order else "open"
    if found.is_abandoned:
        return "abandoned"
    if found.model is not None:
        return "published"
    return found.closed.outcome.name.lower()


def round_facts(
    found: RoundState, published: Mapping[int, ModelPublished], mask_changes: int | None = None
) -> dict[str, Any]:
    """Say everything of a round, as one JSON object. What is not there, or not known, is null.

    Norms are in parameter units, as decimals with every digit.

    Args:
        published: the model_published entries that had effect, by leaf index.
        mask_changes: how many coordinates its next mask has that its own has not, where that is known.
    """
    terms = found.terms
    bound, clipped = _clip(found)
    facts: dict[str, Any] = {
        "segment": terms.segment,
        "round": found.number,
        "state": round_state_word(found),
        "opened_us": found.opened_us,
        "opened_index": found.opened_index,
        "opened": found.opened.hex(),
        "deadline_us": found.deadline_us,
        "terms_version": terms.version,
        "terms_index": found.terms_index,
        "cohort_min": terms.round.cohort_min,
        "cohort_max": terms.round.cohort_max,
    }
    for key, words in aggregation_parts(terms):
        facts[key] = words if key == "rule" or getattr(terms, key) is not None else None
    facts |= {
        "base_model": found.base_model.hex(),
        "server_state": _hex(found.server_state),
        "mask": _hex(found.mask),
        "updates": [_update(found, name) for name in sorted(found.admissions)],
        "closed": None if found.closed is None else _closing(found, found.closed),
        "clip_norm": None if bound is None else _norm(found, bound),
        "clipped": clipped,
        "published": _publication(found, published, mask_changes),
        "clusters": _clusters(found, published),
        "left_out": sorted(found.left_out_derived),
        "complaints": {name: found.complaints[name].index for name in sorted(found.complaints)},
    }
    return facts


def _clip(found: RoundState) -> tuple[int | None, list[str] | None]:
    """To what norm the round's updates were cut, and whose were; None where none are, or not yet."""
    from sfrl_secure.aggregation.clip import clip_bound

    clip = found.terms.clip
    if clip is None or found.closed is None or found.closed.outcome is not CloseOutcome.CLOSED:
        return None, None
    norms = {name: found.admissions[name].facts.norm for name in _added_up(found, found.closed)}
    if len(norms) < found.terms.round.cohort_min:
        return None, None
    bound = clip_bound(clip, list(norms.values()))
    return bound, [name for name, norm in norms.items() if norm > bound]


def _added_up(found: RoundState, closed: RoundClosed) -> list[str]:
    """Whose updates the newest model is made of, by name."""
    return [name for name in _counted(found, closed) if name not in found.left_out_derived]


def _counted(found: RoundState, closed: RoundClosed) -> list[str]:
    return sorted(found.admissions.keys() - {drop.participant for drop in closed.dropped})


def _update(found: RoundState, name: str) -> dict[str, Any]:
    admission = found.admissions[name]
    return {
        "participant": name,
        "index": admission.index,
        "fate": _fate_of(found, name),
        "weight": admission.update.weight,
        "nonzeros": admission.facts.nonzeros,
        "norm": _norm(found, admission.facts.norm),
        "rules": list(admission.rule_ids),
    }


def _fate_of(found: RoundState, name: str) -> str:
    if found.closed is None:
        return "withdrawn" if name in found.withdrawn else "excluded" if name in found.excluded else "admitted"
    dropped = {drop.participant: drop.reason for drop in found.closed.dropped}
    if name in dropped:
        return f"dropped: {dropped[name]}"
    return "left out" if name in found.left_out_derived else "counted"


def _closing(found: RoundState, closed: RoundClosed) -> dict[str, Any]:
    return {
        "index": found.closed_index,
        "cause": closed.cause.name.lower(),
        "outcome": closed.outcome.name.lower(),
        "counted": closed.counted_count,
        "counted_root": closed.counted_root.hex(),
    }


def _publication(
    found: RoundState, published: Mapping[int, ModelPublished], mask_changes: int | None
) -> dict[str, Any] | None:
    """The model as it was last derived, and what came with it."""
    if found.model is None:
        return None
    body = published[found.model_index]
    return {
        "index": found.model_index,
        "model": found.model.hex(),
        "aggregate": body.aggregate.hex(),
        "server_state": _hex(body.server_state),
        "next_mask": _hex(body.next_mask),
        "next_mask_changes": None if body.next_mask is None else mask_changes,
    }


def _clusters(found: RoundState, published: Mapping[int, ModelPublished]) -> list[dict[str, Any]] | None:
    """The clusters of the model that was published first: those that are derived again have none."""
    if found.model is None or found.closed is None or found.terms.rule.name != CLUSTERED_MEAN:
        return None
    counted = _counted(found, found.closed)
    return [
        {"model": cluster.model.hex(), "members": [counted[member] for member in cluster.members]}
        for cluster in published[found.first_model_index].clusters
    ]


def _norm(found: RoundState, units: int) -> str:
    return in_parameter_units(units, found.terms.model.grid_exponent)


def _hex(digest: Digest | None) -> str | None:
    return None if digest is None else digest.hex()


def round_lines(facts: Mapping[str, Any]) -> Iterator[str]:
    """Say the facts of a round in words, a line each."""
    yield f"round     {facts['round']} of {facts['segment']}: {facts['state']}"
    opened = time_in_words(facts["opened_us"])
    yield f"opened    {opened}, entry {facts['opened_index']}, entry hash {facts['opened']}"
    yield f"deadline  {time_in_words(facts['deadline_us'])}"
    cohort = f"{facts['cohort_min']} to {facts['cohort_max']} updates"
    yield f"terms     v{facts['terms_version']}, entry {facts['terms_index']}: {cohort}"
    yield from (f"{key:<9} {facts[key]}" for key in ("rule", "clip", "cap", "server") if facts[key] is not None)
    yield f"base      {facts['base_model']}"
    if facts["server_state"] is not None:
        yield f"state     {facts['server_state']}, of the server's step"
    if facts["mask"] is not None:
        yield f"mask      {facts['mask']}, of agreed updates"
    yield "updates" if facts["updates"] else "updates   none"
    yield from map(_update_line, facts["updates"])
    yield from _what_came_of_it(facts)
    if facts["left_out"]:
        yield f"left out  when it was derived again: {', '.join(facts['left_out'])}"
    for name, index in facts["complaints"].items():
        yield f"complaint entry {index}: no gatekeeper answered an update of {name}"


def _update_line(update: Mapping[str, Any]) -> str:
    return (
        f"  {update['participant']}: entry {update['index']}, {update['fate']}, weight {update['weight']}, "
        f"{update['nonzeros']} nonzeros, norm {float(update['norm']):g}, rules {', '.join(update['rules'])}"
    )


def _what_came_of_it(facts: Mapping[str, Any]) -> Iterator[str]:
    closed, published = facts["closed"], facts["published"]
    if closed is not None:
        yield (
            f"closed    entry {closed['index']}, {closed['cause']}: {closed['outcome']}, {closed['counted']} counted, "
            f"root {closed['counted_root']}"
        )
    if facts["clipped"] is not None:
        yield f"clipped   to norm {float(facts['clip_norm']):g}: {', '.join(facts['clipped']) or 'nobody'}"
    if published is None:
        return
    yield f"model     entry {published['index']}: {published['model']}"
    if published["server_state"] is not None:
        yield f"new state {published['server_state']}, after the server's step"
    if published["next_mask"] is not None:
        changes = published["next_mask_changes"]
        known = "" if changes is None else f"; {changes} of its coordinates are new"
        yield f"next mask {published['next_mask']}, unless other terms come{known}"
    if facts["clusters"] == []:
        yield "clusters  none"
    for number, cluster in enumerate(facts["clusters"] or [], 1):
        yield f"cluster {number} {', '.join(cluster['members'])}: model {cluster['model']}"
