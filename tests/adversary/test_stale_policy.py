"""Stale policy: acting on what was in force before, or a moment too late. Both readers agree on the microsecond."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sfrl_secure.rounds.fold import FederationFold
from sfrl_secure.translog.merkle import leaf_hash
from sfrl_secure.wire.content import parse_content
from sfrl_secure.wire.entries import parse_entry

from ..unit.replay.builder import SECOND, Writer, codes, sha

Act = Callable[[Writer], object]


def void_codes(log: Writer) -> list[str]:
    """Codes that the replay finds, after checking that the fold finds the same entries void."""
    fold = FederationFold(log.origin, (log.signer.key.vkey, log.cosigner.key.vkey))
    voids = []
    for index, raw in enumerate(log.entries):
        entry = parse_entry(raw)
        if fold.apply(index, leaf_hash(raw), entry, parse_content(entry.envelope)) is not None:
            voids.append(index)
    findings = log.replay().docket.findings
    assert [finding.index for finding in findings] == voids
    return codes(findings)


def at(log: Writer, time_us: int) -> Writer:
    """Let the next entry bear this time."""
    log.now = time_us - SECOND
    return log


def services_end(log: Writer, end: int) -> Act:
    log.publish_services(expires_us=end)
    return lambda later: later.count()


def terms_end(log: Writer, end: int) -> Act:
    log.publish_terms(expires_us=end)
    return lambda later: later.open_round()


def participant_ends(log: Writer, end: int) -> Act:
    log.record("r1", expires_us=end)
    at(log, end - 60 * SECOND).open_round()
    return lambda later: later.admit("r1", {1: 5})


def document_ends(log: Writer, end: int) -> Act:
    return lambda later: later.record("r1", expires_us=end)


def statement_ends(log: Writer, end: int) -> Act:
    return lambda later: later.count(valid_until_us=end)


def identity_ends(log: Writer, end: int) -> Act:
    return lambda later: later.issue("spiffe://rover.example/operator/ann", not_after_us=end)


def round_ends(log: Writer, end: int) -> Act:
    at(log, end - 600 * SECOND)
    log.open_round()
    return lambda later: later.admit("r1", {1: 5})


@pytest.mark.parametrize(
    ("begin", "code"),
    [
        (services_end, "expired"), (terms_end, "expired"), (participant_ends, "participant_inactive"),
        (document_ends, "expired"), (statement_ends, "expired"), (identity_ends, "expired"), (round_ends, "deadline"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("late", [False, True])
def test_what_ends_is_over_at_its_very_end(begin: Callable[[Writer, int], Act], code: str, late: bool) -> None:
    log = Writer().begin()
    end = log.now + 700 * SECOND
    act = begin(log, end)
    act(at(log, end if late else end - 1))
    assert void_codes(log) == ([code] if late else [])


@pytest.mark.parametrize("early", [False, True])
def test_a_round_closes_at_its_deadline_and_not_before(early: bool) -> None:
    log = Writer().begin()
    log.open_round()
    deadline = log.now + 600 * SECOND
    log.admit("r1", {1: 5})
    at(log, deadline - early).close(void=early)
    assert void_codes(log) == (["close_early"] if early else [])


@pytest.mark.parametrize("late", [False, True])
def test_rules_that_have_ended_permit_nothing(late: bool) -> None:
    log = Writer().begin()
    end = log.now + 100 * SECOND
    log.publish_rules(expires_us=end)
    log.open_round()
    at(log, end if late else end - 1).admit("r1", {1: 5})
    assert codes(log.replay().docket.findings) == (["defective"] if late else [])


def test_a_statement_that_was_decided_before_the_last_document_is_void() -> None:
    log = Writer().begin()
    log.open_round()
    before = log.governance_head
    log.record("r4", state="revoked")
    log.admit("r1", {1: 5}, reads_governance=before, void=True)
    assert void_codes(log) == ["stale_governance"]


def test_terms_that_come_during_a_round_wait_for_the_next() -> None:
    log = Writer().begin()
    log.open_round()
    stricter = log.terms()
    stricter["limits"] = {**stricter["limits"], "weight_max": 1}
    log.publish_terms(stricter)
    log.admit("r1", {1: 5}, 40)
    log.admit("r2", {2: 6}, 101, void=True)
    log.admit("r2", {2: 6})
    log.now += 600 * SECOND
    log.close()
    log.publish_model()
    log.open_round(body={"terms": sha(b"the terms before")}, void=True)
    log.open_round()
    log.admit("r1", {1: 5}, 2, void=True)
    assert void_codes(log) == ["weight_limit", "terms", "weight_limit"]


def test_rules_that_come_during_a_round_hold_from_their_entry_on() -> None:
    log = Writer().begin()
    log.open_round()
    log.admit("r1", {1: 5})
    log.publish_rules('@id("new") permit (principal, action, resource);')
    log.admit("r2", {2: 6})  # names the rules of before
    log.admit("r3", {3: 7}, rule_ids=("new", "new"))
    findings = log.replay().docket.findings
    assert [(each.code, each.expected) for each in findings] == [("defective", "new, new")]


def test_too_few_signatures_today_do_not_bar_enough_tomorrow() -> None:
    """A log that writes a document down before its operators have all signed cannot keep it from effect that way."""
    log = Writer().begin()
    raw = log.document("rules", {"cedar": ""}, signers=("ann",), void=True)
    log.append(log.signed("rules", raw, ("ann", "bob")), "governance")
    log.governance_head = leaf_hash(log.entries[-1])
    log.count()
    assert void_codes(log) == ["threshold"]
