"""Payloads and masks to be damaged: the codec's good vectors, and some whose blocks and leaves differ more.

A case of a payload is one byte that chooses what its decoder expects, and the payload. With 0 the statement is the
sender's own and agrees with all that the header claims, as whoever signs can make it: so damage gets past the header.
Any other number is what the seed of that number was declared to be.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from sfrl_secure.errors import PayloadError
from sfrl_secure.ids import ZERO_DIGEST, Digest
from sfrl_secure.sparse.encode import pack_update, payload_root
from sfrl_secure.sparse.expected import ExpectedPayload
from sfrl_secure.sparse.header import SupportMode, ValueType, parse_preamble
from sfrl_secure.sparse.mask import Mask, decode_mask, encode_mask
from sfrl_secure.sparse.update import SparseUpdate

_VECTORS = Path(__file__).resolve().parents[1] / "vectors" / "codec"
_SHORT_BYTES = 1_500
_GRID = 30
TYPES: tuple[ValueType, ...] = ("int8", "fp32", "bf16", "sign", "packed", "exact")
MODES: tuple[SupportMode, ...] = ("free", "agreed", "dense")
_LONG: tuple[tuple[SupportMode, ValueType], ...] = (("dense", "sign"), ("agreed", "bf16"), ("free", "packed"))


@dataclass(frozen=True)
class PayloadSeed:
    """A payload that is accepted, and what its decoder expects."""

    payload: bytes
    expected: ExpectedPayload


@cache
def payload_seeds(mode: str) -> tuple[PayloadSeed, ...]:
    """Short ones of a mode, of all types; or `long`, of two leaves."""
    if mode == "long":
        return tuple(_made(support, value_type, 65_536 + 70, 3) for support, value_type in _LONG)
    made = [_made(support, value_type, count, gap) for support in MODES if support == mode for value_type in TYPES
            for count, gap in ((70, 3), (200, 700))]
    return (*_from_vectors(mode), *made)


@cache
def hostile_payloads(mode: str) -> tuple[bytes, ...]:
    """The codec's bad vectors of a mode, each of which breaks one rule, or two, by a little."""
    vectors = [json.loads(path.read_text(encoding="ascii")) for path in sorted(_VECTORS.glob("bad_*.json"))]
    payloads = [bytes.fromhex(each["payload"]) for each in vectors if each.get("support") == mode]
    return tuple(payload for payload in payloads if len(payload) <= _SHORT_BYTES)


@cache
def mask_seeds() -> tuple[bytes, ...]:
    """Masks of none, some, and more than one leaf."""
    masks = [encode_mask(1_000, np.zeros(0, np.int64)), encode_mask(66_000, np.arange(7, 65_650, dtype=np.int64))]
    masks += [encode_mask(2**31, _rising(count, gap)) for count, gap in ((1, 1), (64, 1), (65, 9), (300, 5_000_000))]
    return tuple(masks)


@cache
def _masks() -> dict[Digest, Mask]:
    seeds = [seed for mode in ("agreed", "long") for seed in payload_seeds(mode)]
    return {seed.expected.mask.digest: seed.expected.mask for seed in seeds if seed.expected.mask is not None}


def expectation(choice: int, payload: bytes, seeds: tuple[PayloadSeed, ...]) -> ExpectedPayload:
    """What a decoder expects of the payload of a case.

    A payload whose header is none can only be another one than was declared.
    """
    try:
        preamble = parse_preamble(payload)
    except PayloadError:
        preamble = None
    if choice or preamble is None:
        return replace(seeds[choice % len(seeds)].expected, payload_bytes=len(payload))
    # No statement declares `none`, and the terms' mask is one of their model.
    value_type = "int8" if preamble.value_type == "none" else preamble.value_type
    coordinates, mask = preamble.coordinates, None
    if preamble.support == "agreed":
        known = _masks()
        mask = known.get(Digest(payload[28:60])) or next(iter(known.values()))
        coordinates = mask.coordinates
    try:
        root = payload_root(payload)
    except PayloadError:
        root = ZERO_DIGEST
    return ExpectedPayload(coordinates, preamble.nonzeros, preamble.support, value_type,  # type: ignore[arg-type]
                           preamble.grid_exponent, len(payload), root, mask)


def _from_vectors(mode: str) -> list[PayloadSeed]:
    found = []
    for path in sorted(_VECTORS.glob("*.json")):
        vector = json.loads(path.read_text(encoding="ascii"))
        is_wanted = vector.get("support") == mode and vector.get("value_type") != "none" and "payload" in vector
        if path.name.startswith("bad_") or not is_wanted or len(vector["payload"]) > 2 * _SHORT_BYTES:
            continue
        payload = bytes.fromhex(vector["payload"])
        mask = decode_mask(bytes.fromhex(vector["mask"]), vector["coordinates"]) if mode == "agreed" else None
        found.append(_declared(payload, vector["coordinates"], vector["nonzeros"], vector["support"],
                               vector["value_type"], vector["grid_exponent"], mask))
    return found


def _made(support: SupportMode, value_type: ValueType, count: int, gap: int) -> PayloadSeed:
    """A payload whose blocks have scales, parameters and signs that differ."""
    rng = np.random.default_rng([count, gap])
    indices = _rising(count, gap) if support != "dense" else np.arange(count, dtype=np.int64)
    coordinates = count if support == "dense" else int(indices[-1]) + 5
    signs = rng.choice([-1, 1], count)
    # 7 bits a value, or one value a block: what every type holds. Every other block has small ones, of scale 0.
    is_small = np.repeat(np.arange(count // 64 + 1) % 2, 64)[:count].astype(bool)
    scales = np.repeat(rng.integers(0, 35, count // 64 + 1), 64)[:count]
    sizes = np.where(is_small, rng.integers(1, 40, count), rng.integers(64, 128, count))
    sizes = np.where(scales == 34, 64, sizes)
    values = np.where(is_small, sizes, sizes << scales) * signs
    if value_type == "sign":
        values = np.abs(values)[::64].repeat(64)[:count] * signs
    if support != "free" and value_type != "sign":
        values[::7] = 0
    mask = decode_mask(encode_mask(coordinates, indices), coordinates) if support == "agreed" else None
    payload = pack_update(SparseUpdate(coordinates, indices, values), value_type=value_type, grid_exponent=_GRID,
                          support=support, mask=mask)
    return _declared(payload, coordinates, count, support, value_type, _GRID, mask)


def _declared(payload: bytes, coordinates: int, nonzeros: int, support: SupportMode, value_type: ValueType,
              grid_exponent: int, mask: Mask | None) -> PayloadSeed:
    return PayloadSeed(payload, ExpectedPayload(coordinates, nonzeros, support, value_type, grid_exponent,
                                                len(payload), payload_root(payload), mask))


def _rising(count: int, gap: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Indices of which the gaps differ from block to block."""
    rng = np.random.default_rng([gap, count])
    gaps = rng.integers(1, gap + 1, count) >> np.repeat(rng.integers(0, 4, count // 64 + 1), 64)[:count]
    found: np.ndarray[tuple[int], np.dtype[np.int64]] = np.cumsum(np.maximum(gaps, 1)).astype(np.int64)
    return found
