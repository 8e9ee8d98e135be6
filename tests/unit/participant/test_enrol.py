"""Joining: keys stay at home, nothing is believed before it is proven, and what is interrupted goes on."""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from simulated_identities import DeskChannel, invitation, open_desk
from simulator import DAY_US, Simulator, participant_id

from sfrl_secure.crypto.envelope import Envelope
from sfrl_secure.crypto.svid import open_svid
from sfrl_secure.errors import (
    DeniedError,
    ExhaustedError,
    MalformedError,
    SfrlError,
    UnavailableError,
    VerificationError,
)
from sfrl_secure.ids import ZERO_DIGEST
from sfrl_secure.participant.enrol import Enrolled, enrol
from sfrl_secure.participant.join_file import JoinFile
from sfrl_secure.participant.profile import read_profile
from sfrl_secure.wire import identity_service as wire

NAME = "rover-9"
HYBRID = "ed25519+ml-dsa-44"


@dataclass
class Home:
    """A newcomer's machine, with an invitation and a way to the desk."""

    sim: Simulator
    join: JoinFile
    folder: Path
    channel: DeskChannel

    def enrol(self, *, suite: str = "ed25519", join: JoinFile | None = None) -> Enrolled:
        self.sim.clock.advance(1)
        return enrol(join or self.join, self.folder, self.sim.clock, suite=suite, connect=lambda _: self.channel)

    def keys(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.folder.glob("*.key")}


@pytest.fixture
def home(sim: Simulator, tmp_path: Path) -> Home:
    return Home(sim, invitation(sim, NAME), tmp_path / "mine", DeskChannel(open_desk(sim)))


@pytest.mark.parametrize("suite", ["ed25519", HYBRID])
def test_whoever_joins_has_a_profile_that_opens_and_is_what_the_log_has(home: Home, suite: str) -> None:
    enrolled = home.enrol(suite=suite)
    profile = read_profile(enrolled.profile)
    key, state = profile.open_signing_key(), home.sim.state
    record = state.participant(NAME)
    assert record is not None
    assert (record.key, record.clearance, record.groups) == (key.public_key, 5, frozenset({"rovers"}))
    leaf = open_svid(profile.open_tls().chain, profile.trust_domain)
    assert (leaf.spiffe_id, leaf.serial) == (participant_id(NAME), state.identities[leaf.spki_sha256].serial)
    assert profile.open_trust_policy() == home.sim.policy
    assert profile.federation_id == home.sim.federation_id.hex()
    assert profile.gatekeepers == home.join.gatekeepers
    assert enrolled.record_index == state.index_of_document(("participant", NAME))


def test_keys_and_folder_are_their_owners_alone_and_no_key_leaves(home: Home) -> None:
    sent: list[bytes] = []
    served = home.channel.call

    def listen(path: str, request: bytes, *, deadline_seconds: float) -> bytes:
        sent.append(request)
        return served(path, request, deadline_seconds=deadline_seconds)

    home.channel.call = listen  # type: ignore[method-assign]
    home.enrol()
    assert stat.S_IMODE(home.folder.stat().st_mode) == 0o700
    keys = home.keys()
    assert keys.keys() == {"signing.key", "tls.key"}
    assert all(stat.S_IMODE((home.folder / name).stat().st_mode) == 0o600 for name in keys)
    token = home.join.token.expose()
    assert all(token not in each for each in sent)
    assert all(token.hex().encode() not in path.read_bytes() for path in home.folder.iterdir())


def test_the_first_update_of_a_newcomer_is_counted(home: Home) -> None:
    profile = read_profile(home.enrol().profile)
    home.sim.rovers[NAME] = profile.open_signing_key()
    current = home.sim.play_round("rover-1", "rover-2", NAME)
    assert NAME in current.admissions


# Interrupted


@pytest.mark.parametrize("suite", ["ed25519", HYBRID])
@pytest.mark.parametrize("when", ["broken", "lost"])
def test_what_is_interrupted_goes_on_with_the_same_keys(home: Home, when: str, suite: str) -> None:
    getattr(home.channel, when).append(UnavailableError("cut"))
    with pytest.raises(UnavailableError, match="run the same command again"):
        _no_retry(home, lambda: home.enrol(suite=suite))
    keys = home.keys()
    assert not (home.folder / "profile.toml").exists()
    profile = read_profile(home.enrol(suite=suite).profile)
    assert home.keys() == keys
    leaf = open_svid(profile.open_tls().chain, profile.trust_domain)
    assert home.sim.state.identities[leaf.spki_sha256].serial == leaf.serial
    assert home.sim.log.voids == {}


def test_an_expired_invitation_that_was_taken_up_in_time_still_gives_the_identity(home: Home) -> None:
    home.channel.lost.append(ExhaustedError("cut"))
    with pytest.raises(ExhaustedError):
        home.enrol()
    home.sim.clock.advance(2 * DAY_US)
    home.enrol()


def test_an_expired_invitation_makes_no_keys(home: Home) -> None:
    home.sim.clock.advance(2 * DAY_US)
    with pytest.raises(DeniedError, match="ask an operator for another") as refused:
        home.enrol()
    assert refused.value.reason == "invitation_expired"
    assert not home.folder.exists()
    assert home.channel.calls == []


def test_a_folder_of_somebody_is_left_as_it_is(home: Home) -> None:
    home.enrol()
    before = {path: path.read_bytes() for path in home.folder.iterdir()}
    with pytest.raises(MalformedError, match="choose a new folder"):
        home.enrol()
    assert {path: path.read_bytes() for path in home.folder.iterdir()} == before


def test_keys_that_are_there_are_not_replaced_by_ones_of_another_suite(home: Home) -> None:
    home.channel.broken.append(ExhaustedError("cut"))
    with pytest.raises(ExhaustedError):
        home.enrol()
    keys = home.keys()
    with pytest.raises(MalformedError, match="choose its suite"):
        home.enrol(suite=HYBRID)
    assert home.keys() == keys


def test_a_second_invitation_into_the_same_folder_is_taken_up_with_the_keys_that_are_there(home: Home) -> None:
    home.channel.broken.append(ExhaustedError("cut"))
    with pytest.raises(ExhaustedError):
        home.enrol()
    keys = home.keys()
    home.enrol(join=invitation(home.sim, NAME))
    assert home.keys() == keys


def test_whoever_lost_its_keys_joins_again_with_a_new_invitation(home: Home, tmp_path: Path) -> None:
    home.enrol()
    again = Home(home.sim, invitation(home.sim, NAME), tmp_path / "new", home.channel)
    assert (again.join.record_version, again.join.record_previous != ZERO_DIGEST) == (2, True)
    profile = read_profile(again.enrol().profile)
    record = home.sim.state.participant(NAME)
    assert record is not None
    assert record.key == profile.open_signing_key().public_key


# What is answered


def _changed(home: Home, change: Callable[[wire.EnrolResponse], wire.EnrolResponse]) -> None:
    home.channel.answers = lambda raw: wire.encode_enrol_response(change(wire.parse_enrol_response(raw)))


@pytest.mark.parametrize(
    "what",
    [
        "checkpoint_of_another_log", "record_of_another", "identity_of_another", "certificate_of_another", "swapped",
        "another_place", "older_checkpoint", "certificate_is_none",
    ],
)  # fmt: skip
def test_an_answer_that_does_not_prove_it_is_refused_and_nothing_says_enrolled(
    home: Home, tmp_path: Path, what: str
) -> None:
    log = home.sim.log
    record_index = home.sim.state.index_of_document(("participant", "rover-1"))
    other = Home(home.sim, invitation(home.sim, "rover-8"), tmp_path / "other", DeskChannel(home.channel.desk))
    certificate = (other.enrol().profile.parent / "tls.crt").read_bytes()
    elsewhere = Simulator(tmp_path / "elsewhere")

    def change(answer: wire.EnrolResponse) -> wire.EnrolResponse:
        size = len(log.raw)
        first = next(index for index in range(size) if _is_identity(log.envelope_at(index)))
        return {
            "checkpoint_of_another_log": replace(answer, checkpoint=elsewhere.log.note(len(elsewhere.log.raw))),
            "record_of_another": replace(answer, recorded=log.logged_entry(record_index, size)),
            "identity_of_another": replace(answer, issued=log.logged_entry(first, size)),
            "certificate_of_another": replace(answer, certificate=certificate),
            "swapped": replace(answer, recorded=answer.issued, issued=answer.recorded),
            "another_place": replace(answer, recorded=replace(answer.recorded, index=answer.recorded.index - 1)),
            "older_checkpoint": replace(answer, checkpoint=log.note(answer.recorded.index)),
            "certificate_is_none": replace(answer, certificate=b"-----BEGIN CERTIFICATE-----\n"),
        }[what]

    _changed(home, change)
    with pytest.raises((VerificationError, MalformedError)):
        home.enrol()
    assert not (home.folder / "profile.toml").exists()
    assert not (home.folder / "tls.crt").exists()
    home.channel.answers = lambda raw: raw
    home.enrol()


def _is_identity(envelope: Envelope) -> bool:
    from sfrl_secure.governance.statements import IdentityIssued, Statement
    from sfrl_secure.wire.content import parse_content

    content = parse_content(envelope)
    return isinstance(content, Statement) and isinstance(content.body, IdentityIssued)


def _no_retry(home: Home, call: Callable[[], object]) -> None:
    """Let the client's own retries meet the same failure: its patience is a minute."""
    failing = [*home.channel.broken, *home.channel.lost]
    served = home.channel.call

    def cut(path: str, request: bytes, *, deadline_seconds: float) -> bytes:
        if home.channel.lost:
            with pytest.raises(SfrlError):
                served(path, request, deadline_seconds=deadline_seconds)
        raise failing[0]

    home.channel.call = cut  # type: ignore[method-assign]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sfrl_secure.rpc.clients.call_with_retry", lambda attempt, *, deadline_seconds: attempt(1.0))
        try:
            call()
        finally:
            home.channel.call = served  # type: ignore[method-assign]
            home.channel.broken.clear()
