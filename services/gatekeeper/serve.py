"""`sfrl serve gatekeeper`: the gatekeeper as a process.

Runs in: gatekeeper.
Trusts: its configuration.
"""

from __future__ import annotations

from pathlib import Path

from sfrl_secure.clock import SystemClock
from sfrl_secure.services.config import GatekeeperConfig, read_config
from sfrl_secure.services.gatekeeper.memory import share_heaps
from sfrl_secure.services.gatekeeper.wiring import open_gatekeeper
from sfrl_secure.services.process import exit_uncertain, run_service


def serve(config_path: Path) -> int:
    """Run the gatekeeper until it is told to end; give the exit code."""
    share_heaps()
    return run_service(
        "gatekeeper",
        lambda stopping: open_gatekeeper(
            read_config(config_path, GatekeeperConfig), SystemClock(), stopping, on_uncertain=exit_uncertain
        ),
    )
