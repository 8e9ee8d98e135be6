"""Segment terms from a draft: people's units onto the grid, and the model that stays as it is.

Format: proto/README.md, "Documents", segment-terms.

Runs in: operators' machines, cli.
Trusts: nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from math import prod

from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.aggregation_terms import MaskTerms
from sfrl_secure.governance.build import build_terms
from sfrl_secure.governance.manifest import AXES_MAX, ModelManifest, TensorSpec
from sfrl_secure.governance.terms import (
    NORM_MAX,
    LeakageBound,
    LeakageTerms,
    ModelTerms,
    QuotaTerms,
    RoundTerms,
    UpdateLimits,
)
from sfrl_secure.ids import ZERO_DIGEST, Digest, parse_hex_digest, sha256
from sfrl_secure.limits import (
    GRID_EXPONENT_MAX,
    QUOTA_WINDOW_US_MAX,
    QUOTA_WINDOW_US_MIN,
    ROUND_US_MAX,
    ROUND_US_MIN,
    VALUE_MAX,
)
from sfrl_secure.operating.aggregation_tables import cap_of, clip_of, next_mask_of, rule_of, server_of
from sfrl_secure.operating.draft_tables import BoundTable, ModelTable, TermsDraft
from sfrl_secure.operating.units import format_duration, from_grid, to_grid

ZEROS = "zeros"
AGREED = "agreed"
ZERO_COORDINATES_MAX = 2**27
"""Coordinates of a model of zeros that is made here; a larger one is made where there is room, and named."""


def build_drafted_terms(
    draft: TermsDraft,
    model: ModelTerms | None,
    *,
    federation_id: Digest,
    version: int,
    previous: Digest,
    expires_us: int,
    may_stand_in: bool,
) -> bytes:
    """Build segment terms.

    Args:
        model: the segment's, where it has terms already; it keeps it.
        may_stand_in: where neither draft nor log has a model, check everything that does not depend on it.

    Raises:
        MalformedError: something does not fit; the sentence begins with the key.
    """
    if draft.model is not None:
        drafted = model_of(draft.model)
        if model is not None and drafted != model:
            raise MalformedError("model: a segment keeps its model for ever: leave the table [model] out")
        model = drafted
    if model is None:
        if not may_stand_in:
            raise MalformedError("segment: a new segment needs its model: write a table [model]")
        model = _stand_in(draft)
    for name in ("groups", "relay_groups", "operations", "value_types", "support_modes", "suites"):
        if len(set(getattr(draft, name))) != len(getattr(draft, name)):
            raise MalformedError(f"{name}: nothing stands there twice")
    exponent = model.grid_exponent
    limits, rounds, quota, leakage = draft.limits, draft.round, draft.quota, draft.leakage
    _within(rounds.duration, ROUND_US_MIN, ROUND_US_MAX, "round.duration", format_duration)
    _within(quota.window, QUOTA_WINDOW_US_MIN, QUOTA_WINDOW_US_MAX, "quota.window", format_duration)
    return build_terms(
        federation_id=federation_id,
        version=version,
        previous=previous,
        expires_us=expires_us,
        segment=draft.segment,
        sensitivity=draft.sensitivity,
        groups=draft.groups,
        operations=draft.operations,
        model=model,
        tensors=draft.tensors,
        value_types=draft.value_types,
        support_modes=draft.support_modes,
        mask=_mask_of(draft),
        relay_groups=draft.relay_groups,
        suites=draft.suites,
        limits=UpdateLimits(
            payload_bytes_max=limits.payload_bytes_max,
            nonzeros_max=limits.nonzeros_max,
            norm_max=_units(limits.norm_max, exponent, 1, NORM_MAX, "limits.norm_max"),
            magnitude_max=_units(limits.magnitude_max, exponent, 1, VALUE_MAX, "limits.magnitude_max"),
            weight_max=limits.weight_max,
        ),
        quota=QuotaTerms(quota.window, quota.updates_max, quota.bytes_max),
        leakage=LeakageTerms(
            nonzeros_min=leakage.nonzeros_min,
            weight_min=leakage.weight_min,
            # Rounded up: a claim below what was written is refused.
            noise_std_min=_units(leakage.noise_std_min, exponent, 0, VALUE_MAX, "leakage.noise_std_min", up=True),
            rows=_bounds(leakage.rows),
            labels=_bounds(leakage.labels),
        ),
        round_terms=RoundTerms(rounds.duration, rounds.cohort_min, rounds.cohort_max, rounds.rounds_max),
        rule=rule_of(draft.rule),
        clip=clip_of(draft.clip, exponent),
        cap=cap_of(draft.cap, exponent),
        server=server_of(draft.server, exponent),
        privacy=draft.privacy,
        evidence_days=draft.evidence_days,
        retention_days=draft.retention_days,
    )


def model_of(table: ModelTable) -> ModelTerms:
    """The model that a draft describes.

    Raises:
        MalformedError: it is none.
    """
    try:
        manifest = ModelManifest(
            tensors=tuple(TensorSpec(each.name, tuple(each.shape), each.dtype) for each in table.tensors),
            constants_exponent=table.constants_exponent,
            constants={name: tuple(values) for name, values in table.constants.items()},
        )
    except MalformedError as error:
        raise MalformedError(f"model.tensors: {error}") from None
    if table.initial == ZEROS:
        return ModelTerms(manifest, table.grid_exponent, sha256(zero_model(manifest, table.grid_exponent)))
    try:
        return ModelTerms(manifest, table.grid_exponent, parse_hex_digest(table.initial))
    except MalformedError:
        raise MalformedError(f'model.initial: the digest of a model object, or "{ZEROS}"') from None


def _mask_of(draft: TermsDraft) -> MaskTerms | None:
    if draft.mask is None:
        if AGREED in draft.support_modes:
            raise MalformedError("support_modes: agreed needs its mask: write a table [mask]")
        return None
    if AGREED not in draft.support_modes:
        raise MalformedError("mask: it is for the support mode agreed, which is not among support_modes")
    try:
        digest = parse_hex_digest(draft.mask.digest)
    except MalformedError:
        raise MalformedError("mask.digest: the SHA-256 of a mask object") from None
    return MaskTerms(digest, draft.mask.nonzeros, next_mask_of(draft.mask.next))


def zero_model(manifest: ModelManifest, grid_exponent: int) -> bytes:
    """The object of a model of zeros.

    Raises:
        MalformedError: it is too large to be made here.
    """
    import numpy as np

    from sfrl_secure.aggregation.models import ModelSnapshot

    if manifest.coordinates > ZERO_COORDINATES_MAX:
        raise MalformedError(f"model.initial: zeros are made here for at most {ZERO_COORDINATES_MAX} coordinates")
    return ModelSnapshot(manifest, grid_exponent, np.zeros(manifest.coordinates, dtype=np.int64)).to_bytes()


def _stand_in(draft: TermsDraft) -> ModelTerms:
    """Some model that the draft's own numbers fit, so that all else can be checked without the segment's."""
    shapes: dict[str, list[int]] = {name: [1] for name in draft.tensors}
    for key, bounds in (("rows", draft.leakage.rows), ("labels", draft.leakage.labels)):
        for bound in bounds:
            if not 0 <= bound.axis < AXES_MAX or bound.min < 1:
                raise MalformedError(f"leakage.{key}: an axis is 0 to {AXES_MAX - 1}, and min is 1 or more")
            shape = shapes.setdefault(bound.tensor, [1])
            shape += [1] * (bound.axis + 1 - len(shape))
            shape[bound.axis] = max(shape[bound.axis], bound.min)
    if draft.mask is not None and draft.mask.next is not None:
        # A mask that changes has its room among the tensors that updates may touch, beside the protected ones.
        for name in [each for each in draft.tensors if each not in draft.mask.next.protected][:1]:
            rest = prod(shapes[name][1:])
            shapes[name][0] = max(shapes[name][0], -(-draft.mask.nonzeros // rest))
    shapes["stand-in"] = [max(1, draft.limits.nonzeros_max)]
    try:
        manifest = ModelManifest(tuple(TensorSpec(name, tuple(shape), "int32") for name, shape in shapes.items()))
    except MalformedError as error:
        raise MalformedError(f"tensors: {error}") from None
    return ModelTerms(manifest, _coarsest_grid(draft), ZERO_DIGEST)


def _coarsest_grid(draft: TermsDraft) -> int:
    """The grid on which no number of the draft is too small; what is too large there is so on every finer one."""
    numbers = [draft.limits.norm_max, draft.limits.magnitude_max]
    numbers += [] if draft.clip is None or draft.clip.norm is None else [draft.clip.norm]
    numbers += [] if draft.cap is None else [draft.cap.magnitude]
    if draft.server is not None and draft.server.floor is not None:
        numbers += [draft.server.rate, draft.server.floor]
    # What is below the finest grid is a fault of its own, and says nothing of the grid.
    there = [number for number in numbers if to_grid(number, GRID_EXPONENT_MAX)]
    return next(each for each in range(GRID_EXPONENT_MAX + 1) if all(to_grid(number, each) for number in there))


def _units(value: int | Decimal, exponent: int, low: int, high: int, where: str, *, up: bool = False) -> int:
    return _within(to_grid(value, exponent, up=up), low, high, where, lambda units: from_grid(units, exponent))


def _within(value: int, low: int, high: int, where: str, words: Callable[[int], str]) -> int:
    if not low <= value <= high:
        raise MalformedError(f"{where}: it is from {words(low)} to {words(high)}")
    return value


def _bounds(tables: Sequence[BoundTable]) -> tuple[LeakageBound, ...]:
    return tuple(LeakageBound(each.tensor, each.axis, each.min) for each in tables)
