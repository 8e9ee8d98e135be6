"""One lie after another: what claims to stand on an object that is no model, or that is not there, is named itself."""

from __future__ import annotations

from typing import Any

import pytest

from sfrl_secure.replay.fold import Replay

from .builder import COORDINATES, GRID, Writer, codes, sha, untold
from .payloads import encode_aggregate
from .void_rows import MOMENTUM, NEXT, UPDATES, terms_with

NO_MODEL = b"no model"
MORE = {"r1": {0: 50, 13: -7, 4: 9}, "r2": {0: 6, 3: 100, 5: -90}, "r3": {16: 1, 0: 40, 13: -70}}
CLUSTERED = {"rule": {"name": "clustered_mean/v1", "alike_ppm": 1}, "round__cohort_min": 1}


def under(**changes: Any) -> Writer:
    """A federation after one honest round under changed terms."""
    writer = Writer().begin()
    if changes:
        writer.publish_terms(terms_with(writer, **changes))
    writer.run_round(UPDATES)
    return writer


def close_with(writer: Writer, updates: dict[str, dict[int, int]]) -> None:
    writer.open_round()
    for name, update in updates.items():
        writer.admit(name, update)
    writer.close()


def publish_no_model(writer: Writer, raw: bytes = NO_MODEL) -> None:
    """A round whose model is none. The builder goes on as if it had told the truth."""
    close_with(writer, MORE)
    writer.publish_model(body={"model": writer.objects.put(raw)})


def found(replay: Replay) -> list[tuple[int | None, str]]:
    return [(each.index, each.code) for each in replay.docket.findings]


@pytest.mark.parametrize(
    "raw", [NO_MODEL, b"", b"SFRLMDL1" + bytes([GRID + 1]) + bytes(128)], ids=["other", "empty", "another grid"]
)
def test_what_claims_to_come_of_a_base_that_is_no_model_is_found(raw: bytes) -> None:
    """Even if it is what an honest aggregator would have published without the first lie: nobody can know it."""
    writer = under()
    publish_no_model(writer, raw)
    first = len(writer.entries) - 1
    writer.run_round(UPDATES)
    second = len(writer.entries) - 1
    # Whoever goes on from a model that can be read is judged as ever.
    writer.run_round(MORE)
    replay = writer.replay()
    assert found(replay) == [(first, "model"), (first, "model"), (second, "model")]
    assert "round 2" in replay.docket.findings[0].expected
    assert replay.docket.findings[2].expected == "in round 3 none, on a base that is no model"
    assert replay.docket.findings[2].writer == writer.aggregator
    assert (replay.missing, replay.untold) == ((), ())


def test_a_second_lie_behind_the_first_is_found_for_what_it_is() -> None:
    writer = under(server=MOMENTUM)
    publish_no_model(writer)
    close_with(writer, UPDATES)
    one_more = [1] + [0] * (COORDINATES - 1)
    aggregate = writer.objects.put(encode_aggregate(one_more, GRID))
    writer.publish_model(body={"aggregate": aggregate, "state": aggregate}, model=one_more)
    last = len(writer.entries) - 1
    found_last = [code for index, code in found(writer.replay()) if index == last]
    assert found_last == ["aggregate", "model", "server_state"]


def test_two_objects_that_are_no_models_one_after_the_other_are_found_each_in_its_round() -> None:
    writer = under()
    publish_no_model(writer)
    publish_no_model(writer, b"no model either")
    replay = writer.replay()
    assert codes(replay.docket.findings) == ["model"] * 4
    assert [each.expected[3:10] for each in replay.docket.findings] == ["round 2"] * 2 + ["round 3"] * 2


def test_the_first_round_on_an_initial_model_that_is_none_is_found() -> None:
    writer = Writer()
    terms = writer.terms()
    terms["model"]["initial"] = writer.objects.put(NO_MODEL).hex()
    writer.terms = lambda **_: terms  # type: ignore[method-assign]
    writer.model_digest = sha(NO_MODEL)
    writer.begin()
    writer.run_round(UPDATES)
    assert codes(writer.replay().docket.findings) == ["initial_model", "model"]


def test_no_mask_by_saliency_follows_from_a_base_that_is_no_model() -> None:
    writer = Writer().begin()
    mask = writer.put_mask([0, 3, 12, 16], NEXT | {"score": "saliency"})
    writer.publish_terms(terms_with(writer, support_modes=["agreed", "free"], mask=mask))
    publish_no_model(writer)
    close_with(writer, UPDATES)
    writer.publish_model()
    last = len(writer.entries) - 1
    assert [code for index, code in found(writer.replay()) if index == last] == ["model", "next_mask"]
    # A mask by what was sent needs no base, and is what it is.
    by_votes = writer.put_mask([0, 3, 12, 16], NEXT | {"score": "votes"})
    writer.publish_terms(terms_with(writer, support_modes=["agreed", "free"], mask=by_votes))
    publish_no_model(writer)
    close_with(writer, UPDATES)
    writer.publish_model()
    last = len(writer.entries) - 1
    assert [code for index, code in found(writer.replay()) if index == last] == ["model"]


def test_no_cluster_stands_on_a_base_that_is_no_model() -> None:
    writer = under(**CLUSTERED)
    publish_no_model(writer)
    close_with(writer, UPDATES)
    writer.publish_model()
    last = len(writer.entries) - 1
    replay = writer.replay()
    assert [code for index, code in found(replay) if index == last] == ["model", "clusters"]
    assert replay.missing == ()


def test_a_step_that_is_derived_again_on_a_base_that_is_no_model_is_found_too() -> None:
    writer = under()
    publish_no_model(writer)
    writer.run_round(UPDATES)
    digest = next(each.digest for each in writer.steps[2].counted if each.name == "r1")
    writer.order("exclude", {"update": digest})
    writer.order("reaggregate", {"from_round": 3, "reveals": ["r1"]})
    before = len(writer.replay().docket.findings)
    writer.publish_again(3, ["r1"])
    assert found(writer.replay())[before:] == [(len(writer.entries) - 1, "model")]


def test_who_adds_nothing_up_lies_about_nothing() -> None:
    """Of too few updates the model is the base, whatever that is."""
    writer = under()
    publish_no_model(writer)
    writer.run_round(UPDATES)
    for name in ("r1", "r2"):
        digest = next(each.digest for each in writer.steps[2].counted if each.name == name)
        writer.order("exclude", {"update": digest})
    writer.order("reaggregate", {"from_round": 3, "reveals": []})
    before = len(writer.replay().docket.findings)
    writer.publish_again(3, ["r1", "r2"], body={"model": sha(NO_MODEL)})
    assert found(writer.replay())[before:] == []
    # What stands on that stands on no model as before.
    close_with(writer, UPDATES)
    writer.publish_model()
    assert found(writer.replay())[before:] == [(len(writer.entries) - 1, "model")]


@pytest.mark.parametrize("is_altered", [False, True], ids=["gone", "altered"])
def test_what_stands_on_a_model_that_cannot_be_had_is_named_as_untold(is_altered: bool) -> None:
    """A lie of round 2 that nobody can read, and whatever round 3 says: no finding, and not silence."""
    writer = under()
    digest = writer.objects.put(NO_MODEL)
    publish_no_model(writer)
    first = len(writer.entries) - 1
    writer.run_round(UPDATES)
    second = len(writer.entries) - 1
    if is_altered:
        writer.objects[digest] = b"others"
    else:
        del writer.objects[digest]
    writer.run_round(MORE)
    replay = writer.replay()
    expected = [(first, "model")] + ([(first, "object_altered")] if is_altered else [])
    assert found(replay) == expected
    assert untold(replay) == [(second, 3, "model")]
    assert [each.digest for each in replay.missing] == [digest] * (not is_altered)


def test_clusters_that_cannot_be_told_are_named() -> None:
    writer = under(**CLUSTERED)
    digest = writer.objects.put(NO_MODEL)
    publish_no_model(writer)
    writer.run_round(UPDATES)
    del writer.objects[digest]
    assert [each[1:] for each in untold(writer.replay())] == [(3, "model clusters")]


def test_a_server_state_that_is_gone_hides_no_round_after_it() -> None:
    writer = under(server=MOMENTUM)
    state = writer.steps[0].state
    writer.run_round(MORE)
    second = len(writer.entries) - 1
    del writer.objects[state]
    assert untold(writer.replay()) == [(second, 2, "aggregate model server_state")]
