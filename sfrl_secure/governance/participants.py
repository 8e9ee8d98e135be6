"""Participant records: one signed document a participant, so that enrolling one touches nobody else.

Format: proto/README.md, "Documents", participant.

Runs in: everything.
Trusts: nothing. Possession of the key is verified by `governance.authority`, behind the operators' threshold.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from sfrl_secure.crypto.keys import SIGNATURE_BYTES, PublicKey
from sfrl_secure.governance.header import DocumentHeader, parse_header
from sfrl_secure.ids import parse_name
from sfrl_secure.limits import CLEARANCE_MAX, GROUPS_MAX

STATES = frozenset({"active", "suspended", "revoked"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticipantRecord(DocumentHeader):
    """A participant: its signing key, what it is cleared for, and whether it may take part.

    Attributes:
        possession: the key's signature over federation, name and key id (`crypto.possession`).
        clearance: 0 to 1,000,000; compared by the rules with a segment's sensitivity.
        groups: 0 to 64 names; a segment's terms grant groups.
        state: `active`, `suspended` or `revoked`, the last for ever.
        reason: for people; 0 to 200 printable ASCII characters.
    """

    payload_type: ClassVar[str] = "application/vnd.sfrl.participant.v1+json"

    name: str
    key: PublicKey
    possession: bytes = field(repr=False)
    clearance: int
    groups: frozenset[str]
    state: str
    reason: str

    @property
    def series(self) -> tuple[str, str]:
        """One series a name."""
        return ("participant", self.name)


def parse_participant(raw: bytes) -> ParticipantRecord:
    """Parse a participant record.

    Raises:
        MalformedError: any other form.
    """
    keys = ("name", "suite", "public_key", "possession", "clearance", "groups", "state", "reason")
    fields, header = parse_header(raw, "participant", keys)
    key = fields.public_key()
    return ParticipantRecord(
        **header,
        name=parse_name(fields.text("name", 64)),
        key=key,
        possession=fields.hexadecimal("possession", sum(SIGNATURE_BYTES[key.suite])),
        clearance=fields.integer("clearance", 0, CLEARANCE_MAX),
        groups=fields.sorted_texts("groups", 0, GROUPS_MAX, parse_name),
        state=fields.choice("state", STATES),
        reason=fields.reason("reason"),
    )
