"""`sfrl policy diff`: what a document changes, in words, and for whom.

Runs in: cli.
Trusts: whoever types. No signature is looked at.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sfrl_secure.cli.operator_inputs import JsonOption, ProfileOption, StateLogOption, open_profile, open_state
from sfrl_secure.errors import MalformedError

if TYPE_CHECKING:
    from sfrl_secure.governance.documents import Document
    from sfrl_secure.rounds.state import FederationState


def diff(
    first: Annotated[
        Path, typer.Argument(metavar="FILE", help="A request, a signed document, a draft or rules: the new one.")
    ],
    second: Annotated[
        Path | None, typer.Argument(metavar="NEW", help="With two files, the first is the old and this the new one.")
    ] = None,
    log: StateLogOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say in words what changes, and for whom.

    With one file, and --log or --profile: what it changes of what is in force now. With two files: what the second
    changes of the first.
    """
    from sfrl_secure.operating.changes import changes_of
    from sfrl_secure.operating.document_words import title_of
    from sfrl_secure.operating.drafting import Ground

    state = None if log is None and profile is None else open_state(log, open_profile(profile) if profile else None)
    if second is None and state is None:
        raise MalformedError("with one file, say where to read what is in force: --log DIR or --profile FILE")
    after = _document(first if second is None else second, state)
    before = Ground(state, 0).in_force(after.series) if second is None else _document(first, state)
    if before is not None and before.series != after.series:
        raise MalformedError(f"{title_of(before)} and {title_of(after)} are no two versions of one document")
    changes = changes_of(before, after, state)
    if as_json:
        named = None if before is None else title_of(before)
        typer.echo(json.dumps({"from": named, "to": title_of(after), "changes": list(changes)}))
        return
    if before is not None:
        typer.echo(f"{title_of(before)} -> version {after.version}")
    for each in changes:
        typer.echo(f"  {each}")


def _document(path: Path, state: FederationState | None) -> Document:
    """The document that a file holds, whatever kind of file it is."""
    from sfrl_secure.cli.inputs import read_input
    from sfrl_secure.cli.policy_write import build_file
    from sfrl_secure.crypto.envelope import parse_envelope_json
    from sfrl_secure.governance.documents import parse_document
    from sfrl_secure.operating.signing import REQUEST_BYTES_MAX, is_request, parse_request

    raw = read_input(path, REQUEST_BYTES_MAX, "the file")
    if path.suffix in (".toml", ".cedar"):
        if state is None:
            raise MalformedError(f"{path} is a draft: with --log or --profile it can be built and compared")
        built = build_file(path, state, "365d")
        if isinstance(built, tuple):
            raise MalformedError(f"{built[0]}{f', and {len(built) - 1} more' if len(built) > 1 else ''}")
        return built.document
    try:
        if is_request(raw):
            return parse_request(raw).document
        envelope = parse_envelope_json(raw)
        return parse_document(envelope.payload_type, envelope.statement)
    except MalformedError as error:
        raise MalformedError(f"{path} is neither a signing request nor a signed document: {error}") from None
