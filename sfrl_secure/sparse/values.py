"""Values as bytes, one function a direction for all value types.

All types hold integers on the grid exactly, and each update has one encoding of each type. Rules V1 to V15 of the
format are in `scaled` (int8, sign, packed) and `plain` (fp32, bf16, exact).

Format: proto/README.md, "Codec".

Runs in: gatekeeper, aggregator, participant.
Trusts: nothing.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.sparse import plain, scaled

_PACK: Final = {"int8": scaled.pack_int8, "sign": scaled.pack_sign, "packed": scaled.pack_packed}
_UNPACK: Final = {"int8": scaled.unpack_int8, "sign": scaled.unpack_sign, "packed": scaled.unpack_packed}


def pack_values(values: NDArray[np.int64], value_type: str, grid_exponent: int) -> list[bytes]:
    """Write one leaf's values, which are already on the grid; fields in order.

    Args:
        values: int64, shape (count,), count at least 1, grid units, magnitude at most `VALUE_MAX`; none is zero where
            they are for free mode.
        value_type: any but `none`.
        grid_exponent: the grid is 2**-grid_exponent.

    Raises:
        PayloadError: `off_grid`, a value is none that the type can hold here.
    """
    if value_type == "exact":
        return plain.pack_exact(values)
    if value_type in ("fp32", "bf16"):
        return plain.pack_floats(values, value_type, grid_exponent)
    return _PACK[value_type](values)


def unpack_values(leaf: NDArray[np.uint8], start: int, *, count: int, value_type: str, grid_exponent: int,
                  free: bool) -> tuple[NDArray[np.int64], int]:
    """Read one leaf's values strictly. Rules V1 to V15.

    Args:
        leaf: the whole leaf.
        start: where its values begin.
        count: values of the leaf, at least 1.
        value_type: any but `none`.
        grid_exponent: the grid is 2**-grid_exponent.
        free: whether the mode is free, where no value is zero.

    Returns: int64, shape (count,), grid units, magnitude at most `VALUE_MAX`; and where they end.

    Raises:
        PayloadError: the reason of the first rule that is broken.
    """
    if value_type == "exact":
        return plain.unpack_exact(leaf, start, count, free)
    if value_type in ("fp32", "bf16"):
        return plain.unpack_floats(leaf, start, count, value_type, grid_exponent, free)
    return _UNPACK[value_type](leaf, start, count, free)
