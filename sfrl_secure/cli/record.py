"""`sfrl record`: a participant's decisions, and the complaints that an auditor was shown.

Runs in: cli.
Trusts: the profile. A complaint file is what somebody gave us; nothing that a service answers is believed before it is
proven.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from sfrl_secure.cli.inputs import check_file, naming, parse_model_digest, read_input
from sfrl_secure.cli.participant import JsonOption, ProfileOption, SegmentOption, WaitOption, open_participant
from sfrl_secure.errors import MalformedError, RoundStateError

INPUT_BYTES_MAX = 2**30

app = typer.Typer(help="Put decisions and complaints on record in the log.", no_args_is_help=True)


@app.command("decision")
def decision(
    profile: ProfileOption,
    segment: SegmentOption,
    input_file: Annotated[Path, typer.Option("--input", help="File with the input, as the model was given it.")],
    model: Annotated[str, typer.Option("--model", help="Digest of the model that decided, as `fetch` says it.")],
    predicted: Annotated[int, typer.Option("--class", min=0, help="The class that was predicted.")],
    confidence: Annotated[float, typer.Option("--confidence", min=0.0, max=1.0, help="Of the prediction, 0 to 1.")],
    latents: Annotated[
        str, typer.Option("--latents", help="Latent dimensions that were active, with commas: 3,17,40.")
    ] = "",
    attributions: Annotated[
        list[str] | None,
        typer.Option("--attribution", help="Share of one input feature, FEATURE=SHARE from -1 to 1. At most 64."),
    ] = None,
    record_seq: Annotated[
        int, typer.Option("--number", min=0, help="Number of the record; by default one above the last kept here.")
    ] = 0,
    wait: WaitOption = 60.0,
    as_json: JsonOption = False,
) -> None:
    """Put a decision of a model on record: a salted hash of the input, and what the model said.

    The input stays here, and so does the salt, in the opening file that is named: whoever is shown both can tell that
    the record is about this input. Without the salt nobody can, so keep the file.
    """
    from sfrl_secure.participant.decisions import Decision, attributions_of

    raw_input = read_input(input_file, INPUT_BYTES_MAX, "the input")
    decided = Decision(
        model=parse_model_digest(model),
        predicted_class=predicted,
        confidence=confidence,
        active_latents=tuple(sorted(_number(text, "--latents") for text in latents.split(",") if text)),
        attributions=attributions_of([_share(text) for text in attributions or []]),
    )
    with open_participant(profile) as participant:
        try:
            recorded = participant.record_decision(
                segment, raw_input, decided, record_seq=record_seq, wait_seconds=wait
            )
        except RoundStateError as denied:
            if denied.reason != "record_seq":
                raise
            raise RoundStateError(denied.reason, f"{denied}: name a higher one with --number") from None
        opening = participant.opening_path(segment, recorded.record_seq)
    said = {
        "segment": segment,
        "number": recorded.record_seq,
        "index": recorded.index,
        "statement_digest": recorded.statement_digest.hex(),
        "opening": str(opening.absolute()),
    }
    _say(said, as_json)


@app.command("opening")
def opening(
    file: Annotated[Path, typer.Argument(metavar="OPENING", help="The opening file of a decision record.")],
    input_file: Annotated[Path, typer.Option("--input", help="File with the input that it is said to be about.")],
    as_json: JsonOption = False,
) -> None:
    """Tell whether an input is the one that a decision record is about. Exit code 1: it is not.

    Compare the commitment that is printed with that of the entry: `sfrl audit show INDEX`.
    """
    from sfrl_secure.participant.decisions import read_opening

    check_file(file, "the opening")
    try:
        found = read_opening(file)
    except MalformedError as error:
        raise MalformedError(f"the opening {file}: {error}") from None
    is_it = found.matches(read_input(input_file, INPUT_BYTES_MAX, "the input"))
    said = {
        "segment": found.segment,
        "number": found.record_seq,
        "input_commitment": found.commitment.hex(),
        "is_this_input": is_it,
    }
    _say(said, as_json)
    if not is_it:
        raise typer.Exit(1)


@app.command("complaint")
def complaint(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The complaint file, from `sfrl complain`.")],
    profile: Annotated[Path, typer.Option("--profile", help="The auditor's profile.toml.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="File for the log's receipt; by default FILE with .tlog-proof behind.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Put a participant's complaint on record, as the auditor whom it was shown to.

    It must be there at least 10 seconds before the round closes. The log is followed and verified first, which takes a
    while where it is long.
    """
    from sfrl_secure.audit.profile import read_auditor_profile
    from sfrl_secure.cli.complaints import record_complaint
    from sfrl_secure.clock import SystemClock
    from sfrl_secure.participant.sent import COMPLAINT_BYTES_MAX, parse_complaint
    from sfrl_secure.rpc.channel import RpcChannel
    from sfrl_secure.rpc.clients import AuditLogClient
    from sfrl_secure.storage.files import write_atomically

    raw = read_input(file, COMPLAINT_BYTES_MAX, "the complaint")
    with naming(file):
        parse_complaint(raw)
    check_file(profile, "the profile")
    auditor = read_auditor_profile(profile)
    for each in (auditor.certificate, auditor.tls_key, auditor.service_ca, auditor.signing_key, auditor.trust_policy):
        check_file(each, f"a file that the profile {profile} names")
    key, policy, tls = auditor.open_signing_key(), auditor.open_trust_policy(), auditor.open_tls()
    with RpcChannel(auditor.audit_log, role="audit_log", trust_domain=auditor.trust_domain, tls=tls) as channel:
        recorded = record_complaint(raw, AuditLogClient(channel), policy, key, auditor.spiffe_id, SystemClock())
    receipt = (out or file.with_name(f"{file.name}.tlog-proof")).absolute()
    write_atomically(receipt, recorded.receipt)
    said = {
        "segment": recorded.update.segment,
        "round": recorded.update.round,
        "participant": recorded.update.participant,
        "index": recorded.index,
        "receipt": str(receipt),
    }
    _say(said, as_json)


def _number(text: str, option: str) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > 10:
        raise MalformedError(f"{option} takes whole numbers from 0")
    return int(text)


def _share(text: str) -> tuple[int, float]:
    feature, sign, share = text.partition("=")
    try:
        return _number(feature, "--attribution"), float(share if sign else "")
    except ValueError:
        raise MalformedError("--attribution is FEATURE=SHARE, such as 7=0.25") from None


def _say(said: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(said))
        return
    for key, value in said.items():
        typer.echo(f"{key}: {value}")
