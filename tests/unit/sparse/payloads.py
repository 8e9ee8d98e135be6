"""What the codec's tests share: the plain encoder of the vectors, the vectors, and what a payload's header implies."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from sfrl_secure.ids import Digest
from sfrl_secure.sparse.encode import payload_root
from sfrl_secure.sparse.expected import ExpectedPayload
from sfrl_secure.sparse.header import (
    LEAF_RECORD_BYTES,
    Header,
    SupportMode,
    ValueType,
    parse_leaf_table,
    parse_preamble,
)
from sfrl_secure.sparse.mask import Mask, decode_mask, encode_mask

FOLDER = Path(__file__).resolve().parents[2] / "vectors" / "codec"
TYPES: tuple[ValueType, ...] = ("int8", "fp32", "bf16", "sign", "packed", "exact")
MODES: tuple[SupportMode, ...] = ("free", "agreed", "dense")


def plain_encoder() -> ModuleType:
    """The encoder of the vectors, which shares no code with the package."""
    spec = importlib.util.spec_from_file_location("make_vectors", FOLDER / "make_vectors.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load(path: Path) -> dict[str, Any]:
    vector: dict[str, Any] = json.loads(path.read_text(encoding="ascii"))
    return vector


def vectors(pattern: str) -> list[Path]:
    """Vectors that hold a payload, and not a rule for one."""
    return [path for path in sorted(FOLDER.glob(pattern)) if "payload" in load(path)]


def mask_of(vector: dict[str, Any]) -> Mask | None:
    return decode_mask(bytes.fromhex(vector["mask"]), vector["coordinates"]) if vector["support"] == "agreed" else None


def expected_of(vector: dict[str, Any], payload_bytes: int) -> ExpectedPayload:
    return ExpectedPayload(vector["coordinates"], vector["nonzeros"], vector["support"], vector["value_type"],
                           vector["grid_exponent"], payload_bytes, Digest(bytes.fromhex(vector["root"])),
                           mask_of(vector))


def claimed(payload: bytes, mask: Mask | None = None) -> ExpectedPayload:
    """What a statement would say that agrees with all that the payload's header claims.

    Raises:
        PayloadError: the header is not well-formed.
    """
    preamble = parse_preamble(payload)
    if preamble.support == "agreed" and mask is None:
        mask = decode_mask(encode_mask(preamble.coordinates, np.arange(preamble.nonzeros)), preamble.coordinates)
    return ExpectedPayload(preamble.coordinates, preamble.nonzeros, preamble.support,  # type: ignore[arg-type]
                           preamble.value_type, preamble.grid_exponent, len(payload),  # type: ignore[arg-type]
                           payload_root(payload), mask if preamble.support == "agreed" else None)


def header_of(payload: bytes) -> Header:
    return parse_leaf_table(payload, parse_preamble(payload), len(payload))


def rehashed(payload: bytes) -> bytes:
    """Put the hash of each leaf where the header wants it, as whoever signs a payload can."""
    header = header_of(payload)
    out = bytearray(payload)
    starts = header.leaf_starts
    for i in range(len(header.leaves)):
        at = header.preamble.preamble_bytes + LEAF_RECORD_BYTES * i + 4
        out[at : at + 32] = hashlib.sha256(b"\0" + payload[starts[i] : starts[i + 1]]).digest()
    return bytes(out)
