"""`sfrl policy show`: what is in force, in words.

Runs in: cli.
Trusts: the folder; nothing is proven.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from sfrl_secure.cli.audit import LogOption, say_reading
from sfrl_secure.cli.inputs import check_folder

if TYPE_CHECKING:
    from sfrl_secure.governance.terms import SegmentTerms
    from sfrl_secure.rounds.state import FederationState, SegmentState


def show(
    log: LogOption,
    segment: Annotated[str | None, typer.Option("--segment", help="One segment's terms, and the rules' text.")] = None,
) -> None:
    """Show what is in force at the log's end, in words: root, services, participants, invitations, orders, terms."""
    from sfrl_secure.cli.reading import read_folded

    check_folder(log, "the log")
    reading = read_folded(log)
    segments = reading.segments(segment)
    say_reading()
    state = reading.state
    if segment is None:
        for line in _federation(state):
            typer.echo(line)
        for index, reason in sorted(reading.voids.items()):
            typer.echo(f"no effect    entry {index}: {reason}")
    for each in segments:
        for line in segment_words(state, each):
            typer.echo(line)
    if segment is not None:
        for line in _rules_text(state):
            typer.echo(line)


def segment_words(state: FederationState, segment: SegmentState) -> Iterator[str]:
    """A segment: whether it is halted or derives anything again, its terms, and who is granted now."""
    from sfrl_secure.operating.document_words import terms_words

    terms = segment.terms
    until = _until(state, terms.expires_us)
    yield f"segment      {terms.segment}: terms v{terms.version}, entry {segment.terms_index}, {until}"
    halted, due = standing_words(segment)
    if halted:
        yield f"  {halted}"
    if due:
        yield f"  {due}"
    yield f"  now granted  {', '.join(granted(state, terms)) or 'nobody'}; {segment.last_round} rounds opened so far"
    for line in terms_words(terms):
        yield f"  {line}"


def standing_words(segment: SegmentState) -> tuple[str, str]:
    """What orders have put into force: halted, and which rounds are derived again; empty where nothing."""
    halted = "HALTED: no round opens and no update is admitted" if segment.is_halted else ""
    due = f"DERIVED AGAIN: round {', '.join(map(str, segment.due))}; no round opens until then" if segment.due else ""
    return halted, due


def granted(state: FederationState, terms: SegmentTerms) -> list[str]:
    """Participants who have a group of the terms and are active at the log's last time."""
    names = sorted(name for kind, name in state.placed if kind == "participant")
    return [
        name
        for name in names
        if (record := state.participant(name)) is not None
        and record.groups & terms.groups
        and state.is_active(name, state.last_time_us)
    ]


def _federation(state: FederationState) -> Iterator[str]:
    from sfrl_secure.cli.words import time_in_words

    root, services = state.root, state.services()
    assert root is not None, "read_folded found an effective genesis"
    needed = root.thresholds
    yield f"federation   {state.federation_id.hex()}"
    yield f"log          {state.origin}, {state.size} entries, the last at {time_in_words(state.last_time_us)}"
    yield (
        f"root         v{root.version}: {', '.join(sorted(root.operators))}; root takes {needed.root} of them, "
        f"governance {needed.governance}, enrolment {needed.enrolment}, revocation {needed.revocation}; "
        f"{_until(state, root.expires_us)}"
    )
    if state.root_indices:
        yield f"             rotated by entries {', '.join(map(str, state.root_indices))}"
    if services is not None:
        yield f"services     v{services.version}, {_until(state, services.expires_us)}"
        yield f"             connections by {' or '.join(sorted(services.key_exchange))}"
        for each in (*services.services, *services.auditors):
            yield f"  {each.spiffe_id.role}/{each.spiffe_id.name}: key {each.key.key_id.hex()[:16]}"
    yield from _rules(state)
    yield from _participants(state)
    yield from _invitations(state)
    yield from _revoked_keys(state)
    yield from _orders(state)


def _participants(state: FederationState) -> Iterator[str]:
    yield "participants"
    for series in sorted(state.placed):
        record = state.participant(series[1]) if series[0] == "participant" else None
        if record is not None:
            groups = ", ".join(sorted(record.groups)) or "none"
            reason = f" ({record.reason})" if record.reason else ""
            yield (
                f"  {record.name}: {record.state}{reason}, clearance {record.clearance}, groups {groups}, "
                f"v{record.version}, {_until(state, record.expires_us)}"
            )


def _invitations(state: FederationState) -> Iterator[str]:
    for kind, name in sorted(state.placed):
        join = state.join(name) if kind == "join" else None
        if join is None or join.digest in state.spent_joins or state.last_time_us >= join.expires_us:
            continue
        groups = ", ".join(sorted(join.groups)) or "none"
        yield f"invited      {name}: clearance {join.clearance}, groups {groups}, {_until(state, join.expires_us)}"


def _revoked_keys(state: FederationState) -> Iterator[str]:
    from sfrl_secure.governance.documents import KeyRevocation

    for series in sorted(state.placed):
        document = state.placed[series].document
        if isinstance(document, KeyRevocation):
            reason = f" ({document.reason})" if document.reason else ""
            yield f"revoked key  {document.spki_sha256.hex()} of {document.spiffe_id}{reason}"


def _orders(state: FederationState) -> Iterator[str]:
    from sfrl_secure.governance.documents import Order
    from sfrl_secure.operating.document_words import order_words
    from sfrl_secure.operating.order_meaning import meaning_of

    for series in sorted(state.placed):
        placed = state.placed[series]
        if isinstance(placed.document, Order):
            said = order_words(placed.document)
            meaning = meaning_of(placed.document, state)
            meant = f": {meaning}" if meaning else ""
            yield f"last order   no. {placed.document.version}, entry {placed.index}: {said}{meant}"


def _rules(state: FederationState) -> Iterator[str]:
    from sfrl_secure.governance.documents import RulesDocument

    placed = state.placed.get(("rules", ""))
    if placed is None or not isinstance(placed.document, RulesDocument):
        yield "rules        none: every update is denied"
        return
    document = placed.document
    yield f"rules        v{document.version}, entry {placed.index}, {_until(state, document.expires_us)}"


def _rules_text(state: FederationState) -> Iterator[str]:
    from sfrl_secure.governance.documents import RulesDocument

    yield from _rules(state)
    placed = state.placed.get(("rules", ""))
    if placed is not None and isinstance(placed.document, RulesDocument):
        for line in placed.document.cedar.rstrip("\n").split("\n"):
            yield f"  {line}"


def _until(state: FederationState, expires_us: int) -> str:
    from sfrl_secure.cli.words import time_in_words

    word = "EXPIRED" if state.last_time_us >= expires_us else "until"
    return f"{word} {time_in_words(expires_us)}"
