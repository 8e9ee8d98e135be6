"""The masks of rounds whose updates have agreed coordinates: read and checked once each, whoever asks.

A mask is an object that the terms, or a published step, name. Operators or the aggregator put it there. Where it is
missing or altered, it may come yet. Where an object of this very name is no mask, or has another number of coordinates
than the terms say, no wait helps: nobody's is another. One that is longer than any mask is hashed and not kept.

Format: proto/README.md, "Codec", masks; "What a round begins with".

Runs in: gatekeeper, aggregator.
Trusts: the round that names the digest, and its terms. Nothing that is stored.
"""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

from sfrl_secure.errors import MalformedError, PayloadError
from sfrl_secure.governance.terms import SegmentTerms
from sfrl_secure.ids import Digest
from sfrl_secure.limits import OBJECT_BYTES_MAX
from sfrl_secure.sparse.mask import Mask, decode_mask, mask_bytes_max
from sfrl_secure.storage.objects import Objects

MASKS_MAX = 4
"""Masks in memory, eight bytes a coordinate that is in them; names of what is none count too."""


class Masks:
    """Gives masks by their digests, those asked for last from memory. Safe for several threads."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._masks: OrderedDict[tuple[Digest, int, int], Mask | None] = OrderedDict()
        self._lock = Lock()

    def of(self, digest: Digest, terms: SegmentTerms) -> Mask:
        """Give a round's mask.

        Args:
            digest: what the round began with (`RoundState.mask`).
            terms: the round's, which say how many coordinates its mask has.

        Raises:
            NotFoundError, MissingEvidenceError, DigestError, MalformedError: it is not here, is not what its name says,
                or is longer than any object.
            PayloadError: what has this name is no mask of so many coordinates of the model: none ever will be.
        """
        assert terms.mask is not None, "a round has a mask where its terms have one"
        nonzeros, coordinates = terms.mask.nonzeros, terms.model.manifest.coordinates
        # Under the lock: whoever comes second waits for the first instead of decoding again.
        key = digest, coordinates, nonzeros
        with self._lock:
            if key not in self._masks:
                self._masks[key] = self._read(*key)
                if len(self._masks) > MASKS_MAX:
                    self._masks.popitem(last=False)
            self._masks.move_to_end(key)
            found = self._masks[key]
        if found is None:
            raise PayloadError("format", "what the round names as its mask is none")
        if found.indices.size != nonzeros:
            raise PayloadError("declared", "the mask has another number of coordinates than the terms say")
        return found

    def _read(self, digest: Digest, coordinates: int, nonzeros: int) -> Mask | None:
        """Read what has this name; None where that is no mask."""
        try:
            return _decoded(self._objects.get(digest, mask_bytes_max(nonzeros)), coordinates)
        except MalformedError:
            # Too long: but only an object with this very digest may speak for it, whoever writes into the store.
            with self._objects.open(digest, OBJECT_BYTES_MAX) as reader:
                reader.check_digest()
            return None


def _decoded(raw: bytes, coordinates: int) -> Mask | None:
    """The mask; None of bytes that are none. Kept too: to read and hash it for each update would hold up the others."""
    try:
        return decode_mask(raw, coordinates)
    except PayloadError:
        return None
