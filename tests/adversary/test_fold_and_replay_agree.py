"""Random histories, honest and not: the services' fold and the verifier's replay see one federation, entry by entry.

Whoever finds an entry that one of them takes and the other voids can frame every honest writer after it: from then on
the two have different heads, and each statement of an honest service is stale to the verifier. So the driver compares
everything that both derive, after every entry, and lets time stop just before, at and just after each limit.

Left out is what needs an object before it has effect: a closing that drops a sound update as defective, and a model
that is not the rule's. The fold has no objects; see test_forged_history.
"""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from ..unit.replay.builder import SECOND, SEGMENT
from .two_folds import NAMES, Pair, few_identities, of, open_terms
from .two_folds_interventions import (
    complain,
    decide,
    give_order,
    invite,
    issue,
    order,
    publish_again,
    record_by,
    renew,
    revoke_key,
    rotate_root,
    withdraw,
)
from .two_folds_rounds import (
    FORMS,
    admit,
    anchor,
    be_stale,
    change_rule,
    close,
    drop_too_many,
    let_time_pass,
    open_round,
    publish_model,
    publish_rules,
    publish_services,
    publish_terms,
    record,
    refuse,
    say_again,
    say_little,
    say_nonsense,
)

Act = Callable[[Pair, int], None]


def go_on(pair: Pair, n: int) -> None:
    """What honest services would do next, so that histories get further than their first fault."""
    pair.log.now += 1 + n % 3
    segment = pair.fold.state.segments[SEGMENT]
    current = segment.open_round
    if segment.is_halted and current is None:
        pair.log.order("resume", void=True)
    elif current is not None and current.ended_by_order:
        close(pair, 0)
    elif segment.due:
        publish_again(pair, 0)
    elif segment.awaits_model:
        publish_model(pair, 0)
    elif current is None:
        open_round(pair, 0)
    elif current.is_full or pair.log.now + SECOND >= current.deadline_us:
        close(pair, 0)
    elif len(current.admissions) == 2 and n % 2:
        pair.log.now = current.deadline_us - SECOND
    else:
        absent = [name for name in ("r1", "r2", "r3", "r4") if name not in current.admissions]
        admit(pair, NAMES.index(of(absent, n)) + len(NAMES) * (n // 7 % len(FORMS)))


ACTIONS: tuple[Act, ...] = (
    let_time_pass, open_round, admit, refuse, close, publish_model, publish_terms, publish_rules,
    publish_services, record,
    issue, renew, say_again, say_nonsense, drop_too_many, say_little, anchor, be_stale,
    rotate_root, invite, record_by, revoke_key, order, publish_again, withdraw, complain, decide,
)  # fmt: skip
OFTEN = (go_on,) * 24
STEPS = st.lists(st.tuples(st.sampled_from(ACTIONS + OFTEN), st.integers(0, 2**16)), min_size=1, max_size=40)

ORDERED: tuple[Act, ...] = (give_order, order, withdraw, publish_again, record, admit)
ORDERED_STEPS = st.lists(
    st.tuples(st.sampled_from((go_on,) * 12 + (give_order,) * 2 + ORDERED), st.integers(0, 2**16)),
    min_size=1, max_size=40,
)  # fmt: skip


@settings(deadline=None, max_examples=200)
@given(steps=STEPS)
def test_random_histories_mean_the_same_to_both(steps: list[tuple[Act, int]]) -> None:
    with few_identities():
        pair = Pair()
        for act, n in steps:
            act(pair, n)
            pair.catch_up()


ENROLLED: tuple[Act, ...] = (
    *(renew,) * 12, issue, issue, revoke_key, invite, record_by, record, rotate_root, publish_services, let_time_pass,
)  # fmt: skip
ENROLLED_STEPS = st.lists(st.tuples(st.sampled_from(ENROLLED), st.integers(0, 2**16)), min_size=1, max_size=40)


@settings(deadline=None, max_examples=100)
@given(steps=ENROLLED_STEPS)
def test_histories_full_of_identities_mean_the_same_to_both(steps: list[tuple[Act, int]]) -> None:
    """Requests again, keys of zeros, more identities than a day has room for, keys revoked by whoever may not."""
    with few_identities():
        pair = Pair()
        for act, n in steps:
            act(pair, n)
            pair.catch_up()


REFUSED_STEPS = st.lists(
    st.tuples(st.sampled_from((refuse,) * 6 + (go_on, admit, publish_rules)), st.integers(0, 2**16)),
    min_size=1, max_size=40,
)  # fmt: skip


@settings(deadline=None, max_examples=100)
@given(steps=REFUSED_STEPS)
def test_histories_full_of_refusals_mean_the_same_to_both(steps: list[tuple[Act, int]]) -> None:
    """In an open round: every reason with every evidence."""
    pair = Pair()
    for act, n in [(go_on, 0), *steps]:
        act(pair, n)
        pair.catch_up()


@settings(deadline=None, max_examples=100)
@given(steps=ORDERED_STEPS)
def test_histories_full_of_orders_mean_the_same_to_both(steps: list[tuple[Act, int]]) -> None:
    """Two rounds first, so that there is something to exclude, to go back to and to derive again."""
    pair = Pair()
    for act, n in [*((go_on, 0) for _ in range(11)), *steps]:
        act(pair, n)
        pair.catch_up()


RULED_STEPS = st.lists(
    st.tuples(
        st.sampled_from((go_on,) * 16 + (change_rule,) * 3 + (give_order, give_order, order, publish_again)),
        st.integers(0, 2**16),
    ),
    min_size=10, max_size=60,
)  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(steps=RULED_STEPS)
def test_histories_full_of_rules_mean_the_same_to_both(steps: list[tuple[Act, int]]) -> None:
    """Rules, clips, caps, server steps and masks, and what rounds hand on to the next, also when they come again."""
    pair = Pair()
    for act, n in [(change_rule, steps[0][1]), *((go_on, 0) for _ in range(6)), *steps]:
        act(pair, n)
        pair.catch_up()


def test_a_rollback_to_a_model_that_several_steps_have_means_the_same_to_both() -> None:
    """Updates that cancel each other out leave the model as it was: the lineage has it twice, and the initial one."""
    pair = Pair()
    # With momentum a model moves on when nobody sends anything.
    pair.log.publish_terms(open_terms(pair.log) | {"server": None}, void=True)
    pair.catch_up()
    for values in ({1: 5}, {1: -5}), ({1: 5}, {2: 7}), ({1: 5}, {1: -5}), ({1: 5}, {3: 9}):
        open_round(pair, 0)
        pair.catch_up()
        for name, update in zip(("r1", "r2"), values, strict=True):
            pair.log.admit(name, update, void=True)
        pair.log.now += 600 * SECOND
        pair.catch_up()
        go_on(pair, 0)
        pair.catch_up()
        go_on(pair, 0)
        pair.catch_up()
    segment = pair.fold.state.segments[SEGMENT]
    models = [step.model for step in segment.lineage]
    assert (models[0], models[1]) == (segment.terms.model.initial, models[2])
    pair.log.order("rollback", {"model": models[2]}, void=True)
    pair.catch_up()
    assert [step.round for step in segment.lineage] == [1, 2, 3]
    pair.log.order("rollback", {"model": models[0]}, void=True)
    pair.catch_up()
    assert [step.round for step in segment.lineage] == [1]
