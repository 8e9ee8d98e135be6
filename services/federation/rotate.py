"""Replacing the keys of a federation's log, in its folder.

A new generation is made and signs beside the old ones, which everybody's trust policy knows; when all have the new
policy, the old generation signs no more. Its lines stay in the trust policy: genesis names the first generation, and
what was signed with the others is still to be opened.

Each step can be repeated: what was interrupted is finished by the next call, with the keys that it had made.

Format: proto/README.md, "Checkpoints, tiles, cosignatures".

Runs in: cli.
Trusts: whoever owns the folder.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sfrl_secure.errors import DeniedError, MalformedError, NotFoundError, VerificationError
from sfrl_secure.limits import NOTE_BYTES_MAX, TRUST_POLICY_BYTES_MAX
from sfrl_secure.sequencer.log_keys import LogKeys, parse_log_keys
from sfrl_secure.services.config import CONFIG_BYTES_MAX, LOG_GENERATIONS_MAX, AuditLogConfig, read_config
from sfrl_secure.services.federation.folder import FederationFolder, read_index
from sfrl_secure.storage.files import FolderLock, read_bounded, write_atomically
from sfrl_secure.storage.log_folder import SIGNED_NAME
from sfrl_secure.storage.secrets import read_secret, write_secret
from sfrl_secure.translog.note import parse_vkey
from sfrl_secure.translog.opened import open_checkpoint
from sfrl_secure.translog.policy import TrustedLog, TrustPolicy, parse_trust_policy

_LOG_KEYS_LINE = re.compile(rb"^log_keys[ \t]*=[ \t]*\[[^\]\n]*\][ \t]*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Rotation:
    """What the log has now.

    Attributes:
        key_file: the new generation's.
        generations: in the trust policy.
        signing: generations that sign from the log's next start on.
        trust_policy: the file that was changed.
    """

    key_file: Path
    generations: int
    signing: int
    trust_policy: Path


def rotate_log_keys(folder: FederationFolder) -> Rotation:
    """Make the next generation of the log's keys, and put it into the log's configuration and the trust policy.

    Raises:
        NotFoundError: this is no federation's folder.
        MalformedError: the log is running, it signs with as many generations as it may, or a file is of another form.
    """
    with _stopped_log(folder) as (path, config):
        policy = config.open_trust_policy()
        known = _vkeys_of(policy, config.origin)
        signing = list(config.log_keys)
        if _vkeys_in(signing[-1], config.origin) in known:
            if len(signing) == LOG_GENERATIONS_MAX:
                raise MalformedError(f"a log signs with {LOG_GENERATIONS_MAX} generations at most: retire the oldest")
            signing.append(_make_keys(path.parent / f"log-{len(known) + 1}.key"))
            new = _vkeys_in(signing[-1], config.origin)
            if new in known:
                raise MalformedError(f"the keys in {signing[-1]} are in the trust policy already")
            _write_log_keys(path, signing)
        else:
            # An earlier call ended before it came to the trust policy.
            new = _vkeys_in(signing[-1], config.origin)
        _add_to_policy(config.trust_policy, config.origin, new)
        return Rotation(signing[-1], len(known) + 1, len(signing), config.trust_policy.resolve())


def retire_log_keys(folder: FederationFolder) -> Path:
    """Take the oldest generation that signs out of the log's configuration; give its key file, which stays.

    Raises:
        NotFoundError: this is no federation's folder.
        MalformedError: the log is running, one generation signs, or a file is of another form.
        DeniedError: the generation after it has signed nothing yet: nobody can have met it.
        UncertainStateError: the last signed note cannot be read.
    """
    with _stopped_log(folder) as (path, config):
        if len(config.log_keys) == 1:
            raise MalformedError("one generation signs: make the next one first")
        known = _vkeys_of(config.open_trust_policy(), config.origin)
        oldest, following, newest = (_vkeys_in(config.log_keys[at], config.origin) for at in (0, 1, -1))
        if not {oldest, following, newest} <= set(known):
            raise MalformedError("the newest generation is not in the trust policy yet: rotate once more")
        if not _has_signed(config, following):
            raise DeniedError(
                "log_keys",
                f"generation {known.index(following) + 1} has signed nothing yet: run `sfrl up` and hand out the trust "
                f"policy before generation {known.index(oldest) + 1} is retired",
            )
        _write_log_keys(path, config.log_keys[1:])
        return config.log_keys[0]


@contextmanager
def _stopped_log(folder: FederationFolder) -> Iterator[tuple[Path, AuditLogConfig]]:
    """The log's configuration, and that no log runs with it meanwhile."""
    name = next((each["name"] for each in read_index(folder)["services"] if each["role"] == "audit_log"), None)
    if name is None:
        raise NotFoundError("the federation has no audit log")
    path = folder.service("audit_log", name) / "config.toml"
    config = read_config(path, AuditLogConfig)
    try:
        lock = FolderLock(config.journal_dir)
    except MalformedError:
        raise MalformedError("the log is running: end it before its keys are replaced") from None
    with lock:
        yield path, config


def _vkeys_of(policy: TrustPolicy, origin: str) -> list[tuple[str, ...]]:
    log = policy.log(origin)
    assert log is not None, "open_trust_policy has looked"
    _ = log.genesis_vkeys  # A policy whose keys are not pairs cannot be added to.
    return [tuple(key.vkey for key in keys) for keys in log.generations]


def _vkeys_in(path: Path, origin: str) -> tuple[str, ...]:
    return parse_log_keys(read_secret(path)).vkeys(origin)


def _has_signed(config: AuditLogConfig, vkeys: Sequence[str]) -> bool:
    """Whether the log's last signed note is under one generation's keys."""
    if config.log_url is None:
        note = read_bounded(config.journal_dir / SIGNED_NAME, NOTE_BYTES_MAX)
    else:
        # Loaded by whoever needs it: a log in a folder has no part of it in memory.
        from sfrl_secure.storage.log_bucket import open_bucket, read_signed_note

        note = read_signed_note(*open_bucket(config.log_url))
    alone = TrustPolicy((TrustedLog(config.origin, tuple(map(parse_vkey, vkeys))),), (), (), "none")
    try:
        open_checkpoint(note, alone, quorum=False)
    except (MalformedError, VerificationError):
        return False
    return True


def _make_keys(path: Path) -> Path:
    """Make a key file, unless an earlier call has."""
    if not path.exists():
        write_secret(path, LogKeys.generate().to_pem())
    return path


def _write_log_keys(path: Path, files: Sequence[Path]) -> None:
    """Change the one line of the configuration, and leave all else as its owner wrote it."""
    names = [os.path.relpath(file, path.absolute().parent) for file in files]
    line = f"log_keys = {json.dumps(names)}".encode()
    changed, count = _LOG_KEYS_LINE.subn(lambda _: line, read_bounded(path, CONFIG_BYTES_MAX))
    if count != 1:
        raise MalformedError("log_keys stands on one line of the log's configuration, as `sfrl init` wrote it")
    _replace(path, changed)


def _add_to_policy(path: Path, origin: str, vkeys: Sequence[str]) -> None:
    """Add a generation's lines below those of the log, and leave all else as its owner wrote it."""
    raw = read_bounded(path, TRUST_POLICY_BYTES_MAX)
    before = _vkeys_of(parse_trust_policy(raw), origin)
    lines = raw.decode().split("\n")
    words = [line.split() for line in lines]
    last = max(at for at, each in enumerate(words) if each[:1] == ["log"] and each[1].startswith(f"{origin}+"))
    lines[last + 1 : last + 1] = [" ".join(("log", vkey, *words[last][2:])) for vkey in vkeys]
    changed = "\n".join(lines).encode()
    if _vkeys_of(parse_trust_policy(changed), origin) != [*before, tuple(vkeys)]:
        raise MalformedError("the log's lines in the trust policy are not generations of its keys, in order")
    _replace(path, changed)


def _replace(path: Path, data: bytes) -> None:
    write_atomically(path, data, mode=stat.S_IMODE(path.stat().st_mode))
