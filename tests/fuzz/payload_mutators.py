"""How payloads are damaged: a field of a leaf, a leaf, the header, or blindly; and repaired around the damage.

Whoever signs a payload also writes its hashes and lengths. So most damage is repaired: the lengths in the leaf and in
the table, and the leaf hashes. What is left is broken in the one place, and the rule that forbids it is reached.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from random import Random

from .mutators import flip_bits, insert, remove, repeat, splice, truncate

_PREAMBLE, _ROW, _LEAF, _BLOCK = 28, 36, 65_536, 64
_BORDERS = (0, 1, 2, 30, 31, 34, 35, 63, 64, 65, 127, 128, 255, 256, 65_535, 65_536, 2**31, 2**32 - 1)


def mutate_payload(random: Random, raw: bytes, others: Sequence[bytes]) -> bytes:
    """Damage a case: its first byte says what is expected, the rest is the payload."""
    choice = 0 if random.random() < 0.9 else random.randrange(256)
    payload = mutate_mask(random, raw[1:], [each[1:] for each in others])
    return bytes([choice]) + payload


def mutate_mask(random: Random, payload: bytes, others: Sequence[bytes]) -> bytes:
    """Damage a payload; a mask is one."""
    for _ in range(random.choice((1, 1, 1, 2))):
        what = random.random()
        if what < 0.7:
            payload = _damage_leaf(random, payload, others)
        elif what < 0.85:
            payload = _damage_header(random, payload)
        else:
            blind = random.choice((flip_bits, truncate, remove, repeat, insert, splice))
            payload = blind(random, payload, others)
    return payload


def rehash(payload: bytes) -> bytes:
    """Write the leaf hashes of the leaves that are there."""
    table = _Table(payload)
    out = bytearray(payload)
    at = table.end
    for number, length in enumerate(table.lengths):
        row = table.begin + _ROW * number
        out[row + 4 : row + _ROW] = hashlib.sha256(b"\0" + payload[at : at + length]).digest()
        at += length
    return bytes(out)


class _Table:
    """The leaf table of bytes of which nothing is believed."""

    def __init__(self, payload: bytes) -> None:
        self.begin = _PREAMBLE + 32 * (payload[5:6] == b"\2")
        count = min(int.from_bytes(payload[24:28], "little"), (len(payload) - self.begin) // _ROW, 8)
        self.end = self.begin + _ROW * max(count, 0)
        rows = range(self.begin, self.end, _ROW)
        self.lengths = [int.from_bytes(payload[row : row + 4], "little") for row in rows]
        self.values = int.from_bytes(payload[16:24], "little")


def _damage_header(random: Random, payload: bytes) -> bytes:
    """Another number in the preamble or the table, or another number of leaves; mostly with hashes made right."""
    out = bytearray(payload)
    places = ((4, 1), (5, 1), (6, 1), (7, 1), (8, 8), (16, 8), (24, 4), (28, 4), (60, 4))
    at, width = random.choice(places)
    if at + width <= len(out):
        before = int.from_bytes(out[at : at + width], "little")
        near = (before + 1, before - 1, before * 2, before + _LEAF, before ^ 1 << random.randrange(8 * width))
        number = random.choice((*near, random.choice(_BORDERS), random.getrandbits(8 * width)))
        out[at : at + width] = (number % 2 ** (8 * width)).to_bytes(width, "little")
    return rehash(bytes(out)) if random.random() < 0.7 else bytes(out)


def _damage_leaf(random: Random, payload: bytes, others: Sequence[bytes]) -> bytes:
    """Damage one field of one leaf, and make the length and the hash of the leaf right again."""
    table = _Table(payload)
    if not table.lengths:
        return flip_bits(random, payload, others)
    number = random.randrange(len(table.lengths))
    begin = table.end + sum(table.lengths[:number])
    end = min(begin + table.lengths[number], len(payload))
    leaf = payload[begin:end]
    count = min(_LEAF, max(table.values - _LEAF * number, 1))
    if random.random() < 0.1:
        leaf = random.choice((flip_bits, truncate, remove, repeat, insert))(random, leaf, others)
    else:
        leaf = _damage_field(random, leaf, _fields(leaf, payload[5], payload[6], min(count, 8 * len(leaf) + 8)))
    out = bytearray(payload[:begin] + leaf + payload[end:])
    if random.random() < 0.97:
        row = table.begin + _ROW * number
        out[row : row + 4] = len(leaf).to_bytes(4, "little")
    return rehash(bytes(out)) if random.random() < 0.97 else bytes(out)


_Field = tuple[int, int, tuple[int, int] | None]
"""Begin, end, and where its length stands: place and width."""


def _damage_field(random: Random, leaf: bytes, fields: list[_Field]) -> bytes:
    """Change bits of a field, or how long it is, with the length before it made right or not."""
    begin, end, told = random.choice(fields)
    body = bytearray(leaf[begin:end])
    what = random.randrange(8)
    if what < 3 and body:
        for _ in range(random.randint(1, 3)):
            body[random.randrange(len(body))] ^= 1 << random.randrange(8)
    elif what == 3 and body:
        body[random.randrange(len(body))] = random.choice((0, 1, 63, 64, 127, 128, 129, 255))
    elif what == 4 and body:  # bits that move by one: another code of as many numbers
        moved = int.from_bytes(body, "little") << 1 | random.getrandbits(1)
        body = bytearray((moved % 2 ** (8 * len(body))).to_bytes(len(body), "little"))
    elif what == 5:
        body += random.choice((b"\0", b"\xff", b"\x01", bytes(8), random.randbytes(random.randint(1, 9))))
    elif what == 6 and body:
        del body[-random.choice((1, 1, 8)) :]
    elif body:  # two places of one value change places
        at, to = random.randrange(len(body)), random.randrange(len(body))
        body[at], body[to] = body[to], body[at]
    out = bytearray(leaf[:begin] + body + leaf[end:])
    if told is not None and random.random() < 0.9:
        place, width = told
        out[place : place + width] = (len(body) % 2 ** (8 * width)).to_bytes(width, "little")
    return bytes(out)


def _fields(leaf: bytes, mode: int, value_type: int, count: int) -> list[_Field]:
    """Where a leaf's fields stand, as far as it can be told."""
    fields: list[_Field] = []
    at, blocks = 0, -(-count // _BLOCK)
    if mode == 1:
        fields.append((0, 4, None))
        at = _rice(leaf, 4, fields)
    if value_type in (1, 4, 5):
        length = int.from_bytes(leaf[at : at + 2], "little")
        fields += [(at, at + 2, None), (at + 2, at + 2 + length, (at, 2))]
        at += 2 + length
    if value_type in (4, 5):
        fields += [(at, at + blocks, None), (at + blocks, at + blocks + (count + 7) // 8, None)]
        at += blocks + (count + 7) // 8
    if value_type == 5:
        at = _rice(leaf, at, fields)
    fields.append((at, len(leaf), None))
    return [(min(begin, len(leaf)), min(end, len(leaf)), told) for begin, end, told in fields]


def _rice(leaf: bytes, at: int, fields: list[_Field]) -> int:
    lengths = at
    params = int.from_bytes(leaf[at : at + 2], "little")
    unary = int.from_bytes(leaf[at + 2 : at + 6], "little")
    planes = at + 6 + params
    words, number, zeros = 0, 0, 0
    for byte in leaf[at + 6 : planes]:
        for bit in range(8):
            if byte >> bit & 1:
                number += zeros // 2 if zeros % 2 == 0 else -(zeros + 1) // 2
                words, zeros = words + number, 0
            else:
                zeros += 1
    end = planes + 8 * max(words, 0)
    fields += [(lengths, at + 6, None), (at + 6, planes, (lengths, 2)), (planes, end, None),
               (end, end + unary, (lengths + 2, 4))]
    return end + unary
