"""`sfrl policy draft`, `check`, `build` and `key`: from what people write to a document that can be signed.

Runs in: cli.
Trusts: whoever types.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sfrl_secure.cli.inputs import check_file
from sfrl_secure.cli.operator_acts import request_path, say, write_request
from sfrl_secure.cli.operator_inputs import (
    JsonOption,
    OutOption,
    ProfileOption,
    StateLogOption,
    check_free,
    open_profile,
    open_state,
    read_key,
)
from sfrl_secure.errors import MalformedError, NotFoundError

if TYPE_CHECKING:
    from sfrl_secure.operating.drafts import DraftFile, Problem
    from sfrl_secure.operating.signing import SigningRequest
    from sfrl_secure.rounds.state import FederationState

CEDAR = ".cedar"

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="A draft (.toml) or rules (.cedar).")]
ExpiresOption = Annotated[
    str, typer.Option("--expires", help="When rules from a .cedar file expire: a duration from now, such as 365d.")
]


def check(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Drafts (.toml) and rules (.cedar).")],
    log: StateLogOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what is wrong with drafts and rules, as file:line: reason.

    Without --log or --profile only what can be known from the file alone; with one, also whether it fits what is in
    force, and what is allowed and perhaps not meant, as a warning.

    Rules can look at principal.clearance and principal.groups, resource.sensitivity, and of the update in context:
    round, weight, nonzeros, payload_bytes, density_ppm, noise_std, value_type, support_mode and suite, and at
    action "admit" also norm, largest_magnitude and tensors. See "Policy" in proto/README.md.

    Exit code 0: nothing is wrong.
    Exit code 2: something is.
    """
    state = None if log is None and profile is None else open_state(log, open_profile(profile) if profile else None)
    found = {path: _checked(path, state) for path in files}
    problems = [each for _, listed, _ in found.values() for each in listed]
    if as_json:
        listed = [{"file": str(each.path), "line": each.line, "reason": each.reason} for each in problems]
        warned = [{"file": str(path), "reason": each} for path, (_, _, cautions) in found.items() for each in cautions]
        typer.echo(json.dumps({"ok": not problems, "problems": listed, "warnings": warned}))
    else:
        for path, (what, listed_here, cautions) in found.items():
            for each in listed_here:
                typer.echo(str(each))
            if not listed_here:
                typer.echo(f"{path}: ok: {what}")
            for caution in cautions:
                typer.echo(f"{path}: warning: {caution}")
    raise typer.Exit(2 if problems else 0)


def build(
    file: FileArgument,
    log: StateLogOption = None,
    profile: ProfileOption = None,
    expires: ExpiresOption = "365d",
    objects: Annotated[
        str | None,
        typer.Option(
            "--objects",
            metavar="PLACE",
            help="Object folder, or s3://bucket/prefix: a new segment's model of zeros is stored there at once, and a "
            "mask is looked for.",
        ),
    ] = None,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Build the document that a draft describes, as a signing request.

    Its version and predecessor are those that the log needs next, and what the draft leaves out stays as it is in
    force. Nothing is signed and nothing is published: the request goes to the operators, who run `sfrl policy sign`.
    """
    from sfrl_secure.operating.cautions import cautions_of

    state = open_state(log, open_profile(profile) if profile else None)
    built = build_file(file, state, expires)
    if isinstance(built, tuple):
        for each in built:
            typer.echo(str(each))
        raise typer.Exit(2)
    path = request_path(built, out)
    check_free(path)
    stored = None if objects is None else _keep_objects(file, built, objects)
    for caution in cautions_of(built.document, state):
        typer.echo(f"warning: {caution}", err=True)
    said = write_request(path, built, state)
    if stored is not None:
        said["stored"] = stored
    say(said, as_json)


def draft(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="segment-terms, participant, services, rules or root.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the segment or the participant.")] = "",
    log: StateLogOption = None,
    profile: ProfileOption = None,
) -> None:
    """Write what is in force as a draft, to standard output: edit it and build it again.

    For example: sfrl policy draft segment-terms rocks --log copy > rocks.toml
    """
    from sfrl_secure.operating.draft_writing import draft_of
    from sfrl_secure.operating.drafting import Ground

    state = open_state(log, open_profile(profile) if profile else None)
    found = Ground(state, 0).in_force((kind, name))
    if found is None:
        known = sorted(f"{each} {about}".strip() for each, about in state.placed if each not in ("genesis", "order"))
        raise NotFoundError(f"nothing of this kind and name is in force; there are: {', '.join(known)}")
    typer.echo(draft_of(found), nl=False)


def key(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A private key file: an operator's signing.key.")],
    new: Annotated[bool, typer.Option("--new", help="Make it: a new file, which only its owner can read.")] = False,
    suite: Annotated[
        str, typer.Option("--suite", help="Of a new key: ed25519, or the hybrid ed25519+ml-dsa-44.")
    ] = "ed25519+ml-dsa-44",
) -> None:
    """Print the public part of a key as drafts and `sfrl policy root --add` take it.

    The private part never leaves the file, and is never printed.
    """
    from sfrl_secure.crypto.keys import SigningKey
    from sfrl_secure.operating.draft_writing import key_draft
    from sfrl_secure.storage.secrets import write_secret

    if new:
        check_free(file, "")
        write_secret(file, SigningKey.generate(suite).to_pem())
    typer.echo(key_draft(read_key(file).public_key), nl=False)


def build_file(file: Path, state: FederationState, expires: str) -> SigningRequest | tuple[Problem, ...]:
    """Read and build a draft or a Cedar file; or say what is wrong with it."""
    from sfrl_secure.clock import SystemClock
    from sfrl_secure.operating.drafting import Ground, build_draft

    read = _read(file, expires)
    return read if isinstance(read, tuple) else build_draft(read, Ground(state, SystemClock().now_us()))


def _checked(file: Path, state: FederationState | None) -> tuple[str, tuple[Problem, ...], tuple[str, ...]]:
    """What a file is, what is wrong with it, and what is perhaps not meant."""
    from sfrl_secure.clock import SystemClock
    from sfrl_secure.operating.cautions import cautions_of
    from sfrl_secure.operating.drafting import Ground, build_draft

    read = _read(file, "365d")
    if isinstance(read, tuple):
        return "", read, ()
    built = build_draft(read, Ground(state, SystemClock().now_us()))
    if isinstance(built, tuple):
        return "", built, ()
    kind, name = built.document.series
    what = f"{kind} {name}".strip()
    if state is None:
        return what, (), ()
    return f"{what}, version {built.document.version}", (), cautions_of(built.document, state)


def _read(file: Path, expires: str) -> DraftFile | tuple[Problem, ...]:
    from sfrl_secure.operating.draft_tables import RulesDraft
    from sfrl_secure.operating.drafts import DraftFile, read_cedar, read_draft
    from sfrl_secure.operating.units import parse_duration

    check_file(file, "the draft")
    if file.suffix != CEDAR:
        return read_draft(file)
    parse_duration(expires)
    cedar, problems = read_cedar(file)
    rules = RulesDraft(kind="rules", expires=expires, file=file.name)
    return problems or DraftFile(file, rules, {}, cedar, file)


def _keep_objects(file: Path, built: SigningRequest, place: str) -> str | None:
    """Look for the mask of terms, and store their model of zeros; give its digest."""
    from sfrl_secure.governance.terms import SegmentTerms
    from sfrl_secure.operating.draft_tables import TermsDraft
    from sfrl_secure.operating.drafting_terms import ZEROS, model_of, zero_model
    from sfrl_secure.operating.drafts import DraftFile
    from sfrl_secure.operating.mask_object import check_mask_object
    from sfrl_secure.storage.objects import open_objects

    read = _read(file, "365d")
    drafted = read.draft.model if isinstance(read, DraftFile) and isinstance(read.draft, TermsDraft) else None
    has_zeros = drafted is not None and drafted.initial == ZEROS
    terms = built.document if isinstance(built.document, SegmentTerms) else None
    if not has_zeros and (terms is None or terms.mask is None):
        raise MalformedError(
            f'--objects is for terms with a mask, and for a new segment whose draft says initial = "{ZEROS}" under '
            "[model]"
        )
    objects = open_objects(place)
    if terms is not None:
        check_mask_object(terms, objects)
    if drafted is None or not has_zeros:
        return None
    model = model_of(drafted)
    return objects.put(zero_model(model.manifest, model.grid_exponent)).hex()
