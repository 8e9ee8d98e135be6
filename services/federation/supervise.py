"""Running a federation's services as processes: start in order, wait until ready, stop in the other order.

Nothing is restarted silently: whoever supervises is told which one died, and decides.

Runs in: cli, demo.
Trusts: the federation's folder.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfrl_secure.errors import MalformedError, UnavailableError
from sfrl_secure.services.federation.folder import FederationFolder, read_index
from sfrl_secure.storage.files import FolderLock

READY_SECONDS = 60.0
STOP_SECONDS = 20.0

_ORDER = ("verifier", "audit_log", "gatekeeper", "aggregator")
_LOOK_SECONDS = 0.05


@dataclass(slots=True)
class ServiceProcess:
    """One service: how it is started, and its process while there is one.

    Attributes:
        log_path: its JSON lines, appended from start to start.
    """

    role: str
    name: str
    config: Path
    log_path: Path
    process: subprocess.Popen[bytes] | None = None
    _log_begin: int = 0

    @property
    def is_running(self) -> bool:
        """Whether its process lives."""
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start the process; `wait_ready` waits for it."""
        self._log_begin = self.log_path.stat().st_size if self.log_path.exists() else 0
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "sfrl_secure.cli.main", "serve", self.role, "--config", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # an interrupt at the terminal reaches the supervisor alone
            )

    def wait_ready(self, timeout_seconds: float = READY_SECONDS) -> None:
        """Wait for the line that says it serves.

        Raises:
            UnavailableError: it ended, or did not say so in time; says where its log is.
        """
        deadline = time.monotonic() + timeout_seconds
        while not self._said_ready():
            if not self.is_running:
                code = None if self.process is None else self.process.returncode
                why = f": {self._last_error()}" if self._last_error() else ""
                raise UnavailableError(f"{self.role} {self.name} ended with code {code}{why}: see {self.log_path}")
            if time.monotonic() > deadline:
                raise UnavailableError(f"{self.role} {self.name} is not ready: see {self.log_path}")
            time.sleep(_LOOK_SECONDS)

    def stop(self, timeout_seconds: float = STOP_SECONDS) -> int:
        """Ask it to end, cut it off when it does not; give its exit code."""
        if self.process is None:
            return 0
        if self.is_running:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            return self.process.returncode

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def _said_ready(self) -> bool:
        return any(line.get("event") == "ready" for line in self._lines())

    def _last_error(self) -> str:
        errors = [str(line["error"]) for line in self._lines() if "error" in line]
        return errors[-1] if errors else ""

    def _lines(self) -> Iterator[dict[str, Any]]:
        """The JSON lines since the last start."""
        with self.log_path.open("rb") as log:
            log.seek(self._log_begin)
            for line in log:
                try:
                    found = json.loads(line)
                except ValueError:
                    continue  # a half line, or one that a library wrote
                if isinstance(found, dict):
                    yield found


SERVICE_LOGS = "service-logs"
"""Folder of what the services say; whoever runs them holds its lock."""


class Supervisor:
    """All services of a federation's folder."""

    def __init__(self, folder: FederationFolder) -> None:
        """Prepare; nothing runs yet.

        Raises:
            NotFoundError, MalformedError: it is not a federation's folder.
        """
        services = read_index(folder)["services"]
        logs = folder.root / SERVICE_LOGS
        logs.mkdir(exist_ok=True)
        self._logs = logs
        self._lock: FolderLock | None = None
        self.services = [
            ServiceProcess(
                each["role"],
                each["name"],
                folder.service(each["role"], each["name"]) / "config.toml",
                logs / f"{each['role']}-{each['name']}.jsonl",
            )
            for each in sorted(services, key=lambda each: _ORDER.index(each["role"]))
        ]

    def start(self) -> None:
        """Start all, in order: the witness before the log, the log before those who follow it.

        Raises:
            MalformedError: another supervisor runs this federation.
            UnavailableError: one did not become ready; those that run are stopped.
        """
        self._take()
        try:
            for service in self.services:
                service.start()
                if service.role in ("verifier", "audit_log"):
                    service.wait_ready()
            for service in self.services:
                service.wait_ready()
        except BaseException:
            self.stop()
            raise

    @contextmanager
    def running(self, role: str) -> Iterator[ServiceProcess]:
        """Run the first service of a role alone, for as long as the block lasts.

        Raises:
            MalformedError: another supervisor runs this federation.
            UnavailableError: one did not become ready.
        """
        self._take()
        service = self.of_role(role)
        try:
            service.start()
            service.wait_ready()
            yield service
        finally:
            self.stop()

    def stop(self) -> dict[str, int]:
        """Stop all, in the other order; give the exit codes by name."""
        codes = {f"{each.role} {each.name}": each.stop() for each in reversed(self.services)}
        if self._lock is not None:
            self._lock.release()
            self._lock = None
        return codes

    def _take(self) -> None:
        try:
            self._lock = FolderLock(self._logs)
        except MalformedError:
            raise MalformedError("this federation is running already") from None

    def dead(self) -> list[ServiceProcess]:
        """Services that should run and do not."""
        return [each for each in self.services if not each.is_running]

    def of_role(self, role: str) -> ServiceProcess:
        """The first service of a role."""
        return next(each for each in self.services if each.role == role)
