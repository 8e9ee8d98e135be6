"""Server states, as objects: payloads of type exact, as aggregates are.

A state that is not there is missing evidence. An object of the right name that is no state was found when it was
published, and is found with everything that claims to stand on it.

Format: proto/README.md, "Server step"; "Models and aggregates"; "Codec".

Runs in: verifier.
Trusts: nothing.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from sfrl_secure.errors import PayloadError
from sfrl_secure.ids import Digest
from sfrl_secure.replay.decoder import decode_parts
from sfrl_secure.replay.docket import Docket, Position
from sfrl_secure.replay.encoder import is_sparse
from sfrl_secure.replay.payload_codes import Integers
from sfrl_secure.replay.payload_header import LEAF, PREAMBLE_BYTES, ROW_BYTES, Expected
from sfrl_secure.replay.server_step import state_size
from sfrl_secure.replay.terms import Terms

_VALUE_BYTES_MAX: Final = 6
_LEAF_BYTES_MAX: Final = 1


def read_state(docket: Docket, terms: Terms, digest: Digest | None, at: Position, why: str) -> Integers | None:
    """Read what a round's step stands on: zeros in the beginning; None where it is not to be had."""
    assert terms.server is not None, "the terms have a server step"
    size = state_size(terms.server, terms.manifest.coordinates)
    if digest is None:
        return np.zeros(size, np.int64)
    # The dense form is the longest: the other has at most a quarter of the values, of 16 bytes at most.
    longest = PREAMBLE_BYTES + (ROW_BYTES + _LEAF_BYTES_MAX) * -(-size // LEAF) + _VALUE_BYTES_MAX * size
    raw = docket.read(digest, at, longest + 4_096, why)
    if raw is None:
        return None
    try:
        return _parse_state(raw, size, terms.grid_exponent)
    except PayloadError:
        # Nobody can have stood on it: whatever the entry says came of it is false.
        docket.find("server_state", at, f"an object that is {why}", "another object")
        return None


def _parse_state(raw: bytes, size: int, grid_exponent: int) -> Integers:
    """Read a state object of so many integers.

    Raises:
        PayloadError: it is none.
    """
    nonzeros = int.from_bytes(raw[16:24], "little")
    support = "free" if is_sparse(nonzeros, size) else "dense"
    values = np.zeros(size, np.int64)
    for part in decode_parts(raw, Expected(size, nonzeros, support, "exact", grid_exponent, None)):
        values[part.at] = part.values
    if support == "dense" and is_sparse(int(np.count_nonzero(values)), size):
        raise PayloadError("not_canonical", "a state with so few values is in free mode")
    return values
