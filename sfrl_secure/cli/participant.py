"""`sfrl fetch`, `submit`, `withdraw` and `complain`: a participant by hand.

Arrays travel in `.npz` files (`update_files`).

Runs in: cli.
Trusts: the profile. Nothing that a gatekeeper says is believed before it is proven: see `participant.sdk`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

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
    in_parameter_units,
)
from sfrl_secure.cli.inputs import check_folder
from sfrl_secure.cli.update_files import check_model_file, write_model
from sfrl_secure.errors import DigestError, MalformedError, NotFoundError, RoundStateError, UnavailableError
from sfrl_secure.wire.receipts import ReceiptKind

if TYPE_CHECKING:
    from sfrl_secure.aggregation.models import ModelSnapshot
    from sfrl_secure.participant.rounds import FinishedSegment, OpenRound
    from sfrl_secure.participant.sdk import Participant
    from sfrl_secure.participant.submissions import Submitted

ProfileOption = Annotated[Path, typer.Option("--profile", help="The participant's profile.toml.")]
SegmentOption = Annotated[str, typer.Option("--segment", help="Name of the segment.")]
WaitOption = Annotated[
    float, typer.Option("--wait", min=0.0, help="Seconds to wait for a round, and again for a receipt.")
]
RoundOption = Annotated[
    int, typer.Option("--round", min=0, help="Number of the round; by default the newest that is kept here.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def register(app: typer.Typer) -> None:
    """Add `fetch`, `submit`, `withdraw` and `complain` to the command line."""
    app.command("fetch")(fetch)
    app.command("submit")(submit)
    app.command("withdraw")(withdraw)
    app.command("complain")(complain)


def fetch(
    profile: ProfileOption,
    segment: SegmentOption,
    out: Annotated[Path, typer.Option("--out", help="File to write the model to: .npz, float32.")],
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Instead: the model of the cluster that an update of yours was in.")
    ] = False,
    round_number: RoundOption = 0,
    wait: WaitOption = 60.0,
    as_json: JsonOption = False,
) -> None:
    """Open the segment's round and write its base model: one float32 array a tensor.

    The last two models of a segment are kept beside the receipts: of a later one only what changed is fetched, where
    that is shorter. A fetch that breaks off goes on where it was. What `bundle pack --offline` needs is kept too.

    With --cluster it is the model of those whose updates were like yours in the round that --round names, under a rule
    that makes clusters: to be used, and not to be trained for the next round, which goes on from the model of all. The
    update's COUNTED receipt proves which cluster it was in, and is kept.
    """
    from sfrl_secure.participant.rounds import OpenRound

    if round_number and not cluster:
        raise MalformedError("--round says whose --cluster: without it, the model is that of the round that is open")
    check_model_file(out)
    with open_participant(profile) as participant:
        if cluster:
            said, model = _cluster_model(participant, segment, round_number, wait)
        else:
            opened = participant.open_round(segment, wait_seconds=wait, through_halt=False)
            with showing_bytes("fetching the model") as tell:
                said, model = _round_of(opened), participant.model(opened, on_progress=tell)
            if isinstance(opened, OpenRound) and opened.mask is not None:
                _keep_mask(participant, opened)
    write_model(out, model)
    _say({**said, "coordinates": model.manifest.coordinates, "out": str(out.absolute())}, as_json)


def _keep_mask(participant: Participant, opened: OpenRound) -> None:
    """Fetch the round's mask for whoever trains without a link. Where updates need none, one that is not to be had is
    told, and ends nothing."""
    from sfrl_secure.participant.wishes import Wish, choose_support

    try:
        participant.mask(opened)
    except (DigestError, MalformedError, NotFoundError, UnavailableError) as error:
        if choose_support(opened.terms, Wish()) == "agreed":
            raise
        typer.echo(f"note: no mask is kept for updates of agreed support: {error}", err=True)


def submit(
    profile: ProfileOption,
    segment: SegmentOption,
    update: UpdateOption,
    weight: WeightOption,
    support: SupportOption = None,
    value_type: ValueTypeOption = None,
    density: DensityOption = None,
    receipt: Annotated[str, typer.Option("--receipt", help="Wait for: none, witnessed or counted.")] = "witnessed",
    model: ModelOption = None,
    noise_std: NoiseOption = 0.0,
    wait: WaitOption = 60.0,
    as_json: JsonOption = False,
) -> None:
    """Submit an update for the round that is open now, and keep its receipt.

    The file is an .npz of new weights, one array a tensor, as `fetch` writes them; or, where the terms take free
    support, of `indices` and `values`, the changes of some coordinates. Of new weights the largest changes are sent
    (free), those of the round's mask (agreed), or all (dense). A broken connection is gone on with until the
    round takes no more updates. Run again after it was killed, it signs another update: where that may happen, `bundle
    pack` once, and `bundle relay` your own bundle.

    With --model, refuse a round whose base is another model than the one that was fetched. An update that would betray
    single examples, by the segment's terms (leak_coordinates, leak_rows, leak_labels, leak_noise), is refused here and
    not sent: train on more examples, of more kinds. A round takes one update of yours, and no second one after a
    withdrawal.
    """
    kinds = {"none": None, "witnessed": ReceiptKind.WITNESSED, "counted": ReceiptKind.COUNTED}
    if receipt not in kinds:
        raise MalformedError(f"a receipt to wait for is one of {', '.join(kinds)}")
    given = GivenUpdate.read(update, weight, support, value_type, density, model, noise_std)
    with open_participant(profile) as participant:
        opened = participant.open_round(segment, wait_seconds=wait, through_halt=False)
        signed = given.signed(participant, opened)
        with in_parameter_units(opened.terms), showing_bytes("sending") as tell:
            sent = participant.send(signed, on_progress=tell)
        said: dict[str, Any] = {
            **_round_of(opened),
            "index": sent.index,
            "statement_digest": sent.statement_digest.hex(),
            "nonzeros": sent.update.nonzeros,
            "support": sent.update.format.support,
            "value_type": sent.update.format.values,
            "update_bytes": sent.request_bytes,
        }
        if kinds[receipt] is not None:
            # Kept in any case: a round that is aborted gives no other one.
            said["receipt"] = _keep_receipt(participant, sent, ReceiptKind.WITNESSED, wait)
        if kinds[receipt] is ReceiptKind.COUNTED:
            try:
                said["receipt"] = _keep_receipt(participant, sent, ReceiptKind.COUNTED, wait)
            except NotFoundError as missing:
                raise NotFoundError(
                    f"entry {sent.index} admits the update, and {missing}; its receipt so far is {said['receipt']}"
                ) from None
    _say(said, as_json)


def withdraw(
    profile: ProfileOption, segment: SegmentOption, round_number: RoundOption = 0, as_json: JsonOption = False
) -> None:
    """Take an admitted update back while its round is open: it is then not counted.

    It is final: the round takes no second update of yours. Once it is closed the update stays in its model: ask an
    operator, who can exclude it and have the model derived again. Run again, it says the entry that there is.
    """
    with open_participant(profile) as participant:
        submitted = participant.submitted(segment, round_number)
        try:
            taken_back = participant.withdraw(submitted)
        except RoundStateError as denied:
            if denied.reason != "round_not_open":
                raise
            raise RoundStateError(denied.reason, _too_late(participant, submitted)) from None
    said = {
        "segment": segment,
        "round": submitted.update.round,
        "index": taken_back.index,
        "update": submitted.statement_digest.hex(),
        "statement_digest": taken_back.statement_digest.hex(),
    }
    _say(said, as_json)


def complain(
    profile: ProfileOption,
    segment: SegmentOption,
    out: Annotated[Path, typer.Option("--out", help="File to write: show it to an auditor while the round is open.")],
    round_number: RoundOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Write down that an update of yours was sent and no gatekeeper acknowledged it.

    The file is the signed update, without its values. An auditor puts it on record (`sfrl record complaint`) at least
    10 seconds before the round closes; gatekeepers that have not answered by the close are found to have censored it. A
    refusal that has an entry in the log is an answer: then there is nothing to complain of.
    """
    from sfrl_secure.participant.sent import parse_complaint
    from sfrl_secure.storage.files import write_atomically

    check_folder(out.absolute().parent, "the complaint's folder")
    with open_participant(profile) as participant:
        raw = participant.complaint(segment, round_number)
        _, envelope, update = parse_complaint(raw)
        # Written first: whoever censors can also say that the round is over.
        write_atomically(out.absolute(), raw)
        opened = participant.round_now(segment)
    if opened is not None and opened.opened != update.round_opened:
        typer.echo(
            f"warning: round {update.round} is over and round {opened.number} is open, the gatekeeper shows: a "
            "complaint is of use only while its round is open",
            err=True,
        )
    said = {
        "segment": segment, "round": update.round, "update": envelope.digest.hex(), "out": str(out.absolute()),
    }  # fmt: skip
    _say(said, as_json)


def _cluster_model(
    participant: Participant, segment: str, round_number: int, wait_seconds: float
) -> tuple[dict[str, Any], ModelSnapshot]:
    """The model of the cluster that an update of ours was in, and what to say of it."""
    from sfrl_secure.participant.receipts import open_receipt

    submitted = participant.submitted(segment, round_number)
    number = submitted.update.round
    raw = participant.receipt(submitted, ReceiptKind.COUNTED, wait_seconds=wait_seconds)
    found = open_receipt(raw, participant.policy).cluster
    if found is None:
        raise NotFoundError(
            f"your update of round {number} of {segment} was in no cluster: its model is that of all, without --cluster"
        )
    opened = participant.open_round(segment, wait_seconds=wait_seconds, through_halt=False)
    said = {"segment": segment, "round": number, "cluster_updates": len(found.members), "model": found.model.hex()}
    with showing_bytes("fetching the cluster's model") as tell:
        return said, participant.cluster_model(opened, found, on_progress=tell)


def _too_late(participant: Participant, submitted: Submitted) -> str:
    """Say which update it was that cannot be taken back, and which round is open instead."""
    segment, number = submitted.update.segment, submitted.update.round
    opened = participant.round_now(segment)
    closed = f"yours in round {number} is closed with its round and stays: an operator can exclude it"
    if opened is None or opened.number == number:
        return closed
    return f"you have no update in round {opened.number} of {segment}, which is open; {closed}"


def _keep_receipt(participant: Participant, sent: Submitted, kind: ReceiptKind, wait_seconds: float) -> str:
    participant.receipt(sent, kind, wait_seconds=wait_seconds)
    return str(participant.receipt_path(sent.update.segment, sent.update.round, kind).absolute())


def open_participant(profile: Path) -> Participant:
    """Take part as a profile says; close it.

    Raises:
        NotFoundError: the profile or a file that it names is not there; says which of the two.
        MalformedError, DeniedError: as `Participant.from_profile`.
    """
    from sfrl_secure.participant.sdk import Participant

    return Participant.from_profile(profile)


def _round_of(opened: OpenRound | FinishedSegment) -> dict[str, Any]:
    from sfrl_secure.participant.rounds import FinishedSegment

    if isinstance(opened, FinishedSegment):
        return {"segment": opened.segment, "finished": True, "model": opened.model.hex()}
    return {"segment": opened.segment, "round": opened.number, "model": opened.base_model.hex()}


def _say(said: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(said))
        return
    for key, value in said.items():
        typer.echo(f"{key}: {value}")
