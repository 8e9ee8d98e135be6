"""Where a follower goes on after a restart: what it had verified, without the entries.

What is stored of it is believed as far as the log has signed for it: the tree must be that of the stored note, which
the log's keys sign. So a log that shows another history after our restart contradicts a note that we hold.

Runs in: gatekeeper, aggregator.
Trusts: the trust policy; for the chain, the private folder that it was stored in.
"""

from __future__ import annotations

from dataclasses import dataclass

from sfrl_secure.errors import MalformedError, SfrlError, VerificationError
from sfrl_secure.ids import Digest
from sfrl_secure.rpc.chain import Chain
from sfrl_secure.translog.frontier import Frontier
from sfrl_secure.translog.merkle import EMPTY_ROOT
from sfrl_secure.translog.opened import OpenedCheckpoint, open_checkpoint
from sfrl_secure.translog.policy import TrustPolicy


@dataclass(frozen=True, slots=True)
class CoveredTree:
    """A size of the log, its root and the note that signs both; size 0 and no note before the first."""

    tree_size: int = 0
    root: Digest = EMPTY_ROOT
    note: bytes = b""


@dataclass(frozen=True, slots=True)
class FollowerStart:
    """A follower between two entries.

    Attributes:
        hashes: the tree's frontier at the size of `signed`.
        chain: what the next entry joins on to; nobody else changes it.
        signed: the newest size under the log's keys: all entries that were taken.
        witnessed: the newest size under the quorum, not above.
    """

    hashes: tuple[Digest, ...]
    chain: Chain
    signed: CoveredTree
    witnessed: CoveredTree


def open_start(start: FollowerStart, origin: str, policy: TrustPolicy) -> tuple[Frontier, CoveredTree]:
    """Verify a stored start against the trust policy of today.

    Returns: the tree's frontier; and the witnessed size, or nothing where the policy's keys and quorum of today are not
        those of the stored note.

    Raises:
        MalformedError, SignatureError: no frontier, or a note that is none of the log's.
        VerificationError: the frontier is not that of the signed note, or the note is another log's.
    """
    if start.signed.tree_size == 0:
        raise MalformedError("a follower that has taken nothing begins at the first entry")
    frontier = Frontier(start.signed.tree_size, start.hashes)
    # Signed before the log's keys were replaced is signed: the note is compared, and given to nobody.
    signed = open_checkpoint(start.signed.note, policy, quorum=False, archived=True)
    if frontier.root() != start.signed.root or _says(signed, origin) != start.signed:
        raise VerificationError("the stored tree is not that of the stored note")
    try:
        witnessed = open_checkpoint(start.witnessed.note, policy, quorum=True)
    except SfrlError:
        return frontier, CoveredTree()
    if _says(witnessed, origin) != start.witnessed or start.witnessed.tree_size > frontier.size:
        raise VerificationError("the stored witnessed size is not that of its note")
    return frontier, start.witnessed


def _says(opened: OpenedCheckpoint, origin: str) -> CoveredTree | None:
    said = opened.checkpoint
    return CoveredTree(said.size, said.root, opened.note) if said.origin == origin else None
