"""Opening a checkpoint: from a signed note and a trust policy to a statement that may be believed.

An `OpenedCheckpoint` exists only after a valid line of EVERY key of the newest generation that the policy lists for the
origin: stricter than tlog-policy, which takes any one, so that stripping the ML-DSA-44 line and forging the other is of
no use. What was signed before the log's keys were replaced opens only where the caller says that it reads an archive;
keys that are retired may have been stolen since, so an archived note is worth what its witnesses are. Lines of unknown
keys are ignored; a line of a known key that does not hold rejects the whole note.

Rules: PROTOCOL 2; proto/README.md, "Checkpoints, tiles, cosignatures". Format: c2sp.org/signed-note, tlog-policy.

Runs in: everything.
Trusts: the trust policy. Nothing in the note.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from sfrl_secure.errors import SignatureError, VerificationError
from sfrl_secure.translog.checkpoint import Checkpoint, parse_checkpoint
from sfrl_secure.translog.cosignature import verify_line
from sfrl_secure.translog.merkle import EMPTY_ROOT
from sfrl_secure.translog.note import Note, VerifierKey, parse_note
from sfrl_secure.translog.policy import TrustPolicy


@dataclass(frozen=True, slots=True)
class OpenedCheckpoint:
    """A checkpoint under every key of a generation of its log.

    Attributes:
        checkpoint: what the log signed.
        note: the note as it came.
        witness_times: the policy's name of each witness whose cosignature holds, and its time in seconds since 1970,
            the latest if it signed twice. Whether that is fresh enough is for the caller's clock.
        quorum_met: whether those witnesses are the policy's quorum; always, where the quorum is `none`.
        is_current: whether the newest generation of the log's keys signed; always, unless it was opened as archived.
    """

    checkpoint: Checkpoint
    note: bytes
    witness_times: Mapping[str, int]
    quorum_met: bool
    is_current: bool


def open_checkpoint(
    raw_note: bytes, policy: TrustPolicy, *, quorum: bool, archived: bool = False
) -> OpenedCheckpoint:
    """Parse a checkpoint note, and verify the log's keys, known witnesses and, when asked, the quorum.

    Args:
        archived: whether any one whole generation of the log's keys is enough, and not only the newest: for receipts
            and checkpoints that were kept, never for what a log says today.

    Raises:
        MalformedError: not a note, not a checkpoint.
        SignatureError: the origin is not in the policy, a key of the generation has no line, a known key's line does
            not hold, or the quorum is asked for and not met.
        VerificationError: size 0 with another root than the empty tree's.
    """
    note = parse_note(raw_note)
    checkpoint = parse_checkpoint(note.text)
    log = policy.log(checkpoint.origin)
    if log is None:
        raise SignatureError("the trust policy lists no log of this origin")
    times = verify_lines(note, [*log.keys, *(witness.key for witness in policy.witnesses)])
    is_current = times.keys() >= set(log.generations[-1])
    if not is_current and not (archived and any(times.keys() >= set(keys) for keys in log.generations)):
        raise SignatureError("a key of the log has no line on the checkpoint")
    check_empty_root(checkpoint)
    # Time 0 makes no claim that this was the largest tree seen: it is no witness's word.
    witness_times = {witness.name: times[witness.key] for witness in policy.witnesses if times.get(witness.key)}
    quorum_met = policy.is_quorum(witness_times.keys())
    if quorum and not quorum_met:
        raise SignatureError("the witnesses that cosigned are not the quorum of the trust policy")
    return OpenedCheckpoint(checkpoint, bytes(raw_note), MappingProxyType(witness_times), quorum_met, is_current)


def verify_lines(note: Note, keys: Iterable[VerifierKey]) -> dict[VerifierKey, int]:
    """Verify each line that a key of `keys` claims, and give the keys that signed with their latest times.

    Whether enough of them signed is for the caller; without a known key the result is empty.

    Raises:
        SignatureError: a known key's line does not hold.
        MalformedError: a cosignature on a text that is no checkpoint.
    """
    known = {(key.name, key.key_id): key for key in keys}
    times: dict[VerifierKey, int] = {}
    for signature in note.signatures:
        key = known.get((signature.name, signature.key_id))
        if key is not None:
            time_seconds = verify_line(note.text, signature, key)
            times[key] = max(time_seconds, times.get(key, 0))
    return times


def check_empty_root(checkpoint: Checkpoint) -> None:
    """Hold a checkpoint of size 0 to the root of the empty tree.

    Raises:
        VerificationError: it has another.
    """
    if checkpoint.size == 0 and checkpoint.root != EMPTY_ROOT:
        raise VerificationError("a checkpoint of size 0 has the root of the empty tree")
