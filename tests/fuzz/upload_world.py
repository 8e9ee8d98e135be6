"""A gatekeeper's session for uploads, without a server: real intake, real judge, a folder in memory, and two updates.

One update is admitted, the other has too large a norm, which is known only when all of it has come. Keys and documents
are constants, so that a case is the same in every run.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

import numpy as np

from sfrl_secure.crypto.envelope import Envelope, sign_envelope
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.crypto.possession import prove_possession
from sfrl_secure.errors import SfrlError
from sfrl_secure.governance.build import build_participant, build_rules, build_terms
from sfrl_secure.governance.manifest import ModelManifest, TensorSpec
from sfrl_secure.governance.participants import parse_participant
from sfrl_secure.governance.rules import parse_rules
from sfrl_secure.governance.statements import UPDATE_TYPE, PayloadFormat, UpdateStatement
from sfrl_secure.governance.terms import ModelTerms, RoundTerms, UpdateLimits, parse_terms
from sfrl_secure.ids import SpiffeId, sha256
from sfrl_secure.rounds.payloads import PayloadJudge
from sfrl_secure.services.gatekeeper.arrivals import Arrivals, CallEndedError
from sfrl_secure.services.gatekeeper.decoders import Decoders
from sfrl_secure.services.gatekeeper.upload_bounds import UploadBounds, forget_in
from sfrl_secure.services.gatekeeper.uploads import UploadIntake, upload_name
from sfrl_secure.sparse.encode import pack_update, payload_root
from sfrl_secure.sparse.update import SparseUpdate
from sfrl_secure.storage.folder_uploads import FolderUploads
from sfrl_secure.storage.objects import ObjectStore
from sfrl_secure.wire.statements import encode_update

from .quotes import FEDERATION, ROVER
from .world import NOW_US, ed25519_key

PEER: SpiffeId = ROVER
COORDINATES = 1_000
GRID = 16
NORM_MAX = 2**20
_UNTIL_US = NOW_US + 10**12


@dataclass(frozen=True)
class SignedPayload:
    """An update that the rover has signed."""

    envelope: Envelope
    update: UpdateStatement
    payload: bytes
    is_admitted: bool


class InlineDecoders(Decoders):
    """Reads each part when it comes, in the thread that brings it: what is refused first is the same in every run."""

    def lane(self, take: Callable[[Any], None], on_error: Callable[[], None] = lambda: None) -> Any:
        return _InlineLane(take)


class _InlineLane:
    def __init__(self, take: Callable[[Any], None]) -> None:
        self.put = take

    def check(self) -> None:
        """Nothing waits."""

    finish = drop = check


class InlineArrivals(Arrivals):
    """Takes each message when it is asked for, in the thread that asks."""

    def next(self, timeout_seconds: float | None) -> bytes | None:
        if self._error is not None:
            raise CallEndedError(self._error)
        try:
            message = next(self._requests, None)
        except SfrlError as error:
            raise CallEndedError(error) from None
        self._has_ended = message is None
        return message


@cache
def key() -> SigningKey:
    """The rover's key."""
    return SigningKey(ed25519_key("rover"), None)


@cache
def updates() -> tuple[SignedPayload, ...]:
    """One that is admitted, one that is not."""
    rng = np.random.default_rng(5)
    indices = np.arange(0, COORDINATES, 4, dtype=np.int64)
    small = rng.integers(1, 100, indices.size)
    return _signed(indices, small, is_admitted=True), _signed(indices, small << 30, is_admitted=False)


def _signed(indices: Any, values: Any, *, is_admitted: bool) -> SignedPayload:
    payload = pack_update(SparseUpdate(COORDINATES, indices, values), value_type="exact", grid_exponent=GRID)
    update = UpdateStatement(
        federation_id=FEDERATION, segment="rocks", participant=ROVER.name, key_id=key().public_key.key_id, round=3,
        round_opened=sha256(b"round"), base_model=sha256(b"base"), payload_sha256=sha256(payload),
        payload_root=payload_root(payload), payload_bytes=len(payload), nonzeros=int(indices.size),
        format=PayloadFormat(2, "free", "exact"), weight=40, created_us=NOW_US,
    )  # fmt: skip
    return SignedPayload(sign_envelope(UPDATE_TYPE, encode_update(update), [key()]), update, payload, is_admitted)


def judge_of(update: UpdateStatement) -> PayloadJudge:
    """What decides on an update whose header passed."""
    return PayloadJudge(*_documents(), update)


@cache
def _documents() -> tuple[Any, Any, Any]:
    manifest = ModelManifest((TensorSpec("w", (COORDINATES,), "int64"),))
    terms = build_terms(
        federation_id=FEDERATION, expires_us=_UNTIL_US, segment="rocks", sensitivity=3, groups=["rovers"],
        model=ModelTerms(manifest, GRID, sha256(b"initial")), value_types=["exact"],
        limits=UpdateLimits(payload_bytes_max=4_096, nonzeros_max=COORDINATES, norm_max=NORM_MAX, magnitude_max=2**40,
                            weight_max=100),
        round_terms=RoundTerms(duration_us=60_000_000, cohort_min=2, cohort_max=3, rounds_max=3),
        evidence_days=30, retention_days=90,
    )  # fmt: skip
    record = build_participant(
        federation_id=FEDERATION, expires_us=_UNTIL_US, name=ROVER.name, key=key().public_key,
        possession=prove_possession(key(), FEDERATION, ROVER.name), clearance=5, groups=["rovers"],
    )  # fmt: skip
    rules = build_rules(federation_id=FEDERATION, expires_us=_UNTIL_US)
    return parse_terms(terms), parse_rules(rules), parse_participant(record)


class Site:
    """Two gatekeepers over one folder of uploads and one of objects."""

    def __init__(self, decoders: Decoders, arrivals: type[Arrivals]) -> None:
        self.arrivals = arrivals
        self.folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir=in_memory()))
        # Not atexit: a process of a pool ends without it.
        Finalize(None, shutil.rmtree, (self.folder, True), exitpriority=1)
        self._decoders = decoders
        self.objects = ObjectStore(self.folder / "objects")
        self._uploads = FolderUploads(self.folder / "uploads")
        self.forget_all()

    def forget_all(self) -> None:
        """Begin a case: nothing is here."""
        for path in (self.folder / "uploads").iterdir():
            path.unlink()
        for each in updates():
            self.objects.path(each.update.payload_sha256).unlink(missing_ok=True)
        self.intakes = [
            UploadIntake(self._uploads, self.objects, UploadBounds(8, 2**24, forget_in(self._uploads)), self._decoders)
            for _ in range(2)
        ]

    def left(self, envelope: Envelope) -> list[bytes]:
        """What uploads of this envelope have left."""
        name = upload_name(envelope.digest, PEER).hex()
        return [path.read_bytes() for path in (self.folder / "uploads").glob(f"{name}.*")]


def in_memory() -> str | None:
    """A folder that is no disk, where there is one."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


@cache
def inline_site() -> Site:
    """Where what is refused first is the same in every run."""
    return Site(InlineDecoders(), InlineArrivals)


@cache
def threaded_site() -> Site:
    """Where threads receive and decode, as in a gatekeeper."""
    decoders = Decoders()
    decoders.start()
    return Site(decoders, Arrivals)
