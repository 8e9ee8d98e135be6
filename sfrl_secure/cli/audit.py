"""`sfrl audit`: prove a log, or read it.

Runs in: cli.
Trusts: whoever types, and the trust policy that they name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from sfrl_secure.cli.compare import compare
from sfrl_secure.cli.fsck import fsck
from sfrl_secure.cli.inputs import check_folder, check_published_folder, naming, read_input
from sfrl_secure.cli.mirror import mirror
from sfrl_secure.errors import MalformedError

app = typer.Typer(help="Prove a log, or read it.", no_args_is_help=True)

LogOption = Annotated[Path, typer.Option("--log", help="Folder of the published log: `checkpoint` and `tile/`.")]
TrustPolicyOption = Annotated[
    Path, typer.Option("--trust-policy", help="Which log keys, witnesses and quorum count: the root of all trust.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one object on one line of standard output.")]

READING_NOTE = "a reading, not a proof: nothing here was held against a trust policy; `sfrl audit verify` does that"


def say_reading() -> None:
    """Say, beside the output, that what is shown proves nothing."""
    typer.echo(f"note: {READING_NOTE}", err=True)


def check_log(log: Path) -> None:
    """Check that the folder of a log is there.

    Raises:
        NotFoundError: it is not.
        MalformedError: it is an address, where entries are not to be had, or a mirror's folder.
    """
    if str(log).startswith(("http:/", "https:/")):
        raise MalformedError("an address gives hashes and no entries: copy the log with `sfrl audit mirror` first")
    check_published_folder(log)


@app.command()
def verify(
    log: LogOption,
    trust_policy: TrustPolicyOption,
    objects: Annotated[Path, typer.Option("--objects", help="Folder of the stored updates and models.")],
    older: Annotated[
        list[Path] | None, typer.Option("--older", help="A checkpoint of this log that you got before. Repeatable.")
    ] = None,
    same_operator: Annotated[
        list[str] | None,
        typer.Option("--same-operator", help="A witness of the trust policy that the log's operator runs. Repeatable."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Derive every decision and every model again, offline, and say whether the history is true.

    Exit code 0: verified.
    Exit code 1: something is false; the report names the first entry, tile or object.
    Exit code 2: evidence is missing, or the trust policy is not this log's, so that it can say neither.
    """
    from rich.console import Console

    from sfrl_secure.audit.verify import verify_log
    from sfrl_secure.cli.progress import Progress
    from sfrl_secure.limits import NOTE_BYTES_MAX, TRUST_POLICY_BYTES_MAX
    from sfrl_secure.translog.checkpoint import parse_checkpoint
    from sfrl_secure.translog.note import parse_note
    from sfrl_secure.translog.policy import parse_trust_policy

    check_log(log)
    policy = read_input(trust_policy, TRUST_POLICY_BYTES_MAX, "the trust policy")
    check_folder(objects, "the objects")
    notes = [read_input(path, NOTE_BYTES_MAX, "the older checkpoint") for path in older or []]
    # Parsed again below, where an error could not say which file it was.
    with naming(trust_policy):
        parse_trust_policy(policy)
    for path, note in zip(older or [], notes, strict=True):
        with naming(path):
            parse_checkpoint(parse_note(note).text)
    with Progress(Console(stderr=True)) as progress:
        report = verify_log(
            log, policy, objects, older=notes, same_operator=same_operator or (), progress=progress.tell
        )
    typer.echo(json.dumps(report.to_json()) if as_json else report.to_text().rstrip("\n"))
    raise typer.Exit(report.exit_code)


@app.command()
def show(
    index: Annotated[int | None, typer.Argument(metavar="INDEX", min=0, help="Show this entry in full.")] = None,
    *,
    log: LogOption,
) -> None:
    """List the entries of a log, or show one in full. Proves nothing: see `verify`."""
    from sfrl_secure.audit.published import (
        read_unverified_checkpoint,
        read_unverified_entries,
        read_unverified_entry,
    )
    from sfrl_secure.cli.words import entry_in_full, kind_of, time_in_words, what_of, writer_of

    check_log(log)
    size = read_unverified_checkpoint(log).size
    if index is not None:
        found = read_unverified_entry(log, size, index)
        say_reading()
        for line in entry_in_full(found):
            typer.echo(line)
        return
    say_reading()
    typer.echo(f"{'index':>6}  {'time':24}  {'kind':16}  {'writer':24}  what")
    for each in read_unverified_entries(log, size):
        time = "-" if each.entry is None else time_in_words(each.entry.log_time_us)
        typer.echo(f"{each.index:>6}  {time:24}  {kind_of(each):16}  {writer_of(each):24}  {what_of(each)}")


app.command()(fsck)
app.command()(mirror)
app.command()(compare)
