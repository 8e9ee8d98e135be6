"""A witness's key files."""

from __future__ import annotations

import pytest

from sfrl_secure.crypto.secret import SecretBytes
from sfrl_secure.errors import MalformedError
from sfrl_secure.ids import sha256
from sfrl_secure.translog.checkpoint import Checkpoint, format_checkpoint
from sfrl_secure.translog.cosignature import verify_cosignature
from sfrl_secure.translog.note import ED25519, ED25519_COSIGNATURE, ML_DSA_44_COSIGNATURE
from sfrl_secure.translog.policy import TrustedWitness, TrustPolicy
from sfrl_secure.translog.witness_keys import WitnessKey, parse_witness_key

NAME = "w.example/witness"
TEXT = format_checkpoint(Checkpoint("log.example/sfrl/00", 3, sha256(b"root")))
KEYS = {kind: WitnessKey.generate(kind) for kind in (ED25519_COSIGNATURE, ML_DSA_44_COSIGNATURE)}
POLICY = TrustPolicy(
    (), tuple(TrustedWitness(f"w{kind}", key.verifier_key(NAME)) for kind, key in KEYS.items()), (), "none"
)


@pytest.mark.parametrize("kind", KEYS)
def test_a_key_comes_back_from_its_file_and_cosigns_under_the_policys_name(kind: int) -> None:
    again = parse_witness_key(KEYS[kind].to_pem())
    cosigner = again.cosigner(POLICY)
    assert cosigner.key == KEYS[kind].verifier_key(NAME)
    assert cosigner.key.key_type == kind
    assert verify_cosignature(TEXT, cosigner.cosign(TEXT, 5), cosigner.key) == 5
    assert "PRIVATE" not in repr(again) + repr(again.to_pem())


def test_a_key_that_the_policy_does_not_name_is_refused() -> None:
    for kind in KEYS:
        with pytest.raises(MalformedError, match="no witness"):
            WitnessKey.generate(kind).cosigner(POLICY)


def test_only_the_two_types_of_cosignatures_are_made() -> None:
    with pytest.raises(MalformedError):
        WitnessKey.generate(ED25519)


@pytest.mark.parametrize("kind", KEYS)
def test_a_file_that_is_not_exactly_one_such_key_is_refused(kind: int) -> None:
    pem = KEYS[kind].to_pem().expose()
    other = b"-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VuBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f\n" \
        b"-----END PRIVATE KEY-----\n"
    for bad in (b"", b"\xff", pem + b"\n", b"\n" + pem, pem + pem, pem[:100] + b"!" + pem[101:], other):
        with pytest.raises(MalformedError):
            parse_witness_key(SecretBytes(bad))
