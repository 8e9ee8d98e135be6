"""The model manifest: names, shapes and dtypes of a model's tensors, and how its coordinates are numbered.

Coordinates run through the tensors in order, each in row-major order. The manifest digest stands in every model
object, so that one model cannot be read as another.

Format: proto/README.md, "Documents" (`model.manifest`) and "Models and aggregates".

Runs in: gatekeeper, aggregator, participant.
Trusts: nothing.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from math import prod
from types import MappingProxyType

from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.fields import INTEGER_MAX, ObjectFields, take_integer, take_list
from sfrl_secure.ids import Digest, sha256
from sfrl_secure.limits import COORDINATES_MAX, GRID_EXPONENT_MAX, TENSORS_MAX

DTYPES = frozenset({"int32", "int64"})
AXES_MAX = 8

_TAG = b"sfrl-manifest/v1\n"
_TENSOR_NAME = re.compile(r"[A-Za-z0-9._/-]{1,128}")


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor of a model.

    Attributes:
        name: 1 to 128 of `A-Za-z0-9._/-`.
        shape: 1 to 8 axes, each from 1.
        dtype: `int32` or `int64`; what its grid integers fit into.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str

    def __post_init__(self) -> None:
        parse_tensor_name(self.name)
        if not 1 <= len(self.shape) <= AXES_MAX or any(not 1 <= axis <= COORDINATES_MAX for axis in self.shape):
            raise MalformedError(f"a shape has 1 to {AXES_MAX} axes, each from 1 to {COORDINATES_MAX}")
        if self.dtype not in DTYPES:
            raise MalformedError(f"a dtype is one of {', '.join(sorted(DTYPES))}")

    @property
    def coordinates(self) -> int:
        """Number of values."""
        return prod(self.shape)


@dataclass(frozen=True)
class ModelManifest:
    """A model's tensors in order, and the constants that participants apply to their inputs.

    Attributes:
        tensors: 1 to 4,096, no name twice, at most 2**31 coordinates in all.
        constants_exponent: constants are in units of 2**-this, 0 to 40.
        constants: lists of integers by name.
    """

    tensors: tuple[TensorSpec, ...]
    constants_exponent: int = 0
    constants: Mapping[str, tuple[int, ...]] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not 1 <= len(self.tensors) <= TENSORS_MAX:
            raise MalformedError(f"a manifest has 1 to {TENSORS_MAX} tensors")
        if len({tensor.name for tensor in self.tensors}) != len(self.tensors):
            raise MalformedError("a manifest names no tensor twice")
        if self.coordinates > COORDINATES_MAX:
            raise MalformedError(f"a model has at most {COORDINATES_MAX} coordinates")

    @cached_property
    def coordinates(self) -> int:
        """Number of coordinates of the whole model."""
        return sum(tensor.coordinates for tensor in self.tensors)

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """First coordinate of each tensor, ascending from 0."""
        return tuple(accumulate((tensor.coordinates for tensor in self.tensors[:-1]), initial=0))

    @cached_property
    def digest(self) -> Digest:
        """The manifest digest. It covers the tensors, not the constants, which the terms' digest covers."""
        rows = (
            b"%b\0%b\0%b\n" % (tensor.name.encode(), tensor.dtype.encode(), "x".join(map(str, tensor.shape)).encode())
            for tensor in self.tensors
        )
        return sha256(_TAG + b"".join(rows))

    def tensor_index_of(self, coordinate: int) -> int:
        """Position of the tensor that holds `coordinate`.

        Raises:
            MalformedError: the model has no such coordinate.
        """
        if not 0 <= coordinate < self.coordinates:
            raise MalformedError(f"the model has {self.coordinates} coordinates")
        return bisect_right(self.offsets, coordinate) - 1


def parse_tensor_name(text: str) -> str:
    """Take a tensor's name: 1 to 128 of `A-Za-z0-9._/-`.

    Raises:
        MalformedError: any other form.
    """
    if not _TENSOR_NAME.fullmatch(text):
        raise MalformedError("a tensor's name is 1 to 128 of A-Z, a-z, 0-9, '.', '_', '/' and '-'")
    return text


def parse_manifest(value: object) -> ModelManifest:
    """Take the `model.manifest` of segment terms.

    Raises:
        MalformedError: any other form.
    """
    where = "model.manifest"
    fields = ObjectFields(value, where, ("tensors", "constants_exponent", "constants"))
    constants = {
        parse_tensor_name(name): tuple(
            take_integer(item, f"{where}.constants", -INTEGER_MAX, INTEGER_MAX)
            for item in take_list(items, f"{where}.constants", 0, COORDINATES_MAX)
        )
        for name, items in fields.mapping("constants", 0, TENSORS_MAX).items()
    }
    return ModelManifest(
        tensors=tuple(_parse_tensor(item) for item in fields.items("tensors", 1, TENSORS_MAX)),
        constants_exponent=fields.integer("constants_exponent", 0, GRID_EXPONENT_MAX),
        constants=MappingProxyType(constants),
    )


def _parse_tensor(value: object) -> TensorSpec:
    where = "model.manifest.tensors"
    fields = ObjectFields(value, where, ("name", "shape", "dtype"))
    axes = fields.items("shape", 1, AXES_MAX)
    shape = tuple(take_integer(axis, f"{where}.shape", 1, COORDINATES_MAX) for axis in axes)
    return TensorSpec(fields.text("name", 128), shape, fields.choice("dtype", DTYPES))
