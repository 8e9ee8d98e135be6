from dataclasses import replace

import pytest

from sfrl_secure.errors import MalformedError, SignatureError, VerificationError
from sfrl_secure.ids import Digest
from sfrl_secure.translog.checkpoint import Checkpoint
from sfrl_secure.translog.note import Note, NoteSignature, format_note, parse_note
from sfrl_secure.translog.opened import open_checkpoint, verify_lines
from sfrl_secure.translog.policy import TrustPolicy

TIME = 1_760_000_100


def without(raw: bytes, name: str, position: int = 0) -> bytes:
    """The note less the line number `position` of those under `name`."""
    note = parse_note(raw)
    unwanted = [line for line in note.signatures if line.name == name][position]
    return format_note(Note(note.text, tuple(line for line in note.signatures if line is not unwanted)))


def with_line(raw: bytes, *lines: NoteSignature) -> bytes:
    note = parse_note(raw)
    return format_note(Note(note.text, (*note.signatures, *lines)))


def test_a_checkpoint_under_every_log_key_opens(federation) -> None:
    raw = federation.signed(7)
    opened = open_checkpoint(raw, federation.policy, quorum=False)
    assert (opened.checkpoint, opened.note) == (federation.checkpoint(7), raw)
    assert (dict(opened.witness_times), opened.quorum_met) == ({}, False)


def test_witnesses_are_named_with_their_times(federation) -> None:
    raw = federation.cosigned(federation.cosigned(federation.signed(7), ["w1"], TIME), ["w3"], TIME + 5)
    opened = open_checkpoint(raw, federation.policy, quorum=True)
    assert dict(opened.witness_times) == {"w1": TIME, "w3": TIME + 5}
    assert opened.quorum_met
    assert opened.note == raw


def test_the_quorum_is_demanded_only_when_asked(federation) -> None:
    raw = federation.cosigned(federation.signed(7), ["w2"])
    assert not open_checkpoint(raw, federation.policy, quorum=False).quorum_met
    with pytest.raises(SignatureError, match="quorum"):
        open_checkpoint(raw, federation.policy, quorum=True)


@pytest.mark.parametrize("position", [0, 1])
def test_one_log_key_is_not_enough(federation, position: int) -> None:
    raw = federation.cosigned(federation.signed(7), ["w1", "w2", "w3"])
    with pytest.raises(SignatureError, match="key of the log"):
        open_checkpoint(without(raw, federation.origin, position), federation.policy, quorum=True)


@pytest.mark.parametrize("key", ["signer", "cosigner", "w1", "w3"])
def test_a_known_key_whose_line_does_not_hold_rejects_the_note(federation, key: str) -> None:
    raw = federation.cosigned(federation.signed(7), ["w1", "w2", "w3"])
    name_of = {"signer": federation.signer, "cosigner": federation.cosigner, **federation.witnesses}
    known = name_of[key].key
    good = next(line for line in parse_note(raw).signatures if line.key_id == known.key_id)
    bad = NoteSignature(known.name, known.key_id, good.value[:-1] + bytes([good.value[-1] ^ 1]))
    open_checkpoint(raw, federation.policy, quorum=True)
    with pytest.raises(SignatureError):
        open_checkpoint(with_line(raw, bad), federation.policy, quorum=False)


def test_lines_of_strangers_are_ignored(federation) -> None:
    raw = federation.signed(7)
    same_name = NoteSignature(federation.origin, b"idid", bytes(64))
    same_id = NoteSignature("stranger", federation.signer.key.key_id, bytes(64))
    assert open_checkpoint(with_line(raw, same_name, same_id), federation.policy, quorum=False)


def test_an_unknown_log_is_refused(federation) -> None:
    policy = replace(federation.policy, logs=())
    with pytest.raises(SignatureError, match="no log of this origin"):
        open_checkpoint(federation.signed(7), policy, quorum=False)


def test_a_cosignature_of_another_checkpoint_is_refused(federation) -> None:
    other = parse_note(federation.cosigned(federation.signed(8), ["w1"])).signatures[-1]
    with pytest.raises(SignatureError):
        open_checkpoint(with_line(federation.signed(7), other), federation.policy, quorum=False)


def test_a_witness_that_signs_twice_counts_once_with_its_latest_time(federation) -> None:
    raw = federation.cosigned(federation.signed(7), ["w1"], TIME + 9)
    raw = federation.cosigned(raw, ["w1"], TIME)
    opened = open_checkpoint(raw, federation.policy, quorum=False)
    assert (dict(opened.witness_times), opened.quorum_met) == ({"w1": TIME + 9}, False)


def test_a_cosignature_without_time_is_no_witness(federation) -> None:
    raw = federation.cosigned(federation.signed(7), ["w1", "w3"], 0)
    opened = open_checkpoint(raw, federation.policy, quorum=False)
    assert (dict(opened.witness_times), opened.quorum_met) == ({}, False)


def test_quorum_none_is_met_without_witnesses(federation) -> None:
    policy = TrustPolicy(federation.policy.logs, (), (), "none")
    assert open_checkpoint(federation.signed(7), policy, quorum=True).quorum_met


def test_the_empty_log_has_one_root(federation) -> None:
    assert open_checkpoint(federation.signed(0), federation.policy, quorum=False).checkpoint.size == 0
    lie = federation.sign(Checkpoint(federation.origin, 0, Digest(bytes(32))))
    with pytest.raises(VerificationError, match="empty tree"):
        open_checkpoint(lie, federation.policy, quorum=False)


def test_a_note_that_is_no_checkpoint_does_not_open(federation) -> None:
    text = f"{federation.origin}\nhello\n"
    with pytest.raises(MalformedError):
        open_checkpoint(format_note(Note(text, (federation.signer.sign(text),))), federation.policy, quorum=False)


def test_the_times_of_an_opened_checkpoint_cannot_be_changed(federation) -> None:
    opened = open_checkpoint(federation.signed(7), federation.policy, quorum=False)
    with pytest.raises(TypeError):
        opened.witness_times["w1"] = TIME


def test_without_a_known_key_nothing_is_verified(federation) -> None:
    assert verify_lines(parse_note(federation.signed(7)), []) == {}
