"""The mask of the next round: which coordinates agreed updates will have, chosen by what this round's updates say.

Coordinates are ranked by an integer score, and where scores are equal by a number that depends on the round and on
nobody's wish, so that what nobody scored is explored in an order that nobody chose. Part of the round's mask stays,
part of the next is open to every coordinate that the terms allow.

Source: SplitMix64 (Steele, Lea and Flood 2014) for the order; SNIP (Lee and others 2019) for the saliency.
Format: proto/README.md, "Masks".

Runs in: aggregator.
Trusts: its caller, for the parts that it was given; the base model's values may be anything.
"""

from __future__ import annotations

from math import isqrt
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.aggregation.models import ModelSnapshot
from sfrl_secure.governance.aggregation_terms import NextMaskTerms
from sfrl_secure.governance.terms import SegmentTerms
from sfrl_secure.ids import Digest, sha256
from sfrl_secure.limits import VALUE_MAX
from sfrl_secure.sparse.update import UpdatePart

_TAG: Final = b"sfrl-mask/v1\n"
_BLOCK: Final = 65_536
_HALF_BITS: Final = 20
_GAMMA, _FIRST, _SECOND = (
    np.uint64(each) for each in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)

Indices = NDArray[np.int64]
"""Coordinates, ascending."""
Scores = NDArray[np.int64]
"""A score for each of some coordinates, at least 0."""


def next_mask(
    terms: SegmentTerms, round_opened: Digest, before: Indices, scored: tuple[Indices, Scores]
) -> Indices:
    """Choose the mask of the round after this one: as many coordinates as the terms say.

    Args:
        terms: of the round; they have a mask that changes.
        round_opened: entry hash of the round's opening.
        before: the coordinates of the round's own mask.
        scored: see `scores_of`.
    """
    mask, manifest = terms.mask, terms.model.manifest
    assert mask is not None, "terms without a mask have no next one"
    assert mask.next is not None, "the mask of these terms does not change"
    seed = seed_of(round_opened)
    is_open = np.zeros(manifest.coordinates, dtype=np.bool_)
    chosen: list[Indices] = []
    for tensor, start in zip(manifest.tensors, manifest.offsets, strict=True):
        if tensor.name in mask.next.protected:
            chosen.append(np.arange(start, start + tensor.coordinates, dtype=np.int64))
        elif tensor.name in terms.tensors:
            is_open[start : start + tensor.coordinates] = True
    at, scores = scored
    places = mask.nonzeros - sum(each.size for each in chosen)

    own = before[is_open[before]]
    own_scores = _looked_up(own, at, scores)
    stays = _first(own, own_scores, places - mask.next.regrow, seed)
    is_open[stays] = False
    is_dropped = is_open[own]
    if mask.next.regrow < places:
        is_open[own] = False
    grown = _grown(is_open, at, scores, min(places - stays.size, int(np.count_nonzero(is_open))), seed)
    # Only where there are not enough others do those that were dropped come back.
    left = places - stays.size - grown.size
    back = _first(own[is_dropped], own_scores[is_dropped], left, seed)
    return np.sort(np.concatenate([*chosen, stays, grown, back]))


def _grown(is_open: NDArray[np.bool_], at: Indices, scores: Scores, count: int, seed: int) -> Indices:
    """Those `count` of the open coordinates that rank first; the scores are of `at`."""
    kept = (scores > 0) & is_open[at]
    at, scores = at[kept], scores[kept]
    scored = _first(at, scores, count, seed)
    # Those that nobody scored: there are some only where all that have a score are in.
    is_open[at] = False
    return np.concatenate([scored, _first_open(is_open, count - scored.size, seed)])


def scores_of(
    chosen: NextMaskTerms, step: UpdatePart, votes: NDArray[np.uint16] | None, base: ModelSnapshot
) -> tuple[Indices, Scores]:
    """Score the coordinates of a round: ascending coordinates, each with its score; all others have none, which is 0.

    Args:
        step: a, before the cap.
        votes: how many updates have a value that is not 0, by coordinate; needed where they are the score.
        base: the model that the round began with.
    """
    if chosen.score == "votes":
        assert votes is not None, "the rule counts votes where they are the score"
        at = np.flatnonzero(votes)
        return at, votes[at].astype(np.int64)
    at = np.flatnonzero(step.values) if isinstance(step.at, slice) else step.at
    magnitudes = np.abs(step.values[at] if isinstance(step.at, slice) else step.values)
    if chosen.score == "contribution":
        return at, magnitudes
    weights = np.abs(np.clip(base.values_at(at), -VALUE_MAX, VALUE_MAX))
    # In two halves of the magnitude, so that no product exceeds 2**60: the upper half's needs no rounding.
    high, low = magnitudes >> _HALF_BITS, magnitudes & ((1 << _HALF_BITS) - 1)
    return at, high * weights + ((low * weights) >> _HALF_BITS)


def seed_of(round_opened: Digest) -> int:
    """What the order of equals begins with, in a round."""
    return int.from_bytes(sha256(_TAG + round_opened)[:8], "little")


def order_of(coordinates: Indices, seed: int) -> NDArray[np.uint64]:
    """h of each coordinate, by which equals are ranked: the SplitMix64 output. Different for different coordinates."""
    z = coordinates.astype(np.uint64)
    z += np.uint64(1)
    z *= _GAMMA
    z += np.uint64(seed)
    for shift, factor in ((30, _FIRST), (27, _SECOND)):
        z ^= z >> np.uint64(shift)
        z *= factor
    z ^= z >> np.uint64(31)
    return z


def _first(at: Indices, scores: Scores, count: int, seed: int) -> Indices:
    """Those `count` of the coordinates that rank first, in no order; all where they are fewer."""
    if count >= at.size:
        return at
    if count <= 0:
        return at[:0]
    last = int(np.partition(scores, at.size - count)[at.size - count])
    above = at[scores > last]
    equals = at[scores == last]
    wanted = count - above.size
    by_order = np.argpartition(order_of(equals, seed), wanted - 1)[:wanted]
    return np.concatenate([above, equals[by_order]])


def _first_open(is_open: NDArray[np.bool_], count: int, seed: int) -> Indices:
    """Those `count` of the open coordinates that come first in the round's order. There are so many."""
    if count <= 0:
        return np.empty(0, dtype=np.int64)
    there = int(np.count_nonzero(is_open))
    assert count <= there, "the terms' tensors have as many coordinates as the mask"
    # The order is as good as random: a little more than the share that is wanted lies below this. Where it does not,
    # the next look goes twice as far.
    reach = count + 8 * isqrt(count) + 64
    while True:
        found, orders = _below(is_open, np.uint64(min((reach << 64) // there, 2**64 - 1)), seed)
        if found.size >= count:
            return found[np.argpartition(orders, count - 1)[:count]]
        reach *= 2


def _below(is_open: NDArray[np.bool_], bound: np.uint64, seed: int) -> tuple[Indices, NDArray[np.uint64]]:
    """The open coordinates whose order is at most `bound`, and their orders; block by block, in little memory."""
    found, orders = [], []
    for start in range(0, is_open.size, _BLOCK):
        at = np.flatnonzero(is_open[start : start + _BLOCK]) + start
        order = order_of(at, seed)
        kept = order <= bound
        found.append(at[kept])
        orders.append(order[kept])
    return np.concatenate(found), np.concatenate(orders)


def _looked_up(wanted: Indices, at: Indices, scores: Scores) -> Scores:
    """The scores of some coordinates; 0 where there is none."""
    if not at.size:
        return np.zeros(wanted.size, dtype=np.int64)
    places = np.minimum(np.searchsorted(at, wanted), at.size - 1)
    return np.where(at[places] == wanted, scores[places], 0)
