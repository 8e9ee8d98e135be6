"""Values of a plan that have a form of their own, and the words for what has not.

Runs in: cli, demo.
Trusts: nothing.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from decimal import Decimal
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.terms import SUPPORT_MODES, VALUE_TYPES
from sfrl_secure.limits import PAYLOAD_BYTES_MAX
from sfrl_secure.operating.aggregation_tables import CapTable, ClipTable, NextMaskTable, RuleTable, ServerTable
from sfrl_secure.operating.units import format_size, parse_size


def _worded(pattern: str, words: str) -> AfterValidator:
    """Text of a pattern, with the words for what is not."""

    def check(text: str) -> str:
        if re.fullmatch(pattern, text) is None:
            raise ValueError(words)
        return text

    return AfterValidator(check)


def _one_of(known: Collection[str]) -> AfterValidator:
    """One of a few words, which are named to whoever wrote another."""

    def check(text: str) -> str:
        if text not in known:
            raise ValueError(f"it is one of {', '.join(sorted(known))}")
        return text

    return AfterValidator(check)


def _size(value: object) -> object:
    """Bytes, as a number or as text with a unit."""
    if not isinstance(value, str):
        return value
    try:
        return parse_size(value)
    except MalformedError as error:
        raise ValueError(str(error)) from None


def _payload_size(size: int) -> int:
    if not 1 <= size <= PAYLOAD_BYTES_MAX:
        raise ValueError(f"a payload is 1 B to {format_size(PAYLOAD_BYTES_MAX)}")
    return size


def _as_written(value: object) -> object:
    """A table whose numbers with a point are the decimal ones that stand in the file: 0.2 is 0.2."""
    if not isinstance(value, dict):
        return value
    return {key: Decimal(repr(each)) if isinstance(each, float) else each for key, each in value.items()}


Limit = Annotated[float, Field(gt=0, allow_inf_nan=False)]
PayloadSize = Annotated[int, BeforeValidator(_size), AfterValidator(_payload_size)]
ValueType = Annotated[str, _one_of(VALUE_TYPES)]
SupportMode = Annotated[str, _one_of(SUPPORT_MODES)]
Name = Annotated[
    str,
    _worded(
        r"[a-z0-9]([a-z0-9.-]{0,62}[a-z0-9])?",
        "a name is 1 to 64 lower-case letters, digits, dots and hyphens, and begins and ends with a letter or digit",
    ),
]
Suite = Annotated[str, _worded(r"ed25519(\+ml-dsa-44)?", "a suite is ed25519 or ed25519+ml-dsa-44")]
SegmentName = Annotated[
    str, _worded(r"[a-z0-9-]{1,64}", "a segment's name is 1 to 64 lower-case letters, digits and hyphens")
]
Rule = Annotated[RuleTable, BeforeValidator(_as_written)]
Clip = Annotated[ClipTable, BeforeValidator(_as_written)]
Cap = Annotated[CapTable, BeforeValidator(_as_written)]
Server = Annotated[ServerTable, BeforeValidator(_as_written)]
MaskNext = Annotated[NextMaskTable, BeforeValidator(_as_written)]
