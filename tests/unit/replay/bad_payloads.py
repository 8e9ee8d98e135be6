"""Payloads that break one rule of the codec first: a row names rule and reason, and writes the payload.

Each has the root and, but for L1, the leaf hashes of what it holds, so that no digest hides the rule.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sfrl_secure.ids import Digest
from sfrl_secure.replay.payload_header import Expected, Mask

from .builder import sha
from .payloads import Change, Fields, encode_mask, encode_payload, payload_root, rice_code, step_code

COORDINATES, GRID = 1000, 10
MASK = [3, 4, 90, 250, 999]
MASK_OBJECT = encode_mask(MASK, COORDINATES)
UPDATE = dict(zip(MASK, [100, -7, 1, -127, 64], strict=True))
TWO_LEAVES = {2 * i: 1 + i % 127 for i in range(65_537)}
SKIPS = [3, 0, 85, 159, 748]


@dataclass(frozen=True)
class Case:
    rule: str
    reason: str
    payload: bytes
    expected: Expected


def mask_of(indices: list[int], raw: bytes) -> Mask:
    return Mask(sha(raw), np.array(indices, np.int64))


def written(
    value_type: str = "int8", support: str = "free", update: dict[int, int] | None = None,
    coordinates: int = COORDINATES, change: Change | None = None, grid: int = GRID,
) -> tuple[bytes, Expected]:  # fmt: skip
    """A payload, and an expectation that is met but for what `change` did."""
    update = UPDATE if update is None else update
    payload = encode_payload(
        update, coordinates, value_type, grid, support=support, mask=MASK_OBJECT, mask_indices=MASK, change=change
    )
    carried = {"free": len(update), "agreed": len(MASK), "dense": coordinates}[support]
    mask = mask_of(MASK, MASK_OBJECT) if support == "agreed" else None
    root = Digest(payload_root(payload))
    return payload, Expected(coordinates, carried, support, value_type, grid, root, mask)


def edited(rule: str, reason: str, edit: Callable[[bytes], bytes], **how: Any) -> Case:
    """The payload's own bytes are others, and the root is theirs."""
    payload, expected = written(**how)
    payload = edit(payload)
    return Case(rule, reason, payload, replace(expected, root=Digest(payload_root(payload))))


def awaited(rule: str, reason: str, how: dict[str, Any] | None = None, **other: Any) -> Case:
    """Something else is expected."""
    payload, expected = written(**(how or {}))
    return Case(rule, reason, payload, replace(expected, **other))


def changed(rule: str, reason: str, change: Change | dict[str, bytes], **how: Any) -> Case:
    """A leaf's fields are others."""
    fields = change
    put: Change = fields if callable(fields) else lambda found, _: found.update(fields)
    return Case(rule, reason, *written(change=put, **how))


def at(where: int, raw: bytes) -> Callable[[bytes], bytes]:
    return lambda payload: payload[:where] + raw + payload[where + len(raw) :]


def cut(length: int) -> Callable[[bytes], bytes]:
    return lambda payload: payload[:length]


def only(raw: bytes) -> Change:
    """A leaf that is these bytes."""

    def change(fields: Fields, _: int) -> None:
        fields.clear()
        fields["all"] = raw

    return change


def flipped_in_a_leaf(rule: str, reason: str, **how: Any) -> Case:
    payload, expected = written(**how)
    return Case(rule, reason, payload[:-1] + bytes([payload[-1] ^ 1]), expected)


def skips(parameters: list[int], numbers: list[int] = SKIPS) -> dict[str, bytes]:
    return rice_code(numbers, "skips", parameters)


def lengths(steps: int | None = None, unary: int | None = None) -> Change:
    def change(fields: Fields, _: int) -> None:
        before = struct.unpack("<HI", fields["skips lengths"])
        after = (before[0] if steps is None else steps, before[1] if unary is None else unary)
        fields["skips lengths"] = struct.pack("<HI", *after)

    return change


def floats(*numbers: float) -> dict[str, bytes]:
    return {"values": struct.pack(f"<{len(numbers)}f", *numbers)}


def halves(*numbers: int) -> dict[str, bytes]:
    return {"values": struct.pack(f"<{len(numbers)}H", *numbers)}


def scales(code: bytes) -> dict[str, bytes]:
    return {"scales length": struct.pack("<H", len(code)), "scales": code}


def second_leaf(change: dict[str, bytes]) -> Change:
    return lambda fields, number: fields.update(change) if number == 1 else None


def with_wrong_first_and_altered_second() -> Case:
    def change(fields: Fields, number: int) -> None:
        if number == 0:
            fields["base"] = b"\1\0\0\0"

    return flipped_in_a_leaf("L2", "not_canonical", update=TWO_LEAVES, coordinates=200_000, change=change)


ONE = {7: 127 * 2**34}
ALIKE = dict.fromkeys(MASK, 5) | {90: -5}
NAN, INFINITY = float("nan"), float("inf")
CANONICAL = "not_canonical"

CASES: list[tuple[str, Case]] = [
    ("nothing", edited("P1", "length", cut(0))),
    ("a preamble cut", edited("P1", "length", cut(27))),
    ("another magic", edited("P2", "format", at(0, b"SFRV"))),
    ("an earlier version", edited("P2", "format", at(4, b"\1"))),
    ("a later version", edited("P2", "format", at(4, b"\3"))),
    ("no support mode", edited("P2", "format", at(5, b"\0"))),
    ("a support mode too many", edited("P2", "format", at(5, b"\4"))),
    ("a value type too many", edited("P2", "format", at(6, b"\7"))),
    ("a dense mask", edited("P2", "format", at(5, b"\3\0\0"))),
    ("a mask on a grid", edited("P2", "format", at(6, b"\0\1"))),
    ("a grid too fine", edited("P2", "format", at(7, b"\x29"))),
    ("no coordinates", edited("P3", "shape", at(8, bytes(16)))),
    ("too many coordinates", edited("P3", "shape", at(8, (2**31 + 1).to_bytes(8, "little")))),
    ("more values than coordinates", edited("P3", "shape", at(8, b"\4" + bytes(7)))),
    ("a dense payload with gaps", edited("P3", "shape", at(5, b"\3"))),
    ("a leaf too many", edited("P4", CANONICAL, at(24, b"\2"))),
    ("no leaf", edited("P4", CANONICAL, at(24, b"\0"))),
    ("another support mode", awaited("E1", "format", support="agreed", mask=mask_of(MASK, MASK_OBJECT))),
    ("another value type", awaited("E1", "format", value_type="fp32")),
    ("a mask for an update", awaited("E1", "format", {"value_type": "none", "grid": 0}, value_type="int8")),
    ("another grid", awaited("E1", "format", grid_exponent=11)),
    ("another model", awaited("E2", "shape", coordinates=1001)),
    ("another number of values", awaited("E3", "declared", nonzeros=6)),
    ("a mask's digest cut", edited("E4", "length", cut(59), support="agreed")),
    ("another mask", awaited("E5", "format", {"support": "agreed"}, mask=mask_of(MASK, b""))),
    ("no mask that there is", awaited("E5", "format", {"support": "agreed"}, mask=Mask(sha(MASK_OBJECT), None))),
    ("a mask of more", awaited("E6", "shape", {"support": "agreed"}, mask=mask_of([*MASK, 1], MASK_OBJECT))),
    ("a table cut", edited("T1", "length", cut(63))),
    ("a table cut, agreed", edited("T1", "length", cut(95), support="agreed")),
    ("a leaf too short", edited("T2", "length", at(28, bytes(4)))),
    ("a leaf as short as can be", edited("T3", "length", at(28, b"\1\0\0\0"))),
    ("a leaf too long", edited("T2", "length", at(28, (24 * 5 + 4097).to_bytes(4, "little")))),
    ("a leaf as long as can be", edited("T3", "length", at(28, (24 * 5 + 4096).to_bytes(4, "little")))),
    ("a byte behind", edited("T3", "length", lambda raw: raw + b"\0")),
    ("a byte less", edited("T3", "length", lambda raw: raw[:-1])),
    ("another root", awaited("T4", "digest", root=sha(b"another"))),
    ("another leaf hash than was signed", Case("T4", "digest", at(40, b"x")(written()[0]), written()[1])),
    ("an altered leaf", flipped_in_a_leaf("L1", "digest")),
    ("an altered leaf, dense", flipped_in_a_leaf("L1", "digest", support="dense")),
    ("a wrong leaf before an altered one", with_wrong_first_and_altered_second()),
    ("half a base", changed("L2", "length", only(b"\0\0\0"))),
    ("a base in the first leaf", changed("L2", CANONICAL, {"base": b"\1\0\0\0"})),
    ("another base in the second leaf", changed("L2", CANONICAL, second_leaf({"base": struct.pack("<I", 131_072)}),
                                                update=TWO_LEAVES, coordinates=200_000)),
    # Steps, of parameters and of scales.
    ("half the lengths", changed("S1", "length", only(bytes(4) + b"\1\0\0\0\0"))),
    ("more parameters than there are bytes", changed("S1", "length", only(bytes(4) + b"\2\0\1\0\0\0\1"))),
    ("no parameters", changed("S1", "length", {"skips parameters": b""} | {"skips lengths": b"\0\0\2\0\0\0"})),
    ("parameters too long", changed("S1", "length", {"skips lengths": b"\x09\0\2\0\0\0",
                                                     "skips parameters": bytes(8) + b"\1"})),
    ("parameters of eight blocks too long", changed("S1", "length", {
        "skips lengths": struct.pack("<HI", 62, 64), "skips parameters": bytes(61) + b"\1"},
        update=dict.fromkeys(range(512), 1))),
    ("two parameters for one block", changed("S2", "declared", {"skips parameters": b"\x00\xc0"})),
    ("no parameter for one block", changed("S2", "declared", {"skips parameters": b"\0\0"})),
    ("a zero byte behind the parameters", changed("S3", "length", {"skips lengths": b"\3\0\2\0\0\0",
                                                                   "skips parameters": step_code([7]) + b"\0"})),
    ("parameter 31", changed("S4", CANONICAL, {"skips lengths": b"\x08\0\2\0\0\0",
                                               "skips parameters": step_code([31])})),
    ("a parameter below 0", changed("S4", CANONICAL, {"skips lengths": b"\1\0\2\0\0\0", "skips parameters": b"\2"})),
    ("half a length of scales", changed("S1", "length", lambda f, _: (f.update({"scales length": b"\1"}),
                                                                      f.pop("scales"), f.pop("values"))[0])),
    ("scales too long", changed("S1", "length", scales(bytes(9) + b"\1"))),
    ("two scales for one block", changed("S2", "declared", scales(b"\3"))),
    ("a zero byte behind the scales", changed("S3", "length", scales(b"\1\0"))),
    ("scale 35", changed("S4", CANONICAL, scales(step_code([35])))),
    # Rice codes.
    ("planes that are not there", changed("R1", "length", only(bytes(4) + b"\1\0\1\0\0\0\x40" + bytes(10)))),
    ("a unary plane that is not there", changed("R1", "length", lengths(unary=900))),
    ("a unary plane too long", changed("R1", "length", lengths(unary=4))),
    ("a unary plane too short", changed("R1", "length", lengths(unary=0))),
    ("a value too few", changed("R2", "declared", {"skips unary": b"\x07\x04"})),
    ("a value too many", changed("R2", "declared", {"skips unary": b"\x17\x0c"})),
    ("a zero byte behind the unary plane", changed("R3", "length", lambda f, _: (
        f.update({"skips unary": f["skips unary"] + b"\0"}), lengths(unary=3)(f, 0))[0])),
    ("a bit in a plane that is nobody's", changed("R4", CANONICAL, lambda f, _: f.update(
        {"skips planes": b"\x2d" + f["skips planes"][1:]}))),
    ("an index outside", changed("L3", "out_of_range", skips([7], [3, 0, 85, 159, 749]))),
    ("an index outside under another parameter", changed("L3", "out_of_range", skips([8], [3, 0, 85, 159, 749]))),
    ("a parameter too small", changed("R5", CANONICAL, skips([6]) | {"skips unary": skips([6])["skips unary"]})),
    ("a parameter too large", changed("R5", CANONICAL, skips([8]))),
    ("a parameter and a value wrong", changed("R5", CANONICAL, skips([8]) | {"values": bytes(5)})),
    ("a parameter for nothing", changed("R5", CANONICAL, skips([1], [0] * 5), update=dict.fromkeys(range(5), 1))),
    # Values.
    ("values cut", changed("V1", "length", {"values": b"abcd"})),
    ("fp32 cut", changed("V1", "length", {"values": bytes(19)}, value_type="fp32")),
    ("bf16 cut", changed("V1", "length", {"values": bytes(9)}, value_type="bf16", update=ALIKE)),
    ("signs cut", changed("V1", "length", {"signs": b""}, value_type="sign", update=ALIKE)),
    ("least magnitudes cut", changed("V1", "length", lambda f, _: (f.pop("signs"), f.pop("rest lengths"),
        f.pop("rest parameters"), f.pop("rest planes"), f.pop("rest unary"))[0], value_type="packed")),
    ("int8 -128", changed("V2", CANONICAL, {"values": b"\x64\x80\1\1\1"})),
    ("int8 0", changed("V2", CANONICAL, {"values": b"\x64\0\1\1\1"})),
    ("int8 -128, dense", changed("V2", CANONICAL, {"values": b"\x80" * 1000}, support="dense")),
    ("sign 128", changed("V3", CANONICAL, {"values": b"\x80"}, value_type="sign", update=ALIKE)),
    ("sign 0", changed("V3", CANONICAL, {"values": b"\0", "signs": b"\0"}, value_type="sign", update=ALIKE)),
    ("sign behind the last", changed("V4", CANONICAL, {"signs": b"\x24"}, value_type="sign", update=ALIKE)),
    ("sign of a block of zeros", changed("V4", CANONICAL, {"signs": b"\1"}, value_type="sign", support="agreed",
                                         update={})),
    ("least magnitude 128", changed("V5", CANONICAL, {"least": b"\x80"}, value_type="packed")),
    ("least magnitude 0", changed("V5", CANONICAL, {"least": b"\0"}, value_type="packed")),
    ("packed sign behind the last", changed("V5", CANONICAL, {"signs": b"\x2a"}, value_type="packed")),
    ("packed code with another number", changed("R2", "declared", {"rest unary": b"\x10\x04"}, value_type="packed")),
    ("packed parameter 7", changed("S4", CANONICAL, {"rest parameters": step_code([7])}, value_type="packed")),
    ("packed 128", changed("V6", CANONICAL, {"least": b"\2"}, value_type="packed")),
    ("packed 128 under another parameter", changed("V6", CANONICAL, rice_code([100, 7, 1, 128, 64], "rest", [6])
                                                   | {"least": b"\1"}, value_type="packed")),
    ("packed parameter too small", changed("R5", CANONICAL, rice_code([99, 6, 0, 126, 63], "rest", [4]),
                                           value_type="packed")),
    ("packed least that nobody has", changed("V6", CANONICAL, rice_code([9, 8, 7, 6, 5], "rest"), value_type="packed",
                                             update=dict.fromkeys(MASK, 9))),
    ("packed sign of a zero", changed("V6", CANONICAL, {"signs": b"\1"}, value_type="packed", support="agreed",
                                      update={})),
    ("int8 scale too large", changed("V7", CANONICAL, scales(step_code([1])) | {"values": b"\x01\x3f\xc1\1\1"})),
    ("sign scale too large", changed("V7", CANONICAL, scales(step_code([1])), value_type="sign", update=ALIKE)),
    ("packed scale too large", changed("V7", CANONICAL, scales(step_code([1])), value_type="packed", update=ALIKE)),
    ("scale of a block of zeros", changed("V7", CANONICAL, scales(step_code([1])), support="agreed", update={})),
    *[(f"{kind} too large", Case("V8", "magnitude", *written(kind, update=update)))
      for kind in ("int8", "sign", "packed") for update in (ONE, {7: -65 * 2**34})],
    ("infinity", changed("V9", "not_finite", floats(1, 1, -INFINITY, 1, 1), value_type="fp32")),
    ("no number behind a zero", changed("V9", "not_finite", floats(0, 1, NAN, 1, 1), value_type="fp32")),
    ("bf16 infinity", changed("V9", "not_finite", halves(0x7F80, 1, 1, 1, 1), value_type="bf16", update=ALIKE)),
    ("bf16 signalling NaN", changed("V9", "not_finite", halves(0x7F81, 1, 1, 1, 1), value_type="bf16", update=ALIKE)),
    ("-0", changed("V10", CANONICAL, floats(1, -0.0, 1, 1, 1), value_type="fp32")),
    ("0", changed("V10", CANONICAL, floats(1, 0, 0.3, 1, 1), value_type="fp32")),
    ("-0, agreed", changed("V10", CANONICAL, floats(1, -0.0, 1, 1, 1), value_type="fp32", support="agreed")),
    ("bf16 -0, agreed", changed("V10", CANONICAL, halves(0x8000, 0, 0, 0, 0), value_type="bf16", support="agreed",
                                update=ALIKE)),
    ("between grid points", changed("V11", "off_grid", floats(1, 2**-11, 2**31, 1, 1), value_type="fp32")),
    ("a subnormal", changed("V11", "off_grid", floats(1, 2**-149, 1, 1, 1), value_type="fp32")),
    ("bf16 off the grid", changed("V11", "off_grid", halves(1, 0x3F80, 0x3F80, 0x3F80, 0x3F80), value_type="bf16",
                                  update=ALIKE)),
    ("fp32 too large", changed("V12", "magnitude", floats(1, -(2**30) - 128, 1, 1, 1), value_type="fp32")),
    ("the largest fp32", changed("V12", "magnitude", floats(1, 2**127, 1, 1, 1), value_type="fp32")),
    ("bf16 too large", changed("V12", "magnitude", halves(0x4E81, 0x3F80, 0x3F80, 0x3F80, 0x3F80), value_type="bf16",
                               update=ALIKE)),
    ("no width", changed("V13", "length", lambda f, _: (f.pop("width"), f.pop("values"))[0], value_type="exact")),
    ("width 0", changed("V13", CANONICAL, {"width": b"\0"}, value_type="exact", support="dense")),
    ("width 7", changed("V13", CANONICAL, {"width": b"\7", "values": (b"\1" + bytes(6)) * 5}, value_type="exact")),
    ("exact values cut", changed("V13", "length", {"values": b"\1\1\1\1"}, value_type="exact")),
    ("exact 0", changed("V13", CANONICAL, {"values": b"\1\0\1\1\1"}, value_type="exact")),
    ("exact too large", changed("V14", "magnitude", {"width": b"\6", "values": (2**40 + 1).to_bytes(6, "little") * 5},
                                value_type="exact")),
    ("exact too small", Case("V14", "magnitude", *written("exact", update={7: -(2**40) - 1}))),
    ("exact too wide", changed("V15", CANONICAL, {"width": b"\2", "values": b"\x7f\0\x80\xff\1\0\1\0\1\0"},
                               value_type="exact")),
    ("exact 0 in two bytes, dense", changed("V15", CANONICAL, {"width": b"\2", "values": bytes(2000)},
                                            value_type="exact", support="dense")),
    # Behind the values.
    *[(f"a byte behind the values of {kind}", changed("L4", "length", {"more": b"\0"}, value_type=kind, update=ALIKE))
      for kind in ("int8", "fp32", "bf16", "sign", "packed", "exact")],
    ("a byte behind a mask", changed("L4", "length", {"more": b"\0"}, value_type="none", grid=0)),
]  # fmt: skip
