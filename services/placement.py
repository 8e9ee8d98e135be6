"""Where a service's threads run.

Threads of one interpreter take turns under its lock. On several CPUs each turn wakes another CPU, which costs more than
the turn: the audit log's appends took twice the time of a CPU, and came to two thirds of the rate. So they share one,
and what can be done apart, the verifying of signatures, is done by processes on the others.

Runs in: audit_log.
Trusts: the operating system.
"""

from __future__ import annotations

import os
from contextlib import suppress


def share_one_cpu() -> frozenset[int]:
    """Let this thread, and those that it starts from now on, run on the last CPU that it may use.

    Returns: the others; none where there are none, or the system does not place threads.
    """
    if not hasattr(os, "sched_setaffinity"):
        return frozenset()
    cpus = os.sched_getaffinity(0)
    chosen = max(cpus)
    with suppress(OSError):
        os.sched_setaffinity(0, {chosen})
    return frozenset(cpus) - {chosen}
