"""An auditor's machine: it copies log and objects over the network, and verifies them with the services gone."""

from __future__ import annotations

import http.client
from dataclasses import replace
from pathlib import Path

import pytest

from sfrl_secure.audit.object_signing import ObjectSigning, federation_of_log
from sfrl_secure.audit.profile import read_auditor_profile
from sfrl_secure.audit.verify import verify_log
from sfrl_secure.cli.mirror import copy_log, open_profile
from sfrl_secure.clock import SystemClock
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.errors import DeniedError, NotFoundError
from sfrl_secure.ids import sha256
from sfrl_secure.rpc.channel import RpcChannel
from sfrl_secure.rpc.clients import GatekeeperClient

from .conftest import ROVERS, SEGMENT, Site, Start, small_plan, submit


def silent(_stage: str, _done: int, _of: int) -> None:
    pass


def run_round(site: Site) -> None:
    """The segment's next round, from its opening to its model."""
    number = len(site.reading().state.segments[SEGMENT].models)
    for name in ROVERS:
        submit(site.participant(name), number)
    site.wait_published(lambda reading: len(reading.state.segments[SEGMENT].models) > number)


@pytest.fixture(scope="module")
def site(start: Start) -> Site:
    return start(small_plan())


def profile_of(site: Site, *, public: bool = True) -> Path:
    """The auditor's profile, with or without the public address."""
    (found,) = (site.folder.root / "auditors").glob("*/profile.toml")
    if public:
        return found
    without = found.with_name("over-grpc.toml")
    lines = [line for line in found.read_text().splitlines() if not line.startswith("public_log")]
    without.write_text("\n".join(lines))
    return without


def signing(site: Site) -> ObjectSigning:
    profile = read_auditor_profile(profile_of(site))
    reading = site.reading()
    federation_id = federation_of_log(site.folder.log_dir, reading.state.size, site.federation.origin)
    assert federation_id == site.federation.federation_id
    return ObjectSigning(federation_id, profile.spiffe_id, profile.open_signing_key(), SystemClock())


def ask(site: Site, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(site.federation.addresses.public_log, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_everyone_is_given_checkpoint_and_hashes_and_no_entry(site: Site) -> None:
    site.wait_published(lambda reading: reading.state.size > 0)
    status, note = ask(site, "/checkpoint")
    assert status == 200
    assert note.startswith(site.federation.origin.encode())
    (tile,) = (site.folder.log_dir / "tile/0/000.p").glob(note.split(b"\n")[1].decode())
    assert ask(site, f"/tile/0/000.p/{tile.name}") == (200, tile.read_bytes())
    assert ask(site, f"/tile/entries/000.p/{tile.name}")[0] == 403


@pytest.mark.parametrize("public", [True, False])
def test_a_mirror_grows_with_the_log_and_is_verified_alone(site: Site, tmp_path: Path, public: bool) -> None:
    profile = open_profile(profile_of(site, public=public))
    first, _ = copy_log(tmp_path, profile, silent)
    run_round(site)
    second, objects = copy_log(tmp_path, profile, silent)
    assert second.held_size == first.checkpoint.size < second.checkpoint.size
    assert objects.fetched >= len(ROVERS) + 2
    assert (objects.missing, objects.altered) == (set(), set())
    policy = site.folder.trust_policy.read_bytes()
    report = verify_log(tmp_path / "log", policy, tmp_path / "objects")
    assert report.findings == (), report.to_text()
    assert report.size == second.checkpoint.size
    # The round after the last model may be open already.
    assert report.models in {report.rounds, report.rounds - 1}
    assert not any(each.digest for each in report.missing), report.to_text()


def test_a_participant_copies_nothing(site: Site) -> None:
    profile = read_auditor_profile(profile_of(site))
    tls = site.profile(ROVERS[0]).open_tls()
    with RpcChannel(
        profile.gatekeepers[0], role="gatekeeper", trust_domain=profile.trust_domain, tls=tls
    ) as channel, pytest.raises(DeniedError) as refused:
        GatekeeperClient(channel).fetch_object(sha256(b"model"), 10, sign=signing(site).sign)
    assert refused.value.reason == "role"


def test_an_auditors_tls_key_alone_reads_nothing(site: Site) -> None:
    profile = read_auditor_profile(profile_of(site))
    thief = replace(signing(site), key=SigningKey.generate("ed25519"))
    model = site.reading().state.segments[SEGMENT].terms.model.initial
    with RpcChannel(
        profile.gatekeepers[0], role="gatekeeper", trust_domain=profile.trust_domain, tls=profile.open_tls()
    ) as channel:
        client = GatekeeperClient(channel)
        with pytest.raises(DeniedError) as refused:
            client.fetch_object(model, 10_000, sign=thief.sign)
        assert refused.value.reason == "bad_signature"
        assert sha256(client.fetch_object(model, 10_000, sign=signing(site).sign)) == model


def test_an_auditor_asks_for_what_is_not_there(site: Site) -> None:
    profile = read_auditor_profile(profile_of(site))
    with RpcChannel(
        profile.gatekeepers[0], role="gatekeeper", trust_domain=profile.trust_domain, tls=profile.open_tls()
    ) as channel, pytest.raises(NotFoundError):
        GatekeeperClient(channel).fetch_object(sha256(b"never stored"), 10, sign=signing(site).sign)
