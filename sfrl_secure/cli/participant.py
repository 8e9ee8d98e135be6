"""`sfrl fetch`, `submit`, `withdraw` and `complain`: a participant by hand.

Arrays travel in `.npz` files that are read and written without pickle.

Runs in: cli.
Trusts: the profile. Nothing that a gatekeeper says is believed before it is proven: see `participant.sdk`.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sfrl_secure.cli.inputs import check_file, naming, parse_model_digest
from sfrl_secure.errors import DeniedError, MalformedError, NotFoundError, RoundStateError, SfrlError
from sfrl_secure.wire.receipts import ReceiptKind

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sfrl_secure.aggregation.models import ModelSnapshot
    from sfrl_secure.participant.rounds import FinishedSegment, OpenRound
    from sfrl_secure.participant.sdk import Participant
    from sfrl_secure.participant.submissions import Submitted

UPDATE_FILE_BYTES_MAX = 2**30

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
    wait: WaitOption = 60.0,
    as_json: JsonOption = False,
) -> None:
    """Open the segment's round and write its base model: one float32 array a tensor."""
    with open_participant(profile) as participant:
        opened = participant.open_round(segment, wait_seconds=wait, through_halt=False)
        model = participant.model(opened)
    write_model(out, model)
    said = {**_round_of(opened), "coordinates": model.manifest.coordinates, "out": str(out.absolute())}
    _say(said, as_json)


def submit(
    profile: ProfileOption,
    segment: SegmentOption,
    update: Annotated[Path, typer.Option("--update", help=".npz with `indices` (int64) and `values` (float).")],
    weight: Annotated[int, typer.Option("--weight", min=1, help="Weight in the mean, within the terms.")],
    value_type: Annotated[str, typer.Option("--value-type", help="int8 or fp32.")] = "int8",
    receipt: Annotated[str, typer.Option("--receipt", help="Wait for: none, witnessed or counted.")] = "witnessed",
    model: Annotated[
        str | None, typer.Option("--model", help="Digest of the model the update is relative to, as `fetch` says it.")
    ] = None,
    noise_std: Annotated[
        float,
        typer.Option("--noise-std", min=0.0, help="Standard deviation of the noise added to each value, if any."),
    ] = 0.0,
    wait: WaitOption = 60.0,
    as_json: JsonOption = False,
) -> None:
    """Submit an update for the round that is open now, and keep its receipt.

    With --model, refuse a round whose base is another model than the one that was fetched. An update that would betray
    single examples, by the segment's terms (leak_rows, leak_labels, leak_noise), is refused here and not sent: train on
    more examples, of more kinds. A round takes one update of yours, and no second one after a withdrawal.
    """
    import numpy as np

    from sfrl_secure.participant.rounds import FinishedSegment

    if value_type not in ("int8", "fp32"):
        raise MalformedError("a value type is int8 or fp32")
    kinds = {"none": None, "witnessed": ReceiptKind.WITNESSED, "counted": ReceiptKind.COUNTED}
    if receipt not in kinds:
        raise MalformedError(f"a receipt to wait for is one of {', '.join(kinds)}")
    base = None if model is None else parse_model_digest(model)
    check_file(update, "the update")
    with naming(update):
        indices, values = read_update(update)
    with open_participant(profile) as participant:
        opened = participant.open_round(segment, wait_seconds=wait, through_halt=False)
        if isinstance(opened, FinishedSegment):
            raise RoundStateError("round_not_open", "the segment's rounds are used up under the terms in force")
        if base is not None and opened.base_model != base:
            raise RoundStateError(
                "wrong_base", f"the open round {opened.number} begins from another model: fetch again and train on it"
            )
        with _in_parameter_units(opened):
            sent = participant.submit(
                opened, indices, values, weight,
                value_type="fp32" if value_type == "fp32" else "int8", noise_std=noise_std, rng=np.random.default_rng(),
            )  # fmt: skip
        said: dict[str, Any] = {
            **_round_of(opened),
            "index": sent.index,
            "statement_digest": sent.statement_digest.hex(),
            "nonzeros": sent.update.nonzeros,
            "update_bytes": sent.request_bytes,
        }
        if kinds[receipt] is not None:
            # Kept in any case: a round that is aborted gives no other one.
            said["receipt"] = _keep_receipt(participant, sent, ReceiptKind.WITNESSED, wait)
        if kinds[receipt] is ReceiptKind.COUNTED:
            try:
                said["receipt"] = _keep_receipt(participant, sent, ReceiptKind.COUNTED, wait)
            except NotFoundError:
                raise NotFoundError(
                    f"entry {sent.index} admits the update, and no model counts it within {wait:.0f} seconds: "
                    f"{_why_uncounted(participant, sent)}; its receipt so far is {said['receipt']}"
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

    with open_participant(profile) as participant:
        raw = participant.complaint(segment, round_number)
        _, envelope, update = parse_complaint(raw)
        # Written first: whoever censors can also say that the round is over.
        write_atomically(out.absolute(), raw)
        opened = _round_now(participant, segment)
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


@contextmanager
def _in_parameter_units(opened: OpenRound) -> Iterator[None]:
    """Say a limit that a refusal names in grid units in those of the values, too."""
    limits, unit = opened.terms.limits, 2.0**-opened.terms.model.grid_exponent
    most = {"norm_limit": limits.norm_max, "magnitude_limit": limits.magnitude_max}
    try:
        yield
    except DeniedError as denied:
        if denied.reason not in most:
            raise
        words = f"{denied}, which is {most[denied.reason] * unit:g} in parameter units"
        raise DeniedError(denied.reason, words, entry_index=denied.entry_index) from None


def _round_now(participant: Participant, segment: str) -> OpenRound | None:
    """The round that is open at this moment; None where none is, or nobody proves one."""
    from sfrl_secure.participant.rounds import OpenRound

    try:
        opened = participant.open_round(segment, wait_seconds=0.0)
    except SfrlError:
        return None
    return opened if isinstance(opened, OpenRound) else None


def _why_uncounted(participant: Participant, sent: Submitted) -> str:
    opened = _round_now(participant, sent.update.segment)
    number = sent.update.round
    if opened is None:
        return f"round {number} is still open, or was aborted with too few"
    if opened.opened == sent.update.round_opened:
        return f"round {number} is still open"
    return f"round {number} is over without it: aborted with too few, or it was taken out (see `sfrl round show`)"


def _too_late(participant: Participant, submitted: Submitted) -> str:
    """Say which update it was that cannot be taken back, and which round is open instead."""
    segment, number = submitted.update.segment, submitted.update.round
    opened = _round_now(participant, segment)
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
    from sfrl_secure.participant.profile import read_profile
    from sfrl_secure.participant.sdk import Participant

    try:
        return Participant.from_profile(profile)
    except NotFoundError:
        check_file(profile, "the profile")
        named = read_profile(profile)
        for path in (named.certificate, named.tls_key, named.service_ca, named.signing_key, named.trust_policy):
            check_file(path, f"a file that the profile {profile} names")
        raise


def read_update(path: Path) -> tuple[NDArray[np.int64], NDArray[np.floating]]:
    """Read the arrays `indices` and `values` of an `.npz` file, without pickle.

    Raises:
        NotFoundError: there is no such file.
        MalformedError: it is too long, is no such file, or holds other arrays.
    """
    import numpy as np

    try:
        if path.stat().st_size > UPDATE_FILE_BYTES_MAX:
            raise MalformedError(f"an update's file has at most {UPDATE_FILE_BYTES_MAX} bytes")
        with zipfile.ZipFile(path) as archive:
            # Each member says how long it is when unpacked: looked at before it is unpacked.
            if sum(member.file_size for member in archive.infolist()) > UPDATE_FILE_BYTES_MAX:
                raise MalformedError(f"an update's arrays have at most {UPDATE_FILE_BYTES_MAX} bytes")
        with np.load(path, allow_pickle=False) as arrays:
            indices, values = arrays["indices"], arrays["values"]
    except FileNotFoundError:
        raise NotFoundError("there is no such file of an update") from None
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        raise MalformedError("an update's file is an .npz with the arrays `indices` and `values`") from None
    if indices.ndim != 1 or indices.shape != values.shape or not np.issubdtype(indices.dtype, np.integer):
        raise MalformedError("an update has integer `indices` and one value for each")
    if not np.issubdtype(values.dtype, np.floating):
        raise MalformedError("an update's values are floating point, in parameter units")
    if indices.dtype.itemsize > 8 or (indices.dtype == np.uint64 and bool(np.any(indices >= 2**63))):
        raise MalformedError("an update's indices fit into int64")
    return indices.astype(np.int64), values.astype(np.float64)


def write_model(path: Path, model: ModelSnapshot) -> None:
    """Write a model as an `.npz` of one float32 array a tensor, in the tensor's shape.

    Raises:
        UncertainStateError, ExhaustedError: the file could not be written.
        MalformedError: the name does not end in .npz.
    """
    import io

    import numpy as np

    from sfrl_secure.storage.files import write_atomically

    if path.suffix != ".npz":
        raise MalformedError("a model is written to a file whose name ends in .npz")
    flat = model.to_float32()
    offsets = model.manifest.offsets
    arrays = {
        tensor.name: flat[start : start + tensor.coordinates].reshape(tensor.shape)
        for start, tensor in zip(offsets, model.manifest.tensors, strict=True)
    }
    buffer = io.BytesIO()
    # Not savez(**arrays): a tensor named `file` would be taken for its first argument.
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    write_atomically(path.absolute(), buffer.getvalue())


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
