"""Rounds whose updates come in every format: what is admitted, counted and refused, and masks that are not in order."""

from __future__ import annotations

from typing import Any

import pytest

from .builder import COORDINATES, SECOND, SEGMENT, Writer, codes, sha, untold
from .payloads import encode_mask
from .void_rows import terms_with

TYPES = ["bf16", "exact", "fp32", "int8", "packed", "sign"]
MODES = ["agreed", "dense", "free"]
MASK = [0, 3, 12, 16]
AGREED = {"r1": {0: 5, 3: 0, 12: -7, 16: 1}, "r2": {0: 6, 3: 100, 12: 0, 16: 0}, "r3": {0: 0, 3: 0, 12: 0, 16: 1}}


def ready(
    *, modes: list[str] = MODES, mask: list[int] | None = MASK, mask_terms: dict[str, Any] | None = None, **other: Any
) -> Writer:
    """A federation whose terms allow these modes, all types, and updates of all coordinates."""
    writer = Writer().begin()
    named = mask_terms or (None if mask is None else writer.put_mask(mask))
    allowed = {"value_types": TYPES, "support_modes": modes, "limits__nonzeros_max": COORDINATES, "mask": named}
    writer.publish_terms(terms_with(writer, **allowed | other))
    return writer


def assert_clean(writer: Writer) -> None:
    replay = writer.replay()
    assert replay.docket.findings == []
    assert replay.missing == ()
    segment = replay.state.segments[SEGMENT]
    assert segment.model == writer.model_digest
    assert segment.values is not None
    assert segment.values.tolist() == writer.model


@pytest.mark.parametrize("support", MODES)
@pytest.mark.parametrize("value_type", TYPES)
def test_rounds_in_every_format_hold(value_type: str, support: str) -> None:
    writer = ready()
    values = {"r1": 5, "r2": -3, "r3": 4}
    updates = {name: dict.fromkeys([1, 13] if support == "free" else MASK, value) for name, value in values.items()}
    if support == "dense" and value_type == "sign":
        updates = {name: dict.fromkeys(range(COORDINATES), value) for name, value in values.items()}
    writer.run_round(updates, value_type=value_type, support=support)
    assert_clean(writer)


def test_one_round_takes_every_format() -> None:
    writer = ready(round={"duration_us": 600 * SECOND, "cohort_min": 2, "cohort_max": 3, "rounds_max": 9})
    writer.open_round()
    writer.admit("r1", AGREED["r1"], support="agreed", value_type="packed")
    writer.admit("r2", {1: 7, 15: -1}, support="dense", value_type="exact")
    writer.admit("r3", {2: 64}, value_type="bf16")
    writer.close()
    writer.publish_model()
    assert_clean(writer)


def test_tensors_whose_values_are_all_zero_are_not_touched() -> None:
    writer = ready(tensors=["a"])
    writer.open_round()
    writer.admit("r1", {0: 5, 3: 1, 12: 0, 16: 0}, support="agreed")
    writer.refuse("r2", "tensor_not_allowed", evidence=2, payload=writer.payload_of(AGREED["r1"], support="agreed"),
                  fields=writer.form_of(AGREED["r1"], support="agreed"))  # fmt: skip
    assert_clean(writer)


def test_an_agreed_update_that_is_taken_back_leaves_the_sum() -> None:
    writer = ready()
    writer.open_round()
    for name, update in AGREED.items():
        writer.admit(name, update, support="agreed")
    writer.withdraw("r2")
    writer.close(dropped={"r2": "withdrawn"})
    writer.publish_model()
    assert_clean(writer)


def test_agreed_updates_are_derived_again_under_the_mask_of_their_round() -> None:
    writer = ready()
    writer.run_round(AGREED, support="agreed")
    writer.publish_terms(terms_with(writer, support_modes=["agreed"], mask=writer.put_mask([1, 2])))
    writer.run_round({name: {1: 5, 2: 1} for name in AGREED}, support="agreed")
    first, second = writer.steps
    writer.order("exclude", {"update": first.counted[0].digest})
    writer.order("reaggregate", {"from_round": 1, "reveals": ["r1"]})
    writer.publish_again(1, ["r1"])
    writer.publish_again(2, base=first)
    assert second.model == writer.model_digest
    assert_clean(writer)


NOT_ALLOWED: list[tuple[str, list[str], dict[str, Any]]] = [
    ("agreed, with a value fewer than the mask", MODES, {"support": 2, "nonzeros": 3}),
    ("agreed, with a value more than the mask", MODES, {"support": 2, "nonzeros": 5}),
    ("dense, with a value fewer than coordinates", MODES, {"support": 3, "nonzeros": COORDINATES - 1}),
    ("dense, with a value more than coordinates", MODES, {"support": 3, "nonzeros": COORDINATES + 1}),
    ("agreed where it is not", ["dense", "free"], {"support": 2, "nonzeros": 4}),
    ("dense where it is not", ["agreed", "free"], {"support": 3, "nonzeros": COORDINATES}),
    ("free where it is not", ["agreed", "dense"], {"support": 1}),
    ("dense of an earlier codec", MODES, {"support": 3, "nonzeros": COORDINATES, "codec": 1}),
    ("before the payload is too large", MODES, {"support": 2, "nonzeros": 3, "payload_bytes": 4097}),
]


@pytest.mark.parametrize(("modes", "fields"), [pytest.param(*row[1:], id=row[0]) for row in NOT_ALLOWED])
def test_a_format_that_the_terms_do_not_allow_is_refused(modes: list[str], fields: dict[str, Any]) -> None:
    writer = ready(modes=modes, mask=MASK if "agreed" in modes else None)
    writer.open_round()
    writer.refuse("r1", "format_not_allowed", fields=fields)
    assert_clean(writer)
    writer.admit("r1", {1: 5}, fields=fields, void=True)
    assert codes(writer.replay().docket.findings) == ["format_not_allowed"]


def test_a_dense_update_beyond_the_most_values_is_too_dense() -> None:
    writer = ready(modes=["dense"], mask=None, limits__nonzeros_max=COORDINATES - 1)
    writer.open_round()
    writer.refuse("r1", "too_dense", fields={"support": 3, "nonzeros": COORDINATES})
    assert_clean(writer)


def test_a_mask_that_is_not_there_is_missing_and_judges_nobody() -> None:
    writer = ready()
    writer.open_round()
    writer.admit("r1", AGREED["r1"], support="agreed", facts={"norm": 1})
    writer.admit("r2", {1: 5})
    writer.refuse("r4", "payload_length", evidence=2, payload=writer.payload_of(AGREED["r2"], support="agreed"),
                  fields=writer.form_of(AGREED["r2"], support="agreed"))  # fmt: skip
    writer.admit("r3", AGREED["r3"], support="agreed")
    writer.close()
    writer.publish_model()
    del writer.objects[sha(encode_mask(MASK, COORDINATES))]
    replay = writer.replay()
    assert replay.docket.findings == []
    assert [each.why for each in replay.missing] == ["the mask of round 1"]
    assert untold(replay) == [(len(writer.entries) - 1, 1, "aggregate model")]
    # Not summed, and so read as it was published.
    assert replay.state.segments[SEGMENT].model == writer.model_digest


def test_what_needs_no_mask_is_judged_without_one() -> None:
    writer = ready()
    writer.open_round()
    writer.admit("r1", AGREED["r1"], support="agreed", weight=51)
    writer.admit("r2", AGREED["r2"], support="agreed", fields={"payload_bytes": 5})
    del writer.objects[sha(encode_mask(MASK, COORDINATES))]
    assert [f.found for f in writer.replay().docket.findings] == ["policy_denied", "digest_mismatch"]


def test_an_altered_mask_is_found() -> None:
    writer = ready()
    writer.open_round()
    writer.objects[sha(encode_mask(MASK, COORDINATES))] = encode_mask([1, 2, 3, 4], COORDINATES)
    assert codes(writer.replay().docket.findings) == ["object_altered"]


NO_MASKS: list[tuple[str, bytes, int]] = [
    ("any object", b"no mask", 4),
    ("an update", encode_mask(MASK, COORDINATES)[:6] + b"\1" + encode_mask(MASK, COORDINATES)[7:], 4),
    ("another number of coordinates", encode_mask(MASK, COORDINATES), 3),
    ("another model's", encode_mask(MASK, COORDINATES + 1), 4),
    ("a longer object than a mask can be", encode_mask(MASK, COORDINATES) + bytes(5000), 4),
]


@pytest.mark.parametrize(("raw", "nonzeros"), [pytest.param(*row[1:], id=row[0]) for row in NO_MASKS])
def test_under_an_object_that_is_no_mask_of_the_terms_every_agreed_update_is_refused(raw: bytes, nonzeros: int) -> None:
    writer = Writer()
    named = {"digest": writer.objects.put(raw).hex(), "nonzeros": nonzeros, "next": None}
    writer = ready(mask_terms=named)
    writer.objects.put(raw)
    writer.mask_indices = MASK[:nonzeros]
    writer.open_round()
    update = dict.fromkeys(MASK[:nonzeros], 5)
    form = writer.form_of(update, support="agreed")
    good = writer.payload_of(update, support="agreed")
    # As its statement names that object, rather than the mask that the payload was written for.
    payload = good[:28] + sha(raw) + good[60:]
    writer.refuse("r1", "payload_format", evidence=2, payload=payload, fields=form)
    writer.refuse("r1", "payload_length", evidence=2, payload=payload[:59], fields=form)
    writer.admit("r2", {1: 5})
    assert_clean_until_now(writer)
    writer.admit("r1", update, support="agreed", payload=payload)
    assert [(f.code, f.found) for f in writer.replay().docket.findings] == [("defective", "payload_format")]


def assert_clean_until_now(writer: Writer) -> None:
    replay = writer.replay()
    assert replay.docket.findings == []
    assert replay.missing == ()


def test_a_mask_is_asked_for_by_the_round_that_needs_it_and_not_by_terms() -> None:
    writer = ready()
    del writer.objects[sha(encode_mask(MASK, COORDINATES))]
    assert writer.replay().missing == ()
    writer.open_round()
    assert [each.digest for each in writer.replay().missing] == [sha(encode_mask(MASK, COORDINATES))]


def test_a_payload_that_does_not_lead_to_the_signed_root_is_refused_for_it() -> None:
    writer = ready()
    writer.open_round()
    writer.refuse("r1", "payload_digest", evidence=2, fields={"payload_root": bytes(32)[:-1] + b"\1"})
    writer.refuse("r1", "payload_digest", evidence=2, payload=(good := writer.payload_of({1: 5}))[:-1] + b"\0")
    assert good[-1] != 0
    assert_clean_until_now(writer)
    writer.admit("r2", {1: 5}, fields={"payload_root": b"\1" * 32})
    assert [(f.code, f.found) for f in writer.replay().docket.findings] == [("defective", "payload_digest")]


MALFORMED: list[dict[str, Any]] = [
    {"support_modes": ["agreed", "free"]},
    {"mask": {"digest": "00" * 32, "nonzeros": 1, "next": None}},
    {"support_modes": ["agreed"], "mask": {"digest": "00" * 32, "nonzeros": 0, "next": None}},
    {"support_modes": ["agreed"], "mask": {"digest": "00" * 32, "nonzeros": 11, "next": None}},
    {"support_modes": ["agreed"], "mask": {"digest": "00" * 31, "nonzeros": 1, "next": None}},
    {"support_modes": ["agreed"], "mask": {"digest": "00" * 32, "nonzeros": 1, "next": None, "more": 1}},
    {"support_modes": ["agreed"], "mask": []},
    {"support_modes": ["free", "dense"]}, {"support_modes": []}, {"value_types": ["none"]},
    {"relay_groups": ["b", "a"]}, {"relay_groups": ["a", "a"]}, {"relay_groups": ["A"]},
    {"relay_groups": [f"g{i:02}" for i in range(65)]}, {"limits__payload_bytes_max": 2**30 + 1},
]  # fmt: skip


@pytest.mark.parametrize("changes", MALFORMED, ids=str)
def test_terms_out_of_form_are_malformed(changes: dict[str, Any]) -> None:
    writer = Writer().begin()
    writer.publish_terms(terms_with(writer, **changes), void=True, stream=None)
    assert codes(writer.replay().docket.findings) == ["malformed"]


def test_terms_may_reach_every_bound() -> None:
    writer = Writer().begin()
    mask = {"digest": "00" * 32, "nonzeros": 10, "next": None}
    groups = [f"g{i:02}" for i in range(64)]
    reached = {"mask": mask, "relay_groups": groups, "limits__payload_bytes_max": 2**30}
    writer.publish_terms(terms_with(writer, value_types=TYPES, support_modes=MODES, **reached))
    assert writer.replay().docket.findings == []
