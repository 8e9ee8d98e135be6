"""Renewal: in time, over the identity in force, with a new key each time; a failure loses nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from simulated_identities import LIFETIME_US, DeskChannel, IdentityDesk, invitation, open_desk
from simulator import Simulator, participant_id

from sfrl_secure.crypto.svid import PeerCertificate, open_svid
from sfrl_secure.errors import DeniedError, MalformedError, UnavailableError, VerificationError
from sfrl_secure.participant import renewal
from sfrl_secure.participant.enrol import enrol
from sfrl_secure.participant.gatekeepers import FailoverChannel
from sfrl_secure.participant.profile import Profile, read_profile
from sfrl_secure.participant.renewal import SETTLE_SECONDS, IdentityKeeper, RenewingChannel, renew_now
from sfrl_secure.storage.files import FolderLock
from sfrl_secure.wire import identity_service as wire

NAME = "rover-9"
HALF_US = LIFETIME_US // 2


@dataclass
class Rover:
    """An enrolled rover and its way to the desk; `now` is its monotonic clock."""

    sim: Simulator
    desk: IdentityDesk
    profile: Profile
    now: float = 0.0

    def said(self) -> PeerCertificate:
        """What the certificate in the profile's files says."""
        return open_svid(self.profile.open_tls().chain, self.profile.trust_domain)

    def channel(self, keeper: IdentityKeeper | None = None) -> DeskChannel:
        return DeskChannel(self.desk, tls=self.profile.open_tls if keeper is None else keeper.tls)

    def keeper(self, profile: Profile | None = None) -> IdentityKeeper:
        return IdentityKeeper(profile or self.profile, self.sim.clock, monotonic=lambda: self.now)

    def serial_in_use(self, keeper: IdentityKeeper) -> int:
        return open_svid(keeper.tls().chain, self.profile.trust_domain).serial


@pytest.fixture
def rover(sim: Simulator, tmp_path: Path) -> Rover:
    join, desk = invitation(sim, NAME), open_desk(sim)
    enrolled = enrol(join, tmp_path / "mine", sim.clock, connect=lambda _: DeskChannel(desk))
    return Rover(sim, desk, read_profile(enrolled.profile))


def test_by_hand_there_is_a_new_key_at_once_and_the_log_says_what_it_renews(rover: Rover) -> None:
    before = rover.said()
    renewed = renew_now(rover.profile, FailoverChannel([rover.channel()]), rover.sim.clock)
    assert rover.said() == renewed
    assert renewed.spki_sha256 != before.spki_sha256
    body = rover.sim.log.statement_at(len(rover.sim.log.raw) - 1).body
    assert body.renews == before.spki_sha256
    # The identity before stays good for whoever is in a call.
    assert {before.spki_sha256, renewed.spki_sha256} <= rover.sim.state.identities.keys()


def test_nothing_is_renewed_before_half_of_the_life_is_over(rover: Rover) -> None:
    keeper, channel = rover.keeper(), rover.channel()
    rover.sim.clock.advance(HALF_US - 1_000_000)
    keeper.look(FailoverChannel([channel]))
    assert channel.calls == []
    rover.sim.clock.advance(1_000_000)
    keeper.look(FailoverChannel([channel]))
    assert channel.calls == [wire.RENEW_IDENTITY]


def test_the_new_identity_is_used_once_every_gatekeeper_has_read_of_it(rover: Rover) -> None:
    keeper, before = rover.keeper(), rover.said()
    channel = FailoverChannel([rover.channel(keeper)])
    rover.sim.clock.advance(HALF_US)
    keeper.look(channel)
    after = rover.said()
    assert after.serial != before.serial
    assert rover.serial_in_use(keeper) == before.serial
    rover.now += SETTLE_SECONDS
    assert rover.serial_in_use(keeper) == after.serial
    # And so on, for ever.
    for _ in range(3):
        rover.sim.clock.advance(HALF_US)
        keeper.look(channel)
        rover.now += 60
    assert rover.serial_in_use(keeper) == rover.said().serial
    assert rover.sim.log.voids == {}


def test_a_renewal_that_fails_leaves_the_identity_and_is_tried_again_after_a_pause(rover: Rover) -> None:
    keeper, before = rover.keeper(), rover.said()
    desk = rover.channel(keeper)
    channel = FailoverChannel([desk])
    desk.answers = lambda raw: wire.encode_renew_response(replace(wire.parse_renew_response(raw), certificate=b"x"))
    rover.sim.clock.advance(HALF_US)
    keeper.look(channel)
    keeper.look(channel)
    assert desk.calls == [wire.RENEW_IDENTITY]
    assert rover.said() == before
    desk.answers = lambda raw: raw
    rover.now += renewal.PAUSE_SECONDS
    keeper.look(channel)
    assert rover.said() != before


@pytest.mark.parametrize("when", ["broken", "lost"])
def test_where_a_gatekeeper_does_not_answer_the_next_one_is_sent_a_request_of_its_own(rover: Rover, when: str) -> None:
    """The first one may have taken its request, and a request has effect once."""
    silent, other = rover.channel(), rover.channel()
    getattr(silent, when).append(UnavailableError("cut"))
    profile = rover.profile.model_copy(update={"gatekeepers": ("one.example:1", "two.example:1")})
    renewed = renew_now(profile, FailoverChannel([silent, other]), rover.sim.clock)
    assert (silent.calls, other.calls) == ([wire.RENEW_IDENTITY], [wire.RENEW_IDENTITY])
    assert rover.sim.state.identities[renewed.spki_sha256].serial == renewed.serial
    assert rover.said() == renewed


def test_where_no_gatekeeper_answers_each_was_asked_once_and_nothing_is_changed(rover: Rover) -> None:
    before, silent = rover.said(), [rover.channel(), rover.channel()]
    for each in silent:
        each.lost.append(UnavailableError("cut"))
    profile = rover.profile.model_copy(update={"gatekeepers": ("one.example:1", "two.example:1")})
    with pytest.raises(UnavailableError):
        renew_now(profile, FailoverChannel(silent), rover.sim.clock)
    assert [each.calls for each in silent] == [[wire.RENEW_IDENTITY]] * 2
    assert rover.said() == before


def test_what_another_process_has_renewed_is_taken_and_not_renewed_again(rover: Rover) -> None:
    keeper = rover.keeper()
    rover.sim.clock.advance(HALF_US)
    renewed = renew_now(rover.profile, FailoverChannel([rover.channel()]), rover.sim.clock)
    channel = rover.channel(keeper)
    keeper.look(FailoverChannel([channel]))
    rover.now += SETTLE_SECONDS
    assert rover.serial_in_use(keeper) == renewed.serial
    assert channel.calls == []


def test_two_processes_do_not_renew_at_one_moment(rover: Rover) -> None:
    with (
        FolderLock(rover.profile.tls_key.parent),
        pytest.raises(MalformedError, match="another process"),
    ):
        renew_now(rover.profile, FailoverChannel([rover.channel()]), rover.sim.clock)


def test_an_expired_identity_is_said_to_be_before_anybody_is_called(rover: Rover) -> None:
    keeper, channel = rover.keeper(), rover.channel()
    rover.sim.clock.advance(LIFETIME_US)
    with pytest.raises(DeniedError, match="sfrl invite") as refused:
        keeper.look(FailoverChannel([channel]))
    assert refused.value.reason == "certificate"
    assert channel.calls == []


def test_an_expired_identity_is_exchanged_for_one_that_another_process_has_got_in_time(rover: Rover) -> None:
    keeper = rover.keeper()
    rover.sim.clock.advance(HALF_US)
    renewed = renew_now(rover.profile, FailoverChannel([rover.channel()]), rover.sim.clock)
    rover.sim.clock.advance(HALF_US)
    channel = rover.channel(keeper)
    keeper.look(FailoverChannel([channel]))
    assert rover.serial_in_use(keeper) == renewed.serial
    assert channel.calls == []


def test_without_a_federation_id_nothing_is_renewed_and_by_hand_it_is_said_why(rover: Rover) -> None:
    profile = rover.profile.model_copy(update={"federation_id": None})
    keeper, channel = rover.keeper(profile), rover.channel()
    rover.sim.clock.advance(HALF_US)
    keeper.look(FailoverChannel([channel]))
    assert channel.calls == []
    with pytest.raises(MalformedError, match="federation_id"):
        renew_now(profile, FailoverChannel([channel]), rover.sim.clock)


def test_a_gatekeeper_that_does_not_issue_sends_us_to_the_next(rover: Rover) -> None:
    other = DeskChannel(open_desk(rover.sim, client=False), tls=rover.profile.open_tls)
    before = rover.said()
    assert renew_now(rover.profile, FailoverChannel([other, rover.channel()]), rover.sim.clock).serial != before.serial
    assert other.calls == [wire.RENEW_IDENTITY]
    with pytest.raises(DeniedError) as refused:
        renew_now(rover.profile, FailoverChannel([other, other]), rover.sim.clock)
    assert refused.value.reason == "not_issuing"


def test_an_answer_with_another_s_identity_is_refused(rover: Rover) -> None:
    before, channel = rover.said(), rover.channel()
    first = rover.sim.state.index_of_document(("participant", "rover-1")) + 1

    def change(raw: bytes) -> bytes:
        answer = wire.parse_renew_response(raw)
        return wire.encode_renew_response(
            replace(answer, issued=rover.sim.log.logged_entry(first, len(rover.sim.log.raw)))
        )

    channel.answers = change
    with pytest.raises(VerificationError, match="does not record the identity"):
        renew_now(rover.profile, FailoverChannel([channel]), rover.sim.clock)
    assert rover.said() == before


def test_calls_and_streams_go_out_under_an_identity_that_is_good(
    rover: Rover, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[DeskChannel] = []

    def connect(address: str, *, role: str, trust_domain: str, tls: object) -> DeskChannel:
        made.append(DeskChannel(rover.desk, tls=tls))  # type: ignore[arg-type]
        return made[-1]

    monkeypatch.setattr(renewal, "RpcChannel", connect)
    channel = RenewingChannel(rover.profile, rover.sim.clock, monotonic=lambda: rover.now)
    assert len(made) == len(rover.profile.gatekeepers)
    channel.call("/x/Y", b"", deadline_seconds=1.0)
    rover.sim.clock.advance(HALF_US)
    channel.stream("/x/Z", b"", deadline_seconds=1.0)
    assert made[0].calls == ["/x/Y", wire.RENEW_IDENTITY, "/x/Z"]
    rover.now += SETTLE_SECONDS
    rover.sim.clock.advance(2 * LIFETIME_US)
    for call in (channel.call, channel.stream, channel.exchange):
        with pytest.raises(DeniedError, match="has expired"):
            call("/x/Y", b"", deadline_seconds=1.0)
    assert made[0].calls == ["/x/Y", wire.RENEW_IDENTITY, "/x/Z"]


def test_a_stolen_certificate_and_key_are_not_renewed_without_the_signing_key(rover: Rover, tmp_path: Path) -> None:
    from sfrl_secure.crypto.keys import SigningKey
    from sfrl_secure.storage.secrets import write_secret

    write_secret(tmp_path / "thief.key", SigningKey.generate("ed25519").to_pem())
    stolen = rover.profile.model_copy(update={"signing_key": tmp_path / "thief.key"})
    with pytest.raises(DeniedError) as refused:
        renew_now(stolen, FailoverChannel([rover.channel()]), rover.sim.clock)
    assert refused.value.reason == "bad_signature"
    assert rover.said().spiffe_id == participant_id(NAME)
