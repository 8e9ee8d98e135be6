"""The state of a server step: what a round hands on to the next one beside its model.

Momentum keeps one number a coordinate, m; the adaptive step two, m and s, in one vector: m of coordinate c stands at c,
s at coordinates + c. No state stands for zeros. As an object it is what an aggregate of these values is.

Format: proto/README.md, "Server step".

Runs in: aggregator.
Trusts: nothing: a state is named by an entry, and whoever wrote that may have named anything.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.aggregation.exact_object import decode_exact, encode_exact, exact_bytes_max
from sfrl_secure.aggregation.parts import check_part, sparse_where_few
from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.aggregation_terms import AdaptiveTerms, ServerTerms
from sfrl_secure.sparse.update import UpdatePart


@dataclass(frozen=True, slots=True, eq=False)
class ServerState:
    """A state of one of the server steps. Compared by identity; compare `to_bytes` for content.

    Attributes:
        coordinates: of the vector: the model's, or twice as many.
        values: all of it, or what is not zero; magnitudes at most `VALUE_MAX`.
    """

    coordinates: int
    values: UpdatePart

    def __post_init__(self) -> None:
        check_part(self.values, self.coordinates)
        if isinstance(self.values.at, slice) and self.values.at != slice(0, self.coordinates):
            raise MalformedError("a server state has all of its coordinates, or those that are not zero")

    def to_bytes(self, grid_exponent: int) -> bytes:
        """The state object."""
        return encode_exact(self.coordinates, grid_exponent, self.values)


def state_coordinates(server: ServerTerms, coordinates: int) -> int:
    """How many numbers a state of this step has, for a model of so many coordinates."""
    return 2 * coordinates if isinstance(server, AdaptiveTerms) else coordinates


def state_bytes_max(server: ServerTerms, coordinates: int) -> int:
    """No object of such a state is longer."""
    return exact_bytes_max(state_coordinates(server, coordinates))


def parse_server_state(raw: bytes, server: ServerTerms, coordinates: int, grid_exponent: int) -> ServerState:
    """Parse a state object that must be of this step, model and grid.

    Raises:
        PayloadError: the reason of the first rule of the codec that is broken.
    """
    size = state_coordinates(server, coordinates)
    parts = list(decode_exact(raw, size, grid_exponent))
    if parts and isinstance(parts[0].at, slice):
        values: NDArray[np.int64] = np.concatenate([part.values for part in parts])
        return ServerState(size, UpdatePart(slice(0, size), values))
    if not parts:
        return ServerState(size, sparse_where_few(np.zeros(0, dtype=np.int64)))
    at, values = np.concatenate([part.indices for part in parts]), np.concatenate([part.values for part in parts])
    return ServerState(size, UpdatePart(at, values))
