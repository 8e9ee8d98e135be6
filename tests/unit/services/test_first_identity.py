"""A new service's first identity: into the files that its configuration names, and only where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
from simulated_identities import DeskChannel, open_desk
from simulator import DOMAIN, Simulator, service_id

from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.errors import DeniedError, MalformedError
from sfrl_secure.services.config import GatekeeperConfig, VerifierConfig, read_config
from sfrl_secure.services.first_identity import enrol_service
from sfrl_secure.storage.secrets import write_secret
from sfrl_secure.translog.policy import format_trust_policy

DOOR = "gatekeeper.example:7443"

CONFIG = """\
name = "%s"
trust_domain = "%s"
listen = "127.0.0.1:0"
trust_policy = "trust-policy.txt"
origin = "%s"
federation_id = "%s"
%s
[tls]
certificate = "tls/tls.crt"
key = "tls/tls.key"
client_ca = "client-ca.crt"
service_ca = "service-ca.crt"
%s
"""
GATEKEEPER = 'log_address = "log.example:7000"\nobjects_dir = "objects"\nstate_dir = "state"'
VERIFIER = 'witness_listen = "127.0.0.1:0"\nwitness_keys = ["witness.key"]\nstate_dir = "state"'
SIGNING = '[signing]\nkey = "signing.key"\nsuite = "ed25519"'


@pytest.fixture
def home(tmp_path: Path, sim: Simulator) -> Path:
    """The folder of a gatekeeper that a services document newly names."""
    return lay_out(tmp_path / "g9", sim, "gatekeeper", "g9", GATEKEEPER)


def lay_out(folder: Path, sim: Simulator, role: str, name: str, more: str, signing: str = SIGNING) -> Path:
    (folder / "tls").mkdir(parents=True)
    key = SigningKey.generate("ed25519")
    sim.keys[service_id(role, name)] = key
    sim.publish_services()
    write_secret(folder / "signing.key", key.to_pem())
    (folder / "trust-policy.txt").write_bytes(format_trust_policy(sim.policy))
    (folder / "service-ca.crt").write_text("-----BEGIN CERTIFICATE-----\n")
    text = CONFIG % (name, DOMAIN, sim.origin, sim.federation_id.hex(), more, signing)
    (folder / "config.toml").write_text(text)
    return folder


def test_a_new_service_has_the_identity_that_its_configuration_wants(sim: Simulator, home: Path) -> None:
    channel = DeskChannel(open_desk(sim))
    got = enrol_service("gatekeeper", "g9", home / "config.toml", DOOR, sim.clock, connect=lambda _: channel)
    config = read_config(home / "config.toml", GatekeeperConfig)
    leaf = config.open_certificate(config.read_tls())
    assert (leaf.spiffe_id, leaf.not_after_us) == (service_id("gatekeeper", "g9"), got.not_after_us)
    assert sim.state.identities[leaf.spki_sha256].serial == leaf.serial
    assert (home / "tls" / "tls.key").stat().st_mode & 0o777 == 0o600


def test_a_verifier_enrols_like_every_service(sim: Simulator, tmp_path: Path) -> None:
    home = lay_out(tmp_path / "v9", sim, "verifier", "v9", VERIFIER)
    channel = DeskChannel(open_desk(sim))
    enrol_service("verifier", "v9", home / "config.toml", DOOR, sim.clock, connect=lambda _: channel)
    read_config(home / "config.toml", VerifierConfig).read_tls()


def test_a_certificate_that_is_there_is_left_alone(sim: Simulator, home: Path) -> None:
    (home / "tls" / "tls.crt").write_text("somebody's")
    channel = DeskChannel(open_desk(sim))
    with pytest.raises(MalformedError, match="has a certificate already"):
        enrol_service("gatekeeper", "g9", home / "config.toml", DOOR, sim.clock, connect=lambda _: channel)
    assert (home / "tls" / "tls.crt").read_text() == "somebody's"
    assert channel.calls == []


def test_the_configuration_is_of_the_service_that_is_named(sim: Simulator, home: Path) -> None:
    channel = DeskChannel(open_desk(sim))
    with pytest.raises(MalformedError, match="another service is to be enrolled"):
        enrol_service("gatekeeper", "g8", home / "config.toml", DOOR, sim.clock, connect=lambda _: channel)
    with pytest.raises(MalformedError):
        enrol_service("verifier", "g9", home / "config.toml", DOOR, sim.clock, connect=lambda _: channel)
    assert channel.calls == []


def test_a_verifier_without_a_signing_key_cannot_ask(sim: Simulator, tmp_path: Path) -> None:
    home = lay_out(tmp_path / "v9", sim, "verifier", "v9", VERIFIER, signing="")
    channel = DeskChannel(open_desk(sim))
    with pytest.raises(MalformedError, match=r"\[signing\]"):
        enrol_service("verifier", "v9", home / "config.toml", DOOR, sim.clock, connect=lambda _: channel)


def test_a_service_that_nobody_names_gets_no_certificate(sim: Simulator, home: Path) -> None:
    del sim.keys[service_id("gatekeeper", "g9")]
    sim.publish_services()
    channel = DeskChannel(open_desk(sim))
    with pytest.raises(DeniedError) as refused:
        enrol_service("gatekeeper", "g9", home / "config.toml", DOOR, sim.clock, connect=lambda _: channel)
    assert refused.value.reason == "unknown_name"
    assert not (home / "tls" / "tls.crt").exists()
