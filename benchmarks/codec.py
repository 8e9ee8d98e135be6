"""The codec: how many bits an update takes, and how fast it is read.

`bits_per_index` is a whole mask of the support, header and leaf table with it, over its indices; `bits_per_value` is
what an int8 payload of the support has beyond that mask, over its values, and `bits_per_value_entropy` a packed one.

`decode_mnnz_s` is million values a second of one thread from payload bytes to indices and values, with every rule but
the hashes (L1, T4), in numpy alone; `decode_mnnz_s_numba` is the same through the compiled path.
`decode_digest_mnnz_s` and `decode_digest_mnnz_s_numba` are the whole `PayloadReader`, hashes with the rest: SHA-256 is
some 0.5 ns a byte, and the same in each. `add_at_mnnz_s` is `np.add.at` of as many values into one int64 array, over
all supports of the case one after the other. All of a case take turns, so that a neighbour disturbs all alike, in CPU
time of the thread; the figures are medians.

Runs in: a developer's machine.
Trusts: nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.pseudo_gradient import PARAMETERS, pseudo_gradients
from benchmarks.supports import Support, clustered_support, largest, random_supports, tile_bound_bits, top
from benchmarks.update_bytes import message_bytes
from sfrl_secure.errors import SfrlError
from sfrl_secure.sparse import fast
from sfrl_secure.sparse.encode import EncodedUpdate, encode_dense, encode_update, pack_dense
from sfrl_secure.sparse.header import parse_leaf_table, parse_preamble
from sfrl_secure.sparse.leaf import decode_leaf
from sfrl_secure.sparse.mask import decode_mask, encode_mask
from sfrl_secure.sparse.topk import top_k

DENSITIES = (0.1, 0.01, 0.001)
GRID_EXPONENT = 30


def run(quick: bool, folder: Path | None = None) -> dict[str, Any]:
    """Take all figures. `folder` is not used: nothing is written."""
    rng = np.random.default_rng(0)
    supports = 6 if quick else 40
    changes = pseudo_gradients(supports, warm_steps=5 if quick else 20, local_steps=4, batch=8 if quick else 16)
    change = next(changes)
    # Of each participant the most that any case needs: all changes together are 1.8 GB.
    tops = [top(each, int(PARAMETERS * max(DENSITIES))) for each in chain([change], changes)]
    cases, errors = [], []
    share = 0.0
    for density in DENSITIES:
        k = int(PARAMETERS * density)
        values = np.random.default_rng(1).permutation(largest(tops[0], k)[1])
        made: dict[str, Iterator[Support]] = {
            "random": random_supports(PARAMETERS, k, values, supports, rng),
            "gradient": (largest(each, k) for each in tops),
        }
        for kind, kind_supports in made.items():
            try:
                case, encoded = _case(density, kind, list(kind_supports), rng)
                cases.append(case)
                if kind == "gradient" and density == 0.01:
                    share = message_bytes(encoded) / (4 * PARAMETERS)
            except SfrlError as error:
                errors.append(f"{kind} {density}: {error}")
    clustered = []
    for density in DENSITIES[:2]:
        support = clustered_support(PARAMETERS, int(PARAMETERS * density), change, rng)
        bits, bound = _index_bits(support[0]), tile_bound_bits(support[0], PARAMETERS)
        clustered.append({"density": density, "bits_per_index": round(bits, 4), "tile_bound_bits": round(bound, 4),
                          "ratio": round(bits / bound, 4)})
    return {"coordinates": PARAMETERS, "supports": supports, "cases": cases, "clustered": clustered,
            "update_bytes_share": round(share, 6), "dense": _dense(change, rng), "encode": _encode(change, rng),
            "errors": errors}


def _case(density: float, kind: str, supports: list[Support], rng: np.random.Generator) -> tuple[
        dict[str, Any], EncodedUpdate]:
    indices, values = supports[0]
    bound, index_bits = tile_bound_bits(indices, PARAMETERS), _index_bits(indices)
    encoded = _encoded(supports[0], "int8", rng)
    # Ten payloads at most: what is read is new to the cache, as what comes over a network is.
    payloads = [encoded, *(_encoded(support, "int8", rng) for support in supports[1:10])]
    repeats = max(1, round(0.01 / density))
    total = np.zeros(PARAMETERS, dtype=np.int64)
    ones = {support[0].size: rng.integers(-100, 100, support[0].size) for support in supports}
    times: dict[str, list[float]] = {}
    _warm(payloads[0])
    for number, (support, _) in enumerate(supports):
        update = payloads[number % len(payloads)]
        for name, compiled, read in (("decode", False, _read_leaves), ("decode_numba", True, _read_leaves),
                                     ("digest", False, _read_whole), ("digest_numba", True, _read_whole)):
            if _use(compiled):
                times.setdefault(name, []).append(_seconds(lambda: read(update), repeats) / update.nonzeros)  # noqa: B023
        times.setdefault("add_at", []).append(
            _seconds(lambda: np.add.at(total, support, ones[support.size]), 1) / support.size)  # noqa: B023
    rates = {name: round(1e-6 / median(seconds), 1) for name, seconds in times.items()}
    return {
        "density": density, "support": kind, "nonzeros": int(indices.size),
        "bits_per_index": round(index_bits, 4), "tile_bound_bits": round(bound, 4),
        "index_ratio": round(index_bits / bound, 4), "bits_per_value": round(_value_bits(encoded), 4),
        "bits_per_value_entropy": round(_value_bits(_encoded((indices, values), "packed", rng)), 4),
        "decode_mnnz_s": rates["decode"], "add_at_mnnz_s": rates["add_at"],
        "decode_mnnz_s_numba": rates.get("decode_numba"), "decode_digest_mnnz_s": rates["digest"],
        "decode_digest_mnnz_s_numba": rates.get("digest_numba"),
        "decode_add_at_ratio": round(rates["decode"] / rates["add_at"], 3),
        "decode_add_at_ratio_numba": round(rates["decode_numba"] / rates["add_at"], 3) if "decode_numba" in rates
        else None,
    }, encoded


def _dense(values: NDArray[np.float32], rng: np.random.Generator) -> dict[str, float]:
    """Milliseconds for a dense update of all coordinates as fp32, and as exact grid units."""
    _use(True)
    encoded = encode_dense(values, value_type="fp32", grid_exponent=GRID_EXPONENT, rng=rng)
    units = encoded.update.values
    figures = {
        "encode_fp32_ms": lambda: encode_dense(values, value_type="fp32", grid_exponent=GRID_EXPONENT, rng=rng),
        "decode_fp32_ms": lambda: _read_leaves(encoded), "decode_digest_fp32_ms": lambda: _read_whole(encoded),
        "pack_exact_ms": lambda: pack_dense(units, value_type="exact", grid_exponent=GRID_EXPONENT),
    }
    return {name: round(1e3 * median(_seconds(call, 1) for _ in range(5)), 1) for name, call in figures.items()}


def _encode(values: NDArray[np.float32], rng: np.random.Generator) -> dict[str, float]:
    """Milliseconds from a change to the payload of its largest hundredth."""
    k = PARAMETERS // 100
    indices = top_k(values, k)
    figures: dict[str, Callable[[], object]] = {"top_k_ms": lambda: top_k(values, k)}
    for value_type in ("int8", "packed"):
        figures[f"encode_{value_type}_ms"] = lambda value_type=value_type: _encoded(  # type: ignore[misc]
            (indices, values[indices]), value_type, rng)
    return {name: round(1e3 * median(_seconds(call, 1) for _ in range(5)), 2) for name, call in figures.items()}


def _encoded(support: Support, value_type: Literal["int8", "packed"], rng: np.random.Generator) -> EncodedUpdate:
    indices, values = support
    return encode_update(PARAMETERS, indices, values, value_type=value_type, grid_exponent=GRID_EXPONENT, rng=rng)


def _index_bits(indices: NDArray[np.int64]) -> float:
    mask = encode_mask(PARAMETERS, indices)
    if not np.array_equal(decode_mask(mask, PARAMETERS).indices, indices):
        raise SfrlError("a mask does not decode to its support")
    return 8 * len(mask) / indices.size


def _value_bits(encoded: EncodedUpdate) -> float:
    # Rounding drops what becomes zero, so the support is the one that was sent.
    mask = encode_mask(PARAMETERS, encoded.update.indices)
    return 8 * (len(encoded.payload) - len(mask)) / encoded.nonzeros


def _read_leaves(encoded: EncodedUpdate) -> None:
    """Decode with every rule but the hashes."""
    payload = memoryview(encoded.payload)
    preamble = parse_preamble(payload)
    header = parse_leaf_table(payload, preamble, len(payload))
    start, base = preamble.header_bytes, 0
    for number, record in enumerate(header.leaves):
        part = decode_leaf(preamble, number, payload[start : start + record.byte_length], base=base)
        start += record.byte_length
        if not isinstance(part.at, slice):
            base = int(part.at[-1]) + 1


def _read_whole(encoded: EncodedUpdate) -> None:
    for _ in encoded.parts():
        pass


def _use(compiled: bool) -> bool:
    """Take the compiled path or not; say whether it is there."""
    fast._Loaded.tried = not compiled
    fast._Loaded.kernels = None
    os.environ["SFRL_NUMBA"] = "1"
    return not compiled or fast.kernels(fast.LARGE_LEAF) is not None


def _warm(encoded: EncodedUpdate) -> None:
    """Compile, and let the allocator learn the sizes."""
    for compiled in (True, False):
        if _use(compiled):
            _read_whole(encoded)
    np.ones(2**21).copy()


def _seconds(call: Callable[[], object], repeats: int) -> float:
    begun = time.thread_time()
    for _ in range(repeats):
        call()
    return (time.thread_time() - begun) / repeats
