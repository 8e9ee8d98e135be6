"""From a change to a payload: top-k, or the mask's coordinates, or all, in the value type that the terms take.

Runs in: participant, cli, demo.
Trusts: the terms, which are proven. What is handed in may be anything: the codec looks at each value.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.governance.terms import SegmentTerms
from sfrl_secure.participant.wishes import Wish, choose_support, choose_value_type, coordinates_to_send
from sfrl_secure.sparse.encode import EncodedUpdate, TakeRoom, encode_agreed, encode_dense, encode_update
from sfrl_secure.sparse.header import ValueType
from sfrl_secure.sparse.mask import Mask
from sfrl_secure.sparse.topk import ErrorFeedback


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
    take_room: TakeRoom | None = None,
) -> Encoding:
    """Encode a change of all coordinates.

    In free mode the largest are sent, with what `feedback` owes; whoever sends the update calls `feedback.keep` once it
    is admitted. The other modes send what they can and owe nothing: their rounding has no bias.

    Args:
        change: float32, shape (n,), parameter units.
        mask: the round's mask, in agreed mode.
        rng: source of the rounding noise.
        take_room: gives the memory that a dense payload is written into; new memory where it is None.

    Raises:
        PayloadError: `not_finite` or `magnitude`: a value that no payload holds.
        DeniedError: `format_not_allowed`.
        MalformedError: a density outside its range.
    """
    support, value_type = choose_support(terms, wish), choose_value_type(terms, wish)
    grid = terms.model.grid_exponent
    if support == "dense":
        dense = encode_dense(change, value_type=value_type, grid_exponent=grid, rng=rng, take_room=take_room)
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
