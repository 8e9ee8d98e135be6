"""A peer's processes: started with a mark in their environment, measured together, and ended together.

Peers start processes of their own, some of them in sessions of their own. All inherit the environment, so whoever
carries this run's mark there is ours to end, and nobody else is.

Runs in: a developer's machine. Linux only, from /proc.
Trusts: the kernel.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

_MARK = "SFRL_BENCHMARK_RUN"
_LOOK_SECONDS = 0.05
_END_SECONDS = 5.0


class PeerError(Exception):
    """A peer did not do its job; the message says which, and where its log is."""


class PeerProcesses:
    """Processes of one peer until the end of the block, and the memory of those named its server."""

    def __init__(self, folder: Path, python_path: Path | None = None, **environment: str) -> None:
        """Prepare; `environment` is added to this process's own."""
        self.folder = folder
        self._mark = secrets.token_hex(8)
        self._environment = os.environ | environment | {_MARK: self._mark}
        if python_path is not None:
            self._environment["PYTHONPATH"] = str(python_path)
        self._started: list[tuple[str, subprocess.Popen[bytes]]] = []
        self._memory: PeakMemory | None = None

    def __enter__(self) -> PeerProcesses:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._memory is not None:
            self._memory.stop()
        self._end(signal.SIGTERM)
        deadline = time.monotonic() + _END_SECONDS
        while self._marked() and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
        while self._marked():
            self._end(signal.SIGKILL)
            time.sleep(_LOOK_SECONDS)
        for _, process in self._started:
            process.wait()

    def start(
        self, name: str, command: Sequence[str], *, server: bool = False, more: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a process; the memory of a server and of all processes under it is measured."""
        with self.log_of(name).open("ab") as log:
            process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=self._environment | (more or {}),
                start_new_session=True,
            )
        self._started.append((name, process))
        if server:
            self._memory = PeakMemory([process.pid])
            self._memory.start()
        return process

    def run(self, name: str, command: Sequence[str], timeout_seconds: float) -> None:
        """Run a command to its end.

        Raises:
            PeerError: it fails, or takes too long.
        """
        process = self.start(name, command)
        try:
            code = process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            raise PeerError(f"{name} takes over {timeout_seconds:.0f} s: see {self.log_of(name)}") from None
        if code:
            raise PeerError(f"{name} ended with {code}: {self.end_of_log(name)}")

    def wait(self, done: Callable[[], bool], what: str, timeout_seconds: float) -> None:
        """Wait until something has happened.

        Raises:
            PeerError: it has not in that time, or a process failed meanwhile.
        """
        deadline = time.monotonic() + timeout_seconds
        while not done():
            for name, process in self._started:
                if process.poll():
                    raise PeerError(f"{name} ended with {process.returncode}: {self.end_of_log(name)}")
            if time.monotonic() > deadline:
                raise PeerError(f"{what}: not within {timeout_seconds:.0f} s; see {self.folder}")
            time.sleep(_LOOK_SECONDS)

    @property
    def server_rss_mib(self) -> float:
        """The highest sum so far of the resident memory of the server's processes."""
        return 0.0 if self._memory is None else self._memory.peak_mib

    def log_of(self, name: str) -> Path:
        """Where a process writes."""
        return self.folder / f"{name}.log"

    def end_of_log(self, name: str, characters: int = 600) -> str:
        """The last words of a process."""
        return self.log_of(name).read_text(errors="replace")[-characters:].strip()

    def _marked(self) -> list[int]:
        mark = f"{_MARK}={self._mark}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if mark in (entry / "environ").read_bytes().split(b"\0"):
                        found.append(int(entry.name))
                except OSError:
                    continue  # it ended meanwhile
        return found

    def _end(self, number: signal.Signals) -> None:
        for pid in self._marked():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue


class PeakMemory:
    """Looks at the resident memory of processes and of all under them; keeps the highest sum.

    Pages that processes share are counted in each of them, for every peer alike.
    """

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = list(pids)
        self.peak_mib = 0.0
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._ending.set()
        self._thread.join()

    def __enter__(self) -> PeakMemory:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _watch(self) -> None:
        while not self._ending.wait(_LOOK_SECONDS):
            self.peak_mib = max(self.peak_mib, sum(map(_rss_mib, _with_descendants(self._pids))))


def _rss_mib(pid: int) -> float:
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0  # it ended meanwhile, or is ending


def _with_descendants(pids: Sequence[int]) -> set[int]:
    found, todo = set(pids), list(pids)
    while todo:
        pid = todo.pop()
        try:
            threads = list(Path(f"/proc/{pid}/task").iterdir())
        except OSError:
            continue
        for thread in threads:
            try:
                children = [int(child) for child in (thread / "children").read_text().split()]
            except OSError:
                continue
            todo += [child for child in children if child not in found]
            found.update(children)
    return found
