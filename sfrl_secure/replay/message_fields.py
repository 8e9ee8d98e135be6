"""Values of a protobuf message, taken with their length and range or not at all.

What `protobuf` read has one encoding; what is asked here is whether it may stand where it stands.

Format: proto/README.md, "Canonical form"; the schemas beside it.

Runs in: verifier.
Trusts: nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from sfrl_secure.crypto.envelope import Envelope, Signature
from sfrl_secure.errors import MalformedError
from sfrl_secure.ids import Digest, parse_digest
from sfrl_secure.replay.protobuf import Table, parse_message

COUNT_END = 2**31
"""Classes, features and latent dimensions are below this."""


def read_message(raw: bytes, table: Table, bytes_max: int) -> dict[str, Any]:
    """Read a message of at most that many bytes.

    Raises:
        MalformedError: longer, or not in canonical form.
    """
    if len(raw) > bytes_max:
        raise MalformedError(f"a message of this kind is at most {bytes_max} bytes")
    return parse_message(raw, table)


def take_envelope(fields: dict[str, Any]) -> Envelope:
    """Take the envelope whose fields these are."""
    if not fields["statement"]:
        raise MalformedError("a statement is not empty")
    # Signature and Envelope know suites, lengths, numbers and order.
    signatures = tuple(Signature(Digest(each["key_id"]), each["suite"], each["value"]) for each in fields["signatures"])
    return Envelope(fields["payload_type"], fields["statement"], signatures)


def take_required(number: int) -> int:
    """Take a number that is not zero."""
    if number == 0:
        raise MalformedError("a required field is there")
    return number


def take_present(message: dict[str, Any] | None) -> dict[str, Any]:
    """Take a message that is there."""
    if message is None:
        raise MalformedError("a required message is there")
    return message


def take_optional_digest(raw: bytes) -> Digest | None:
    """Take a digest, or None where the field is absent."""
    return parse_digest(raw) if raw else None


def take_bounded(number: int, most: int) -> int:
    """Take a number of at most that much, zero allowed."""
    if number > most:
        raise MalformedError(f"a number is at most {most}")
    return number


def check_ascending(keys: Iterable[Any]) -> None:
    """Check that a list is sorted and names nothing twice."""
    if any(not earlier < later for earlier, later in pairwise(keys)):
        raise MalformedError("a list is sorted, and nothing stands in it twice")
