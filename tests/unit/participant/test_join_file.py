"""Join files: what is handed to a newcomer is strict, bounded, its owner's alone, and shows no token."""

from __future__ import annotations

import dataclasses
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from simulated_identities import invitation
from simulator import Simulator

from sfrl_secure.crypto.secret import SecretBytes
from sfrl_secure.errors import DeniedError, MalformedError, NotFoundError
from sfrl_secure.ids import ZERO_DIGEST, sha256
from sfrl_secure.participant.join_file import (
    JOIN_FILE_BYTES_MAX,
    JoinFile,
    format_join_file,
    generate_token,
    join_key_of,
    parse_join_file,
    read_join_file,
    write_join_file,
)

NAME = "rover-9"


@pytest.fixture(scope="module")
def join(tmp_path_factory: pytest.TempPathFactory) -> JoinFile:
    return invitation(Simulator(tmp_path_factory.mktemp("federation")), NAME)


def fields_of(join: JoinFile) -> dict[str, Any]:
    found = json.loads(format_join_file(join).expose())
    assert isinstance(found, dict)
    return found


def parsed(fields: dict[str, Any]) -> JoinFile:
    return parse_join_file(SecretBytes(json.dumps(fields).encode()))


def test_a_join_file_reads_back_as_it_was_written(join: JoinFile, tmp_path: Path) -> None:
    write_join_file(tmp_path / "join.json", join)
    found = read_join_file(tmp_path / "join.json")
    assert found == join
    assert found.token.matches(join.token)
    assert found.join_key.public_key == join_key_of(join.token).public_key
    assert stat.S_IMODE((tmp_path / "join.json").stat().st_mode) == 0o600


def test_the_token_is_not_printed(join: JoinFile) -> None:
    token = join.token.expose().hex()
    assert token not in repr(join) + str(join)
    for key in fields_of(join):
        with pytest.raises(MalformedError) as said:
            parsed({**fields_of(join), key: [token, token]})
        assert token not in str(said.value)


def test_a_file_that_others_could_have_read_is_not_used(join: JoinFile, tmp_path: Path) -> None:
    path = tmp_path / "join.json"
    write_join_file(path, join)
    path.chmod(0o640)
    with pytest.raises(DeniedError, match="chmod 600") as refused:
        read_join_file(path)
    assert refused.value.reason == "key_permissions"


def test_no_join_file_is_written_over_another_and_none_is_invented(join: JoinFile, tmp_path: Path) -> None:
    path = tmp_path / "join.json"
    with pytest.raises(NotFoundError, match="sfrl invite"):
        read_join_file(path)
    write_join_file(path, join)
    before = path.read_bytes()
    with pytest.raises(MalformedError, match="not written over"):
        write_join_file(path, join)
    assert path.read_bytes() == before


def test_each_key_is_wanted_and_no_other(join: JoinFile) -> None:
    fields = fields_of(join)
    for key in fields:
        with pytest.raises(MalformedError):
            parsed({name: value for name, value in fields.items() if name != key})
    with pytest.raises(MalformedError):
        parsed({**fields, "operator": "alice"})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("type", "sfrl-join/v2"),
        ("name", "Rover 9"),
        ("trust_domain", "no domain"),
        ("federation_id", "00"),
        ("federation_id", "00" * 32),
        ("origin", "log.example/sfrl/" + "00" * 16),
        ("gatekeepers", []),
        ("gatekeepers", ["host:1"] * 2),
        ("gatekeepers", [f"host:{port}" for port in range(1, 18)]),
        ("gatekeepers", ["host"]),
        ("gatekeepers", ["host:0"]),
        ("gatekeepers", "host:1"),
        ("enrol_address", "host:70000"),
        ("enrol_address", "unix:/tmp/socket"),
        ("service_ca", ""),
        ("service_ca", "no certificate"),
        ("trust_policy", "quorum none\n"),
        ("token", "00" * 31),
        ("token", "0" * 63 + "G"),
        ("expires_us", 0),
        ("expires_us", 2**63),
        ("expires_us", True),
        ("expires_us", "1"),
        ("clearance", -1),
        ("clearance", 1_000_001),
        ("groups", ["rovers", "rovers"]),
        ("groups", [f"group-{number}" for number in range(65)]),
        ("groups", [7]),
        ("record_expires_us", 0),
        ("record_version", 0),
        ("record_version", 2),
        ("record_previous", "11" * 32),
    ],
)
def test_a_value_out_of_its_form_is_refused(join: JoinFile, key: str, value: object) -> None:
    fields = fields_of(join)
    assert fields[key] != value
    with pytest.raises(MalformedError):
        parsed({**fields, key: value})


def test_the_trust_policy_of_another_log_is_refused(join: JoinFile, tmp_path: Path) -> None:
    """With it, whoever hands the file over could show another log as this federation's."""
    other = invitation(Simulator(tmp_path / "other"), NAME)
    with pytest.raises(MalformedError, match="exactly one log"):
        parsed({**fields_of(join), "trust_policy": other.trust_policy})
    both = join.trust_policy.replace("quorum", other.trust_policy.splitlines()[0] + "\nquorum", 1)
    with pytest.raises(MalformedError):
        parsed({**fields_of(join), "trust_policy": both})
    with pytest.raises(MalformedError, match="federation id"):
        parsed({**fields_of(join), "federation_id": other.federation_id.hex()})


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b"\xff", b'{"type": "sfrl-join/v1"}'])
def test_what_is_no_join_file_is_malformed(raw: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_join_file(SecretBytes(raw))


def test_a_join_file_over_its_bound_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "join.json"
    path.touch(mode=0o600)
    path.write_bytes(b" " * (JOIN_FILE_BYTES_MAX + 1))
    with pytest.raises(MalformedError, match=str(JOIN_FILE_BYTES_MAX)):
        read_join_file(path)


def test_a_record_of_a_later_version_names_the_one_before(join: JoinFile) -> None:
    later = dataclasses.replace(join, record_version=2, record_previous=sha256(b"record"))
    assert parsed(fields_of(later)) == later
    with pytest.raises(MalformedError):
        dataclasses.replace(join, record_version=2, record_previous=ZERO_DIGEST)


def test_two_tokens_are_two_keys() -> None:
    first, second = generate_token(), generate_token()
    assert not first.matches(second)
    assert join_key_of(first).public_key == join_key_of(first).public_key != join_key_of(second).public_key
    with pytest.raises(MalformedError):
        join_key_of(SecretBytes(bytes(31)))
