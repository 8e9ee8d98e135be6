"""What operators and participants did beside rounds, as the verifier's report tells it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sfrl_secure.audit.report import Report
from sfrl_secure.audit.verify import verify_log

from ..replay.builder import SECOND, Writer
from ..replay.intervention_rows import digest_of
from ..replay.void_rows import UPDATES, full


@pytest.fixture
def writer() -> Writer:
    writer = Writer().begin()
    writer.anchoring = True
    return writer


def verify(writer: Writer, folder: Path) -> Report:
    log, trust_policy, objects = writer.write(folder)
    return verify_log(log, trust_policy, objects)


def test_what_happened_beside_rounds_is_counted_and_superseded_models_are_told(
    writer: Writer, tmp_path: Path
) -> None:
    writer.run_round(UPDATES)
    first = len(writer.entries) - 1
    digest = writer.decide("r1", 1)
    writer.decide("r1", 2)
    writer.order("override", {"decision": digest, "class": 4})
    writer.order("exclude", {"update": digest_of(writer, "r1")})
    writer.order("reaggregate", {"from_round": 1, "reveals": ["r1"]})
    writer.publish_again(1, ["r1"])
    again = len(writer.entries) - 1
    full(writer)
    writer.withdraw("r2")
    writer.complain("r1", UPDATES["r1"])
    writer.close(dropped={"r2": "withdrawn"})
    writer.publish_model()
    report = verify(writer, tmp_path)
    assert (report.verdict, report.missing) == ("verified", ())
    fields = json.loads(json.dumps(report.to_json()))
    orders = {"exclude": 1, "override": 1, "reaggregate": 1}
    assert [fields[key] for key in ("withdrawals", "complaints", "decisions", "overridden", "orders")] == [
        1, 1, 2, 1, orders,
    ]  # fmt: skip
    assert fields["superseded"] == [
        {"segment": "rocks", "round": 1, "was_index": first, "index": again, "left_out": 1}
    ]  # fmt: skip
    text = report.to_text()
    assert "said        1 withdrawal, 1 complaint, 2 decisions with 1 overridden" in text
    assert "orders      1 exclude, 1 override, 1 reaggregate" in text
    assert f"round 1 of rocks: the model of entry {first} is superseded by that of entry {again}" in text
    assert "without 1 update" in text
    assert "0 on word" in text
    assert "conduct     clean\n" in text


def accept(writer: Writer, index: int, code: str) -> int:
    writer.order("accept", {"index": index, "code": code})
    return len(writer.entries) - 1


def test_what_operators_accept_is_told_and_makes_nothing_false(writer: Writer, tmp_path: Path) -> None:
    writer.run_round(UPDATES)
    writer.count(federation_id=bytes(32))
    at = len(writer.entries) - 1
    before = verify(writer, tmp_path / "before")
    assert (before.verdict, before.conduct_clean, before.results_sound) == ("false", False, True)
    order = accept(writer, at, "wrong_federation")
    report = verify(writer, tmp_path / "after")
    assert (report.verdict, report.exit_code, report.findings) == ("verified", 0, ())
    assert report.conduct_clean
    assert [(each.finding.code, each.finding.index, each.order_index) for each in report.accepted] == [
        ("wrong_federation", at, order)
    ]  # fmt: skip
    text = report.to_text()
    assert text.startswith(f"VERIFIED: all {len(writer.entries)} entries")
    assert "but for 1 finding that operators accept" in text
    assert f"entry {at}: wrong_federation" in text
    assert f"accepted by the operators' order at entry {order}" in text
    assert "conduct     clean but for 1 accepted finding" in text
    (accepted,) = json.loads(json.dumps(report.to_json()))["accepted"]
    assert (accepted["code"], accepted["index"], accepted["order_index"]) == ("wrong_federation", at, order)


def test_an_accepted_finding_leaves_others_false(writer: Writer, tmp_path: Path) -> None:
    for _ in range(2):
        writer.count(federation_id=bytes(32))
    at = len(writer.entries) - 1
    accept(writer, at, "wrong_federation")
    report = verify(writer, tmp_path)
    assert report.verdict == "false"
    assert [each.index for each in report.findings] == [at - 1]


def test_a_false_model_that_operators_would_accept_stays_false(writer: Writer, tmp_path: Path) -> None:
    full(writer)
    writer.close()
    writer.publish_model(model=[1] + [0] * 16)
    accept(writer, len(writer.entries) - 1, "model")
    report = verify(writer, tmp_path)
    assert (report.verdict, report.results_sound, report.accepted) == ("false", False, ())


def test_censorship_is_told_against_the_gatekeepers(writer: Writer, tmp_path: Path) -> None:
    writer.open_round()
    writer.complain("r4")
    writer.now += 20 * SECOND
    for name, update in UPDATES.items():
        writer.admit(name, update)
    writer.close()
    at = len(writer.entries) - 1
    writer.publish_model()
    report = verify(writer, tmp_path / "before")
    assert [(each.code, each.index, each.writer) for each in report.findings] == [("censorship", at, "gatekeepers")]
    # Nothing is wrong with the model: it holds what was counted.
    assert report.results_sound
    accept(writer, at, "censorship")
    assert verify(writer, tmp_path / "after").verdict == "verified"


def test_an_order_that_accepts_what_nobody_found_is_told(writer: Writer, tmp_path: Path) -> None:
    writer.run_round(UPDATES)
    order = accept(writer, 3, "overdue")
    report = verify(writer, tmp_path)
    assert (report.verdict, report.accepted) == ("verified", ())
    assert f"the order at entry {order} accepts overdue at entry 3: no such finding" in report.to_text()
    assert report.to_json()["unmatched"] == [{"code": "overdue", "index": 3, "order_index": order}]
