"""Operators' interventions as documents: invitations, revocations of TLS keys, and orders. Nothing in them is believed.

Format: proto/README.md, "Documents", join, key-revocation, order.

Runs in: verifier.
Trusts: nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from sfrl_secure.crypto.keys import PublicKey
from sfrl_secure.errors import MalformedError
from sfrl_secure.ids import ZERO_DIGEST, Digest, SpiffeId, parse_segment, parse_spiffe_id
from sfrl_secure.limits import CLEARANCE_MAX, COHORT_MAX, GROUPS_MAX, ROUNDS_MAX
from sfrl_secure.replay.json_fields import (
    INTEGER_MAX,
    take_choice,
    take_digest,
    take_integer,
    take_name,
    take_object,
    take_public_key,
    take_reason,
    take_sorted,
    take_text,
)

JOIN_KEYS: Final = frozenset({"name", "join_key", "clearance", "groups", "record_expires_us"})
KEY_REVOCATION_KEYS: Final = frozenset({"spiffe_id", "spki_sha256", "reason"})
ORDER_KEYS: Final = frozenset({"segment", "action", "target", "reason"})

_CODE = re.compile(r"[a-z_]{1,64}")


@dataclass(frozen=True, slots=True)
class Join:
    """Whoever holds the private part of `key` may once record a key under the name, with what stands here."""

    name: str
    key: PublicKey
    clearance: int
    groups: frozenset[str]
    record_expires_us: int


@dataclass(frozen=True, slots=True)
class KeyRevocation:
    """A TLS public key opens nothing any more."""

    spiffe_id: SpiffeId
    spki_sha256: Digest


@dataclass(frozen=True, slots=True)
class Halt:
    """Nothing new happens in the segment."""


@dataclass(frozen=True, slots=True)
class Resume:
    """It goes on."""


@dataclass(frozen=True, slots=True)
class Exclude:
    """An admitted update is not to be counted."""

    update: Digest


@dataclass(frozen=True, slots=True)
class Rollback:
    """The segment goes back to an earlier model."""

    model: Digest


@dataclass(frozen=True, slots=True)
class Reaggregate:
    """Models are derived again, from a round on; whose updates the difference gives away is named."""

    from_round: int
    reveals: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Accept:
    """A finding is known and accepted."""

    index: int
    code: str


@dataclass(frozen=True, slots=True)
class Override:
    """A recorded decision has another class."""

    decision: Digest
    decided_class: int


Deed = Halt | Resume | Exclude | Rollback | Reaggregate | Accept | Override


@dataclass(frozen=True, slots=True)
class Order:
    """What operators order for a segment; `action` is the word for the deed."""

    segment: str
    action: str
    deed: Deed


def parse_join(fields: dict[str, Any]) -> Join:
    """Read the members of a join document, beyond those that all documents have."""
    key = take_public_key({"suite": "ed25519", "public_key": fields["join_key"]})
    return Join(
        name=take_name(fields["name"]),
        key=key,
        clearance=take_integer(fields["clearance"], 0, CLEARANCE_MAX),
        groups=frozenset(take_sorted(fields["groups"], 0, GROUPS_MAX, take_name)),
        record_expires_us=take_integer(fields["record_expires_us"], 1, INTEGER_MAX),
    )


def parse_key_revocation(fields: dict[str, Any]) -> KeyRevocation:
    """Read the members of a key revocation; its version is 1, and nothing is before it."""
    take_integer(fields["version"], 1, 1)
    if take_digest(fields["previous"]) != ZERO_DIGEST:
        raise MalformedError("a key revocation is version 1, and none is before it")
    take_reason(fields["reason"])
    return KeyRevocation(parse_spiffe_id(take_text(fields["spiffe_id"], 255)), take_digest(fields["spki_sha256"]))


def parse_order(fields: dict[str, Any]) -> Order:
    """Read the members of an order."""
    take_reason(fields["reason"])
    action = take_choice(fields["action"], _DEEDS.keys())
    keys, parse = _DEEDS[action]
    deed = parse(take_object(fields["target"], keys))
    return Order(parse_segment(take_text(fields["segment"], 64)), action, deed)


def _reaggregate(target: dict[str, Any]) -> Reaggregate:
    reveals = take_sorted(target["reveals"], 0, COHORT_MAX, take_name)
    return Reaggregate(take_integer(target["from_round"], 1, ROUNDS_MAX), reveals)


def _accept(target: dict[str, Any]) -> Accept:
    code = take_text(target["code"], 64)
    if not _CODE.fullmatch(code):
        raise MalformedError("a code is 1 to 64 of a-z and '_'")
    return Accept(take_integer(target["index"], 0, INTEGER_MAX), code)


def _override(target: dict[str, Any]) -> Override:
    return Override(take_digest(target["decision"]), take_integer(target["class"], 0, 2**31 - 1))


_DEEDS: dict[str, tuple[frozenset[str], Callable[[dict[str, Any]], Deed]]] = {
    "halt": (frozenset(), lambda _: Halt()),
    "resume": (frozenset(), lambda _: Resume()),
    "exclude": (frozenset({"update"}), lambda target: Exclude(take_digest(target["update"]))),
    "rollback": (frozenset({"model"}), lambda target: Rollback(take_digest(target["model"]))),
    "reaggregate": (frozenset({"from_round", "reveals"}), _reaggregate),
    "accept": (frozenset({"index", "code"}), _accept),
    "override": (frozenset({"decision", "class"}), _override),
}
"""Keys of each action's target, and how it is read."""
