"""The committed vectors: good ones decode and encode to the same bytes, bad ones are refused for their reason."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sfrl_secure.errors import MalformedError, PayloadError
from sfrl_secure.sparse.decode import decode_update
from sfrl_secure.sparse.encode import encode_agreed, encode_dense, encode_update, pack_update, payload_root
from sfrl_secure.sparse.leaf import decode_leaf
from sfrl_secure.sparse.mask import decode_mask, encode_mask
from sfrl_secure.sparse.reader import read_parts
from sfrl_secure.sparse.update import SparseUpdate
from tests.unit.sparse.payloads import FOLDER, expected_of, header_of, load, mask_of, plain_encoder, vectors

RULES = {*(f"P{i}" for i in range(1, 5)), *(f"E{i}" for i in range(1, 7)), *(f"T{i}" for i in range(1, 5)),
         *(f"L{i}" for i in range(1, 5)), *(f"S{i}" for i in range(1, 5)), *(f"R{i}" for i in range(1, 6)),
         *(f"V{i}" for i in range(1, 16))}
REASONS = {"format", "shape", "declared", "length", "digest", "not_canonical", "out_of_range", "not_finite", "off_grid",
           "magnitude"}

GOOD = [path for path in vectors("*.json") if not path.name.startswith(("bad_", "mask_"))]
GOOD_MASKS = vectors("mask_*.json")
BY_RULE = [path for path in sorted(FOLDER.glob("*.json")) if "payload" not in load(path)]
BAD = vectors("bad_*.json")
BAD_UPDATES = [path for path in BAD if load(path)["value_type"] != "none"]
BAD_MASKS = [path for path in BAD if load(path)["value_type"] == "none"]
NAMES: Any = {"ids": lambda path: path.stem}


@pytest.mark.parametrize("path", GOOD, **NAMES)
def test_a_good_vector_decodes_and_encodes_to_the_same_bytes(path: Path) -> None:
    vector = load(path)
    payload = bytes.fromhex(vector["payload"])
    update = decode_update(payload, expected_of(vector, len(payload)))
    assert update.coordinates == vector["coordinates"]
    assert update.indices.tolist() == vector["indices"]
    assert update.values.tolist() == vector["values"]
    packed = pack_update(update, value_type=vector["value_type"], grid_exponent=vector["grid_exponent"],
                         support=vector["support"], mask=mask_of(vector))
    assert packed == payload
    assert hashlib.sha256(packed).hexdigest() == vector["payload_sha256"]
    assert payload_root(packed).hex() == vector["root"]


@pytest.mark.parametrize("path", GOOD, **NAMES)
def test_values_that_are_on_the_grid_already_are_encoded_as_they_are(path: Path) -> None:
    vector, rng = load(path), np.random.default_rng(1)
    parameters = np.ldexp(np.array(vector["values"], dtype=np.float64), -vector["grid_exponent"])
    form: Any = {"value_type": vector["value_type"], "grid_exponent": vector["grid_exponent"], "rng": rng}
    mask = mask_of(vector)
    if vector["support"] == "free":
        encoded = encode_update(vector["coordinates"], np.array(vector["indices"], dtype=np.int64), parameters, **form)
    elif mask is not None:
        encoded = encode_agreed(mask, parameters, **form)
    else:
        encoded = encode_dense(parameters, **form)
    assert encoded.payload.hex() == vector["payload"]
    assert encoded.root.hex() == vector["root"]


@pytest.mark.parametrize("path", GOOD_MASKS, **NAMES)
def test_a_good_mask_decodes_and_encodes_to_the_same_bytes(path: Path) -> None:
    vector = load(path)
    raw = bytes.fromhex(vector["payload"])
    mask = decode_mask(raw, vector["coordinates"])
    assert mask.indices.tolist() == vector["indices"]
    assert mask.digest.hex() == vector["payload_sha256"]
    assert encode_mask(vector["coordinates"], mask.indices) == raw


@pytest.mark.parametrize("path", BY_RULE, **NAMES)
def test_long_payloads_have_the_bytes_of_the_plain_encoder(path: Path) -> None:
    vector = load(path)
    i = np.arange(vector["nonzeros"], dtype=np.int64)
    indices = {"i": i, "5 + 3 * i": 5 + 3 * i}[vector["indices_are"]]
    assert vector["values_are"] == "1 + i % 127"
    mask = None
    if vector["support"] == "agreed":
        mask = decode_mask(encode_mask(vector["coordinates"], indices), vector["coordinates"])
        assert mask.digest.hex() == vector["mask_sha256"]
    payload = pack_update(SparseUpdate(vector["coordinates"], indices, 1 + i % 127), value_type=vector["value_type"],
                          grid_exponent=vector["grid_exponent"], support=vector["support"], mask=mask)
    assert len(payload) == vector["payload_bytes"]
    assert hashlib.sha256(payload).hexdigest() == vector["payload_sha256"]
    assert payload_root(payload).hex() == vector["root"]


@pytest.mark.parametrize("path", BAD_UPDATES, **NAMES)
def test_a_bad_vector_is_refused_for_the_reason_of_the_first_rule_it_breaks(path: Path) -> None:
    vector = load(path)
    payload = bytes.fromhex(vector["payload"])
    with pytest.raises(PayloadError) as refusal:
        decode_update(payload, expected_of(vector, len(payload)))
    assert refusal.value.reason == vector["reason"]
    assert isinstance(refusal.value, MalformedError)


@pytest.mark.parametrize("path", BAD_UPDATES, **NAMES)
def test_a_bad_vector_is_refused_for_the_same_reason_byte_by_byte(path: Path) -> None:
    vector = load(path)
    payload = bytes.fromhex(vector["payload"])
    pieces = [payload[i : i + 1] for i in range(len(payload))]
    with pytest.raises(PayloadError) as refusal:
        list(read_parts(pieces, expected_of(vector, len(payload))))
    assert refusal.value.reason == vector["reason"]


@pytest.mark.parametrize("path", BAD_MASKS, **NAMES)
def test_a_bad_mask_is_refused_for_the_reason_of_the_first_rule_it_breaks(path: Path) -> None:
    vector = load(path)
    with pytest.raises(PayloadError) as refusal:
        decode_mask(bytes.fromhex(vector["payload"]), vector["coordinates"])
    assert refusal.value.reason == vector["reason"]


@pytest.mark.parametrize("path", [path for path in BAD_UPDATES if load(path)["rule"] not in ("L1", "P1")
                                  and load(path)["rule"][0] in "LSRV"], **NAMES)
def test_a_bad_leaf_is_refused_alone_for_the_same_reason(path: Path) -> None:
    vector = load(path)
    payload = bytes.fromhex(vector["payload"])
    mask = mask_of(vector)
    start = (60 if mask else 28) + 36
    preamble = header_of(payload).preamble
    with pytest.raises(PayloadError) as refusal:
        decode_leaf(preamble, 0, payload[start:], mask_indices=None if mask is None else mask.indices)
    assert refusal.value.reason == vector["reason"]


def test_every_rule_and_every_reason_has_a_bad_vector() -> None:
    found = [load(path) for path in BAD]
    assert {vector["rule"] for vector in found} == RULES
    assert {vector["reason"] for vector in found} == REASONS


def test_the_script_writes_the_committed_files(tmp_path: Path) -> None:
    plain_encoder().write(tmp_path)
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert written == {path.name: path.read_bytes() for path in FOLDER.glob("*.json")}
