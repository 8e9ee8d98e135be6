"""Compiled and plain code are one decoder: the same parts for what is canonical, the same reason for what is not."""

from __future__ import annotations

import struct
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from sfrl_secure.errors import PayloadError
from sfrl_secure.sparse import fast
from sfrl_secure.sparse.decode import decode_update
from sfrl_secure.sparse.encode import pack_update
from sfrl_secure.sparse.fast import fast_int8, fast_packed, fast_rice
from sfrl_secure.sparse.scaled import unpack_int8, unpack_packed
from sfrl_secure.sparse.support import SKIP_PARAMETER_MAX, unpack_support
from sfrl_secure.sparse.update import SparseUpdate
from tests.unit.sparse.payloads import claimed, header_of, load, rehashed, vectors

compiled: Any = pytest.importorskip("sfrl_secure.sparse.kernels")


@pytest.fixture(params=["plain", "compiled"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(fast._Loaded, "tried", True)
    monkeypatch.setattr(fast._Loaded, "kernels", compiled if request.param == "compiled" else None)
    monkeypatch.setattr(fast, "LARGE_LEAF", 0)
    return str(request.param)


def leaf_of(payload: bytes) -> np.ndarray:
    return np.frombuffer(payload, dtype=np.uint8)[header_of(payload).leaf_starts[0] :]


def update_of(seed: int, gaps: float, count: int, value_type: str) -> SparseUpdate:
    rng = np.random.default_rng(seed)
    indices = np.cumsum(rng.geometric(1 / gaps, count)).astype(np.int64)
    shifts = np.repeat(rng.choice([0, 3, 20, 33], count // 64 + 1), 64)[:count]
    low = 1 if value_type == "int8" else int(rng.integers(1, 100))
    values = rng.integers(low, 128, count) * rng.choice([-1, 1], count) << shifts
    return SparseUpdate(int(indices[-1]) + 5, indices, values)


@pytest.mark.parametrize("value_type", ["int8", "packed"])
@pytest.mark.parametrize(("gaps", "count"), [(1.0, 64), (2.0, 65), (10.0, 1_000), (700.0, 4_096), (90_000.0, 5_000),
                                             (1_000_000.0, 2_000)])
def test_compiled_code_takes_what_is_canonical_and_reads_the_same(value_type: Any, gaps: float, count: int) -> None:
    update = update_of(3, gaps, count, value_type)
    leaf = leaf_of(pack_update(update, value_type=value_type, grid_exponent=30))
    code = fast_rice(compiled, leaf, 4, count, SKIP_PARAMETER_MAX, before=-1, step=1)
    assert code is not None
    assert np.array_equal(code[0], update.indices)
    read = (fast_int8(compiled, leaf, code[1], count, True) if value_type == "int8"
            else fast_packed(compiled, leaf, code[1], count, True, 6))
    assert read is not None
    assert np.array_equal(read[0], update.values)
    assert read[1] == leaf.size


@pytest.mark.parametrize("vector", [load(file) for file in vectors("*.json") if load(file)["support"] == "free"
                                    and load(file)["value_type"] in ("none", "int8", "packed")
                                    and load(file).get("rule", "L")[0] in "LSRV" and load(file)["nonzeros"]],
                         ids=lambda vector: f"{vector['payload'][-40:]}")
def test_compiled_code_takes_of_the_vectors_what_plain_code_takes(vector: dict[str, Any]) -> None:
    """Without the way back to plain code, which would hide a kernel that refuses too much."""
    leaf, count = leaf_of(bytes.fromhex(vector["payload"])), min(vector["nonzeros"], 65_536)
    try:
        plain = unpack_support(leaf, count=count, leaf_index=0, base=0, coordinates=2**40)
    except PayloadError:
        plain = None
    code = fast_rice(compiled, leaf, 4, count, SKIP_PARAMETER_MAX, before=-1, step=1) if not leaf[:4].any() else None
    same(code, plain)
    if plain is None or vector["value_type"] == "none":
        return
    for free in (True, False):
        unpack = unpack_int8 if vector["value_type"] == "int8" else unpack_packed
        try:
            values = unpack(leaf, plain[1], count, free)
        except PayloadError:
            values = None
        same(fast_int8(compiled, leaf, plain[1], count, free) if vector["value_type"] == "int8"
             else fast_packed(compiled, leaf, plain[1], count, free, 6), values)


def test_a_quotient_as_large_as_a_canonical_one_can_be_is_taken() -> None:
    """The compiled code keeps quotients in bytes."""
    # In blocks of 64 with one number that is not zero, which has the parameter 0 up to 133.
    skips = np.zeros(2_048, dtype=np.int64)
    skips[np.arange(32) * 64 + np.arange(32)] = 133
    indices = np.cumsum(skips + 1) - 1
    update = SparseUpdate(int(indices[-1]) + 1, indices, np.ones(indices.size, dtype=np.int64))
    leaf = leaf_of(pack_update(update, value_type="int8", grid_exponent=30))
    code = fast_rice(compiled, leaf, 4, indices.size, SKIP_PARAMETER_MAX, before=-1, step=1)
    assert code is not None
    assert np.array_equal(code[0], indices)


@pytest.mark.parametrize("zeros", [134, 183, 184, 191, 239, 240, 247, 248, 255, 256, 257, 280, 512, 2_000])
@pytest.mark.parametrize(("before", "count"), [(0, 1_024), (1_023, 1_024), (975, 1_000)])
def test_a_quotient_that_no_canonical_code_has_is_refused_and_never_read_as_another(
        zeros: int, before: int, count: int) -> None:
    """134 is the first of these; a byte, in which the compiled code keeps a quotient, holds no more than 255. Of 1,000
    numbers, it ends in the last bytes, fewer than eight."""
    unary = np.packbits(np.repeat([1, 0, 1], [before, zeros, count - before]), bitorder="little")
    parameters = np.packbits(np.ones(-(-count // 64), dtype=np.uint8))
    lengths = struct.pack("<HI", parameters.size, unary.size)
    leaf = np.frombuffer(bytes(4) + lengths + parameters.tobytes() + unary.tobytes(), dtype=np.uint8)
    assert fast_rice(compiled, leaf, 4, count, SKIP_PARAMETER_MAX, before=-1, step=1) is None
    with pytest.raises(PayloadError) as refusal:
        unpack_support(leaf, count=count, leaf_index=0, base=0, coordinates=2**31)
    assert refusal.value.reason == "not_canonical"


@pytest.mark.parametrize("base", [2**31 - 1, 2**31, 2**32 - 1])
def test_a_leaf_read_alone_that_begins_behind_every_model_is_refused(base: int) -> None:
    """Sums are narrow where they may be: the base counts."""
    update = update_of(5, 10.0, 300, "int8")
    leaf = leaf_of(pack_update(update, value_type="int8", grid_exponent=30)).copy()
    leaf[:4] = np.frombuffer(struct.pack("<I", base), dtype=np.uint8)
    with pytest.raises(PayloadError) as refusal:
        unpack_support(leaf, count=300, leaf_index=1, base=None, coordinates=2**31)
    assert refusal.value.reason == "out_of_range"


def same(fast_read: Any, plain_read: Any) -> None:
    assert (fast_read is None) == (plain_read is None)
    if fast_read is not None:
        assert np.array_equal(fast_read[0], plain_read[0])
        assert fast_read[1] == plain_read[1]


@pytest.mark.parametrize("value_type", ["int8", "packed"])
@pytest.mark.parametrize("seed", range(4))
def test_damaged_leaves_are_taken_by_both_or_by_none(value_type: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    update = update_of(seed, float(rng.choice([1.5, 10, 300, 40_000])), int(rng.integers(1, 200)), value_type)
    payload = pack_update(update, value_type=value_type, grid_exponent=30)
    whole, count = leaf_of(payload), update.nonzeros
    taken = 0
    for _ in range(400):
        leaf = whole.copy()
        for _ in range(int(rng.integers(1, 4))):
            leaf[int(rng.integers(4, leaf.size))] ^= np.uint8(1 << int(rng.integers(0, 8)))
        if rng.random() < 0.2:
            leaf = leaf[: int(rng.integers(4, leaf.size))]
        try:
            plain = unpack_support(leaf, count=count, leaf_index=0, base=0, coordinates=2**62)
        except PayloadError:
            plain = None
        same(fast_rice(compiled, leaf, 4, count, SKIP_PARAMETER_MAX, before=-1, step=1), plain)
        if plain is None:
            continue
        unpack = unpack_int8 if value_type == "int8" else unpack_packed
        try:
            values = unpack(leaf, plain[1], count, True)
            taken += 1
        except PayloadError:
            values = None
        same(fast_int8(compiled, leaf, plain[1], count, True) if value_type == "int8"
             else fast_packed(compiled, leaf, plain[1], count, True, 6), values)
    assert 0 < taken < 400


def test_a_large_update_reads_the_same_and_is_refused_alike(path: str) -> None:
    update = update_of(7, 20.0, 70_000, "packed")
    payload = pack_update(update, value_type="packed", grid_exponent=30)
    read = decode_update(payload, claimed(payload))
    assert np.array_equal(read.indices, update.indices)
    assert np.array_equal(read.values, update.values)
    broken = bytearray(payload)
    base = header_of(payload).leaf_starts[0]
    broken[base + 4 : base + 6] = struct.pack("<H", 60_000)
    with pytest.raises(PayloadError) as refusal:
        decode_update(rehashed(bytes(broken)), claimed(rehashed(bytes(broken))))
    assert refusal.value.reason == "length"


def test_an_index_outside_the_model_is_refused_by_both(path: str) -> None:
    update = update_of(7, 20.0, 5_000, "int8")
    payload = bytearray(pack_update(update, value_type="int8", grid_exponent=30))
    payload[8:16] = struct.pack("<Q", int(update.indices[-1]))
    with pytest.raises(PayloadError) as refusal:
        decode_update(bytes(payload), claimed(bytes(payload)))
    assert refusal.value.reason == "out_of_range"


@pytest.mark.parametrize(("environment", "count", "loaded"), [("", 5_000, False), ("1", 5_000, True),
                                                              ("1", 100, False)])
def test_numba_is_imported_where_it_is_asked_for_with_the_first_large_leaf(
        environment: str, count: int, loaded: bool) -> None:
    program = (
        "import sys, numpy as np\n"
        "from sfrl_secure.sparse.encode import encode_update\n"
        f"k = {count}\n"
        "encode_update(k, np.arange(k), np.ones(k), value_type='int8', grid_exponent=3, rng=np.random.default_rng(1))"
        ".update\n"
        "print('numba' in sys.modules)\n"
    )
    said = subprocess.run([sys.executable, "-c", program], env={"SFRL_NUMBA": environment, "PATH": ""}, check=True,
                          capture_output=True, text=True)
    assert said.stdout.strip() == str(loaded)
