"""`python -m tests.fuzz`: many hostile cases, always the same for the same seed.

    python -m tests.fuzz                              2,112,000 cases; exit code 1 where one was no refusal
    python -m tests.fuzz --case note/1234             one case again, with its traceback
    python -m tests.fuzz --seed 7 --cases 9000000     other cases, and more
    python -m tests.fuzz --only payload --cases 1000  the targets whose names begin so

Of the cases a million are payloads, and two hundred thousand streams of requests. Compiled loops are compiled so that
they look at the bounds of arrays: what they read or write beside one is found, and not only what comes of it.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time

from .harness import case_bytes, outcome_of, run_in_processes
from .targets import targets_named

SEED = 20261121
CASES_A_SHARE = 16_000


def main() -> int:
    """Run; give the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--cases", type=int, help=f"in all; {CASES_A_SHARE:,} for each share of a target")
    parser.add_argument("--only", default="", help="how the targets' names begin")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--case", help="target/number: this one alone")
    given = parser.parse_args()
    if given.case:
        name, _, number = given.case.partition("/")
        target = next(each for each in targets_named(name) if each.name == name)
        raw = case_bytes(target, int(number), given.seed)
        print(raw)
        print(outcome_of(target, raw))
        return 0
    targets = targets_named(given.only)
    cases = given.cases or CASES_A_SHARE * sum(target.share for target in targets)
    print(f"seed {given.seed}", flush=True)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        # For the processes: before numba is imported there. Code without bounds is not to be found in its cache.
        os.environ |= {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": folder}
        tally = run_in_processes(targets_named, given.only, cases, given.seed, given.processes)
    for target in targets:
        outcomes = {what: count for (name, what), count in sorted(tally.outcomes.items()) if name == target.name}
        print(f"{target.name:18}", ", ".join(f"{what} {count:,}" for what, count in outcomes.items()))
    for finding in tally.findings[:50]:
        print(f"FINDING {finding.case}: {finding.what}\n  {finding.raw[:200]!r}", file=sys.stderr)
    slowest, case = tally.slowest
    print(
        f"{sum(tally.outcomes.values()):,} cases in {time.monotonic() - begun:.0f} s, {len(tally.findings)} findings; "
        f"the slowest took {slowest * 1000:.0f} ms: {case}; the largest {tally.largest[0]:,} bytes: {tally.largest[1]}"
    )
    return 1 if tally.findings else 0


if __name__ == "__main__":
    sys.exit(main())
