"""What the machine and the processes on it do: the disk's fsync, a process's memory and CPU time.

Linux only, from /proc.

Runs in: a developer's machine.
Trusts: the kernel.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from statistics import median

_TICKS = os.sysconf("SC_CLK_TCK")
_FSYNC_BYTES = 4096


def fsync_seconds(folder: Path, count: int = 200) -> float:
    """Median time of appending 4 KiB to a file of `folder` and making them durable."""
    path = folder / "fsync-probe"
    block, times = os.urandom(_FSYNC_BYTES), []
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        for _ in range(count):
            begun = time.perf_counter()
            os.write(descriptor, block)
            os.fdatasync(descriptor)
            times.append(time.perf_counter() - begun)
    finally:
        os.close(descriptor)
        path.unlink()
    return median(times)


def memory_mb(pid: int) -> float:
    """Resident memory of a process, MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(pid)


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used so far, all threads."""
    return _ticks_of(Path(f"/proc/{pid}/stat")) / _TICKS


def cpu_seconds_by_thread(pid: int) -> dict[str, float]:
    """CPU time so far of a process's living threads, by the name that the kernel knows."""
    found: dict[str, float] = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            name = (task / "comm").read_text().strip()
            found[name] = found.get(name, 0.0) + _ticks_of(task / "stat") / _TICKS
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
    return found


def busy_cpus(seconds: float = 1.0) -> float:
    """How many CPUs others keep busy, looked at for a moment in which the benchmark itself rests."""
    before, begun = _busy_ticks(), time.monotonic()
    time.sleep(seconds)
    return (_busy_ticks() - before) / _TICKS / (time.monotonic() - begun)


def _busy_ticks() -> int:
    user, nice, system, _idle, _iowait, irq, softirq, steal, *_ = map(
        int, Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    )
    return user + nice + system + irq + softirq + steal


def _ticks_of(stat: Path) -> int:
    # The second field is a name in brackets, with whatever in it.
    fields = stat.read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
