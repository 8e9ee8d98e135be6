"""Models, fetched: the whole, or what is to be added to one that is there already.

A model is used when its SHA-256 is the digest that the log names, and not before: what is added to another model is
compared as the model that comes of it. Where that is another one, the whole is fetched, and compared too.

Two models of each segment are kept. The file of the one that the kept round begins from (`kept_rounds`) stays. Of
clusters' models the last is kept beside them: no round goes on from it, so that it is neither a base nor takes one's
place.

A model that was fetched whole is written into its file at once. What came of additions is written once a minute and at
the end: whoever is killed in between asks again with a model that is a few rounds older.

Format: proto/README.md, "Download" and "Models and aggregates".

Runs in: participant, cli, demo.
Trusts: the log's digests and the terms, which are proven. Nothing that arrives.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import structlog

from sfrl_secure.aggregation.buffers import Room, Rooms
from sfrl_secure.aggregation.models import ModelSnapshot, decode_step, model_bytes, parse_model
from sfrl_secure.errors import DigestError, MalformedError
from sfrl_secure.governance.terms import ModelTerms
from sfrl_secure.ids import Digest, sha256
from sfrl_secure.limits import BASES_MAX
from sfrl_secure.participant.object_files import ObjectFiles
from sfrl_secure.rpc.clients import GatekeeperClient
from sfrl_secure.rpc.downloads import DownloadProgress, Fetched
from sfrl_secure.wire.downloads import ModelRequest

FETCH_SECONDS = 600.0
"""Of a fetch, where nothing else says how long there is time."""
MODELS_KEPT = 2
"""Of each segment."""
CLUSTER_MODELS_KEPT = 1
"""Of each segment, and in files alone."""
WRITE_SECONDS = 60.0
"""Between two writes of models that additions led to."""

_log = structlog.get_logger()


class _Kept:
    """What is kept of one segment."""

    def __init__(self, folder: Path, segment: str, now: float) -> None:
        self.models: OrderedDict[Digest, ModelSnapshot] = OrderedDict()
        self.rooms = Rooms()
        self.unwritten: Digest | None = None
        """The newest model, where no file holds it yet."""
        self.written_at = now
        self.model_files = ObjectFiles(folder / "models" / segment, keep=MODELS_KEPT)
        self.cluster_files = ObjectFiles(folder / "cluster-models" / segment, keep=CLUSTER_MODELS_KEPT)

    def model(self, digest: Digest, terms: ModelTerms) -> ModelSnapshot | None:
        """The model of a digest, where it is here."""
        found = self.models.get(digest)
        if found is not None:
            return found
        raw = self.model_files.read(digest, model_bytes(terms.manifest))
        return None if raw is None else parse_model(raw, terms.manifest, terms.grid_exponent)

    def use(self, digest: Digest, model: ModelSnapshot) -> None:
        """Let a model be the one that was used last."""
        self.models[digest] = model
        self.models.move_to_end(digest)
        while len(self.models) > MODELS_KEPT:
            self.models.popitem(last=False)


class ModelFetcher:
    """Fetches models, and keeps the last ones of each segment in memory and in files. For one thread."""

    def __init__(
        self,
        gatekeeper: GatekeeperClient,
        folder: Path,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        spared: Callable[[str], Digest | None] = lambda segment: None,
    ) -> None:
        """Keep files in `folder`; it is made when it is needed.

        Args:
            spared: says which file of a segment's models stays, however long ago it was used.
        """
        self._gatekeeper, self._folder = gatekeeper, folder
        self._monotonic, self._spared = monotonic, spared
        self._segments: dict[str, _Kept] = {}

    def model(
        self,
        segment: str,
        digest: Digest,
        terms: ModelTerms,
        on_progress: DownloadProgress | None = None,
        *,
        deadline_seconds: float = FETCH_SECONDS,
    ) -> ModelSnapshot:
        """Give the model of a digest.

        Args:
            deadline_seconds: of each fetch, over as many calls as it takes.

        Raises:
            DigestError: what arrived is not that model.
            MalformedError: it is longer than the terms' manifest, or of another manifest or grid.
            NotFoundError, DeniedError, UnavailableError: the gatekeeper does not have it, refuses, does not answer.
        """
        kept = self._of(segment)
        model, is_whole = kept.model(digest, terms), False
        if model is None:
            model, is_whole = self._fetched(kept, segment, digest, terms, on_progress, deadline_seconds)
            kept.unwritten = digest
        kept.use(digest, model)
        if is_whole or self._monotonic() - kept.written_at >= WRITE_SECONDS:
            self._write(segment, kept)
        return model

    def cluster_model(
        self,
        segment: str,
        digest: Digest,
        terms: ModelTerms,
        on_progress: DownloadProgress | None = None,
        *,
        deadline_seconds: float = FETCH_SECONDS,
    ) -> ModelSnapshot:
        """Give a cluster's model: all of it, because no aggregate leads there.

        Args, Raises: as `model`.
        """
        files = self._of(segment).cluster_files
        raw = files.read(digest, model_bytes(terms.manifest))
        if raw is not None:
            return parse_model(raw, terms.manifest, terms.grid_exponent)
        whole = self._whole(segment, digest, terms, on_progress, deadline_seconds)
        model = parse_model(whole, terms.manifest, terms.grid_exponent)
        files.keep(digest, model.raw)
        return model

    def kept_model(self, segment: str, digest: Digest, terms: ModelTerms) -> ModelSnapshot | None:
        """Give the model of a digest where it is kept here; nobody is asked."""
        kept = self._of(segment)
        model = kept.model(digest, terms)
        if model is not None:
            kept.use(digest, model)
        return model

    def room(self, segment: str, length: int) -> Room:
        """Give memory to write into until it is let go of: mostly that of a model that is gone, or of the next one."""
        return self._of(segment).rooms.take(length)

    def write(self) -> None:
        """Write the newest model of each segment into its file, where it is in none."""
        for segment, kept in self._segments.items():
            self._write(segment, kept)

    def _of(self, segment: str) -> _Kept:
        if segment not in self._segments:
            self._segments[segment] = _Kept(self._folder, segment, self._monotonic())
        return self._segments[segment]

    def _write(self, segment: str, kept: _Kept) -> None:
        if kept.unwritten is not None and kept.unwritten in kept.models:
            raw = kept.models[kept.unwritten].raw
            kept.model_files.keep(kept.unwritten, raw, spared=self._spared(segment))
            kept.written_at = self._monotonic()
        kept.unwritten = None

    def _fetched(
        self,
        kept: _Kept,
        segment: str,
        digest: Digest,
        terms: ModelTerms,
        on_progress: DownloadProgress | None,
        deadline_seconds: float,
    ) -> tuple[ModelSnapshot, bool]:
        """The model, and whether all of it was fetched."""
        has = tuple(dict.fromkeys((*reversed(kept.models), *kept.model_files.names())))[:BASES_MAX]
        fetched = self._gatekeeper.fetch_model(
            ModelRequest(segment, digest, has), model_bytes(terms.manifest),
            deadline_seconds=deadline_seconds, on_progress=on_progress,
        )  # fmt: skip
        if fetched.base is None:
            raw = _checked(fetched.objects[0], digest)
        else:
            stepped = _stepped(kept, fetched, fetched.base, terms)
            if stepped is not None and sha256(stepped.raw) == digest:
                return stepped, False
            _log.warning("model_fetched_whole", segment=segment, digest=digest.hex())
            raw = self._whole(segment, digest, terms, on_progress, deadline_seconds)
        kept.rooms.give(raw)
        return parse_model(raw, terms.manifest, terms.grid_exponent), True

    def _whole(
        self,
        segment: str,
        digest: Digest,
        terms: ModelTerms,
        on_progress: DownloadProgress | None,
        deadline_seconds: float,
    ) -> memoryview:
        fetched = self._gatekeeper.fetch_model(
            ModelRequest(segment, digest), model_bytes(terms.manifest),
            deadline_seconds=deadline_seconds, on_progress=on_progress,
        )  # fmt: skip
        return _checked(fetched.objects[0], digest)


def _checked(raw: memoryview, digest: Digest) -> memoryview:
    if sha256(raw) != digest:
        raise DigestError("the model that arrived is not the one that the log names: ask another gatekeeper")
    return raw


def _stepped(kept: _Kept, fetched: Fetched, base: Digest, terms: ModelTerms) -> ModelSnapshot | None:
    """The base with everything added to it; None where the base is gone, or something is not to be added."""
    try:
        model = kept.model(base, terms)
        for raw in fetched.objects if model is not None else ():
            assert model is not None
            step = decode_step(raw, terms.manifest, terms.grid_exponent)
            model = model.add_parts(step, room=kept.rooms.take(model_bytes(terms.manifest)))
    except MalformedError:
        return None
    return model
