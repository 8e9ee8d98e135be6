"""Governance documents: from a payload type and bytes to a typed document.

A `Document` was parsed strictly and nothing in it believed: see `authority` for who signed it and what it may replace.

Format: proto/README.md, "Documents".

Runs in: everything.
Trusts: nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.joins import JoinDocument, parse_join
from sfrl_secure.governance.key_revocations import KeyRevocation, parse_key_revocation
from sfrl_secure.governance.orders import Order, parse_order
from sfrl_secure.governance.participants import ParticipantRecord, parse_participant
from sfrl_secure.governance.root import GenesisDocument, RootDocument, Thresholds, parse_genesis, parse_root
from sfrl_secure.governance.rules import RulesDocument, parse_rules
from sfrl_secure.governance.services import ServicesDocument, Signatory, parse_services
from sfrl_secure.governance.terms import SegmentTerms, parse_terms

# The one module that collects names of others: whoever takes any document takes its type from here.
__all__ = [
    "DOCUMENT_TYPES", "Document", "GenesisDocument", "JoinDocument", "KeyRevocation", "Order", "ParticipantRecord",
    "RootDocument", "RulesDocument", "SegmentTerms", "ServicesDocument", "Signatory", "Thresholds", "parse_document",
]  # fmt: skip

Document = (
    RootDocument
    | GenesisDocument
    | ServicesDocument
    | RulesDocument
    | SegmentTerms
    | ParticipantRecord
    | JoinDocument
    | KeyRevocation
    | Order
)

_PARSERS: Mapping[str, Callable[[bytes], Document]] = {
    RootDocument.payload_type: parse_root,
    GenesisDocument.payload_type: parse_genesis,
    ServicesDocument.payload_type: parse_services,
    RulesDocument.payload_type: parse_rules,
    SegmentTerms.payload_type: parse_terms,
    ParticipantRecord.payload_type: parse_participant,
    JoinDocument.payload_type: parse_join,
    KeyRevocation.payload_type: parse_key_revocation,
    Order.payload_type: parse_order,
}

DOCUMENT_TYPES = frozenset(_PARSERS)
"""Payload types of documents."""


def parse_document(payload_type: str, raw: bytes) -> Document:
    """Parse a document strictly: every key present, none unknown, every range kept.

    Raises:
        MalformedError: no payload type of a document, or any other form.
    """
    parse = _PARSERS.get(payload_type)
    if parse is None:
        raise MalformedError("not the payload type of a governance document")
    return parse(raw)
