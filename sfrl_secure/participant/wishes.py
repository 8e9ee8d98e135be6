"""How a participant wants its update to be, held against what the terms take: support, value type, density, weight.

What the terms do not take is refused here with the gatekeeper's reason, and by a sentence that says what to change.
Refused here means that nothing is in the log.

Runs in: participant, cli, demo.
Trusts: the terms, which are proven. Nothing of a wish is believed to be within them.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass

import numpy as np

from sfrl_secure.errors import DeniedError, MalformedError
from sfrl_secure.governance.terms import SegmentTerms
from sfrl_secure.limits import VALUE_MAX
from sfrl_secure.sparse.header import SupportMode, ValueType

SUPPORTS: tuple[SupportMode, ...] = ("free", "agreed", "dense")
VALUE_TYPES: tuple[ValueType, ...] = ("packed", "int8", "bf16", "fp32", "exact", "sign")
"""In the order in which they are taken where nobody chose."""


@dataclass(frozen=True, slots=True)
class Wish:
    """How a participant wants an update to be encoded; None leaves it to the terms.

    Attributes:
        support: `free`, `agreed` or `dense`.
        value_type: `packed`, `int8`, `bf16`, `fp32`, `exact` or `sign`.
        density: share of the coordinates to send in free mode, above 0 and at most 1; never more than the terms'
            `nonzeros_max`.
    """

    support: SupportMode | None = None
    value_type: ValueType | None = None
    density: float | None = None


def choose_support(terms: SegmentTerms, wish: Wish) -> SupportMode:
    """Say which support mode an update has.

    Raises:
        DeniedError: `format_not_allowed`: the terms do not take the wish.
    """
    if wish.support is None:
        return next(each for each in SUPPORTS if each in terms.support_modes)
    if wish.support not in terms.support_modes:
        raise _not_allowed("support mode", terms.support_modes)
    return wish.support


def choose_value_type(terms: SegmentTerms, wish: Wish) -> ValueType:
    """Say which value type an update has.

    Raises:
        DeniedError: `format_not_allowed`: the terms do not take the wish.
    """
    if wish.value_type is None:
        return next(each for each in VALUE_TYPES if each in terms.value_types)
    if wish.value_type not in terms.value_types:
        raise _not_allowed("value type", terms.value_types)
    return wish.value_type


def check_takes_indices(terms: SegmentTerms) -> None:
    """Check that the terms take the changes of some coordinates, which is free support.

    Raises:
        DeniedError: `format_not_allowed`.
    """
    if "free" not in terms.support_modes:
        raise DeniedError(
            "format_not_allowed",
            f"indices and values are for free support, and the segment's terms take {_either(terms.support_modes)}: "
            "send new weights by tensor instead, as `sfrl fetch` writes them (`Training.submit` from Python)",
        )


def check_weight(terms: SegmentTerms, weight: object) -> int:
    """Check an update's weight.

    Raises:
        MalformedError: it is no whole number.
        DeniedError: `weight_limit`: it is outside the terms' range.
    """
    try:
        if isinstance(weight, bool | np.bool_):
            raise TypeError
        number = operator.index(weight)  # type: ignore[arg-type] # what is no whole number is what this is to find out
    except TypeError:
        raise MalformedError("num_samples, an update's weight, is a whole number, such as 812") from None
    least = max(terms.leakage.weight_min, 1)
    if not least <= number <= terms.limits.weight_max:
        raise DeniedError(
            "weight_limit",
            f"num_samples, an update's weight, is {least} to {terms.limits.weight_max} by the terms: choose one for "
            "the round, it is never cut",
        )
    return number


def check_density(terms: SegmentTerms, wish: Wish) -> None:
    """Check that a density was asked for only where it says something, and is one.

    Raises:
        DeniedError: `format_not_allowed`: the terms do not take the support mode.
        MalformedError: the update is not free, or the density is no number above 0 and at most 1.
    """
    support = choose_support(terms, wish)
    if wish.density is None:
        return
    if support != "free":
        raise MalformedError(f"a density is for free support, and this update is {support}: leave density out")
    if not _is_number(wish.density) or not 0.0 < wish.density <= 1.0:
        raise MalformedError("density is a share of the coordinates, a number above 0 and at most 1, such as 0.01")


def coordinates_to_send(terms: SegmentTerms, density: float | None) -> int:
    """How many coordinates a free update has at most.

    Raises:
        MalformedError: the density is not above 0 and at most 1.
    """
    check_density(terms, Wish("free", density=density))
    if density is None:
        return terms.limits.nonzeros_max
    return min(max(math.ceil(density * terms.model.manifest.coordinates), 1), terms.limits.nonzeros_max)


def noise_units(noise_std: float, grid_exponent: int) -> int:
    """The claimed noise in grid units, rounded down: nobody claims more than was added.

    Raises:
        MalformedError: not a number from 0 to what a header holds.
    """
    units = noise_std * 2.0**grid_exponent if _is_number(noise_std) else math.nan
    if not (math.isfinite(units) and 0.0 <= units <= VALUE_MAX):
        raise MalformedError("noise_std, a standard deviation, is a number from 0 to the largest value of an update")
    return math.floor(units)


def _not_allowed(what: str, allowed: frozenset[str]) -> DeniedError:
    return DeniedError("format_not_allowed", f"the segment's terms take the {what} {_either(allowed)}")


def _either(names: frozenset[str]) -> str:
    return " or ".join(sorted(names))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
