"""`sfrl log-keys` and `sfrl audit compare`, as a person calls them."""

from __future__ import annotations

from pathlib import Path

import pytest

from sfrl_secure.clock import SystemClock
from sfrl_secure.ids import sha256
from sfrl_secure.sequencer.log_keys import LogKeys
from sfrl_secure.services.audit_log.trust import open_trust
from sfrl_secure.services.config import AuditLogConfig, read_config
from sfrl_secure.services.federation.create import create_federation
from sfrl_secure.services.federation.plan import default_plan
from sfrl_secure.storage.log_folder import SIGNED_NAME
from sfrl_secure.translog.checkpoint import Checkpoint
from sfrl_secure.translog.cosignature import sign_checkpoint
from sfrl_secure.translog.note import parse_vkey
from sfrl_secure.translog.policy import TrustedLog, TrustPolicy, format_trust_policy

ORIGIN = "log.example/sfrl/00112233445566778899aabbccddeeff"
KEYS = LogKeys.generate()


def test_rotate_and_retire_say_what_comes_next(run, tmp_path: Path) -> None:
    folder = tmp_path / "fed"
    create_federation(folder, default_plan(), SystemClock())
    rotated = run("log-keys", "rotate", str(folder))
    assert rotated.code == 0
    assert "log-2.key" in rotated.out
    assert "generation 2" in rotated.out
    assert f"sfrl log-keys retire {folder}" in rotated.out
    early = run("log-keys", "retire", str(folder))
    assert early.code == 3
    assert "generation 2 has signed nothing yet: run `sfrl up`" in early.err
    assert early.out == ""
    (path,) = (folder / "services").glob("audit_log-*/config.toml")
    config = read_config(path, AuditLogConfig)
    note = open_trust(config, SystemClock()).signer.sign(1, sha256(b"root"))
    (config.journal_dir / SIGNED_NAME).write_bytes(note)
    retired = run("log-keys", "retire", str(folder))
    assert retired.code == 0
    assert str(folder / "services") in retired.out
    again = run("log-keys", "retire", str(folder))
    assert (again.code, again.err) == (2, "error: one generation signs: make the next one first\n")


@pytest.fixture
def notes(tmp_path: Path):
    """Writes checkpoints and a trust policy; gives the arguments of `compare`."""
    policy = TrustPolicy((TrustedLog(ORIGIN, tuple(map(parse_vkey, KEYS.vkeys(ORIGIN)))),), (), (), "none")
    (tmp_path / "policy").write_bytes(format_trust_policy(policy))

    def write(*checkpoints: tuple[int, bytes], keys: LogKeys = KEYS) -> list[str]:
        paths = []
        for number, (size, root) in enumerate(checkpoints):
            path = tmp_path / f"note-{number}"
            checkpoint = Checkpoint(ORIGIN, size, sha256(root))
            path.write_bytes(sign_checkpoint(checkpoint, keys.note_signer(ORIGIN), keys.cosigner(ORIGIN), 5))
            paths.append(str(path))
        return ["audit", "compare", *paths, "--trust-policy", str(tmp_path / "policy")]

    return write


@pytest.mark.parametrize(
    ("checkpoints", "code", "said"),
    [
        ([(3, b"root"), (3, b"root")], 0, "the same history"),
        ([(3, b"root"), (4, b"root")], 0, "nothing contradicts"),
        ([(3, b"root"), (3, b"other")], 1, "FALSE: the log signed two roots"),
    ],
)
def test_two_checkpoints_are_held_against_each_other(run, notes, checkpoints, code: int, said: str) -> None:
    ended = run(*notes(*checkpoints))
    assert ended.code == code
    assert said in ended.out
    for _, root in checkpoints:
        assert sha256(root).hex() in ended.out


def test_a_checkpoint_that_the_log_has_not_signed_is_compared_with_nothing(run, notes) -> None:
    ended = run(*notes((3, b"root"), (3, b"other"), keys=LogKeys.generate()))
    assert ended.code == 2
    assert "FALSE" not in ended.out
    assert ended.err.startswith("error: ")
