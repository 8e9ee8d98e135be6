"""A participant that was closed: each call says so at once, however long it might have tried."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulator import SEGMENT, DirectChannel, Simulator

from sfrl_secure.crypto.secret import SecretBytes
from sfrl_secure.errors import ClosedError, UnavailableError
from sfrl_secure.participant.gatekeepers import FailoverChannel
from sfrl_secure.participant.rounds import OpenRound
from sfrl_secure.participant.sdk import Participant
from sfrl_secure.rpc.channel import ClientTls, RpcChannel, call_with_retry
from sfrl_secure.rpc.trying import Patience
from sfrl_secure.wire.receipts import ReceiptKind

VALUES = (np.array([1, 4], np.int64), np.array([0.5, -0.25]), 7)


def never(seconds: float) -> None:
    raise AssertionError("nobody waits for what was closed")


def channel(gatekeepers: int) -> RpcChannel:
    """A channel that would never connect."""
    tls = ClientTls(SecretBytes(b""), b"", b"")
    made = [
        RpcChannel(f"localhost:{n + 1}", role="gatekeeper", trust_domain="mars.example", tls=tls)
        for n in range(gatekeepers)
    ]
    return FailoverChannel(made) if gatekeepers > 1 else made[0]


def participant(sim: Simulator, channel: RpcChannel) -> Participant:
    return Participant(
        name="rover-1", key=sim.rovers["rover-1"], policy=sim.policy, channel=channel,
        receipts=sim.folder / "receipts" / "rover-1", clock=sim.clock, sleep=never,
    )  # fmt: skip


@pytest.fixture
def opened(sim: Simulator) -> OpenRound:
    sim.open_round()
    found = participant(sim, DirectChannel(sim.gatekeeper(), "rover-1")).open_round(SEGMENT, wait_seconds=0)
    assert isinstance(found, OpenRound)
    return found


@pytest.mark.parametrize("gatekeepers", [1, 3])
def test_every_call_of_a_closed_participant_says_so_at_once(
    sim: Simulator, opened: OpenRound, gatekeepers: int
) -> None:
    submitted = participant(sim, DirectChannel(sim.gatekeeper(), "rover-1")).submit(opened, *VALUES)
    rover = participant(sim, channel(gatekeepers))
    rover.close()
    calls: list[Callable[[], Any]] = [
        lambda: rover.open_round(SEGMENT, wait_seconds=600.0),
        lambda: rover.join(SEGMENT).next_round(wait_seconds=600.0),
        lambda: next(rover.join(SEGMENT).rounds()),
        lambda: rover.model(opened),
        lambda: rover.submit(opened, *VALUES),
        lambda: rover.receipt(submitted, ReceiptKind.COUNTED, wait_seconds=600.0),
        lambda: rover.withdraw(submitted),
    ]
    for call in calls:
        with pytest.raises(ClosedError, match="was closed"):
            call()


def test_a_relay_that_was_closed_says_so_at_once(sim: Simulator, opened: OpenRound, tmp_path: Path) -> None:
    from sfrl_secure.participant.bundles import open_bundle

    rover = participant(sim, channel(1))
    rover.pack(tmp_path / "a.bundle", rover.prepare_changes(opened, *VALUES))
    rover.close()
    with open_bundle(tmp_path / "a.bundle") as bundle, pytest.raises(ClosedError):
        rover.relay(bundle, deadline_seconds=600.0)


def test_what_is_closed_while_it_tries_again_tries_no_more() -> None:
    said = [UnavailableError("away"), ClosedError("it was closed"), UnavailableError("away")]
    slept: list[float] = []

    def attempt(left: float) -> None:
        raise said.pop(0)

    with pytest.raises(ClosedError):
        call_with_retry(attempt, deadline_seconds=60.0, sleep=slept.append)
    said.insert(0, UnavailableError("away"))
    said.insert(1, ClosedError("it was closed"))
    with pytest.raises(ClosedError):
        Patience(sleep=slept.append).keep_trying(attempt, deadline_seconds=60.0)
    assert (len(said), len(slept)) == (1, 2)
