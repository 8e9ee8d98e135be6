"""What a round begins with beside its base: the state of the server's step, and the mask of agreed updates.

Functions of the state alone: the fold judges a round_opened by them, the aggregator opens by them, and a step that is
derived again stands on what they give. So a rollback takes both back with the model, and new terms with another mask or
another server step begin anew.

Format: proto/README.md, "What a round begins with".

Runs in: gatekeeper, aggregator, audit_log.
Trusts: the state of the fold.
"""

from __future__ import annotations

from dataclasses import dataclass

from sfrl_secure.governance.aggregation_terms import MaskTerms
from sfrl_secure.governance.terms import SegmentTerms
from sfrl_secure.ids import Digest
from sfrl_secure.rounds.state import LineageStep, SegmentState


@dataclass(frozen=True, slots=True)
class BeginsWith:
    """Digests of a server state and a mask.

    Attributes:
        server_state: None stands for zeros where the terms have a server step, and for nothing where they have none.
        mask: None where the terms have no mask.
    """

    server_state: Digest | None
    mask: Digest | None


def round_begins_with(segment: SegmentState) -> BeginsWith:
    """Say what the next round begins with, under the terms in force. Nothing is being derived again."""
    newest = segment.lineage[-1] if segment.lineage else None
    return BeginsWith(_server_state(segment, segment.terms, newest), _mask(segment, segment.terms.mask, newest))


def due_server_state(segment: SegmentState) -> Digest | None:
    """The server state that the next step due stands on: what the step before has become. Something is due.

    Its mask is not derived again: a step keeps the mask that its round began with, `RoundState.mask`.
    """
    at = segment.step_of(segment.due[0])
    assert at is not None, "steps leave the lineage by a rollback, which leaves nothing due"
    terms = segment.rounds[segment.due[0]].terms
    return _server_state(segment, terms, segment.lineage[at - 1] if at else None)


def _server_state(segment: SegmentState, terms: SegmentTerms, before: LineageStep | None) -> Digest | None:
    if terms.server is None or before is None:
        return None
    server = segment.rounds[before.round].terms.server
    # Another rule's state is another thing. New decays and rates go on with the state that there is.
    return before.server_state if server is not None and server.name == terms.server.name else None


def _mask(segment: SegmentState, mask: MaskTerms | None, before: LineageStep | None) -> Digest | None:
    if mask is None:
        return None
    if mask.next is None or before is None or before.next_mask is None:
        return mask.digest
    earlier = segment.rounds[before.round].terms.mask
    goes_on = (
        earlier is not None
        and earlier.next is not None
        and (earlier.digest, earlier.nonzeros) == (mask.digest, mask.nonzeros)
    )
    return before.next_mask if goes_on else mask.digest
