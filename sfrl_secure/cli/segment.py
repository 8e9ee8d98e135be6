"""`sfrl segment`: the segments of a federation, their standing and their lineage of models.

Runs in: cli.
Trusts: whoever types; nothing is proven.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sfrl_secure.cli.audit import LogOption, say_reading
from sfrl_secure.cli.inputs import check_folder
from sfrl_secure.cli.operator_inputs import JsonOption
from sfrl_secure.cli.policy_show import granted, segment_words

if TYPE_CHECKING:
    from sfrl_secure.rounds.begins import BeginsWith
    from sfrl_secure.rounds.state import FederationState, SegmentState

app = typer.Typer(help="Segments: learning tasks, each with its own terms, rounds and model.", no_args_is_help=True)


@app.command("list")
def list_segments(log: LogOption, as_json: JsonOption = False) -> None:
    """List the segments of a log, one line each."""
    from sfrl_secure.cli.reading import read_folded

    check_folder(log, "the log")
    reading = read_folded(log)
    say_reading()
    found = [_standing(reading.state, each) for each in reading.segments(None)]
    if as_json:
        typer.echo(json.dumps({"segments": found}))
        return
    typer.echo(f"{'segment':16}  {'state':13}  {'terms':>5}  {'rounds':>6}  {'granted':>7}  {'orders':>6}  model")
    for each in found:
        typer.echo(
            f"{each['segment']:16}  {each['state']:13}  {each['terms_version']:>5}  {each['rounds']:>6}  "
            f"{len(each['granted']):>7}  {each['orders']:>6}  {each['model'][:12]}"
        )


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="SEGMENT", help="Name of the segment.")],
    *,
    log: LogOption,
    as_json: JsonOption = False,
) -> None:
    """Show one segment: its terms and how its updates are added up, and the rounds that led to its newest model."""
    from sfrl_secure.cli.reading import read_folded

    check_folder(log, "the log")
    reading = read_folded(log)
    found = reading.segments(name)[0]
    say_reading()
    if as_json:
        typer.echo(json.dumps(_standing(reading.state, found) | {"lineage": list(_steps(found))}))
        return
    for line in segment_words(reading.state, found):
        typer.echo(line)
    for line in _lineage(found):
        typer.echo(line)


def _standing(state: FederationState, segment: SegmentState) -> dict[str, Any]:
    placed = state.placed.get(("order", segment.terms.segment))
    return {
        "segment": segment.terms.segment,
        "state": _state_of(segment),
        "terms_version": segment.terms.version,
        "rounds": segment.last_round,
        "granted": granted(state, segment.terms),
        "orders": 0 if placed is None else placed.document.version,
        "due": list(segment.due),
        "model": segment.model.hex(),
        "server_state": _hex(_begins(segment).server_state),
        "mask": _hex(_begins(segment).mask),
    }


def _begins(segment: SegmentState) -> BeginsWith:
    """What the next round begins with, beside the model; nothing while steps are derived again."""
    from sfrl_secure.rounds.begins import BeginsWith, round_begins_with

    return BeginsWith(None, None) if segment.due else round_begins_with(segment)


def _hex(digest: bytes | None) -> str | None:
    return None if digest is None else digest.hex()


def _state_of(segment: SegmentState) -> str:
    if segment.is_halted:
        return "halted"
    if segment.due:
        return "derived again"
    return "round open" if segment.open_round is not None else "idle"


def _steps(segment: SegmentState) -> Iterator[dict[str, Any]]:
    for step in segment.lineage:
        found = segment.rounds[step.round]
        yield {
            "round": step.round,
            "model": step.model.hex(),
            "base": step.base.hex(),
            "index": step.index,
            "server_state": _hex(step.server_state),
            "next_mask": _hex(step.next_mask),
            "left_out": sorted(found.left_out_derived),
            "is_due": step.round in segment.due,
        }


def _lineage(segment: SegmentState) -> Iterator[str]:
    initial = segment.terms.model.initial
    yield f"  lineage      from the initial model {initial.hex()}" + ("" if segment.lineage else ": it is the newest")
    for step in _steps(segment):
        left_out = f", without {', '.join(step['left_out'])}" if step["left_out"] else ""
        due = ", to be derived again" if step["is_due"] else ""
        yield f"    round {step['round']:>5}, entry {step['index']}: {step['model']}{left_out}{due}"
    # Terms that came while a round is open are the next one's; it goes on with what it began with.
    opened = segment.open_round
    begins = _begins(segment) if opened is None else opened
    which = "the next round" if opened is None else f"the open round {opened.number}"
    if begins.server_state is not None:
        yield f"  server state {begins.server_state.hex()}: {which}'s step goes on from it"
    if begins.mask is not None:
        key = "next mask" if opened is None else "mask now"
        yield f"  {key:12} {begins.mask.hex()}: what agreed updates of {which} have"
