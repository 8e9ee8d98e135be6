"""The masks of rounds whose updates have agreed coordinates: read and checked once each, whoever asks.

A mask is an object that the terms, or a published step, name. Operators or the aggregator put it there; where it is
missing, is no mask, or has another number of coordinates than the terms say, updates of the agreed mode are not
decided, which is not their fault. What that means is each caller's to say.

Format: proto/README.md, "Codec", masks; "What a round begins with".

Runs in: gatekeeper, aggregator.
Trusts: the round that names the digest, and its terms. Nothing that is stored.
"""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

from sfrl_secure.errors import PayloadError
from sfrl_secure.governance.terms import SegmentTerms
from sfrl_secure.ids import Digest
from sfrl_secure.limits import OBJECT_HEADER_BYTES_MAX
from sfrl_secure.sparse.mask import Mask, decode_mask
from sfrl_secure.storage.objects import Objects

MASKS_MAX = 4
"""Masks in memory, eight bytes a coordinate that is in them; names of what is none count too."""


class Masks:
    """Gives masks by their digests, those asked for last from memory. Safe for several threads."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._masks: OrderedDict[tuple[Digest, int], Mask | None] = OrderedDict()
        self._lock = Lock()

    def of(self, digest: Digest, terms: SegmentTerms) -> Mask:
        """Give a round's mask.

        Args:
            digest: what the round began with (`RoundState.mask`).
            terms: the round's, which say how many coordinates its mask has.

        Raises:
            NotFoundError, MissingEvidenceError, DigestError: it is not here, or is not what its name says.
            MalformedError: what has this name is no mask of so many coordinates of the model: none ever will be.
        """
        assert terms.mask is not None, "a round has a mask where its terms have one"
        nonzeros, coordinates = terms.mask.nonzeros, terms.model.manifest.coordinates
        # Under the lock: whoever comes second waits for the first instead of decoding again.
        with self._lock:
            if (digest, coordinates) not in self._masks:
                raw = self._objects.get(digest, 8 * nonzeros + OBJECT_HEADER_BYTES_MAX)
                self._masks[digest, coordinates] = _decoded(raw, coordinates)
                if len(self._masks) > MASKS_MAX:
                    self._masks.popitem(last=False)
            self._masks.move_to_end((digest, coordinates))
            found = self._masks[digest, coordinates]
        if found is None:
            raise PayloadError("format", "what the round names as its mask is none")
        if found.indices.size != nonzeros:
            raise PayloadError("declared", "the mask has another number of coordinates than the terms say")
        return found


def _decoded(raw: bytes, coordinates: int) -> Mask | None:
    """The mask; None of bytes that are none. Kept too: to read and hash it for each update would hold up the others."""
    try:
        return decode_mask(raw, coordinates)
    except PayloadError:
        return None
