"""Profiles: every key known, no key that others can read, one log."""

from __future__ import annotations

from pathlib import Path

import pytest
from simulator import Simulator

from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.errors import DeniedError, MalformedError, NotFoundError
from sfrl_secure.participant.profile import GATEKEEPERS_MAX, PROFILE_BYTES_MAX, read_profile
from sfrl_secure.participant.sdk import Participant
from sfrl_secure.translog.policy import format_trust_policy

VALUES = {
    "name": '"rover-1"',
    "trust_domain": '"mars.example"',
    "gatekeepers": '["localhost:7001", "[::1]:7002"]',
    "certificate": '"tls.pem"',
    "tls_key": '"tls.key"',
    "service_ca": '"ca.pem"',
    "signing_key": '"signing.key"',
    "suite": '"ed25519"',
    "trust_policy": '"../policy.txt"',
    "receipts": '"receipts"',
}


def write(folder: Path, **changes: str | None) -> Path:
    values = {key: value for key, value in {**VALUES, **changes}.items() if value is not None}
    path = folder / "profile.toml"
    path.write_text("[participant]\n" + "".join(f"{key} = {value}\n" for key, value in values.items()))
    return path


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    profile = read_profile(write(tmp_path))
    assert profile.name == "rover-1"
    assert profile.gatekeepers == ("localhost:7001", "[::1]:7002")
    assert profile.signing_key == tmp_path / "signing.key"
    assert profile.trust_policy == tmp_path / "../policy.txt"
    assert read_profile(write(tmp_path, receipts='"/var/receipts"')).receipts == Path("/var/receipts")


def test_a_profile_or_a_file_of_it_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=rf"^the profile: there is no file {tmp_path}/none.toml$"):
        Participant.from_profile(tmp_path / "none.toml")
    path = write(tmp_path, trust_policy='"policy.txt"')
    key = SigningKey.generate("ed25519").to_pem().expose()
    for name in ("tls.pem", "tls.key", "ca.pem", "signing.key", "policy.txt"):
        for given in (path, read_profile(path)):
            with pytest.raises(NotFoundError, match=rf"the profile names: there is no file {tmp_path}/{name}$"):
                Participant.from_profile(given)
        (tmp_path / name).write_bytes(key)
        (tmp_path / name).chmod(0o600)
    with pytest.raises(MalformedError):
        Participant.from_profile(path)


@pytest.mark.parametrize("key", VALUES)
def test_a_missing_key_is_named(tmp_path: Path, key: str) -> None:
    with pytest.raises(MalformedError, match=key):
        read_profile(write(tmp_path, **{key: None}))


def test_an_unknown_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MalformedError, match=r"unknown key `participant\.gatekeeper`"):
        read_profile(write(tmp_path, gatekeeper='"localhost:1"'))
    path = write(tmp_path)
    path.write_text(path.read_text() + "[other]\n")
    with pytest.raises(MalformedError, match="other"):
        read_profile(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", '"Rover 1"'),
        ("name", "1"),
        ("trust_domain", '"mars/example"'),
        ("suite", '"rsa"'),
        ("gatekeepers", "[]"),
        ("gatekeepers", '"localhost:1"'),
        ("gatekeepers", '["localhost"]'),
        ("gatekeepers", '["localhost:0"]'),
        ("gatekeepers", '["localhost:65536"]'),
        ("gatekeepers", '["dns:///evil:443"]'),
        ("gatekeepers", str(["localhost:1"] * (GATEKEEPERS_MAX + 1))),
    ],
)
def test_a_value_of_another_form_is_refused_and_not_quoted(tmp_path: Path, key: str, value: str) -> None:
    with pytest.raises(MalformedError, match=f"participant.{key}") as refused:
        read_profile(write(tmp_path, **{key: value}))
    assert "evil" not in str(refused.value)


def test_a_file_that_is_no_profile_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "profile.toml"
    with pytest.raises(NotFoundError):
        read_profile(path)
    for raw in (b"\xff", b"[participant", b"x" * (PROFILE_BYTES_MAX + 1), b""):
        path.write_bytes(raw)
        with pytest.raises(MalformedError):
            read_profile(path)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o602, 0o610])
def test_a_key_that_others_can_read_is_not_used(tmp_path: Path, mode: int) -> None:
    profile = read_profile(write(tmp_path))
    for path in (profile.signing_key, profile.tls_key):
        path.write_bytes(SigningKey.generate("ed25519").to_pem().expose())
        path.chmod(mode)
    for read in (profile.open_signing_key, profile.open_tls):
        with pytest.raises(DeniedError) as denied:
            read()
        assert denied.value.reason == "key_permissions"
    with pytest.raises(DeniedError):
        Participant.from_profile(tmp_path / "profile.toml")


def test_the_signing_key_is_of_the_suite(tmp_path: Path) -> None:
    profile = read_profile(write(tmp_path, suite='"ed25519+ml-dsa-44"'))
    key = SigningKey.generate("ed25519")
    profile.signing_key.write_bytes(key.to_pem().expose())
    profile.signing_key.chmod(0o600)
    with pytest.raises(MalformedError):
        profile.open_signing_key()
    assert read_profile(write(tmp_path)).open_signing_key().public_key == key.public_key


def test_the_trust_policy_lists_one_log(tmp_path: Path) -> None:
    sim, other = Simulator(tmp_path / "one", rovers=()), Simulator(tmp_path / "two", rovers=())
    (tmp_path / "home").mkdir()
    profile = read_profile(write(tmp_path / "home"))
    profile.trust_policy.write_bytes(format_trust_policy(sim.policy))
    assert profile.open_trust_policy() == sim.policy
    both = format_trust_policy(sim.policy).decode().splitlines()
    both[:0] = [line for line in format_trust_policy(other.policy).decode().splitlines() if line.startswith("log ")]
    profile.trust_policy.write_text("\n".join(both) + "\n")
    with pytest.raises(MalformedError, match="exactly one log"):
        profile.open_trust_policy()
