"""Processes of a benchmark: the log, under a profiler if one is wanted, and helpers that speak JSON lines.

Runs in: a developer's machine.
Trusts: what it starts.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfrl_secure.errors import UnavailableError
from sfrl_secure.services.federation.supervise import ServiceProcess


@dataclass(slots=True)
class LogProcess(ServiceProcess):
    """The audit log, under a profiler where a file for the profile is named."""

    profile: Path | None = None

    def start(self) -> None:
        """Start the process; `wait_ready` waits for it."""
        ServiceProcess.start(self) if self.profile is None else self._start_profiled(self.profile)

    def _start_profiled(self, profile: Path) -> None:
        self._log_begin = self.log_path.stat().st_size if self.log_path.exists() else 0
        command = [sys.executable, "-m", "benchmarks.profiled", str(profile), "serve", self.role]
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--config", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


class JsonProcess:
    """A process of the benchmark that takes and gives one JSON object a line."""

    def __init__(self, module: str, *arguments: str, log_path: Path) -> None:
        """Start `python -m module`."""
        with log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        self._log_path = log_path

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def send(self, **message: object) -> None:
        """Send a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        self._process.stdin.flush()

    def receive(self) -> dict[str, Any]:
        """Wait for a line.

        Raises:
            UnavailableError: the process ended.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise UnavailableError(f"a process of the benchmark ended: see {self._log_path}")
        found: dict[str, Any] = json.loads(line)
        return found

    def stop(self) -> None:
        """End it."""
        if self._process.poll() is None:
            os.kill(self._process.pid, signal.SIGTERM)
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
