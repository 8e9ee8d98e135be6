"""Equivocation: two checkpoints that one log signed and that cannot both be true.

Whoever has two notes, from two witnesses, from a receipt and the log, or from yesterday and today, finds out here. The
`ConsistencyError` carries both as they were signed: they are the evidence, and anybody who has the trust policy can
check it again.

Runs in: cli.
Trusts: the trust policy. Nothing in the notes.
"""

from __future__ import annotations

from sfrl_secure.errors import ConsistencyError, MalformedError
from sfrl_secure.translog.opened import open_checkpoint
from sfrl_secure.translog.policy import TrustPolicy


def check_one_history(first: bytes, second: bytes, policy: TrustPolicy, *, quorum: bool = False) -> None:
    """Check that two checkpoint notes of one log do not give two roots for one size.

    Two of different sizes pass: whether the smaller is a prefix of the larger takes the log's tiles or a consistency
    proof.

    Raises:
        ConsistencyError: they do, with both notes.
        MalformedError: not two checkpoints of one log.
        SignatureError: a note is not under a whole generation of the log's keys, or not under the quorum where asked.
    """
    older, newer = (open_checkpoint(note, policy, quorum=quorum, archived=True) for note in (first, second))
    if older.checkpoint.origin != newer.checkpoint.origin:
        raise MalformedError("the two checkpoints are not of one log")
    if older.checkpoint.size == newer.checkpoint.size and older.checkpoint.root != newer.checkpoint.root:
        raise ConsistencyError(older=older.note, newer=newer.note)
