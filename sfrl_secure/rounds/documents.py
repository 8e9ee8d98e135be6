"""Documents in the log: when one has effect, and what it changes.

Signatures, thresholds and the form of a document are `governance.authority`'s; here is what depends on the state: the
root in force, the version before, which name a key serves, whether an invitation is spent, and what an order finds.

Format: proto/README.md, "When a document has effect", "Enrolment".

Runs in: gatekeeper, aggregator, audit_log.
Trusts: the origin and the log's keys, from the trust policy. No writer.
"""

from __future__ import annotations

from sfrl_secure.crypto.envelope import Envelope
from sfrl_secure.errors import DeniedError, VerificationError
from sfrl_secure.governance.authority import (
    check_document_authority,
    check_succession,
    is_by_join_key,
    open_genesis,
)
from sfrl_secure.governance.documents import (
    Document,
    GenesisDocument,
    JoinDocument,
    KeyRevocation,
    Order,
    ParticipantRecord,
    RootDocument,
    ServicesDocument,
)
from sfrl_secure.governance.terms import SegmentTerms
from sfrl_secure.ids import Digest
from sfrl_secure.limits import JOIN_LIFETIME_US
from sfrl_secure.rounds.effects import take_terms
from sfrl_secure.rounds.identities import check_key_revocation, revoke_key, take_names
from sfrl_secure.rounds.orders import check_order, take_order
from sfrl_secure.rounds.state import FederationState, Placed


def check_document(
    state: FederationState, log_vkeys: tuple[str, str], log_time_us: int, envelope: Envelope, document: Document
) -> None:
    """Check that a document has effect if it comes next.

    Raises:
        DeniedError: it has none.
    """
    if isinstance(document, GenesisDocument):
        _check_genesis(state, log_vkeys, envelope, document)
        return
    root = state.root
    if root is None:
        raise DeniedError("genesis", "the log does not begin with an effective genesis")
    if document.federation_id != state.federation_id:
        raise DeniedError("wrong_federation", "the document belongs to another federation")
    # A federation whose root has expired takes nothing but its next root.
    if log_time_us >= root.expires_us and not isinstance(document, RootDocument):
        raise DeniedError("expired", "the root document has expired")
    join = state.join(document.name) if isinstance(document, ParticipantRecord) else None
    if join is not None and is_by_join_key(envelope, join):
        _check_invitation(state, join, log_time_us)
    check_document_authority(document, envelope, root, join=join)
    before = state.placed.get(document.series)
    check_succession(document, None if before is None else before.document, log_time_us)
    state.owners.check(document)
    if isinstance(document, JoinDocument):
        _check_join(state, document, log_time_us)
    if isinstance(document, KeyRevocation):
        check_key_revocation(state, document.spiffe_id, document.spki_sha256)
    if isinstance(document, Order):
        check_order(state, document, log_time_us)


def take_document(state: FederationState, index: int, leaf: Digest, envelope: Envelope, document: Document) -> None:
    """Put a document that was checked in force."""
    if isinstance(document, GenesisDocument):
        state.root, state.federation_id = document.root, document.federation_id
        state.placed[document.root.series] = Placed(document.root, index)
        state.owners.claim(document.root)
    else:
        state.owners.claim(document)
    join = state.join(document.name) if isinstance(document, ParticipantRecord) else None
    if join is not None and is_by_join_key(envelope, join):
        state.spent_joins.add(join.digest)
        state.invited_by[document.digest] = state.index_of_document(join.series)
    state.placed[document.series] = Placed(document, index)
    state.governance_head = leaf
    match document:
        case RootDocument():
            state.root = document
            state.root_indices.append(index)
            take_names(state, document)
        case ServicesDocument() | ParticipantRecord():
            take_names(state, document)
        case SegmentTerms():
            take_terms(state, document, index)
        case KeyRevocation():
            revoke_key(state, document.spki_sha256)
        case Order():
            take_order(state, document)
        case _:
            pass  # What is looked up by its series has no other effect.


def _check_genesis(
    state: FederationState, log_vkeys: tuple[str, str], envelope: Envelope, document: GenesisDocument
) -> None:
    if state.size != 0:
        raise DeniedError("genesis", "a log has one genesis, at index 0")
    try:
        open_genesis(envelope, document, state.origin, log_vkeys)
    except VerificationError as error:
        raise DeniedError("genesis", str(error)) from None
    state.owners.check(document.root)


def _check_invitation(state: FederationState, join: JoinDocument, log_time_us: int) -> None:
    if log_time_us >= join.expires_us:
        raise DeniedError("invitation_expired", "the invitation has expired")
    if join.digest in state.spent_joins:
        raise DeniedError("invitation_spent", "the invitation was taken up already")


def _check_join(state: FederationState, document: JoinDocument, log_time_us: int) -> None:
    record = state.participant(document.name)
    if record is not None and record.state == "revoked":
        raise DeniedError("revoked", "nobody is invited under a revoked name")
    if document.expires_us > log_time_us + JOIN_LIFETIME_US:
        raise DeniedError("lifetime", f"an invitation ends at most {JOIN_LIFETIME_US} us after it is logged")
