"""`sfrl bundle relay`: many bundles in one run, and what became of each.

Runs in: cli.
Trusts: whoever types. Nothing in a bundle, and nothing that a gatekeeper says before it is proven.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from sfrl_secure.cli.bundle_files import opened_bundle, payload_words
from sfrl_secure.cli.byte_progress import showing_bytes
from sfrl_secure.errors import DeniedError, PayloadError, SfrlError, UnavailableError
from sfrl_secure.wire.receipts import ReceiptKind

if TYPE_CHECKING:
    from sfrl_secure.participant.relaying import RelayedUpdate
    from sfrl_secure.participant.sdk import Participant


class RelayRun:
    """Bundles on their way, and what became of each."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._told: dict[Path, dict[str, Any]] = {}
        self._relayed: dict[Path, RelayedUpdate] = {}
        self._first_error: SfrlError | None = None

    def bring(self, participant: Participant, file: Path, patience: float) -> bool:
        """Submit one bundle; False where no gatekeeper answers, and the others would wait for nobody."""
        from sfrl_secure.participant.relaying import put_beside

        try:
            with opened_bundle(file) as bundle, showing_bytes(f"sending {file.name}") as tell:
                relayed = participant.relay(bundle, deadline_seconds=patience, on_progress=tell)
            path = put_beside(file.absolute(), ReceiptKind.ACKNOWLEDGED, relayed.acknowledgement)
        except SfrlError as error:
            self._failed(file, error)
            return not isinstance(error, UnavailableError)
        submitted, update = relayed.submitted, relayed.submitted.update
        said = {
            "participant": update.participant, "segment": update.segment, "round": update.round,
            "index": submitted.index, "statement_digest": submitted.statement_digest.hex(),
            "update_bytes": submitted.request_bytes, "acknowledged": str(path),
        }  # fmt: skip
        self._relayed[file] = relayed
        self._say(file, said)
        return True

    def wait(self, wait_seconds: float) -> None:
        """Wait for the COUNTED receipt of each that was admitted."""
        from sfrl_secure.participant.relaying import put_beside

        for file, relayed in self._relayed.items():
            try:
                raw = relayed.receipt(ReceiptKind.COUNTED, wait_seconds=wait_seconds)
                self._say(file, {"counted": str(put_beside(file.absolute(), ReceiptKind.COUNTED, raw))})
            except SfrlError as error:
                self._failed(file, error)

    def end(self) -> None:
        """Print the one object, and end with the code of the first bundle that failed."""
        from sfrl_secure.rpc.status import exit_code_of

        if self._as_json:
            typer.echo(json.dumps({"bundles": list(self._told.values())}))
        if self._first_error is not None:
            # A payload that does not fit its statement does not hold, as `unpack` says too.
            raise typer.Exit(1 if isinstance(self._first_error, PayloadError) else exit_code_of(self._first_error))

    def _say(self, file: Path, more: dict[str, Any]) -> None:
        self._told.setdefault(file, {"bundle": str(file)}).update(more)
        if not self._as_json:
            say({"bundle": str(file), **more}, as_json=False)

    def _failed(self, file: Path, error: SfrlError) -> None:
        self._first_error = self._first_error or error
        reason = error.reason if isinstance(error, DeniedError | PayloadError) else None
        entry = error.entry_index if isinstance(error, DeniedError) else None
        words = payload_words(error, is_signature_verified=False) if isinstance(error, PayloadError) else str(error)
        more = {"error": words, "reason": reason, "entry": entry}
        self._told.setdefault(file, {"bundle": str(file)}).update(more)
        if not self._as_json:
            where = "" if entry is None else f", entry {entry}"
            typer.echo(f"error: {file}: {words}{'' if reason is None else f' ({reason}{where})'}", err=True)


def say(said: dict[str, Any], as_json: bool) -> None:
    """Print what a command did: one object, or a line a fact."""
    if as_json:
        typer.echo(json.dumps(said))
        return
    for key, value in said.items():
        typer.echo(f"{key}: {value}")
