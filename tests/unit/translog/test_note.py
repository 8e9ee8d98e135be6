import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfrl_secure.errors import MalformedError, SignatureError
from sfrl_secure.limits import NOTE_BYTES_MAX
from sfrl_secure.translog.note import (
    ED25519,
    ED25519_COSIGNATURE,
    ML_DSA_44_COSIGNATURE,
    Note,
    NoteSignature,
    NoteSigner,
    VerifierKey,
    add_signatures,
    format_note,
    key_id_of,
    parse_note,
    parse_signature_lines,
    parse_vkey,
    verifier_key,
    verify_note_signature,
)

# Its base64 behind a type byte has a '+', which is also what separates the parts of a vkey.
PUBLIC = bytes.fromhex("1398f62c6d1a457c51ba6a4b5f3dbd2f69fca93216218dc8997e416bd17d93ca")
LINE = "— k " + base64.b64encode(b"idididid").decode() + "\n"


def test_a_note_comes_back_byte_for_byte() -> None:
    raw = f"one\n\ntwo é\n\n{LINE}{LINE}".encode()
    note = parse_note(raw)
    assert note.text == "one\n\ntwo é\n"
    assert note.signatures == (NoteSignature("k", b"idid", b"idid"),) * 2
    assert format_note(note) == raw


def test_the_text_ends_at_the_last_empty_line() -> None:
    inner = f"text\n\n{LINE}"
    assert parse_note(f"{inner}\n{LINE}".encode()).text == inner


def test_a_line_separator_of_unicode_separates_nothing() -> None:
    assert parse_note(f"a\u2028b\u0085c\n\n{LINE}".encode()).text == "a\u2028b\u0085c\n"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\n",
        b"\n\n",
        b"text\n",
        b"text\n\n",
        LINE.encode(),
        b"text\n" + LINE.encode(),
        b"text\n\n" + LINE.encode()[:-1],
        b"text\n\n" + LINE.encode()[:-1] + b"x",
        b"text\n\n" + LINE.encode() + b"\n",
        b"text\n\n" + LINE.encode() + b"more\n",
        b"\xfftext\n\n" + LINE.encode(),
        b"text\xed\xa0\x80\n\n" + LINE.encode(),
        b"text\r\n\r\n" + LINE.encode(),
        b"te\x00xt\n\n" + LINE.encode(),
        b"te\txt\n\n" + LINE.encode(),
        b"te\x1fxt\n\n" + LINE.encode(),
    ],
)
def test_what_is_no_note_is_refused(raw: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_note(raw)


@pytest.mark.parametrize(
    "line",
    [
        "- k aWRpZGlkaWQ=",
        "— k",
        "— k ",
        "—  aWRpZGlkaWQ=",
        "—\u00a0k aWRpZGlkaWQ=",
        "—k aWRpZGlkaWQ=",
        " — k aWRpZGlkaWQ=",
        "— k  aWRpZGlkaWQ=",
        "— k aWRpZGlkaWQ= ",
        "— k aWRpZGlkaWQ",
        "— k aWRpZGlkaWR=",
        "— k aWRp_GlkaWQ=",
        "— k aWRpZA==",
        "— k aWRp",
        "— a+b aWRpZGlkaWQ=",
        "— a\u00a0b aWRpZGlkaWQ=",
        "— a\u2003b aWRpZGlkaWQ=",
        "— a\u0085b aWRpZGlkaWQ=",
        "— a\tb aWRpZGlkaWQ=",
        "— a\x00b aWRpZGlkaWQ=",
        "— k aWRpZGlkaWQ=\r",
    ],
)
def test_a_line_of_another_form_refuses_the_note(line: str) -> None:
    with pytest.raises(MalformedError):
        parse_note(f"text\n\n{LINE}{line}\n".encode())


def test_64_signature_lines_are_taken_and_65_are_not() -> None:
    assert len(parse_note(b"text\n\n" + LINE.encode() * 64).signatures) == 64
    with pytest.raises(MalformedError):
        parse_note(b"text\n\n" + LINE.encode() * 65)
    with pytest.raises(MalformedError):
        Note("text\n", parse_note(b"text\n\n" + LINE.encode()).signatures * 65)


def test_a_note_without_signatures_cannot_be_made() -> None:
    with pytest.raises(MalformedError):
        Note("text\n", ())


def test_a_note_above_the_limit_is_neither_read_nor_written() -> None:
    frame = len(f"\n\n{LINE}".encode())
    largest = b"x" * (NOTE_BYTES_MAX - frame) + f"\n\n{LINE}".encode()
    assert format_note(parse_note(largest)) == largest
    with pytest.raises(MalformedError):
        parse_note(b"x" + largest)
    with pytest.raises(MalformedError):
        format_note(Note("x" * NOTE_BYTES_MAX + "\n", (NoteSignature("k", b"idid", b"s"),)))


@pytest.mark.parametrize("text", ["", "no newline", "a\tb\n", "a\rb\n", "\ud800\n"])
def test_a_text_that_no_note_can_hold_is_refused(text: str) -> None:
    with pytest.raises(MalformedError):
        Note(text, (NoteSignature("k", b"idid", b"s"),))


@pytest.mark.parametrize(
    ("name", "key_id", "value"),
    [("", b"idid", b"s"), ("k", b"idi", b"s"), ("k", b"ididi", b"s"), ("k", b"idid", b""), ("\ud800", b"idid", b"s")],
)
def test_a_signature_that_no_line_can_hold_is_refused(name: str, key_id: bytes, value: bytes) -> None:
    with pytest.raises(MalformedError):
        NoteSignature(name, key_id, value)


def test_a_line_that_is_there_is_not_added_again() -> None:
    one, two = NoteSignature("k", b"idid", b"1"), NoteSignature("k", b"idid", b"2")
    note = Note("text\n", (one,))
    assert add_signatures(note, [one, two, two]).signatures == (one, two)


@pytest.mark.parametrize("lines", ["", "\n", LINE * 65, LINE[:-1], LINE + "\n" + LINE])
def test_lines_by_themselves_have_the_same_rules(lines: str) -> None:
    with pytest.raises(MalformedError):
        parse_signature_lines(lines)


@given(st.binary(max_size=200))
@settings(deadline=None, max_examples=300)
def test_any_bytes_are_a_note_that_comes_back_or_malformed(junk: bytes) -> None:
    for raw in (junk, junk + b"\n\n" + LINE.encode(), b"text\n\n" + junk, b"text\n\n\xe2\x80\x94 " + junk + b"\n"):
        try:
            note = parse_note(raw)
        except MalformedError:
            continue
        assert format_note(note) == raw


@pytest.mark.parametrize("key_type", [ED25519, ED25519_COSIGNATURE, ML_DSA_44_COSIGNATURE])
def test_a_vkey_comes_back(key_type: int) -> None:
    key = verifier_key("log.example/x", key_type, PUBLIC * (41 if key_type == ML_DSA_44_COSIGNATURE else 1))
    assert parse_vkey(key.vkey) == key
    assert "+" in key.vkey.split("+", 2)[2]


def test_a_vkey_of_an_unknown_type_can_be_named_and_never_verifies() -> None:
    key = parse_vkey("log.example+00112233+" + base64.b64encode(b"\x02" + bytes(33)).decode())
    assert key.key_type == 2
    with pytest.raises(SignatureError):
        verify_note_signature("text\n", NoteSignature(key.name, key.key_id, bytes(64)), key)


GOOD = verifier_key("log.example", ED25519, PUBLIC).vkey
HEX = GOOD.split("+", 2)[1]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "log.example",
        "log.example+" + HEX,
        "+" + HEX + "+" + GOOD.split("+", 2)[2],
        GOOD.replace(HEX, "00000000"),
        GOOD.replace(HEX, HEX.upper() if HEX.upper() != HEX else "ABCDEF01"),
        GOOD.replace(HEX, HEX + "00"),
        GOOD.replace(HEX, "+0x1234 "),
        GOOD + "\n",
        GOOD.replace("log.", "log "),
        GOOD.rstrip("=")[:-1],
        "log.example+" + HEX + "+",
        "log.example+" + HEX + "+AQ==",
        "log.example+" + HEX + "+" + base64.b64encode(b"\xff" + bytes(9000)).decode(),
        verifier_key("other.example", ED25519, PUBLIC).vkey.replace("other", "log"),
    ],
)
def test_what_is_no_vkey_is_refused(text: str) -> None:
    with pytest.raises(MalformedError):
        parse_vkey(text)


@pytest.mark.parametrize("key_type", [ED25519, ED25519_COSIGNATURE])
@pytest.mark.parametrize("public_key", [bytes(32), b"\x01" + bytes(31), b"\xff" * 32])
def test_an_ed25519_key_of_small_order_or_not_canonical_is_refused(key_type: int, public_key: bytes) -> None:
    with pytest.raises(MalformedError):
        verifier_key("k", key_type, public_key)


@pytest.mark.parametrize(("key_type", "length"), [(1, 31), (1, 33), (4, 31), (6, 1311), (6, 32)])
def test_a_key_of_another_length_is_refused(key_type: int, length: int) -> None:
    with pytest.raises(MalformedError):
        verifier_key("k", key_type, bytes(length))


def test_a_key_id_is_derived_for_our_types_only() -> None:
    with pytest.raises(MalformedError):
        verifier_key("k", 2, bytes(32))
    with pytest.raises(MalformedError):
        VerifierKey("k", b"idid", 256, bytes(32))
    for name in ("", "a b", "a+b", "\ud800"):
        with pytest.raises(MalformedError):
            VerifierKey(name, b"idid", 2, bytes(32))
        with pytest.raises(MalformedError):
            verifier_key(name, ED25519, PUBLIC)
    with pytest.raises(MalformedError):
        VerifierKey("k", b"ididi", 2, bytes(32))
    with pytest.raises(MalformedError):
        VerifierKey("k", b"idid", 2, b"")


def test_an_ml_dsa_cosigner_has_a_name_that_its_message_can_hold() -> None:
    verifier_key("é" * 127, ML_DSA_44_COSIGNATURE, bytes(1312))
    with pytest.raises(MalformedError):
        verifier_key("é" * 128, ML_DSA_44_COSIGNATURE, bytes(1312))


def test_the_key_id_binds_name_type_and_key() -> None:
    ids = {key_id_of(n, t, k) for n in ("a", "b") for t in (1, 4) for k in (bytes(32), bytes(31) + b"\x01")}
    assert len(ids) == 8


def test_a_signature_over_another_text_does_not_hold(federation) -> None:
    signer = federation.signer
    line = signer.sign("text\n")
    verify_note_signature("text\n", line, signer.key)
    with pytest.raises(SignatureError):
        verify_note_signature("text2\n", line, signer.key)


def test_a_signature_counts_for_the_key_of_its_name_and_id_only(federation) -> None:
    signer = federation.signer
    line = signer.sign("text\n")
    for other in (NoteSignature("other", line.key_id, line.value), NoteSignature(line.name, b"idid", line.value)):
        with pytest.raises(SignatureError):
            verify_note_signature("text\n", other, signer.key)
    same_key_as_cosigner = verifier_key(signer.key.name, ED25519_COSIGNATURE, signer.key.public_key)
    moved = NoteSignature(line.name, same_key_as_cosigner.key_id, line.value)
    with pytest.raises(SignatureError):
        verify_note_signature("text\n", moved, same_key_as_cosigner)


def test_a_note_signer_wants_a_note_key(federation) -> None:
    with pytest.raises(MalformedError):
        NoteSigner(federation.cosigner.key, lambda message: message)
