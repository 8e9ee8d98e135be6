"""A look at an update before it goes, as the gatekeeper will look: by the terms' limits, and for what betrays examples.

What it would refuse is refused here with the same reason, before a byte is sent. Refused here means that nothing is in
the log.

Runs in: participant, cli, demo.
Trusts: the terms, which are proven. Nothing of the update is believed to be within them.
"""

from __future__ import annotations

import math

import numpy as np

from sfrl_secure.errors import DeniedError
from sfrl_secure.governance.terms import SegmentTerms
from sfrl_secure.participant.encoding import Encoding
from sfrl_secure.participant.wishes import check_weight
from sfrl_secure.rounds.measuring import UpdateMeter
from sfrl_secure.sparse.encode import EncodedUpdate

_ROUNDING = 1.000_001
"""More than what floating point loses in a product of two numbers."""


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
