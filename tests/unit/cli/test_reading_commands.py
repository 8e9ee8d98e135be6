"""`sfrl policy show`, `sfrl round list` and `show`: what the log says, in words."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from simulator import MANIFEST, SEGMENT, Simulator, service_id

from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.governance.aggregation_terms import NextMaskTerms
from sfrl_secure.ids import sha256
from sfrl_secure.sparse.mask import decode_mask

from ..aggregator.ruled import NAMES, ruled, send


def test_policy_show_names_operators_services_participants_and_terms(run, made) -> None:
    ended = run("policy", "show", "--log", made.log)
    assert ended.code == 0
    assert "not a proof" in ended.err
    for said in (
        "v1: ann, bob, eve; root takes 2 of them, governance 2", "gatekeeper/g1", "rover-4: active",
        "segment      rocks", "rule         weighted_mean/v1", "weight 1 to 100",
        "updates may touch a.weight, a.bias",
    ):  # fmt: skip
        assert said in ended.out
    assert "no effect" not in ended.out
    assert "permit" not in ended.out


def test_policy_show_of_a_segment_has_its_terms_and_the_rules_text_only(run, made) -> None:
    ended = run("policy", "show", "--log", made.log, "--segment", "rocks")
    assert ended.code == 0
    assert "permit (principal" in ended.out
    assert "federation" not in ended.out


@pytest.mark.parametrize("command", [("policy", "show"), ("round", "list"), ("round", "show", "1")])
def test_a_segment_that_is_not_in_the_log_is_wrong_use_and_the_known_ones_are_named(run, made, command) -> None:
    ended = run(*command, "--log", made.log, "--segment", "rock")
    assert ended.code == 2
    assert ended.err == "error: the log has no such segment; it has: rocks\n"


def test_round_list_has_a_line_for_each_round(run, made) -> None:
    ended = run("round", "list", "--log", made.log)
    assert ended.code == 0
    assert "not a proof" in ended.err
    _, first, second = ended.out.splitlines()
    assert first.split()[:3] == ["rocks", "1", "published"]
    assert first.split()[5:7] == ["3", "3"]
    assert second.split()[:3] == ["rocks", "2", "open"]


def test_round_show_has_each_update_and_its_fate(run, made) -> None:
    ended = run("round", "show", "1", "--log", made.log, "--segment", "rocks")
    assert ended.code == 0
    for name in ("rover-1", "rover-2", "rover-3"):
        assert f"  {name}: entry " in ended.out
    assert ended.out.count(" counted, weight 10") == 3
    assert "full: closed, 3 counted" in ended.out
    assert "rules cleared-submit, cleared-admit" in ended.out or "rules cleared-admit, cleared-submit" in ended.out


def test_round_show_as_json_has_the_same_facts(run, made) -> None:
    ended = run("round", "show", "1", "--log", made.log, "--segment", "rocks", "--json")
    assert ended.code == 0
    (line,) = ended.out.splitlines()
    facts = json.loads(line)
    assert (facts["segment"], facts["round"], facts["state"]) == ("rocks", 1, "published")
    assert [each["participant"] for each in facts["updates"]] == ["rover-1", "rover-2", "rover-3"]
    assert {each["fate"] for each in facts["updates"]} == {"counted"}
    assert (facts["closed"]["counted"], facts["clip"], facts["clipped"], facts["clusters"]) == (3, None, None, None)
    words = run("round", "show", "1", "--log", made.log, "--segment", "rocks").out
    assert f"model     entry {facts['published']['index']}: {facts['published']['model']}\n" in words
    assert facts["published"]["next_mask"] is None


def test_round_show_counts_what_is_new_in_the_next_mask_where_it_has_the_objects(
    run, tmp_path: Path, publish_to
) -> None:
    sim = ruled(tmp_path / "sim", {"next": NextMaskTerms("votes", 2)})
    draw = np.random.default_rng(5)
    sim.open_round()
    for name in NAMES:
        send(sim, name, draw)
    sim.close_round()
    sim.publish_model()
    publish_to(sim, tmp_path / "log")
    show = ("round", "show", "1", "--log", tmp_path / "log", "--segment", SEGMENT)
    (step,) = sim.segment.lineage
    assert step.next_mask is not None
    masks = [
        set(decode_mask(sim.objects.get(digest, 4_096), MANIFEST.coordinates).indices.tolist())
        for digest in (sim.segment.rounds[1].mask, step.next_mask)
    ]
    changed = len(masks[1] - masks[0])
    assert changed > 0
    assert f"next mask {step.next_mask.hex()}, unless other terms come\n" in run(*show).out
    known = run(*show, "--objects", tmp_path / "sim" / "objects").out
    assert f"next mask {step.next_mask.hex()}, unless other terms come; {changed} of its coordinates are new\n" in known
    facts = json.loads(run(*show, "--objects", tmp_path / "sim" / "objects", "--json").out)
    assert facts["published"]["next_mask_changes"] == changed
    # What is not there, or is no mask, is not known, and nothing else is lost.
    sim.objects.path(step.next_mask).write_bytes(b"no mask")
    facts = json.loads(run(*show, "--objects", tmp_path / "sim" / "objects", "--json").out)
    assert facts["published"]["next_mask_changes"] is None
    assert run(*show, "--objects", tmp_path / "nowhere").code == 2
    assert not (tmp_path / "nowhere").exists()
    sim.close()


def test_an_open_round_has_no_closing_and_no_model(run, made) -> None:
    ended = run("round", "show", "2", "--log", made.log, "--segment", "rocks")
    assert ended.code == 0
    assert "updates   none" in ended.out
    assert "closed" not in ended.out
    assert "model  " not in ended.out


def test_a_round_that_was_never_opened_is_wrong_use(run, made) -> None:
    ended = run("round", "show", "3", "--log", made.log, "--segment", "rocks")
    assert ended.code == 2
    assert "opened 2 rounds so far" in ended.err


def test_an_aborted_round_and_a_dropped_update_are_named(run, tmp_path: Path, publish_to) -> None:
    sim = Simulator(tmp_path / "sim")
    sim.open_round()
    sim.admit("rover-1")
    sim.record("rover-1", state="suspended", reason="lost")
    sim.clock.advance(61_000_000)
    sim.close_round()
    publish_to(sim, tmp_path / "log")
    listed = run("round", "list", "--log", tmp_path / "log")
    assert listed.out.splitlines()[1].split()[2] == "aborted"
    shown = run("round", "show", "1", "--log", tmp_path / "log", "--segment", SEGMENT)
    assert "rover-1: entry " in shown.out
    assert "dropped: participant_inactive" in shown.out
    granted = run("policy", "show", "--log", tmp_path / "log", "--segment", SEGMENT)
    assert "now granted  rover-2, rover-3, rover-4;" in granted.out


def test_entries_without_effect_are_listed_with_their_reason(run, tmp_path: Path, publish_to) -> None:
    sim = Simulator(tmp_path / "sim")
    stranger = sim.identity("stranger", spki=sha256(b"x"), key=SigningKey.generate("ed25519"))
    index = sim.log.force(sim.sign(sim.statement(service_id("gatekeeper", "g1"), "identity", stranger)))
    publish_to(sim, tmp_path / "log")
    ended = run("policy", "show", "--log", tmp_path / "log")
    assert f"no effect    entry {index}: unknown_name" in ended.out


def test_a_log_whose_entry_0_is_no_genesis_is_refused(run, published) -> None:
    (path,) = (published.log / "tile/entries/000.p").iterdir()
    raw = path.read_bytes()
    first = 2 + int.from_bytes(raw[:2], "big")
    second = 2 + int.from_bytes(raw[first : first + 2], "big")
    path.write_bytes(raw[first : first + second] + raw[:first] + raw[first + second :])
    ended = run("policy", "show", "--log", published.log)
    assert ended.code == 2
    assert "entry 0 is not a genesis" in ended.err


def test_a_genesis_of_another_origin_than_the_checkpoints_is_refused(run, published) -> None:
    path = published.log / "checkpoint"
    origin, _, rest = path.read_bytes().partition(b"\n")
    path.write_bytes(origin + b"0\n" + rest)
    ended = run("policy", "show", "--log", published.log)
    assert ended.code == 2
    assert ended.err == "error: the genesis has no effect (genesis): see `sfrl audit verify`\n"
