"""Secrets that do not print.

Runs in: everything.
Trusts: nothing.
"""

from __future__ import annotations

import hmac
from typing import NoReturn


class SecretBytes:
    """Key material: no content in `repr`, no `==`, no hash, no pickle."""

    __slots__ = ("_value",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, value: bytes) -> None:
        self._value = bytes(value)

    def __repr__(self) -> str:
        return "SecretBytes(...)"

    def __eq__(self, other: object) -> NoReturn:
        raise TypeError("secrets are compared with matches()")

    def __reduce__(self) -> NoReturn:
        raise TypeError("secrets are not serialised")

    def matches(self, other: SecretBytes) -> bool:
        """Compare in constant time."""
        return hmac.compare_digest(self._value, other._value)

    def expose(self) -> bytes:
        """Give the bytes, at the one call that needs them."""
        return self._value
