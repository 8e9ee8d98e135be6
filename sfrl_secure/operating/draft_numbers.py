"""What a key of a draft may hold: numbers, durations, sizes, times and names, each checked where it stands.

Runs in: operators' machines, cli.
Trusts: nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict

from sfrl_secure.errors import MalformedError
from sfrl_secure.ids import parse_name, parse_segment
from sfrl_secure.operating.units import parse_duration, parse_moment, parse_size, to_grid

_T = TypeVar("_T")


def _checked(parse: Callable[[Any], object]) -> Callable[[_T], _T]:
    """Make a validator that keeps the value: a MalformedError becomes what pydantic gathers."""

    def check(value: _T) -> _T:
        try:
            parse(value)
        except MalformedError as error:
            raise ValueError(str(error)) from None
        return value

    return check


def _duration(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError('a duration is text with its unit, such as "60s", "12h" or "30d"')
    try:
        return parse_duration(value)
    except MalformedError as error:
        raise ValueError(str(error)) from None


def _size(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return parse_size(value)
    except MalformedError as error:
        raise ValueError(str(error)) from None


Duration = Annotated[int, BeforeValidator(_duration)]
Size = Annotated[int, BeforeValidator(_size)]
Number = Annotated[int | Decimal, AfterValidator(_checked(lambda value: to_grid(value, 0)))]
"""In parameter units; the grid makes it an integer."""

Moment = Annotated[str | datetime, AfterValidator(_checked(lambda value: parse_moment(value, 1)))]
"""A time with its zone, or a duration from now."""

Name = Annotated[str, AfterValidator(_checked(parse_name))]
Segment = Annotated[str, AfterValidator(_checked(parse_segment))]


class Table(BaseModel):
    """A table of a draft."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
