"""`python -m benchmarks NAME`: take figures on this machine.

    python -m benchmarks audit_log --json            the full run, about a quarter of an hour
    python -m benchmarks audit_log --json --quick    the same on a small scale
    python -m benchmarks audit_log --quick --only bare,unary
                                                     these rates and nothing else: for whoever makes one faster
    python -m benchmarks audit_log --quick --only unary --profile FILE
                                                     the log under a profiler: FILE is a table of functions by CPU time
    python -m benchmarks ingest --json               admitting updates and enrolling, some minutes
    python -m benchmarks ingest --json --quick       the same on a small scale
    python -m benchmarks ingest --only streams       streams of updates through a running gatekeeper and nothing else
    python -m benchmarks aggregation --json          adding up 100 and 1,000 updates, and the memory that it takes
    python -m benchmarks codec --json                bits and speed of the codec on supports of a real gradient
    python -m benchmarks replay --json               what an auditor's recomputation costs beside the aggregator's own
    python -m benchmarks robustness --json --dir DIR what liars leave of a model under each rule, half an hour
    python -m benchmarks round --json                whole rounds, beside Flower's and NVFlare's if installed
    python -m benchmarks links --json                an upload over a link that is slow, loses packets and breaks

`cpu_ratios` compare CPU time for each entry, server, witnesses and writers together: on a machine with other things
to do they say more than rates do.

Exit code 0 when nothing went wrong, whatever the bars say; 1 when a call failed; 2 for an argument that names nothing.

Runs in: a developer's machine.
Trusts: its arguments.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from benchmarks import audit_log

PLAIN = {
    "aggregation": "benchmarks.aggregation",
    "codec": "benchmarks.codec",
    "ingest": "benchmarks.ingest",
    "links": "benchmarks.links.run",
    "replay": "benchmarks.replay",
    "robustness": "benchmarks.robustness.run",
    "round": "benchmarks.rounds.run",
}
"""Benchmarks that take a scale and a folder, and the module of each: what one needs, another may do without."""

NAMES = ("audit_log", *PLAIN)
PARTS = ("admissions", "streams")
RATES = ("bare", "intercepted", "unary", "batch", "stream", "hybrid_unary", "hybrid_batch", "hybrid_stream")


def main(arguments: list[str] | None = None) -> int:
    """Run one benchmark; give the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=f"Benchmarks: {', '.join(NAMES)}.")
    parser.add_argument("name", help=f"one of {', '.join(NAMES)}")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--quick", action="store_true", help="a small scale, to see that it works")
    parser.add_argument("--rates-only", action="store_true", help="without memory and restarts")
    parser.add_argument("--only", help="these rates, or parts of ingest, and nothing else, such as bare,unary")
    parser.add_argument("--profile", type=Path, help="run the log under a profiler, and write this file")
    parser.add_argument("--dir", type=Path, help="a folder on the disk that is to be measured")
    parser.add_argument("--keep", action="store_true", help="leave the federation and its services' logs")
    parser.add_argument("--cpus", help="run everything on these CPUs only, such as 0,1")
    given = parser.parse_args(arguments)
    only = tuple(given.only.split(",")) if given.only is not None else ()
    wrong = _wrong_in(given, only)
    if wrong is not None:
        print(wrong, file=sys.stderr)
        return 2
    if given.cpus is not None:
        os.sched_setaffinity(0, {int(cpu) for cpu in given.cpus.split(",")})
    if given.name in PLAIN:
        more = {"only": only} if only else {}
        figures = import_module(PLAIN[given.name]).run(quick=given.quick, folder=given.dir, **more)
    else:
        figures = audit_log.run(
            quick=given.quick, folder=given.dir, profile=given.profile, rates_only=given.rates_only, keep=given.keep,
            only=only,
        )  # fmt: skip
    print(json.dumps(figures, indent=None if given.json else 1))
    return 1 if figures["errors"] else 0


def _wrong_in(given: argparse.Namespace, only: Sequence[str]) -> str | None:
    """Say what names nothing in the arguments; None where all is well."""
    if given.name not in NAMES:
        return f"there is no benchmark of this name; there are: {', '.join(NAMES)}"
    if given.name == "audit_log" and not set(only) <= set(RATES):
        return f"--only: there are these rates: {', '.join(RATES)}"
    if given.name in PLAIN:
        parts = PARTS if given.name == "ingest" else ()
        if not set(only) <= set(parts) or given.rates_only or given.keep or given.profile is not None:
            more = f", --only with {' or '.join(parts)}" if parts else ""
            return f"{given.name} takes --json, --quick, --dir, --cpus{more}"
    if given.cpus is not None:
        mine = os.sched_getaffinity(0)
        if not set(given.cpus.split(",")) <= set(map(str, mine)):
            return f"--cpus: this process may use these CPUs: {','.join(map(str, sorted(mine)))}"
    if given.dir is not None and not given.dir.is_dir():
        return f"--dir: there is no folder {given.dir}"
    if given.profile is not None and not given.profile.absolute().parent.is_dir():
        return f"--profile: there is no folder {given.profile.absolute().parent}"
    return None


if __name__ == "__main__":
    sys.exit(main())
