"""The committed vectors: good ones decode and encode to the same bytes, bad ones are refused for their reason."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sfrl_secure.errors import MalformedError, PayloadError
from sfrl_secure.sparse.decode import decode_leaf, decode_update
from sfrl_secure.sparse.encode import encode_update, pack_update
from sfrl_secure.sparse.header import parse_header
from sfrl_secure.sparse.update import SparseUpdate

FOLDER = Path(__file__).resolve().parents[2] / "vectors" / "codec"
RULES = ["P1", "P2", "P3", "P4", "E1", "E2", "E3", "T1", "T2", "T3", *(f"L{i}" for i in range(1, 10)),
         "V1", "V2", "V3", "V4"]
REASONS = {"format", "shape", "declared", "length", "digest", "not_canonical", "out_of_range", "not_finite", "off_grid",
           "magnitude"}


def load(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="ascii"))


def expected(vector: dict[str, Any]) -> dict[str, Any]:
    return {name: vector[name] for name in ("coordinates", "nonzeros", "value_type", "grid_exponent")}


GOOD = sorted(path for path in FOLDER.glob("*.json") if not path.name.startswith("bad_") and path.stem != "two_leaves")
BAD = sorted(FOLDER.glob("bad_*.json"))


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_a_good_vector_decodes_and_encodes_to_the_same_bytes(path: Path) -> None:
    vector = load(path)
    payload = bytes.fromhex(vector["payload"])
    update = decode_update(payload, **expected(vector))
    assert update.coordinates == vector["coordinates"]
    assert update.indices.tolist() == vector["indices"]
    assert update.values.tolist() == vector["values"]
    packed = pack_update(update, value_type=vector["value_type"], grid_exponent=vector["grid_exponent"])
    assert packed == payload
    assert hashlib.sha256(packed).hexdigest() == vector["payload_sha256"]


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_values_that_are_on_the_grid_already_are_encoded_as_they_are(path: Path) -> None:
    vector = load(path)
    parameters = np.ldexp(np.array(vector["values"], dtype=np.float64), -vector["grid_exponent"])
    encoded = encode_update(vector["coordinates"], np.array(vector["indices"], dtype=np.int64), parameters,
                            value_type=vector["value_type"], grid_exponent=vector["grid_exponent"],
                            rng=np.random.default_rng(1))
    assert encoded.payload.hex() == vector["payload"]


def test_two_leaves_have_the_bytes_of_the_plain_encoder() -> None:
    vector = load(FOLDER / "two_leaves.json")
    i = np.arange(vector["nonzeros"], dtype=np.int64)
    update = SparseUpdate(vector["coordinates"], 5 + 3 * i, 1 + i % 127)
    payload = pack_update(update, value_type="int8", grid_exponent=vector["grid_exponent"])
    assert len(payload) == vector["payload_bytes"]
    assert hashlib.sha256(payload).hexdigest() == vector["payload_sha256"]


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_a_bad_vector_is_refused_for_the_reason_of_the_first_rule_it_breaks(path: Path) -> None:
    vector = load(path)
    with pytest.raises(PayloadError) as refusal:
        decode_update(bytes.fromhex(vector["payload"]), **expected(vector))
    assert refusal.value.reason == vector["reason"]
    assert isinstance(refusal.value, MalformedError)


@pytest.mark.parametrize("path", [path for path in BAD if load(path)["rule"][0] in "LV"], ids=lambda path: path.stem)
def test_a_bad_leaf_is_refused_alone_for_the_same_reason(path: Path) -> None:
    vector = load(path)
    payload = bytes.fromhex(vector["payload"])
    header = parse_header(payload)
    with pytest.raises(PayloadError) as refusal:
        decode_leaf(header, 0, payload[header.leaf_starts[0] :])
    assert refusal.value.reason == vector["reason"]


def test_every_rule_and_every_reason_has_a_bad_vector() -> None:
    vectors = [load(path) for path in BAD]
    assert {vector["rule"] for vector in vectors} == set(RULES)
    assert {vector["reason"] for vector in vectors} == REASONS


def test_the_script_writes_the_committed_files(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("make_vectors", FOLDER / "make_vectors.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.write(tmp_path)
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert written == {path.name: path.read_bytes() for path in FOLDER.glob("*.json")}
