"""Arrays in `.npz` files: the model that was fetched, and what is handed in. Read and written without pickle.

What is handed in is one of two: one array a tensor, by the manifest's names, which are the new weights; or, for free
support, arrays `indices` and `values`, the changes of some coordinates.

Runs in: cli.
Trusts: nothing that such a file holds; sizes are looked at before anything is unpacked.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sfrl_secure.cli.inputs import check_folder
from sfrl_secure.errors import MalformedError, NotFoundError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sfrl_secure.aggregation.models import ModelSnapshot

UPDATE_FILE_BYTES_MAX = 2**30


@dataclass(frozen=True, slots=True)
class SparseChange:
    """Changes of some coordinates, in parameter units: int64 indices, and a float64 value for each."""

    indices: NDArray[np.int64]
    values: NDArray[np.floating]


def read_update(path: Path) -> SparseChange | dict[str, NDArray[np.floating]]:
    """Read what is handed in, without pickle.

    Raises:
        NotFoundError: there is no such file.
        MalformedError: it is too long, is no such file, or holds other arrays.
    """
    arrays = _read_arrays(path)
    if arrays.keys() & {"indices", "values"}:
        return _sparse(arrays)
    if any(array.dtype.kind not in "fiu" for array in arrays.values()):
        raise MalformedError("weights are arrays of real numbers, one a tensor")
    return arrays


def _read_arrays(path: Path) -> dict[str, NDArray[np.floating]]:
    import numpy as np

    try:
        if path.stat().st_size > UPDATE_FILE_BYTES_MAX:
            raise MalformedError(f"an update's file has at most {UPDATE_FILE_BYTES_MAX} bytes")
        with zipfile.ZipFile(path) as archive:
            # Each member says how long it is when unpacked: looked at before it is unpacked.
            if sum(member.file_size for member in archive.infolist()) > UPDATE_FILE_BYTES_MAX:
                raise MalformedError(f"an update's arrays have at most {UPDATE_FILE_BYTES_MAX} bytes")
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except FileNotFoundError:
        raise NotFoundError("there is no such file of an update") from None
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        raise MalformedError(
            "an update's file is an .npz with the arrays `indices` and `values`, or with one array a tensor"
        ) from None


def _sparse(arrays: dict[str, NDArray[np.floating]]) -> SparseChange:
    import numpy as np

    if arrays.keys() != {"indices", "values"}:
        raise MalformedError("an update by coordinates has the arrays `indices` and `values`, and no other")
    indices, values = arrays["indices"], arrays["values"]
    if indices.ndim != 1 or indices.shape != values.shape or not np.issubdtype(indices.dtype, np.integer):
        raise MalformedError("an update has integer `indices` and one value for each")
    if not np.issubdtype(values.dtype, np.floating):
        raise MalformedError("an update's values are floating point, in parameter units")
    if indices.dtype.itemsize > 8 or (indices.dtype == np.uint64 and bool(np.any(indices >= 2**63))):
        raise MalformedError("an update's indices fit into int64")
    return SparseChange(indices.astype(np.int64), values.astype(np.float64))


def check_model_file(path: Path) -> None:
    """Check that a model can be written to a file of this name, before it is fetched.

    Raises:
        NotFoundError: there is no such folder.
        MalformedError: the name does not end in .npz.
    """
    if path.suffix != ".npz":
        raise MalformedError("a model is written to a file whose name ends in .npz")
    check_folder(path.absolute().parent, "the model's folder")


def write_model(path: Path, model: ModelSnapshot) -> None:
    """Write a model as an `.npz` of one float32 array a tensor, in the tensor's shape.

    Raises:
        UncertainStateError, ExhaustedError: the file could not be written.
        NotFoundError, MalformedError: as `check_model_file`.
    """
    import io

    import numpy as np

    from sfrl_secure.participant.weights import by_name
    from sfrl_secure.storage.files import write_atomically

    check_model_file(path)
    arrays = by_name(model.to_float32(), model.manifest)
    buffer = io.BytesIO()
    # Not savez(**arrays): a tensor named `file` would be taken for its first argument.
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    write_atomically(path.absolute(), buffer.getvalue())
