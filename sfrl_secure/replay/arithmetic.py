"""Aggregation in exact integers, and models as objects.

What the round's rule gives for its counted updates, to the last bit: sums of weight times value, one division with ties
to the even neighbour, base plus aggregate, cut to each tensor's range. No floating point.

Bounds: |value| <= 2**40 and weights of a round add up to at most 2**22, so every sum is at most 2**62.

Format: proto/README.md, "Models and aggregates".

Runs in: verifier.
Trusts: nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.errors import MalformedError
from sfrl_secure.ids import Digest
from sfrl_secure.replay.decoder import Part
from sfrl_secure.replay.manifest import Manifest

Integers = NDArray[np.int64]

MODEL: Final = b"SFRLMDL1"
_HEADER_BYTES: Final = 56
_TYPES: Final = {"int32": "<i4", "int64": "<i8"}


class RunningSum:
    """Sum of weight times value of a round's updates, whichever order they come in.

    Attributes:
        numerator: int64, shape (coordinates,).
        denominator: sum of the weights.
    """

    def __init__(self, coordinates: int) -> None:
        self.numerator: Integers = np.zeros(coordinates, np.int64)
        self.denominator = 0

    def add(self, parts: Iterable[Part], weight: int) -> None:
        """Take an update in, leaf by leaf. Weight is 1 or more.

        Raises:
            PayloadError: by what gives the parts; the sum is then of no use.
        """
        for part in parts:
            self.numerator[part.at] += weight * part.values
        self.denominator += weight
        assert self.denominator <= 2**22, "the terms bound weights and cohort"

    def remove(self, parts: Iterable[Part], weight: int) -> None:
        """Take an update out again that `add` took in: exact, since they are integers."""
        for part in parts:
            self.numerator[part.at] -= weight * part.values
        self.denominator -= weight

    def mean(self) -> Integers:
        """The weighted mean in grid units; a coordinate that nobody sent is zero."""
        return divide_half_even(self.numerator, self.denominator)


def divide_half_even(numerator: Integers, denominator: int) -> Integers:
    """Divide by a positive integer, to the nearest integer and to the even one of two.

    Args:
        numerator: int64, magnitudes at most 2**62.
        denominator: 1 to 2**22.
    """
    quotient = numerator // denominator  # rounds down, also below zero
    remainder = numerator - quotient * denominator  # 0 to denominator - 1
    up = (2 * remainder > denominator) | ((2 * remainder == denominator) & (quotient % 2 == 1))
    result: Integers = quotient + up
    return result


def add_to_model(manifest: Manifest, base: Integers, aggregate: Integers) -> Integers:
    """The model after a round: base plus aggregate, each coordinate cut to the range of its tensor's dtype."""
    model = base + aggregate
    # |aggregate| <= 2**40, so a sum that left 64 bits has come out on the wrong side of its base.
    model[(aggregate > 0) & (model < base)] = np.iinfo(np.int64).max
    model[(aggregate < 0) & (model > base)] = np.iinfo(np.int64).min
    for tensor in manifest.tensors:
        bounds = np.iinfo(tensor.dtype)
        span = slice(tensor.start, tensor.end)
        model[span] = np.clip(model[span], bounds.min, bounds.max)
    return model


def encode_model(manifest: Manifest, grid_exponent: int, values: Integers) -> bytes:
    """Bytes of a model object."""
    parts = [values[t.start : t.end].astype(_TYPES[t.dtype]).tobytes() for t in manifest.tensors]
    return b"".join([_header(manifest, grid_exponent), *parts])


def digest_of(raw: bytes) -> Digest:
    """Name of an object."""
    return Digest(hashlib.sha256(raw).digest())


def model_bytes(manifest: Manifest) -> int:
    """Length of a model object."""
    return _HEADER_BYTES + sum((t.end - t.start) * np.dtype(_TYPES[t.dtype]).itemsize for t in manifest.tensors)


def parse_model(raw: bytes, manifest: Manifest, grid_exponent: int) -> Integers:
    """Read a model object of this manifest and grid.

    Raises:
        MalformedError: another length, manifest or grid.
    """
    if len(raw) != model_bytes(manifest) or raw[:_HEADER_BYTES] != _header(manifest, grid_exponent):
        raise MalformedError("the object is no model of this manifest and grid")
    values = np.empty(manifest.coordinates, np.int64)
    at = _HEADER_BYTES
    for tensor in manifest.tensors:
        count = tensor.end - tensor.start
        values[tensor.start : tensor.end] = np.frombuffer(raw, _TYPES[tensor.dtype], count, offset=at)
        at += count * np.dtype(_TYPES[tensor.dtype]).itemsize
    return values


def _header(manifest: Manifest, grid_exponent: int) -> bytes:
    return MODEL + bytes([grid_exponent]) + bytes(7) + manifest.digest + manifest.coordinates.to_bytes(8, "little")
