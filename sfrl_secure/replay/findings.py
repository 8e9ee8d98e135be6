"""What the replay has to say: findings, and evidence that is missing.

A finding says that somebody wrote something that does not hold; the entry changes nothing, and the walk goes on.
Missing evidence says neither yes nor no. Codes are words that never change their meaning; `CODES` is the list of all.

Format: proto/README.md, "Verification of a log, in order".

Runs in: verifier.
Trusts: nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from sfrl_secure.ids import Digest

LOG = "log"
"""Who is blamed for what only the sequencer writes, and for entries that nobody's signature ties to a writer."""
FILES = "files"
"""Who is blamed where the log's files are not what the log signed: whoever keeps this copy."""
OPERATORS = "operators"
"""Who is blamed for a document."""
NEWCOMER = "newcomer"
"""Who is blamed for a record by a join key: whoever holds the token."""
GATEKEEPERS = "gatekeepers"
"""Who is blamed together, where the log cannot tell which of them did not answer."""

_ADMISSION_REASONS = {
    "participant_inactive": "the participant is suspended, revoked or expired, or has no record",
    "wrong_peer": "the peer is neither the participant nor a relay of the segment",
    "replayed": "the update was admitted before, and the peer is neither its participant nor a relay",
    "unknown_segment": "no terms name the segment",
    "not_granted": "no group of the participant is granted, or `submit` is no operation of the segment",
    "halted": "operators have halted the segment",
    "round_not_open": "no round is open, or another one is, or an order has ended it",
    "wrong_prefix": "the update was signed for another history of the log",
    "wrong_base": "the update is relative to another model",
    "deadline": "the round's deadline had passed",
    "duplicate": "the participant has an admission in the round",
    "round_full": "the cohort is full",
    "suite_not_allowed": "the terms do not allow the signature suite",
    "format_not_allowed": "the terms do not allow the payload format",
    "payload_too_large": "the payload's length is beyond the terms",
    "too_dense": "the number of nonzeros is beyond the terms",
    "too_few_coordinates": "the number of nonzeros is below the terms' least",
    "weight_limit": "the weight is beyond the terms, or below their least",
    "noise_too_small": "the noise that is claimed is below the terms' least",
    "quota_updates": "the participant has had as many updates admitted as the terms' window allows",
    "quota_bytes": "the participant has had as many bytes admitted as the terms' window allows",
}

CODES = MappingProxyType(
    {
        # The log as bytes.
        "checkpoint": "the checkpoint is not signed by every log key and the quorum of the trust policy",
        "structure": "entries, tiles and root do not belong together",
        "equivocation": "the log signed two histories",
        "object_altered": "an object's bytes are not those that its name says",
        # The log as a sequence: the sequencer's part of each entry.
        "entry_malformed": "the leaf is not an entry in canonical form",
        "chain": "the entry does not name the entry before it",
        "time": "log time falls",
        "time_ahead": "log time is later than the witnesses' by more than clocks may differ",
        "time_behind": "log time is earlier than that of the cosignatures that the entry itself holds",
        "anchor": "not a larger checkpoint of this log's past than the last one, under its key and the quorum",
        "stream_position": "the entry does not continue its stream",
        # Any statement or document.
        "malformed": "the signed bytes do not follow their format",
        "genesis": "index 0 is an effective genesis, and no other entry is one",
        "wrong_federation": "another federation's",
        "bad_signature": "what is quoted is not signed by the key in force of whom it names",
        "expired": "its time, or that of what it rests on, was over",
        "repeated": "the statement is already in the log",
        # Documents.
        "threshold": "not enough operators signed, or somebody else did",
        "root_expired": "an expired root takes no document",
        "version": "the version does not follow the one in force",
        "previous": "the document does not name the one that it replaces",
        "revoked": "a revoked participant stays revoked",
        "model_changed": "later terms keep the segment's model",
        "key_reused": "a key serves one name",
        "root_changed": "a later root keeps trust domain and log host",
        "lasts_too_long": "it would last longer than its kind may",
        "invitation_expired": "the invitation's time was over",
        "invitation_spent": "an invitation is good for one record",
        "record_differs": "the record is not what its invitation says",
        "wrong_name": "the TLS key was issued to another name than the revocation's",
        "order_state": "the segment already is, or is not, what is ordered",
        "order_target": "the order is about something that is not there, or not any more",
        "nothing_left_out": "nothing is left out anew of the models that would be derived again",
        "reveals": "the order does not name exactly those whose updates the difference of the models gives away",
        "possession": "the participant did not sign for its key",
        "trust_domain": "a service or auditor of another trust domain",
        "rules": "the rules are not Cedar that fits the schema, each with an @id of its own",
        # Statements of services.
        "writer": "no service with this name and key is in force",
        "writer_signature": "not exactly one signature, by the writer's key",
        "role": "the writer's role may not write this kind",
        "stream": "the stream is not the one that the statement belongs to",
        "stale_governance": "the writer had not read the last governance entry",
        "stale_segment": "the writer had not read the segment's last control entry",
        "identity_unknown": "no document in force names the SPIFFE ID",
        "request": "the request is not by whom the identity is for, or not for this identity, or not of this hour",
        "request_used": "the request is not newer than the last one that had effect for its TLS key",
        "identity_rate": "as many identities were issued under the name in 24 hours as may be",
        "renews": "the identity that is renewed opens nothing, or there is none and there must be",
        "key_revoked": "operators have revoked the TLS key",
        "withdrawal": "no admission of the participant in the open round that it could take back",
        "complaint": "the participant has complained in this round",
        "censorship": "an update that was shown while its round was open was neither admitted nor refused",
        "record_seq": "a participant's decisions are numbered upwards",
        "model_unknown": "the model is none of the segment's",
        "round_not_due": "a round is open or waits for its model, or models are to be derived again",
        "terms": "the round names other terms than those in force",
        "round_number": "rounds are numbered without gaps, up to the terms' last",
        "base_model": "another base than the segment's newest model",
        "mask": "the round's mask is not the one that its terms and the lineage give",
        "retention": "the payload is kept too short",
        "defective": "the payload does not bear the admission out",
        "peer_unknown": "no identity was issued to the peer",
        "refusal_evidence": "the evidence is not of the kind that the reason has",
        "refusal_reason": "the evidence gives another reason, or none",
        "refusal_rules": "other rules denied it",
        "refusal_facts": "the payload measures otherwise",
        "refusal_count": "more single refusals of a kind than are written",
        "close_early": "the round is neither full nor past its deadline",
        "close_cause": "the cause is not the round's: ended by order, full, or at its deadline",
        "close_dropped": "the dropped updates are not those that fall out",
        "close_counted": "the counted updates are not those that are left",
        "close_outcome": "the outcome does not follow from the count",
        "no_model_due": "no closed round waits for this model",
        "supersedes": "no step is due that this model would take the place of",
        "rule": "another rule or arithmetic than the terms'",
        "aggregate": "the aggregate is not the rule's result",
        "model": "the model is not base and aggregate together",
        "server_state": "the server state is not the one that the round begins with, or not what its step leaves",
        "next_mask": "the next round's mask is not the one that the rule chooses",
        "clusters": "the clusters are not those of updates that are alike, or their models not their means",
        "initial_model": "the initial model is not a model of the terms",
        "fetch": "a fetch names no recorded participant, or no published model",
        "overdue": "a round stays open long after its deadline, while its segment goes on",
        **_ADMISSION_REASONS,
    }
)
"""Every code of a finding, with what it means."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something in the log that does not hold.

    Attributes:
        code: of `CODES`.
        index: leaf index of the entry; None where it is about no entry.
        writer: the SPIFFE ID that signed the entry, `operators`, `newcomer`, `gatekeepers`, `log`, `files` or
            `objects`.
        expected, found: for people; only values that were parsed, never a stranger's bytes. One of them may be empty.
        subject: digest of an object, or path of a file, where it is about one.
        is_acceptable: it is of a kind that operators may accept by an order.
    """

    code: str
    index: int | None
    writer: str
    expected: str
    found: str
    subject: str = ""
    is_acceptable: bool = False

    def __post_init__(self) -> None:
        assert self.code in CODES, "every code is in the table"


@dataclass(frozen=True, slots=True)
class Missing:
    """Evidence that is not there.

    Attributes:
        digest: the object's name; None where it is a file of the log.
        index: leaf index of the first entry that needs it; None where it is a file of the log.
        why: what it is needed for.
        path: of a file of the log.
    """

    digest: Digest | None
    index: int | None
    why: str
    path: str = ""


@dataclass(frozen=True, slots=True)
class Untold:
    """What of a published model nobody can work out again, because evidence is not there, or not what it should be.

    That lack is a finding, or missing, already; but it may be an earlier round's, and name another entry.

    Attributes:
        index: leaf index of the model_published.
        what: of `aggregate`, `model`, `server_state`, `next_mask` and `clusters`.
    """

    index: int
    round: int
    what: tuple[str, ...]


def hex_of(digest: Digest | None) -> str:
    """A digest for people, or that there is none."""
    return "none" if digest is None else digest.hex()


class Void(Exception):
    """An entry has no effect: how a rule says so. Never leaves replay."""

    def __init__(self, code: str, expected: str, found: str = "") -> None:
        assert code in CODES, "every code is in the table"
        super().__init__(code)
        self.code, self.expected, self.found = code, expected, found
