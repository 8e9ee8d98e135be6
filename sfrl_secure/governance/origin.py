"""Origin of a federation's log: the name that its checkpoints, keys and trust policy share.

It holds the start of the federation id, so that a trust policy pins the governance root together with the log.

Format: proto/README.md, "Names".

Runs in: everything.
Trusts: nothing.
"""

from __future__ import annotations

from sfrl_secure.ids import Digest


def origin_of(log_host: str, federation_id: Digest) -> str:
    """Name the log of a federation: host, `/sfrl/`, the first 32 hexadecimal digits of the federation id."""
    return f"{log_host}/sfrl/{federation_id.hex()[:32]}"
