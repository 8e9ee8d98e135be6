"""The mask that terms name: it lies among the objects and is what they say, or whoever builds them hears of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from simulator import Simulator

from sfrl_secure.errors import DigestError, MalformedError, NotFoundError
from sfrl_secure.governance.aggregation_terms import MaskTerms
from sfrl_secure.governance.documents import SegmentTerms, parse_document
from sfrl_secure.ids import Digest, sha256
from sfrl_secure.operating.mask_object import check_mask_object
from sfrl_secure.sparse.mask import encode_mask
from sfrl_secure.storage.objects import ObjectStore


@pytest.fixture
def objects(tmp_path: Path) -> ObjectStore:
    return ObjectStore(tmp_path / "objects")


def terms(sim: Simulator, digest: Digest, nonzeros: int) -> SegmentTerms:
    raw = sim.terms_raw(support_modes=["agreed"], mask=MaskTerms(digest, nonzeros))
    document = parse_document(SegmentTerms.payload_type, raw)
    assert isinstance(document, SegmentTerms)
    return document


def mask(coordinates: int) -> bytes:
    return encode_mask(coordinates, np.array([0, 2, 5], dtype=np.int64))


def test_a_mask_that_is_what_the_terms_say_passes_and_so_do_terms_without_one(
    sim: Simulator, objects: ObjectStore
) -> None:
    check_mask_object(sim.segment.terms, objects)
    raw = mask(sim.segment.terms.model.manifest.coordinates)
    check_mask_object(terms(sim, objects.put(raw), 3), objects)


def test_a_mask_that_is_not_there_is_named(sim: Simulator, objects: ObjectStore) -> None:
    with pytest.raises(NotFoundError, match=f"no object {sha256(b'mask').hex()} lies there"):
        check_mask_object(terms(sim, sha256(b"mask"), 3), objects)


def test_what_is_no_mask_of_the_model_or_has_another_number_is_refused(sim: Simulator, objects: ObjectStore) -> None:
    coordinates = sim.segment.terms.model.manifest.coordinates
    for raw in (b"no mask", mask(coordinates + 1), bytes(8 * 3 + 4_097)):
        with pytest.raises(MalformedError, match="no mask of this model"):
            check_mask_object(terms(sim, objects.put(raw), 3), objects)
    for nonzeros in (2, 4):
        with pytest.raises(MalformedError, match="that mask has 3 coordinates"):
            check_mask_object(terms(sim, objects.put(mask(coordinates)), nonzeros), objects)


def test_damaged_bytes_under_the_name_are_not_the_mask(sim: Simulator, objects: ObjectStore) -> None:
    digest = objects.put(mask(sim.segment.terms.model.manifest.coordinates))
    objects.path(digest).write_bytes(b"rotten")
    with pytest.raises(DigestError):
        check_mask_object(terms(sim, digest, 3), objects)
