"""The snapshot of a fold: what a prefix of the log amounts to, on disk, so that a start does not fold it again.

Disposable: whatever is odd about it is a reason to fold from entry 0, and nothing worse. It holds the state and not the
statement index, which has a file of its own. Any change of the code that decides what an entry means makes every older
snapshot worthless: its bytes are part of the snapshot's name. The check sum notices damage. Against intent there is no
protection here: the file is private, and whoever can write it owns the service anyway.

File: one JSON object with `format`, `code`, `origin`, `log_keys` and `state` (see `shapes`), then its SHA-256.

Runs in: gatekeeper, aggregator, audit_log.
Trusts: its own folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from sfrl_secure.errors import MalformedError
from sfrl_secure.rounds.fold import FederationFold
from sfrl_secure.rounds.shapes import read_back, shape_of_dataclass, written
from sfrl_secure.rounds.state import FederationState
from sfrl_secure.rounds.statement_index import StatementIndex

SNAPSHOT_BYTES_MAX = 2**30

DECIDING_CODE = ("crypto", "governance", "rounds", "translog", "wire", "ids.py", "limits.py")
"""What an entry passes through on its way into the state, below `sfrl_secure`."""

_FORMAT = "sfrl-fold/v2"
_SUM_BYTES = 32
_STATE = shape_of_dataclass(FederationState, frozenset({"statements"}))


def encode_fold(fold: FederationFold) -> bytes:
    """Write a fold's state, without its statement index. Nobody changes the fold meanwhile."""
    return _encode(fold.state, fold.log_vkeys)


def freeze_fold(fold: FederationFold) -> Callable[[], bytes]:
    """Copy a fold's state, and give what encodes the copy: so that the fold's lock is held for the copy only."""
    state, log_vkeys = copy_state(fold.state), fold.log_vkeys
    return lambda: _encode(state, log_vkeys)


def copy_state(state: FederationState) -> FederationState:
    """Copy everything of a state that can change; values are shared, and so is the statement index."""
    assert _STATE.copy is not None
    copied: FederationState = _STATE.copy(state)
    copied.statements = state.statements
    return copied


def decode_fold(
    raw: bytes, origin: str, log_vkeys: tuple[str, str], statements: StatementIndex
) -> FederationFold:
    """Read a fold that goes on where the encoded one was.

    Args:
        origin: the log's origin, from the trust policy.
        log_vkeys: its vkeys that genesis names, from the trust policy.
        statements: knows every statement below the state's size.

    Raises:
        MalformedError: not a snapshot, a damaged one, or one of another log or of other code.
    """
    if len(raw) > SNAPSHOT_BYTES_MAX:
        raise MalformedError(f"a snapshot is at most {SNAPSHOT_BYTES_MAX} bytes")
    body = raw[:-_SUM_BYTES]
    if hashlib.sha256(body).digest() != raw[-_SUM_BYTES:]:
        raise MalformedError("the snapshot is damaged")
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise MalformedError("a snapshot is JSON") from None
    named = _named(origin, log_vkeys)
    if not isinstance(found, dict) or found.keys() != {*named, "state"}:
        raise MalformedError("a snapshot has its fields")
    if any(found[key] != value for key, value in named.items()):
        raise MalformedError("the snapshot is of another log or of other code")
    state: FederationState = read_back(found["state"], _STATE)
    if state.origin != origin:
        raise MalformedError("the snapshot is of another log")
    state.statements = statements
    return FederationFold.resume(state, log_vkeys)


def _encode(state: FederationState, log_vkeys: tuple[str, str]) -> bytes:
    named = _named(state.origin, log_vkeys)
    body = json.dumps({**named, "state": written(state, _STATE)}, separators=(",", ":")).encode("ascii")
    return body + hashlib.sha256(body).digest()


def _named(origin: str, log_vkeys: tuple[str, str]) -> dict[str, Any]:
    return {"format": _FORMAT, "code": code_digest(), "origin": origin, "log_keys": list(log_vkeys)}


@cache
def code_digest() -> str:
    """The digest of the code that decides what an entry means: names and bytes of its source files."""
    package = files("sfrl_secure")
    digest = hashlib.sha256()
    for part in DECIDING_CODE:
        for name, source in _sources(package / part, part):
            digest.update(b"%b\0%d\0" % (name.encode(), len(source)))
            digest.update(source)
    return digest.hexdigest()


def _sources(at: Traversable, name: str) -> Iterator[tuple[str, bytes]]:
    if at.is_dir():
        for each in sorted(at.iterdir(), key=lambda found: found.name):
            yield from _sources(each, f"{name}/{each.name}")
    elif not name.endswith(".pyc"):
        yield name, at.read_bytes()
