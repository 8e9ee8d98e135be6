"""`python -m tests.fuzz`: many hostile cases, always the same for the same seed.

    python -m tests.fuzz                              736,000 cases; exit code 1 where one was no refusal
    python -m tests.fuzz --case note/1234             one case again, with its traceback
    python -m tests.fuzz --seed 7 --cases 2000000     other cases, and more
"""

from __future__ import annotations

import argparse
import sys
import time

from .harness import case_bytes, outcome_of, run
from .targets import all_targets

SEED = 20261121
CASES = 736_000


def main() -> int:
    """Run; give the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--cases", type=int, default=CASES)
    parser.add_argument("--case", help="target/number: this one alone")
    given = parser.parse_args()
    targets = all_targets()
    if given.case:
        name, _, number = given.case.partition("/")
        target = next(each for each in targets if each.name == name)
        raw = case_bytes(target, int(number), given.seed)
        print(raw)
        print(outcome_of(target, raw))
        return 0
    print(f"seed {given.seed}", flush=True)
    begun = time.monotonic()
    tally = run(targets, given.cases, given.seed)
    for target in targets:
        outcomes = {what: count for (name, what), count in sorted(tally.outcomes.items()) if name == target.name}
        print(f"{target.name:18}", ", ".join(f"{what} {count:,}" for what, count in outcomes.items()))
    for finding in tally.findings[:50]:
        print(f"FINDING {finding.case}: {finding.what}\n  {finding.raw[:200]!r}", file=sys.stderr)
    slowest, case = tally.slowest
    print(
        f"{sum(tally.outcomes.values()):,} cases in {time.monotonic() - begun:.0f} s, {len(tally.findings)} findings; "
        f"the slowest took {slowest * 1000:.0f} ms: {case}"
    )
    return 1 if tally.findings else 0


if __name__ == "__main__":
    sys.exit(main())
