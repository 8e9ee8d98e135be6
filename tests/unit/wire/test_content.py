from __future__ import annotations

from types import SimpleNamespace

import pytest

from sfrl_secure.crypto.envelope import Envelope, Signature
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.build import build_root
from sfrl_secure.governance.root import RootDocument, Thresholds
from sfrl_secure.governance.statements import RoundOpened, Statement
from sfrl_secure.ids import Digest
from sfrl_secure.wire.content import parse_content, stream_of

SIGNATURES = (Signature(Digest(bytes(32)), "ed25519", bytes(64)),)


def _envelope(payload_type: str, raw: bytes) -> Envelope:
    return Envelope(f"application/vnd.sfrl.{payload_type}", raw, SIGNATURES)


def _root() -> bytes:
    return build_root(
        expires_us=2_000_000_000_000_000,
        trust_domain="farm.example",
        log_host="log.example",
        operators={"ada": SigningKey.generate("ed25519").public_key},
        thresholds=Thresholds(1, 1, 1, 1),
    )


def test_a_statement_is_read_by_its_type_and_names_its_stream(by_hand: SimpleNamespace) -> None:
    envelope = _envelope("statement.v1", by_hand.statement("round_opened").encode())
    content = parse_content(envelope)
    assert isinstance(content, Statement)
    assert isinstance(content.body, RoundOpened)
    assert stream_of(envelope) == "segment/north-field"


def test_a_document_is_read_by_its_type_and_belongs_to_governance() -> None:
    envelope = _envelope("root.v1+json", _root())
    assert isinstance(parse_content(envelope), RootDocument)
    assert stream_of(envelope) == "governance"


def test_what_is_neither_is_refused_and_names_no_stream(by_hand: SimpleNamespace) -> None:
    for envelope in (
        _envelope("update.v1", by_hand.update().encode()),
        _envelope("decision.v2", by_hand.decision().encode()),
        _envelope("verdict.v1", by_hand.statement("round_opened").encode()),
        _envelope("root.v1+json", by_hand.statement("round_opened").encode()),
        _envelope("statement.v1", _root()),
    ):
        with pytest.raises(MalformedError):
            parse_content(envelope)
        assert stream_of(envelope) is None


@pytest.mark.parametrize("name", ["update", "withdrawal", "decision", "identity-request", "object-request"])
def test_what_participants_sign_is_never_an_entry_of_its_own(name: str, by_hand: SimpleNamespace) -> None:
    statement = by_hand.update() if name == "update" else by_hand.SIGNED[name]()
    envelope = _envelope(f"{name}.v1", statement.encode())
    with pytest.raises(MalformedError, match="not an entry of its own"):
        parse_content(envelope)
    assert stream_of(envelope) is None
