"""Signing the log's checkpoints, and the promise never to sign two that contradict each other.

Sizes that are signed rise, and what is signed is durable before. The last signed note is kept apart from journal and
tiles, compared and swapped: a log that was put back to an older state does not open, nor one whose note is gone, and
of two processes one stops. It is written before a checkpoint goes to the witnesses and not before each signature, so
that a batch costs one sync; the witnesses, asked at each start, know the rest.

Format: proto/README.md, "Checkpoints, tiles, cosignatures".

Runs in: audit_log.
Trusts: its own keys; the tree that it is given.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from sfrl_secure.clock import Clock
from sfrl_secure.errors import MalformedError, NotFoundError, UncertainStateError, VerificationError
from sfrl_secure.ids import Digest
from sfrl_secure.sequencer.log_keys import LogKeys
from sfrl_secure.storage.log_store import NOTHING_SIGNED, SignedNote
from sfrl_secure.translog.checkpoint import Checkpoint, format_checkpoint
from sfrl_secure.translog.cosignature import log_lines
from sfrl_secure.translog.note import Note, VerifierKey, format_note
from sfrl_secure.translog.opened import OpenedCheckpoint, open_checkpoint
from sfrl_secure.translog.policy import TrustPolicy
from sfrl_secure.translog.tree import MerkleTree


class CheckpointSigner:
    """Signs with every generation of the log's keys that is in use, each size once and in rising order."""

    def __init__(self, origin: str, generations: Sequence[LogKeys], clock: Clock) -> None:
        """Sign as the log of this origin.

        Args:
            generations: one or more, the oldest first.
        """
        if not generations:
            raise MalformedError("a log signs with one generation of its keys at least")
        self.origin = origin
        self._pairs = tuple((keys.note_signer(origin), keys.cosigner(origin)) for keys in generations)
        self._clock = clock
        self._last: Checkpoint | None = None

    @property
    def generations(self) -> tuple[tuple[VerifierKey, VerifierKey], ...]:
        """The public keys that sign: each generation's Ed25519 and ML-DSA-44 key, the oldest generation first."""
        return tuple((signer.key, cosigner.key) for signer, cosigner in self._pairs)

    def sign(self, size: int, root: Digest) -> bytes:
        """Sign a checkpoint of durable entries.

        Raises:
            UncertainStateError: a larger size, or another root for this one, was signed before.
        """
        checkpoint = Checkpoint(self.origin, size, root)
        last = self._last
        if last is not None and (size < last.size or (size == last.size and root != last.root)):
            raise UncertainStateError("a checkpoint was signed that this one contradicts")
        now_seconds = self._clock.now_us() // 1_000_000
        lines = [line for pair in self._pairs for line in log_lines(checkpoint, *pair, now_seconds)]
        note = format_note(Note(format_checkpoint(checkpoint), tuple(lines)))
        self._last = checkpoint
        return note


class SignedHead:
    """The last signed note, in the store."""

    def __init__(self, kept: SignedNote) -> None:
        self._kept = kept
        self._lock = threading.Lock()
        self._last = b""

    def check(self, origin: str, policy: TrustPolicy, tree: MerkleTree) -> None:
        """Check that the tree still holds what was signed.

        Raises:
            UncertainStateError: it does not, or the note is not ours, or none is there.
        """
        try:
            note = self._kept.read()
        except NotFoundError:
            raise UncertainStateError("the last signed note is missing: what was signed is not known") from None
        if note != NOTHING_SIGNED:
            check_ours(note, origin, policy, tree)

    def keep(self, note: bytes) -> None:
        """Keep a newer note, durably.

        Raises:
            UncertainStateError: another process has kept one, or the store did not confirm.
        """
        with self._lock:
            if note != self._last:
                self._kept.replace(note)
                self._last = note


def check_ours(note: bytes, origin: str, policy: TrustPolicy, tree: MerkleTree) -> OpenedCheckpoint:
    """Check that a note under our keys is one of this tree; give it opened.

    Raises:
        UncertainStateError: it is not of our log, of a size that we have not, or of another root.
    """
    try:
        # Archived: what was kept from before the log's keys were replaced is under the older generation alone.
        opened = open_checkpoint(note, policy, quorum=False, archived=True)
    except (MalformedError, VerificationError) as error:
        raise UncertainStateError("a note that should be ours does not bear our signatures") from error
    check_held(opened, origin, tree)
    return opened


def check_held(opened: OpenedCheckpoint, origin: str, tree: MerkleTree) -> None:
    """Check that a checkpoint under our keys is one of this tree.

    Raises:
        UncertainStateError: it is not of our log, of a size that we have not, or of another root.
    """
    checkpoint = opened.checkpoint
    if checkpoint.origin != origin:
        raise UncertainStateError("a note that should be ours is another log's")
    if checkpoint.size > tree.size:
        raise UncertainStateError("we have signed for more entries than the journal holds")
    if checkpoint.root != tree.root(checkpoint.size):
        raise UncertainStateError("we have signed another root for this size")
