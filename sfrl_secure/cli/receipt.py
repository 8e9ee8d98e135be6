"""`sfrl receipt`: what a receipt proves, offline and years later, and what it proves against its log.

Runs in: cli.
Trusts: whoever types, and the trust policy that they name. Nothing in the receipt, and nothing in the log.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sfrl_secure.cli.audit import JsonOption, TrustPolicyOption, check_log
from sfrl_secure.cli.inputs import read_input
from sfrl_secure.errors import MalformedError, MissingEvidenceError, VerificationError

if TYPE_CHECKING:
    from sfrl_secure.audit.receipt_on_log import Comparison
    from sfrl_secure.participant.receipt_files import ProvenLogging
    from sfrl_secure.participant.receipts import ProvenReceipt
    from sfrl_secure.translog.policy import TrustPolicy

app = typer.Typer(help="Verify a participant's receipt, offline.", no_args_is_help=True)

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="A receipt, as `sfrl submit` keeps it.")]

_OLDER_ALONE = (
    "the receipt rests on an older generation's keys alone: whoever has stolen them since can have made it;"
    " --log shows whether today's log holds it"
)


@app.command()
def verify(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A receipt, as `sfrl submit` keeps it, or a .tlog-proof.")
    ],
    trust_policy: TrustPolicyOption,
    log: Annotated[
        Path | None, typer.Option("--log", help="Folder of the log as it is today: hold the receipt against it, too.")
    ] = None,
    evidence: Annotated[
        Path | None, typer.Option("--evidence", help="A new file: with --log, the proof of a fraud, for anyone.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Verify a receipt from the file and the trust policy alone; say what it proves and what not.

    With --log, also whether the log still tells the same history, and what became of the update.

    Exit code 0: it holds, and the log is consistent with it.
    Exit code 1: it does not hold; or it proves that the log or the aggregator lied.
    Exit code 2: it is no receipt, or not there; or more evidence is needed.
    """
    from sfrl_secure.audit.fraud_check import rests_on_retired_keys
    from sfrl_secure.cli.receipt_words import in_json, in_words
    from sfrl_secure.limits import RECEIPT_BYTES_MAX, TRUST_POLICY_BYTES_MAX
    from sfrl_secure.participant.receipt_files import open_receipt_file
    from sfrl_secure.translog.policy import parse_trust_policy

    policy = parse_trust_policy(read_input(trust_policy, TRUST_POLICY_BYTES_MAX, "the trust policy"))
    if evidence is not None:
        if log is None:
            raise MalformedError("--evidence goes with --log: the evidence is the receipt and the log together")
        _check_new(evidence)
        _check_writable(evidence)
    raw = read_input(file, RECEIPT_BYTES_MAX, "the receipt")
    try:
        proven = open_receipt_file(raw, policy)
    except MalformedError as error:
        raise MalformedError(f"{file} is no receipt: {error}") from None
    except VerificationError as error:
        if not as_json:
            raise VerificationError(f"the receipt does not hold: {error}") from None
        typer.echo(json.dumps({"holds": False, "error": str(error)}))
        raise typer.Exit(1) from None
    compared = None if log is None else _compare(proven, log, policy)
    if as_json:
        typer.echo(json.dumps(in_json(proven, policy, compared)))
    else:
        typer.echo("\n".join(in_words(proven, policy, compared)))
    if compared is not None:
        if evidence is not None:
            _keep_evidence(compared, evidence)
        raise typer.Exit({"consistent": 0, "fraud": 1, "missing": 2}[compared.verdict])
    if rests_on_retired_keys(proven.checkpoint, policy):
        raise MissingEvidenceError(_OLDER_ALONE)


def _compare(proven: ProvenReceipt | ProvenLogging, log: Path, policy: TrustPolicy) -> Comparison:
    from rich.console import Console

    from sfrl_secure.audit.receipt_on_log import compare_with_log
    from sfrl_secure.audit.source import FolderLog
    from sfrl_secure.cli.progress import Progress

    check_log(log)
    with Progress(Console(stderr=True)) as progress:
        return compare_with_log(proven.checkpoint, proven.logged, FolderLog(log), policy, progress.tell)


def _keep_evidence(compared: Comparison, path: Path) -> None:
    from sfrl_secure.audit.fraud import encode_fraud_proof
    from sfrl_secure.storage.files import write_new

    if compared.proof is not None:
        write_new(path, encode_fraud_proof(compared.proof))
        typer.echo(f"wrote {path}: anyone verifies it with `sfrl receipt verify-fraud` and the trust policy", err=True)
    elif compared.verdict == "fraud":
        said = f"no few entries show it: {path} was not written; `sfrl audit verify` shows it to whoever has the log"
        typer.echo(said, err=True)
    else:
        none = "no fraud" if compared.verdict == "consistent" else "no fraud is shown"
        typer.echo(f"{none}: {path} was not written", err=True)


@app.command("verify-fraud")
def verify_fraud(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A fraud proof, as `verify --evidence` writes it.")],
    trust_policy: TrustPolicyOption,
    as_json: JsonOption = False,
) -> None:
    """Verify that a log or an aggregator lied, from the proof and the trust policy alone.

    Exit code 0: the fraud is proven.
    Exit code 1: the file proves none.
    Exit code 2: it is no fraud proof, or not there; or it rests on keys that the log no longer uses.
    """
    from sfrl_secure.audit.fraud import FRAUD_BYTES_MAX, parse_fraud_proof
    from sfrl_secure.audit.fraud_check import verify_fraud as verify_proof
    from sfrl_secure.limits import TRUST_POLICY_BYTES_MAX
    from sfrl_secure.translog.policy import parse_trust_policy

    policy = parse_trust_policy(read_input(trust_policy, TRUST_POLICY_BYTES_MAX, "the trust policy"))
    raw = read_input(file, FRAUD_BYTES_MAX, "the fraud proof")
    try:
        proof = parse_fraud_proof(raw)
    except MalformedError as error:
        why = "; for a receipt: `sfrl receipt verify`" if _is_receipt(raw) else f": {error}"
        raise MalformedError(f"{file} is no fraud proof{why}") from None
    try:
        sentence = verify_proof(proof, policy)
    except VerificationError as error:
        if not as_json:
            raise VerificationError(f"the file proves no fraud: {error}") from None
        typer.echo(json.dumps({"proven": False, "error": str(error)}))
        raise typer.Exit(1) from None
    said: dict[str, Any] = {"proven": True, "fraud": sentence}
    typer.echo(json.dumps(said) if as_json else f"proven: {sentence}")


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

    raw = read_input(file, RECEIPT_BYTES_MAX, "the receipt")
    try:
        receipt = parse_receipt(raw)
    except MalformedError as error:
        raise MalformedError(f"{file} is no receipt of ours: {error}") from None
    if receipt.kind is ReceiptKind.ACKNOWLEDGED:
        raise MalformedError("an acknowledgement has no witnesses: ask for the WITNESSED receipt")
    _check_new(out)
    admitted = receipt.admitted
    write_new(out, format_tlog_proof(TlogProof(admitted.raw, admitted.index, admitted.path, receipt.checkpoint)))
    typer.echo(f"wrote {out}: entry {admitted.index} and its proof, not verified")


def _check_new(path: Path) -> None:
    if path.exists() or not path.absolute().parent.is_dir():
        raise MalformedError(f"{path} is there already, or has no folder to lie in")


def _check_writable(path: Path) -> None:
    """Check that a new file can be written, before the work that ends with it.

    Raises:
        MalformedError: its folder takes none.
    """
    from tempfile import TemporaryFile

    try:
        TemporaryFile(dir=path.absolute().parent).close()
    except OSError:
        raise MalformedError(f"{path} cannot be written") from None


def _is_receipt(raw: bytes) -> bool:
    from sfrl_secure.translog.tlog_proof import is_tlog_proof
    from sfrl_secure.wire.receipts import parse_receipt

    try:
        return is_tlog_proof(raw) or bool(parse_receipt(raw))
    except MalformedError:
        return False
