"""How rounds are added up, as segment terms say it: rule, clip, cap, server step, and how the mask changes.

Format: proto/README.md, "Documents", segment-terms; "Rules", "Clip", "Cap", "Server step", "Masks".

Runs in: verifier.
Trusts: nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sfrl_secure.errors import MalformedError
from sfrl_secure.ids import Digest
from sfrl_secure.limits import COHORT_MAX, TENSORS_MAX, VALUE_MAX
from sfrl_secure.replay.json_fields import (
    take_choice,
    take_digest,
    take_integer,
    take_mapping,
    take_object,
    take_sorted,
)
from sfrl_secure.replay.manifest import Manifest, parse_tensor_name

WEIGHTED_MEAN: Final = "weighted_mean/v1"
UNION_MEAN: Final = "union_mean/v1"
NNM_TRIMMED_MEAN: Final = "nnm_trimmed_mean/v1"
MULTI_KRUM: Final = "multi_krum/v1"
MEDIAN: Final = "median/v1"
CLUSTERED_MEAN: Final = "clustered_mean/v1"
MOMENTUM: Final = "momentum/v1"
ADAPTIVE: Final = "adaptive/v1"

_RULES: Final[dict[str, dict[str, tuple[int, int]]]] = {
    WEIGHTED_MEAN: {},
    UNION_MEAN: {},
    NNM_TRIMMED_MEAN: {"liars_ppm": (0, 499_999)},
    MULTI_KRUM: {"liars_ppm": (0, 499_999), "selected_ppm": (0, 1_000_000)},
    MEDIAN: {},
    CLUSTERED_MEAN: {"alike_ppm": (1, 1_000_000)},
}
"""Each rule's further keys, and the range of each."""
_SERVERS: Final[dict[str, dict[str, tuple[int, int]]]] = {
    MOMENTUM: {"decay": (0, 65_535), "rate": (1, 2**20)},
    ADAPTIVE: {"decay": (0, 65_535), "decay_max": (0, 65_535), "rate": (1, 2**22), "floor": (1, 2**40)},
}
_KEYS_MAX: Final = 5
"""No rule and no server step has more, its name among them."""
_ADAPTIVE_COORDINATES_MAX: Final = 2**30
_SCORES: Final = frozenset({"contribution", "saliency", "votes"})


@dataclass(frozen=True, slots=True)
class Rule:
    """The rule. What it has no key for is 0."""

    name: str
    liars_ppm: int = 0
    selected_ppm: int = 0
    alike_ppm: int = 0


@dataclass(frozen=True, slots=True)
class Clip:
    """The norm to which longer updates are cut: `norm`, or so many millionths of the median. The other is None."""

    norm: int | None
    median_ppm: int | None


@dataclass(frozen=True, slots=True)
class Cap:
    """The largest step of a coordinate that fewer than so many updates carry."""

    contributors_below: int
    magnitude: int


@dataclass(frozen=True, slots=True)
class Server:
    """The server step. `momentum/v1` has no `decay_max` and no `floor`: they are 0."""

    name: str
    decay: int
    rate: int
    decay_max: int = 0
    floor: int = 0


@dataclass(frozen=True, slots=True)
class NextMask:
    """How the next mask is chosen; `protected` are positions of tensors in the manifest."""

    score: str
    regrow: int
    protected: frozenset[int]


@dataclass(frozen=True, slots=True)
class MaskOfTerms:
    """The mask that terms name: the digest of the first one, how many coordinates each has, and how it changes."""

    digest: Digest
    nonzeros: int
    next: NextMask | None


def parse_rule(value: Any) -> Rule:
    """Read the member `rule`."""
    name = _name_of(value, frozenset(_RULES))
    fields = take_object(value, _RULES[name].keys() | {"name"})
    return Rule(name, **{key: take_integer(fields[key], *bounds) for key, bounds in _RULES[name].items()})


def parse_clip(value: Any) -> Clip | None:
    """Read the member `clip`."""
    if value is None:
        return None
    if "norm" in take_mapping(value, 1, 1):
        return Clip(take_integer(take_object(value, {"norm"})["norm"], 1, 2**62), None)
    return Clip(None, take_integer(take_object(value, {"median_ppm"})["median_ppm"], 1, 10_000_000))


def parse_cap(value: Any) -> Cap | None:
    """Read the member `cap`."""
    if value is None:
        return None
    fields = take_object(value, {"contributors_below", "magnitude"})
    below = take_integer(fields["contributors_below"], 1, COHORT_MAX + 1)
    return Cap(below, take_integer(fields["magnitude"], 1, VALUE_MAX))


def parse_server(value: Any, coordinates: int) -> Server | None:
    """Read the member `server`."""
    if value is None:
        return None
    name = _name_of(value, frozenset(_SERVERS))
    if name == ADAPTIVE and coordinates > _ADAPTIVE_COORDINATES_MAX:
        raise MalformedError(f"an adaptive step is for models of at most {_ADAPTIVE_COORDINATES_MAX} coordinates")
    fields = take_object(value, _SERVERS[name].keys() | {"name"})
    return Server(name, **{key: take_integer(fields[key], *bounds) for key, bounds in _SERVERS[name].items()})


def parse_mask(value: Any, manifest: Manifest, tensors: frozenset[int], nonzeros_max: int) -> MaskOfTerms | None:
    """Read the member `mask`.

    Args:
        tensors: positions of those that updates may touch.
    """
    if value is None:
        return None
    fields = take_object(value, {"digest", "nonzeros", "next"})
    nonzeros = take_integer(fields["nonzeros"], 1, nonzeros_max)
    chosen = None if fields["next"] is None else _parse_next(fields["next"], manifest, tensors, nonzeros)
    return MaskOfTerms(take_digest(fields["digest"]), nonzeros, chosen)


def _parse_next(value: Any, manifest: Manifest, tensors: frozenset[int], nonzeros: int) -> NextMask:
    fields = take_object(value, {"score", "regrow", "protected"})
    regrow = take_integer(fields["regrow"], 1, nonzeros)
    positions = {manifest.tensors[position].name: position for position in tensors}
    names = take_sorted(fields["protected"], 0, TENSORS_MAX, parse_tensor_name)
    if not positions.keys() >= set(names):
        raise MalformedError("protected are tensors that updates may touch")
    protected = frozenset(positions[name] for name in names)
    if _coordinates_in(manifest, protected) > nonzeros - regrow:
        raise MalformedError("protected tensors leave the places open that are regrown")
    if _coordinates_in(manifest, tensors) < nonzeros:
        raise MalformedError("a mask has no more coordinates than updates may touch")
    return NextMask(take_choice(fields["score"], _SCORES), regrow, protected)


def _coordinates_in(manifest: Manifest, positions: frozenset[int]) -> int:
    return sum(manifest.tensors[position].end - manifest.tensors[position].start for position in positions)


def _name_of(value: Any, allowed: frozenset[str]) -> str:
    """The `name` of an object whose other keys depend on it."""
    return take_choice(take_mapping(value, 1, _KEYS_MAX).get("name"), allowed)
