"""What came back from the log: counted, and a sample of it verified in full.

Runs in: a developer's machine.
Trusts: the trust policy. Nothing that came back.
"""

from __future__ import annotations

from collections import Counter

from sfrl_secure.crypto.envelope import Envelope
from sfrl_secure.errors import VerificationError
from sfrl_secure.translog.checkpoint import Checkpoint
from sfrl_secure.translog.entries import LoggedEntry
from sfrl_secure.translog.opened import open_checkpoint
from sfrl_secure.translog.policy import TrustPolicy
from sfrl_secure.translog.proofs import InclusionProof, verify_inclusion
from sfrl_secure.wire.audit_service import parse_append_request
from sfrl_secure.wire.entries import logged_entry_of, parse_entry
from sfrl_secure.wire.gen.sfrl.audit.v1 import audit_service_pb2

SAMPLES = 8
"""Answers of one measurement that are verified in full."""

Call = tuple[bytes, bytes]
"""A request and its answer."""


def index_of(answer: bytes) -> int:
    """Leaf index in an answer of AppendEntry."""
    return int(audit_service_pb2.AppendEntryResponse.FromString(answer).logged.index)


def count_logged(answer: bytes, errors: Counter[str]) -> int:
    """How many entries an answer of many acknowledges; the others are errors."""
    results = audit_service_pb2.AppendEntriesResponse.FromString(answer).results
    logged = sum(each.WhichOneof("result") == "logged" for each in results)
    if logged < len(results):
        errors["refused"] += len(results) - logged
    return logged


def verify_some(calls: list[Call], policy: TrustPolicy, *, is_message: bool) -> int:
    """Verify receipts A of some calls: keys of the checkpoint, inclusion, and that it is what was sent.

    Returns: how many.

    Raises:
        SfrlError: one does not hold.
    """
    step = max(len(calls) // SAMPLES, 1)
    verify = verify_message if is_message else _verify_single
    return sum(verify(request, answer, policy) for request, answer in calls[::step][:SAMPLES])


def verify_message(request: bytes, answer: bytes, policy: TrustPolicy) -> int:
    """Verify every receipt A in an answer of many."""
    message = audit_service_pb2.AppendEntriesResponse.FromString(answer)
    # All requests of a writer have one length.
    length = len(request) // len(message.results)
    checkpoint = open_checkpoint(message.checkpoint, policy, quorum=False).checkpoint
    for number, result in enumerate(message.results):
        sent = parse_append_request(request[number * length : (number + 1) * length])
        _verify(logged_entry_of(result.logged, "the entry"), checkpoint, sent)
    return len(message.results)


def _verify_single(request: bytes, answer: bytes, policy: TrustPolicy) -> int:
    message = audit_service_pb2.AppendEntryResponse.FromString(answer)
    checkpoint = open_checkpoint(message.checkpoint, policy, quorum=False).checkpoint
    _verify(logged_entry_of(message.logged, "the entry"), checkpoint, parse_append_request(request))
    return 1


def _verify(logged: LoggedEntry, checkpoint: Checkpoint, sent: Envelope) -> None:
    verify_inclusion(logged.raw, InclusionProof(logged.index, checkpoint.size, logged.path), checkpoint.root)
    if parse_entry(logged.raw).envelope != sent:
        raise VerificationError("the log acknowledged another entry than was sent")
