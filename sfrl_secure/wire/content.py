"""What an entry says: a statement of a service, or a document of the operators.

The payload type in the envelope, which is signed, says how the bytes are read. What participants sign, and what asks
for an identity or an object, is never an entry of its own: it stands inside a service's statement, or in a request.

Format: proto/README.md, "Signatures" and "Entry".

Runs in: everything that talks or reads the log, except replay.
Trusts: nothing; no signature is looked at here.
"""

from __future__ import annotations

from sfrl_secure.crypto.envelope import Envelope
from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.documents import Document, parse_document
from sfrl_secure.governance.statements import PARTICIPANT_TYPES, STATEMENT_TYPE, Statement
from sfrl_secure.wire.statements import parse_statement

Content = Statement | Document

GOVERNANCE_STREAM = "governance"


def parse_content(envelope: Envelope) -> Content:
    """Take what an envelope holds, by its payload type.

    Raises:
        MalformedError: an unknown payload type, one that is only quoted, or bytes that do not follow their format.
    """
    if envelope.payload_type == STATEMENT_TYPE:
        return parse_statement(envelope.statement)
    if envelope.payload_type in PARTICIPANT_TYPES:
        raise MalformedError("what participants sign is not an entry of its own")
    return parse_document(envelope.payload_type, envelope.statement)


def stream_of(envelope: Envelope) -> str | None:
    """Return the stream that an entry belongs to, or None where its content is malformed and so names none."""
    try:
        content = parse_content(envelope)
    except MalformedError:
        return None
    return content.stream if isinstance(content, Statement) else GOVERNANCE_STREAM
