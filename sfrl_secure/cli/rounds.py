"""`sfrl round`: how rounds went, as the log has it, and deriving them again.

Runs in: cli.
Trusts: whoever types.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from sfrl_secure.cli.audit import LogOption, say_reading
from sfrl_secure.cli.inputs import check_folder
from sfrl_secure.cli.reaggregate import reaggregate
from sfrl_secure.errors import NotFoundError

if TYPE_CHECKING:
    from sfrl_secure.rounds.state import RoundState

app = typer.Typer(help="How rounds went, and deriving them again.", no_args_is_help=True)

app.command()(reaggregate)


@app.command("list")
def list_rounds(
    log: LogOption,
    segment: Annotated[str | None, typer.Option("--segment", help="Only this segment's.")] = None,
) -> None:
    """List the rounds of a log, one line each."""
    from sfrl_secure.cli.reading import read_folded
    from sfrl_secure.cli.words import short, time_in_words

    check_folder(log, "the log")
    reading = read_folded(log)
    segments = reading.segments(segment)
    say_reading()
    typer.echo(f"{'segment':16}  {'round':>5}  {'state':9}  {'opened':24}  {'admitted':>8}  {'counted':>7}  model")
    for each in segments:
        for number in sorted(each.rounds):
            found = each.rounds[number]
            counted = "-" if found.closed is None else str(found.closed.counted_count)
            model = "-" if found.model is None else short(found.model)
            typer.echo(
                f"{each.terms.segment:16}  {number:>5}  {_state_of(found):9}  {time_in_words(found.opened_us):24}  "
                f"{len(found.admissions):>8}  {counted:>7}  {model}"
            )


@app.command()
def show(
    number: Annotated[int, typer.Argument(metavar="N", min=1, help="Number of the round.")],
    *,
    log: LogOption,
    segment: Annotated[str, typer.Option("--segment", help="Name of the segment.")],
) -> None:
    """Show one round: its terms, how it is added up, each update and whether it was counted, and the model."""
    from sfrl_secure.cli.reading import read_folded

    check_folder(log, "the log")
    found = read_folded(log).segments(segment)[0]
    if number not in found.rounds:
        raise NotFoundError(f"segment {segment} has opened {found.last_round} rounds so far: see `sfrl round list`")
    say_reading()
    for line in _in_words(found.rounds[number]):
        typer.echo(line)


def _state_of(found: RoundState) -> str:
    if found.closed is None:
        return "ended" if found.ended_by_order else "open"
    if found.is_abandoned:
        return "abandoned"
    if found.model is not None:
        return "published"
    return found.closed.outcome.name.lower()


def _in_words(found: RoundState) -> Iterator[str]:
    from sfrl_secure.cli.words import time_in_words
    from sfrl_secure.operating.aggregation_words import aggregation_parts

    terms = found.terms
    yield f"round     {found.number} of {terms.segment}: {_state_of(found)}"
    yield f"opened    {time_in_words(found.opened_us)}, entry {found.opened_index}, entry hash {found.opened.hex()}"
    yield f"deadline  {time_in_words(found.deadline_us)}"
    cohort = f"{terms.round.cohort_min} to {terms.round.cohort_max} updates"
    yield f"terms     v{terms.version}, entry {found.terms_index}: {cohort}"
    for key, words in aggregation_parts(terms):
        if key == "rule" or getattr(terms, key) is not None:
            yield f"{key:<9} {words}"
    yield f"base      {found.base_model.hex()}"
    if found.server_state is not None:
        yield f"state     {found.server_state.hex()}, of the server's step"
    if found.mask is not None:
        yield f"mask      {found.mask.hex()}, of agreed updates"
    yield from _updates(found)
    if found.closed is not None:
        closed = found.closed
        yield (
            f"closed    entry {found.closed_index}, {closed.cause.name.lower()}: {closed.outcome.name.lower()}, "
            f"{closed.counted_count} counted, root {closed.counted_root.hex()}"
        )
    if found.model is not None:
        yield f"model     entry {found.model_index}: {found.model.hex()}"
    if found.left_out_derived:
        yield f"left out  when it was derived again: {', '.join(sorted(found.left_out_derived))}"
    for name in sorted(found.complaints):
        yield f"complaint entry {found.complaints[name].index}: no gatekeeper answered an update of {name}"


def _updates(found: RoundState) -> Iterator[str]:
    unit = 2.0**-found.terms.model.grid_exponent
    dropped = {} if found.closed is None else {drop.participant: drop.reason for drop in found.closed.dropped}
    yield "updates" if found.admissions else "updates   none"
    for name in sorted(found.admissions):
        admission = found.admissions[name]
        facts = admission.facts
        fate = f"dropped: {dropped[name]}" if name in dropped else _fate_of(found, name)
        yield (
            f"  {name}: entry {admission.index}, {fate}, weight {admission.update.weight}, {facts.nonzeros} nonzeros, "
            f"norm {facts.norm * unit:g}, rules {', '.join(admission.rule_ids)}"
        )


def _fate_of(found: RoundState, name: str) -> str:
    """What became of an update that no closing dropped."""
    if found.closed is not None:
        return "left out" if name in found.left_out_derived else "counted"
    return "withdrawn" if name in found.withdrawn else "excluded" if name in found.excluded else "admitted"
