"""The witness over HTTP, as others see it: each status, bounded bodies, and no answer from an uncertain state."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sfrl_secure.errors import UncertainStateError
from sfrl_secure.ids import sha256
from sfrl_secure.sequencer.log_keys import LogKeys
from sfrl_secure.services.verifier.http import witness_app
from sfrl_secure.translog.checkpoint import Checkpoint
from sfrl_secure.translog.cosignature import sign_checkpoint
from sfrl_secure.translog.witness import ADD_CHECKPOINT_BYTES_MAX

from .conftest import ORIGIN, SECONDS, WitnessedLog

ADD = "/witness/add-checkpoint"
LATEST = f"/witness/{hashlib.sha256(ORIGIN.encode()).hexdigest()}/checkpoint"


class Asked:
    """An HTTP client of an ASGI application: one call, its answer, and how much of the body was taken."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.parts_taken = 0

    def __call__(self, method: str, path: str, parts: Sequence[bytes] = (b"",), *, gone: bool = False) -> Asked:
        self.body, self.parts_taken = b"", 0
        asyncio.run(self.call(method, path, list(parts), gone))
        return self

    async def call(self, method: str, path: str, parts: list[bytes], gone: bool = False) -> None:
        async def receive() -> dict[str, Any]:
            if self.parts_taken < len(parts):
                self.parts_taken += 1
                more = gone or self.parts_taken < len(parts)
                return {"type": "http.request", "body": parts[self.parts_taken - 1], "more_body": more}
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                self.status = message["status"]
                self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            else:
                self.body += message.get("body", b"")

        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
            "path": path, "raw_path": path.encode(), "query_string": b"", "headers": [], "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2), "root_path": "",
        }  # fmt: skip
        await self.app(scope, receive, send)


@pytest.fixture
def uncertain() -> list[UncertainStateError]:
    return []


@pytest.fixture
def ask(log: WitnessedLog, tmp_path: Path, uncertain: list[UncertainStateError]) -> Asked:
    return Asked(witness_app(log.witness(tmp_path), uncertain.append))


def test_a_first_checkpoint_gets_200_and_signature_lines(ask: Asked, log: WitnessedLog) -> None:
    ask("POST", ADD, [log.request(0, 4)])
    assert ask.status == 200
    assert ask.headers["content-type"] == "text/plain; charset=utf-8"
    lines = ask.body.decode().splitlines(keepends=True)
    # The cosignature of 64 bytes, and that of 2,420: key id and time stand before each.
    assert [len(base64.b64decode(line.split(" ")[2])) - 12 for line in lines] == [64, 2420]
    assert all(line.startswith("— w.example/witness ") and line.endswith("\n") for line in lines)


HASH = base64.b64encode(bytes(32)) + b"\n"


@pytest.mark.parametrize(
    ("head", "tail"),
    [
        (b"", b""), (b"old 0\n", b""), (b"\n", None), (b"old\n\n", None), (b"old \n\n", None), (b"old -1\n\n", None),
        (b"old 00\n\n", None), (b"old +0\n\n", None), (b"old  0\n\n", None), (b"old 0 \n\n", None),
        (b"Old 0\n\n", None), (b"new 0\n\n", None), (b"old 0\r\n\r\n", None), (b"old 9223372036854775808\n\n", None),
        (b"old 0x1\n\n", None), (b"old \xd9\xa1\n\n", None), (b"\xef\xbb\xbfold 0\n\n", None), (b"\xffold 0\n\n", None),
        (b"old 0\n" + 64 * HASH + b"\n", None), (b"old 0\n" + HASH[:-2] + b"\n\n", None),
        (b"old 0\n" + base64.b64encode(bytes(31)) + b"\n\n", None),
        (b"old 0\n" + base64.b64encode(bytes(33)) + b"\n\n", None),
        (b"old 0\n*" + HASH + b"\n", None), (b"old 0\n" + HASH.replace(b"=", b"") + b"\n", None),
        (b"old 0\n" + HASH.replace(b"A=", b"B=") + b"\n", None), (b"old 0\n\n\n", None),
        (b"old 0\n\n", b"not a note\n"), (b"old 0\n\n", b"one\n2\n"), (b"old 0\n\n", b""),
    ],
)  # fmt: skip
def test_what_is_no_request_gets_400_and_a_sentence(
    ask: Asked, log: WitnessedLog, head: bytes, tail: bytes | None
) -> None:
    assert ask("POST", ADD, [head + (log.note(4) if tail is None else tail)]).status == 400
    assert ask.headers["content-type"] == "text/plain; charset=utf-8"
    assert ask.body.endswith(b"\n")
    assert ask.body.count(b"\n") == 1


def test_a_note_with_an_extension_line_or_a_size_of_another_form_gets_400(ask: Asked, log: WitnessedLog) -> None:
    note = log.note(4)
    for damaged in (
        note.replace(b"\n4\n", b"\n04\n", 1), note.replace(b"\n\n", b"\nmore\n\n", 1),
        note.replace(b"\n4\n", b"\n-4\n", 1), note.replace("—".encode(), b"-"), note[:-1],
        note + b"\n", note.replace(b"\n", b"\r\n"),
    ):  # fmt: skip
        assert ask("POST", ADD, [b"old 0\n\n" + damaged]).status == 400


def test_a_proof_that_does_not_lead_there_gets_422(ask: Asked, log: WitnessedLog) -> None:
    assert ask("POST", ADD, [log.request(0, 4)]).status == 200
    proof = b"".join(base64.b64encode(step) + b"\n" for step in log.tree.consistency_proof(4, 7).path)
    other = b"".join(base64.b64encode(step) + b"\n" for step in log.tree.consistency_proof(4, 9).path)
    for steps in (b"", HASH, other, proof + HASH, proof.split(b"\n", 1)[1], 63 * HASH):
        assert ask("POST", ADD, [b"old 4\n" + steps + b"\n" + log.note(7)]).status == 422
        assert ask.headers["content-type"] == "text/plain; charset=utf-8"
    assert ask("POST", ADD, [b"old 4\n" + proof + b"\n" + log.note(7)]).status == 200
    # From size 0 a proof is empty; between equal sizes too.
    assert ask("POST", ADD, [b"old 7\n" + HASH + b"\n" + log.note(7)]).status == 422


def test_a_first_checkpoint_with_a_proof_gets_422(ask: Asked, log: WitnessedLog) -> None:
    assert ask("POST", ADD, [b"old 0\n" + HASH + b"\n" + log.note(4)]).status == 422


def test_the_empty_log_has_one_root_and_another_gets_422(ask: Asked, log: WitnessedLog) -> None:
    keys = log.keys.note_signer(ORIGIN), log.keys.cosigner(ORIGIN)
    lie = sign_checkpoint(Checkpoint(ORIGIN, 0, sha256(b"not empty")), *keys, SECONDS)
    assert ask("POST", ADD, [b"old 0\n\n" + lie]).status == 422
    assert ask("POST", ADD, [log.request(0, 0)]).status == 200


def test_of_two_roots_for_one_size_asked_for_at_the_same_time_one_gets_200(
    log: WitnessedLog, tmp_path: Path, uncertain: list[UncertainStateError]
) -> None:
    requests = [log.request(0, 7, tree=tree) for tree in (log.tree, log.other)] * 8

    async def ask_all(app: Any) -> list[Asked]:
        asked = [Asked(app) for _ in requests]
        await asyncio.gather(
            *(each.call("POST", ADD, [request]) for each, request in zip(asked, requests, strict=True))
        )
        return asked

    for attempt in range(3):
        asked = asyncio.run(ask_all(witness_app(log.witness(tmp_path / str(attempt)), uncertain.append)))
        assert sorted(each.status for each in asked) == [200] + 15 * [409]
        assert {each.body for each in asked if each.status == 409} == {b"7\n"}


def test_an_old_size_above_the_checkpoints_gets_400(ask: Asked, log: WitnessedLog) -> None:
    assert ask("POST", ADD, [b"old 9\n\n" + log.note(4)]).status == 400


def test_a_checkpoint_under_other_keys_gets_403(ask: Asked, log: WitnessedLog) -> None:
    assert ask("POST", ADD, [log.request(0, 4, keys=LogKeys.generate())]).status == 403


def test_a_checkpoint_without_the_post_quantum_line_gets_403(ask: Asked, log: WitnessedLog) -> None:
    head, lines = log.request(0, 4).rsplit(b"\n\n", 1)
    one = lines.split(b"\n")[0]
    assert ask("POST", ADD, [head + b"\n\n" + one + b"\n"]).status == 403


def test_an_unknown_log_gets_404(ask: Asked, log: WitnessedLog) -> None:
    other = log.request(0, 4).replace(ORIGIN.encode(), b"log.venus.example/other")
    assert ask("POST", ADD, [other]).status == 404


def test_another_recorded_size_gets_409_and_that_size(ask: Asked, log: WitnessedLog) -> None:
    assert ask("POST", ADD, [log.request(0, 7)]).status == 200
    ask("POST", ADD, [log.request(0, 9)])
    assert (ask.status, ask.body, ask.headers["content-type"]) == (409, b"7\n", "text/x.tlog.size")


def test_another_history_gets_422(ask: Asked, log: WitnessedLog) -> None:
    assert ask("POST", ADD, [log.request(0, 7)]).status == 200
    assert ask("POST", ADD, [log.request(7, 9, tree=log.other)]).status == 422
    assert ask("POST", ADD, [log.request(7, 7, tree=log.other)]).status == 422


def test_a_body_is_read_up_to_its_bound_and_not_a_part_further(ask: Asked) -> None:
    part = bytes(ADD_CHECKPOINT_BYTES_MAX // 2 + 1)
    ask("POST", ADD, [part, part, part, part])
    assert ask.status == 400
    assert str(ADD_CHECKPOINT_BYTES_MAX).encode() in ask.body
    assert ask.parts_taken == 2


def test_a_body_in_many_parts_is_one_request(ask: Asked, log: WitnessedLog) -> None:
    raw = log.request(0, 4)
    assert ask("POST", ADD, [raw[at : at + 100] for at in range(0, len(raw), 100)]).status == 200


def test_half_a_request_is_not_decided(ask: Asked, log: WitnessedLog) -> None:
    ask("POST", ADD, [log.request(0, 4)], gone=True)
    assert ask.status == 400
    assert ask("GET", LATEST).status == 404


def test_the_latest_checkpoint_is_given_to_anybody_and_kept_by_no_cache(ask: Asked, log: WitnessedLog) -> None:
    assert ask("GET", LATEST).status == 404
    ask("POST", ADD, [log.request(0, 4)])
    ask("GET", LATEST)
    assert ask.status == 200
    assert ask.body.startswith(f"{ORIGIN}\n4\n".encode())
    assert ask.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", ADD, 405),
        ("POST", LATEST, 405),
        ("GET", "/witness/../../etc/passwd/checkpoint", 404),
        ("GET", "/", 404),
        ("POST", "/add-checkpoint", 404),
    ],
)
def test_nothing_else_is_served(ask: Asked, method: str, path: str, status: int) -> None:
    assert ask(method, path).status == status


def test_an_uncertain_state_stops_the_process_and_is_no_cosignature(
    ask: Asked, log: WitnessedLog, uncertain: list[UncertainStateError], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_path: Path, _data: bytes) -> None:
        raise UncertainStateError("the disk")

    monkeypatch.setattr("sfrl_secure.services.verifier.witness.write_atomically", fail)
    ask("POST", ADD, [log.request(0, 4)])
    assert ask.status == 503
    assert b"w.example" not in ask.body
    assert len(uncertain) == 1
