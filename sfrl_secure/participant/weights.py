"""Weights as people have them: arrays by name, a list of arrays, or one flat vector; and as the manifest numbers them.

Tensors of other libraries are taken by what they can do (`detach`, `cpu`, `numpy`), so that none of them is imported.

Runs in: participant, cli, demo.
Trusts: its caller; shapes and names are compared with the manifest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.aggregation.models import ModelSnapshot
from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.manifest import ModelManifest
from sfrl_secure.governance.terms import SegmentTerms
from sfrl_secure.ids import Digest
from sfrl_secure.sparse.encode import TakeRoom

Weights = Mapping[str, Any] | Sequence[Any] | NDArray[Any]
"""Arrays by the manifest's names; or a list of them in its order; or one vector of all coordinates. The arrays are
numpy's, or any library's whose tensors numpy can take."""


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A round's base model, a segment's last one or a cluster's, proven to be the one that the log names.

    Attributes:
        digest: its name in the log.
        snapshot: the integers that it is.
        take_room: gives the memory that weights are written into; new memory where it is None.
    """

    digest: Digest
    snapshot: ModelSnapshot
    take_room: TakeRoom | None = field(default=None, repr=False, compare=False)

    @property
    def manifest(self) -> ModelManifest:
        """Names, shapes and dtypes of the tensors."""
        return self.snapshot.manifest

    def vector(self) -> NDArray[np.float32]:
        """All weights, float32, shape (n,), in parameter units: a new array."""
        return self.snapshot.to_float32(out=_room_for(self.manifest, self.take_room))

    def state_dict(self) -> dict[str, NDArray[np.float32]]:
        """The weights by name, float32, each in its tensor's shape: new arrays, for `load_state_dict` and the like."""
        return by_name(self.vector(), self.manifest)

    def arrays(self) -> list[NDArray[np.float32]]:
        """The weights as a list, in the manifest's order."""
        return list(self.state_dict().values())


def by_name(vector: NDArray[np.float32], manifest: ModelManifest) -> dict[str, NDArray[np.float32]]:
    """Cut a vector of all coordinates into the manifest's tensors: views, by name."""
    return {
        tensor.name: vector[start : start + tensor.coordinates].reshape(tensor.shape)
        for start, tensor in zip(manifest.offsets, manifest.tensors, strict=True)
    }


def change_of(
    weights: Weights, base: BaseModel, terms: SegmentTerms, take_room: TakeRoom | None = None
) -> NDArray[np.float32]:
    """What training changed: `weights` minus the base model, 0 in tensors that the terms do not let an update touch.

    Args:
        take_room: gives the memory that it is written into; new memory where it is None.

    Returns: float32, shape (n,), parameter units.

    Raises:
        MalformedError: a tensor that updates may touch is missing, one is there that the manifest does not have, or a
            shape is another one.
    """
    vector, model = _vector_of(weights, terms), base.snapshot
    return _only_allowed(model.change_to(vector, out=_room_for(model.manifest, take_room)), terms)


def _room_for(manifest: ModelManifest, take_room: TakeRoom | None) -> NDArray[np.float32] | None:
    if take_room is None:
        return None
    return np.frombuffer(take_room(manifest.coordinates * np.dtype(np.float32).itemsize), dtype=np.float32)


def delta_of(delta: Weights, terms: SegmentTerms) -> NDArray[np.float32]:
    """Take a change that the caller has computed, in the forms of weights; as `change_of`.

    Raises:
        MalformedError: as `change_of`.
    """
    return _only_allowed(_vector_of(delta, terms).copy(), terms)


def _vector_of(weights: Weights, terms: SegmentTerms) -> NDArray[np.float32]:
    """The weights as a vector, which may be the caller's own; 0 where updates may not touch and none is given."""
    manifest = terms.model.manifest
    if isinstance(weights, Mapping):
        names = {tensor.name for tensor in manifest.tensors}
        if not weights.keys() <= names:
            raise MalformedError(
                "the weights have a tensor that the segment's manifest does not have: leave it out; the manifest's "
                f"are {_named(sorted(names))}"
            )
        missing = sorted(set(terms.tensors) - weights.keys())
        if missing:
            raise MalformedError(f"the weights lack tensors that updates are about: add {_named(missing)}")
        given = dict(weights)
    elif isinstance(weights, np.ndarray) or hasattr(weights, "detach"):
        vector = _array_of(weights)
        if vector.shape != (manifest.coordinates,):
            raise MalformedError(f"a flat vector has one value for each of {manifest.coordinates} coordinates")
        return vector
    else:
        if len(weights) != len(manifest.tensors):
            raise MalformedError(f"a list of weights has one array for each of {len(manifest.tensors)} tensors")
        given = {tensor.name: each for tensor, each in zip(manifest.tensors, weights, strict=True)}
    vector = np.zeros(manifest.coordinates, dtype=np.float32)
    for name, place in by_name(vector, manifest).items():
        if name in given:
            array = _array_of(given[name])
            if array.shape != place.shape:
                raise MalformedError(f"tensor {name} has shape {place.shape} in the segment's manifest")
            place[...] = array
    return vector


def _array_of(value: Any) -> NDArray[np.float32]:
    if hasattr(value, "detach"):  # a tensor that records gradients, perhaps on an accelerator, perhaps of 16 bits
        value = value.detach().cpu().float().numpy()
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "fiu":
            raise MalformedError("weights are real numbers")
        with np.errstate(over="ignore"):  # what float32 does not hold becomes infinite, which the encoder refuses
            return array.astype(np.float32, copy=False)
    except (TypeError, ValueError):
        raise MalformedError("weights are arrays, by name, as a list, or one flat vector") from None


def _only_allowed(change: NDArray[np.float32], terms: SegmentTerms) -> NDArray[np.float32]:
    manifest = terms.model.manifest
    for place, (start, tensor) in enumerate(zip(manifest.offsets, manifest.tensors, strict=True)):
        if place not in terms.allowed_tensor_indices:
            change[start : start + tensor.coordinates] = 0.0
    return change


def _named(names: Sequence[str]) -> str:
    shown = ", ".join(names[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"
