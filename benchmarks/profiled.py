"""A service under a profiler that counts the CPU time of each of its threads.

    python -m benchmarks.profiled FILE serve audit_log --config CONFIG

FILE becomes a table of functions by their own time, FILE.pstats what `pstats` and its viewers read. A thread's clock
stands still while it waits, so locks and system calls that sleep do not show; every call costs more than it does
without a profiler, small functions most.

Runs in: a developer's machine.
Trusts: its arguments.
"""

from __future__ import annotations

import cProfile
import pstats
import sys
import threading
import time
from pathlib import Path
from types import FrameType

from sfrl_secure.cli.main import main as sfrl

_LINES = 80


class ThreadProfiles:
    """One profile a thread, made when the thread's first function is called."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._profiles: list[cProfile.Profile] = []

    def begin(self, _frame: FrameType | None = None, _event: str = "", _argument: object = None) -> None:
        """Profile the calling thread from now on."""
        profile = cProfile.Profile(time.thread_time)
        with self._lock:
            self._profiles.append(profile)
        profile.enable()

    def write(self, path: Path) -> None:
        """Write all threads' profiles as one."""
        threading.setprofile(None)
        with self._lock:
            for profile in self._profiles:
                profile.create_stats()
            used = [profile for profile in self._profiles if profile.stats]
        with path.open("w") as table:
            stats = pstats.Stats(*used, stream=table)
            stats.sort_stats("tottime").print_stats(_LINES)
            stats.sort_stats("cumtime").print_stats(_LINES)
        stats.dump_stats(f"{path}.pstats")


def main() -> None:
    """Run the command of the arguments, and write the profiles when it ends."""
    path = Path(sys.argv[1])
    sys.argv[:2] = ["sfrl"]
    profiles = ThreadProfiles()
    threading.setprofile(profiles.begin)
    try:
        sfrl()
    finally:
        profiles.write(path)


if __name__ == "__main__":
    main()
