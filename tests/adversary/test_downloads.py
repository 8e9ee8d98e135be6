"""Downloads: a model taken without being in the log, and a gatekeeper that sends something else than was asked for.

Whoever fetches is a participant that would rather not be seen; whoever answers is a gatekeeper whose key is stolen,
with the store in its hands. A model is used when it has the digest that the log names.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from shutil import rmtree

import pytest
from simulator import MANIFEST, SEGMENT, DirectChannel, Simulator

from sfrl_secure.aggregation.models import ModelSnapshot
from sfrl_secure.errors import DigestError, MalformedError, NotFoundError
from sfrl_secure.governance.statements import ModelsFetched
from sfrl_secure.ids import Digest, sha256
from sfrl_secure.participant.masks import MaskFetcher
from sfrl_secure.participant.models import ModelFetcher
from sfrl_secure.rpc.clients import GatekeeperClient
from sfrl_secure.services.gatekeeper import downloads as downloads_module
from sfrl_secure.wire.downloads import (
    FETCH_MODEL,
    ModelRequest,
    ModelSource,
    encode_model_chunk,
    encode_model_request,
    encode_model_source,
    parse_model_chunk,
    parse_model_source,
)

from .arena import Arena

ROVER = "rover-1"


@pytest.fixture
def arena(tmp_path: Path) -> Iterator[Arena]:
    """Two rounds have led to a third model; a round is open."""
    with Arena(tmp_path) as made:
        for number in range(2):
            made.sim.open_round()
            for name in ("rover-1", "rover-2", "rover-3"):
                made.sim.admit(name, {number: 4})
            made.sim.close_round()
            made.sim.publish_model()
        made.sim.open_round()
        yield made


def models(sim: Simulator) -> list[Digest]:
    return [sim.initial_digest, *(step.model for step in sim.segment.lineage)]


def request(arena: Arena, offset: int = 0, length: int = 0) -> Iterator[bytes]:
    raw = encode_model_request(ModelRequest(SEGMENT, arena.sim.segment.model, (), offset, length))
    return arena.stream(FETCH_MODEL, ROVER, raw)


# Who takes it


def test_nobody_has_a_model_by_ranges_that_he_never_lets_come_to_their_end(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call is cut when its last chunk is due, and the next one begins there; the model's last byte is guessed."""
    monkeypatch.setattr(downloads_module, "CHUNK_BYTES_MAX", 16)
    (total,) = parse_model_source(next(request(arena))).object_bytes
    whole = arena.sim.objects.get(arena.sim.segment.model, 10_000)
    taken = bytearray()
    while len(taken) < total - 1:
        offset = min(len(taken), total - 17)
        answers = request(arena, offset, 17)
        next(answers)
        taken[offset:] = parse_model_chunk(next(answers))
        answers.close()  # type: ignore[attr-defined]
    assert whole.startswith(taken)
    has_all = any(sha256(bytes([*taken, last])) == arena.sim.segment.model for last in range(256))
    logged = [each.participant for body in arena.bodies(ModelsFetched) for each in body.fetches]
    assert (ROVER in logged) == has_all


def test_what_was_altered_since_it_was_hashed_is_not_given(arena: Arena) -> None:
    """In place, as long as before, and with the old time put back."""
    path = arena.sim.objects.path(arena.sim.segment.model)
    assert len(list(request(arena))) > 1
    before, raw = path.stat(), path.read_bytes()
    with path.open("r+b") as file:
        file.seek(len(raw) - 1)
        file.write(bytes([raw[-1] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(DigestError):
        list(request(arena))


# Who answers


class Liar(DirectChannel):
    """A gatekeeper that answers each fetch with the next of some answers; the last of them for ever."""

    def __init__(self, sim: Simulator, *answers: list[bytes]) -> None:
        super().__init__(sim.gatekeeper(), ROVER)
        self._numbers = count()
        self._lies = answers

    def _messages(self, path: str, request: bytes | Iterator[bytes]) -> Iterator[bytes]:
        assert path == FETCH_MODEL
        self.calls.append(path)
        yield from self._lies[min(next(self._numbers), len(self._lies) - 1)]


def whole(raw: bytes) -> list[bytes]:
    return [encode_model_source(ModelSource(None, (len(raw),))), encode_model_chunk(raw)]


def steps(base: Digest, *raws: bytes) -> list[bytes]:
    return [encode_model_source(ModelSource(base, tuple(map(len, raws)))), *map(encode_model_chunk, raws)]


def fetcher(arena: Arena, channel: Liar) -> ModelFetcher:
    return ModelFetcher(GatekeeperClient(channel), arena.sim.folder / "kept")


def masks(arena: Arena, channel: Liar) -> MaskFetcher:
    return MaskFetcher(GatekeeperClient(channel), arena.sim.folder / "kept")


def fetch(arena: Arena, from_whom: ModelFetcher, wanted: Digest) -> ModelSnapshot:
    return from_whom.model(SEGMENT, wanted, arena.sim.segment.terms.model, deadline_seconds=2)


def stored(arena: Arena, digest: Digest) -> bytes:
    return arena.sim.objects.get(digest, 10_000)


def kept(arena: Arena) -> list[str]:
    folder = arena.sim.folder / "kept"
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("lie", ["an older model", "a model of one value more", "an aggregate", "nothing like it"])
def test_a_model_that_is_not_the_one_is_neither_used_nor_kept(arena: Arena, lie: str) -> None:
    old, _, new = models(arena.sim)
    raw = {
        "an older model": stored(arena, old),
        "a model of one value more": stored(arena, new)[:-1] + b"\1",
        "an aggregate": stored(arena, arena.sim.segment.lineage[-1].aggregate),
        "nothing like it": bytes(len(stored(arena, new))),
    }[lie]
    with pytest.raises(DigestError):
        fetch(arena, fetcher(arena, Liar(arena.sim, whole(raw))), new)
    assert kept(arena) == []


def test_steps_that_lead_elsewhere_are_not_taken_and_the_whole_is(arena: Arena) -> None:
    old, _, new = models(arena.sim)
    first, second = (stored(arena, step.aggregate) for step in arena.sim.segment.lineage)
    good = stored(arena, new)
    for lie in ((first,), (first, first), (second,), (first[:-1], second), (b"SFRU" + bytes(60),), (good[:-1],)):
        channel = Liar(arena.sim, whole(stored(arena, old)), steps(old, *lie), whole(good))
        honest = fetcher(arena, channel)
        fetch(arena, honest, old)
        assert sha256(fetch(arena, honest, new).to_bytes()) == new
        assert len(channel.calls) == 3
        rmtree(arena.sim.folder / "kept")


def test_a_base_that_nobody_has_is_not_taken(arena: Arena) -> None:
    _, middle, new = models(arena.sim)
    lie = steps(middle, stored(arena, arena.sim.segment.lineage[-1].aggregate))
    with pytest.raises(MalformedError, match="not named"):
        fetch(arena, fetcher(arena, Liar(arena.sim, lie)), new)


def test_more_than_a_model_is_refused_before_it_comes(arena: Arena) -> None:
    new = arena.sim.segment.model
    size = len(stored(arena, new))
    for lie in (
        [encode_model_source(ModelSource(None, (2**40 // 64,)))],
        [encode_model_source(ModelSource(None, (size + 4_096 + 1,)))],
        [encode_model_source(ModelSource(None, (10,))), encode_model_chunk(bytes(11))],
    ):
        with pytest.raises(MalformedError):
            fetch(arena, fetcher(arena, Liar(arena.sim, lie)), new)


def test_what_was_kept_and_altered_is_not_built_upon(arena: Arena) -> None:
    """Whoever reaches a participant's folder: what has another digest is fetched again."""
    old, _, new = models(arena.sim)
    fetch(arena, fetcher(arena, Liar(arena.sim, whole(stored(arena, old)))), old)
    (path,) = (each for each in (arena.sim.folder / "kept").rglob("*") if each.is_file())
    raw = path.read_bytes()
    path.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    lie = steps(old, *(stored(arena, step.aggregate) for step in arena.sim.segment.lineage))
    channel = Liar(arena.sim, lie, whole(stored(arena, new)))
    assert sha256(fetch(arena, fetcher(arena, channel), new).to_bytes()) == new
    assert len(channel.calls) == 2
    assert kept(arena) == [new.hex()]


def test_a_mask_of_the_same_size_in_its_place_is_neither_used_nor_kept(arena: Arena) -> None:
    agreed, other = arena.sim.agree(0, 3, 17), arena.sim.agree(0, 3, 16)
    lie = whole(stored(arena, other.digest))
    with pytest.raises(DigestError):
        masks(arena, Liar(arena.sim, lie)).mask(SEGMENT, agreed.digest, agreed, MANIFEST.coordinates)
    assert kept(arena) == []


def test_nobody_is_given_what_is_no_model_of_the_segment(arena: Arena) -> None:
    """Payloads of others and aggregates lie beside the models, under digests that the log tells everybody."""
    admission = next(iter(arena.sim.segment.rounds[1].admissions.values()))
    for digest in (admission.update.payload_sha256, arena.sim.segment.lineage[-1].aggregate):
        raw = encode_model_request(ModelRequest(SEGMENT, digest))
        with pytest.raises(NotFoundError):
            list(arena.stream(FETCH_MODEL, ROVER, raw))
