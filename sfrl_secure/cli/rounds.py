"""`sfrl round`: how rounds went, as the log has it, and deriving them again.

Runs in: cli.
Trusts: whoever types.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sfrl_secure.cli.audit import JsonOption, LogOption, say_reading
from sfrl_secure.cli.inputs import check_folder
from sfrl_secure.cli.reaggregate import reaggregate
from sfrl_secure.errors import NotFoundError

if TYPE_CHECKING:
    from sfrl_secure.governance.statements import ModelPublished
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
    from sfrl_secure.operating.round_words import round_state_word

    check_folder(log, "the log")
    reading = read_folded(log)
    segments = reading.segments(segment)
    say_reading()
    typer.echo(f"{'segment':16}  {'round':>5}  {'state':9}  {'opened':24}  {'admitted':>8}  {'counted':>7}  model")
    for each in segments:
        for number in sorted(each.rounds):
            found = each.rounds[number]
            counted = "-" if found.closed is None else str(found.closed.counted_count)
            opened = time_in_words(found.opened_us)
            model = "-" if found.model is None else short(found.model)
            typer.echo(
                f"{each.terms.segment:16}  {number:>5}  {round_state_word(found):9}  {opened:24}  "
                f"{len(found.admissions):>8}  {counted:>7}  {model}"
            )


@app.command()
def show(
    number: Annotated[int, typer.Argument(metavar="N", min=1, help="Number of the round.")],
    *,
    log: LogOption,
    segment: Annotated[str, typer.Option("--segment", help="Name of the segment.")],
    objects: Annotated[
        Path | None, typer.Option("--objects", help="Folder of the stored objects: to say how much the mask changed.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show one round: how it is added up, each update and what became of it, the model and what came with it."""
    from sfrl_secure.cli.reading import read_folded
    from sfrl_secure.operating.round_words import round_facts, round_lines

    check_folder(log, "the log")
    if objects is not None:
        check_folder(objects, "the objects")
    reading = read_folded(log)
    found = reading.segments(segment)[0]
    if number not in found.rounds:
        raise NotFoundError(f"segment {segment} has opened {found.last_round} rounds so far: see `sfrl round list`")
    shown = found.rounds[number]
    changes = None if objects is None else _mask_changes(shown, reading.published, objects)
    facts = round_facts(shown, reading.published, changes)
    say_reading()
    for line in [json.dumps(facts)] if as_json else round_lines(facts):
        typer.echo(line)


def _mask_changes(found: RoundState, published: dict[int, ModelPublished], objects: Path) -> int | None:
    from sfrl_secure.operating.mask_changes import count_new_coordinates
    from sfrl_secure.storage.objects import ObjectStore

    body = published.get(found.model_index)
    if body is None or found.mask is None or body.next_mask is None:
        return None
    return count_new_coordinates(found.terms, found.mask, body.next_mask, ObjectStore(objects))
