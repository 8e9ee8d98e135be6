"""Configurations: every key known, every path relative to the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from sfrl_secure.errors import MalformedError, NotFoundError
from sfrl_secure.services.config import (
    AggregatorConfig,
    AuditLogConfig,
    GatekeeperConfig,
    ServiceConfig,
    VerifierConfig,
    read_config,
)

BASE = """
name = "one"
trust_domain = "sfrl.example"
listen = "127.0.0.1:0"
trust_policy = "../trust-policy.txt"
origin = "log.example/sfrl/00112233445566778899aabbccddeeff"
"""
TLS = """
[tls]
certificate = "tls.crt"
key = "tls.key"
client_ca = "/etc/ca/client.crt"
service_ca = "../ca/service.crt"
"""
SIGNING = """
[signing]
key = "signing.key"
"""
LOG = 'log_dir = "../log"\njournal_dir = "../journal"\nlog_keys = ["log.key"]\n'
CLIENT = 'log_address = "127.0.0.1:7000"\nobjects_dir = "../objects"\nstate_dir = "state"\n'
VERIFIER = 'witness_listen = "127.0.0.1:7001"\nwitness_keys = ["witness.key"]\nstate_dir = "witness"\n'

WHOLE: dict[type[ServiceConfig], str] = {
    AuditLogConfig: BASE + LOG + TLS + SIGNING,
    GatekeeperConfig: BASE + CLIENT + TLS + SIGNING,
    AggregatorConfig: BASE + CLIENT + TLS + SIGNING,
    VerifierConfig: BASE + VERIFIER + TLS,
}


def read(folder: Path, text: str, kind: type[ServiceConfig] = AuditLogConfig) -> ServiceConfig:
    (folder / "config.toml").write_text(text)
    return read_config(folder / "config.toml", kind)


@pytest.mark.parametrize("kind", WHOLE)
def test_a_whole_configuration_is_read_and_its_paths_are_relative_to_it(tmp_path: Path, kind) -> None:
    config = read(tmp_path, WHOLE[kind], kind)
    assert config.trust_policy == tmp_path / "../trust-policy.txt"
    assert config.tls.certificate == tmp_path / "tls.crt"
    assert config.tls.client_ca == Path("/etc/ca/client.crt")


def test_paths_do_not_depend_on_where_the_process_was_started(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "config.toml").write_text(WHOLE[AuditLogConfig])
    monkeypatch.chdir(tmp_path.parent)
    config = read_config(Path(tmp_path.name) / "config.toml", AuditLogConfig)
    monkeypatch.chdir("/")
    assert config.journal_dir == tmp_path / "../journal"


@pytest.mark.parametrize("kind", WHOLE)
def test_each_missing_and_each_unknown_key_is_refused_by_name(tmp_path: Path, kind) -> None:
    text = WHOLE[kind]
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if " = " in line:
            key = line.split(" = ")[0]
            with pytest.raises(MalformedError, match=f"^{tmp_path}/config.toml: missing key `([a-z]+\\.)?{key}`$"):
                read(tmp_path, "\n".join(lines[:number] + lines[number + 1:]), kind)
    for unknown in ("secret_option = 1\n" + text, text.replace("[tls]\n", "[tls]\nsecret_option = 1\n")):
        with pytest.raises(MalformedError, match=r"config\.toml: unknown key `(tls\.)?secret_option`$"):
            read(tmp_path, unknown, kind)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", '"Upper"'), ("name", '""'), ("name", "7"), ("trust_domain", '"a/b"'),
        ("listen", '"127.0.0.1"'), ("listen", '"127.0.0.1:70000"'), ("listen", '":7000"'), ("listen", '"a b:7000"'),
        ("threads", "3"), ("threads", "1000"), ("grace_seconds", "-1"),
        ("followers_max", "0"), ("refusals_seconds", "0"),
        ("batches", "{entries_max = 257}"), ("batches", "{delay_ms = 2000}"), ("batches", "{queue_max = 0}"),
        ("witnesses", '[{name = "w"}]'), ("log_keys", "[]"), ("log_keys", '["1", "2", "3", "4", "5"]'),
        ("witnesses", '[{names = [], submission_url = "http://w/", monitoring_url = "http://w/"}]'),
        ("signing", '{key = "k", suite = "rsa"}'),
    ],
)
def test_values_outside_their_range_are_refused(tmp_path: Path, key: str, value: str) -> None:
    text = BASE + LOG
    lines = [line for line in text.splitlines() if not line.startswith(f"{key} =")]
    signing = "" if key == "signing" else SIGNING
    with pytest.raises(MalformedError, match=f"`{key}[`.]"):
        read(tmp_path, "\n".join([*lines, f"{key} = {value}"]) + TLS + signing)


@pytest.mark.parametrize(
    "caller",
    [
        '{spiffe_id = "spiffe://sfrl.example/operator/alice", spki_sha256 = "AB"}',
        '{spiffe_id = "https://sfrl.example/operator/alice", spki_sha256 = "%s"}' % ("ab" * 32),
    ],
)
def test_a_caller_of_the_verifier_is_named_exactly(tmp_path: Path, caller: str) -> None:
    with pytest.raises(MalformedError, match="callers"):
        read(tmp_path, BASE + VERIFIER + f"callers = [{caller}]\n" + TLS, VerifierConfig)


@pytest.mark.parametrize(
    ("kind", "key", "old", "said"),
    [
        (AuditLogConfig, "log_keys", 'log_key = "log.key"', "unknown key `log_key`: it is `log_keys` now, a list"),
        (AuditLogConfig, "log_keys", 'log_keys = "log.key"', "`log_keys` is a list, such as"),
        (VerifierConfig, "witness_keys", 'witness_key = "w"', "unknown key `witness_key`: it is `witness_keys` now"),
        (AuditLogConfig, "none", 'witnesses = [{name = "w"}]', "unknown key `witnesses.0.name`: it is `names` now"),
        (AuditLogConfig, "none", "batches = 7", "`batches` is a table"),
    ],
)
def test_a_configuration_of_before_is_told_what_to_write(tmp_path: Path, kind, key: str, old: str, said: str) -> None:
    lines = [line for line in WHOLE[kind].splitlines() if not line.startswith(f"{key} =")]
    with pytest.raises(MalformedError) as refused:
        read(tmp_path, "\n".join([old, *lines]), kind)
    assert said in str(refused.value)
    assert "Input" not in str(refused.value)
    assert '"w"' not in str(refused.value)


def test_values_of_the_file_are_not_quoted(tmp_path: Path) -> None:
    with pytest.raises(MalformedError) as refused:
        read(tmp_path, WHOLE[AuditLogConfig].replace('"127.0.0.1:0"', '"pasted-by-mistake-key"'))
    assert "pasted" not in str(refused.value)


def test_what_is_no_configuration_is_refused(tmp_path: Path) -> None:
    for raw in (b"\xff\xfe", b"[", b"name = 'a'\nname = 'b'\n"):
        (tmp_path / "config.toml").write_bytes(raw)
        with pytest.raises(MalformedError):
            read_config(tmp_path / "config.toml", AuditLogConfig)
    (tmp_path / "config.toml").write_bytes(b"#" * 300_000)
    with pytest.raises(MalformedError, match="bytes"):
        read_config(tmp_path / "config.toml", AuditLogConfig)
    with pytest.raises(NotFoundError):
        read_config(tmp_path / "none.toml", AuditLogConfig)


def test_the_public_log_is_served_nowhere_unless_an_address_says_where(tmp_path: Path) -> None:
    silent = read(tmp_path, WHOLE[AuditLogConfig])
    public = read(tmp_path, BASE + 'public_listen = "[::1]:0"\n' + LOG + TLS + SIGNING)
    assert isinstance(silent, AuditLogConfig)
    assert isinstance(public, AuditLogConfig)
    assert (silent.public_listen, public.public_listen) == (None, "[::1]:0")
    with pytest.raises(MalformedError, match="public_listen"):
        read(tmp_path, BASE + 'public_listen = "everywhere"\n' + LOG + TLS + SIGNING)
