"""A model's manifest: its tensors in order, with the coordinates that each of them holds.

Format: proto/README.md, "Documents", segment-terms; "Models and aggregates".

Runs in: verifier.
Trusts: nothing.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_right
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.errors import MalformedError
from sfrl_secure.ids import Digest
from sfrl_secure.limits import COORDINATES_MAX, GRID_EXPONENT_MAX, TENSORS_MAX
from sfrl_secure.replay.json_fields import INTEGER_MAX, take_integer, take_list, take_mapping, take_object, take_text

_TENSOR_NAME = re.compile(r"[A-Za-z0-9._/-]{1,128}")


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor: its coordinates are `start` to `end` - 1."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """All tensors of a model, and the digest that a model object carries."""

    tensors: tuple[Tensor, ...]
    digest: Digest

    @property
    def coordinates(self) -> int:
        """Coordinates of the whole model."""
        return self.tensors[-1].end

    def touched(self, indices: NDArray[np.int64]) -> tuple[int, ...]:
        """Positions of the tensors that hold a coordinate of `indices`, ascending."""
        starts = [tensor.start for tensor in self.tensors]
        found: list[int] = []
        at = 0
        while at < len(indices):
            position = bisect_right(starts, int(indices[at])) - 1
            found.append(position)
            # Indices ascend: go on behind this tensor's end.
            at = int(np.searchsorted(indices, self.tensors[position].end))
        return tuple(found)


def parse_manifest(value: Any) -> Manifest:
    """Read the manifest of segment terms.

    Raises:
        MalformedError: any other form.
    """
    fields = take_object(value, {"tensors", "constants_exponent", "constants"})
    take_integer(fields["constants_exponent"], 0, GRID_EXPONENT_MAX)
    for name, numbers in take_mapping(fields["constants"], 0, TENSORS_MAX).items():
        parse_tensor_name(name)
        for number in take_list(numbers, 0, COORDINATES_MAX):
            take_integer(number, -INTEGER_MAX, INTEGER_MAX)
    tensors: list[Tensor] = []
    start = 0
    described = b"sfrl-manifest/v1\n"
    for item in take_list(fields["tensors"], 1, TENSORS_MAX):
        tensor = take_object(item, {"name", "shape", "dtype"})
        name, dtype = parse_tensor_name(tensor["name"]), take_text(tensor["dtype"], 5)
        if dtype not in ("int32", "int64"):
            raise MalformedError("a dtype is int32 or int64")
        shape = tuple(take_integer(axis, 1, COORDINATES_MAX) for axis in take_list(tensor["shape"], 1, 8))
        end = start + prod(shape)
        tensors.append(Tensor(name, shape, dtype, start, end))
        described += b"%b\0%b\0%b\n" % (name.encode(), dtype.encode(), "x".join(map(str, shape)).encode())
        start = end
    if start > COORDINATES_MAX:
        raise MalformedError(f"a model has at most {COORDINATES_MAX} coordinates")
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise MalformedError("no tensor stands in a manifest twice")
    return Manifest(tuple(tensors), Digest(hashlib.sha256(described).digest()))


def parse_tensor_name(value: Any) -> str:
    """Take a tensor's name.

    Raises:
        MalformedError: any other form.
    """
    text = take_text(value, 128)
    if not _TENSOR_NAME.fullmatch(text):
        raise MalformedError("a tensor's name is 1 to 128 of A-Z, a-z, 0-9, '.', '_', '/' and '-'")
    return text
