"""Write the codec's vectors: what must decode, and what must be refused for which rule.

A plain encoder without numpy, written from proto/README.md, "Codec", one step after the other; it shares no code with
the package. The files are what it wrote; a test runs it again and compares.

    python tests/vectors/codec/make_vectors.py FOLDER
"""

from __future__ import annotations

import hashlib
import json
import struct
import sys
from pathlib import Path

BLOCK, LEAF = 128, 65_536
TYPE_NUMBERS = {"int8": 1, "fp32": 2}


def parameter(span, count):
    return max(0, (span * 985 // (1024 * count)).bit_length() - 1)


def pack_bits(bits):
    out = bytearray((len(bits) + 7) // 8)
    for i, bit in enumerate(bits):
        out[i // 8] |= bit << (i % 8)
    return bytes(out)


def in_blocks(items):
    return [items[i : i + BLOCK] for i in range(0, len(items), BLOCK)]


def leaf_parts(base, indices, values, value_type, grid_exponent, parameters=None):
    """The fields of one leaf in order; `parameters` puts others than the function's values."""
    before = [base - 1, *indices[:-1]]
    blocks = in_blocks([i - p - 1 for i, p in zip(indices, before, strict=True)])
    if parameters is None:
        parameters = [parameter(sum(block), len(block)) for block in blocks]
    planes = b""
    order = sorted(range(len(blocks)), key=lambda b: -parameters[b])
    for bit in range(max(parameters)):
        for b in order:
            if parameters[b] > bit:
                planes += pack_bits([skip >> bit & 1 for skip in blocks[b]]).ljust(16, b"\0")
    unary = []
    for block, b in zip(blocks, parameters, strict=True):
        for skip in block:
            unary += [0] * (skip >> b) + [1]
    parts = {"base": struct.pack("<I", base), "parameters": bytes(parameters), "scales": b""}
    if value_type == "int8":
        scales = [max(0, max(map(abs, block)).bit_length() - 7) for block in in_blocks(values)]
        assert all(v % (1 << scales[i // BLOCK]) == 0 for i, v in enumerate(values))
        parts["scales"] = bytes(scales)
        parts["values"] = b"".join(struct.pack("<b", v >> scales[i // BLOCK]) for i, v in enumerate(values))
    else:
        parts["values"] = b"".join(struct.pack("<f", v / 2**grid_exponent) for v in values)
    return {**parts, "planes": planes, "unary": pack_bits(unary)}


def assemble(parts_of_leaves, *, coordinates, nonzeros, value_type, grid_exponent, magic=b"SFRU", version=1, mode=1,
             type_number=None, leaf_count=None, lengths=None):
    leaves = [b"".join(parts.values()) for parts in parts_of_leaves]
    type_number = TYPE_NUMBERS[value_type] if type_number is None else type_number
    leaf_count = len(leaves) if leaf_count is None else leaf_count
    header = magic + struct.pack("<BBBBQQI", version, mode, type_number, grid_exponent, coordinates, nonzeros,
                                 leaf_count)
    for i, leaf in enumerate(leaves):
        header += struct.pack("<I", len(leaf) if lengths is None else lengths[i]) + hashlib.sha256(leaf).digest()
    return header + b"".join(leaves)


def encode(coordinates, indices, values, value_type, grid_exponent):
    leaves, base = [], 0
    for first in range(0, len(indices), LEAF):
        part = indices[first : first + LEAF]
        leaves.append(leaf_parts(base, part, values[first : first + LEAF], value_type, grid_exponent))
        base = part[-1] + 1
    return assemble(leaves, coordinates=coordinates, nonzeros=len(indices), value_type=value_type,
                    grid_exponent=grid_exponent)


INDICES = [3, 4, 90, 250, 999]
VALUES = [100, -7, 1, -127, 64]
MODEL = 1_000
NOISE = [int.from_bytes(hashlib.sha256(b"codec vector %d" % i).digest()[:8], "little") for i in range(1_000)]


def rising(count, largest_gap, first=0):
    out = [first]
    for i in range(count - 1):
        out.append(out[-1] + 1 + NOISE[i] % largest_gap)
    return out


def good():
    """name -> coordinates, indices, values, value type, grid exponent."""
    mixed = rising(300, 2) + [i + 50_000 for i in rising(100, 90_000)]
    scaled = [(1 + NOISE[i] % 127) * (-1) ** (NOISE[i] >> 8 & 1) << (5, 0, 22, 33)[i // BLOCK] for i in range(400)]
    return {
        "five_int8": (MODEL, INDICES, VALUES, "int8", 30),
        "five_fp32": (MODEL, INDICES, VALUES, "fp32", 30),
        "empty_int8": (MODEL, [], [], "int8", 30),
        "empty_fp32": (1, [], [], "fp32", 0),
        "first_coordinate_int8": (1, [0], [-1], "int8", 0),
        "last_coordinate_of_the_largest_model": (2**31, [2**31 - 1], [1], "int8", 40),
        "one_block_without_gaps": (128, list(range(128)), [i - 64 or 1 for i in range(128)], "int8", 30),
        "one_more_than_a_block": (9_000, rising(129, 60), [1 + i % 127 for i in range(129)], "int8", 30),
        "parameters_that_differ": (10_000_000, mixed, scaled, "int8", 30),
        "parameters_that_differ_fp32": (10_000_000, mixed, scaled, "fp32", 30),
        "parameter_on_its_border": (4_000, [1_065, 2_131], [1, 1], "int8", 30),
        "largest_magnitudes_int8": (MODEL, INDICES, [2**40, -(2**40), 2**34, 2**38, 2**39], "int8", 30),
        "scale_that_a_larger_value_would_need": (MODEL, INDICES, [127, -127, 1, 2, 3], "int8", 30),
        "smallest_value_of_a_scale": (MODEL, INDICES, [128, -2, 126, 4, 6], "int8", 30),
        "largest_magnitudes_fp32": (MODEL, INDICES, [2**40, -(2**40), 2**24 - 1, 1, -1], "fp32", 0),
        "finest_grid_fp32": (MODEL, INDICES, [1, -1, 2**40, -(2**40) + 2**16, 2**24 - 1], "fp32", 40),
    }


def case(payload, reason, rule, *, coordinates=MODEL, nonzeros=5, value_type="int8", grid_exponent=30):
    return {"rule": rule, "reason": reason, "coordinates": coordinates, "nonzeros": nonzeros,
            "value_type": value_type, "grid_exponent": grid_exponent, "payload": payload.hex()}


def header_cases():
    parts = leaf_parts(0, INDICES, VALUES, "int8", 30)

    def built(**changes):
        fields = {"coordinates": MODEL, "nonzeros": 5, "value_type": "int8", "grid_exponent": 30, **changes}
        return assemble([parts], **fields)

    whole = built()
    length = len(b"".join(parts.values()))
    return {
        "no_bytes": case(b"", "length", "P1"),
        "preamble_cut": case(whole[:27], "length", "P1"),
        "other_magic": case(built(magic=b"SFRV"), "format", "P2"),
        "other_version": case(built(version=2), "format", "P2"),
        "agreed_support": case(built(mode=2), "format", "P2"),
        "support_mode_zero": case(built(mode=0), "format", "P2"),
        "value_type_bf16": case(built(type_number=3), "format", "P2", value_type="bf16"),
        "value_type_zero": case(built(type_number=0), "format", "P2"),
        "grid_too_fine": case(built(grid_exponent=41), "format", "P2", grid_exponent=41),
        "model_of_nothing": case(built(coordinates=0), "shape", "P3", coordinates=0),
        "model_too_large": case(built(coordinates=2**31 + 1), "shape", "P3", coordinates=2**31 + 1),
        "claims_2_to_the_40": case(built(coordinates=2**40, nonzeros=2**40, leaf_count=2**24), "shape", "P3",
                                   coordinates=2**40, nonzeros=2**40),
        "more_nonzeros_than_coordinates": case(built(nonzeros=1_001), "shape", "P3", nonzeros=1_001),
        "one_leaf_too_many": case(built(leaf_count=2), "not_canonical", "P4"),
        "no_leaf": case(built(leaf_count=0), "not_canonical", "P4"),
        "other_value_type_than_declared": case(whole, "format", "E1", value_type="fp32"),
        "other_grid_than_the_terms": case(whole, "format", "E1", grid_exponent=29),
        "other_model": case(whole, "shape", "E2", coordinates=1_001),
        "other_count_than_declared": case(whole, "declared", "E3", nonzeros=6),
        "format_and_shape_and_count_differ": case(whole, "format", "E1", value_type="fp32", coordinates=9, nonzeros=6),
        "shape_and_count_differ": case(whole, "shape", "E2", coordinates=1_001, nonzeros=6),
        "leaf_table_cut": case(whole[:63], "length", "T1"),
        "leaf_too_short_for_its_nonzeros": case(built(lengths=[11]), "length", "T2"),
        "leaf_too_long_for_its_nonzeros": case(built(lengths=[495]), "length", "T2"),
        "byte_behind_the_last_leaf": case(whole + b"\0", "length", "T3"),
        "last_byte_cut": case(whole[:-1], "length", "T3"),
        "leaf_longer_than_the_payload": case(built(lengths=[length + 1]), "length", "T3"),
    }


def leaf_cases():
    def built(indices=INDICES, values=VALUES, *, coded_with=None, model=MODEL, **changes):
        parts = leaf_parts(0, indices, values, "int8", 30, coded_with)
        for name, change in changes.items():
            parts[name] = change(parts[name]) if callable(change) else change
        return assemble([parts], coordinates=model, nonzeros=len(indices), value_type="int8", grid_exponent=30)

    whole = built()
    canonical = leaf_parts(0, INDICES, VALUES, "int8", 30)
    b = canonical["parameters"][0]
    # Quotients that add up to far more than any canonical block's: one 1 in each of five bytes.
    far = bytes([128] * 5)
    flip = bytearray(whole)
    flip[-1] ^= 0x80
    return {
        "leaf_with_another_digest": case(bytes(flip), "digest", "L1"),
        "first_leaf_with_a_base": case(built(base=b"\1\0\0\0"), "not_canonical", "L2"),
        "parameter_31": case(built(parameters=b"\x1f"), "not_canonical", "L3"),
        "planes_that_leave_no_unary_plane": case(
            built(planes=b"", unary=canonical["unary"]), "length", "L4"),
        "unary_plane_too_long": case(built(unary=far), "length", "L4"),
        "padding_bit_in_the_unary_plane": case(
            built(unary=canonical["unary"][:-1] + bytes([canonical["unary"][-1] | 0x80])), "declared", "L5"),
        "one_nonzero_missing": case(built(unary=b"\x0f"), "declared", "L5"),
        "byte_behind_the_last_nonzero": case(built(unary=canonical["unary"] + b"\0"), "length", "L6"),
        "padding_bit_in_a_plane": case(
            built(planes=lambda planes: planes[:15] + b"\x80" + planes[16:]), "not_canonical", "L7"),
        "index_outside_the_model": case(built(model=999), "out_of_range", "L8", coordinates=999),
        "index_outside_and_other_parameter": case(built(model=999, coded_with=[b + 1]), "out_of_range", "L8",
                                                  coordinates=999),
        "parameter_too_large": case(built(coded_with=[b + 1]), "not_canonical", "L9"),
        "parameter_too_small": case(built(coded_with=[b - 1]), "not_canonical", "L9"),
        "parameter_above_its_border": case(
            built([1_065, 2_130], [1, 1], coded_with=[10], model=4_000), "not_canonical", "L9",
            coordinates=4_000, nonzeros=2),
        "parameter_and_value_wrong": case(built(coded_with=[b + 1], scales=b"\x23"), "not_canonical", "L9"),
    }


def int8_cases():
    def built(scale, mantissas):
        parts = leaf_parts(0, INDICES, VALUES, "int8", 30)
        parts["scales"], parts["values"] = bytes([scale]), struct.pack("<5b", *mantissas)
        return assemble([parts], coordinates=MODEL, nonzeros=5, value_type="int8", grid_exponent=30)

    return {
        "scale_35": case(built(35, [64, 1, 1, 1, 1]), "magnitude", "V1"),
        "scale_255": case(built(255, [64, 1, 1, 1, 1]), "magnitude", "V1"),
        "scale_35_and_zero": case(built(35, [64, 0, 1, 1, 1]), "magnitude", "V1"),
        "int8_zero": case(built(0, [100, 0, 1, 1, 1]), "not_canonical", "V2"),
        "int8_minus_128": case(built(0, [100, -128, 1, 1, 1]), "not_canonical", "V2"),
        "scale_too_large": case(built(1, [63, -63, 1, 1, 1]), "not_canonical", "V3"),
        "largest_scale_exceeded": case(built(34, [65, 1, 1, 1, 1]), "magnitude", "V4"),
        "largest_scale_exceeded_below_zero": case(built(34, [1, -65, 1, 1, 1]), "magnitude", "V4"),
    }


def fp32_cases():
    def built(second, grid_exponent=30):
        parts = leaf_parts(0, INDICES, VALUES, "fp32", grid_exponent)
        bits = struct.pack("<I", second) if isinstance(second, int) else struct.pack("<f", second)
        parts["values"] = parts["values"][:4] + bits + parts["values"][8:]
        return assemble([parts], coordinates=MODEL, nonzeros=5, value_type="fp32", grid_exponent=grid_exponent)

    def fp32(payload, reason, rule, grid_exponent=30):
        return case(payload, reason, rule, value_type="fp32", grid_exponent=grid_exponent)

    zero_and_nan = leaf_parts(0, INDICES, VALUES, "fp32", 30)
    zero_and_nan["values"] = struct.pack("<3fI", 1.0, 0.0, 1.0, 0x7FC00000) + zero_and_nan["values"][16:]
    return {
        "fp32_infinity": fp32(built(0x7F800000), "not_finite", "V1"),
        "fp32_minus_infinity": fp32(built(0xFF800000), "not_finite", "V1"),
        "fp32_quiet_nan": fp32(built(0x7FC00000), "not_finite", "V1"),
        "fp32_signalling_nan": fp32(built(0x7F800001), "not_finite", "V1"),
        "fp32_zero_before_nan": fp32(
            assemble([zero_and_nan], coordinates=MODEL, nonzeros=5, value_type="fp32", grid_exponent=30),
            "not_finite", "V1"),
        "fp32_zero": fp32(built(0.0), "not_canonical", "V2"),
        "fp32_minus_zero": fp32(built(0x80000000), "not_canonical", "V2"),
        "fp32_between_grid_points": fp32(built(1.5, 0), "off_grid", "V3", 0),
        "fp32_half_a_grid_unit": fp32(built(2.0**-31), "off_grid", "V3"),
        "fp32_subnormal": fp32(built(1, 40), "off_grid", "V3", 40),
        "fp32_too_large": fp32(built(2.0**40 * (1 + 2.0**-23), 0), "magnitude", "V4", 0),
        "fp32_largest_number": fp32(built(0xFF7FFFFF, 40), "magnitude", "V4", 40),
    }


def two_leaves():
    """65,537 nonzeros: too long to print, so the file gives the rule for the content and the payload's digest."""
    indices = [5 + 3 * i for i in range(LEAF + 1)]
    values = [1 + i % 127 for i in range(LEAF + 1)]
    payload = encode(200_000, indices, values, "int8", 30)
    return {"coordinates": 200_000, "nonzeros": LEAF + 1, "value_type": "int8", "grid_exponent": 30,
            "indices_are": "5 + 3 * i", "values_are": "1 + i % 127",
            "payload_bytes": len(payload), "payload_sha256": hashlib.sha256(payload).hexdigest()}


def write(folder):
    folder.mkdir(parents=True, exist_ok=True)
    files = {"two_leaves": two_leaves()}
    for name, (coordinates, indices, values, value_type, grid_exponent) in good().items():
        payload = encode(coordinates, indices, values, value_type, grid_exponent)
        files[name] = {"coordinates": coordinates, "nonzeros": len(indices), "value_type": value_type,
                       "grid_exponent": grid_exponent, "indices": indices, "values": values, "payload": payload.hex(),
                       "payload_sha256": hashlib.sha256(payload).hexdigest()}
    for cases in (header_cases(), leaf_cases(), int8_cases(), fp32_cases()):
        files |= {f"bad_{name}": content for name, content in cases.items()}
    for name, content in files.items():
        lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in content.items()]
        (folder / f"{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="ascii")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
