"""Offline proofs of logging: one file that shows, years later and without a network, that an entry is in the log.

The format leaves the `extra` line unauthenticated; ours holds the entry's bytes, which count only because their leaf
hash is the proven one.

Format: c2sp.org/tlog-proof v1; receipts: PROTOCOL 8.

Runs in: gatekeeper, participant, verifier.
Trusts: the trust policy. Nothing in the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from sfrl_secure.errors import MalformedError
from sfrl_secure.ids import Digest
from sfrl_secure.limits import ENTRY_BYTES_MAX, NOTE_BYTES_MAX
from sfrl_secure.translog.canonical_text import (
    COUNT_END,
    format_base64,
    parse_base64,
    parse_base64_digest,
    parse_decimal,
    parse_utf8,
)
from sfrl_secure.translog.opened import OpenedCheckpoint, open_checkpoint
from sfrl_secure.translog.policy import TrustPolicy
from sfrl_secure.translog.proofs import PATH_HASHES_MAX, InclusionProof, check_path, verify_inclusion

MAGIC = "c2sp.org/tlog-proof@v1"
"""First line."""

_HEAD_BYTES_MAX = len(MAGIC) + (ENTRY_BYTES_MAX + 2) // 3 * 4 + PATH_HASHES_MAX * 45 + 64

TLOG_PROOF_BYTES_MAX = _HEAD_BYTES_MAX + NOTE_BYTES_MAX
"""One proof, with an entry in its `extra` line."""


@dataclass(frozen=True, slots=True)
class TlogProof:
    """A proof file, parsed and unverified.

    Attributes:
        extra: the bytes of the `extra` line, at most 65,535; none without such a line.
        leaf_index: from 0.
        path: audit path, at most 63 hashes.
        note: the checkpoint note as it stands.
    """

    extra: bytes | None
    leaf_index: int
    path: tuple[Digest, ...]
    note: bytes

    def __post_init__(self) -> None:
        if self.extra is not None and len(self.extra) > ENTRY_BYTES_MAX:
            raise MalformedError(f"extra data is at most {ENTRY_BYTES_MAX} bytes")
        if not 0 <= self.leaf_index < COUNT_END:
            raise MalformedError("a leaf index is below 2**63")
        check_path(self.path)
        if len(self.note) > NOTE_BYTES_MAX:
            raise MalformedError(f"a note is at most {NOTE_BYTES_MAX} bytes")


class OpenedEntry(NamedTuple):
    """An entry that is in the log.

    Attributes:
        entry: its bytes, whose leaf hash was proven.
        leaf_index: its place.
        checkpoint: the checkpoint that it was proven under.
        path: how.
    """

    entry: bytes
    leaf_index: int
    checkpoint: OpenedCheckpoint
    path: tuple[Digest, ...]


def format_tlog_proof(proof: TlogProof) -> bytes:
    """Write a proof file."""
    lines = [MAGIC]
    if proof.extra is not None:
        lines.append(f"extra {format_base64(proof.extra)}")
    lines.append(f"index {proof.leaf_index}")
    lines += [format_base64(step) for step in proof.path]
    return ("\n".join(lines) + "\n\n").encode() + proof.note


def is_tlog_proof(raw: bytes) -> bool:
    """Say whether bytes begin as a proof file does."""
    return raw.startswith(f"{MAGIC}\n".encode())


def parse_tlog_proof(raw: bytes) -> TlogProof:
    """Parse a proof file. The note inside is not yet looked at.

    Raises:
        MalformedError: not of the form, or above our bounds.
    """
    if len(raw) > TLOG_PROOF_BYTES_MAX:
        raise MalformedError(f"a proof is at most {TLOG_PROOF_BYTES_MAX} bytes")
    head, separator, note = bytes(raw).partition(b"\n\n")
    if not separator:
        raise MalformedError("a proof has an empty line before its checkpoint")
    lines = parse_utf8(head, bytes_max=_HEAD_BYTES_MAX).split("\n")
    if lines.pop(0) != MAGIC:
        raise MalformedError(f"the first line of a proof is {MAGIC}")
    extra = None
    if lines and lines[0].startswith("extra "):
        extra = parse_base64(lines.pop(0).removeprefix("extra "), bytes_max=ENTRY_BYTES_MAX)
    if not lines or not lines[0].startswith("index "):
        raise MalformedError("a proof has one index line, after the extra line if there is one")
    leaf_index = parse_decimal(lines.pop(0).removeprefix("index "))
    return TlogProof(extra, leaf_index, tuple(parse_base64_digest(line) for line in lines), note)


def open_tlog_proof(
    raw: bytes, policy: TrustPolicy, *, quorum: bool = True, archived: bool = False
) -> OpenedEntry:
    """Parse a proof file whose `extra` line is the entry, and verify checkpoint, quorum and inclusion.

    Args:
        archived: whether keys that the log no longer uses are enough: see `open_checkpoint`.

    Raises:
        MalformedError: not of the form; no `extra` line; an index outside the tree.
        SignatureError, VerificationError: the checkpoint does not open under the policy.
        InclusionError: the entry in `extra` is not the proven leaf.
    """
    proof = parse_tlog_proof(raw)
    if proof.extra is None:
        raise MalformedError("a receipt holds its entry in the extra line")
    opened = open_checkpoint(proof.note, policy, quorum=quorum, archived=archived)
    inclusion = InclusionProof(proof.leaf_index, opened.checkpoint.size, proof.path)
    verify_inclusion(proof.extra, inclusion, opened.checkpoint.root)
    return OpenedEntry(proof.extra, proof.leaf_index, opened, proof.path)
