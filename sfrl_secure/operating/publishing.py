"""Publishing a document: signatures gathered and counted at home, then one append to the log.

Which signature is missing, and who could give it, is said before anything is sent; and where the operator's machine has
just read what is in force, everything else that the log would refuse. The log judges all the same, and its answer is
believed only as far as it proves that exactly this document is in it.

Format: proto/README.md, "When a document has effect".

Runs in: operators' machines, cli.
Trusts: the trust policy, and the state that it is given. Nothing in a request, a signature or an answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from sfrl_secure.crypto.envelope import Envelope, Signature, verify_single
from sfrl_secure.crypto.keys import PublicKey
from sfrl_secure.errors import DeniedError, MalformedError, SignatureError, VerificationError
from sfrl_secure.governance.authority import threshold_of
from sfrl_secure.governance.documents import RootDocument
from sfrl_secure.ids import Digest
from sfrl_secure.operating.signing import DetachedSignature, SigningRequest
from sfrl_secure.operating.units import time_in_words
from sfrl_secure.rounds.documents import check_document
from sfrl_secure.rounds.state import FederationState
from sfrl_secure.translog.opened import open_checkpoint
from sfrl_secure.translog.policy import TrustPolicy
from sfrl_secure.translog.proofs import InclusionProof, verify_inclusion
from sfrl_secure.translog.tlog_proof import TlogProof, format_tlog_proof
from sfrl_secure.wire.audit_service import AppendedEntry
from sfrl_secure.wire.entries import parse_entry

_BUILD_AGAIN = "build it again from the log as it is now, and have it signed again"

_ADVICE = {
    "version": f"another version was published meanwhile: {_BUILD_AGAIN}",
    "previous": f"another version was published meanwhile: {_BUILD_AGAIN}",
    "expired": "build it again with a later expiry; where the root itself has expired, publish its next version first "
    "(`sfrl policy root`)",
    "lifetime": "build it again with an earlier expiry",
    "revoked": "a revoked name is never used again: invite the participant under another one",
    "wrong_name": "a TLS key is revoked under the name that it was issued to: leave `--spiffe-id` out",
    "key_reused": "a key serves one name for ever: make a new one",
    "wrong_federation": "it was built for another federation than this log's",
    "model_changed": "leave the table [model] out of the draft: the segment's stays",
    "reveals": "what it reveals has changed meanwhile: run `sfrl round reaggregate` again",
}


class DocumentLog(Protocol):
    """A log that takes documents: `rpc.clients.AuditLogClient`, or one in memory."""

    def append(self, envelope: Envelope) -> AppendedEntry:
        """Append an envelope, once, however often it is tried."""
        ...


@dataclass(frozen=True, slots=True)
class Need:
    """Whose signatures a document needs.

    Attributes:
        root_version: of the root whose operators are counted.
        signed: operators whose signature holds; `could_sign` are the others. Both sorted.
    """

    root_version: int
    threshold: int
    signed: tuple[str, ...]
    could_sign: tuple[str, ...]

    @property
    def missing(self) -> int:
        """How many more must sign."""
        return max(0, self.threshold - len(self.signed))

    def __str__(self) -> str:
        of = f"{self.threshold} of the operators of root v{self.root_version}"
        had = f"{of}: signed by {', '.join(self.signed) or 'nobody'}"
        if not self.missing:
            return had
        return f"{had}; {self.missing} more of {', '.join(self.could_sign) or 'nobody'}"


@dataclass(frozen=True, slots=True)
class Gathered:
    """A request and the signatures that hold.

    Attributes:
        envelope: None while there is no signature.
        needs: one, or for a root two: the root before and itself.
        owners: whose each key is, of those who may sign.
    """

    request: SigningRequest
    envelope: Envelope | None
    needs: tuple[Need, ...]
    owners: Mapping[Digest, str] = field(default_factory=dict)

    @property
    def is_enough(self) -> bool:
        """Whether every threshold is met."""
        return self.envelope is not None and not any(need.missing for need in self.needs)


@dataclass(frozen=True, slots=True)
class Published:
    """A document in the log, proven.

    Attributes:
        tree_size: of the checkpoint, under the log's keys, that the entry is proven to lie in.
        proof: the `.tlog-proof` with the entry in it, to keep.
        signed_by: key ids of the signatures that the entry holds.
        was_there: it had been published before, and nothing was changed by this time.
    """

    index: int
    log_time_us: int
    tree_size: int
    entry_digest: Digest
    proof: bytes
    signed_by: tuple[Digest, ...]
    was_there: bool


def roots_counted(request: SigningRequest, root: RootDocument) -> tuple[RootDocument, ...]:
    """The roots whose operators must sign: the one in force, and of a new root itself too."""
    return (root, request.document) if isinstance(request.document, RootDocument) else (root,)


def owners_of(request: SigningRequest, root: RootDocument) -> dict[Digest, str]:
    """Whose each key is, of those who may sign a request."""
    return {
        key.key_id: name for each in roots_counted(request, root) for name, key in sorted(each.operators.items())
    }


def gather(
    request: SigningRequest,
    signatures: Sequence[DetachedSignature],
    root: RootDocument,
    files: Sequence[str] = (),
) -> Gathered:
    """Verify each signature, and count.

    Args:
        root: the root in force.
        files: what each signature is called in an error; by default its key.

    Raises:
        MalformedError: a signature over another document.
        DeniedError: `threshold`, a signature of nobody who may sign.
        SignatureError: one that does not hold: says whose.
    """
    counted = roots_counted(request, root)
    keys: dict[Digest, tuple[str, PublicKey]] = {
        key.key_id: (name, key) for each in counted for name, key in each.operators.items()
    }
    found: dict[Digest, Signature] = {}
    called = files or [f"the signature by key {each.signature.key_id.hex()[:16]}" for each in signatures]
    for each, what in zip(signatures, called, strict=True):
        if (each.digest, each.payload_type) != (request.digest, request.payload_type):
            raise MalformedError(
                f"{what} is over another document than the request: sign this request, with `sfrl policy sign`"
            )
        owner = keys.get(each.signature.key_id)
        if owner is None:
            known = ", ".join(sorted({name for name, _ in keys.values()}))
            raise DeniedError("threshold", f"{what} is of nobody who may sign; the operators are {known}")
        try:
            verify_single(Envelope(each.payload_type, request.payload, (each.signature,)), owner[1])
        except SignatureError:
            raise SignatureError(f"{what}, of {owner[0]}, does not hold: have the request signed again") from None
        # An ML-DSA signature is another each time: the first will do.
        found.setdefault(each.signature.key_id, each.signature)
    ordered = tuple(found[key_id] for key_id in sorted(found))
    envelope = Envelope(request.payload_type, request.payload, ordered) if ordered else None
    needs = tuple(_need(request, each, found) for each in counted)
    return Gathered(request, envelope, needs, {key_id: name for key_id, (name, _) in keys.items()})


def check_enough(gathered: Gathered) -> Envelope:
    """Check that every threshold is met, and give the envelope.

    Raises:
        DeniedError: `threshold`; says who has signed and who still could.
    """
    if gathered.envelope is None or not gathered.is_enough:
        raise DeniedError("threshold", f"too few have signed; it takes {'; and '.join(map(str, gathered.needs))}")
    return gathered.envelope


def check_effect(envelope: Envelope, request: SigningRequest, state: FederationState, now_us: int) -> None:
    """Check everything that the log will check, on the state that we have.

    Raises:
        DeniedError: it would have no effect; says why and what to do next.
    """
    try:
        check_document(state, ("", ""), now_us, envelope, request.document)
    except DeniedError as denied:
        raise _advised(denied) from None


def publish(
    gathered: Gathered, log: DocumentLog, policy: TrustPolicy, *, state: FederationState | None = None, now_us: int = 0
) -> Published:
    """Append a document, and verify that the log has it.

    Args:
        state: what is in force now, to look first for what the log would refuse; without it the log alone judges.

    Raises:
        DeniedError: too few have signed, or it has no effect; says why and what to do next.
        VerificationError: the answer does not prove that the document is in the log of the trust policy.
        UnavailableError: the log does not answer: it can be published again, it is taken once.
    """
    envelope = check_enough(gathered)
    # What is in the log already is answered with its entry, whatever has happened since.
    was_there = state is not None and state.statements.get(envelope.digest) is not None
    if state is not None and not was_there:
        check_effect(envelope, gathered.request, state, now_us)
    try:
        appended = log.append(envelope)
    except DeniedError as denied:
        raise _advised(denied) from None
    return _open(appended, envelope, policy, was_there=was_there)


def _need(request: SigningRequest, root: RootDocument, found: Mapping[Digest, object]) -> Need:
    threshold = threshold_of(request.document, root)
    # Whoever shares a key is one signer: the log refuses such a root, and here one signature is never two.
    by_key = {root.operators[name].key_id: name for name in sorted(root.operators, reverse=True)}
    signed = tuple(sorted(name for key_id, name in by_key.items() if key_id in found))
    return Need(root.version, threshold, signed, tuple(name for name in sorted(root.operators) if name not in signed))


def _advised(denied: DeniedError) -> DeniedError:
    advice = _ADVICE.get(denied.reason)
    return denied if advice is None else DeniedError(denied.reason, f"{denied}: {advice}")


def _open(appended: AppendedEntry, sent: Envelope, policy: TrustPolicy, *, was_there: bool) -> Published:
    logged = appended.logged
    checkpoint = open_checkpoint(appended.checkpoint, policy, quorum=False).checkpoint
    try:
        proof = InclusionProof(logged.index, checkpoint.size, logged.path)
    except MalformedError as error:
        raise VerificationError(str(error)) from None
    verify_inclusion(logged.raw, proof, checkpoint.root)
    entry = parse_entry(logged.raw)
    if entry.envelope.digest != sent.digest:
        raise VerificationError("the log answers with another entry than the document that was sent")
    kept = format_tlog_proof(TlogProof(logged.raw, logged.index, logged.path, appended.checkpoint))
    signed_by = tuple(each.key_id for each in entry.envelope.signatures)
    # The log keeps the first envelope: other signatures than ours were there before us.
    was_there = was_there or set(entry.envelope.signatures) != set(sent.signatures)
    return Published(
        logged.index, entry.log_time_us, checkpoint.size, entry.envelope.digest, kept, signed_by, was_there
    )


def published_words(published: Published) -> str:
    """Where a document stands, in a sentence."""
    return (
        f"entry {published.index}, logged {time_in_words(published.log_time_us)}, under a checkpoint of size "
        f"{published.tree_size} that the log's keys sign"
    )
