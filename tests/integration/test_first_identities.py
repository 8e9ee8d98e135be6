"""Whom a new root or services document names comes into a running federation: an operator, a gatekeeper, an auditor."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sfrl_secure.audit.profile import read_auditor_profile, read_operator_profile
from sfrl_secure.audit.published import read_unverified_entry
from sfrl_secure.cli.main import main
from sfrl_secure.clock import SystemClock
from sfrl_secure.governance.statements import Statement
from sfrl_secure.participant.renewal import open_renewal_channel, renew_now
from sfrl_secure.participant.sdk import Participant
from sfrl_secure.services.federation.supervise import ServiceProcess

from .conftest import ROVERS, SEGMENT, Site, Start, small_plan, submit

Sfrl = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def site(start: Start) -> Site:
    return start(small_plan())


@pytest.fixture
def sfrl(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Sfrl:
    """Call the command in a folder of its own; give exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sfrl", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return call


def of(site: Site, name: str, *keys: str) -> list[object]:
    """Options of an operator's profile, and of these operators' keys."""
    signing = [part for each in keys for part in ("--key", site.folder.operator(each) / "signing.key")]
    return ["--profile", site.folder.operator(name) / "profile.toml", "--yes", *signing]


def done(answer: tuple[int, str, str]) -> str:
    code, said, err = answer
    assert code == 0, err
    return said


def enrol_dora(site: Site, sfrl: Sfrl, folder: Path) -> tuple[int, str, str]:
    like = site.folder.operator("alice") / "profile.toml"
    return sfrl("enrol", "--as", "operator/dora", "--key", folder.parent / "dora.key", "--like", like, "--dir", folder)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the newcomers' signing keys lie."""
    return tmp_path_factory.mktemp("newcomers")


def test_an_operator_whom_a_rotation_adds_enrols_and_publishes_a_halt(site: Site, sfrl: Sfrl, keys: Path) -> None:
    (keys / "dora.pub").write_text(done(sfrl("policy", "key", "--new", keys / "dora.key")))
    code, _, err = enrol_dora(site, sfrl, keys / "dora")
    assert (code, "unknown_name" in err) == (3, True), err
    rooted = sfrl("policy", "root", "--add", f"dora={keys / 'dora.pub'}", *of(site, "alice", "alice", "bob"),
                  "--key", keys / "dora.key")  # fmt: skip
    done(rooted)
    site.wait_published(lambda found: found.state.root is not None and "dora" in found.state.root.operators)
    said = done(enrol_dora(site, sfrl, keys / "dora"))
    assert f"--profile {keys / 'dora' / 'profile.toml'}" in said
    own = ("--profile", keys / "dora" / "profile.toml", "--key", keys / "dora.key", "--yes")
    done(sfrl("order", "halt", SEGMENT, "--reason", "smoke", *own))
    site.wait_published(lambda found: found.state.segments[SEGMENT].is_halted)


def test_a_second_identity_is_had_over_the_first_alone(site: Site, sfrl: Sfrl, keys: Path) -> None:
    """Whoever has a copy of the signing key gets none; dora renews hers."""
    code, _, err = enrol_dora(site, sfrl, keys / "thief")
    assert (code, "already_issued" in err, "sfrl renew" in err) == (3, True, True), err
    profile = read_operator_profile(keys / "dora" / "profile.toml")
    with open_renewal_channel(profile) as channel:
        assert renew_now(profile, channel, SystemClock()).spiffe_id == profile.spiffe_id
    done(sfrl("order", "resume", SEGMENT, *of(site, "alice", "alice", "bob")))


def test_a_gatekeeper_and_an_auditor_whom_a_services_document_adds_enrol_and_the_gatekeeper_admits(
    site: Site, sfrl: Sfrl, keys: Path
) -> None:
    folder = site.folder.service("gatekeeper", "g2")
    folder.mkdir()
    g2 = done(sfrl("policy", "key", "--new", folder / "signing.key", "--suite", "ed25519"))
    olga = done(sfrl("policy", "key", "--new", keys / "olga.key"))
    profile = ("--profile", site.folder.operator("alice") / "profile.toml")
    draft = done(sfrl("policy", "draft", "services", *profile))
    Path("services.toml").write_text(
        f'{draft}\n[[services]]\nrole = "gatekeeper"\nname = "g2"\n{g2}\n[[auditors]]\nname = "olga"\n{olga}'
    )
    done(sfrl("policy", "build", "services.toml", *profile, "--out", "services.json"))
    for each in ("alice", "bob"):
        signing = site.folder.operator(each) / "signing.key"
        done(sfrl("policy", "sign", "services.json", "--key", signing, "--yes", "--out", f"{each}.json"))
    done(sfrl("policy", "publish", "services.json", "alice.json", "bob.json", *profile))
    site.wait_published(lambda found: (named := found.state.services()) is not None and named.version == 2)

    address = free_address()
    config = configuration_of_g2(site, address)
    (folder / "config.toml").write_text(config)
    enrol_address = read_operator_profile(profile[1]).enrol_address
    enrolled = ("enrol", "--as", "service/gatekeeper/g2", "--config", folder / "config.toml")
    done(sfrl(*enrolled, "--enrol-address", enrol_address))
    code, _, err = sfrl(*enrolled, "--enrol-address", enrol_address)
    assert (code != 0, "has a certificate already" in err) == (True, True), err

    hers = ("--key", keys / "olga.key", "--dir", keys / "olga")
    done(sfrl("enrol", "--as", "auditor/olga", "--like", profile[1], *hers))
    assert read_auditor_profile(keys / "olga" / "profile.toml").open_tls() is not None
    done(sfrl("audit", "mirror", keys / "mirror", "--profile", keys / "olga" / "profile.toml"))

    service = ServiceProcess("gatekeeper", "g2", folder / "config.toml", keys / "g2.log")
    service.start()
    try:
        service.wait_ready()
        number = site.reading().state.segments[SEGMENT].last_round
        with Participant.from_profile(site.profile(ROVERS[0]).model_copy(update={"gatekeepers": (address,)})) as rover:
            submit(rover, number)
        for name in ROVERS[1:]:
            submit(site.participant(name), number)
        log = site.wait_published(lambda log: log.state.segments[SEGMENT].rounds[number].model is not None)
    finally:
        code = service.stop()
    assert (code, log.voids) == (0, {})
    admitted = log.state.segments[SEGMENT].rounds[number].admissions[ROVERS[0]]
    content = read_unverified_entry(site.folder.log_dir, log.state.size, admitted.index).content
    assert isinstance(content, Statement)
    assert content.writer == "spiffe://sfrl.example/service/gatekeeper/g2"


def free_address() -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{taken.getsockname()[1]}"


def configuration_of_g2(site: Site, address: str) -> str:
    """The first gatekeeper's, without what issues identities."""
    text = (site.folder.service("gatekeeper", "g1") / "config.toml").read_text()
    tables = text.split("\n\n")
    assert any(each.startswith("[issuing]") for each in tables)
    kept = "\n\n".join(each for each in tables if not each.startswith("[issuing]"))
    g1 = site.federation.addresses.gatekeepers["g1"]
    kept = kept.replace('name = "g1"', 'name = "g2"').replace(f'listen = "{g1}"', f'listen = "{address}"')
    return f'renew_address = "{g1}"\n{kept}'


def test_the_verifier_finds_nothing(site: Site) -> None:
    assert set(site.stop().values()) == {0}
    report = site.verify()
    assert report.exit_code == 0, report.to_text()
