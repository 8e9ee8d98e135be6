"""Our own vectors: `bad_*` must fail at the step that `outcomes.json` names, the others must pass.

`write_vectors.py` is the second implementation: it imports nothing of ours, and says the same bytes.
"""

import json
import runpy
from pathlib import Path

import pytest

from sfrl_secure import errors
from sfrl_secure.translog.checkpoint import parse_checkpoint
from sfrl_secure.translog.note import NoteSignature, format_note, parse_note
from sfrl_secure.translog.opened import open_checkpoint
from sfrl_secure.translog.policy import format_trust_policy, parse_trust_policy
from sfrl_secure.translog.tlog_proof import format_tlog_proof, open_tlog_proof, parse_tlog_proof
from sfrl_secure.translog.witness import (
    WitnessState,
    decide_add_checkpoint,
    format_add_checkpoint,
    parse_add_checkpoint,
)

HERE = Path(__file__).parent
OWN = HERE / "own"
OUTCOMES = json.loads((OWN / "outcomes.json").read_text())
OPENED = ("policy", "checkpoint", "proof")
POLICY = parse_trust_policy((OWN / "policy.txt").read_bytes())


def names(kind: str, *, good: bool) -> list[str]:
    return [n for n, row in OUTCOMES.items() if row["kind"] == kind and (row["outcome"] in ("ok", "200")) == good]


def read(name: str) -> bytes:
    return (OWN / f"{name}.txt").read_bytes()


def open_vector(name: str) -> None:
    match OUTCOMES[name]["kind"]:
        case "policy":
            parse_trust_policy(read(name))
        case "checkpoint":
            open_checkpoint(read(name), POLICY, quorum=True)
        case "proof":
            open_tlog_proof(read(name), POLICY)


def test_the_second_implementation_writes_the_same_bytes() -> None:
    said = runpy.run_path(str(HERE / "write_vectors.py"))["vectors"]()
    assert {name: (kind, outcome) for name, (kind, outcome, _) in said.items()} == {
        name: (row["kind"], row["outcome"]) for name, row in OUTCOMES.items()
    }
    assert {name: text.encode() for name, (_, _, text) in said.items()} == {name: read(name) for name in OUTCOMES}
    assert {p.stem for p in OWN.glob("*.txt")} == set(OUTCOMES)


@pytest.mark.parametrize("name", [name for kind in OPENED for name in names(kind, good=True)])
def test_a_good_vector_opens(name: str) -> None:
    assert not name.startswith("bad_")
    open_vector(name)


@pytest.mark.parametrize("name", [name for kind in OPENED for name in names(kind, good=False)])
def test_a_bad_vector_is_refused_at_its_step(name: str) -> None:
    assert name.startswith("bad_")
    with pytest.raises(errors.SfrlError) as caught:
        open_vector(name)
    assert type(caught.value) is getattr(errors, OUTCOMES[name]["outcome"])


def test_good_vectors_come_back_byte_for_byte() -> None:
    assert format_note(parse_note(read("checkpoint_5"))) == read("checkpoint_5")
    assert format_tlog_proof(parse_tlog_proof(read("entry_3"))) == read("entry_3")
    assert format_add_checkpoint(parse_add_checkpoint(read("request_growth"))) == read("request_growth")
    assert format_trust_policy(POLICY) == read("policy")


@pytest.mark.parametrize("name", [*names("request", good=True), *names("request", good=False)])
def test_a_witness_answers_each_request_with_its_status(name: str) -> None:
    log = POLICY.logs[0]
    note = parse_add_checkpoint(read("request_again")).note
    recorded = {log.origin: WitnessState(parse_checkpoint(parse_note(note).text), note)}
    answer = decide_add_checkpoint(
        read(name), logs={log.origin: log}, recorded=recorded,
        cosign=lambda text: (NoteSignature("w.example", b"idid", text.encode()),),
    )
    assert str(answer.status) == OUTCOMES[name]["outcome"]
