import pytest
from dilithium_py.ml_dsa import ML_DSA_44

from sfrl_secure.errors import MalformedError, SignatureError
from sfrl_secure.ids import Digest
from sfrl_secure.translog.checkpoint import Checkpoint, format_checkpoint
from sfrl_secure.translog.cosignature import (
    Cosigner,
    cosignature_message,
    ed25519_cosignature_message,
    ml_dsa_44_cosignature_message,
    sign_checkpoint,
    verify_cosignature,
    verify_line,
)
from sfrl_secure.translog.note import (
    ED25519_COSIGNATURE,
    ML_DSA_44_COSIGNATURE,
    NoteSignature,
    parse_note,
    parse_vkey,
    verifier_key,
)

CHECKPOINT = Checkpoint("log.example/a", 258, Digest(bytes(range(32))))
TEXT = format_checkpoint(CHECKPOINT)
TIME = 1_679_315_147


def test_the_ed25519_message_is_two_lines_and_the_note_text() -> None:
    assert ed25519_cosignature_message(TEXT, TIME) == b"cosignature/v1\ntime 1679315147\n" + TEXT.encode()


def test_the_ml_dsa_message_is_the_structure_of_the_specification() -> None:
    expected = (
        b"subtree/v1\n\x00" + b"\x09w.example" + bytes.fromhex("00000000641850cb")
        + b"\x0dlog.example/a" + bytes(8) + bytes.fromhex("0000000000000102") + bytes(range(32))
    )
    assert TIME == 0x641850CB
    assert ml_dsa_44_cosignature_message(CHECKPOINT, "w.example", TIME) == expected


@pytest.mark.parametrize("witness", ["w1", "w3"])
def test_a_cosignature_holds_and_gives_its_time(federation, witness: str) -> None:
    cosigner = federation.witnesses[witness]
    line = cosigner.cosign(TEXT, TIME)
    assert verify_cosignature(TEXT, line, cosigner.key) == TIME
    assert verify_line(TEXT, line, cosigner.key) == TIME
    assert len(line.value) == {"w1": 72, "w3": 2428}[witness]


@pytest.mark.parametrize("witness", ["w1", "w3"])
def test_every_part_of_a_cosignature_is_bound(federation, witness: str) -> None:
    key = federation.witnesses[witness].key
    line = federation.witnesses[witness].cosign(TEXT, TIME)
    texts = [
        format_checkpoint(Checkpoint("log.example/b", 258, CHECKPOINT.root)),
        format_checkpoint(Checkpoint("log.example/a", 259, CHECKPOINT.root)),
        format_checkpoint(Checkpoint("log.example/a", 258, Digest(bytes(32)))),
    ]
    for text in texts:
        with pytest.raises(SignatureError):
            verify_cosignature(text, line, key)
    later = (TIME + 1).to_bytes(8, "big")
    for value in (later + line.value[8:], line.value[:-1] + bytes([line.value[-1] ^ 1])):
        with pytest.raises(SignatureError):
            verify_cosignature(TEXT, NoteSignature(line.name, line.key_id, value), key)
    for value in (line.value[:-1], line.value + b"\x00", line.value[:8], line.value[:1]):
        with pytest.raises(SignatureError, match="of this type is 8 and"):
            verify_cosignature(TEXT, NoteSignature(line.name, line.key_id, value), key)


def test_the_ml_dsa_line_binds_the_cosigners_name(federation) -> None:
    cosigner = federation.witnesses["w3"]
    line = cosigner.cosign(TEXT, TIME)
    renamed = verifier_key("other.example/witness", ML_DSA_44_COSIGNATURE, cosigner.key.public_key)
    with pytest.raises(SignatureError):
        verify_cosignature(TEXT, NoteSignature(renamed.name, renamed.key_id, line.value), renamed)


def test_a_line_of_another_key_or_name_is_not_taken(federation) -> None:
    line, key = federation.witnesses["w1"].cosign(TEXT, TIME), federation.witnesses["w1"].key
    for other in (NoteSignature("other", line.key_id, line.value), NoteSignature(line.name, b"idid", line.value)):
        with pytest.raises(SignatureError):
            verify_cosignature(TEXT, other, key)


def test_a_time_of_two_to_the_63_is_refused_even_when_signed(federation) -> None:
    signed: list[bytes] = []
    cosigner = Cosigner(federation.witnesses["w1"].key, lambda message: signed.append(message) or bytes(64))
    with pytest.raises(MalformedError):
        cosigner.cosign(TEXT, 2**63)
    with pytest.raises(MalformedError):
        cosigner.cosign(TEXT, -1)
    assert not signed
    line = NoteSignature(cosigner.key.name, cosigner.key.key_id, (2**63).to_bytes(8, "big") + bytes(64))
    with pytest.raises(SignatureError, match="below 2\\*\\*63"):
        verify_cosignature(TEXT, line, cosigner.key)


def test_only_a_checkpoint_is_cosigned(federation) -> None:
    for cosigner in federation.witnesses.values():
        with pytest.raises(MalformedError):
            cosigner.cosign("some text\n", TIME)
        with pytest.raises(MalformedError):
            cosigner.cosign(TEXT + "extension\n", TIME)


def test_a_note_key_does_not_cosign(federation) -> None:
    with pytest.raises(MalformedError):
        Cosigner(federation.signer.key, lambda message: message)
    with pytest.raises(MalformedError):
        cosignature_message(TEXT, federation.signer.key, TIME)
    with pytest.raises(SignatureError):
        verify_cosignature(TEXT, federation.signer.sign(TEXT), federation.signer.key)


def test_a_key_of_an_unknown_type_never_verifies() -> None:
    key = parse_vkey("w.example+00112233+BUFB")
    with pytest.raises(SignatureError):
        verify_line(TEXT, NoteSignature(key.name, key.key_id, bytes(72)), key)


def test_a_log_signs_with_both_keys_under_its_origin(federation) -> None:
    note = parse_note(federation.signed(5))
    keys = (federation.signer.key, federation.cosigner.key)
    times = [verify_line(note.text, line, key) for line, key in zip(note.signatures, keys, strict=True)]
    assert (times[0], times[1] > 0) == (0, True)
    for cosigner in (federation.witnesses["w3"], _ed25519_of(federation)):
        with pytest.raises(MalformedError):
            sign_checkpoint(federation.checkpoint(5), federation.signer, cosigner, TIME)
    with pytest.raises(MalformedError):
        sign_checkpoint(CHECKPOINT, federation.signer, federation.cosigner, TIME)


def _ed25519_of(federation) -> Cosigner:
    return Cosigner(verifier_key(federation.origin, ED25519_COSIGNATURE, federation.signer.key.public_key), bytes)


def test_a_second_implementation_of_ml_dsa_accepts_our_line(federation) -> None:
    cosigner = federation.witnesses["w3"]
    line = cosigner.cosign(TEXT, TIME)
    message = ml_dsa_44_cosignature_message(CHECKPOINT, cosigner.key.name, TIME)
    assert ML_DSA_44.verify(cosigner.key.public_key, message, line.value[8:])
    assert not ML_DSA_44.verify(cosigner.key.public_key, message + b"\x00", line.value[8:])


def test_we_accept_a_line_of_a_second_implementation_of_ml_dsa() -> None:
    public, private = ML_DSA_44.keygen()
    cosigner = Cosigner(verifier_key("w.example", ML_DSA_44_COSIGNATURE, public), lambda m: ML_DSA_44.sign(private, m))
    assert verify_cosignature(TEXT, cosigner.cosign(TEXT, TIME), cosigner.key) == TIME
