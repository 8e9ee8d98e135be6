"""`sfrl bundle`: a signed update as a file, over links that come and go; and its receipts on their way back.

Runs in: cli.
Trusts: the profile. Nothing in a bundle, nothing in a receipt, and nothing that a gatekeeper says before it is proven.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sfrl_secure.cli.bundle_files import opened_bundle, payload_words
from sfrl_secure.cli.byte_progress import showing_bytes
from sfrl_secure.cli.given_update import (
    DensityOption,
    GivenUpdate,
    ModelOption,
    NoiseOption,
    SupportOption,
    UpdateOption,
    ValueTypeOption,
    WeightOption,
)
from sfrl_secure.cli.inputs import check_file, check_folder, read_input
from sfrl_secure.cli.participant import JsonOption, ProfileOption, SegmentOption, open_participant
from sfrl_secure.cli.relay_run import RelayRun, say
from sfrl_secure.errors import MalformedError, PayloadError, UnavailableError, VerificationError

if TYPE_CHECKING:
    from sfrl_secure.participant.bundles import Bundle
    from sfrl_secure.participant.rounds import FinishedSegment, OpenRound
    from sfrl_secure.participant.sdk import Participant

app = typer.Typer(help="Signed updates as files, for links that come and go.", no_args_is_help=True)


@app.command()
def pack(
    profile: ProfileOption,
    segment: SegmentOption,
    update: UpdateOption,
    weight: WeightOption,
    out: Annotated[Path, typer.Option("--out", help="A new file, by custom NAME.bundle.")],
    offline: Annotated[
        bool, typer.Option("--offline", help="Ask nobody: for the round that was opened here last, as `fetch` does.")
    ] = False,
    support: SupportOption = None,
    value_type: ValueTypeOption = None,
    density: DensityOption = None,
    model: ModelOption = None,
    noise_std: NoiseOption = 0.0,
    wait: Annotated[float, typer.Option("--wait", min=0.0, help="Seconds to wait for a round.")] = 60.0,
    as_json: JsonOption = False,
) -> None:
    """Sign an update for the open round, and write it as a file instead of sending it.

    Anybody may carry the file to a gatekeeper, and read it; nobody can change it. Whoever carries it submits it with
    `bundle relay`, while the round is open, and brings receipts back: `bundle unpack` keeps them.

    The update is an .npz as `sfrl submit` takes it. With --offline, a round, a model and a mask that `sfrl fetch`
    kept are enough, and no link is needed.
    """
    from sfrl_secure.operating.units import format_moment

    given = GivenUpdate.read(update, weight, support, value_type, density, model, noise_std)
    check_folder(out.absolute().parent, "the bundle's folder")
    if out.exists():
        raise MalformedError(f"{out} is there already: a bundle is a new file")
    with open_participant(profile) as participant:
        opened = participant.kept_round(segment) if offline else _open_round(participant, segment, wait)
        signed = given.signed(participant, opened, offline=offline)
        participant.pack(out.absolute(), signed)
    said = {
        "segment": segment, "round": signed.update.round, "statement_digest": signed.envelope.digest.hex(),
        "nonzeros": signed.update.nonzeros, "bundle_bytes": out.stat().st_size,
        "deadline": format_moment(signed.deadline_us), "out": str(out.absolute()),
    }  # fmt: skip
    say(said, as_json)


@app.command()
def unpack(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="A bundle, or a receipt that came back.")],
    profile: Annotated[
        Path | None, typer.Option("--profile", help="The profile.toml of whose update, or whose receipt, it is.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a bundle holds and whether it is whole; or keep a receipt that came back.

    Of a bundle: who signed what for which round, and that the payload is the signed one in its canonical form. Without
    its participant's profile the signature is not verified: the key stands in the log, and gatekeepers look there.

    A receipt is verified, offline, and kept beside the profile's others, as if it had come over the network.

    Exit code 1: the file does not hold. Exit code 2: it is neither, or is not there.
    """
    from sfrl_secure.participant.bundles import is_bundle

    told = []
    for file in files:
        check_file(file, "the bundle or receipt")
        told.append(_describe(file, profile) if is_bundle(file) else _keep(file, profile))
        if not as_json:
            say(told[-1], as_json)
    if as_json:
        typer.echo(json.dumps({"files": told}))


@app.command()
def relay(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Bundles of anybody.")],
    profile: Annotated[Path, typer.Option("--profile", help="The relay's own profile.toml.")],
    wait: Annotated[
        float, typer.Option("--wait", min=0.0, help="Seconds to wait for COUNTED receipts; 0 for none.")
    ] = 0.0,
    patience: Annotated[
        float, typer.Option("--for", min=1.0, help="Seconds to go on with one bundle over broken connections.")
    ] = 600.0,
    as_json: JsonOption = False,
) -> None:
    """Submit other people's bundles under your own identity, and put their receipts beside them for the way back.

    The segment's terms name the groups that may (`relay_groups`). Of `rocks.bundle`, the log's word that the update is
    admitted becomes `rocks.acknowledged.tlog-proof`; with --wait, that a model counts it `rocks.counted.receipt`. Run
    again, it goes on where it broke off, and gets the first answer again.

    A bundle that is refused, damaged or not there is named, and the others are sent all the same. Exit code: of the
    first that was not admitted, 1 where it was cut or altered; 2 where a COUNTED receipt did not come in time.
    """
    run = RelayRun(as_json)
    with open_participant(profile) as participant:
        for file in dict.fromkeys(files):
            if not run.bring(participant, file, patience):
                break
        if wait:
            run.wait(wait)
    run.end()


def _open_round(participant: Participant, segment: str, wait_seconds: float) -> OpenRound | FinishedSegment:
    try:
        return participant.open_round(segment, wait_seconds=wait_seconds, through_halt=False)
    except UnavailableError as away:
        raise UnavailableError(f"{away}: --offline packs for the round that was opened here last") from None


def _describe(file: Path, profile: Path | None) -> dict[str, Any]:
    """What a bundle holds; its payload is checked.

    Raises:
        VerificationError: the signature is not that of the profile's participant; or the bundle was cut or altered; or
            no gatekeeper takes its payload.
    """
    try:
        with opened_bundle(file) as bundle:
            # First the signature: what an altered statement says is nobody's word.
            signature, is_verified = _signature(bundle, profile)
            try:
                with showing_bytes(f"reading {file.name}") as tell:
                    preamble = bundle.check_payload(tell)
            except PayloadError as error:
                words = payload_words(error, is_signature_verified=is_verified)
                raise VerificationError(f"{words} ({error.reason})") from None
            update = bundle.update
            return {
                "bundle": str(file), "participant": update.participant, "segment": update.segment,
                "round": update.round, "base_model": update.base_model.hex(), "weight": update.weight,
                "support": update.format.support, "values": update.format.values, "nonzeros": update.nonzeros,
                "coordinates": preamble.coordinates, "payload_bytes": update.payload_bytes,
                "statement_digest": bundle.envelope.digest.hex(), "payload": "whole", "signature": signature,
            }  # fmt: skip
    except VerificationError as error:
        raise VerificationError(f"{file}: {error}") from None


def _signature(bundle: Bundle, profile: Path | None) -> tuple[str, bool]:
    """What to say of the signature, and whether it was verified.

    Raises:
        SignatureError: it is not that of the profile's participant.
    """
    if profile is None:
        return "not verified: that takes --profile of its participant, or a gatekeeper", False
    with open_participant(profile) as participant:
        if participant.name != bundle.update.participant:
            return f"not verified: the profile is {participant.name}'s", False
        bundle.verify_signature(participant.public_key)
    return "verified", True


def _keep(file: Path, profile: Path | None) -> dict[str, Any]:
    """Keep a receipt that came back; say what it proves."""
    from sfrl_secure.limits import RECEIPT_BYTES_MAX

    if profile is None:
        raise MalformedError(f"{file} is no bundle; where it is a receipt, --profile says whose it is")
    raw = read_input(file, RECEIPT_BYTES_MAX, "the receipt")
    with open_participant(profile) as participant:
        try:
            kept = participant.take_receipt(raw)
        except MalformedError as error:
            raise MalformedError(f"{file} is neither a bundle nor a receipt of an update: {error}") from None
        except VerificationError as error:
            raise VerificationError(f"{file}: {error}") from None
    return {
        "receipt": str(file), "kind": kept.kind.name.lower(), "segment": kept.update.segment,
        "round": kept.update.round, "index": kept.index, "statement_digest": kept.statement_digest.hex(),
        "kept": str(kept.path.absolute()),
    }  # fmt: skip
