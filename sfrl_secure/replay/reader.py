"""From bytes to entries and statements, as the replay reads them; no signature is looked at.

Each `parse_*` wants canonical bytes and checks every length, range and order that the schema states. Bodies are read in
`bodies`, what participants sign in `words_reader`.

Format: proto/README.md, "Canonical form", "Entry", "Statements"; the schemas beside it.

Runs in: verifier.
Trusts: nothing.
"""

from __future__ import annotations

from sfrl_secure.errors import MalformedError
from sfrl_secure.ids import parse_digest, parse_segment, parse_spiffe_id
from sfrl_secure.limits import ENTRY_BYTES_MAX
from sfrl_secure.replay import schema
from sfrl_secure.replay.bodies import BODIES
from sfrl_secure.replay.message_fields import read_message, take_envelope, take_required
from sfrl_secure.replay.statements import Statement
from sfrl_secure.translog.entries import LogEntry


def parse_entry(raw: bytes) -> LogEntry:
    """Read a leaf of the log.

    Raises:
        MalformedError: not an entry in canonical form.
    """
    fields = read_message(raw, schema.LOG_ENTRY, ENTRY_BYTES_MAX)
    return LogEntry(
        prev=parse_digest(fields["prev"]),
        log_time_us=take_required(fields["log_time_us"]),
        stream_seq=fields["stream_seq"],
        stream_prev=parse_digest(fields["stream_prev"]),
        envelope=take_envelope(fields),
    )


def parse_statement(raw: bytes) -> Statement:
    """Read a service's statement.

    Raises:
        MalformedError: not in canonical form, or the kind does not say what the body is.
    """
    fields = read_message(raw, schema.STATEMENT, ENTRY_BYTES_MAX)
    bodies = [name for name in BODIES if fields[name] is not None]
    if len(bodies) != 1:
        raise MalformedError("a statement has one body")
    kind, parse_body = BODIES[bodies[0]]
    if fields["kind"] != kind:
        raise MalformedError("the kind says what the body is")
    if len(fields["request_id"]) != 16:
        raise MalformedError("a request id is 16 bytes")
    return Statement(
        federation_id=parse_digest(fields["federation_id"]),
        stream=_parse_stream(fields["stream"]),
        kind=kind,
        writer=parse_spiffe_id(fields["writer"]),
        key_id=parse_digest(fields["key_id"]),
        reads_governance=parse_digest(fields["reads_governance"]),
        reads_segment=parse_digest(fields["reads_segment"]),
        valid_until_us=take_required(fields["valid_until_us"]),
        body=parse_body(fields[bodies[0]]),
    )


def _parse_stream(stream: str) -> str:
    # `governance` holds documents only, so no statement can name it.
    if stream not in ("identity", "log"):
        if not stream.startswith("segment/"):
            raise MalformedError("a statement's stream is identity, log or segment/<id>")
        parse_segment(stream.removeprefix("segment/"))
    return stream
