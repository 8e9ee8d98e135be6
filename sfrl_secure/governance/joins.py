"""Join documents: an invitation for one name, to be taken up once.

Who holds the private part of the join key may record a signing key under the name, with the clearance, groups and
expiry that stand here and no others. The log has the public part alone, so whoever reads it can join nobody.

Format: proto/README.md, "Documents", join, and "Enrolment".

Runs in: everything.
Trusts: nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sfrl_secure.crypto.keys import ED25519, PUBLIC_BYTES, PublicKey, parse_public_key
from sfrl_secure.governance.fields import INTEGER_MAX
from sfrl_secure.governance.header import DocumentHeader, parse_header
from sfrl_secure.ids import parse_name
from sfrl_secure.limits import CLEARANCE_MAX, GROUPS_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinDocument(DocumentHeader):
    """An invitation; `expires_us` ends it.

    Attributes:
        join_key: Ed25519; its private part is the join token.
        clearance, groups, record_expires_us: what the participant's record will say.
    """

    payload_type: ClassVar[str] = "application/vnd.sfrl.join.v1+json"

    name: str
    join_key: PublicKey
    clearance: int
    groups: frozenset[str]
    record_expires_us: int

    @property
    def series(self) -> tuple[str, str]:
        """One series a name."""
        return ("join", self.name)


def parse_join(raw: bytes) -> JoinDocument:
    """Parse a join document.

    Raises:
        MalformedError: any other form.
    """
    fields, header = parse_header(raw, "join", ("name", "join_key", "clearance", "groups", "record_expires_us"))
    return JoinDocument(
        **header,
        name=parse_name(fields.text("name", 64)),
        join_key=parse_public_key(ED25519, fields.hexadecimal("join_key", sum(PUBLIC_BYTES[ED25519]))),
        clearance=fields.integer("clearance", 0, CLEARANCE_MAX),
        groups=fields.sorted_texts("groups", 0, GROUPS_MAX, parse_name),
        record_expires_us=fields.integer("record_expires_us", 1, INTEGER_MAX),
    )
