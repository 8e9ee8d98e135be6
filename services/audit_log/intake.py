"""What arrives, judged as far as that needs no order: form, who may bring it, and the writer's signature.

Operators' documents authenticate themselves, so anybody who is admitted may bring them: nobody can sit on another's
revocation. Statements are brought by services alone; who else sends one is refused before its bytes are looked at.

A writer's signature is verified here, in the caller's thread, and not in the sequencer's. The key is the one that the
services document in force names for the statement's writer; the fold compares it with the one that it would take, so
a document that changes in between costs a second verification and nothing else. What is not settled here (documents,
writers that nobody names) the fold decides.

Rules: PROTOCOL R2, 3.

Runs in: audit_log.
Trusts: the fold's services document. Nothing that arrives.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from sfrl_secure.crypto.envelope import Envelope, verify_single
from sfrl_secure.crypto.keys import PublicKey
from sfrl_secure.errors import DeniedError, MalformedError, SfrlError, VerificationError
from sfrl_secure.governance.services import ServicesDocument
from sfrl_secure.governance.statements import STATEMENT_TYPE, Statement
from sfrl_secure.rounds.state import FederationState
from sfrl_secure.rpc.identity import SERVICE_ROLES
from sfrl_secure.sequencer.sequencer import Submission
from sfrl_secure.wire.content import Content, parse_content

Judged = Submission[Content] | SfrlError
"""A submission for the sequencer, or why there is none."""

CHUNK_SIGNATURES = 16
"""So many signatures are one task of the pool, and fewer are verified by whoever asks: a verification is short, and
takes no lock of the interpreter's, but a task costs about as much as one of them."""


class SignatureChecks:
    """Verifies signatures on all cores. Safe for any number of threads; close it."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(min(os.cpu_count() or 1, 4), thread_name_prefix="signatures")

    def hold(self, claims: Sequence[tuple[Envelope, PublicKey]]) -> list[bool]:
        """Say for each envelope whether it has exactly one signature, and that of the key."""
        if len(claims) <= CHUNK_SIGNATURES:
            return _hold(claims)
        chunks = [claims[at : at + CHUNK_SIGNATURES] for at in range(0, len(claims), CHUNK_SIGNATURES)]
        return [holds for chunk in self._pool.map(_hold, chunks) for holds in chunk]

    def close(self) -> None:
        """End the threads; what is asked after that is not answered."""
        self._pool.shutdown()


class Intake:
    """Judges envelopes. Safe for any number of threads."""

    def __init__(self, state: FederationState, lock: threading.RLock, checks: SignatureChecks) -> None:
        """Read `state` under `lock`."""
        self._state = state
        self._lock = lock
        self._checks = checks

    def judge(self, envelopes: Sequence[Envelope | MalformedError], role: str) -> tuple[Judged, ...]:
        """Judge envelopes that a caller of this role brings, each for itself.

        Returns: for each a submission, or the error with which it is refused: MalformedError, or DeniedError with
            `role` or `bad_signature`.
        """
        judged = [_open(envelope, role) for envelope in envelopes]
        with self._lock:
            services = self._state.services()
        claims = [
            (at, submission, key)
            for at, submission in enumerate(judged)
            if isinstance(submission, Submission) and (key := _key_of(submission.content, services)) is not None
        ]
        held = self._checks.hold([(submission.envelope, key) for _, submission, key in claims])
        for (at, submission, key), holds in zip(claims, held, strict=True):
            judged[at] = (
                Submission(submission.envelope, submission.content, key)
                if holds
                else DeniedError("bad_signature", "the statement is not signed by exactly its writer's key")
            )
        return tuple(judged)


def _open(envelope: Envelope | MalformedError, role: str) -> Judged:
    if isinstance(envelope, MalformedError):
        return envelope
    if envelope.payload_type == STATEMENT_TYPE and role not in SERVICE_ROLES:
        return DeniedError("role", "only services bring statements")
    try:
        return Submission(envelope, parse_content(envelope))
    except MalformedError as error:
        return error.with_traceback(None)  # kept as a value: it must not keep frames alive


def _key_of(content: Content, services: ServicesDocument | None) -> PublicKey | None:
    """The key that the statement's writer has, where its writer is named with the key that it names."""
    if not isinstance(content, Statement) or services is None:
        return None
    signatory = services.service_by_key(content.key_id)
    return None if signatory is None or signatory.spiffe_id != content.writer else signatory.key


def _hold(claims: Sequence[tuple[Envelope, PublicKey]]) -> list[bool]:
    return [_holds(envelope, key) for envelope, key in claims]


def _holds(envelope: Envelope, key: PublicKey) -> bool:
    try:
        verify_single(envelope, key)
    except VerificationError:
        return False
    return True
