"""How long an update's payload can be, and how long it is at least: what a plan allows where it names no size.

Bounds that hold for every canonical payload and are simple to state, not the longest or shortest one that there is.

Format: proto/README.md, "Codec".

Runs in: cli, demo.
Trusts: nothing.
"""

from __future__ import annotations

from collections.abc import Collection

from sfrl_secure.limits import OBJECT_HEADER_BYTES_MAX, PAYLOAD_BYTES_MAX

_VALUE_BYTES = {"sign": 1, "int8": 2, "packed": 2, "bf16": 2, "fp32": 4, "exact": 6}
"""Of one value with its share of scales, signs and planes, rounded up."""

_INDEX_BYTES = 5
"""Of one index: at most 30 bits in planes and 4 in the unary plane, and its share of the parameters."""

_LEAST_BITS = {"sign": 1, "int8": 8, "packed": 2, "bf16": 16, "fp32": 32, "exact": 8}
"""Of one value in bits, rounded down; `packed` with nothing but zeros."""

_SHARED = 64
"""A byte for so many values covers what a leaf has once: its row in the table, lengths, and padding."""


def payload_bytes_of(nonzeros: int, value_types: Collection[str], support_modes: Collection[str]) -> int:
    """Give the length that no payload of so many values exceeds in these formats, 2^30 at most."""
    each = max(_VALUE_BYTES[name] for name in value_types) + (_INDEX_BYTES if "free" in support_modes else 0)
    return min(OBJECT_HEADER_BYTES_MAX + nonzeros * each + nonzeros // _SHARED, PAYLOAD_BYTES_MAX)


def least_payload_bytes_of(nonzeros: int, value_type: str) -> int:
    """Give a length below which there is no payload of so many values, in any support mode."""
    return nonzeros * _LEAST_BITS[value_type] // 8
