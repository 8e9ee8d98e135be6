"""Payloads and masks: every decoder takes the same ones, reads the same, and gives the same reason for all others.

Four readers look at each payload: the gatekeeper's with numpy, with numba where that is installed, the same in pieces
of any size, and the verifier's, which shares no code with them. What is taken is written as the same bytes again.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.errors import PayloadError
from sfrl_secure.replay import decoder as replay
from sfrl_secure.replay import payload_header as replay_header
from sfrl_secure.sparse import fast
from sfrl_secure.sparse.decode import decode_update
from sfrl_secure.sparse.encode import pack_update
from sfrl_secure.sparse.expected import ExpectedPayload
from sfrl_secure.sparse.mask import decode_mask, encode_mask
from sfrl_secure.sparse.reader import PayloadReader
from sfrl_secure.sparse.update import SparseUpdate, UpdatePart

from .payload_seeds import PayloadSeed, expectation

Read = tuple[NDArray[np.int64], NDArray[np.int64]]


def check_payload(raw: bytes, seeds: tuple[PayloadSeed, ...]) -> None:
    """Read the payload of a case with all four."""
    payload = raw[1:]
    expected = expectation(raw[0] if raw else 0, payload, seeds)
    readers: dict[str, Callable[[], Read]] = {
        "numpy": lambda: _decoded(payload, expected, None),
        "the verifier": lambda: _replayed(payload, expected),
        "in pieces": lambda: _in_pieces(payload, expected),
    }
    if compiled() is not None:
        readers["numba"] = lambda: _decoded(payload, expected, compiled())
    found = _agreed(readers)
    update = SparseUpdate(expected.coordinates, *found)
    written = pack_update(update, value_type=expected.value_type, grid_exponent=expected.grid_exponent,
                          support=expected.support, mask=expected.mask)
    assert written == payload, "what was taken is written in another way"


def check_mask(raw: bytes) -> None:
    """Read a mask with all that read masks. The terms say what its header claims."""
    coordinates = int.from_bytes(raw[8:16], "little")
    nonzeros = int.from_bytes(raw[16:24], "little")
    readers: dict[str, Callable[[], Read]] = {
        "numpy": lambda: _mask(raw, coordinates, None),
        "the verifier": lambda: _both(replay.decode_mask_indices(raw, coordinates, nonzeros)),
    }
    if compiled() is not None:
        readers["numba"] = lambda: _mask(raw, coordinates, compiled())
    indices, _ = _agreed(readers)
    assert encode_mask(coordinates, indices) == raw, "what was taken is written in another way"


@cache
def compiled() -> Any:
    """The compiled loops; None where numba is not installed."""
    try:
        return importlib.import_module("sfrl_secure.sparse.kernels")
    except ImportError:
        return None


def _agreed(readers: dict[str, Callable[[], Read]]) -> Read:
    """What all of them read.

    Raises:
        PayloadError: all refuse, for one reason.
    """
    results: dict[str, Read | PayloadError] = {}
    for name, read in readers.items():
        try:
            results[name] = read()
        except PayloadError as refused:
            results[name] = refused
    (first, result), *others = results.items()
    for name, other in others:
        told = {first: _told(result), name: _told(other)}
        assert _told(result) == _told(other), f"two readers do not agree: {told}"
        if not isinstance(result, PayloadError) and not isinstance(other, PayloadError):
            same = all(np.array_equal(mine, theirs) for mine, theirs in zip(result, other, strict=True))
            assert same, f"{first} and {name} read different values"
    if isinstance(result, PayloadError):
        raise result
    return result


def _told(result: Read | PayloadError) -> str:
    return result.reason if isinstance(result, PayloadError) else "accepted"


def _decoded(payload: bytes, expected: ExpectedPayload, kernels: Any) -> Read:
    with _by(kernels):
        update = decode_update(payload, expected)
    return update.indices, update.values


def _mask(raw: bytes, coordinates: int, kernels: Any) -> Read:
    with _by(kernels):
        return _both(decode_mask(raw, coordinates).indices)


def _in_pieces(payload: bytes, expected: ExpectedPayload) -> Read:
    random = Random(len(payload))
    parts: list[UpdatePart] = []
    with _by(None):
        reader, at = PayloadReader(expected), 0
        while at < len(payload):
            size = random.choice((1, 3, 28, 36, 60, 64, 500, 5_000))
            piece = bytearray(payload[at : at + size])
            parts += reader.feed(memoryview(piece))
            piece[:] = bytes(len(piece))  # no part may refer to what was fed
            at += size
        reader.finish()
    return _joined([(part.indices, part.values) for part in parts])


def _replayed(payload: bytes, expected: ExpectedPayload) -> Read:
    mask = None if expected.mask is None else replay_header.Mask(expected.mask.digest, expected.mask.indices)
    asked = replay_header.Expected(expected.coordinates, expected.nonzeros, expected.support, expected.value_type,
                                   expected.grid_exponent, expected.root, mask)
    parts = list(replay.decode_parts(payload, asked))
    return _joined([(np.r_[part.at] if isinstance(part.at, slice) else part.at, part.values) for part in parts])


def _joined(parts: list[Read]) -> Read:
    none = np.zeros(0, np.int64)
    return (np.concatenate([none, *(indices for indices, _ in parts)]),
            np.concatenate([none, *(values for _, values in parts)]))


def _both(indices: NDArray[np.int64]) -> Read:
    return indices, indices


@contextmanager
def _by(kernels: Any) -> Iterator[None]:
    """Read every leaf with these loops, however small it is; with numpy where they are None."""
    before = fast._Loaded.kernels, fast._Loaded.tried, fast.LARGE_LEAF
    fast._Loaded.kernels, fast._Loaded.tried, fast.LARGE_LEAF = kernels, True, 1
    try:
        yield
    finally:
        fast._Loaded.kernels, fast._Loaded.tried, fast.LARGE_LEAF = before
