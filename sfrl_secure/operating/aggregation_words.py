"""How rounds are added up, in words: what operators and auditors read of rule, clip, cap, server step and mask.

Runs in: operators' machines, auditors' machines, cli.
Trusts: nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from sfrl_secure.governance.aggregation_terms import (
    CLUSTERED_MEAN,
    MEDIAN,
    MULTI_KRUM,
    NNM_TRIMMED_MEAN,
    PPM,
    UNION_MEAN,
    CapTerms,
    ClipTerms,
    MomentumTerms,
    NextMaskTerms,
    RuleTerms,
    ServerTerms,
)
from sfrl_secure.governance.terms import SegmentTerms
from sfrl_secure.operating.aggregation_tables import DECAY_PARTS
from sfrl_secure.operating.units import from_parts, in_parameter_units


def rule_words(rule: RuleTerms) -> str:
    """A rule and its parameters."""
    liars = f"against {_percent(rule.liars_ppm)} liars; weights do not count"
    match rule.name:
        case name if name == NNM_TRIMMED_MEAN:
            return f"{name}: trimmed mean of nearest neighbours, {liars}"
        case name if name == MULTI_KRUM:
            how_many = f"the best {_percent(rule.selected_ppm)}" if rule.selected_ppm else "the best one"
            return f"{name}: mean of {how_many}, {liars}"
        case name if name == MEDIAN:
            return f"{name}: median of each coordinate; weights do not count"
        case name if name == UNION_MEAN:
            return f"{name}: weighted mean of those who sent the coordinate"
        case name if name == CLUSTERED_MEAN:
            return f"{name}: weighted mean; a model of its own for who is alike from cosine {_share(rule.alike_ppm)} on"
        case name:
            return f"{name}: weighted mean, missing is zero"


def clip_words(clip: ClipTerms | None, exponent: int) -> str:
    """To what norm longer updates are cut."""
    if clip is None:
        return "none"
    if clip.norm is not None:
        return f"updates are cut to norm {in_parameter_units(clip.norm, exponent)}"
    assert clip.median_ppm is not None, "a clip is one of the two"
    return f"updates are cut to {_share(clip.median_ppm)} of the round's median norm"


def cap_words(cap: CapTerms | None, exponent: int) -> str:
    """How far a coordinate moves that few sent."""
    if cap is None:
        return "none"
    moved = in_parameter_units(cap.magnitude, exponent)
    return f"at most {moved} where fewer than {cap.contributors_below} sent the coordinate"


def server_words(server: ServerTerms | None, exponent: int) -> str:
    """What the server makes of a round's step."""
    match server:
        case None:
            return "none: the step is what the rule gives"
        case MomentumTerms():
            return f"{server.name}: decay {_parts(server.decay)}, rate {_parts(server.rate)}"
        case _:
            return (
                f"{server.name}: decays {_parts(server.decay)} and {_parts(server.decay_max)}, rate "
                f"{in_parameter_units(server.rate, exponent)}, floor {in_parameter_units(server.floor, exponent)}"
            )


def next_mask_words(chosen: NextMaskTerms | None) -> str:
    """How a mask changes from round to round."""
    if chosen is None:
        return "it stays"
    kept = f"; {', '.join(sorted(chosen.protected))} always in it" if chosen.protected else ""
    return f"each round {chosen.regrow} of its places are open to all, by {chosen.score}{kept}"


def aggregation_parts(terms: SegmentTerms) -> Iterator[tuple[str, str]]:
    """Each of rule, clip, cap and server step with its words."""
    exponent = terms.model.grid_exponent
    yield "rule", rule_words(terms.rule)
    yield "clip", clip_words(terms.clip, exponent)
    yield "cap", cap_words(terms.cap, exponent)
    yield "server", server_words(terms.server, exponent)


def _percent(ppm: int) -> str:
    return f"{from_parts(ppm, PPM // 100).removesuffix('.0')} %"


def _share(ppm: int) -> str:
    return from_parts(ppm, PPM)


def _parts(number: int) -> str:
    return from_parts(number, DECAY_PARTS)
