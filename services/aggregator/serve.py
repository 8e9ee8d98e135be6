"""`sfrl serve aggregator`: the aggregator as a process.

Runs in: aggregator.
Trusts: its configuration.
"""

from __future__ import annotations

import os
from pathlib import Path

from sfrl_secure.clock import SystemClock
from sfrl_secure.services.config import AggregatorConfig, read_config
from sfrl_secure.services.process import exit_uncertain, run_service

_BLAS = ("OPENBLAS", "OMP", "MKL")


def serve(config_path: Path) -> int:
    """Run the aggregator until it is told to end; give the exit code."""
    # Ranges of the model are spread over the processors already: a BLAS that spreads each of its products again takes
    # several times as long. It is read when numpy is first imported, so that is below. No bit depends on it.
    for library in _BLAS:
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")
    from sfrl_secure.services.aggregator.wiring import open_aggregator

    return run_service(
        "aggregator",
        lambda stopping: open_aggregator(
            read_config(config_path, AggregatorConfig), SystemClock(), stopping, on_uncertain=exit_uncertain
        ),
    )
