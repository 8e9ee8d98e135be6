"""`sfrl receipt`: what a receipt proves, offline and years later.

Runs in: cli.
Trusts: whoever types, and the trust policy that they name. Nothing in the receipt.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sfrl_secure.cli.audit import JsonOption, TrustPolicyOption
from sfrl_secure.cli.inputs import read_input
from sfrl_secure.errors import MalformedError, VerificationError

if TYPE_CHECKING:
    from sfrl_secure.participant.receipts import ProvenReceipt

app = typer.Typer(help="Verify a participant's receipt, offline.", no_args_is_help=True)

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="A receipt, as `sfrl submit` keeps it.")]

_NOT_PROVEN = (
    "that the entries had effect under the federation's rules, and that the model is the right sum:"
    " `sfrl audit verify` proves both",
    "that the participant's data was honest",
)


@app.command()
def verify(file: FileArgument, trust_policy: TrustPolicyOption, as_json: JsonOption = False) -> None:
    """Verify a receipt from the file and the trust policy alone; say what it proves and what not.

    Exit code 0: it holds.
    Exit code 1: it does not.
    Exit code 2: it is no receipt, or not there.
    """
    from sfrl_secure.limits import RECEIPT_BYTES_MAX, TRUST_POLICY_BYTES_MAX
    from sfrl_secure.participant.receipts import open_receipt
    from sfrl_secure.translog.policy import parse_trust_policy

    policy = parse_trust_policy(read_input(trust_policy, TRUST_POLICY_BYTES_MAX, "the trust policy"))
    raw = read_input(file, RECEIPT_BYTES_MAX, "the receipt")
    try:
        proven = open_receipt(raw, policy)
    except VerificationError as error:
        if not as_json:
            raise VerificationError(f"the receipt does not hold: {error}") from None
        typer.echo(json.dumps({"holds": False, "error": str(error)}))
        raise typer.Exit(1) from None
    if as_json:
        typer.echo(json.dumps(_in_json(proven)))
        return
    for line in _in_words(proven):
        typer.echo(line)


@app.command("tlog-proof")
def tlog_proof(
    file: FileArgument,
    out: Annotated[Path, typer.Option("--out", help="A new file, by custom NAME.tlog-proof.")],
) -> None:
    """Write a receipt's witnessed entry as a C2SP .tlog-proof, which other people's tools verify.

    The entry stands in its `extra` line. Nothing is verified here: see `verify`.
    """
    from sfrl_secure.limits import RECEIPT_BYTES_MAX
    from sfrl_secure.storage.files import write_new
    from sfrl_secure.translog.tlog_proof import TlogProof, format_tlog_proof
    from sfrl_secure.wire.receipts import ReceiptKind, parse_receipt

    receipt = parse_receipt(read_input(file, RECEIPT_BYTES_MAX, "the receipt"))
    if receipt.kind is ReceiptKind.ACKNOWLEDGED:
        raise MalformedError("an acknowledgement has no witnesses: ask for the WITNESSED receipt")
    if out.exists() or not out.absolute().parent.is_dir():
        raise MalformedError(f"{out} is there already, or has no folder to lie in")
    admitted = receipt.admitted
    write_new(out, format_tlog_proof(TlogProof(admitted.raw, admitted.index, admitted.path, receipt.checkpoint)))
    typer.echo(f"wrote {out}: entry {admitted.index} and its proof, not verified")


def _in_words(proven: ProvenReceipt) -> list[str]:
    from sfrl_secure.cli.words import time_in_words
    from sfrl_secure.wire.receipts import ReceiptKind

    update = proven.update
    lines = [
        f"holds    receipt {proven.kind.name} of {proven.origin}",
        f"update   {update.participant}, segment {update.segment}, round {update.round}, "
        f"{update.nonzeros} nonzeros, weight {update.weight}",
        "proven",
        f"  - {update.participant}, with the key that the operators recorded, signed this update",
        f"  - a gatekeeper of theirs admitted it: entry {proven.index} of the log, {time_in_words(proven.log_time_us)}",
        f"  - the log signed a history of {proven.tree_size} entries with it, under both its keys",
    ]
    if proven.kind is not ReceiptKind.ACKNOWLEDGED:
        lines.append(f"  - the witness quorum cosigned that history: {', '.join(proven.witnesses)}")
    if proven.model is not None:
        lines += [
            f"  - the aggregator closed round {update.round} with this update among the {proven.counted_count} counted",
            f"  - and published model {proven.model.hex()} for that closing",
        ]
    return [*lines, "not proven", *(f"  - {each}" for each in (*_open_of(proven), *_NOT_PROVEN))]


def _open_of(proven: ProvenReceipt) -> list[str]:
    """What a later receipt would prove."""
    if proven.model is not None:
        return []
    return ["that the update was counted: the COUNTED receipt proves it, once the round is over"]


def _in_json(proven: ProvenReceipt) -> dict[str, Any]:
    update = proven.update
    return {
        "holds": True,
        "kind": proven.kind.name,
        "origin": proven.origin,
        "participant": update.participant,
        "segment": update.segment,
        "round": update.round,
        "weight": update.weight,
        "statement_digest": proven.statement_digest.hex(),
        "index": proven.index,
        "log_time_us": proven.log_time_us,
        "log_size": proven.tree_size,
        "witnesses": list(proven.witnesses),
        "model": None if proven.model is None else proven.model.hex(),
        "counted": None if proven.model is None else proven.counted_count,
    }
