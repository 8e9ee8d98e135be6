import base64
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfrl_secure.errors import InclusionError, MalformedError, SignatureError
from sfrl_secure.ids import Digest
from sfrl_secure.limits import ENTRY_BYTES_MAX, NOTE_BYTES_MAX
from sfrl_secure.translog.tlog_proof import (
    TLOG_PROOF_BYTES_MAX,
    TlogProof,
    format_tlog_proof,
    open_tlog_proof,
    parse_tlog_proof,
)

H = base64.b64encode(bytes(32)).decode()


def proof_of(federation, index: int, size: int, witnesses=("w1", "w2")) -> TlogProof:
    note = federation.cosigned(federation.signed(size), witnesses)
    return TlogProof(federation.entries[index], index, federation.tree.inclusion_proof(index, size).path, note)


@pytest.mark.parametrize(("index", "size"), [(0, 1), (0, 70), (41, 42), (69, 70)])
def test_a_receipt_opens(federation, index: int, size: int) -> None:
    raw = format_tlog_proof(proof_of(federation, index, size))
    opened = open_tlog_proof(raw, federation.policy)
    assert (opened.entry, opened.leaf_index) == (federation.entries[index], index)
    assert opened.path == parse_tlog_proof(raw).path
    assert opened.checkpoint.checkpoint == federation.checkpoint(size)
    assert opened.checkpoint.quorum_met


def test_a_proof_is_the_lines_of_the_specification(federation) -> None:
    proof = TlogProof(b"extra", 73, (Digest(bytes(32)),) * 2, federation.signed(3))
    raw = format_tlog_proof(proof)
    assert raw == f"c2sp.org/tlog-proof@v1\nextra ZXh0cmE=\nindex 73\n{H}\n{H}\n\n".encode() + proof.note
    assert parse_tlog_proof(raw) == proof
    bare = TlogProof(None, 0, (), proof.note)
    assert format_tlog_proof(bare) == b"c2sp.org/tlog-proof@v1\nindex 0\n\n" + proof.note
    assert parse_tlog_proof(format_tlog_proof(bare)) == bare
    assert parse_tlog_proof(format_tlog_proof(replace(bare, extra=b""))) == replace(bare, extra=b"")


def test_the_quorum_is_demanded_unless_waived(federation) -> None:
    raw = format_tlog_proof(proof_of(federation, 3, 9, witnesses=("w1",)))
    with pytest.raises(SignatureError):
        open_tlog_proof(raw, federation.policy)
    assert not open_tlog_proof(raw, federation.policy, quorum=False).checkpoint.quorum_met


def test_the_extra_line_counts_only_as_the_proven_leaf(federation) -> None:
    proof = proof_of(federation, 3, 9)
    for bad in (
        replace(proof, extra=federation.entries[4]),
        replace(proof, extra=b""),
        replace(proof, leaf_index=4),
        replace(proof, path=proof.path[:-1]),
        replace(proof, path=(*proof.path, proof.path[0])),
        replace(proof, note=proof_of(federation, 3, 10).note),
    ):
        with pytest.raises(InclusionError):
            open_tlog_proof(format_tlog_proof(bad), federation.policy)


def test_a_receipt_without_its_entry_or_outside_the_tree_is_refused(federation) -> None:
    proof = proof_of(federation, 3, 9)
    for bad in (replace(proof, extra=None), replace(proof, leaf_index=9)):
        with pytest.raises(MalformedError):
            open_tlog_proof(format_tlog_proof(bad), federation.policy)


@pytest.mark.parametrize(
    "head",
    [
        "",
        "c2sp.org/tlog-proof@v2\nindex 0",
        "c2sp.org/tlog-proof@v1",
        " c2sp.org/tlog-proof@v1\nindex 0",
        "c2sp.org/tlog-proof@v1\nextra QQ==",
        "c2sp.org/tlog-proof@v1\nindex 0\nextra QQ==",
        "c2sp.org/tlog-proof@v1\nextra QQ==\nextra QQ==\nindex 0",
        "c2sp.org/tlog-proof@v1\nextra QQ\nindex 0",
        "c2sp.org/tlog-proof@v1\nextra QR==\nindex 0",
        "c2sp.org/tlog-proof@v1\nextra  QQ==\nindex 0",
        "c2sp.org/tlog-proof@v1\nindex",
        "c2sp.org/tlog-proof@v1\n5",
        "c2sp.org/tlog-proof@v1\nindex 00",
        "c2sp.org/tlog-proof@v1\nindex -1",
        "c2sp.org/tlog-proof@v1\nindex 9223372036854775808",
        "c2sp.org/tlog-proof@v1\nindex 0\nindex 0",
        "c2sp.org/tlog-proof@v1\nindex 0\nQQ==",
        "c2sp.org/tlog-proof@v1\r\nindex 0",
        "c2sp.org/tlog-proof@v1\nindex 0" + f"\n{H}" * 64,
        f"c2sp.org/tlog-proof@v1\nextra {base64.b64encode(bytes(ENTRY_BYTES_MAX + 1)).decode()}\nindex 0",
    ],
)
def test_what_is_no_proof_is_refused(head: str) -> None:
    with pytest.raises(MalformedError):
        parse_tlog_proof(head.encode() + b"\n\nnote\n")


def test_a_proof_needs_its_empty_line_and_utf8() -> None:
    magic = b"c2sp.org/tlog-proof@v1\n"
    for raw in (magic + b"index 0", magic + b"index 0\nnote\n", magic + b"index \xff\n\nnote\n"):
        with pytest.raises(MalformedError):
            parse_tlog_proof(raw)


def test_the_largest_proof_is_taken_and_a_larger_one_is_not() -> None:
    largest = TlogProof(bytes(ENTRY_BYTES_MAX), 2**63 - 1, (Digest(bytes(32)),) * 63, bytes(NOTE_BYTES_MAX))
    raw = format_tlog_proof(largest)
    assert parse_tlog_proof(raw) == largest
    assert len(raw) <= TLOG_PROOF_BYTES_MAX
    with pytest.raises(MalformedError, match=str(TLOG_PROOF_BYTES_MAX)):
        parse_tlog_proof(raw + bytes(1000))
    with pytest.raises(MalformedError):
        parse_tlog_proof(raw + b"x")


@pytest.mark.parametrize(
    ("extra", "index", "path", "note"),
    [
        (bytes(ENTRY_BYTES_MAX + 1), 0, (), b""),
        (None, -1, (), b""),
        (None, 2**63, (), b""),
        (None, 0, (Digest(bytes(32)),) * 64, b""),
        (None, 0, (Digest(bytes(31)),), b""),
        (None, 0, (), bytes(NOTE_BYTES_MAX + 1)),
    ],
)
def test_a_proof_checks_itself(extra: bytes | None, index: int, path: tuple[Digest, ...], note: bytes) -> None:
    with pytest.raises(MalformedError):
        TlogProof(extra, index, path, note)


@given(st.binary(max_size=200))
@settings(deadline=None, max_examples=200)
def test_any_bytes_are_a_proof_that_comes_back_or_malformed(junk: bytes) -> None:
    for raw in (junk, b"c2sp.org/tlog-proof@v1\n" + junk, b"c2sp.org/tlog-proof@v1\nindex 1\n" + junk + b"\n\n"):
        try:
            proof = parse_tlog_proof(raw)
        except MalformedError:
            continue
        assert format_tlog_proof(proof) == raw
