"""How much memory a process takes that adds up payloads: a process of its own, with nothing else in it.

    python -m benchmarks.aggregation_memory FOLDER RULE COUNT

reads FOLDER/0.payload and so on, one after the other, and prints by how many bytes its resident memory grew at most.

Runs in: a developer's machine. Linux only, from /proc.
Trusts: its arguments.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sfrl_secure.aggregation.combined import Combining
from sfrl_secure.aggregation.running import RunningMean
from sfrl_secure.governance.aggregation_terms import RuleTerms
from sfrl_secure.sparse.encode import payload_root
from sfrl_secure.sparse.expected import ExpectedPayload
from sfrl_secure.sparse.header import parse_preamble
from sfrl_secure.sparse.reader import read_parts
from sfrl_secure.sparse.update import UpdatePart


@dataclass(frozen=True)
class StoredPayload:
    """A payload in a file."""

    path: Path

    def expected(self) -> ExpectedPayload:
        """What its own header says: these are ours."""
        raw = self.path.read_bytes()
        preamble = parse_preamble(raw)
        assert preamble.value_type != "none", "these are updates"
        return ExpectedPayload(
            preamble.coordinates, preamble.nonzeros, preamble.support, preamble.value_type, preamble.grid_exponent,
            len(raw), payload_root(raw),
        )  # fmt: skip

    def parts(self) -> Iterator[UpdatePart]:
        """Decode it, with every rule."""
        return read_parts([self.path.read_bytes()], self.expected())


def stored(folder: Path, count: int) -> list[StoredPayload]:
    """The first so many payloads of a folder."""
    return [StoredPayload(folder / f"{number}.payload") for number in range(count)]


def peak_bytes(folder: Path, rule: str, count: int) -> int:
    """Measure in a fresh process."""
    said = subprocess.run(
        [sys.executable, "-m", "benchmarks.aggregation_memory", str(folder), rule, str(count)],
        check=True, capture_output=True, text=True, cwd=Path(__file__).resolve().parents[1],
    )  # fmt: skip
    return int(said.stdout)


def main(folder: Path, rule: str, count: int) -> int:
    """Add up, from payloads to the step, and give the most bytes beyond those of the beginning."""
    payloads = stored(folder, count)
    # One is read before, so that imports and the allocator's own are not counted.
    for _ in payloads[0].parts():
        pass
    coordinates = payloads[0].expected().coordinates
    before = _resident("VmRSS:")
    running = RunningMean(Combining(coordinates, RuleTerms(rule), with_carriers=True, with_votes=True))
    for payload in payloads:
        running.enter(1, 0)
        for part in payload.parts():
            running.add_part(part, 1, 0)
    combined = running.finish()
    assert combined.carriers is not None, "counts were asked for"
    return _resident("VmHWM:") - before


def _resident(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return 1024 * int(line.split()[1])
    raise ProcessLookupError(field)


if __name__ == "__main__":
    print(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
