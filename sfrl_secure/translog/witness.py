"""The witness protocol: what is asked of a witness, and what it decides.

`open_add_checkpoint` needs nothing but the request and the log's keys, and runs for many requests at once.
`decide_growth` is a pure function of it and of what is recorded. Whoever calls that holds a lock from reading what is
recorded until `new_state` is durable, and only then answers: a cosignature that left before its state was kept could be
contradicted after a crash.

Stricter than the specification: a checkpoint is trusted when EVERY key of the newest generation known for its origin
has a line that holds, and a line of any known key that does not hold rejects it.

Format: c2sp.org/tlog-witness v1.0.0.

Runs in: audit_log (asks), verifier (decides).
Trusts: the log keys that the witness is configured with. Nothing in the request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sfrl_secure.errors import ConsistencyError, MalformedError, SignatureError
from sfrl_secure.ids import Digest
from sfrl_secure.limits import NOTE_BYTES_MAX
from sfrl_secure.translog.canonical_text import (
    COUNT_END,
    format_base64,
    parse_base64_digest,
    parse_decimal,
    parse_utf8,
)
from sfrl_secure.translog.checkpoint import Checkpoint, parse_checkpoint
from sfrl_secure.translog.merkle import EMPTY_ROOT
from sfrl_secure.translog.note import (
    Note,
    NoteSignature,
    VerifierKey,
    add_signatures,
    format_note,
    parse_note,
    parse_signature_lines,
)
from sfrl_secure.translog.opened import verify_lines
from sfrl_secure.translog.policy import TrustedLog
from sfrl_secure.translog.proofs import PATH_HASHES_MAX, ConsistencyProof, check_path, verify_consistency

_HEAD_BYTES_MAX = 32 + PATH_HASHES_MAX * 45

ADD_CHECKPOINT_BYTES_MAX = _HEAD_BYTES_MAX + NOTE_BYTES_MAX
"""One request body."""

TEXT = "text/plain; charset=utf-8"
TLOG_SIZE = "text/x.tlog.size"


@dataclass(frozen=True, slots=True)
class AddCheckpointRequest:
    """What a log asks a witness to cosign.

    Attributes:
        old_size: size that the witness is believed to have recorded.
        path: consistency proof from that size, at most 63 hashes.
        note: the checkpoint note as it stands, at most 128 KiB.
    """

    old_size: int
    path: tuple[Digest, ...]
    note: bytes

    def __post_init__(self) -> None:
        if not 0 <= self.old_size < COUNT_END:
            raise MalformedError("an old size is below 2**63")
        check_path(self.path)
        if len(self.note) > NOTE_BYTES_MAX:
            raise MalformedError(f"a note is at most {NOTE_BYTES_MAX} bytes")


@dataclass(frozen=True, slots=True)
class OpenedRequest:
    """A request whose checkpoint the log has signed.

    Attributes:
        old_size: as it was asked, at most the checkpoint's size.
        path: as it was asked, not yet verified.
        checkpoint: what the log signed.
        note: its note, with one line of each known key that signed: what a stranger added is neither kept nor given on.
    """

    old_size: int
    path: tuple[Digest, ...]
    checkpoint: Checkpoint
    note: Note


@dataclass(frozen=True, slots=True)
class WitnessState:
    """What a witness keeps of one log.

    Attributes:
        checkpoint: the latest that it cosigned.
        note: that checkpoint under the log's lines and the witness's own, as the monitoring endpoint gives it out.
    """

    checkpoint: Checkpoint
    note: bytes


@dataclass(frozen=True, slots=True)
class WitnessAnswer:
    """What to record and what to answer.

    Attributes:
        status: HTTP status: 200, 400, 403, 404, 409 or 422.
        content_type: of the body.
        body: cosignature lines for 200, the recorded size for 409, else one sentence.
        new_state: for 200, what must be durable before the answer goes out; else none.
        equivocation: both notes, where the log has signed two roots for the recorded size: to be kept and shown.
    """

    status: int
    content_type: str
    body: bytes
    new_state: WitnessState | None = None
    equivocation: ConsistencyError | None = None


def format_add_checkpoint(request: AddCheckpointRequest) -> bytes:
    """Write a request body."""
    lines = [f"old {request.old_size}", *(format_base64(step) for step in request.path)]
    return ("\n".join(lines) + "\n\n").encode() + request.note


def parse_add_checkpoint(raw: bytes) -> AddCheckpointRequest:
    """Parse a request body. The note inside is not yet looked at.

    Raises:
        MalformedError: not of the form, or above our bounds.
    """
    if len(raw) > ADD_CHECKPOINT_BYTES_MAX:
        raise MalformedError(f"a request is at most {ADD_CHECKPOINT_BYTES_MAX} bytes")
    head, separator, note = bytes(raw).partition(b"\n\n")
    if not separator:
        raise MalformedError("a request has an empty line before its checkpoint")
    first, *steps = parse_utf8(head, bytes_max=_HEAD_BYTES_MAX).split("\n")
    if not first.startswith("old "):
        raise MalformedError("the first line of a request is the old size")
    old_size = parse_decimal(first.removeprefix("old "))
    return AddCheckpointRequest(old_size, tuple(parse_base64_digest(step) for step in steps), note)


def open_add_checkpoint(raw: bytes, logs: Mapping[str, TrustedLog]) -> OpenedRequest | WitnessAnswer:
    """Parse a request and verify that the log has signed its checkpoint; what it is refused with, where it is not so.

    Args:
        raw: the body as it came.
        logs: by origin.
    """
    try:
        request = parse_add_checkpoint(raw)
        note = parse_note(request.note)
        checkpoint = parse_checkpoint(note.text)
    except MalformedError as error:
        return _refusal(400, str(error))
    log = logs.get(checkpoint.origin)
    if log is None:
        return _refusal(404, "this witness does not know the log")
    try:
        signed = verify_lines(note, log.keys).keys()
    except SignatureError:
        return _refusal(403, "a signature of the log does not hold")
    if not signed >= set(log.generations[-1]):
        return _refusal(403, "a key of the log has no signature on the checkpoint")
    if request.old_size > checkpoint.size:
        return _refusal(400, "the old size is above the checkpoint's")
    first = {(line.name, line.key_id): line for line in reversed(note.signatures)}
    lines = tuple(first[key.name, key.key_id] for key in log.keys if key in signed)
    return OpenedRequest(request.old_size, request.path, checkpoint, Note(note.text, lines))


def decide_growth(
    request: OpenedRequest, recorded: WitnessState | None, cosign: Callable[[str], Sequence[NoteSignature]]
) -> WitnessAnswer:
    """Decide about a checkpoint that the log has signed, by the steps of tlog-witness.

    Args:
        recorded: the latest cosigned checkpoint of this log, read under the lock that the caller holds; none yet.
        cosign: signs the checkpoint's note text with the witness's keys, one line or more, at the time now.
    """
    checkpoint = request.checkpoint
    old_size = recorded.checkpoint.size if recorded else 0
    old_root = recorded.checkpoint.root if recorded else EMPTY_ROOT
    equivocation = None
    if recorded and checkpoint.size == old_size and checkpoint.root != old_root:
        equivocation = ConsistencyError(older=recorded.note, newer=format_note(request.note))
    if request.old_size != old_size:
        return WitnessAnswer(409, TLOG_SIZE, b"%d\n" % old_size, equivocation=equivocation)
    if equivocation:
        return _refusal(422, "another root for the recorded size", equivocation)
    try:
        # At size 0 this also demands the empty tree's root: the older tree is then the empty one too.
        verify_consistency(ConsistencyProof(old_size, checkpoint.size, request.path), old_root, checkpoint.root)
    except ConsistencyError:
        return _refusal(422, "the consistency proof does not hold")
    lines = tuple(cosign(request.note.text))
    assert lines, "a witness without a key has nothing to decide"
    state = WitnessState(checkpoint, format_note(add_signatures(request.note, lines)))
    return WitnessAnswer(200, TEXT, "".join(line.line for line in lines).encode(), new_state=state)


def decide_add_checkpoint(
    request_raw: bytes,
    *,
    logs: Mapping[str, TrustedLog],
    recorded: Mapping[str, WitnessState],
    cosign: Callable[[str], Sequence[NoteSignature]],
) -> WitnessAnswer:
    """Decide a request by all the steps of tlog-witness, in order; the first that fails gives the status.

    The caller holds the lock for both halves.
    """
    opened = open_add_checkpoint(request_raw, logs)
    if isinstance(opened, WitnessAnswer):
        return opened
    return decide_growth(opened, recorded.get(opened.checkpoint.origin), cosign)


def _refusal(status: int, sentence: str, equivocation: ConsistencyError | None = None) -> WitnessAnswer:
    return WitnessAnswer(status, TEXT, f"{sentence}\n".encode(), equivocation=equivocation)


def parse_recorded_size(body: bytes) -> int:
    """Parse the body of a 409: the size that the witness has recorded.

    Raises:
        MalformedError: not one canonical decimal and a newline.
    """
    text = parse_utf8(body, bytes_max=32)
    if not text.endswith("\n"):
        raise MalformedError("a recorded size ends with a newline")
    return parse_decimal(text[:-1])


def parse_cosignature_lines(body: bytes) -> tuple[NoteSignature, ...]:
    """Parse the body of a 200. Nothing in it is believed yet.

    Raises:
        MalformedError: not 1 to 64 signature lines within the bound of a note.
    """
    return parse_signature_lines(parse_utf8(body, bytes_max=NOTE_BYTES_MAX))


def open_cosignature_lines(body: bytes, text: str, keys: Sequence[VerifierKey]) -> tuple[NoteSignature, ...]:
    """Parse the body of a 200, and keep the lines by which `keys` cosigned the checkpoint of this note text.

    Lines of unknown keys are ignored.

    Raises:
        MalformedError: not signature lines.
        SignatureError: a known key's line does not hold or has time 0, or no known key signed.
    """
    lines = parse_cosignature_lines(body)
    times = verify_lines(Note(text, lines), keys)
    if not times or not all(times.values()):
        raise SignatureError("the witness's answer has no timed cosignature by a known key")
    known = {(key.name, key.key_id) for key in times}
    return tuple(line for line in lines if (line.name, line.key_id) in known)
