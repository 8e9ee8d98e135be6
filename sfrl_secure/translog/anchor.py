"""Anchors: an earlier checkpoint of a log, put into the log itself, and the time that its witnesses give it.

An anchor ties the log's own time to other people's clocks from both sides: what is below its size existed when the
witnesses signed, and what comes after its entry did not exist before. It is a signed note with the Ed25519 lines only,
so that it stays small; lines of other keys and types are ignored.

Quorum time: the smallest t such that those witnesses whose time is at most t are the quorum of the trust policy. No
witness that lies moves it while fewer lie than break the quorum: one that is early does not complete a quorum alone,
one that is late is not waited for.

Format: proto/README.md, "Time"; c2sp.org/signed-note, tlog-checkpoint, tlog-cosignature, tlog-policy.

Runs in: audit_log (writes), verifier (judges).
Trusts: the trust policy. Nothing in the note.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from sfrl_secure.errors import MalformedError, SignatureError
from sfrl_secure.limits import ANCHOR_BYTES_MAX
from sfrl_secure.translog.checkpoint import Checkpoint, parse_checkpoint
from sfrl_secure.translog.note import ED25519, ED25519_COSIGNATURE, Note, VerifierKey, format_note, parse_note
from sfrl_secure.translog.opened import verify_lines
from sfrl_secure.translog.policy import NO_QUORUM, TrustPolicy


@dataclass(frozen=True, slots=True)
class OpenedAnchor:
    """An anchor that an Ed25519 key of its log signed.

    Attributes:
        checkpoint: what the log signed.
        time_seconds: its quorum time, since 1970; None where its lines are no quorum, or the policy asks for none.
    """

    checkpoint: Checkpoint
    time_seconds: int | None


def parse_anchor(raw: bytes) -> Checkpoint:
    """Parse an anchor's note, 1 to 8,192 bytes, and give the checkpoint in it. No line is believed.

    Raises:
        MalformedError: too long, not a note, or no checkpoint in it.
    """
    if len(raw) > ANCHOR_BYTES_MAX:
        raise MalformedError(f"an anchor is at most {ANCHOR_BYTES_MAX} bytes")
    return parse_checkpoint(parse_note(raw).text)


def format_anchor(note_raw: bytes, policy: TrustPolicy) -> bytes:
    """Make the anchor of a checkpoint note: its text, and those of its lines that count in an anchor.

    Raises:
        MalformedError: not a checkpoint note, no line is left, or it is too long.
    """
    note = parse_note(note_raw)
    known = {(key.name, key.key_id) for key in _keys(policy, parse_checkpoint(note.text).origin)}
    lines = tuple(line for line in note.signatures if (line.name, line.key_id) in known)
    raw = format_note(Note(note.text, lines))
    parse_anchor(raw)
    return raw


def open_anchor(raw: bytes, policy: TrustPolicy) -> OpenedAnchor:
    """Parse an anchor, verify every line in it that counts, and give its quorum time.

    A line by any one Ed25519 key of the log, of whatever generation, is enough: the log's tree is at hand to compare.

    Raises:
        MalformedError: not an anchor.
        SignatureError: no Ed25519 key that the policy lists of the log signed, or a line that counts does not hold.
    """
    checkpoint = parse_anchor(raw)
    keys = _keys(policy, checkpoint.origin)
    times = verify_lines(parse_note(raw), keys)
    if not any(key.key_type == ED25519 for key in times):
        raise SignatureError("no Ed25519 key of the log signed the anchor")
    # Time 0 makes no claim that this was the largest tree seen: it is no witness's word.
    signed = {key: time for key, time in times.items() if key.key_type == ED25519_COSIGNATURE and time}
    # A witness with two keys is two members of the policy, and its Ed25519 line speaks for both; but not where two
    # Ed25519 keys bear one name, since nobody knows whose the other key is.
    names = Counter(each.key.name for each in policy.witnesses if each.key.key_type == ED25519_COSIGNATURE)
    by_name = {key.name: time for key, time in signed.items() if names[key.name] == 1}
    counted = {
        each.name: time
        for each in policy.witnesses
        if (time := signed.get(each.key) if each.key.key_type == ED25519_COSIGNATURE else by_name.get(each.key.name))
    }
    return OpenedAnchor(checkpoint, quorum_time(policy, counted))


def quorum_time(policy: TrustPolicy, times: Mapping[str, int]) -> int | None:
    """Give the smallest t such that the witnesses whose time is at most t are the policy's quorum.

    Args:
        times: seconds since 1970, not 0, by the policy's name of each witness whose cosignature was verified.

    Returns: None where all of them are no quorum, or the policy asks for none: then nobody's clock was asked.
    """
    if policy.quorum == NO_QUORUM:
        return None
    for limit in sorted(set(times.values())):
        if policy.is_quorum({name for name, seconds in times.items() if seconds <= limit}):
            return limit
    return None


def _keys(policy: TrustPolicy, origin: str) -> list[VerifierKey]:
    """The keys whose lines count in an anchor of this log."""
    log = policy.log(origin)
    log_keys = () if log is None else log.keys
    return [
        *(key for key in log_keys if key.key_type == ED25519),
        *(each.key for each in policy.witnesses if each.key.key_type == ED25519_COSIGNATURE),
    ]
