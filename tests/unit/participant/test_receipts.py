"""Receipts: what is shown wrongly once proves nothing any more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from simulator import NOW_US, SEGMENT, Simulator, service_id

from sfrl_secure.crypto.envelope import Envelope, sign_envelope
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.errors import MalformedError, SignatureError, VerificationError
from sfrl_secure.governance.statements import (
    UPDATE_TYPE,
    CloseOutcome,
    ModelPublished,
    RoundClosed,
    UpdateAdmitted,
    UpdateStatement,
)
from sfrl_secure.ids import ZERO_DIGEST, Digest, sha256
from sfrl_secure.participant.receipts import open_receipt
from sfrl_secure.services.gatekeeper.proofs import ProofBuilder
from sfrl_secure.translog.entries import LoggedEntry
from sfrl_secure.wire.entries import encode_envelope
from sfrl_secure.wire.receipts import CountedProof, Receipt, ReceiptKind, encode_receipt, parse_receipt
from sfrl_secure.wire.statements import encode_update

STREAM = f"segment/{SEGMENT}"
A1, G1 = service_id("aggregator", "a1"), service_id("gatekeeper", "g1")
ACKNOWLEDGED, WITNESSED, COUNTED = ReceiptKind


class Shown:
    """A federation with a counted update of three rovers, and the receipts of the second one."""

    def __init__(self, sim: Simulator) -> None:
        self.sim = sim
        aggregator = sim.aggregator()
        aggregator.step()
        self.indices = [sim.admit(name) for name in ("rover-1", "rover-2", "rover-3")]
        assert [aggregator.step(), aggregator.step()] == [["CloseRound"], ["PublishModel"]]
        self.proofs: ProofBuilder = sim.gatekeeper().proofs
        self.admitted = sim.log.statement_at(self.indices[1])
        assert isinstance(self.admitted.body, UpdateAdmitted)
        self.digest: Digest = self.admitted.body.envelope.digest
        self.counted = self.proofs.receipt(SEGMENT, self.digest, COUNTED)
        self.witnessed = self.proofs.receipt(SEGMENT, self.digest, WITNESSED)
        current = sim.segment.rounds[1]
        self.closed = sim.log.statement_at(current.closed_index)
        self.model = sim.log.statement_at(current.model_index)

    def again(self, receipt: Receipt, counted: dict[str, int] | None = None, **forced: int) -> Receipt:
        """The receipt over the log as it is now, with other entries in some places."""
        size = len(self.sim.log.raw)

        def at(index: int) -> LoggedEntry:
            return self.sim.log.logged_entry(index, size)

        proof = receipt.counted
        if proof is not None:
            places = {"round_closed": proof.round_closed.index, "model_published": proof.model_published.index}
            proof = replace(proof, **{name: at(index) for name, index in {**places, **(counted or {})}.items()})
        return replace(
            receipt,
            checkpoint=self.sim.log.witnessed.note,
            genesis=at(0),
            services=tuple(at(each.index) for each in receipt.services),
            participant=at(forced.get("participant", receipt.participant.index)),
            admitted=at(forced.get("admitted", receipt.admitted.index)),
            counted=proof,
        )

    def open(self, receipt: Receipt) -> object:
        return open_receipt(encode_receipt(receipt), self.sim.policy)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    sim = Simulator(tmp_path_factory.mktemp("receipts"))
    yield Shown(sim)
    sim.close()


def test_true_receipts_prove_what_they_say(shown: Shown) -> None:
    sim = shown.sim
    counted = open_receipt(encode_receipt(shown.counted), sim.policy)
    assert counted.kind is COUNTED
    assert (counted.model, counted.counted_count) == (sim.segment.model, 3)
    witnessed = open_receipt(encode_receipt(shown.witnessed), sim.policy)
    assert (witnessed.kind, witnessed.model, witnessed.counted_count) == (WITNESSED, None, 0)
    for proven in (counted, witnessed):
        assert (proven.origin, proven.statement_digest) == (sim.origin, shown.digest)
        assert (proven.update.participant, proven.index) == ("rover-2", shown.indices[1])
        assert proven.log_time_us == NOW_US
        assert proven.tree_size == sim.log.witnessed.tree_size or proven.tree_size <= len(sim.log.raw)
        assert proven.witnesses == ("w1", "w2")


def test_acknowledged_needs_the_log_alone_and_the_others_the_quorum(shown: Shown) -> None:
    log = shown.sim.log
    note = log.note(len(log.raw))
    plain = replace(shown.again(shown.witnessed), checkpoint=note)
    assert open_receipt(encode_receipt(replace(plain, kind=ACKNOWLEDGED)), shown.sim.policy).witnesses == ()
    for receipt in (plain, replace(shown.again(shown.counted), checkpoint=note)):
        with pytest.raises(SignatureError, match="quorum"):
            shown.open(receipt)


def test_kind_and_parts_must_fit(shown: Shown) -> None:
    with pytest.raises(MalformedError):
        shown.open(replace(shown.counted, kind=WITNESSED))
    with pytest.raises(MalformedError):
        shown.open(replace(shown.witnessed, kind=COUNTED))


DAMAGES: list[Callable[[LoggedEntry], LoggedEntry]] = [
    lambda logged: replace(logged, path=logged.path[:-1]),
    lambda logged: replace(logged, path=(*logged.path, ZERO_DIGEST)),
    lambda logged: replace(logged, path=(sha256(logged.path[0]), *logged.path[1:])),
    lambda logged: replace(logged, index=logged.index ^ 1),
    lambda logged: replace(logged, raw=logged.raw[:-1] + bytes([logged.raw[-1] ^ 1])),
]


@pytest.mark.parametrize("damage", DAMAGES, ids=["short", "long", "other", "moved", "entry"])
def test_every_damaged_inclusion_proof_is_refused(
    shown: Shown, damage: Callable[[LoggedEntry], LoggedEntry]
) -> None:
    receipt, proof = shown.counted, shown.counted.counted
    assert proof is not None
    damaged = [
        replace(receipt, participant=damage(receipt.participant)),
        replace(receipt, admitted=damage(receipt.admitted)),
        replace(receipt, services=(damage(receipt.services[0]),)),
        replace(receipt, genesis=replace(damage(receipt.genesis), index=0)),
        replace(receipt, counted=replace(proof, round_closed=damage(proof.round_closed))),
        replace(receipt, counted=replace(proof, model_published=damage(proof.model_published))),
    ]
    for each in damaged:
        if each != receipt:
            with pytest.raises((VerificationError, MalformedError)):
                shown.open(each)


def test_every_damaged_counted_path_is_refused(shown: Shown) -> None:
    receipt, proof = shown.counted, shown.counted.counted
    assert proof is not None
    damaged: list[CountedProof] = [
        replace(proof, index=0),
        replace(proof, index=2),
        replace(proof, index=3),
        replace(proof, index=2**62),
        replace(proof, path=proof.path[:-1]),
        replace(proof, path=proof.path[::-1]),
        replace(proof, path=(*proof.path, ZERO_DIGEST)),
        replace(proof, path=(sha256(proof.path[0]), *proof.path[1:])),
    ]
    for each in damaged:
        with pytest.raises(VerificationError):
            shown.open(replace(receipt, counted=each))


def test_a_receipt_of_another_participants_update_is_refused(shown: Shown) -> None:
    others = shown.sim.state.index_of_document(("participant", "rover-1"))
    with pytest.raises(VerificationError, match="another key"):
        shown.open(shown.again(shown.witnessed, participant=others))
    # Another's admission on one's own counted path: the leaf is another.
    other = shown.proofs.receipt(SEGMENT, shown.sim.log.statement_at(shown.indices[0]).body.envelope.digest, COUNTED)
    borrowed = shown.again(replace(other, counted=shown.counted.counted))
    with pytest.raises(VerificationError):
        shown.open(borrowed)


def test_a_record_that_came_after_the_admission_is_refused(shown: Shown) -> None:
    sim = shown.sim
    raw = sim.record_raw("rover-2", version=7)
    late = sim.log.force(sim.sign_document("application/vnd.sfrl.participant.v1+json", raw))
    with pytest.raises(VerificationError, match="came after"):
        shown.open(shown.again(shown.witnessed, participant=late))


def forged(shown: Shown, key: SigningKey | None = None, **changes: object) -> int:
    """Force an admission of a changed update of rover-2 into the log; give its index."""
    sim, body = shown.sim, shown.admitted.body
    assert isinstance(body, UpdateAdmitted)
    update: UpdateStatement = replace(body.update, **changes)  # type: ignore[arg-type]
    envelope = sign_envelope(UPDATE_TYPE, encode_update(update), [key or sim.rovers["rover-2"]])
    admitted = replace(body, envelope=envelope, envelope_raw=encode_envelope(envelope), update=update)
    return sim.log.force(sim.sign(sim.statement(G1, f"segment/{update.segment}", admitted)))


def test_the_participants_key_must_have_signed(shown: Shown) -> None:
    stolen = forged(shown, SigningKey.generate("ed25519"))
    with pytest.raises(SignatureError):
        shown.open(shown.again(shown.witnessed, admitted=stolen))
    renamed = forged(shown, key_id=shown.sim.rovers["rover-1"].public_key.key_id)
    with pytest.raises(VerificationError, match="another key"):
        shown.open(shown.again(shown.witnessed, admitted=renamed))


def test_an_update_of_another_federation_is_refused(shown: Shown) -> None:
    foreign = forged(shown, federation_id=sha256(b"another"))
    with pytest.raises(VerificationError, match="another federation"):
        shown.open(shown.again(shown.witnessed, admitted=foreign))


def test_only_a_gatekeeper_admits(shown: Shown) -> None:
    sim = shown.sim
    by_aggregator = sim.log.force(sim.sign(sim.statement(A1, STREAM, shown.admitted.body)))
    with pytest.raises(VerificationError, match="role and key"):
        shown.open(shown.again(shown.witnessed, admitted=by_aggregator))
    unsigned = sim.log.force(sim.sign(sim.statement(G1, STREAM, shown.admitted.body), sim.keys[A1]))
    with pytest.raises(SignatureError):
        shown.open(shown.again(shown.witnessed, admitted=unsigned))


def test_an_admission_in_another_segments_stream_is_refused(shown: Shown) -> None:
    sim = shown.sim
    elsewhere = sim.log.force(sim.sign(sim.statement(G1, "segment/sand", shown.admitted.body)))
    with pytest.raises(VerificationError, match="kind and stream"):
        shown.open(shown.again(shown.witnessed, admitted=elsewhere))


def test_an_entry_of_another_kind_is_no_admission(shown: Shown) -> None:
    closed = shown.sim.segment.rounds[1].closed_index
    with pytest.raises(MalformedError, match="update_admitted"):
        shown.open(shown.again(shown.witnessed, admitted=closed))


def test_admission_closing_and_model_come_in_this_order(shown: Shown) -> None:
    sim = shown.sim
    late = sim.log.force(sim.sign(sim.statement(G1, STREAM, shown.admitted.body)))
    with pytest.raises(VerificationError, match="order"):
        shown.open(shown.again(shown.counted, admitted=late))
    closing = sim.log.force(sim.sign(sim.statement(A1, STREAM, shown.closed.body)))
    with pytest.raises(VerificationError, match="order"):
        shown.open(shown.again(shown.counted, {"round_closed": closing}))


def later(shown: Shown, close: dict[str, object], model: dict[str, object], **closed_by: object) -> Receipt:
    """A COUNTED receipt over a closing and a model that were forced into the log after the true ones."""
    sim, body, published = shown.sim, shown.closed.body, shown.model.body
    assert isinstance(body, RoundClosed)
    assert isinstance(published, ModelPublished)
    writer = closed_by.pop("writer", A1)
    closed: Envelope = sim.sign(sim.statement(writer, STREAM, replace(body, **close)))  # type: ignore[arg-type]
    closing = sim.log.force(closed)
    naming = replace(published, **{"round_closed": sim.log.leaf(closing), **model})  # type: ignore[arg-type]
    publishing = sim.log.force(sim.sign(sim.statement(closed_by.pop("publisher", A1), STREAM, naming)))  # type: ignore[arg-type]
    return shown.again(shown.counted, {"round_closed": closing, "model_published": publishing})


def test_closing_and_model_are_of_the_updates_round(shown: Shown) -> None:
    assert shown.open(later(shown, {}, {}))  # only their place is new
    for close in ({"round": 2}, {"outcome": CloseOutcome.ABORTED}):
        with pytest.raises(VerificationError, match="round was aborted"):
            shown.open(later(shown, close, {}))
    for model in ({"round": 2}, {"round_closed": sha256(b"another closing")}):
        with pytest.raises(VerificationError, match="does not name this closing"):
            shown.open(later(shown, {}, model))


def test_a_model_that_supersedes_is_none_that_the_closing_was_counted_in(shown: Shown) -> None:
    with pytest.raises(VerificationError, match="another one's place"):
        shown.open(later(shown, {}, {"supersedes": shown.sim.log.leaf(shown.sim.segment.rounds[1].first_model_index)}))


def test_what_a_re_aggregation_left_out_keeps_its_receipt_of_the_first_model(sim: Simulator) -> None:
    """And so does what it did not: both show the model that counted them, by the services in force there."""
    sim.play_round("rover-1", "rover-2", "rover-3")
    current = sim.segment.rounds[1]
    first, first_index = sim.segment.model, current.model_index
    left_out = current.admissions["rover-1"].statement_digest
    before = sim.gatekeeper().proofs.receipt(SEGMENT, left_out, COUNTED)
    sim.exclude("rover-1", 1)
    sim.reaggregate(1)
    sim.keys[A1] = SigningKey.generate("ed25519")
    sim.publish_services()
    superseding = sim.publish_model()
    assert sim.segment.model != first
    proofs, size = sim.gatekeeper().proofs, len(sim.log.raw)
    for name in ("rover-1", "rover-2"):
        receipt = proofs.receipt(SEGMENT, current.admissions[name].statement_digest, COUNTED)
        assert receipt.counted is not None
        assert receipt.counted.model_published.index == first_index
        assert len(receipt.services) == 1
        proven = open_receipt(encode_receipt(receipt), sim.policy)
        assert (proven.model, proven.counted_count) == (first, 3)
    # The path that it has fits the superseding model's closing as well.
    assert before.counted is not None
    taken = replace(
        before,
        checkpoint=sim.log.witnessed.note,
        genesis=sim.log.logged_entry(0, size),
        services=tuple(
            sim.log.logged_entry(index, size)
            for index in sorted({before.services[0].index, sim.state.index_of_document(("services", ""))})
        ),
        participant=sim.log.logged_entry(before.participant.index, size),
        admitted=sim.log.logged_entry(before.admitted.index, size),
        counted=replace(
            before.counted,
            round_closed=sim.log.logged_entry(before.counted.round_closed.index, size),
            model_published=sim.log.logged_entry(superseding, size),
        ),
    )
    with pytest.raises(VerificationError, match="another one's place"):
        open_receipt(encode_receipt(taken), sim.policy)


def test_a_closing_that_counts_others_is_refused(shown: Shown) -> None:
    for close in ({"counted_root": sha256(b"others")}, {"counted_count": 0}, {"counted_count": 2}):
        with pytest.raises(VerificationError):
            shown.open(later(shown, close, {}))


def test_only_an_aggregator_closes_and_publishes(shown: Shown) -> None:
    for writers in ({"writer": G1}, {"publisher": G1}):
        with pytest.raises(VerificationError, match="role and key"):
            shown.open(later(shown, {}, {}, **writers))


def test_a_weight_that_no_leaf_can_hold_is_refused(shown: Shown) -> None:
    heavy = forged(shown, weight=2**32)
    proof = later(shown, {}, {}).counted
    assert proof is not None
    assert heavy < proof.round_closed.index
    receipt = replace(shown.counted, counted=proof)
    with pytest.raises(VerificationError, match="weight"):
        shown.open(shown.again(receipt, admitted=heavy))


def test_no_changed_byte_leaves_a_receipt_valid(shown: Shown) -> None:
    raw = encode_receipt(shown.counted)
    assert parse_receipt(raw) == shown.counted
    for at in range(0, len(raw), 41):
        damaged = raw[:at] + bytes([raw[at] ^ 0x10]) + raw[at + 1 :]
        with pytest.raises((MalformedError, VerificationError)):
            open_receipt(damaged, shown.sim.policy)
    for length in (0, 1, len(raw) // 2, len(raw) - 1):
        with pytest.raises(MalformedError):
            open_receipt(raw[:length], shown.sim.policy)


def test_a_counted_receipt_spans_renewals_of_the_services(sim: Simulator) -> None:
    """Each statement is judged by the services document before it, so a receipt carries all of them."""
    aggregator = sim.aggregator()
    aggregator.step()
    for name in ("rover-1", "rover-2", "rover-3"):
        sim.admit(name)
    sim.keys[G1] = SigningKey.generate("ed25519")
    sim.publish_services()
    assert aggregator.step() == ["CloseRound"]
    sim.keys[A1] = SigningKey.generate("ed25519")
    sim.publish_services()
    assert sim.aggregator().step() == ["PublishModel"]
    sim.publish_services()
    digest = sim.segment.rounds[1].admissions["rover-2"].statement_digest
    receipt = sim.gatekeeper().proofs.receipt(SEGMENT, digest, COUNTED)
    assert len(receipt.services) == 3
    assert open_receipt(encode_receipt(receipt), sim.policy).model == sim.segment.model
    for missing in (0, 2):  # the middle one names the same aggregator as the first
        fewer = replace(receipt, services=receipt.services[:missing] + receipt.services[missing + 1 :])
        with pytest.raises(VerificationError, match="role and key"):
            open_receipt(encode_receipt(fewer), sim.policy)
