"""The question at a start: has any witness seen more of us than we have?

A log that was put back to an older state would sign a second history without knowing it. The witnesses know. So
before anything is signed, those that make a quorum have answered: nothing yet, or a checkpoint of ours that our tree
holds. Those that do not answer are asked again, without end; the ones that stay silent tell later, by refusing to
cosign.

Rules: PROTOCOL 6, "At start".

Runs in: audit_log.
Trusts: our own keys, in what a witness shows. A witness's bare word can keep us waiting; it cannot stop us.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import structlog

from sfrl_secure.errors import MalformedError, UnavailableError, VerificationError
from sfrl_secure.sequencer.signing import check_ours
from sfrl_secure.sequencer.witness_client import Witness
from sfrl_secure.translog.opened import open_checkpoint
from sfrl_secure.translog.policy import TrustPolicy
from sfrl_secure.translog.tree import MerkleTree

_log = structlog.get_logger()

PAUSE_SECONDS = 0.5
PAUSE_SECONDS_MAX = 10.0
"""Each pause is twice the one before, up to this."""


def check_not_behind(
    witnesses: Sequence[Witness],
    origin: str,
    policy: TrustPolicy,
    tree: MerkleTree,
    stopping: threading.Event,
    *,
    pause_seconds: float = PAUSE_SECONDS,
) -> None:
    """Return when a quorum of witnesses has answered, and nobody who did is ahead of `tree`.

    Raises:
        UncertainStateError: a witness shows a checkpoint under our keys that our tree does not hold.
        UnavailableError: `stopping` was set before a quorum had answered.
    """
    answered: set[str] = set()
    while True:
        for witness in witnesses:
            if not answered.issuperset(witness.names) and is_level_with(witness, origin, policy, tree):
                answered.update(witness.names)
        if policy.is_quorum(answered):
            return
        silent = [name for witness in witnesses for name in witness.names if name not in answered]
        _log.warning("witnesses_awaited", count=len(answered), witness=", ".join(silent))
        if stopping.wait(pause_seconds):
            raise UnavailableError("stopped before a quorum of witnesses had answered")
        pause_seconds = min(2 * pause_seconds, PAUSE_SECONDS_MAX)


def is_level_with(witness: Witness, origin: str, policy: TrustPolicy, tree: MerkleTree) -> bool:
    """Ask one witness for its latest; whether it gave an answer that counts.

    Raises:
        UncertainStateError: it shows a checkpoint under our keys that our tree does not hold.
    """
    try:
        reply = witness.latest(origin)
    except UnavailableError:
        return False
    if reply.status == 404:
        return True
    if reply.status != 200:
        return False
    try:
        # After the log's keys were replaced, what it cosigned last is under the older generation alone.
        opened = open_checkpoint(reply.body, policy, quorum=False, archived=True)
    except (MalformedError, VerificationError):
        opened = None
    # One of its keys is enough: a key that the policy has since added has cosigned nothing yet.
    if opened is None or opened.checkpoint.origin != origin or opened.witness_times.keys().isdisjoint(witness.names):
        # Not signed by us, or not by it: this proves nothing, and counts as silence.
        _log.error("witness_answer_refused", witness=witness.names[0])
        return False
    check_ours(reply.body, origin, policy, tree)
    return True
