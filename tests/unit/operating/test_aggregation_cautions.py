"""What a rule does not stand is said where it is so, and only there."""

from __future__ import annotations

from dataclasses import replace

import pytest
from simulator import GRID, Simulator

from sfrl_secure.governance.aggregation_terms import (
    CLUSTERED_MEAN,
    MEDIAN,
    MULTI_KRUM,
    NNM_TRIMMED_MEAN,
    UNION_MEAN,
    WEIGHTED_MEAN,
    AdaptiveTerms,
    CapTerms,
    ClipTerms,
    MaskTerms,
    MomentumTerms,
    NextMaskTerms,
    RuleTerms,
)
from sfrl_secure.governance.documents import SegmentTerms, parse_document
from sfrl_secure.governance.manifest import ModelManifest
from sfrl_secure.governance.terms import RoundTerms
from sfrl_secure.ids import sha256
from sfrl_secure.operating.aggregation_cautions import aggregation_cautions
from sfrl_secure.operating.cautions import cautions_of
from sfrl_secure.operating.document_words import words_of

CLIP = ClipTerms(median_ppm=1_000_000)
NNM = RuleTerms(NNM_TRIMMED_MEAN, liars_ppm=200_000)
QUIET = {"rule": NNM, "clip": CLIP}
CHANGING = MaskTerms(sha256(b"mask"), 8, NextMaskTerms("votes", 2))
STAYING = replace(CHANGING, next=None)
OPEN = replace(CHANGING, next=NextMaskTerms("votes", 8))

MEAN = "under a mean without [clip] one liar moves the model as far as limits.norm_max and its weight let it"
ALONE = "who alone sends a coordinate decides it, under union_mean/v1 without [cap]"
BARE = "a median of each coordinate alone loses to the mean under small, common lies: see nnm_trimmed_mean/v1"
HALF = "under median/v1 a coordinate that fewer than half of a round send stays as it is"
LIARS = "rule.selected and rule.liars come to more than 1: liars are among those whose mean is taken"
NEVER_CUT = "clip.norm is not below limits.norm_max: no update is ever cut"
NEVER_CAPPED = "[cap] never acts: no coordinate with so few contributors can have so large a step"
ONE_MEMBER = "with a cohort_min of 1 a cluster may have one member, and its model shows what that member sent"
NEVER_TWO = "a cluster has 2 updates or more and leaves 2 or none: in a cohort of at most 3 there are never two"
CHANCE = (
    "where all updates are agreed nothing is known outside of the mask: it regrows by chance; support_modes with free "
    "or dense show it others"
)
STILL = (
    "where all updates are agreed only the mask's own places have a score, and with a regrow of all of them it hardly "
    "ever changes: a smaller regrow gives places up"
)


def cohort(least: int, most: int) -> RoundTerms:
    return RoundTerms(duration_us=60_000_000, cohort_min=least, cohort_max=most, rounds_max=3)


def krum(liars: int, selected: int) -> RuleTerms:
    return RuleTerms(MULTI_KRUM, liars_ppm=liars, selected_ppm=selected)


def one_update(least: int) -> str:
    return f"a round of {least} takes one update as it is: the model shows whoever was selected what it sent"


def too_few(wanted: int, liars: int, updates: int) -> str:
    return (
        f"multi_krum/v1 takes {wanted} updates or more against {liars} of them that lie, and a round may close with "
        f"{updates}"
    )


def capped(cap: CapTerms, **others: object) -> dict[str, object]:
    return QUIET | {"round_terms": cohort(10, 20), "cap": cap} | others


def adaptive(rate: int, floor: int) -> AdaptiveTerms:
    return AdaptiveTerms(decay=0, decay_max=0, rate=rate, floor=floor)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rule": NNM, "round_terms": cohort(10, 20)}, []),
        ({"rule": RuleTerms(WEIGHTED_MEAN)}, [MEAN]),
        ({"rule": RuleTerms(WEIGHTED_MEAN), "clip": CLIP}, []),
        ({"rule": RuleTerms(UNION_MEAN)}, [MEAN, ALONE]),
        ({"rule": RuleTerms(UNION_MEAN), "clip": CLIP, "cap": CapTerms(2, 1)}, []),
        ({"rule": RuleTerms(UNION_MEAN), "clip": CLIP, "support_modes": ["dense"]}, []),
        (
            {"rule": RuleTerms(UNION_MEAN), "clip": CLIP, "support_modes": ["agreed"], "mask": STAYING},
            [],
        ),
        # Outside of the mask dense updates carry, and agreed ones do not.
        (
            {
                "rule": RuleTerms(UNION_MEAN), "clip": CLIP, "support_modes": ["agreed", "dense"],
                "mask": STAYING,
            },
            [ALONE],
        ),
        ({"rule": RuleTerms(CLUSTERED_MEAN, alike_ppm=1)}, [MEAN, NEVER_TWO]),
        ({"rule": RuleTerms(CLUSTERED_MEAN, alike_ppm=1), "clip": CLIP, "round_terms": cohort(1, 3)}, [ONE_MEMBER]),
        ({"rule": RuleTerms(CLUSTERED_MEAN, alike_ppm=1), "clip": CLIP, "round_terms": cohort(2, 4)}, []),
        ({"rule": RuleTerms(CLUSTERED_MEAN, alike_ppm=1), "clip": CLIP, "round_terms": cohort(2, 3)}, [NEVER_TWO]),
        ({"rule": RuleTerms(MEDIAN)}, [BARE, HALF]),
        ({"rule": RuleTerms(MEDIAN), "support_modes": ["agreed", "dense"], "mask": STAYING}, [BARE, HALF]),
        ({"rule": RuleTerms(MEDIAN), "support_modes": ["agreed"], "mask": STAYING}, [BARE]),
        ({"rule": RuleTerms(MEDIAN), "support_modes": ["dense"]}, [BARE]),
        ({"rule": NNM, "round_terms": cohort(2, 4)}, ["rule.liars rounds down to nobody, in a cohort of 4"]),
        (
            {"rule": NNM, "round_terms": cohort(4, 5)},
            ["rule.liars rounds down to nobody, in a cohort of 4 that the round allows"],
        ),
        ({"rule": NNM, "round_terms": cohort(5, 5)}, []),
        (
            {"rule": RuleTerms(NNM_TRIMMED_MEAN), "round_terms": cohort(5, 5)},
            ["rule.liars rounds down to nobody, in a cohort of 5"],
        ),
        ({"rule": krum(200_000, 500_000), "round_terms": cohort(10, 20)}, []),
        ({"rule": krum(200_000, 500_000), "round_terms": cohort(5, 5)}, []),
        # Three of ten: nine is what multi-Krum takes against three.
        ({"rule": krum(300_000, 500_000), "round_terms": cohort(9, 9)}, []),
        ({"rule": krum(400_000, 500_000), "round_terms": cohort(10, 20)}, [too_few(11, 4, 10)]),
        # Of 10 three lie and of 11 four, so that 11 are just enough; of 13 five, of 14 five, and of 16 six.
        ({"rule": krum(375_000, 500_000), "round_terms": cohort(10, 15)}, []),
        ({"rule": krum(430_000, 500_000), "round_terms": cohort(13, 14)}, [too_few(15, 6, 14)]),
        ({"rule": krum(400_000, 600_000), "round_terms": cohort(11, 11)}, []),
        ({"rule": krum(400_000, 600_001), "round_terms": cohort(11, 11)}, [LIARS]),
        ({"rule": krum(200_000, 0), "round_terms": cohort(10, 20)}, [one_update(10)]),
        ({"rule": krum(200_000, 190_000), "round_terms": cohort(10, 20)}, [one_update(10)]),
        ({"rule": krum(200_000, 200_000), "round_terms": cohort(10, 20)}, []),
        ({"clip": ClipTerms(norm=2**21)}, [NEVER_CUT]),
        ({"clip": ClipTerms(norm=2**21 - 1)}, []),
        (capped(CapTerms(2, 2**20 - 1)), []),
        (capped(CapTerms(2, 2**20)), [NEVER_CAPPED]),
        (capped(CapTerms(1, 1)), [NEVER_CAPPED]),
        (capped(CapTerms(10, 1), support_modes=["dense"]), [NEVER_CAPPED]),
        (capped(CapTerms(11, 1), support_modes=["dense"]), []),
        ({"clip": CLIP, "server": MomentumTerms(decay=2**15, rate=2**15)}, []),
        (
            {"clip": CLIP, "server": MomentumTerms(decay=2**15, rate=2**15 + 2**14)},
            ["server: a step that stays the same comes to 1.5 times itself"],
        ),
        (
            {"clip": CLIP, "server": MomentumTerms(decay=0, rate=2**17)},
            ["server: a step that stays the same comes to 2.0 times itself"],
        ),
        ({"clip": CLIP, "server": adaptive(2**GRID, 1)}, []),
        (
            capped(CapTerms(2, 9), server=adaptive(2**GRID, 10)),
            ["server: an adaptive step scales up what [cap] cut: a coordinate moves by up to 1 all the same"],
        ),
        (capped(CapTerms(2, 9), server=adaptive(9, 1)), []),
        (capped(CapTerms(2, 9), server=adaptive(10, 10)), []),
        ({"clip": CLIP, "support_modes": ["agreed"], "mask": CHANGING}, [CHANCE]),
        ({"clip": CLIP, "support_modes": ["agreed"], "mask": OPEN}, [STILL]),
        ({"clip": CLIP, "support_modes": ["agreed", "free"], "mask": CHANGING}, []),
        ({"clip": CLIP, "support_modes": ["agreed", "free"], "mask": OPEN}, []),
        ({"clip": CLIP, "support_modes": ["agreed"], "mask": STAYING}, []),
    ],
)  # fmt: skip
def test_a_caution_is_said_where_it_is_so_and_nowhere_else(
    sim: Simulator, changes: dict[str, object], said: list[str]
) -> None:
    terms = parse_document(SegmentTerms.payload_type, sim.terms_raw(**changes))
    assert isinstance(terms, SegmentTerms)
    assert list(aggregation_cautions(terms)) == said


def test_who_signs_terms_reads_their_cautions_without_a_log(sim: Simulator) -> None:
    def said(**changes: object) -> list[str]:
        words = words_of(parse_document(SegmentTerms.payload_type, sim.terms_raw(**changes)))
        return [each for each in words if each.startswith("CAUTION")]

    assert said(rule=RuleTerms(UNION_MEAN)) == [f"CAUTION      {MEAN}", f"CAUTION      {ALONE}"]
    assert said(rule=RuleTerms(UNION_MEAN), clip=CLIP, cap=CapTerms(2, 1)) == []


def drafted(sim: Simulator, **changes: object) -> tuple[str, ...]:
    return cautions_of(parse_document(SegmentTerms.payload_type, sim.terms_raw(**changes)), sim.state)


def test_cautions_of_a_rule_are_said_when_it_comes_and_not_with_every_later_version(sim: Simulator) -> None:
    assert drafted(sim, sensitivity=4) == ()
    assert drafted(sim, segment="sand") == (MEAN,)
    assert drafted(sim, rule=RuleTerms(MEDIAN)) == (BARE, HALF)
    sim.publish_terms(rule=RuleTerms(MEDIAN))
    assert drafted(sim, rule=RuleTerms(MEDIAN), sensitivity=4) == ()
    assert drafted(sim, rule=RuleTerms(MEDIAN), clip=ClipTerms(norm=2**62)) == (NEVER_CUT,)
    assert drafted(sim) == (MEAN,)


FULL = RoundTerms(60_000_000, 200, 500, 3)


def costly(values: int, seconds: int, rule: RuleTerms = NNM, updates: int = 500) -> str:
    return (
        f"{rule.name} holds every two updates against each other: {updates} updates of {values} values take one "
        f"processor about {seconds} s, and an auditor longer; twice the updates take four times that"
    )


def of_a_model(sim: Simulator, coordinates: int, mask: MaskTerms | None = None, **changes: object) -> list[str]:
    """Cautions of terms whose updates have up to so many values."""
    terms = parse_document(SegmentTerms.payload_type, sim.terms_raw(**QUIET))
    assert isinstance(terms, SegmentTerms)
    manifest = ModelManifest((replace(terms.model.manifest.tensors[0], shape=(coordinates,)),))
    model, limits = replace(terms.model, manifest=manifest), replace(terms.limits, nonzeros_max=coordinates)
    return list(aggregation_cautions(replace(terms, model=model, limits=limits, mask=mask, **changes)))


@pytest.mark.parametrize("rule", [NNM, krum(200_000, 500_000), RuleTerms(CLUSTERED_MEAN, alike_ppm=1)])
def test_rules_that_compare_all_updates_say_from_half_a_minute_on_what_a_round_costs(
    sim: Simulator, rule: RuleTerms
) -> None:
    assert of_a_model(sim, 112_000, rule=rule, round=FULL) == [costly(112_000, 31, rule)]
    assert of_a_model(sim, 105_600, rule=rule, round=FULL) == [costly(105_600, 30, rule)]
    assert of_a_model(sim, 105_599, rule=rule, round=FULL) == []
    # It is the square of the updates: of a hundred there may be 25 times as many values.
    hundred = RoundTerms(60_000_000, 40, 100, 3)
    assert of_a_model(sim, 112_000, rule=rule, round=hundred) == []
    assert of_a_model(sim, 2_800_000, rule=rule, round=hundred) == [costly(2_800_000, 31, rule, 100)]


def test_a_rule_that_takes_updates_one_by_one_or_by_coordinates_says_nothing_of_costs(sim: Simulator) -> None:
    for name in (WEIGHTED_MEAN, UNION_MEAN, MEDIAN):
        said = of_a_model(sim, 2**24, rule=RuleTerms(name), round=FULL)
        assert not [each for each in said if "every two updates" in each]


def test_agreed_updates_cost_what_their_mask_has(sim: Simulator) -> None:
    mask = MaskTerms(sha256(b"mask"), 112_000, None)
    agreed = {"round": FULL, "support_modes": frozenset({"agreed"})}
    assert of_a_model(sim, 2**24, mask, **agreed) == [costly(112_000, 31)]
    assert of_a_model(sim, 2**24, replace(mask, nonzeros=9), **agreed) == []


def test_a_server_step_of_a_huge_model_says_how_large_its_state_is(sim: Simulator) -> None:
    def said(stored: str, held: str) -> list[str]:
        return [
            f"server: each round leaves a state of up to {stored} GiB among the objects, and its aggregator and "
            f"auditors hold {held} GiB of it in memory"
        ]

    momentum = MomentumTerms(decay=0, rate=2**16)
    assert of_a_model(sim, 2**30, server=adaptive(2**GRID, 1), rule=RuleTerms(WEIGHTED_MEAN)) == said("12.0", "16.0")
    assert of_a_model(sim, 2**30, server=momentum, rule=RuleTerms(WEIGHTED_MEAN)) == said("6.0", "8.0")
    assert of_a_model(sim, 2**30, rule=RuleTerms(WEIGHTED_MEAN)) == []
    # From a gibibyte on.
    assert of_a_model(sim, 89_478_486, server=adaptive(2**GRID, 1), rule=RuleTerms(WEIGHTED_MEAN)) == said("1.0", "1.3")
    assert of_a_model(sim, 89_478_485, server=adaptive(2**GRID, 1), rule=RuleTerms(WEIGHTED_MEAN)) == []
    assert of_a_model(sim, 178_956_970, server=momentum, rule=RuleTerms(WEIGHTED_MEAN)) == []
