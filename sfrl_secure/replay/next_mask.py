"""The next round's mask: what scored, what stays, and what is grown again.

Format: proto/README.md, "Masks".

Runs in: verifier.
Trusts: nothing.
"""

from __future__ import annotations

import hashlib
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.ids import Digest
from sfrl_secure.replay.arithmetic import cut
from sfrl_secure.replay.manifest import Manifest
from sfrl_secure.replay.payload_codes import Integers
from sfrl_secure.replay.terms import Terms

_HALF: Final = 20
_GOLDEN: Final = 0x9E3779B97F4A7C15
_FIRST: Final = 0xBF58476D1CE4E5B9
_SECOND: Final = 0x94D049BB133111EB


def saliency(a: Integers, base: Integers) -> Integers:
    """floor(|a| * min(|b|, 2**40) / 2**20) of each coordinate, in 64 bits."""
    step, weight = np.abs(a), np.abs(cut(base))
    high, low = weight >> _HALF, weight & (2**_HALF - 1)
    # Of high * 2**20 + low the first term needs no division; each product is at most 2**60.
    result: Integers = step * high + (step * low >> _HALF)
    return result


def choose_mask(terms: Terms, round_opened: Digest, before: Integers, scores: Integers) -> Integers:
    """Give the coordinates of the next mask, rising.

    Args:
        terms: of the round; their mask changes.
        before: the coordinates of the round's own mask.
        scores: of every coordinate of the model, from 0.
    """
    assert terms.mask is not None, "the terms have a mask"
    assert terms.mask.next is not None, "it changes"
    chosen = terms.mask.next
    seed = int.from_bytes(hashlib.sha256(b"sfrl-mask/v1\n" + round_opened).digest()[:8], "little")
    is_in = _of_tensors(terms.manifest, chosen.protected)
    is_candidate = _of_tensors(terms.manifest, terms.tensors)
    protected = int(is_in.sum())
    old = before[is_candidate[before] & ~is_in[before]]
    kept = terms.mask.nonzeros - protected - chosen.regrow
    is_in[_first(old, scores, seed, kept)] = True
    is_new = is_candidate & ~is_in
    if kept > 0:
        is_new[old] = False
    is_in[_first(np.flatnonzero(is_new), scores, seed, terms.mask.nonzeros - int(is_in.sum()))] = True
    # What was dropped comes back only where there is not enough beside it.
    dropped = np.flatnonzero(is_candidate & ~is_in)
    is_in[_first(dropped, scores, seed, terms.mask.nonzeros - int(is_in.sum()))] = True
    return np.flatnonzero(is_in)


def _of_tensors(manifest: Manifest, positions: frozenset[int]) -> NDArray[np.bool_]:
    found = np.zeros(manifest.coordinates, np.bool_)
    for position in positions:
        found[manifest.tensors[position].start : manifest.tensors[position].end] = True
    return found


def _first(coordinates: Integers, scores: Integers, seed: int, count: int) -> Integers:
    """The so many that rank first, or all where they are fewer."""
    if count >= len(coordinates):
        return coordinates
    if count == 0:
        return coordinates[:0]
    own = scores[coordinates]
    # Whoever is above the last score that gets in is in; of those that have it, who comes first by h.
    last = np.partition(own, len(own) - count)[len(own) - count]
    above, level = coordinates[own > last], coordinates[own == last]
    # No two coordinates have one h: each step of it can be undone.
    order = np.argpartition(_h(level, seed), count - len(above) - 1)
    return np.concatenate([above, level[order[: count - len(above)]]])


def _h(coordinates: Integers, seed: int) -> NDArray[np.uint64]:
    """SplitMix64 (Steele, Lea and Flood 2014) of seed and coordinate; integers of 64 bits wrap around."""
    z = (coordinates.astype(np.uint64) + np.uint64(1)) * np.uint64(_GOLDEN) + np.uint64(seed)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(_FIRST)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(_SECOND)
    return z ^ (z >> np.uint64(31))
