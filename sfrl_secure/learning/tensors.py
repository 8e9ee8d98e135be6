"""Named float32 tensors and the one flat vector that the protocol speaks of.

A flat model has one element for each coordinate of the manifest: the tensors in manifest order, each row by row. The
authoritative model is the vector of grid integers (`ModelSnapshot`); the float32 vector here is derived from it.

Runs in: participant.
Trusts: the manifest, whose signatures the caller has verified.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save

from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.manifest import ModelManifest


def flatten(tensors: Mapping[str, npt.NDArray[np.float32]], manifest: ModelManifest) -> npt.NDArray[np.float32]:
    """Join the tensors to one vector in manifest order.

    Returns: float32, (manifest.coordinates,), a copy.

    Raises:
        MalformedError: the names, a shape or a type are not the manifest's.
    """
    if tensors.keys() != {spec.name for spec in manifest.tensors}:
        raise MalformedError("the tensors' names are not those of the manifest")
    for spec in manifest.tensors:
        if tensors[spec.name].shape != spec.shape or tensors[spec.name].dtype != np.float32:
            raise MalformedError("a tensor is float32 and has the shape that the manifest gives")
    return np.concatenate([tensors[spec.name].reshape(-1) for spec in manifest.tensors])


def unflatten(flat: npt.NDArray[np.float32], manifest: ModelManifest) -> dict[str, npt.NDArray[np.float32]]:
    """Cut a vector into its tensors, in manifest order; they are views of it.

    Raises:
        MalformedError: the vector is not float32 with one element for each coordinate.
    """
    if flat.shape != (manifest.coordinates,) or flat.dtype != np.float32:
        raise MalformedError("a flat model is float32 and has one element for each coordinate of the manifest")
    return {
        spec.name: flat[start : start + spec.coordinates].reshape(spec.shape)
        for spec, start in zip(manifest.tensors, manifest.offsets, strict=True)
    }


def export_safetensors(
    flat: npt.NDArray[np.float32], manifest: ModelManifest, metadata: Mapping[str, str] | None = None
) -> bytes:
    """Write the model as a safetensors file, for use outside the federation.

    Args:
        metadata: what the file says of itself, such as the model's digest; nothing here verifies it.

    Raises:
        MalformedError: the vector does not fit the manifest.
    """
    return bytes(save(unflatten(flat, manifest), dict(metadata or {})))
