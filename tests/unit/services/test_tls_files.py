"""A service's TLS identity: in use as soon as its files hold another one, and never one that is not its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from sfrl_secure.clock import SystemClock
from sfrl_secure.crypto.x509 import CertificateAuthority, generate_tls_key
from sfrl_secure.errors import ExhaustedError, MalformedError
from sfrl_secure.ids import parse_spiffe_id
from sfrl_secure.services import tls_files
from sfrl_secure.services.config import AggregatorConfig, read_config
from sfrl_secure.services.tls_files import LOOK_SECONDS, ServiceTls
from sfrl_secure.storage.tls_pair import TlsPair, read_tls_pair, replace_tls_pair

HOUR = 3_600_000_000
NOW = SystemClock().now_us()
AUTHORITY = CertificateAuthority.create("services", NOW - HOUR, NOW + HOUR)
CONFIG = """
name = "a1"
trust_domain = "sfrl.example"
listen = "127.0.0.1:0"
trust_policy = "trust-policy.txt"
origin = "log.example/sfrl/1"
log_address = "127.0.0.1:7000"
objects_dir = "objects"
state_dir = "state"
[tls]
certificate = "tls.crt"
key = "tls.key"
client_ca = "client.crt"
service_ca = "service.crt"
[signing]
key = "signing.key"
"""


def made(path: str = "service/aggregator/a1") -> TlsPair:
    key, spki = generate_tls_key()
    name = parse_spiffe_id(f"spiffe://sfrl.example/{path}")
    chain = AUTHORITY.issue_svid(
        name, spki, not_before_us=NOW - HOUR, not_after_us=NOW + HOUR, dns_names=("aggregator.sfrl.example",)
    )
    return TlsPair(key, chain)


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def config(tmp_path: Path) -> AggregatorConfig:
    (tmp_path / "config.toml").write_text(CONFIG)
    for name in ("client.crt", "service.crt"):
        (tmp_path / name).write_bytes(AUTHORITY.certificate_pem)
    config = read_config(tmp_path / "config.toml", AggregatorConfig)
    replace_tls_pair(config.tls.certificate, config.tls.key, made())
    return config


@pytest.fixture
def held(config: AggregatorConfig, time: Time) -> ServiceTls:
    return ServiceTls(config, monotonic=time)


def test_server_and_client_show_the_pair_and_the_same_objects_while_it_stays(
    held: ServiceTls, config: AggregatorConfig, time: Time
) -> None:
    pair = read_tls_pair(config.tls.certificate, config.tls.key)
    assert held.server().chain == held.client().chain == pair.chain
    assert held.server().client_roots == AUTHORITY.certificate_pem * 2
    assert held.client().service_roots == AUTHORITY.certificate_pem
    assert held.current().spiffe_id == "spiffe://sfrl.example/service/aggregator/a1"
    before = held.server(), held.client()
    time.now += 10
    assert (held.server() is before[0], held.client() is before[1]) == (True, True)


def test_a_pair_that_is_put_in_place_is_in_use_at_once_and_in_the_files(
    held: ServiceTls, config: AggregatorConfig
) -> None:
    pair = made()
    held.replace(pair.chain, pair.key)
    assert held.server().chain == held.client().chain == pair.chain
    assert held.client().key.matches(pair.key)
    assert read_tls_pair(config.tls.certificate, config.tls.key).chain == pair.chain
    assert ServiceTls(config).server().chain == pair.chain


def test_files_that_somebody_else_replaced_are_read_at_the_next_look(
    held: ServiceTls, config: AggregatorConfig, time: Time
) -> None:
    before, pair = held.server().chain, made()
    replace_tls_pair(config.tls.certificate, config.tls.key, pair)
    assert held.server().chain == before
    time.now += LOOK_SECONDS
    assert held.client().chain == held.server().chain == pair.chain


@pytest.mark.parametrize("path", ["service/aggregator/a2", "service/gatekeeper/a1", "participant/a1"])
def test_another_services_certificate_is_never_put_in_use(
    held: ServiceTls, config: AggregatorConfig, time: Time, path: str
) -> None:
    before = held.server().chain
    key, spki = generate_tls_key()
    chain = AUTHORITY.issue_svid(
        parse_spiffe_id(f"spiffe://sfrl.example/{path}"),
        spki,
        not_before_us=NOW - HOUR,
        not_after_us=NOW + HOUR,
        dns_names=("x.sfrl.example",) if path.startswith("service/") else (),
    )
    with pytest.raises(MalformedError, match=r"is not that of spiffe://sfrl\.example/service/aggregator/a1"):
        held.replace(chain, key)
    assert read_tls_pair(config.tls.certificate, config.tls.key).chain == before
    replace_tls_pair(config.tls.certificate, config.tls.key, TlsPair(key, chain))
    time.now += LOOK_SECONDS
    assert held.server().chain == before
    with pytest.raises(MalformedError):
        ServiceTls(config)


def test_files_that_cannot_be_read_leave_the_identity_in_use_and_are_looked_at_again(
    held: ServiceTls, config: AggregatorConfig, time: Time
) -> None:
    before, pair = held.server().chain, made()
    config.tls.certificate.unlink()
    for _ in range(2):
        time.now += LOOK_SECONDS
        assert held.server().chain == before
    replace_tls_pair(config.tls.certificate, config.tls.key, pair)
    time.now += LOOK_SECONDS
    assert held.server().chain == pair.chain


def test_a_full_disk_leaves_the_old_pair_in_files_and_in_use(
    held: ServiceTls, config: AggregatorConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, pair = held.server().chain, made()

    def full(*args: object) -> None:
        raise ExhaustedError("the disk is full")

    monkeypatch.setattr(tls_files, "replace_tls_pair", full)
    with pytest.raises(ExhaustedError):
        held.replace(pair.chain, pair.key)
    assert held.server().chain == before
