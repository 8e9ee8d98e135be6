"""Admission: each reason of the table, what is logged for it, and what is answered the second time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulator import (
    DAY_US,
    GRID,
    MANIFEST,
    SEGMENT,
    Sent,
    SimulatedGatekeeper,
    Simulator,
    payload_of,
    submission,
)

from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.errors import DeniedError
from sfrl_secure.governance.statements import Evidence, PayloadFormat, UpdateRefused
from sfrl_secure.governance.terms import LeakageBound, LeakageTerms, QuotaTerms, RoundTerms, UpdateLimits
from sfrl_secure.ids import sha256
from sfrl_secure.sparse.encode import pack_update
from sfrl_secure.sparse.header import CODEC_VERSION
from sfrl_secure.sparse.update import SparseUpdate
from sfrl_secure.wire.audit_service import AppendedEntry

DURATION_US = 60_000_000
MARGIN_US = 2_000_000
LOG, OBJECT, NONE = Evidence
VALUES = {0: 5, 3: -7, 17: 100}
"""What `Simulator.update` sends where nothing else is asked for."""


def refusal_of(
    sim: Simulator, gatekeeper: SimulatedGatekeeper, request: Sent
) -> tuple[DeniedError, UpdateRefused]:
    """Submit what must be refused; give the answer and the entry that it names."""
    size = len(sim.log.raw)
    with pytest.raises(DeniedError) as denied:
        gatekeeper.admitter.submit(request)
    assert denied.value.entry_index == size == len(sim.log.raw) - 1
    body = sim.log.statement_at(size).body
    assert isinstance(body, UpdateRefused)
    assert sim.log.voids == {}
    assert (body.reason, body.peer, body.request_digest) == (
        denied.value.reason, request.peer, request.request_digest,
    )  # fmt: skip
    return denied.value, body


@dataclass
class Case:
    """A request that is refused.

    Attributes:
        send: makes it, in a federation whose first round is open.
        quoted: whether the entry holds the participant's envelope.
    """

    reason: str
    evidence: Evidence
    send: Callable[[Simulator], Sent]
    quoted: bool = True
    sim: dict[str, Any] | None = None
    rule_ids: tuple[str, ...] = ()
    stream: str = f"segment/{SEGMENT}"


def own(**changes: Any) -> Callable[[Simulator], Sent]:
    """Rover 1 sends its own update, changed."""
    return lambda sim: submission("rover-1", sim.update("rover-1", **changes))


def after(prepare: Callable[[Simulator], object], **changes: Any) -> Callable[[Simulator], Sent]:
    """Rover 1 signs, and something happens before it sends."""

    def send(sim: Simulator) -> Sent:
        request = own(**changes)(sim)
        prepare(sim)
        return request

    return send


def replayed(sim: Simulator) -> Sent:
    signed = sim.update("rover-1")
    sim.gatekeeper("g2").admitter.submit(submission("rover-1", signed))
    return submission("rover-2", signed)


def closed(sim: Simulator) -> None:
    sim.clock.advance(DURATION_US)
    sim.close_round()


def ended_by_order(sim: Simulator) -> None:
    """The round is still open: nobody has closed it yet."""
    first = sim.segment.rounds[1]
    for name in ("rover-2", "rover-3", "rover-4"):
        sim.admit(name, {1: 1})
    sim.close_round()
    sim.publish_model()
    sim.open_round()
    sim.roll_back(first.base_model)


def second_in_a_window(sim: Simulator) -> Sent:
    """Rover 1's update of the second round, a day less a minute after its first."""
    sim.admit("rover-1", {0: 6, 3: -7, 17: 100})
    closed(sim)
    sim.open_round()
    sim.clock.advance(DURATION_US // 2)
    return own()(sim)


def guarded(**bounds: Any) -> dict[str, Any]:
    """Terms with a leakage gate."""
    gate = {"nonzeros_min": 1, "weight_min": 1, "noise_std_min": 0, "rows": (), "labels": (), **bounds}
    return {"terms": {"leakage": LeakageTerms(**gate)}}


def full(sim: Simulator) -> None:
    for name in ("rover-2", "rover-3", "rover-4"):
        sim.admit(name, {1: 1})


def damaged(offset: int, value: int) -> Callable[[Simulator], Sent]:
    """A payload with one byte changed, correctly signed for."""

    def send(sim: Simulator) -> Sent:
        payload = bytearray(payload_of(VALUES))
        payload[offset] = value
        return submission("rover-1", sim.update("rover-1", payload=bytes(payload)))

    return send


def fp32(values: list[float]) -> Callable[[Simulator], Sent]:
    """An fp32 payload whose first values were overwritten, digest and all."""

    def send(sim: Simulator) -> Sent:
        units = SparseUpdate(MANIFEST.coordinates, np.arange(len(values)), np.ones(len(values), np.int64))
        payload = pack_update(units, value_type="fp32", grid_exponent=GRID)
        good = np.full(len(values), 2.0**-GRID, "<f4").tobytes()
        leaf = payload[64:].replace(good, np.array(values, "<f4").tobytes())
        payload = payload[:32] + sha256(b"\0" + leaf) + leaf
        form = PayloadFormat(CODEC_VERSION, "free", "fp32")
        declared = dict.fromkeys(range(len(values)), 1)
        return submission("rover-1", sim.update("rover-1", declared, payload=payload, format=form))

    return send


FORBIDS = """
@id("a-permit") permit (principal, action, resource);
@id("no-light") forbid (principal, action == Action::"submit", resource) when { context.weight < 5 };
@id("no-small") forbid (principal, action == Action::"submit", resource) when { context.weight < 6 };
@id("no-loud") forbid (principal, action == Action::"admit", resource) when { context.norm > 200 };
@id("broken-submit") forbid (principal, action == Action::"submit", resource)
when { context.weight == 77 && context.nonzeros * 9223372036854775807 > 0 };
@id("broken-admit") forbid (principal, action == Action::"admit", resource)
when { context.weight == 78 && context.norm * 9223372036854775807 > 0 };
"""
WITH_RULES = {"rules": FORBIDS}
WITH_FP32 = {"terms": {"value_types": ["fp32"]}}
WITH_DENSE = {"terms": {
    "support_modes": ["dense"], "limits": UpdateLimits(4_096, MANIFEST.coordinates, 2**21, 2**20, 100),
    **guarded(nonzeros_min=2)["terms"],
}}  # fmt: skip
ONE_OF_ALL = dict.fromkeys(range(MANIFEST.coordinates), 0) | {3: 5}
BIG = 2**20
SIZE = len(payload_of(VALUES))
OTHER = payload_of({0: 6, 3: -7, 17: 100})

CASES = [
    Case("replayed", LOG, replayed),
    Case("bad_signature", NONE, own(key=SigningKey.generate("ed25519")), quoted=False),
    Case("bad_signature", NONE, own(key_id=sha256(b"another key")), quoted=False),
    Case("bad_signature", NONE, own(participant="nobody"), quoted=False),
    Case("participant_inactive", LOG, after(lambda sim: sim.record("rover-1", state="suspended"))),
    Case("wrong_peer", LOG, lambda sim: submission("rover-2", sim.update("rover-1"))),
    Case("wrong_federation", LOG, own(federation_id=sha256(b"another"))),
    Case("unknown_segment", LOG, own(segment="sand"), stream="log"),
    Case("not_granted", LOG, after(lambda sim: sim.record("rover-1", groups=["orbiters"]))),
    Case("not_granted", LOG, own(), sim={"terms": {"operations": ["fetch"]}}),
    Case("halted", LOG, after(lambda sim: sim.halt())),
    Case("round_not_open", LOG, after(closed)),
    Case("round_not_open", LOG, after(ended_by_order)),
    Case("round_not_open", LOG, own(round=2)),
    Case("wrong_prefix", LOG, own(round_opened=sha256(b"another history"))),
    Case("wrong_base", LOG, own(base_model=sha256(b"another model"))),
    Case("deadline", LOG, after(lambda sim: sim.clock.advance(DURATION_US - MARGIN_US))),
    Case("duplicate", LOG, after(lambda sim: sim.admit("rover-1", {1: 1}))),
    Case("round_full", LOG, after(full)),
    Case("suite_not_allowed", LOG, own(), sim={"suites": {"rover-1": "ed25519+ml-dsa-44"}}),
    Case("format_not_allowed", LOG, own(format=PayloadFormat(CODEC_VERSION, "free", "fp32"))),
    Case("format_not_allowed", LOG, own(format=PayloadFormat(1, "free", "int8"))),
    Case("payload_too_large", LOG, own(payload_bytes=4_097)),
    Case("payload_too_large", LOG, own(payload_bytes=0)),
    Case("too_dense", LOG, own(values=dict.fromkeys(range(9), 1))),
    Case("too_few_coordinates", LOG, own(nonzeros=0)),
    Case("too_few_coordinates", LOG, own(), sim=guarded(nonzeros_min=4)),
    Case("weight_limit", LOG, own(weight=101)),
    Case("weight_limit", LOG, own(weight=0)),
    Case("weight_limit", LOG, own(weight=9), sim=guarded(weight_min=10)),
    Case("noise_too_small", LOG, own(noise_std=1), sim=guarded(noise_std_min=2)),
    Case("quota_updates", LOG, second_in_a_window, sim={"terms": {"quota": QuotaTerms(DAY_US, 1, 2**20)}}),
    Case("quota_bytes", LOG, second_in_a_window, sim={"terms": {"quota": QuotaTerms(DAY_US, 9, 2 * SIZE - 1)}}),
    Case("policy_denied", LOG, after(lambda sim: sim.record("rover-1", clearance=2))),
    Case("policy_denied", LOG, own(weight=4), sim=WITH_RULES, rule_ids=("no-light", "no-small")),
    Case("policy_error", LOG, own(weight=77), sim=WITH_RULES),
    Case("digest_mismatch", NONE, lambda sim: submission("rover-1", sim.update("rover-1"), payload=OTHER)),
    Case("digest_mismatch", NONE, own(payload_sha256=sha256(b"another"))),
    Case("digest_mismatch", NONE, own(payload_root=sha256(b"another"))),
    Case("digest_mismatch", NONE, damaged(-1, 0xFF)),
    Case("payload_format", OBJECT, damaged(0, 0)),
    Case("payload_format", OBJECT, own(payload=payload_of(VALUES, grid_exponent=GRID + 1))),
    Case("payload_shape", OBJECT, own(payload=payload_of(VALUES, coordinates=MANIFEST.coordinates + 1))),
    Case("payload_declared", OBJECT, own(nonzeros=4)),
    Case("payload_length", OBJECT, own(payload=payload_of(VALUES) + b"\0")),
    Case("not_canonical", OBJECT, damaged(24, 2)),
    Case("not_finite", OBJECT, fp32([float("inf"), 1.0]), sim=WITH_FP32),
    Case("off_grid", OBJECT, fp32([2.0 ** -(GRID + 1), 1.0]), sim=WITH_FP32),
    Case("magnitude", OBJECT, fp32([2.0**30, 1.0]), sim=WITH_FP32),
    Case("norm_limit", OBJECT, own(values=dict.fromkeys(range(5), BIG))),
    Case("magnitude_limit", OBJECT, own(values={0: 2 * BIG})),
    Case("tensor_not_allowed", OBJECT, own(values={0: 1, 20: 1})),
    Case("leak_coordinates", OBJECT, own(values=ONE_OF_ALL, support="dense"), sim=WITH_DENSE),
    Case("leak_rows", OBJECT, own(), sim=guarded(rows=(LeakageBound("a.weight", 1, 3),))),
    Case("leak_labels", OBJECT, own(), sim=guarded(labels=(LeakageBound("a.weight", 0, 2),))),
    Case("leak_noise", OBJECT, own(noise_std=117), sim=guarded()),
    Case("policy_denied", OBJECT, own(values={0: 256}), sim=WITH_RULES, rule_ids=("no-loud",)),
    Case("policy_error", OBJECT, own(weight=78), sim=WITH_RULES),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=[f"{number}-{case.reason}" for number, case in enumerate(CASES)])
def test_each_reason_is_reached_logged_and_remembered(tmp_path: Path, case: Case) -> None:
    sim = Simulator(tmp_path, **(case.sim or {}))
    sim.open_round()
    request = case.send(sim)
    gatekeeper = sim.gatekeeper()
    denial, body = refusal_of(sim, gatekeeper, request)
    assert denial.reason == case.reason
    assert (body.evidence, body.rule_ids) == (case.evidence, case.rule_ids)
    assert str(denial).endswith(f": forbidden by {', '.join(case.rule_ids)}") == bool(case.rule_ids)
    assert sim.log.statement_at(len(sim.log.raw) - 1).stream == case.stream
    assert (body.envelope == request.envelope) if case.quoted else (body.envelope is None)
    assert sim.objects.is_stored(sha256(request.payload)) == (case.evidence is OBJECT or case.reason == "replayed")
    # The same peer gets the stored refusal, and no second entry, wherever the log knows the update.
    size = len(sim.log.raw)
    with pytest.raises(DeniedError) as again:
        gatekeeper.admitter.submit(request)
    assert again.value.reason == case.reason
    assert (again.value.entry_index == denial.entry_index and len(sim.log.raw) == size) == case.quoted
    sim.close()


def test_the_replay_of_an_update_whose_participant_has_another_key_by_now_is_counted(sim: Simulator) -> None:
    """No entry could quote it: its signature is not of the key in force."""
    sim.open_round()
    request = replayed(sim)
    sim.record("rover-1", signing_key=SigningKey.generate("ed25519"))
    gatekeeper, size = sim.gatekeeper(), len(sim.log.raw)
    with pytest.raises(DeniedError) as denied:
        gatekeeper.admitter.submit(request)
    assert (denied.value.reason, denied.value.entry_index) == ("replayed", None)
    assert len(sim.log.raw) == size
    taken = gatekeeper.counter.take()
    assert taken is not None
    assert [(each.reason, each.count) for each in taken.counts] == [("replayed", 1)]


def test_no_reason_of_the_table_is_left_out() -> None:
    """The table of proto/README.md, steps 3 to 14; `malformed` is the servicer's, `out_of_range` below.

    `payload_digest` is none that a door gives: what does not lead to the root is another payload, `digest_mismatch`.
    """
    table = (Path(__file__).parents[3] / "proto" / "README.md").read_text().split("## Admission")[1]
    rows = [row.split("|")[3] for row in table.split("### Policy")[0].splitlines() if row.startswith("| ")][2:]
    named = {word for row in rows[2:14] for word in row.split("`")[1::2]}
    assert {case.reason for case in CASES} | {"out_of_range"} == named - {"payload_digest"}


def test_an_index_outside_the_model_is_refused(sim: Simulator) -> None:
    """The payload is one of a larger model, renamed."""
    sim.open_round()
    payload = bytearray(payload_of({0: 1, 40: 1}, coordinates=100))
    payload[8:16] = MANIFEST.coordinates.to_bytes(8, "little")
    request = submission("rover-1", sim.update("rover-1", {0: 1, 40: 1}, payload=bytes(payload)))
    assert refusal_of(sim, sim.gatekeeper(), request)[1].reason == "out_of_range"


def test_facts_are_recorded_once_there_are_some(sim: Simulator) -> None:
    sim.open_round()
    gatekeeper = sim.gatekeeper()
    facts = refusal_of(sim, gatekeeper, own(values={0: 3, 20: -4})(sim))[1].facts
    assert facts is not None
    assert (facts.nonzeros, facts.density_ppm, facts.norm, facts.largest_magnitude, facts.tensors) == (
        2, 2 * 10**6 // MANIFEST.coordinates, 5, 4, (0, 2),
    )  # fmt: skip
    assert refusal_of(sim, gatekeeper, own(weight=101)(sim))[1].facts is None


def test_expired_rules_deny(tmp_path: Path) -> None:
    sim = Simulator(tmp_path)
    sim.publish_rules(expires_us=sim.clock.now_us() + 1_000)
    sim.open_round()
    gatekeeper = sim.gatekeeper()
    assert isinstance(gatekeeper.admitter.submit(own()(sim)), AppendedEntry)
    sim.clock.advance(1_000)
    assert refusal_of(sim, gatekeeper, submission("rover-2", sim.update("rover-2")))[0].reason == "policy_denied"
    sim.close()


def test_updates_are_taken_until_two_seconds_before_the_deadline(sim: Simulator) -> None:
    sim.open_round()
    sim.clock.advance(DURATION_US - MARGIN_US - 1)
    assert isinstance(sim.gatekeeper().admitter.submit(own()(sim)), AppendedEntry)


def test_an_admission_says_what_was_measured_and_who_allowed_it(sim: Simulator) -> None:
    current = sim.open_round()
    request = own(values={0: 3, 17: -4})(sim)
    answer = sim.gatekeeper().admitter.submit(request)
    assert isinstance(answer, AppendedEntry)
    admission = current.admissions["rover-1"]
    assert admission.index == answer.logged.index
    assert admission.rule_ids == ("cleared-submit", "cleared-admit")
    assert (admission.facts.norm, admission.facts.tensors) == (5, (0, 1))
    assert admission.retain_until_us >= sim.clock.now_us() + 90 * DAY_US
    assert sim.objects.get(admission.update.payload_sha256, 10_000) == request.payload


def test_an_admitted_update_is_answered_again_from_the_log(sim: Simulator) -> None:
    sim.open_round()
    gatekeeper, other = sim.gatekeeper("g1"), sim.gatekeeper("g2")
    request = own()(sim)
    first = gatekeeper.admitter.submit(request)
    assert isinstance(first, AppendedEntry)
    size = len(sim.log.raw)
    assert gatekeeper.admitter.submit(request) == first.logged.index
    assert other.admitter.submit(request) == first.logged.index
    sim.clock.advance(DURATION_US)
    sim.close_round()
    assert other.admitter.submit(request) == first.logged.index
    assert len(sim.log.raw) == size + 1


def test_limits_hold_at_their_last_value(tmp_path: Path) -> None:
    size = len(payload_of({0: 3, 17: -4}))
    limits = UpdateLimits(payload_bytes_max=size, nonzeros_max=2, norm_max=5, magnitude_max=4, weight_max=100)
    rounds = RoundTerms(duration_us=DURATION_US, cohort_min=1, cohort_max=1, rounds_max=1)
    sim = Simulator(tmp_path, terms={"limits": limits, "round_terms": rounds})
    current = sim.open_round()
    request = own(values={0: 3, 17: -4}, weight=100)(sim)
    assert isinstance(sim.gatekeeper().admitter.submit(request), AppendedEntry)
    assert current.is_full
    sim.close()
