"""What building a draft comes to."""

from __future__ import annotations

from sfrl_secure.governance.documents import Document
from sfrl_secure.operating.drafts import Problem
from sfrl_secure.operating.signing import SigningRequest

Outcome = SigningRequest | tuple[Problem, ...]


def document(outcome: Outcome) -> Document:
    """What was built; a problem fails the test."""
    assert isinstance(outcome, SigningRequest), outcome
    return outcome.document
