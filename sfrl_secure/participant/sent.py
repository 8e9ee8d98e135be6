"""Updates that were sent: the signed envelope of each is kept until its admission is acknowledged.

It is written before the first byte goes out. Where no gatekeeper admits the update, the file is what the participant
shows to an auditor: its own statement, signed before the round was over (`complaint_recorded`). A gatekeeper's word
that it refused removes nothing: whether the refusal is on record, the log says.

Format: DSSE JSON of an update's envelope; proto/README.md, "What participants sign".

Runs in: participant, cli.
Trusts: nothing that such a file holds; its signature is whoever's who reads it to check.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from sfrl_secure.crypto.envelope import Envelope, envelope_to_json, parse_envelope_json
from sfrl_secure.errors import MalformedError, NotFoundError
from sfrl_secure.governance.statements import UpdateStatement
from sfrl_secure.storage.files import SECRET_MODE, make_folder, read_bounded, write_atomically
from sfrl_secure.wire.entries import encode_envelope
from sfrl_secure.wire.statements import parse_update_envelope

COMPLAINT_BYTES_MAX = 64 * 1024
"""An update's envelope is at most 16 KiB, and a third longer in JSON."""


def sent_path(receipts: Path, segment: str, round_number: int) -> Path:
    """Where the envelope of a round's update is kept."""
    return receipts / f"{segment}-{round_number}-sent.dsse.json"


def keep_sent(receipts: Path, update: UpdateStatement, envelope: Envelope) -> None:
    """Keep an envelope that is about to be sent, in place of an earlier one of the round.

    Raises:
        ExhaustedError, UncertainStateError: it could not be kept.
    """
    make_folder(receipts)
    write_atomically(sent_path(receipts, update.segment, update.round), envelope_to_json(envelope), mode=SECRET_MODE)


def forget_sent(receipts: Path, update: UpdateStatement) -> None:
    """Forget an envelope whose admission is acknowledged."""
    with suppress(FileNotFoundError):
        sent_path(receipts, update.segment, update.round).unlink()


def newest_round(receipts: Path, segment: str, ending: str) -> int:
    """The highest round of which a file `<segment>-<round>-<ending>` is kept; 0 where none is."""
    found = [path.name[len(segment) + 1 : -len(ending) - 1] for path in receipts.glob(f"{segment}-*-{ending}")]
    return max((int(number) for number in found if number.isascii() and number.isdecimal()), default=0)


def complaint_of(receipts: Path, segment: str, round_number: int = 0) -> bytes:
    """Give the complaint file about an update that was sent and not acknowledged.

    Args:
        round_number: 0 for the newest.

    Raises:
        NotFoundError: there is none.
    """
    number = round_number or newest_round(receipts, segment, "sent.dsse.json")
    try:
        return read_bounded(sent_path(receipts, segment, number), COMPLAINT_BYTES_MAX)
    except NotFoundError:
        raise NotFoundError(
            "no update of this segment and round is kept as sent and not acknowledged: there is nothing to complain of"
        ) from None


def parse_complaint(raw: bytes) -> tuple[bytes, Envelope, UpdateStatement]:
    """Take a complaint file: the canonical bytes of the envelope, the envelope, and the update in it.

    No signature is looked at.

    Raises:
        MalformedError: not the envelope of an update.
    """
    if len(raw) > COMPLAINT_BYTES_MAX:
        raise MalformedError(f"a complaint file has at most {COMPLAINT_BYTES_MAX} bytes")
    envelope_raw = encode_envelope(parse_envelope_json(raw))
    envelope, update = parse_update_envelope(envelope_raw)
    return envelope_raw, envelope, update
