"""How much a mask changed from one round to the next, where both masks are at hand.

Format: proto/README.md, "Masks"; "Codec", a payload in free mode of value type `none`.

Runs in: operators' machines, auditors' machines, cli.
Trusts: nothing that a store holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfrl_secure.errors import DigestError, MalformedError, MissingEvidenceError, NotFoundError
from sfrl_secure.governance.terms import SegmentTerms
from sfrl_secure.ids import Digest

if TYPE_CHECKING:
    from sfrl_secure.sparse.mask import Mask
    from sfrl_secure.storage.objects import Objects


def count_new_coordinates(terms: SegmentTerms, before: Digest, after: Digest, objects: Objects) -> int | None:
    """Count the coordinates of the later mask that the earlier one has not; None where one of the two is not to be had.

    Args:
        terms: of the earlier mask's round; both have as many coordinates as they say.
    """
    import numpy as np

    masks = [_read(terms, digest, objects) for digest in (before, after)]
    if masks[0] is None or masks[1] is None:
        return None
    return len(np.setdiff1d(masks[1].indices, masks[0].indices, assume_unique=True))


def _read(terms: SegmentTerms, digest: Digest, objects: Objects) -> Mask | None:
    from sfrl_secure.sparse.mask import decode_mask, mask_bytes_max

    assert terms.mask is not None, "a round with a mask is of terms with one"
    try:
        raw = objects.get(digest, mask_bytes_max(terms.mask.nonzeros))
        return decode_mask(raw, terms.model.manifest.coordinates)
    except (NotFoundError, MissingEvidenceError, DigestError, MalformedError):
        return None
