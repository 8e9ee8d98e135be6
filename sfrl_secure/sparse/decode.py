"""Payload bytes to a sparse update, strictly, all at once. What comes in pieces goes through `reader`.

One update has one encoding of each format, and nothing else is taken: what `decode_update` returns, `pack_update`
writes as the same bytes again. The rules stand in a fixed order, and the first that is broken gives the reason, so
that two decoders refuse alike.

Format: proto/README.md, "Codec".

Runs in: gatekeeper, aggregator, participant.
Trusts: what its caller expects. Nothing in the payload.
"""

from __future__ import annotations

import numpy as np

from sfrl_secure.sparse.expected import ExpectedPayload
from sfrl_secure.sparse.reader import read_parts
from sfrl_secure.sparse.update import SparseUpdate


def decode_update(payload: bytes, expected: ExpectedPayload) -> SparseUpdate:
    """Decode a whole payload and refuse whatever is not canonical.

    Args:
        payload: the whole payload.
        expected: what the signed statement and the terms say.

    Raises:
        PayloadError: the reason of the first rule that is broken.
    """
    parts = list(read_parts([payload], expected))
    indices = np.concatenate([part.indices for part in parts]) if parts else np.zeros(0, dtype=np.int64)
    values = np.concatenate([part.values for part in parts]) if parts else np.zeros(0, dtype=np.int64)
    indices.flags.writeable = values.flags.writeable = False
    return SparseUpdate(expected.coordinates, indices, values)
