"""Reading single entries with proofs, and whole bundles: ProveEntries and ReadEntryBundle.

Proofs and bundles are checked by whoever acts on them, against a root that they verified themselves.

Format: proto/sfrl/audit/v1/audit_service.proto; c2sp.org/tlog-tiles for the bundle's bytes.

Runs in: audit_log (one side), gatekeeper, aggregator, verifier, auditors (the other).
Trusts: nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from sfrl_secure.errors import MalformedError
from sfrl_secure.limits import CHUNK_BYTES_MAX, MESSAGE_BYTES_MAX, PROVE_ENTRIES_MAX
from sfrl_secure.translog.entries import LoggedEntry
from sfrl_secure.translog.tiles import Bundle
from sfrl_secure.wire.canonical import (
    check_ascending,
    encode_canonical,
    parse_canonical,
    parse_message,
    take_bytes,
)
from sfrl_secure.wire.entries import logged_entry_message, logged_entry_of, take_index
from sfrl_secure.wire.gen.sfrl.audit.v1 import audit_service_pb2

_PROVE_REQUEST_BYTES_MAX = 1_024
_BUNDLE_REQUEST_BYTES_MAX = 64


@dataclass(frozen=True, slots=True)
class ProveRequest:
    """Which entries, in which tree.

    Attributes:
        indices: 1 to 64, ascending, below `tree_size`.
        tree_size: below 2**63.
    """

    indices: tuple[int, ...]
    tree_size: int

    def __post_init__(self) -> None:
        if not 1 <= len(self.indices) <= PROVE_ENTRIES_MAX:
            raise MalformedError(f"1 to {PROVE_ENTRIES_MAX} entries are proven at once")
        check_ascending(self.indices, "leaf indices")
        take_index(self.tree_size)
        if self.indices[0] < 0 or self.indices[-1] >= self.tree_size:
            raise MalformedError("a leaf index is below the size of its tree")


def encode_prove_request(request: ProveRequest) -> bytes:
    """Write the request for proofs."""
    return encode_canonical(
        audit_service_pb2.ProveEntriesRequest(indices=request.indices, tree_size=request.tree_size)
    )


def parse_prove_request(raw: bytes) -> ProveRequest:
    """Take a request for proofs.

    Raises:
        MalformedError: not one in canonical form, or indices that are not ascending and in the tree.
    """
    message = parse_canonical(audit_service_pb2.ProveEntriesRequest, raw, _PROVE_REQUEST_BYTES_MAX)
    return ProveRequest(tuple(message.indices), message.tree_size)


def encode_prove_response(logged: LoggedEntry) -> bytes:
    """Write one entry with its proof."""
    return encode_canonical(audit_service_pb2.ProveEntriesResponse(logged=logged_entry_message(logged)))


def parse_prove_response(raw: bytes) -> LoggedEntry:
    """Take one entry with its proof; the caller verifies it.

    Raises:
        MalformedError: not an answer of that form.
    """
    message = parse_message(audit_service_pb2.ProveEntriesResponse, raw, MESSAGE_BYTES_MAX)
    return logged_entry_of(message.logged, "an entry")


def encode_bundle_request(bundle: Bundle) -> bytes:
    """Write the request for a bundle."""
    return encode_canonical(audit_service_pb2.ReadEntryBundleRequest(index=bundle.index, width=bundle.width))


def parse_bundle_request(raw: bytes) -> Bundle:
    """Take a request for a bundle.

    Raises:
        MalformedError: not one in canonical form, or no such bundle can be.
    """
    message = parse_canonical(audit_service_pb2.ReadEntryBundleRequest, raw, _BUNDLE_REQUEST_BYTES_MAX)
    return Bundle(message.index, message.width)


def encode_bundle_chunk(chunk: bytes) -> bytes:
    """Write one chunk of a bundle, 1 byte to 1 MiB."""
    take_bytes(chunk, "a chunk", CHUNK_BYTES_MAX)
    return encode_canonical(audit_service_pb2.ReadEntryBundleResponse(chunk=chunk))


def parse_bundle_chunk(raw: bytes) -> bytes:
    """Take one chunk of a bundle; the caller bounds the whole.

    Raises:
        MalformedError: not an answer of that form, or an empty chunk.
    """
    message = parse_message(audit_service_pb2.ReadEntryBundleResponse, raw, MESSAGE_BYTES_MAX)
    return take_bytes(message.chunk, "a chunk", CHUNK_BYTES_MAX)
