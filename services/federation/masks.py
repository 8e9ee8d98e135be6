"""Masks of a plan: the files beside it that say which coordinates agreed updates have.

Format: proto/README.md, "Codec", a payload in free mode of value type `none`.

Runs in: cli, demo.
Trusts: whoever starts it; not what a file holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sfrl_secure.errors import MalformedError, MissingEvidenceError, NotFoundError
from sfrl_secure.governance.aggregation_terms import MaskTerms, NextMaskTerms
from sfrl_secure.operating.aggregation_tables import next_mask_of
from sfrl_secure.services.federation.plan import FederationPlan, SegmentPlan
from sfrl_secure.services.federation.plan_checks import check_size, check_terms, fault_of
from sfrl_secure.sparse.header import NO_VALUES, parse_preamble
from sfrl_secure.sparse.mask import Mask, decode_mask, mask_bytes_max
from sfrl_secure.storage.files import read_bounded

_HOW_TO = "a mask is what sfrl_secure.sparse.mask.encode_mask(coordinates, indices) returns"


@dataclass(frozen=True, slots=True)
class PlannedMask:
    """A mask that was decoded: its object's bytes, and what the terms say of it."""

    raw: bytes
    terms: MaskTerms


def read_masks(plan: FederationPlan, folder: Path) -> dict[str, bytes]:
    """Read the mask of each segment that names one, from files in `folder`.

    Raises:
        NotFoundError, MalformedError, MissingEvidenceError: a file is not there, too long, or cannot be read.
    """
    found = {}
    for segment in plan.segments:
        if segment.mask is None:
            continue
        path = folder / segment.mask
        where = f"the mask of segment {segment.name}"
        try:
            found[segment.name] = read_bounded(path, mask_bytes_max(segment.manifest.coordinates))
        except NotFoundError:
            raise NotFoundError(f"{where}: there is no file {path}") from None
        except MalformedError as error:
            raise MalformedError(f"{where}, {path}: {error}") from None
        except MissingEvidenceError as error:
            raise MissingEvidenceError(f"{where}, {path}: {error}") from None
    return found


def open_masks(plan: FederationPlan, raw: Mapping[str, bytes]) -> dict[str, PlannedMask]:
    """Decode the masks of all segments that name one; others are not looked at.

    Raises:
        MalformedError: one is missing, is none over its segment's coordinates, has more than nonzeros_max or none, or
            updates that have it are longer than payload_bytes_max, or it cannot change as the plan says.
    """
    masks = {}
    for segment in plan.segments:
        if segment.mask is None:
            continue
        where = f"the mask of segment {segment.name}, {segment.mask}"
        if segment.name not in raw:
            raise MalformedError(f"{where}: it is not given")
        mask = _decoded(raw[segment.name], segment.manifest.coordinates, where)
        count = len(mask.indices)
        if not count:
            raise MalformedError(f"{where}: it names no coordinate")
        if count > segment.nonzeros_max:
            raise MalformedError(f"{where}: it names {count} coordinates, and nonzeros_max is {segment.nonzeros_max}")
        check_size(segment, "agreed", count)
        terms = MaskTerms(mask.digest, count, _next_of(segment))
        check_terms(segment, terms)
        masks[segment.name] = PlannedMask(raw[segment.name], terms)
    return masks


def _next_of(segment: SegmentPlan) -> NextMaskTerms | None:
    try:
        return next_mask_of(segment.mask_next)
    except MalformedError as error:
        raise fault_of(segment, error) from None


def _decoded(raw: bytes, coordinates: int, where: str) -> Mask:
    try:
        found = parse_preamble(raw)
        if found.value_type == NO_VALUES and found.coordinates != coordinates:
            raise MalformedError(f"it is of a model of {found.coordinates} coordinates; the plan's has {coordinates}")
        return decode_mask(raw, coordinates)
    except MalformedError as error:
        raise MalformedError(f"{where}: {error}; {_HOW_TO}") from None
