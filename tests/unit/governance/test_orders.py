"""Orders: each action has its own target, written and read back, and no other action's."""

from __future__ import annotations

import json
from itertools import product

import pytest

from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.documents import Order
from sfrl_secure.governance.orders import (
    AcceptTarget,
    ExcludeTarget,
    NoTarget,
    OrderAction,
    OrderTarget,
    OverrideTarget,
    ReaggregateTarget,
    RollbackTarget,
)
from sfrl_secure.ids import sha256

TARGETS: dict[OrderAction, OrderTarget] = {
    OrderAction.HALT: NoTarget(),
    OrderAction.RESUME: NoTarget(),
    OrderAction.EXCLUDE: ExcludeTarget(sha256(b"update")),
    OrderAction.ROLLBACK: RollbackTarget(sha256(b"model")),
    OrderAction.REAGGREGATE: ReaggregateTarget(7, ("ann", "bob")),
    OrderAction.ACCEPT: AcceptTarget(41, "deadline_overdue"),
    OrderAction.OVERRIDE: OverrideTarget(sha256(b"decision"), 2),
}


def test_every_action_has_a_target_here() -> None:
    assert set(TARGETS) == set(OrderAction)


@pytest.mark.parametrize("action", list(OrderAction))
def test_an_order_reads_back_as_it_was_built(federation, action: OrderAction) -> None:
    raw = federation.order(action=action, target=TARGETS[action], version=3, previous=sha256(b"2"), reason="why not")
    order = federation.parse("order", raw)
    assert isinstance(order, Order)
    assert (order.action, order.target) == (action, TARGETS[action])
    assert (order.segment, order.version, order.reason) == ("rocks", 3, "why not")


@pytest.mark.parametrize(("action", "other"), list(product(OrderAction, OrderAction)))
def test_an_action_takes_no_other_actions_target(federation, action: OrderAction, other: OrderAction) -> None:
    if type(TARGETS[action]) is type(TARGETS[other]):
        assert federation.order(action=action, target=TARGETS[other])
        return
    with pytest.raises(MalformedError):
        federation.order(action=action, target=TARGETS[other])


RANGES = {
    (OrderAction.HALT, "unknown"): ([], [1]),
    (OrderAction.EXCLUDE, "update"): (["00" * 32], ["", "AB" * 32, "ab" * 31, 1]),
    (OrderAction.ROLLBACK, "model"): (["00" * 32], ["", "AB" * 32, "ab" * 31, None]),
    (OrderAction.ACCEPT, "index"): ([0, 2**63 - 1], [-1, 2**63, True, "1"]),
    (OrderAction.ACCEPT, "code"): (["a", "_" * 64], ["", "A", "a b", "a-b", "a1", "a" * 65, "a\n", 1]),
    (OrderAction.OVERRIDE, "decision"): (["00" * 32], ["", "zz" * 32]),
    (OrderAction.OVERRIDE, "class"): ([0, 2**31 - 1], [-1, 2**31, False, "0"]),
}


@pytest.mark.parametrize(("action", "key"), list(RANGES))
def test_a_field_of_a_target_takes_its_range_and_nothing_beyond(federation, action: OrderAction, key: str) -> None:
    members = json.loads(federation.order(action=action, target=TARGETS[action]))
    taken, refused = RANGES[action, key]
    for value in taken:
        members["target"][key] = value
        federation.parse("order", json.dumps(members).encode())
    for value in refused:
        members["target"][key] = value
        with pytest.raises(MalformedError):
            federation.parse("order", json.dumps(members).encode())


@pytest.mark.parametrize("action", list(OrderAction))
def test_a_target_has_all_its_keys_and_no_more(federation, action: OrderAction) -> None:
    raw = federation.order(action=action, target=TARGETS[action])
    for key in json.loads(raw)["target"]:
        members = json.loads(raw)
        del members["target"][key]
        with pytest.raises(MalformedError):
            federation.parse("order", json.dumps(members).encode())
    for wrong in ({"more": 1}, None, [], "none"):
        members = json.loads(raw)
        members["target"] = members["target"] | wrong if isinstance(wrong, dict) else wrong
        with pytest.raises(MalformedError):
            federation.parse("order", json.dumps(members).encode())
