"""What one participant had admitted in a segment, and how much of it lies in a window of time.

Format: proto/README.md, "update_admitted".

Runs in: verifier.
Trusts: the replay, which alone adds to it.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right


class Usage:
    """One participant's admissions in a segment: when each was, and how long its payload is.

    16 bytes an admission, for the life of the log: later terms may have a longer window, and a false log's time may go
    back.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self._times = array("Q")
        # Bytes of all admissions up to each of them.
        self._sums = array("Q")

    def add(self, log_time_us: int, payload_bytes: int) -> None:
        """Take an admission in."""
        at = bisect_right(self._times, log_time_us)
        before = self._sums[at - 1] if at else 0
        self._times.insert(at, log_time_us)
        self._sums.insert(at, before + payload_bytes)
        for later in range(at + 1, len(self._sums)):  # Only where log time fell.
            self._sums[later] += payload_bytes

    def since(self, time_us: int) -> tuple[int, int]:
        """Number and bytes of the admissions later than `time_us`."""
        at = bisect_right(self._times, time_us)
        before = self._sums[at - 1] if at else 0
        return len(self._times) - at, (self._sums[-1] if self._sums else 0) - before
