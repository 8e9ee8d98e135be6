"""Roots, enrolment, orders and words of participants, as they take effect in logs in which everything holds."""

from __future__ import annotations

from typing import Any

import pytest

from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.replay.fold import Replay

from .builder import COORDINATES, DAY, NEVER, SECOND, SEGMENT, Writer, codes, sha, untold
from .intervention_rows import DEE, HOUR, NEW_KEY, R1, R5, TOKEN, digest_of, keys_of, with_dee
from .payloads import encode_payload, weighted_mean
from .void_rows import UPDATES, full, terms_with


def clean(writer: Writer) -> Replay:
    replay = writer.replay()
    assert replay.docket.findings == []
    assert replay.missing == ()
    segment = replay.state.segments[SEGMENT]
    assert segment.model == writer.model_digest
    assert segment.values is not None
    assert segment.values.tolist() == writer.model
    return replay


# Roots


def test_a_root_hands_over_to_new_operators() -> None:
    writer = Writer().begin()
    body = with_dee(writer)
    writer.rotate_root([*keys_of(writer), DEE], body=body)
    del writer.operators["cyd"]
    writer.operators["dee"] = DEE
    writer.publish_rules(signers=["ann", "dee"])
    writer.issue("spiffe://rover.example/operator/dee")
    writer.run_round(UPDATES)
    clean(writer)


def test_who_left_root_signs_nothing_more_and_gets_no_identity() -> None:
    writer = Writer().begin()
    cyd = writer.operators["cyd"]
    writer.rotate_root([*keys_of(writer), DEE], body=with_dee(writer))
    writer.publish_rules(signers=["ann", "cyd"], void=True)
    assert cyd is writer.operators["cyd"]
    writer.issue("spiffe://rover.example/operator/cyd")
    assert codes(writer.replay().docket.findings) == ["threshold", "identity_unknown"]


def test_an_operator_whose_key_changes_counts_for_each_root_by_the_key_that_it_names() -> None:
    writer = Writer().begin()
    operators = {"ann": DEE, "bob": writer.operators["bob"], "cyd": writer.operators["cyd"]}
    body = {"operators": {name: writer.key_of(key) for name, key in operators.items()}}
    # ann's new key alone: the old root's threshold of three is not met.
    writer.rotate_root([DEE, *keys_of(writer, "bob", "cyd")], body=body, void=True)
    writer.rotate_root([DEE, *keys_of(writer)], body=body)
    assert codes(writer.replay().docket.findings) == ["threshold"]


def test_an_expired_root_takes_its_successor_and_nothing_else() -> None:
    writer = Writer().begin()
    writer.rotate_root(keys_of(writer), expires_us=writer.now + 5 * SECOND)
    writer.now += 5 * SECOND
    writer.publish_rules(void=True)
    writer.rotate_root(keys_of(writer))
    writer.publish_rules()
    assert codes(writer.replay().docket.findings) == ["root_expired"]


# Enrolment


def test_a_newcomer_records_itself_gets_an_identity_and_takes_part() -> None:
    writer = Writer().begin()
    writer.invite("r5", TOKEN)
    writer.record_by(TOKEN, "r5", NEW_KEY)
    writer.issue(R5)
    writer.run_round({"r1": UPDATES["r1"], "r2": UPDATES["r2"], "r5": UPDATES["r3"]})
    state = clean(writer).state
    assert state.spent_joins == {state.in_force["join", "r5"].digest}


def test_operators_may_record_a_name_that_they_have_invited() -> None:
    writer = Writer().begin()
    writer.invite("r5", TOKEN)
    writer.participants["r5"] = NEW_KEY
    writer.record("r5")
    writer.issue(R5)
    assert clean(writer).state.spent_joins == set()


def test_a_second_invitation_replaces_a_lost_key_and_the_first_one() -> None:
    writer = Writer().begin()
    second, key = SigningKey.generate("ed25519"), SigningKey.generate("ed25519")
    writer.invite("r5", TOKEN)
    writer.record_by(TOKEN, "r5", NEW_KEY)
    writer.issue(R5)
    writer.invite("r5", second)
    writer.record_by(TOKEN, "r5", key, void=True)
    writer.record_by(second, "r5", key)
    # The record is new: its first identity renews none.
    writer.issue(R5, sha(b"another TLS key"))
    assert codes(writer.replay().docket.findings) == ["threshold"]


def test_an_identity_is_renewed_over_the_one_before_and_given_again_for_its_own_key() -> None:
    writer = Writer().begin()
    writer.issue(R1, sha(b"2"), renews=sha(R1.encode()))
    writer.issue(R1, sha(b"3"), renews=sha(b"2"))
    writer.issue(R1, sha(b"3"), renews=sha(b"3"))
    writer.issue("spiffe://rover.example/operator/ann")
    writer.issue("spiffe://rover.example/operator/ann", sha(b"ann 2"))
    writer.issue(writer.verifier)
    writer.issue(writer.auditor, request={"created_us": writer.now + SECOND - HOUR})
    writer.issue(writer.auditor, request={"created_us": writer.now + SECOND + HOUR})
    writer.issue(R1.replace("r1", "r2"), not_after_us=writer.now + SECOND + 366 * DAY)
    clean(writer)


def test_the_first_identity_may_be_issued_again_for_the_same_key_alone() -> None:
    writer = Writer().begin()
    writer.issue(R1)
    writer.issue(R1, sha(b"2"), renews=sha(R1.encode()))
    writer.issue(R1)
    assert codes(writer.replay().docket.findings) == ["renews"]


def test_the_newest_identity_for_a_key_says_until_when_it_opens() -> None:
    writer = Writer().begin()
    writer.issue(R1, not_after_us=writer.now + 4 * SECOND)
    writer.now += 3 * SECOND
    writer.issue(R1, sha(b"2"), renews=sha(R1.encode()))
    assert codes(writer.replay().docket.findings) == ["renews"]


def test_a_key_may_be_revoked_before_it_was_ever_issued() -> None:
    writer = Writer().begin()
    writer.revoke_key("spiffe://rover.example/service/gatekeeper/none", sha(b"tls"))
    writer.issue(R1, sha(b"tls 2"), renews=sha(R1.encode()))
    assert clean(writer).state.revoked_keys == {sha(b"tls")}


# Orders


def test_a_halted_segment_closes_its_round_and_hears_its_participants() -> None:
    writer = Writer().begin()
    full(writer)
    writer.order("halt", signers=["ann"])
    writer.complain("r1")
    writer.withdraw("r2")
    writer.decide("r1")
    writer.refuse("r4", "halted")
    writer.close(dropped={"r2": "withdrawn"})
    writer.order("resume")
    writer.publish_model()
    docket = clean(writer).docket
    assert (docket.withdrawals, docket.complaints, docket.decisions) == (1, 1, 1)
    assert docket.orders == {"halt": 1, "resume": 1}


def test_an_open_round_drops_each_update_for_the_first_reason() -> None:
    writer = Writer().begin()
    full(writer)
    digests = {each.name: each.digest for each in (writer.round.admitted if writer.round else ())}
    writer.order("exclude", {"update": digests["r1"]})
    writer.withdraw("r1")
    writer.order("exclude", {"update": digests["r2"]})
    writer.record("r2", state="suspended")
    writer.record("r3", state="suspended")
    dropped = {"r1": "withdrawn", "r2": "excluded", "r3": "participant_inactive"}
    writer.close(dropped=dropped, body={"outcome": 2})
    writer.run_round({"r1": UPDATES["r1"], "r4": UPDATES["r3"]})
    clean(writer)


def test_an_update_that_is_inactive_and_defective_is_dropped_as_inactive() -> None:
    writer = Writer().begin()
    writer.open_round()
    for name in UPDATES:
        writer.admit(name, UPDATES[name], facts={"norm": 9} if name == "r1" else None)
    writer.record("r1", state="suspended")
    writer.close(dropped={"r1": "participant_inactive"})
    writer.publish_model()
    assert codes(writer.replay().docket.findings) == ["defective"]


def test_a_rollback_ends_the_open_round_and_the_next_one_begins_from_the_earlier_model() -> None:
    writer = Writer().begin()
    writer.run_round(UPDATES)
    writer.run_round(UPDATES)
    full(writer)
    first = writer.steps[0]
    writer.order("rollback", {"model": first.model})
    writer.close(body={"cause": 3, "outcome": 2})
    writer.model, writer.model_digest, writer.steps = first.values, first.model, writer.steps[:1]
    writer.run_round({"r1": UPDATES["r1"], "r4": UPDATES["r2"]})
    state = clean(writer).state
    assert [step.round for step in state.segments[SEGMENT].lineage] == [1, 4]


def test_a_rollback_to_the_initial_model_abandons_a_round_that_waits() -> None:
    writer = Writer().begin()
    initial = writer.model_digest
    writer.run_round(UPDATES)
    full(writer)
    writer.close()
    writer.order("rollback", {"model": initial})
    writer.model, writer.model_digest = [0] * COORDINATES, initial
    writer.run_round(UPDATES)
    assert [step.round for step in clean(writer).state.segments[SEGMENT].lineage] == [3]


def reaggregated(writer: Writer, names: tuple[str, ...] = ("r1",)) -> None:
    """Two rounds of three; the named updates of the first are excluded, and both models are derived again."""
    for _ in range(2):
        writer.run_round(UPDATES)
    for name in names:
        writer.order("exclude", {"update": digest_of(writer, name)})
    # Of cohort_min 2, one update is given away by the difference of the models, two are not.
    writer.order("reaggregate", {"from_round": 1, "reveals": list(names) if len(names) < 2 else []})
    writer.publish_again(1, names)
    writer.publish_again(2, base=writer.steps[0])


@pytest.mark.parametrize("names", [("r1",), ("r1", "r3")])
def test_models_are_derived_again_without_what_is_left_out(names: tuple[str, ...]) -> None:
    writer = Writer().begin()
    reaggregated(writer, names)
    means = [
        weighted_mean([(UPDATES[name], 10) for name in UPDATES if name not in gone], COORDINATES)
        for gone in (names, ())
    ] if len(names) < 2 else [[0] * COORDINATES, weighted_mean([(u, 10) for u in UPDATES.values()], COORDINATES)]
    assert writer.model == [sum(each) for each in zip(*means, strict=True)]
    writer.run_round(UPDATES)
    docket = clean(writer).docket
    assert [(each.round, each.left_out) for each in docket.superseded] == [(1, len(names)), (2, 0)]
    assert docket.models == 5


def test_a_revoked_participant_is_left_out_of_every_round_and_named_once() -> None:
    writer = Writer().begin()
    for _ in range(2):
        writer.run_round(UPDATES)
    writer.record("r2", state="revoked")
    writer.order("reaggregate", {"from_round": 1, "reveals": ["r2"]})
    writer.publish_again(1, ["r2"])
    writer.publish_again(2, ["r2"], base=writer.steps[0])
    clean(writer)
    # Suspended is not revoked: nothing is newly left out.
    writer.record("r3", state="suspended")
    writer.order("reaggregate", {"from_round": 1, "reveals": ["r3"]}, void=True)
    assert codes(writer.replay().docket.findings) == ["nothing_left_out"]


def test_an_earlier_order_may_be_widened_while_it_is_carried_out() -> None:
    writer = Writer().begin()
    for _ in range(3):
        writer.run_round(UPDATES)
    writer.order("exclude", {"update": digest_of(writer, "r1", 2)})
    writer.order("reaggregate", {"from_round": 2, "reveals": ["r1"]})
    writer.order("exclude", {"update": digest_of(writer, "r3", 1)})
    # Round 2 was not derived without r1 yet, so that r1 is revealed by this order too.
    writer.order("reaggregate", {"from_round": 1, "reveals": ["r1", "r3"]})
    writer.publish_again(1, ["r3"])
    writer.publish_again(2, ["r1"], base=writer.steps[0])
    writer.publish_again(3, base=writer.steps[1])
    clean(writer)


def test_a_second_order_builds_on_what_the_first_has_derived_already() -> None:
    writer = Writer().begin()
    for _ in range(2):
        writer.run_round(UPDATES)
    writer.order("exclude", {"update": digest_of(writer, "r1")})
    writer.order("reaggregate", {"from_round": 1, "reveals": ["r1"]})
    writer.publish_again(1, ["r1"])
    writer.order("exclude", {"update": digest_of(writer, "r3", 2)})
    writer.order("reaggregate", {"from_round": 2, "reveals": ["r3"]})
    # Its own base still holds what the first order left out.
    writer.publish_again(2, ["r3"], void=True)
    assert codes(writer.replay().docket.findings) == ["base_model"]
    writer.publish_again(2, ["r3"], base=writer.steps[0])
    replay = writer.replay()
    assert codes(replay.docket.findings) == ["base_model"]
    values = replay.state.segments[SEGMENT].values
    assert values is not None
    assert values.tolist() == writer.model


def test_a_rollback_ends_what_was_being_derived_again() -> None:
    writer = Writer().begin()
    for _ in range(2):
        writer.run_round(UPDATES)
    writer.order("exclude", {"update": digest_of(writer, "r1")})
    writer.order("reaggregate", {"from_round": 1, "reveals": ["r1"]})
    writer.publish_again(1, ["r1"])
    first = writer.steps[0]
    writer.order("rollback", {"model": first.model})
    writer.model, writer.model_digest, writer.steps = first.values, first.model, [first]
    writer.run_round(UPDATES)
    clean(writer)


def test_what_is_derived_again_is_fetched_and_decided_with_like_any_model() -> None:
    writer = Writer().begin()
    reaggregated(writer)
    writer.fetch([("r1", writer.steps[0].model)])
    writer.decide("r1", fields={"model": writer.steps[1].model})
    clean(writer)


def test_a_model_derived_again_falsely_is_a_finding_and_has_effect() -> None:
    writer = Writer().begin()
    for _ in range(2):
        writer.run_round(UPDATES)
    writer.order("exclude", {"update": digest_of(writer, "r1", 2)})
    writer.order("reaggregate", {"from_round": 2, "reveals": ["r1"]})
    writer.publish_again(2)
    writer.run_round(UPDATES)
    # Aggregate and model still hold the update that was to be left out.
    assert codes(writer.replay().docket.findings) == ["aggregate", "model"]


def test_a_payload_that_is_gone_when_models_are_derived_again_is_missing() -> None:
    writer = Writer().begin()
    reaggregated(writer)
    del writer.objects[sha(encode_payload(UPDATES["r2"], COORDINATES))]
    replay = writer.replay()
    assert replay.docket.findings == []
    assert [each.why for each in replay.missing] == ["the payload of an admitted update"]
    # When each was published first, and when it was derived again.
    assert [(number, what) for _, number, what in untold(replay)] == [
        (number, "aggregate model") for number in (1, 2, 1, 2)
    ]


def test_an_earlier_model_that_is_gone_is_missing_and_the_walk_goes_on() -> None:
    writer = Writer().begin()
    for _ in range(2):
        writer.run_round(UPDATES)
    first = writer.steps[0]
    writer.order("rollback", {"model": first.model})
    writer.model, writer.model_digest, writer.steps = first.values, first.model, [first]
    writer.run_round(UPDATES)
    del writer.objects[first.model]
    replay = writer.replay()
    assert replay.docket.findings == []
    assert [each.digest for each in replay.missing] == [first.model]
    # Its aggregate was compared.
    assert untold(replay) == [(len(writer.entries) - 1, 3, "model")]
    assert replay.state.segments[SEGMENT].model == writer.model_digest


def test_a_model_that_can_neither_be_computed_nor_read_is_missing() -> None:
    writer = Writer().begin()
    reaggregated(writer)
    payload = sha(encode_payload(UPDATES["r2"], COORDINATES))
    for digest in (payload, writer.steps[0].model):
        del writer.objects[digest]
    replay = writer.replay()
    assert replay.docket.findings == []
    assert {each.digest for each in replay.missing} == {payload, writer.steps[0].model}


def test_an_update_that_was_counted_though_it_is_defective_counts_again() -> None:
    """Its closing is a finding for ever. What is derived again of the counted list is still compared."""
    writer = Writer().begin()
    writer.open_round()
    for name in UPDATES:
        writer.admit(name, UPDATES[name], facts={"norm": 9} if name == "r2" else None)
    writer.close()
    writer.publish_model()
    writer.order("exclude", {"update": digest_of(writer, "r1")})
    writer.order("reaggregate", {"from_round": 1, "reveals": ["r1"]})
    writer.publish_again(1, ["r1"])
    assert codes(writer.replay().docket.findings) == ["defective", "close_dropped"]
    writer.order("exclude", {"update": digest_of(writer, "r3")})
    writer.order("reaggregate", {"from_round": 1, "reveals": ["r3"]})
    writer.publish_again(1, ["r1"])
    # Of one update none is added up: aggregate and model are to be zero and the base.
    assert codes(writer.replay().docket.findings) == ["defective", "close_dropped", "aggregate", "model"]


def test_an_override_gives_a_decision_another_class() -> None:
    writer = Writer().begin()
    digest = writer.decide("r1", 5)
    writer.decide("r1", 6)
    writer.order("override", {"decision": digest, "class": 9})
    replay = clean(writer)
    assert [each.overridden for each in replay.state.decisions.values()] == [9, None]
    assert (replay.docket.decisions, replay.docket.overridden) == (2, 1)


# Accepted findings


def accepted(writer: Writer) -> list[tuple[str, int | None]]:
    return [(each.code, each.index) for each in writer.replay().accepted]


def test_operators_accept_a_void_entry_by_its_code_and_index() -> None:
    writer = Writer().begin()
    writer.count(federation_id=bytes(32))
    at = len(writer.entries) - 1
    writer.order("accept", {"index": at, "code": "writer"})
    assert accepted(writer) == []
    writer.order("accept", {"index": at - 1, "code": "wrong_federation"})
    assert accepted(writer) == []
    writer.order("accept", {"index": at, "code": "wrong_federation"})
    assert accepted(writer) == [("wrong_federation", at)]


def test_operators_accept_a_defective_admission_a_false_refusal_and_an_overdue_round() -> None:
    writer = Writer().begin()
    writer.open_round()
    writer.refuse("r1", "payload_length", evidence=2)
    refused = len(writer.entries) - 1
    writer.admit("r2", UPDATES["r2"], facts={"norm": 1})
    writer.now += 800 * SECOND
    writer.fetch([("r1", writer.model_digest)])
    late = len(writer.entries) - 1
    found = [("refusal_reason", refused), ("defective", refused + 1), ("overdue", late)]
    for code, index in found:
        writer.order("accept", {"index": index, "code": code})
    assert accepted(writer) == found


@pytest.mark.parametrize("code", ["aggregate", "model"])
def test_nobody_accepts_a_false_model(code: str) -> None:
    writer = Writer().begin()
    full(writer)
    writer.close()
    writer.publish_model(body={code: writer.objects.put(b"no model")})
    writer.order("accept", {"index": len(writer.entries) - 1, "code": code})
    replay = writer.replay()
    assert codes(replay.docket.findings)[0] == code
    assert replay.accepted == {}


def test_nobody_accepts_what_only_the_log_writes() -> None:
    writer = Writer().begin()
    writer.append(writer.signed("rules", b"{}", ["ann"]), None, prev=bytes(32))
    at = len(writer.entries) - 1
    for code in ("chain", "malformed"):
        writer.order("accept", {"index": at, "code": code})
    assert codes(writer.replay().docket.findings) == ["chain", "malformed"]
    assert accepted(writer) == [("malformed", at)]


# Complaints


def complain_and_close(writer: Writer, seconds: int) -> int:
    """r4 complains in a round of the others, which closes so many seconds later; gives the index of the close."""
    writer.open_round()
    writer.complain("r4")
    writer.now += (seconds - 4) * SECOND
    for name in UPDATES:
        writer.admit(name, UPDATES[name])
    writer.close()
    return len(writer.entries) - 1


@pytest.mark.parametrize(("seconds", "found"), [(9, []), (10, ["censorship"])])
def test_a_gatekeeper_has_ten_seconds_to_answer_a_complaint(seconds: int, found: list[str]) -> None:
    writer = Writer().begin()
    at = complain_and_close(writer, seconds)
    findings = writer.replay().docket.findings
    assert codes(findings) == found
    assert all((each.index, each.writer) == (at, "gatekeepers") for each in findings)


@pytest.mark.parametrize(("answer", "is_answered"), [
    (lambda w: w.admit("r4", {1: 5}), True),
    (lambda w: w.admit("r4", {2: 5}), False),
    (lambda w: w.refuse("r4", "not_received", evidence=3), True),
    (lambda w: w.refuse("r4", "not_received", evidence=3, fields={"created_us": 2}), False),
    (lambda w: w.refuse("r4", "malformed", evidence=3, quoted=False), False),
    (lambda w: w.refuse("r4", "wrong_peer", peer=R1), False),
    (lambda w: None, False),
])  # fmt: skip
def test_only_the_update_itself_or_a_refusal_to_its_participant_answers_a_complaint(
    answer: Any, is_answered: bool
) -> None:
    writer = Writer().begin()
    writer.open_round()
    writer.complain("r4")
    answer(writer)
    writer.now += 700 * SECOND
    writer.close()
    found = codes(writer.replay().docket.findings)
    assert found == ([] if is_answered else ["censorship"])


def test_a_complaint_may_come_from_a_verifier_and_be_answered_before() -> None:
    writer = Writer().begin()
    writer.open_round()
    writer.refuse("r4", "not_received", evidence=3)
    writer.complain("r4", writer=writer.verifier)
    writer.now += 700 * SECOND
    writer.close()
    clean(writer)


def test_operators_accept_censorship() -> None:
    writer = Writer().begin()
    at = complain_and_close(writer, 60)
    writer.order("accept", {"index": at, "code": "censorship"})
    assert accepted(writer) == [("censorship", at)]


# Quota, the deadline's margin


def test_the_quota_is_of_a_window_that_moves_on() -> None:
    writer = Writer().begin()
    writer.publish_terms(terms_with(writer, quota={"window_us": 100 * SECOND, "updates_max": 1, "bytes_max": 2**20}))
    writer.run_round({name: {1: 5} for name in UPDATES})
    first = writer.now - 4 * SECOND
    writer.open_round()
    writer.refuse("r1", "quota_updates")
    writer.now = first + 99 * SECOND - 1
    writer.refuse("r1", "quota_updates", update={2: 1})
    writer.now = first + 99 * SECOND
    writer.admit("r1", UPDATES["r1"])
    clean(writer)


@pytest.mark.parametrize(("policies", "is_refused"), [(32, False), (33, True)])
def test_what_too_many_policies_determine_is_denied(policies: int, is_refused: bool) -> None:
    writer = Writer().begin()
    names = [f"all-{number:02}" for number in range(policies)]
    writer.publish_rules("".join(f'@id("{name}") permit (principal, action, resource);\n' for name in names))
    writer.open_round()
    if is_refused:
        writer.refuse("r1", "policy_error")
    else:
        writer.admit("r1", {1: 5}, rule_ids=names * 2)
    clean(writer)


@pytest.mark.parametrize(("before_us", "holds"), [(2 * SECOND + 1, False), (2 * SECOND, True), (0, True)])
def test_the_door_closes_two_seconds_before_the_deadline(before_us: int, holds: bool) -> None:
    writer = Writer().begin()
    writer.open_round()
    writer.now += 600 * SECOND - before_us - SECOND
    writer.refuse("r1", "deadline")
    assert codes(writer.replay().docket.findings) == ([] if holds else ["refusal_reason"])


def test_no_other_reason_has_the_margin() -> None:
    writer = Writer().begin()
    writer.open_round()
    writer.admit("r1", UPDATES["r1"])
    writer.now += 598 * SECOND - SECOND
    writer.refuse("r1", "duplicate")
    assert codes(writer.replay().docket.findings) == []


def test_an_order_stays_in_force_after_its_end() -> None:
    writer = Writer().begin()
    writer.order("halt", expires_us=writer.now + 2 * SECOND)
    writer.now += DAY
    writer.open_round(void=True)
    assert codes(writer.replay().docket.findings) == ["halted"]
    assert writer.now < NEVER
