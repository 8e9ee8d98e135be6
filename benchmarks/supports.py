"""Supports to encode, and how few bits they could take.

Three kinds: random, the largest of a real pseudo-gradient, and clustered, where half of all tiles are empty and the
others hold lognormal counts.

Supports of one kind differ as participants' do. Each of a gradient is the top-k of another participant's change in one
round, after local steps with its own images (`pseudo_gradient`), because that is what an aggregator adds up: from one
model all start alike, so that layers with large gradients are large for all of them, and with other data each has
largest coordinates of its own. One change with noise would make supports that agree in nearly all of their largest
coordinates, as no two participants' do, and leave in the cache what is added up.

Runs in: a developer's machine.
Trusts: nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import log2

import numpy as np
from numpy.typing import NDArray

TILE = 4_096

Support = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Indices, rising, and their values."""


def top(values: NDArray[np.float32], k: int) -> Support:
    """The k largest of `values`, ties cut as they come."""
    indices = np.sort(np.argpartition(np.abs(values), values.size - k)[values.size - k :]).astype(np.int64)
    return indices, values[indices]


def random_supports(coordinates: int, k: int, values: NDArray[np.float32], count: int, rng: np.random.Generator
                    ) -> Iterator[Support]:
    """Uniform supports, whose values are drawn from `values`."""
    for _ in range(count):
        indices = np.sort(rng.choice(coordinates, k, replace=False, shuffle=False)).astype(np.int64)
        yield indices, rng.choice(values, k)


def largest(support: Support, k: int) -> Support:
    """The k largest of a support that holds the largest of a change."""
    indices, values = support
    chosen, _ = top(values, k)
    return indices[chosen], values[chosen]


def clustered_support(coordinates: int, k: int, values: NDArray[np.float32], rng: np.random.Generator) -> Support:
    """Half of the tiles empty, lognormal counts in the others, nearly k in all."""
    tiles = coordinates // TILE
    chosen = rng.permutation(tiles)[: tiles // 2]
    weights = rng.lognormal(0, 1, chosen.size)
    counts = np.minimum(np.rint(weights / weights.sum() * k), TILE).astype(np.int64)
    indices = np.sort(np.concatenate([tile * TILE + rng.choice(TILE, count, replace=False)
                                      for tile, count in zip(chosen, counts, strict=True)]))
    return indices, rng.choice(values, indices.size)


def tile_bound_bits(indices: NDArray[np.int64], coordinates: int) -> float:
    """Bits an index for a coder that first tells each of T tiles' counts k of w: (sum of log2 C(w, k) + T log2(1 + max
    k)) / nonzeros."""
    logs = np.concatenate([[0.0], np.cumsum(np.log2(np.arange(1, TILE + 1)))])
    counts = np.bincount(indices // TILE, minlength=-(-coordinates // TILE))
    widths = np.full(counts.size, TILE)
    widths[-1] = coordinates - TILE * (counts.size - 1)
    choices = logs[widths] - logs[counts] - logs[widths - counts]
    return float((choices.sum() + counts.size * log2(1 + int(counts.max()))) / indices.size)
