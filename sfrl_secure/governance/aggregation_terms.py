"""How a segment's rounds are added up, as its terms say it: rule, clip, cap, server step, and how the mask changes.

What each of these does is in the specification; here are their parameters and bounds. A rule has exactly the parameters
that it needs.

Format: proto/README.md, "Documents", segment-terms; "Aggregation".

Runs in: everything.
Trusts: nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.fields import ObjectFields
from sfrl_secure.governance.manifest import ModelManifest, parse_tensor_name
from sfrl_secure.ids import Digest
from sfrl_secure.limits import COHORT_MAX, TENSORS_MAX, VALUE_MAX

PPM: Final = 1_000_000
LIARS_PPM_MAX: Final = 499_999
CLIP_NORM_MAX: Final = 2**62
CLIP_MEDIAN_PPM_MAX: Final = 10 * PPM
DECAY_MAX: Final = 65_535
"""A decay is so many 65,536th."""
MOMENTUM_RATE_MAX: Final = 2**20
ADAPTIVE_RATE_MAX: Final = 2**22
ADAPTIVE_COORDINATES_MAX: Final = 2**30
MASK_SCORES: Final = frozenset({"contribution", "saliency", "votes"})

WEIGHTED_MEAN: Final = "weighted_mean/v1"
UNION_MEAN: Final = "union_mean/v1"
NNM_TRIMMED_MEAN: Final = "nnm_trimmed_mean/v1"
MULTI_KRUM: Final = "multi_krum/v1"
MEDIAN: Final = "median/v1"
CLUSTERED_MEAN: Final = "clustered_mean/v1"

MOMENTUM: Final = "momentum/v1"
ADAPTIVE: Final = "adaptive/v1"

RULE_KEYS: Final[Mapping[str, Mapping[str, tuple[int, int]]]] = MappingProxyType({
    WEIGHTED_MEAN: {},
    UNION_MEAN: {},
    NNM_TRIMMED_MEAN: {"liars_ppm": (0, LIARS_PPM_MAX)},
    MULTI_KRUM: {"liars_ppm": (0, LIARS_PPM_MAX), "selected_ppm": (0, PPM)},
    MEDIAN: {},
    CLUSTERED_MEAN: {"alike_ppm": (1, PPM)},
})  # fmt: skip
"""Each rule with its parameters and their bounds."""


@dataclass(frozen=True, slots=True)
class RuleTerms:
    """The rule. Parameters that it does not have are 0.

    Attributes:
        liars_ppm: the share of a cohort that it is meant to stand, in millionths; rounded down to whole updates.
        selected_ppm: the share that multi-Krum averages; one update where that is less.
        alike_ppm: the cosine from which on two updates are alike.
    """

    name: str = WEIGHTED_MEAN
    liars_ppm: int = 0
    selected_ppm: int = 0
    alike_ppm: int = 0

    def members(self) -> dict[str, str | int]:
        """The rule as an object of the terms."""
        return {"name": self.name} | {key: getattr(self, key) for key in RULE_KEYS[self.name]}


@dataclass(frozen=True, slots=True)
class ClipTerms:
    """The norm to which longer updates are cut: fixed, in grid units; or so much of the round's median. One of them."""

    norm: int | None = None
    median_ppm: int | None = None

    def members(self) -> dict[str, int]:
        """The clip as an object of the terms."""
        return {key: value for key in ("norm", "median_ppm") if (value := getattr(self, key)) is not None}


@dataclass(frozen=True, slots=True)
class CapTerms:
    """The largest step, in grid units, of a coordinate that fewer than so many updates carry."""

    contributors_below: int
    magnitude: int


@dataclass(frozen=True, slots=True)
class MomentumTerms:
    """Server momentum; decay and rate in 65,536ths."""

    decay: int
    rate: int
    name: str = MOMENTUM


@dataclass(frozen=True, slots=True)
class AdaptiveTerms:
    """An adaptive server step; decays in 65,536ths, rate and floor in grid units."""

    decay: int
    decay_max: int
    rate: int
    floor: int
    name: str = ADAPTIVE


ServerTerms = MomentumTerms | AdaptiveTerms


@dataclass(frozen=True, slots=True)
class NextMaskTerms:
    """How the next round's mask is chosen.

    Attributes:
        score: what coordinates are ranked by, one of `MASK_SCORES`.
        regrow: how many places are open to every coordinate.
        protected: names of tensors whose coordinates are always in it.
    """

    score: str
    regrow: int
    protected: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class MaskTerms:
    """The coordinates that updates of the agreed support mode have.

    Attributes:
        digest: SHA-256 of the mask object of the first round under such terms.
        nonzeros: how many coordinates each round's mask has.
        next: how the mask changes from round to round; None where it does not.
    """

    digest: Digest
    nonzeros: int
    next: NextMaskTerms | None = None


def parse_rule(value: object) -> RuleTerms:
    """Parse `rule`.

    Raises:
        MalformedError: any other form.
    """
    name = value.get("name") if isinstance(value, dict) else None
    if not isinstance(name, str) or name not in RULE_KEYS:
        raise MalformedError(f"segment-terms.rule.name is one of {', '.join(sorted(RULE_KEYS))}")
    keys = RULE_KEYS[name]
    fields = ObjectFields(value, "rule", ("name", *keys))
    return RuleTerms(name, **{key: fields.integer(key, low, high) for key, (low, high) in keys.items()})


def parse_clip(value: object) -> ClipTerms | None:
    """Parse `clip`.

    Raises:
        MalformedError: any other form.
    """
    if value is None:
        return None
    if isinstance(value, dict) and "norm" in value:
        return ClipTerms(norm=ObjectFields(value, "clip", ("norm",)).integer("norm", 1, CLIP_NORM_MAX))
    fields = ObjectFields(value, "clip", ("median_ppm",))
    return ClipTerms(median_ppm=fields.integer("median_ppm", 1, CLIP_MEDIAN_PPM_MAX))


def parse_cap(value: object) -> CapTerms | None:
    """Parse `cap`.

    Raises:
        MalformedError: any other form.
    """
    if value is None:
        return None
    fields = ObjectFields(value, "cap", ("contributors_below", "magnitude"))
    return CapTerms(
        fields.integer("contributors_below", 1, COHORT_MAX + 1), fields.integer("magnitude", 1, VALUE_MAX)
    )


def parse_server(value: object, coordinates: int) -> ServerTerms | None:
    """Parse `server`, of a model with so many coordinates.

    Raises:
        MalformedError: any other form, or a state that is too large.
    """
    if value is None:
        return None
    if isinstance(value, dict) and value.get("name") == MOMENTUM:
        fields = ObjectFields(value, "server", ("name", "decay", "rate"))
        return MomentumTerms(fields.integer("decay", 0, DECAY_MAX), fields.integer("rate", 1, MOMENTUM_RATE_MAX))
    fields = ObjectFields(value, "server", ("name", "decay", "decay_max", "rate", "floor"))
    fields.choice("name", {ADAPTIVE, MOMENTUM})
    if coordinates > ADAPTIVE_COORDINATES_MAX:
        raise MalformedError(f"server: adaptive steps are for models of at most {ADAPTIVE_COORDINATES_MAX} coordinates")
    return AdaptiveTerms(
        decay=fields.integer("decay", 0, DECAY_MAX),
        decay_max=fields.integer("decay_max", 0, DECAY_MAX),
        rate=fields.integer("rate", 1, ADAPTIVE_RATE_MAX),
        floor=fields.integer("floor", 1, VALUE_MAX),
    )


def parse_mask(
    value: object, nonzeros_max: int, manifest: ModelManifest, tensors: tuple[str, ...]
) -> MaskTerms | None:
    """Parse `mask`, of terms whose updates may touch `tensors` of the manifest.

    Raises:
        MalformedError: any other form, or protected tensors that leave no room.
    """
    if value is None:
        return None
    fields = ObjectFields(value, "mask", ("digest", "nonzeros", "next"))
    nonzeros = fields.integer("nonzeros", 1, nonzeros_max)
    return MaskTerms(fields.digest("digest"), nonzeros, _parse_next(fields["next"], nonzeros, manifest, tensors))


def _parse_next(
    value: object, nonzeros: int, manifest: ModelManifest, tensors: tuple[str, ...]
) -> NextMaskTerms | None:
    if value is None:
        return None
    fields = ObjectFields(value, "mask.next", ("score", "regrow", "protected"))
    score = fields.choice("score", MASK_SCORES)
    regrow = fields.integer("regrow", 1, nonzeros)
    protected = fields.sorted_texts("protected", 0, TENSORS_MAX, parse_tensor_name)
    sizes = {tensor.name: tensor.coordinates for tensor in manifest.tensors if tensor.name in tensors}
    if not protected <= sizes.keys():
        raise MalformedError("mask.next.protected are tensors that updates may touch")
    if sum(sizes[name] for name in protected) > nonzeros - regrow:
        raise MalformedError("mask.next.protected are tensors that fit into the mask, beside what is regrown")
    if sum(sizes.values()) < nonzeros:
        raise MalformedError("mask.nonzeros: a mask that changes has at most the coordinates that updates may touch")
    return NextMaskTerms(score, regrow, protected)
