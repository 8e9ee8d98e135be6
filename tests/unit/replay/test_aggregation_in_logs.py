"""Rules, server steps, masks and clusters in whole logs: what honest rounds give, from one to the next."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .builder import COORDINATES, GRID, SECOND, SEGMENT, StepNow, Writer, codes, pb, sha, untold
from .cases import RULES
from .payloads import encode_aggregate, encode_mask, encode_payload
from .void_rows import ADAPTIVE, MOMENTUM, NEXT, UPDATES, terms_with

MASK = [0, 3, 12, 16]
AGREED = {"r1": {0: 5, 3: 0, 12: -7, 16: 1}, "r2": {0: 6, 3: 100, 12: 0, 16: 0}, "r3": {0: 0, 3: 0, 12: 0, 16: 1}}
MORE = {"r1": {0: 50, 13: -7, 4: 9}, "r2": {0: 6, 3: 100, 5: -90}, "r3": {16: 1, 0: 40, 13: -70}}


def under(**changes: Any) -> Writer:
    """A federation whose terms are changed so."""
    writer = Writer().begin()
    writer.publish_terms(terms_with(writer, **changes))
    return writer


def change(writer: Writer, **changes: Any) -> None:
    writer.publish_terms(terms_with(writer, **changes))


def changing(writer: Writer, **other: Any) -> dict[str, Any]:
    """Changes of terms with a mask that changes."""
    return {"support_modes": ["agreed", "free"], "mask": writer.put_mask(MASK, NEXT | other)}


def assert_clean(writer: Writer) -> None:
    replay = writer.replay()
    assert replay.docket.findings == []
    assert replay.missing == ()
    segment = replay.state.segments[SEGMENT]
    assert segment.model == writer.model_digest
    assert segment.values is not None
    assert segment.values.tolist() == writer.model


def run_agreed(writer: Writer) -> None:
    """A round whose updates have the mask that it begins with."""
    writer.open_round()
    for name, value in (("r1", 8), ("r2", 64), ("r3", -9)):
        writer.admit(name, dict.fromkeys(writer.mask_indices, value), support="agreed")
    writer.close()
    writer.publish_model()


def leave_out(writer: Writer, name: str, number: int) -> None:
    digest = next(each.digest for each in writer.steps[number - 1].counted if each.name == name)
    writer.order("exclude", {"update": digest})


@pytest.mark.parametrize("server", [None, MOMENTUM, ADAPTIVE], ids=["plain", "momentum", "adaptive"])
@pytest.mark.parametrize("rule", sorted(RULES))
def test_rounds_under_every_rule_hold(rule: str, server: dict[str, Any] | None) -> None:
    named = {"name": rule} | {key: high // 2 for key, (_, high) in RULES[rule].items()}
    writer = Writer().begin()
    change(
        writer, rule=named, server=server, clip={"median_ppm": 900_000},
        cap={"contributors_below": 2, "magnitude": 20}, **changing(writer),
    )  # fmt: skip
    for updates in (UPDATES, MORE, UPDATES):
        writer.run_round(updates)
    run_agreed(writer)
    assert_clean(writer)
    assert len({step.next_mask for step in writer.steps}) > 1


def test_a_server_step_goes_on_while_its_name_stays_and_begins_anew_when_it_changes() -> None:
    writer = under(server=MOMENTUM)
    begun: list[bytes] = []

    def run(updates: dict[str, dict[int, int]] = UPDATES) -> StepNow:
        writer.run_round(updates)
        begun.append(writer.steps[-1].begun.state)
        return writer.steps[-1]

    first = run()
    second = run(MORE)
    change(writer, server=MOMENTUM | {"decay": 2**14, "rate": 7})
    third = run()
    change(writer, server=ADAPTIVE)
    fourth = run()
    run()
    change(writer, server=MOMENTUM)
    run()
    change(writer)
    run()
    change(writer, server=MOMENTUM)
    run()
    assert begun == [b"", first.state, second.state, b"", fourth.state, b"", b"", b""]
    assert len({first.state, second.state, third.state, fourth.state, b""}) == 5
    assert_clean(writer)


def test_a_round_that_is_aborted_leaves_state_and_mask_as_they_are() -> None:
    writer = Writer().begin()
    change(writer, server=MOMENTUM, **changing(writer))
    writer.run_round(UPDATES)
    for _ in range(2):
        writer.open_round()
        assert writer.round is not None
        assert (writer.round.state, writer.round.mask) == (writer.steps[0].state, writer.steps[0].next_mask)
        writer.admit("r1", MORE["r1"])
        writer.now += 600 * SECOND
        writer.close()
    writer.run_round(MORE)
    assert_clean(writer)


def test_a_mask_changes_from_round_to_round_under_terms_that_name_the_same_and_let_it() -> None:
    writer = Writer().begin()
    begun: list[bytes] = []

    def run(**terms: Any) -> StepNow:
        change(writer, **terms)
        writer.run_round(MORE)
        begun.append(writer.steps[-1].begun.mask)
        return writer.steps[-1]

    named, own = changing(writer), sha(encode_mask(MASK, COORDINATES))
    first = run(**named)
    # What is said of how it changes may change, and everything else.
    second = run(**changing(writer, score="votes", regrow=1), cap={"contributors_below": 3, "magnitude": 5})
    assert first.next_mask != own
    # Under terms whose mask stays, it is theirs; and theirs again, because a step without a next mask came between.
    run(support_modes=["agreed", "free"], mask=writer.put_mask(MASK))
    fourth = run(**named)
    other = {"support_modes": ["agreed", "free"], "mask": writer.put_mask([1, 2, 3, 4], NEXT)}
    run(**other)
    run(**named)
    assert begun == [own, first.next_mask, own, own, sha(encode_mask([1, 2, 3, 4], COORDINATES)), own]
    assert second.next_mask not in (b"", own)
    assert fourth.next_mask != own
    run(support_modes=["free"], mask=None)
    run(**named)
    assert begun[-2:] == [b"", own]
    assert_clean(writer)


def test_agreed_updates_have_the_mask_that_the_round_began_with() -> None:
    writer = Writer().begin()
    change(writer, **changing(writer))
    writer.run_round(MORE)
    writer.open_round()
    new = writer.mask_indices
    assert new != MASK
    writer.admit("r1", dict.fromkeys(new, 3), support="agreed")
    form = writer.form_of(AGREED["r1"], support="agreed")
    writer.mask_indices = MASK
    writer.refuse(
        "r2", "payload_format", evidence=2, payload=writer.payload_of(AGREED["r2"], support="agreed"), fields=form
    )
    assert_clean(writer)


def test_a_rollback_takes_state_and_mask_back_too() -> None:
    writer = Writer().begin()
    change(writer, server=ADAPTIVE, **changing(writer))
    initial = writer.model_digest
    for updates in (UPDATES, MORE, UPDATES):
        writer.run_round(updates)
    first = writer.steps[0]
    writer.order("rollback", {"model": first.model})
    writer.model, writer.model_digest, writer.steps = first.values, first.model, [first]
    writer.run_round(MORE)
    assert writer.steps[-1].begun.state == first.state
    writer.order("rollback", {"model": initial})
    writer.model, writer.model_digest, writer.steps = [0] * COORDINATES, initial, []
    writer.run_round(MORE)
    assert (writer.steps[-1].begun.state, writer.steps[-1].begun.mask) == (b"", sha(encode_mask(MASK, COORDINATES)))
    assert_clean(writer)


def test_models_are_derived_again_on_the_state_of_the_step_before_and_with_the_masks_of_their_rounds() -> None:
    writer = Writer().begin()
    change(writer, server=MOMENTUM, **changing(writer))
    writer.run_round(MORE)
    run_agreed(writer)
    writer.run_round(MORE)
    states, masks = [step.state for step in writer.steps], [step.next_mask for step in writer.steps]
    leave_out(writer, "r2", 1)
    writer.order("reaggregate", {"from_round": 1, "reveals": ["r2"]})
    writer.publish_again(1, ["r2"])
    writer.publish_again(2, base=writer.steps[0])
    writer.publish_again(3, base=writer.steps[1])
    assert all(before != step.state for before, step in zip(states, writer.steps, strict=True))
    assert masks[0] != writer.steps[0].next_mask
    # What is derived again began with the masks that it had: of agreed updates there are no others.
    assert masks[1] == writer.steps[1].next_mask
    writer.run_round(MORE)
    assert writer.steps[-1].begun.mask == writer.steps[-2].next_mask
    assert_clean(writer)


def test_a_step_whose_terms_have_another_server_step_stands_on_none_when_it_is_derived_again() -> None:
    writer = under(server=MOMENTUM)
    writer.run_round(UPDATES)
    change(writer, server=ADAPTIVE)
    writer.run_round(MORE)
    leave_out(writer, "r1", 1)
    writer.order("reaggregate", {"from_round": 1, "reveals": ["r1"]})
    writer.publish_again(1, ["r1"])
    writer.publish_again(2, base=writer.steps[0])
    assert_clean(writer)


def test_of_too_few_updates_nothing_is_added_up_and_state_and_mask_stay() -> None:
    writer = Writer().begin()
    change(writer, server=MOMENTUM, **changing(writer))
    for _ in range(2):
        writer.run_round(UPDATES)
    first, second = writer.steps
    for name in ("r1", "r3"):
        leave_out(writer, name, 2)
    writer.order("reaggregate", {"from_round": 2, "reveals": []})
    writer.publish_again(2, ["r1", "r3"])
    assert (second.model, second.state, second.next_mask) == (first.model, first.state, first.next_mask)
    writer.run_round(UPDATES)
    assert_clean(writer)


def test_of_too_few_updates_of_the_first_round_the_state_stays_none() -> None:
    writer = under(server=MOMENTUM)
    writer.run_round(UPDATES)
    for name in ("r1", "r3"):
        leave_out(writer, name, 1)
    writer.order("reaggregate", {"from_round": 1, "reveals": []})
    writer.publish_again(1, ["r1", "r3"])
    assert writer.steps[0].state == b""
    writer.run_round(UPDATES)
    assert_clean(writer)


CLUSTERED = {"rule": {"name": "clustered_mean/v1", "alike_ppm": 900_000}, "round__cohort_min": 1}


def test_models_of_clusters_may_be_fetched_and_decided_with() -> None:
    writer = under(**CLUSTERED)
    writer.run_round({"r1": {0: 50, 1: 9}, "r2": {4: 50}, "r3": {0: 49, 1: 10}})
    replay = writer.replay()
    models = replay.state.segments[SEGMENT].models
    assert len(models) == 4
    for model in sorted(models):
        writer.fetch([("r1", model)])
    writer.decide("r1", fields={"model": max(models)})
    assert_clean(writer)


def test_a_model_that_is_derived_again_comes_without_clusters_and_all_that_it_may_give_away_are_named() -> None:
    writer = under(**CLUSTERED)
    writer.run_round({"r1": {4: 50}, "r2": {0: 50, 1: 9}, "r3": {0: 49, 1: 10}})
    leave_out(writer, "r1", 1)
    for names in ([], ["r1"], ["r2", "r3"]):
        writer.order("reaggregate", {"from_round": 1, "reveals": names}, void=True)
    writer.order("reaggregate", {"from_round": 1, "reveals": ["r1", "r2", "r3"]})
    made = writer.outcome(
        writer.steps[0].begun, writer.steps[0].counted[1:], [1, 2], writer.steps[0].base_values, b""
    )  # fmt: skip
    assert [members for members, _ in made.clusters] == [[1, 2]]
    clusters = [pb((1, members), (2, writer.put_model(values))) for members, values in made.clusters]
    writer.publish_again(1, ["r1"], body={"clusters": clusters}, void=True)
    writer.publish_again(1, ["r1"])
    assert codes(writer.replay().docket.findings) == ["reveals"] * 3 + ["clusters"]


# What is false


def false_round(writer: Writer, **body: Any) -> list[str]:
    """A round with something else in its model_published, and an honest one after it; gives what is found."""
    writer.open_round()
    for name, update in MORE.items():
        writer.admit(name, update)
    writer.close()
    writer.publish_model(body=body)
    replay = writer.replay()
    found = codes(replay.docket.findings)
    assert all(each.index == len(writer.entries) - 1 for each in replay.docket.findings)
    assert all("round 2" in each.expected for each in replay.docket.findings)
    assert all(each.writer == writer.aggregator and not each.is_acceptable for each in replay.docket.findings)
    writer.run_round(UPDATES)
    # Whoever goes on from what was published is honest.
    assert codes(writer.replay().docket.findings) == found
    return found


def begun(**terms: Any) -> Writer:
    writer = Writer().begin()
    change(writer, **changing(writer) | {"server": MOMENTUM} | terms)
    writer.run_round(UPDATES)
    return writer


def test_one_unit_more_in_the_server_state_is_found() -> None:
    writer = begun()
    state = [1] + [0] * (COORDINATES - 1)
    digest = writer.objects.put(encode_aggregate(state, GRID))
    writer.states[digest] = state
    assert false_round(writer, state=digest) == ["server_state"]


def test_a_server_state_that_is_not_published_is_found() -> None:
    assert false_round(begun(), state=b"") == ["server_state"]


def test_another_next_mask_is_found() -> None:
    writer = begun()
    mask = [1, 2, 3, 4]
    digest = writer.objects.put(encode_mask(mask, COORDINATES))
    writer.masks[digest] = mask
    assert false_round(writer, next_mask=digest) == ["next_mask"]


def test_a_next_mask_that_is_not_published_is_found() -> None:
    assert false_round(begun(), next_mask=b"") == ["next_mask"]


def test_a_next_mask_out_of_an_object_that_is_no_mask_is_found() -> None:
    writer = Writer().begin()
    raw = b"no mask"
    named = {"digest": writer.objects.put(raw).hex(), "nonzeros": 4, "next": NEXT}
    change(writer, support_modes=["agreed", "free"], mask=named)
    writer.run_round(UPDATES)
    assert codes(writer.replay().docket.findings) == ["next_mask"]


def test_an_aggregate_by_another_rule_is_found_with_everything_that_hangs_on_it() -> None:
    writer = begun()
    writer.open_round()
    for name, update in MORE.items():
        writer.admit(name, update)
    writer.close()
    assert writer.round is not None
    writer.round.terms = writer.round.terms | {"rule": {"name": "median/v1"}}
    writer.publish_model(body={"rule": "weighted_mean/v1"})
    found = ["aggregate", "model", "server_state", "next_mask"]
    assert codes(writer.replay().docket.findings) == found


def test_other_members_or_another_model_of_a_cluster_are_found() -> None:
    updates = {"r1": {0: 50, 1: 9}, "r2": {4: 50}, "r3": {0: 49, 1: 10}}
    for false in ([], [0], [0, 1], [0, 2]):
        writer = under(rule=CLUSTERED["rule"], round__cohort_min=1)
        writer.open_round()
        for name, update in updates.items():
            writer.admit(name, update)
        writer.close()
        assert writer.round is not None
        made = writer.outcome(writer.round, writer.round.admitted, [0, 1, 2], writer.model, b"")
        clusters = [([0, 2], made.clusters[0][1]), ([1], made.clusters[1][1])]
        assert made.clusters == clusters
        fields = writer.published(writer.round, writer.closed_hash, writer.round.base, made, made.model)
        own = fields["clusters"]
        listed = {0: [], 1: own[:1], 2: [own[0].replace(b"\0\2", b"\0\1", 1)]}.get(len(false), own)
        if false == [0, 2]:
            listed = own[::-1]
        writer.publish_model(body={"clusters": listed})
        assert codes(writer.replay().docket.findings) == ["clusters"]


# What is not there


@pytest.mark.parametrize("what", ["state", "next_mask"])
def test_what_a_round_begins_with_is_missing_where_it_is_gone_and_the_walk_goes_on(what: str) -> None:
    writer = begun()
    digest = getattr(writer.steps[0], what)
    run_agreed(writer)
    writer.run_round(MORE)
    del writer.objects[digest]
    replay = writer.replay()
    assert replay.docket.findings == []
    assert [each.digest for each in replay.missing] == [digest]
    lacking = "aggregate model server_state" + ("" if what == "state" else " next_mask")
    assert [each[1:] for each in untold(replay)] == [(2, lacking)]
    assert replay.state.segments[SEGMENT].model == writer.model_digest


@pytest.mark.parametrize(("what", "word"), [("state", "server state"), ("next_mask", "next mask")])
def test_what_the_last_round_hands_on_is_looked_for(what: str, word: str) -> None:
    writer = begun()
    digest = getattr(writer.steps[0], what)
    del writer.objects[digest]
    assert [(each.digest, each.why) for each in writer.replay().missing] == [(digest, f"the {word} of round 1")]


def test_the_model_of_a_cluster_that_is_gone_is_missing() -> None:
    writer = under(**CLUSTERED)
    writer.run_round({"r1": {0: 50, 1: 9}, "r2": {4: 50}, "r3": {0: 49, 1: 10}})
    models = writer.replay().state.segments[SEGMENT].models - {writer.model_digest}
    gone = max(models - {bytes.fromhex(json.loads(writer.terms_raw)["model"]["initial"])})
    del writer.objects[gone]
    assert [(each.digest, each.why) for each in writer.replay().missing] == [
        (gone, "the model of a cluster of round 1")
    ]


STATES: list[tuple[str, bytes]] = [
    ("any object", b"no state"),
    ("too short", encode_aggregate([1] * COORDINATES, GRID)[:20]),
    ("of another grid", encode_aggregate([1] * COORDINATES, GRID + 1)),
    ("of another model", encode_aggregate([1] * (COORDINATES + 1), GRID)),
    ("of few values, in dense mode", encode_payload({1: 5}, COORDINATES, "exact", GRID, support="dense")),
    ("of many values, in free mode",
     encode_payload(dict.fromkeys(range(COORDINATES), 1), COORDINATES, "exact", GRID)),
]


@pytest.mark.parametrize("raw", [pytest.param(row[1], id=row[0]) for row in STATES])
def test_what_claims_to_stand_on_an_object_that_is_no_state_is_found_too(raw: bytes) -> None:
    """It was found when it was published; the next round's own model cannot be known, and nobody can have known it."""
    writer = under(server=MOMENTUM)
    writer.run_round(UPDATES)
    writer.open_round()
    for name, update in MORE.items():
        writer.admit(name, update)
    writer.close()
    writer.publish_model(body={"state": writer.objects.put(raw)})
    writer.run_round(UPDATES)
    replay = writer.replay()
    assert codes(replay.docket.findings) == ["server_state", "server_state"]
    assert "round 2" in replay.docket.findings[0].expected
    assert "round 3" in replay.docket.findings[1].expected
    assert (replay.missing, replay.untold) == ((), ())
    assert replay.state.segments[SEGMENT].model == writer.model_digest
