"""A sequencer that orders in memory, for what stands before it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sfrl_secure.crypto.envelope import Envelope, Signature
from sfrl_secure.errors import DeniedError, ExhaustedError, MalformedError, SfrlError
from sfrl_secure.ids import ZERO_DIGEST, parse_spiffe_id
from sfrl_secure.rpc.identity import Peer
from sfrl_secure.sequencer.sequencer import Answer, Appended, Submission
from sfrl_secure.wire.content import Content

PEER = Peer(parse_spiffe_id("spiffe://sfrl.example/service/gatekeeper/one"), 1, ZERO_DIGEST)


def envelope(statement: bytes) -> Envelope:
    return Envelope("application/vnd.sfrl.statement.v1", statement, (Signature(ZERO_DIGEST, "ed25519", bytes(64)),))


@dataclass
class Memory:
    """Orders what it is given at once, or when `release` is called; refuses what `refuse` names.

    Attributes:
        room: entries that may wait.
    """

    refuse: dict[bytes, SfrlError] = field(default_factory=dict)
    room: int = 10_000
    holds: bool = False
    groups: list[list[bytes]] = field(default_factory=list)
    size: int = 0
    grow: Callable[[bytes], bytes] = lambda statement: statement
    _waiting: list[tuple[Sequence[Submission[Content]], Answer]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def submit(self, submissions: Sequence[Submission[Content]]) -> Answer:
        with self._lock:
            if sum(len(group) for group, _ in self._waiting) + len(submissions) > self.room:
                raise ExhaustedError("full")
            answer = Answer()
            self._waiting.append((submissions, answer))
        if not self.holds:
            self.release()
        return answer

    def release(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for group, answer in waiting:
            self.groups.append([each.envelope.statement for each in group])
            first = self.size
            self.size += len(group)
            note = b"note of %d" % self.size
            answer.tell(
                tuple(
                    self.refuse.get(
                        each.envelope.statement,
                        Appended(first + at, self.grow(each.envelope.statement), self.size, (), note),
                    )
                    for at, each in enumerate(group)
                )
            )


class Intake:
    """Takes everything but what says `forged` or `foreign`."""

    def judge(self, envelopes: Sequence[Envelope | MalformedError], role: str) -> tuple[object, ...]:
        refused = {b"forged": "bad_signature", b"foreign": "role"}
        return tuple(
            each
            if isinstance(each, MalformedError)
            else DeniedError(refused[each.statement], "x")
            if each.statement in refused
            else Submission(each, None)
            for each in envelopes
        )
