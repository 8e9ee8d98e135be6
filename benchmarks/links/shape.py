"""What a link is like, and what went over it.

Runs in: a developer's machine.
Trusts: nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Shape:
    """A bad link.

    Attributes:
        bits_per_second: each way.
        loss: share of packets that are dropped, by a seeded generator.
        delay_seconds: each way, beside the time that the rate takes.
        queue_bytes: what waits for its turn, each way; more is dropped.
        mtu: bytes of a packet.
    """

    bits_per_second: float = 32_000.0
    loss: float = 0.05
    delay_seconds: float = 0.05
    queue_bytes: int = 4_096
    mtu: int = 576
    seed: int = 7


@dataclass(slots=True)
class Traffic:
    """What went over a link so far.

    Attributes:
        up_bytes: offered by the far side, headers included.
        delivered_up_bytes: of these, what arrived.
        lost: packets dropped by chance, in both directions.
        overflowed: packets dropped because the queue was full.
        cuts: how often the link was cut.
        resets: connections that the cuts broke.
    """

    up_bytes: int = 0
    down_bytes: int = 0
    delivered_up_bytes: int = 0
    lost: int = 0
    overflowed: int = 0
    cuts: int = 0
    resets: int = 0


class Link(Protocol):
    """A link between services on this host and a client at its far end."""

    @property
    def host(self) -> str:
        """The address at which services listen."""
        ...

    @property
    def traffic(self) -> Traffic:
        """What went over it."""
        ...

    def far_address(self, address: str) -> str:
        """What the far end calls to reach a service that listens at `address`."""
        ...

    def far_command(self, command: Sequence[str]) -> list[str]:
        """The command that runs `command` at the far end."""
        ...

    def cut(self, seconds: float) -> None:
        """Let nothing through for a time, and break what was connected; returns at once."""
        ...
