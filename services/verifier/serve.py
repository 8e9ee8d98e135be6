"""`sfrl serve verifier`: the verifier as a process.

Runs in: verifier.
Trusts: its configuration.
"""

from __future__ import annotations

from pathlib import Path

from sfrl_secure.clock import SystemClock
from sfrl_secure.services.config import VerifierConfig, read_config
from sfrl_secure.services.process import exit_uncertain, run_service
from sfrl_secure.services.verifier.wiring import open_verifier


def serve(config_path: Path) -> int:
    """Run the verifier until it is told to end; give the exit code."""
    return run_service(
        "verifier",
        lambda stopping: open_verifier(
            read_config(config_path, VerifierConfig), SystemClock(), stopping, on_uncertain=exit_uncertain
        ),
    )
