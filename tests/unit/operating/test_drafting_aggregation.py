"""Drafts of how rounds are added up: people's units there and back exactly, and every fault on its line."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from simulator import GRID, MANIFEST, NOW_US, Simulator

from sfrl_secure.governance.aggregation_terms import (
    MASK_SCORES,
    RULE_KEYS,
    AdaptiveTerms,
    CapTerms,
    ClipTerms,
    MaskTerms,
    MomentumTerms,
    NextMaskTerms,
    RuleTerms,
    ServerTerms,
)
from sfrl_secure.governance.documents import SegmentTerms, parse_document
from sfrl_secure.ids import sha256
from sfrl_secure.operating.changes import NOTHING, changes_of
from sfrl_secure.operating.draft_writing import draft_of
from sfrl_secure.operating.drafting import Ground, build_draft, check_alone
from sfrl_secure.operating.drafts import DraftFile, read_draft

from .built import Outcome, document

Drafted = Callable[..., Outcome]
TERMS = 150
MASK = f'[mask]\ndigest = "{"ab" * 32}"\nnonzeros = 8\n'
NEXT = f'{MASK}[mask.next]\nscore = "votes"\nregrow = 2\nprotected = ["a.bias"]\n'
RULE = 'name = "weighted_mean/v1"\n'


def _least_often_round(random: Random, low: int, high: int) -> int:
    """Any number of a range, its ends and round ones more often."""
    return random.choice((low, high, random.randint(low, high), random.randint(low, min(high, low + 20))))


def _random_server(random: Random) -> ServerTerms | None:
    decay = _least_often_round(random, 0, 65_535)
    return random.choice((
        None,
        MomentumTerms(decay, _least_often_round(random, 1, 2**20)),
        AdaptiveTerms(
            decay,
            _least_often_round(random, 0, 65_535),
            _least_often_round(random, 1, 2**22),
            _least_often_round(random, 1, 2**40),
        ),
    ))  # fmt: skip


def _random_terms(random: Random) -> dict[str, object]:
    rule = random.choice(sorted(RULE_KEYS))
    clip = random.choice((
        None,
        ClipTerms(norm=_least_often_round(random, 1, 2**62)),
        ClipTerms(median_ppm=_least_often_round(random, 1, 10**7)),
    ))  # fmt: skip
    chosen = NextMaskTerms(
        random.choice(sorted(MASK_SCORES)), random.randint(1, 4), random.choice((frozenset(), frozenset({"a.bias"})))
    )
    cap = CapTerms(_least_often_round(random, 1, 501), _least_often_round(random, 1, 2**40))
    return {
        "rule": RuleTerms(rule, **{key: _least_often_round(random, *RULE_KEYS[rule][key]) for key in RULE_KEYS[rule]}),
        "clip": clip,
        "cap": random.choice((None, cap)),
        "server": _random_server(random),
        "support_modes": ["agreed", "free"],
        "mask": MaskTerms(sha256(b"mask"), 8, random.choice((None, chosen))),
    }


def test_any_way_to_add_up_comes_back_from_its_draft_as_it_was(sim: Simulator, tmp_path: Path) -> None:
    path = tmp_path / "draft.toml"
    for number in range(TERMS):
        given = _random_terms(Random(f"drafts/{number}"))
        before = parse_document(SegmentTerms.payload_type, sim.terms_raw(**given))
        path.write_text(draft_of(before))
        read = read_draft(path)
        assert isinstance(read, DraftFile), read
        after = document(build_draft(read, Ground(sim.state, NOW_US)))
        assert changes_of(before, after) == (NOTHING,), given
        for name in ("rule", "clip", "cap", "server", "mask"):
            assert getattr(after, name) == getattr(before, name), given
        assert check_alone(read, NOW_US) == (), given


def test_people_write_shares_decays_and_parameter_units(drafted: Drafted) -> None:
    tables = (
        '[rule]\nname = "multi_krum/v1"\nliars = 0.2\nselected = 0.5\n[clip]\nof_median = 1.5\n'
        "[cap]\ncontributors_below = 3\nmagnitude = 0.25\n"
        '[server]\nname = "momentum/v1"\ndecay = 0.9\nrate = 1\n[limits]'
    )
    after = document(drafted("segment-terms", "rocks", (RULE, ""), ("[rule]", ""), ("[limits]", tables)))
    assert isinstance(after, SegmentTerms)
    assert after.rule == RuleTerms("multi_krum/v1", liars_ppm=200_000, selected_ppm=500_000)
    assert (after.clip, after.cap) == (ClipTerms(median_ppm=1_500_000), CapTerms(3, 2**GRID // 4))
    assert after.server == MomentumTerms(decay=58_982, rate=65_536)
    written = draft_of(after)
    for line in ("liars = 0.2", "selected = 0.5", "of_median = 1.5", "magnitude = 0.25", "decay = 0.9", "rate = 1.0"):
        assert f"\n{line}\n" in written


def test_an_adaptive_step_has_its_rate_and_floor_in_parameter_units(drafted: Drafted) -> None:
    table = '[server]\nname = "adaptive/v1"\ndecay = 0.9\ndecay_max = 0.99\nrate = 0.5\nfloor = 0.001\n[limits]'
    after = document(drafted("segment-terms", "rocks", ("[limits]", table)))
    assert isinstance(after, SegmentTerms)
    # The floor lies between two points of the grid.
    assert after.server == AdaptiveTerms(58_982, 64_881, 2**GRID // 2, 65)
    assert after.server.decay_max == round(0.99 * 65_536)


def test_a_draft_has_the_steps_that_somebody_wrote_and_not_the_points_of_the_grid(drafted: Drafted) -> None:
    table = "[cap]\ncontributors_below = 3\nmagnitude = 0.05\n[clip]\nnorm = 1.7\n[limits]"
    after = document(drafted("segment-terms", "rocks", ("[limits]", table)))
    assert isinstance(after, SegmentTerms)
    assert (after.cap, after.clip) == (CapTerms(3, 3276), ClipTerms(norm=111_411))
    for line in ("magnitude = 0.05", "norm = 1.7"):
        assert f"\n{line}\n" in draft_of(after)


def rule(text: str) -> tuple[str, str]:
    return RULE, f"{text}\n"


def table(text: str) -> tuple[str, str]:
    return "[limits]", f"{text}\n[limits]"


def agreed(text: str) -> tuple[tuple[str, str], tuple[str, str]]:
    return ('["free"]', '["agreed"]'), table(text)


MOMENTUM = '[server]\nname = "momentum/v1"\ndecay = 0.9\nrate = 1.0'
ADAPTIVE = '[server]\nname = "adaptive/v1"\ndecay = 0.9\ndecay_max = 0.99\nrate = 0.5\nfloor = 0.001'
CAP = "[cap]\ncontributors_below = 3\nmagnitude = 0.25"
KRUM = 'name = "multi_krum/v1"'
NNM = 'name = "nnm_trimmed_mean/v1"'
GRID_NORMS = "it is from 0.0000152587890625 to 70368744177664.0"
GRID_VALUES = "it is from 0.0000152587890625 to 16777216.0"


@pytest.mark.parametrize(
    ("changes", "where", "reason"),
    [
        ([("[rule]", ""), rule("")], "# Made from", "the key `rule` is missing"),
        ([("[rule]", ""), rule(""), ("privacy", 'rule = "mean"\nprivacy')], "rule", r"`rule` is a table, \[rule\]"),
        ([rule("liars = 0.1")], "[rule]", "the key `rule.name` is missing"),
        (
            [rule('name = "krum/v1"')], "name",
            "rule.name: it is one of clustered_mean/v1, median/v1, multi_krum/v1, nnm_trimmed_mean/v1, union_mean/v1, "
            "weighted_mean/v1",
        ),
        ([rule(NNM)], "[rule]", "rule: nnm_trimmed_mean/v1 wants the key liars"),
        ([rule(f"{KRUM}\nliars = 0.1")], "[rule]", "rule: multi_krum/v1 wants the key selected"),
        ([rule(f"{NNM}\nliers = 0.1")], "liers", "unknown key `rule.liers`: did you mean `liars`"),
        ([rule(f"{NNM}\nliars_ppm = 1")], "liars_ppm", "unknown key `rule.liars_ppm`: did you mean `liars`"),
        ([rule(f"{NNM}\nliars = 0.1\nalike = 0.1")], "alike", "rule.alike: nnm_trimmed_mean/v1 has no such key"),
        ([rule(f"{NNM}\nliars = 0.5")], "liars", "rule.liars: it is from 0.0 to 0.499999"),
        ([rule(f"{NNM}\nliars = 20")], "liars", "rule.liars: it is from 0.0 to 0.499999"),
        ([rule(f"{NNM}\nliars = -0.1")], "liars", "`rule.liars`: a number is from 0 to"),
        ([rule(f"{NNM}\nliars = 0.1234567")], "liars", "rule.liars: a number with at most 6 digits behind its point"),
        ([rule(f'{NNM}\nliars = "a fifth"')], "liars", "`rule.liars` is a number"),
        ([rule(f"{NNM}\nliars = inf")], "liars", "number"),
        ([rule(f"{KRUM}\nliars = 0.1\nselected = 1.000001")], "selected", "rule.selected: it is from 0.0 to 1.0"),
        ([rule('name = "clustered_mean/v1"\nalike = 0')], "alike", "rule.alike: it is from 0.000001 to 1.0"),
        ([table("[clip]")], "[clip]", "clip: it has one of the keys norm and of_median"),
        ([table("[clip]\nnorm = 1\nof_median = 1")], "[clip]", "clip: it has one of the keys norm and of_median"),
        ([table("[clip]\nnorm = 0.00001")], "norm", f"clip.norm: {GRID_NORMS}"),
        ([table("[clip]\nnorm = 70368744177665")], "norm", f"clip.norm: {GRID_NORMS}"),
        ([table("[clip]\nof_median = 0")], "of_median", "clip.of_median: it is from 0.000001 to 10.0"),
        ([table("[clip]\nof_median = 10.000001")], "of_median", "clip.of_median: it is from 0.000001 to 10.0"),
        ([table("[clip]\nof_mean = 1")], "of_mean", "unknown key `clip.of_mean`: did you mean `of_median`"),
        ([("privacy", "clip = 3\nprivacy")], "clip", r"`clip` is a table, \[clip\]"),
        ([table("[cap]\nmagnitude = 1")], "[cap]", "the key `cap.contributors_below` is missing"),
        ([table(CAP.replace("= 3", "= 0"))], "contributors_below", "cap.contributors_below: it is from 1 to 501"),
        ([table(CAP.replace("= 3", "= 502"))], "contributors_below", "cap.contributors_below: it is from 1 to 501"),
        ([table(CAP.replace("= 3", "= 2.5"))], "contributors_below", "`cap.contributors_below` is a whole number"),
        ([table(CAP.replace("0.25", "0.0"))], "magnitude", f"cap.magnitude: {GRID_VALUES}"),
        ([table(CAP.replace("0.25", "16777217"))], "magnitude", f"cap.magnitude: {GRID_VALUES}"),
        ([table(MOMENTUM.replace("mom", "n"))], "name", "server.name: it is one of adaptive/v1, momentum/v1"),
        ([table(MOMENTUM.replace("0.9", "1.0"))], "decay", "server.decay: it is from 0.0 to 0.99998"),
        ([table(MOMENTUM.replace("1.0", "16.1"))], "rate", "server.rate: it is from 0.00002 to 16.0"),
        ([table(MOMENTUM.replace("1.0", "0.0"))], "rate", "server.rate: it is from 0.00002 to 16.0"),
        ([table(f"{MOMENTUM}\nfloor = 1")], "floor", "server.floor: momentum/v1 has no such key"),
        ([table(f"{MOMENTUM}\ndecay_max = 0.9")], "decay_max", "server.decay_max: momentum/v1 has no such key"),
        ([table(ADAPTIVE.replace("decay_max = 0.99", ""))], "[server]", "server: adaptive/v1 wants the key decay_max"),
        ([table(ADAPTIVE.replace("\nfloor = 0.001", ""))], "[server]", "server: adaptive/v1 wants the key floor"),
        ([table(ADAPTIVE.replace("0.99", "1"))], "decay_max", "server.decay_max: it is from 0.0 to 0.99998"),
        ([table(ADAPTIVE.replace("= 0.5", "= 64.1"))], "rate", "server.rate: it is from 0.0000152587890625 to 64.0"),
        ([table(ADAPTIVE.replace("0.001", "0"))], "floor", f"server.floor: {GRID_VALUES}"),
        (agreed(NEXT.replace("votes", "vote")), "score", "mask.next.score is one of contribution, saliency, votes"),
        (agreed(NEXT.replace("regrow = 2", "regrow = 0")), "regrow", "mask.next.regrow is an integer from 1 to 8"),
        (agreed(NEXT.replace("regrow = 2", "regrow = 9")), "regrow", "mask.next.regrow is an integer from 1 to 8"),
        (agreed(NEXT.replace('["a.bias"]', '["a.bias", "a.bias"]')), "protected", "nothing stands there twice"),
        (agreed(NEXT.replace('["a.bias"]', '["a bias"]')), "protected", "mask.next.protected: a tensor"),
        (agreed(NEXT.replace('["a.bias"]', '["b.bias"]')), "protected", "are tensors that updates may touch"),
        (agreed(NEXT.replace('["a.bias"]', '["a.bias", "a.weight"]')), "protected", "are tensors that fit into"),
        (agreed(NEXT.replace("regrow = 2", "")), "[mask.next]", "the key `mask.next.regrow` is missing"),
        (agreed(f"{NEXT}wild = 1"), "wild", "unknown key `mask.next.wild`"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_on_its_line(
    drafted: Drafted, tmp_path: Path, changes: list[tuple[str, str]], where: str, reason: str
) -> None:
    found = drafted("segment-terms", "rocks", *changes)
    assert isinstance(found, tuple), found
    line = (tmp_path / "draft.toml").read_text().split("\n")[found[0].line - 1]
    assert re.search(reason, found[0].reason), found[0].reason
    assert line.startswith(where), (line, found[0].reason)


@pytest.mark.parametrize(
    "change",
    [
        (),
        (table("[cap]\ncontributors_below = 1\nmagnitude = 0.001"),),
        (table("[clip]\nnorm = 0.00002"),),
        (table(ADAPTIVE),),
        (("norm_max = 32.0", "norm_max = 0.5"),),
        (("magnitude_max = 16.0", "magnitude_max = 0.5"),),
        (("norm_max = 32.0", "norm_max = 0.0000000000009095"), ("magnitude_max = 16.0", "magnitude_max = 1")),
    ],
    ids=str,
)
def test_small_numbers_are_no_fault_where_the_grid_is_not_known(
    drafted: Drafted, change: tuple[tuple[str, str], ...]
) -> None:
    assert not isinstance(drafted("segment-terms", "rocks", *change, alone=True), tuple)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        # On no grid: at most 40 binary digits, and a norm of at most 2^62 units, a magnitude of at most 2^40.
        ([("norm_max = 32.0", "norm_max = 0.0000000000009094")], "limits.norm_max: it is from 1.0 to"),
        ([("norm_max = 32.0", "norm_max = 4611686018427387905")], "limits.norm_max: it is from 1.0 to 4611686018427"),
        ([table("[cap]\ncontributors_below = 1\nmagnitude = 0.0")], "cap.magnitude: it is from 1.0 to 1099511627776.0"),
        (
            [("magnitude_max = 16.0", "magnitude_max = 549755813889"), table("[clip]\nnorm = 0.25")],
            "limits.magnitude_max: it is from 0.25 to 274877906944.0",
        ),
    ],
)
def test_numbers_that_no_grid_has_are_found_without_a_log(
    drafted: Drafted, changes: list[tuple[str, str]], reason: str
) -> None:
    found = drafted("segment-terms", "rocks", *changes, alone=True)
    assert isinstance(found, tuple)
    assert found[0].reason.startswith(reason)


def test_whether_protected_tensors_fit_shows_with_the_log(drafted: Drafted) -> None:
    changes = agreed(NEXT.replace("regrow = 2", "regrow = 5"))
    assert not isinstance(drafted("segment-terms", "rocks", *changes, alone=True), tuple)
    found = drafted("segment-terms", "rocks", *changes)
    assert isinstance(found, tuple)
    assert found[0].reason.startswith("mask.next.protected are tensors that fit into the mask, beside what is regrown")


def test_a_changing_mask_over_few_of_the_tensors_is_checked_without_a_log(drafted: Drafted) -> None:
    everything_protected = NEXT.replace('"a.bias"', ", ".join(f'"{each.name}"' for each in MANIFEST.tensors[:2]))
    assert not isinstance(drafted("segment-terms", "rocks", *agreed(NEXT), alone=True), tuple)
    found = drafted("segment-terms", "rocks", *agreed(everything_protected), alone=True)
    assert isinstance(found, tuple)
