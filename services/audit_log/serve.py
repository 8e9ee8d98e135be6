"""`sfrl serve audit_log`: the audit log as a process.

Runs in: audit_log.
Trusts: its configuration.
"""

from __future__ import annotations

from pathlib import Path

from sfrl_secure.clock import SystemClock
from sfrl_secure.services.audit_log.wiring import open_audit_log
from sfrl_secure.services.config import AuditLogConfig, read_config
from sfrl_secure.services.placement import share_one_cpu
from sfrl_secure.services.process import exit_uncertain, run_service


def serve(config_path: Path) -> int:
    """Run the audit log until it is told to end; give the exit code."""
    cpus = share_one_cpu()
    return run_service(
        "audit_log",
        lambda stopping: open_audit_log(
            read_config(config_path, AuditLogConfig), SystemClock(), stopping, on_uncertain=exit_uncertain, cpus=cpus
        ),
    )
