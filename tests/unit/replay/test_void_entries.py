"""Each rule violated once: the entry is void under its code, it changes nothing, and the log goes on."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pytest

from sfrl_secure.replay.findings import CODES
from sfrl_secure.replay.fold import Replay
from sfrl_secure.replay.issued import Issued
from sfrl_secure.replay.quota import Usage

from .builder import SECOND, ZEROS, Writer, pb, sha
from .intervention_rows import INTERVENTIONS
from .payloads import encode_payload
from .void_rows import DOCUMENTS, STATEMENTS, UPDATES, Act, full, terms_with

ROWS = DOCUMENTS + STATEMENTS + INTERVENTIONS


def frozen(value: Any) -> Any:
    """Everything that decides anything, of whatever the state is made of; a new field is in it by itself."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {key: frozen(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [frozen(inner) for inner in value]
    if isinstance(value, set):
        return frozenset(value)
    if isinstance(value, array):
        return list(value)
    if isinstance(value, (Usage, Issued)):
        return frozen(vars(value))
    if is_dataclass(value) and value.__hash__ is None:
        # Streams and digests move with a void entry too, and who was late is seen from any entry.
        moving = {"streams", "statements", "overdue_index"}
        return {each.name: frozen(getattr(value, each.name)) for each in fields(value) if each.name not in moving}
    return value


@pytest.mark.parametrize(
    ("stage", "code", "act"), [pytest.param(*row[1:], id=row[0]) for row in ROWS]
)
def test_a_rule_that_is_broken_voids_the_entry_and_changes_nothing(
    stage: Callable[[Writer], None], code: str, act: Act
) -> None:
    writer = Writer().begin()
    stage(writer)
    act(writer)
    last = len(writer.entries) - 1
    replay = Replay(writer.trust, writer.objects)
    for entry in writer.entries[:-1]:
        assert replay.step(entry) == []
    before = frozen(replay.state)
    found = replay.step(writer.entries[-1])
    assert [(each.code, each.index) for each in found] == [(code, last)]
    assert frozen(replay.state) == before
    # The log goes on from the state before.
    position = len(writer.entries)
    writer.count()
    for entry in writer.entries[position:]:
        assert replay.step(entry) == []


def test_every_code_of_a_void_entry_has_a_row() -> None:
    rows = {row[2] for row in ROWS}
    elsewhere = {
        "checkpoint", "structure", "equivocation", "object_altered", "entry_malformed", "chain", "time",
        "stream_position", "time_ahead", "time_behind", "root_expired", "defective", "initial_model", "overdue",
        "refusal_facts", "censorship",
        # A thousand entries long: see test_agreement and test_interventions.
        "identity_rate",
        # False results are findings and have effect.
        "aggregate", "model",
        "suite_not_allowed",
        # Reasons that a refusal can have and an admission, which names no peer, cannot.
        "wrong_peer", "replayed",
    }  # fmt: skip
    assert rows | elsewhere == set(CODES)
    assert not rows & elsewhere


def last_codes(writer: Writer) -> list[str]:
    replay = writer.replay()
    return [each.code for each in replay.docket.findings if each.index == len(writer.entries) - 1]


def test_an_expired_root_takes_no_document() -> None:
    writer = Writer()
    writer.root = writer.root.replace(str(2**62).encode(), str(writer.now + 6 * SECOND).encode())
    writer.federation_id = sha(writer.root)
    writer.origin = f"log.example/sfrl/{writer.federation_id.hex()[:32]}"
    writer._log_keys()
    writer.genesis()
    writer.publish_services()
    writer.publish_rules()
    writer.now += 3 * SECOND
    writer.publish_terms(void=True)
    assert last_codes(writer) == ["root_expired"]


def test_an_expired_services_document_makes_every_statement_void() -> None:
    writer = Writer()
    writer.genesis()
    writer.publish_services(expires_us=writer.now + 3 * SECOND)
    writer.count()
    writer.count()
    assert [f.code for f in writer.replay().docket.findings] == ["expired"]


def test_no_statement_has_effect_before_a_services_document() -> None:
    writer = Writer()
    writer.genesis()
    writer.count()
    assert last_codes(writer) == ["writer"]


def test_expired_terms_open_no_round() -> None:
    writer = Writer().begin()
    writer.publish_terms(expires_us=writer.now + 3 * SECOND)
    writer.now += SECOND
    writer.open_round(void=True)
    assert last_codes(writer) == ["expired"]


def test_the_last_round_of_the_terms_is_the_last() -> None:
    writer = Writer().begin()
    writer.publish_terms(terms_with(writer, round__rounds_max=1))
    writer.run_round(UPDATES)
    writer.open_round(void=True)
    assert last_codes(writer) == ["round_number"]


@pytest.mark.parametrize("body", [{"state": "suspended"}, {"expires_us": "soon"}])
def test_an_inactive_participant_is_not_admitted(body: dict[str, Any]) -> None:
    writer = Writer().begin()
    if "expires_us" in body:
        writer.record("r2", expires_us=writer.now + 3 * SECOND)
    else:
        writer.record("r2", **body)
    writer.open_round()
    writer.now += 3 * SECOND
    writer.admit("r2", UPDATES["r2"], void=True)
    assert last_codes(writer) == ["participant_inactive"]


def test_a_revocation_needs_its_own_threshold() -> None:
    writer = Writer()
    writer.root = writer.root.replace(b'"revocation": 1', b'"revocation": 2')
    writer.federation_id = sha(writer.root)
    writer.origin = f"log.example/sfrl/{writer.federation_id.hex()[:32]}"
    writer._log_keys()
    writer.begin()
    writer.record("r1", state="revoked", void=True)
    assert last_codes(writer) == ["threshold"]


@pytest.mark.parametrize(("changes", "code"), [
    ({"operations": ["fetch"]}, "not_granted"),
    ({"groups": ["others"]}, "not_granted"),
    ({"suites": ["ed25519+ml-dsa-44"]}, "suite_not_allowed"),
    ({"value_types": ["fp32"]}, "format_not_allowed"),
])  # fmt: skip
def test_what_the_terms_do_not_allow_is_not_admitted(changes: dict[str, Any], code: str) -> None:
    writer = Writer().begin()
    writer.publish_terms(terms_with(writer, **changes))
    writer.open_round()
    writer.admit("r2", UPDATES["r2"], void=True)
    assert last_codes(writer) == [code]


DEFECTS: list[tuple[str, dict[str, Any]]] = [
    ("a policy that denies the header", {"weight": 51}),
    ("a payload that is longer than it says", {"fields": {"payload_bytes": 5}}),
    ("a payload that is shorter than it says", {"fields": {"payload_bytes": 4000}}),
    ("a payload that does not decode", {"payload": encode_payload(UPDATES["r2"], 17)[:-1]}),
    ("a norm beyond the terms", {"update": dict.fromkeys(range(2), 127 * 64)}),
    ("a magnitude beyond the terms", {"update": {1: 9088}}),
    ("a policy that denies the payload", {"update": {1: 127 * 64}}),
    ("another norm", {"facts": {"norm": 1}}),
    ("another density", {"facts": {"density_ppm": 1}}),
    ("other tensors", {"facts": {"tensors": [1]}}),
    ("another magnitude", {"facts": {"largest": 1}}),
    ("other nonzeros", {"facts": {"nonzeros": 1}}),
    ("a rule missing", {"rule_ids": ["cleared", "known"]}),
    ("a rule that did not decide", {"rule_ids": ["cleared", "known", "heavy"]}),
]


@pytest.mark.parametrize("changes", [pytest.param(changes, id=name) for name, changes in DEFECTS])
def test_an_admission_that_its_payload_does_not_bear_out_is_never_counted(changes: dict[str, Any]) -> None:
    writer = Writer().begin()
    full_but_r2(writer)
    arguments = {"update": UPDATES["r2"]} | changes
    writer.admit("r2", arguments.pop("update"), arguments.pop("weight", 10), **arguments)
    defect = len(writer.entries) - 1
    writer.close(dropped={"r2": "defective"})
    writer.publish_model()
    found = [(each.code, each.index) for each in writer.replay().docket.findings]
    assert found == [("defective", defect)]


def test_a_defective_admission_that_is_counted_is_found() -> None:
    writer = Writer().begin()
    full_but_r2(writer)
    writer.admit("r2", UPDATES["r2"], facts={"norm": 1})
    defect = len(writer.entries) - 1
    writer.close()
    found = [(each.code, each.index) for each in writer.replay().docket.findings]
    assert found == [("defective", defect), ("close_dropped", defect + 1)]


FALSE_RESULTS: list[tuple[str, str, Act]] = [
    ("an update dropped as defective that is sound", "close_dropped",
     lambda w: (w.close(dropped={"r2": "defective"}), w.publish_model())),
    ("another aggregate", "aggregate", lambda w: (w.close(), w.publish_model(body={"aggregate": ZEROS}))),
    ("a model that is one unit off", "model", lambda w: (w.close(), w.publish_model(model=[1] + [0] * 16))),
]  # fmt: skip


@pytest.mark.parametrize(("code", "act"), [pytest.param(*row[1:], id=row[0]) for row in FALSE_RESULTS])
def test_a_false_result_is_one_finding_and_frames_nobody_afterwards(code: str, act: Act) -> None:
    """Who holds no payloads cannot see it and goes on from it: what honest services write next is in order."""
    writer = Writer().begin()
    full(writer)
    act(writer)
    writer.open_round()
    writer.admit("r1", UPDATES["r1"])
    found = [each.code for each in writer.replay().docket.findings]
    assert found == [code]


def full_but_r2(writer: Writer) -> None:
    writer.open_round()
    writer.admit("r1", UPDATES["r1"])
    writer.admit("r3", UPDATES["r3"])


def test_a_tensor_that_the_terms_do_not_name_is_a_defect() -> None:
    writer = Writer().begin()
    writer.publish_terms(terms_with(writer, tensors=["a"]))
    writer.open_round()
    writer.admit("r1", UPDATES["r1"])
    assert last_codes(writer) == ["defective"]


def test_without_rules_everything_is_denied() -> None:
    writer = Writer().begin()
    writer.publish_rules(expires_us=writer.now + 3 * SECOND)
    writer.open_round()
    writer.now += SECOND
    writer.refuse("r1", "policy_denied")
    assert last_codes(writer) == []
    writer.admit("r1", UPDATES["r1"])
    assert last_codes(writer) == ["defective"]


def test_a_rule_that_errs_denies() -> None:
    writer = Writer().begin()
    writer.publish_rules(
        '@id("all") permit (principal, action, resource);'
        '@id("errs") forbid (principal, action, resource) when { context.round * 9223372036854775807 * 2 > 5 };'
    )
    writer.open_round()
    writer.refuse("r1", "policy_error")
    assert last_codes(writer) == []


@pytest.mark.parametrize(("changes", "code"), [
    ({"reason": "payload_digest"}, "refusal_reason"),
    ({"facts": pb((1, 9))}, "refusal_facts"),
    ({"rule_ids": ["heavy"]}, "refusal_rules"),
    ({"rule_ids": []}, "refusal_rules"),
])  # fmt: skip
def test_a_refusal_that_its_payload_does_not_bear_out_is_a_finding(changes: dict[str, Any], code: str) -> None:
    writer = Writer().begin()
    writer.open_round()
    arguments = {"reason": "policy_denied", "rule_ids": ["large"]} | changes
    writer.refuse("r1", arguments.pop("reason"), evidence=2, update={1: 127 * 64}, **arguments)
    assert last_codes(writer) == [code]


def test_a_refusal_of_a_sound_update_is_a_finding() -> None:
    writer = Writer().begin()
    writer.open_round()
    writer.refuse("r1", "payload_length", evidence=2)
    assert last_codes(writer) == ["refusal_reason"]


def test_an_initial_model_of_another_manifest_is_a_finding_and_no_model_follows_from_it() -> None:
    writer = Writer()
    writer.genesis()
    writer.publish_services()
    terms = writer.terms()
    terms["model"]["initial"] = writer.objects.put(b"no model").hex()
    writer.publish_terms(terms)
    assert last_codes(writer) == ["initial_model"]
