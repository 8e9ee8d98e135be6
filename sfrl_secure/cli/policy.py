"""`sfrl policy`: who may do what, in words.

Runs in: cli.
Trusts: whoever types.
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

app = typer.Typer(help="Who may do what.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    # A group that has one command and no callback, typer takes for the command itself.
    pass


@app.command()
def show(
    log: LogOption,
    segment: Annotated[str | None, typer.Option("--segment", help="One segment's terms, and the rules' text.")] = None,
) -> None:
    """Show the documents in force at the log's end, in words."""
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
        for line in _terms(state, each):
            typer.echo(line)
    if segment is not None:
        for line in _rules_text(state):
            typer.echo(line)


def _federation(state: FederationState) -> Iterator[str]:
    from sfrl_secure.cli.words import time_in_words

    root, services = state.root, state.services()
    assert root is not None, "read_folded found an effective genesis"
    needed = root.thresholds
    yield f"federation   {state.federation_id.hex()}"
    yield f"log          {state.origin}, {state.size} entries, the last at {time_in_words(state.last_time_us)}"
    yield (
        f"root         v{root.version}: {', '.join(sorted(root.operators))}; governance takes {needed.governance} of "
        f"them, enrolment {needed.enrolment}, revocation {needed.revocation}; {_until(state, root.expires_us)}"
    )
    if services is not None:
        yield f"services     v{services.version}, {_until(state, services.expires_us)}"
        for each in (*services.services, *services.auditors):
            yield f"  {each.spiffe_id.role}/{each.spiffe_id.name}: key {each.key.key_id.hex()[:16]}"
    yield from _rules(state)
    yield "participants"
    for series in sorted(state.placed):
        record = state.participant(series[1]) if series[0] == "participant" else None
        if record is not None:
            groups = ", ".join(sorted(record.groups)) or "none"
            yield (
                f"  {record.name}: {record.state}, clearance {record.clearance}, groups {groups}, v{record.version}, "
                f"{_until(state, record.expires_us)}"
            )


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


def _terms(state: FederationState, segment: SegmentState) -> Iterator[str]:
    terms = segment.terms
    manifest, limits, rounds = terms.model.manifest, terms.limits, terms.round
    unit = 2.0**-terms.model.grid_exponent
    granted = ", ".join(_granted(state, terms)) or "nobody"
    operations = ", ".join(sorted(terms.operations)) or "nothing"
    until = _until(state, terms.expires_us)
    yield f"segment      {terms.segment}: terms v{terms.version}, entry {segment.terms_index}, {until}"
    yield f"  granted    {', '.join(sorted(terms.groups))}: now {granted}; they may {operations}"
    yield (
        f"  model      {manifest.coordinates} coordinates in {len(manifest.tensors)} tensors on a grid of "
        f"2^-{terms.model.grid_exponent}; updates may touch {', '.join(terms.tensors)}"
    )
    yield (
        f"  update     {' or '.join(sorted(terms.value_types))}, signed {' or '.join(sorted(terms.suites))}, at most "
        f"{limits.nonzeros_max} nonzeros in {limits.payload_bytes_max} bytes"
    )
    yield (
        f"             norm at most {limits.norm_max * unit:g}, one value at most {limits.magnitude_max * unit:g}, "
        f"weight 1 to {limits.weight_max}"
    )
    yield (
        f"  rounds     {rounds.cohort_min} to {rounds.cohort_max} updates within {rounds.duration_us / 1e6:g} s, "
        f"{rounds.rounds_max} rounds in all; {segment.last_round} opened so far"
    )
    yield f"  rule       {terms.rule}, privacy {terms.privacy}, sensitivity {terms.sensitivity}"
    yield f"  kept       updates {terms.retention_days} days, refused payloads {terms.evidence_days} days"


def _granted(state: FederationState, terms: SegmentTerms) -> list[str]:
    """Participants who have a group of the terms and are active at the log's last time."""
    names = sorted(name for kind, name in state.placed if kind == "participant")
    return [
        name
        for name in names
        if (record := state.participant(name)) is not None
        and record.groups & terms.groups
        and state.is_active(name, state.last_time_us)
    ]


def _until(state: FederationState, expires_us: int) -> str:
    from sfrl_secure.cli.words import time_in_words

    word = "EXPIRED" if state.last_time_us >= expires_us else "until"
    return f"{word} {time_in_words(expires_us)}"
