"""Parameters to integers on the terms' grid, once, on the participant's side.

To the nearest grid point that the type holds (fp32, bf16, exact), at random between the two neighbours that a block's
scale allows (int8, packed), so that the expectation is the value itself and errors of many participants cancel, or to
the block's mean magnitude (sign). In free mode whatever becomes zero is dropped; the caller's error feedback keeps it.

PROTOCOL 7. Stochastic rounding with a scale for each block: Alistarh et al. 2017 (QSGD), with powers of two as scales,
so that all results lie on the grid. Signs with the mean magnitude: Karimireddy et al. 2019.

Runs in: participant.
Trusts: its caller.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.errors import PayloadError
from sfrl_secure.limits import VALUE_MAX
from sfrl_secure.sparse.header import BLOCK_VALUES, block_count
from sfrl_secure.sparse.scaled import MANTISSA_MAX

Number = TypeVar("Number", np.float32, np.float64)
Scalar = TypeVar("Scalar", bound=np.generic)

_PIECE = 65_536
"""Values that are rounded at a time, so that they stay in the cache; a multiple of a block."""


def round_values(values: NDArray[np.floating], value_type: str, grid_exponent: int,
                 rng: np.random.Generator) -> NDArray[np.int64]:
    """Round `values` where they stand, for agreed and dense mode: zeros stay.

    Args:
        values: float32 or float64, shape (k,), parameter units, at most `VALUE_MAX` * 2**-grid_exponent.
        value_type: any but `none`.
        grid_exponent: the grid is 2**-grid_exponent.
        rng: source of the rounding noise of int8, packed and sign.

    Returns: int64, shape (k,), grid units that the type holds.

    Raises:
        PayloadError: `not_finite` or `magnitude`. Nothing is clipped: a value so large is a fault of training.
    """
    rounded = [
        _round_piece(values[start : start + _PIECE], value_type, grid_exponent, rng)
        for start in range(0, values.size, _PIECE)
    ]
    return rounded[0] if len(rounded) == 1 else np.concatenate([np.empty(0, dtype=np.int64), *rounded])


def _round_piece(values: NDArray[np.floating], value_type: str, grid_exponent: int,
                 rng: np.random.Generator) -> NDArray[np.int64]:
    if value_type in ("fp32", "bf16", "exact"):
        return _round_to_grid(values, value_type, grid_exponent)
    return _BLOCK_ROUNDING[value_type](to_grid_units(values, grid_exponent, np.float64), rng).astype(np.int64)


def round_and_drop(values: NDArray[np.floating], value_type: str, grid_exponent: int,
                   rng: np.random.Generator) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Round `values` for free mode: what becomes zero is dropped.

    Unbiased for int8 and packed: the expectation of the result, zero where it was dropped, is the value. The error of
    one value is below the final scale of its block for a block that is rounded once.

    Dropping a zero moves later values into other blocks, whose scale may be larger. So the blocks from the first zero
    on are rounded again, until a pass drops nothing; each pass is unbiased given the one before, hence all together.
    It ends because every pass but the last drops a value.

    Args: as for `round_values`.

    Returns: the kept positions, rising, and their int64 values, none zero.

    Raises:
        PayloadError: `not_finite` or `magnitude`.
    """
    if value_type in ("fp32", "bf16", "exact"):
        rounded = round_values(values, value_type, grid_exponent, rng)
        kept = np.flatnonzero(rounded)
        return kept, rounded[kept]
    units = to_grid_units(values, grid_exponent, np.float64)
    positions = np.arange(units.size)
    # A multiple of no scale, before it is rounded.
    shifts = np.full(units.size, -1, dtype=np.int8)
    if value_type == "sign":
        # A sign says nothing of a zero, and a mean must not be taken of values that were rounded before.
        positions = np.flatnonzero(units)
        units, shifts = units[positions], shifts[positions]
    settled_positions: list[NDArray[np.intp]] = []
    settled: list[NDArray[np.float64]] = []
    while units.size:
        if value_type == "sign":
            drawn = _round_to_sign(units, rng)
        else:
            drawn = units = _round_where_coarser(units, shifts, rng)
        kept = drawn != 0
        whole = units.size if kept.all() else int(kept.argmin()) // BLOCK_VALUES * BLOCK_VALUES
        settled_positions.append(positions[:whole])
        settled.append(drawn[:whole])
        kept = kept[whole:]
        positions, units, shifts = positions[whole:][kept], units[whole:][kept], shifts[whole:][kept]
    if not settled:
        return positions, np.zeros(0, dtype=np.int64)
    return np.concatenate(settled_positions), np.concatenate(settled).astype(np.int64)


def to_grid_units(values: NDArray[np.floating], grid_exponent: int,
                  dtype: type[Number]) -> NDArray[Number]:
    """Scale parameters into grid units: exactly, but for what a float32 cannot hold where one is asked for.

    Args:
        values: float32 or float64, shape (k,), parameter units.
        grid_exponent: the grid is 2**-grid_exponent.

    Returns: `dtype`, shape (k,), magnitude at most `VALUE_MAX`.

    Raises:
        PayloadError: `not_finite` or `magnitude`.
    """
    if not values.size:
        return np.zeros(0, dtype=dtype)
    # A NaN makes both extremes NaN, and no comparison with it holds.
    largest, smallest = float(values.max()), float(values.min())
    if not (np.isfinite(largest) and np.isfinite(smallest)):
        raise PayloadError("not_finite", "a value is a finite number")
    # Compared before scaling, so that nothing overflows on the way.
    if max(largest, -smallest) > float(np.ldexp(1.0, -grid_exponent)) * VALUE_MAX:
        raise PayloadError("magnitude", f"a value is at most {VALUE_MAX} grid units")
    units = values.astype(dtype)
    units *= dtype(2.0**grid_exponent)
    return units


def _round_to_grid(values: NDArray[np.floating], value_type: str, grid_exponent: int) -> NDArray[np.int64]:
    """Round half to even, to the type first and then to the nearest grid point, which the type holds too."""
    if value_type == "exact":
        return np.rint(to_grid_units(values, grid_exponent, np.float64)).astype(np.int64)
    # A binary32 from 2**23 on is an integer already, and below that every integer is a binary32; so for bf16 and 2**7.
    single = to_grid_units(values, grid_exponent, np.float32)
    if value_type == "bf16":
        bits = single.view(np.uint32)
        # Half to even: add what carries into the upper half where the lower is more than half, or half beside an odd.
        bits += np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
        bits &= np.uint32(0xFFFF_0000)
    return np.rint(single).astype(np.int64)


def _round_at_random(units: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Round each value at random to a neighbour among the multiples of its block's scale."""
    return _round_where_coarser(units, np.full(units.size, -1, dtype=np.int8), rng)


def _round_where_coarser(
    units: NDArray[np.float64], shifts: NDArray[np.int8], rng: np.random.Generator
) -> NDArray[np.float64]:
    """The same, of values that are multiples of scales already: only in blocks whose scale is coarser than one of them,
    since a multiple of the block's scale stays itself.

    Args:
        shifts: int8, shape (k,): each value is a multiple of 2**shift, or of nothing where that is -1. Written over
            with what holds afterwards.
    """
    blocks, finest = _padded(units), _padded(shifts)
    # The smallest s >= 0 with largest <= 127 * 2**s, from largest = m * 2**x with 1/2 <= m < 1.
    mantissa, exponent = np.frexp(np.maximum(blocks.max(axis=1), -blocks.min(axis=1)))
    wanted = np.maximum(exponent - 7 + (mantissa > MANTISSA_MAX / 128), 0)
    coarser = np.flatnonzero(wanted > finest.min(axis=1))
    scales = np.ldexp(1.0, wanted[coarser])[:, np.newaxis]
    scaled = blocks[coarser]
    scaled /= scales
    below = np.floor(scaled)
    scaled -= below
    # Strictly: an integer stays itself whatever is drawn.
    below += rng.random(below.shape) < scaled
    below *= scales
    blocks[coarser] = below
    finest[coarser] = wanted[coarser, np.newaxis]
    shifts[:] = finest.ravel()[: shifts.size]
    return blocks.ravel()[: units.size]


def _round_to_sign(units: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Give all values of a block its mean magnitude, to 7 bits, and each its sign; that of a zero is drawn."""
    padded = _padded(np.abs(units))
    held = np.full(padded.shape[0], BLOCK_VALUES)
    held[-1] = units.size - (padded.shape[0] - 1) * BLOCK_VALUES
    means = padded.sum(axis=1) / held
    mantissa, exponent = np.frexp(means)
    # 127.5 and more would round to 128.
    scales = np.ldexp(1.0, np.maximum(exponent - 7 + (mantissa >= 127.5 / 128), 0))
    magnitudes = np.minimum(np.rint(means / scales) * scales, VALUE_MAX)
    negative = np.where(units == 0, rng.random(units.size) < 0.5, units < 0)
    return np.asarray(np.where(negative, -1.0, 1.0) * np.repeat(magnitudes, BLOCK_VALUES)[: units.size])


def _padded(numbers: NDArray[Scalar]) -> NDArray[Scalar]:
    """A copy of numbers as (blocks, 64), with zeros behind the last."""
    blocks = block_count(numbers.size)
    padded = np.zeros(blocks * BLOCK_VALUES, dtype=numbers.dtype)
    padded[: numbers.size] = numbers
    return padded.reshape(blocks, BLOCK_VALUES)


_BLOCK_ROUNDING: dict[str, Callable[[NDArray[np.float64], np.random.Generator], NDArray[np.float64]]] = {
    "int8": _round_at_random, "packed": _round_at_random, "sign": _round_to_sign,
}
