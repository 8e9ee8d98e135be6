"""Fraud proofs: a true one convinces, and nothing else does."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from simulator import Simulator

from sfrl_secure.audit.fraud import (
    FRAUD_BYTES_MAX,
    CountedUpdate,
    FraudProof,
    LeftOut,
    ProvenEntry,
    TwoEntries,
    TwoHistories,
    encode_fraud_proof,
    parse_fraud_proof,
)
from sfrl_secure.audit.fraud_check import verify_fraud
from sfrl_secure.errors import MalformedError, SignatureError, VerificationError
from sfrl_secure.governance.statements import DroppedUpdate
from sfrl_secure.ids import ZERO_DIGEST, sha256
from sfrl_secure.limits import COHORT_MAX
from sfrl_secure.translog.entries import LoggedEntry

from .histories import G1, STREAM, History, Round, Stories


class Case:
    """A true proof of each kind."""

    def __init__(self, begun: Simulator, full: Simulator) -> None:
        self.stories = Stories(begun)
        self.stories.pad(self.stories.second, 30)
        self.round = Round(full)
        self.round.close("rover-1", "rover-3")
        # An update of round 2 cannot be made before round 1 is over, so the closing bears the wrong number.
        self.closing = self.round.history.size - 1
        self.proofs: dict[str, FraudProof] = {
            "two_entries": self.two_entries(),
            "two_histories": self.two_histories(),
            "left_out": self.left_out(),
        }

    @property
    def policy(self):
        return self.stories.sim.policy

    def policy_of(self, kind: str):
        return self.round.sim.policy if kind == "left_out" else self.policy

    def proven(self, history: History, index: int, **note: int) -> ProvenEntry:
        return ProvenEntry(history.note(**note), history.logged(index))

    def two_entries(self) -> TwoEntries:
        index = self.stories.index
        return TwoEntries(
            self.proven(self.stories.first, index, witnesses=0), self.proven(self.stories.second, index, witnesses=0)
        )

    def two_histories(self) -> TwoHistories:
        first, second = self.stories.first, self.stories.second
        tree = second.tree
        path = tree.consistency_proof(first.size, second.size).path
        return TwoHistories(first.note(witnesses=0), second.note(), tree.root(first.size), path)

    def left_out(self) -> LeftOut:
        history = self.round.history
        return LeftOut(
            history.note(witnesses=0),
            history.logged(self.round.indices["rover-2"]),
            history.logged(self.closing),
            self.counted("rover-1", "rover-3"),
        )

    def counted(self, *names: str) -> tuple[CountedUpdate, ...]:
        bodies = [self.round.admitted(name) for name in names]
        return tuple(CountedUpdate(b.update.participant, b.envelope.digest, b.update.weight) for b in bodies)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    begun, full = (Simulator(tmp_path_factory.mktemp(name)) for name in ("begun", "full"))
    full.open_round()
    for name in ("rover-1", "rover-2", "rover-3"):
        full.admit(name)
    yield Case(begun, full)
    begun.close()
    full.close()


KINDS = ("two_entries", "two_histories", "left_out")


@pytest.mark.parametrize("kind", KINDS)
def test_a_true_proof_convinces_and_survives_its_file(case: Case, kind: str) -> None:
    raw = encode_fraud_proof(case.proofs[kind])
    assert json.loads(raw)["kind"] == kind
    proof = parse_fraud_proof(raw)
    assert proof == case.proofs[kind]
    assert verify_fraud(proof, case.policy_of(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_another_federations_trust_policy_accuses_nobody(case: Case, kind: str) -> None:
    other = case.policy if kind == "left_out" else case.round.sim.policy
    with pytest.raises(SignatureError, match="no log of this origin"):
        verify_fraud(case.proofs[kind], other)


# Two entries


def refused(proof: FraudProof, case: Case, match: str) -> None:
    with pytest.raises(VerificationError, match=match):
        verify_fraud(proof, case.policy_of("left_out" if isinstance(proof, LeftOut) else ""))


def test_an_entry_contradicts_neither_itself_nor_its_neighbour(case: Case) -> None:
    first, second, index = case.stories.first, case.stories.second, case.stories.index
    own = case.proven(first, index)
    refused(TwoEntries(own, own), case, "the same")
    refused(TwoEntries(own, case.proven(first, index - 1)), case, "two places")
    # Of another stream with the same position, and of the same stream with another.
    refused(TwoEntries(own, case.proven(first, 0)), case, "two places")
    refused(TwoEntries(own, case.proven(second, index + 1)), case, "two places")


def test_an_entry_whose_path_does_not_lead_to_its_note_accuses_nobody(case: Case) -> None:
    proof = case.two_entries()
    for which in ("first", "second"):
        whole: ProvenEntry = getattr(proof, which)
        for damaged in (
            replace(whole.logged, path=whole.logged.path[1:]),
            replace(whole.logged, path=(*whole.logged.path, ZERO_DIGEST)),
            replace(whole.logged, index=whole.logged.index ^ 1),
            replace(whole.logged, index=2**62),
            replace(whole.logged, raw=whole.logged.raw + b"\0"),
        ):
            with pytest.raises(VerificationError):
                verify_fraud(replace(proof, **{which: replace(whole, logged=damaged)}), case.policy)


def test_a_note_that_the_log_did_not_sign_accuses_nobody(case: Case) -> None:
    proof = case.two_entries()
    note = proof.second.checkpoint
    text, lines = note.decode().split("\n\n")
    one_line = (text + "\n\n" + lines.split("\n")[0] + "\n").encode()
    refused(replace(proof, second=replace(proof.second, checkpoint=one_line)), case, "no line")
    forged = note.replace(b"\n%d\n" % case.stories.second.size, b"\n99\n", 1)
    refused(replace(proof, second=replace(proof.second, checkpoint=forged)), case, "signature")


def test_entries_of_two_logs_contradict_nothing(case: Case) -> None:
    policy = replace(case.policy, logs=case.policy.logs + case.round.sim.policy.logs)
    other = case.proven(case.round.history, case.stories.index, witnesses=0)
    with pytest.raises(VerificationError, match="two logs"):
        verify_fraud(replace(case.two_entries(), second=other), policy)


# Two histories


def test_a_log_that_went_on_honestly_has_one_history(case: Case) -> None:
    second = case.stories.second
    size = case.stories.index + 4
    path = second.tree.consistency_proof(size, second.size).path
    proof = TwoHistories(second.note(size), second.note(), second.tree.root(size), path)
    refused(proof, case, "goes on")
    same = TwoHistories(second.note(), second.note(), second.tree.root(), ())
    refused(same, case, "goes on")


def test_a_past_that_the_newer_note_does_not_prove_accuses_nobody(case: Case) -> None:
    proof = case.two_histories()
    for damaged in (
        replace(proof, past_root=sha256(b"any")),
        replace(proof, path=proof.path[1:]),
        replace(proof, path=(*proof.path, ZERO_DIGEST)),
        replace(proof, older=proof.newer, newer=proof.older),
        replace(proof, newer=proof.older, path=()),
    ):
        with pytest.raises(VerificationError):
            verify_fraud(damaged, case.policy)


def test_histories_of_two_logs_contradict_nothing(case: Case) -> None:
    policy = replace(case.policy, logs=case.policy.logs + case.round.sim.policy.logs)
    with pytest.raises(VerificationError, match="two logs"):
        verify_fraud(replace(case.two_histories(), older=case.round.history.note()), policy)


# Left out


def closing_with(case: Case, *counted: str, **changes: Any) -> LeftOut:
    """The proof over a closing of the test's own."""
    other = Round(case.round.sim)
    other.close(*counted, **changes)
    history = other.history
    return LeftOut(
        history.note(witnesses=0),
        history.logged(other.indices["rover-2"]),
        history.logged(history.size - 1),
        case.counted(*counted),
    )


def test_an_update_that_is_counted_or_dropped_is_not_left_out(case: Case) -> None:
    refused(closing_with(case, "rover-1", "rover-2", "rover-3"), case, "counts the update")
    drop = DroppedUpdate("rover-2", case.round.admitted("rover-2").envelope.digest, "defective")
    refused(closing_with(case, "rover-1", "rover-3", dropped=(drop,)), case, "dropped")


def test_the_counted_updates_are_exactly_those_of_the_closing(case: Case) -> None:
    proof = case.left_out()
    one, other = proof.counted
    for counted in (
        (one,),
        (other, one),
        (one, one),
        (one, other, other),
        (one, replace(other, weight=other.weight + 1)),
        (one, replace(other, statement_digest=sha256(b"another"))),
        (one, replace(other, participant="rover-4")),
        (),
    ):
        with pytest.raises(VerificationError):
            verify_fraud(replace(proof, counted=counted), case.round.sim.policy)
    refused(closing_with(case, "rover-1", "rover-3", counted_count=3), case, "not those of the closing")


def test_the_closing_is_that_of_the_updates_round_and_comes_after_it(case: Case) -> None:
    refused(closing_with(case, "rover-1", "rover-3", round=2), case, "another round")
    proof = case.left_out()
    swapped = replace(proof, admitted=proof.round_closed, round_closed=proof.admitted)
    refused(swapped, case, "kind")
    early = Round(case.round.sim)
    early.close("rover-1", "rover-3")
    index = early.history.add(early.sim.sign(early.sim.statement(G1, STREAM, case.round.admitted("rover-2"))))
    history = early.history
    late = LeftOut(history.note(), history.logged(index), history.logged(index - 1), proof.counted)
    refused(late, case, "before the closing")


def test_the_two_entries_are_an_admission_and_a_closing_of_one_segment(case: Case) -> None:
    history = case.round.history
    proof = case.left_out()
    for index in (0, case.round.indices["rover-1"] - 1):
        refused(replace(proof, admitted=history.logged(index)), case, "kind")
        refused(replace(proof, round_closed=history.logged(index)), case, "kind")
    # An admission that stands in another segment's stream was never one of the round.
    sim = case.round.sim
    other = Round(sim)
    statement = sim.statement(G1, "segment/sand", case.round.admitted("rover-2"))
    other.history.streams["segment/sand"] = (0, ZERO_DIGEST)
    index = other.history.add(sim.sign(statement))
    other.close("rover-1", "rover-3")
    closing = other.history.size - 1
    wrong = LeftOut(
        other.history.note(), other.history.logged(index), other.history.logged(closing), proof.counted
    )
    refused(wrong, case, "stream")


@pytest.mark.parametrize("which", ["admitted", "round_closed"])
def test_an_entry_outside_the_log_leaves_nobody_out(case: Case, which: str) -> None:
    proof = case.left_out()
    logged: LoggedEntry = getattr(proof, which)
    longer = replace(logged, path=(*logged.path, ZERO_DIGEST))
    with pytest.raises(VerificationError):
        verify_fraud(replace(proof, **{which: longer}), case.round.sim.policy)


# The file


def test_every_changed_byte_is_refused_or_says_the_same(case: Case) -> None:
    for kind in KINDS:
        raw = encode_fraud_proof(case.proofs[kind])
        for at in range(0, len(raw), 97):
            damaged = raw[:at] + bytes([raw[at] ^ 0x01]) + raw[at + 1 :]
            try:
                proof = parse_fraud_proof(damaged)
            except MalformedError:
                continue
            if proof != case.proofs[kind]:
                with pytest.raises((MalformedError, VerificationError)):
                    verify_fraud(proof, case.policy_of(kind))


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no type": lambda fields: fields.pop("type"),
    "another type": lambda fields: fields.update(type="fraud-proof/v2"),
    "no kind": lambda fields: fields.pop("kind"),
    "unknown kind": lambda fields: fields.update(kind="rumour"),
    "one key more": lambda fields: fields.update(comment=""),
    "one key less": lambda fields: fields.pop("counted"),
    "note is no text": lambda fields: fields.update(checkpoint=1),
    "note is long": lambda fields: fields.update(checkpoint="a" * (128 * 1024 + 1)),
    "entry is no object": lambda fields: fields.update(admitted=[]),
    "entry has one key more": lambda fields: fields["admitted"].update(size=1),
    "index is true": lambda fields: fields["admitted"].update(index=True),
    "index is negative": lambda fields: fields["admitted"].update(index=-1),
    "index is text": lambda fields: fields["admitted"].update(index="1"),
    "entry is not base64": lambda fields: fields["admitted"].update(entry="*"),
    "entry is long": lambda fields: fields["admitted"].update(entry="AAAA" * 21846),
    "path is no list": lambda fields: fields["admitted"].update(path="a"),
    "path is long": lambda fields: fields["admitted"].update(path=fields["admitted"]["path"][:1] * 64),
    "path has no hash": lambda fields: fields["admitted"].update(path=["AAAA"]),
    "too many counted": lambda fields: fields.update(counted=fields["counted"][:1] * (COHORT_MAX + 1)),
    "counted has no object": lambda fields: fields.update(counted=[1]),
    "name is none": lambda fields: fields["counted"][0].update(participant="A B"),
    "digest is none": lambda fields: fields["counted"][0].update(statement_digest="00"),
    "weight is large": lambda fields: fields["counted"][0].update(weight=2**32),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_is_no_fraud_proof_is_malformed(case: Case, change: Callable[[dict[str, Any]], Any]) -> None:
    fields = json.loads(encode_fraud_proof(case.proofs["left_out"]))
    change(fields)
    with pytest.raises(MalformedError):
        parse_fraud_proof(json.dumps(fields).encode())


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b"\xff", b"{" * 100, b" " * (FRAUD_BYTES_MAX + 1)])
def test_what_is_no_json_object_is_malformed(raw: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_fraud_proof(raw)


def test_a_proof_has_room_for_the_longest_parts(case: Case) -> None:
    name = "r" * 64
    counted = tuple(CountedUpdate(name, ZERO_DIGEST, 2**32 - 1) for _ in range(COHORT_MAX))
    logged = LoggedEntry(2**62, bytes(65_535), (ZERO_DIGEST,) * 63)
    note = b"a" * (128 * 1024)
    for proof in (LeftOut(note, logged, logged, counted), TwoEntries(*[ProvenEntry(note, logged)] * 2)):
        assert parse_fraud_proof(encode_fraud_proof(proof)) == proof


