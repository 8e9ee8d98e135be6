"""Models and masks, fetched: the whole, or what is to be added to one that is there already.

A model is used when its SHA-256 is the digest that the log names, and not before: what is added to another model is
compared as the model that comes of it. Where that is another one, the whole is fetched, and compared too.

Two models and two masks of each segment are kept. The files of those that the kept round begins from (`kept_rounds`)
stay.

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

from sfrl_secure.aggregation.buffers import ModelRooms, Room
from sfrl_secure.aggregation.models import ModelSnapshot, decode_step, model_bytes, parse_model
from sfrl_secure.errors import DigestError, MalformedError
from sfrl_secure.governance.aggregation_terms import MaskTerms
from sfrl_secure.governance.terms import ModelTerms
from sfrl_secure.ids import Digest, sha256
from sfrl_secure.limits import BASES_MAX
from sfrl_secure.participant.object_files import ObjectFiles
from sfrl_secure.rpc.clients import GatekeeperClient
from sfrl_secure.rpc.downloads import DownloadProgress, Fetched
from sfrl_secure.sparse.mask import Mask, decode_mask
from sfrl_secure.wire.downloads import ModelRequest

FETCH_SECONDS = 600.0
"""Of a fetch, where nothing else says how long there is time."""
MODELS_KEPT = 2
"""Of each segment."""
MASKS_KEPT = 2
"""Of each segment."""
WRITE_SECONDS = 60.0
"""Between two writes of models that additions led to."""

_log = structlog.get_logger()


class _Kept:
    """What is kept of one segment."""

    def __init__(self, folder: Path, segment: str, now: float) -> None:
        self.models: OrderedDict[Digest, ModelSnapshot] = OrderedDict()
        self.rooms = ModelRooms()
        self.unwritten: Digest | None = None
        """The newest model, where no file holds it yet."""
        self.written_at = now
        self.mask: Mask | None = None
        self.model_files = ObjectFiles(folder / "models" / segment, keep=MODELS_KEPT)
        self.mask_files = ObjectFiles(folder / "masks" / segment, keep=MASKS_KEPT)

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

    def mask_of(self, digest: Digest, wanted: MaskTerms, coordinates: int) -> Mask | None:
        """The mask of a digest, where it is here.

        Raises:
            MalformedError: it is no mask of this model, or of another number of coordinates than the terms say.
        """
        if self.mask is None or self.mask.digest != digest:
            raw = self.mask_files.read(digest, _mask_bytes_max(wanted.nonzeros))
            if raw is None:
                return None
            self.mask = _open_mask(raw, wanted, coordinates)
        return self.mask


class ModelFetcher:
    """Fetches models and masks, and keeps the last ones of each segment in memory and in files. For one thread."""

    def __init__(
        self,
        gatekeeper: GatekeeperClient,
        folder: Path,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        spared: Callable[[str], Digest | None] = lambda segment: None,
        spared_mask: Callable[[str], Digest | None] = lambda segment: None,
    ) -> None:
        """Keep files in `folder`; it is made when it is needed.

        Args:
            spared: says which file of a segment's models stays, however long ago it was used; `spared_mask`, of its
                masks.
        """
        self._gatekeeper, self._folder = gatekeeper, folder
        self._monotonic, self._spared, self._spared_mask = monotonic, spared, spared_mask
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

    def kept_model(self, segment: str, digest: Digest, terms: ModelTerms) -> ModelSnapshot | None:
        """Give the model of a digest where it is kept here; nobody is asked."""
        kept = self._of(segment)
        model = kept.model(digest, terms)
        if model is not None:
            kept.use(digest, model)
        return model

    def room(self, segment: str, terms: ModelTerms) -> Room:
        """Give room for numbers of a model's size until they are let go of: mostly that of the next model."""
        return self._of(segment).rooms.take(model_bytes(terms.manifest))

    def write(self) -> None:
        """Write the newest model of each segment into its file, where it is in none."""
        for segment, kept in self._segments.items():
            self._write(segment, kept)

    def mask(
        self,
        segment: str,
        digest: Digest,
        wanted: MaskTerms,
        coordinates: int,
        on_progress: DownloadProgress | None = None,
    ) -> Mask:
        """Give the mask of a digest.

        Args:
            digest: what the round began with (`OpenRound.mask`).
            wanted: what its terms say of its masks.

        Raises:
            DigestError: what arrived is not that mask.
            MalformedError: it is no mask of this model, or of another number of coordinates than the terms say.
            NotFoundError, DeniedError, UnavailableError: as `model`.
        """
        mask = self.kept_mask(segment, digest, wanted, coordinates)
        if mask is not None:
            return mask
        request = ModelRequest(segment, digest)
        raw = bytes(self._fetch(request, _mask_bytes_max(wanted.nonzeros), on_progress).objects[0])
        if sha256(raw) != digest:
            raise DigestError("the mask that arrived is not the one that the log names: ask another gatekeeper")
        kept = self._of(segment)
        kept.mask_files.keep(digest, raw, spared=self._spared_mask(segment))
        kept.mask = _open_mask(raw, wanted, coordinates)
        return kept.mask

    def kept_mask(self, segment: str, digest: Digest, wanted: MaskTerms, coordinates: int) -> Mask | None:
        """Give the mask of a digest where it is kept here; nobody is asked.

        Raises:
            MalformedError: as `mask`.
        """
        return self._of(segment).mask_of(digest, wanted, coordinates)

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
        bytes_max = model_bytes(terms.manifest)
        has = tuple(dict.fromkeys((*reversed(kept.models), *kept.model_files.names())))[:BASES_MAX]
        fetched = self._fetch(ModelRequest(segment, digest, has), bytes_max, on_progress, deadline_seconds)
        if fetched.base is not None:
            stepped = _stepped(kept, fetched, fetched.base, terms)
            if stepped is not None and sha256(stepped.raw) == digest:
                return stepped, False
            _log.warning("model_fetched_whole", segment=segment, digest=digest.hex())
            fetched = self._fetch(ModelRequest(segment, digest), bytes_max, on_progress, deadline_seconds)
        raw = fetched.objects[0]
        if sha256(raw) != digest:
            raise DigestError("the model that arrived is not the one that the log names: ask another gatekeeper")
        kept.rooms.give(raw)
        return parse_model(raw, terms.manifest, terms.grid_exponent), True

    def _fetch(
        self,
        request: ModelRequest,
        bytes_max: int,
        on_progress: DownloadProgress | None,
        deadline_seconds: float = FETCH_SECONDS,
    ) -> Fetched:
        return self._gatekeeper.fetch_model(
            request, bytes_max, deadline_seconds=deadline_seconds, on_progress=on_progress
        )


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


def _open_mask(raw: bytes, wanted: MaskTerms, coordinates: int) -> Mask:
    mask = decode_mask(raw, coordinates)
    if mask.indices.size != wanted.nonzeros:
        raise MalformedError("the round's mask has another number of coordinates than its terms say: tell operators")
    return mask


def _mask_bytes_max(nonzeros: int) -> int:
    """No mask of so many coordinates is longer: rules T2 and T3 of the codec, and its header."""
    leaves = -(-nonzeros // 65_536)
    return 28 + leaves * (36 + 4_096) + 24 * nonzeros
