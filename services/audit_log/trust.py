"""What the audit log signs with and whom it asks, held against its trust policy before anything is signed.

A log whose keys are not the policy's would sign what nobody believes; one whose witnesses are not the quorum would
publish nothing.

Runs in: audit_log.
Trusts: configuration and trust policy.
"""

from __future__ import annotations

from dataclasses import dataclass

from sfrl_secure.clock import Clock
from sfrl_secure.errors import MalformedError
from sfrl_secure.sequencer.log_keys import parse_log_keys
from sfrl_secure.sequencer.signing import CheckpointSigner
from sfrl_secure.sequencer.witness_client import HttpWitness
from sfrl_secure.services.config import AuditLogConfig
from sfrl_secure.storage.secrets import read_secret
from sfrl_secure.translog.policy import TrustPolicy


@dataclass(frozen=True, slots=True)
class LogTrust:
    """A trust policy, and what in the configuration agrees with it.

    Attributes:
        genesis_vkeys: the log's Ed25519 and ML-DSA-44 vkeys that genesis names; they may sign no more.
    """

    policy: TrustPolicy
    genesis_vkeys: tuple[str, str]
    signer: CheckpointSigner
    witnesses: tuple[HttpWitness, ...]


def open_trust(config: AuditLogConfig, clock: Clock) -> LogTrust:
    """Read trust policy and keys, and check that they belong together.

    Raises:
        NotFoundError, DeniedError: a file that is not there, or a key that others can read.
        MalformedError: a file of another form; keys or witnesses that are not the policy's.
    """
    policy = config.open_trust_policy()
    generations = [parse_log_keys(read_secret(path)) for path in config.log_keys]
    signer = CheckpointSigner(config.origin, generations, clock)
    check_keys(policy, signer)
    log = policy.log(config.origin)
    assert log is not None, "open_trust_policy has looked"
    return LogTrust(policy, log.genesis_vkeys, signer, open_witnesses(config, policy))


def check_keys(policy: TrustPolicy, signer: CheckpointSigner) -> None:
    """Check that we sign with the trust policy's newest generation of our keys, and beside it only with those before.

    Raises:
        MalformedError: it is not so: nobody who has this policy would believe what we sign.
    """
    log = policy.log(signer.origin)
    if log is None or log.generations[-len(signer.generations) :] != signer.generations:
        raise MalformedError("the log's key files are not the newest generations of keys in the trust policy, in order")


def open_witnesses(config: AuditLogConfig, policy: TrustPolicy) -> tuple[HttpWitness, ...]:
    """Make the clients of the configured witnesses.

    Raises:
        MalformedError: a URL, a name that is not the policy's, one name twice, or together they are no quorum.
    """
    names = [name for witness in config.witnesses for name in witness.names]
    if len(set(names)) != len(names) or not set(names) <= {witness.name for witness in policy.witnesses}:
        raise MalformedError("each configured witness is one of the trust policy's, and stands there once")
    if not policy.is_quorum(names):
        raise MalformedError("the configured witnesses are not the quorum of the trust policy")
    return tuple(HttpWitness(each.names, each.submission_url, each.monitoring_url) for each in config.witnesses)
