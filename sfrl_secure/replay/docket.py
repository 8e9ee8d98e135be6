"""What the replay has found, what it misses, and its way to the objects.

Each object is asked for with the entry that needs it, so that whoever reads the report knows why it matters. One that
is not there is missing; one whose bytes are not what its name says is a finding, and counts as not there.

Format: proto/README.md, "Verification of a log, in order", 6 and 7.

Runs in: verifier.
Trusts: nothing.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from sfrl_secure.errors import DigestError
from sfrl_secure.ids import Digest
from sfrl_secure.replay.findings import Finding, Missing, Untold
from sfrl_secure.replay.objects import Objects

STORE = "objects"
"""Who is blamed for an altered object."""


@dataclass(frozen=True, slots=True)
class Position:
    """An entry's place in the log: its leaf index, entry hash and time, and who signed it."""

    index: int
    leaf: Digest
    log_time_us: int
    writer: str


@dataclass(frozen=True, slots=True)
class Superseded:
    """A model whose place another one has taken: those of entries `was_index` and `index`.

    Attributes:
        left_out: counted updates that the new one leaves out.
    """

    segment: str
    round: int
    was_index: int
    index: int
    left_out: int


@dataclass(frozen=True, slots=True)
class _Perishable:
    """A refusal whose payload is not there; that is as it may be from `kept_until_us` on."""

    digest: Digest
    index: int
    kept_until_us: int


class Docket:
    """Findings, missing evidence and counts, in the order of the log."""

    def __init__(self, objects: Objects) -> None:
        self.findings: list[Finding] = []
        self.admitted = 0
        self.refused: Counter[str] = Counter()
        self.refusals_counted = 0
        self.refusals_on_word = 0
        self.rounds = 0
        self.models = 0
        self.withdrawals = 0
        self.complaints = 0
        self.decisions = 0
        self.overridden = 0
        self.orders: Counter[str] = Counter()
        self.superseded: list[Superseded] = []
        self.named: set[Digest] = set()
        self._objects = objects
        self.untold: list[Untold] = []
        self._missing: dict[Digest, Missing] = {}
        self._altered: set[Digest] = set()
        self._perishable: list[_Perishable] = []

    @property
    def missing(self) -> tuple[Missing, ...]:
        """Objects that are not there, each with the first entry that needs it."""
        return tuple(self._missing.values())

    def find(
        self, code: str, at: Position, expected: str, found: str = "", *, is_acceptable: bool = False
    ) -> None:
        """Note something that does not hold."""
        self.findings.append(Finding(code, at.index, at.writer, expected, found, is_acceptable=is_acceptable))

    def read(self, digest: Digest, at: Position, bytes_max: int, why: str) -> bytes | None:
        """Read an object that the entry at `at` needs; None where it is missing or altered, which is noted."""
        raw = self.try_read(digest, at, bytes_max)
        if raw is None:
            self.miss(digest, at.index, why)
        return raw

    def try_read(self, digest: Digest, at: Position, bytes_max: int) -> bytes | None:
        """Read an object that may have gone; only an altered one is noted."""
        self.named.add(digest)
        try:
            return self._objects.read(digest, bytes_max)
        except DigestError:
            self._alter(digest, at.index)
            return None

    def read_at(self, digest: Digest, offset: int, length: int) -> bytes:
        """Read so many bytes of an object that was there; fewer where it is there no more. The caller checks them."""
        return self._objects.read_at(digest, offset, length) or b""

    def look_for(self, digest: Digest, at: Position, why: str) -> None:
        """Note an object that is missing or altered."""
        self.named.add(digest)
        try:
            if not self._objects.holds(digest):
                self.miss(digest, at.index, why)
        except DigestError:
            self._alter(digest, at.index)

    def miss(self, digest: Digest, index: int, why: str) -> None:
        """Note that an object is not there. An altered one is a finding and not missing besides."""
        if digest not in self._altered:
            self._missing.setdefault(digest, Missing(digest, index, why))

    def miss_until(self, digest: Digest, index: int, kept_until_us: int) -> None:
        """Note that a refused payload is not there; `settle` says what that means."""
        self._perishable.append(_Perishable(digest, index, kept_until_us))

    def settle(self, last_time_us: int) -> None:
        """At the end: a refused payload that may have gone leaves its refusal on word, any other is missing."""
        for each in self._perishable:
            if last_time_us >= each.kept_until_us:
                self.refusals_on_word += 1
            else:
                self.miss(each.digest, each.index, "the payload of a refused update")
        self._perishable.clear()

    def _alter(self, digest: Digest, index: int) -> None:
        if digest not in self._altered:
            self._altered.add(digest)
            self.findings.append(
                Finding("object_altered", index, STORE, "bytes of the SHA-256 that names them", "others", digest.hex())
            )
