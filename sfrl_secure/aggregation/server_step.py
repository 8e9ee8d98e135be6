"""The server step: what the model moves by, where rounds have a memory.

Momentum adds what is left of the rounds before; the adaptive step divides by how large a coordinate's changes have
been. Both in integers: decays and rates are 65,536ths, every quotient is rounded half to even, once. Values stay within
2**40, products within 2**62.

Source: Hsu, Qi and Brown 2019 (server momentum); Kingma and Ba 2015, section 7.1 (AdaMax), without the correction of
its first steps.
Format: proto/README.md, "Server step".

Runs in: aggregator.
Trusts: nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.aggregation.parts import SPARSE_FACTOR, check_part, sparse_where_few
from sfrl_secure.aggregation.server_state import ServerState, state_coordinates
from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.aggregation_terms import AdaptiveTerms, MomentumTerms, ServerTerms
from sfrl_secure.limits import VALUE_MAX
from sfrl_secure.sparse.update import UpdatePart

_BITS = 16
_BLOCK = 32_768
"""Coordinates at a time: what is worked on stays in the processor's cache."""

Vector = NDArray[np.int64]
_Advance = Callable[..., tuple[Vector, list[Vector]]]
"""From a and the rows of a state, of the same coordinates, to u and the rows of the next state."""


def server_step(
    server: ServerTerms | None, a: UpdatePart, state: ServerState | None, coordinates: int
) -> tuple[UpdatePart, ServerState | None]:
    """Take the server step: give what is added to the base, and the state that the next round begins with.

    Args:
        a: what rule and cap gave, over the whole model: all of its coordinates, or those that are not zero.
        state: what the round began with; None for zeros.

    Raises:
        MalformedError: `a` or the state is of another model or step.
    """
    if server is None:
        return a, None
    check_part(a, coordinates)
    size = state_coordinates(server, coordinates)
    if state is None:
        empty = np.empty(0, dtype=np.int64)
        state = ServerState(size, UpdatePart(empty, empty))
    if state.coordinates != size:
        raise MalformedError("the server state is of another model or step")
    advance = partial(_momentum, server) if isinstance(server, MomentumTerms) else partial(_adaptive, server)
    if isinstance(a.at, slice) or isinstance(state.values.at, slice):
        return _step_everywhere(advance, a, state, coordinates)
    return _step_where_touched(advance, a.at, a.values, state.values.at, state.values.values, coordinates, size)


def _step_where_touched(
    advance: _Advance, at: Vector, a: Vector, state_at: Vector, state: Vector, coordinates: int, size: int
) -> tuple[UpdatePart, ServerState]:
    """Only where something is not zero: of zeros, every step makes zeros."""
    touched = np.union1d(at, state_at % coordinates)
    rows = []
    for first in range(0, size, coordinates):
        start, end = np.searchsorted(state_at, (first, first + coordinates))
        rows.append(_spread(touched + first, state_at[start:end], state[start:end]))
    u, after = advance(_spread(touched, at, a), *rows)
    indices = np.concatenate([touched + row * coordinates for row in range(len(after))])
    return _sparse(touched, u, coordinates), ServerState(size, _sparse(indices, np.concatenate(after), size))


def _step_everywhere(
    advance: _Advance, a: UpdatePart, state: ServerState, coordinates: int
) -> tuple[UpdatePart, ServerState]:
    u, after = np.empty(coordinates, dtype=np.int64), np.empty(state.coordinates, dtype=np.int64)
    for start in range(0, coordinates, _BLOCK):
        stop = min(start + _BLOCK, coordinates)
        firsts = range(0, state.coordinates, coordinates)
        rows = [_block(state.values, first + start, first + stop) for first in firsts]
        u[start:stop], moved = advance(_block(a, start, stop), *rows)
        for first, row in zip(firsts, moved, strict=True):
            after[first + start : first + stop] = row
    return sparse_where_few(u), ServerState(state.coordinates, sparse_where_few(after))


def _momentum(server: MomentumTerms, a: Vector, m: Vector) -> tuple[Vector, list[Vector]]:
    # Below 2**56, then 2**60.
    moved = _cut(_shifted(server.decay * m) + a)
    return _cut(_shifted(server.rate * moved)), [moved]


def _adaptive(server: AdaptiveTerms, a: Vector, m: Vector, s: Vector) -> tuple[Vector, list[Vector]]:
    # The weights add up to 2**16, so that the sum is below 2**57 and m within 2**40 for ever.
    moved = _shifted(server.decay * m + ((1 << _BITS) - server.decay) * a)
    largest = np.maximum((server.decay_max * s) >> _BITS, np.abs(a))
    # At most 2**62, over 1 to 2**40.
    return _cut(_divided(server.rate * moved, np.maximum(largest, server.floor))), [moved, largest]


def _shifted(values: Vector) -> Vector:
    """values / 2**16, rounded half to even: a half more, less the last bit where that would round an even number up."""
    rounded: Vector = (values + (1 << (_BITS - 1)) - 1 + ((values >> _BITS) & 1)) >> _BITS
    return rounded


def _divided(numerator: Vector, denominator: Vector) -> Vector:
    """numerator / denominator, rounded half to even; denominators from 1 to 2**40."""
    quotient = numerator // denominator
    twice = (numerator - quotient * denominator) << 1
    rounded: Vector = quotient + (twice + (quotient & 1) > denominator)
    return rounded


def _cut(values: Vector) -> Vector:
    cut: Vector = np.clip(values, -VALUE_MAX, VALUE_MAX)
    return cut


def _block(part: UpdatePart, start: int, stop: int) -> Vector:
    """What a part that is over everything has at the coordinates from `start` to before `stop`."""
    if isinstance(part.at, slice):
        return part.values[start:stop]
    first, end = np.searchsorted(part.at, (start, stop))
    block = np.zeros(stop - start, dtype=np.int64)
    block[part.at[first:end] - start] = part.values[first:end]
    return block


def _spread(touched: Vector, at: Vector, values: Vector) -> Vector:
    """Values at some of the touched coordinates as one for each, zero where there is none."""
    spread = np.zeros(touched.size, dtype=np.int64)
    spread[np.searchsorted(touched, at)] = values
    return spread


def _sparse(at: Vector, values: Vector, coordinates: int) -> UpdatePart:
    """Values at ascending coordinates, all others zero, as a part over everything in its one form."""
    kept = values != 0
    at, values = at[kept], values[kept]
    if SPARSE_FACTOR * at.size <= coordinates:
        return UpdatePart(at, values)
    whole = np.zeros(coordinates, dtype=np.int64)
    whole[at] = values
    return UpdatePart(slice(0, coordinates), whole)
