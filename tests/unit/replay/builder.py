"""A small log writer, from the specification alone: it signs everything, keeps the heads, and knows no rule.

Every method takes what is right from the writer's own state, and lets a test put something else in its place.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isqrt
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from sfrl_secure.crypto.envelope import Envelope, envelope_to_json, sign_envelope
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.crypto.pae import statement_digest
from sfrl_secure.crypto.possession import prove_possession
from sfrl_secure.errors import DigestError
from sfrl_secure.ids import Digest
from sfrl_secure.replay.findings import Finding
from sfrl_secure.replay.fold import Replay
from sfrl_secure.translog.checkpoint import Checkpoint, format_checkpoint
from sfrl_secure.translog.cosignature import Cosigner, sign_checkpoint
from sfrl_secure.translog.merkle import leaf_hash, root_of
from sfrl_secure.translog.note import (
    ED25519,
    ED25519_COSIGNATURE,
    ML_DSA_44_COSIGNATURE,
    Note,
    NoteSigner,
    add_signatures,
    format_note,
    parse_note,
    verifier_key,
)
from sfrl_secure.translog.policy import TrustedLog, TrustedWitness, TrustPolicy, WitnessGroup, format_trust_policy
from sfrl_secure.translog.tiles import bundles_of, encode_bundle, tile_of_tree, tiles_of
from sfrl_secure.translog.tree import MerkleTree

from .payloads import SUPPORTS, VALUE_TYPES, encode_aggregate, encode_mask, encode_payload, payload_root
from .plain_rules import Outcome, Sent, outcome_of

START = 1_760_000_000_000_000
SECOND = 1_000_000
DAY = 86_400 * SECOND
NEVER = 2**62
ZEROS = bytes(32)
SEGMENT = "rocks"
STREAM = f"segment/{SEGMENT}"
TENSORS = [{"name": "a", "shape": [3, 4], "dtype": "int32"}, {"name": "b", "shape": [5], "dtype": "int64"}]
COORDINATES = 17
GRID = 10
RULES = """
@id("cleared") permit (principal, action == Action::"submit", resource)
  when { principal.clearance >= resource.sensitivity };
@id("known") permit (principal, action, resource) when { principal has clearance };
@id("heavy") forbid (principal, action, resource) when { context.weight > 50 };
@id("large") forbid (principal, action == Action::"admit", resource) when { context.norm > 5000 };
"""


def sha(raw: bytes) -> Digest:
    return Digest(hashlib.sha256(raw).digest())


@dataclass(frozen=True)
class Present:
    """A submessage, written even when it is empty."""

    raw: bytes


def varint(number: int) -> bytes:
    out = bytearray()
    while True:
        out.append(number & 0x7F | (0x80 if number > 0x7F else 0))
        number >>= 7
        if not number:
            return bytes(out)


def pb(*fields: tuple[int, Any]) -> bytes:
    """Write a message; defaults are left out, a list of integers is packed, any other list is repeated."""
    out = b""
    for number, value in fields:
        if isinstance(value, Present):
            out += varint(number << 3 | 2) + varint(len(value.raw)) + value.raw
        elif isinstance(value, list) and value and isinstance(value[0], int):
            packed = b"".join(map(varint, value))
            out += varint(number << 3 | 2) + varint(len(packed)) + packed
        elif isinstance(value, list):
            for item in value:
                raw = item.encode() if isinstance(item, str) else item
                out += varint(number << 3 | 2) + varint(len(raw)) + raw
        elif isinstance(value, int) and value:
            out += varint(number << 3) + varint(value)
        elif isinstance(value, (str, bytes)) and value:
            raw = value.encode() if isinstance(value, str) else value
            out += varint(number << 3 | 2) + varint(len(raw)) + raw
    return out


def envelope_fields(envelope: Envelope, first: int) -> list[tuple[int, Any]]:
    signatures = [pb((1, s.key_id), (2, s.suite), (3, s.value)) for s in envelope.signatures]
    return [(first, envelope.payload_type), (first + 1, envelope.statement), (first + 2, signatures)]


class MemoryObjects(dict[bytes, bytes]):
    """Objects in memory, with the store's checks."""

    def read(self, digest: Digest, bytes_max: int) -> bytes | None:
        raw = self.get(digest)
        if raw is not None and sha(raw) != digest:
            raise DigestError("altered")
        return None if raw is None else raw[: bytes_max + 1]

    def read_at(self, digest: Digest, offset: int, length: int) -> bytes | None:
        raw = self.get(digest)
        return None if raw is None else raw[offset : offset + length]

    def holds(self, digest: Digest) -> bool:
        return self.read(digest, 0) is not None

    def put(self, raw: bytes) -> Digest:
        self[sha(raw)] = raw
        return sha(raw)


@dataclass
class Admitted:
    name: str
    digest: bytes
    update: dict[int, int]
    weight: int
    norm: int = 0
    carried: tuple[int, ...] = ()

    def sent(self) -> Sent:
        values = {c: self.update.get(c, 0) for c in self.carried or self.update}
        return Sent(self.name, self.weight, self.norm, values)


@dataclass
class StepNow:
    """A round whose model is published."""

    round: int
    closed: bytes
    base: bytes
    base_values: list[int]
    model: bytes
    values: list[int]
    published: bytes
    counted: list[Admitted]
    begun: RoundNow
    state: bytes = b""
    next_mask: bytes = b""


@dataclass
class RoundNow:
    number: int
    opened: bytes
    base: bytes
    admitted: list[Admitted] = field(default_factory=list)
    terms: dict[str, Any] = field(default_factory=dict)
    state: bytes = b""
    mask: bytes = b""


class Writer:
    """Writes a log of one federation and one segment."""

    def __init__(self, *, suite: str = "ed25519", log_host: str = "log.example") -> None:
        self.now = START
        self.entries: list[bytes] = []
        self.objects = MemoryObjects()
        self.streams: dict[str, tuple[int, bytes]] = {}
        self.governance_head = ZEROS
        self.control_heads: dict[str, bytes] = {}
        self.versions: dict[tuple[str, str], tuple[int, bytes]] = {}
        self.requests = 0
        self.operators = {name: SigningKey.generate("ed25519") for name in ("ann", "bob", "cyd")}
        self.services = {
            f"spiffe://rover.example/service/{role}/{role.replace('_', '-')}-1": SigningKey.generate("ed25519")
            for role in ("gatekeeper", "aggregator", "audit_log", "verifier")
        }
        self.gatekeeper, self.aggregator, self.audit_log, self.verifier = self.services
        self.auditors = {"spiffe://rover.example/auditor/eve": SigningKey.generate("ed25519")}
        (self.auditor,) = self.auditors
        self.participants = {name: SigningKey.generate(suite) for name in ("r1", "r2", "r3", "r4")}
        self.log_host = log_host
        self.root = self._root(log_host)
        self.federation_id = sha(self.root)
        self.versions["root", ""] = (1, self.federation_id)
        self.origin = f"{log_host}/sfrl/{self.federation_id.hex()[:32]}"
        self._log_keys()
        self.model = [0] * COORDINATES
        self.model_digest = self.put_model(self.model)
        self.mask_indices: list[int] = []
        self.masks: dict[bytes, list[int]] = {}
        self.states: dict[bytes, list[int]] = {}
        self.terms_raw = b""
        self.round: RoundNow | None = None
        self.closed_hash = ZEROS
        self.last_round = 0
        self.steps: list[StepNow] = []
        self.tls: dict[str, bytes] = {}
        # With this on, an anchor comes every 30 s and before the time jumps, as an honest log writes them.
        self.anchoring = False
        self.anchored_us = START

    # Keys and checkpoint

    def _log_keys(self) -> None:
        ed25519, ml_dsa = Ed25519PrivateKey.generate(), MLDSA44PrivateKey.generate()
        key = verifier_key(self.origin, ED25519, ed25519.public_key().public_bytes_raw())
        self.signer = NoteSigner(key, ed25519.sign)
        key = verifier_key(self.origin, ML_DSA_44_COSIGNATURE, ml_dsa.public_key().public_bytes_raw())
        self.cosigner = Cosigner(key, ml_dsa.sign)
        self.witnesses: dict[str, Cosigner] = {}
        for name in ("w1", "w2"):
            private = Ed25519PrivateKey.generate()
            public = private.public_key().public_bytes_raw()
            witness = verifier_key(f"{name}.example/witness", ED25519_COSIGNATURE, public)
            self.witnesses[name] = Cosigner(witness, private.sign)
        self.trust = TrustedLog(self.origin, (self.signer.key, self.cosigner.key))
        self.policy = TrustPolicy(
            (self.trust,),
            tuple(TrustedWitness(name, witness.key) for name, witness in self.witnesses.items()),
            (WitnessGroup("both", 2, ("w1", "w2")),),
            "both",
        )

    def checkpoint(self, size: int | None = None, witnesses: Iterable[str] = ("w1", "w2")) -> bytes:
        tree = MerkleTree(leaf_hash(entry) for entry in self.entries[:size])
        seconds = self.now // SECOND
        raw = sign_checkpoint(Checkpoint(self.origin, tree.size, tree.root()), self.signer, self.cosigner, seconds)
        note = parse_note(raw)
        lines = [self.witnesses[name].cosign(note.text, seconds + 1) for name in witnesses]
        return format_note(add_signatures(note, lines))

    def anchor_note(self, size: int | None = None, *, times: Mapping[str, int] | None = None,
                    root: Digest | None = None, signer: NoteSigner | None = None) -> bytes:  # fmt: skip
        """A checkpoint with Ed25519 lines only. `times`: seconds by witness; now without it."""
        tree = MerkleTree(leaf_hash(entry) for entry in self.entries[:size])
        now = self.now // SECOND
        text = format_checkpoint(Checkpoint(self.origin, tree.size, tree.root() if root is None else root))
        lines = [
            self.witnesses[name].cosign(text, seconds)
            for name, seconds in ({"w1": now, "w2": now} if times is None else times).items()
        ]
        return format_note(Note(text, ((signer or self.signer).sign(text), *lines)))

    def write(self, folder: Path) -> tuple[Path, bytes, Path]:
        """Write everything as files; gives the log's folder, the trust policy and the folder of the objects."""
        tree = MerkleTree(leaf_hash(entry) for entry in self.entries)
        files = {"checkpoint": self.checkpoint()}
        files |= {tile.path: tile_of_tree(tree, tile) for tile in tiles_of(tree.size)}
        for bundle in bundles_of(tree.size):
            begin = 256 * bundle.index
            files[bundle.path] = encode_bundle(self.entries[begin : begin + bundle.width])
        for path, raw in files.items():
            (folder / "log" / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / "log" / path).write_bytes(raw)
        for digest, raw in self.objects.items():
            (folder / "objects" / digest.hex()[:2]).mkdir(parents=True, exist_ok=True)
            (folder / "objects" / digest.hex()[:2] / digest.hex()).write_bytes(raw)
        return folder / "log", format_trust_policy(self.policy), folder / "objects"

    def replay(self) -> Replay:
        replay = Replay(self.trust, self.objects)
        for entry in self.entries:
            replay.step(entry)
        replay.finish()
        return replay

    # Entries

    def append(self, envelope: Envelope, stream: str | None, **other: Any) -> bytes:
        """Sequence an envelope; gives its entry hash. `other`: fields of the entry to write instead."""
        if self.anchoring and self.now - self.anchored_us >= 30 * SECOND:
            self.anchored_us = self.now
            self.anchor()
        self.now += SECOND
        position, last = self.streams.get(stream or "", (0, ZEROS))
        previous = leaf_hash(self.entries[-1]) if self.entries else ZEROS
        raw = pb(
            (1, other.get("prev", previous)),
            (2, other.get("log_time_us", self.now)),
            (3, other.get("stream_seq", position)),
            (4, other.get("stream_prev", last)),
            *envelope_fields(envelope, 5),
        )
        self.entries.append(raw)
        leaf = leaf_hash(raw)
        if stream is not None:
            self.streams[stream] = (position + 1, leaf)
        return leaf

    # Documents

    def _root(self, log_host: str) -> bytes:
        return self.json_of({
            "type": "root", "version": 1, "previous": ZEROS.hex(), "expires_us": NEVER, "trust_domain": "rover.example",
            "log_host": log_host,
            "operators": {name: self.key_of(key) for name, key in self.operators.items()},
            "thresholds": {"root": 3, "governance": 2, "enrolment": 1, "revocation": 1},
        })  # fmt: skip

    @staticmethod
    def json_of(value: dict[str, Any]) -> bytes:
        return json.dumps(value, indent=1).encode()

    @staticmethod
    def key_of(key: SigningKey) -> dict[str, str]:
        return {"suite": key.public_key.suite, "public_key": key.public_key.raw.hex()}

    def signed(self, kind: str, raw: bytes, signers: Iterable[str]) -> Envelope:
        return sign_envelope(f"application/vnd.sfrl.{kind}.v1+json", raw, [self.operators[name] for name in signers])

    def genesis(self, *, signers: Sequence[str] = ("ann", "bob", "cyd"),
                root_signers: Sequence[str] = ("ann", "bob", "cyd"), void: bool = False,
                **other: Any) -> bytes:  # fmt: skip
        root = envelope_to_json(self.signed("root", self.root, root_signers))
        raw = self.json_of({
            "type": "genesis", "federation_id": self.federation_id.hex(), "origin": self.origin,
            "root": base64.b64encode(root).decode(), "log_keys": [self.signer.key.vkey, self.cosigner.key.vkey],
            "formats": {"entry": 1, "codec": 2, "model": 1, "arithmetic": 1},
        } | other)  # fmt: skip
        leaf = self.append(self.signed("genesis", raw, signers), "governance")
        if not void:
            self.governance_head = leaf
        return leaf

    def document(self, kind: str, body: dict[str, Any], *, subject: str = "", signers: Sequence[str] = ("ann", "bob"),
                 void: bool = False, stream: str | None = "governance", **other: Any) -> bytes:  # fmt: skip
        """Publish a document; gives its bytes. `other`: common keys to write instead."""
        version, previous = self.versions.get((kind, subject), (0, ZEROS))
        raw = self.json_of({
            "type": kind, "federation_id": self.federation_id.hex(), "version": version + 1, "previous": previous.hex(),
            "expires_us": NEVER,
        } | body | other)  # fmt: skip
        leaf = self.append(self.signed(kind, raw, signers), stream)
        if not void:
            self.governance_head = leaf
            self.versions[kind, subject] = (version + 1, sha(raw))
        return raw

    def publish_services(self, **other: Any) -> bytes:
        listed = {
            "services": [{"spiffe_id": name} | self.key_of(key) for name, key in self.services.items()],
            "auditors": [{"spiffe_id": name} | self.key_of(key) for name, key in self.auditors.items()],
            "key_exchange": ["X25519", "X25519MLKEM768"],
        }
        return self.document("services", listed, **other)

    def publish_rules(self, cedar: str = RULES, **other: Any) -> bytes:
        return self.document("rules", {"cedar": cedar}, **other)

    def terms(self, **other: Any) -> dict[str, Any]:
        return {
            "segment": SEGMENT, "sensitivity": 5, "groups": ["rovers"],
            "operations": ["fetch", "record", "submit"],
            "model": {
                "manifest": {"tensors": TENSORS, "constants_exponent": 0, "constants": {"mean": [1, -2]}},
                "grid_exponent": GRID, "initial": self.put_model([0] * COORDINATES).hex(),
            },
            "tensors": ["a", "b"], "value_types": ["fp32", "int8"], "support_modes": ["free"],
            "mask": None, "relay_groups": [], "suites": ["ed25519", "ed25519+ml-dsa-44"],
            "limits": {"payload_bytes_max": 4096, "nonzeros_max": 10, "norm_max": 10_000, "magnitude_max": 9_000,
                       "weight_max": 100},
            "quota": {"window_us": 30 * DAY, "updates_max": 1000, "bytes_max": 2**40},
            "leakage": {"nonzeros_min": 1, "weight_min": 1, "noise_std_min": 0, "rows": [], "labels": []},
            "round": {"duration_us": 600 * SECOND, "cohort_min": 2, "cohort_max": 3, "rounds_max": 100},
            "rule": {"name": "weighted_mean/v1"}, "clip": None, "cap": None, "server": None,
            "privacy": "open", "evidence_days": 1, "retention_days": 30,
        } | other  # fmt: skip

    def put_mask(self, indices: Sequence[int], following: dict[str, Any] | None = None) -> dict[str, Any]:
        """Keep a mask; gives what terms say of it."""
        self.mask_indices = list(indices)
        digest = self.objects.put(encode_mask(indices, COORDINATES))
        self.masks[digest] = list(indices)
        return {"digest": digest.hex(), "nonzeros": len(indices), "next": following}

    def publish_terms(self, terms: dict[str, Any] | None = None, **other: Any) -> bytes:
        terms = terms or self.terms()
        raw = self.document("segment-terms", terms, subject=terms["segment"], **other)
        if not other.get("void"):
            self.terms_raw = raw
        return raw

    def record(self, name: str, *, state: str = "active", key: SigningKey | None = None,
               signers: Sequence[str] = ("ann",), possession: bytes | None = None,
               body: dict[str, Any] | None = None, **other: Any) -> bytes:  # fmt: skip
        key = key or self.participants[name]
        proof = prove_possession(key, self.federation_id, name) if possession is None else possession
        record = {
            "name": name, "possession": proof.hex(), "clearance": 7, "groups": ["rovers"], "state": state, "reason": "",
        }  # fmt: skip
        return self.document(
            "participant", record | self.key_of(key) | (body or {}), subject=name, signers=signers, **other
        )

    # Who comes in, and what operators order

    def root_body(self, **other: Any) -> dict[str, Any]:
        """A later root, as this writer's operators stand."""
        return {
            "trust_domain": "rover.example", "log_host": self.log_host,
            "operators": {name: self.key_of(key) for name, key in self.operators.items()},
            "thresholds": {"root": 3, "governance": 2, "enrolment": 1, "revocation": 1},
        } | other  # fmt: skip

    def rotate_root(self, keys: Sequence[SigningKey], *, body: dict[str, Any] | None = None, void: bool = False,
                    stream: str | None = "governance", **other: Any) -> bytes:  # fmt: skip
        """Publish the next root under these keys."""
        version, previous = self.versions["root", ""]
        raw = self.json_of({
            "type": "root", "federation_id": self.federation_id.hex(), "version": version + 1,
            "previous": previous.hex(), "expires_us": NEVER,
        } | self.root_body() | (body or {}) | other)  # fmt: skip
        leaf = self.append(sign_envelope("application/vnd.sfrl.root.v1+json", raw, keys), stream)
        if not void:
            self.governance_head = leaf
            self.versions["root", ""] = (version + 1, sha(raw))
        return raw

    def invite(self, name: str, key: SigningKey, **other: Any) -> bytes:
        """Publish an invitation."""
        common = {"expires_us": self.now + 30 * DAY, "signers": ("ann",)} | other
        body = {
            "name": name, "join_key": key.public_key.raw.hex(), "clearance": 7, "groups": ["rovers"],
            "record_expires_us": NEVER,
        }  # fmt: skip
        return self.document("join", body, subject=name, **common)

    def record_by(self, token: SigningKey, name: str, key: SigningKey, *, sign: Sequence[SigningKey] | None = None,
                  void: bool = False, body: dict[str, Any] | None = None, **other: Any) -> bytes:  # fmt: skip
        """Record a participant under a join key."""
        version, previous = self.versions.get(("participant", name), (0, ZEROS))
        raw = self.json_of({
            "type": "participant", "federation_id": self.federation_id.hex(), "version": version + 1,
            "previous": previous.hex(), "expires_us": NEVER, "name": name,
            "possession": prove_possession(key, self.federation_id, name).hex(), "clearance": 7, "groups": ["rovers"],
            "state": "active", "reason": "",
        } | self.key_of(key) | (body or {}) | other)  # fmt: skip
        envelope = sign_envelope("application/vnd.sfrl.participant.v1+json", raw, sign or [token])
        leaf = self.append(envelope, "governance")
        if not void:
            self.participants[name] = key
            self.governance_head = leaf
            self.versions["participant", name] = (version + 1, sha(raw))
        return leaf

    def revoke_key(self, spiffe_id: str, spki: bytes, **other: Any) -> bytes:
        body = {"spiffe_id": spiffe_id, "spki_sha256": spki.hex(), "reason": "lost"}
        is_light = spiffe_id.rsplit("/", 2)[1] in ("participant", "auditor")
        signers = ("ann",) if is_light else ("ann", "bob")
        return self.document("key-revocation", body, subject=spki.hex(), **({"signers": signers} | other))

    def order(self, action: str, target: dict[str, Any] | None = None, **other: Any) -> bytes:
        """Give an order; digests in its target as bytes."""
        common = {"expires_us": self.now + DAY} | other
        segment = common.pop("segment", SEGMENT)
        aim = {key: value.hex() if isinstance(value, bytes) else value for key, value in (target or {}).items()}
        body = {"segment": segment, "action": action, "target": aim, "reason": "because"}
        return self.document("order", body, subject=segment, **common)

    # Statements

    def statement(self, kind: int, body: bytes, stream: str, writer: str, *, void: bool = False, control: bool = False,
                  key: SigningKey | None = None, sign: Sequence[SigningKey] | None = None, keep_id: bool = False,
                  entry: dict[str, Any] | None = None, field_number: int | None = None,
                  **other: Any) -> bytes:  # fmt: skip
        """Write a statement; gives its entry hash. `other`: fields of the statement to write instead."""
        self.requests += not keep_id
        key = key or {**self.services, **self.auditors}[writer]
        numbers = {4: 16, 5: 17, 6: 18, 7: 19, 8: 20, 11: 21, 12: 22, 15: 23, 14: 24, 9: 25, 10: 26, 16: 27}
        head = self.control_heads.get(stream, ZEROS) if stream.startswith("segment/") else ZEROS
        raw = pb(
            (1, other.get("federation_id", self.federation_id)),
            (2, other.get("named_stream", stream)),
            (3, kind),
            (4, other.get("named_writer", writer)),
            (5, other.get("key_id", key.public_key.key_id)),
            (6, other.get("reads_governance", self.governance_head)),
            (7, other.get("reads_segment", head)),
            (8, other.get("valid_until_us", self.now + 30 * SECOND)),
            (9, other.get("request_id", self.requests.to_bytes(16, "big"))),
            (field_number or numbers[kind], Present(body)),
        )
        envelope = sign_envelope("application/vnd.sfrl.statement.v1", raw, sign or [key])
        leaf = self.append(envelope, other.get("entry_stream", stream), **(entry or {}))
        if control and not void:
            self.control_heads[stream] = leaf
        return leaf

    def signing_key(self, spiffe_id: str) -> SigningKey:
        """The key that governance knows of a name; a stranger's where it knows none."""
        role, name = spiffe_id.rsplit("/", 2)[1:]
        known = {"participant": self.participants, "operator": self.operators}.get(role, {})
        found = known.get(name) or {**self.services, **self.auditors}.get(spiffe_id)
        return found or SigningKey.generate("ed25519")

    def identity_request(self, spiffe_id: str, spki: bytes, keys: Sequence[SigningKey] | None = None,
                         other: Mapping[str, Any] = {}) -> bytes:  # fmt: skip
        """The envelope of a request for an identity; `other`: fields to write instead."""
        key = self.signing_key(spiffe_id)
        named = {
            "federation_id": self.federation_id, "spiffe_id": spiffe_id, "key_id": key.public_key.key_id, "spki": spki,
            "created_us": self.now + SECOND,
        } | other  # fmt: skip
        raw = pb(*enumerate(named.values(), 1))
        return self.enveloped("identity-request", raw, keys or [key])[0]

    @staticmethod
    def enveloped(kind: str, raw: bytes, keys: Sequence[SigningKey]) -> tuple[bytes, bytes]:
        """An envelope's bytes and its statement digest."""
        envelope = sign_envelope(f"application/vnd.sfrl.{kind}.v1", raw, keys)
        return pb(*envelope_fields(envelope, 1)), statement_digest(envelope.payload_type, raw)

    def issue(self, spiffe_id: str, spki: bytes | None = None, *, not_after_us: int | None = None,
              request: dict[str, Any] | None = None, renews: bytes = b"", keys: Sequence[SigningKey] | None = None,
              **other: Any) -> bytes:  # fmt: skip
        """Issue an identity; `request`: fields of the request to write instead."""
        spki = spki or sha(spiffe_id.encode())
        end = self.now + 300 * DAY if not_after_us is None else not_after_us
        asked = self.identity_request(spiffe_id, spki, keys, request or {})
        body = pb((1, spiffe_id), (2, spki), (3, b"\x01"), (4, end), (5, asked), (6, renews))
        return self.statement(4, body, "identity", other.pop("writer", self.gatekeeper), **other)

    def open_round(self, *, body: dict[str, Any] | None = None, **other: Any) -> bytes:
        terms = json.loads(self.terms_raw)
        last = self.steps[-1] if self.steps else None
        fields = {
            "round": self.last_round + 1, "base": self.model_digest, "terms": sha(self.terms_raw),
            "state": self.state_after(last, terms), "mask": self.mask_after(last, terms),
        } | (body or {})  # fmt: skip
        raw = pb(*enumerate(fields.values(), 1))
        leaf = self.statement(5, raw, STREAM, other.pop("writer", self.aggregator), control=True, **other)
        if not other.get("void"):
            self.last_round += 1
            self.round = RoundNow(
                self.last_round, leaf, self.model_digest, terms=terms, state=fields["state"], mask=fields["mask"]
            )
            self.mask_indices = self.masks.get(fields["mask"], self.mask_indices)
        return leaf

    @staticmethod
    def state_after(last: StepNow | None, terms: dict[str, Any]) -> bytes:
        """The server state that a round of these terms stands on, empty where there is none."""
        if last is None or terms["server"] is None:
            return b""
        before = last.begun.terms["server"]
        return last.state if before is not None and before["name"] == terms["server"]["name"] else b""

    @staticmethod
    def mask_after(last: StepNow | None, terms: dict[str, Any]) -> bytes:
        """The mask that a round of these terms has, empty where there is none."""
        mask = terms["mask"]
        if mask is None:
            return b""
        before = last.begun.terms["mask"] if last is not None and last.next_mask else None
        if last is not None and before is not None and mask["next"] is not None and before["next"] is not None:
            is_same = (before["digest"], before["nonzeros"]) == (mask["digest"], mask["nonzeros"])
            return last.next_mask if is_same else bytes.fromhex(mask["digest"])
        return bytes.fromhex(mask["digest"])

    def update_fields(self, name: str, payload: bytes, update: dict[int, int], weight: int) -> dict[str, Any]:
        opened = self.round or RoundNow(1, ZEROS, self.model_digest)
        return {
            "federation_id": self.federation_id, "segment": SEGMENT, "participant": name,
            "key_id": self.participants[name].public_key.key_id, "round": opened.number, "round_opened": opened.opened,
            "base_model": opened.base, "payload_sha256": sha(payload), "payload_bytes": len(payload),
            "nonzeros": len(update), "codec": 2, "support": 1, "values": 1, "weight": weight, "created_us": 1,
            "noise_std": 0, "payload_root": payload_root(payload),
        }  # fmt: skip

    def sign_update(self, fields: dict[str, Any], keys: Sequence[SigningKey]) -> tuple[bytes, bytes]:
        """Sign an update; gives the envelope's bytes and the statement digest."""
        form = pb((1, fields["codec"]), (2, fields["support"]), (3, fields["values"]))
        names = ["federation_id", "segment", "participant", "key_id", "round", "round_opened", "base_model",
                 "payload_sha256", "payload_bytes", "nonzeros"]  # fmt: skip
        raw = pb(
            *((number, fields[name]) for number, name in enumerate(names, 1)),
            (11, Present(form)), (12, fields["weight"]), (13, fields["created_us"]), (14, fields["noise_std"]),
            (15, fields["payload_root"]),
        )  # fmt: skip
        return self.enveloped("update", raw, keys)

    @staticmethod
    def facts(update: dict[int, int], **other: Any) -> bytes:
        squares = sum(value * value for value in update.values())
        tensors = sorted({0 if index < 12 else 1 for index, value in update.items() if value})
        found = {
            "nonzeros": len(update), "density_ppm": len(update) * 10**6 // COORDINATES, "norm": isqrt(squares),
            "largest": max(map(abs, update.values()), default=0), "tensors": tensors,
        } | other  # fmt: skip
        return pb(*enumerate(found.values(), 1))

    def payload_of(self, update: dict[int, int], value_type: str = "int8", support: str = "free") -> bytes:
        mask = encode_mask(self.mask_indices, COORDINATES)
        return encode_payload(
            update, COORDINATES, value_type, GRID, support=support, mask=mask, mask_indices=self.mask_indices
        )

    def form_of(self, update: dict[int, int], value_type: str = "int8", support: str = "free") -> dict[str, int]:
        """What the update's statement says of the form of `payload_of`."""
        carried = {"free": len(update), "agreed": len(self.mask_indices), "dense": COORDINATES}
        return {"values": VALUE_TYPES[value_type], "support": SUPPORTS[support], "nonzeros": carried[support]}

    def admit(self, name: str, update: dict[int, int], weight: int = 10, *, payload: bytes | None = None,
              value_type: str = "int8", support: str = "free", fields: dict[str, Any] | None = None,
              facts: dict[str, Any] | None = None,
              rule_ids: Sequence[str] = ("cleared", "known", "known"), retain_until_us: int | None = None,
              keys: Sequence[SigningKey] | None = None, keep: bool = True, void: bool = False, counted: bool = True,
              **other: Any) -> bytes:  # fmt: skip
        """Admit an update; gives its entry hash."""
        payload = self.payload_of(update, value_type, support) if payload is None else payload
        if keep:
            self.objects.put(payload)
        form = self.form_of(update, value_type, support)
        named = self.update_fields(name, payload, update, weight) | form | (fields or {})
        measured = {"nonzeros": form["nonzeros"], "density_ppm": form["nonzeros"] * 10**6 // COORDINATES}
        envelope, digest = self.sign_update(named, keys or [self.participants[name]])
        body = pb(
            (1, envelope),
            (2, Present(self.facts(update, **measured | (facts or {})))),
            (3, list(rule_ids)),
            (4, retain_until_us or self.now + 31 * DAY),
        )
        leaf = self.statement(6, body, STREAM, other.pop("writer", self.gatekeeper), void=void, **other)
        if not void and self.round is not None:
            carried = {"free": tuple(update), "agreed": tuple(self.mask_indices), "dense": tuple(range(COORDINATES))}
            norm = isqrt(sum(value * value for value in update.values()))
            shown = digest if counted else b""
            self.round.admitted.append(Admitted(name, shown, update, named["weight"], norm, carried[support]))
            self.last_digest = digest
        return leaf

    def refuse(self, name: str, reason: str, *, evidence: int = 1, peer: str | None = None,
               payload: bytes | None = None, update: dict[int, int] | None = None, weight: int = 10,
               fields: dict[str, Any] | None = None, keys: Sequence[SigningKey] | None = None, quoted: bool = True,
               facts: bytes | None = None, stream: str = STREAM, keep: bool = True, rule_ids: Sequence[str] = (),
               **other: Any) -> bytes:  # fmt: skip
        """Refuse an update; gives its entry hash."""
        update = update or {1: 5}
        payload = encode_payload(update, COORDINATES, "int8", GRID) if payload is None else payload
        if evidence == 2 and keep:
            self.objects.put(payload)
        named = self.update_fields(name, payload, update, weight) | (fields or {})
        envelope, _ = self.sign_update(named, keys or [self.participants[name]])
        body = pb(
            (1, peer or f"spiffe://rover.example/participant/{name}"),
            (2, envelope if quoted else b""),
            (3, sha(b"request")),
            (4, reason),
            (5, None if facts is None else Present(facts)),
            (6, list(rule_ids)),
            (7, evidence),
        )
        return self.statement(7, body, stream, other.pop("writer", self.gatekeeper), **other)

    def count(self, counts: Sequence[tuple[str, int, int]] = (("role", 2, 4),), *, span: tuple[int, int] = (1, 2),
              **other: Any) -> bytes:  # fmt: skip
        listed = [pb((1, reason), (2, peer_class), (3, number)) for reason, peer_class, number in counts]
        body = pb((1, span[0]), (2, span[1]), (3, listed), (4, sha(b"")))
        return self.statement(8, body, "log", other.pop("writer", self.gatekeeper), **other)

    def close(
        self, *, dropped: dict[str, str] | None = None, body: dict[str, Any] | None = None, **other: Any
    ) -> bytes:
        """Close the round; `dropped`: participant to reason."""
        assert self.round is not None
        dropped = dropped or {}
        by_name = sorted(self.round.admitted, key=lambda each: each.name)
        counted = [each for each in by_name if each.name not in dropped]
        leaves = [
            leaf_hash(each.name.encode() + b"\0" + each.digest + each.weight.to_bytes(4, "big")) for each in counted
        ]
        fields = {
            "round": self.round.number, "cause": 1 if len(by_name) >= 3 else 2,
            "outcome": 1 if len(counted) >= 2 else 2, "count": len(counted), "root": root_of(leaves),
            "dropped": [
                pb((1, each.name), (2, each.digest), (3, dropped[each.name]))
                for each in by_name
                if each.name in dropped
            ],
        } | (body or {})  # fmt: skip
        raw = pb(*((number, fields[key]) for number, key in enumerate(fields, 1)))
        leaf = self.statement(11, raw, STREAM, other.pop("writer", self.aggregator), control=True, **other)
        if not other.get("void"):
            self.closed_hash = leaf
            self.round.admitted = counted
        return leaf

    def put_model(self, values: list[int]) -> Digest:
        described = b"sfrl-manifest/v1\na\0int32\x003x4\nb\0int64\x005\n"
        header = b"SFRLMDL1" + bytes([GRID]) + bytes(7) + sha(described) + COORDINATES.to_bytes(8, "little")
        return self.objects.put(header + struct.pack("<12i5q", *values))

    def publish_model(
        self, *, body: dict[str, Any] | None = None, model: list[int] | None = None, **other: Any
    ) -> bytes:
        """Publish the closed round's model; `model`: other integers than those that come of it."""
        assert self.round is not None
        counted = self.round.admitted
        made = self.outcome(self.round, counted, range(len(counted)), self.model, self.round.state)
        after = made.model if model is None else model
        fields = self.published(self.round, self.closed_hash, self.round.base, made, after) | (body or {})
        raw = pb(*enumerate(fields.values(), 1))
        leaf = self.statement(12, raw, STREAM, other.pop("writer", self.aggregator), control=True, **other)
        if not other.get("void"):
            self.steps.append(StepNow(
                self.round.number, self.closed_hash, self.round.base, self.model, fields["model"], after, leaf, counted,
                self.round, fields["state"], fields["next_mask"],
            ))  # fmt: skip
            self.model, self.model_digest = after, fields["model"]
        return leaf

    def outcome(
        self, begun: RoundNow, rest: Sequence[Admitted], positions: Iterable[int], base: list[int], state: bytes
    ) -> Outcome:
        """What comes of these updates, on that base and state."""
        mask = self.masks.get(begun.mask, [])
        sent = [each.sent() for each in rest]
        return outcome_of(begun.terms, begun.opened, sent, list(positions), base, self.states.get(state), mask)

    def published(
        self, begun: RoundNow, closed: bytes, base: bytes, made: Outcome, after: list[int], supersedes: bytes = b""
    ) -> dict[str, Any]:
        """The fields of a model_published, in order; the objects that they name are put in their place."""
        clusters = [pb((1, members), (2, self.put_model(values))) for members, values in made.clusters]
        state = b"" if made.state is None else self.objects.put(encode_aggregate(made.state, GRID))
        if made.state is not None:
            self.states[state] = made.state
        mask = b"" if made.mask is None else self.objects.put(encode_mask(made.mask, COORDINATES))
        if made.mask is not None:
            self.masks[mask] = made.mask
        return {
            "round": begun.number, "closed": closed, "base": base,
            "aggregate": self.objects.put(encode_aggregate(made.u, GRID)), "model": self.put_model(after),
            "rule": begun.terms["rule"]["name"], "arithmetic": 1, "supersedes": supersedes, "state": state,
            "next_mask": mask, "clusters": clusters,
        }  # fmt: skip

    def publish_again(self, number: int, left_out: Iterable[str] = (), *, base: StepNow | None = None,
                      body: dict[str, Any] | None = None, **other: Any) -> bytes:  # fmt: skip
        """Publish a round's model again, without some participants' updates.

        `base`: the step before; without it, the step's own base and state.
        """
        step = next(each for each in self.steps if each.round == number)
        rest = [(n, each) for n, each in enumerate(step.counted) if each.name not in set(left_out)]
        before, values = (base.model, base.values) if base else (step.base, step.base_values)
        state = self.state_after(base, step.begun.terms) if base else step.begun.state
        made = self.outcome(step.begun, [each for _, each in rest], [n for n, _ in rest], values, state)
        again = self.published(step.begun, step.closed, before, made, made.model, step.published) | {"clusters": []}
        fields = again | (body or {})
        raw = pb(*enumerate(fields.values(), 1))
        leaf = self.statement(12, raw, STREAM, other.pop("writer", self.aggregator), control=True, **other)
        if not other.get("void"):
            step.base, step.base_values, step.model, step.values = before, values, fields["model"], made.model
            step.published, step.state, step.next_mask = leaf, fields["state"], fields["next_mask"]
            if step is self.steps[-1]:
                self.model, self.model_digest = made.model, step.model
        return leaf

    def fetch(self, fetches: Sequence[tuple[str, bytes]], *, span: tuple[int, int] = (1, 2), **other: Any) -> bytes:
        body = pb((1, span[0]), (2, span[1]), (3, [pb((1, name), (2, model)) for name, model in fetches]))
        return self.statement(15, body, STREAM, other.pop("writer", self.gatekeeper), **other)

    def anchor(self, note: bytes | None = None, **other: Any) -> bytes:
        """Put a checkpoint on record; without a note, that of everything so far."""
        body = pb((1, self.anchor_note() if note is None else note))
        return self.statement(14, body, other.pop("stream", "log"), other.pop("writer", self.audit_log), **other)

    # What participants sign beside updates

    def word(self, name: str, fields: dict[str, Any]) -> dict[str, Any]:
        key = self.participants[name].public_key.key_id
        return {"federation_id": self.federation_id, "segment": SEGMENT, "participant": name, "key_id": key} | fields

    def withdraw(self, name: str, *, fields: dict[str, Any] | None = None, keys: Sequence[SigningKey] | None = None,
                 **other: Any) -> bytes:  # fmt: skip
        """Take an update of the open round back."""
        opened = self.round or RoundNow(1, ZEROS, ZEROS)
        own = next((each.digest for each in opened.admitted if each.name == name), ZEROS)
        named = self.word(name, {"round": opened.number, "opened": opened.opened, "update": own, "created_us": 1})
        raw = pb(*enumerate((named | (fields or {})).values(), 1))
        envelope, _ = self.enveloped("withdrawal", raw, keys or [self.participants[name]])
        return self.statement(9, pb((1, envelope)), STREAM, other.pop("writer", self.gatekeeper), **other)

    def complain(self, name: str, update: dict[int, int] | None = None, *, fields: dict[str, Any] | None = None,
                 keys: Sequence[SigningKey] | None = None, **other: Any) -> bytes:  # fmt: skip
        """Put an update on record that nobody answered: the one that `refuse` and `admit` would be given."""
        update = update or {1: 5}
        payload = encode_payload(update, COORDINATES, "int8", GRID)
        named = self.update_fields(name, payload, update, 10) | (fields or {})
        envelope, _ = self.sign_update(named, keys or [self.participants[name]])
        return self.statement(10, pb((1, envelope)), STREAM, other.pop("writer", self.auditor), **other)

    def decide(self, name: str, number: int = 1, *, fields: dict[str, Any] | None = None,
               keys: Sequence[SigningKey] | None = None, **other: Any) -> bytes:  # fmt: skip
        """Record a decision; gives its statement digest."""
        shares = [pb((1, 0), (2, 3)), pb((1, 4), (2, 2 * 10**9))]
        named = self.word(name, {
            "record_seq": number, "input_commitment": sha(b"input"), "model": self.model_digest, "predicted_class": 3,
            "confidence_ppm": 900_000, "active_latents": [0, 7], "attributions": shares, "created_us": 1,
        }) | (fields or {})  # fmt: skip
        raw = pb(*enumerate(named.values(), 1))
        envelope, digest = self.enveloped("decision", raw, keys or [self.participants[name]])
        self.statement(16, pb((1, envelope)), STREAM, other.pop("writer", self.gatekeeper), **other)
        return digest

    def pass_time(self, microseconds: int) -> None:
        """Nothing happens for a while."""
        if self.anchoring:
            self.anchor()
        self.now += microseconds
        self.anchored_us = self.now

    # Whole stretches

    def begin(self) -> Writer:
        """A federation that is ready for its first round."""
        self.genesis()
        self.publish_services()
        self.publish_rules()
        self.publish_terms()
        for name in self.participants:
            self.record(name)
            self.issue(f"spiffe://rover.example/participant/{name}")
        return self

    def run_round(self, updates: dict[str, dict[int, int]], **other: Any) -> None:
        """A round from its opening to its model."""
        self.open_round()
        for name, update in updates.items():
            self.admit(name, update, **other)
        if len(updates) < 3:
            self.pass_time(600 * SECOND)
        self.close()
        self.publish_model()


def codes(findings: Iterable[Finding]) -> list[str]:
    return [finding.code for finding in findings]


def untold(replay: Replay) -> list[tuple[int, int, str]]:
    """What nobody can work out again: the entry, the round, and what of it."""
    return [(each.index, each.round, " ".join(each.what)) for each in replay.untold]
