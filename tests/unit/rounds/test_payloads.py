"""A payload is decided while it comes: in pieces of any size, in two threads, and by the first step that fails."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from simulator import MANIFEST, Simulator

from sfrl_secure.errors import DeniedError, DigestError, MissingEvidenceError
from sfrl_secure.governance.manifest import ModelManifest, TensorSpec
from sfrl_secure.governance.statements import UpdateStatement
from sfrl_secure.governance.terms import UpdateLimits
from sfrl_secure.ids import sha256
from sfrl_secure.rounds.payloads import (
    MeasuredDenial,
    PayloadJudge,
    check_admission,
    check_payload,
)
from sfrl_secure.sparse.encode import pack_dense, payload_root
from sfrl_secure.sparse.mask import Mask, decode_mask, encode_mask
from sfrl_secure.sparse.update import UpdatePart

VALUES = {0: 5, 3: -7, 17: 100}
DENSE = {at: at % 5 - 2 for at in range(MANIFEST.coordinates)}
HEADER_BYTES = 28 + 36


@pytest.fixture
def sim(tmp_path: Path) -> Simulator:
    """A round that takes every format."""
    made = Simulator(tmp_path)
    limits = UpdateLimits(
        payload_bytes_max=4_096, nonzeros_max=MANIFEST.coordinates, norm_max=2**21, magnitude_max=2**20, weight_max=100
    )
    made.publish_terms(
        value_types=["bf16", "exact", "fp32", "int8", "packed", "sign"], support_modes=["agreed", "dense", "free"],
        mask=made.agree(0, 3, 17), limits=limits, tensors=["a.weight", "a.bias", "frozen"],
    )  # fmt: skip
    made.open_round()
    return made


def judge_of(sim: Simulator, statement: UpdateStatement, **named: object) -> PayloadJudge:
    record = sim.state.participant(statement.participant)
    assert record is not None
    given = {"mask": sim.mask, "mask_digest": sim.segment.rounds[1].mask, **named}
    rules = sim.state.rules(sim.clock.now_us())
    return PayloadJudge(sim.segment.terms, rules, record, statement, **given)  # type: ignore[arg-type]


def pieces(payload: bytes, size: int) -> Iterator[bytes]:
    return (payload[at : at + size] for at in range(0, len(payload), size))


def resealed(payload: bytes, statement: UpdateStatement) -> UpdateStatement:
    """The statement of whoever signs this payload of one leaf, whose table it names."""
    return replace(
        statement, payload_sha256=sha256(payload), payload_bytes=len(payload), payload_root=payload_root(payload)
    )


def with_leaf(payload: bytes, leaf: bytes) -> bytes:
    """The payload of one leaf with another leaf of the same length, which its table names."""
    return payload[:32] + sha256(b"\0" + leaf) + leaf


FORMATS = [("free", each, VALUES) for each in ("int8", "fp32", "bf16", "packed", "exact")] + [
    ("free", "sign", {1: 4, 2: -4}),
    ("agreed", "int8", {0: 5, 3: 0, 17: -1}),
    ("agreed", "fp32", {0: 0, 3: 1, 17: 0}),
    ("dense", "fp32", DENSE),
    ("dense", "exact", DENSE),
]


@pytest.mark.parametrize(("support", "value_type", "values"), FORMATS, ids=lambda each: str(each)[:8])
def test_pieces_of_any_size_are_decided_alike(
    sim: Simulator, support: str, value_type: str, values: dict[int, int]
) -> None:
    _, statement, payload = sim.update("rover-1", values, support=support, value_type=value_type)
    found = []
    for size in (1, 7, HEADER_BYTES, len(payload)):
        judge = judge_of(sim, statement)
        for piece in pieces(payload, size):
            judge.feed(piece)
        found.append(judge.finish())
    assert all(each == found[0] for each in found)
    assert found[0].facts.nonzeros == len(values)
    assert found[0].facts.largest_magnitude == max(map(abs, values.values()))


def test_each_part_is_handed_on_as_soon_as_it_is_read(sim: Simulator) -> None:
    _, statement, payload = sim.update("rover-1", DENSE, support="dense", value_type="fp32")
    parts: list[UpdatePart] = []
    judge = judge_of(sim, statement, on_part=parts.append)
    judge.feed(payload[:-1])
    assert not parts
    judge.feed(payload[-1:])
    (part,) = parts
    assert part.values.tolist() == list(DENSE.values())


def test_hash_and_read_may_run_in_threads_of_their_own(sim: Simulator) -> None:
    _, statement, payload = sim.update("rover-1")
    judge = judge_of(sim, statement)
    with ThreadPoolExecutor(2) as pool:
        for half in (judge.hash, judge.read):
            pool.submit(lambda half=half: [half(each) for each in pieces(payload, 3)])
    assert judge.finish() == judge_once(sim, statement, payload)


def judge_once(sim: Simulator, statement: UpdateStatement, payload: bytes) -> object:
    record = sim.state.participant(statement.participant)
    assert record is not None
    return check_payload(
        sim.segment.terms, sim.state.rules(sim.clock.now_us()), record, statement, payload, sim.mask,
        mask_digest=sim.segment.rounds[1].mask,
    )  # fmt: skip


def test_neither_half_alone_lets_an_update_pass(sim: Simulator) -> None:
    _, statement, payload = sim.update("rover-1")
    only_hashed, only_read = judge_of(sim, statement), judge_of(sim, statement)
    only_hashed.hash(payload)
    only_read.read(payload)
    assert reason_at_finish(only_hashed) == "payload_length"
    assert reason_at_finish(only_read) == "digest_mismatch"


def reason_at_finish(judge: PayloadJudge) -> str:
    with pytest.raises(DeniedError) as denied:
        judge.finish()
    return denied.value.reason


@pytest.mark.parametrize("at", [40, HEADER_BYTES, -1], ids=["table", "leaf", "end"])
def test_a_part_that_does_not_lead_to_the_signed_root_is_refused_where_it_ends(sim: Simulator, at: int) -> None:
    _, statement, payload = sim.update("rover-1")
    damaged = bytearray(payload)
    damaged[at] ^= 1
    judge = judge_of(sim, statement)
    end = HEADER_BYTES if at == 40 else len(payload)
    judge.read(bytes(damaged[: end - 1]))
    with pytest.raises(DeniedError) as denied:
        judge.read(bytes(damaged[end - 1 : end]))
    assert denied.value.reason == "digest_mismatch"


def test_a_payload_that_leads_to_another_root_than_the_signed_one_is_a_mismatch(sim: Simulator) -> None:
    _, statement, payload = sim.update("rover-1", payload_root=sha256(b"another"))
    parts: list[UpdatePart] = []
    judge = judge_of(sim, statement, on_part=parts.append)
    with pytest.raises(DeniedError) as denied:
        judge.feed(payload)
    assert denied.value.reason == "digest_mismatch"
    # Nor does it come to anything later.
    judge.read(payload)
    assert reason_at_finish(judge) == "digest_mismatch"
    assert not parts


def test_more_or_less_than_was_signed_is_a_mismatch(sim: Simulator) -> None:
    _, statement, payload = sim.update("rover-1")
    judge = judge_of(sim, statement)
    with pytest.raises(DeniedError) as denied:
        judge.feed(payload + b"\0")
    assert denied.value.reason == "digest_mismatch"
    judge = judge_of(sim, statement)
    judge.feed(payload[:-1])
    assert reason_at_finish(judge) == "digest_mismatch"


def test_another_payload_than_the_named_one_is_a_mismatch_though_its_root_is_signed(sim: Simulator) -> None:
    _, statement, payload = sim.update("rover-1", payload_sha256=sha256(b"another"))
    judge = judge_of(sim, statement)
    judge.feed(payload)
    assert reason_at_finish(judge) == "digest_mismatch"


def test_what_is_not_canonical_waits_for_the_whole_payload_and_its_digest(sim: Simulator) -> None:
    _, statement, payload = sim.update("rover-1", DENSE, support="dense", value_type="fp32")
    minus_zero = with_leaf(payload, b"\0\0\0\x80" + payload[HEADER_BYTES + 4 :])
    signed = resealed(minus_zero, statement)
    parts: list[UpdatePart] = []
    judge = judge_of(sim, signed, on_part=parts.append)
    judge.feed(minus_zero)
    assert reason_at_finish(judge) == "not_canonical"
    assert not parts
    judge = judge_of(sim, replace(signed, payload_sha256=sha256(b"another")))
    judge.feed(minus_zero)
    assert reason_at_finish(judge) == "digest_mismatch"


def test_what_is_broken_in_the_header_is_kept_too_and_nothing_more_is_read(sim: Simulator) -> None:
    _, statement, payload = sim.update("rover-1")
    other_type = payload[:6] + b"\2" + payload[7:]
    judge = judge_of(sim, resealed(other_type, statement))
    for piece in pieces(other_type, 5):
        judge.feed(piece)
    assert reason_at_finish(judge) == "payload_format"


def test_a_header_that_is_damaged_on_the_way_is_a_mismatch_and_no_broken_rule(sim: Simulator) -> None:
    _, statement, payload = sim.update("rover-1")
    for at in (0, 5, 28, 29):
        damaged = bytearray(payload)
        damaged[at] ^= 1
        judge = judge_of(sim, statement)
        judge.feed(bytes(damaged))
        assert reason_at_finish(judge) == "digest_mismatch"


def test_the_number_of_values_is_the_declared_one(sim: Simulator) -> None:
    _, statement, payload = sim.update("rover-1", nonzeros=2)
    judge = judge_of(sim, statement)
    judge.feed(payload)
    assert reason_at_finish(judge) == "payload_declared"


def test_limits_on_what_was_measured_come_with_the_facts(sim: Simulator) -> None:
    _, statement, payload = sim.update("rover-1", {0: 2**20 + 1}, value_type="exact")
    judge = judge_of(sim, statement)
    judge.feed(payload)
    with pytest.raises(MeasuredDenial) as denied:
        judge.finish()
    assert (denied.value.reason, denied.value.facts.largest_magnitude) == ("magnitude_limit", 2**20 + 1)


def other_mask() -> Mask:
    return decode_mask(encode_mask(MANIFEST.coordinates, np.array([0, 3, 18])), MANIFEST.coordinates)


@pytest.mark.parametrize("mask", [None, other_mask()], ids=["none", "another"])
def test_an_agreed_update_is_not_decided_without_the_rounds_mask(sim: Simulator, mask: Mask | None) -> None:
    _, statement, _ = sim.update("rover-1", VALUES, support="agreed")
    with pytest.raises(MissingEvidenceError):
        judge_of(sim, statement, mask=mask)


def test_step_nine_is_taken_before_any_of_the_payload(sim: Simulator) -> None:
    _, statement, _ = sim.update("rover-1")
    record = sim.state.participant("rover-1")
    assert record is not None
    with pytest.raises(DeniedError) as denied:
        PayloadJudge(sim.segment.terms, None, record, statement)
    assert denied.value.reason == "policy_denied"


def test_an_admission_is_decided_again_and_its_facts_and_rules_are_compared(sim: Simulator) -> None:
    sim.admit("rover-1")
    admission = sim.segment.rounds[1].admissions["rover-1"]
    payload = sim.objects.get(admission.update.payload_sha256, 4_096)
    parts: list[UpdatePart] = []
    check_admission(admission, sim.segment.terms, pieces(payload, 10), on_part=parts.append)
    assert [part.values.tolist() for part in parts] == [list(VALUES.values())]
    for changed in (
        replace(admission, facts=replace(admission.facts, norm=1)), replace(admission, rule_ids=("other",))
    ):
        with pytest.raises(DeniedError) as denied:
            check_admission(changed, sim.segment.terms, [payload])
        assert denied.value.reason == "facts"


@pytest.mark.parametrize("size", [1, 7, 4_096])
def test_what_was_not_signed_gets_no_admission_dropped(sim: Simulator, size: int) -> None:
    """Altered where it lies: in the header, a leaf hash, a leaf, at its end; whatever the judge stumbles over first."""
    sim.admit("rover-1")
    admission = sim.segment.rounds[1].admissions["rover-1"]
    payload = sim.objects.get(admission.update.payload_sha256, 4_096)
    turned = [payload[:at] + bytes([payload[at] ^ 1]) + payload[at + 1 :] for at in range(len(payload))]
    for altered in (*turned, payload[:-1], payload + b"\0", b"", bytes(len(payload)), payload * 2):
        with pytest.raises(DigestError):
            check_admission(admission, sim.segment.terms, pieces(altered, size))


@pytest.mark.parametrize("size", [1, 7, 4_096])
def test_what_was_signed_and_should_have_been_refused_is_defective_to_its_last_byte(sim: Simulator, size: int) -> None:
    """With bytes behind those that the judge reads: they belong to what was signed."""
    sim.admit("rover-1")
    admission = sim.segment.rounds[1].admissions["rover-1"]
    payload = sim.objects.get(admission.update.payload_sha256, 4_096)
    for signed, reason in (
        (b"SFRU" + bytes(60), "payload_format"), (payload + b"more", "payload_length"), (payload, "payload_shape")
    ):
        false = replace(admission.update, payload_sha256=sha256(signed), payload_bytes=len(signed))
        terms = sim.segment.terms
        if reason == "payload_shape":
            smaller = replace(MANIFEST, tensors=MANIFEST.tensors[:2])
            terms = replace(terms, model=replace(terms.model, manifest=smaller))
        with pytest.raises(DeniedError) as denied:
            check_admission(replace(admission, update=false), terms, pieces(signed, size))
        assert denied.value.reason == reason
    longer = replace(admission.update, payload_sha256=sha256(payload + b"more"))
    with pytest.raises(DeniedError) as denied:
        check_admission(replace(admission, update=longer), sim.segment.terms, pieces(payload + b"more", size))
    assert denied.value.reason == "digest_mismatch"


def test_memory_does_not_grow_with_the_payload(sim: Simulator) -> None:
    coordinates = 2**21
    manifest = ModelManifest((TensorSpec("a.weight", (coordinates,), "int32"),))
    terms = sim.segment.terms
    terms = replace(
        terms, model=replace(terms.model, manifest=manifest), tensors=("a.weight",),
        limits=UpdateLimits(2**30, coordinates, 2**60, 2**40, 100),
    )  # fmt: skip
    payload = pack_dense(np.arange(coordinates, dtype=np.int64), value_type="fp32", grid_exponent=16)
    _, statement, _ = sim.update("rover-1", DENSE, support="dense", value_type="fp32")
    statement = replace(resealed(payload, statement), nonzeros=coordinates)
    record = sim.state.participant("rover-1")
    assert record is not None
    judge = PayloadJudge(terms, sim.state.rules(sim.clock.now_us()), record, statement)
    view = memoryview(payload)
    tracemalloc.start()
    try:
        for at in range(0, len(payload), 2**20):
            judge.feed(view[at : at + 2**20])
        facts = judge.finish().facts
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert facts.largest_magnitude == coordinates - 1
    assert peak < len(payload) // 2
