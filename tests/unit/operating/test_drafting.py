"""Drafts: what is in force comes back unchanged, changes arrive in units, and every bad thing has its line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from simulator import GRID, NOW_US, Simulator

from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.aggregation_terms import MaskTerms
from sfrl_secure.governance.documents import ParticipantRecord, RootDocument, RulesDocument, SegmentTerms
from sfrl_secure.governance.terms import LeakageBound, LeakageTerms
from sfrl_secure.ids import sha256
from sfrl_secure.operating.changes import NOTHING, changes_of
from sfrl_secure.operating.draft_writing import draft_of
from sfrl_secure.operating.drafting import Ground, build_draft, check_alone
from sfrl_secure.operating.drafts import DraftFile, read_cedar, read_draft

from .built import Outcome, document

Drafted = Callable[..., Outcome]

SERIES = [("segment-terms", "rocks"), ("services", ""), ("participant", "rover-1"), ("rules", ""), ("root", "")]


@pytest.mark.parametrize("series", SERIES, ids=lambda series: series[0])
def test_the_draft_of_what_is_in_force_gives_its_next_version_and_changes_nothing(
    sim: Simulator, drafted: Drafted, series: tuple[str, str]
) -> None:
    before, after = sim.state.placed[series].document, document(drafted(*series))
    assert (after.version, after.previous) == (before.version + 1, before.digest)
    assert changes_of(before, after, sim.state) == (NOTHING,)
    placing = ("version", "previous", "federation_id")
    left = [json.loads(each.raw).items() for each in (before, after)]
    kept = [{key: value for key, value in items if key not in placing} for items in left]
    assert kept[0] == kept[1]


def test_terms_with_leakage_bounds_and_noise_come_back_as_they_were(sim: Simulator, drafted: Drafted) -> None:
    leakage = LeakageTerms(2, 3, 77, (LeakageBound("a.weight", 1, 2),), (LeakageBound("a.bias", 0, 4),))
    sim.publish_terms(leakage=leakage)
    after = document(drafted("segment-terms", "rocks"))
    assert isinstance(after, SegmentTerms)
    assert after.leakage == leakage


def test_terms_with_a_mask_all_formats_and_relays_come_back_as_they_were(sim: Simulator, drafted: Drafted) -> None:
    sim.publish_terms(
        value_types=["bf16", "exact", "fp32", "int8", "packed", "sign"],
        support_modes=["agreed", "dense", "free"],
        mask=MaskTerms(sha256(b"mask"), 8),
        relay_groups=["lorries", "orbiters"],
    )
    before, after = sim.segment.terms, document(drafted("segment-terms", "rocks"))
    assert isinstance(after, SegmentTerms)
    for name in ("value_types", "support_modes", "mask", "relay_groups"):
        assert getattr(after, name) == getattr(before, name)
    assert changes_of(before, after, sim.state) == (NOTHING,)


def test_a_draft_without_relays_allows_none(drafted: Drafted) -> None:
    after = document(drafted("segment-terms", "rocks", ("relay_groups = []  # who may bring others' updates\n", "")))
    assert isinstance(after, SegmentTerms)
    assert after.relay_groups == frozenset()


MASK = f'[mask]\ndigest = "{"ab" * 32}"\nnonzeros = 8\n\n[limits]'


@pytest.mark.parametrize(
    ("changes", "where", "reason"),
    [
        ([('["free"]', '["agreed"]')], "support_modes", r"agreed needs its mask: write a table \[mask\]"),
        ([("[limits]", MASK)], "[mask]", "it is for the support mode agreed"),
        ([('["free"]', '["agreed"]'), ("[limits]", MASK.replace("= 8", "= 9"))], "nonzeros", "from 1 to 8"),
        ([('["free"]', '["agreed"]'), ("[limits]", MASK.replace("= 8", "= 0"))], "nonzeros", "from 1 to 8"),
        ([('["free"]', '["agreed"]'), ("[limits]", MASK.replace("ab", "x"))], "digest", "SHA-256 of a mask object"),
        ([('["free"]', '["agreed"]'), ("[limits]", "[mask]\nnonzeros = 8\n[limits]")], "[mask]", "`mask.digest` is"),
        ([("relay_groups = []", 'relay_groups = ["a", "a"]')], "relay_groups", "twice"),
        ([("relay_groups = []", 'relay_groups = ["A"]')], "relay_groups", "a name is"),
        ([('["free"]', '["mask"]')], "support_modes", "agreed, dense, free"),
        ([('["int8"]', '["fp16"]')], "value_types", "bf16, exact, fp32, int8, packed, sign"),
        ([('"4 KiB"', '"1025 MiB"')], "payload_bytes_max", "from 1 to 1073741824"),
    ],
)
def test_what_does_not_fit_an_update_is_refused_on_its_line(
    drafted: Drafted, tmp_path: Path, changes: list[tuple[str, str]], where: str, reason: str
) -> None:
    for alone in (True, False):
        found = drafted("segment-terms", "rocks", *changes, alone=alone)
        assert isinstance(found, tuple)
        line = (tmp_path / "draft.toml").read_text().split("\n")[found[-1].line - 1]
        assert line.startswith(where), line
        assert re.search(reason, found[-1].reason), found[-1].reason


def test_units_become_grid_integers_and_noise_is_rounded_up(drafted: Drafted) -> None:
    after = document(
        drafted(
            "segment-terms", "rocks", ("norm_max = 32.0", "norm_max = 1.00001"),
            ('duration = "1m"', 'duration = "90s"'), ("noise_std_min = 0.0", "noise_std_min = 0.00001"),
            ('"4 KiB"', "4000"),
        )
    )  # fmt: skip
    assert isinstance(after, SegmentTerms)
    assert after.limits.norm_max == 2**GRID
    assert after.leakage.noise_std_min == 1
    assert after.round.duration_us == 90_000_000
    assert after.limits.payload_bytes_max == 4_000


@pytest.mark.parametrize(
    ("old", "new", "where", "reason"),
    [
        ("sensitivity = 3", "sensitivity = 3.5", "sensitivity", "whole number"),
        ("sensitivity = 3", "sensitivity = 1000001", "sensitivity", "from 0 to 1000000"),
        ('groups = ["rovers"]', 'groups = "rovers"', "groups", "a list"),
        ('groups = ["rovers"]', 'groups = ["rovers", "rovers"]', "groups", "twice"),
        ('groups = ["rovers"]', 'groups = ["Rovers"]', "groups", "a name is"),
        ('operations = ["fetch", ', 'operations = ["destroy", ', "operations", "fetch, record, submit"),
        ("[rule]", "[rulez]", "[rulez]", "did you mean `rule`?"),
        ("[round]", "[round]\nlong = 3", "long", "unknown key `round.long`"),
        ("cohort_min = 2", "cohort_min = 9", "cohort_min", "from 1 to 3"),
        ('duration = "1m"', 'duration = "0.5s"', "duration", "from 1s to"),
        ('duration = "1m"', "duration = 60", "duration", "text with its unit"),
        ("norm_max = 32.0", "norm_max = -1.0", "norm_max", "from 0"),
        ("norm_max = 32.0", "norm_max = 0.0", "norm_max", "it is from 0.0000152587890625 to"),
        ("norm_max = 32.0", "norm_max = inf", "norm_max", "number"),
        ("norm_max = 32.0", 'norm_max = "32"', "norm_max", "is a number"),
        ('"4 KiB"', '"4 kb"', "payload_bytes_max", "a size is"),
        ("nonzeros_min = 1", "nonzeros_min = 99", "nonzeros_min", "from 1 to 8"),
        ("weight_max = 100", "weight_max = 4194304", "cohort_max", "cohort_max \\* weight_max"),
        ("expires = ", "expires = 2020-01-01T00:00:00Z #", "expires", "has passed"),
        ("expires = ", "expires = 2027-01-01T00:00:00 #", "expires", "zone"),
        ("expires = ", "expires = 12 #", "expires", "a time or a duration"),
        ('tensors = ["a.weight"', 'tensors = ["b.weight"', "tensors", "names of the manifest"),
    ],
)
def test_each_bad_value_is_refused_on_its_line(
    drafted: Drafted, tmp_path: Path, old: str, new: str, where: str, reason: str
) -> None:
    found = drafted("segment-terms", "rocks", (old, new))
    assert isinstance(found, tuple)
    problem = found[-1]
    line = (tmp_path / "draft.toml").read_text().split("\n")[problem.line - 1]
    assert line.startswith((where, f"[{where}"))
    assert re.search(reason, problem.reason), problem.reason


def test_every_bad_thing_is_named_not_only_the_first(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text('kind = "participant"\nname = "X"\nclearance = "high"\nstate = "gone"\ncolour = 1\n')
    found = read_draft(path)
    assert isinstance(found, tuple)
    assert [problem.line for problem in found] == [1, 1, 2, 3, 4, 5]
    assert str(found[-1]) == f"{path}:5: unknown key `colour`: there are " + ", ".join(
        ["clearance", "expires", "groups", "kind", "name", "possession", "public_key", "reason", "state", "suite"]
    )


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("a = 1\nb = = 2\n", 2, "not TOML"),
        ('kind = "law"\n', 1, "segment-terms"),
        ("\n\nx = 1", 1, "segment-terms"),
        ("a = 1\n[x", 2, "not TOML"),
        ("a = " + "9" * 5000, 1, "not TOML"),
        ("a = 1." + "9" * 5000, 1, "64 characters"),
        ("a = " + "[" * 5000, 1, "not TOML"),
    ],
)
def test_what_is_no_draft_is_refused_with_a_line(tmp_path: Path, text: str, line: int, reason: str) -> None:
    path = tmp_path / "draft.toml"
    path.write_text(text)
    found = read_draft(path)
    assert isinstance(found, tuple)
    assert found[0].line == line
    assert reason in found[0].reason


def test_bytes_that_are_no_text_are_refused_on_their_line(tmp_path: Path) -> None:
    path = tmp_path / "draft.toml"
    path.write_bytes(b"a = 1\nb = '\xff'\n")
    found = read_draft(path)
    assert isinstance(found, tuple)
    assert (found[0].line, found[0].reason) == (2, "not UTF-8 text")


@pytest.mark.parametrize("series", SERIES, ids=lambda series: series[0])
def test_a_draft_is_checked_without_any_log(
    sim: Simulator, tmp_path: Path, drafted: Drafted, series: tuple[str, str]
) -> None:
    path = tmp_path / "alone.toml"
    path.write_text(draft_of(sim.state.placed[series].document))
    read = read_draft(path)
    assert isinstance(read, DraftFile)
    assert check_alone(read, NOW_US) == ()


def test_without_a_log_a_bad_value_is_still_found(drafted: Drafted) -> None:
    found = drafted("segment-terms", "rocks", ("cohort_min = 2", "cohort_min = 9"), alone=True)
    assert isinstance(found, tuple)
    assert "cohort_min" in found[0].reason


def test_a_segment_keeps_its_model(drafted: Drafted) -> None:
    tensors = '[{name = "a.weight", shape = [4], dtype = "int32"}]'
    other = f'[model]\ngrid_exponent = 3\ninitial = "zeros"\ntensors = {tensors}\n'
    found = drafted("segment-terms", "rocks", ("[limits]", f"{other}[limits]"))
    assert isinstance(found, tuple)
    assert "leave the table [model] out" in found[0].reason


def test_a_new_segment_brings_its_model(sim: Simulator, drafted: Drafted) -> None:
    new = ('segment = "rocks"', 'segment = "sand"')
    found = drafted("segment-terms", "rocks", new)
    assert isinstance(found, tuple)
    assert "a new segment needs its model" in found[0].reason
    tensors = '[[model.tensors]]\nname = "a.weight"\nshape = [4, 4]\ndtype = "int32"\n'
    bias = '[[model.tensors]]\nname = "a.bias"\nshape = [4]\ndtype = "int64"\n'
    model = f'[model]\ngrid_exponent = 16\ninitial = "zeros"\n{tensors}{bias}'
    after = document(drafted("segment-terms", "rocks", new, ("[limits]", f"{model}[limits]")))
    assert isinstance(after, SegmentTerms)
    assert (after.segment, after.version) == ("sand", 1)
    assert after.model.manifest.coordinates == 20


def test_a_participant_keeps_its_key_and_a_stranger_has_none(sim: Simulator, drafted: Drafted) -> None:
    after = document(drafted("participant", "rover-1", ('state = "active"', 'state = "suspended"')))
    assert isinstance(after, ParticipantRecord)
    assert (after.key, after.state) == (sim.rovers["rover-1"].public_key, "suspended")
    found = drafted("participant", "rover-1", ('name = "rover-1"', 'name = "rover-9"'))
    assert isinstance(found, tuple)
    assert "sfrl invite" in found[0].reason


def test_a_revoked_participant_has_no_next_version(sim: Simulator, drafted: Drafted) -> None:
    sim.record("rover-1", state="revoked")
    found = drafted("participant", "rover-1")
    assert isinstance(found, tuple)
    assert "under another name" in found[0].reason


def test_half_a_key_is_no_key(drafted: Drafted) -> None:
    found = drafted("participant", "rover-1", ("clearance = 5", 'clearance = 5\npublic_key = "00"'))
    assert isinstance(found, tuple)
    assert "given together" in found[0].reason


def test_a_threshold_that_nobody_can_meet_is_refused(drafted: Drafted) -> None:
    found = drafted("root", "", ("governance = 2", "governance = 4"))
    assert isinstance(found, tuple)
    assert "3 operators would be left and governance takes 4" in found[0].reason
    assert "governance = 4" in found[0].path.read_text().split("\n")[found[0].line - 1]


def test_root_keeps_trust_domain_and_log(sim: Simulator, drafted: Drafted) -> None:
    after = document(drafted("root", "", ("revocation = 1", "revocation = 2")))
    assert isinstance(after, RootDocument)
    assert sim.root is not None
    assert (after.trust_domain, after.log_host) == (sim.root.trust_domain, sim.root.log_host)
    assert after.federation_id == sim.federation_id


GOOD = '@id("a")\npermit (principal, action, resource);\n'


@pytest.mark.parametrize(
    ("cedar", "lines"),
    [
        (GOOD, []),
        (GOOD + "\n// a comment\n@id(\"b\")\nforbid (principal, action, resource)\nwhen { context.wait > 3 };\n", [7]),
        (GOOD + '@id("b")\nforbid (principal, action == Action::"submitt", resource);\n', [4]),
        (GOOD + '@id("b")\nforbid (principal, action, resource)\nwhen { context.norm == 0 };\n', [5]),
        (GOOD + "permit (principal, action, resource);\n", [3]),
        (GOOD + GOOD, [3]),
        (GOOD + '@id("b")\npermit (principal, action, resource)', [3]),
        ('permit (x);\n@id("b")\nforbid (y);\n', [1, 2]),
        (GOOD + "\u00e9", [1]),
    ],
)  # fmt: skip
def test_each_bad_rule_is_named_with_its_line(tmp_path: Path, cedar: str, lines: list[int]) -> None:
    path = tmp_path / "rules.cedar"
    path.write_text(cedar)
    assert [problem.line for problem in read_cedar(path)[1]] == lines


@pytest.mark.parametrize("quotes", ['"""', "'''"])
def test_a_bad_rule_inside_a_draft_has_the_drafts_line(tmp_path: Path, quotes: str) -> None:
    path = tmp_path / "rules.toml"
    bad = '@id("b")\nforbid (principal, action, resource)\nwhen { context.wait > 3 };\n'
    path.write_text(f'kind = "rules"\nexpires = "9d"\ncedar = {quotes}\n{GOOD}{bad}{quotes}\n')
    found = read_draft(path)
    assert isinstance(found, tuple)
    assert [problem.line for problem in found] == [8]


def test_rules_are_taken_from_the_file_beside_the_draft(sim: Simulator, tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text('kind = "rules"\nexpires = "9d"\nfile = "my.cedar"\n')
    found = read_draft(path)
    assert isinstance(found, tuple)
    assert found[0].line == 3
    (tmp_path / "my.cedar").write_text(GOOD)
    read = read_draft(path)
    assert isinstance(read, DraftFile)
    after = document(build_draft(read, Ground(sim.state, NOW_US)))
    assert isinstance(after, RulesDocument)
    assert after.cedar == GOOD


def test_rules_stand_in_one_place(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    for text in ("", f"file = 'a'\ncedar = '''{GOOD}'''\n"):
        path.write_text(f'kind = "rules"\nexpires = "9d"\n{text}')
        found = read_draft(path)
        assert isinstance(found, tuple)
        assert "either in a file" in found[0].reason


def test_orders_and_invitations_are_not_drafted(sim: Simulator) -> None:
    sim.halt()
    with pytest.raises(MalformedError):
        draft_of(sim.state.placed["order", "rocks"].document)
