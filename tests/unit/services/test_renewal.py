"""A service's renewal: at half-life and a little later, over the identity in force, again after a failure."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from sfrl_secure.clock import FixedClock
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.crypto.svid import PeerCertificate
from sfrl_secure.crypto.x509 import SKEW_US, CertificateAuthority, generate_tls_key, open_csr
from sfrl_secure.errors import MalformedError, UnavailableError
from sfrl_secure.ids import parse_spiffe_id, sha256
from sfrl_secure.rpc.identity_requests import AskedIdentity
from sfrl_secure.services import renewal
from sfrl_secure.services.config import AggregatorConfig, read_config
from sfrl_secure.services.renewal import Renewal, federation_id_of, open_renewal, spiffe_id_of
from sfrl_secure.services.tls_files import ServiceTls
from sfrl_secure.storage.tls_pair import TlsPair, replace_tls_pair
from sfrl_secure.translog.policy import TrustPolicy

NOW = 1_780_000_000_000_000
HOUR = 3_600_000_000
LIFETIME = 24 * HOUR
AUTHORITY = CertificateAuthority.create("services", NOW - HOUR, NOW + 1000 * HOUR)
FEDERATION = sha256(b"root")
NAME = parse_spiffe_id("spiffe://sfrl.example/service/aggregator/a1")
KEY = SigningKey.generate("ed25519")
CONFIG = f"""
name = "a1"
trust_domain = "sfrl.example"
listen = "127.0.0.1:0"
trust_policy = "trust-policy.txt"
origin = "log.example/sfrl/1"
log_address = "127.0.0.1:7000"
objects_dir = "objects"
state_dir = "state"
federation_id = "{FEDERATION.hex()}"
renew_address = "127.0.0.1:7001"
[tls]
certificate = "tls.crt"
key = "tls.key"
client_ca = "client.crt"
service_ca = "service.crt"
[signing]
key = "signing.key"
"""


def issue(spki: bytes, now_us: int) -> bytes:
    return AUTHORITY.issue_svid(
        NAME, spki, not_before_us=now_us - SKEW_US, not_after_us=now_us + LIFETIME,
        dns_names=("aggregator.sfrl.example",),
    )  # fmt: skip


@pytest.fixture
def config(tmp_path: Path) -> AggregatorConfig:
    (tmp_path / "config.toml").write_text(CONFIG)
    for name in ("client.crt", "service.crt"):
        (tmp_path / name).write_bytes(AUTHORITY.certificate_pem)
    config = read_config(tmp_path / "config.toml", AggregatorConfig)
    key, spki = generate_tls_key()
    replace_tls_pair(config.tls.certificate, config.tls.key, TlsPair(key, issue(spki, NOW)))
    return config


class Gatekeeper:
    """Issues, or fails the next times."""

    def __init__(self, clock: FixedClock) -> None:
        self.clock, self.failures = clock, 0
        self.asked: list[tuple[AskedIdentity, PeerCertificate]] = []
        self.has_come = threading.Event()

    def obtain(self, asked: AskedIdentity, current: PeerCertificate) -> bytes:
        self.asked.append((asked, current))
        self.has_come.set()
        if self.failures:
            self.failures -= 1
            raise UnavailableError("away")
        return issue(open_csr(asked.csr), self.clock.now_us())


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(NOW)


@pytest.fixture
def gatekeeper(clock: FixedClock) -> Gatekeeper:
    return Gatekeeper(clock)


def renewal_of(
    config: AggregatorConfig, clock: FixedClock, gatekeeper: Gatekeeper, *, spread: float = 0.0, **more: object
) -> Renewal:
    return Renewal(
        ServiceTls(config), NAME, FEDERATION, KEY, clock, gatekeeper.obtain, spread=lambda: spread,
        **more,  # type: ignore[arg-type]
    )  # fmt: skip


def test_it_is_due_at_half_life_and_at_most_a_tenth_of_the_rest_later(
    config: AggregatorConfig, clock: FixedClock, gatekeeper: Gatekeeper
) -> None:
    assert renewal_of(config, clock, gatekeeper).due_us() == NOW + LIFETIME // 2
    late = renewal_of(config, clock, gatekeeper, spread=1.0).due_us()
    assert late == NOW + LIFETIME // 2 + LIFETIME // 20


def test_each_time_there_is_a_new_key_that_the_service_has_signed_for(
    config: AggregatorConfig, clock: FixedClock, gatekeeper: Gatekeeper
) -> None:
    told: list[str] = []
    tls = ServiceTls(config)
    made = Renewal(tls, NAME, FEDERATION, KEY, clock, gatekeeper.obtain, on_renewed=lambda: told.append("renewed"))
    before = tls.current()
    made.renew()
    (asked, over), = gatekeeper.asked
    assert over == before
    assert asked.identity.spiffe_id == NAME
    assert (asked.identity.federation_id, asked.identity.key_id) == (FEDERATION, KEY.public_key.key_id)
    assert tls.current().spki_sha256 == asked.identity.spki_sha256 != before.spki_sha256
    assert ServiceTls(config).current() == tls.current()
    assert told == ["renewed"]


def test_what_fails_leaves_the_identity_and_comes_again(
    config: AggregatorConfig, clock: FixedClock, gatekeeper: Gatekeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renewal, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(renewal, "LOOK_SECONDS", 0.001)
    renewed = threading.Event()
    gatekeeper.failures = 3
    made = renewal_of(config, clock, gatekeeper, on_renewed=renewed.set)
    made.start()
    try:
        assert not gatekeeper.has_come.wait(0.05), "nothing is due yet"
        clock.advance(LIFETIME // 2)
        assert renewed.wait(10)
    finally:
        made.stop()
    assert len(gatekeeper.asked) == 4
    assert len({asked.identity.spki_sha256 for asked, _ in gatekeeper.asked}) == 4
    assert len({over.serial for _, over in gatekeeper.asked}) == 1


def test_a_certificate_of_another_service_is_not_taken(config: AggregatorConfig, clock: FixedClock) -> None:
    other = parse_spiffe_id("spiffe://sfrl.example/service/gatekeeper/g1")

    def obtain(asked: AskedIdentity, current: PeerCertificate) -> bytes:
        return AUTHORITY.issue_svid(
            other, open_csr(asked.csr), not_before_us=NOW, not_after_us=NOW + LIFETIME,
            dns_names=("gatekeeper.sfrl.example",),
        )  # fmt: skip

    tls = ServiceTls(config)
    before = tls.current()
    with pytest.raises(MalformedError):
        Renewal(tls, NAME, FEDERATION, KEY, clock, obtain).renew()
    assert tls.current() == before == ServiceTls(config).current()


def test_a_configuration_without_an_address_renews_nothing_and_a_half_one_is_refused(
    config: AggregatorConfig, clock: FixedClock
) -> None:
    tls, policy = ServiceTls(config), TrustPolicy((), (), (), "none")
    assert open_renewal(config.model_copy(update={"renew_address": None}), tls, KEY, policy, clock) is None
    with pytest.raises(MalformedError, match="federation_id"):
        open_renewal(config.model_copy(update={"federation_id": None}), tls, KEY, policy, clock)
    with pytest.raises(MalformedError, match="signing"):
        open_renewal(config, tls, None, policy, clock)
    assert (spiffe_id_of(config), federation_id_of(config)) == (NAME, FEDERATION)
    made = open_renewal(config, tls, KEY, policy, clock)
    assert made is not None
    made.stop()
