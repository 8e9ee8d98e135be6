"""Numbers, hashes and bytes as C2SP texts write them: one spelling each.

A second spelling of one value would let two texts mean the same and hash differently, so everything but the canonical
form is refused: decimals without leading zeros, standard base64 with its padding and no stray bits.

Format: c2sp.org/signed-note, c2sp.org/tlog-checkpoint.

Runs in: everything.
Trusts: nothing.
"""

from __future__ import annotations

import base64
import re

from sfrl_secure.errors import MalformedError
from sfrl_secure.ids import Digest, parse_digest

COUNT_END = 2**63
"""Sizes, indices and times are below this, as in every C2SP text."""

_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}")


def parse_decimal(text: str) -> int:
    """Take a canonical decimal below 2**63.

    Raises:
        MalformedError: another form, or 2**63 and above.
    """
    if not _DECIMAL.fullmatch(text) or int(text) >= COUNT_END:
        raise MalformedError("a number is decimal, without leading zeros, and below 2**63")
    return int(text)


def parse_base64(text: str, *, bytes_max: int) -> bytes:
    """Take canonical standard base64 of at most `bytes_max` bytes.

    Raises:
        MalformedError: another alphabet, missing padding, non-zero padding bits, or more bytes than that.
    """
    if len(text) > (bytes_max + 2) // 3 * 4:
        raise MalformedError(f"base64 of more than {bytes_max} bytes")
    try:
        value = base64.b64decode(text, validate=True)
    except ValueError:
        raise MalformedError("not standard base64 with padding") from None
    if len(value) > bytes_max or format_base64(value) != text:
        raise MalformedError(f"not canonical base64 of at most {bytes_max} bytes")
    return value


def parse_base64_digest(text: str) -> Digest:
    """Take a hash of 32 bytes in canonical base64.

    Raises:
        MalformedError: any other form or length.
    """
    return parse_digest(parse_base64(text, bytes_max=32))


def format_base64(value: bytes) -> str:
    """Write standard base64 with padding."""
    return base64.b64encode(value).decode("ascii")


def parse_utf8(raw: bytes, *, bytes_max: int) -> str:
    """Take at most `bytes_max` bytes of UTF-8.

    Raises:
        MalformedError: more bytes, or not UTF-8.
    """
    if len(raw) > bytes_max:
        raise MalformedError(f"text of more than {bytes_max} bytes")
    try:
        return raw.decode("utf-8", errors="strict")
    except UnicodeDecodeError:
        raise MalformedError("text is not UTF-8") from None


def check_encodable(text: str) -> None:
    """Refuse what has no UTF-8 form (lone surrogates), so that no later encoding can fail.

    Raises:
        MalformedError: the text has no UTF-8 form.
    """
    try:
        text.encode("utf-8", errors="strict")
    except UnicodeEncodeError:
        raise MalformedError("text has no UTF-8 form") from None
