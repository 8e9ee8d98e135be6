"""Updates for every reason that a gatekeeper gives with evidence, sent to a real one over several segments and rounds.

`Fleet` is the simulated federation with three segments, its participants and the real parts of a gatekeeper and an
aggregator. `header_faults` and `payload_faults` say what to change in a good update so that each reason is given.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from simulated_federation import GRID, MANIFEST
from simulator import SimulatedGatekeeper, Simulator, submission

from sfrl_secure.errors import DeniedError
from sfrl_secure.governance.statements import PayloadFormat
from sfrl_secure.governance.terms import LeakageBound, LeakageTerms, QuotaTerms, RoundTerms
from sfrl_secure.ids import ZERO_DIGEST, sha256
from sfrl_secure.sparse.encode import pack_update
from sfrl_secure.sparse.header import CODEC_VERSION, ValueType
from sfrl_secure.sparse.update import SparseUpdate

SEGMENTS = ("rocks", "dust", "ice")
ROVERS = tuple(f"rover-{number:02}" for number in range(15))
OUTSIDER, SLEEPER, HYBRID = ROVERS[-3:]
"""Of another group; suspended; with a suite that the terms do not allow."""

RULES = """
@id("cleared") permit (principal, action, resource) when { principal.clearance >= resource.sensitivity };
@id("known") permit (principal, action == Action::"submit", resource);
@id("heavy") forbid (principal, action == Action::"submit", resource) when { context.weight == 60 };
@id("heavy-too") forbid (principal, action, resource) when { context.weight >= 60 && context.weight <= 61 };
@id("strong") forbid (principal, action == Action::"admit", resource) when { context.norm > 60000 };
@id("errs") forbid (principal, action == Action::"submit", resource)
  when { context.weight == 70 && context.weight * 9223372036854775807 > 0 };
@id("errs-late") forbid (principal, action == Action::"admit", resource)
  when { context.weight == 71 && context.norm * 9223372036854775807 > 0 };
"""
USES_MAX = {"rocks": 100, "dust": 2, "ice": 4}
"""How often the quotas let one participant in: by number, and by bytes."""
HEADER_BYTES = 64
"""Preamble and table of a payload of one leaf."""
GOOD = {0: 5, 5: -7, 16: -60, 17: 100}
FP32 = {"format": PayloadFormat(CODEC_VERSION, "free", "fp32")}

Changes = Mapping[str, Any]


@dataclass(frozen=True)
class Fault:
    """What to send so that a reason is given.

    Attributes:
        values: of the update; `changes`, of its statement; `payload` makes the payload out of the good one.
        segments: where the terms let it come to that.
    """

    reason: str
    changes: Changes = field(default_factory=dict)
    values: Mapping[int, int] = field(default_factory=lambda: GOOD)
    payload: Callable[[bytes], bytes] | None = None
    segments: tuple[str, ...] = SEGMENTS


def payload_of(
    values: Mapping[int, int], *, value_type: ValueType = "int8", coordinates: int = MANIFEST.coordinates
) -> bytes:
    """A payload; int8 wants values that one block's scale holds."""
    indices = np.array(sorted(values), dtype=np.int64)
    units = np.array([values[index] for index in sorted(values)], dtype=np.int64)
    return pack_update(SparseUpdate(coordinates, indices, units), value_type=value_type, grid_exponent=GRID)


def patched(at: int, new: bytes, *, replaced: int = 0) -> Callable[[bytes], bytes]:
    """Write other bytes into a payload of one leaf, in place of as many or so many, and the leaf into its table."""

    def patch(raw: bytes) -> bytes:
        raw = raw[:at] + new + raw[at + (replaced or len(new)) :]
        leaf = raw[HEADER_BYTES:]
        return raw[:28] + len(leaf).to_bytes(4, "little") + hashlib.sha256(b"\0" + leaf).digest() + leaf

    return patch


def beyond_the_model(_: bytes) -> bytes:
    """A payload whose last index is no coordinate: one of a larger model, under this model's number."""
    larger = payload_of({0: 5, 5: -7, 16: -60, 50: 100}, coordinates=100)
    return patched(8, MANIFEST.coordinates.to_bytes(8, "little"))(larger)


# From the end of a payload of `GOOD`, one leaf and one block: values, and for int8 the scales before them.
INT8_VALUES, FP32_VALUES, SCALES, SCALES_BYTES = -4, -16, -7, 3
SCALE_34 = b"\x09\x00" + bytes(8) + b"\x10"
"""The step code of 34: 68 zeros and a one."""

HEADER_FAULTS = (
    Fault("wrong_federation", {"federation_id": ZERO_DIGEST}),
    Fault("unknown_segment", {"segment": "nowhere"}, segments=("rocks",)),
    Fault("round_not_open", {"round": 99}),
    Fault("wrong_prefix", {"round_opened": ZERO_DIGEST}),
    Fault("wrong_base", {"base_model": ZERO_DIGEST}),
    Fault("format_not_allowed", {"format": PayloadFormat(CODEC_VERSION + 1, "free", "int8")}),
    Fault("payload_too_large", {"payload_bytes": 4_097}),
    Fault("too_dense", {"nonzeros": 9}),
    Fault("too_few_coordinates", {"nonzeros": 0}),
    Fault("weight_limit", {"weight": 101}),
    Fault("noise_too_small", {"noise_std": 0}, segments=("ice",)),
    Fault("policy_denied", {"weight": 60}),
    Fault("policy_denied", {"weight": 61}),
    Fault("policy_error", {"weight": 70}),
)
PAYLOAD_FAULTS = (
    Fault("payload_format", payload=patched(0, b"X")),
    Fault("payload_shape", payload=patched(8, b"\xff")),
    Fault("payload_declared", {"nonzeros": 2}),
    Fault("payload_length", payload=lambda raw: raw[:-1]),
    Fault("not_canonical", payload=patched(INT8_VALUES, b"\x00")),
    Fault("out_of_range", payload=beyond_the_model),
    Fault("magnitude", payload=patched(SCALES, SCALE_34, replaced=SCALES_BYTES)),
    Fault("not_finite", FP32, payload=patched(FP32_VALUES, b"\x00\x00\xc0\x7f"), segments=("dust",)),
    Fault("off_grid", FP32, payload=patched(FP32_VALUES, b"\x00\x00\x80\x33"), segments=("dust",)),
    Fault("norm_limit", values={0: 127 * 2**15, 5: 64 * 2**15}),
    Fault("magnitude_limit", values={0: 127 * 2**14}),
    Fault("tensor_not_allowed", values={0: 5, 20: 7}),
    Fault("leak_rows", values={0: 5, 1: 7}, segments=("ice",)),
    Fault("leak_labels", values={0: 5, 5: 7, 16: -5}, segments=("ice",)),
    Fault("leak_noise", {"noise_std": 1_000}),
    Fault("policy_denied", values={0: 127 * 2**9, 5: -(2**9)}),
    Fault("policy_error", {"weight": 71}),
)


class Fleet:
    """A federation that gets every kind of update.

    Attributes:
        admitted, refused: what the gatekeeper answered; refusals by reason.
    """

    def __init__(self, folder: Path, *, evidence_budget: int = 2**30) -> None:
        self.sim = Simulator(folder, rovers=ROVERS, suites={HYBRID: "ed25519+ml-dsa-44"}, rules=RULES,
                             terms=self._terms("rocks"))  # fmt: skip
        for segment in SEGMENTS[1:]:
            self.sim.publish_terms(segment=segment, **self._terms(segment))
        self.sim.record(OUTSIDER, groups=["others"])
        self.sim.record(SLEEPER, state="suspended")
        self.gatekeeper: SimulatedGatekeeper = self.sim.gatekeeper(evidence_budget=evidence_budget)
        self.aggregator = self.sim.aggregator()
        self.admitted = 0
        self.refused: Counter[str] = Counter()
        self._created_us = 0
        self._uses: Counter[tuple[str, str]] = Counter()

    @staticmethod
    def _terms(segment: str) -> dict[str, Any]:
        terms: dict[str, Any] = {
            "round_terms": RoundTerms(duration_us=60_000_000, cohort_min=2, cohort_max=6, rounds_max=100)
        }
        if segment == "dust":
            terms["value_types"] = ["fp32", "int8"]
            terms["quota"] = QuotaTerms(window_us=86_400_000_000, updates_max=2, bytes_max=2**53)
        if segment == "ice":
            terms["leakage"] = LeakageTerms(
                1, 1, 1, rows=(LeakageBound("a.weight", 0, 2),), labels=(LeakageBound("a.bias", 0, 1),)
            )
            terms["quota"] = QuotaTerms(window_us=86_400_000_000, updates_max=100, bytes_max=450)
        return terms

    def send(
        self, name: str, segment: str, fault: Fault | None = None, *, peer: str | None = None,
        created_us: int | None = None, **changes: Any,
    ) -> str:  # fmt: skip
        """Send an update, and give the reason of its refusal; empty where it was admitted."""
        fault = fault or Fault("")
        values = dict(fault.values)
        form = fault.changes.get("format", PayloadFormat(CODEC_VERSION, "free", "int8"))
        payload = payload_of(values, value_type=form.values)
        payload = payload if fault.payload is None else fault.payload(payload)
        current = self.sim.state.segments[segment].current
        assert current is not None
        self._created_us += 1
        named = {
            "segment": segment, "round": current.number, "round_opened": current.opened,
            "base_model": current.base_model, "payload_sha256": sha256(payload), "payload_bytes": len(payload),
            "noise_std": 1, "created_us": self._created_us if created_us is None else created_us,
        } | dict(fault.changes) | changes  # fmt: skip
        signed = self.sim.update(name, values, payload=payload, **named)
        try:
            self.gatekeeper.admitter.submit(submission(peer or name, signed))
        except DeniedError as denied:
            self.refused[denied.reason] += 1
            return denied.reason
        self.admitted += 1
        return ""

    def open_rounds(self) -> None:
        """Let the aggregator close, publish and open until every segment has a round that goes on."""
        while not all(self._goes_on(segment) for segment in SEGMENTS):
            assert self.aggregator.step(), "there is something to do"

    def _goes_on(self, segment: str) -> bool:
        current = self.sim.state.segments[segment].open_round
        return current is not None and self.sim.clock.now_us() < current.deadline_us

    def play(self, segment: str, number: int) -> None:
        """Send everything to a segment's open round: faults, each for the reason that is meant, then good updates."""
        sim = self.sim
        crew = ROVERS[:-3]
        assert self.send(OUTSIDER, segment) == "not_granted"
        assert self.send(SLEEPER, segment) == "participant_inactive"
        assert self.send(HYBRID, segment) == "suite_not_allowed"
        for at, name in enumerate(crew):
            assert self.send(name, segment, peer=crew[at - 1]) == "wrong_peer"
            if self._uses[segment, name] >= USES_MAX[segment]:
                continue  # Whatever it sends, the quota comes first.
            for fault in (*HEADER_FAULTS, *PAYLOAD_FAULTS):
                # Of `unknown_segment` each peer has three entries in all.
                if segment in fault.segments and not (fault.reason == "unknown_segment" and number > 3):
                    assert self.send(name, segment, fault) == fault.reason, fault
        sim.halt(segment=segment)
        for name in crew:
            assert self.send(name, segment) == "halted"
        sim.resume(segment=segment)
        # Six of the crew are admitted, others in each round.
        order = crew[number:] + crew[:number]
        for name in order:
            created_us = self._created_us + 1
            reason = self.send(name, segment, created_us=created_us)
            assert reason in ("", "quota_updates", "quota_bytes", "round_full")
            if not reason:
                self._uses[segment, name] += 1
                assert self.send(name, segment) == "duplicate"
                other = crew[crew.index(name) - 1]
                assert self.send(name, segment, peer=other, created_us=created_us) == "replayed"

    def run_out(self) -> None:
        """Let the rounds come to their end, and send what comes too late."""
        sim = self.sim
        ends = {sim.state.segments[segment].rounds[sim.state.segments[segment].last_round].deadline_us
                for segment in SEGMENTS}  # fmt: skip
        sim.clock.advance(min(ends) - sim.clock.now_us() - 1_000_000)
        for segment in SEGMENTS:
            for name in ROVERS[:-3]:
                assert self.send(name, segment) == "deadline"
        sim.clock.advance(max(ends) - sim.clock.now_us())
