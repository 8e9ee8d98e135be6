"""A log that signs what a test wants, and a witness that knows it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from sfrl_secure.clock import FixedClock
from sfrl_secure.ids import Digest
from sfrl_secure.sequencer.log_keys import LogKeys
from sfrl_secure.services.verifier.witness import Witness
from sfrl_secure.translog.checkpoint import Checkpoint
from sfrl_secure.translog.cosignature import Cosigner, sign_checkpoint
from sfrl_secure.translog.merkle import leaf_hash
from sfrl_secure.translog.note import ED25519_COSIGNATURE, ML_DSA_44_COSIGNATURE, parse_vkey
from sfrl_secure.translog.policy import TrustedLog, TrustedWitness, TrustPolicy, WitnessGroup
from sfrl_secure.translog.proofs import ConsistencyProof
from sfrl_secure.translog.tree import MerkleTree
from sfrl_secure.translog.witness import AddCheckpointRequest, format_add_checkpoint
from sfrl_secure.translog.witness_keys import WitnessKey

ORIGIN = "log.mars.example/sfrl/00112233445566778899aabbccddeeff"
SECONDS = 1_780_000_000


@dataclass
class WitnessedLog:
    """A log of numbered entries; `other` is the same log with another history from entry 3 on."""

    keys: LogKeys
    tree: MerkleTree
    other: MerkleTree
    policy: TrustPolicy
    cosigners: tuple[Cosigner, ...]

    def note(self, size: int, *, tree: MerkleTree | None = None, keys: LogKeys | None = None) -> bytes:
        """The log's signed checkpoint at a size."""
        keys = keys or self.keys
        checkpoint = Checkpoint(ORIGIN, size, (tree or self.tree).root(size))
        return sign_checkpoint(checkpoint, keys.note_signer(ORIGIN), keys.cosigner(ORIGIN), SECONDS)

    def request(
        self, old_size: int, size: int, *, tree: MerkleTree | None = None, keys: LogKeys | None = None
    ) -> bytes:
        """What the log asks the witness."""
        proof: tuple[Digest, ...] = ()
        if 0 < old_size < size:
            proven = (tree or self.tree).consistency_proof(old_size, size)
            assert isinstance(proven, ConsistencyProof)
            proof = proven.path
        return format_add_checkpoint(AddCheckpointRequest(old_size, proof, self.note(size, tree=tree, keys=keys)))

    def witness(self, folder: Path) -> Witness:
        """The witness whose state lies in `folder`."""
        return Witness(folder, self.policy, self.cosigners, FixedClock(SECONDS * 1_000_000))


@pytest.fixture(scope="session")
def log() -> WitnessedLog:
    """One log and its witness's two keys, which are the quorum together."""
    keys = LogKeys.generate()
    private = [WitnessKey.generate(kind) for kind in (ED25519_COSIGNATURE, ML_DSA_44_COSIGNATURE)]
    policy = TrustPolicy(
        logs=(TrustedLog(ORIGIN, tuple(parse_vkey(vkey) for vkey in keys.vkeys(ORIGIN))),),
        witnesses=tuple(
            TrustedWitness(name, key.verifier_key("w.example/witness"))
            for name, key in zip(("w", "w-pq"), private, strict=True)
        ),
        groups=(WitnessGroup("g", 2, ("w", "w-pq")),),
        quorum="g",
    )
    cosigners = tuple(key.cosigner(policy) for key in private)
    leaves = [leaf_hash(b"entry %d" % number) for number in range(20)]
    others = [*leaves[:3], *(leaf_hash(b"other %d" % number) for number in range(17))]
    return WitnessedLog(keys, MerkleTree(leaves), MerkleTree(others), policy, cosigners)
