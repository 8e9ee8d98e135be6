"""Whom a view admits, and for how long after it has last heard the log."""

from __future__ import annotations

from dataclasses import replace

import pytest
from simulator import Simulator

from sfrl_secure.errors import UnavailableError
from sfrl_secure.ids import sha256
from sfrl_secure.rpc.identity import DoorTerms
from sfrl_secure.services.view import STALE_SECONDS, FederationView

ROVER = sha256(b"rover-1")


class Time:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def view(sim: Simulator, time: Time) -> FederationView:
    return FederationView(sim.log.fold, monotonic=time)


def test_a_view_that_has_never_heard_the_log_admits_nobody(view: FederationView) -> None:
    for ask in (lambda: view.lookup(ROVER), view.door_terms):
        with pytest.raises(UnavailableError):
            ask()


def test_whoever_is_recorded_is_known_as_long_as_the_log_is_heard(view: FederationView, time: Time) -> None:
    for _ in range(5):
        view.on_heard()
        time.now += STALE_SECONDS - 0.001
        assert view.lookup(ROVER) is not None
        assert view.lookup(sha256(b"a stranger")) is None
        assert view.door_terms().key_exchange


def test_a_view_that_the_log_has_left_alone_admits_nobody_until_it_is_heard_again(
    view: FederationView, time: Time
) -> None:
    view.on_heard()
    time.now += STALE_SECONDS
    for ask in (lambda: view.lookup(ROVER), view.door_terms):
        with pytest.raises(UnavailableError, match="not been heard lately"):
            ask()
    view.on_heard()
    assert view.lookup(ROVER) is not None


def test_entries_and_checkpoints_alone_are_no_word(sim: Simulator, view: FederationView) -> None:
    # A log that replays a long history is not yet where it is now.
    view.on_witnessed(sim.state.size)
    with pytest.raises(UnavailableError):
        view.lookup(ROVER)


def test_a_view_that_begins_anew_has_heard_nothing(sim: Simulator, view: FederationView) -> None:
    view.on_heard()
    view.restart(sim.log.fold)
    with pytest.raises(UnavailableError):
        view.lookup(ROVER)


def test_what_is_known_is_what_the_log_says(sim: Simulator, view: FederationView) -> None:
    view.on_heard()
    found, entry = view.lookup(ROVER), sim.state.identities[ROVER]
    assert found is not None
    assert (found.spiffe_id, found.serial, found.not_after_us) == (entry.spiffe_id, entry.serial, entry.not_after_us)
    services = sim.state.services()
    assert services is not None
    assert view.door_terms() == DoorTerms(services.key_exchange, services.expires_us)
    sim.publish_services(key_exchange=frozenset({"X25519MLKEM768"}))
    assert view.door_terms() == replace(view.door_terms(), key_exchange=frozenset({"X25519MLKEM768"}))
