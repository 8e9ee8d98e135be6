"""Decisions on record, as their participant keeps them: the salt of each, without which nobody can be shown the input.

The log holds a salted hash of what a decision was about. The salt is kept here, in a file for its owner alone, before
the record is sent: a record whose salt is lost could never be opened. Records of a segment are numbered from 1, each
above the last; a number that was taken and never sent is a gap, and gaps are allowed. One that was refused is free
again, and its opening is kept under another name.

Format: proto/README.md, "What participants sign"; the file is ours.

Runs in: participant, cli.
Trusts: the participant's own folder, whose files are parsed all the same.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sfrl_secure.crypto.commitment import SALT_BYTES, commit_to_input, is_committed_input
from sfrl_secure.crypto.secret import SecretBytes
from sfrl_secure.crypto.strict_json import parse_strict_json
from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.statements import Attribution
from sfrl_secure.ids import Digest, parse_hex_digest, parse_segment
from sfrl_secure.storage.files import SECRET_MODE, make_folder, read_bounded, write_new
from sfrl_secure.storage.system import rename, sync_folder

OPENING_BYTES_MAX = 4_096
OPENING_TYPE = "sfrl-decision-opening/v1"
PPM = 1_000_000
_KEYS = {"type", "segment", "record_seq", "input_commitment", "salt"}


@dataclass(frozen=True, slots=True)
class Decision:
    """What a model said about one input.

    Attributes:
        model: digest of the model that decided, one of the segment's.
        predicted_class: below 2**31.
        confidence: 0 to 1, kept in millionths.
        active_latents: latent dimensions that were active, ascending, at most 256.
        attributions: what contributed most, by rising feature, at most 64.
    """

    model: Digest
    predicted_class: int
    confidence: float
    active_latents: tuple[int, ...] = ()
    attributions: tuple[Attribution, ...] = ()

    def __post_init__(self) -> None:
        if not 0.0 <= self.confidence <= 1.0:
            raise MalformedError("a confidence is from 0 to 1")

    @property
    def confidence_ppm(self) -> int:
        """The confidence in millionths."""
        return round(self.confidence * PPM)


def attributions_of(shares: Sequence[tuple[int, float]]) -> tuple[Attribution, ...]:
    """Put shares, of 1 each, into millionths and in order.

    Raises:
        MalformedError: a share that is no number from -1 to 1.
    """
    # Of one prediction: no feature has more than all of it, for or against.
    if not all(math.isfinite(share) and abs(share) <= 1.0 for _, share in shares):
        raise MalformedError("an attribution's share is a number from -1 to 1, of the whole prediction")
    return tuple(Attribution(feature, round(share * PPM)) for feature, share in sorted(shares))


@dataclass(frozen=True, slots=True)
class Opening:
    """What shows an input to be the one of a record.

    Attributes:
        commitment: as the log has it.
        salt: 32 bytes.
    """

    segment: str
    record_seq: int
    commitment: Digest
    salt: SecretBytes = field(repr=False)

    def matches(self, raw: bytes) -> bool:
        """Whether this is the input that the record is about."""
        return is_committed_input(self.commitment, self.salt.expose(), raw)


def opening_path(receipts: Path, segment: str, record_seq: int) -> Path:
    """Where the opening of a record is kept."""
    return receipts / "decisions" / segment / f"{record_seq}.opening.json"


def last_record_seq(receipts: Path, segment: str) -> int:
    """Highest number of which an opening is kept; 0 where none is."""
    names = [path.name.partition(".")[0] for path in (receipts / "decisions" / segment).glob("*.opening.json")]
    return max((int(name) for name in names if name.isascii() and name.isdecimal()), default=0)


def keep_opening(receipts: Path, segment: str, record_seq: int, salt: bytes, raw: bytes) -> Opening:
    """Commit to an input and keep the opening, durably; never replace one.

    Raises:
        MalformedError: the salt has not 32 bytes, or an opening of this number is kept.
        ExhaustedError, UncertainStateError: it could not be kept.
    """
    opening = Opening(segment, record_seq, commit_to_input(salt, raw), SecretBytes(salt))
    path = opening_path(receipts, segment, record_seq)
    if path.exists():
        raise MalformedError(f"there is a record {record_seq} of {segment} already: its opening is {path}")
    make_folder(path.parent)
    text = json.dumps(
        {
            "type": OPENING_TYPE,
            "segment": segment,
            "record_seq": record_seq,
            "input_commitment": opening.commitment.hex(),
            "salt": salt.hex(),
        },
        indent=1,
    )
    write_new(path, text.encode("ascii") + b"\n", mode=SECRET_MODE)
    return opening


def set_aside(receipts: Path, segment: str, opening: Opening) -> None:
    """Take the opening of a record that was refused out of the way: its number is free again.

    It is renamed and not deleted: the refusal is a gatekeeper's word, and should the log hold the record after all,
    nobody could open it without the salt.

    Raises:
        UncertainStateError: the disk did not confirm.
    """
    path = opening_path(receipts, segment, opening.record_seq)
    rename(path, path.with_name(f"{opening.record_seq}-{opening.commitment.hex()[:16]}.refused.json"))
    sync_folder(path.parent)


def read_opening(path: Path) -> Opening:
    """Read an opening.

    Raises:
        NotFoundError: there is no such file.
        MalformedError: it is none.
    """
    fields = parse_strict_json(read_bounded(path, OPENING_BYTES_MAX), bytes_max=OPENING_BYTES_MAX)
    if fields.keys() != _KEYS or fields["type"] != OPENING_TYPE:
        raise MalformedError(f"the opening of a decision has the keys {', '.join(sorted(_KEYS))}")
    texts = [_text(fields[key]) for key in ("segment", "input_commitment", "salt")]
    record_seq = fields["record_seq"]
    if not isinstance(record_seq, int) or isinstance(record_seq, bool) or record_seq < 1:
        raise MalformedError("a record's number is from 1")
    # A salt has the length of a digest, and the same form in text.
    salt = bytes(parse_hex_digest(texts[2]))
    assert len(salt) == SALT_BYTES
    return Opening(parse_segment(texts[0]), record_seq, parse_hex_digest(texts[1]), SecretBytes(salt))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise MalformedError("names, commitment and salt are text")
    return value
