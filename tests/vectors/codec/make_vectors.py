"""Write the codec's vectors: what must decode, and what must be refused for which rule.

A plain encoder without numpy, written from proto/README.md, "Codec", one step after the other and bit by bit; it shares
no code with the package. The files are what it wrote; a test runs it again and compares.

    python tests/vectors/codec/make_vectors.py FOLDER
"""

from __future__ import annotations

import hashlib
import json
import struct
import sys
from pathlib import Path

BLOCK, LEAF = 64, 65_536
MODE_NUMBERS = {"free": 1, "agreed": 2, "dense": 3}
TYPE_NUMBERS = {"none": 0, "int8": 1, "fp32": 2, "bf16": 3, "sign": 4, "packed": 5, "exact": 6}


def pack_bits(bits):
    out = bytearray((len(bits) + 7) // 8)
    for i, bit in enumerate(bits):
        out[i // 8] |= bit << (i % 8)
    return bytes(out)


def in_blocks(items):
    return [items[i : i + BLOCK] for i in range(0, len(items), BLOCK)]


def unary(numbers):
    bits = []
    for number in numbers:
        bits += [0] * number + [1]
    return pack_bits(bits)


def step_code(numbers):
    folded, before = [], 0
    for number in numbers:
        d = number - before
        folded.append(2 * d if d >= 0 else -2 * d - 1)
        before = number
    return unary(folded)


def parameter(block):
    m = sum(block) * 985 // (1024 * len(block))
    return max(0, m.bit_length() - 1)


def rice_fields(name, numbers, parameters=None):
    """The fields of one Rice code; `parameters` puts others than the function's values."""
    blocks = in_blocks(numbers)
    parameters = [parameter(block) for block in blocks] if parameters is None else parameters
    planes = b""
    order = sorted(range(len(blocks)), key=lambda k: -parameters[k])
    for j in range(max(parameters)):
        for k in order:
            if parameters[k] > j:
                planes += pack_bits([number >> j & 1 for number in blocks[k]]).ljust(8, b"\0")
    quotients = [number >> b for block, b in zip(blocks, parameters, strict=True) for number in block]
    return {f"{name} parameters": step_code(parameters), f"{name} planes": planes, f"{name} unary": unary(quotients)}


def scale(block):
    return max(0, max(map(abs, block)).bit_length() - 7)


def support_fields(base, indices, parameters=None):
    before = [base - 1, *indices[:-1]]
    skips = [i - p - 1 for i, p in zip(indices, before, strict=True)]
    return {"base": struct.pack("<I", base), **rice_fields("skip", skips, parameters)}


def exact_width(values):
    return next(w for w in range(1, 9) if all(-(1 << 8 * w - 1) <= v < 1 << 8 * w - 1 for v in values))


def value_fields(values, value_type, grid_exponent):
    if value_type == "none":
        return {}
    if value_type in ("fp32", "bf16"):
        raw = [struct.pack("<f", v / 2**grid_exponent) for v in values]
        return {"values": b"".join(raw if value_type == "fp32" else [item[2:] for item in raw])}
    if value_type == "exact":
        w = exact_width(values)
        return {"width": bytes([w]), "values": b"".join(v.to_bytes(w, "little", signed=True) for v in values)}
    scales = [scale(block) for block in in_blocks(values)]
    numbers = [v >> scales[i // BLOCK] for i, v in enumerate(values)]
    assert all(q << scales[i // BLOCK] == values[i] for i, q in enumerate(numbers))
    fields = {"scales": step_code(scales)}
    if value_type == "int8":
        return {**fields, "values": b"".join(struct.pack("<b", q) for q in numbers)}
    magnitudes = [abs(q) for q in numbers]
    signs = pack_bits([int(q < 0) for q in numbers])
    if value_type == "sign":
        assert all(len(set(block)) == 1 for block in in_blocks(magnitudes))
        return {**fields, "values": bytes(block[0] for block in in_blocks(magnitudes)), "signs": signs}
    smallest = [min(block) for block in in_blocks(magnitudes)]
    excess = [q - smallest[i // BLOCK] for i, q in enumerate(magnitudes)]
    return {**fields, "values": bytes(smallest), "signs": signs, **rice_fields("excess", excess)}


def leaf_bytes(fields):
    """One leaf from its fields; a `... parameters` is led by its length and that of its unary plane, `scales` by its
    own; `... lengths` puts others."""
    out = b""
    for name, raw in fields.items():
        if name.endswith(" lengths"):
            continue
        if name.endswith(" parameters"):
            out += fields.get(f"{name.split()[0]} lengths") or struct.pack(
                "<HI", len(raw), len(fields[name.replace("parameters", "unary")]))
        elif name == "scales":
            out += fields.get("scale lengths") or struct.pack("<H", len(raw))
        out += raw
    return out


def tree_hash(hashes):
    if len(hashes) == 1:
        return hashes[0]
    k = 1
    while 2 * k < len(hashes):
        k *= 2
    return hashlib.sha256(b"\1" + tree_hash(hashes[:k]) + tree_hash(hashes[k:])).digest()


def assemble(leaves, *, coordinates, nonzeros, value_type, grid_exponent, support="free", mask=None, magic=b"SFRU",
             version=2, mode=None, type_number=None, leaf_count=None, lengths=None, digests=None):
    """A payload of leaves, and the root that its own header gives."""
    preamble = magic + struct.pack(
        "<BBBBQQI", version, MODE_NUMBERS[support] if mode is None else mode,
        TYPE_NUMBERS[value_type] if type_number is None else type_number, grid_exponent, coordinates, nonzeros,
        len(leaves) if leaf_count is None else leaf_count)
    if support == "agreed":
        preamble += hashlib.sha256(mask).digest()
    lengths = [struct.pack("<I", n) for n in ([len(leaf) for leaf in leaves] if lengths is None else lengths)]
    digests = [hashlib.sha256(b"\0" + leaf).digest() for leaf in leaves] if digests is None else digests
    table = b"".join(a + b for a, b in zip(lengths, digests, strict=True))
    root = tree_hash([hashlib.sha256(b"\0" + preamble + b"".join(lengths)).digest(), *digests])
    return preamble + table + b"".join(leaves), root


def fields_of(coordinates, indices, values, value_type, grid_exponent, support="free"):
    leaves, base = [], 0
    for first in range(0, len(indices), LEAF):
        part = indices[first : first + LEAF]
        fields = support_fields(base, part) if support == "free" else {}
        fields |= value_fields(values[first : first + LEAF], value_type, grid_exponent)
        leaves.append(fields)
        base = part[-1] + 1
    return leaves


def encode(coordinates, indices, values, value_type, grid_exponent, support="free", mask=None):
    leaves = fields_of(coordinates, indices, values, value_type, grid_exponent, support)
    return assemble([leaf_bytes(fields) for fields in leaves], coordinates=coordinates, nonzeros=len(indices),
                    value_type=value_type, grid_exponent=grid_exponent, support=support, mask=mask)


def mask_of(coordinates, indices):
    return encode(coordinates, indices, [], "none", 0)[0]


INDICES = [3, 4, 90, 250, 999]
VALUES = [100, -7, 1, -127, 64]
SIGNED = [100, -100, -100, 100, -100]
MODEL = 1_000
MASK = mask_of(MODEL, INDICES)
NOISE = [int.from_bytes(hashlib.sha256(b"codec vector %d" % i).digest()[:8], "little") for i in range(1_000)]
TYPES = ("int8", "fp32", "bf16", "sign", "packed", "exact")


def rising(count, largest_gap, first=0):
    out = [first]
    for i in range(count - 1):
        out.append(out[-1] + 1 + NOISE[i] % largest_gap)
    return out


def noise_values(count, zeros=False):
    """Values of both signs in blocks of different scales."""
    numbers = [(1 + NOISE[i] % 127) * (-1) ** (NOISE[i] >> 8 & 1) for i in range(count)]
    if zeros:
        numbers = [0 if NOISE[i] >> 9 & 3 == 0 else q for i, q in enumerate(numbers)]
    return [q << (5, 0, 22, 33, 1)[i // BLOCK % 5] for i, q in enumerate(numbers)]


def fit(values, value_type):
    """The nearest that `value_type` holds, roughly: of sign one magnitude a block, of the others as they are."""
    if value_type != "sign":
        return values
    return [(abs(values[i // BLOCK * BLOCK]) or 64) * (-1 if v < 0 else 1) for i, v in enumerate(values)]


def good():
    """name -> coordinates, indices, values, value type, grid exponent, support."""
    mixed = rising(300, 2) + [i + 50_000 for i in rising(100, 90_000)]
    wide = 10_000_000
    cases = {}
    for kind in TYPES:
        five = SIGNED if kind == "sign" else VALUES
        cases |= {
            f"five_{kind}": (MODEL, INDICES, five, kind, 30, "free"),
            f"empty_{kind}": (MODEL, [], [], kind, 30, "free"),
            f"agreed_five_{kind}": (MODEL, INDICES, five, kind, 30, "agreed"),
            f"agreed_empty_{kind}": (MODEL, [], [], kind, 30, "agreed"),
            f"dense_five_{kind}": (5, [0, 1, 2, 3, 4], five, kind, 30, "dense"),
            f"dense_zeros_{kind}": (65, list(range(65)), [0] * 65, kind, 30, "dense"),
            f"mixed_{kind}": (wide, mixed, fit(noise_values(400), kind), kind, 30, "free"),
            f"agreed_mixed_{kind}": (wide, mixed, fit(noise_values(400, zeros=True), kind), kind, 30, "agreed"),
            f"dense_mixed_{kind}": (400, list(range(400)), fit(noise_values(400, zeros=True), kind), kind, 30, "dense"),
        }
        for count in (1, 63, 64, 65, 128, 129):
            cases[f"count_{count}_{kind}"] = (
                9_000, rising(count, 60), fit(noise_values(count), kind), kind, 30, "free")
    return cases | {
        "first_coordinate_int8": (1, [0], [-1], "int8", 0, "free"),
        "last_coordinate_of_the_largest_model": (2**31, [2**31 - 1], [1], "int8", 40, "free"),
        "last_coordinates_of_the_largest_model": (2**31, [2**30, 2**31 - 2, 2**31 - 1], [1, 2, 3], "exact", 40, "free"),
        "one_block_without_gaps": (64, list(range(64)), [i - 32 or 1 for i in range(64)], "int8", 30, "free"),
        "parameter_on_its_border": (4_000, [1_065, 2_131], [1, 1], "int8", 30, "free"),
        "parameters_that_fall_and_rise": (
            wide,
            [64 * i for i in range(64)] + [5_000 + i for i in range(64)] + [9_000 + 20_000 * i for i in range(65)],
            [1 + i % 127 for i in range(193)], "int8", 30, "free"),
        "largest_magnitudes_int8": (MODEL, INDICES, [2**40, -(2**40), 2**34, 2**38, 2**39], "int8", 30, "free"),
        "largest_magnitudes_packed": (MODEL, INDICES, [2**40, -(2**40), 2**34, 2**38, 2**39], "packed", 30, "free"),
        "largest_magnitudes_sign": (MODEL, INDICES, [2**40, -(2**40)] * 2 + [2**40], "sign", 30, "free"),
        "largest_magnitudes_fp32": (MODEL, INDICES, [2**40, -(2**40), 2**24 - 1, 1, -1], "fp32", 0, "free"),
        "largest_magnitudes_bf16": (MODEL, INDICES, [2**40, -(2**40), 255, 1, -1], "bf16", 0, "free"),
        "largest_magnitudes_exact": (MODEL, INDICES, [2**40, -(2**40), 2**24 - 1, 1, -1], "exact", 0, "free"),
        "finest_grid_fp32": (MODEL, INDICES, [1, -1, 2**40, -(2**40) + 2**16, 2**24 - 1], "fp32", 40, "free"),
        "scale_that_a_larger_value_would_need": (MODEL, INDICES, [127, -127, 1, 2, 3], "int8", 30, "free"),
        "smallest_value_of_a_scale": (MODEL, INDICES, [128, -2, 126, 4, 6], "int8", 30, "free"),
        "scales_that_fall_and_rise": (
            129, list(range(129)), [127 << 34 >> 1] * 64 + [1] * 64 + [127 << 20], "int8", 30, "dense"),
        "packed_all_alike": (MODEL, INDICES, [127, -127, 127, 127, -127], "packed", 30, "free"),
        "packed_large_excess": (MODEL, INDICES, [1, -127, 127, 127, -127], "packed", 30, "free"),
        **{f"exact_width_{w}": (MODEL, INDICES, [1, -1, 2**(8 * w - 1) - 1, -(2**(8 * w - 1)), 5], "exact", 30, "free")
           for w in range(1, 6)},
        **{f"exact_width_{w}_by_its_least": (MODEL, INDICES, [1, -1, 1, -(2**(8 * w - 9)) - 1, 5], "exact", 30, "free")
           for w in range(2, 7)},
    }


def good_masks():
    return {
        "mask_five": (MODEL, INDICES), "mask_empty": (MODEL, []), "mask_all": (65, list(range(65))),
        "mask_mixed": (10_000_000, rising(300, 2) + [i + 50_000 for i in rising(100, 90_000)]),
        "mask_last_coordinate": (2**31, [2**31 - 1]),
    }


def by_rule():
    """Payloads too long to print: the file gives the rule for the content and the payload's digest."""
    cases = {"two_leaves": (LEAF + 1, "int8", "free"), "one_full_leaf": (LEAF, "int8", "free"),
             "two_leaves_packed": (LEAF + 1, "packed", "free"), "two_leaves_exact": (LEAF + 1, "exact", "free"),
             "two_leaves_agreed": (LEAF + 1, "bf16", "agreed"), "two_leaves_dense": (LEAF + 1, "fp32", "dense"),
             "one_full_leaf_dense": (LEAF, "int8", "dense")}
    out = {}
    for name, (count, value_type, support) in cases.items():
        dense = support == "dense"
        indices = list(range(count)) if dense else [5 + 3 * i for i in range(count)]
        values = [1 + i % 127 for i in range(count)]
        coordinates = count if dense else 200_000
        mask = mask_of(coordinates, indices) if support == "agreed" else None
        payload, root = encode(coordinates, indices, values, value_type, 30, support, mask)
        out[name] = {"coordinates": coordinates, "nonzeros": count, "support": support, "value_type": value_type,
                     "grid_exponent": 30, "indices_are": "i" if dense else "5 + 3 * i", "values_are": "1 + i % 127",
                     "payload_bytes": len(payload), "payload_sha256": hashlib.sha256(payload).hexdigest(),
                     "root": root.hex()}
        if mask is not None:
            out[name]["mask_sha256"] = hashlib.sha256(mask).hexdigest()
    return out


def case(made, reason, rule, *, coordinates=MODEL, nonzeros=5, support="free", value_type="int8", grid_exponent=30,
         mask=MASK):
    payload, root = made
    out = {"rule": rule, "reason": reason, "coordinates": coordinates, "nonzeros": nonzeros, "support": support,
           "value_type": value_type, "grid_exponent": grid_exponent, "root": root.hex()}
    if support == "agreed":
        out["mask"] = mask.hex()
    return {**out, "payload": payload.hex()}


def header_cases():
    fields = fields_of(MODEL, INDICES, VALUES, "int8", 30)[0]
    leaf = leaf_bytes(fields)

    def built(**changes):
        return assemble([leaf], **{"coordinates": MODEL, "nonzeros": 5, "value_type": "int8", "grid_exponent": 30,
                                   **changes})

    whole, root = built()
    agreed = encode(MODEL, INDICES, VALUES, "int8", 30, "agreed", MASK)
    four = mask_of(MODEL, INDICES[:4])
    dense = encode(5, [0, 1, 2, 3, 4], VALUES, "int8", 30, "dense")
    return {
        "no_bytes": case((b"", root), "length", "P1"),
        "preamble_cut": case((whole[:27], root), "length", "P1"),
        "other_magic": case(built(magic=b"SFRV"), "format", "P2"),
        "version_1": case(built(version=1), "format", "P2"),
        "version_3": case(built(version=3), "format", "P2"),
        "support_mode_zero": case(built(mode=0), "format", "P2"),
        "support_mode_4": case(built(mode=4), "format", "P2"),
        "value_type_7": case(built(type_number=7), "format", "P2"),
        "value_type_with_bit_7": case(built(type_number=129), "format", "P2"),
        "grid_too_fine": case(built(grid_exponent=41), "format", "P2", grid_exponent=41),
        "dense_without_values": case(built(mode=3, type_number=0, grid_exponent=0), "format", "P2", support="dense"),
        "no_values_on_a_grid": case(built(type_number=0), "format", "P2"),
        "other_version_and_no_model": case(built(version=3, coordinates=0), "format", "P2"),
        "model_of_nothing": case(built(coordinates=0), "shape", "P3", coordinates=0),
        "model_too_large": case(built(coordinates=2**31 + 1), "shape", "P3", coordinates=2**31 + 1),
        "claims_2_to_the_40": case(built(coordinates=2**40, nonzeros=2**40, leaf_count=2**24), "shape", "P3",
                                   coordinates=2**40, nonzeros=2**40),
        "more_nonzeros_than_coordinates": case(built(nonzeros=1_001), "shape", "P3", nonzeros=1_001),
        "dense_with_a_value_missing": case(assemble([leaf], coordinates=6, nonzeros=5, value_type="int8",
                                                    grid_exponent=30, support="dense"), "shape", "P3",
                                           coordinates=6, support="dense"),
        "shape_and_leaf_count": case(built(coordinates=4, leaf_count=2), "shape", "P3", coordinates=4),
        "one_leaf_too_many": case(built(leaf_count=2), "not_canonical", "P4"),
        "no_leaf": case(built(leaf_count=0), "not_canonical", "P4"),
        "leaf_count_and_value_type": case(built(leaf_count=2), "not_canonical", "P4", value_type="fp32"),
        "a_mask_for_an_update": case((MASK, root), "format", "E1"),
        "other_mode_than_declared": case((whole, root), "format", "E1", support="agreed"),
        "dense_where_free_was_declared": case(dense, "format", "E1", coordinates=5),
        "other_value_type_than_declared": case((whole, root), "format", "E1", value_type="fp32"),
        "other_grid_than_the_terms": case((whole, root), "format", "E1", grid_exponent=29),
        "other_model": case((whole, root), "shape", "E2", coordinates=1_001),
        "other_count_than_declared": case((whole, root), "declared", "E3", nonzeros=6),
        "format_and_shape_and_count_differ": case((whole, root), "format", "E1", value_type="fp32", coordinates=9,
                                                  nonzeros=6),
        "shape_and_count_differ": case((whole, root), "shape", "E2", coordinates=1_001, nonzeros=6),
        "agreed_preamble_cut": case((agreed[0][:59], agreed[1]), "length", "E4", support="agreed"),
        "agreed_preamble_cut_and_count_differs": case((agreed[0][:59], agreed[1]), "declared", "E3", support="agreed",
                                                      nonzeros=6),
        "other_mask": case(agreed, "format", "E5", support="agreed", mask=mask_of(MODEL, [3, 4, 90, 250, 998])),
        "other_mask_and_count": case(agreed, "format", "E5", support="agreed", mask=four),
        "fewer_values_than_the_mask_has": case(
            encode(MODEL, INDICES[:4], VALUES[:4], "int8", 30, "agreed", MASK), "shape", "E6", nonzeros=4,
            support="agreed"),
        "agreed_empty_for_a_mask": case(encode(MODEL, [], [], "int8", 30, "agreed", MASK), "shape", "E6", nonzeros=0,
                                        support="agreed"),
        "leaf_table_cut": case((whole[:63], root), "length", "T1"),
        "leaf_table_missing": case((whole[:28], root), "length", "T1"),
        "agreed_leaf_table_cut": case((agreed[0][:95], agreed[1]), "length", "T1", support="agreed"),
        "leaf_too_short_for_its_values": case(built(lengths=[0]), "length", "T2"),
        "leaf_too_long_for_its_values": case(built(lengths=[24 * 5 + 4_097]), "length", "T2"),
        "byte_behind_the_last_leaf": case((whole + b"\0", root), "length", "T3"),
        "byte_behind_the_last_leaf_and_other_root": case((whole + b"\0", bytes(32)), "length", "T3"),
        "byte_behind_an_empty_update": case((encode(MODEL, [], [], "int8", 30)[0] + b"\0", bytes(32)), "length", "T3",
                                            nonzeros=0),
        "last_byte_cut": case((whole[:-1], root), "length", "T3"),
        "leaf_longer_than_the_payload": case(built(lengths=[len(leaf) + 1]), "length", "T3"),
        "other_root": case((whole, bytes(32)), "digest", "T4"),
        "other_root_of_an_empty_update": case((encode(MODEL, [], [], "int8", 30)[0], bytes(32)), "digest", "T4",
                                              nonzeros=0),
        "plain_sha256_as_leaf_hash": case(built(digests=[hashlib.sha256(leaf).digest()]), "digest", "L1"),
        "leaf_hash_in_the_table_changed": case((built(digests=[bytes(32)])[0], root), "digest", "T4"),
        "leaf_with_another_hash": case((whole[:-1] + bytes([whole[-1] ^ 0x80]), root), "digest", "L1"),
        "leaf_hash_and_base": case(
            (assemble([b"\1" + leaf[1:]], coordinates=MODEL, nonzeros=5, value_type="int8", grid_exponent=30,
                      digests=[bytes(32)])), "digest", "L1"),
    }


def builder(indices, values, value_type, grid_exponent=30, support="free", coordinates=MODEL):
    """A function from changed fields to a payload of one leaf and its root."""
    fields = fields_of(coordinates, indices, values, value_type, grid_exponent, support)[0]

    def built(changed=None, cut=None, behind=b"", model=coordinates):
        leaf = leaf_bytes({**fields, **(changed or {})})[:cut] + behind
        return assemble([leaf], coordinates=model, nonzeros=len(indices), value_type=value_type,
                        grid_exponent=grid_exponent, support=support, mask=MASK)

    return fields, built


def skip_cases():
    canonical, built = builder(INDICES, VALUES, "int8")
    b = parameter([3, 0, 85, 159, 748])
    planes, plane = canonical["skip planes"], canonical["skip unary"]

    def coded(parameters, **more):
        return {**support_fields(0, INDICES, parameters), **more}

    def lengths(parameters, unary_bytes):
        return {"skip lengths": struct.pack("<HI", parameters, unary_bytes)}

    _, border = builder([1_065, 2_130], [1, 1], "int8", coordinates=4_000)
    bent = planes[:7] + b"\x80" + planes[8:]
    return {
        "base_cut": case(built(cut=3), "length", "L2"),
        "first_leaf_with_a_base": case(built({"base": b"\1\0\0\0"}), "not_canonical", "L2"),
        "base_and_parameters": case(built({"base": b"\1\0\0\0", "skip parameters": b"\0"}), "not_canonical", "L2"),
        "rice_lengths_cut": case(built(cut=9), "length", "S1"),
        "parameters_missing": case(built(cut=10), "length", "S1"),
        "no_parameters": case(built({"skip parameters": b""}), "length", "S1"),
        "parameters_too_long": case(built({"skip parameters": b"\0" * 8 + b"\1"}), "length", "S1"),
        "parameters_longer_than_the_leaf": case(built(lengths(65_535, len(plane))), "length", "S1"),
        "one_parameter_too_many": case(built({"skip parameters": b"\x03"}), "declared", "S2"),
        "one_parameter_missing": case(built({"skip parameters": b"\0"}), "declared", "S2"),
        "byte_behind_the_parameters": case(built({"skip parameters": canonical["skip parameters"] + b"\0"}), "length",
                                           "S3"),
        "parameter_31": case(built({"skip parameters": step_code([31])}), "not_canonical", "S4"),
        "parameter_minus_1": case(built({"skip parameters": b"\x02"}), "not_canonical", "S4"),
        "parameter_31_and_no_planes": case(built({"skip parameters": step_code([31]), "skip planes": b""}),
                                           "not_canonical", "S4"),
        "planes_missing": case(built({"skip planes": b"", "skip unary": plane, "scales": b"", "values": b"",
                                      "scale lengths": b"\0"}), "length", "R1"),
        "no_unary_plane": case(built({"skip unary": b""}), "length", "R1"),
        "unary_plane_too_long": case(built({"skip unary": b"\0\0\0\x1f"}), "length", "R1"),
        "unary_plane_longer_than_the_leaf": case(built(lengths(len(canonical["skip parameters"]), 2**32 - 1)),
                                                 "length", "R1"),
        "padding_bit_in_the_unary_plane": case(built({"skip unary": plane[:-1] + bytes([plane[-1] | 0x80])}),
                                               "declared", "R2"),
        "one_value_missing": case(built({"skip unary": b"\x0f"}), "declared", "R2"),
        "one_value_missing_and_byte_behind": case(built({"skip unary": b"\x0f\0"}), "declared", "R2"),
        "byte_behind_the_last_one": case(built({"skip unary": plane + b"\0"}), "length", "R3"),
        "byte_behind_the_last_one_and_padding": case(built({"skip unary": plane + b"\0", "skip planes": bent}),
                                                     "length", "R3"),
        "padding_bit_in_a_plane": case(built({"skip planes": bent}), "not_canonical", "R4"),
        "padding_bit_and_index_outside": case(built({"skip planes": bent}, model=999), "not_canonical", "R4",
                                              coordinates=999),
        "index_outside_the_model": case(built(model=999), "out_of_range", "L3", coordinates=999),
        "index_far_outside_the_largest_model": case(
            built({**rice_fields("skip", [0, 0, 0, 0, 2**30 * 5], [30])}, model=2**31), "out_of_range", "L3",
            coordinates=2**31),
        "index_outside_and_other_parameter": case(built(coded([b + 1]), model=999), "out_of_range", "L3",
                                                  coordinates=999),
        "index_outside_and_zero": case(built({"values": b"\0" * 5}, model=999), "out_of_range", "L3", coordinates=999),
        "parameter_too_large": case(built(coded([b + 1])), "not_canonical", "R5"),
        "parameter_too_small": case(built(coded([b - 1])), "not_canonical", "R5"),
        "parameter_above_its_border": case(
            border(support_fields(0, [1_065, 2_130], [10])), "not_canonical", "R5", coordinates=4_000, nonzeros=2),
        "parameter_and_scale": case(built(coded([b + 1], scales=step_code([35]))), "not_canonical", "R5"),
        "byte_behind_the_values": case(built(behind=b"\0"), "length", "L4"),
        "byte_behind_the_values_and_zero": case(built({"values": b"\0" * 5}, behind=b"\0"), "not_canonical", "V2"),
    }


def mask_cases():
    _, built = builder(INDICES, [], "none", 0)
    plain = {"value_type": "none", "grid_exponent": 0}
    count = LEAF + 1
    first, second = fields_of(count, list(range(count)), [], "none", 0)

    def two(one, other, **changes):
        made = assemble([leaf_bytes(one), leaf_bytes(other)], coordinates=count, nonzeros=count, value_type="none",
                        grid_exponent=0, **changes)
        return {"made": made, "coordinates": count, "nonzeros": count}

    def long(made, reason, rule):
        return case(made["made"], reason, rule, coordinates=count, nonzeros=count, **plain)

    bent = {**second, "skip unary": b"\x03"}
    doubled = {**first, "skip unary": first["skip unary"][:-1] + b"\x7f"}
    return {
        "mask_with_values": case(encode(MODEL, INDICES, VALUES, "int8", 30), "format", "E1", **plain),
        "mask_of_another_model": case(built(), "shape", "E2", **plain, coordinates=999),
        "mask_cut": case((built()[0][:-1], built()[1]), "length", "T3", **plain),
        "mask_with_another_leaf_hash": case((built()[0][:-1] + b"\xff", built()[1]), "digest", "L1", **plain),
        "mask_index_outside": case(built(model=999), "out_of_range", "L3", **plain, coordinates=999),
        "mask_other_parameter": case(built(support_fields(0, INDICES, [6])), "not_canonical", "R5", **plain),
        "mask_byte_behind": case(built(behind=b"\0"), "length", "L4", **plain),
        "mask_second_leaf_with_too_small_a_base": long(
            two(first, {**second, "base": struct.pack("<I", LEAF - 1)}), "not_canonical", "L2"),
        "mask_second_leaf_with_too_large_a_base": long(
            two(first, {**second, "base": struct.pack("<I", LEAF + 1)}), "not_canonical", "L2"),
        "mask_second_leaf_breaks_its_code": long(two(first, bent), "declared", "R2"),
        "mask_first_leaf_before_the_second": long(
            two(doubled, bent, digests=[hashlib.sha256(b"\0" + leaf_bytes(doubled)).digest(), bytes(32)]),
            "declared", "R2"),
    }


def int8_cases():
    _, built = builder(INDICES, VALUES, "int8")
    _, agreed = builder(INDICES, VALUES, "int8", support="agreed")
    _, long = builder(list(range(65)), [64] * 65, "int8", coordinates=65)

    def changed(scales, numbers, make=built, **more):
        return make({"scales": scales if isinstance(scales, bytes) else step_code([scales]),
                     "values": struct.pack(f"<{len(numbers)}b", *numbers), **more})

    return {
        "scales_length_cut": case(built({"scales": b"", "values": b"", "scale lengths": b"\1"}), "length", "S1"),
        "scales_longer_than_the_leaf": case(built({"scale lengths": b"\xff\xff"}), "length", "S1"),
        "no_scales": case(changed(b"", VALUES), "length", "S1"),
        "scales_too_long": case(changed(b"\0" * 9 + b"\1", VALUES), "length", "S1"),
        "one_scale_too_many": case(changed(b"\x03", VALUES), "declared", "S2"),
        "one_scale_missing": case(changed(b"\0", VALUES), "declared", "S2"),
        "byte_behind_the_scales": case(changed(b"\1\0", VALUES), "length", "S3"),
        "scale_35": case(changed(35, [64, 1, 1, 1, 1]), "not_canonical", "S4"),
        "scale_minus_1": case(changed(b"\x02", [64, 1, 1, 1, 1]), "not_canonical", "S4"),
        "second_scale_minus_1": case(changed(b"\x05", [1] * 65, long), "not_canonical", "S4", coordinates=65,
                                     nonzeros=65),
        "int8_values_cut": case(built(cut=-1), "length", "V1"),
        "int8_values_cut_and_zero": case(changed(0, [0, 1, 1, 1]), "length", "V1"),
        "int8_zero": case(changed(0, [100, 0, 1, 1, 1]), "not_canonical", "V2"),
        "int8_minus_128": case(changed(0, [100, -128, 1, 1, 1]), "not_canonical", "V2"),
        "agreed_int8_minus_128": case(changed(0, [100, -128, 0, 1, 1], agreed), "not_canonical", "V2",
                                      support="agreed"),
        "int8_minus_128_at_the_largest_scale": case(changed(34, [64, -128, 1, 1, 1]), "not_canonical", "V2"),
        "scale_too_large": case(changed(1, [63, -63, 1, 1, 1]), "not_canonical", "V7"),
        "agreed_scale_of_zeros": case(changed(1, [0, 0, 0, 0, 0], agreed), "not_canonical", "V7", support="agreed"),
        "second_scale_too_large_and_first_exceeded": case(
            changed(step_code([34, 1]), [65] * 64 + [63], long), "not_canonical", "V7", coordinates=65, nonzeros=65),
        "largest_scale_exceeded": case(changed(34, [65, 1, 1, 1, 1]), "magnitude", "V8"),
        "largest_scale_exceeded_below_zero": case(changed(34, [1, -65, 1, 1, 1]), "magnitude", "V8"),
        "largest_scale_exceeded_and_byte_behind": case(
            built({"scales": step_code([34]), "values": bytes([65, 1, 1, 1, 1])}, behind=b"\0"), "magnitude", "V8"),
    }


def sign_cases():
    _, built = builder(INDICES, SIGNED, "sign")
    _, agreed = builder(INDICES, SIGNED, "sign", support="agreed")
    kind = {"value_type": "sign"}

    def changed(scales, number, signs, make=built):
        return make({"scales": step_code([scales]), "values": bytes([number]), "signs": bytes([signs])})

    return {
        "sign_numbers_missing": case(built(cut=-2), "length", "V1", **kind),
        "signs_missing": case(built(cut=-1), "length", "V1", **kind),
        "sign_number_128": case(changed(0, 128, 1), "not_canonical", "V3", **kind),
        "sign_zero": case(changed(0, 0, 0), "not_canonical", "V3", **kind),
        "sign_bit_behind_the_last": case(changed(0, 100, 0x20), "not_canonical", "V4", **kind),
        "agreed_sign_bit_of_a_zero": case(changed(0, 0, 1, agreed), "not_canonical", "V4", support="agreed", **kind),
        "sign_scale_too_large": case(changed(1, 63, 1), "not_canonical", "V7", **kind),
        "agreed_sign_scale_of_zeros": case(changed(1, 0, 0, agreed), "not_canonical", "V7", support="agreed", **kind),
        "sign_largest_scale_exceeded": case(changed(34, 65, 1), "magnitude", "V8", **kind),
        "sign_byte_behind": case(built(behind=b"\0"), "length", "L4", **kind),
    }


def packed_cases():
    canonical, built = builder(INDICES, VALUES, "packed")
    _, agreed = builder(INDICES, VALUES, "packed", support="agreed")
    kind = {"value_type": "packed"}
    excess = [99, 6, 0, 126, 63]
    b = parameter(excess)
    planes, plane = canonical["excess planes"], canonical["excess unary"]

    def packed(smallest, numbers, *, scales=0, signs=0b01010, parameters=None, make=built):
        return make({"scales": step_code([scales]), "values": bytes([smallest]), "signs": bytes([signs]),
                     **rice_fields("excess", numbers, parameters)})

    def lengths(parameters, unary_bytes):
        return {"excess lengths": struct.pack("<HI", parameters, unary_bytes)}

    bent = planes[:7] + b"\x80" + planes[8:]
    return {
        "packed_smallest_missing": case(built({"values": b"", "signs": b"", "excess lengths": b"", "excess planes": b"",
                                               "excess parameters": b"", "excess unary": b""}, cut=-6), "length", "V1",
                                        **kind),
        "packed_signs_missing": case(built(cut=-(7 + len(canonical["excess parameters"]) + len(planes) + len(plane))),
                                     "length", "V1", **kind),
        "packed_smallest_128": case(packed(128, excess), "not_canonical", "V5", **kind),
        "packed_smallest_zero": case(packed(0, excess), "not_canonical", "V5", **kind),
        "packed_sign_bit_behind_the_last": case(packed(1, excess, signs=0b101010), "not_canonical", "V5", **kind),
        "packed_sign_bit_and_code": case(
            built({"signs": b"\xff", "excess parameters": b""}), "not_canonical", "V5", **kind),
        "packed_code_lengths_cut": case(
            built(cut=-(5 + len(canonical["excess parameters"]) + len(planes) + len(plane))), "length", "S1", **kind),
        "packed_no_parameters": case(built({"excess parameters": b""}), "length", "S1", **kind),
        "packed_parameters_too_long": case(built({"excess parameters": b"\0\0\1"}), "length", "S1", **kind),
        "packed_two_parameters": case(built({"excess parameters": b"\x03"}), "declared", "S2", **kind),
        "packed_byte_behind_the_parameters": case(built({"excess parameters": b"\1\0"}), "length", "S3", **kind),
        "packed_parameter_7": case(built({"excess parameters": b"\0\x40"}), "not_canonical", "S4", **kind),
        "packed_unary_plane_too_long": case(built({"excess unary": b"\0\0\0\x1f"}), "length", "R1", **kind),
        "packed_unary_plane_cut": case(built(cut=-1), "length", "R1", **kind),
        "packed_unary_plane_longer_than_the_leaf": case(
            built(lengths(len(canonical["excess parameters"]), 3)), "length", "R1", **kind),
        "packed_one_value_missing": case(built({"excess unary": b"\x0f"}), "declared", "R2", **kind),
        "packed_byte_behind_the_last_one": case(built({"excess unary": plane + b"\0"}), "length", "R3", **kind),
        "packed_padding_bit_in_a_plane": case(built({"excess planes": bent}), "not_canonical", "R4", **kind),
        "packed_value_128": case(packed(1, [99, 6, 0, 127, 63]), "not_canonical", "V6", **kind),
        "packed_parameter_too_large": case(packed(1, excess, parameters=[b + 1]), "not_canonical", "R5", **kind),
        "packed_parameter_too_small": case(packed(1, excess, parameters=[b - 1]), "not_canonical", "R5", **kind),
        "packed_smallest_too_small": case(packed(1, [99, 6, 1, 126, 63]), "not_canonical", "V6", **kind),
        "agreed_packed_smallest_zero_of_none": case(packed(0, [99, 6, 1, 126, 63], make=agreed), "not_canonical", "V6",
                                                    support="agreed", **kind),
        "agreed_packed_sign_of_a_zero": case(packed(0, excess, signs=0b00100, make=agreed), "not_canonical", "V6",
                                             support="agreed", **kind),
        "packed_scale_too_large": case(packed(1, [60, 6, 0, 62, 3], scales=1), "not_canonical", "V7", **kind),
        "agreed_packed_scale_of_zeros": case(packed(0, [0] * 5, scales=3, signs=0, make=agreed), "not_canonical", "V7",
                                             support="agreed", **kind),
        "packed_largest_scale_exceeded": case(packed(1, [64, 6, 0, 62, 3], scales=34), "magnitude", "V8", **kind),
        "packed_byte_behind": case(built(behind=b"\0"), "length", "L4", **kind),
    }


def float_cases():
    def fp32(second, reason, rule, grid_exponent=30, support="free"):
        fields, built = builder(INDICES, VALUES, "fp32", grid_exponent, support)
        bits = struct.pack("<I", second) if isinstance(second, int) else struct.pack("<f", second)
        made = built({"values": fields["values"][:4] + bits + fields["values"][8:]})
        return case(made, reason, rule, value_type="fp32", grid_exponent=grid_exponent, support=support)

    def bf16(second, reason, rule, grid_exponent=30, support="free"):
        fields, built = builder(INDICES, VALUES, "bf16", grid_exponent, support)
        made = built({"values": fields["values"][:2] + struct.pack("<H", second) + fields["values"][4:]})
        return case(made, reason, rule, value_type="bf16", grid_exponent=grid_exponent, support=support)

    def both(numbers, reason, rule):
        _, built = builder(INDICES, VALUES, "fp32", 0)
        return case(built({"values": struct.pack("<5I", *numbers)}), reason, rule, value_type="fp32", grid_exponent=0)

    one, half, large = 0x3F800000, 0x3F000000, 0x7F000000
    _, whole = builder(INDICES, VALUES, "fp32")
    _, upper = builder(INDICES, VALUES, "bf16")
    return {
        "fp32_values_cut": case(whole(cut=-1), "length", "V1", value_type="fp32"),
        "bf16_values_cut": case(upper(cut=-1), "length", "V1", value_type="bf16"),
        "fp32_byte_behind": case(whole(behind=b"\0"), "length", "L4", value_type="fp32"),
        "fp32_infinity": fp32(0x7F800000, "not_finite", "V9"),
        "fp32_minus_infinity": fp32(0xFF800000, "not_finite", "V9"),
        "fp32_quiet_nan": fp32(0x7FC00000, "not_finite", "V9"),
        "fp32_signalling_nan": fp32(0x7F800001, "not_finite", "V9"),
        "agreed_fp32_nan": fp32(0xFFC00000, "not_finite", "V9", support="agreed"),
        "fp32_zero_before_nan": both([one, 0, one, 0x7FC00000, one], "not_finite", "V9"),
        "fp32_large_before_infinity": both([one, large, one, 0x7F800000, one], "not_finite", "V9"),
        "fp32_zero": fp32(0.0, "not_canonical", "V10"),
        "fp32_minus_zero": fp32(0x80000000, "not_canonical", "V10"),
        "agreed_fp32_minus_zero": fp32(0x80000000, "not_canonical", "V10", support="agreed"),
        "fp32_half_before_zero": both([half, one, 0, one, one], "not_canonical", "V10"),
        "fp32_large_before_minus_zero": both([large, one, 0x80000000, one, one], "not_canonical", "V10"),
        "fp32_between_grid_points": fp32(1.5, "off_grid", "V11", 0),
        "fp32_half_a_grid_unit": fp32(2.0**-31, "off_grid", "V11"),
        "fp32_subnormal": fp32(1, "off_grid", "V11", 40),
        "agreed_fp32_subnormal_below_zero": fp32(0x80000001, "off_grid", "V11", 0, support="agreed"),
        "fp32_large_before_half": both([large, one, half, one, one], "off_grid", "V11"),
        "fp32_too_large": fp32(2.0**40 * (1 + 2.0**-23), "magnitude", "V12", 0),
        "fp32_too_large_below_zero": fp32(-(2.0**40) * (1 + 2.0**-23), "magnitude", "V12", 0),
        "fp32_largest_number": fp32(0xFF7FFFFF, "magnitude", "V12", 40),
        "bf16_infinity": bf16(0x7F80, "not_finite", "V9"),
        "bf16_nan": bf16(0xFFC0, "not_finite", "V9"),
        "bf16_zero": bf16(0, "not_canonical", "V10"),
        "bf16_minus_zero": bf16(0x8000, "not_canonical", "V10"),
        "agreed_bf16_minus_zero": bf16(0x8000, "not_canonical", "V10", support="agreed"),
        "bf16_between_grid_points": bf16(0x3FC0, "off_grid", "V11", 0),
        "bf16_too_large": bf16(0x5381, "magnitude", "V12", 0),
    }


def exact_cases():
    kind = {"value_type": "exact"}
    _, built = builder(INDICES, VALUES, "exact")
    _, agreed = builder(INDICES, VALUES, "exact", support="agreed")

    def exact(width, values, **more):
        raw = b"".join(v.to_bytes(width, "little", signed=True) for v in values)
        return built({"width": bytes([width]), "values": raw, **more})

    return {
        "exact_width_missing": case(built(cut=-6), "length", "V13", **kind),
        "exact_width_zero": case(built({"width": b"\0"}), "not_canonical", "V13", **kind),
        "exact_width_7": case(built({"width": b"\7"}), "not_canonical", "V13", **kind),
        "exact_width_7_of_7": case(exact(7, VALUES), "not_canonical", "V13", **kind),
        "exact_values_cut": case(built(cut=-1), "length", "V13", **kind),
        "exact_zero": case(exact(1, [100, 0, 1, 1, 1]), "not_canonical", "V13", **kind),
        "exact_zero_and_too_large": case(exact(6, [2**40 + 1, 0, 1, 1, 1]), "not_canonical", "V13", **kind),
        "exact_too_large": case(exact(6, [2**40 + 1, 1, 1, 1, 1]), "magnitude", "V14", **kind),
        "exact_too_large_below_zero": case(exact(6, [-(2**40) - 1, 1, 1, 1, 1]), "magnitude", "V14", **kind),
        "exact_smallest_number": case(exact(6, [-(2**47), 1, 1, 1, 1]), "magnitude", "V14", **kind),
        "exact_too_wide": case(exact(2, VALUES), "not_canonical", "V15", **kind),
        "exact_too_wide_by_one": case(exact(3, [2**15 - 1, -(2**15), 1, 1, 1]), "not_canonical", "V15", **kind),
        "agreed_exact_zeros_too_wide": case(agreed({"width": b"\2", "values": bytes(10)}), "not_canonical", "V15",
                                            support="agreed", **kind),
        "exact_byte_behind": case(built(behind=b"\0"), "length", "L4", **kind),
    }


def write(folder):
    folder.mkdir(parents=True, exist_ok=True)
    files = by_rule()
    for name, (coordinates, indices, values, value_type, grid_exponent, support) in good().items():
        mask = mask_of(coordinates, indices) if support == "agreed" else None
        payload, root = encode(coordinates, indices, values, value_type, grid_exponent, support, mask)
        files[name] = {"coordinates": coordinates, "nonzeros": len(indices), "support": support,
                       "value_type": value_type, "grid_exponent": grid_exponent, "root": root.hex(),
                       **({} if mask is None else {"mask": mask.hex()}), "indices": indices, "values": values,
                       "payload": payload.hex(), "payload_sha256": hashlib.sha256(payload).hexdigest()}
    for name, (coordinates, indices) in good_masks().items():
        payload, root = encode(coordinates, indices, [], "none", 0)
        files[name] = {"coordinates": coordinates, "nonzeros": len(indices), "support": "free", "value_type": "none",
                       "grid_exponent": 0, "root": root.hex(), "indices": indices, "payload": payload.hex(),
                       "payload_sha256": hashlib.sha256(payload).hexdigest()}
    for cases in (header_cases(), skip_cases(), mask_cases(), int8_cases(), sign_cases(), packed_cases(), float_cases(),
                  exact_cases()):
        files |= {f"bad_{name}": content for name, content in cases.items()}
    for name, content in files.items():
        lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in content.items()]
        (folder / f"{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="ascii")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
