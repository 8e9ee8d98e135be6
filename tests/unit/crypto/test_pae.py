from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope as OracleEnvelope

from sfrl_secure.crypto.pae import pae, statement_digest

TEXTS = st.text(st.characters(codec="utf-8"), max_size=40)


def test_the_vector_of_the_specification_holds(load_vector: Callable[[str], Any]) -> None:
    vector = load_vector("dsse/protocol-vector.json")
    assert pae(vector["payloadType"], vector["payload_utf8"].encode()) == vector["pae_utf8"].encode()


def test_lengths_count_bytes_and_empty_parts_keep_their_spaces() -> None:
    assert pae("", b"") == b"DSSEv1 0  0 "
    assert pae("ü", b"\xff") == b"DSSEv1 2 \xc3\xbc 1 \xff"


@settings(deadline=None, max_examples=100)
@given(TEXTS, st.binary(max_size=60))
def test_the_encoding_is_that_of_securesystemslib(payload_type: str, body: bytes) -> None:
    assert pae(payload_type, body) == OracleEnvelope(body, payload_type, {}).pae()


@settings(deadline=None, max_examples=200)
@given(TEXTS, st.binary(max_size=30), st.integers(0, 60))
def test_bytes_that_move_between_type_and_body_change_the_encoding(text: str, body: bytes, cut: int) -> None:
    joined = text + body.decode("latin-1")
    left, right = joined[:cut], joined[cut:].encode()
    if (left, right) != (text, body):
        assert pae(left, right) != pae(text, body)


def test_a_statement_digest_is_the_hash_of_the_encoding() -> None:
    digest = statement_digest("application/vnd.sfrl.x", b"hello")
    assert digest == hashlib.sha256(b"DSSEv1 22 application/vnd.sfrl.x 5 hello").digest()
