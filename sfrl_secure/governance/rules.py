"""Rules documents: the federation's Cedar policies as text.

Parsing bounds the text and goes no further. That it is Cedar, fits the schema and names its policies is checked by
`governance.policy.check_rules`, behind the operators' threshold: a stranger's text never meets the native parser.

Format: proto/README.md, "Documents", rules.

Runs in: everything.
Trusts: nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from sfrl_secure.governance.cedar_text import split_policies
from sfrl_secure.governance.header import DocumentHeader, parse_header
from sfrl_secure.limits import DOCUMENT_BYTES_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class RulesDocument(DocumentHeader):
    """The policy set in force for the whole federation."""

    payload_type: ClassVar[str] = "application/vnd.sfrl.rules.v1+json"

    cedar: str = field(repr=False)

    @property
    def series(self) -> tuple[str, str]:
        """There is one set of rules."""
        return ("rules", "")


def parse_rules(raw: bytes) -> RulesDocument:
    """Parse a rules document.

    Raises:
        MalformedError: any other form, or a text beyond the bounds of `cedar_text`.
    """
    fields, header = parse_header(raw, "rules", ("cedar",))
    cedar = fields.text("cedar", DOCUMENT_BYTES_MAX)
    split_policies(cedar)
    return RulesDocument(**header, cedar=cedar)
