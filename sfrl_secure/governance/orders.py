"""Orders: how operators intervene in a segment, in numbered documents that expire.

Each action has a target of its own type. What an order does, and when it may, is a matter of the segment's state:
`rounds` and `replay` decide it.

Format: proto/README.md, "Documents", order, and "Orders".

Runs in: everything.
Trusts: nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.fields import INTEGER_MAX, ObjectFields
from sfrl_secure.governance.header import DocumentHeader, parse_header
from sfrl_secure.ids import Digest, parse_name, parse_segment
from sfrl_secure.limits import CLASS_MAX, COHORT_MAX, ROUNDS_MAX

_CODE = re.compile(r"[a-z_]{1,64}")


class OrderAction(StrEnum):
    """What operators can order."""

    HALT = "halt"
    RESUME = "resume"
    EXCLUDE = "exclude"
    ROLLBACK = "rollback"
    REAGGREGATE = "reaggregate"
    ACCEPT = "accept"
    OVERRIDE = "override"


@dataclass(frozen=True, slots=True)
class NoTarget:
    """Halt and resume mean the whole segment."""


@dataclass(frozen=True, slots=True)
class ExcludeTarget:
    """The update to exclude, by its statement digest."""

    update: Digest


@dataclass(frozen=True, slots=True)
class RollbackTarget:
    """The model to go back to."""

    model: Digest


@dataclass(frozen=True, slots=True)
class ReaggregateTarget:
    """The first round to derive again, and whose updates the difference of the models gives away.

    Attributes:
        from_round: 1 to 2**31.
        reveals: participants' names, sorted, at most 500.
    """

    from_round: int
    reveals: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AcceptTarget:
    """A finding of the verifier: its leaf index and its code, `[a-z_]{1,64}`."""

    index: int
    code: str


@dataclass(frozen=True, slots=True)
class OverrideTarget:
    """A recorded decision, by its statement digest, and the class that operators put in its place."""

    decision: Digest
    decided_class: int


OrderTarget = NoTarget | ExcludeTarget | RollbackTarget | ReaggregateTarget | AcceptTarget | OverrideTarget


@dataclass(frozen=True, slots=True, kw_only=True)
class Order(DocumentHeader):
    """One order; `version` is its number in the segment, `expires_us` when it may no longer be logged.

    Attributes:
        target: of the action's type.
        reason: for people; 0 to 200 printable ASCII characters.
    """

    payload_type: ClassVar[str] = "application/vnd.sfrl.order.v1+json"

    segment: str
    action: OrderAction
    target: OrderTarget
    reason: str

    @property
    def series(self) -> tuple[str, str]:
        """One series a segment, whatever the action."""
        return ("order", self.segment)


def parse_order(raw: bytes) -> Order:
    """Parse an order.

    Raises:
        MalformedError: any other form, or a target that is not of the action's.
    """
    fields, header = parse_header(raw, "order", ("segment", "action", "target", "reason"))
    action = OrderAction(fields.choice("action", frozenset(OrderAction)))
    return Order(
        **header,
        segment=parse_segment(fields.text("segment", 64)),
        action=action,
        target=_TARGETS[action](fields["target"]),
        reason=fields.reason("reason"),
    )


def _parse_none(value: object) -> NoTarget:
    ObjectFields(value, "order.target", ())
    return NoTarget()


def _parse_exclude(value: object) -> ExcludeTarget:
    return ExcludeTarget(ObjectFields(value, "order.target", ("update",)).digest("update"))


def _parse_rollback(value: object) -> RollbackTarget:
    return RollbackTarget(ObjectFields(value, "order.target", ("model",)).digest("model"))


def _parse_reaggregate(value: object) -> ReaggregateTarget:
    fields = ObjectFields(value, "order.target", ("from_round", "reveals"))
    names = fields.sorted_texts("reveals", 0, COHORT_MAX, parse_name)
    return ReaggregateTarget(fields.integer("from_round", 1, ROUNDS_MAX), tuple(sorted(names)))


def _parse_accept(value: object) -> AcceptTarget:
    fields = ObjectFields(value, "order.target", ("index", "code"))
    code = fields.text("code", 64)
    if not _CODE.fullmatch(code):
        raise MalformedError("order.target.code is 1 to 64 of a-z and '_'")
    return AcceptTarget(fields.integer("index", 0, INTEGER_MAX), code)


def _parse_override(value: object) -> OverrideTarget:
    fields = ObjectFields(value, "order.target", ("decision", "class"))
    return OverrideTarget(fields.digest("decision"), fields.integer("class", 0, CLASS_MAX))


_TARGETS: Mapping[OrderAction, Callable[[object], OrderTarget]] = {
    OrderAction.HALT: _parse_none,
    OrderAction.RESUME: _parse_none,
    OrderAction.EXCLUDE: _parse_exclude,
    OrderAction.ROLLBACK: _parse_rollback,
    OrderAction.REAGGREGATE: _parse_reaggregate,
    OrderAction.ACCEPT: _parse_accept,
    OrderAction.OVERRIDE: _parse_override,
}
