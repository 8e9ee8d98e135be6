"""What of an update would betray single examples: the floors of segment terms, and whether a payload stays above them.

All in exact integers: a payload has less than 2**22 values of at most 2**40 grid units, so that their sums stay below
2**62; squares are added up beyond 64 bits.

Format: proto/README.md, "Documents", segment-terms; "Leakage".

Runs in: verifier.
Trusts: nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.errors import MalformedError
from sfrl_secure.limits import VALUE_MAX
from sfrl_secure.replay.decoder import DecodedUpdate
from sfrl_secure.replay.json_fields import take_integer, take_list, take_object
from sfrl_secure.replay.manifest import Manifest, parse_tensor_name

_FLOORS_MAX = 16


@dataclass(frozen=True, slots=True)
class Floor:
    """Least number of different indices along an axis of a tensor; `position` is the tensor's in the manifest."""

    position: int
    axis: int
    least: int


@dataclass(frozen=True, slots=True)
class Leakage:
    """What updates must at least be.

    Attributes:
        noise_std_min: grid units.
        rows: of the coordinates of a tensor; `labels`, of its values whose sum is raised, and as many whose sum is
            lowered, by more than an eighth of the largest.
    """

    nonzeros_min: int
    weight_min: int
    noise_std_min: int
    rows: tuple[Floor, ...]
    labels: tuple[Floor, ...]


def parse_leakage(value: Any, manifest: Manifest, *, nonzeros_max: int, weight_max: int) -> Leakage:
    """Read the member `leakage` of segment terms.

    Raises:
        MalformedError: any other form.
    """
    fields = take_object(value, {"nonzeros_min", "weight_min", "noise_std_min", "rows", "labels"})
    return Leakage(
        nonzeros_min=take_integer(fields["nonzeros_min"], 1, nonzeros_max),
        weight_min=take_integer(fields["weight_min"], 1, weight_max),
        noise_std_min=take_integer(fields["noise_std_min"], 0, VALUE_MAX),
        rows=_floors(fields["rows"], manifest),
        labels=_floors(fields["labels"], manifest),
    )


def _floors(value: Any, manifest: Manifest) -> tuple[Floor, ...]:
    positions = {tensor.name: position for position, tensor in enumerate(manifest.tensors)}
    found: list[Floor] = []
    keys: list[tuple[str, int]] = []
    for item in take_list(value, 0, _FLOORS_MAX):
        fields = take_object(item, {"tensor", "axis", "min"})
        name = parse_tensor_name(fields["tensor"])
        if name not in positions:
            raise MalformedError("a tensor is of the manifest")
        shape = manifest.tensors[positions[name]].shape
        axis = take_integer(fields["axis"], 0, len(shape) - 1)
        found.append(Floor(positions[name], axis, take_integer(fields["min"], 1, shape[axis])))
        keys.append((name, axis))
    if keys != sorted(set(keys)):
        raise MalformedError("tensors with their axes are sorted, and none stands twice")
    return tuple(found)


def leak_reason(
    leakage: Leakage, manifest: Manifest, decoded: DecodedUpdate, *, noise_std: int, sum_of_squares: int
) -> str:
    """Give the reason for which an update would betray too much, empty where there is none.

    Args:
        noise_std: what the header claims.
        sum_of_squares: of the decoded values.
    """
    if any(_is_below(floor, manifest, decoded) for floor in leakage.rows):
        return "leak_rows"
    if any(_shows_labels(floor, manifest, decoded) for floor in leakage.labels):
        return "leak_labels"
    if noise_std and 4 * sum_of_squares < len(decoded.indices) * noise_std**2:
        return "leak_noise"
    return ""


def _is_below(floor: Floor, manifest: Manifest, decoded: DecodedUpdate) -> bool:
    along, _ = _touched(floor, manifest, decoded)
    return len(along) > 0 and len(np.unique(along)) < floor.least


def _shows_labels(floor: Floor, manifest: Manifest, decoded: DecodedUpdate) -> bool:
    along, values = _touched(floor, manifest, decoded)
    if len(along) == 0:
        return False
    sums = _sums(along, values)
    # 8 * s > M would leave 64 bits; s is an integer, so that s > floor(M / 8) says the same.
    eighth = np.abs(sums).max() // 8
    return int((sums > eighth).sum()) < floor.least or int((sums < -eighth).sum()) < floor.least


def _touched(
    floor: Floor, manifest: Manifest, decoded: DecodedUpdate
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of each coordinate in the floor's tensor that an update touches: its index along the axis, and its value."""
    tensor = manifest.tensors[floor.position]
    begin, end = np.searchsorted(decoded.indices, (tensor.start, tensor.end))
    behind = prod(tensor.shape[floor.axis + 1 :])
    along = (decoded.indices[begin:end] - tensor.start) // behind % tensor.shape[floor.axis]
    return along, decoded.values[begin:end]


def _sums(along: NDArray[np.int64], values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sum of the values at each index that occurs."""
    order = np.argsort(along, kind="stable")
    starts = np.flatnonzero(np.diff(along[order], prepend=-1))
    sums: NDArray[np.int64] = np.add.reduceat(values[order], starts)
    return sums
