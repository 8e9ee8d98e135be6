"""Signing the log's checkpoints, and the promise never to sign two that contradict each other.

Sizes that are signed rise, and what is signed is durable before. The last signed note is kept in a file apart from
journal and tiles: a log that was put back to an older state does not open. That file is written before a checkpoint
goes to the witnesses and not before each signature, so that a batch costs one sync; the witnesses, asked at each
start, know the rest.

Format: proto/README.md, "Checkpoints, tiles, cosignatures".

Runs in: audit_log.
Trusts: its own keys; the tree that it is given.
"""

from __future__ import annotations

import threading
from pathlib import Path

from sfrl_secure.clock import Clock
from sfrl_secure.errors import MalformedError, NotFoundError, UncertainStateError, VerificationError
from sfrl_secure.ids import Digest
from sfrl_secure.limits import NOTE_BYTES_MAX
from sfrl_secure.storage.files import SECRET_MODE, read_bounded, write_atomically
from sfrl_secure.translog.checkpoint import Checkpoint
from sfrl_secure.translog.cosignature import Cosigner, sign_checkpoint
from sfrl_secure.translog.note import NoteSigner
from sfrl_secure.translog.opened import OpenedCheckpoint, open_checkpoint
from sfrl_secure.translog.policy import TrustPolicy
from sfrl_secure.translog.tree import MerkleTree

SIGNED_NAME = "signed"
"""The file with the last signed note."""


class CheckpointSigner:
    """Signs with both keys of the log, each size once and in rising order."""

    def __init__(self, signer: NoteSigner, cosigner: Cosigner, clock: Clock) -> None:
        """Sign under the name that both keys bear, which is the origin."""
        self.origin = signer.key.name
        self._signer = signer
        self._cosigner = cosigner
        self._clock = clock
        self._last: Checkpoint | None = None

    @property
    def vkeys(self) -> tuple[str, str]:
        """The Ed25519 and the ML-DSA-44 vkey."""
        return self._signer.key.vkey, self._cosigner.key.vkey

    def sign(self, size: int, root: Digest) -> bytes:
        """Sign a checkpoint of durable entries.

        Raises:
            UncertainStateError: a larger size, or another root for this one, was signed before.
        """
        checkpoint = Checkpoint(self.origin, size, root)
        last = self._last
        if last is not None and (size < last.size or (size == last.size and root != last.root)):
            raise UncertainStateError("a checkpoint was signed that this one contradicts")
        note = sign_checkpoint(checkpoint, self._signer, self._cosigner, self._clock.now_us() // 1_000_000)
        self._last = checkpoint
        return note


class SignedHead:
    """The last signed note on the disk."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / SIGNED_NAME
        self._lock = threading.Lock()
        self._kept = b""

    def check(self, origin: str, policy: TrustPolicy, tree: MerkleTree) -> None:
        """Check that the tree still holds what was signed.

        Raises:
            UncertainStateError: it does not, or the note is not ours.
        """
        try:
            note = read_bounded(self._path, NOTE_BYTES_MAX)
        except NotFoundError:
            return  # A new log has signed nothing.
        check_ours(note, origin, policy, tree)

    def keep(self, note: bytes) -> None:
        """Keep a newer note, durably.

        Raises:
            UncertainStateError: the disk did not confirm.
        """
        with self._lock:
            if note != self._kept:
                write_atomically(self._path, note, mode=SECRET_MODE)
                self._kept = note


def check_ours(note: bytes, origin: str, policy: TrustPolicy, tree: MerkleTree) -> OpenedCheckpoint:
    """Check that a note under our keys is one of this tree; give it opened.

    Raises:
        UncertainStateError: it is not of our log, of a size that we have not, or of another root.
    """
    try:
        opened = open_checkpoint(note, policy, quorum=False)
    except (MalformedError, VerificationError) as error:
        raise UncertainStateError("a note that should be ours does not bear our signatures") from error
    checkpoint = opened.checkpoint
    if checkpoint.origin != origin:
        raise UncertainStateError("a note that should be ours is another log's")
    if checkpoint.size > tree.size:
        raise UncertainStateError("we have signed for more entries than the journal holds")
    if checkpoint.root != tree.root(checkpoint.size):
        raise UncertainStateError("we have signed another root for this size")
    return opened
