"""The masks of segments whose updates have agreed coordinates: read and checked once each.

A mask is an object that the terms name. Operators put it there; where it is missing, is no mask, or has another number
of coordinates than the terms say, updates of the agreed mode are not decided, which is not their fault.

Format: proto/README.md, "Codec", masks.

Runs in: gatekeeper.
Trusts: the terms in force, for the mask's digest. Nothing that is stored.
"""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

import structlog

from sfrl_secure.errors import SfrlError, UnavailableError
from sfrl_secure.governance.terms import SegmentTerms
from sfrl_secure.ids import Digest
from sfrl_secure.limits import PAYLOAD_BYTES_MAX
from sfrl_secure.sparse.mask import Mask, decode_mask
from sfrl_secure.storage.objects import Objects

MASKS_MAX = 4
"""Masks in memory, eight bytes a coordinate that is in them."""

_log = structlog.get_logger()


class Masks:
    """Gives masks by the terms that name them. Safe for several threads."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._masks: OrderedDict[tuple[Digest, int], Mask] = OrderedDict()
        self._lock = Lock()

    def mask_of(self, terms: SegmentTerms) -> Mask:
        """Give the mask of terms that have one.

        Raises:
            UnavailableError: it is not stored, or what is stored is no mask of this model, or not one of so many
                coordinates as the terms say.
        """
        assert terms.mask is not None, "terms that allow the agreed mode have a mask"
        name = terms.mask.digest, terms.model.manifest.coordinates
        # Under the lock: whoever comes second waits for the first instead of decoding again.
        with self._lock:
            found = self._masks.get(name)
            if found is None:
                found = self._masks[name] = self._read(*name)
                if len(self._masks) > MASKS_MAX:
                    self._masks.popitem(last=False)
            self._masks.move_to_end(name)
        if found.indices.size != terms.mask.nonzeros:
            _log.error("mask_not_usable", digest=terms.mask.digest.hex(), error="nonzeros")
            raise UnavailableError("the segment's mask is not the one that its terms describe: tell an operator")
        return found

    def _read(self, digest: Digest, coordinates: int) -> Mask:
        try:
            return decode_mask(self._objects.get(digest, PAYLOAD_BYTES_MAX), coordinates)
        except SfrlError as error:
            _log.error("mask_not_usable", digest=digest.hex(), error=type(error).__name__)
            raise UnavailableError("the segment's mask cannot be read here: tell an operator") from None
