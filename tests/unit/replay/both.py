"""What the aggregator makes of a round, beside what the verifier makes of it.

The aggregator works from updates in memory, in any order, on one thread or two, all at once or as they come; the replay
from payloads.
"""

from __future__ import annotations

from random import Random

import numpy as np

from sfrl_secure.aggregation.combined import Combined
from sfrl_secure.aggregation.contribution import HeldUpdate, held, tie_of
from sfrl_secure.aggregation.models import ModelSnapshot, encode_step
from sfrl_secure.aggregation.round_result import RoundResult, result_of
from sfrl_secure.aggregation.rules import begin_rule, combine
from sfrl_secure.aggregation.server_state import parse_server_state
from sfrl_secure.governance.documents import parse_document
from sfrl_secure.governance.terms import SegmentTerms
from sfrl_secure.replay.recomputation import Result
from sfrl_secure.replay.statements import Cluster
from sfrl_secure.sparse.mask import decode_mask
from sfrl_secure.sparse.update import UpdatePart

from .builder import sha
from .cases import GRID, NAMES, OPENED, Case, governed, recomputed
from .payloads import encode_aggregate, encode_mask


def segment_terms(case: Case) -> SegmentTerms:
    found = parse_document("application/vnd.sfrl.segment-terms.v1+json", governed(case.terms))
    assert isinstance(found, SegmentTerms)
    return found


def update_of(case: Case, i: int) -> HeldUpdate:
    support, carried, weight = case.updates[i]
    at = np.array(sorted(carried), np.int64)
    values = np.array([carried[c] for c in sorted(carried)], np.int64)
    parts = [UpdatePart(slice(0, len(at)) if support == "dense" else at, values)] if carried else []
    return held(tie_of(OPENED, NAMES[i]), weight, parts)


def arriving(terms: SegmentTerms, cohort: list[HeldUpdate], rng: Random) -> Combined | None:
    """The same, taken in as it comes, with somebody who leaves again; None where the rule wants all at once."""
    rule = begin_rule(terms)
    if rule is None:
        return None
    stray = rng.choice(cohort)
    waiting: list[tuple[HeldUpdate, bool]] = [(each, False) for each in cohort if each is not stray]
    for update, leaves in [(stray, True), *waiting, (stray, False)]:
        rule.enter(update.weight, update.norm)
        for part in update.held:
            rule.add_part(part, update.weight, update.norm)
        if leaves:
            for part in update.held:
                rule.take_out_part(part, update.weight, update.norm)
            rule.leave(update.weight, update.norm)
    return rule.finish()


def check(case: Case, rng: Random, ours: Result | None = None) -> None:
    terms = segment_terms(case)
    manifest = terms.model.manifest
    positions = case.kept[:]
    rng.shuffle(positions)
    cohort = [update_of(case, i) for i in positions]
    base = ModelSnapshot(manifest, GRID, np.array(case.base, np.int64))
    state = None
    if case.state is not None:
        assert terms.server is not None
        state = parse_server_state(encode_aggregate(case.state, GRID), terms.server, manifest.coordinates, GRID)
    mask = decode_mask(encode_mask(case.mask, manifest.coordinates), manifest.coordinates) if case.mask else None
    made = [combine(terms, cohort, threads=rng.choice([1, 2]))]
    streamed = arriving(terms, cohort, rng)
    ours = recomputed(case) if ours is None else ours
    for combined in made + ([streamed] if streamed is not None else []):
        result = result_of(terms, OPENED, combined, base, state, mask)
        assert names_of(result, terms) == ours.names
        clusters = tuple(
            Cluster(tuple(sorted(positions[member] for member in each.members)), sha(bytes(each.model_on(base).raw)))
            for each in result.clusters
        )
        assert clusters == ours.clusters


def names_of(result: RoundResult, terms: SegmentTerms) -> dict[str, bytes | None]:
    return {
        "aggregate": sha(encode_step(terms.model.manifest, GRID, result.step)),
        "model": sha(bytes(result.model.raw)),
        "server_state": None if result.server_state is None else sha(result.server_state.to_bytes(GRID)),
        "next_mask": None if result.next_mask is None else sha(result.next_mask),
    }
