"""Publishing: who signed and who could, what the log would refuse, and what its answer proves."""

from __future__ import annotations

from dataclasses import replace

import pytest
from simulator import Simulator

from sfrl_secure.crypto.envelope import Envelope
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.errors import DeniedError, MalformedError, SignatureError, VerificationError
from sfrl_secure.governance.documents import Order, ParticipantRecord, RootDocument, SegmentTerms
from sfrl_secure.ids import sha256
from sfrl_secure.operating.publishing import Gathered, gather, publish
from sfrl_secure.operating.signing import SigningRequest, open_request, sign_request
from sfrl_secure.translog.tlog_proof import parse_tlog_proof
from sfrl_secure.wire.audit_service import AppendedEntry


def gathered(sim: Simulator, request: SigningRequest, *names: str) -> Gathered:
    assert sim.state.root is not None
    return gather(request, [sign_request(request, sim.operators[name]) for name in names], sim.state.root)


def resume(sim: Simulator) -> SigningRequest:
    sim.halt()
    return open_request(Order.payload_type, sim.order_raw("resume"))


def put(sim: Simulator, found: Gathered) -> int:
    return publish(found, sim.log, sim.policy, state=sim.state, now_us=sim.clock.now_us()).index


def test_a_document_with_its_threshold_is_published_and_in_force(sim: Simulator) -> None:
    request = resume(sim)
    found = publish(gathered(sim, request, "ann", "eve"), sim.log, sim.policy)
    assert (found.index, found.tree_size) == (len(sim.log.raw) - 1, len(sim.log.raw))
    assert not sim.segment.is_halted
    assert parse_tlog_proof(found.proof).leaf_index == found.index


def test_publishing_again_changes_nothing_and_says_the_same(sim: Simulator) -> None:
    found = gathered(sim, resume(sim), "ann", "bob")
    index, size = put(sim, found), len(sim.log.raw)
    assert put(sim, found) == index
    assert len(sim.log.raw) == size


def test_a_missing_signature_is_said_with_who_could_give_it(sim: Simulator) -> None:
    found = gathered(sim, resume(sim), "bob")
    (need,) = found.needs
    assert (need.missing, need.signed, need.could_sign) == (1, ("bob",), ("ann", "eve"))
    with pytest.raises(DeniedError, match="signed by bob; 1 more of ann, eve") as denied:
        put(sim, found)
    assert denied.value.reason == "threshold"


def test_nobody_has_signed_before_the_first_signature(sim: Simulator) -> None:
    found = gathered(sim, resume(sim))
    assert not found.is_enough
    with pytest.raises(DeniedError, match="signed by nobody"):
        put(sim, found)


def test_one_operator_who_signs_twice_is_one(sim: Simulator) -> None:
    found = gathered(sim, resume(sim), "bob", "bob")
    assert found.needs[0].signed == ("bob",)
    assert not found.is_enough


def test_a_halt_and_a_revocation_take_one_operator(sim: Simulator) -> None:
    request = open_request(Order.payload_type, sim.order_raw("halt"))
    put(sim, gathered(sim, request, "eve"))
    assert sim.segment.is_halted
    record = open_request(ParticipantRecord.payload_type, sim.record_raw("rover-1", state="revoked"))
    put(sim, gathered(sim, record, "eve"))


def test_a_strangers_signature_is_refused_before_anything_is_sent(sim: Simulator) -> None:
    request = resume(sim)
    assert sim.state.root is not None
    with pytest.raises(DeniedError, match="nobody who may sign; the operators are ann, bob, eve"):
        gather(request, [sign_request(request, SigningKey.generate("ed25519"))], sim.state.root)


def test_a_signature_over_another_document_is_refused(sim: Simulator) -> None:
    request = resume(sim)
    other = open_request(Order.payload_type, sim.order_raw("resume", reason="other"))
    assert sim.state.root is not None
    with pytest.raises(MalformedError, match="over another document"):
        gather(request, [sign_request(other, sim.operators["ann"])], sim.state.root)


def test_a_signature_that_does_not_hold_is_named(sim: Simulator) -> None:
    request = resume(sim)
    signed = sign_request(request, sim.operators["ann"])
    other = sign_request(open_request(Order.payload_type, sim.order_raw("resume", reason="x")), sim.operators["ann"])
    assert sim.state.root is not None
    with pytest.raises(SignatureError, match="ann"):
        gather(request, [replace(signed, signature=other.signature)], sim.state.root)


def test_a_version_that_was_taken_meanwhile_is_explained_before_the_log_is_asked(sim: Simulator) -> None:
    request = open_request(SegmentTerms.payload_type, sim.terms_raw(sensitivity=4))
    found = gathered(sim, request, "ann", "bob")
    sim.publish_terms(sensitivity=5)
    size = len(sim.log.raw)
    for state in (sim.state, None):
        with pytest.raises(DeniedError, match="another version was published meanwhile: build it again") as denied:
            publish(found, SilentLog() if state else sim.log, sim.policy, state=state, now_us=sim.clock.now_us())
        assert denied.value.reason == "version"
    assert len(sim.log.raw) == size


def test_a_version_that_is_taken_in_the_last_moment_is_explained_too(sim: Simulator) -> None:
    found = gathered(sim, open_request(SegmentTerms.payload_type, sim.terms_raw(sensitivity=4)), "ann", "bob")
    view = sim.view()
    view.is_held = True
    sim.publish_terms(sensitivity=5)
    with view.reading() as state, pytest.raises(DeniedError, match="another version was published meanwhile"):
        publish(found, sim.log, sim.policy, state=state, now_us=sim.clock.now_us())


def test_an_order_that_can_have_no_effect_any_more_is_not_sent(sim: Simulator) -> None:
    found = gathered(sim, resume(sim), "ann", "bob")
    sim.resume(reason="somebody else did")
    with pytest.raises(DeniedError) as denied:
        put(sim, found)
    assert denied.value.reason == "version"


def test_a_document_that_has_expired_is_not_sent(sim: Simulator) -> None:
    request = resume(sim)
    sim.clock.advance(25 * 3_600_000_000)
    with pytest.raises(DeniedError, match="later expiry"):
        put(sim, gathered(sim, request, "ann", "bob"))


def test_a_root_needs_the_operators_before_and_its_own(sim: Simulator) -> None:
    dora = SigningKey.generate("ed25519+ml-dsa-44")
    operators = {"ann": sim.operators["ann"], "dora": dora}
    request = open_request(RootDocument.payload_type, sim.root_raw(operators))
    assert sim.state.root is not None
    old = [sign_request(request, sim.operators[name]) for name in ("ann", "bob")]
    found = gather(request, old, sim.state.root)
    assert [need.missing for need in found.needs] == [0, 1]
    with pytest.raises(DeniedError, match="root v2: signed by ann; 1 more of dora"):
        put(sim, found)
    whole = gather(request, [*old, sign_request(request, dora)], sim.state.root)
    assert put(sim, whole) == len(sim.log.raw) - 1
    assert sim.state.root.version == 2


class SilentLog:
    """A log that nothing must reach."""

    def append(self, envelope: Envelope) -> AppendedEntry:
        raise AssertionError("something was sent")


class LyingLog:
    """A log that answers with something else than what was sent."""

    def __init__(self, sim: Simulator, change: str) -> None:
        self._sim, self._change = sim, change

    def append(self, envelope: Envelope) -> AppendedEntry:
        answer = self._sim.log.append(envelope)
        logged = answer.logged
        if self._change == "entry":
            return AppendedEntry(self._sim.log.logged_entry(1, self._sim.log.signed.tree_size), answer.checkpoint)
        if self._change == "path":
            return replace(answer, logged=replace(logged, path=(sha256(b"x"), *logged.path[1:])))
        if self._change == "index":
            return replace(answer, logged=replace(logged, index=logged.index + 10**6))
        return replace(answer, checkpoint=answer.checkpoint.replace(b"\n", b"x\n", 1))


@pytest.mark.parametrize("change", ["entry", "path", "index", "checkpoint"])
def test_an_answer_that_proves_nothing_is_not_believed(sim: Simulator, change: str) -> None:
    found = gathered(sim, resume(sim), "ann", "bob")
    with pytest.raises(VerificationError):
        publish(found, LyingLog(sim, change), sim.policy)
