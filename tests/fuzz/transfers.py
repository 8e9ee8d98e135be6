"""Bundles and downloads: files from a relay, and answers from a gatekeeper, of which nothing is believed.

What a bundle check lets through is the signed update and nothing else, and packs as the same file. What a download
brings is, once it is used, the model or the mask that was asked for.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache
from multiprocessing.util import Finalize
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import structlog

from sfrl_secure.aggregation.models import ModelSnapshot, encode_step, model_bytes
from sfrl_secure.crypto.envelope import verify_single
from sfrl_secure.errors import UnavailableError
from sfrl_secure.governance.aggregation_terms import MaskTerms
from sfrl_secure.governance.manifest import ModelManifest, TensorSpec
from sfrl_secure.governance.terms import ModelTerms
from sfrl_secure.ids import sha256
from sfrl_secure.participant.bundles import MAGIC, open_bundle
from sfrl_secure.participant.masks import MaskFetcher
from sfrl_secure.participant.models import ModelFetcher
from sfrl_secure.rpc.channel import RpcChannel, RpcStream
from sfrl_secure.rpc.downloads import fetch
from sfrl_secure.rpc.trying import Patience
from sfrl_secure.sparse.mask import encode_mask
from sfrl_secure.wire.downloads import ModelSource, encode_model_chunk, encode_model_source
from sfrl_secure.wire.entries import encode_envelope

from .mutators import change_field, flip_bits, insert, mutate, remove, truncate
from .upload_streams import read_script, write_script
from .upload_world import in_memory, key, updates

_SEGMENT = "rocks"
_GRID = 16


@cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir=in_memory()))
    Finalize(None, shutil.rmtree, (folder, True), exitpriority=1)
    return folder


# Bundles


def bundle_seeds() -> tuple[bytes, ...]:
    """Bundles of the updates, as they are written."""
    found = []
    for each in updates():
        envelope = encode_envelope(each.envelope)
        found.append(MAGIC + len(envelope).to_bytes(4, "little") + envelope + each.payload)
    return tuple(found)


def check_bundle_file(raw: bytes) -> None:
    """Open a file as a bundle, and look at its payload."""
    path = _folder() / "bundle"
    path.write_bytes(raw)
    with open_bundle(path) as bundle:
        bundle.check_payload()
        envelope = encode_envelope(bundle.envelope)
        payload = bytes(bundle.payload.read(0, bundle.payload.size))
        assert MAGIC + len(envelope).to_bytes(4, "little") + envelope + payload == raw, "it packs as another file"
        verify_single(bundle.envelope, key().public_key)
        assert raw in bundle_seeds(), "a signature holds for what was never signed"


def mutate_bundle(random: Random, raw: bytes, others: Sequence[bytes]) -> bytes:
    """Damage a bundle: mostly the envelope, with the length before it made right, or the payload."""
    length = int.from_bytes(raw[8:12], "little")
    head, envelope, payload = raw[:12], raw[12 : 12 + length], raw[12 + length :]
    what = random.random()
    if what < 0.4:
        envelope = mutate(random, envelope, [each[12:] for each in others])
        return raw[:8] + len(envelope).to_bytes(4, "little") + envelope + payload
    if what < 0.7:
        return head + envelope + random.choice((flip_bits, truncate, remove, insert))(random, payload, others)
    return mutate(random, raw, others)


# Downloads


class _Downloads:
    """A model, what leads to the next one, and a mask; and who has which of them."""

    def __init__(self) -> None:
        self.manifest = ModelManifest((TensorSpec("a", (4, 4), "int32"), TensorSpec("b", (14,), "int64")))
        self.terms = ModelTerms(self.manifest, _GRID, sha256(b"initial"))
        coordinates = self.manifest.coordinates
        self.models = [ModelSnapshot(self.manifest, _GRID, np.arange(coordinates, dtype=np.int64))]
        self.steps = []
        for number in (1, 2):
            change = np.zeros(coordinates, dtype=np.int64)
            change[:: 9 - 7 * (number - 1)] = 1_000 * number
            self.steps.append(encode_step(self.manifest, _GRID, change))
            self.models.append(self.models[-1].add(change))
        self.digests = [sha256(each.to_bytes()) for each in self.models]
        self.mask = encode_mask(coordinates, np.arange(3, 20, 4, dtype=np.int64))
        self.mask_terms = MaskTerms(sha256(self.mask), 5)


@cache
def _downloads() -> _Downloads:
    return _Downloads()


def download_seeds() -> tuple[bytes, ...]:
    """Scripts of answers; the first record says by one byte what is fetched: a model, without and with a base, a mask.

    A record's kind is whether the call ends after the message, and how.
    """
    of = _downloads()
    whole, steps = of.models[2].to_bytes(), b"".join(of.steps)
    base = encode_model_source(ModelSource(of.digests[0], tuple(map(len, of.steps))))
    model = encode_model_source(ModelSource(None, (len(whole),)))
    mask = encode_model_source(ModelSource(None, (len(of.mask),)))
    return (
        write_script([(0, b"\0"), (0, model), (1, encode_model_chunk(whole))]),
        write_script([(0, b"\0"), (0, model), (2, encode_model_chunk(whole[:99])), (0, model),
                      (1, encode_model_chunk(whole[99:]))]),
        write_script([(0, b"\1"), (0, base), (0, encode_model_chunk(steps[:50])), (1, encode_model_chunk(steps[50:]))]),
        write_script([(0, b"\1"), (0, base), (2, encode_model_chunk(steps[:70])), (0, base),
                      (1, encode_model_chunk(steps[70:])), (0, model), (1, encode_model_chunk(whole))]),
        write_script([(0, b"\1"), (0, base), (1, encode_model_chunk(bytes(len(steps)))), (0, model),
                      (1, encode_model_chunk(whole))]),
        write_script([(0, b"\2"), (0, mask), (0, encode_model_chunk(of.mask[:30])),
                      (1, encode_model_chunk(of.mask[30:]))]),
    )


class _Answers(RpcChannel):
    """A gatekeeper that says what the script says, call after call; then nothing."""

    def __init__(self, records: Sequence[tuple[int, bytes]]) -> None:
        self._records = iter(records)
        self.calls = 0

    def call(self, path: str, request: bytes, *, deadline_seconds: float) -> bytes:
        raise NotImplementedError

    def exchange(self, path: str, requests: Iterator[bytes], *, deadline_seconds: float) -> RpcStream:
        raise NotImplementedError

    def stream(self, path: str, request: bytes, *, deadline_seconds: float) -> RpcStream:
        self.calls += 1
        return RpcStream(_Stream(self._messages()))

    def _messages(self) -> Iterator[bytes]:
        for kind, message in self._records:
            yield message
            if kind == 1:
                return
            if kind:
                raise UnavailableError("the connection broke")

    def close(self) -> None:
        pass


class _Stream:
    def __init__(self, messages: Iterator[bytes]) -> None:
        self._messages = messages

    def __iter__(self) -> Iterator[bytes]:
        return self._messages

    def cancel(self) -> None:
        pass


class _Client:
    """Stands where the client of a gatekeeper stands. Its clock goes on by what it sleeps."""

    def __init__(self, channel: _Answers) -> None:
        self._channel = channel

    def fetch_model(self, request: Any, bytes_max: int, *, deadline_seconds: float, on_progress: Any) -> Any:
        patience = Patience(lambda: float(self._channel.calls), lambda seconds: None, lambda: 1.0)
        told: list[tuple[int, int]] = []
        fetched = fetch(self._channel, patience, request, bytes_max, deadline_seconds=6.5,
                        on_progress=lambda *now: told.append(now))
        assert sum(map(len, fetched.objects)) <= bytes_max, "more came than was asked for"
        assert all(0 < came <= whole <= bytes_max for came, whole in told)
        assert fetched.base is None or fetched.base in request.has
        return fetched


def check_download(raw: bytes) -> None:
    """Fetch a model or a mask from answers of a script; what is given out is what was asked for."""
    of, (head, *records) = _downloads(), read_script(raw) or [(0, b"")]
    what, folder = head[1][:1], _folder() / "fetched"
    shutil.rmtree(folder, ignore_errors=True)
    client: Any = _Client(_Answers(records))
    with structlog.testing.capture_logs():
        if what == b"\2":
            masks, wanted = MaskFetcher(client, folder), of.mask_terms
            mask = masks.mask(_SEGMENT, wanted.digest, wanted, of.manifest.coordinates)
            assert encode_mask(of.manifest.coordinates, mask.indices) == of.mask
            return
        fetcher = ModelFetcher(client, folder)
        if what == b"\1":
            fetcher._of(_SEGMENT).use(of.digests[0], of.models[0])
        model = fetcher.model(_SEGMENT, of.digests[2], of.terms)
    assert model.to_bytes() == of.models[2].to_bytes(), "a model is used that was not asked for"
    assert len(model.to_bytes()) == model_bytes(of.manifest)


def mutate_download(random: Random, raw: bytes, others: Sequence[bytes]) -> bytes:
    """Change what is answered, or when a call ends."""
    records = read_script(raw)
    for _ in range(random.choice((1, 1, 2, 3))):
        if not records:
            break
        at = random.randrange(len(records))
        kind, message = records[at]
        what = random.random()
        if what < 0.1:
            del records[at]
        elif what < 0.2:
            records.insert(random.randint(0, len(records)), records[at])
        elif what < 0.3:
            to = random.randrange(len(records))
            records[at], records[to] = records[to], records[at]
        elif what < 0.4:
            records[at] = (random.randrange(4), message)
        elif what < 0.5:
            records[at:at] = random.choice((read_script(random.choice(others))[1:], [records[at]] * 4))
        else:
            damage = random.choice((flip_bits, truncate, remove, insert, change_field, change_field))
            records[at] = (kind, damage(random, message, [each for _, each in records]))
    return write_script(records)
