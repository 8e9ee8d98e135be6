"""A round's model, worked out again from its counted updates: the names that its model_published must give.

What cannot be told, because something is not there, has no name here; that it is missing has been noted.

Format: proto/README.md, "Aggregation"; "Re-aggregation"; "Masks".

Runs in: verifier.
Trusts: nothing.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np

from sfrl_secure.ids import Digest
from sfrl_secure.replay.admission import expected_payload
from sfrl_secure.replay.aggregation_terms import CLUSTERED_MEAN
from sfrl_secure.replay.clusters import clusters_of
from sfrl_secure.replay.columns import Cohort
from sfrl_secure.replay.counted import Counted, Gone, StoredUpdate, clip_factors
from sfrl_secure.replay.docket import Docket, Position
from sfrl_secure.replay.encoder import encode_aggregate, encode_mask
from sfrl_secure.replay.masks import read_mask
from sfrl_secure.replay.models import add_to_model, digest_of, name_of_model
from sfrl_secure.replay.next_mask import choose_mask, saliency
from sfrl_secure.replay.payload_codes import Integers
from sfrl_secure.replay.payload_header import Mask
from sfrl_secure.replay.products import products_of
from sfrl_secure.replay.rules import Combined, apply_cap, combine
from sfrl_secure.replay.segments import Admission
from sfrl_secure.replay.server_states import read_state
from sfrl_secure.replay.server_step import server_step
from sfrl_secure.replay.statements import Cluster
from sfrl_secure.replay.sums import sums_of
from sfrl_secure.replay.terms import Terms


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """What a round's model is a function of.

    Attributes:
        opened: entry hash of its round_opened.
        counted: its counted list; of these, `left_out` are not added up: statement digests.
        base: the model that it stands on; `base_values` its integers, None where they are not known.
        server_state: what its step stands on; `mask`, what the round began with.
        is_again: its model was published before; there are no clusters.
        base_is_none: the object that the base names is no model: nothing can come of it.
    """

    round: int
    terms: Terms
    opened: Digest
    counted: tuple[Admission, ...]
    left_out: frozenset[Digest]
    base: Digest
    base_values: Integers | None
    server_state: Digest | None
    mask: Digest | None
    is_again: bool = False
    base_is_none: bool = False


@dataclass(slots=True, eq=False)
class Result:
    """What comes of it.

    Attributes:
        names: of `aggregate`, `model`, `server_state` and `next_mask` those that can be told; None for one that there
            is not to be.
        values: the model's integers, where its name is there.
        clusters: None where they cannot be told.
    """

    names: dict[str, Digest | None] = field(default_factory=dict)
    values: Integers | None = None
    clusters: tuple[Cluster, ...] | None = None


def recompute(docket: Docket, task: Task, at: Position) -> Result:
    """Work a round's model out, as far as what it takes is there."""
    rest = [(n, each) for n, each in enumerate(task.counted) if each.statement_digest not in task.left_out]
    if len(rest) < task.terms.cohort_min:
        return _without_updates(task)
    if any(each.leaf_ends is None for _, each in rest):
        # Not there, which was noted; or no payload, which was found when it was admitted, and when it was counted.
        return Result()
    mask = read_mask(docket, task.terms, task.mask, at, f"the mask of round {task.round}")
    if mask is None and any(each.update.support == "agreed" for _, each in rest):
        return Result()
    try:
        combined, result = _add_up(docket, task, rest, mask)
    except Gone as gone:
        docket.miss(gone.digest, at.index, f"the payload of an update that round {task.round} counts")
        return Result()
    _name_mask(task, combined, mask, result)
    if task.terms.cap is not None:
        apply_cap(task.terms.cap, combined)
    _name_step(docket, task, combined.a, at, result)
    return result


def _without_updates(task: Task) -> Result:
    """Too few are left to hide among: the aggregate is zero, and everything else stays as the round found it."""
    zero = encode_aggregate(np.zeros(task.terms.manifest.coordinates, np.int64), task.terms.grid_exponent)
    changes = task.terms.mask is not None and task.terms.mask.next is not None
    names = {
        "aggregate": digest_of(zero),
        "model": task.base,
        "server_state": task.server_state,
        "next_mask": task.mask if changes else None,
    }
    return Result(names, task.base_values, ())


def _add_up(
    docket: Docket, task: Task, rest: list[tuple[int, Admission]], mask: Mask | None
) -> tuple[Combined, Result]:
    """What the rule gives, and the clusters. The updates are in nobody's memory any more when it returns."""
    cohort = _cohort_of(docket, task, rest, mask)
    return combine(task.terms, cohort), Result(clusters=_clusters(task, cohort))


def _cohort_of(docket: Docket, task: Task, rest: list[tuple[int, Admission]], mask: Mask | None) -> Cohort:
    factors = clip_factors(task.terms.clip, [each.norm for _, each in rest])
    updates = []
    for (position, each), factor in zip(rest, factors, strict=True):
        update = each.update
        assert each.leaf_ends is not None, "the payload was decoded when it was admitted"
        expected = expected_payload(task.terms, update, mask)
        stored = StoredUpdate(docket, update.payload_sha256, update.payload_bytes, expected, each.leaf_ends)
        tie = Digest(hashlib.sha256(task.opened + update.participant.encode("ascii")).digest())
        updates.append(Counted(position, tie, update.weight, each.norm, stored, factor))
    return Cohort(task.terms.manifest.coordinates, updates)


def _clusters(task: Task, cohort: Cohort) -> tuple[Cluster, ...] | None:
    terms, base = task.terms, task.base_values
    if terms.rule.name != CLUSTERED_MEAN or task.is_again or task.base_is_none:
        return ()
    if base is None:
        return None
    ties = [update.tie for update in cohort.updates]
    found = []
    for numbers in clusters_of(products_of(cohort), ties, terms.rule.alike_ppm, terms.cohort_min):
        members = [cohort.updates[number] for number in numbers]
        mean = sums_of(((update, update.weight) for update in members), cohort.coordinates).mean()
        model = name_of_model(terms.manifest, terms.grid_exponent, add_to_model(terms.manifest, base, mean))
        found.append(Cluster(tuple(update.position for update in members), model))
    return tuple(found)


def _name_mask(task: Task, combined: Combined, mask: Mask | None, result: Result) -> None:
    """The next mask, from what the rule gave before the cap."""
    terms = task.terms
    if terms.mask is None or terms.mask.next is None:
        result.names["next_mask"] = None
        return
    scores: Integers | None
    match terms.mask.next.score:
        case "votes":
            assert combined.votes is not None, "they are counted where masks are chosen by them"
            scores = combined.votes.astype(np.int64)
        case "contribution":
            scores = np.abs(combined.a)
        case _:
            scores = None if task.base_values is None else saliency(combined.a, task.base_values)
    if mask is None:
        return
    if mask.indices is None or (scores is None and task.base_is_none):
        # The round began with something that is no mask, or no model to score by: nothing can follow from it.
        result.names["next_mask"] = None
        return
    if scores is None:
        return
    indices = choose_mask(terms, task.opened, mask.indices, scores)
    result.names["next_mask"] = digest_of(encode_mask(indices, terms.manifest.coordinates))


def _name_step(docket: Docket, task: Task, a: Integers, at: Position, result: Result) -> None:
    """The server step, what is added to the base, and the model."""
    terms, u = task.terms, a
    if terms.server is None:
        result.names["server_state"] = None
    else:
        state = read_state(docket, terms, task.server_state, at, f"the server state of round {task.round}")
        if state is None:
            return
        u, after = server_step(terms.server, a, state)
        result.names["server_state"] = digest_of(encode_aggregate(after, terms.grid_exponent))
    result.names["aggregate"] = digest_of(encode_aggregate(u, terms.grid_exponent))
    if task.base_values is None:
        if task.base_is_none:
            result.names["model"] = None
        return
    result.values = add_to_model(terms.manifest, task.base_values, u)
    result.names["model"] = name_of_model(terms.manifest, terms.grid_exponent, result.values)
