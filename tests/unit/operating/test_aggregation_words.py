"""How rounds are added up, in words: what is signed is read in people's units, and what is given up is said."""

from __future__ import annotations

from dataclasses import replace

import pytest
from simulator import GRID, Simulator

from sfrl_secure.governance.aggregation_terms import (
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
from sfrl_secure.ids import sha256
from sfrl_secure.operating.aggregation_words import (
    cap_words,
    clip_words,
    next_mask_words,
    rule_words,
    server_words,
)
from sfrl_secure.operating.changes import changes_of
from sfrl_secure.operating.document_words import words_of

MOMENTUM = MomentumTerms(58_982, 65_536)
ADAPTIVE = AdaptiveTerms(58_982, 64_881, 2**GRID // 100, 2)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (RuleTerms(), "weighted_mean/v1: weighted mean, missing is zero"),
        (RuleTerms(UNION_MEAN), "union_mean/v1: weighted mean of those who sent the coordinate"),
        (
            RuleTerms(NNM_TRIMMED_MEAN, liars_ppm=200_000),
            "nnm_trimmed_mean/v1: trimmed mean of nearest neighbours, against 20 % liars; weights do not count",
        ),
        (
            RuleTerms(MULTI_KRUM, liars_ppm=333_333, selected_ppm=500_000),
            "multi_krum/v1: mean of the best 50 %, against 33.3333 % liars; weights do not count",
        ),
        (
            RuleTerms(MULTI_KRUM, liars_ppm=1),
            "multi_krum/v1: mean of the best one, against 0.0001 % liars; weights do not count",
        ),
        (RuleTerms(MEDIAN), "median/v1: median of each coordinate; weights do not count"),
        (
            RuleTerms(CLUSTERED_MEAN, alike_ppm=250_000),
            "clustered_mean/v1: weighted mean; a model of its own for who is alike from cosine 0.25 on",
        ),
    ],
)
def test_a_rule_is_said_with_its_shares(rule: RuleTerms, said: str) -> None:
    assert rule_words(rule) == said


def test_no_two_rules_read_alike() -> None:
    rules = [RuleTerms(name, *(ppm if key in keys else 0 for key in ("liars_ppm", "selected_ppm", "alike_ppm")))
             for name, keys in RULE_KEYS.items() for ppm in (123_456, 123_457)]  # fmt: skip
    assert len({rule_words(rule) for rule in rules}) == len(set(rules))


def test_clip_cap_and_server_are_said_in_parameter_units() -> None:
    assert clip_words(None, GRID) == cap_words(None, GRID) == "none"
    assert clip_words(ClipTerms(norm=3 * 2**GRID // 2), GRID) == "updates are cut to norm 1.5"
    assert clip_words(ClipTerms(median_ppm=1_500_000), GRID) == "updates are cut to 1.5 of the round's median norm"
    said = "at most 0.25 where fewer than 3 sent the coordinate"
    assert cap_words(CapTerms(3, 2**GRID // 4), GRID) == said
    assert server_words(None, GRID) == "none: the step is what the rule gives"
    assert server_words(MOMENTUM, GRID) == "momentum/v1: decay 0.9, rate 1.0"
    said = "adaptive/v1: decays 0.9 and 0.99, rate 0.0099945068359375, floor 0.000030517578125"
    assert server_words(ADAPTIVE, GRID) == said


def test_how_a_mask_changes_is_said_with_what_is_always_in_it() -> None:
    assert next_mask_words(None) == "it stays"
    said = "each round 5 of its places are open to all, by votes"
    assert next_mask_words(NextMaskTerms("votes", 5)) == said
    assert next_mask_words(NextMaskTerms("votes", 5, frozenset({"b", "a"}))) == f"{said}; a, b always in it"


def test_documents_say_rule_always_and_the_rest_where_there_is_any(sim: Simulator) -> None:
    keys = ("rule ", "clip ", "cap ", "server ", "mask ")
    plain = [each for each in words_of(sim.segment.terms) if each.startswith(keys)]
    assert plain == ["rule         weighted_mean/v1: weighted mean, missing is zero"]
    sim.publish_terms(
        rule=RuleTerms(NNM_TRIMMED_MEAN, liars_ppm=200_000), clip=ClipTerms(norm=2**GRID), cap=CapTerms(2, 2**GRID),
        server=MOMENTUM, support_modes=["agreed", "free"], mask=MaskTerms(sha256(b"x"), 7, NextMaskTerms("votes", 2)),
    )  # fmt: skip
    assert [each for each in words_of(sim.segment.terms) if each.startswith(keys)] == [
        f"mask         agreed support is 7 coordinates of {sha256(b'x').hex()}; "
        "each round 2 of its places are open to all, by votes",
        "rule         nnm_trimmed_mean/v1: trimmed mean of nearest neighbours, against 20 % liars; weights do not "
        "count",
        "clip         updates are cut to norm 1",
        "cap          at most 1 where fewer than 2 sent the coordinate",
        "server       momentum/v1: decay 0.9, rate 1.0",
    ]


BEGUN_ANEW = "the server's state so far is given up: the next begins with zeros"
GIVEN_UP = "the server's state so far is given up"
MASK_GIVEN_UP = "the mask that the rounds chose so far is given up: the next round begins with the terms' own"
MASK = MaskTerms(sha256(b"mask"), 7, NextMaskTerms("votes", 2))


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ({"server": MOMENTUM}, {"server": ADAPTIVE}, [BEGUN_ANEW]),
        ({"server": MOMENTUM}, {"server": None}, [GIVEN_UP]),
        ({"server": MOMENTUM}, {"server": replace(MOMENTUM, rate=1)}, []),
        ({"server": None}, {"server": MOMENTUM}, []),
        ({"mask": MASK}, {"mask": replace(MASK, digest=sha256(b"other"))}, [MASK_GIVEN_UP]),
        ({"mask": MASK}, {"mask": replace(MASK, nonzeros=6)}, [MASK_GIVEN_UP]),
        ({"mask": MASK}, {"mask": replace(MASK, next=None)}, [MASK_GIVEN_UP]),
        ({"mask": MASK}, {"mask": replace(MASK, next=NextMaskTerms("saliency", 3))}, []),
        ({"mask": replace(MASK, next=None)}, {"mask": MASK}, []),
        ({"mask": MASK}, {"mask": None}, []),
    ],
)
def test_what_the_next_round_does_not_go_on_from_is_said(
    sim: Simulator, before: dict[str, object], after: dict[str, object], said: list[str]
) -> None:
    old = replace(sim.segment.terms, **before)
    changes = changes_of(old, replace(old, **after), sim.state)
    assert [each for each in changes if "given up" in each] == said
