"""Rice codes and step codes by themselves: each bound of a parameter, each sum, each difference out of range."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sfrl_secure.errors import PayloadError
from sfrl_secure.sparse.rice import check_parameters, pack_rice, rice_parameters, unpack_rice
from sfrl_secure.sparse.steps import pack_unary, unpack_steps
from sfrl_secure.sparse.support import _running_sums


def code_of(skips: np.ndarray) -> np.ndarray:
    return np.frombuffer(b"".join(pack_rice(skips)), dtype=np.uint8)


def is_taken(parameter: int, total: int, count: int) -> bool:
    """Say whether a block of `count` numbers that add up to `total` may have this parameter."""
    try:
        check_parameters(np.array([parameter]), np.array([total + 64]), count)
    except PayloadError:
        return False
    return True


@pytest.mark.parametrize("count", [64, 63, 1])
def test_the_parameters_that_are_taken_are_those_that_are_written(count: int) -> None:
    bounds = [-(-(1 << exponent) * 1_024 * count // 985) for exponent in range(31)]
    for total in sorted({max(0, bound + by) for bound in [0, *bounds] for by in (-2, -1, 0, 1, 2)}):
        written = int(rice_parameters(np.array([total]), count)[0])
        assert [parameter for parameter in range(31) if is_taken(parameter, total, count)] == [written]


def test_a_block_in_the_middle_with_another_parameter_is_refused() -> None:
    sums = np.array([640, 64_000, 640])
    parameters = rice_parameters(sums, 192)
    check_parameters(parameters, sums + 64, 192)
    for change in (-1, 1):
        with pytest.raises(PayloadError) as refusal:
            check_parameters(parameters + np.array([0, change, 0]), sums + 64, 192)
        assert refusal.value.reason == "not_canonical"


@pytest.mark.parametrize("count", [64, 65, 191, 3_000, 65_536])
@pytest.mark.parametrize(("largest_mean", "dtype"), [(0, np.int32), (90, np.int32), (20_000_000, np.int64)])
def test_blocks_of_every_parameter_stand_side_by_side(count: int, largest_mean: int, dtype: type) -> None:
    rng = np.random.default_rng(count)
    means = np.minimum(rng.choice([0, 0, 1, 3, 90, 200, 70_000, 20_000_000], count // 64 + 1), largest_mean)
    means[0] = largest_mean
    means = np.repeat(means, 64)[:count]
    skips = rng.integers(0, 2 * means + 1)
    code = unpack_rice(code_of(skips), 0, count, 30)
    assert np.array_equal(code.strides.ravel()[:count], skips + 1)
    assert (code.strides.ravel()[count:] == 1).all()
    assert code.strides.dtype == dtype


@pytest.mark.parametrize("plane", range(20))
def test_a_bit_of_each_plane_that_belongs_to_no_number_is_refused(plane: int) -> None:
    """One block of 5 numbers, whose planes are a word each."""
    code = code_of(np.full(5, 2**20 + 2**18)).copy()
    steps, planes = int(code[0]), 6 + int(code[0])
    assert unpack_rice(code, 0, 5, 30).parameters.tolist() == [20]
    assert (steps, code.size) == (6, planes + 20 * 8 + int(code[2]))
    for bit in (5, 63):
        damaged = code.copy()
        damaged[planes + 8 * plane + bit // 8] |= 1 << bit % 8
        with pytest.raises(PayloadError) as refusal:
            unpack_rice(damaged, 0, 5, 30)
        assert refusal.value.reason == "not_canonical"


@pytest.mark.parametrize("strides", [[2**31 - 64] + [1] * 63, [1] * 63 + [2**31 - 64], [1, 2**31 - 64] + [1] * 62,
                                     [2**30 - 32] + [1] * 62 + [2**30 - 32], [2**25, 2**25 - 1] * 32,
                                     [2**25 - 1, 2**25] * 32], ids=range(6))
@pytest.mark.parametrize("before", [-1, 0])
def test_sums_in_32_bits_reach_up_to_the_last_that_fits(strides: list[int], before: int) -> None:
    """They are added up two at a time."""
    expected = np.cumsum([before, *strides], dtype=np.int64)
    assert 2**31 - 40 < expected[-1] < 2**31
    for dtype in (np.int32, np.int64):
        sums = _running_sums(np.array(strides, dtype), before)
        assert sums.dtype == np.int64
        assert np.array_equal(sums, expected)


def steps_of(differences: list[int]) -> np.ndarray:
    """A step code as far as it can be written: whatever the sums are."""
    zeros = [2 * each if each >= 0 else -2 * each - 1 for each in differences]
    return np.frombuffer(pack_unary(np.array(zeros)), dtype=np.uint8)


def compiled_steps(raw: np.ndarray, count: int, largest: int) -> list[int] | None:
    kernels: Any = pytest.importorskip("sfrl_secure.sparse.kernels")
    out = np.empty(count, dtype=np.int64)
    total = kernels._steps(raw, 0, raw.size, largest, out)
    assert total == (int(out.sum()) if total >= 0 else -1)
    return out.tolist() if total >= 0 else None


def numbers_up_to(largest: int) -> list[int]:
    """With each step that is possible between them, up and down."""
    pairs = [each for number in range(largest + 1) for each in (0, number, largest)]
    return [*pairs, *np.random.default_rng(largest).integers(0, largest + 1, 400).tolist(), largest, 0]


FAR = [35, 36, 60, 91, 92, 100, 127, 128, 256, 500, -35, -36, -90, -128, -129, -256, -257]


@pytest.mark.parametrize("largest", [6, 30, 34])
@pytest.mark.parametrize("far", FAR)
def test_numbers_that_leave_the_range_and_come_back_are_refused(largest: int, far: int) -> None:
    """A code of more bits than any canonical one stands for no number, and no difference after it mends that."""
    for first, back in [(first, back) for first in (0, 5) for back in range(-largest, largest + 1)]:
        differences = [first, far, *[back] * 3, *[0] * 300]
        with pytest.raises(PayloadError) as refusal:
            unpack_steps(steps_of(differences), len(differences), largest)
        assert refusal.value.reason == "not_canonical"


@pytest.mark.parametrize("largest", [6, 30, 34])
@pytest.mark.parametrize("far", FAR)
def test_compiled_code_refuses_numbers_that_leave_the_range_and_come_back(largest: int, far: int) -> None:
    for first, back in [(first, back) for first in (0, 5) for back in range(-largest, largest + 1)]:
        differences = [first, far, *[back] * 3, *[0] * 300]
        assert compiled_steps(steps_of(differences), len(differences), largest) is None


@pytest.mark.parametrize("largest", [6, 30, 34])
def test_every_step_inside_the_range_is_taken(largest: int) -> None:
    numbers = numbers_up_to(largest)
    raw = steps_of(np.diff(numbers, prepend=0).tolist())
    read, sizes = unpack_steps(raw, len(numbers), largest)
    assert read.tolist() == numbers
    assert sizes == np.bincount(numbers).tolist()
    with pytest.raises(PayloadError, match=f"0 to {largest - 1}"):
        unpack_steps(raw, len(numbers), largest - 1)


@pytest.mark.parametrize("largest", [6, 30, 34])
def test_compiled_code_takes_every_step_inside_the_range(largest: int) -> None:
    numbers = numbers_up_to(largest)
    raw = steps_of(np.diff(numbers, prepend=0).tolist())
    assert compiled_steps(raw, len(numbers), largest) == numbers
    assert compiled_steps(raw, len(numbers), largest - 1) is None
