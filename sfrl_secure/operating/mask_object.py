"""The mask that terms name, where updates' readers look for it: missing or wrong, it is found before anybody signs.

Format: proto/README.md, "Codec", a payload in free mode of value type `none`.

Runs in: operators' machines, cli.
Trusts: nothing that a store holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfrl_secure.errors import MalformedError, NotFoundError
from sfrl_secure.governance.terms import SegmentTerms

if TYPE_CHECKING:
    from sfrl_secure.storage.objects import Objects


def check_mask_object(terms: SegmentTerms, objects: Objects) -> None:
    """Check that the mask of `terms` lies among the objects and is the one that they describe; terms without one pass.

    Raises:
        NotFoundError: no object has its name.
        MalformedError: the object is no mask over the model's coordinates, or has another number of them.
        DigestError, MissingEvidenceError: what lies there has another digest, or cannot be read.
    """
    from sfrl_secure.sparse.mask import decode_mask, mask_bytes_max

    if terms.mask is None:
        return
    digest, nonzeros = terms.mask.digest, terms.mask.nonzeros
    try:
        raw = objects.get(digest, mask_bytes_max(nonzeros))
        mask = decode_mask(raw, terms.model.manifest.coordinates)
    except NotFoundError:
        raise NotFoundError(f"mask.digest: no object {digest.hex()} lies there") from None
    except MalformedError as error:
        raise MalformedError(f"mask.digest: that object is no mask of this model: {error}") from None
    if len(mask.indices) != nonzeros:
        raise MalformedError(f"mask.nonzeros: that mask has {len(mask.indices)} coordinates")
