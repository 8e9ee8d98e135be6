"""A small federation for the tests of `translog`: one log with two keys, three witnesses, a quorum of two."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from sfrl_secure.translog.checkpoint import Checkpoint
from sfrl_secure.translog.cosignature import Cosigner, sign_checkpoint
from sfrl_secure.translog.merkle import leaf_hash
from sfrl_secure.translog.note import (
    ED25519,
    ED25519_COSIGNATURE,
    ML_DSA_44_COSIGNATURE,
    NoteSigner,
    add_signatures,
    format_note,
    parse_note,
    verifier_key,
)
from sfrl_secure.translog.policy import TrustedLog, TrustedWitness, TrustPolicy, WitnessGroup
from sfrl_secure.translog.tree import MerkleTree

LOG_TIME = 1_760_000_000


def make_note_signer(name: str) -> NoteSigner:
    private = Ed25519PrivateKey.generate()
    return NoteSigner(verifier_key(name, ED25519, private.public_key().public_bytes_raw()), private.sign)


def make_cosigner(name: str, key_type: int) -> Cosigner:
    private = Ed25519PrivateKey.generate() if key_type == ED25519_COSIGNATURE else MLDSA44PrivateKey.generate()
    return Cosigner(verifier_key(name, key_type, private.public_key().public_bytes_raw()), private.sign)


@dataclass(frozen=True)
class Federation:
    origin: str
    signer: NoteSigner
    cosigner: Cosigner
    witnesses: dict[str, Cosigner]
    policy: TrustPolicy
    entries: tuple[bytes, ...]
    tree: MerkleTree

    def checkpoint(self, size: int) -> Checkpoint:
        return Checkpoint(self.origin, size, self.tree.root(size))

    def signed(self, size: int) -> bytes:
        return self.sign(self.checkpoint(size))

    def sign(self, checkpoint: Checkpoint) -> bytes:
        return sign_checkpoint(checkpoint, self.signer, self.cosigner, LOG_TIME)

    def cosigned(self, raw: bytes, names: Iterable[str], time_seconds: int = LOG_TIME + 1) -> bytes:
        note = parse_note(raw)
        lines = [self.witnesses[name].cosign(note.text, time_seconds) for name in names]
        return format_note(add_signatures(note, lines))


@pytest.fixture(scope="session")
def federation() -> Federation:
    origin = "log.example/sfrl/00112233445566778899aabbccddeeff"
    signer, cosigner = make_note_signer(origin), make_cosigner(origin, ML_DSA_44_COSIGNATURE)
    witnesses = {
        "w1": make_cosigner("one.example/witness", ED25519_COSIGNATURE),
        "w2": make_cosigner("two.example/witness", ED25519_COSIGNATURE),
        "w3": make_cosigner("three.example/witness", ML_DSA_44_COSIGNATURE),
    }
    policy = TrustPolicy(
        logs=(TrustedLog(origin, (signer.key, cosigner.key), "https://log.example/"),),
        witnesses=tuple(TrustedWitness(name, witness.key) for name, witness in witnesses.items()),
        groups=(WitnessGroup("two-of-three", 2, ("w1", "w2", "w3")),),
        quorum="two-of-three",
    )
    entries = tuple(b"entry %d" % i for i in range(70))
    tree = MerkleTree(leaf_hash(entry) for entry in entries)
    return Federation(origin, signer, cosigner, witnesses, policy, entries, tree)
