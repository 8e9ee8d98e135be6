"""The replay's decoder against the codec's vectors, and against what a payload may do to it."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfrl_secure.errors import PayloadError
from sfrl_secure.replay.decoder import DecodedUpdate, decode_payload

VECTORS = Path(__file__).parents[2] / "vectors" / "codec"


def load(pattern: str) -> list[Any]:
    return [
        pytest.param(json.loads(path.read_text()), id=path.stem)
        for path in sorted(VECTORS.glob(pattern))
        if "payload" in json.loads(path.read_text())
    ]


def decode(vector: dict[str, Any], payload: bytes) -> DecodedUpdate:
    return decode_payload(
        payload,
        coordinates=vector["coordinates"],
        nonzeros=vector["nonzeros"],
        value_type=vector["value_type"],
        grid_exponent=vector["grid_exponent"],
    )


@pytest.mark.parametrize("vector", load("[!b]*.json"))
def test_every_good_vector_decodes_to_its_update(vector: dict[str, Any]) -> None:
    found = decode(vector, bytes.fromhex(vector["payload"]))
    assert found.indices.tolist() == vector["indices"]
    assert found.values.tolist() == vector["values"]


@pytest.mark.parametrize("vector", load("bad_*.json"))
def test_every_bad_vector_is_refused_for_the_first_rule_that_it_breaks(vector: dict[str, Any]) -> None:
    with pytest.raises(PayloadError) as refused:
        decode(vector, bytes.fromhex(vector["payload"]))
    assert refused.value.reason == vector["reason"]
    assert str(refused.value).startswith(f"{vector['rule']}:")


def test_the_vectors_name_every_rule_of_the_decoder() -> None:
    rules = {param.values[0]["rule"] for param in load("bad_*.json")}
    assert rules >= {f"P{i}" for i in range(1, 5)} | {"E1", "E2", "E3"} | {"T1", "T2", "T3"}
    assert rules >= {f"L{i}" for i in range(1, 10)} | {f"V{i}" for i in range(1, 5)}


def test_a_header_that_claims_a_large_model_takes_no_memory() -> None:
    hostile = b"SFRU\x01\x01\x01\x1e" + (2**31).to_bytes(8, "little") * 2 + (2**15).to_bytes(4, "little")
    tracemalloc.start()
    with pytest.raises(PayloadError):
        decode_payload(hostile, coordinates=2**31, nonzeros=2**31, value_type="int8", grid_exponent=30)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


GOOD = [param.values[0] for param in load("[!b]*.json")]


@settings(deadline=None, max_examples=300)
@given(vector=st.sampled_from(GOOD), data=st.data())
def test_a_damaged_payload_is_refused_for_a_reason(vector: dict[str, Any], data: st.DataObject) -> None:
    payload = bytearray.fromhex(vector["payload"])
    where = data.draw(st.integers(0, len(payload) - 1))
    payload[where] ^= 1 << data.draw(st.integers(0, 7))
    cut = data.draw(st.integers(0, 3))
    damaged = bytes(payload[: len(payload) - cut])
    # Every byte of a payload is fixed or under a leaf's digest, so damage that keeps the digests cannot decode.
    with pytest.raises(PayloadError):
        decode(vector, damaged)


def test_leaves_of_one_payload_decode_to_one_ascending_list() -> None:
    vector = next(v for v in GOOD if v["nonzeros"] > 128)
    indices = decode(vector, bytes.fromhex(vector["payload"])).indices
    assert (np.diff(indices) > 0).all()
