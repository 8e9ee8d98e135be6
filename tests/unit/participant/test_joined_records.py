"""A record by a join key, for whoever has no fold: it is worth what the invitation before it is worth."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from simulated_federation import DAY_US
from simulator import Simulator

from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.errors import VerificationError
from sfrl_secure.governance.documents import ParticipantRecord
from sfrl_secure.participant.authority import Authority
from sfrl_secure.translog.entries import LoggedEntry


class Invited:
    """Rover-8 and rover-9 were invited; rover-9 has recorded a key."""

    def __init__(self, folder: Path) -> None:
        self.sim = sim = Simulator(folder)
        self.other_join = sim.invite("rover-8")
        self.join = sim.invite("rover-9")
        self.record = sim.join("rover-9")

    def at(self, index: int) -> LoggedEntry:
        return self.sim.log.logged_entry(index, len(self.sim.log.raw))

    def authority(self) -> Authority:
        log = self.sim.log
        log.witness()
        return Authority(log.witnessed.note, self.sim.policy, self.at(0), [self.at(1)], quorum=True)

    def open(self, record: int, join: int | None) -> ParticipantRecord:
        return self.authority().document(
            self.at(record), ParticipantRecord, join=None if join is None else self.at(join)
        )


@pytest.fixture
def invited(tmp_path: Path) -> Iterator[Invited]:
    made = Invited(tmp_path)
    yield made
    made.sim.close()


def test_an_invitation_bears_its_record_out(invited: Invited) -> None:
    assert invited.open(invited.record, invited.join).name == "rover-9"


def test_without_its_invitation_or_by_another_the_record_is_nobodys(invited: Invited) -> None:
    for join in (None, invited.other_join, invited.record):
        with pytest.raises(VerificationError):
            invited.open(invited.record, join)


def test_a_record_by_operators_needs_no_invitation_and_minds_none(invited: Invited) -> None:
    index = invited.sim.record("rover-9", clearance=6)
    assert invited.open(index, None).clearance == 6
    assert invited.open(index, invited.join).clearance == 6


def test_an_invitation_that_comes_after_the_record_bears_nothing_out(invited: Invited) -> None:
    sim, token = invited.sim, SigningKey.generate("ed25519")
    forged = sim.log.force(sim.sign_join("rover-7", SigningKey.generate("ed25519"), token))
    join = sim.invite("rover-7", token)
    assert forged in sim.log.voids
    with pytest.raises(VerificationError, match="came after"):
        invited.open(forged, join)


def test_an_expired_invitation_bears_nothing_out(invited: Invited) -> None:
    sim = invited.sim
    sim.clock.advance(2 * DAY_US)
    late = sim.log.force(sim.sign_join("rover-8", SigningKey.generate("ed25519")))
    assert sim.log.voids[late] == "invitation_expired"
    with pytest.raises(VerificationError, match="expired"):
        invited.open(late, invited.other_join)


def test_an_invitation_by_one_operator_bears_nothing_out(invited: Invited) -> None:
    sim, token = invited.sim, SigningKey.generate("ed25519")
    raw = sim.join_raw("rover-6", token)
    join = sim.log.force(sim.sign_document("application/vnd.sfrl.join.v1+json", raw, ["eve"]))
    record = sim.log.force(sim.sign_join("rover-6", SigningKey.generate("ed25519"), token))
    assert sim.log.voids[join] == "threshold"
    with pytest.raises(VerificationError):
        invited.open(record, join)
