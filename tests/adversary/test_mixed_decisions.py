"""At least 5,000 decisions of a real gatekeeper, with refusals of every reason that has evidence: the verifier decides
each of them again, from the log and the objects alone, to the same outcome and the same rule ids.

And where one recorded rule id is another one, or the payload was not kept, it says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from simulated_statements import G1

from sfrl_secure.audit.report import Report
from sfrl_secure.audit.source import FolderObjects
from sfrl_secure.audit.verify import verify_log
from sfrl_secure.governance.statements import Evidence, Statement, UpdateAdmitted, UpdateRefused
from sfrl_secure.replay.fold import Replay
from sfrl_secure.translog.policy import NO_QUORUM, format_trust_policy
from sfrl_secure.wire.content import parse_content

from ..unit.audit.histories import History
from .mixed_decisions import HEADER_FAULTS, PAYLOAD_FAULTS, SEGMENTS, Fleet

ROUNDS = 5
DECISIONS = 5_000
BESIDES = {
    "not_granted", "participant_inactive", "suite_not_allowed", "wrong_peer", "replayed", "halted", "duplicate",
    "round_full", "deadline", "quota_updates", "quota_bytes",
}  # fmt: skip
REASONS = BESIDES | {fault.reason for fault in (*HEADER_FAULTS, *PAYLOAD_FAULTS)}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    made = Fleet(tmp_path_factory.mktemp("fleet"))
    for number in range(1, ROUNDS + 1):
        made.open_rounds()
        for segment in SEGMENTS:
            made.play(segment, number)
        made.run_out()
    yield made
    made.sim.close()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """One round of one segment."""
    made = Fleet(tmp_path_factory.mktemp("small"))
    made.open_rounds()
    made.play("rocks", 1)
    yield made
    made.sim.close()


def verify(fleet: Fleet, folder: Path) -> Report:
    """Verify the log without asking for witnesses' clocks, which the simulation does not keep."""
    log = History(fleet.sim, fleet.sim.log.raw).write(folder)
    policy = replace(fleet.sim.policy, witnesses=(), groups=(), quorum=NO_QUORUM)
    return verify_log(log, format_trust_policy(policy), fleet.sim.folder / "objects")


def test_every_decision_of_a_large_mixed_log_is_decided_again(fleet: Fleet, tmp_path: Path) -> None:
    report = verify(fleet, tmp_path)
    assert (report.findings, report.missing) == ((), ())
    assert report.verdict == "verified"
    assert report.refused == fleet.refused
    assert report.admitted == fleet.admitted
    assert report.refused.keys() == REASONS
    assert report.admitted + sum(report.refused.values()) >= DECISIONS
    assert report.refusals_on_word == 0
    assert "; 0 more counted, 0 on word\n" in report.to_text()


def evidence_of(fleet: Fleet) -> set[tuple[str, Evidence]]:
    found = set()
    for index in range(len(fleet.sim.log.raw)):
        content = parse_content(fleet.sim.log.envelope_at(index))
        if isinstance(content, Statement) and isinstance(content.body, UpdateRefused):
            found.add((content.body.reason, content.body.evidence))
    return found


def test_the_log_holds_refusals_of_both_kinds_of_evidence_and_of_no_third(fleet: Fleet) -> None:
    found = evidence_of(fleet)
    assert {reason for reason, evidence in found if evidence is Evidence.OBJECT} == {
        fault.reason for fault in PAYLOAD_FAULTS
    }
    log = BESIDES | {fault.reason for fault in HEADER_FAULTS}
    assert {reason for reason, evidence in found if evidence is Evidence.LOG} == log
    assert not [reason for reason, evidence in found if evidence is Evidence.NONE]


def last_decision(fleet: Fleet, kind: type, evidence: Evidence | None = None) -> Statement:
    """The last decision of a kind that names a rule."""
    for index in reversed(range(len(fleet.sim.log.raw))):
        content = parse_content(fleet.sim.log.envelope_at(index))
        if not isinstance(content, Statement) or not isinstance(content.body, kind):
            continue
        if content.body.rule_ids and evidence in (None, getattr(content.body, "evidence", None)):
            return content
    raise AssertionError("the log holds each kind")


@pytest.mark.parametrize(("kind", "evidence", "code"), [
    (UpdateAdmitted, None, "defective"),
    (UpdateRefused, Evidence.LOG, "refusal_rules"),
    (UpdateRefused, Evidence.OBJECT, "refusal_rules"),
])  # fmt: skip
def test_one_rule_id_that_is_another_is_a_finding(
    small: Fleet, kind: type, evidence: Evidence | None, code: str
) -> None:
    statement = last_decision(small, kind, evidence)
    at = next(
        index for index in range(len(small.sim.log.raw))
        if parse_content(small.sim.log.envelope_at(index)) == statement
    )  # fmt: skip
    (*others, last) = statement.body.rule_ids
    body = replace(statement.body, rule_ids=(*others, last[:-1] + "x"))
    history = History(small.sim, small.sim.log.raw[:at])
    history.add(small.sim.sign(replace(statement, body=body)))
    (log,) = small.sim.policy.logs
    replay = Replay(log, FolderObjects(small.sim.folder / "objects"))
    for raw in history.entries[:-1]:
        assert replay.step(raw) == []
    assert [(each.code, each.index, each.writer) for each in replay.step(history.entries[-1])] == [(code, at, G1)]


def test_where_no_payload_is_kept_its_refusals_are_on_word(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, evidence_budget=0)
    fleet.open_rounds()
    for fault in PAYLOAD_FAULTS:
        if "ice" in fault.segments:
            fleet.send("rover-00", "ice", fault)
    kept = Fleet(tmp_path / "kept")
    kept.open_rounds()
    kept.send("rover-00", "ice", PAYLOAD_FAULTS[0])
    reports = [verify(each, tmp_path / name) for each, name in ((fleet, "none"), (kept, "one"))]
    fleet.sim.close()
    kept.sim.close()
    assert [report.verdict for report in reports] == ["verified", "verified"]
    assert [report.refusals_on_word for report in reports] == [sum(fleet.refused.values()), 0]
    assert f"{sum(fleet.refused.values())} on word" in reports[0].to_text()
