"""Authority, proven from a few entries: who the operators are, and which service may write what.

A light client has no fold. It has one checkpoint under the quorum, the genesis entry whose root its origin names, every
root since, each signed for the one before and for itself, and the services documents that the operators signed; with
these it checks each entry that it is shown. What stands at an index is judged by the newest root before it.

Format: proto/README.md, "Receipts"; PROTOCOL 2.

Runs in: participant, cli.
Trusts: the trust policy. Nothing in what it is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeVar

from sfrl_secure.crypto.envelope import verify_single
from sfrl_secure.errors import DeniedError, MalformedError, VerificationError
from sfrl_secure.governance.authority import check_document_authority, check_succession, open_genesis
from sfrl_secure.governance.documents import (
    DOCUMENT_TYPES,
    Document,
    GenesisDocument,
    JoinDocument,
    RootDocument,
    ServicesDocument,
    parse_document,
)
from sfrl_secure.governance.statements import Body, Statement
from sfrl_secure.ids import Digest
from sfrl_secure.translog.entries import LogEntry, LoggedEntry
from sfrl_secure.translog.merkle import leaf_hash
from sfrl_secure.translog.opened import OpenedCheckpoint, open_checkpoint
from sfrl_secure.translog.policy import TrustPolicy
from sfrl_secure.translog.proofs import InclusionProof, verify_inclusion
from sfrl_secure.wire.content import parse_content
from sfrl_secure.wire.entries import parse_entry

B = TypeVar("B", bound=Body)
D = TypeVar("D", bound=Document)
DOCUMENTS_KEPT: Final = 16
"""Documents whose parsed form is kept: each round shows the same few again."""


@dataclass(frozen=True, slots=True)
class ProvenStatement:
    """A statement that is in the log and signed by a service whose role may write it.

    Attributes:
        index: leaf index of its entry.
        entry_hash: its entry hash.
        entry: the entry, with the log's time.
    """

    index: int
    entry_hash: Digest
    entry: LogEntry
    statement: Statement


class Authority:
    """The operators and services of a federation, as one checkpoint proves them."""

    def __init__(self, raw_checkpoint: bytes, policy: TrustPolicy, genesis: LoggedEntry,
                 services: Sequence[LoggedEntry], *, roots: Sequence[LoggedEntry] = (), quorum: bool,
                 archived: bool = False) -> None:
        """Verify the checkpoint, genesis, the roots after it and the services documents.

        Args:
            roots: the root documents after genesis, by rising version, from 2 on without a gap.
            quorum: whether the witness quorum is demanded, beside all keys of the log.
            archived: whether keys that the log no longer uses are enough: for what was kept.

        Raises:
            VerificationError: a proof or signature does not hold.
            MalformedError: something does not parse.
        """
        self.policy = policy
        self.opened: OpenedCheckpoint = open_checkpoint(raw_checkpoint, policy, quorum=quorum, archived=archived)
        origin = self.opened.checkpoint.origin
        log = policy.log(origin)
        assert log is not None, "open_checkpoint found the log"
        try:
            vkeys = log.genesis_vkeys
        except MalformedError:
            raise VerificationError("a federation's log has two keys in the trust policy") from None
        if genesis.index != 0:
            raise VerificationError("genesis is entry 0")
        entry, document = self._document(genesis, GenesisDocument)
        try:
            open_genesis(entry.envelope, document, origin, vkeys)
        except DeniedError as denial:
            raise VerificationError(str(denial)) from None
        self.federation_id: Digest = document.federation_id
        self._roots: list[tuple[int, RootDocument]] = [(0, document.root)]
        for logged in roots:
            self._add_root(logged)
        self._services = [(logged.index, self.document(logged, ServicesDocument)) for logged in services]

    @property
    def roots(self) -> tuple[RootDocument, ...]:
        """Every root that was shown, from version 1 on without a gap."""
        return tuple(root for _, root in self._roots)

    def document(self, logged: LoggedEntry, kind: type[D], *, join: LoggedEntry | None = None) -> D:
        """Verify that a document is in the log, of this federation, and under its threshold or its join key.

        Args:
            join: the invitation that a participant's record was made by, where operators did not sign the record. It
                stands before the record, under its own threshold, and had not expired then. That no other record was
                made by it is not shown.

        Raises:
            VerificationError: it is not.
        """
        entry, document = self._document(logged, kind)
        invitation = None
        if join is not None:
            invitation = self.document(join, JoinDocument)
            if join.index >= logged.index or entry.log_time_us >= invitation.expires_us:
                raise VerificationError("the invitation came after the record, or had expired")
        root = next(root for index, root in reversed(self._roots) if index < logged.index or index == 0)
        if document.federation_id != self.federation_id:
            raise VerificationError("the document belongs to another federation")
        if entry.log_time_us >= root.expires_us:
            raise VerificationError("the root had expired when the document was written")
        try:
            check_document_authority(document, entry.envelope, root, join=invitation)
        except DeniedError as denial:
            raise VerificationError(str(denial)) from None
        return document

    def statement(
        self, logged: LoggedEntry, body: type[B], role: str, stream: str, *, in_force_now: bool = False
    ) -> tuple[ProvenStatement, B]:
        """Verify that a service of `role` wrote a statement of this kind into `stream`, and that it is in the log.

        Args:
            in_force_now: whether the newest services document that was shown decides who has the role, instead of the
                newest before the entry: for what is acted on now, such as a round that was opened before the operators
                renewed their document.

        Raises:
            VerificationError: it is not so.
        """
        entry = self._included(logged)
        content = parse_content(entry.envelope)
        if not isinstance(content, Statement) or not isinstance(content.body, body) or content.stream != stream:
            raise VerificationError("the entry is not of the kind and stream that it stands for")
        if content.federation_id != self.federation_id:
            raise VerificationError("the statement belongs to another federation")
        shown = [document for index, document in self._services if in_force_now or index < logged.index]
        signatory = shown[-1].service_by_key(content.key_id) if shown else None
        if signatory is None or signatory.spiffe_id != content.writer or content.writer.role != role:
            raise VerificationError("the services document does not give the entry's writer this role and key")
        if entry.log_time_us >= shown[-1].expires_us:
            raise VerificationError("the services document had expired when the entry was written")
        verify_single(entry.envelope, signatory.key)
        proven = ProvenStatement(logged.index, leaf_hash(logged.raw), entry, content)
        return proven, content.body

    def _add_root(self, logged: LoggedEntry) -> None:
        """Go on to the next root; the one before may have expired, since nothing but a root could follow it."""
        entry, document = self._document(logged, RootDocument)
        index, before = self._roots[-1]
        if logged.index <= index:
            raise VerificationError("roots stand in the log by rising version")
        if document.federation_id != self.federation_id:
            raise VerificationError("the root belongs to another federation")
        try:
            check_document_authority(document, entry.envelope, before)
            check_succession(document, before, entry.log_time_us)
        except DeniedError as denial:
            raise VerificationError(str(denial)) from None
        self._roots.append((logged.index, document))

    def _document(self, logged: LoggedEntry, kind: type[D]) -> tuple[LogEntry, D]:
        entry = self._included(logged)
        envelope = entry.envelope
        is_document = envelope.payload_type in DOCUMENT_TYPES
        document = _parsed(envelope.payload_type, envelope.statement) if is_document else None
        if not isinstance(document, kind):
            raise VerificationError("the entry is not the document that it stands for")
        return entry, document

    def _included(self, logged: LoggedEntry) -> LogEntry:
        checkpoint = self.opened.checkpoint
        try:
            proof = InclusionProof(logged.index, checkpoint.size, logged.path)
        except MalformedError as error:
            raise VerificationError(str(error)) from None
        verify_inclusion(logged.raw, proof, checkpoint.root)
        return parse_entry(logged.raw)


@lru_cache(maxsize=DOCUMENTS_KEPT)
def _parsed(payload_type: str, raw: bytes) -> Document:
    """What these bytes say, whoever signed them: proofs and signatures are looked at each time."""
    return parse_document(payload_type, raw)
