"""A record by a join key: one signature, and exactly the record that was promised."""

from __future__ import annotations

import pytest

from sfrl_secure.crypto.envelope import Envelope, Signature, sign_envelope
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.errors import DeniedError
from sfrl_secure.governance.authority import check_document_authority, is_by_join_key
from sfrl_secure.governance.documents import Document, JoinDocument


@pytest.fixture
def join(build) -> JoinDocument:
    return build("join")


def judge(federation, document: Document, join: JoinDocument | None, *keys: SigningKey) -> tuple[str, ...] | str:
    envelope = sign_envelope(document.payload_type, document.raw, keys)
    try:
        return check_document_authority(document, envelope, federation.root, join=join)
    except DeniedError as denial:
        return denial.reason


def test_the_token_records_what_the_join_promises(federation, build, join: JoinDocument) -> None:
    assert judge(federation, build("participant"), join, federation.token) == ()
    assert judge(federation, build("participant", reason="hello"), join, federation.token) == ()


def test_operators_record_beside_a_join_that_is_open(federation, build, join: JoinDocument) -> None:
    ann, bob, _ = federation.operators.values()
    assert judge(federation, build("participant", clearance=9), join, ann, bob) == ("ann", "bob")


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "rover-2"},
        {"clearance": 4},
        {"clearance": 6},
        {"groups": []},
        {"groups": ["rovers", "orbiters"]},
        {"state": "suspended"},
        {"expires_us": 2**62},
    ],
)
def test_a_token_records_nothing_else(federation, build, join: JoinDocument, changes: dict[str, object]) -> None:
    assert judge(federation, build("participant", **changes), join, federation.token) == "record_differs"


def test_a_token_revokes_nobody(federation, build, join: JoinDocument) -> None:
    revoked = build("participant", version=2, state="revoked")
    assert judge(federation, revoked, join, federation.token) == "record_differs"


def test_without_a_join_the_token_is_a_stranger(federation, build, join: JoinDocument) -> None:
    assert judge(federation, build("participant"), None, federation.token) == "threshold"
    other = build("join", join_key=SigningKey.generate("ed25519").public_key)
    assert judge(federation, build("participant"), other, federation.token) == "threshold"


def test_a_token_signs_no_other_document(federation, build, join: JoinDocument) -> None:
    for kind in ("services", "rules", "segment-terms", "join", "key-revocation", "order", "next-root"):
        assert judge(federation, build(kind), join, federation.token) == "threshold", kind


def test_a_token_beside_operators_spoils_their_signatures(federation, build, join: JoinDocument) -> None:
    ann, bob, _ = federation.operators.values()
    assert judge(federation, build("participant"), join, ann, bob, federation.token) == "threshold"
    assert judge(federation, build("participant"), join, ann, federation.token) == "threshold"


def test_a_forged_signature_of_the_token_records_nothing(federation, build, join: JoinDocument) -> None:
    record = build("participant")
    stranger = sign_envelope(record.payload_type, record.raw, [SigningKey.generate("ed25519")])
    forged = Signature(join.join_key.key_id, "ed25519", stranger.signatures[0].value)
    envelope = Envelope(record.payload_type, record.raw, (forged,))
    assert is_by_join_key(envelope, join)
    with pytest.raises(DeniedError) as refused:
        check_document_authority(record, envelope, federation.root, join=join)
    assert refused.value.reason == "threshold"


def test_the_newcomer_has_to_hold_the_key_that_it_records(federation, build, join: JoinDocument) -> None:
    record = build("participant", possession=b"")
    assert judge(federation, record, join, federation.token) == "possession"


def test_a_record_is_by_the_join_key_only_with_that_one_signature(federation, build, join: JoinDocument) -> None:
    record = build("participant")
    ann = federation.operators["ann"]
    for keys, expected in (([federation.token], True), ([ann], False), ([ann, federation.token], False)):
        envelope = sign_envelope(record.payload_type, record.raw, keys)
        assert is_by_join_key(envelope, join) is expected
        assert not is_by_join_key(envelope, None)
