"""Logs in which everything holds: no finding, and every model found again."""

from __future__ import annotations

import pytest

from .builder import COORDINATES, DAY, RULES, SECOND, SEGMENT, STREAM, Writer, sha, untold
from .payloads import encode_payload

UPDATES = {"r1": {0: 5, 13: -7}, "r2": {0: 6, 3: 100}, "r3": {16: 1}}


def assert_clean(writer: Writer) -> None:
    replay = writer.replay()
    assert replay.docket.findings == []
    assert replay.missing == ()
    assert replay.state.segments[SEGMENT].model == writer.model_digest


def test_rounds_of_a_federation_hold() -> None:
    writer = Writer().begin()
    writer.run_round(UPDATES)
    writer.run_round({"r1": {0: 5, 13: -7}, "r4": {0: 6, 3: 100}})
    writer.run_round(UPDATES, value_type="fp32")
    assert_clean(writer)
    docket = writer.replay().docket
    assert (docket.rounds, docket.models, docket.admitted) == (3, 3, 8)


def test_a_hybrid_participant_is_admitted() -> None:
    writer = Writer(suite="ed25519+ml-dsa-44").begin()
    writer.run_round(UPDATES)
    assert_clean(writer)


def test_values_below_zero_and_ties_round_as_the_specification_says() -> None:
    writer = Writer().begin()
    # Equal weights: the sums 5, -5, 3, -3 and 1 become halves.
    writer.run_round({"r1": {0: 5, 1: -5, 12: 3, 13: -3}, "r2": {0: 0 + 2, 1: -2, 12: 4, 14: 1}})
    assert_clean(writer)


def test_a_model_is_cut_to_the_range_of_its_dtype() -> None:
    writer = Writer()
    full = [2**31 - 1] * 6 + [-(2**31)] * 6 + [2**63 - 1] * 2 + [-(2**63)] * 3
    writer.model, writer.model_digest = full, writer.put_model(full)
    terms = writer.terms()
    terms["model"]["initial"] = writer.model_digest.hex()
    writer.genesis()
    writer.publish_services()
    writer.publish_rules()
    writer.publish_terms(terms)
    for name in writer.participants:
        writer.record(name)
    update = {0: 64, 1: -64, 6: -64, 7: 64, 12: 64, 13: -64, 14: -64, 15: 64}
    writer.run_round({"r1": update, "r2": update})
    assert_clean(writer)


def test_an_aborted_round_keeps_the_base() -> None:
    writer = Writer().begin()
    writer.open_round()
    writer.admit("r1", {0: 5})
    writer.now += 600 * SECOND
    writer.close()
    writer.run_round(UPDATES)
    assert_clean(writer)


def test_a_participant_who_is_revoked_falls_out_of_the_open_round() -> None:
    writer = Writer().begin()
    writer.open_round()
    for name, update in UPDATES.items():
        writer.admit(name, update)
    writer.record("r2", state="revoked")
    writer.close(dropped={"r2": "participant_inactive"})
    writer.publish_model()
    assert_clean(writer)


def test_a_defective_admission_is_dropped_and_is_still_a_finding() -> None:
    writer = Writer().begin()
    writer.open_round()
    for name, update in UPDATES.items():
        writer.admit(name, update, facts={"norm": 9} if name == "r2" else None)
    writer.close(dropped={"r2": "defective"})
    writer.publish_model()
    replay = writer.replay()
    assert [(f.code, f.writer) for f in replay.docket.findings] == [("defective", writer.gatekeeper)]
    assert replay.state.segments[SEGMENT].model == writer.model_digest


def test_documents_of_every_kind_follow_each_other() -> None:
    writer = Writer().begin()
    writer.publish_services()
    writer.publish_rules(RULES + '@id("none") forbid (principal, action, resource) when { context.round == 9 };')
    writer.publish_terms(writer.terms(sensitivity=6))
    writer.record("r1", state="suspended")
    writer.record("r1")
    writer.run_round(UPDATES)
    assert_clean(writer)


def test_terms_that_change_during_a_round_bind_the_next_one() -> None:
    writer = Writer().begin()
    writer.open_round()
    terms = writer.terms()
    terms["limits"]["weight_max"] = 5
    writer.publish_terms(terms)
    for name, update in UPDATES.items():
        writer.admit(name, update, weight=10)
    writer.close()
    writer.publish_model()
    writer.open_round()
    writer.refuse("r1", "weight_limit")
    assert_clean(writer)


def test_refusals_with_evidence_are_decided_again() -> None:
    writer = Writer().begin()
    writer.refuse("r1", "round_not_open", fields={"round": 1})
    writer.open_round()
    writer.refuse("r1", "wrong_peer", peer="spiffe://rover.example/participant/r2")
    writer.refuse("r1", "wrong_federation", fields={"federation_id": bytes(32)})
    writer.refuse("r1", "unknown_segment", fields={"segment": "no-such"}, stream="log")
    writer.refuse("r1", "wrong_prefix", fields={"round_opened": b"x" * 32})
    writer.refuse("r1", "wrong_base", fields={"base_model": b"x" * 32})
    writer.refuse("r1", "format_not_allowed", fields={"codec": 1})
    writer.refuse("r1", "payload_too_large", fields={"payload_bytes": 4097})
    writer.refuse("r1", "too_few_coordinates", fields={"nonzeros": 0})
    writer.refuse("r1", "too_dense", fields={"nonzeros": 11})
    writer.refuse("r1", "weight_limit", fields={"weight": 0})
    writer.refuse("r1", "policy_denied", fields={"weight": 51}, rule_ids=["heavy"])
    writer.refuse("r1", "malformed", evidence=3, quoted=False)
    writer.refuse("r2", "bad_signature", evidence=3, quoted=False)
    writer.refuse("r2", "not_received", evidence=3)
    for reason in ("digest_mismatch", "payload_digest", "norm_limit", "leak_rows", "policy_error"):
        writer.refuse("r2", reason, evidence=3)
    writer.refuse("r2", "not_received", evidence=3, weight=60)
    writer.refuse("r2", "not_received", evidence=3, fields={"segment": "no-such"}, stream="log")
    writer.admit("r1", {0: 5})
    writer.refuse("r1", "duplicate")
    writer.refuse("r1", "replayed", update={0: 5}, peer="spiffe://rover.example/participant/r2",
                  fields={"created_us": 1})  # fmt: skip
    assert_clean(writer)
    docket = writer.replay().docket
    assert docket.refusals_on_word == 10
    assert docket.refused["replayed"] == docket.refused["duplicate"] == 1


def test_refusals_for_their_payload_are_decided_from_the_object() -> None:
    writer = Writer().begin()
    writer.open_round()
    good = encode_payload({1: 5}, 17)
    writer.refuse("r1", "payload_length", evidence=2, payload=good[:-1])
    writer.refuse("r1", "payload_format", evidence=2, payload=b"SFRV" + good[4:])
    writer.refuse("r1", "payload_declared", evidence=2, payload=good, fields={"nonzeros": 2})
    writer.refuse("r1", "policy_denied", evidence=2, update={1: 127 * 64}, facts=writer.facts({1: 127 * 64}),
                  rule_ids=["large"])  # fmt: skip
    writer.refuse("r1", "magnitude_limit", evidence=2, update={1: 9001 // 128 * 128 + 128}, fields={})
    writer.refuse("r1", "norm_limit", evidence=2, update=dict.fromkeys(range(2), 64 * 126))
    assert_clean(writer)


def test_a_refused_payload_may_go_after_its_evidence_days() -> None:
    writer = Writer().begin()
    writer.open_round()
    writer.refuse("r1", "payload_length", evidence=2, payload=encode_payload({1: 5}, 17)[:-1], keep=False)
    assert [each.why for each in writer.replay().missing] == ["the payload of a refused update"]
    writer.now += DAY
    writer.count()
    replay = writer.replay()
    assert replay.missing == ()
    assert replay.docket.refusals_on_word == 1


def test_fetches_and_counts_are_taken() -> None:
    writer = Writer().begin()
    first = writer.model_digest
    writer.run_round(UPDATES)
    writer.fetch([("r1", min(first, writer.model_digest)), ("r1", max(first, writer.model_digest)), ("r2", first)])
    writer.count()
    writer.count([("duplicate", 2, 1), ("role", 1, 2), ("role", 5, 1)], writer=writer.audit_log)
    assert_clean(writer)
    assert writer.replay().docket.refusals_counted == 8


@pytest.mark.parametrize("late", [0, 119, 120])
def test_a_round_that_stays_open_while_its_segment_goes_on_is_overdue(late: int) -> None:
    writer = Writer().begin()
    writer.open_round()
    writer.now += (599 + late) * SECOND
    writer.fetch([("r1", writer.model_digest)])
    writer.now += 9 * DAY
    writer.count()
    found = [(f.code, f.index) for f in writer.replay().docket.findings]
    assert found == ([("overdue", len(writer.entries) - 2)] if late == 120 else [])


def test_a_missing_payload_is_missing_and_the_walk_goes_on_from_the_published_model() -> None:
    writer = Writer().begin()
    writer.run_round(UPDATES)
    published = len(writer.entries) - 1
    writer.run_round(UPDATES | {"r3": {2: 9}})
    del writer.objects[sha(encode_payload(UPDATES["r3"], COORDINATES))]
    replay = writer.replay()
    assert replay.docket.findings == []
    assert [each.why for each in replay.missing] == ["the payload of an admitted update"]
    assert untold(replay) == [(published, 1, "aggregate model")]
    assert replay.state.segments[SEGMENT].model == writer.model_digest


def test_without_its_payload_a_defective_admission_is_taken_from_the_close() -> None:
    writer = Writer().begin()
    writer.open_round()
    for name, update in UPDATES.items():
        writer.admit(name, update, facts={"norm": 9} if name == "r2" else None, keep=name != "r2")
    writer.close(dropped={"r2": "defective"})
    writer.publish_model()
    replay = writer.replay()
    assert replay.docket.findings == []
    assert len(replay.missing) == 1
    # The counted ones are all there, so the model was computed and not merely read.
    values = replay.state.segments[SEGMENT].values
    assert values is not None
    assert values.tolist() == writer.model


def test_a_published_model_that_is_no_model_is_found_even_where_it_cannot_be_computed() -> None:
    writer = Writer().begin()
    writer.open_round()
    for name, update in UPDATES.items():
        writer.admit(name, update, keep=name != "r2")
    writer.close()
    writer.publish_model(body={"model": writer.objects.put(b"no model")})
    replay = writer.replay()
    assert [f.code for f in replay.docket.findings] == ["model"]
    # In effect all the same: the services, which hold no payloads, went on from it.
    assert replay.state.segments[SEGMENT].model == sha(b"no model")


def test_every_object_that_is_named_is_looked_for() -> None:
    writer = Writer().begin()
    writer.run_round(UPDATES)
    for digest in list(writer.objects):
        raw = writer.objects.pop(digest)
        assert [each.digest for each in writer.replay().missing] == [digest]
        writer.objects[digest] = raw[:-1] + bytes([raw[-1] ^ 1])
        altered = writer.replay().docket.findings
        assert [(f.code, f.subject) for f in altered] == [("object_altered", digest.hex())]
        writer.objects[digest] = raw


def test_streams_are_numbered_each_by_itself() -> None:
    writer = Writer().begin()
    writer.run_round(UPDATES)
    assert writer.streams[STREAM][0] == 6
    assert_clean(writer)
