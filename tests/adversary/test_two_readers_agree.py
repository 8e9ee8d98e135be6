"""What a service reads, the verifier reads, and what one refuses the other does: two readers of one specification.

`wire` writes and reads with protobuf's library, `replay` reads from tables of its own. Whoever finds bytes that one
takes and the other does not can make a log of which two honest readers say two things.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sfrl_secure.errors import MalformedError
from sfrl_secure.replay import reader, words, words_reader
from sfrl_secure.wire import entries, participants, statements
from tests.fuzz.mutators import change_field, mutate
from tests.fuzz.world import the_world

Reader = Callable[[bytes], Any]

READERS: dict[str, tuple[Reader, Reader]] = {
    "update": (statements.parse_update, words_reader.parse_update),
    "withdrawal": (participants.parse_withdrawal, words_reader.parse_withdrawal),
    "decision": (participants.parse_decision, words_reader.parse_decision),
    "identity-request": (participants.parse_identity_request, words_reader.parse_identity_request),
    "statement": (statements.parse_statement, reader.parse_statement),
    "entry": (entries.parse_entry, reader.parse_entry),
}
OPENERS: dict[str, tuple[Reader, Reader]] = {
    "update": (statements.parse_update_envelope, words_reader.parse_update_envelope),
    "withdrawal": (participants.parse_withdrawal_envelope, words_reader.parse_withdrawal_envelope),
    "decision": (participants.parse_decision_envelope, words_reader.parse_decision_envelope),
    "identity-request": (
        participants.parse_identity_request_envelope,
        words_reader.parse_identity_request_envelope,
    ),
}
VECTORS = {
    path.stem: json.loads(path.read_text())
    for path in sorted((Path(__file__).resolve().parents[1] / "vectors" / "signed").glob("*.json"))
}
WORLD = the_world()
DAMAGED = 3_000
# Values that the verifier keeps in another form, or needs only in sum.
KEPT_OTHERWISE = {"RefusalsCounted", "ModelsFetched"}


def _kind(vector: dict[str, Any]) -> str:
    return str(vector["payload_type"].removeprefix("application/vnd.sfrl.").removesuffix(".v1"))


def _seeds(kind: str) -> list[bytes]:
    """Whole messages of a kind; many of them stand at the borders of what may be."""
    if kind == "entry":
        return list(WORLD.entries[: len(WORLD.envelopes)])
    found = [bytes.fromhex(vector["bytes"]) for vector in VECTORS.values() if _kind(vector) == kind]
    if kind == "statement":
        found += [each.statement for each in WORLD.envelopes.values() if each.payload_type.endswith("statement.v1")]
    return found


def _read(parse: Reader, raw: bytes) -> object:
    """What is read, or None: refused, and with our own error."""
    try:
        return parse(raw)
    except MalformedError:
        return None


def _verdict(pair: tuple[Reader, Reader], raw: bytes) -> bool:
    """Whether both take it; both must, or neither, and they must have read the same."""
    ours, theirs = (_read(parse, raw) for parse in pair)
    assert (ours is None) == (theirs is None), f"one reader takes what the other refuses: {raw.hex()}"
    _check_same(ours, theirs)
    return ours is not None


def _check_same(ours: Any, theirs: Any) -> None:
    """Compare every value that the verifier keeps."""
    if isinstance(theirs, words.Update):
        form = ours.format
        assert (theirs.codec, theirs.support, theirs.values) == (form.codec, form.support, form.values)
        kept = [field.name for field in fields(theirs) if field.name not in ("codec", "support", "values")]
        assert all(getattr(ours, name) == getattr(theirs, name) for name in kept)
    elif isinstance(theirs, tuple) and not isinstance(ours, str):
        assert len(ours) == len(theirs)
        for pair in zip(ours, theirs, strict=True):
            _check_same(*pair)
    elif is_dataclass(theirs) and type(theirs).__name__ not in KEPT_OTHERWISE:
        for field in fields(theirs):
            _check_same(getattr(ours, field.name), getattr(theirs, field.name))
    elif not is_dataclass(theirs):
        assert ours == theirs


@pytest.mark.parametrize("name", [name for name, vector in VECTORS.items() if _kind(vector) in READERS])
def test_both_readers_say_of_each_vector_what_it_is(name: str) -> None:
    vector = VECTORS[name]
    raw = bytes.fromhex(vector["bytes"])
    assert _verdict(READERS[_kind(vector)], raw) is not name.startswith("bad_")


@pytest.mark.parametrize("kind", READERS)
def test_both_readers_agree_on_damaged_messages(kind: str) -> None:
    _check_damaged(kind, READERS[kind], _seeds(kind))


@pytest.mark.parametrize("kind", OPENERS)
def test_both_readers_agree_on_damaged_envelopes(kind: str) -> None:
    _check_damaged(f"{kind} in its envelope", OPENERS[kind], [entries.encode_envelope(WORLD.quotes[kind])])


def _check_damaged(name: str, pair: tuple[Reader, Reader], seeds: list[bytes]) -> None:
    tally: Counter[bool] = Counter()
    for number in range(DAMAGED):
        random = Random(f"two readers/{name}/{number}")
        seed = random.choice(seeds)
        # Half of the cases stay protobuf, with one field changed at some depth and all lengths right again.
        damage = change_field if number % 2 else mutate
        raw = damage(random, seed, seeds)
        tally[_verdict(pair, raw)] += raw != seed
    # Neither verdict is an accident: what is refused, and what is taken though it was changed, are both many.
    assert tally[False] > DAMAGED // 4
    assert tally[True] > DAMAGED // 100


@pytest.mark.parametrize("kind", READERS)
def test_both_readers_agree_on_every_byte_cut_off_or_turned(kind: str) -> None:
    # The shortest of each kind, whole.
    raw = min((each for each in _seeds(kind) if _read(READERS[kind][0], each) is not None), key=len)
    for at in range(len(raw)):
        _verdict(READERS[kind], raw[:at])
        for bit in (0x01, 0x80):
            _verdict(READERS[kind], raw[:at] + bytes([raw[at] ^ bit]) + raw[at + 1 :])


def test_what_is_signed_for_an_object_is_not_an_entry_for_either_reader() -> None:
    # The verifier has no reader of it, and needs none: nothing that it reads may quote one.
    asked = entries.encode_envelope(WORLD.quotes["object-request"])
    for pair in OPENERS.values():
        assert not _verdict(pair, asked)
