"""Load on a log: what a run of the benchmark consists of, step by step.

Runs in: a developer's machine.
Trusts: its arguments.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.figures import percentile
from benchmarks.processes import JsonProcess
from benchmarks.site import HYBRID_WRITERS, WRITERS, BenchmarkSite, running_site
from benchmarks.site_watch import PublishedSizes
from benchmarks.writer import WARM_UP_SECONDS
from sfrl_secure.errors import SfrlError

ENTRY_BYTES = 900
HYBRID_ENTRY_BYTES = 5_700
UNARY_IN_FLIGHT = 16
MESSAGES_IN_FLIGHT = 4
_LEAD_SECONDS = 0.25
_SETTLE_SECONDS = 60.0
_FOLLOW_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Scale:
    """How long and how much.

    Attributes:
        seconds: of one measurement of a rate.
        repeats: of each rate.
        latency_seconds: of the open loop.
        small, large: entries at which memory is looked at.
    """

    seconds: float
    repeats: int
    latency_seconds: float
    small: int
    large: int


FULL = Scale(seconds=5.0, repeats=3, latency_seconds=15.0, small=10_000, large=500_000)
QUICK = Scale(seconds=2.0, repeats=2, latency_seconds=5.0, small=5_000, large=50_000)


@dataclass(slots=True)
class Run:
    """A run under way: the processes, and what was found so far.

    Attributes:
        addresses: of the servers, by method, and the process ids of the empty ones.
        errors: what went wrong, how often.
        verified: receipts that were verified in full.
        entries: size of the log that was last seen.
        rates, cpu_us, all_cpu_us: entries a second, and CPU time for each, by what was measured.
    """

    site: BenchmarkSite
    folder: Path
    scale: Scale
    addresses: dict[str, str]
    writers: list[JsonProcess]
    hybrid_writers: list[JsonProcess]
    say: Callable[[str], None]
    errors: Counter[str] = field(default_factory=Counter)
    verified: int = 0
    entries: int = 0
    rates: dict[str, list[float]] = field(default_factory=dict)
    cpu_us: dict[str, list[float]] = field(default_factory=dict)
    all_cpu_us: dict[str, list[float]] = field(default_factory=dict)
    _entry_bytes: dict[str, int] = field(default_factory=dict)

    # Rates

    def warm_up(self) -> None:
        """Append for a moment in each way: threads, connections and caches are there then, whatever comes later."""
        for name, method, writers in (
            ("unary", "unary", self.writers),
            ("batch", "batch", self.writers),
            ("hybrid_unary", "unary", self.hybrid_writers),
            ("hybrid_batch", "batch", self.hybrid_writers),
        ):
            self.rate(name, method, writers, seconds=0.25, is_trial=True)

    def take_rates(self, only: Sequence[str] = ()) -> None:
        """Take all rates in turns, or only those that are named."""
        phases = [(method, method, self.writers) for method in ("bare", "intercepted", "unary", "batch", "stream")]
        phases += [(f"hybrid_{method}", method, self.hybrid_writers) for method in ("unary", "batch", "stream")]
        phases = [phase for phase in phases if not only or phase[0] in only]
        for name, method, writers in phases:  # a short one of each: threads, connections and caches are there then
            self.rate(name, method, writers, seconds=0.5, is_trial=True)
        for _ in range(self.scale.repeats):
            for name, method, writers in phases:
                self.rate(name, method, writers, seconds=self.scale.seconds)

    def rate(
        self, name: str, method: str, writers: list[JsonProcess], *, seconds: float, is_trial: bool = False
    ) -> None:
        """Take one rate; entries that run out before the time does are a measurement to be taken again."""
        wanted = self._pool_for(name, seconds)
        address = self.addresses[method if method in self.addresses else "log"]
        pid = {"bare": self.bare_pid, "intercepted": self.intercepted_pid}.get(method, self.site.log_pid)
        while True:
            if method not in ("bare", "intercepted"):
                self.ask(writers, do="sign", count=wanted)
            self.settle()
            cpu, witness_cpu = machine.cpu_seconds(pid), self._witness_cpu_seconds()
            start = time.monotonic() + _LEAD_SECONDS + WARM_UP_SECONDS
            in_flight = UNARY_IN_FLIGHT if method in ("bare", "intercepted", "unary") else MESSAGES_IN_FLIGHT
            answers = self.ask(
                writers, do="rate", method=method, address=address, start=start, seconds=seconds, in_flight=in_flight
            )
            count = sum(each["count"] for each in answers)
            all_calls = max(count + sum(each["not_counted"] for each in answers), 1)
            cpu_us = (machine.cpu_seconds(pid) - cpu) / all_calls * 1e6
            others_cpu = self._witness_cpu_seconds() - witness_cpu + sum(each["cpu_seconds"] for each in answers)
            all_cpu_us = cpu_us + others_cpu / all_calls * 1e6
            if not any(each["ran_dry"] for each in answers):
                break
            wanted *= 2
        self.say(
            f"{name}: {count / seconds:,.0f}/s; CPU each: {cpu_us:,.0f} us of the server, {all_cpu_us:,.0f} us in all"
        )
        kept = name + "_trial" * is_trial
        self.rates.setdefault(kept, []).append(count / seconds)
        self.cpu_us.setdefault(kept, []).append(cpu_us)
        self.all_cpu_us.setdefault(kept, []).append(all_cpu_us)

    def _witness_cpu_seconds(self) -> float:
        return sum(machine.cpu_seconds(each.process.pid) for each in self.site.witnesses if each.process is not None)

    def _pool_for(self, name: str, seconds: float) -> int:
        known = self.rates.get(name) or self.rates.get(f"{name}_trial") or [1_000.0 if "unary" in name else 4_000.0]
        return math.ceil(1.6 * max(known) * (seconds + WARM_UP_SECONDS) / len(WRITERS)) + 512

    @property
    def bare_pid(self) -> int:
        """Process id of the yardstick's server."""
        return int(self.addresses["bare_pid"])

    @property
    def intercepted_pid(self) -> int:
        """Process id of the empty server behind the interceptors."""
        return int(self.addresses["intercepted_pid"])

    # Latency

    def take_latency(self, unary_per_second: float) -> dict[str, float]:
        """Append at half the unary rate, whatever is on its way; take receipts A and W."""
        per_writer = unary_per_second / 2 / len(self.writers)
        seconds = self.scale.latency_seconds
        self.ask(self.writers, do="sign", count=math.ceil(per_writer * seconds) + 1)
        self.settle()
        start = time.monotonic() + _LEAD_SECONDS
        with PublishedSizes(self.site.published_size) as published:
            # The writers' due times lie between each other's.
            for number, writer in enumerate(self.writers):
                begin = start + number / per_writer / len(self.writers)
                writer.send(
                    do="open_loop", address=self.addresses["log"], start=begin, seconds=seconds, per_second=per_writer
                )
            rows = [row for answer in self._answers(self.writers) for row in answer["rows"]]
            last = max(index for _, _, index in rows)
            published.wait_for(last + 1, _SETTLE_SECONDS)
        acknowledged = [done - begun for begun, done, _ in rows]
        witnessed = [published.seen(index) - begun for begun, _, index in rows]
        return {
            "load_per_second": round(unary_per_second / 2, 1),
            "ack_p50_ms": round(percentile(acknowledged, 0.5) * 1000, 2),
            "ack_p99_ms": round(percentile(acknowledged, 0.99) * 1000, 2),
            "witnessed_p50_s": round(percentile(witnessed, 0.5), 3),
            "witnessed_p99_s": round(percentile(witnessed, 0.99), 3),
        }

    # Memory and restart

    def grow_to(self, size: int) -> None:
        """Append until the log has `size` entries, and let it settle."""
        while (missing := size - self.settle()) > 0:
            share = math.ceil(missing / len(self.writers))
            for writer in self.writers:
                writer.send(do="fill", address=self.addresses["log"], count=share)
            answers = self._answers(self.writers)
            if any(each["errors"] for each in answers):
                break
        self.settle()

    def settle(self) -> int:
        """Wait until what was acknowledged is published; give the size."""
        deadline, size, since = time.monotonic() + _SETTLE_SECONDS, -1, 0.0
        while time.monotonic() < deadline:
            found = self.site.published_size()
            if found != size:
                size, since = found, time.monotonic()
            elif time.monotonic() - since > 0.4:
                break
            time.sleep(0.05)
        self.entries = max(self.entries, size)
        return size

    def log_memory_mb(self) -> float:
        """Resident memory of the log when nobody calls."""
        time.sleep(2.0)
        return round(machine.memory_mb(self.site.log_pid), 1)

    def restart_log(self) -> float:
        """Kill the log, start it, and take the time until it has appended an entry."""
        self.site.log.kill()
        self.ask(self.writers, do="reconnect")
        begun = time.monotonic()
        self.site.log.start()
        self.site.log.wait_ready(_FOLLOW_SECONDS)
        self.ask(self.writers[:1], do="fill", address=self.addresses["log"], count=1)
        return round(time.monotonic() - begun, 2)

    def restart_follower(self) -> float | None:
        """Restart the service that follows, which has followed before; take the time until it serves."""
        try:
            self.site.follower.stop(60.0)
            begun = time.monotonic()
            self.site.follower.start()
            self.site.follower.wait_ready(_FOLLOW_SECONDS)
            taken = round(time.monotonic() - begun, 2)
            self.site.follower.stop(60.0)
        except SfrlError as failed:
            self.errors[f"follower: {failed}"] += 1
            return None
        return taken

    def follow(self) -> None:
        """Let a gatekeeper follow the log from its beginning."""
        try:
            self.site.follower.start()
            self.site.follower.wait_ready(_FOLLOW_SECONDS)
        except SfrlError as failed:
            self.errors[f"follower: {failed}"] += 1

    # Writers

    def ask(self, writers: Sequence[JsonProcess], **message: object) -> list[dict[str, Any]]:
        """Send all writers one message, and wait for all answers."""
        for writer in writers:
            writer.send(**message)
        return self._answers(writers)

    def _answers(self, writers: Sequence[JsonProcess]) -> list[dict[str, Any]]:
        answers = [writer.receive() for writer in writers]
        for answer in answers:
            self.errors.update(answer.get("errors", {}))
            self.verified += answer.get("verified", 0)
            if "entry_bytes" in answer:
                suite = "hybrid_entry_bytes" if writers[0] in self.hybrid_writers else "entry_bytes"
                self._entry_bytes[suite] = answer["entry_bytes"]
        return answers

    @property
    def entry_bytes(self) -> dict[str, int]:
        """Length of the entries, by suite."""
        return dict(self._entry_bytes)


@contextmanager
def running(scale: Scale, folder: Path | None, profile: Path | None, *, keep: bool) -> Iterator[Run]:
    """Run a federation, the empty servers and the writers until the end of the block."""
    with ExitStack() as stack:
        root = Path(tempfile.mkdtemp(prefix="sfrl-benchmark-", dir=folder))
        if keep:
            print(f"everything stays in {root}", file=sys.stderr, flush=True)
        else:
            stack.callback(shutil.rmtree, root, ignore_errors=True)
        site = stack.enter_context(running_site(root / "federation", profile=profile))
        logs = site.root / "service-logs"
        addresses = {"log": site.federation.addresses.audit_log}
        identities = json.dumps(site.identities())
        for kind in ("bare", "intercepted"):
            server = JsonProcess(
                "benchmarks.empty_server", kind, str(site.log_config), identities, log_path=logs / f"{kind}.jsonl"
            )
            stack.callback(server.stop)
            addresses[kind] = f"127.0.0.1:{server.receive()['port']}"
            addresses[f"{kind}_pid"] = str(server.pid)

        def started(names: Sequence[str], entry_bytes: int) -> list[JsonProcess]:
            found = []
            for name in names:
                config = json.dumps(site.writer_config(name, entry_bytes))
                writer = JsonProcess("benchmarks.writer", config, log_path=logs / f"{name}.txt")
                stack.callback(writer.stop)
                found.append(writer)
            return found

        begun = time.monotonic()

        def say(line: str) -> None:
            print(f"[{time.monotonic() - begun:6.1f} s] {line}", file=sys.stderr, flush=True)

        writers, hybrid_writers = started(WRITERS, ENTRY_BYTES), started(HYBRID_WRITERS, HYBRID_ENTRY_BYTES)
        yield Run(site, root, scale, addresses, writers, hybrid_writers, say)
