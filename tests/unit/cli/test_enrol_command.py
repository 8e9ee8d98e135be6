"""`sfrl enrol`, `sfrl renew`, `sfrl reissue`: each error says what to do next, and no output shows a secret."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sfrl_secure.cli.main import app
from sfrl_secure.clock import SystemClock
from sfrl_secure.crypto.envelope import envelope_to_json, sign_envelope
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.errors import DeniedError, MalformedError, NotFoundError, SfrlError
from sfrl_secure.governance.documents import ParticipantRecord
from sfrl_secure.participant import enrol as joining
from sfrl_secure.participant import first_identity
from sfrl_secure.participant.join_file import JoinFile, generate_token, write_join_file
from sfrl_secure.services.federation.create import Federation, create_federation
from sfrl_secure.services.federation.plan import default_plan


def run(*words: str | Path) -> str:
    """Run `sfrl` with these words; a typed error comes through."""
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    return create_federation(tmp_path_factory.mktemp("cli") / "federation", default_plan(), SystemClock())


@pytest.fixture
def join(federation: Federation) -> JoinFile:
    now_us = SystemClock().now_us()
    return JoinFile(
        name="rover-9",
        trust_domain="sfrl.example",
        federation_id=federation.federation_id,
        origin=federation.origin,
        gatekeepers=("127.0.0.1:1",),
        enrol_address="127.0.0.1:1",
        service_ca=(federation.folder.root / "ca" / "service.crt").read_text(),
        trust_policy=federation.folder.trust_policy.read_text(),
        token=generate_token(),
        expires_us=now_us + 60_000_000,
        clearance=0,
        groups=frozenset({"rovers"}),
        record_expires_us=now_us + 60_000_000,
    )


def test_without_a_join_file_it_is_said_who_makes_one(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="an operator makes one with `sfrl invite`"):
        run("enrol", tmp_path / "join.json", "--dir", tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


def test_a_join_file_that_others_can_read_is_not_used(join: JoinFile, tmp_path: Path) -> None:
    write_join_file(tmp_path / "join.json", join)
    (tmp_path / "join.json").chmod(0o644)
    with pytest.raises(DeniedError, match="chmod 600"):
        run("enrol", tmp_path / "join.json", "--dir", tmp_path / "mine")


def test_a_gatekeeper_that_does_not_answer_is_named_and_the_keys_stay(
    join: JoinFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sfrl_secure.rpc.clients.ISSUE_SECONDS", 0.1)
    monkeypatch.setattr("sfrl_secure.rpc.clients.call_with_retry", lambda attempt, *, deadline_seconds: attempt(0.5))
    write_join_file(tmp_path / "join.json", join)
    with pytest.raises(SfrlError, match=r"does not answer at 127\.0\.0\.1:1: .* run the same command again"):
        run("enrol", tmp_path / "join.json", "--dir", tmp_path / "mine")
    assert sorted(path.name for path in (tmp_path / "mine").glob("*.key")) == ["signing.key", "tls.key"]


def test_what_is_printed_says_who_one_is_where_the_profile_is_and_what_comes_next(
    join: JoinFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = tmp_path / "mine" / "profile.toml"
    done = joining.Enrolled(profile, join.spiffe_id, 21, 22, 1_900_000_000_000_000)
    monkeypatch.setattr(joining, "enrol", lambda *given, **more: done)
    write_join_file(tmp_path / "join.json", join)
    said = run("enrol", tmp_path / "join.json", "--dir", tmp_path / "mine")
    assert join.spiffe_id in said
    assert join.federation_id.hex() in said
    assert "2030-03-17" in said
    assert f"sfrl fetch --profile {profile}" in said
    assert "delete it" in said
    assert join.token.expose().hex() not in said
    found = json.loads(run("enrol", tmp_path / "join.json", "--dir", tmp_path / "mine", "--json"))
    assert (found["profile"], found["record_index"]) == (str(profile), 21)
    assert (tmp_path / "join.json").exists()


# `--as`


@pytest.fixture
def alice(federation: Federation) -> Path:
    return federation.folder.operator("alice") / "profile.toml"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "say who joins: JOINFILE for a participant"),
        (["x.join", "--as", "operator/dora"], "say who joins"),
        (["x.join"], "with JOINFILE there is --dir"),
        (["x.join", "--dir", "d", "--key", "k"], "nothing of what goes with --as"),
        (["--as", "participant/rover-9"], "a participant has a join file"),
        (["--as", "dora"], "--as is operator/NAME, auditor/NAME or service/ROLE/NAME"),
        (["--as", "service/g1"], "--as is operator/NAME"),
        (["--as", "operator/dora", "--key", "k", "--like", "p"], "needs --dir"),
        (["--as", "operator/dora", "--dir", "d", "--like", "p"], "needs --key"),
        (["--as", "auditor/olga", "--dir", "d", "--key", "k"], "needs --like"),
        (["--as", "operator/dora", "--dir", "d", "--key", "k", "--like", "p", "--config", "c"], "takes no --config"),
        (["--as", "operator/dora", "--suite", "ed25519"], "the signing key is there already"),
        (["--as", "service/gatekeeper/g2", "--config", "c"], "needs --enrol-address"),
        (["--as", "service/gatekeeper/g2", "--enrol-address", "h:1"], "needs --config"),
        (["--as", "service/gatekeeper/g2", "--config", "c", "--enrol-address", "h:1", "--dir", "d"], "takes no --dir"),
        (["--as", "service/witness/g2", "--config", "c", "--enrol-address", "h:1"], "a role is one of gatekeeper"),
    ],
)
def test_who_joins_and_with_what_is_said_in_one_way_only(words: list[str], says: str) -> None:
    with pytest.raises(MalformedError) as refused:
        run("enrol", *words)
    assert says in str(refused.value)


def test_whose_profile_is_another_s_is_told_which_files_to_bring(
    federation: Federation, alice: Path, tmp_path: Path
) -> None:
    key = federation.folder.operator("alice") / "signing.key"
    lone = tmp_path / "profile.toml"
    lone.write_bytes(alice.read_bytes())
    named = ("enrol", "--as", "operator/dora", "--key", key, "--dir", tmp_path / "mine")
    with pytest.raises(NotFoundError, match="name it with --trust-policy"):
        run(*named, "--like", lone)
    with pytest.raises(NotFoundError, match="name it with --service-ca"):
        run(*named, "--like", lone, "--trust-policy", federation.folder.trust_policy)
    auditor = federation.folder.auditor("auditor-1") / "profile.toml"
    with pytest.raises(MalformedError, match="say where newcomers enrol, with --enrol-address"):
        run(*named, "--like", auditor)
    with pytest.raises(NotFoundError, match="the profile of --like"):
        run(*named, "--like", tmp_path / "none.toml")
    assert not (tmp_path / "mine").exists()


def test_a_door_that_does_not_answer_is_named_and_the_tls_key_stays(
    federation: Federation, alice: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sfrl_secure.rpc.clients.call_with_retry", lambda attempt, *, deadline_seconds: attempt(0.5))
    key = federation.folder.operator("alice") / "signing.key"
    named = ("enrol", "--as", "operator/dora", "--key", key, "--like", alice, "--enrol-address", "127.0.0.1:1")
    with pytest.raises(SfrlError, match=r"does not answer at 127\.0\.0\.1:1: .* run the same command again"):
        run(*named, "--dir", tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").glob("*.key")] == ["tls.key"]


def test_what_whom_governance_names_is_told(
    federation: Federation, alice: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[first_identity.OverseerAsks] = []

    def enrol_overseer(asks: first_identity.OverseerAsks, *_: object) -> first_identity.FirstIdentity:
        asked.append(asks)
        return first_identity.FirstIdentity(asks.spiffe_id, 41, 1_900_000_000_000_000)

    monkeypatch.setattr(first_identity, "enrol_overseer", enrol_overseer)
    key, mine = federation.folder.operator("alice") / "signing.key", tmp_path / "mine"
    named = ("enrol", "--as", "operator/dora", "--key", key, "--like", alice, "--dir", mine)
    said = run(*named)
    for part in ("spiffe://sfrl.example/operator/dora", "entry 41", "2030-03-17", f"--profile {mine / 'profile.toml'}"):
        assert part in said
    found = json.loads(run(*named, "--json"))
    assert (found["identity_index"], found["profile"]) == (41, str(mine / "profile.toml"))
    run(*named, "--enrol-address", "elsewhere.example:1", "--trust-policy", alice, "--service-ca", key)
    assert [each.enrol_address for each in asked[1:]] == [federation.addresses.enrol, "elsewhere.example:1"]
    assert (asked[2].like.trust_policy, asked[2].like.service_ca) == (alice, key)


def test_who_is_enrolled_with_this_join_file_has_nothing_to_do(
    federation: Federation, join: JoinFile, tmp_path: Path
) -> None:
    path, mine = tmp_path / "mine.join", tmp_path / "mine"
    write_join_file(path, join)
    theirs = federation.folder.participant("rover-1") / "profile.toml"
    mine.mkdir()
    profile = theirs.read_text(encoding="ascii").replace('"rover-1"', f'"{join.name}"')
    (mine / "profile.toml").write_text(profile, encoding="ascii")
    for key, is_this in ((join.join_key, True), (SigningKey.generate("ed25519"), False)):
        record = sign_envelope(ParticipantRecord.payload_type, b"{}", [key])
        (mine / "record.json").write_bytes(envelope_to_json(record))
        if is_this:
            assert "enrolled already" in run("enrol", path, "--dir", mine)
            assert json.loads(run("enrol", path, "--dir", mine, "--json"))["profile"] == str(mine / "profile.toml")
        else:
            with pytest.raises(MalformedError, match="choose a new folder"):
                run("enrol", path, "--dir", mine)
    assert not (mine / "signing.key").exists()


def test_what_is_no_join_file_or_suite_is_said(federation: Federation, tmp_path: Path) -> None:
    path = tmp_path / "no.join"
    path.write_bytes(b"\xff")
    path.chmod(0o600)
    with pytest.raises(MalformedError, match=rf"^{path}: the document is not UTF-8"):
        run("enrol", path, "--dir", tmp_path / "new")
    with pytest.raises(MalformedError, match=r"ed25519, ed25519\+ml-dsa-44"):
        run("enrol", path, "--dir", tmp_path / "new", "--suite", "rsa")


def test_renewing_wants_a_profile_of_somebody(federation: Federation, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="the profile"):
        run("renew", "--profile", tmp_path / "profile.toml")
    config = federation.folder.service("verifier", "verifier-1") / "config.toml"
    with pytest.raises(MalformedError, match=r"\[participant\]"):
        run("renew", "--profile", config)


def test_a_federation_whose_certificates_are_good_needs_no_reissue(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("structlog.configure", lambda **given: None)  # it would stay so for the tests that follow
    assert "nobody here needs" in run("reissue", federation.folder.root)
