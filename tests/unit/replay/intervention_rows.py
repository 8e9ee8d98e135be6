"""Rules violated once each, of roots, enrolment, orders, and what participants sign beside updates: see `void_rows`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sfrl_secure.crypto.keys import SigningKey

from .builder import DAY, NEVER, SECOND, ZEROS, Writer, pb, sha
from .void_rows import STRANGER, UPDATES, Act, closed, full, late, opened, ready

TOKEN, NEW_KEY, DEE = (SigningKey.generate("ed25519") for _ in range(3))
R1 = "spiffe://rover.example/participant/r1"
R5 = "spiffe://rover.example/participant/r5"
HOUR = 3600 * SECOND


def keys_of(writer: Writer, *names: str) -> list[SigningKey]:
    return [writer.operators[name] for name in names or ("ann", "bob", "cyd")]


def rotate(**changes: Any) -> Act:
    return lambda w: w.rotate_root(keys_of(w), void=True, **changes)


def with_dee(writer: Writer) -> dict[str, Any]:
    """Operators of a root in which dee takes cyd's place."""
    operators = {"ann": writer.operators["ann"], "bob": writer.operators["bob"], "dee": DEE}
    return {"operators": {name: writer.key_of(key) for name, key in operators.items()}}


def invited(writer: Writer) -> None:
    writer.invite("r5", TOKEN)


def recorded(writer: Writer) -> None:
    invited(writer)
    writer.record_by(TOKEN, "r5", NEW_KEY)


def record_with(**changes: Any) -> Act:
    return lambda w: w.record_by(TOKEN, "r5", NEW_KEY, void=True, **changes)


def join_body(writer: Writer, **changes: Any) -> dict[str, Any]:
    body = {"name": "r5", "join_key": TOKEN.public_key.raw.hex(), "clearance": 7, "groups": [], "record_expires_us": 1}
    return body | changes


def malformed_join(**changes: Any) -> Act:
    return lambda w: w.document("join", join_body(w, **changes), subject="r5", signers=["ann"], void=True, stream=None)


def again_the_same_token(writer: Writer) -> None:
    writer.invite("r5", TOKEN)
    writer.invite("r5", TOKEN, void=True)


def revoked_name(writer: Writer) -> None:
    writer.record("r4", state="revoked")
    writer.invite("r4", TOKEN, void=True)


def revoked_tls_key(writer: Writer) -> None:
    writer.revoke_key(R1, sha(b"tls"))
    writer.issue(R1, sha(b"tls"), renews=sha(R1.encode()))


def revoked_twice(writer: Writer) -> None:
    writer.revoke_key(R1, sha(b"tls"))
    writer.revoke_key(R1, sha(b"tls"), void=True, version=1, previous=ZEROS.hex())


def renewed_from_a_revoked_key(writer: Writer) -> None:
    writer.revoke_key(R1, sha(R1.encode()))
    writer.issue(R1, sha(b"tls"), renews=sha(R1.encode()))


def renewed_from_an_ended_identity(writer: Writer) -> None:
    writer.issue(R1, sha(b"tls"), renews=sha(R1.encode()), not_after_us=writer.now + 3 * SECOND)
    writer.now += SECOND
    writer.issue(R1, sha(b"tls 2"), renews=sha(b"tls"))


def asked(before_us: int, spki: bytes = b"", **other: Any) -> Act:
    """A request for a key that r1 has, made so long before the last that had effect."""

    def act(writer: Writer) -> None:
        key = spki or sha(R1.encode())
        renews = sha(R1.encode())
        writer.issue(R1, key, renews=renews)
        writer.issue(R1, key, renews=renews, request={"created_us": writer.now - before_us}, **other)

    return act


def repeated_after_another(writer: Writer) -> None:
    """The same request for the first key, once r1 has a second one."""
    first = writer.now + SECOND
    writer.issue(R1, sha(b"1"), renews=sha(R1.encode()), request={"created_us": first})
    writer.issue(R1, sha(b"2"), renews=sha(b"1"))
    writer.issue(R1, sha(b"1"), renews=sha(b"2"), request={"created_us": first})


def renewed_without_saying_so(writer: Writer) -> None:
    """Another identity for its newest key, as if it were the first, once r1 has had one for an older key."""
    writer.issue(R1, sha(b"1"), renews=sha(R1.encode()))
    writer.issue(R1, sha(b"1"))


def named_again(writer: Writer) -> None:
    """An auditor with an identity, whom a services document left out."""
    writer.issue(writer.auditor)
    known, writer.auditors = writer.auditors, {}
    writer.publish_services()
    writer.auditors = known
    writer.publish_services()


def revoke(spiffe_id: str, spki: bytes = sha(b"tls"), **other: Any) -> Act:
    return lambda w: w.revoke_key(spiffe_id, spki, void=True, **other)


def service_key_by_one(writer: Writer) -> None:
    writer.revoke_key(writer.gatekeeper, sha(b"tls"), signers=("ann",), void=True)


def order(action: str, target: dict[str, Any] | None = None, **changes: Any) -> Act:
    return lambda w: w.order(action, target, void=True, **changes)


def malformed_order(action: str, target: dict[str, Any], **changes: Any) -> Act:
    return lambda w: w.order(action, target, void=True, stream=None, **changes)


def halted(writer: Writer) -> None:
    writer.order("halt")


def halted_while_open(writer: Writer) -> None:
    opened(writer)
    halted(writer)


def halted_while_due(writer: Writer) -> None:
    closed(writer)
    halted(writer)


def two_rounds(writer: Writer) -> None:
    writer.run_round(UPDATES)
    writer.run_round(UPDATES)


def digest_of(writer: Writer, name: str, number: int = 1) -> bytes:
    return next(each.digest for each in writer.steps[number - 1].counted if each.name == name)


def excluded(writer: Writer) -> None:
    two_rounds(writer)
    writer.order("exclude", {"update": digest_of(writer, "r1")})


def exclude_again(writer: Writer) -> None:
    writer.order("exclude", {"update": digest_of(writer, "r1")}, void=True)


def due(writer: Writer) -> None:
    """Both rounds are to be derived again."""
    excluded(writer)
    writer.order("reaggregate", {"from_round": 1, "reveals": ["r1"]})


def first_derived(writer: Writer) -> None:
    due(writer)
    writer.publish_again(1, ["r1"])


def again(number: int = 1, **body: Any) -> Act:
    return lambda w: w.publish_again(number, ["r1"], void=True, body=body)


def rolled_back_while_open(writer: Writer) -> None:
    two_rounds(writer)
    opened(writer)
    writer.order("rollback", {"model": writer.steps[0].model})
    writer.model_digest = writer.steps[0].model


def rolled_back_while_due(writer: Writer) -> None:
    two_rounds(writer)
    closed(writer)
    writer.order("rollback", {"model": writer.steps[0].model})


def overridden(writer: Writer) -> None:
    writer.last_decision = writer.decide("r1")  # type: ignore[attr-defined]
    writer.order("override", {"decision": writer.last_decision, "class": 4})  # type: ignore[attr-defined]


def withdrawn(writer: Writer) -> None:
    opened(writer)
    writer.withdraw("r1")


def decided(writer: Writer) -> None:
    writer.decide("r1", 7)


def suspended(writer: Writer) -> None:
    writer.open_round()
    writer.record("r1", state="suspended")


def without_record(writer: Writer) -> None:
    writer.publish_terms(writer.terms(operations=["fetch", "submit"]))


def of_others(writer: Writer) -> None:
    writer.publish_terms(writer.terms(groups=["others"]))


def complained(writer: Writer) -> None:
    opened(writer)
    writer.complain("r2")


ROOTS: list[tuple[str, Callable[[Writer], None], str, Act]] = [
    ("a root that one operator of the old one did not sign", ready, "threshold",
     lambda w: w.rotate_root(keys_of(w, "ann", "bob"), void=True)),
    ("a root that its own operators do not sign enough", ready, "threshold",
     lambda w: w.rotate_root(keys_of(w), body=with_dee(w), void=True)),
    ("a root that only its own operators sign", ready, "threshold",
     lambda w: w.rotate_root([*keys_of(w, "ann", "bob"), DEE], body=with_dee(w), void=True)),
    ("a root that a stranger signs besides", ready, "threshold",
     lambda w: w.rotate_root([*keys_of(w), STRANGER], void=True)),
    ("a root with the key of a service", ready, "key_reused",
     lambda w: w.rotate_root([*keys_of(w), w.services[w.gatekeeper]], void=True, body={
         "operators": {name: w.key_of(key) for name, key in w.operators.items()}
         | {"dee": w.key_of(w.services[w.gatekeeper])}})),
    ("a root of another trust domain", ready, "root_changed", rotate(trust_domain="other.example")),
    ("a root of another log host", ready, "root_changed", rotate(log_host="lag.example")),
    ("a root of another federation", ready, "wrong_federation", rotate(federation_id=ZEROS.hex())),
    ("a root version skipped", ready, "version", rotate(version=3)),
    ("a root after another", ready, "previous", rotate(previous="11" * 32)),
    ("a root that has expired", ready, "expired", lambda w: rotate(expires_us=w.now + SECOND)(w)),
    ("a root version 2 without a federation", ready, "malformed",
     lambda w: w.append(w.signed("root", w.root.replace(b'"version": 1', b'"version": 2'), ["ann"]), None)),
    ("services without key exchange", ready, "malformed",
     lambda w: w.document("services", {"services": [], "auditors": [], "key_exchange": []}, void=True, stream=None)),
]  # fmt: skip

ENROLMENT: list[tuple[str, Callable[[Writer], None], str, Act]] = [
    ("an invitation that nobody signed", ready, "threshold", lambda w: (
        setattr(w, "operators", w.operators | {"zed": STRANGER}), w.invite("r5", TOKEN, signers=["zed"], void=True))),
    ("an invitation for longer than 31 days", ready, "lasts_too_long",
     lambda w: w.invite("r5", TOKEN, expires_us=w.now + SECOND + 31 * DAY + 1, void=True)),
    ("an invitation of a revoked name", ready, "revoked", revoked_name),
    ("an invitation with a participant's key", ready, "key_reused",
     lambda w: w.invite("r1", w.participants["r1"], void=True)),
    ("an invitation with the token of the one before", ready, "key_reused", again_the_same_token),
    ("a hybrid join key", ready, "malformed", malformed_join(join_key="00" * 1344)),
    ("a record for ever", ready, "malformed", malformed_join(record_expires_us=2**63)),
    ("a record under a token that nobody was given", ready, "threshold", record_with()),
    ("a record under another's token", invited, "threshold",
     lambda w: w.record_by(TOKEN, "r6", NEW_KEY, void=True)),
    ("a record that an operator signs besides", invited, "threshold",
     lambda w: w.record_by(TOKEN, "r5", NEW_KEY, sign=[TOKEN, w.operators["ann"]], void=True)),
    ("a record after its invitation", invited, "invitation_expired",
     lambda w: late(w, record_with(), 30 * 86_400)),
    ("a second record under one token", recorded, "invitation_spent", record_with()),
    ("a record with more clearance", invited, "record_differs", record_with(clearance=8)),
    ("a record with other groups", invited, "record_differs", record_with(groups=[])),
    ("a record that lasts longer", invited, "record_differs", record_with(expires_us=NEVER + 1)),
    ("a suspended record", invited, "record_differs", record_with(state="suspended")),
    ("a record without possession", invited, "possession", record_with(possession="00" * 64)),
    ("a record with the token as its key", invited, "key_reused",
     lambda w: w.record_by(TOKEN, "r5", TOKEN, void=True)),
    ("an operator's key that one operator revokes", ready, "threshold",
     revoke("spiffe://rover.example/operator/bob", signers=("ann",))),
    ("a service's key that one operator revokes", ready, "threshold", service_key_by_one),
    ("a participant's key that nobody revokes", ready, "threshold", lambda w: (
        setattr(w, "operators", w.operators | {"zed": STRANGER}), revoke(R1, signers=["zed"])(w))),
    ("a key of r1 under another participant's name", ready, "wrong_name", revoke(R5, sha(R1.encode()))),
    ("a key of r1 under an operator's name", ready, "wrong_name",
     revoke("spiffe://rover.example/operator/ann", sha(R1.encode()))),
    ("an operator's key under a participant's name", lambda w: w.issue("spiffe://rover.example/operator/ann"),  # type: ignore[list-item]
     "wrong_name", revoke(R1, sha(b"spiffe://rover.example/operator/ann"))),
    ("a second revocation of a TLS key", ready, "version", revoked_twice),
    ("a key revocation of version 2", ready, "malformed",
     lambda w: w.revoke_key(R1, sha(b"tls"), version=2, void=True, stream=None)),
    ("a key revocation after another", ready, "malformed",
     lambda w: w.revoke_key(R1, sha(b"tls"), previous="11" * 32, void=True, stream=None)),
    # identity_issued
    ("an identity with a revoked key", ready, "key_revoked", revoked_tls_key),
    ("an identity for more than 366 days", ready, "expired",
     lambda w: w.issue(R5.replace("r5", "r1"), not_after_us=w.now + SECOND + 366 * DAY + 1)),
    ("an identity that somebody else asks for", ready, "request", lambda w: w.issue(R1, keys=[STRANGER])),
    ("an identity that two ask for", ready, "request",
     lambda w: w.issue(R1, keys=[w.participants["r1"], STRANGER])),
    ("a request of another federation", ready, "request",
     lambda w: w.issue(R1, request={"federation_id": ZEROS})),
    ("a request for another name", ready, "request", lambda w: w.issue(R1, request={"spiffe_id": R5})),
    ("a request for another key", ready, "request", lambda w: w.issue(R1, request={"spki": ZEROS})),
    ("a request under another key's id", ready, "request", lambda w: w.issue(R1, request={"key_id": ZEROS})),
    ("a request of yesterday", ready, "request",
     lambda w: w.issue(R1, request={"created_us": w.now + SECOND - HOUR - 1})),
    ("a request of tomorrow", ready, "request",
     lambda w: w.issue(R1, request={"created_us": w.now + SECOND + HOUR + 1})),
    ("a request again", ready, "request_used", asked(0)),
    ("an earlier request", ready, "request_used", asked(1)),
    ("a request again for the key of zeros", ready, "request_used", asked(0, ZEROS)),
    ("a request again after another key's", ready, "request_used", repeated_after_another),
    ("a second identity again that renews none", ready, "renews", renewed_without_saying_so),
    ("a renewal of an identity whose name had fallen", named_again, "renews",
     lambda w: w.issue(w.auditor, sha(b"tls"), renews=sha(w.auditor.encode()))),
    ("a renewal of the key of zeros", ready, "renews", lambda w: w.issue(R1, sha(b"tls"), renews=ZEROS)),
    ("a second identity, for the key of zeros, that renews none", ready, "renews", lambda w: w.issue(R1, ZEROS)),
    ("a second identity that renews none", ready, "renews", lambda w: w.issue(R1, sha(b"tls"))),
    ("a renewal of nobody's identity", ready, "renews", lambda w: w.issue(R1, sha(b"tls"), renews=sha(b"none"))),
    ("a renewal of another's identity", ready, "renews",
     lambda w: w.issue(R1, sha(b"tls"), renews=sha(R1.replace("r1", "r2").encode()))),
    ("a renewal of a revoked key", ready, "renews", renewed_from_a_revoked_key),
    ("a renewal of an identity that has ended", ready, "renews", renewed_from_an_ended_identity),
    ("an identity without a request", ready, "malformed",
     lambda w: w.issue(R1, entry_stream=None, request={"spki": bytes(31)})),
]  # fmt: skip

ORDERS: list[tuple[str, Callable[[Writer], None], str, Act]] = [
    ("an order for a segment without terms", ready, "unknown_segment", order("halt", segment="none")),
    ("an order for longer than 72 hours", ready, "lasts_too_long",
     lambda w: w.order("halt", void=True, expires_us=w.now + SECOND + 72 * HOUR + 1)),
    ("an order that has expired", ready, "expired",
     lambda w: w.order("halt", void=True, expires_us=w.now + SECOND)),
    ("an order number skipped", ready, "version", order("halt", version=2)),
    ("a resumption that one operator signs", halted, "threshold", order("resume", signers=["ann"])),
    ("an order that there is not", ready, "malformed", malformed_order("explode", {})),
    ("a halt with a target", ready, "malformed", malformed_order("halt", {"update": ZEROS})),
    ("an exclusion of nothing", ready, "malformed", malformed_order("exclude", {})),
    ("reveals out of order", ready, "malformed",
     malformed_order("reaggregate", {"from_round": 1, "reveals": ["r2", "r1"]})),
    ("a round below 1", ready, "malformed", malformed_order("reaggregate", {"from_round": 0, "reveals": []})),
    ("a code of other letters", ready, "malformed", malformed_order("accept", {"index": 1, "code": "Void"})),
    ("a class of 2**31", ready, "malformed", malformed_order("override", {"decision": ZEROS, "class": 2**31})),
    ("a halt of what is halted", halted, "order_state", order("halt")),
    ("a resumption of what goes on", ready, "order_state", order("resume")),
    ("a round of a halted segment", halted, "halted", lambda w: w.open_round(void=True)),
    ("an admission in a halted segment", halted_while_open, "halted",
     lambda w: w.admit("r2", UPDATES["r2"], void=True)),
    ("a model of a halted segment", halted_while_due, "halted", lambda w: w.publish_model(void=True)),
    ("an exclusion of what was not admitted", ready, "order_target", order("exclude", {"update": ZEROS})),
    ("an exclusion again", excluded, "order_target", exclude_again),
    ("a rollback to a model that never was", two_rounds, "order_target", order("rollback", {"model": ZEROS})),
    ("a rollback to the newest model", two_rounds, "order_target",
     lambda w: w.order("rollback", {"model": w.model_digest}, void=True)),
    ("a rollback to a model that left the lineage", rolled_back_while_open, "order_target",
     lambda w: w.order("rollback", {"model": w.steps[1].model}, void=True)),
    ("an update for a round that an order ended", rolled_back_while_open, "round_not_open",
     lambda w: w.admit("r2", UPDATES["r2"], void=True)),
    ("a deadline's close of a round that an order ended", rolled_back_while_open, "close_cause",
     lambda w: late(w, lambda w: w.close(body={"cause": 2, "outcome": 2}, void=True))),
    ("a close on order that is not aborted", rolled_back_while_open, "close_outcome",
     lambda w: w.close(body={"cause": 3, "outcome": 1}, void=True)),
    ("a defect in a round that an order ended", rolled_back_while_open, "close_dropped",
     lambda w: w.close(body={"cause": 3, "outcome": 2}, dropped={"r1": "defective"}, void=True)),
    ("a model of an abandoned round", rolled_back_while_due, "no_model_due", lambda w: w.publish_model(void=True)),
    ("a re-aggregation from a round that has no model", two_rounds, "order_target",
     order("reaggregate", {"from_round": 3, "reveals": []})),
    ("a re-aggregation that leaves nothing out", two_rounds, "nothing_left_out",
     order("reaggregate", {"from_round": 1, "reveals": []})),
    ("a re-aggregation after what is excluded", excluded, "nothing_left_out",
     order("reaggregate", {"from_round": 2, "reveals": []})),
    ("a re-aggregation that does not say what it reveals", excluded, "reveals",
     order("reaggregate", {"from_round": 1, "reveals": []})),
    ("a re-aggregation that says too much", excluded, "reveals",
     order("reaggregate", {"from_round": 1, "reveals": ["r1", "r2"]})),
    ("a re-aggregation behind one that is not done", due, "order_target",
     order("reaggregate", {"from_round": 2, "reveals": []})),
    ("a round while models are due", due, "round_not_due", lambda w: w.open_round(void=True)),
    ("a model again that nobody ordered", two_rounds, "supersedes", again()),
    ("the second model again before the first", due, "supersedes", again(2)),
    ("a model again of another close", due, "supersedes", again(closed=ZEROS)),
    ("a model again in another's place", due, "supersedes", again(supersedes=ZEROS)),
    ("a model again from another base", due, "base_model", again(base=ZEROS)),
    ("a later model again from its old base", first_derived, "base_model", again(2)),
    ("a model again by another rule", due, "rule", again(rule="krum/v1")),
    ("a model again in another arithmetic", due, "rule", again(arithmetic=2)),
    ("a model again with a server state where there is no server step", due, "server_state", again(state=ZEROS)),
    ("a model again with a next mask where none changes", due, "next_mask", again(next_mask=ZEROS)),
    ("a model again with clusters under another rule", due, "clusters",
     again(clusters=[pb((1, [0, 1]), (2, ZEROS))])),
    ("an acceptance of what is to come", ready, "order_target",
     lambda w: w.order("accept", {"index": len(w.entries), "code": "overdue"}, void=True)),
    ("an override of nothing", ready, "order_target", order("override", {"decision": ZEROS, "class": 1})),
    ("an override again", overridden, "order_target", lambda w: w.order(
        "override", {"decision": w.last_decision, "class": 5}, void=True)),
]  # fmt: skip

WORDS: list[tuple[str, Callable[[Writer], None], str, Act]] = [
    ("a withdrawal by an aggregator", opened, "role", lambda w: w.withdraw("r1", writer=w.aggregator)),
    ("a withdrawal that somebody else signs", opened, "bad_signature", lambda w: w.withdraw("r1", keys=[STRANGER])),
    ("a withdrawal under another key's id", opened, "bad_signature",
     lambda w: w.withdraw("r1", fields={"key_id": ZEROS})),
    ("a withdrawal of another federation", opened, "wrong_federation",
     lambda w: w.withdraw("r1", fields={"federation_id": ZEROS})),
    ("a withdrawal from another segment", opened, "stream", lambda w: w.withdraw("r1", fields={"segment": "sand"})),
    ("a withdrawal without a round", ready, "round_not_open", lambda w: w.withdraw("r1")),
    ("a withdrawal from another round", opened, "round_not_open", lambda w: w.withdraw("r1", fields={"round": 2})),
    ("a withdrawal of another history", opened, "wrong_prefix", lambda w: w.withdraw("r1", fields={"opened": ZEROS})),
    ("a withdrawal of another update", opened, "withdrawal", lambda w: w.withdraw("r1", fields={"update": ZEROS})),
    ("a withdrawal of what was not admitted", opened, "withdrawal", lambda w: w.withdraw("r2")),
    ("a withdrawal again", withdrawn, "withdrawal", lambda w: w.withdraw("r1", fields={"created_us": 2})),
    ("a second update after a withdrawal", withdrawn, "duplicate",
     lambda w: w.admit("r1", UPDATES["r2"], void=True)),
    ("a close that counts what was withdrawn", lambda w: (full(w), w.withdraw("r1")), "close_dropped",  # type: ignore[list-item]
     lambda w: w.close(void=True)),
    ("a withdrawal that is called something else", lambda w: (full(w), w.withdraw("r1")), "close_dropped",  # type: ignore[list-item]
     lambda w: w.close(dropped={"r1": "participant_inactive"}, void=True)),
    ("a withdrawal with a wrong envelope", opened, "malformed",
     lambda w: w.withdraw("r1", fields={"round": 0}, entry_stream=None)),
    ("a complaint by a gatekeeper", opened, "role", lambda w: w.complain("r2", writer=w.gatekeeper)),
    ("a statement of another kind by an auditor", ready, "writer", lambda w: w.count(writer=w.auditor)),
    ("a complaint that somebody else signs", opened, "bad_signature", lambda w: w.complain("r2", keys=[STRANGER])),
    ("a complaint about another segment", opened, "stream", lambda w: w.complain("r2", fields={"segment": "sand"})),
    ("a complaint about no round", ready, "round_not_open", lambda w: w.complain("r2")),
    ("a complaint about another history", opened, "wrong_prefix",
     lambda w: w.complain("r2", fields={"round_opened": ZEROS})),
    ("a complaint of another federation", opened, "wrong_federation",
     lambda w: w.complain("r2", fields={"federation_id": ZEROS})),
    ("a second complaint", complained, "complaint", lambda w: w.complain("r2", {2: 6})),
    ("a decision by a verifier", ready, "role", lambda w: w.decide("r1", writer=w.verifier)),
    ("a decision that somebody else signs", ready, "bad_signature", lambda w: w.decide("r1", keys=[STRANGER])),
    ("a decision of another federation", ready, "wrong_federation",
     lambda w: w.decide("r1", fields={"federation_id": ZEROS})),
    ("a decision in another segment", ready, "stream", lambda w: w.decide("r1", fields={"segment": "sand"})),
    ("a decision by somebody who is suspended", suspended, "participant_inactive", lambda w: w.decide("r1")),
    ("a complaint by somebody who is suspended", suspended, "participant_inactive", lambda w: w.complain("r1")),
    ("a decision where none is recorded", without_record, "not_granted", lambda w: w.decide("r1")),
    ("a decision by another group", of_others, "not_granted", lambda w: w.decide("r1")),
    ("a decision again", decided, "record_seq", lambda w: w.decide("r1", 7)),
    ("a decision with a model that is none", ready, "model_unknown",
     lambda w: w.decide("r1", fields={"model": ZEROS})),
    ("a decision with attributions out of order", ready, "malformed",
     lambda w: w.decide("r1", fields={"active_latents": [2, 1]}, entry_stream=None)),
]  # fmt: skip

INTERVENTIONS = ROOTS + ENROLMENT + ORDERS + WORDS
