"""Quota: what one participant had admitted in a segment lately, by count and by bytes.

A participant's uses are pairs of the admission's log time and the payload bytes of all admissions up to it, by rising
time: what lies in a window is a difference of two of them. What no window can reach any more is forgotten, but for
one pair to subtract.

Format: proto/README.md, "update_admitted", quota.

Runs in: gatekeeper, aggregator, audit_log.
Trusts: the state of the fold. Nothing in the update.
"""

from __future__ import annotations

from bisect import bisect_right

from sfrl_secure.errors import DeniedError
from sfrl_secure.governance.statements import UpdateStatement
from sfrl_secure.governance.terms import QuotaTerms
from sfrl_secure.limits import QUOTA_WINDOW_US_MAX
from sfrl_secure.rounds.state import SegmentState


def used(segment: SegmentState, participant: str, since_us: int) -> tuple[int, int]:
    """How many admissions of the participant are later than `since_us`, and their payload bytes together."""
    uses = segment.quota_uses.get(participant, [])
    first = _first_after(uses, since_us)
    if first == len(uses):
        return 0, 0
    return len(uses) - first, uses[-1][1] - (uses[first - 1][1] if first else 0)


def check_quota(segment: SegmentState, quota: QuotaTerms, update: UpdateStatement, now_us: int) -> None:
    """Step 8, its end: the participant's window has room for this update.

    Raises:
        DeniedError: `quota_updates`, `quota_bytes`.
    """
    count, size = used(segment, update.participant, now_us - quota.window_us)
    if count + 1 > quota.updates_max:
        raise DeniedError("quota_updates", f"a participant has at most {quota.updates_max} updates in a window")
    if size + update.payload_bytes > quota.bytes_max:
        raise DeniedError("quota_bytes", f"a participant has at most {quota.bytes_max} payload bytes in a window")


def take_use(segment: SegmentState, update: UpdateStatement, log_time_us: int) -> None:
    """Note an effective admission."""
    uses = segment.quota_uses.setdefault(update.participant, [])
    uses.append((log_time_us, (uses[-1][1] if uses else 0) + update.payload_bytes))
    # Terms may come with a longer window than today's, but with none longer than this.
    beyond = _first_after(uses, log_time_us - QUOTA_WINDOW_US_MAX)
    if beyond > 1:
        del uses[: beyond - 1]


def _first_after(uses: list[tuple[int, int]], since_us: int) -> int:
    return bisect_right(uses, since_us, key=lambda use: use[0])
