"""`sfrl serve aggregator`: the aggregator as a process.

Runs in: aggregator.
Trusts: its configuration.
"""

from __future__ import annotations

from pathlib import Path

from sfrl_secure.clock import SystemClock
from sfrl_secure.services.aggregator.wiring import open_aggregator
from sfrl_secure.services.config import AggregatorConfig, read_config
from sfrl_secure.services.process import exit_uncertain, run_service


def serve(config_path: Path) -> int:
    """Run the aggregator until it is told to end; give the exit code."""
    return run_service(
        "aggregator",
        lambda stopping: open_aggregator(
            read_config(config_path, AggregatorConfig), SystemClock(), stopping, on_uncertain=exit_uncertain
        ),
    )
