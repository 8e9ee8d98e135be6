"""Roots in what a light client is shown: a chain without a gap, and each document under the newest root before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from simulated_federation import SEGMENT
from simulator import Simulator

from sfrl_secure.crypto.envelope import sign_envelope
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.errors import MalformedError, VerificationError
from sfrl_secure.governance.build import build_services
from sfrl_secure.governance.documents import RootDocument, ServicesDocument, Signatory
from sfrl_secure.governance.root import parse_root
from sfrl_secure.ids import sha256
from sfrl_secure.participant.known_roots import FILE_NAME, KnownRoots
from sfrl_secure.participant.receipts import open_receipt
from sfrl_secure.participant.rounds import FRESH_SECONDS, OpenRound, open_round
from sfrl_secure.translog.entries import LoggedEntry
from sfrl_secure.wire.gatekeeper_service import RoundAnswer
from sfrl_secure.wire.receipts import ReceiptKind, encode_receipt


class Rotated:
    """A federation whose root was replaced twice during a round: nobody is left of the first three operators."""

    def __init__(self, folder: Path) -> None:
        self.sim = sim = Simulator(folder)
        self.first = dict(sim.operators)
        sim.open_round()
        self.before = sim.gatekeeper().proofs.open_round(SEGMENT, 0, 0.0)
        sim.admit("rover-1")
        (self.early,) = sim.state.admitted_updates
        self.second = {"ann": self.first["ann"], **{name: SigningKey.generate("ed25519") for name in ("zoe", "yan")}}
        self.second_index = sim.rotate_root(self.second)
        self.services_index = sim.publish_services()
        self.third = {name: SigningKey.generate("ed25519") for name in ("uma", "tom", "zoe")}
        self.third["zoe"] = self.second["zoe"]
        self.third_index = sim.rotate_root(self.third)
        self.record_index = sim.record("rover-2")
        sim.admit("rover-2")
        self.late = next(digest for digest in sim.state.admitted_updates if digest != self.early)
        self.answer = sim.gatekeeper().proofs.open_round(SEGMENT, 0, 0.0)

    def receipt(self, digest) -> bytes:
        return encode_receipt(self.sim.gatekeeper().proofs.receipt(SEGMENT, digest, ReceiptKind.WITNESSED))

    def open(self, answer: RoundAnswer, known: KnownRoots | None = None) -> OpenRound:
        opened = open_round(answer, SEGMENT, self.sim.policy, self.sim.clock.now_us(), known)
        assert isinstance(opened, OpenRound)
        return opened

    def again(self, answer: RoundAnswer) -> RoundAnswer:
        """The answer over the log as it is now."""
        size = len(self.sim.log.raw)

        def at(logged: LoggedEntry) -> LoggedEntry:
            return self.sim.log.logged_entry(logged.index, size)

        assert answer.round_opened is not None
        return replace(
            answer,
            checkpoint=self.sim.log.witnessed.note,
            genesis=at(answer.genesis),
            services=tuple(map(at, answer.services)),
            terms=at(answer.terms),
            round_opened=at(answer.round_opened),
            roots=tuple(map(at, answer.roots)),
        )

    def force(self, raw: bytes, payload_type: str, *keys: SigningKey) -> LoggedEntry:
        """A log that lies takes a document that has no effect."""
        index = self.sim.log.force(sign_envelope(payload_type, raw, keys))
        assert index in self.sim.log.voids
        return self.sim.log.logged_entry(index, len(self.sim.log.raw))


@pytest.fixture(scope="module")
def rotated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rotated]:
    made = Rotated(tmp_path_factory.mktemp("roots"))
    yield made
    made.sim.close()


def test_a_round_shows_every_root_since_genesis(rotated: Rotated) -> None:
    assert [logged.index for logged in rotated.answer.roots] == [rotated.second_index, rotated.third_index]
    assert rotated.before.roots == ()
    assert rotated.open(rotated.answer).number == 1


def test_receipts_from_before_and_after_a_rotation_prove_themselves(rotated: Rotated) -> None:
    for digest in (rotated.early, rotated.late):
        proven = open_receipt(rotated.receipt(digest), rotated.sim.policy)
        assert [root.version for root in proven.roots] == [1, 2, 3]
        assert set(proven.roots[-1].operators) == {"uma", "tom", "zoe"}


@pytest.mark.parametrize(
    "damage",
    [
        lambda roots: (),
        lambda roots: roots[:1],
        lambda roots: roots[1:],
        lambda roots: roots[::-1],
        lambda roots: (roots[0], *roots),
        lambda roots: (*roots, roots[-1]),
    ],
    ids=["none", "cut", "gap", "reversed", "twice", "last twice"],
)
def test_a_chain_that_is_not_whole_proves_no_receipt(rotated: Rotated, damage: Callable) -> None:
    receipt = rotated.sim.gatekeeper().proofs.receipt(SEGMENT, rotated.late, ReceiptKind.WITNESSED)
    damaged = replace(receipt, roots=damage(receipt.roots))
    with pytest.raises((VerificationError, MalformedError)):
        open_receipt(encode_receipt(damaged), rotated.sim.policy)


def test_a_chain_with_a_gap_opens_no_round(rotated: Rotated) -> None:
    first, second = rotated.answer.roots
    for roots in ((), (second,), (second, first)):
        with pytest.raises(VerificationError):
            rotated.open(replace(rotated.answer, roots=roots))


@pytest.mark.parametrize("who", ["old", "new", "strangers"])
def test_a_root_that_one_side_alone_signed_is_refused(tmp_path: Path, who: str) -> None:
    rotated = Rotated(tmp_path)
    sim, fresh = rotated.sim, {name: SigningKey.generate("ed25519") for name in ("kim", "leo")}
    raw = sim.root_raw(fresh)
    keys = {"old": rotated.third.values(), "new": fresh.values(), "strangers": [SigningKey.generate("ed25519")]}
    forged = rotated.force(raw, RootDocument.payload_type, *keys[who])
    answer = rotated.again(rotated.answer)
    assert rotated.open(answer)
    with pytest.raises(VerificationError, match="operators"):
        rotated.open(replace(answer, roots=(*answer.roots, forged)))
    sim.close()


def test_operators_who_left_publish_nothing_from_the_new_root_on(tmp_path: Path) -> None:
    rotated = Rotated(tmp_path)
    sim = rotated.sim
    given = {**sim.succession(("services", "")), "services": [Signatory(i, k.public_key) for i, k in sim.keys.items()]}
    raw = build_services(**given)
    two = [rotated.first["bob"], rotated.first["eve"]]
    late = rotated.force(raw, ServicesDocument.payload_type, *two)
    answer = rotated.again(rotated.answer)
    with pytest.raises(VerificationError, match="operators"):
        rotated.open(replace(answer, services=(*answer.services[:-1], late)))
    sim.close()


def test_what_the_first_operators_signed_stays_good_where_it_stands(rotated: Rotated) -> None:
    """The terms were signed by operators none of whom is left."""
    assert rotated.answer.terms.index < rotated.second_index
    assert rotated.open(rotated.answer).terms.segment == SEGMENT


def test_an_expired_root_is_passed_on_the_way_and_lets_no_document_follow(tmp_path: Path) -> None:
    sim = Simulator(tmp_path)
    sim.open_round()
    rotated_to = dict(sim.operators)
    sim.rotate_root(rotated_to, expires_us=sim.clock.now_us() + 10)
    sim.clock.advance(1_000_000)
    raw = build_services(
        **sim.succession(("services", "")), services=[Signatory(i, k.public_key) for i, k in sim.keys.items()]
    )
    forged = sim.log.force(sim.sign_document(ServicesDocument.payload_type, raw))
    assert forged in sim.log.voids
    sim.rotate_root(rotated_to)
    good = sim.gatekeeper().proofs.open_round(SEGMENT, 0, 0.0)
    now_us = sim.clock.now_us()
    assert isinstance(open_round(good, SEGMENT, sim.policy, now_us), OpenRound)
    late = sim.log.logged_entry(forged, len(sim.log.raw))
    with pytest.raises(VerificationError, match="expired"):
        open_round(replace(good, services=(late,)), SEGMENT, sim.policy, now_us)
    sim.close()


def test_an_answer_that_ends_before_a_known_root_is_refused(rotated: Rotated, tmp_path: Path) -> None:
    known = KnownRoots(tmp_path / "receipts")
    assert rotated.open(rotated.before, known)
    assert rotated.open(rotated.answer, known)
    for memory in (known, KnownRoots(tmp_path / "receipts")):
        with pytest.raises(VerificationError, match="version 3"):
            rotated.open(rotated.before, memory)
        assert rotated.open(rotated.answer, memory)
    assert (tmp_path / "receipts" / FILE_NAME).stat().st_mode & 0o777 == 0o600


def test_another_root_of_a_known_version_is_refused(rotated: Rotated, tmp_path: Path) -> None:
    known = KnownRoots(tmp_path)
    assert rotated.open(rotated.answer, known)
    first, second, third = open_receipt(rotated.receipt(rotated.late), rotated.sim.policy).roots
    known.check((first, second, third))
    raw = rotated.sim.root_raw(rotated.third, version=3, previous=second.digest, expires_us=third.expires_us + 1)
    with pytest.raises(VerificationError, match="another one"):
        known.check((first, second, parse_root(raw)))


def test_an_answer_that_is_refused_is_not_remembered(rotated: Rotated, tmp_path: Path) -> None:
    known = KnownRoots(tmp_path)
    for damaged in (
        replace(rotated.answer, terms=rotated.answer.genesis),
        replace(rotated.answer, checkpoint=stale(rotated.sim, rotated.answer)),
    ):
        with pytest.raises(VerificationError):
            rotated.open(damaged, known)
    assert not (tmp_path / FILE_NAME).exists()
    assert rotated.open(rotated.before, known)


def stale(sim: Simulator, answer: RoundAnswer) -> bytes:
    """The checkpoint of an answer, cosigned too long ago."""
    size = sim.log.witnessed.tree_size
    assert answer.checkpoint == sim.log.witnessed.note
    return sim.log.note(size, sim.log.witnesses[:2], age_seconds=FRESH_SECONDS + 1)


@pytest.mark.parametrize(
    "raw", [b"", b"3", b"0 " + b"ab" * 32 + b"\n", b"3 " + b"AB" * 32 + b"\n", b"3 " + b"ab" * 32 + b"\n\n"]
)
def test_a_file_that_says_nothing_is_not_taken_for_none(rotated: Rotated, tmp_path: Path, raw: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(raw)
    with pytest.raises(MalformedError):
        rotated.open(rotated.answer, KnownRoots(tmp_path))


def test_the_sdk_remembers_the_root_beside_its_receipts(tmp_path: Path) -> None:
    sim = Simulator(tmp_path)
    sim.open_round()
    with sim.participant("rover-1") as participant:
        participant.open_round(SEGMENT)
        sim.rotate_root()
        participant.open_round(SEGMENT)
        (kept,) = tmp_path.rglob(FILE_NAME)
        assert kept.read_bytes().startswith(b"2 ")
        kept.write_bytes(b"3 " + kept.read_bytes()[2:])
    with sim.participant("rover-1") as again, pytest.raises(VerificationError, match="version 3"):
        again.open_round(SEGMENT)
    sim.close()




def test_a_root_that_was_logged_before_the_one_that_it_follows_is_refused(tmp_path: Path) -> None:
    sim = Simulator(tmp_path)
    sim.open_round()
    second = sim.root_raw()
    after = parse_root(second)
    third = sim.root_raw(version=3, previous=after.digest)
    early = sim.log.force(sim.sign_root(third, sim.operators))
    late = sim.log.order(sim.sign_root(second, sim.operators))
    assert early in sim.log.voids
    answer = sim.gatekeeper().proofs.open_round(SEGMENT, 0, 0.0)
    assert [logged.index for logged in answer.roots] == [late]
    backwards = (*answer.roots, sim.log.logged_entry(early, len(sim.log.raw)))
    with pytest.raises(VerificationError, match="rising version"):
        open_round(replace(answer, roots=backwards), SEGMENT, sim.policy, sim.clock.now_us())
    sim.close()


def test_a_root_of_another_federation_is_refused(tmp_path: Path) -> None:
    """Its operators may be the same people: what they sign for one federation is nothing in the other."""
    sim = Simulator(tmp_path)
    sim.open_round()
    raw = sim.root_raw(federation_id=sha256(b"another federation"))
    index = sim.log.force(sim.sign_root(raw, sim.operators))
    assert sim.log.voids[index] == "wrong_federation"
    answer = sim.gatekeeper().proofs.open_round(SEGMENT, 0, 0.0)
    forged = sim.log.logged_entry(index, len(sim.log.raw))
    with pytest.raises(VerificationError, match="another federation"):
        open_round(replace(answer, roots=(forged,)), SEGMENT, sim.policy, sim.clock.now_us())
    sim.close()
