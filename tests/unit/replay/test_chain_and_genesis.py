"""The sequencer's part of each entry, and the entry that everything begins with."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from sfrl_secure.crypto.envelope import envelope_to_json
from sfrl_secure.replay.fold import Replay
from sfrl_secure.translog.policy import TrustedLog

from .builder import SECOND, ZEROS, Writer, sha


def findings(writer: Writer) -> list[tuple[str, int | None, str]]:
    return [(f.code, f.index, f.writer) for f in writer.replay().docket.findings]


@pytest.mark.parametrize(("entry", "code"), [
    ({"prev": ZEROS}, "chain"),
    ({"stream_seq": 1}, "stream_position"),
    ({"stream_prev": b"x" * 32}, "stream_position"),
])  # fmt: skip
def test_an_entry_that_does_not_continue_the_log_is_the_logs_fault(entry: dict[str, Any], code: str) -> None:
    writer = Writer().begin()
    writer.count(entry=entry)
    writer.count()
    assert findings(writer) == [(code, len(writer.entries) - 2, "log")]


def test_log_time_that_falls_is_a_finding() -> None:
    writer = Writer().begin()
    writer.count()
    writer.now -= 2 * SECOND
    writer.count()
    assert findings(writer) == [("time", len(writer.entries) - 1, "log")]


def test_log_time_may_stand_still() -> None:
    writer = Writer().begin()
    writer.count()
    writer.now -= SECOND
    writer.count()
    assert findings(writer) == []


def test_entries_in_the_wrong_order_are_found_at_the_first_of_them() -> None:
    writer = Writer().begin()
    writer.count()
    writer.count()
    writer.entries[-2:] = writer.entries[:-3:-1]
    first = findings(writer)[0]
    assert first == ("chain", len(writer.entries) - 2, "log")


def test_a_leaf_that_is_no_entry_is_a_finding_and_the_chain_goes_on_behind_it() -> None:
    writer = Writer().begin()
    writer.entries.append(b"\xff")
    writer.count()
    assert findings(writer) == [("entry_malformed", len(writer.entries) - 2, "log")]


def test_a_malformed_statement_moves_no_stream() -> None:
    writer = Writer().begin()
    writer.count(span=(3, 2), entry_stream=None)
    writer.count()
    assert [code for code, _, _ in findings(writer)] == ["malformed"]


def test_a_void_entry_moves_its_stream_and_is_blamed_on_who_signed_it() -> None:
    writer = Writer().begin()
    writer.count(writer=writer.aggregator)
    writer.count(federation_id=ZEROS)
    writer.count()
    last = len(writer.entries) - 1
    assert findings(writer) == [("role", last - 2, writer.aggregator), ("wrong_federation", last - 1, "log")]


def make_log_key_change(writer: Writer) -> dict[str, Any]:
    other = Writer()
    other.origin = writer.origin
    other._log_keys()
    return {"log_keys": [writer.signer.key.vkey, other.cosigner.key.vkey]}


def root_as(writer: Writer, kind: str) -> str:
    return base64.b64encode(envelope_to_json(writer.signed(kind, writer.root, ["ann", "bob", "cyd"]))).decode()


def with_stray_bits(encoded: str) -> str:
    raw = base64.b64decode(encoded)
    padded = base64.b64encode(raw + b" " * (-(len(raw) - 1) % 3)).decode()
    assert padded.endswith("==")
    return padded[:-3] + chr(ord(padded[-3]) + 1) + "=="


GENESIS: list[tuple[str, Any]] = [
    ("another federation id", {"federation_id": "00" * 32}),
    ("another log key", make_log_key_change),
    ("root without its threshold", {"root_signers": ["ann", "bob"]}),
    ("genesis without its threshold", {"signers": ["ann", "bob"]}),
    ("keys in the wrong order", lambda w: {"log_keys": [w.cosigner.key.vkey, w.signer.key.vkey]}),
    ("another document in root's place", lambda w: {"root": root_as(w, "services")}),
    ("root in base64 with stray bits", lambda w: {"root": with_stray_bits(root_as(w, "root"))}),
    ("another format", {"formats": {"entry": 2, "codec": 2, "model": 1, "arithmetic": 1}}),
    ("another codec", {"formats": {"entry": 1, "codec": 1, "model": 1, "arithmetic": 1}}),
]


@pytest.mark.parametrize("changes", [pytest.param(changes, id=name) for name, changes in GENESIS])
def test_an_ineffective_genesis_proves_nothing_and_ends_the_walk(changes: Any) -> None:
    writer = Writer()
    writer.genesis(**(changes(writer) if callable(changes) else changes))
    writer.publish_services()
    replay = writer.replay()
    assert replay.is_ended
    assert [f.index for f in replay.docket.findings] == [0]
    assert replay.state.in_force == {}


def test_a_genesis_of_another_origin_than_the_trust_policys_is_void() -> None:
    writer = Writer()
    writer.genesis()
    other = Writer()
    replay = Replay(TrustedLog(other.origin, other.trust.keys), writer.objects)
    assert [f.code for f in replay.step(writer.entries[0])] == ["genesis"]
    assert replay.is_ended


def test_an_origin_that_is_not_made_of_the_federation_id_is_void() -> None:
    writer = Writer()
    writer.origin = f"log.example/sfrl/{'0' * 32}"
    writer._log_keys()
    writer.genesis()
    assert [f.code for f in writer.replay().docket.findings] == ["genesis"]


def test_two_operators_cannot_share_a_key() -> None:
    writer = Writer()
    ann, bob = (writer.operators[name].public_key.raw.hex().encode() for name in ("ann", "bob"))
    writer.root = writer.root.replace(bob, ann)
    writer.federation_id = sha(writer.root)
    writer.origin = f"log.example/sfrl/{writer.federation_id.hex()[:32]}"
    writer._log_keys()
    writer.genesis(signers=["ann"], root_signers=["ann"])
    assert [f.index for f in writer.replay().docket.findings] == [0]


@pytest.mark.parametrize("first", ["document", "statement"])
def test_a_log_begins_with_its_genesis(first: str) -> None:
    writer = Writer()
    if first == "document":
        writer.publish_services()
    else:
        writer.count()
    replay = writer.replay()
    assert [f.code for f in replay.docket.findings] == ["genesis"]
    assert replay.is_ended
