"""A federation that was off for longer than its certificates live: it says so, and runs again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sfrl_secure.audit.verify import verify_log
from sfrl_secure.clock import SystemClock
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.crypto.svid import open_svid
from sfrl_secure.errors import MalformedError, NotFoundError
from sfrl_secure.participant.profile import read_profile
from sfrl_secure.participant.sdk import Participant
from sfrl_secure.services.federation.create import Federation, create_federation
from sfrl_secure.services.federation.folder import FederationFolder
from sfrl_secure.services.federation.plan import default_plan
from sfrl_secure.services.federation.reissue import expired_services, reissue
from sfrl_secure.services.federation.supervise import Supervisor

DAY_US = 86_400_000_000


class EarlierClock(SystemClock):
    """The clock of two days ago."""

    def now_us(self) -> int:
        return super().now_us() - 2 * DAY_US


@pytest.fixture(scope="module")
def stale(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    """Made two days ago, never started since; its certificates lived for one."""
    plan = default_plan().model_copy(update={"people_certificate_hours": 24.0})
    return create_federation(tmp_path_factory.mktemp("stale") / "federation", plan, EarlierClock())


def test_a_fresh_federation_needs_nothing(tmp_path: Path) -> None:
    made = create_federation(tmp_path / "new", default_plan(), SystemClock())
    assert expired_services(made.folder, SystemClock()) == []
    assert reissue(made.folder, SystemClock()) == []
    with pytest.raises(NotFoundError, match="sfrl init"):
        reissue(FederationFolder(tmp_path), SystemClock())


def test_a_running_federation_is_left_alone(stale: Federation) -> None:
    supervisor = Supervisor(stale.folder)
    with supervisor.running("verifier"), pytest.raises(MalformedError, match="stop the services first"):
        reissue(stale.folder, SystemClock())


def test_all_whose_keys_lie_here_get_a_new_identity_and_the_federation_runs_again(stale: Federation) -> None:
    before = {path: path.read_bytes() for path in stale.folder.root.rglob("tls.crt")}
    assert len(expired_services(stale.folder, SystemClock())) == 4
    # As after `sfrl enrol` in the operators' folder; and one whose key governance does not name any more.
    shutil.move(stale.folder.participant("rover-3"), stale.folder.operator("rover-3"))
    profile = stale.folder.participant("rover-2") / "profile.toml"
    named = read_profile(profile)
    key = named.signing_key.read_bytes()
    named.signing_key.write_bytes(SigningKey.generate("ed25519").to_pem().expose())
    left_out: list[tuple[str, str]] = []
    renewed = reissue(stale.folder, SystemClock(), lambda who, why: left_out.append((who.name, why)))
    assert left_out == [("rover-2", "its record in force names another signing key")]
    assert len(renewed) == 10
    named.signing_key.write_bytes(key)
    shutil.move(stale.folder.operator("rover-3"), stale.folder.participant("rover-3"))
    renewed += reissue(stale.folder, SystemClock())
    # Four services, three operators, an auditor, three participants.
    assert len(renewed) == len(before) == 11
    assert all(path.read_bytes() != old for path, old in before.items())
    assert expired_services(stale.folder, SystemClock()) == []
    assert reissue(stale.folder, SystemClock()) == []
    profile = read_profile(stale.folder.participant("rover-1") / "profile.toml")
    assert open_svid(profile.open_tls().chain, profile.trust_domain).not_after_us > SystemClock().now_us()
    supervisor = Supervisor(stale.folder)
    supervisor.start()
    try:
        with Participant.from_profile(profile) as rover:
            rover.open_round("example")
    finally:
        codes = supervisor.stop()
    assert set(codes.values()) == {0}
    report = verify_log(stale.folder.log_dir, stale.folder.trust_policy.read_bytes(), stale.folder.objects_dir)
    assert report.exit_code == 0, report.to_text()
