"""What a round begins with, beside its base: the server state that its step stands on, and the mask.

Both are functions of the lineage: of the step before and of its terms.

Format: proto/README.md, "What a round begins with".

Runs in: verifier.
Trusts: nothing.
"""

from __future__ import annotations

from sfrl_secure.ids import Digest
from sfrl_secure.replay.segments import Step
from sfrl_secure.replay.terms import Terms


def server_state_after(before: Step | None, terms: Terms) -> Digest | None:
    """The server state that a round of these terms stands on, where `before` is the step before it."""
    if terms.server is None or before is None or before.terms.server is None:
        return None
    return before.server_state if before.terms.server.name == terms.server.name else None


def mask_after(before: Step | None, terms: Terms) -> Digest | None:
    """The mask of a round of these terms, where `before` is the newest step of the lineage."""
    if terms.mask is None:
        return None
    if terms.mask.next is None or before is None or before.next_mask is None:
        return terms.mask.digest
    earlier = before.terms.mask
    assert earlier is not None, "what names a next mask has no effect under terms whose mask stays"
    is_same = (earlier.digest, earlier.nonzeros) == (terms.mask.digest, terms.mask.nonzeros)
    return before.next_mask if is_same else terms.mask.digest
