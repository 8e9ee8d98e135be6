"""A log's checkpoint, opened so that what is false is told from what this trust policy cannot judge.

Around a change of the log's keys an honest checkpoint can be under an older generation than the policy's newest, or
under one that the policy does not have yet: that is evidence which is missing. A known key's line that does not hold,
or a part of a generation, is false.

Rules: proto/README.md, "Checkpoints, tiles, cosignatures".

Runs in: auditors' machines.
Trusts: the trust policy. Nothing in the note.
"""

from __future__ import annotations

from sfrl_secure.errors import MissingEvidenceError, NotFoundError, SignatureError
from sfrl_secure.translog.checkpoint import parse_checkpoint
from sfrl_secure.translog.note import Note, parse_note
from sfrl_secure.translog.opened import OpenedCheckpoint, open_checkpoint, verify_lines
from sfrl_secure.translog.policy import TrustedLog, TrustPolicy


def open_newest(raw: bytes, policy: TrustPolicy) -> OpenedCheckpoint:
    """Open what a log says today, under the newest generation of its keys. The quorum is for the caller.

    Raises:
        MalformedError: not a note, not a checkpoint.
        VerificationError: it does not hold.
        MissingEvidenceError: it is under an older generation, or under keys that the policy does not have.
        NotFoundError: the policy lists no log of its origin.
    """
    opened = open_kept(raw, policy)
    if opened.is_current:
        return opened
    log = policy.log(opened.checkpoint.origin)
    assert log is not None, "the checkpoint was opened with it"
    raise MissingEvidenceError(
        f"the checkpoint is signed by generation {_generation(parse_note(raw), log)}; the trust policy's newest is"
        f" {len(log.generations)}: get a checkpoint from after the rotation, or verify with the policy of its time"
    )


def open_kept(raw: bytes, policy: TrustPolicy) -> OpenedCheckpoint:
    """Open a checkpoint that may be old, under any one generation of the log's keys. The quorum is for the caller.

    Raises:
        MalformedError, VerificationError, NotFoundError: as `open_newest`.
        MissingEvidenceError: it is under keys that the policy does not have.
    """
    note = parse_note(raw)
    log = policy.log(parse_checkpoint(note.text).origin)
    if log is None:
        raise NotFoundError("the trust policy lists no log of this origin")
    try:
        return open_checkpoint(raw, policy, quorum=False, archived=True)
    except SignatureError:
        # A witness's line that does not hold is as false as the log's own: this raises then, as opening did.
        signed = verify_lines(note, [*log.keys, *(witness.key for witness in policy.witnesses)])
        if signed.keys() & set(log.keys) or all(line.name != log.origin for line in note.signatures):
            raise
    raise MissingEvidenceError(
        "the checkpoint is signed with keys that this trust policy does not have: if the log's keys were replaced,"
        " get the newer trust policy"
    )


def _generation(note: Note, log: TrustedLog) -> int:
    """The newest generation that signed, from 1; the caller has opened the note."""
    signed = verify_lines(note, log.keys).keys()
    return max(number for number, keys in enumerate(log.generations, start=1) if signed >= set(keys))
