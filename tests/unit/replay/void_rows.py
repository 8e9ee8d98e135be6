"""Rules violated once each: a row names what is wrong, where the log stands, the code, and what writes the entry.

One row a rule of "When a document has effect", of the Statements table and of what stands beneath it. Interventions,
enrolment and what participants sign have theirs in `intervention_rows`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from sfrl_secure.crypto.envelope import Envelope, sign_envelope
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.translog.checkpoint import Checkpoint, format_checkpoint
from sfrl_secure.translog.note import Note, format_note

from .builder import COORDINATES, DAY, RULES, SECOND, STREAM, ZEROS, Writer, pb, sha
from .payloads import encode_payload

UPDATES = {"r1": {0: 5, 13: -7}, "r2": {0: 6, 3: 100}, "r3": {16: 1}}
R1, R2, R4 = (f"spiffe://rover.example/participant/{name}" for name in ("r1", "r2", "r4"))
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


def noisy(writer: Writer) -> None:
    """A round whose terms ask for two coordinates, weight 5 and a noise of 3."""
    floors = {"nonzeros_min": 2, "weight_min": 5, "noise_std_min": 3, "rows": [], "labels": []}
    writer.publish_terms(terms_with(writer, leakage=floors))
    writer.open_round()


def relayed(writer: Writer) -> None:
    """A round in which r4 may bring what others signed, and has brought nothing yet; r1 has an admission."""
    writer.record("r4", body={"groups": ["orbiters"]})
    writer.publish_terms(terms_with(writer, relay_groups=["orbiters"]))
    opened(writer)


def agreeing(writer: Writer) -> None:
    """A round that takes agreed updates of four coordinates, and dense ones of all seventeen."""
    modes = {"support_modes": ["agreed", "dense"], "limits__nonzeros_max": COORDINATES}
    writer.publish_terms(terms_with(writer, mask=writer.put_mask([0, 3, 12, 16]), **modes))
    writer.open_round()


MOMENTUM = {"name": "momentum/v1", "decay": 2**15, "rate": 2**15}
ADAPTIVE = {"name": "adaptive/v1", "decay": 2**15, "decay_max": 2**16 - 1, "rate": 100, "floor": 1}
NEXT = {"score": "contribution", "regrow": 2, "protected": []}


def agreeing_and_free(writer: Writer) -> None:
    """Terms with a mask that stays."""
    modes = {"support_modes": ["agreed", "free"], "mask": writer.put_mask([0, 3, 12, 16])}
    writer.publish_terms(terms_with(writer, **modes))


def closed_with_a_mask(writer: Writer) -> None:
    """A closed round of three under such terms."""
    agreeing_and_free(writer)
    closed(writer)


def stepping(writer: Writer) -> None:
    """A segment with server momentum that has had a round."""
    writer.publish_terms(terms_with(writer, server=MOMENTUM))
    writer.run_round(UPDATES)


def changing(writer: Writer) -> None:
    """A segment whose mask changes, and has changed once."""
    modes = {"support_modes": ["agreed", "free"], "mask": writer.put_mask([0, 3, 12, 16], NEXT)}
    writer.publish_terms(terms_with(writer, **modes))
    writer.run_round(UPDATES)


def of_fewer(writer: Writer) -> None:
    """The same, and then terms whose masks have fewer coordinates; the first of them is named as before."""
    changing(writer)
    mask = json.loads(writer.terms_raw)["mask"] | {"nonzeros": 3}
    writer.publish_terms(terms_with(writer, support_modes=["agreed", "free"], mask=mask))


def clustered(writer: Writer) -> None:
    """A closed round of three whose rule makes clusters."""
    writer.publish_terms(terms_with(writer, rule={"name": "clustered_mean/v1", "alike_ppm": 900_000}))
    closed(writer)


def cluster(*members: int) -> list[bytes]:
    return [pb((1, list(members)), (2, ZEROS))]


def used_up(writer: Writer) -> None:
    """A round in which r1 has no update left, and r4 one, but a byte too few for it."""
    enough = sum(len(encode_payload(UPDATES[name], COORDINATES)) for name in ("r1", "r2"))
    quota = {"window_us": 30 * DAY, "updates_max": 2, "bytes_max": enough - 1}
    writer.publish_terms(terms_with(writer, quota=quota))
    writer.run_round({"r1": {1: 5}, "r4": UPDATES["r1"]})
    writer.run_round({"r1": {1: 5}, "r2": {1: 5}})
    writer.open_round()


def late(writer: Writer, act: Act, seconds: int = 600) -> None:
    writer.now += seconds * SECOND
    act(writer)


def used_twice(writer: Writer) -> None:
    writer.issue(R1, sha(b"tls"), renews=sha(R1.encode()))
    writer.issue(R2, sha(b"tls"), renews=sha(R2.encode()), void=True)


def anchored(writer: Writer) -> None:
    writer.anchor()


def of_its_own_size(writer: Writer) -> None:
    text = format_checkpoint(Checkpoint(writer.origin, len(writer.entries) + 1, sha(b"any")))
    writer.anchor(format_note(Note(text, (writer.signer.sign(text),))))


def one_refusal_too_many(writer: Writer) -> None:
    for _ in range(4):
        writer.refuse("r1", "duplicate")


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
        writer.document("services", {"services": services, "auditors": [], "key_exchange": ["X25519"]}, void=True)

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
     lambda w: w.admit("r2", UPDATES["r2"], fields={"codec": 1}, void=True)),
    ("fewer agreed values than the mask has", agreeing, "format_not_allowed",
     lambda w: w.admit("r2", {0: 5}, support="agreed", fields={"nonzeros": 3}, void=True)),
    ("more agreed values than the mask has", agreeing, "format_not_allowed",
     lambda w: w.admit("r2", {0: 5}, support="agreed", fields={"nonzeros": 5}, void=True)),
    ("a dense update that leaves one out", agreeing, "format_not_allowed",
     lambda w: w.admit("r2", {0: 5}, support="dense", fields={"nonzeros": 16}, void=True)),
    ("a support mode that the terms do not have", agreeing, "format_not_allowed",
     lambda w: w.admit("r2", UPDATES["r2"], void=True)),
    ("no payload", opened, "payload_too_large",
     lambda w: w.admit("r2", UPDATES["r2"], fields={"payload_bytes": 0}, void=True)),
    ("a payload too long", opened, "payload_too_large",
     lambda w: w.admit("r2", UPDATES["r2"], fields={"payload_bytes": 4097}, void=True)),
    ("no nonzeros", opened, "too_few_coordinates",
     lambda w: w.admit("r2", UPDATES["r2"], fields={"nonzeros": 0}, void=True)),
    ("too many nonzeros", opened, "too_dense",
     lambda w: w.admit("r2", UPDATES["r2"], fields={"nonzeros": 11}, void=True)),
    ("no weight", opened, "weight_limit", lambda w: w.admit("r2", UPDATES["r2"], 0, void=True)),
    ("too much weight", opened, "weight_limit", lambda w: w.admit("r2", UPDATES["r2"], 101, void=True)),
    ("less noise than the terms ask for", noisy, "noise_too_small",
     lambda w: w.admit("r2", UPDATES["r2"], fields={"noise_std": 2}, void=True)),
    ("fewer coordinates than the terms ask for", noisy, "too_few_coordinates",
     lambda w: w.admit("r2", {1: 5}, fields={"noise_std": 3}, void=True)),
    ("less weight than the terms ask for", noisy, "weight_limit",
     lambda w: w.admit("r2", UPDATES["r2"], 4, fields={"noise_std": 3}, void=True)),
    ("more updates than the quota", used_up, "quota_updates", lambda w: w.admit("r1", UPDATES["r1"], void=True)),
    ("more bytes than the quota", used_up, "quota_bytes", lambda w: w.admit("r4", UPDATES["r2"], void=True)),
    ("a payload that is kept too short", opened, "retention",
     lambda w: w.admit("r2", UPDATES["r2"], retain_until_us=w.now + SECOND + 30 * DAY - 1, void=True)),
    # update_refused
    ("a refusal of a peer without an identity", opened, "peer_unknown",
     lambda w: w.refuse("r1", "duplicate", peer="spiffe://rover.example/operator/ann")),
    ("evidence without an envelope", opened, "refusal_evidence", lambda w: w.refuse("r1", "malformed", quoted=False)),
    ("an object without an envelope", opened, "refusal_evidence",
     lambda w: w.refuse("r1", "malformed", evidence=2, quoted=False)),
    ("a reason of the log without an envelope", opened, "refusal_evidence",
     lambda w: w.refuse("r1", "duplicate", evidence=3, quoted=False)),
    ("a reason of the payload without an envelope", opened, "refusal_evidence",
     lambda w: w.refuse("r1", "policy_denied", evidence=3, quoted=False)),
    ("an update that was not received, without an envelope", opened, "refusal_evidence",
     lambda w: w.refuse("r1", "not_received", evidence=3, quoted=False)),
    ("an object for a reason of the log", opened, "refusal_evidence",
     lambda w: w.refuse("r2", "duplicate", evidence=2)),
    ("an object that another digest has", opened, "refusal_evidence",
     lambda w: w.refuse("r2", "digest_mismatch", evidence=2)),
    ("an object that was not received", opened, "refusal_evidence",
     lambda w: w.refuse("r2", "not_received", evidence=2)),
    ("a reason of the log on word", opened, "refusal_evidence", lambda w: w.refuse("r2", "too_dense", evidence=3)),
    ("a reason of the log on word, and true", opened, "refusal_evidence",
     lambda w: w.refuse("r1", "duplicate", evidence=3)),
    ("a signature on word that holds", opened, "refusal_evidence",
     lambda w: w.refuse("r2", "bad_signature", evidence=3)),
    ("a form on word that is right", opened, "refusal_evidence", lambda w: w.refuse("r2", "malformed", evidence=3)),
    ("a reason on word that there is not", opened, "refusal_evidence",
     lambda w: w.refuse("r2", "made_up", evidence=3)),
    ("a payload on word that the header never let in", opened, "refusal_reason",
     lambda w: w.refuse("r2", "policy_denied", evidence=3, rule_ids=["heavy"], weight=60)),
    ("a digest on word of whom had his admission", opened, "refusal_reason",
     lambda w: w.refuse("r1", "digest_mismatch", evidence=3)),
    ("an update that was not received, as the log shows", opened, "refusal_reason",
     lambda w: w.refuse("r2", "not_received")),
    ("a quoted update that its participant did not sign", opened, "bad_signature",
     lambda w: w.refuse("r1", "duplicate", keys=[STRANGER])),
    ("an update on word that its participant did not sign", opened, "bad_signature",
     lambda w: w.refuse("r2", "not_received", evidence=3, keys=[STRANGER])),
    ("a refusal for another reason", opened, "refusal_reason", lambda w: w.refuse("r1", "round_full")),
    ("a refusal that names rules which did not deny", opened, "refusal_rules",
     lambda w: w.refuse("r1", "duplicate", rule_ids=["heavy"])),
    ("a refusal that keeps back which rule denied", opened, "refusal_rules",
     lambda w: w.refuse("r2", "policy_denied", weight=60)),
    ("a refusal without a reason", opened, "refusal_reason", lambda w: w.refuse("r2", "duplicate")),
    ("a refusal for the payload that the header would earn", opened, "refusal_reason",
     lambda w: w.refuse("r1", "payload_length", evidence=2)),
    ("a refusal in the log's stream that belongs to a segment", opened, "stream",
     lambda w: w.refuse("r1", "duplicate", stream="log")),
    ("a relay that is refused as a stranger", relayed, "refusal_reason",
     lambda w: w.refuse("r2", "wrong_peer", peer=R4)),
    ("a relay that is refused for what was admitted", relayed, "refusal_reason",
     lambda w: w.refuse("r1", "replayed", update=UPDATES["r1"], peer=R4)),
    ("a stranger who is refused as if he were a relay", opened, "refusal_reason",
     lambda w: w.refuse("r1", "duplicate", peer=R4)),
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
    # What a round begins with
    ("a round on a server state without a server step", ready, "server_state",
     lambda w: w.open_round(body={"state": ZEROS}, void=True)),
    ("a round that forgets the server state", stepping, "server_state",
     lambda w: w.open_round(body={"state": b""}, void=True)),
    ("a round on another server state", stepping, "server_state",
     lambda w: w.open_round(body={"state": ZEROS}, void=True)),
    ("a round with a mask where terms have none", ready, "mask",
     lambda w: w.open_round(body={"mask": ZEROS}, void=True)),
    ("a round without its mask", agreeing_and_free, "mask", lambda w: w.open_round(body={"mask": b""}, void=True)),
    ("a round with the mask of the terms once it has changed", changing, "mask",
     lambda w: w.open_round(body={"mask": bytes.fromhex(json.loads(w.terms_raw)["mask"]["digest"])}, void=True)),
    ("a round with a mask of more coordinates than its terms say", of_fewer, "mask",
     lambda w: w.open_round(body={"mask": w.steps[-1].next_mask}, void=True)),
    # round_closed
    ("a close of another round", full, "round_not_open", lambda w: w.close(body={"round": 2}, void=True)),
    ("a close too early", opened, "close_early", lambda w: w.close(void=True)),
    ("a full round that is said to be late", full, "close_cause", lambda w: w.close(body={"cause": 2}, void=True)),
    ("a late round that is said to be full", opened, "close_cause",
     lambda w: late(w, lambda w: w.close(body={"cause": 1}, void=True))),
    ("a close on an order that nobody gave", full, "close_cause", lambda w: w.close(body={"cause": 3}, void=True)),
    ("a close for no cause that there is", full, "malformed",
     lambda w: w.close(body={"cause": 4}, void=True, entry_stream=None)),
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
    ("a server state where there is no server step", closed, "server_state",
     lambda w: w.publish_model(body={"state": ZEROS}, void=True)),
    ("a next mask where none changes", closed, "next_mask",
     lambda w: w.publish_model(body={"next_mask": ZEROS}, void=True)),
    ("a next mask where the mask stays", closed_with_a_mask, "next_mask",
     lambda w: w.publish_model(body={"next_mask": ZEROS}, void=True)),
    ("clusters under another rule", closed, "clusters",
     lambda w: w.publish_model(body={"clusters": cluster(0, 1)}, void=True)),
    ("a cluster of fewer than a cohort", clustered, "clusters",
     lambda w: w.publish_model(body={"clusters": cluster(0)}, void=True)),
    ("a cluster of more than were counted", clustered, "clusters",
     lambda w: w.publish_model(body={"clusters": cluster(1, 3)}, void=True)),
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
