"""Commitments to what a decision was made about: the log holds a salted hash, and whoever is shown salt and input can
tell that it is the one.

The salt is 32 random bytes, new for each decision, so that two decisions about one input cannot be told to be so, and
an input with few possible values cannot be guessed from its hash.

Format: proto/README.md, "What participants sign".

Runs in: everything.
Trusts: nothing.
"""

from __future__ import annotations

import hmac

from sfrl_secure.crypto import tags
from sfrl_secure.errors import MalformedError
from sfrl_secure.ids import Digest, sha256

SALT_BYTES = 32


def commit_to_input(salt: bytes, raw: bytes) -> Digest:
    """Give the commitment to an input.

    Raises:
        MalformedError: the salt has not 32 bytes.
    """
    if len(salt) != SALT_BYTES:
        raise MalformedError(f"a salt has {SALT_BYTES} bytes")
    return sha256(tags.DECISION_INPUT + salt + raw)


def is_committed_input(commitment: Digest, salt: bytes, raw: bytes) -> bool:
    """Tell whether this input, with this salt, is what a commitment commits to."""
    return len(salt) == SALT_BYTES and hmac.compare_digest(commitment, commit_to_input(salt, raw))
