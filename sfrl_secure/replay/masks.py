"""Masks: the coordinates that the agreed updates of a round have, as the objects that round_opened names.

A mask that is not there is missing evidence. An object of the right name that is no mask of the terms is as if no
payload could ever have the expected one: every agreed update of such a round breaks rule E5.

Format: proto/README.md, "What a round begins with"; "Codec".

Runs in: verifier.
Trusts: nothing. The terms are the operators' word that their mask is the one they meant.
"""

from __future__ import annotations

from typing import Final

from sfrl_secure.errors import PayloadError
from sfrl_secure.ids import Digest
from sfrl_secure.limits import PAYLOAD_BYTES_MAX
from sfrl_secure.replay.decoder import decode_mask_indices
from sfrl_secure.replay.docket import Docket, Position
from sfrl_secure.replay.payload_header import Mask
from sfrl_secure.replay.terms import Terms

_VALUE_BYTES_MAX: Final = 8
_OTHER_BYTES_MAX: Final = 4_096


def read_mask(docket: Docket, terms: Terms, digest: Digest | None, at: Position, why: str) -> Mask | None:
    """Read a round's mask; None where it has none, and where it is not there, which is noted."""
    if terms.mask is None or digest is None:
        return None
    nonzeros = terms.mask.nonzeros
    raw = docket.read(digest, at, _bytes_max(nonzeros), why)
    if raw is None:
        return None
    try:
        indices = decode_mask_indices(raw, terms.manifest.coordinates, nonzeros)
    except PayloadError:
        return Mask(digest, None)
    indices.flags.writeable = False
    return Mask(digest, indices)


def _bytes_max(nonzeros: int) -> int:
    """No mask of so many coordinates is longer, and no payload. A longer object, cut here, has no encoding's length."""
    return min(_VALUE_BYTES_MAX * nonzeros + _OTHER_BYTES_MAX, PAYLOAD_BYTES_MAX)
