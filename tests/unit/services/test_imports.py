"""What a service does not need it does not load."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("role", "absent"),
    [
        ("audit_log", ["torch", "numpy"]),
        ("gatekeeper", ["torch"]),
        ("aggregator", ["torch"]),
        ("verifier", ["torch"]),
    ],
)
def test_a_service_starts_without_what_it_does_not_need(role: str, absent: list[str]) -> None:
    program = f"import sys, sfrl_secure.services.{role}.serve; print([m for m in {absent!r} if m in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, check=True)
    assert ended.stdout.decode().strip() == "[]"
