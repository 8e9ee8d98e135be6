"""What can go wrong, by kind of refusal.

The class says what kind of refusal it is and fixes the exit code and the gRPC status; the sentence says what was
refused. Messages quote our limits, never the peer's bytes. A parser's `ValueError` never gets out.

Runs in: everything.
Trusts: nothing.
"""

from __future__ import annotations


class SfrlError(Exception):
    """Root of every error that this package raises on purpose."""


class MalformedError(SfrlError):
    """Bytes that do not follow their format: nothing in them was believed."""


class PayloadError(MalformedError):
    """An update's payload breaks a rule of the codec.

    Attributes:
        reason: the reason of the first rule that is broken: proto/README.md, "Codec".
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class VerificationError(SfrlError):
    """A cryptographic or recomputed claim that does not hold."""


class SignatureError(VerificationError):
    """A signature, or a set of signatures, does not hold for the exact bytes."""


class InclusionError(VerificationError):
    """An entry is not proven to be in the tree."""


class ConsistencyError(VerificationError):
    """Two checkpoints of one log cannot both be true. Carries the evidence."""

    def __init__(self, message: str = "log presented inconsistent checkpoints", *, older: bytes = b"",
                 newer: bytes = b"") -> None:
        super().__init__(message)
        self.older, self.newer = older, newer


class DigestError(VerificationError):
    """Bytes do not have the SHA-256 that names them."""


class DeniedError(SfrlError):
    """A rule of the federation does not allow the request.

    Attributes:
        reason: the reason code of proto/README.md, "Admission": lower case, words joined by underscores.
        entry_index: leaf index of the refusal's own entry; None where it has none or none is known.
    """

    def __init__(self, reason: str, message: str, *, entry_index: int | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.entry_index = entry_index


class RoundStateError(DeniedError):
    """The round, the segment or the model is not in the state that the request needs."""


class ConflictError(SfrlError):
    """A conditional append met a newer log: read on and decide again. Nothing was logged.

    Attributes:
        reason: reason code of what no longer holds.
        log_size: entries that the caller should have read before it decides again; 0 where unknown.
    """

    def __init__(self, message: str, *, reason: str = "stale", log_size: int = 0) -> None:
        super().__init__(message)
        self.reason = reason
        self.log_size = log_size


class ExhaustedError(SfrlError):
    """A stated bound of a resource is reached. It is no decision, and is never stored."""


class UnavailableError(SfrlError):
    """A service does not answer."""


class ClosedError(UnavailableError):
    """What was to be used was closed, by whoever owned it: nothing is tried again."""


class NotFoundError(SfrlError):
    """The named thing is not here."""


class MissingEvidenceError(SfrlError):
    """Something that a check needs is not there, so the check can say neither yes nor no."""


class UncertainStateError(SfrlError):
    """Our own state is uncertain (a failed fsync, time going backwards): the process stops."""
