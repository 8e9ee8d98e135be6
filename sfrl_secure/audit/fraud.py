"""Fraud proofs: what shows anyone, offline, that a log or an aggregator lied.

Three lies can be shown with a few entries and notes: two entries that cannot both be in one log; two signed roots of
which one is not the other's past; a closing that leaves an admitted update out. A proof that was parsed proves nothing
yet: see `fraud_check`.

Format: proto/README.md, "Fraud proofs".

Runs in: participants' and auditors' machines.
Trusts: nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sfrl_secure.crypto.strict_json import parse_strict_json
from sfrl_secure.errors import MalformedError
from sfrl_secure.ids import Digest, parse_hex_digest, parse_name
from sfrl_secure.limits import COHORT_MAX, ENTRY_BYTES_MAX, NOTE_BYTES_MAX
from sfrl_secure.translog.canonical_text import COUNT_END, format_base64, parse_base64, parse_base64_digest
from sfrl_secure.translog.entries import LoggedEntry
from sfrl_secure.translog.proofs import PATH_HASHES_MAX

FRAUD_BYTES_MAX = 1024 * 1024
"""One fraud proof: two notes, two entries and a round's counted updates fit."""

_TYPE = "fraud-proof/v1"
WEIGHT_END = 2**32
"""Weights that a leaf of the counted root can hold are below this."""


@dataclass(frozen=True, slots=True)
class ProvenEntry:
    """An entry with its path to the root of a signed note.

    Attributes:
        checkpoint: the note, as it stands.
    """

    checkpoint: bytes
    logged: LoggedEntry


@dataclass(frozen=True, slots=True)
class TwoEntries:
    """Two entries for one place, each under the log's signature."""

    first: ProvenEntry
    second: ProvenEntry


@dataclass(frozen=True, slots=True)
class TwoHistories:
    """Two notes, and what the newer one says of the older one's size.

    Attributes:
        older, newer: the notes; the sizes may be equal.
        past_root: root of the newer tree's first leaves, as many as the older note has.
        path: consistency proof from `past_root` to the newer root.
    """

    older: bytes
    newer: bytes
    past_root: Digest
    path: tuple[Digest, ...]


@dataclass(frozen=True, slots=True)
class CountedUpdate:
    """A leaf of a counted root.

    Attributes:
        weight: below 2**32.
    """

    participant: str
    statement_digest: Digest
    weight: int

    @property
    def leaf(self) -> bytes:
        """As the tree hash takes it: proto/README.md, "Counted root"."""
        return self.participant.encode("ascii") + b"\0" + self.statement_digest + self.weight.to_bytes(4, "big")


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An admission, the closing of its round after it, and all that the closing counts.

    Attributes:
        checkpoint: the note that both paths lead to.
        counted: sorted by participant, at most 500.
    """

    checkpoint: bytes
    admitted: LoggedEntry
    round_closed: LoggedEntry
    counted: tuple[CountedUpdate, ...]


FraudProof = TwoEntries | TwoHistories | LeftOut


def encode_fraud_proof(proof: FraudProof) -> bytes:
    """Write a proof as JSON that people can read."""
    fields: dict[str, Any]
    match proof:
        case TwoEntries():
            kind = "two_entries"
            fields = {"first": _entry_json(proof.first), "second": _entry_json(proof.second)}
        case TwoHistories():
            kind = "two_histories"
            fields = {
                "older": proof.older.decode(),
                "newer": proof.newer.decode(),
                "past_root": format_base64(proof.past_root),
                "path": [format_base64(step) for step in proof.path],
            }
        case LeftOut():
            kind = "left_out"
            fields = {
                "checkpoint": proof.checkpoint.decode(),
                "admitted": _logged_json(proof.admitted),
                "round_closed": _logged_json(proof.round_closed),
                "counted": [
                    {
                        "participant": each.participant,
                        "statement_digest": each.statement_digest.hex(),
                        "weight": each.weight,
                    }
                    for each in proof.counted
                ],
            }
    return (json.dumps({"type": _TYPE, "kind": kind, **fields}, indent=1, ensure_ascii=False) + "\n").encode()


def parse_fraud_proof(raw: bytes) -> FraudProof:
    """Take a proof; nothing in it is verified.

    Raises:
        MalformedError: over 1 MiB, or not of the form.
    """
    fields = parse_strict_json(raw, bytes_max=FRAUD_BYTES_MAX)
    if fields.pop("type", None) != _TYPE:
        raise MalformedError(f"a fraud proof is of type {_TYPE}")
    match fields.pop("kind", None):
        case "two_entries":
            _check_keys(fields, "first", "second")
            return TwoEntries(_proven_entry(fields["first"]), _proven_entry(fields["second"]))
        case "two_histories":
            _check_keys(fields, "older", "newer", "past_root", "path")
            past_root = parse_base64_digest(_text(fields["past_root"]))
            return TwoHistories(_note(fields["older"]), _note(fields["newer"]), past_root, _path(fields["path"]))
        case "left_out":
            _check_keys(fields, "checkpoint", "admitted", "round_closed", "counted")
            counted = _list(fields["counted"], COHORT_MAX)
            return LeftOut(
                _note(fields["checkpoint"]),
                _logged(fields["admitted"]),
                _logged(fields["round_closed"]),
                tuple(_counted(each) for each in counted),
            )
    raise MalformedError("a fraud proof is of kind two_entries, two_histories or left_out")


def _entry_json(entry: ProvenEntry) -> dict[str, Any]:
    return {"checkpoint": entry.checkpoint.decode(), **_logged_json(entry.logged)}


def _logged_json(logged: LoggedEntry) -> dict[str, Any]:
    path = [format_base64(step) for step in logged.path]
    return {"index": logged.index, "entry": format_base64(logged.raw), "path": path}


def _proven_entry(value: Any) -> ProvenEntry:
    fields = _object(value)
    return ProvenEntry(_note(fields.pop("checkpoint", None)), _logged(fields))


def _logged(value: Any) -> LoggedEntry:
    fields = _object(value)
    _check_keys(fields, "index", "entry", "path")
    raw = parse_base64(_text(fields["entry"]), bytes_max=ENTRY_BYTES_MAX)
    return LoggedEntry(_number(fields["index"], COUNT_END), raw, _path(fields["path"]))


def _counted(value: Any) -> CountedUpdate:
    fields = _object(value)
    _check_keys(fields, "participant", "statement_digest", "weight")
    return CountedUpdate(
        parse_name(_text(fields["participant"])),
        parse_hex_digest(_text(fields["statement_digest"])),
        _number(fields["weight"], WEIGHT_END),
    )


def _path(value: Any) -> tuple[Digest, ...]:
    return tuple(parse_base64_digest(_text(step)) for step in _list(value, PATH_HASHES_MAX))


def _note(value: Any) -> bytes:
    raw = _text(value).encode()
    if len(raw) > NOTE_BYTES_MAX:
        raise MalformedError(f"a note is at most {NOTE_BYTES_MAX} bytes")
    return raw


def _check_keys(fields: dict[str, Any], *names: str) -> None:
    if fields.keys() != set(names):
        raise MalformedError("an object of a fraud proof has exactly the keys of its form")


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise MalformedError("a part of a fraud proof is an object")
    return dict(value)


def _list(value: Any, count_max: int) -> Sequence[Any]:
    if not isinstance(value, list) or len(value) > count_max:
        raise MalformedError(f"a part of a fraud proof is a list of at most {count_max}")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise MalformedError("a part of a fraud proof is text")
    return value


def _number(value: Any, end: int) -> int:
    # A bool is an int to Python.
    if type(value) is not int or not 0 <= value < end:
        raise MalformedError("a number in a fraud proof is an integer in its range")
    return value
