"""`sfrl invite` and `sfrl revoke`: who comes in, and who stays out."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from simulator import DOMAIN, participant_id

from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.crypto.x509 import CertificateAuthority, generate_tls_key
from sfrl_secure.governance.documents import JoinDocument, KeyRevocation
from sfrl_secure.ids import sha256
from sfrl_secure.operating.signing import parse_request
from sfrl_secure.participant.join_file import read_join_file

from .governed import Governed

INVITE = ("invite", "rover-9", "--groups", "rovers, drones", "--clearance", "3")


def test_an_invitation_with_its_keys_lets_the_newcomer_in_at_once(run, governed: Governed) -> None:
    ended = run(*INVITE, "--profile", governed.profile, "--yes", *governed.keys("ann", "bob"), "--json")
    assert ended.code == 0, ended
    said = json.loads(ended.out)
    assert said["join_file"] == "rover-9.join"
    assert "lets nobody in" not in ended.err
    join, document = read_join_file(Path("rover-9.join")), governed.sim.state.join("rover-9")
    assert document is not None
    assert document.join_key == join.join_key.public_key
    assert (join.clearance, join.groups) == (3, {"rovers", "drones"}) == (document.clearance, document.groups)
    assert (join.expires_us, join.record_expires_us) == (document.expires_us, document.record_expires_us)
    assert (join.enrol_address, join.gatekeepers) == ("127.0.0.1:3", ("127.0.0.1:2",))
    assert (join.federation_id, join.origin) == (governed.sim.federation_id, governed.sim.origin)


def test_the_token_records_a_key_once(run, governed: Governed) -> None:
    assert run(*INVITE, "--profile", governed.profile, "--yes", *governed.keys("ann", "bob")).code == 0
    join, sim = read_join_file(Path("rover-9.join")), governed.sim
    record = {"clearance": 3, "groups": ["rovers", "drones"], "expires_us": join.record_expires_us}
    key = SigningKey.generate("ed25519")
    sim.log.order(sim.sign_join("rover-9", key, join.join_key, **record))
    assert sim.state.participant("rover-9") is not None


def test_the_join_file_is_its_owners_alone_and_the_token_is_printed_nowhere(run, governed: Governed) -> None:
    ended = run(*INVITE, "--profile", governed.profile)
    assert ended.code == 0
    assert stat.S_IMODE(Path("rover-9.join").stat().st_mode) == 0o600
    token = json.loads(Path("rover-9.join").read_text())["token"]
    assert token not in ended.out + ended.err
    request = Path("join-rover-9-v1.request.json").read_text()
    assert token not in request
    assert isinstance(parse_request(request.encode()).document, JoinDocument)
    assert token.encode() not in parse_request(request.encode()).payload
    assert "lets nobody in before the invitation is published" in ended.err


def test_a_join_file_is_never_written_over(run, governed: Governed) -> None:
    Path("rover-9.join").write_text("mine")
    ended = run(*INVITE, "--profile", governed.profile)
    assert ended.code == 2
    assert Path("rover-9.join").read_text() == "mine"


def test_an_invitation_that_nobody_signs_leaves_no_join_file(run, governed: Governed) -> None:
    for options, code in (((), 2), (("--yes", "--out", "nowhere/request.json"), 2)):
        ended = run(*INVITE, "--profile", governed.profile, *governed.keys("ann"), *options)
        assert ended.code == code
        assert list(Path().iterdir()) == []


def test_an_address_for_newcomers_is_asked_for_where_the_profile_has_none(run, governed: Governed) -> None:
    governed.profile.write_text(governed.profile.read_text().replace("enrol_address", "# enrol_address"))
    ended = run(*INVITE, "--profile", governed.profile)
    assert ended.code == 2
    assert "--enrol-address" in ended.err
    assert run(*INVITE, "--profile", governed.profile, "--enrol-address", "a.example:7").code == 0
    assert read_join_file(Path("rover-9.join")).enrol_address == "a.example:7"


def test_who_joins_again_follows_the_record_in_force(run, governed: Governed) -> None:
    assert run("invite", "rover-1", "--groups", "rovers", "--profile", governed.profile).code == 0
    join, record = read_join_file(Path("rover-1.join")), governed.sim.state.participant("rover-1")
    assert record is not None
    assert (join.record_version, join.record_previous) == (record.version + 1, record.digest)


def test_pending_invitations_and_revoked_keys_are_shown(run, governed: Governed, publish_to) -> None:
    sim = governed.sim
    sim.invite("rover-8")
    sim.invite("rover-9")
    sim.rovers["rover-9"] = SigningKey.generate("ed25519")
    sim.join("rover-9")
    sim.revoke_key(sha256(b"x"), participant_id("rover-2"), reason="lost")
    sim.rotate_root()
    publish_to(sim, governed.log)
    shown = run("policy", "show", "--log", governed.log).out
    assert "invited      rover-8: clearance 5, groups rovers" in shown
    assert "invited      rover-9" not in shown
    assert f"revoked key  {sha256(b'x').hex()} of spiffe://{DOMAIN}/participant/rover-2 (lost)" in shown
    assert f"rotated by entries {sim.state.root_indices[0]}" in shown


# Revoking


def test_a_revocation_takes_one_key_and_is_in_the_log_at_once(run, governed: Governed) -> None:
    ended = run(
        "revoke", "rover-2", "--reason", "stolen", "--profile", governed.profile, "--yes", *governed.keys("eve")
    )
    assert ended.code == 0, ended
    assert "changes      rover-2 was active and is revoked (stolen)" in ended.err
    record = governed.sim.state.participant("rover-2")
    assert record is not None
    assert (record.state, record.reason) == ("revoked", "stolen")
    again = run("revoke", "rover-2", "--profile", governed.profile)
    assert (again.code, again.err) == (3, "error: rover-2 is revoked already (revoked)\n")


def test_a_certificate_names_the_key_to_revoke(run, governed: Governed) -> None:
    now_us = governed.sim.clock.now_us()
    _, spki = generate_tls_key()
    authority = CertificateAuthority.create("clients", now_us - 10**9, now_us + 10**10)
    owner = participant_id("rover-2")
    Path("lost.crt").write_bytes(authority.issue_svid(owner, spki, not_before_us=now_us, not_after_us=now_us + 10**9))
    ended = run("revoke", "--tls-key", "lost.crt", "--profile", governed.profile, "--yes", *governed.keys("eve"))
    assert ended.code == 0, ended
    assert sha256(spki) in governed.sim.state.revoked_keys


def test_a_key_is_revoked_by_its_digest_and_the_name_that_it_was_issued_to(run, governed: Governed) -> None:
    spki = sha256(b"some key")
    command = ("revoke", "--tls-key", spki.hex(), "--log", governed.log)
    unknown = run(*command)
    assert unknown.code == 2
    assert "--spiffe-id" in unknown.err
    assert run(*command, "--spiffe-id", participant_id("rover-3"), "--out", "key.json").code == 0
    document = parse_request(Path("key.json").read_bytes()).document
    assert isinstance(document, KeyRevocation)
    assert (document.spki_sha256, document.spiffe_id) == (spki, participant_id("rover-3"))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ((), "NAME of a participant, or --tls-key"),
        (("rover-1", "--tls-key", "0" * 64), "NAME of a participant, or --tls-key"),
        (("rover-77",), "it records: rover-1, rover-2"),
        (("--tls-key", "nowhere.crt"), "there is no file nowhere.crt"),
        (("--tls-key", "odd.crt"), "neither a certificate of"),
        (("--tls-key", "0" * 64, "--spiffe-id", "rover-1"), "SPIFFE ID"),
    ],
)
def test_a_revocation_that_names_nobody_says_what_to_name(run, governed: Governed, options, reason: str) -> None:
    Path("odd.crt").write_text("no certificate")
    ended = run("revoke", *options, "--log", governed.log)
    assert ended.code == 2
    assert reason in ended.err
