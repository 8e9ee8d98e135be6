"""The replay: every entry of a log in order, each effective or void, and what cannot be told.

Entries come as bytes, already tied to a checkpoint (`audit`). Everything is decided here again: signatures, documents, rounds,
admissions from their payloads, models from their updates. A void entry changes nothing, and is a finding.

Format: proto/README.md, "Verification of a log, in order", 3 to 7.

Runs in: verifier.
Trusts: the trust policy's origin and log keys; the objects' store for bytes, never for what they are.
"""

from __future__ import annotations

from collections import Counter

from sfrl_secure.crypto.envelope import Envelope
from sfrl_secure.errors import DigestError, MalformedError
from sfrl_secure.ids import ZERO_DIGEST, Digest
from sfrl_secure.replay import authority, refusals, service, training
from sfrl_secure.replay.arithmetic import RunningSum, model_bytes, parse_model
from sfrl_secure.replay.documents import Document, parse_document
from sfrl_secure.replay.evidence import Evidence
from sfrl_secure.replay.findings import LOG, OPERATORS, Finding, Missing, Void
from sfrl_secure.replay.objects import Objects
from sfrl_secure.replay.state import Round, Segment, State
from sfrl_secure.replay.statements import (
    STATEMENT_TYPE,
    IdentityIssued,
    ModelPublished,
    RefusalsCounted,
    RoundClosed,
    RoundOpened,
    Statement,
    UpdateAdmitted,
    UpdateRefused,
    parse_entry,
    parse_statement,
)
from sfrl_secure.replay.terms import Terms
from sfrl_secure.translog.entries import LogEntry
from sfrl_secure.translog.merkle import leaf_hash
from sfrl_secure.translog.policy import TrustedLog

OVERDUE_US = 120_000_000
"""An open round is overdue when its segment still gets entries this long after the deadline: the tolerance of log time."""
