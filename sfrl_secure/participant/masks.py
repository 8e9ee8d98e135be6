"""Masks of rounds, fetched: the coordinates of agreed updates.

A mask is used when its SHA-256 is the digest that the log names, and when it has as many coordinates as the terms say.
Two of each segment are kept: whoever trains for a round still has its own when the next one has begun. The file of the
one that the kept round begins with (`kept_rounds`) stays.

Format: proto/README.md, "Download"; for the mask itself, "Codec".

Runs in: participant, cli, demo.
Trusts: the log's digests and the terms, which are proven. Nothing that arrives.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sfrl_secure.errors import DigestError, MalformedError
from sfrl_secure.governance.aggregation_terms import MaskTerms
from sfrl_secure.ids import Digest, sha256
from sfrl_secure.participant.models import FETCH_SECONDS
from sfrl_secure.participant.object_files import ObjectFiles
from sfrl_secure.rpc.clients import GatekeeperClient
from sfrl_secure.rpc.downloads import DownloadProgress
from sfrl_secure.sparse.mask import Mask, decode_mask, mask_bytes_max
from sfrl_secure.wire.downloads import ModelRequest

MASKS_KEPT = 2
"""Of each segment, in files; the one that was used last is in memory."""


class MaskFetcher:
    """Fetches masks, and keeps the last ones of each segment. For one thread."""

    def __init__(
        self,
        gatekeeper: GatekeeperClient,
        folder: Path,
        *,
        spared: Callable[[str], Digest | None] = lambda segment: None,
    ) -> None:
        """Keep files in `folder`; it is made when it is needed.

        Args:
            spared: says which file of a segment's masks stays, however long ago it was used.
        """
        self._gatekeeper, self._folder, self._spared = gatekeeper, folder, spared
        self._masks: dict[str, Mask] = {}

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
            coordinates: of the model.

        Raises:
            DigestError: what arrived is not that mask.
            MalformedError: it is no mask of this model, or of another number of coordinates than the terms say.
            NotFoundError, DeniedError, UnavailableError: the gatekeeper does not have it, refuses, does not answer.
        """
        mask = self.kept_mask(segment, digest, wanted, coordinates)
        if mask is not None:
            return mask
        fetched = self._gatekeeper.fetch_model(
            ModelRequest(segment, digest), mask_bytes_max(wanted.nonzeros),
            deadline_seconds=FETCH_SECONDS, on_progress=on_progress,
        )  # fmt: skip
        raw = bytes(fetched.objects[0])
        if sha256(raw) != digest:
            raise DigestError("the mask that arrived is not the one that the log names: ask another gatekeeper")
        self._files(segment).keep(digest, raw, spared=self._spared(segment))
        return self._use(segment, _open_mask(raw, wanted, coordinates))

    def kept_mask(self, segment: str, digest: Digest, wanted: MaskTerms, coordinates: int) -> Mask | None:
        """Give the mask of a digest where it is kept here; nobody is asked.

        Raises:
            MalformedError: as `mask`.
        """
        used = self._masks.get(segment)
        if used is not None and used.digest == digest:
            return used
        raw = self._files(segment).read(digest, mask_bytes_max(wanted.nonzeros))
        return None if raw is None else self._use(segment, _open_mask(raw, wanted, coordinates))

    def _use(self, segment: str, mask: Mask) -> Mask:
        self._masks[segment] = mask
        return mask

    def _files(self, segment: str) -> ObjectFiles:
        return ObjectFiles(self._folder / "masks" / segment, keep=MASKS_KEPT)


def _open_mask(raw: bytes, wanted: MaskTerms, coordinates: int) -> Mask:
    mask = decode_mask(raw, coordinates)
    if mask.indices.size != wanted.nonzeros:
        raise MalformedError("the round's mask has another number of coordinates than its terms say: tell operators")
    return mask
