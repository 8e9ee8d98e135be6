"""A log and everything around it, made from fixed seeds: the valid bytes that the fuzzer damages, and what is true.

Every run makes the same bytes: keys come from constants, ML-DSA-44 signs deterministically (dilithium-py). What may
verify is listed here: the checkpoints that the log has signed, the entries that are in it, the lines of its witnesses.
Whatever else verifies is a finding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from dilithium_py.ml_dsa import ML_DSA_44

from sfrl_secure.crypto.envelope import Envelope, Signature
from sfrl_secure.crypto.keys import HYBRID, PublicKey, SigningKey
from sfrl_secure.crypto.pae import pae
from sfrl_secure.governance.build import build_services
from sfrl_secure.governance.documents import ServicesDocument
from sfrl_secure.governance.services import Signatory
from sfrl_secure.governance.statements import (
    STATEMENT_TYPE,
    Body,
    Cluster,
    ComplaintRecorded,
    DecisionRecorded,
    IdentityIssued,
    ModelPublished,
    PeerClass,
    RefusalCount,
    RefusalsCounted,
    RoundOpened,
    Statement,
    UpdateWithdrawn,
)
from sfrl_secure.ids import ZERO_DIGEST, Digest, SpiffeId, parse_spiffe_id, sha256
from sfrl_secure.translog.checkpoint import Checkpoint, format_checkpoint
from sfrl_secure.translog.cosignature import Cosigner
from sfrl_secure.translog.entries import LogEntry, LoggedEntry
from sfrl_secure.translog.merkle import leaf_hash
from sfrl_secure.translog.note import (
    ED25519,
    ED25519_COSIGNATURE,
    ML_DSA_44_COSIGNATURE,
    Note,
    NoteSignature,
    NoteSigner,
    format_note,
    verifier_key,
)
from sfrl_secure.translog.policy import TrustedLog, TrustedWitness, TrustPolicy, WitnessGroup
from sfrl_secure.translog.tree import MerkleTree
from sfrl_secure.wire.entries import encode_entry, encode_envelope
from sfrl_secure.wire.statements import encode_statement

from . import quotes as quoted

ORIGIN = "log.example/sfrl/00112233445566778899aabbccddeeff"
TIME = 1_763_700_000
NOW_US = TIME * 1_000_000
OLD_SIZE, SIZE = 200, 300
WRITER: SpiffeId = parse_spiffe_id("spiffe://sfrl.example/service/gatekeeper/g1")
HYBRID_WRITER: SpiffeId = parse_spiffe_id("spiffe://sfrl.example/service/gatekeeper/g2")

Sign = Callable[[bytes], bytes]


def secret(name: str) -> bytes:
    """32 bytes for a name."""
    return hashlib.sha256(b"fuzz " + name.encode()).digest()


def ed25519_key(name: str) -> Ed25519PrivateKey:
    """A key of the world."""
    return Ed25519PrivateKey.from_private_bytes(secret(name))


def ml_dsa_key(name: str) -> tuple[bytes, Sign]:
    """Public key and signer; the signatures are the same in every run."""
    public, private = ML_DSA_44.key_derive(secret(name))

    @cache
    def sign(message: bytes) -> bytes:
        return bytes(ML_DSA_44.sign(private, message, deterministic=True))

    return bytes(public), sign


@dataclass(frozen=True)
class Generation:
    """A log's two keys."""

    signer: NoteSigner
    cosigner: Cosigner

    def lines(self, text: str) -> tuple[NoteSignature, ...]:
        """Both lines on a note text."""
        return (self.signer.sign(text), self.cosigner.cosign(text, TIME))


def generation(name: str, origin: str = ORIGIN) -> Generation:
    """A generation of keys."""
    private = ed25519_key(name)
    public, sign = ml_dsa_key(name)
    return Generation(
        NoteSigner(verifier_key(origin, ED25519, private.public_key().public_bytes_raw()), private.sign),
        Cosigner(verifier_key(origin, ML_DSA_44_COSIGNATURE, public), sign),
    )


def witness(name: str, key_name: str, key_type: int) -> Cosigner:
    """One key of a witness."""
    if key_type == ED25519_COSIGNATURE:
        private = ed25519_key(name)
        return Cosigner(verifier_key(key_name, key_type, private.public_key().public_bytes_raw()), private.sign)
    public, sign = ml_dsa_key(name)
    return Cosigner(verifier_key(key_name, key_type, public), sign)


@dataclass(frozen=True)
class World:
    """What there is, and what is true.

    Attributes:
        notes: valid notes and hostile ones, by name.
        checkpoints: what the log has truly signed, and stands by.
        lines: the witnesses' true lines on the newest checkpoint.
        fork: a second history of the same size, which the log has signed too.
        writers: signing keys of the entries' writers.
        envelopes: what they have signed, by statement digest.
        rover: signing key of whoever signed the quotes.
        quotes: what services quote, or what stands in requests, by the name in its payload type.
    """

    policy: TrustPolicy
    witnesses: dict[str, Cosigner]
    entries: tuple[bytes, ...]
    tree: MerkleTree
    notes: dict[str, bytes]
    checkpoints: frozenset[Checkpoint]
    lines: tuple[NoteSignature, ...]
    fork: bytes
    writers: dict[Digest, PublicKey]
    envelopes: dict[Digest, Envelope]
    rover: PublicKey
    quotes: dict[str, Envelope]

    def logged(self, index: int, size: int = SIZE) -> LoggedEntry:
        """An entry with its true path."""
        return LoggedEntry(index, self.entries[index], self.tree.inclusion_proof(index, size).path)


@cache
def the_world() -> World:
    """Make it, once a process."""
    old, new, stranger = generation("log 1"), generation("log 2"), generation("stranger")
    witnesses = {
        "w1": witness("w1", "one.example/witness", ED25519_COSIGNATURE),
        "w1-ml-dsa": witness("w1 ml-dsa", "one.example/witness", ML_DSA_44_COSIGNATURE),
        "w2": witness("w2", "two.example/witness", ED25519_COSIGNATURE),
    }
    policy = TrustPolicy(
        logs=(
            TrustedLog(ORIGIN, (old.signer.key, old.cosigner.key, new.signer.key, new.cosigner.key), "https://l.example/"),
        ),
        witnesses=tuple(TrustedWitness(name, each.key, "http://w.example/") for name, each in witnesses.items()),
        groups=(WitnessGroup("one", 2, ("w1", "w1-ml-dsa")), WitnessGroup("any", 1, ("one", "w2"))),
        quorum="any",
    )
    rover = SigningKey(ed25519_key("rover"), None)
    quotes = quoted.quotes(rover, NOW_US)
    writers, envelopes = _envelopes(rover.public_key.key_id, quotes)
    entries = _entries(envelopes)
    tree = MerkleTree(leaf_hash(entry) for entry in entries)
    checkpoints = {size: Checkpoint(ORIGIN, size, tree.root(size)) for size in (0, OLD_SIZE, SIZE)}
    newest = format_checkpoint(checkpoints[SIZE])
    lines = tuple(each.cosign(newest, TIME + 1) for each in witnesses.values())
    forked = MerkleTree([*(leaf_hash(entry) for entry in entries[:-1]), leaf_hash(b"another entry")])
    fork = format_checkpoint(Checkpoint(ORIGIN, SIZE, forked.root()))

    def note(text: str, *lines: NoteSignature) -> bytes:
        return format_note(Note(text, lines))

    earlier = format_checkpoint(checkpoints[OLD_SIZE])
    notes = {
        "newest": note(newest, *old.lines(newest), *new.lines(newest), *lines),
        "signed": note(newest, *new.lines(newest)),
        "earlier": note(earlier, *old.lines(earlier), *new.lines(earlier), witnesses["w2"].cosign(earlier, TIME)),
        "archived": note(earlier, *old.lines(earlier), witnesses["w2"].cosign(earlier, TIME)),
        "empty": note(format_checkpoint(checkpoints[0]), *new.lines(format_checkpoint(checkpoints[0]))),
        "stranger": note(newest, *stranger.lines(newest), *lines),
        "half": note(newest, new.signer.sign(newest), lines[2]),
    }
    return World(
        policy,
        witnesses,
        entries,
        tree,
        notes,
        frozenset(checkpoints.values()),
        lines,
        note(fork, *new.lines(fork)),
        writers,
        envelopes,
        rover.public_key,
        quotes,
    )


def _envelopes(
    rover: Digest, quotes: dict[str, Envelope]
) -> tuple[dict[Digest, PublicKey], dict[Digest, Envelope]]:
    """What two writers sign, one of them with a hybrid key, and a document of two operators."""
    plain, hybrid = SigningKey(ed25519_key("writer"), None), ed25519_key("hybrid writer")
    public, sign_ml_dsa = ml_dsa_key("hybrid writer")
    hybrid_key = PublicKey(HYBRID, (hybrid.public_key().public_bytes_raw(), public))
    writers = {plain.public_key.key_id: plain.public_key, hybrid_key.key_id: hybrid_key}
    bodies: list[Body] = [
        RefusalsCounted(
            NOW_US - 1_000_000,
            NOW_US,
            (RefusalCount("bad_signature", PeerClass.PARTICIPANT, 3), RefusalCount("role", PeerClass.UNKNOWN, 1)),
            sha256(b"requests"),
        ),
        IdentityIssued(
            quoted.ROVER,
            sha256(b"key"),
            77,
            NOW_US + 1_000_000,
            encode_envelope(quotes["identity-request"]),
            quotes["identity-request"],
            quoted.identity_request_of(rover, NOW_US),
            renews=sha256(b"key before"),
        ),
        RoundOpened(3, sha256(b"base"), sha256(b"terms"), sha256(b"server state"), sha256(b"mask")),
        UpdateWithdrawn(
            encode_envelope(quotes["withdrawal"]), quotes["withdrawal"], quoted.withdrawal_of(rover, NOW_US)
        ),
        ComplaintRecorded(encode_envelope(quotes["update"]), quotes["update"], quoted.update_of(rover, NOW_US)),
        DecisionRecorded(encode_envelope(quotes["decision"]), quotes["decision"], quoted.decision_of(rover, NOW_US)),
        RoundOpened(4, sha256(b"base"), sha256(b"terms")),
        _model_published(),
    ]
    streams = ["log", "identity", *["segment/rocks"] * 6]
    found = []
    for number, (stream, body) in enumerate(zip(streams, bodies, strict=True)):
        raw = encode_statement(_statement(plain.public_key.key_id, WRITER, stream, body, number))
        message = pae(STATEMENT_TYPE, raw)
        signature = Signature(plain.public_key.key_id, "ed25519", plain.sign(message))
        found.append(Envelope(STATEMENT_TYPE, raw, (signature,)))
    raw = encode_statement(_statement(hybrid_key.key_id, HYBRID_WRITER, "log", bodies[0], 9))
    message = pae(STATEMENT_TYPE, raw)
    value = hybrid.sign(message) + sign_ml_dsa(message)
    found.append(Envelope(STATEMENT_TYPE, raw, (Signature(hybrid_key.key_id, HYBRID, value),)))
    document = build_services(
        federation_id=sha256(b"federation"),
        expires_us=NOW_US + 10**12,
        services=[Signatory(WRITER, plain.public_key)],
    )
    operators = [SigningKey(ed25519_key(name), None) for name in ("alice", "bob")]
    message = pae(ServicesDocument.payload_type, document)
    signatures = [Signature(key.public_key.key_id, "ed25519", key.sign(message)) for key in operators]
    found.append(
        Envelope(ServicesDocument.payload_type, document, tuple(sorted(signatures, key=lambda each: each.key_id)))
    )
    return writers, {envelope.digest: envelope for envelope in found}


def _model_published() -> ModelPublished:
    """With everything that it may have."""
    clusters = (Cluster((0, 3, 499), sha256(b"cluster 1")), Cluster((1, 128), sha256(b"cluster 2")))
    return ModelPublished(
        4, sha256(b"closed"), sha256(b"base"), sha256(b"aggregate"), sha256(b"model"), "clustered_mean/v1", 1,
        sha256(b"model published"), sha256(b"next state"), sha256(b"next mask"), clusters,
    )  # fmt: skip


def _statement(key_id: Digest, writer: SpiffeId, stream: str, body: Body, number: int) -> Statement:
    return Statement(
        federation_id=sha256(b"federation"),
        stream=stream,
        writer=writer,
        key_id=key_id,
        reads_governance=sha256(b"governance"),
        reads_segment=sha256(b"control") if stream.startswith("segment") else ZERO_DIGEST,
        valid_until_us=NOW_US + 30_000_000,
        request_id=number.to_bytes(16, "big"),
        body=body,
    )


def _entries(envelopes: dict[Digest, Envelope]) -> tuple[bytes, ...]:
    """The log's leaves: the envelopes first, then short ones, so that the tree is higher than a tile."""
    found: list[bytes] = []
    prev = ZERO_DIGEST
    for number, envelope in enumerate(envelopes.values()):
        found.append(encode_entry(LogEntry(prev, NOW_US + number, number, prev, envelope)))
        prev = leaf_hash(found[-1])
    return (*found, *(b"entry %d" % index for index in range(len(found), SIZE)))
