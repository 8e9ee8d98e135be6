"""Streams of updates through a real gatekeeper, beside what the machine allows in the same run.

Dense updates go one after the other, each in turns with the same messages to a bare sink and the same bytes to this
disk, so that a machine that slows down slows all three. Sparse ones go one by one too. Then many dense ones come at
once, and the gatekeeper's memory is looked at.

Runs in: a developer's machine.
Trusts: its arguments.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.figures import Bar
from benchmarks.peers.job import RESNET18
from benchmarks.processes import JsonProcess
from benchmarks.uploads.site import DENSE, GRID, SPARSE, Signed, UploadSite, name_of, running_site
from sfrl_secure.sparse.encode import encode_dense, encode_update

DENSE_RATIO_MIN = 0.25
DISK_RATIO_MIN = 0.6
SPARSE_EXTRA_MS_MAX = 40.0
MEMORY_MIB_MAX = 96.0
SEED = 7
_PIECE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class StreamScale:
    """How much is sent.

    Attributes:
        at_once: dense updates that come together.
        sparse_bytes: length of a sparse payload, roughly.
    """

    parameters: int
    dense: int
    sparse: int
    at_once: int
    sparse_bytes: int

    @property
    def participants(self) -> int:
        """Each sends one update of a kind; one more of each is not counted."""
        return max(self.dense + 1 + self.at_once, self.sparse + 1)


FULL = StreamScale(parameters=RESNET18, dense=9, sparse=25, at_once=16, sparse_bytes=340_000)
QUICK = StreamScale(parameters=300_000, dense=3, sparse=3, at_once=4, sparse_bytes=10_000)


def run(scale: StreamScale, folder: Path) -> dict[str, Any]:
    """Measure; give the figures."""
    work = folder / "updates"
    work.mkdir()
    with running_site(folder / "federation", scale.participants, scale.parameters) as site:
        stream = _Stream(site, scale, work)
        with stream.processes():
            memory = stream.memory()
            dense = stream.dense()
            sparse = stream.sparse()
    return {**dense, **sparse, **memory}


def bars_of(figures: dict[str, Any]) -> dict[str, Bar]:
    """What issue 5 asks of the figures."""
    reached = max(figures["dense_ratio"] / DENSE_RATIO_MIN, figures["disk_ratio"] / DISK_RATIO_MIN)
    dense = f"dense_ratio at least {DENSE_RATIO_MIN}, or disk_ratio at least {DISK_RATIO_MIN}: 1 is either"
    extra = f"at most {SPARSE_EXTRA_MS_MAX} ms beyond one fsync"
    return {
        "dense": Bar(round(reached, 3), 1.0, dense),
        "sparse_extra_ms": Bar(figures["sparse_extra_ms"], SPARSE_EXTRA_MS_MAX, extra, at_most=True),
        "memory_mib": Bar(figures["memory_mib"], MEMORY_MIB_MAX, f"at most {MEMORY_MIB_MAX} above idle", at_most=True),
    }


class _Stream:
    """One run's sender, sink and files."""

    def __init__(self, site: UploadSite, scale: StreamScale, work: Path) -> None:
        self._site, self._scale, self._work = site, scale, work
        self._rng = np.random.default_rng(SEED)
        self._next = {DENSE: 0, SPARSE: 0}
        self._sparse_nonzeros = min(scale.sparse_bytes * 8 // 16, scale.parameters // 10)

    @contextmanager
    def processes(self) -> Iterator[None]:
        """Run sender and sink until the end of the block."""
        self._sender = JsonProcess("benchmarks.uploads.sender", log_path=self._work / "sender.log")
        config = str(self._site.gatekeeper.config)
        sink = JsonProcess("benchmarks.uploads.sink", config, log_path=self._work / "sink.log")
        try:
            self._sink = f"127.0.0.1:{sink.receive()['port']}"
            yield
        finally:
            self._sender.stop()
            sink.stop()

    def memory(self) -> dict[str, Any]:
        """The gatekeeper's memory while many come at once, beyond what it has before the first."""
        updates = [self._write(self._signed(DENSE)) for _ in range(self._scale.at_once)]
        pid = self._site.gatekeeper_pid
        idle = machine.memory_mb(pid)
        reset_peak(pid)
        took = self._ask(do="at_once", updates=updates, address=self._site.address)["seconds"]
        peak = peak_mb(pid)
        sent = sum(Path(each["file"]).stat().st_size for each in updates)
        for each in updates:
            Path(each["file"]).unlink()
        return {
            "memory_mib": round(peak - idle, 1),
            "memory_idle_mib": round(idle, 1),
            "at_once": self._scale.at_once,
            "at_once_mb_per_second": round(sent / took / 1e6, 1),
        }

    def dense(self) -> dict[str, Any]:
        """Dense updates one after the other, beside sink and disk."""
        times: dict[str, list[float]] = {"gatekeeper": [], "sink": [], "disk": []}
        pid, size, used = self._site.gatekeeper_pid, 0, 0.0
        for turn in range(self._scale.dense + 1):
            update = self._write(self._signed(DENSE))
            size = self._ask(do="prepare", **update, addresses=[self._sink, self._site.address])["bytes"]
            for name in list(times) if turn % 2 else list(reversed(times)):
                before = machine.cpu_seconds(pid)
                seconds = self._once(name, update)
                if turn:
                    times[name].append(seconds)
                    used += (machine.cpu_seconds(pid) - before) if name == "gatekeeper" else 0.0
            self._ask(do="forget", file=update["file"])
            Path(update["file"]).unlink()
        rates = {name: sorted(size / each / 1e6 for each in found) for name, found in times.items()}
        middle = {name: median(found) for name, found in rates.items()}
        return {
            "dense_update_bytes": size,
            "dense_ratio": round(middle["gatekeeper"] / middle["sink"], 3),
            "disk_ratio": round(middle["gatekeeper"] / min(middle["sink"], middle["disk"]), 3),
            "dense_cpu_ms": round(used / self._scale.dense * 1e3, 1),
            "dense_mb_per_second": _spread(rates["gatekeeper"]),
            "sink_mb_per_second": _spread(rates["sink"]),
            "disk_mb_per_second": _spread(rates["disk"]),
        }

    def _once(self, name: str, update: dict[str, str]) -> float:
        if name == "disk":
            return write_seconds(Path(update["file"]), self._work / "probe")
        address = self._sink if name == "sink" else self._site.address
        seconds: float = self._ask(do="send", **update, address=address, sink=name == "sink")["seconds"]
        return seconds

    def sparse(self) -> dict[str, Any]:
        """Sparse updates one after the other; what each takes beyond one fsync."""
        fsync = machine.fsync_seconds(self._work)
        times, size = [], 0
        for turn in range(self._scale.sparse + 1):
            update = self._write(self._signed(SPARSE))
            size = self._ask(do="prepare", **update, addresses=[self._site.address])["bytes"]
            seconds = self._ask(do="send", **update, address=self._site.address, sink=False)["seconds"]
            self._ask(do="forget", file=update["file"])
            if turn:
                times.append(seconds * 1e3)
            Path(update["file"]).unlink()
        return {
            "sparse_update_bytes": size,
            "sparse_ms": _spread(times),
            "sparse_fsync_ms": round(fsync * 1e3, 3),
            "sparse_extra_ms": round(median(times) - fsync * 1e3, 2),
        }

    def _signed(self, segment: str) -> Signed:
        name = name_of(self._next[segment])
        self._next[segment] += 1
        values = self._rng.standard_normal(self._scale.parameters, dtype=np.float32) * np.float32(1e-3)
        if segment == DENSE:
            encoded = encode_dense(values, value_type="fp32", grid_exponent=GRID, rng=self._rng)
        else:
            count = self._sparse_nonzeros
            indices = np.sort(self._rng.choice(self._scale.parameters, count, replace=False)).astype(np.int64)
            encoded = encode_update(
                self._scale.parameters, indices, values[indices], value_type="int8", grid_exponent=GRID, rng=self._rng
            )
            # What a coordinate costs depends little on how many there are.
            self._sparse_nonzeros = count * self._scale.sparse_bytes // len(encoded.payload)
        return self._site.sign(name, segment, encoded)

    def _write(self, signed: Signed) -> dict[str, str]:
        path = self._work / f"{signed.envelope.digest.hex()[:16]}.update"
        signed.write(path)
        profile = self._site.federation.folder.participant(signed.profile.name) / "profile.toml"
        return {"file": str(path), "profile": str(profile)}

    def _ask(self, **message: object) -> dict[str, Any]:
        self._sender.send(**message)
        return self._sender.receive()


def write_seconds(source: Path, target: Path) -> float:
    """Seconds to write a file's bytes into a new file and make them durable."""
    pieces = []
    with source.open("rb") as file:
        while piece := file.read(_PIECE):
            pieces.append(piece)
    begun = time.perf_counter()
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        for piece in pieces:
            os.write(descriptor, piece)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    seconds = time.perf_counter() - begun
    target.unlink()
    return seconds


def reset_peak(pid: int) -> None:
    """Let the kernel forget a process's highest memory so far."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_mb(pid: int) -> float:
    """Highest resident memory of a process since then, MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(pid)


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": round(median(values), 2), "min": round(min(values), 2), "max": round(max(values), 2)}
