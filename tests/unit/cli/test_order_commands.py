"""`sfrl order`, `sfrl round reaggregate` and `sfrl segment`: operators intervene, and see what came of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from simulator import SEGMENT

from sfrl_secure.governance.orders import Order, ReaggregateTarget
from sfrl_secure.operating.signing import parse_request

from .governed import Governed


def test_a_halt_takes_one_key_and_a_resume_two(run, governed: Governed) -> None:
    sim, at = governed.sim, ("--profile", governed.profile, "--yes")
    halted = run("order", "halt", SEGMENT, "--reason", "smoke", *at, *governed.keys("eve"))
    assert halted.code == 0, halted
    assert "orders       halt rocks" in halted.err
    assert "published    order for segment rocks, version 1" in halted.out
    assert sim.segment.is_halted
    alone = run("order", "resume", SEGMENT, *at, *governed.keys("eve"), "--json")
    assert alone.code == 0
    said = json.loads(alone.out)
    assert said["needs"] == ["2 of the operators of root v1: signed by eve; 1 more of ann, bob"]
    assert "SIGNATURE..." in said["next"][1]
    assert "NOT published: too few have signed; it takes 2 of the operators" in alone.err
    assert "would sign   eve, with ed25519 key " in alone.err
    assert sim.segment.is_halted
    assert run("order", "resume", SEGMENT, *at, *governed.keys("ann", "bob"), "--out", "other.json").code == 0
    assert not sim.segment.is_halted


def test_without_keys_an_order_is_a_request_that_says_what_comes_next(run, governed: Governed) -> None:
    ended = run("order", "halt", SEGMENT, "--log", governed.log)
    assert ended.code == 0
    assert "next         sfrl policy sign order-rocks-v1.request.json --key KEY" in ended.out
    request = parse_request(Path("order-rocks-v1.request.json").read_bytes())
    assert isinstance(request.document, Order)
    assert not governed.sim.segment.is_halted


def test_with_enough_keys_and_no_profile_request_and_signatures_are_written(run, governed: Governed) -> None:
    ended = run("order", "halt", SEGMENT, "--log", governed.log, "--yes", *governed.keys("eve"), "--json")
    said = json.loads(ended.out)
    (publish,) = said["next"]
    assert publish == f"sfrl policy publish order-rocks-v1.request.json {said['signatures'][0]} --profile PROFILE"
    assert run(*publish.split()[1:-1], governed.profile).code == 0
    assert governed.sim.segment.is_halted


def test_an_order_with_no_effect_is_refused_before_anybody_signs(run, governed: Governed) -> None:
    ended = run("order", "resume", SEGMENT, "--profile", governed.profile, *governed.keys("ann", "bob"))
    assert ended.code == 3
    assert ended.err == "error: the segment is not halted (not_halted)\n"
    assert list(Path().iterdir()) == []


def test_an_update_is_excluded_by_round_and_participant_or_by_digest(run, governed: Governed) -> None:
    played = governed.sim.play_round("rover-1", "rover-2", "rover-3")
    at = ("--profile", governed.profile, "--yes", *governed.keys("ann", "bob"))
    assert run("order", "exclude", SEGMENT, "--round", 1, "--participant", "rover-2", *at).code == 0
    digest = played.admissions["rover-3"].statement_digest.hex()
    assert run("order", "exclude", SEGMENT, "--update", digest, *at).code == 0
    assert played.excluded == {"rover-2", "rover-3"}


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (("exclude", SEGMENT), "--round N --participant NAME, or --update DIGEST"),
        (("exclude", SEGMENT, "--round", "1"), "one round and one participant: --round N --participant NAME"),
        (("exclude", SEGMENT, "--update", "ABC"), "64 lower-case"),
        (("rollback", SEGMENT), "--round N or --model DIGEST"),
        (("rollback", SEGMENT, "--round", "1", "--model", "0" * 64), "two ways: give only one of --round N or"),
        (("override", SEGMENT, "--class", "1"), "--index N or --decision DIGEST"),
        (("halt", "sand"), "it has: rocks"),
        (("halt", SEGMENT, "--hours", "100"), "at most 72 hours"),
        (("halt", SEGMENT, "--hours", "0"), "more than 0"),
        (("halt", SEGMENT, "--hours", "-1"), "more than 0"),
        (("halt", SEGMENT, "--reason", "caf\u00e9"), "printable ASCII"),
        (("accept", SEGMENT, "--index", "1", "--code", "foo"), "no such code: the codes are: anchor,"),
        (("accept", SEGMENT, "--index", "1", "--code", "defectiv"), "did you mean defective?"),
        (("accept", SEGMENT, "--index", "1", "--code", "model"), "nobody can accept"),
    ],
)
def test_a_command_that_names_no_target_says_what_to_name(run, governed: Governed, command, reason: str) -> None:
    ended = run("order", *command, "--log", governed.log)
    assert ended.code == 2
    assert reason in ended.err


def test_a_segment_is_rolled_back_to_the_model_of_a_round(run, governed: Governed) -> None:
    sim = governed.sim
    first = sim.play_round("rover-1", "rover-2", "rover-3")
    sim.play_round("rover-1", "rover-2", "rover-3")
    at = ("--profile", governed.profile, "--yes", *governed.keys("ann", "bob"))
    assert run("order", "rollback", SEGMENT, "--round", 1, *at).code == 0
    assert sim.segment.model == first.model
    assert run("order", "rollback", SEGMENT, "--model", sim.initial_digest.hex(), *at).code == 0
    assert sim.segment.model == sim.initial_digest


def test_a_finding_is_accepted_and_a_decision_overridden(run, governed: Governed) -> None:
    sim = governed.sim
    sim.publish_terms(operations=["fetch", "record", "submit"])
    first, second = sim.decide("rover-1"), sim.decide("rover-2")
    at = ("--profile", governed.profile, "--yes", *governed.keys("ann", "bob"))
    assert run("order", "accept", SEGMENT, "--index", 3, "--code", "role", *at).code == 0
    assert sim.state.accepted == [(3, "role")]
    index = sim.state.decisions[first].index
    assert run("order", "override", SEGMENT, "--index", index, "--class", 7, *at).code == 0
    assert run("order", "override", SEGMENT, "--decision", second.hex(), "--class", 0, *at).code == 0
    assert [sim.state.decisions[each].overridden for each in (first, second)] == [7, 0]


def test_who_signs_an_order_is_told_whose_update_it_is_about(run, governed: Governed) -> None:
    governed.sim.play_round("rover-1", "rover-2", "rover-3")
    command = ("order", "exclude", SEGMENT, "--round", 1, "--participant", "rover-2")
    ended = run(*command, "--profile", governed.profile)
    assert "this is      the update of rover-2 in round 1, admitted by entry " in ended.err


def test_the_codes_that_can_be_accepted_are_in_the_help(run) -> None:
    said = " ".join(run("order", "accept", "--help").out.split())
    assert "censorship" in said
    assert "wrong_prefix" in said


# Deriving again


@pytest.fixture
def revoked(governed: Governed) -> Governed:
    """Two rounds, of whose updates one participant's fall out."""
    governed.sim.play_round("rover-1", "rover-2", "rover-3")
    governed.sim.play_round("rover-1", "rover-2", "rover-4")
    governed.sim.record("rover-2", state="revoked", signers=["eve"])
    return governed


def test_what_the_difference_reveals_is_said_and_asked_for(run, revoked: Governed) -> None:
    command = ("round", "reaggregate", SEGMENT, "--from", 1, "--profile", revoked.profile)
    ended = run(*command)
    assert ended.code == 2
    assert "round 1 is derived again without rover-2\nround 2 is derived again without rover-2\n" in ended.err
    assert "REVEALS: rover-2" in ended.err
    assert ended.err.endswith("agree with --reveals rover-2\n")
    for other in ("none", "rover-1", "rover-1,rover-2"):
        wrong = run(*command, "--reveals", other)
        assert wrong.code == 2
        assert "agree with --reveals rover-2" in wrong.err
    agreed = run(*command, "--reveals", "rover-2", "--yes", *revoked.keys("ann", "bob"))
    assert agreed.code == 0, agreed
    assert revoked.sim.segment.due == [1, 2]


@pytest.mark.parametrize(("typed", "code"), [("rover-2", 0), ("yes", 3), ("rover-1", 3)])
def test_the_names_are_typed_back_on_a_terminal(
    run, revoked: Governed, monkeypatch: pytest.MonkeyPatch, typed: str, code: int
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.prompt", lambda question, err: typed)
    ended = run("round", "reaggregate", SEGMENT, "--from", 2, "--profile", revoked.profile, "--out", "again.json")
    assert ended.code == code
    assert Path("again.json").exists() == (code == 0)
    if code == 0:
        order = parse_request(Path("again.json").read_bytes()).document
        assert isinstance(order, Order)
        assert order.target == ReaggregateTarget(2, ("rover-2",))


def test_the_derived_rounds_are_shown_with_whom_they_leave_out(run, revoked: Governed, publish_to) -> None:
    sim = revoked.sim
    sim.reaggregate(1)
    publish_to(sim, revoked.log)
    listed = run("segment", "list", "--log", revoked.log)
    assert listed.out.splitlines()[1].split()[:3] == ["rocks", "derived", "again"]
    assert "DERIVED AGAIN: round 1, 2" in run("segment", "show", SEGMENT, "--log", revoked.log).out
    sim.publish_model()
    sim.publish_model()
    publish_to(sim, revoked.log)
    shown = run("segment", "show", SEGMENT, "--log", revoked.log)
    assert shown.out.count(", without rover-2") == 2
    said = json.loads(run("segment", "show", SEGMENT, "--log", revoked.log, "--json").out)
    assert [step["left_out"] for step in said["lineage"]] == [["rover-2"], ["rover-2"]]
    assert (said["state"], said["due"], said["orders"]) == ("idle", [], 1)
    first = run("round", "show", 1, "--log", revoked.log, "--segment", SEGMENT)
    assert "left out  when it was derived again: rover-2" in first.out
    assert "rover-2: entry " in first.out
    assert ", left out, weight" in first.out


def test_nothing_to_leave_out_and_no_such_round_are_said(run, governed: Governed) -> None:
    governed.sim.play_round("rover-1", "rover-2", "rover-3")
    at = ("--profile", governed.profile)
    nothing = run("round", "reaggregate", SEGMENT, "--from", 1, *at)
    assert nothing.code == 3
    assert "no update is newly excluded and nobody newly revoked" in nothing.err
    missing = run("round", "reaggregate", SEGMENT, "--from", 2, *at)
    assert missing.code == 2
    assert "those did: 1" in missing.err


def test_where_a_whole_cohort_falls_out_nobody_is_asked_for(run, governed: Governed) -> None:
    sim = governed.sim
    sim.play_round("rover-1", "rover-2", "rover-3")
    for name in ("rover-1", "rover-2"):
        sim.record(name, state="revoked", signers=["eve"])
    at = ("--profile", governed.profile, "--yes", *governed.keys("ann", "bob"))
    ended = run("round", "reaggregate", SEGMENT, "--from", 1, *at)
    assert ended.code == 0, ended
    assert "REVEALS: nobody" in ended.err


# Segments


def test_a_halted_segment_is_shown_as_such(run, governed: Governed, publish_to) -> None:
    governed.sim.halt(reason="smoke")
    publish_to(governed.sim, governed.log)
    said = json.loads(run("segment", "list", "--log", governed.log, "--json").out)
    (segment,) = said["segments"]
    assert (segment["segment"], segment["state"], segment["orders"]) == ("rocks", "halted", 1)
    assert segment["granted"] == ["rover-1", "rover-2", "rover-3", "rover-4"]
    shown = run("segment", "show", SEGMENT, "--log", governed.log)
    assert "HALTED: no round opens" in shown.out
    assert f"from the initial model {governed.sim.initial_digest.hex()}: it is the newest" in shown.out
    overall = run("policy", "show", "--log", governed.log)
    assert "last order   no. 1, entry " in overall.out
    assert "halt rocks" in overall.out


def test_a_segment_that_is_not_there_is_named_with_those_that_are(run, governed: Governed) -> None:
    ended = run("segment", "show", "sand", "--log", governed.log)
    assert (ended.code, ended.err) == (2, "error: the log has no such segment; it has: rocks\n")


def test_an_ended_and_an_abandoned_round_are_shown_as_such(run, governed: Governed, publish_to) -> None:
    sim = governed.sim
    first = sim.play_round("rover-1", "rover-2", "rover-3")
    sim.open_round()
    sim.admit("rover-1")
    sim.withdraw("rover-1")
    sim.admit("rover-2")
    sim.exclude("rover-2")
    publish_to(sim, governed.log)
    shown = run("round", "show", 2, "--log", governed.log, "--segment", SEGMENT)
    assert "rover-1: entry " in shown.out
    assert ", withdrawn, weight" in shown.out
    assert ", excluded, weight" in shown.out
    assert first.model is not None
    sim.roll_back(sim.initial_digest)
    publish_to(sim, governed.log)
    assert run("round", "list", "--log", governed.log).out.splitlines()[2].split()[2] == "ended"
