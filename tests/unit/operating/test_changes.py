"""What a new version changes, in words, and for whom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import pytest
from simulator import Simulator

from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.governance.aggregation_terms import MEDIAN, CapTerms, ClipTerms, MaskTerms, MomentumTerms, RuleTerms
from sfrl_secure.governance.documents import Document, RulesDocument, SegmentTerms, parse_document
from sfrl_secure.governance.terms import LeakageBound, ModelTerms
from sfrl_secure.ids import sha256
from sfrl_secure.operating.changes import changes_of

from .built import Outcome, document

Drafted = Callable[..., Outcome]


def said(sim: Simulator, after: Document) -> str:
    return "\n".join(changes_of(sim.state.placed[after.series].document, after, sim.state))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("norm_max = 32.0", "norm_max = 16.0", "norm at most: 32 -> 16 (TIGHTER)"),
        ("norm_max = 32.0", "norm_max = 31.9999847412109375", "norm at most: 32 -> 31.9999847412109375 (TIGHTER)"),
        ("nonzeros_max = 8", "nonzeros_max = 9", "nonzeros at most: 8 -> 9 (LOOSER)"),
        ("cohort_min = 2", "cohort_min = 3", "cohort at least: 2 -> 3 (TIGHTER)"),
        ("nonzeros_min = 1", "nonzeros_min = 2", "nonzeros at least: 1 -> 2 (TIGHTER)"),
        ("noise_std_min = 0.0", "noise_std_min = 0.5", "noise at least: 0 -> 0.5 (TIGHTER)"),
        ('window = "1d"', 'window = "1h"', "quota's window: 1d -> 1h (LOOSER)"),
        ('duration = "1m"', 'duration = "2m"', "round lasts: 1m -> 2m (longer)"),
        ("rounds_max = 3", "rounds_max = 2", "rounds in all: 3 -> 2 (fewer)"),
        ('["fetch", "submit"]', '["fetch", "record", "submit"]', "whoever is granted may record"),
        ('operations = ["fetch", ', "operations = [", "nobody may fetch any more"),
        ('tensors = ["a.weight", ', "tensors = [", "updates may touch tensor a.weight: no longer (TIGHTER)"),
        ('value_types = ["int8"]', 'value_types = ["fp32", "int8"]', "value type fp32: new (LOOSER)"),
        ('support_modes = ["free"]', 'support_modes = ["dense", "free"]', "support dense: new (LOOSER)"),
        ("relay_groups = []", 'relay_groups = ["drones"]', "relay group drones: new (LOOSER)"),
        ("relay_groups = []", 'relay_groups = ["drones"]', "may bring others' updates: drone-1"),
        ("axis = 0", "axis = 1", "leakage.rows: a.weight axis 0: at least 2 is gone (LOOSER)"),
        ("axis = 0", "axis = 1", "leakage.rows: a.weight axis 1: at least 2 is new (TIGHTER)"),
        ("min = 2", "min = 3", "leakage.rows: a.weight axis 0: at least 2 -> 3 (TIGHTER)"),
        ("min = 2", "min = 1", "leakage.rows: a.weight axis 0: at least 2 -> 1 (LOOSER)"),
        ("sensitivity = 3", "sensitivity = 6", "no longer cleared, where a rule compares"),
        ('groups = ["rovers"]', 'groups = ["drones"]', "lose the segment: rover-1, rover-2, rover-3, rover-4"),
        ('groups = ["rovers"]', 'groups = ["drones"]', "gain the segment: drone-1"),
        ("expires = 20", "expires = 21", "expires later: "),
        (
            'name = "weighted_mean/v1"', 'name = "median/v1"',
            "rule: weighted_mean/v1: weighted mean, missing is zero -> median/v1: median of each coordinate",
        ),
        ("[limits]", "[clip]\nof_median = 1.0\n[limits]", "clip: none -> updates are cut to 1.0 of the round's median"),
    ],
)  # fmt: skip
def test_a_change_of_terms_is_said_with_its_direction_and_for_whom(
    sim: Simulator, drafted: Drafted, old: str, new: str, expected: str
) -> None:
    leakage = replace(sim.segment.terms.leakage, rows=(LeakageBound("a.weight", 0, 2),))
    sim.publish_terms(leakage=leakage, operations=["fetch", "submit"])
    sim.rovers["drone-1"] = SigningKey.generate("ed25519")
    sim.record("drone-1", groups=["drones"])
    assert expected in said(sim, document(drafted("segment-terms", "rocks", (old, new))))


def test_a_relay_that_may_no_longer_bring_updates_is_named(sim: Simulator, drafted: Drafted) -> None:
    sim.publish_terms(relay_groups=["rovers"])
    changes = said(sim, document(drafted("segment-terms", "rocks", ('relay_groups = ["rovers"]', "relay_groups = []"))))
    assert "relay group rovers: no longer (TIGHTER)" in changes
    assert "may no longer bring others' updates: rover-1, rover-2, rover-3, rover-4" in changes


def test_another_mask_is_said_with_its_object_and_how_many_it_has(sim: Simulator, drafted: Drafted) -> None:
    old, new = sha256(b"old"), sha256(b"new")
    sim.publish_terms(support_modes=["agreed", "free"], mask=MaskTerms(old, 7))
    other = ((old.hex(), new.hex()), ("nonzeros = 7", "nonzeros = 1"))
    changes = said(sim, document(drafted("segment-terms", "rocks", *other)))
    assert f"mask: 7 coordinates of {old.hex()}; it stays -> 1 coordinate of {new.hex()}; it stays" in changes
    none = (f'[mask]  # of the support mode agreed\ndigest = "{old.hex()}"\nnonzeros = 7\n', "")
    gone = said(sim, document(drafted("segment-terms", "rocks", none, ('["agreed", "free"]', '["free"]'))))
    assert f"mask: 7 coordinates of {old.hex()}; it stays -> none" in gone
    assert "support agreed: no longer (TIGHTER)" in gone


def test_no_field_of_the_terms_changes_without_a_word(sim: Simulator) -> None:
    before = sim.segment.terms
    manifest = before.model.manifest
    changes: dict[str, object] = {
        "sensitivity": 4, "groups": frozenset({"x"}), "operations": frozenset(), "tensors": ("a.bias",),
        "value_types": frozenset({"fp32"}), "support_modes": frozenset(), "suites": frozenset(),
        "rule": RuleTerms(MEDIAN), "clip": ClipTerms(norm=1), "cap": CapTerms(1, 1), "server": MomentumTerms(0, 1),
        "privacy": "other", "evidence_days": 1, "retention_days": 1, "model": ModelTerms(manifest, 1, before.digest),
        "expires_us": before.expires_us - 1, "mask": MaskTerms(before.digest, 3), "relay_groups": frozenset({"x"}),
    }  # fmt: skip
    unsaid = {"raw", "digest", "federation_id", "version", "previous", "segment", "allowed_tensor_indices"}
    nested = {"limits", "quota", "leakage", "round"}
    assert {field.name for field in fields(SegmentTerms)} == changes.keys() | unsaid | nested
    silent = changes_of(before, before)
    for name, value in changes.items():
        assert changes_of(before, replace(before, **{name: value})) != silent, name
    for name in nested:
        inner = getattr(before, name)
        for field in fields(inner):
            old = getattr(inner, field.name)
            other = replace(inner, **{field.name: old + 1 if isinstance(old, int) else (LeakageBound("a.bias", 0, 1),)})
            assert changes_of(before, replace(before, **{name: other})) != silent, (name, field.name)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('state = "active"', 'state = "revoked"', "rover-1 can never take part again"),
        ('state = "active"', 'state = "suspended"', "rover-1 was active and is suspended"),
        ("clearance = 5", "clearance = 2", "falls below the sensitivity of segment rocks"),
        ("clearance = 5", "clearance = 2", "clearance of rover-1 falls: 5 -> 2"),
        ('groups = ["rovers"]', "groups = []", "rover-1 loses segment rocks"),
        ('groups = ["rovers"]', 'groups = ["drones", "rovers"]', "rover-1 joins group drones"),
        ('reason = ""', 'reason = "dusty"', "reason: dusty"),
    ],
)
def test_a_change_of_a_record_says_what_the_participant_gains_and_loses(
    sim: Simulator, drafted: Drafted, old: str, new: str, expected: str
) -> None:
    assert expected in said(sim, document(drafted("participant", "rover-1", (old, new))))


def test_a_participant_who_comes_into_a_group_gains_its_segment(sim: Simulator, drafted: Drafted) -> None:
    sim.record("rover-1", groups=[])
    change = ("groups = []", 'groups = ["rovers"]')
    assert "rover-1 gains segment rocks" in said(sim, document(drafted("participant", "rover-1", change)))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("governance = 2", "governance = 3", "threshold governance: 2 -> 3 of 3 operators"),
        ('[operators."eve"]', '[operators."mallory"]', "operator eve is removed: its signatures count no more"),
        ('[operators."eve"]', '[operators."mallory"]', "operator mallory is new: ed25519 key"),
    ],
)
def test_a_change_of_root_says_who_governs(
    sim: Simulator, drafted: Drafted, old: str, new: str, expected: str
) -> None:
    assert expected in said(sim, document(drafted("root", "", (old, new))))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('name = "a1"', 'name = "a2"', "aggregator/a1 is removed: it writes and reads nothing more"),
        ('name = "a1"', 'name = "a2"', "aggregator/a2 is new: ed25519 key"),
        ('key_exchange = ["X25519", ', "key_exchange = [", "key exchange X25519 is no longer admitted"),
    ],
)
def test_a_change_of_services_says_which_and_how_one_connects(
    sim: Simulator, drafted: Drafted, old: str, new: str, expected: str
) -> None:
    assert expected in said(sim, document(drafted("services", "", (old, new))))


def test_a_new_key_of_an_operator_or_service_is_said(sim: Simulator, drafted: Drafted) -> None:
    other = SigningKey.generate("ed25519").public_key.raw.hex()
    for series, key in ((("root", ""), sim.operators["ann"]), (("services", ""), next(iter(sim.keys.values())))):
        changed = said(sim, document(drafted(*series, (key.public_key.raw.hex(), other))))
        assert "another" in changed
        assert "key" in changed


def rules(sim: Simulator, cedar: str) -> RulesDocument:
    before = sim.state.placed["rules", ""].document
    assert isinstance(before, RulesDocument)
    return replace(before, cedar=cedar)


A = '@id("a")\npermit (principal, action, resource);\n'
B = '@id("b")\nforbid (principal, action, resource)\nwhen { context.weight > 3 };\n'


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (A, A + B, ["rule b is new:", "  + forbid (principal, action, resource)"]),
        (A + B, A, ["rule b is removed:", "  - when { context.weight > 3 };"]),
        (A + B, A + B.replace("3", "4"), ["rule b changes:", "  + when { context.weight > 4 };"]),
        (A, "", ["there is no rule left: every update is denied"]),
        (A + B, B + A, ["only comments, spaces or the order of the rules change"]),
        (A, "// for all\n" + A, ["only comments, spaces or the order of the rules change"]),
    ],
)
def test_rules_are_compared_by_their_ids(sim: Simulator, before: str, after: str, expected: list[str]) -> None:
    changes = changes_of(rules(sim, before), rules(sim, after))
    for each in expected:
        assert each in changes


def test_a_first_version_is_said_whole_and_to_whom_it_grants(sim: Simulator) -> None:
    raw = sim.terms_raw(segment="sand")
    after = parse_document(SegmentTerms.payload_type, raw)
    changes = changes_of(None, after, sim.state)
    assert changes[0] == "new: terms of segment sand, version 1"
    assert "  granted now: rover-1, rover-2, rover-3, rover-4" in changes
