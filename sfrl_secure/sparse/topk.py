"""Which coordinates to send: the k largest, with error feedback for the rest.

What is not sent is not lost: `ErrorFeedback` keeps it and adds it to the next round's update, which is what makes
top-k converge (Stich et al. 2018; Karimireddy et al. 2019). Rounding errors and values that rounding dropped are kept
in the same way.

Runs in: participant.
Trusts: its caller.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.errors import PayloadError
from sfrl_secure.sparse.encode import EncodedUpdate
from sfrl_secure.sparse.update import SparseUpdate, UpdatePart


def top_k(values: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Return the indices of the `k` largest magnitudes, rising. Of equal ones the lower index wins.

    Args:
        values: float32, shape (n,), finite.
        k: 0 to n.

    Returns: int64, shape (k,). Holds coordinates whose value is zero only where fewer than `k` are not.

    Raises:
        PayloadError: `not_finite`, or `shape` for a k or an array outside these bounds.
    """
    if values.dtype != np.float32 or values.ndim != 1 or not 0 <= k <= values.size:
        raise PayloadError("shape", "top-k takes a float32 vector, and k is from 0 to its length")
    if not np.isfinite(values).all():
        raise PayloadError("not_finite", "a value is a finite number")
    if k == 0:
        return np.zeros(0, dtype=np.int64)
    magnitudes = np.abs(values)
    threshold = np.partition(magnitudes, values.size - k)[values.size - k]
    chosen = magnitudes > threshold
    ties = np.flatnonzero(magnitudes == threshold)
    chosen[ties[: k - int(np.count_nonzero(chosen))]] = True
    return np.flatnonzero(chosen).astype(np.int64)


class ErrorFeedback:
    """What one participant has not sent yet. One object for each model; not for several threads at once.

    A round is `select`, encode, send, and then `keep` with what was counted. A `select` without `keep` changes nothing,
    so a round that is missed or refused loses nothing but that round's own update; `keep` with an empty update keeps
    that too.
    """

    def __init__(self, coordinates: int) -> None:
        """Start with nothing owed.

        Args:
            coordinates: coordinates of the model.
        """
        self._residual = np.zeros(coordinates, dtype=np.float32)
        self._pending: NDArray[np.float32] | None = None

    @property
    def residual(self) -> NDArray[np.float32]:
        """What is owed: float32, shape (n,), parameter units, a copy."""
        return self._residual.copy()

    def select(self, update: NDArray[np.float32], k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Choose what to send of `update` and all that is owed.

        Args:
            update: float32, shape (n,), this round's change in parameter units.
            k: coordinates to send, 0 to n.

        Returns: `indices` (int64, rising) and `values` (float32), both of shape (k,), as `encode_update` takes them.

        Raises:
            PayloadError: `shape` or `not_finite`; what is owed stays as it was.
        """
        if update.shape != self._residual.shape or update.dtype != np.float32:
            raise PayloadError("shape", "an update is float32 and has one value for each coordinate of the model")
        if not np.isfinite(update).all():
            raise PayloadError("not_finite", "a value is a finite number")
        # A sum beyond float32 becomes infinite, which top_k refuses.
        with np.errstate(over="ignore"):
            pending = self._residual + update
        indices = top_k(pending, k)
        self._pending = pending
        return indices, pending[indices]

    def keep(self, sent: EncodedUpdate | SparseUpdate, grid_exponent: int) -> None:
        """Owe what the last `select` saw and `sent` does not hold: the rest, and each rounding error.

        Args:
            sent: what was sent, as it was encoded, or what every decoder reads from it.
            grid_exponent: the grid of `sent` is 2**-grid_exponent.

        Raises:
            PayloadError: `shape`, for an update of another model or without a `select` before.
        """
        if self._pending is None or sent.coordinates != self._residual.size:
            raise PayloadError("shape", "what was sent belongs to the last selection from this model")
        residual, self._pending = self._pending, None
        parts = sent.parts() if isinstance(sent, EncodedUpdate) else [UpdatePart(sent.indices, sent.values)]
        for part in parts:
            # In float64, so that the only rounding is the one back to float32.
            rest = residual[part.at] - np.ldexp(part.values.astype(np.float64), -grid_exponent)
            residual[part.at] = rest.astype(np.float32)
        self._residual = residual
