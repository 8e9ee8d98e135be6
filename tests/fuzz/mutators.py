"""How bytes are damaged: blindly, and with a view of what they are.

Notes and policies are lines of words, some of them base64; messages are protobuf. A blind change is mostly refused by
the first check, so some mutators repair what surrounds a change: base64 is decoded and encoded again, lengths of
protobuf fields are made right. All draw from the `Random` that is passed: one seed, one case.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Sequence
from random import Random

Mutator = Callable[[Random, bytes, Sequence[bytes]], bytes]

_NUMBERS = (
    b"0", b"00", b"-1", b"+1", b"01", b"1e3", b"0x10", b"1_0", b" 1", b"255", b"256", b"257", b"65535", b"65536",
    b"2147483648", b"4294967296", b"9223372036854775807", b"9223372036854775808", b"18446744073709551615",
    b"18446744073709551616", b"9" * 40, b"9" * 5_000, "\u0663".encode(), "\uff11".encode(), "\u00b2".encode(),
)  # fmt: skip
_TEXTS = (
    "\u2014 ", "\u2028", "\u2029", "\u0085", "\u00a0", "\u200b", "\ufeff", "e\u0301", "\U0001f512", "\x00", "\x0b",
    "\x7f", "\r", "\r\n", "\n", "\n\n", "\t", " ", "=", "+", "/", "-", "_", ".", "%2e", "none", "old ", "index ",
)  # fmt: skip
_BYTES = (
    b"\x00", b"\xff", b"\x80", b"\x7f", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x80", b"\x0a\x00",
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", b"\xff\xff\xff\xff\x0f",
)  # fmt: skip
_BASE64 = re.compile(rb"[A-Za-z0-9+/]{8,}={0,2}")
_DIGITS = re.compile(rb"[0-9]+")
_VARINT_MAX = 10


def mutate(random: Random, raw: bytes, others: Sequence[bytes]) -> bytes:
    """Damage `raw` by one to three mutators; `others` are valid bytes of the same kind, to splice with."""
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        raw = random.choice(MUTATORS)(random, raw, others)
    return raw


def flip_bits(random: Random, raw: bytes, _others: Sequence[bytes]) -> bytes:
    """Turn one to four bits."""
    changed = bytearray(raw)
    for _ in range(random.randint(1, 4)):
        if changed:
            changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def truncate(random: Random, raw: bytes, _others: Sequence[bytes]) -> bytes:
    """Cut off an end."""
    at = random.randint(0, len(raw))
    return raw[:at] if random.random() < 0.7 else raw[at:]


def remove(random: Random, raw: bytes, _others: Sequence[bytes]) -> bytes:
    """Take out a run of bytes."""
    begin, end = _run(random, raw)
    return raw[:begin] + raw[end:]


def repeat(random: Random, raw: bytes, _others: Sequence[bytes]) -> bytes:
    """Say a run of bytes again, somewhere."""
    begin, end = _run(random, raw)
    at = random.randint(0, len(raw))
    return raw[:at] + raw[begin:end] * random.choice((1, 1, 2, 70)) + raw[at:]


def insert(random: Random, raw: bytes, _others: Sequence[bytes]) -> bytes:
    """Put something in that parsers stumble over."""
    at = random.randint(0, len(raw))
    noise = random.randbytes(random.randint(1, 40))
    new = random.choice((random.choice(_TEXTS).encode(), random.choice(_BYTES), noise))
    replaced = random.choice((0, 0, 1, len(new)))
    return raw[:at] + new + raw[at + replaced :]


def splice(random: Random, raw: bytes, others: Sequence[bytes]) -> bytes:
    """Begin with one and end with another."""
    other = random.choice(others)
    return raw[: random.randint(0, len(raw))] + other[random.randint(0, len(other)) :]


def change_number(random: Random, raw: bytes, _others: Sequence[bytes]) -> bytes:
    """Replace decimal digits by a number at a border, or by one in another spelling."""
    return _replace_match(random, _DIGITS, raw, lambda _: random.choice(_NUMBERS))


def change_lines(random: Random, raw: bytes, others: Sequence[bytes]) -> bytes:
    """Drop, double, swap or borrow a line."""
    lines = raw.split(b"\n")
    at, to = random.randrange(len(lines)), random.randrange(len(lines))
    what = random.randrange(5)
    if what == 0:
        del lines[at]
    elif what == 1:
        lines.insert(to, lines[at])
    elif what == 2:
        lines[at], lines[to] = lines[to], lines[at]
    elif what == 3:
        lines[at:at] = [lines[at]] * random.choice((2, 64, 70))
    else:
        lines.insert(to, random.choice(random.choice(others).split(b"\n")))
    return b"\n".join(lines)


def change_inside_base64(random: Random, raw: bytes, others: Sequence[bytes]) -> bytes:
    """Damage what base64 stands for, or write it in another spelling."""

    def change(text: bytes) -> bytes:
        try:
            value = base64.b64decode(text, validate=True)
        except ValueError:
            return text[:-1]
        what = random.randrange(6)
        if what == 0:  # another last character that decodes to the same bytes
            body = text.rstrip(b"=")
            return body[:-1] + bytes([random.choice(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")]) + text[len(body) :]
        if what == 1:
            return text.rstrip(b"=")
        if what == 2:
            return text.replace(b"+", b"-").replace(b"/", b"_")
        damage = random.choice((flip_bits, truncate, remove, repeat, insert))
        return base64.b64encode(damage(random, value, others))

    return _replace_match(random, _BASE64, raw, change)


def change_field(random: Random, raw: bytes, others: Sequence[bytes]) -> bytes:
    """Take the bytes as a protobuf message, change one field at some depth, and make all lengths right again."""
    fields = _fields(raw)
    if not fields:
        return flip_bits(random, raw, others)
    at = random.randrange(len(fields))
    tag, value = fields[at]
    what = random.randrange(8)
    if what == 0:
        del fields[at]
    elif what == 1:
        fields.insert(random.randrange(len(fields) + 1), (tag, value))
    elif what == 2:
        fields[at:at] = [(tag, value)] * random.choice((2, 17, 65, 300))
    elif what == 3:
        to = random.randrange(len(fields))
        fields[at], fields[to] = fields[to], fields[at]
    elif what == 4:
        fields[at] = (random.choice((tag + 8, max(tag - 8, 8), tag ^ 2, random.randrange(8, 2**12))), value)
    elif isinstance(value, int):
        number = random.choice((0, 1, value + 1, max(value - 1, 0), 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1))
        fields[at] = (tag, number)
    else:
        inner = change_field if random.random() < 0.6 else random.choice((flip_bits, truncate, remove, insert, splice))
        fields[at] = (tag, inner(random, value, others))
    return b"".join(_encoded(tag, value) for tag, value in fields)


def set_counts(random: Random, raw: bytes, _others: Sequence[bytes]) -> bytes:
    """Write a count or a length over some bytes."""
    width = random.choice((1, 2, 4, 8))
    at = random.randint(0, max(len(raw) - width, 0))
    number = random.choice((0, 1, 2 ** (8 * width) - 1, 2 ** (8 * width - 1), random.randrange(2 ** (8 * width))))
    return raw[:at] + number.to_bytes(width, "big") + raw[at + width :]


MUTATORS: tuple[Mutator, ...] = (
    flip_bits, truncate, remove, repeat, insert, splice, change_number, change_lines, change_inside_base64, set_counts,
    change_field, change_field,
)  # fmt: skip


def _run(random: Random, raw: bytes) -> tuple[int, int]:
    begin = random.randint(0, len(raw))
    return begin, min(begin + random.choice((1, 2, 8, 32, 33, 64, 400)), len(raw))


def _replace_match(random: Random, pattern: re.Pattern[bytes], raw: bytes, change: Callable[[bytes], bytes]) -> bytes:
    found = list(pattern.finditer(raw))
    if not found:
        return raw + b"0"
    match = random.choice(found)
    return raw[: match.start()] + change(match.group()) + raw[match.end() :]


def _fields(raw: bytes) -> list[tuple[int, int | bytes]]:
    """Tags with numbers or bytes; empty where it is no such message."""
    found: list[tuple[int, int | bytes]] = []
    at = 0
    while at < len(raw):
        tag, at = _varint(raw, at)
        if tag < 8 or tag & 7 not in (0, 2):
            return []
        number, at = _varint(raw, at)
        if tag & 7 == 0:
            found.append((tag, number))
            continue
        if at + number > len(raw):
            return []
        found.append((tag, raw[at : at + number]))
        at += number
    return found


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    number = 0
    for shift in range(_VARINT_MAX):
        if at >= len(raw):
            return 0, at
        number |= (raw[at] & 0x7F) << 7 * shift
        at += 1
        if raw[at - 1] < 0x80:
            break
    return number, at


def _encoded(tag: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return _varint_bytes(tag & ~2) + _varint_bytes(value)
    return _varint_bytes(tag | 2) + _varint_bytes(len(value)) + value


def _varint_bytes(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)
