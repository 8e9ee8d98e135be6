"""Parameters to integers on the terms' grid, once, on the participant's side.

Two ways: to the nearest grid point (for fp32), and at random between the two neighbours that int8 can hold, so that
the expectation is the value itself and errors of many participants cancel. Whatever becomes zero is dropped; the
caller's error feedback keeps it.

PROTOCOL 7. Stochastic rounding with a scale for each block: Alistarh et al. 2017 (QSGD), with powers of two as scales,
so that all results lie on the grid.

Runs in: participant.
Trusts: its caller.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.errors import PayloadError
from sfrl_secure.limits import VALUE_MAX
from sfrl_secure.sparse.header import BLOCK_NONZEROS, block_count
from sfrl_secure.sparse.values import MANTISSA_MAX


def to_grid_units(values: NDArray[np.floating], grid_exponent: int) -> NDArray[np.float64]:
    """Scale parameters into grid units, exactly.

    Args:
        values: float32 or float64, shape (k,), parameter units.
        grid_exponent: the grid is 2**-grid_exponent.

    Returns: float64, shape (k,), magnitude at most `VALUE_MAX`.

    Raises:
        PayloadError: `not_finite` or `magnitude`. Nothing is clipped: a value so large is a fault of training.
    """
    if not np.isfinite(values).all():
        raise PayloadError("not_finite", "a value is a finite number")
    # Compared before scaling, so that nothing overflows on the way.
    if values.size and float(np.abs(values).max()) > float(np.ldexp(1.0, -grid_exponent)) * VALUE_MAX:
        raise PayloadError("magnitude", f"a value is at most {VALUE_MAX} grid units")
    return np.asarray(np.ldexp(values.astype(np.float64), grid_exponent))


def round_to_grid(units: NDArray[np.float64]) -> NDArray[np.int64]:
    """Round grid units half to even, to integers that binary32 holds exactly.

    A float64 is rounded to binary32 first; the result is then within half a grid unit of that.

    Args:
        units: float64, shape (k,), magnitude at most `VALUE_MAX`.

    Returns: int64, shape (k,); may hold zeros.
    """
    # A binary32 from 2**23 on is an integer already, and below that every integer is a binary32.
    return np.rint(units.astype(np.float32)).astype(np.int64)


def round_to_int8_blocks(units: NDArray[np.float64],
                         rng: np.random.Generator) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Round grid units at random to what int8 with a scale for each block of 128 can hold.

    Unbiased for every value: the expectation of the result, zero where it was dropped, is the value. The error of one
    value is below the final scale of its block for a block that is rounded once, at most 1/63.5 of the block's
    largest magnitude.

    Dropping a zero moves later values into other blocks, whose scale may be larger. So the blocks from the first zero
    on are rounded again, until a pass drops nothing; each pass is unbiased given the one before, hence all together.
    It ends because every pass but the last drops a value.

    Args:
        units: float64, shape (k,), magnitude at most `VALUE_MAX`.
        rng: source of the rounding noise.

    Returns: the kept positions, rising, and their int64 values, not zero, magnitude at most `VALUE_MAX`.
    """
    positions = np.arange(units.size)
    settled_positions: list[NDArray[np.intp]] = []
    settled: list[NDArray[np.float64]] = []
    while units.size:
        units = _round_once(units, rng)
        kept = units != 0
        whole = units.size if kept.all() else int(kept.argmin()) // BLOCK_NONZEROS * BLOCK_NONZEROS
        settled_positions.append(positions[:whole])
        settled.append(units[:whole])
        positions, units = positions[whole:][kept[whole:]], units[whole:][kept[whole:]]
    if not settled:
        return positions, np.zeros(0, dtype=np.int64)
    return np.concatenate(settled_positions), np.concatenate(settled).astype(np.int64)


def _round_once(units: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Round each value at random to a neighbour among the multiples of its block's scale."""
    padded = np.zeros(block_count(units.size) * BLOCK_NONZEROS)
    padded[: units.size] = np.abs(units)
    # The smallest s >= 0 with largest <= 127 * 2**s, from largest = m * 2**x with 1/2 <= m < 1.
    mantissa, exponent = np.frexp(padded.reshape(-1, BLOCK_NONZEROS).max(axis=1))
    shifts = np.maximum(exponent - 7 + (mantissa > MANTISSA_MAX / 128), 0)
    scales = np.repeat(np.ldexp(1.0, shifts), BLOCK_NONZEROS)[: units.size]
    scaled = units / scales
    below = np.floor(scaled)
    # Strictly: an integer stays itself whatever is drawn.
    return np.asarray((below + (rng.random(units.size) < scaled - below)) * scales)
