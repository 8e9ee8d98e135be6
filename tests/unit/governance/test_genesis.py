"""Entry 0: a genesis opens under its trust policy, and under no other."""

from __future__ import annotations

import pytest

from sfrl_secure.crypto.envelope import Envelope
from sfrl_secure.errors import SignatureError, VerificationError
from sfrl_secure.governance.authority import open_genesis
from sfrl_secure.governance.build import build_genesis
from sfrl_secure.governance.documents import GenesisDocument, RootDocument
from sfrl_secure.translog.note import ED25519, ML_DSA_44_COSIGNATURE, verifier_key


def genesis_of(federation, root_names: tuple[str, ...], names: tuple[str, ...]) -> tuple[Envelope, GenesisDocument]:
    root_envelope = federation.sign(RootDocument.payload_type, federation.root_raw, *root_names)
    raw = build_genesis(root_envelope=root_envelope, log_keys=federation.log_keys)
    document = federation.parse("genesis", raw)
    assert isinstance(document, GenesisDocument)
    return federation.sign(document.payload_type, raw, *names), document


ALL = ("ann", "bob", "eve")


def test_genesis_opens_under_its_trust_policy(federation) -> None:
    envelope, document = genesis_of(federation, ALL, ALL)
    assert open_genesis(envelope, document, federation.origin, federation.log_keys) == federation.root


@pytest.mark.parametrize("who", ["root", "genesis"])
def test_root_and_genesis_each_need_the_threshold(federation, who: str) -> None:
    envelope, document = genesis_of(federation, ALL[:2] if who == "root" else ALL, ALL[:2] if who == "genesis" else ALL)
    with pytest.raises(SignatureError):
        open_genesis(envelope, document, federation.origin, federation.log_keys)


def test_genesis_of_another_origin_or_other_log_keys_is_refused(federation) -> None:
    envelope, document = genesis_of(federation, ALL, ALL)
    first, second = federation.log_keys
    with pytest.raises(VerificationError, match="origin"):
        open_genesis(envelope, document, federation.origin + "x", federation.log_keys)
    for keys in ((second, first), (first, first)):
        with pytest.raises(VerificationError, match="log keys"):
            open_genesis(envelope, document, federation.origin, keys)


def test_genesis_with_another_federations_id_is_refused(federation, change) -> None:
    raw = change(federation.raw["genesis"], ("federation_id",), "ab" * 32)
    document = federation.parse("genesis", raw)
    envelope = federation.sign(document.payload_type, raw, *ALL)
    with pytest.raises(VerificationError, match="federation id"):
        open_genesis(envelope, document, federation.origin, federation.log_keys)


def test_an_origin_that_does_not_name_the_root_is_refused(federation, change) -> None:
    # Host and keys agree with the trust policy, but the origin holds another federation's id.
    elsewhere = "log.mars.example/sfrl/" + "0" * 32
    parts = federation.gatekeeper.public_key.parts
    keys = tuple(
        verifier_key(elsewhere, key_type, part).vkey
        for key_type, part in zip((ED25519, ML_DSA_44_COSIGNATURE), parts, strict=True)
    )
    raw = change(change(federation.raw["genesis"], ("origin",), elsewhere), ("log_keys",), list(keys))
    document = federation.parse("genesis", raw)
    for origin in (elsewhere, federation.origin):
        with pytest.raises(VerificationError, match="origin"):
            open_genesis(federation.sign(document.payload_type, raw, *ALL), document, origin, keys)


def test_the_envelope_of_another_genesis_opens_nothing(federation, change) -> None:
    envelope, document = genesis_of(federation, ALL, ALL)
    respaced = federation.parse("genesis", document.raw + b"\n")
    with pytest.raises(SignatureError):
        open_genesis(envelope, respaced, federation.origin, federation.log_keys)
    mistyped = federation.sign(RootDocument.payload_type, document.raw, *ALL)
    with pytest.raises(SignatureError):
        open_genesis(mistyped, document, federation.origin, federation.log_keys)
