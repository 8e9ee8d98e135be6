"""Which findings of the verifier operators can accept by an order: a closed list.

What the log itself or its files do wrong, and a wrong model, nobody can accept: an order that names such a code would
be signed, logged and change nothing.

Format: proto/README.md, "Verification of a log, in order".

Runs in: operators' machines, cli.
Trusts: nothing.
"""

from __future__ import annotations

from difflib import get_close_matches

from sfrl_secure.errors import MalformedError
from sfrl_secure.replay.findings import CODES

NEVER = frozenset({
    "checkpoint", "structure", "equivocation", "object_altered", "entry_malformed", "chain", "time", "time_ahead",
    "time_behind", "stream_position", "initial_model", "aggregate", "model",
})  # fmt: skip
"""Codes of the log's and the files' own faults, and of results that are wrong."""

ACCEPTABLE = tuple(sorted(CODES.keys() - NEVER))
"""Codes of void entries, defective admissions, false refusals, overdue rounds and censorship."""


def check_acceptable(code: str) -> None:
    """Check that an order can accept findings of this code.

    Raises:
        MalformedError: it cannot; says which there are.
    """
    if code in ACCEPTABLE:
        return
    if code in NEVER:
        raise MalformedError(f"nobody can accept a finding of this code; the codes are: {', '.join(ACCEPTABLE)}")
    near = get_close_matches(code, ACCEPTABLE, 1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise MalformedError(f"the verifier has no such code: {hint}the codes are: {', '.join(ACCEPTABLE)}")
