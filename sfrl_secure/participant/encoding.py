"""From a change to a payload: the support mode and value type that the terms take, top-k, and a look before it goes.

What the gatekeeper would refuse for the terms' limits, or for betraying single examples, is refused here with the same
reason, before a byte is sent. Refused here means that nothing is in the log.

Runs in: participant, cli, demo.
Trusts: the terms, which are proven. Nothing of the update is believed to be within them.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.errors import DeniedError, MalformedError
from sfrl_secure.governance.terms import SegmentTerms
from sfrl_secure.limits import VALUE_MAX
from sfrl_secure.rounds.measuring import UpdateMeter
from sfrl_secure.sparse.encode import EncodedUpdate, encode_agreed, encode_dense, encode_update
from sfrl_secure.sparse.header import SupportMode, ValueType
from sfrl_secure.sparse.mask import Mask
from sfrl_secure.sparse.topk import ErrorFeedback

SUPPORTS: tuple[SupportMode, ...] = ("free", "agreed", "dense")
VALUE_TYPES: tuple[ValueType, ...] = ("packed", "int8", "bf16", "fp32", "exact", "sign")
"""In the order in which they are taken where nobody chose."""

_ROUNDING = 1.000_001
"""More than what floating point loses in a product of two numbers."""


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


class Encoding(NamedTuple):
    """A payload, and how large the numbers were of which it was made.

    Attributes:
        largest: parameter units; no number that was encoded is larger.
    """

    encoded: EncodedUpdate
    largest: float


def encode_change(
    terms: SegmentTerms,
    change: NDArray[np.float32],
    feedback: ErrorFeedback,
    mask: Mask | None,
    wish: Wish,
    rng: np.random.Generator,
) -> Encoding:
    """Encode a change of all coordinates.

    In free mode the largest are sent, with what `feedback` owes; whoever sends the update calls `feedback.keep` once it
    is admitted. The other modes send what they can and owe nothing: their rounding has no bias.

    Args:
        change: float32, shape (n,), parameter units.
        mask: the round's mask, in agreed mode.
        rng: source of the rounding noise.

    Raises:
        PayloadError: `not_finite` or `magnitude`: a value that no payload holds.
        DeniedError: `format_not_allowed`.
        MalformedError: a density outside its range.
    """
    support, value_type = choose_support(terms, wish), choose_value_type(terms, wish)
    grid = terms.model.grid_exponent
    if support == "dense":
        dense = encode_dense(change, value_type=value_type, grid_exponent=grid, rng=rng)
        return Encoding(dense, _largest(change))
    if support == "agreed":
        assert mask is not None, "the caller has fetched the mask"
        values = change[mask.indices]
        agreed = encode_agreed(mask, values, value_type=value_type, grid_exponent=grid, rng=rng)
        return Encoding(agreed, _largest(values))
    indices, values = feedback.select(change, coordinates_to_send(terms, wish.density))
    chosen = values != 0.0
    return encode_coordinates(terms, indices[chosen], values[chosen], value_type, rng)


def encode_coordinates(
    terms: SegmentTerms,
    indices: NDArray[np.int64],
    values: NDArray[np.floating],
    value_type: ValueType,
    rng: np.random.Generator,
) -> Encoding:
    """Encode the changes of some coordinates, in free mode.

    Raises:
        PayloadError: indices or values break a bound of the codec.
    """
    encoded = encode_update(
        terms.model.manifest.coordinates, indices, values,
        value_type=value_type, grid_exponent=terms.model.grid_exponent, rng=rng,
    )  # fmt: skip
    return Encoding(encoded, _largest(values))


def _largest(values: NDArray[np.floating]) -> float:
    """The largest magnitude of numbers that the encoder took: all of them are finite."""
    return max(float(values.max()), -float(values.min())) if values.size else 0.0


def coordinates_to_send(terms: SegmentTerms, density: float | None) -> int:
    """How many coordinates a free update has at most.

    Raises:
        MalformedError: the density is not above 0 and at most 1.
    """
    check_density(terms, Wish("free", density=density))
    if density is None:
        return terms.limits.nonzeros_max
    return min(max(math.ceil(density * terms.model.manifest.coordinates), 1), terms.limits.nonzeros_max)


def look_before(terms: SegmentTerms, encoding: Encoding, weight: int, noise_std: int) -> None:
    """Look at an update as the gatekeeper will, by the terms alone.

    It is decoded and measured where that could have it refused, and not where its numbers are far within the limits.

    Args:
        noise_std: as the header will claim it, in grid units; 0 for none.

    Raises:
        DeniedError: the reason of the first limit that it breaks, without an `entry_index`: nothing was sent. What
            betrays examples is `leak_coordinates`, `leak_rows`, `leak_labels` or `leak_noise`: train on more examples,
            of more kinds.
    """
    encoded, limits, leakage = encoding.encoded, terms.limits, terms.leakage
    most = limits.payload_bytes_max
    if len(encoded.buffer) > most:
        raise DeniedError(
            "payload_too_large",
            f"the update has {len(encoded.buffer)} bytes and the terms take {most}: send a lower density",
        )
    if encoded.nonzeros > limits.nonzeros_max:
        raise DeniedError(
            "too_dense",
            f"the update has {encoded.nonzeros} values of at most {limits.nonzeros_max} by the terms: send "
            "fewer, or a lower density",
        )
    if encoded.nonzeros < leakage.nonzeros_min:
        raise DeniedError(
            "too_few_coordinates", f"the terms take no update of fewer than {leakage.nonzeros_min} values: train longer"
        )
    check_weight(terms, weight)
    if noise_std < leakage.noise_std_min:
        raise DeniedError(
            "noise_too_small", f"the terms want noise with a deviation of {leakage.noise_std_min} grid units or more"
        )
    if not _is_far_within(terms, encoding, noise_std):
        _measure(terms, encoded, noise_std)


def _is_far_within(terms: SegmentTerms, encoding: Encoding, noise_std: int) -> bool:
    """Whether `_measure` cannot refuse it, as its largest number shows, and its first leaves where zeros are carried.

    Rounding makes of no number more than twice the largest and a grid unit: a block's scale is less than twice what its
    largest needs, and a mean of magnitudes is not above the largest.
    """
    limits, leakage, model = terms.limits, terms.leakage, terms.model
    is_every_tensor_allowed = len(terms.allowed_tensor_indices) == len(model.manifest.tensors)
    if leakage.rows or leakage.labels or noise_std or not is_every_tensor_allowed:
        return False
    if not _touches(encoding.encoded, leakage.nonzeros_min):
        return False
    most = 2.0 * encoding.largest * 2.0**model.grid_exponent + 1.0
    norm = most * math.sqrt(encoding.encoded.nonzeros)
    return most * _ROUNDING <= limits.magnitude_max and norm * _ROUNDING <= limits.norm_max


def _touches(encoded: EncodedUpdate, least: int) -> bool:
    """Whether so many coordinates are touched. It reads no further than that: mostly one leaf."""
    if encoded.support == "free":
        return encoded.nonzeros >= least
    touched = 0
    for part in encoded.parts():
        touched += int(np.count_nonzero(part.values))
        if touched >= least:
            return True
    return False


def _measure(terms: SegmentTerms, encoded: EncodedUpdate, noise_std: int) -> None:
    limits, meter = terms.limits, UpdateMeter(terms)
    for part in encoded.parts():
        meter.add(part)
    facts = meter.facts()
    if facts.norm > limits.norm_max:
        raise DeniedError("norm_limit", _too_large("an update's norm", facts.norm, limits.norm_max, terms))
    if facts.largest_magnitude > limits.magnitude_max:
        words = _too_large("a value", facts.largest_magnitude, limits.magnitude_max, terms)
        raise DeniedError("magnitude_limit", words)
    if not terms.allowed_tensor_indices.issuperset(facts.tensors):
        raise DeniedError("tensor_not_allowed", f"updates touch the {len(terms.tensors)} tensors of the terms alone")
    meter.check_leakage(noise_std)


def _too_large(what: str, found: int, most: int, terms: SegmentTerms) -> str:
    unit = 2.0**-terms.model.grid_exponent
    return (
        f"{what} is at most {most} grid units, which is {most * unit:g} in parameter units; here it is {found}, which "
        f"is {found * unit:g}: clip it"
    )


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
