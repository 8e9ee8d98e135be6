"""What a participant trains on: each proof of an answer, damaged once, is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from simulator import SEGMENT, Simulator, service_id

from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.errors import MalformedError, SfrlError, SignatureError, VerificationError
from sfrl_secure.governance.services import ServicesDocument
from sfrl_secure.governance.statements import RoundOpened
from sfrl_secure.governance.terms import SegmentTerms
from sfrl_secure.ids import ZERO_DIGEST, sha256
from sfrl_secure.participant.rounds import FRESH_SECONDS, FinishedSegment, OpenRound, open_round
from sfrl_secure.translog.entries import LoggedEntry
from sfrl_secure.translog.note import format_note, parse_note
from sfrl_secure.wire.gatekeeper_service import RoundAnswer

STREAM = f"segment/{SEGMENT}"
A1, G1 = service_id("aggregator", "a1"), service_id("gatekeeper", "g1")


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Simulator, RoundAnswer]]:
    """A federation in its second round, and a gatekeeper's true answer; tests only add entries that have no effect."""
    sim = Simulator(tmp_path_factory.mktemp("rounds"))
    sim.publish_terms(segment="sand")
    aggregator = sim.aggregator()
    aggregator.step()
    for name in ("rover-1", "rover-2", "rover-3"):
        sim.admit(name)
    for _ in range(3):
        aggregator.step()
    yield sim, sim.gatekeeper().proofs.open_round(SEGMENT, 0, 0.0)
    sim.close()


def opened_by(sim: Simulator, answer: RoundAnswer, segment: str = SEGMENT) -> OpenRound | FinishedSegment:
    return open_round(answer, segment, sim.policy, sim.clock.now_us())


def again(sim: Simulator, answer: RoundAnswer, **forced: int) -> RoundAnswer:
    """The answer over the log as it is now, with other entries in some places."""
    size = len(sim.log.raw)

    def moved(field: str) -> LoggedEntry | None:
        logged = shown_at(answer, field)
        return None if logged is None else sim.log.logged_entry(forced.get(field, logged.index), size)

    for field in PLACES:
        answer = put_at(answer, field, moved(field))
    return replace(answer, checkpoint=sim.log.witnessed.note)


PLACES = ("genesis", "services", "terms", "round_opened", "base_model")


def shown_at(answer: RoundAnswer, place: str) -> LoggedEntry | None:
    """The entry in a place of the answer; of the services documents, the newest."""
    return answer.services[-1] if place == "services" else getattr(answer, place)


def put_at(answer: RoundAnswer, place: str, logged: LoggedEntry | None) -> RoundAnswer:
    """The answer with another entry in a place."""
    if place == "services":
        assert logged is not None
        return replace(answer, services=(*answer.services[:-1], logged))
    return replace(answer, **{place: logged})


def test_a_true_answer_opens_the_round(shown: tuple[Simulator, RoundAnswer]) -> None:
    sim, answer = shown
    opened = opened_by(sim, answer)
    assert isinstance(opened, OpenRound)
    current = sim.segment.open_round
    assert current is not None
    assert (opened.number, opened.opened, opened.base_model) == (2, current.opened, current.base_model)
    assert opened.base_model != sim.segment.terms.model.initial
    assert opened.deadline_us == current.deadline_us
    assert opened.terms == sim.segment.terms


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "damage",
    [
        lambda logged: replace(logged, path=logged.path[:-1]),
        lambda logged: replace(logged, path=(sha256(logged.path[0]), *logged.path[1:])),
        lambda logged: replace(logged, path=(*logged.path, ZERO_DIGEST)),
        lambda logged: replace(logged, index=logged.index + 1),
        lambda logged: replace(logged, index=2**40),
        lambda logged: replace(logged, raw=logged.raw[:-1] + bytes([logged.raw[-1] ^ 1])),
    ],
    ids=["short", "other", "long", "shifted", "outside", "entry"],
)
def test_every_damaged_proof_is_refused(
    shown: tuple[Simulator, RoundAnswer], place: str, damage: Callable[[LoggedEntry], LoggedEntry]
) -> None:
    sim, answer = shown
    with pytest.raises((VerificationError, MalformedError)):
        opened_by(sim, put_at(answer, place, damage(shown_at(answer, place))))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("other", PLACES)
def test_no_entry_stands_for_another(shown: tuple[Simulator, RoundAnswer], place: str, other: str) -> None:
    sim, answer = shown
    swapped = put_at(answer, place, shown_at(answer, other))
    if place == other:
        assert opened_by(sim, swapped)
    else:
        with pytest.raises(VerificationError):
            opened_by(sim, swapped)


def test_one_witness_of_the_two_is_not_enough(shown: tuple[Simulator, RoundAnswer]) -> None:
    sim, answer = shown
    size = len(sim.log.raw)
    for cosigners in ([], sim.log.witnesses[:1], [sim.log.witnesses[2], sim.log.witnesses[2]]):
        with pytest.raises(SignatureError, match="quorum"):
            opened_by(sim, replace(again(sim, answer), checkpoint=sim.log.note(size, cosigners)))
    assert opened_by(sim, replace(again(sim, answer), checkpoint=sim.log.note(size, sim.log.witnesses[1:])))


def test_both_keys_of_the_log_are_demanded(shown: tuple[Simulator, RoundAnswer]) -> None:
    sim, answer = shown
    note = parse_note(answer.checkpoint)
    lines = [line for line in note.signatures if line.name == sim.origin]
    assert len(lines) == 2
    for line in lines:
        stripped = format_note(replace(note, signatures=tuple(each for each in note.signatures if each is not line)))
        with pytest.raises(SignatureError, match="key of the log"):
            opened_by(sim, replace(answer, checkpoint=stripped))


@pytest.mark.parametrize("age", [FRESH_SECONDS + 1, -FRESH_SECONDS - 1])
def test_a_quorum_that_is_stale_or_from_the_future_is_refused(
    shown: tuple[Simulator, RoundAnswer], age: int
) -> None:
    sim, answer = shown
    note = sim.log.note(len(sim.log.raw), sim.log.witnesses, age_seconds=age)
    with pytest.raises(VerificationError, match="older than 600"):
        opened_by(sim, replace(again(sim, answer), checkpoint=note))
    just = sim.log.note(len(sim.log.raw), sim.log.witnesses, age_seconds=age - (1 if age > 0 else -1))
    assert opened_by(sim, replace(again(sim, answer), checkpoint=just))


def test_one_fresh_witness_does_not_make_a_stale_quorum_fresh(shown: tuple[Simulator, RoundAnswer]) -> None:
    sim, answer = shown
    size = len(sim.log.raw)
    stale = parse_note(sim.log.note(size, sim.log.witnesses[:1], age_seconds=FRESH_SECONDS + 1))
    fresh = parse_note(sim.log.note(size, sim.log.witnesses[1:2]))
    mixed = format_note(replace(fresh, signatures=(*fresh.signatures, stale.signatures[-1])))
    with pytest.raises(VerificationError, match="older than 600"):
        opened_by(sim, replace(again(sim, answer), checkpoint=mixed))


def test_terms_of_another_segment_are_refused(shown: tuple[Simulator, RoundAnswer]) -> None:
    sim, answer = shown
    with pytest.raises(VerificationError, match="another segment"):
        opened_by(sim, again(sim, answer, terms=sim.state.segments["sand"].terms_index))
    with pytest.raises(VerificationError, match="another segment"):
        opened_by(sim, answer, "sand")


def test_other_terms_than_the_round_was_opened_under_are_refused(shown: tuple[Simulator, RoundAnswer]) -> None:
    sim, answer = shown
    forced = sim.log.force(sim.sign_document(SegmentTerms.payload_type, sim.terms_raw(sensitivity=1, version=9)))
    with pytest.raises(VerificationError, match="other terms"):
        opened_by(sim, again(sim, answer, terms=forced))


def test_another_base_than_the_published_model_is_refused(shown: tuple[Simulator, RoundAnswer]) -> None:
    sim, answer = shown
    with pytest.raises(VerificationError, match="not the model that was published"):
        opened_by(sim, replace(answer, base_model=None))
    body = RoundOpened(2, sha256(b"a model for one rover"), sim.segment.terms.digest)
    forced = sim.log.force(sim.sign(sim.statement(A1, STREAM, body)))
    with pytest.raises(VerificationError, match="not the model that was published"):
        opened_by(sim, again(sim, answer, round_opened=forced))


@pytest.mark.parametrize("place", ["round_opened", "base_model"])
def test_only_an_aggregator_opens_rounds_and_publishes_models(
    shown: tuple[Simulator, RoundAnswer], place: str
) -> None:
    sim, answer = shown
    index = getattr(answer, place).index
    body = sim.log.statement_at(index).body
    by_gatekeeper = sim.log.force(sim.sign(sim.statement(G1, STREAM, body)))
    with pytest.raises(VerificationError, match="role and key"):
        opened_by(sim, again(sim, answer, **{place: by_gatekeeper}))
    in_its_name = sim.log.force(sim.sign(sim.statement(A1, STREAM, body), sim.keys[G1]))
    with pytest.raises(SignatureError):
        opened_by(sim, again(sim, answer, **{place: in_its_name}))
    with_its_name = sim.statement(A1, STREAM, body, key_id=sim.keys[G1].public_key.key_id)
    with pytest.raises(VerificationError, match="role and key"):
        opened_by(sim, again(sim, answer, **{place: sim.log.force(sim.sign(with_its_name, sim.keys[G1]))}))


@pytest.mark.parametrize("place", ["round_opened", "base_model"])
def test_a_statement_of_another_stream_or_federation_is_refused(
    shown: tuple[Simulator, RoundAnswer], place: str
) -> None:
    sim, answer = shown
    body = sim.log.statement_at(getattr(answer, place).index).body
    elsewhere = sim.log.force(sim.sign(sim.statement(A1, "segment/sand", body)))
    with pytest.raises(VerificationError, match="kind and stream"):
        opened_by(sim, again(sim, answer, **{place: elsewhere}))
    foreign = sim.log.force(sim.sign(sim.statement(A1, STREAM, body, federation_id=sha256(b"another"))))
    with pytest.raises(VerificationError, match="another federation"):
        opened_by(sim, again(sim, answer, **{place: foreign}))


def test_documents_need_the_threshold_and_the_federation(shown: tuple[Simulator, RoundAnswer]) -> None:
    sim, answer = shown
    index = answer.services[-1].index
    raw = sim.log.envelope_at(index).statement
    alone = sim.log.force(sim.sign_document(ServicesDocument.payload_type, raw, ["ann"]))
    with pytest.raises(VerificationError, match="2 operators"):
        opened_by(sim, again(sim, answer, services=alone))
    foreign = sim.terms_raw(federation_id=sha256(b"another"), version=9)
    forced = sim.log.force(sim.sign_document(SegmentTerms.payload_type, foreign))
    with pytest.raises(VerificationError, match="another federation"):
        opened_by(sim, again(sim, answer, terms=forced))


def test_another_federations_answer_is_refused(shown: tuple[Simulator, RoundAnswer], tmp_path: Path) -> None:
    sim, answer = shown
    other = Simulator(tmp_path)
    with pytest.raises(SignatureError, match="no log of this origin"):
        open_round(answer, SEGMENT, other.policy, sim.clock.now_us())


def test_a_log_without_two_keys_in_the_policy_is_no_federations(shown: tuple[Simulator, RoundAnswer]) -> None:
    sim, answer = shown
    (log,) = sim.policy.logs
    policy = replace(sim.policy, logs=(replace(log, keys=log.keys[:1]),))
    with pytest.raises(VerificationError, match="two keys"):
        open_round(answer, SEGMENT, policy, sim.clock.now_us())


def test_a_round_stays_open_when_the_operators_renew_their_services(sim: Simulator) -> None:
    aggregator = sim.aggregator()
    aggregator.step()
    sim.publish_services()
    answer = sim.gatekeeper().proofs.open_round(SEGMENT, 0, 0.0)
    assert isinstance(opened_by(sim, answer), OpenRound)
    # The document before the renewal names the aggregator, the one in force does not any more.
    sim.publish_services(services={G1: sim.keys[G1]})
    with pytest.raises(VerificationError, match="role and key"):
        opened_by(sim, sim.gatekeeper().proofs.open_round(SEGMENT, 0, 0.0))


def test_a_base_model_is_judged_by_the_services_of_its_own_time(shown: tuple[Simulator, RoundAnswer]) -> None:
    """A new aggregator's key takes over: the base is still the old one's, the round must be the new one's."""
    sim, _ = shown
    sim.publish_services(services={**sim.keys, A1: SigningKey.generate("ed25519")})
    with pytest.raises(VerificationError, match="role and key"):
        opened_by(sim, sim.gatekeeper().proofs.open_round(SEGMENT, 0, 0.0))
    answer = sim.gatekeeper().proofs.open_round(SEGMENT, 0, 0.0)
    assert len(answer.services) == 2
    finished = opened_by(sim, replace(answer, round_opened=None, finished=True))
    assert finished.model == sim.segment.model
    with pytest.raises(VerificationError, match="role and key"):
        opened_by(sim, replace(answer, round_opened=None, finished=True, services=answer.services[1:]))


def test_a_services_document_that_had_expired_gives_no_role(sim: Simulator) -> None:
    sim.publish_services(expires_us=sim.clock.now_us() + 1_000)
    sim.clock.advance(1_000)
    body = RoundOpened(1, sim.segment.model, sim.segment.terms.digest)
    forced = sim.log.force(sim.sign(sim.statement(A1, STREAM, body)))
    assert sim.log.voids == {forced: "writer"}
    size = len(sim.log.raw)
    answer = RoundAnswer(
        checkpoint=sim.log.witnessed.note,
        genesis=sim.log.logged_entry(0, size),
        services=(sim.log.logged_entry(sim.state.index_of_document(("services", "")), size),),
        terms=sim.log.logged_entry(sim.segment.terms_index, size),
        round_opened=sim.log.logged_entry(forced, size),
        base_model=None,
        finished=False,
    )
    with pytest.raises(VerificationError, match="expired"):
        opened_by(sim, answer)


def test_a_finished_segment_gives_its_newest_model(shown: tuple[Simulator, RoundAnswer]) -> None:
    sim, answer = shown
    finished = opened_by(sim, replace(answer, finished=True, round_opened=None))
    assert isinstance(finished, FinishedSegment)
    assert finished.model == sim.segment.model
    with pytest.raises(SfrlError):
        opened_by(sim, replace(answer, finished=True, checkpoint=sim.log.note(len(sim.log.raw))))
