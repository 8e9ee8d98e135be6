"""Payloads and models written with Python's integers alone, bit by bit: a plain encoder, from the specification.

`change` is given the fields of each leaf before they are joined, and its number, for a test that writes what no encoder
would.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Sequence
from fractions import Fraction

Fields = dict[str, bytes]
Change = Callable[[Fields, int], None]

SUPPORTS = {"free": 1, "agreed": 2, "dense": 3}
VALUE_TYPES = {"none": 0, "int8": 1, "fp32": 2, "bf16": 3, "sign": 4, "packed": 5, "exact": 6}


def bits_to_bytes(bits: list[int]) -> bytes:
    bits = bits + [0] * (-len(bits) % 8)
    return bytes(sum(bit << i for i, bit in enumerate(bits[at : at + 8])) for at in range(0, len(bits), 8))


def chunks(items: Sequence[int], size: int) -> list[list[int]]:
    return [list(items[at : at + size]) for at in range(0, len(items), size)]


def step_code(numbers: list[int]) -> bytes:
    bits: list[int] = []
    before = 0
    for number in numbers:
        d = number - before
        bits += [0] * (2 * d if d >= 0 else -2 * d - 1) + [1]
        before = number
    return bits_to_bytes(bits)


def parameter(block: list[int]) -> int:
    return max(0, (sum(block) * 985 // (1024 * len(block))).bit_length() - 1)


def rice_code(numbers: list[int], name: str, parameters: list[int] | None = None) -> Fields:
    blocks = chunks(numbers, 64)
    if parameters is None:
        parameters = [parameter(block) for block in blocks]
    planes = b""
    order = sorted(range(len(blocks)), key=lambda k: -parameters[k])
    for bit in range(max(parameters)):
        for k in order:
            if parameters[k] > bit:
                planes += bits_to_bytes([number >> bit & 1 for number in blocks[k]]).ljust(8, b"\0")
    unary: list[int] = []
    for k, number in enumerate(numbers):
        unary += [0] * (number >> parameters[k // 64]) + [1]
    steps, quotients = step_code(parameters), bits_to_bytes(unary)
    return {
        f"{name} lengths": struct.pack("<HI", len(steps), len(quotients)), f"{name} parameters": steps,
        f"{name} planes": planes, f"{name} unary": quotients,
    }  # fmt: skip


def scaled(values: list[int]) -> tuple[list[int], list[int]]:
    """Each value's q, and each block's s."""
    steps, scales = [], []
    for block in chunks(values, 64):
        scale = max(0, max(map(abs, block)).bit_length() - 7)
        assert all(value % 2**scale == 0 for value in block), "the test's values fit their scale"
        steps += [abs(value) // 2**scale * (1 if value > 0 else -1) for value in block]
        scales.append(scale)
    return steps, scales


def signs(values: list[int]) -> bytes:
    return bits_to_bytes([int(value < 0) for value in values])


def width_of(values: list[int]) -> int:
    return next(w for w in range(1, 9) if all(-(2 ** (8 * w - 1)) <= value < 2 ** (8 * w - 1) for value in values))


def value_fields(values: list[int], value_type: str, grid_exponent: int) -> Fields:
    match value_type:
        case "none":
            return {}
        case "fp32" | "bf16":
            numbers = [struct.pack("<f", float(Fraction(value, 2**grid_exponent))) for value in values]
            if value_type == "bf16":
                assert all(number[:2] == b"\0\0" for number in numbers), "the test's values have eight bits"
                numbers = [number[2:] for number in numbers]
            return {"values": b"".join(numbers)}
        case "exact":
            width = width_of(values)
            return {
                "width": bytes([width]), "values": b"".join(v.to_bytes(width, "little", signed=True) for v in values)
            }  # fmt: skip
    steps, scales = scaled(values)
    code = step_code(scales)
    fields = {"scales length": struct.pack("<H", len(code)), "scales": code}
    if value_type == "int8":
        return fields | {"values": struct.pack(f"<{len(steps)}b", *steps)}
    blocks = [[abs(step) for step in block] for block in chunks(steps, 64)]
    if value_type == "sign":
        assert all(len(set(block)) == 1 for block in blocks), "the test's blocks have one magnitude"
        return fields | {"values": bytes(block[0] for block in blocks), "signs": signs(values)}
    least = [min(block) for block in blocks]
    rest = [magnitude - f for block, f in zip(blocks, least, strict=True) for magnitude in block]
    return fields | {"least": bytes(least), "signs": signs(values)} | rice_code(rest, "rest")


def encode_leaf(
    number: int, indices: list[int] | None, base: int, values: list[int], value_type: str, grid_exponent: int,
    change: Change | None = None,
) -> bytes:  # fmt: skip
    fields: Fields = {}
    if indices is not None:
        skips = [i - before - 1 for before, i in zip([base - 1, *indices], indices, strict=False)]
        fields = {"base": base.to_bytes(4, "little")} | rice_code(skips, "skips")
    fields |= value_fields(values, value_type, grid_exponent)
    if change is not None:
        change(fields, number)
    return b"".join(fields.values())


def encode_payload(
    update: dict[int, int], coordinates: int, value_type: str = "int8", grid_exponent: int = 10, *,
    support: str = "free", mask: bytes = b"", mask_indices: Sequence[int] = (), change: Change | None = None,
) -> bytes:  # fmt: skip
    """Encode an update. In agreed mode `mask` is the mask object, and `mask_indices` what it says."""
    own = {"free": update, "agreed": mask_indices, "dense": range(coordinates)}[support]
    indices = sorted(own)
    leaves, base = [], 0
    for number, part in enumerate(chunks(indices, 65_536)):
        values = [update.get(i, 0) for i in part]
        named = part if support == "free" else None
        leaves.append(encode_leaf(number, named, base, values, value_type, grid_exponent, change))
        base = part[-1] + 1
    preamble = b"SFRU" + bytes([2, SUPPORTS[support], VALUE_TYPES[value_type], grid_exponent])
    preamble += struct.pack("<QQI", coordinates, len(indices), len(leaves))
    if support == "agreed":
        preamble += hashlib.sha256(mask).digest()
    return assemble(preamble, leaves)


def assemble(preamble: bytes, leaves: list[bytes]) -> bytes:
    table = b"".join(struct.pack("<I", len(leaf)) + hashlib.sha256(b"\0" + leaf).digest() for leaf in leaves)
    return preamble + table + b"".join(leaves)


def encode_mask(indices: Sequence[int], coordinates: int) -> bytes:
    return encode_payload(dict.fromkeys(indices, 1), coordinates, "none", 0)


def encode_aggregate(values: list[int], grid_exponent: int) -> bytes:
    update = {i: value for i, value in enumerate(values) if value}
    support = "free" if 4 * len(update) <= len(values) else "dense"
    return encode_payload(update, len(values), "exact", grid_exponent, support=support)


def payload_root(payload: bytes) -> bytes:
    """The root of what looks like a payload; of anything else, of its bytes."""
    if len(payload) < 28:
        return hashlib.sha256(payload).digest()
    end = 60 if payload[5] == 2 else 28
    count = min(int.from_bytes(payload[24:28], "little"), len(payload) // 36)
    rows = [payload[at : at + 36] for at in range(end, end + 36 * count, 36)]
    first = payload[:end] + b"".join(row[:4] for row in rows)
    return tree_hash([hashlib.sha256(b"\0" + first).digest(), *(row[4:] for row in rows)])


def tree_hash(hashes: list[bytes]) -> bytes:
    if len(hashes) == 1:
        return hashes[0]
    split = 2 ** ((len(hashes) - 1).bit_length() - 1)
    return hashlib.sha256(b"\1" + tree_hash(hashes[:split]) + tree_hash(hashes[split:])).digest()


def weighted_mean(updates: list[tuple[dict[int, int], int]], coordinates: int) -> list[int]:
    total = sum(weight for _, weight in updates)
    # round() of a Fraction is exact, with ties to even.
    return [round(Fraction(sum(w * u.get(i, 0) for u, w in updates), total)) for i in range(coordinates)]
