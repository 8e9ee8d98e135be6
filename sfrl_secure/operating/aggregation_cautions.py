"""What rules of aggregation do not stand, where operators may expect it of them: said before they sign.

A caution is arithmetic over the terms alone: who must be how many, what never acts, what undoes what, what costs much.

Format: proto/README.md, "Aggregation", "Masks".

Runs in: operators' machines, cli.
Trusts: nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sfrl_secure.governance.aggregation_terms import (
    CLUSTERED_MEAN,
    MEDIAN,
    MULTI_KRUM,
    NNM_TRIMMED_MEAN,
    PPM,
    UNION_MEAN,
    WEIGHTED_MEAN,
    AdaptiveTerms,
    CapTerms,
    MaskTerms,
    MomentumTerms,
    NextMaskTerms,
)
from sfrl_secure.governance.manifest import ModelManifest
from sfrl_secure.governance.terms import SegmentTerms
from sfrl_secure.operating.aggregation_tables import DECAY_PARTS
from sfrl_secure.operating.units import from_parts, in_parameter_units

_MEANS = frozenset({WEIGHTED_MEAN, UNION_MEAN, CLUSTERED_MEAN})
_PAIRING = frozenset({NNM_TRIMMED_MEAN, MULTI_KRUM, CLUSTERED_MEAN})
"""Rules that hold every two updates against each other."""

_PRODUCTS_A_SECOND: Final = 880_000_000
"""What one processor makes of pairs of updates, to within a few times: 500 of 112,000 values in 31.8 s."""
_LONG_SECONDS: Final = 30
_STATE_BYTES_EACH: Final = 6
"""Of one number of a server state in its object, the longest; in memory it has eight."""
_LARGE_STATE_BYTES: Final = 2**30


def aggregation_cautions(terms: SegmentTerms) -> Iterator[str]:
    """Say what of rule, clip, cap, server step and changing mask somebody should look at twice."""
    yield from _means(terms)
    yield from _liars(terms)
    yield from _few_voices(terms)
    yield from _clip_and_cap(terms)
    yield from _server(terms)
    yield from _cost(terms)
    if terms.mask is not None and terms.mask.next is not None and terms.support_modes == {"agreed"}:
        yield _of_agreed_alone(terms.mask, terms.mask.next, terms.model.manifest)


def _of_agreed_alone(mask: MaskTerms, chosen: NextMaskTerms, manifest: ModelManifest) -> str:
    protected = sum(tensor.coordinates for tensor in manifest.tensors if tensor.name in chosen.protected)
    if chosen.regrow < mask.nonzeros - protected:
        return (
            "where all updates are agreed nothing is known outside of the mask: it regrows by chance; support_modes "
            "with free or dense show it others"
        )
    return (
        "where all updates are agreed only the mask's own places have a score, and with a regrow of all of them it "
        "hardly ever changes: a smaller regrow gives places up"
    )


def _means(terms: SegmentTerms) -> Iterator[str]:
    rule = terms.rule.name
    if rule == MEDIAN:
        yield "a median of each coordinate alone loses to the mean under small, common lies: see nnm_trimmed_mean/v1"
    if rule == MEDIAN and not _is_one_support(terms):
        yield "under median/v1 a coordinate that fewer than half of a round send stays as it is"
    if rule in _MEANS and terms.clip is None:
        yield "under a mean without [clip] one liar moves the model as far as limits.norm_max and its weight let it"
    if rule == UNION_MEAN and terms.cap is None and not _is_one_support(terms):
        yield "who alone sends a coordinate decides it, under union_mean/v1 without [cap]"


def _liars(terms: SegmentTerms) -> Iterator[str]:
    """Shares that come to nobody, or to more than the rule is made for, in a cohort that a round may have."""
    rule, rounds = terms.rule, terms.round
    if rule.name not in (NNM_TRIMMED_MEAN, MULTI_KRUM):
        return
    if not rounds.cohort_max * rule.liars_ppm // PPM:
        yield f"rule.liars rounds down to nobody, in a cohort of {rounds.cohort_max}"
    elif not rounds.cohort_min * rule.liars_ppm // PPM:
        yield f"rule.liars rounds down to nobody, in a cohort of {rounds.cohort_min} that the round allows"
    if rule.name == MULTI_KRUM:
        for updates in range(rounds.cohort_min, rounds.cohort_max + 1):
            liars = updates * rule.liars_ppm // PPM
            if liars and updates < 2 * liars + 3:
                yield (
                    f"multi_krum/v1 takes {2 * liars + 3} updates or more against {liars} of them that lie, and a "
                    f"round may close with {updates}"
                )
                break
        if rule.selected_ppm + rule.liars_ppm > PPM:
            yield "rule.selected and rule.liars come to more than 1: liars are among those whose mean is taken"


def _few_voices(terms: SegmentTerms) -> Iterator[str]:
    """Models that one update makes, though cohort_min asks for more."""
    rule, least = terms.rule, terms.round.cohort_min
    if rule.name == MULTI_KRUM and least * rule.selected_ppm // PPM <= 1:
        yield f"a round of {least} takes one update as it is: the model shows whoever was selected what it sent"
    if rule.name == CLUSTERED_MEAN and terms.round.cohort_max < 2 * least:
        yield (
            f"a cluster has {least} updates or more and leaves {least} or none: in a cohort of at most "
            f"{terms.round.cohort_max} there are never two"
        )
    if rule.name == CLUSTERED_MEAN and least == 1:
        yield "with a cohort_min of 1 a cluster may have one member, and its model shows what that member sent"


def _clip_and_cap(terms: SegmentTerms) -> Iterator[str]:
    limits, clip, cap = terms.limits, terms.clip, terms.cap
    if clip is not None and clip.norm is not None and clip.norm >= limits.norm_max:
        yield "clip.norm is not below limits.norm_max: no update is ever cut"
    if cap is not None and (cap.magnitude >= limits.magnitude_max or not _ever_few(terms, cap)):
        yield "[cap] never acts: no coordinate with so few contributors can have so large a step"


def _server(terms: SegmentTerms) -> Iterator[str]:
    server, cap, exponent = terms.server, terms.cap, terms.model.grid_exponent
    if isinstance(server, MomentumTerms) and server.rate > DECAY_PARTS - server.decay:
        times = from_parts(server.rate, DECAY_PARTS - server.decay)
        yield f"server: a step that stays the same comes to {times} times itself"
    if isinstance(server, AdaptiveTerms) and cap is not None and server.rate > max(cap.magnitude, server.floor):
        moved = in_parameter_units(server.rate, exponent)
        yield f"server: an adaptive step scales up what [cap] cut: a coordinate moves by up to {moved} all the same"


def _cost(terms: SegmentTerms) -> Iterator[str]:
    """Rounds that take long, and states that take much room, where a segment is as full as it may be."""
    updates, values, coordinates = terms.round.cohort_max, _values_max(terms), terms.model.manifest.coordinates
    seconds = updates * updates * values // _PRODUCTS_A_SECOND
    if terms.rule.name in _PAIRING and seconds >= _LONG_SECONDS:
        yield (
            f"{terms.rule.name} holds every two updates against each other: {updates} updates of {values} values take "
            f"one processor about {seconds} s, and an auditor longer; twice the updates take four times that"
        )
    numbers = 0 if terms.server is None else (2 if isinstance(terms.server, AdaptiveTerms) else 1) * coordinates
    if numbers * _STATE_BYTES_EACH >= _LARGE_STATE_BYTES:
        yield (
            f"server: each round leaves a state of up to {_in_gib(numbers * _STATE_BYTES_EACH)} among the objects, and "
            f"its aggregator and auditors hold {_in_gib(numbers * 8)} of it in memory"
        )


def _values_max(terms: SegmentTerms) -> int:
    """How many values an update carries at most."""
    if terms.mask is not None and terms.support_modes == {"agreed"}:
        return terms.mask.nonzeros
    return terms.limits.nonzeros_max


def _in_gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


def _is_one_support(terms: SegmentTerms) -> bool:
    """Whether all updates of a round carry the same coordinates."""
    return len(terms.support_modes) == 1 and "free" not in terms.support_modes


def _ever_few(terms: SegmentTerms, cap: CapTerms) -> bool:
    """Whether a coordinate that anybody carries can have fewer contributors than the cap asks for."""
    fewest = terms.round.cohort_min if _is_one_support(terms) else 1
    return fewest < cap.contributors_below
