"""Profiles of auditors and operators: every key known, every path relative to the file, the certificate its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from sfrl_secure.audit.profile import (
    GATEKEEPERS_MAX,
    ROLES,
    read_auditor_profile,
    read_operator_profile,
    role_of_profile,
)
from sfrl_secure.clock import SystemClock
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.crypto.x509 import CertificateAuthority, generate_tls_key
from sfrl_secure.errors import DeniedError, MalformedError, NotFoundError
from sfrl_secure.ids import parse_spiffe_id
from sfrl_secure.storage.secrets import write_secret

WHOLE = """
[auditor]
name = "eve"
trust_domain = "sfrl.example"
audit_log = "127.0.0.1:7000"
gatekeepers = ["127.0.0.1:7001", "[::1]:7002"]
public_log = "http://127.0.0.1:7003"
certificate = "tls.crt"
tls_key = "tls.key"
service_ca = "../ca/service.crt"
signing_key = "signing.key"
suite = "ed25519"
trust_policy = "../trust-policy.txt"
"""
HOUR = 3_600_000_000


def written(folder: Path, text: str = WHOLE) -> Path:
    (folder / "eve").mkdir(exist_ok=True)
    (folder / "eve/profile.toml").write_text(text)
    return folder / "eve/profile.toml"


def with_certificate(folder: Path, path: str, *, other_key: bool = False) -> Path:
    """Files that the profile names: a certificate for a SPIFFE path under a new CA."""
    now = SystemClock().now_us()
    authority = CertificateAuthority.create("clients", now - HOUR, now + HOUR)
    key, spki = generate_tls_key()
    name = parse_spiffe_id(f"spiffe://sfrl.example/{path}")
    chain = authority.issue_svid(name, spki, not_before_us=now - HOUR, not_after_us=now + HOUR, dns_names=())
    profile = written(folder)
    (profile.parent / "tls.crt").write_bytes(chain)
    write_secret(profile.parent / "tls.key", generate_tls_key()[0] if other_key else key)
    (folder / "ca").mkdir()
    (folder / "ca/service.crt").write_bytes(authority.certificate_pem)
    return profile


def test_a_whole_profile_is_read_and_its_paths_are_relative_to_it(tmp_path: Path) -> None:
    profile = read_auditor_profile(written(tmp_path))
    assert profile.gatekeepers == ("127.0.0.1:7001", "[::1]:7002")
    assert profile.trust_policy == tmp_path / "eve/../trust-policy.txt"
    assert profile.public_log == "http://127.0.0.1:7003"


def test_the_public_address_alone_may_be_left_out(tmp_path: Path) -> None:
    lines = WHOLE.strip().splitlines()
    for number, line in enumerate(lines[1:], start=1):
        text = "\n".join(lines[:number] + lines[number + 1 :])
        if line.startswith("public_log"):
            assert read_auditor_profile(written(tmp_path, text)).public_log is None
        else:
            with pytest.raises(MalformedError, match=f"auditor.{line.partition(' ')[0]}"):
                read_auditor_profile(written(tmp_path, text))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"eve"', '"Eve"'),
        ('name = "eve"', 'name = "eve"\nnickname = "e"'),
        ("127.0.0.1:7000", "127.0.0.1:0"),
        ('["127.0.0.1:7001", "[::1]:7002"]', "[]"),
        ('["127.0.0.1:7001", "[::1]:7002"]', str(["127.0.0.1:1"] * (GATEKEEPERS_MAX + 1)).replace("'", '"')),
        ("http://127.0.0.1:7003", "ftp://127.0.0.1"),
        ("[auditor]", "[participant]"),
    ],
)
def test_anything_else_is_refused(tmp_path: Path, old: str, new: str) -> None:
    assert old in WHOLE
    with pytest.raises(MalformedError):
        read_auditor_profile(written(tmp_path, WHOLE.replace(old, new)))


def test_somebody_elses_profile_is_called_so(tmp_path: Path) -> None:
    path = written(tmp_path, WHOLE.replace("[auditor]", "[participant]"))
    with pytest.raises(MalformedError, match="is the profile of a participant, and an auditor's is needed"):
        read_auditor_profile(path)
    with pytest.raises(MalformedError, match="is the profile of a participant, and an operator's is needed"):
        read_operator_profile(path)
    with pytest.raises(MalformedError, match="is the profile of an auditor, and an operator's is needed"):
        read_operator_profile(written(tmp_path))
    with pytest.raises(MalformedError, match="nickname"):
        read_auditor_profile(written(tmp_path, WHOLE + 'nickname = "e"\n'))


def test_a_profile_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        read_auditor_profile(tmp_path / "profile.toml")


def test_whose_a_profile_is_says_its_one_table(tmp_path: Path) -> None:
    for role in ROLES:
        assert role_of_profile(written(tmp_path, WHOLE.replace("[auditor]", f"[{role}]"))) == role
    for text in ("", "[service]", "name = 'eve'", "[auditor]\n[operator]", "[", "\x00"):
        with pytest.raises(MalformedError):
            role_of_profile(written(tmp_path, text))


def test_an_operator_may_keep_the_signing_key_elsewhere(tmp_path: Path) -> None:
    text = WHOLE.replace("[auditor]", "[operator]")
    profile = read_operator_profile(written(tmp_path, text))
    assert profile.spiffe_id == "spiffe://sfrl.example/operator/eve"
    key = SigningKey.generate("ed25519")
    write_secret(tmp_path / "eve/signing.key", key.to_pem())
    assert profile.open_signing_key().public_key == key.public_key
    text = text.replace('signing_key = "signing.key"\nsuite = "ed25519"', "")
    without = read_operator_profile(written(tmp_path, text))
    with pytest.raises(NotFoundError, match="names no `signing_key`"):
        without.open_signing_key()


def test_an_operators_certificate_opens_an_operators_profile(tmp_path: Path) -> None:
    path = with_certificate(tmp_path, "operator/eve")
    written(tmp_path, WHOLE.replace("[auditor]", "[operator]"))
    assert b"BEGIN CERTIFICATE" in read_operator_profile(path).open_tls().chain


def test_the_auditors_own_certificate_opens(tmp_path: Path) -> None:
    tls = read_auditor_profile(with_certificate(tmp_path, "auditor/eve")).open_tls()
    assert tls.chain == (tmp_path / "eve/tls.crt").read_bytes()
    assert tls.service_roots == (tmp_path / "ca/service.crt").read_bytes()


@pytest.mark.parametrize("path", ["auditor/adam", "participant/eve", "operator/eve"])
def test_somebody_elses_certificate_does_not(tmp_path: Path, path: str) -> None:
    profile = read_auditor_profile(with_certificate(tmp_path, path))
    with pytest.raises(MalformedError, match=r"not that of spiffe://sfrl\.example/auditor/eve"):
        profile.open_tls()


def test_another_certificates_key_does_not(tmp_path: Path) -> None:
    profile = read_auditor_profile(with_certificate(tmp_path, "auditor/eve", other_key=True))
    with pytest.raises(MalformedError):
        profile.open_tls()


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    profile = read_auditor_profile(with_certificate(tmp_path, "auditor/eve"))
    (tmp_path / "eve/tls.key").chmod(0o644)
    with pytest.raises(DeniedError, match="readable by its owner alone"):
        profile.open_tls()
