"""The codec's vectors: the replay's decoder reads or refuses each as its file says, and the plain encoder writes them.

The files were written by others, from the same specification.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sfrl_secure.errors import PayloadError
from sfrl_secure.ids import Digest, sha256
from sfrl_secure.replay.decoder import decode_mask_indices, decode_parts
from sfrl_secure.replay.payload_header import Expected, Mask

from .bad_payloads import mask_of
from .payloads import encode_mask, encode_payload, payload_root

VECTORS = Path(__file__).parents[2] / "vectors" / "codec"
FOUND = {path.stem: json.loads(path.read_text()) for path in sorted(VECTORS.glob("*.json"))}
BAD = {name: vector for name, vector in FOUND.items() if name.startswith("bad_")}
BY_RULE = {name: vector for name, vector in FOUND.items() if "indices_are" in vector}
GOOD = {name: vector for name, vector in FOUND.items() if name not in BAD and name not in BY_RULE}


def mask_in(vector: dict[str, Any]) -> Mask | None:
    if "mask" not in vector:
        return None
    raw = bytes.fromhex(vector["mask"])
    # Of how many, the mask's own preamble says: that they are the payload's too is for the decoder to find out.
    count = int.from_bytes(raw[16:24], "little")
    return Mask(sha256(raw), decode_mask_indices(raw, vector["coordinates"], count))


def expected_of(vector: dict[str, Any], mask: Mask | None) -> Expected:
    return Expected(
        vector["coordinates"], vector["nonzeros"], vector["support"], vector["value_type"], vector["grid_exponent"],
        Digest(bytes.fromhex(vector["root"])), mask,
    )  # fmt: skip


def decode(payload: bytes, expected: Expected) -> tuple[list[int], list[int]]:
    where: list[Any] = [np.zeros(0, np.int64)]
    values: list[Any] = [np.zeros(0, np.int64)]
    for part in decode_parts(payload, expected):
        where.append(np.arange(part.at.start, part.at.stop) if isinstance(part.at, slice) else part.at)
        values.append(part.values)
    return np.concatenate(where).tolist(), np.concatenate(values).tolist()


@pytest.mark.parametrize("name", GOOD)
def test_every_good_vector_decodes_to_its_update_and_is_written_again(name: str) -> None:
    vector = GOOD[name]
    payload, indices = bytes.fromhex(vector["payload"]), vector["indices"]
    values = vector.get("values", [])
    assert decode(payload, expected_of(vector, mask_in(vector))) == (indices, values)
    update = dict(zip(indices, values or [1] * len(indices), strict=True))
    written = encode_payload(
        update, vector["coordinates"], vector["value_type"], vector["grid_exponent"], support=vector["support"],
        mask=bytes.fromhex(vector.get("mask", "")), mask_indices=indices,
    )  # fmt: skip
    assert written == payload
    assert payload_root(written).hex() == vector["root"]


@pytest.mark.parametrize("name", BY_RULE)
def test_every_vector_that_is_given_by_a_rule_is_written_and_read(name: str) -> None:
    vector = BY_RULE[name]
    count, step, first = vector["nonzeros"], *{"i": (1, 0), "5 + 3 * i": (3, 5)}[vector["indices_are"]]
    assert vector["values_are"] == "1 + i % 127"
    indices = [first + step * i for i in range(count)]
    update = {index: 1 + i % 127 for i, index in enumerate(indices)}
    raw = encode_mask(indices, vector["coordinates"])
    payload = encode_payload(
        update, vector["coordinates"], vector["value_type"], vector["grid_exponent"], support=vector["support"],
        mask=raw, mask_indices=indices,
    )  # fmt: skip
    assert sha256(payload).hex() == vector["payload_sha256"]
    mask = mask_of(indices, raw) if vector["support"] == "agreed" else None
    assert decode(payload, expected_of(vector, mask)) == (indices, list(update.values()))


@pytest.mark.parametrize("name", BAD)
def test_every_bad_vector_is_refused_for_the_first_rule_that_it_breaks(name: str) -> None:
    vector = BAD[name]
    with pytest.raises(PayloadError) as refused:
        decode(bytes.fromhex(vector["payload"]), expected_of(vector, mask_in(vector)))
    assert (str(refused.value).split(":")[0], refused.value.reason) == (vector["rule"], vector["reason"])


def test_there_are_vectors_of_every_kind() -> None:
    assert min(len(GOOD), len(BAD), len(BY_RULE)) > 5
