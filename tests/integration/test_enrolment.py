"""A newcomer joins a running federation and is counted; certificates that live for half a minute renew themselves."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import numpy as np
import pytest

from sfrl_secure.audit.profile import read_auditor_profile, read_operator_profile
from sfrl_secure.audit.published import read_unverified_entries
from sfrl_secure.clock import SystemClock
from sfrl_secure.crypto.envelope import parse_envelope_json, sign_envelope
from sfrl_secure.crypto.secret import SecretBytes
from sfrl_secure.crypto.svid import open_svid
from sfrl_secure.errors import DeniedError, MalformedError
from sfrl_secure.governance.build import build_join
from sfrl_secure.governance.joins import JoinDocument
from sfrl_secure.governance.statements import RefusalsCounted, Statement
from sfrl_secure.ids import Digest
from sfrl_secure.participant.enrol import connect_to_issuer, enrol
from sfrl_secure.participant.join_file import (
    JoinFile,
    generate_token,
    join_key_of,
    read_join_file,
    write_join_file,
)
from sfrl_secure.participant.profile import read_profile
from sfrl_secure.participant.renewal import open_renewal_channel, renew_now
from sfrl_secure.participant.sdk import Participant
from sfrl_secure.rpc.channel import RpcChannel
from sfrl_secure.rpc.clients import AuditLogClient, IdentityClient
from sfrl_secure.rpc.identity_requests import ask_identity
from sfrl_secure.services.federation.folder import FederationFolder
from sfrl_secure.services.federation.plan import FederationPlan
from sfrl_secure.wire.receipts import ReceiptKind

from .conftest import ROVERS, SEGMENT, Site, Start, changes_of, open_number, small_plan, submit, weight_of

NEWCOMER = "rover-4"
DAY_US = 86_400_000_000
LIFETIME_SECONDS = 30


@pytest.fixture(scope="module")
def site(start: Start) -> Site:
    return start(small_plan(gatekeepers=("g1", "g2")))


def invite(site: Site, name: str, token: SecretBytes) -> JoinFile:
    """Two operators sign a join document, one of them brings it to the log; give what the newcomer is handed."""
    now_us = SystemClock().now_us()
    profiles = [read_operator_profile(site.folder.operator(each) / "profile.toml") for each in ("alice", "bob")]
    federation_id = site.federation.federation_id
    raw = build_join(
        federation_id=federation_id,
        expires_us=now_us + DAY_US,
        name=name,
        join_key=join_key_of(token).public_key,
        clearance=5,
        groups=["rovers"],
        record_expires_us=now_us + 30 * DAY_US,
    )
    envelope = sign_envelope(JoinDocument.payload_type, raw, [each.open_signing_key() for each in profiles])
    first = profiles[0]
    with RpcChannel(
        first.audit_log, role="audit_log", trust_domain=first.trust_domain, tls=first.open_tls()
    ) as channel:
        AuditLogClient(channel).append(envelope)
    assert first.enrol_address is not None
    return JoinFile(
        name=name,
        trust_domain=first.trust_domain,
        federation_id=federation_id,
        origin=site.federation.origin,
        gatekeepers=first.gatekeepers,
        enrol_address=first.enrol_address,
        service_ca=first.service_ca.read_text(),
        trust_policy=first.trust_policy.read_text(),
        token=token,
        expires_us=now_us + DAY_US,
        clearance=5,
        groups=frozenset({"rovers"}),
        record_expires_us=now_us + 30 * DAY_US,
    )


def others_files(folder: FederationFolder) -> dict[Path, Digest]:
    """What everybody else has, the services' own state apart."""
    kept = [
        path
        for part in ("operators", "auditors", "participants", "ca", "services")
        for path in (folder.root / part).rglob("*")
        if path.is_file() and "state" not in path.parts
    ]
    return {path: Digest(hashlib.sha256(path.read_bytes()).digest()) for path in (*kept, folder.trust_policy)}


@pytest.fixture(scope="module")
def newcomer(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a rover that has joined; nobody else's file has changed."""
    home = tmp_path_factory.mktemp("newcomer")
    before = others_files(site.folder)
    write_join_file(home / "join.json", invite(site, NEWCOMER, generate_token()))
    joined = enrol(read_join_file(home / "join.json"), home / "mine", SystemClock())
    assert joined.profile == home / "mine" / "profile.toml"
    assert others_files(site.folder) == before
    return home / "mine"


def test_a_newcomer_joins_a_running_federation_and_its_update_is_counted(site: Site, newcomer: Path) -> None:
    with Participant.from_profile(newcomer / "profile.toml") as rover:
        for name in ROVERS[:2]:
            submit(site.participant(name), 1)
        indices, values = changes_of(NEWCOMER, 1)
        rover.submit(open_number(rover, 1), indices, values, weight_of(NEWCOMER), rng=np.random.default_rng(1))
    log = site.wait_published(lambda log: log.state.segments[SEGMENT].rounds[1].model is not None)
    assert log.voids == {}
    played = log.state.segments[SEGMENT].rounds[1]
    assert sorted(played.admissions) == sorted([*ROVERS[:2], NEWCOMER])
    assert played.closed is not None
    assert (played.closed.counted_count, played.closed.dropped) == (3, ())


def test_a_newcomer_s_receipt_is_verified_like_everybody_s(site: Site, newcomer: Path) -> None:
    with Participant.from_profile(newcomer / "profile.toml") as rover:
        rover.receipt(rover.submitted(SEGMENT), ReceiptKind.COUNTED)


def test_its_keys_are_its_own_and_lie_nowhere_else(site: Site, newcomer: Path) -> None:
    for name in ("signing.key", "tls.key"):
        key = (newcomer / name).read_bytes()
        assert (newcomer / name).stat().st_mode & 0o777 == 0o600
        assert all(key not in path.read_bytes() for path in site.folder.root.rglob("*") if path.is_file())


def test_an_invitation_is_taken_up_once(site: Site, newcomer: Path, tmp_path: Path) -> None:
    join = read_join_file(newcomer.parent / "join.json")
    with pytest.raises(MalformedError, match="holds a participant already"):
        enrol(join, newcomer, SystemClock())
    with pytest.raises(DeniedError) as refused:
        enrol(join, tmp_path / "thief", SystemClock())
    assert refused.value.reason == "invitation_spent"
    assert not (tmp_path / "thief" / "profile.toml").exists()


def test_a_stolen_signing_key_alone_gets_no_identity(site: Site, newcomer: Path) -> None:
    """The thief has the signing key and the public record, and a TLS key of its own; not the join token."""
    join = read_join_file(newcomer.parent / "join.json")
    key = read_profile(newcomer / "profile.toml").open_signing_key()
    asked = ask_identity(join.spiffe_id, join.federation_id, key, SystemClock().now_us())
    record = parse_envelope_json((newcomer / "record.json").read_bytes())
    with connect_to_issuer(join) as channel:
        with pytest.raises(DeniedError) as refused:
            IdentityClient(channel).enrol(record, asked.request, asked.csr)
        assert refused.value.reason == "invitation_spent"
        with pytest.raises(DeniedError):
            IdentityClient(channel).renew(asked.request, asked.csr)


def test_a_renewal_by_hand_gives_another_key_and_the_profile_goes_on(site: Site, newcomer: Path) -> None:
    profile = read_profile(newcomer / "profile.toml")
    before = open_svid(profile.open_tls().chain, profile.trust_domain)
    with open_renewal_channel(profile) as channel:
        # The second gatekeeper does not issue: the first one is found.
        channel.turn()
        renewed = renew_now(profile, channel, SystemClock())
    after = open_svid(profile.open_tls().chain, profile.trust_domain)
    assert (after.serial, after.spki_sha256) == (renewed.serial, renewed.spki_sha256)
    assert after.spki_sha256 != before.spki_sha256
    with Participant.from_profile(profile) as rover:
        rover.open_round(SEGMENT)


def test_an_operator_and_an_auditor_renew_like_everybody(site: Site) -> None:
    for profile in (
        read_operator_profile(site.folder.operator("carol") / "profile.toml"),
        read_auditor_profile(site.folder.auditor("auditor-1") / "profile.toml"),
    ):
        before = open_svid(profile.open_tls().chain, profile.trust_domain)
        with open_renewal_channel(profile) as channel:
            assert renew_now(profile, channel, SystemClock()).serial != before.serial


def test_the_verifier_finds_nothing(site: Site, newcomer: Path) -> None:
    assert set(site.stop().values()) == {0}
    report = site.verify()
    assert report.exit_code == 0, report.to_text()


def refusals_of(site: Site) -> list[RefusalsCounted]:
    """What the services have counted and written down."""
    entries = read_unverified_entries(site.folder.log_dir, site.reading().state.size)
    bodies = [each.content.body for each in entries if isinstance(each.content, Statement)]
    return [body for body in bodies if isinstance(body, RefusalsCounted)]


def short_lived_plan() -> FederationPlan:
    plan = small_plan(gatekeepers=("g1", "g2"))
    return plan.model_copy(update={"certificate_hours": LIFETIME_SECONDS / 3600})


def test_everybody_outlives_the_first_certificates_without_a_failed_call(start: Start) -> None:
    """Services renew by themselves and rovers before a call, while every service follows the log."""
    site = start(short_lived_plan())
    begun = time.monotonic()
    folders = (site.folder.root / "services", site.folder.root / "participants")
    certificates = [path for folder in folders for path in folder.glob("*/tls.crt")]
    before = {path: path.read_bytes() for path in certificates}
    assert len(before) == 5 + 3
    rovers = [site.participant(name) for name in ROVERS]
    number = 0
    while time.monotonic() < begun + LIFETIME_SECONDS + 6:
        number += 1
        for rover in rovers:
            submit(rover, number)
        # The segment has a hundred rounds.
        time.sleep(0.5)
    # Nobody was refused anywhere, the streams of the log's followers among them: each went on under the new identity.
    assert refusals_of(site) == []
    after = {path: path.read_bytes() for path in certificates}
    for path in certificates:
        assert before[path] != after[path], path
    assert site.supervisor.dead() == []
    assert set(site.stop().values()) == {0}
    report = site.verify()
    assert report.exit_code == 0, report.to_text()
