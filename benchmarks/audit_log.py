"""The audit log under load: rates, acknowledgement, memory, restart.

Four writer processes over mutual TLS append to a real log with three witnesses on loopback. The yardstick is taken in
the same run by the same clients: an empty unary call of 700 bytes to a plain gRPC server over mutual TLS. Rates are
taken in turns, so that a machine that slows down slows all of them; the ratios are those of the medians.

Every entry is signed before a clock starts, counted only when it was acknowledged while the clock ran, and a sample of
the receipts is verified in full. What went wrong is counted and printed, and makes the exit code 1.

Runs in: a developer's machine.
Trusts: its arguments.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import machine
from benchmarks.figures import Bar, spread, unary_bar
from benchmarks.load import FULL, QUICK, Run, running


def run(
    *,
    quick: bool,
    folder: Path | None = None,
    profile: Path | None = None,
    rates_only: bool = False,
    keep: bool = False,
    only: Sequence[str] = (),
) -> dict[str, Any]:
    """Run the benchmark; give its figures.

    Args:
        folder: where the federation is made, on the disk that is to be measured; a temporary one by default.
        profile: where the log's profile goes; figures that were taken with it are no figures.
        rates_only: rates and latency, without memory and restarts.
        only: these rates and nothing else, such as `bare` and `unary`.
        keep: leave the federation and its services' logs where they were made.
    """
    scale = QUICK if quick else FULL
    with running(scale, folder, profile, keep=keep) as load:
        figures: dict[str, Any] = {"benchmark": "audit_log", "quick": quick, "cpus": len(os.sched_getaffinity(0))}
        figures["others_busy_cpus"] = round(machine.busy_cpus(), 2)
        if only:
            load.take_rates(only)
            return figures | _rates(load) | {"errors": dict(load.errors)}
        fsync = [machine.fsync_seconds(load.folder)]
        if not rates_only:
            load.warm_up()
            load.grow_to(scale.small)
            small = load.log_memory_mb()
        load.take_rates()
        fsync.append(machine.fsync_seconds(load.folder))
        latency = load.take_latency(median(load.rates["unary"]))
        fsync.append(machine.fsync_seconds(load.folder))
        figures |= _rates(load) | latency | load.entry_bytes
        if not rates_only:
            load.follow()
            load.grow_to(scale.large)
            restart_follower = load.restart_follower()
            large = load.log_memory_mb()
            figures |= {
                f"memory_mb_at_{scale.small}": small,
                f"memory_mb_at_{scale.large}": large,
                "memory_ratio": round(large / small, 3),
                "follower_restart_seconds": restart_follower,
                "restart_seconds": load.restart_log(),
            }
            load.settle()
        figures["entries"] = load.entries
        figures["fsync_ms"] = round(median(fsync) * 1000, 3)
        figures["fsync_spread"] = [round(min(fsync) * 1000, 3), round(max(fsync) * 1000, 3)]
        figures["receipts_verified"] = load.verified
        figures["errors"] = dict(load.errors)
        figures["bars"] = {name: bar.to_json() for name, bar in bars_of(figures, median(fsync)).items()}
        return figures


def _rates(load: Run) -> dict[str, Any]:
    rates = {name: values for name, values in load.rates.items() if not name.endswith("_trial")}
    middle = {name: median(values) for name, values in rates.items()}
    names = {"bare": "bare_unary", "intercepted": "intercepted_unary"}
    found: dict[str, Any] = {f"{names.get(name, name)}_per_second": round(rate, 1) for name, rate in middle.items()}
    if "bare" in middle:
        for kind in ("", "hybrid_"):
            for ratio, methods in (("unary_ratio", ("unary",)), ("batch_ratio", ("batch", "stream"))):
                taken = [middle[kind + method] for method in methods if kind + method in middle]
                if taken:
                    found[kind + ratio] = round(max(taken) / middle["bare"], 3)
    found["spread"] = {name: spread(values) for name, values in rates.items()}
    found["server_cpu_us"] = {name: round(median(load.cpu_us[name]), 1) for name in rates}
    all_cpu = {name: median(load.all_cpu_us[name]) for name in rates}
    found["all_cpu_us"] = {name: round(value, 1) for name, value in all_cpu.items()}
    # Where nothing but CPU is short, this is what the ratios come to; other people's load hardly moves it.
    if "bare" in all_cpu:
        found["cpu_ratios"] = {name: round(all_cpu["bare"] / value, 3) for name, value in all_cpu.items()}
    return found


def bars_of(figures: dict[str, Any], fsync_seconds: float) -> dict[str, Bar]:
    """What issue 3 asks of the figures."""
    unary = unary_bar(fsync_seconds, figures["bare_unary_per_second"])
    acknowledged = 50 + 3 * fsync_seconds * 1000
    found = {
        "unary_ratio": Bar(figures["unary_ratio"], unary.bar, unary.formula),
        "batch_ratio": Bar(figures["batch_ratio"], 1.5, "at least 1.5, the better of batch and stream"),
        "hybrid_unary_ratio": Bar(figures["hybrid_unary_ratio"], unary.bar, unary.formula),
        "hybrid_batch_ratio": Bar(figures["hybrid_batch_ratio"], 1.5, "at least 1.5, the better of batch and stream"),
        "ack_p99_ms": Bar(figures["ack_p99_ms"], acknowledged, "at most 50 + 3 * fsync_ms", at_most=True),
        "witnessed_p99_s": Bar(figures["witnessed_p99_s"], 2.0, "at most 2", at_most=True),
    }
    if "memory_ratio" in figures:
        found["memory_ratio"] = Bar(figures["memory_ratio"], 1.2, "at most 1.2", at_most=True)
        found["restart_seconds"] = Bar(figures["restart_seconds"], 5.0, "at most 5", at_most=True)
        found["follower_restart_seconds"] = Bar(figures["follower_restart_seconds"], 10.0, "at most 10", at_most=True)
    return found
