"""A first identity, asked for: nothing is believed before it is proven, and what is interrupted goes on."""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from simulated_identities import DeskChannel, open_desk
from simulator import Simulator, auditor_id, operator_id

from sfrl_secure.audit.profile import OverseerProfile, read_auditor_profile, read_operator_profile
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.crypto.svid import open_svid
from sfrl_secure.errors import DeniedError, ExhaustedError, MalformedError, SfrlError, VerificationError
from sfrl_secure.ids import SpiffeId, sha256
from sfrl_secure.participant.first_identity import Door, FirstIdentity, OverseerAsks, enrol_overseer
from sfrl_secure.storage.secrets import write_secret
from sfrl_secure.translog.policy import format_trust_policy
from sfrl_secure.wire import identity_service as wire

DORA, OLGA = operator_id("dora"), auditor_id("olga")
HYBRID = "ed25519+ml-dsa-44"

ALICE = """\
[operator]
name = "alice"
trust_domain = "%s"
audit_log = "log.example:7000"
gatekeepers = ["gatekeeper.example:7001"]
public_log = "http://log.example:8000"
certificate = "tls.crt"
tls_key = "tls.key"
service_ca = "service-ca.crt"
trust_policy = "trust-policy.txt"
federation_id = "%s"
enrol_address = "gatekeeper.example:7443"
"""


@dataclass
class Home:
    """The machine of somebody who was newly named, with an operator's profile and a way to the desk."""

    sim: Simulator
    folder: Path
    channel: DeskChannel
    given: Path

    def name(self, who: SpiffeId, suite: str = "ed25519") -> OverseerAsks:
        """Put the document in force that names who joins."""
        key, sim = SigningKey.generate(suite), self.sim
        if who.role == "operator":
            sim.rotate_root({**sim.operators, who.name: key})
        else:
            sim.auditors[who] = key
            sim.publish_services()
        path = self.given / f"{who.name}.key"
        write_secret(path, key.to_pem())
        return OverseerAsks(
            spiffe_id=who, key=key, key_file=path, like=self.like(), enrol_address="gatekeeper.example:7443"
        )

    def like(self) -> OverseerProfile:
        return read_operator_profile(self.given / "profile.toml")

    def enrol(self, asks: OverseerAsks) -> FirstIdentity:
        self.sim.clock.advance(1)
        return enrol_overseer(asks, self.folder, self.sim.clock, connect=lambda _: self.channel)


@pytest.fixture
def home(sim: Simulator, tmp_path: Path) -> Home:
    given = tmp_path / "given"
    given.mkdir()
    (given / "profile.toml").write_text(ALICE % (DORA.trust_domain, sim.federation_id.hex()))
    (given / "trust-policy.txt").write_bytes(format_trust_policy(sim.policy))
    (given / "service-ca.crt").write_text("-----BEGIN CERTIFICATE-----\n")
    return Home(sim, tmp_path / "mine", DeskChannel(open_desk(sim)), given)


@pytest.mark.parametrize("suite", ["ed25519", HYBRID])
@pytest.mark.parametrize("who", [DORA, OLGA], ids=lambda who: who.role)
def test_whoever_is_named_has_a_profile_that_opens_and_is_what_the_log_has(
    home: Home, who: SpiffeId, suite: str
) -> None:
    asks = home.name(who, suite)
    got = home.enrol(asks)
    path = home.folder / "profile.toml"
    profile = read_operator_profile(path) if who is DORA else read_auditor_profile(path)
    leaf = open_svid(profile.open_tls().chain, profile.trust_domain)
    assert (leaf.spiffe_id, leaf.not_after_us) == (who, got.not_after_us)
    assert home.sim.state.identities[leaf.spki_sha256].serial == leaf.serial
    assert profile.open_signing_key().public_key == asks.key.public_key
    assert profile.open_trust_policy() == home.sim.policy
    like = home.like()
    for key in ("trust_domain", "audit_log", "gatekeepers", "public_log", "federation_id"):
        assert getattr(profile, key) == getattr(like, key), key
    if who is DORA:
        assert read_operator_profile(path).enrol_address == asks.enrol_address


def test_the_signing_key_stays_where_it_is_and_the_others_are_their_owner_s_alone(home: Home) -> None:
    asks = home.name(DORA)
    home.enrol(asks)
    secret = asks.key_file.read_bytes()
    assert all(secret not in path.read_bytes() for path in home.folder.iterdir() if path.is_file())
    assert stat.S_IMODE(home.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((home.folder / "tls.key").stat().st_mode) == 0o600


def test_a_signing_key_in_the_folder_moves_with_it(home: Home, tmp_path: Path) -> None:
    asks = home.name(DORA)
    home.folder.mkdir()
    key_file = asks.key_file.rename(home.folder / "signing.key")
    home.enrol(replace(asks, key_file=key_file))
    home.folder.rename(tmp_path / "elsewhere")
    profile = read_operator_profile(tmp_path / "elsewhere" / "profile.toml")
    assert profile.open_signing_key().public_key == asks.key.public_key


@pytest.mark.parametrize("when", ["broken", "lost"])
def test_what_is_interrupted_goes_on_with_the_same_tls_key(home: Home, when: str) -> None:
    asks = home.name(DORA)
    getattr(home.channel, when).append(ExhaustedError("cut"))
    with pytest.raises(ExhaustedError):
        home.enrol(asks)
    key = (home.folder / "tls.key").read_bytes()
    assert not (home.folder / "profile.toml").exists()
    home.enrol(asks)
    assert (home.folder / "tls.key").read_bytes() == key
    leaf = open_svid(read_operator_profile(home.folder / "profile.toml").open_tls().chain, DORA.trust_domain)
    assert home.sim.state.identities[leaf.spki_sha256].serial == leaf.serial


def test_a_folder_of_somebody_is_left_as_it_is(home: Home) -> None:
    asks = home.name(DORA)
    home.enrol(asks)
    before = {path: path.read_bytes() for path in home.folder.iterdir()}
    with pytest.raises(MalformedError, match="sfrl renew"):
        home.enrol(asks)
    assert {path: path.read_bytes() for path in home.folder.iterdir()} == before


def test_a_second_folder_gets_no_second_identity(home: Home, tmp_path: Path) -> None:
    asks = home.name(DORA)
    home.enrol(asks)
    with pytest.raises(DeniedError) as refused:
        replace(home, folder=tmp_path / "thief").enrol(asks)
    assert refused.value.reason == "already_issued"
    assert not (tmp_path / "thief" / "profile.toml").exists()


@pytest.mark.parametrize(
    "what", ["another_log", "another_entry", "another_certificate", "older_checkpoint", "a_record_too"]
)
def test_an_answer_that_does_not_prove_it_is_refused_and_no_certificate_is_written(
    home: Home, tmp_path: Path, what: str
) -> None:
    asks, log = home.name(DORA), home.sim.log
    other = replace(home, folder=tmp_path / "other")
    other.enrol(other.name(OLGA))
    certificate = (other.folder / "tls.crt").read_bytes()
    elsewhere = Simulator(tmp_path / "elsewhere")

    def change(answer: wire.EnrolResponse) -> wire.EnrolResponse:
        size = len(log.raw)
        changes = {
            "another_log": {"checkpoint": elsewhere.log.note(len(elsewhere.log.raw))},
            "another_entry": {"issued": log.logged_entry(answer.issued.index - 1, size)},
            "another_certificate": {"certificate": certificate},
            "older_checkpoint": {"checkpoint": log.note(answer.issued.index)},
            "a_record_too": {"recorded": answer.issued},
        }
        return replace(answer, **changes[what])

    home.channel.answers = lambda raw: wire.encode_enrol_response(change(wire.parse_enrol_response(raw)))
    with pytest.raises((VerificationError, MalformedError)):
        home.enrol(asks)
    assert {path.name for path in home.folder.iterdir()} <= {"tls.key", "lock"}
    home.channel.answers = lambda raw: raw
    home.enrol(asks)
    elsewhere.close()


def refused(home: Home, asks: OverseerAsks) -> str:
    with pytest.raises(SfrlError) as error:
        home.enrol(asks)
    assert home.channel.calls == []
    assert not home.folder.exists()
    return str(error.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda like: {"federation_id": None}, "no `federation_id`"),
        (lambda like: {"federation_id": sha256(b"other").hex()}, "that of the federation id"),
        (lambda like: {"trust_domain": "elsewhere.example"}, "of the same trust domain"),
        (lambda like: {"service_ca": like.service_ca.with_name("none.crt")}, "no such file"),
    ],
)
def test_a_profile_that_does_not_fit_makes_no_key_and_asks_nobody(
    home: Home, change: Callable[[OverseerProfile], dict[str, object]], says: str
) -> None:
    asks = home.name(DORA)
    like = asks.like.model_copy(update=change(asks.like))
    assert says in refused(home, replace(asks, like=like))


@pytest.mark.parametrize("address", ["", "gatekeeper.example", "gatekeeper.example:0", "gatekeeper.example:70000"])
def test_an_address_of_another_form_is_refused_before_anything_is_made(home: Home, address: str) -> None:
    assert "host:port" in refused(home, replace(home.name(DORA), enrol_address=address))


def test_a_trust_policy_of_two_logs_opens_no_door(home: Home, tmp_path: Path) -> None:
    policy, elsewhere = home.sim.policy, Simulator(tmp_path / "elsewhere")
    both = replace(policy, logs=(*policy.logs, *elsewhere.policy.logs))
    elsewhere.close()
    with pytest.raises(MalformedError, match="exactly one log"):
        Door("gatekeeper.example:7443", DORA.trust_domain, home.sim.federation_id, b"", both)


def test_a_service_gets_no_profile(home: Home) -> None:
    asks = home.name(DORA)
    service = next(iter(home.sim.keys))
    assert "operator or auditor" in refused(home, replace(asks, spiffe_id=service))
