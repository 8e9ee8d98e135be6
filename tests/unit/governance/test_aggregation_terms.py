"""How rounds are added up, in terms: what was written is what is read, and errors name the key and its bounds."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.aggregation_terms import (
    ADAPTIVE_COORDINATES_MAX,
    CLUSTERED_MEAN,
    MEDIAN,
    MULTI_KRUM,
    NNM_TRIMMED_MEAN,
    RULE_KEYS,
    UNION_MEAN,
    AdaptiveTerms,
    CapTerms,
    ClipTerms,
    MaskTerms,
    MomentumTerms,
    NextMaskTerms,
    RuleTerms,
)
from sfrl_secure.governance.terms import SegmentTerms
from sfrl_secure.ids import sha256

Change = Callable[[bytes, tuple[str | int, ...], object], bytes]


def terms_of(federation, **changes: Any) -> SegmentTerms:
    found = federation.parse("segment-terms", federation.terms(**changes))
    assert isinstance(found, SegmentTerms)
    return found


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rule", RuleTerms()),
        ("rule", RuleTerms(UNION_MEAN)),
        ("rule", RuleTerms(MEDIAN)),
        ("rule", RuleTerms(NNM_TRIMMED_MEAN, liars_ppm=200_000)),
        ("rule", RuleTerms(MULTI_KRUM, liars_ppm=100_000, selected_ppm=300_000)),
        ("rule", RuleTerms(CLUSTERED_MEAN, alike_ppm=250_000)),
        ("clip", None),
        ("clip", ClipTerms(norm=2**62)),
        ("clip", ClipTerms(median_ppm=1_500_000)),
        ("cap", None),
        ("cap", CapTerms(3, 17)),
        ("server", None),
        ("server", MomentumTerms(58_982, 6_554)),
        ("server", AdaptiveTerms(1, 2, 3, 4)),
    ],
)
def test_what_terms_are_built_of_is_what_they_say(federation, key: str, value: object) -> None:
    assert getattr(terms_of(federation, **{key: value}), key) == value


def test_a_changing_mask_is_what_was_built(federation) -> None:
    mask = MaskTerms(sha256(b"mask"), 9, NextMaskTerms("saliency", 2, frozenset({"a.bias"})))
    assert terms_of(federation, support_modes=["agreed", "free"], mask=mask).mask == mask


@pytest.mark.parametrize("name", RULE_KEYS)
def test_a_rule_has_its_own_parameters_in_the_document_and_no_others(federation, name: str) -> None:
    rule = RuleTerms(name, liars_ppm=1, selected_ppm=1, alike_ppm=1)
    document = json.loads(federation.terms(rule=rule))
    assert document["rule"] == {"name": name} | dict.fromkeys(RULE_KEYS[name], 1)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("rule", "name"), "krum/v1", "segment-terms.rule.name is one of clustered_mean/v1, median/v1, "),
        (("rule", "liars_ppm"), 500_000, "rule.liars_ppm is an integer from 0 to 499999"),
        (("rule", "selected_ppm"), ..., "rule lacks the key selected_ppm"),
        (("rule", "alike_ppm"), 1, "rule has a key beyond the 3 of its format"),
        (("clip", "median_ppm"), 0, "clip.median_ppm is an integer from 1 to 10000000"),
        (("clip", "norm"), 5, "clip has a key beyond the 1 of its format"),
        (("cap", "magnitude"), 0, "cap.magnitude is an integer from 1 to 1099511627776"),
        (("server", "name"), "adam/v1", "server.name is one of adaptive/v1, momentum/v1"),
        (("server", "rate"), 2**22 + 1, "server.rate is an integer from 1 to 4194304"),
        (("mask", "next", "regrow"), 11, "mask.next.regrow is an integer from 1 to 10"),
        (("mask", "next", "regrow"), 7, "mask.next.protected are tensors that fit into the mask"),
        (("mask", "next", "protected"), ["a.weight"], "mask.next.protected are tensors that updates may touch"),
        (("mask", "nonzeros"), 13, "mask.nonzeros: a mask that changes has at most the coordinates that updates may"),
    ],
)
def test_an_error_begins_with_the_key_and_quotes_the_bounds(
    federation, change: Change, path: tuple[str, ...], value: object, said: str
) -> None:
    with pytest.raises(MalformedError) as refused:
        federation.parse("segment-terms", change(federation.raw["changing-segment-terms"], path, value))
    assert str(refused.value).startswith(said)


def test_an_adaptive_step_is_for_models_whose_state_has_its_place(federation, change: Change) -> None:
    adaptive = federation.terms(server=AdaptiveTerms(0, 0, 1, 1))
    momentum = federation.terms(server=MomentumTerms(0, 1))
    # Beside the 12 coordinates of the other tensors.
    shape = ("model", "manifest", "tensors", 0, "shape")
    federation.parse("segment-terms", change(adaptive, shape, [ADAPTIVE_COORDINATES_MAX - 12]))
    federation.parse("segment-terms", change(momentum, shape, [ADAPTIVE_COORDINATES_MAX - 11]))
    with pytest.raises(MalformedError, match=r"^server: adaptive steps are for models of at most 1073741824"):
        federation.parse("segment-terms", change(adaptive, shape, [ADAPTIVE_COORDINATES_MAX - 11]))
