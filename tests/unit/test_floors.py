"""What each service loads: started in a clean interpreter, and looked at."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

SERVICES = ("gatekeeper", "aggregator", "audit_log", "verifier")

_PROBE = """
import json, sys
import sfrl_secure.cli.main
import sfrl_secure.services.{role}.serve, sfrl_secure.services.{role}.wiring
print(json.dumps(sorted(sys.modules)))
"""


def loaded(role: str) -> set[str]:
    found = subprocess.run(
        [sys.executable, "-W", "error", "-c", _PROBE.format(role=role)], capture_output=True, text=True, check=True
    )
    return set(json.loads(found.stdout))


@pytest.mark.parametrize("role", SERVICES)
def test_no_service_loads_torch_or_another_service(role: str) -> None:
    modules = loaded(role)
    assert not {"torch", "safetensors", "numba"} & modules
    assert not [name for name in modules if name.startswith(("sfrl_secure.learning", "sfrl_secure.demo"))]
    others = [each for each in SERVICES if each != role]
    assert not [name for name in modules if name.startswith(tuple(f"sfrl_secure.services.{each}" for each in others))]


@pytest.mark.parametrize("role", ["audit_log", "verifier"])
def test_a_service_that_computes_nothing_loads_no_numpy(role: str) -> None:
    assert "numpy" not in loaded(role)


def test_the_aggregator_keeps_the_blas_to_one_thread_before_numpy_reads_how_many() -> None:
    probe = """
import os, sys
from pathlib import Path
from sfrl_secure.services.aggregator.serve import serve
assert "numpy" not in sys.modules
assert serve(Path("missing.toml")) != 0
assert "numpy" in sys.modules and os.environ["OPENBLAS_NUM_THREADS"] == "1"
"""
    environment = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
    subprocess.run([sys.executable, "-W", "error", "-c", probe], capture_output=True, check=True, env=environment)


def test_the_verifiers_walk_loads_none_of_what_it_checks() -> None:
    probe = "import json, sys, sfrl_secure.audit.verify; print(json.dumps(sorted(sys.modules)))"
    found = subprocess.run([sys.executable, "-W", "error", "-c", probe], capture_output=True, text=True, check=True)
    shared = ("rounds", "sequencer", "governance", "sparse", "aggregation", "learning", "services", "participant")
    modules = set(json.loads(found.stdout))
    assert "sfrl_secure.replay.fold" in modules
    assert not [name for name in modules if name.startswith(tuple(f"sfrl_secure.{each}" for each in shared))]
