"""When identities were issued under one SPIFFE ID, and for which TLS keys.

Whoever may ask can ask for very many: what is kept and what a question costs does not grow with the square of them.

Format: proto/README.md, "Enrolment".

Runs in: verifier.
Trusts: the replay, which alone adds to it.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right, insort

from sfrl_secure.ids import Digest


class Issued:
    """The identities of one SPIFFE ID. 8 bytes each, for the life of the log: a false log's time may go back."""

    def __init__(self) -> None:
        """Begin with none."""
        self._times = array("Q")
        self._last: tuple[int, Digest] | None = None
        # Leaf index of the last one that was for another TLS key than the last.
        self._last_other = -1

    def add(self, index: int, log_time_us: int, spki_sha256: Digest) -> None:
        """Take in the identity of the entry at `index`, which is above those before."""
        insort(self._times, log_time_us)
        if self._last is not None and self._last[1] != spki_sha256:
            self._last_other = self._last[0]
        self._last = (index, spki_sha256)

    def since(self, time_us: int) -> int:
        """Count those with a log time above `time_us`, which may be below 0."""
        return len(self._times) - bisect_right(self._times, time_us)

    def last_of_another(self, spki_sha256: Digest) -> int:
        """Leaf index of the last one for another TLS key than this; -1 where there is none."""
        if self._last is None:
            return -1
        return self._last_other if self._last[1] == spki_sha256 else self._last[0]
