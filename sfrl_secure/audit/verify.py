"""Verify a log: one call from files to a report.

Runs in: verifier, auditors' machines.
Trusts: the trust policy.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from sfrl_secure.audit.report import Report
from sfrl_secure.audit.source import FolderLog, FolderObjects
from sfrl_secure.audit.structure import Progress
from sfrl_secure.audit.walk import Audit, walk
from sfrl_secure.errors import MalformedError
from sfrl_secure.translog.policy import parse_trust_policy


def verify_log(
    log_dir: Path,
    trust_policy: bytes,
    objects_dir: Path,
    *,
    older: Sequence[bytes] = (),
    same_operator: Collection[str] = (),
    progress: Progress | None = None,
) -> Report:
    """Audit the log in a folder against a trust policy and a folder of objects.

    Args:
        trust_policy: the policy file's bytes (C2SP tlog-policy).
        older: checkpoints of the same log that the caller holds.
        same_operator: names in the trust policy of witnesses on the log's own machine or of its operator.
        progress: called with a stage (`structure`, `replay`, `objects`), how far it is, and of how much.

    Raises:
        MalformedError: the trust policy, or one of the older checkpoints, is not what it should be; or a name in
            `same_operator` is no witness of the policy.
    """
    policy = parse_trust_policy(trust_policy)
    unknown = set(same_operator) - {witness.name for witness in policy.witnesses}
    if unknown:
        raise MalformedError(f"the trust policy lists no witness {sorted(unknown)[0]}")
    audit = Audit(FolderLog(log_dir), policy, FolderObjects(objects_dir), tuple(older), frozenset(same_operator))
    return walk(audit, progress or (lambda _stage, _done, _of: None))
