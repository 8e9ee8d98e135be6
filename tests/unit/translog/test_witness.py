import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfrl_secure.errors import MalformedError, SignatureError
from sfrl_secure.ids import Digest
from sfrl_secure.limits import NOTE_BYTES_MAX
from sfrl_secure.translog.checkpoint import Checkpoint
from sfrl_secure.translog.cosignature import log_lines
from sfrl_secure.translog.merkle import leaf_hash
from sfrl_secure.translog.note import (
    ML_DSA_44_COSIGNATURE,
    Note,
    NoteSignature,
    add_signatures,
    format_note,
    parse_note,
)
from sfrl_secure.translog.opened import open_checkpoint
from sfrl_secure.translog.policy import TrustedLog
from sfrl_secure.translog.tree import MerkleTree
from sfrl_secure.translog.witness import (
    ADD_CHECKPOINT_BYTES_MAX,
    AddCheckpointRequest,
    WitnessAnswer,
    WitnessState,
    decide_add_checkpoint,
    format_add_checkpoint,
    open_cosignature_lines,
    parse_add_checkpoint,
    parse_cosignature_lines,
    parse_recorded_size,
)

from .conftest import make_cosigner, make_note_signer

TIME = 1_760_000_200
H = base64.b64encode(bytes(32)).decode()


class Witness:
    """The pure decision with the state that it asks to keep."""

    def __init__(self, federation, logs=None) -> None:
        self.federation = federation
        self.logs = {log.origin: log for log in federation.policy.logs} if logs is None else logs
        self.recorded: dict[str, WitnessState] = {}
        self.cosigned: list[str] = []

    def ask(self, raw: bytes) -> WitnessAnswer:
        answer = decide_add_checkpoint(
            raw, logs=self.logs, recorded=self.recorded, cosign=self._cosign
        )
        assert (answer.new_state is not None) == (answer.status == 200)
        if answer.new_state:
            self.recorded[self.federation.origin] = answer.new_state
        return answer

    def grow(self, old_size: int, new_size: int) -> WitnessAnswer:
        return self.ask(request(self.federation, old_size, new_size))

    def _cosign(self, text: str) -> tuple[NoteSignature, ...]:
        self.cosigned.append(text)
        return tuple(self.federation.witnesses[name].cosign(text, TIME) for name in ("w1", "w3"))


def request(federation, old_size: int, new_size: int, *, note: bytes | None = None, path=None) -> bytes:
    proof = federation.tree.consistency_proof(old_size, new_size).path if path is None else path
    return format_add_checkpoint(AddCheckpointRequest(old_size, proof, note or federation.signed(new_size)))


@pytest.fixture
def witness(federation) -> Witness:
    return Witness(federation)


def test_200_gives_cosignatures_that_open_and_a_state_to_keep(federation, witness: Witness) -> None:
    for old_size, new_size in [(0, 0), (0, 3), (3, 3), (3, 8), (8, 70)]:
        raw = federation.signed(new_size)
        answer = witness.ask(request(federation, old_size, new_size, note=raw))
        assert answer.status == 200
        keys = [federation.witnesses[name].key for name in ("w1", "w3")]
        lines = open_cosignature_lines(answer.body, parse_note(raw).text, keys)
        assert lines == parse_cosignature_lines(answer.body)
        whole = format_note(add_signatures(parse_note(raw), lines))
        assert open_checkpoint(whole, federation.policy, quorum=True).witness_times == {"w1": TIME, "w3": TIME}
        assert answer.new_state == WitnessState(federation.checkpoint(new_size), whole)


def test_the_state_holds_no_line_of_a_stranger(federation, witness: Witness) -> None:
    note = parse_note(federation.signed(3))
    stranger = NoteSignature("stranger", b"idid", b"s" * 40)
    crowded = format_note(Note(note.text, (stranger, *note.signatures, *note.signatures, stranger)))
    state = witness.ask(request(federation, 0, 3, note=crowded)).new_state
    assert state is not None
    assert parse_note(state.note).signatures[:2] == note.signatures
    assert len(parse_note(state.note).signatures) == 4


@pytest.mark.parametrize("raw", [b"", b"old 0\n", b"old 0\n\nnot a note\n", b"\xff\n\n"])
def test_400_for_what_is_no_request(witness: Witness, raw: bytes) -> None:
    assert witness.ask(raw).status == 400


def test_400_for_a_note_that_is_no_checkpoint(federation, witness: Witness) -> None:
    text = f"{federation.origin}\nhello\n"
    note = format_note(Note(text, (federation.signer.sign(text),)))
    assert witness.ask(request(federation, 0, 1, note=note)).status == 400


def test_400_for_an_old_size_above_the_new(federation, witness: Witness) -> None:
    witness.grow(0, 5)
    assert witness.ask(request(federation, 5, 3, path=())).status == 400


def test_404_for_a_log_that_is_not_configured(federation, witness: Witness) -> None:
    assert Witness(federation, logs={}).grow(0, 3).status == 404


@pytest.mark.parametrize("kept", [0, 1])
def test_403_unless_every_log_key_signed(federation, witness: Witness, kept: int) -> None:
    note = parse_note(federation.signed(3))
    stripped = format_note(Note(note.text, (note.signatures[kept],)))
    assert witness.ask(request(federation, 0, 3, note=stripped)).status == 403


@pytest.mark.parametrize("damaged", [0, 1])
def test_403_for_a_signature_that_does_not_hold(federation, witness: Witness, damaged: int) -> None:
    note = parse_note(federation.signed(3))
    good = note.signatures[damaged]
    bad = NoteSignature(good.name, good.key_id, good.value[:-1] + bytes([good.value[-1] ^ 1]))
    for lines in ((bad, note.signatures[1 - damaged]), (*note.signatures, bad)):
        assert witness.ask(request(federation, 0, 3, note=format_note(Note(note.text, lines)))).status == 403
    assert not witness.cosigned


def test_409_tells_the_recorded_size(federation, witness: Witness) -> None:
    answer = witness.grow(3, 8)
    assert (answer.status, answer.content_type, answer.body) == (409, "text/x.tlog.size", b"0\n")
    witness.grow(0, 5)
    for old_size in (0, 4, 6):
        answer = witness.grow(old_size, 8)
        assert (answer.status, answer.content_type, parse_recorded_size(answer.body)) == (409, "text/x.tlog.size", 5)
        assert answer.equivocation is None


def test_422_for_a_proof_that_does_not_hold(federation, witness: Witness) -> None:
    witness.grow(0, 5)
    good = federation.tree.consistency_proof(5, 8).path
    for path in ((), good[:-1], (*good, good[0]), (Digest(bytes(32)), *good[1:])):
        assert witness.ask(request(federation, 5, 8, path=path)).status == 422
    assert witness.grow(5, 8).status == 200


def test_422_for_a_proof_from_size_zero_that_is_not_empty(federation, witness: Witness) -> None:
    assert witness.ask(request(federation, 0, 3, path=(Digest(bytes(32)),))).status == 422


def test_422_for_an_empty_log_with_another_root(federation, witness: Witness) -> None:
    lie = federation.sign(Checkpoint(federation.origin, 0, Digest(bytes(32))))
    assert witness.ask(request(federation, 0, 0, note=lie)).status == 422


def test_422_and_both_notes_for_two_roots_of_one_size(federation, witness: Witness) -> None:
    first = witness.grow(0, 5).new_state
    assert first is not None
    forked = MerkleTree(leaf_hash(b"fork %d" % i) for i in range(5))
    lie = federation.sign(Checkpoint(federation.origin, 5, forked.root()))
    answer = witness.ask(request(federation, 5, 5, note=lie))
    assert answer.status == 422
    assert answer.equivocation is not None
    assert (answer.equivocation.older, answer.equivocation.newer) == (first.note, lie)
    # The evidence does not depend on the old size that the liar claims.
    conflict = witness.ask(request(federation, 0, 5, note=lie, path=()))
    assert (conflict.status, conflict.body) == (409, b"5\n")
    assert conflict.equivocation is not None


def test_a_fork_is_never_cosigned(federation, witness: Witness) -> None:
    witness.grow(0, 5)
    forked = MerkleTree(leaf_hash(b"fork %d" % i) for i in range(9))
    lie = federation.sign(Checkpoint(federation.origin, 9, forked.root()))
    assert witness.ask(request(federation, 5, 9, note=lie, path=forked.consistency_proof(5, 9).path)).status == 422
    assert witness.recorded[federation.origin].checkpoint == federation.checkpoint(5)
    assert len(witness.cosigned) == 1


def test_a_refusal_says_nothing_of_the_peers_bytes(witness: Witness) -> None:
    assert b"secret" not in witness.ask(b"secret\n\nsecret\n").body


def test_a_request_is_the_lines_of_the_specification(federation) -> None:
    note = federation.signed(3)
    asked = AddCheckpointRequest(20852014, (Digest(bytes(32)),), note)
    raw = format_add_checkpoint(asked)
    assert raw == f"old 20852014\n{H}\n\n".encode() + note
    assert parse_add_checkpoint(raw) == asked
    assert parse_add_checkpoint(b"old 0\n\n" + note) == AddCheckpointRequest(0, (), note)


@pytest.mark.parametrize(
    "head",
    [
        "",
        "0",
        "old",
        "old ",
        "old  0",
        "old 00",
        "old -1",
        "old 9223372036854775808",
        "new 0",
        "old 0\r",
        " old 0",
        "old 0\nold 0",
        "old 0\nQQ==",
        f"old 0\n {H}",
        f"{H}\nold 0",
        "old 0" + f"\n{H}" * 64,
    ],
)
def test_a_request_of_another_form_is_malformed(head: str) -> None:
    with pytest.raises(MalformedError):
        parse_add_checkpoint(head.encode() + b"\n\nnote\n")


def test_a_request_needs_its_empty_line() -> None:
    for raw in (b"old 0", b"old 0\n", b"old 0\no\n1\n"):
        with pytest.raises(MalformedError):
            parse_add_checkpoint(raw)


def test_the_largest_request_is_taken_and_a_larger_one_is_not() -> None:
    largest = AddCheckpointRequest(2**63 - 1, (Digest(bytes(32)),) * 63, bytes(NOTE_BYTES_MAX))
    raw = format_add_checkpoint(largest)
    assert parse_add_checkpoint(raw) == largest
    with pytest.raises(MalformedError, match=str(ADD_CHECKPOINT_BYTES_MAX)):
        parse_add_checkpoint(raw + bytes(100))


@pytest.mark.parametrize(
    ("old_size", "path", "note"),
    [
        (-1, (), b""),
        (2**63, (), b""),
        (0, (Digest(bytes(32)),) * 64, b""),
        (0, (Digest(bytes(31)),), b""),
        (0, (), bytes(NOTE_BYTES_MAX + 1)),
    ],
)
def test_a_request_checks_itself(old_size: int, path: tuple[Digest, ...], note: bytes) -> None:
    with pytest.raises(MalformedError):
        AddCheckpointRequest(old_size, path, note)


@pytest.mark.parametrize("body", [b"", b"\n", b"5", b"05\n", b"5\n\n", b"-5\n", b"5" * 40 + b"\n", b"\xff\n", b"5x"])
def test_a_recorded_size_is_one_decimal_and_a_newline(body: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_recorded_size(body)


def test_an_answer_counts_only_with_a_timed_line_of_a_known_key(federation) -> None:
    text = parse_note(federation.signed(3)).text
    w1, w2 = federation.witnesses["w1"], federation.witnesses["w2"]
    good, untimed, of_another = w1.cosign(text, TIME), w1.cosign(text, 0), w2.cosign(text, TIME)
    bad = NoteSignature(good.name, good.key_id, good.value[:-1] + bytes([good.value[-1] ^ 1]))
    assert open_cosignature_lines((of_another.line + good.line).encode(), text, [w1.key]) == (good,)
    for lines in ([of_another], [untimed], [bad], [good, bad]):
        with pytest.raises(SignatureError):
            open_cosignature_lines("".join(line.line for line in lines).encode(), text, [w1.key])
    other_text = parse_note(federation.signed(4)).text
    with pytest.raises(SignatureError):
        open_cosignature_lines(good.line.encode(), other_text, [w1.key])


@pytest.mark.parametrize("body", [b"", b"\n", b"text\n", b"\xff", b"x" * (NOTE_BYTES_MAX + 1)])
def test_an_answer_of_another_form_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_cosignature_lines(body)


@given(st.binary(max_size=200))
@settings(deadline=None, max_examples=200)
def test_any_bytes_are_answered_with_a_status(federation, junk: bytes) -> None:
    witness = Witness(federation)
    for raw in (junk, b"old 0\n\n" + junk, b"old 0\n" + junk + b"\n\n" + b"o\n1\n" + H.encode() + b"\n\n"):
        assert witness.ask(raw).status in (400, 404)


def rotated(federation):
    """The federation's log after it got a second generation of keys, and a signer of that."""
    signer, cosigner = make_note_signer(federation.origin), make_cosigner(federation.origin, ML_DSA_44_COSIGNATURE)
    keys = (*federation.policy.logs[0].keys, signer.key, cosigner.key)
    return {federation.origin: TrustedLog(federation.origin, keys)}, (signer, cosigner)


def test_after_a_log_got_new_keys_its_old_ones_alone_get_403(federation) -> None:
    logs, _ = rotated(federation)
    assert Witness(federation, logs).grow(0, 3).status == 403


@pytest.mark.parametrize("with_old", [False, True])
def test_a_log_with_new_keys_is_cosigned_with_the_old_ones_beside_them_or_without(federation, with_old: bool) -> None:
    logs, pair = rotated(federation)
    witness = Witness(federation, logs)
    lines = log_lines(federation.checkpoint(3), *pair, TIME)
    note = parse_note(federation.signed(3))
    both = format_note(Note(note.text, (*note.signatures, *lines) if with_old else lines))
    answer = witness.ask(request(federation, 0, 3, note=both))
    assert answer.status == 200
    # What is given out serves those who have the older trust policy too.
    assert answer.new_state is not None
    kept = parse_note(answer.new_state.note).signatures
    assert kept[: len(kept) - 2] == parse_note(both).signatures


def test_a_line_of_a_retired_key_that_does_not_hold_gets_403(federation) -> None:
    logs, pair = rotated(federation)
    bad = parse_note(federation.signed(4)).signatures
    note = Note(parse_note(federation.signed(3)).text, (*log_lines(federation.checkpoint(3), *pair, TIME), bad[0]))
    assert Witness(federation, logs).ask(request(federation, 0, 3, note=format_note(note))).status == 403
