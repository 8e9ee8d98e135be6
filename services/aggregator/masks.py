"""The mask of a segment's terms: the coordinates of agreed updates, from the objects, by the digest in the terms.

Runs in: aggregator.
Trusts: the terms in force. No object.
"""

from __future__ import annotations

from sfrl_secure.errors import PayloadError
from sfrl_secure.governance.terms import SegmentTerms
from sfrl_secure.limits import PAYLOAD_BYTES_MAX
from sfrl_secure.sparse.mask import Mask, decode_mask
from sfrl_secure.storage.objects import Objects


class Masks:
    """Reads masks, and keeps the one that was asked for last."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._last: Mask | None = None

    def of(self, terms: SegmentTerms) -> Mask | None:
        """The mask of these terms; None where they have none.

        Raises:
            NotFoundError, MissingEvidenceError, DigestError: it is not here, or is not what its name says.
            PayloadError: what has this name is no mask of so many coordinates of the model: none ever will be.
        """
        if terms.mask is None:
            return None
        coordinates = terms.model.manifest.coordinates
        if self._last is None or (self._last.digest, self._last.coordinates) != (terms.mask.digest, coordinates):
            self._last = decode_mask(self._objects.get(terms.mask.digest, PAYLOAD_BYTES_MAX), coordinates)
        if self._last.indices.size != terms.mask.nonzeros:
            raise PayloadError("declared", "the mask has another number of coordinates than the terms say")
        return self._last
