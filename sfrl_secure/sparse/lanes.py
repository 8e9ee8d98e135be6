"""Sixty-four numbers at a time, for `kernels`: a block is one 64-bit word a bit plane, and one vector here.

LLVM turns these vectors into whatever registers the processor has; they only say what a loop over single numbers hides
from it: that a word's bits are lanes, and that a running sum over a block takes six additions of shifted vectors
instead of 64 that wait for each other.

No function here checks where it reads or writes: `kernels` has compared all places with the arrays' lengths. numba
goes by the time of the file `kernels` alone when it takes up code that it kept: a change here has to touch that one.

Format: proto/README.md, "Codec". Running sums by shifted additions: Hillis and Steele, "Data Parallel Algorithms",
1986.

Runs in: gatekeeper, aggregator, participant.
Trusts: `kernels`.
"""

from __future__ import annotations

import sys
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.cgutils import alloca_once_value, for_range
from numba.extending import intrinsic

_LANES = 64
_LANE_NUMBER, _WORD = ir.IntType(32), ir.IntType(64)

# A word's bytes and a vector's lanes run the same way only here. Elsewhere `fast` finds no kernels, and numpy reads.
if sys.byteorder != "little":
    raise ImportError("kernels are for little-endian processors")


@intrinsic
def load_word(typing_context: Any, array: Any, place: Any) -> Any:
    """Read eight bytes of `array`, uint8, from `place` on."""
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _load(builder, _at(context, builder, signature.args[0], arguments[0], arguments[1]), _WORD)

    return types.uint64(array, types.uint64), generate


@intrinsic
def store_word(typing_context: Any, array: Any, place: Any, word: Any) -> Any:
    """Write eight bytes of `array`, uint8, from `place` on."""
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _store(builder, arguments[2], _at(context, builder, signature.args[0], arguments[0], arguments[1]))
        return context.get_dummy_value()

    return types.void(array, types.uint64, types.uint64), generate


def _add_up(low_bits: int, bits: int) -> Any:
    """Make `add_up` with so many bits for a number's low part, and so many for a sum."""
    @intrinsic
    def add_up(typing_context: Any, leaf: Any, starts: Any, row: Any, quotients: Any, first: Any, parameter: Any,
               step: Any, before: Any, out: Any, place: Any) -> Any:
        """Write one block's running sums into `out` from `place` on, and return the last one.

        A number is its quotient, uint8, from `first` on, shifted by `parameter`, and its low bits: bit j of all 64 is
        the word of `leaf` at `starts[j] + row`. `step` is added for each number, and `before` to all sums.
        """
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            leaf, starts, row, quotients, first, parameter, step, before, out, place = arguments
            low_lanes, lanes = _vector(low_bits), _vector(bits)

            def at(which: int, array: Any, where: Any) -> Any:
                return _at(context, builder, signature.args[which], array, where)

            def same(number: Any, kind: Any) -> Any:
                narrow = kind.element.width < number.type.width
                return _all_lanes(builder, builder.trunc(number, kind.element) if narrow else number)

            # LLVM keeps it in registers.
            kept = alloca_once_value(builder, ir.Constant(low_lanes, None))  # type: ignore[no-untyped-call]  # numba's
            with for_range(builder, parameter) as loop:
                start = builder.load(at(1, starts, loop.index))
                word = _load(builder, at(0, leaf, builder.add(start, row)), _WORD)
                unit = same(builder.shl(ir.Constant(_WORD, 1), loop.index), low_lanes)
                units = builder.select(builder.bitcast(word, _vector(1)), unit, ir.Constant(low_lanes, None))
                builder.store(builder.or_(builder.load(kept), units), kept)
            sums = builder.zext(_load(builder, at(3, quotients, first), _vector(8)), lanes)
            sums = builder.add(builder.shl(sums, same(parameter, lanes)), same(step, lanes))
            sums = builder.add(sums, builder.zext(builder.load(kept), lanes))
            nothing = ir.Constant(lanes, None)
            for distance in (1, 2, 4, 8, 16, 32):
                # Of both vectors together, lanes 64 to 127 are the sums; the first lanes of the result get a zero.
                moved = [_LANES + i - distance if i >= distance else 0 for i in range(_LANES)]
                sums = builder.add(sums, builder.shuffle_vector(nothing, sums, _lane_numbers(moved)))
            if bits < 64:
                sums = builder.zext(sums, _vector(64))
            sums = builder.add(sums, _all_lanes(builder, before))
            _store(builder, sums, at(8, out, place))
            return builder.extract_element(sums, ir.Constant(_LANE_NUMBER, _LANES - 1))

        return types.int64(leaf, starts, types.uint64, quotients, types.uint64, types.int64, types.int64, types.int64,
                           out, types.uint64), generate

    return add_up


add_up_narrow = _add_up(16, 32)
"""For parameters up to 16: 64 numbers below 2**24 are below 2**31 together."""
add_up_wide = _add_up(32, 64)
"""For all parameters."""


def _vector(bits: int) -> Any:
    return ir.VectorType(ir.IntType(bits), _LANES)


def _lane_numbers(numbers: list[int]) -> Any:
    return ir.Constant(ir.VectorType(_LANE_NUMBER, _LANES), numbers)


def _all_lanes(builder: Any, number: Any) -> Any:
    vector = ir.Constant(ir.VectorType(number.type, _LANES), ir.Undefined)
    first = builder.insert_element(vector, number, ir.Constant(_LANE_NUMBER, 0))
    return builder.shuffle_vector(first, first, _lane_numbers([0] * _LANES))


def _at(context: Any, builder: Any, array_type: Any, array: Any, place: Any) -> Any:
    """Point to one item of an array."""
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [place])


def _load(builder: Any, where: Any, kind: Any) -> Any:
    loaded = builder.load(builder.bitcast(where, kind.as_pointer()))
    loaded.align = 1
    return loaded


def _store(builder: Any, what: Any, where: Any) -> None:
    builder.store(what, builder.bitcast(where, what.type.as_pointer())).align = 1
