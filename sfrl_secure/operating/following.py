"""What is in force, as an operator's own machine finds out: by following the log under its profile.

Every entry is verified as services do it: under the log's keys, chained, and folded by the rules. So what is drafted,
and what signatures are counted against, does not rest on a folder that somebody gave.

Runs in: operators' machines, cli.
Trusts: the profile's trust policy. Nothing that arrives.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from sfrl_secure.audit.profile import OperatorProfile
from sfrl_secure.errors import MalformedError, UnavailableError
from sfrl_secure.ids import Digest
from sfrl_secure.rounds.fold import FederationFold
from sfrl_secure.rounds.state import FederationState
from sfrl_secure.rpc.channel import RpcChannel, call_with_retry
from sfrl_secure.rpc.clients import AuditLogClient
from sfrl_secure.rpc.follower import FollowedBatches
from sfrl_secure.rpc.verified_log import VerifiedLog
from sfrl_secure.translog.entries import LogEntry
from sfrl_secure.translog.policy import TrustPolicy
from sfrl_secure.wire.content import Content

FOLLOW_SECONDS = 600.0
"""How long reading the log may take; a mirror (`sfrl audit mirror`) is read from the disk."""

ANSWER_SECONDS = 20.0
"""How long a log that does not answer is asked again."""


class FollowSource(Protocol):
    """Where entries come from: `rpc.clients.AuditLogClient`, or a log in memory."""

    def follow(self, first_index: int, *, deadline_seconds: float) -> FollowedBatches:
        """Follow the log from an index on."""
        ...


@contextmanager
def connect(profile: OperatorProfile) -> Iterator[AuditLogClient]:
    """Connect to the log as the operator.

    Raises:
        NotFoundError, DeniedError, MalformedError: a file of the profile.
    """
    tls = profile.open_tls()
    with RpcChannel(profile.audit_log, role="audit_log", trust_domain=profile.trust_domain, tls=tls) as channel:
        yield AuditLogClient(channel)


def follow_state(
    source: FollowSource, policy: TrustPolicy, *, answer_seconds: float = ANSWER_SECONDS
) -> FederationState:
    """Read the whole log, verified, and give what it amounts to.

    Raises:
        MalformedError: the trust policy does not list exactly one log.
        UnavailableError: the log does not answer, or does not sign for what it sends.
        DeniedError: it does not let this operator in.
        VerificationError: it contradicts itself or the trust policy.
    """
    if len(policy.logs) != 1:
        raise MalformedError("an operator's trust policy lists exactly one log, its federation's")
    (log,) = policy.logs
    fold = FederationFold(log.origin, log.genesis_vkeys)

    def on_entry(index: int, leaf: Digest, entry: LogEntry, content: Content | None) -> None:
        fold.apply(index, leaf, entry, content)

    verified = VerifiedLog(log.origin, policy, on_entry, lambda opened: None)
    try:
        call_with_retry(lambda _left: _follow_to_the_end(source, verified), deadline_seconds=answer_seconds)
    except UnavailableError as error:
        raise UnavailableError(f"the audit log cannot be read: {error}") from None
    return fold.state


def _follow_to_the_end(source: FollowSource, verified: VerifiedLog) -> None:
    """Take entries until the log has signed for all of them."""
    batches = source.follow(verified.begin_call(), deadline_seconds=FOLLOW_SECONDS)
    try:
        for batch in batches:
            verified.take(batch)
            if verified.is_agreed and verified.size:
                return
    finally:
        batches.cancel()
    raise UnavailableError("its stream ended before it had signed for all of it")
