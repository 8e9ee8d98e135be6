"""Entries in words: one line of each for a list, everything for one of them.

All text comes from parsers that allow printable characters only, so nothing in a log can steer a terminal.

Runs in: cli.
Trusts: nothing, and proves nothing: entries are shown as they are written.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from enum import IntEnum

from sfrl_secure.audit.published import UnverifiedEntry
from sfrl_secure.crypto.envelope import Envelope
from sfrl_secure.governance.documents import (
    Document,
    GenesisDocument,
    JoinDocument,
    KeyRevocation,
    Order,
    ParticipantRecord,
    RootDocument,
    RulesDocument,
    SegmentTerms,
    ServicesDocument,
)
from sfrl_secure.governance.statements import (
    Body,
    ComplaintRecorded,
    DecisionRecorded,
    IdentityIssued,
    ModelPublished,
    ModelsFetched,
    RefusalsCounted,
    RoundClosed,
    RoundOpened,
    Statement,
    TimeAnchored,
    UpdateAdmitted,
    UpdateRefused,
    UpdateWithdrawn,
)
from sfrl_secure.operating.document_words import names, order_words
from sfrl_secure.operating.units import count as count
from sfrl_secure.operating.units import short as short
from sfrl_secure.operating.units import time_in_words as time_in_words
from sfrl_secure.translog.merkle import leaf_hash


def kind_of(entry: UnverifiedEntry) -> str:
    """What an entry records."""
    if isinstance(entry.content, Statement):
        return entry.content.kind.name.lower()
    return "not readable" if entry.content is None else entry.content.series[0]


def writer_of(entry: UnverifiedEntry) -> str:
    """Who says to have written it: the role and name of a service or auditor, or who may sign such a document."""
    if isinstance(entry.content, Statement):
        return f"{entry.content.writer.role}/{entry.content.writer.name}"
    if isinstance(entry.content, ParticipantRecord):
        return "operators or a join key"
    return "-" if entry.content is None else "operators"


def what_of(entry: UnverifiedEntry) -> str:
    """What it says, in one line."""
    if entry.entry is None:
        return f"{len(entry.raw)} bytes that are no entry"
    if entry.content is None:
        return "what was signed does not parse"
    if isinstance(entry.content, Statement):
        segment = entry.content.stream.removeprefix("segment/")
        where = f"{segment}: " if segment != entry.content.stream else ""
        return where + _body_in_words(entry.content.body)
    return _document_in_words(entry.content)


def entry_in_full(entry: UnverifiedEntry) -> Iterator[str]:
    """Everything that an entry holds, line by line."""
    yield f"index            {entry.index}"
    yield f"entry_hash       {leaf_hash(entry.raw).hex()}"
    yield f"bytes            {len(entry.raw)}"
    if entry.entry is None:
        yield "these bytes are not an entry"
        return
    yield f"prev             {entry.entry.prev.hex()}"
    yield f"log_time         {time_in_words(entry.entry.log_time_us)}"
    yield f"stream_seq       {entry.entry.stream_seq}"
    yield f"stream_prev      {entry.entry.stream_prev.hex()}"
    yield f"payload_type     {entry.entry.envelope.payload_type}"
    yield f"statement_digest {entry.entry.envelope.digest.hex()}"
    for signature in entry.entry.envelope.signatures:
        yield f"signature        {signature.suite} by key {signature.key_id.hex()}"
    if entry.content is None:
        yield "what was signed does not parse"
    elif isinstance(entry.content, Statement):
        yield from _value_in_lines("statement", entry.content, 0)
    else:
        yield "document, exactly as signed:"
        yield entry.content.raw.decode("utf-8")


def _body_in_words(body: Body) -> str:
    match body:
        case IdentityIssued():
            renews = "" if body.renews is None else f", renews {short(body.renews)}"
            return f"{body.spiffe_id} until {time_in_words(body.not_after_us)}{renews}"
        case RoundOpened():
            state = "" if body.server_state is None else f", server state {short(body.server_state)}"
            mask = "" if body.mask is None else f", mask {short(body.mask)}"
            return f"round {body.round} opens on model {short(body.base_model)}{state}{mask}"
        case UpdateAdmitted():
            update = body.update
            nonzeros = count(update.nonzeros, "nonzero")
            return f"round {update.round}, {update.participant}: {nonzeros}, weight {update.weight}"
        case UpdateRefused():
            return f"{body.peer.role}/{body.peer.name}: {body.reason}, evidence {body.evidence.name.lower()}"
        case RefusalsCounted():
            counts = ", ".join(f"{each.count} {each.reason} ({each.peer_class.name.lower()})" for each in body.counts)
            return counts or "none"
        case RoundClosed():
            dropped = "".join(f", dropped {each.participant} ({each.reason})" for each in body.dropped)
            cause, outcome = body.cause.name.lower(), body.outcome.name.lower()
            return f"round {body.round} {outcome} ({cause}): {body.counted_count} counted{dropped}"
        case ModelPublished():
            again = "" if body.supersedes is None else f", in the place of entry {short(body.supersedes)}"
            state = "" if body.server_state is None else f", server state {short(body.server_state)}"
            mask = "" if body.next_mask is None else f", next mask {short(body.next_mask)}"
            clusters = f", {count(len(body.clusters), 'cluster')}" if body.clusters else ""
            return f"round {body.round}: model {short(body.model)} by {body.rule}{clusters}{state}{mask}{again}"
        case ModelsFetched():
            return ", ".join(f"{each.participant} took {short(each.model)}" for each in body.fetches)
        case TimeAnchored():
            return f"checkpoint of size {body.checkpoint.size}, root {short(body.checkpoint.root)}"
        case UpdateWithdrawn():
            withdrawn = body.withdrawal
            return f"round {withdrawn.round}, {withdrawn.participant} takes back update {short(withdrawn.update)}"
        case ComplaintRecorded():
            return f"round {body.update.round}, {body.update.participant}: no gatekeeper answered its update"
        case DecisionRecorded():
            decided = body.decision
            sure = f"{decided.confidence_ppm / 10_000:g} % sure"
            return f"{decided.participant}, no. {decided.record_seq}: class {decided.predicted_class}, {sure}"


def _document_in_words(document: Document) -> str:
    match document:
        case GenesisDocument():
            return f"federation {short(document.federation_id)}, operators {', '.join(sorted(document.root.operators))}"
        case RootDocument():
            return f"v{document.version}, operators {', '.join(sorted(document.operators))}"
        case ServicesDocument():
            services, auditors = count(len(document.services), "service"), count(len(document.auditors), "auditor")
            return f"v{document.version}, {services}, {auditors}"
        case RulesDocument():
            return f"v{document.version}, {len(document.cedar)} characters of Cedar"
        case SegmentTerms():
            coordinates = count(document.model.manifest.coordinates, "coordinate")
            return f"v{document.version} of {document.segment}, {coordinates}"
        case ParticipantRecord():
            reason = f": {document.reason}" if document.reason else ""
            return f"v{document.version} of {document.name}, {document.state}{reason}"
        case JoinDocument():
            return f"v{document.version} for {document.name}, groups {names(document.groups)}"
        case KeyRevocation():
            return f"{document.spiffe_id}: TLS key {short(document.spki_sha256)}"
        case Order():
            return f"no. {document.version}: {order_words(document)}"


def _value_in_lines(name: str, value: object, depth: int) -> Iterator[str]:
    margin = "  " * depth
    if isinstance(value, Envelope):
        yield f"{margin}{name}: signed as {value.payload_type}, statement digest {value.digest.hex()}"
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield f"{margin}{name}:"
        for field in dataclasses.fields(value):
            # The envelope's bytes are its parsed form over again.
            if field.name != "envelope_raw":
                yield from _value_in_lines(field.name, getattr(value, field.name), depth + 1)
    elif isinstance(value, tuple) and value and dataclasses.is_dataclass(value[0]):
        for position, each in enumerate(value):
            yield from _value_in_lines(f"{name}[{position}]", each, depth)
    else:
        yield f"{margin}{name}: {_plain(name, value)}"


def _plain(name: str, value: object) -> str:
    if isinstance(value, bytes):
        return value.hex() or "none"
    if isinstance(value, IntEnum):
        return value.name.lower()
    if isinstance(value, int) and name.endswith("_us"):
        return time_in_words(value)
    if isinstance(value, tuple):
        return ", ".join(str(each) for each in value) or "none"
    return "none" if value is None else str(value)
