"""What arrives, judged as far as that needs no order: form, who may bring it, and the writer's signature.

Documents authenticate themselves, records by a join key among them, so anybody who is admitted may bring them: nobody
can sit on another's revocation. Statements are brought by services and auditors; who else sends one is refused before
its bytes are looked at. Which kinds a writer's role may state, the fold decides.

A writer's signature is verified here: with the others of its request, or of its batch. The key is the one that the
services document in force names for the statement's writer; the fold compares it with the one that it would take, so
a document that changes in between costs a second verification and nothing else. What is not settled here (documents,
writers that nobody names) the fold decides.

Rules: PROTOCOL R2, 3.

Runs in: audit_log.
Trusts: the fold's services document. Nothing that arrives.
"""

from __future__ import annotations

from collections.abc import Sequence

from sfrl_secure.crypto.envelope import Envelope
from sfrl_secure.crypto.keys import PublicKey
from sfrl_secure.errors import DeniedError, MalformedError, SfrlError
from sfrl_secure.governance.services import ServicesDocument
from sfrl_secure.governance.statements import STATEMENT_TYPE, Statement
from sfrl_secure.rounds.state import FederationState
from sfrl_secure.rpc.identity import SERVICE_ROLES
from sfrl_secure.sequencer.sequencer import Submission
from sfrl_secure.services.audit_log.signature_checks import SignatureChecks
from sfrl_secure.wire.content import Content, parse_content

_WRITERS = SERVICE_ROLES | {"auditor"}

Judged = Submission[Content] | SfrlError
"""A submission for the sequencer, or why there is none."""


class Intake:
    """Judges envelopes. Safe for any number of threads."""

    def __init__(self, state: FederationState, checks: SignatureChecks) -> None:
        """Read `state`, which another thread folds."""
        self._state = state
        self._checks = checks

    def judge(self, envelopes: Sequence[Envelope | MalformedError], role: str) -> tuple[Judged, ...]:
        """Judge envelopes that a caller of this role brings, each for itself.

        One that comes alone keeps its signature for `verify`, with the others of its batch.

        Returns: for each a submission, or the error with which it is refused: MalformedError, or DeniedError with
            `role` or `bad_signature`.
        """
        judged = [_open(envelope, role) for envelope in envelopes]
        return tuple(judged if len(judged) == 1 else self.verify(judged))

    def verify(self, judged: Sequence[Judged]) -> list[Judged]:
        """Verify the signatures that nobody has verified yet, all together."""
        # One look-up, without the fold's lock. A document that is newer than this costs a second verification.
        services = self._state.services()
        claims = [
            (at, submission, key)
            for at, submission in enumerate(judged)
            if isinstance(submission, Submission)
            and submission.verified_by is None
            and (key := _key_of(submission.content, services)) is not None
        ]
        held = self._checks.hold([(submission.envelope, key) for _, submission, key in claims])
        verified = list(judged)
        for (at, submission, key), holds in zip(claims, held, strict=True):
            verified[at] = (
                Submission(submission.envelope, submission.content, key)
                if holds
                else DeniedError("bad_signature", "the statement is not signed by exactly its writer's key")
            )
        return verified


def _open(envelope: Envelope | MalformedError, role: str) -> Judged:
    if isinstance(envelope, MalformedError):
        return envelope
    if envelope.payload_type == STATEMENT_TYPE and role not in _WRITERS:
        return DeniedError("role", "only services and auditors bring statements")
    try:
        return Submission(envelope, parse_content(envelope))
    except MalformedError as error:
        return error.with_traceback(None)  # kept as a value: it must not keep frames alive


def _key_of(content: Content, services: ServicesDocument | None) -> PublicKey | None:
    """The key that the statement's writer has, where its writer is named with the key that it names."""
    if not isinstance(content, Statement) or services is None:
        return None
    signatory = services.signatory(content.writer)
    return None if signatory is None or signatory.key.key_id != content.key_id else signatory.key
