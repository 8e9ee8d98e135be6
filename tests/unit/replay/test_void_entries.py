"""Each rule violated once: the entry is void under its code, it changes nothing, and the log goes on.

One row a rule of "When a document has effect", of the Statements table and of what stands beneath it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sfrl_secure.crypto.envelope import Envelope, sign_envelope
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.replay.findings import CODES
from sfrl_secure.replay.fold import Replay
from sfrl_secure.replay.state import State
from sfrl_secure.translog.checkpoint import Checkpoint, format_checkpoint
from sfrl_secure.translog.note import Note, format_note

from .builder import DAY, RULES, SECOND, STREAM, ZEROS, Writer, pb, sha
from .payloads import encode_payload

UPDATES = {"r1": {0: 5, 13: -7}, "r2": {0: 6, 3: 100}, "r3": {16: 1}}
R1, R2 = "spiffe://rover.example/participant/r1", "spiffe://rover.example/participant/r2"
STRANGER = SigningKey.generate("ed25519")

Act = Callable[[Writer], Any]


def ready(writer: Writer) -> None:
    """A federation before its first round."""


def opened(writer: Writer) -> None:
    writer.open_round()
    writer.admit("r1", UPDATES["r1"])


def full(writer: Writer) -> None:
    opened(writer)
    writer.admit("r2", UPDATES["r2"])
    writer.admit("r3", UPDATES["r3"])


def closed(writer: Writer) -> None:
    full(writer)
    writer.close()


def terms_with(writer: Writer, **changes: Any) -> dict[str, Any]:
    terms = writer.terms()
    for path, value in changes.items():
        *folders, last = path.split("__")
        inner = terms
        for folder in folders:
            inner = inner[folder]
        inner[last] = value
    return terms


def republish(writer: Writer, **changes: Any) -> None:
    writer.publish_terms(terms_with(writer, **changes), void=True)


def late(writer: Writer, act: Act, seconds: int = 600) -> None:
    writer.now += seconds * SECOND
    act(writer)


def used_twice(writer: Writer) -> None:
    writer.issue(R1, sha(b"tls"))
    writer.issue(R2, sha(b"tls"), void=True)


def anchored(writer: Writer) -> None:
    writer.anchor()


def of_its_own_size(writer: Writer) -> None:
    text = format_checkpoint(Checkpoint(writer.origin, len(writer.entries) + 1, sha(b"any")))
    writer.anchor(format_note(Note(text, (writer.signer.sign(text),))))


def one_refusal_too_many(writer: Writer) -> None:
    for _ in range(4):
        writer.refuse("r2", "duplicate", evidence=3)


def same_statement_twice(writer: Writer) -> None:
    writer.count(request_id=b"r" * 16, valid_until_us=writer.now + DAY)
    writer.count(request_id=b"r" * 16, valid_until_us=writer.now - SECOND + DAY)


def after_revocation(writer: Writer) -> None:
    writer.record("r4", state="revoked")
    writer.record("r4", void=True)


def with_a_services_document_of(**changes: Any) -> Act:
    def act(writer: Writer) -> None:
        services = [{"spiffe_id": name} | writer.key_of(key) for name, key in writer.services.items()]
        services[0] |= {key: value(writer) if callable(value) else value for key, value in changes.items()}
        writer.document("services", {"services": services, "auditors": []}, void=True)

    return act


GATEKEEPER_2 = "spiffe://rover.example/service/gatekeeper/gatekeeper-2"

DOCUMENTS: list[tuple[str, Callable[[Writer], None], str, Act]] = [
    ("another federation's document", ready, "wrong_federation",
     lambda w: w.publish_rules(federation_id=ZEROS.hex(), void=True)),
    ("one operator too few", ready, "threshold", lambda w: w.publish_rules(signers=["ann"], void=True)),
    ("a participant's record without an operator's signature", ready, "threshold",
     lambda w: w.append(w_sign(w, "participant", STRANGER), "governance")),
    ("a stranger among the signers", ready, "threshold", lambda w: stranger_signs(w)),
    ("a version skipped", ready, "version", lambda w: w.publish_rules(version=3, void=True)),
    ("a version again", ready, "version", lambda w: w.publish_rules(version=1, void=True)),
    ("another document before it", ready, "previous", lambda w: w.publish_rules(previous="11" * 32, void=True)),
    ("expired when it is logged", ready, "expired",
     lambda w: w.publish_rules(expires_us=w.now + SECOND, void=True)),
    ("a second genesis", ready, "genesis", lambda w: w.genesis(void=True)),
    ("root as an entry of its own", ready, "threshold",
     lambda w: w.append(w.signed("root", w.root, ["ann"]), "governance")),
    ("root again", ready, "version",
     lambda w: w.append(w.signed("root", w.root, ["ann", "bob", "cyd"]), "governance")),
    ("terms with another grid", ready, "model_changed", lambda w: republish(w, model__grid_exponent=11)),
    ("terms with another initial model", ready, "model_changed", lambda w: republish(w, model__initial="22" * 32)),
    ("terms with other constants", ready, "model_changed",
     lambda w: republish(w, model__manifest__constants={"mean": [1, -3]})),
    ("a record after the revocation", ready, "revoked", after_revocation),
    ("a revocation of nobody", ready, "revoked",
     lambda w: w.record("r9", state="revoked", key=SigningKey.generate("ed25519"), void=True)),
    ("a participant with an operator's key", ready, "key_reused",
     lambda w: w.record("r1", key=w.operators["ann"], void=True)),
    ("a participant with another's key", ready, "key_reused",
     lambda w: w.record("r1", key=w.participants["r2"], void=True)),
    ("a service with an auditor's key", ready, "key_reused",
     with_a_services_document_of(public_key=lambda w: w.auditors["spiffe://rover.example/auditor/eve"].public_key.raw.hex())),
    ("a service with another service's key", ready, "key_reused",
     with_a_services_document_of(public_key=lambda w: w.services[w.aggregator].public_key.raw.hex())),
    ("a key under another service's name", ready, "key_reused", with_a_services_document_of(spiffe_id=GATEKEEPER_2)),
    ("a service of another trust domain", ready, "trust_domain",
     with_a_services_document_of(spiffe_id="spiffe://other.example/service/gatekeeper/gatekeeper-1")),
    ("possession that is another name's", ready, "possession",
     lambda w: w.record("r1", possession=STRANGER.sign(b"nothing"), void=True)),
    ("a policy without an id", ready, "rules",
     lambda w: w.publish_rules("permit (principal, action, resource);", void=True)),
    ("two policies with one id", ready, "rules", lambda w: w.publish_rules(RULES + RULES, void=True)),
    ("a template", ready, "rules",
     lambda w: w.publish_rules('@id("t") permit (principal == ?principal, action, resource);', void=True)),
    ("a policy over facts that there are not", ready, "rules",
     lambda w: w.publish_rules('@id("t") permit (principal, action, resource) when { context.hue == 1 };', void=True)),
    ("no Cedar", ready, "rules", lambda w: w.publish_rules("permit permit;", void=True)),
    ("a string across lines", ready, "malformed",
     lambda w: w.publish_rules('@id("a\n") permit (principal, action, resource);', void=True, stream=None)),
    ("an unknown key", ready, "malformed",
     lambda w: w.document("rules", {"cedar": RULES, "extra": 1}, void=True, stream=None)),
    ("weights that could add up too far", ready, "malformed",
     lambda w: w.publish_terms(terms_with(w, limits__weight_max=2**21), void=True, stream=None)),
    ("a tensor that is not in the manifest", ready, "malformed",
     lambda w: w.publish_terms(terms_with(w, tensors=["c"]), void=True, stream=None)),
    ("a constant whose name has another form", ready, "malformed",
     lambda w: w.publish_terms(terms_with(w, model__manifest__constants={"a b": [1]}), void=True, stream=None)),
    ("an operation that there is not", ready, "malformed",
     lambda w: w.publish_terms(terms_with(w, operations=["own"]), void=True, stream=None)),
]  # fmt: skip


def w_sign(writer: Writer, kind: str, key: SigningKey) -> Envelope:
    version, previous = writer.versions[kind, "r1"]
    body = {
        "type": kind, "federation_id": writer.federation_id.hex(), "version": version + 1, "previous": previous.hex(),
        "expires_us": 2**62, "name": "r1", "possession": "", "clearance": 1, "groups": [], "state": "active",
        "reason": "",
    }  # fmt: skip
    raw = writer.json_of(body | writer.key_of(writer.participants["r1"]))
    return sign_envelope(f"application/vnd.sfrl.{kind}.v1+json", raw, [key])


def stranger_signs(writer: Writer) -> None:
    version, previous = writer.versions["rules", ""]
    raw = writer.json_of({
        "type": "rules", "federation_id": writer.federation_id.hex(), "version": version + 1,
        "previous": previous.hex(), "expires_us": 2**62, "cedar": RULES,
    })  # fmt: skip
    keys = [writer.operators["ann"], writer.operators["bob"], STRANGER]
    writer.append(sign_envelope("application/vnd.sfrl.rules.v1+json", raw, keys), "governance")


STATEMENTS: list[tuple[str, Callable[[Writer], None], str, Act]] = [
    ("another federation's statement", ready, "wrong_federation", lambda w: w.count(federation_id=ZEROS)),
    ("a writer that no document names", ready, "writer", lambda w: w.count(named_writer=GATEKEEPER_2)),
    ("a writer with another's key id", ready, "writer",
     lambda w: w.count(key_id=w.services[w.aggregator].public_key.key_id)),
    ("another key's signature", ready, "writer_signature", lambda w: w.count(sign=[STRANGER])),
    ("one signature too many", ready, "writer_signature",
     lambda w: w.count(sign=[w.services[w.gatekeeper], STRANGER])),
    ("a gatekeeper that opens a round", ready, "role", lambda w: w.open_round(writer=w.gatekeeper, void=True)),
    ("an aggregator that issues identities", ready, "role", lambda w: w.issue(R1, writer=w.aggregator)),
    ("an aggregator that admits", opened, "role",
     lambda w: w.admit("r2", UPDATES["r2"], writer=w.aggregator, void=True)),
    ("an audit log that refuses", opened, "role", lambda w: w.refuse("r1", "duplicate", writer=w.audit_log)),
    ("an aggregator that counts refusals", ready, "role", lambda w: w.count(writer=w.aggregator)),
    ("a gatekeeper that closes", full, "role", lambda w: w.close(writer=w.gatekeeper, void=True)),
    ("a gatekeeper that publishes", closed, "role", lambda w: w.publish_model(writer=w.gatekeeper, void=True)),
    ("an aggregator that records fetches", ready, "role",
     lambda w: w.fetch([("r1", w.model_digest)], writer=w.aggregator)),
    ("sequenced after its time", ready, "expired", lambda w: w.count(valid_until_us=w.now + SECOND)),
    ("the same statement again", ready, "repeated", same_statement_twice),
    ("a count in another stream", ready, "stream", lambda w: w.count(named_stream="identity", entry_stream="identity")),
    ("an identity in another stream", ready, "stream", lambda w: w.issue(R1, named_stream="log", entry_stream="log")),
    ("a round in the log's stream", ready, "stream",
     lambda w: w.open_round(named_stream="log", entry_stream="log", void=True)),
    ("a segment without terms", ready, "unknown_segment",
     lambda w: w.open_round(named_stream="segment/none", entry_stream="segment/none", void=True)),
    ("governance that was not read", ready, "stale_governance", lambda w: w.count(reads_governance=ZEROS)),
    ("a control entry that was not read", opened, "stale_segment",
     lambda w: w.admit("r2", UPDATES["r2"], reads_segment=ZEROS, void=True)),
    ("a control head where there is no segment", ready, "stale_segment", lambda w: w.count(reads_segment=b"x" * 32)),
    ("a kind that its body is not", ready, "malformed", lambda w: w.count(field_number=16, entry_stream=None)),
    ("stream governance", ready, "malformed", lambda w: w.count(named_stream="governance", entry_stream=None)),
    ("an update as an entry", opened, "malformed", lambda w: bare_update(w)),
    ("a payload type that there is not", ready, "malformed",
     lambda w: w.append(sign_envelope("application/vnd.sfrl.x.v1", b"{}", [w.operators["ann"]]), None)),
    # identity_issued
    ("an identity for a name that nobody recorded", ready, "identity_unknown",
     lambda w: w.issue("spiffe://rover.example/participant/zoe")),
    ("an identity of another trust domain", ready, "identity_unknown",
     lambda w: w.issue("spiffe://other.example/participant/r1")),
    ("an identity for a service that is not named", ready, "identity_unknown", lambda w: w.issue(GATEKEEPER_2)),
    ("an identity for an operator that is none", ready, "identity_unknown",
     lambda w: w.issue("spiffe://rover.example/operator/zoe")),
    ("an identity with another's TLS key", ready, "key_reused", used_twice),
    ("an identity that has expired", ready, "expired", lambda w: w.issue(R1, not_after_us=w.now + SECOND)),
    # round_opened
    ("a round while one is open", opened, "round_not_due", lambda w: w.open_round(void=True)),
    ("a round while a model is due", closed, "round_not_due", lambda w: w.open_round(void=True)),
    ("a round under other terms", ready, "terms", lambda w: w.open_round(body={"terms": ZEROS}, void=True)),
    ("a round skipped", ready, "round_number", lambda w: w.open_round(body={"round": 2}, void=True)),
    ("a round from another base", ready, "base_model", lambda w: w.open_round(body={"base": ZEROS}, void=True)),
    # update_admitted, the log's part
    ("an update of another segment", opened, "stream",
     lambda w: w.admit("r2", UPDATES["r2"], fields={"segment": "other"}, void=True)),
    ("an update that somebody else signed", opened, "bad_signature",
     lambda w: w.admit("r2", UPDATES["r2"], keys=[w.participants["r3"]], void=True)),
    ("an update with two signatures", opened, "bad_signature",
     lambda w: w.admit("r2", UPDATES["r2"], keys=[w.participants["r2"], w.participants["r3"]], void=True)),
    ("an update that names another key", opened, "bad_signature",
     lambda w: w.admit("r2", UPDATES["r2"], fields={"key_id": ZEROS}, void=True)),
    ("an update of another federation", opened, "wrong_federation",
     lambda w: w.admit("r2", UPDATES["r2"], fields={"federation_id": ZEROS}, void=True)),
    ("an update before a round", ready, "round_not_open", lambda w: w.admit("r2", UPDATES["r2"], void=True)),
    ("an update after the close", closed, "round_not_open", lambda w: w.admit("r4", UPDATES["r2"], void=True)),
    ("an update for another round", opened, "round_not_open",
     lambda w: w.admit("r2", UPDATES["r2"], fields={"round": 2}, void=True)),
    ("an update for another history", opened, "wrong_prefix",
     lambda w: w.admit("r2", UPDATES["r2"], fields={"round_opened": ZEROS}, void=True)),
    ("an update from another base", opened, "wrong_base",
     lambda w: w.admit("r2", UPDATES["r2"], fields={"base_model": ZEROS}, void=True)),
    ("an update at the deadline", opened, "deadline",
     lambda w: late(w, lambda w: w.admit("r2", UPDATES["r2"], void=True), 598)),
    ("a second update", opened, "duplicate", lambda w: w.admit("r1", UPDATES["r2"], void=True)),
    ("a fourth of three", full, "round_full", lambda w: w.admit("r4", UPDATES["r2"], void=True)),
    ("another codec", opened, "format_not_allowed",
     lambda w: w.admit("r2", UPDATES["r2"], fields={"codec": 2}, void=True)),
    ("no payload", opened, "payload_too_large",
     lambda w: w.admit("r2", UPDATES["r2"], fields={"payload_bytes": 0}, void=True)),
    ("a payload too long", opened, "payload_too_large",
     lambda w: w.admit("r2", UPDATES["r2"], fields={"payload_bytes": 4097}, void=True)),
    ("no nonzeros", opened, "too_dense", lambda w: w.admit("r2", UPDATES["r2"], fields={"nonzeros": 0}, void=True)),
    ("too many nonzeros", opened, "too_dense",
     lambda w: w.admit("r2", UPDATES["r2"], fields={"nonzeros": 11}, void=True)),
    ("no weight", opened, "weight_limit", lambda w: w.admit("r2", UPDATES["r2"], 0, void=True)),
    ("too much weight", opened, "weight_limit", lambda w: w.admit("r2", UPDATES["r2"], 101, void=True)),
    ("a payload that is kept too short", opened, "retention",
     lambda w: w.admit("r2", UPDATES["r2"], retain_until_us=w.now + SECOND + 30 * DAY - 1, void=True)),
    # update_refused
    ("a refusal of a peer without an identity", opened, "peer_unknown",
     lambda w: w.refuse("r1", "duplicate", peer="spiffe://rover.example/operator/ann")),
    ("evidence without an envelope", opened, "refusal_evidence", lambda w: w.refuse("r1", "malformed", quoted=False)),
    ("a quoted update that its participant did not sign", opened, "bad_signature",
     lambda w: w.refuse("r1", "duplicate", keys=[STRANGER])),
    ("a refusal for another reason", opened, "refusal_reason", lambda w: w.refuse("r1", "round_full")),
    ("a refusal without a reason", opened, "refusal_reason", lambda w: w.refuse("r2", "duplicate")),
    ("a refusal for the payload that the header would earn", opened, "refusal_reason",
     lambda w: w.refuse("r1", "payload_length", evidence=2)),
    ("a refusal in the log's stream that belongs to a segment", opened, "stream",
     lambda w: w.refuse("r1", "duplicate", stream="log")),
    ("a fourth single refusal", opened, "refusal_count", one_refusal_too_many),
    # refusals_counted
    ("an interval that ends before it begins", ready, "malformed", lambda w: w.count(span=(3, 2), entry_stream=None)),
    ("counts out of order", ready, "malformed",
     lambda w: w.count([("role", 2, 1), ("duplicate", 2, 1)], entry_stream=None)),
    ("a count of none", ready, "malformed", lambda w: w.count([("role", 2, 0)], entry_stream=None)),
    # time_anchored
    ("an anchor by a gatekeeper", ready, "role", lambda w: w.anchor(writer=w.gatekeeper)),
    ("an anchor in another stream", ready, "stream", lambda w: w.anchor(stream="identity")),
    ("an anchor in a segment's stream", ready, "stream", lambda w: w.anchor(stream=STREAM)),
    ("an anchor of another log", ready, "anchor",
     lambda w: w.anchor(w.anchor_note().replace(b"log.example", b"lag.example"))),
    ("an anchor of nothing", ready, "anchor", lambda w: w.anchor(w.anchor_note(0))),
    ("an anchor of the same size again", anchored, "anchor", lambda w: w.anchor(w.anchor_note(len(w.entries) - 1))),
    ("an anchor that goes back", anchored, "anchor", lambda w: w.anchor(w.anchor_note(len(w.entries) - 2))),
    ("an anchor that covers itself", ready, "anchor", of_its_own_size),
    ("an anchor without a note", ready, "malformed", lambda w: w.anchor(b"", entry_stream=None)),
    ("an anchor of a note that is no checkpoint", ready, "malformed",
     lambda w: w.anchor(w.anchor_note().replace(b"\n\n", b"\nmore\n\n"), entry_stream=None)),
    # round_closed
    ("a close of another round", full, "round_not_open", lambda w: w.close(body={"round": 2}, void=True)),
    ("a close too early", opened, "close_early", lambda w: w.close(void=True)),
    ("a full round that is said to be late", full, "close_cause", lambda w: w.close(body={"cause": 2}, void=True)),
    ("a late round that is said to be full", opened, "close_cause",
     lambda w: late(w, lambda w: w.close(body={"cause": 1}, void=True))),
    ("a close on order", full, "malformed", lambda w: w.close(body={"cause": 3}, void=True, entry_stream=None)),
    ("an update dropped of a participant who is active", full, "close_dropped",
     lambda w: w.close(dropped={"r2": "participant_inactive"}, void=True)),
    ("one update fewer", full, "close_counted", lambda w: w.close(body={"count": 2}, void=True)),
    ("another counted root", full, "close_counted", lambda w: w.close(body={"root": ZEROS}, void=True)),
    ("a close that aborts a round with enough", full, "close_outcome",
     lambda w: w.close(body={"outcome": 2}, void=True)),
    ("a close that lets too few through", opened, "close_outcome",
     lambda w: late(w, lambda w: w.close(body={"outcome": 1}, void=True))),
    # model_published
    ("a model of an open round", full, "no_model_due", lambda w: w.publish_model(void=True)),
    ("a model of another round", closed, "no_model_due", lambda w: w.publish_model(body={"round": 2}, void=True)),
    ("a model of another close", closed, "no_model_due", lambda w: w.publish_model(body={"closed": ZEROS}, void=True)),
    ("a model from another base", closed, "base_model", lambda w: w.publish_model(body={"base": ZEROS}, void=True)),
    ("another rule", closed, "rule", lambda w: w.publish_model(body={"rule": "krum/v1"}, void=True)),
    ("another arithmetic", closed, "rule", lambda w: w.publish_model(body={"arithmetic": 2}, void=True)),
    # models_fetched
    ("a fetch of somebody without a record", ready, "fetch", lambda w: w.fetch([("zoe", w.model_digest)])),
    ("a fetch of a model that is none", ready, "fetch", lambda w: w.fetch([("r1", ZEROS)])),
    ("fetches out of order", ready, "malformed",
     lambda w: w.fetch([("r2", w.model_digest), ("r1", w.model_digest)], entry_stream=None)),
    ("no fetches", ready, "malformed", lambda w: w.fetch([], entry_stream=None)),
]  # fmt: skip


def bare_update(writer: Writer) -> None:
    fields = writer.update_fields("r2", b"payload", {1: 5}, 10)
    raw = pb((1, fields["federation_id"]), (2, fields["segment"]))
    writer.append(sign_envelope("application/vnd.sfrl.update.v1", raw, [writer.participants["r2"]]), None)


def summary(state: State) -> dict[str, Any]:
    """Everything that decides anything, but for streams and digests, which a void entry does move."""
    segments = {
        name: (
            segment.model, segment.models, segment.control_head,
            None if segment.values is None else segment.values.tolist(),
            segment.round and (
                segment.round.number, segment.round.opened, segment.round.admissions, segment.round.closed,
                segment.round.has_model, segment.round.total.numerator.tolist(), segment.round.total.denominator,
            ),
        )
        for name, segment in state.segments.items()
    }  # fmt: skip
    return {
        "owners": dict(state.owners), "in_force": dict(state.in_force), "rules": state.rule_set, "segments": segments,
        "head": state.governance_head, "identities": dict(state.identities), "peers": set(state.peers),
        "admitted": dict(state.admitted), "refusals": dict(state.refusals), "anchored": state.anchored_size,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("stage", "code", "act"), [pytest.param(*row[1:], id=row[0]) for row in DOCUMENTS + STATEMENTS]
)
def test_a_rule_that_is_broken_voids_the_entry_and_changes_nothing(
    stage: Callable[[Writer], None], code: str, act: Act
) -> None:
    writer = Writer().begin()
    stage(writer)
    act(writer)
    last = len(writer.entries) - 1
    replay = Replay(writer.trust, writer.objects)
    for entry in writer.entries[:-1]:
        assert replay.step(entry) == []
    before = summary(replay.state)
    found = replay.step(writer.entries[-1])
    assert [(each.code, each.index) for each in found] == [(code, last)]
    assert summary(replay.state) == before
    # The log goes on from the state before.
    position = len(writer.entries)
    writer.count()
    for entry in writer.entries[position:]:
        assert replay.step(entry) == []


def test_every_code_of_a_void_entry_has_a_row() -> None:
    rows = {row[2] for row in DOCUMENTS + STATEMENTS}
    elsewhere = {
        "checkpoint", "structure", "equivocation", "object_altered", "entry_malformed", "chain", "time",
        "stream_position", "time_ahead", "time_behind", "root_expired", "defective", "initial_model", "overdue",
        "refusal_facts",
        # False results are findings and have effect.
        "aggregate", "model",
        "participant_inactive", "not_granted", "suite_not_allowed",
        # Reasons that a refusal can have and an admission, which names no peer, cannot.
        "wrong_peer", "replayed",
    }  # fmt: skip
    assert rows | elsewhere == set(CODES)
    assert not rows & elsewhere


def last_codes(writer: Writer) -> list[str]:
    replay = writer.replay()
    return [each.code for each in replay.docket.findings if each.index == len(writer.entries) - 1]


def test_an_expired_root_takes_no_document() -> None:
    writer = Writer()
    writer.root = writer.root.replace(str(2**62).encode(), str(writer.now + 6 * SECOND).encode())
    writer.federation_id = sha(writer.root)
    writer.origin = f"log.example/sfrl/{writer.federation_id.hex()[:32]}"
    writer._log_keys()
    writer.genesis()
    writer.publish_services()
    writer.publish_rules()
    writer.now += 3 * SECOND
    writer.publish_terms(void=True)
    assert last_codes(writer) == ["root_expired"]


def test_an_expired_services_document_makes_every_statement_void() -> None:
    writer = Writer()
    writer.genesis()
    writer.publish_services(expires_us=writer.now + 3 * SECOND)
    writer.count()
    writer.count()
    assert [f.code for f in writer.replay().docket.findings] == ["expired"]


def test_no_statement_has_effect_before_a_services_document() -> None:
    writer = Writer()
    writer.genesis()
    writer.count()
    assert last_codes(writer) == ["writer"]


def test_expired_terms_open_no_round() -> None:
    writer = Writer().begin()
    writer.publish_terms(expires_us=writer.now + 3 * SECOND)
    writer.now += SECOND
    writer.open_round(void=True)
    assert last_codes(writer) == ["expired"]


def test_the_last_round_of_the_terms_is_the_last() -> None:
    writer = Writer().begin()
    writer.publish_terms(terms_with(writer, round__rounds_max=1))
    writer.run_round(UPDATES)
    writer.open_round(void=True)
    assert last_codes(writer) == ["round_number"]


@pytest.mark.parametrize("body", [{"state": "suspended"}, {"expires_us": "soon"}])
def test_an_inactive_participant_is_not_admitted(body: dict[str, Any]) -> None:
    writer = Writer().begin()
    if "expires_us" in body:
        writer.record("r2", expires_us=writer.now + 3 * SECOND)
    else:
        writer.record("r2", **body)
    writer.open_round()
    writer.now += 3 * SECOND
    writer.admit("r2", UPDATES["r2"], void=True)
    assert last_codes(writer) == ["participant_inactive"]


def test_a_revocation_needs_its_own_threshold() -> None:
    writer = Writer()
    writer.root = writer.root.replace(b'"revocation": 1', b'"revocation": 2')
    writer.federation_id = sha(writer.root)
    writer.origin = f"log.example/sfrl/{writer.federation_id.hex()[:32]}"
    writer._log_keys()
    writer.begin()
    writer.record("r1", state="revoked", void=True)
    assert last_codes(writer) == ["threshold"]


@pytest.mark.parametrize(("changes", "code"), [
    ({"operations": ["fetch"]}, "not_granted"),
    ({"groups": ["others"]}, "not_granted"),
    ({"suites": ["ed25519+ml-dsa-44"]}, "suite_not_allowed"),
    ({"value_types": ["fp32"]}, "format_not_allowed"),
])  # fmt: skip
def test_what_the_terms_do_not_allow_is_not_admitted(changes: dict[str, Any], code: str) -> None:
    writer = Writer().begin()
    writer.publish_terms(terms_with(writer, **changes))
    writer.open_round()
    writer.admit("r2", UPDATES["r2"], void=True)
    assert last_codes(writer) == [code]


DEFECTS: list[tuple[str, dict[str, Any]]] = [
    ("a policy that denies the header", {"weight": 51}),
    ("a payload that is longer than it says", {"fields": {"payload_bytes": 5}}),
    ("a payload that is shorter than it says", {"fields": {"payload_bytes": 4000}}),
    ("a payload that does not decode", {"payload": encode_payload(UPDATES["r2"], 17)[:-1]}),
    ("a norm beyond the terms", {"update": dict.fromkeys(range(2), 127 * 64)}),
    ("a magnitude beyond the terms", {"update": {1: 9088}}),
    ("a policy that denies the payload", {"update": {1: 127 * 64}}),
    ("another norm", {"facts": {"norm": 1}}),
    ("another density", {"facts": {"density_ppm": 1}}),
    ("other tensors", {"facts": {"tensors": [1]}}),
    ("another magnitude", {"facts": {"largest": 1}}),
    ("other nonzeros", {"facts": {"nonzeros": 1}}),
    ("a rule missing", {"rule_ids": ["cleared", "known"]}),
    ("a rule that did not decide", {"rule_ids": ["cleared", "known", "heavy"]}),
]


@pytest.mark.parametrize("changes", [pytest.param(changes, id=name) for name, changes in DEFECTS])
def test_an_admission_that_its_payload_does_not_bear_out_is_never_counted(changes: dict[str, Any]) -> None:
    writer = Writer().begin()
    full_but_r2(writer)
    arguments = {"update": UPDATES["r2"]} | changes
    writer.admit("r2", arguments.pop("update"), arguments.pop("weight", 10), **arguments)
    defect = len(writer.entries) - 1
    writer.close(dropped={"r2": "defective"})
    writer.publish_model()
    found = [(each.code, each.index) for each in writer.replay().docket.findings]
    assert found == [("defective", defect)]


def test_a_defective_admission_that_is_counted_is_found() -> None:
    writer = Writer().begin()
    full_but_r2(writer)
    writer.admit("r2", UPDATES["r2"], facts={"norm": 1})
    defect = len(writer.entries) - 1
    writer.close()
    found = [(each.code, each.index) for each in writer.replay().docket.findings]
    assert found == [("defective", defect), ("close_dropped", defect + 1)]


FALSE_RESULTS: list[tuple[str, str, Act]] = [
    ("an update dropped as defective that is sound", "close_dropped",
     lambda w: (w.close(dropped={"r2": "defective"}), w.publish_model())),
    ("another aggregate", "aggregate", lambda w: (w.close(), w.publish_model(body={"aggregate": ZEROS}))),
    ("a model that is one unit off", "model", lambda w: (w.close(), w.publish_model(model=[1] + [0] * 16))),
]  # fmt: skip


@pytest.mark.parametrize(("code", "act"), [pytest.param(*row[1:], id=row[0]) for row in FALSE_RESULTS])
def test_a_false_result_is_one_finding_and_frames_nobody_afterwards(code: str, act: Act) -> None:
    """Who holds no payloads cannot see it and goes on from it: what honest services write next is in order."""
    writer = Writer().begin()
    full(writer)
    act(writer)
    writer.open_round()
    writer.admit("r1", UPDATES["r1"])
    found = [each.code for each in writer.replay().docket.findings]
    assert found == [code]


def full_but_r2(writer: Writer) -> None:
    writer.open_round()
    writer.admit("r1", UPDATES["r1"])
    writer.admit("r3", UPDATES["r3"])


def test_a_tensor_that_the_terms_do_not_name_is_a_defect() -> None:
    writer = Writer().begin()
    writer.publish_terms(terms_with(writer, tensors=["a"]))
    writer.open_round()
    writer.admit("r1", UPDATES["r1"])
    assert last_codes(writer) == ["defective"]


def test_without_rules_everything_is_denied() -> None:
    writer = Writer().begin()
    writer.publish_rules(expires_us=writer.now + 3 * SECOND)
    writer.open_round()
    writer.now += SECOND
    writer.refuse("r1", "policy_denied")
    assert last_codes(writer) == []
    writer.admit("r1", UPDATES["r1"])
    assert last_codes(writer) == ["defective"]


def test_a_rule_that_errs_denies() -> None:
    writer = Writer().begin()
    writer.publish_rules(
        '@id("all") permit (principal, action, resource);'
        '@id("errs") forbid (principal, action, resource) when { context.round * 9223372036854775807 * 2 > 5 };'
    )
    writer.open_round()
    writer.refuse("r1", "policy_error")
    assert last_codes(writer) == []


@pytest.mark.parametrize(("changes", "code"), [
    ({"reason": "payload_digest"}, "refusal_reason"),
    ({"facts": pb((1, 9))}, "refusal_facts"),
])  # fmt: skip
def test_a_refusal_that_its_payload_does_not_bear_out_is_a_finding(changes: dict[str, Any], code: str) -> None:
    writer = Writer().begin()
    writer.open_round()
    arguments = {"reason": "policy_denied"} | changes
    writer.refuse("r1", arguments.pop("reason"), evidence=2, update={1: 127 * 64}, **arguments)
    assert last_codes(writer) == [code]


def test_a_refusal_of_a_sound_update_is_a_finding() -> None:
    writer = Writer().begin()
    writer.open_round()
    writer.refuse("r1", "payload_length", evidence=2)
    assert last_codes(writer) == ["refusal_reason"]


def test_an_initial_model_of_another_manifest_is_a_finding_and_no_model_follows_from_it() -> None:
    writer = Writer()
    writer.genesis()
    writer.publish_services()
    terms = writer.terms()
    terms["model"]["initial"] = writer.objects.put(b"no model").hex()
    writer.publish_terms(terms)
    assert last_codes(writer) == ["initial_model"]
