"""What updates must at least be, so that they betray no single examples: the floors of segment terms.

Whether an update stays above them is measured in `measuring`.

Format: proto/README.md, "Documents", segment-terms; "Leakage".

Runs in: verifier.
Trusts: nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sfrl_secure.errors import MalformedError
from sfrl_secure.limits import VALUE_MAX
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
        nonzeros_min: of the values that a header claims, and of the coordinates that the payload touches.
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
