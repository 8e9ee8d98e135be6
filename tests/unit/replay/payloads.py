"""Payloads and models written with Python's integers alone: a plain encoder, from the specification."""

from __future__ import annotations

import hashlib
import struct
from fractions import Fraction


def bits_to_bytes(bits: list[int]) -> bytes:
    bits = bits + [0] * (-len(bits) % 8)
    return bytes(sum(bit << i for i, bit in enumerate(bits[at : at + 8])) for at in range(0, len(bits), 8))


def chunks(items: list[int], size: int) -> list[list[int]]:
    return [items[at : at + size] for at in range(0, len(items), size)]


def encode_leaf(indices: list[int], values: list[int], base: int, value_type: str, grid_exponent: int) -> bytes:
    skips = [i - before - 1 for before, i in zip([base - 1, *indices], indices, strict=False)]
    blocks = chunks(skips, 128)
    parameters = [max(0, (sum(block) * 985 // (1024 * len(block))).bit_length() - 1) for block in blocks]
    body = base.to_bytes(4, "little") + bytes(parameters)
    if value_type == "int8":
        scales = [max(0, max(map(abs, block)).bit_length() - 7) for block in chunks(values, 128)]
        steps = []
        for block, scale in zip(chunks(values, 128), scales, strict=True):
            assert all(value % 2**scale == 0 for value in block), "the test's values fit their scale"
            steps += [value >> scale for value in block]
        body += bytes(scales) + struct.pack(f"<{len(steps)}b", *steps)
    else:
        body += struct.pack(f"<{len(values)}f", *(float(Fraction(value, 2**grid_exponent)) for value in values))
    order = sorted(range(len(blocks)), key=lambda k: -parameters[k])
    for bit in range(max(parameters)):
        for k in order:
            if parameters[k] > bit:
                plane = [skip >> bit & 1 for skip in blocks[k]]
                body += bits_to_bytes(plane + [0] * (128 - len(plane)))
    unary: list[int] = []
    for number, skip in enumerate(skips):
        unary += [0] * (skip >> parameters[number // 128]) + [1]
    return body + bits_to_bytes(unary)


def encode_payload(
    update: dict[int, int], coordinates: int, value_type: str = "int8", grid_exponent: int = 10
) -> bytes:
    indices = sorted(update)
    values = [update[i] for i in indices]
    leaves, base = [], 0
    for part, part_values in zip(chunks(indices, 65_536), chunks(values, 65_536), strict=True):
        leaves.append(encode_leaf(part, part_values, base, value_type, grid_exponent))
        base = part[-1] + 1
    kinds = {"int8": 1, "fp32": 2}
    preamble = b"SFRU" + bytes([1, 1, kinds[value_type], grid_exponent])
    preamble += struct.pack("<QQI", coordinates, len(indices), len(leaves))
    table = b"".join(struct.pack("<I", len(leaf)) + hashlib.sha256(leaf).digest() for leaf in leaves)
    return preamble + table + b"".join(leaves)


def weighted_mean(updates: list[tuple[dict[int, int], int]], coordinates: int) -> list[int]:
    total = sum(weight for _, weight in updates)
    # round() of a Fraction is exact, with ties to even.
    return [round(Fraction(sum(w * u.get(i, 0) for u, w in updates), total)) for i in range(coordinates)]
