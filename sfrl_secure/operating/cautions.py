"""What is allowed, and perhaps not meant: said to operators before they sign, and never an error.

Runs in: operators' machines, cli.
Trusts: the state that it is given.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from difflib import get_close_matches

from sfrl_secure.governance.documents import Document, JoinDocument, Order, ParticipantRecord, SegmentTerms
from sfrl_secure.governance.orders import AcceptTarget
from sfrl_secure.operating.aggregation_cautions import aggregation_cautions
from sfrl_secure.rounds.state import FederationState


def cautions_of(document: Document, state: FederationState) -> tuple[str, ...]:
    """Say what somebody should look at twice; empty where there is nothing."""
    return tuple(_cautions(document, state))


def _cautions(document: Document, state: FederationState) -> Iterator[str]:
    match document:
        case SegmentTerms():
            yield from _strange(document.groups, _groups_of_people(state), "no participant has the group")
            yield from _strange(document.relay_groups, _groups_of_people(state), "no participant has the relay group")
            yield from _updates(document, state)
        case ParticipantRecord():
            if document.state != "revoked":
                yield from _strange(document.groups, _groups_of_segments(state), "no segment grants the group")
        case JoinDocument():
            yield from _strange(document.groups, _groups_of_segments(state), "no segment grants the group")
            record = state.participant(document.name)
            if record is not None:
                yield (
                    f"{document.name} is recorded already and is {record.state}: whoever enrols takes over the name, "
                    "with a new key"
                )
        case Order(target=AcceptTarget(index, code)):
            yield (
                f"only the verifier knows whether there is a finding {code} at entry {index}: see `sfrl audit verify`; "
                "where there is none, the order does nothing"
            )


def _updates(terms: SegmentTerms, state: FederationState) -> Iterator[str]:
    coordinates = terms.model.manifest.coordinates
    if "dense" in terms.support_modes and terms.limits.nonzeros_max < coordinates:
        yield (
            f"a dense update has {coordinates} values and limits.nonzeros_max is {terms.limits.nonzeros_max}: nobody "
            "can send one"
        )
    if terms.mask is not None and terms.mask.nonzeros < terms.leakage.nonzeros_min:
        yield (
            f"an agreed update has {terms.mask.nonzeros} values and leakage.nonzeros_min is "
            f"{terms.leakage.nonzeros_min}: nobody can send one"
        )
    placed = state.segments.get(terms.segment)
    before = None if placed is None else placed.terms
    if terms.relay_groups - (frozenset() if before is None else before.relay_groups):
        yield "updates are signed and not encrypted: who brings another's can read it"
    # What the terms in force have already was said when it came.
    known = () if before is None else tuple(aggregation_cautions(before))
    yield from (caution for caution in aggregation_cautions(terms) if caution not in known)
    if terms.mask is not None and (before is None or (before.mask and before.mask.digest) != terms.mask.digest):
        yield f"the mask {terms.mask.digest.hex()} must lie among the objects before these terms do"


def _strange(groups: Collection[str], known: Collection[str], what: str) -> Iterator[str]:
    for group in sorted(set(groups) - set(known)):
        near = get_close_matches(group, sorted(known), 1)
        yield f"{what} {group}" + (f": did you mean {near[0]}?" if near else "")


def _groups_of_people(state: FederationState) -> set[str]:
    """Of records that are not revoked, and of invitations, taken up or not."""
    groups: set[str] = set()
    for kind, name in state.placed:
        record = state.participant(name) if kind == "participant" else None
        join = state.join(name) if kind == "join" else None
        if record is not None and record.state != "revoked":
            groups |= record.groups
        if join is not None:
            groups |= join.groups
    return groups


def _groups_of_segments(state: FederationState) -> set[str]:
    return {group for segment in state.segments.values() for group in segment.terms.groups}
