"""Acts of operators as documents to sign: orders, revocations, invitations, the next root.

Each is built on the state that the caller has read, and checked by the rules that the log will judge it by, so that
nobody is asked to sign what could have no effect.

Format: proto/README.md, "Documents", "Orders", "Enrolment".

Runs in: operators' machines, cli.
Trusts: the state that it is given.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sfrl_secure.crypto.keys import PublicKey
from sfrl_secure.errors import DeniedError, MalformedError, NotFoundError
from sfrl_secure.governance.build import (
    build_join,
    build_key_revocation,
    build_order,
    build_participant,
    build_root,
)
from sfrl_secure.governance.documents import JoinDocument, KeyRevocation, Order, ParticipantRecord, RootDocument
from sfrl_secure.governance.orders import ExcludeTarget, OrderAction, OrderTarget, OverrideTarget, RollbackTarget
from sfrl_secure.governance.root import Thresholds
from sfrl_secure.ids import Digest, SpiffeId
from sfrl_secure.limits import JOIN_LIFETIME_US, ORDER_LIFETIME_US
from sfrl_secure.operating.drafting import Ground, check_operators
from sfrl_secure.operating.signing import SigningRequest, open_request
from sfrl_secure.rounds.orders import check_order
from sfrl_secure.rounds.state import FederationState, SegmentState

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
REVOCATION_DAYS = 3_650
"""How long a revocation can be logged; what it revoked stays so for ever."""

_MARGIN_US = 60_000_000
"""Less than the longest life by this: the log's clock and ours differ."""


def draft_order(
    state: FederationState, segment: str, action: OrderAction, target: OrderTarget, *, reason: str, hours: float,
    now_us: int,
) -> SigningRequest:
    """Build a segment's next order.

    Args:
        hours: how long it may take until it is logged.

    Raises:
        NotFoundError: there is no such segment.
        DeniedError: the order could have no effect now; says why.
        MalformedError: a reason or a time out of its range; an override to the class that the decision has.
    """
    segment_of(state, segment)
    if isinstance(target, OverrideTarget):
        _check_changes_class(state, target)
    lifetime_us = int(hours * HOUR_US)
    if not 0 < lifetime_us <= ORDER_LIFETIME_US:
        raise MalformedError(f"an order can be logged for more than 0 and at most {ORDER_LIFETIME_US // HOUR_US} hours")
    raw = build_order(
        **Ground(state, now_us).succession(("order", segment)),
        expires_us=now_us + min(lifetime_us, ORDER_LIFETIME_US - _MARGIN_US),
        segment=segment,
        action=action,
        target=target,
        reason=reason,
    )
    request = open_request(Order.payload_type, raw)
    assert isinstance(request.document, Order), "the payload type is an order's"
    check_order(state, request.document, now_us)
    return request


def _check_changes_class(state: FederationState, target: OverrideTarget) -> None:
    """A decision is overridden once: not to the class that it has."""
    found = state.decisions.get(target.decision)
    if found is not None and found.overridden is None and found.decided_class == target.decided_class:
        raise MalformedError(f"the decision says class {found.decided_class} already: nothing would change")


def segment_of(state: FederationState, name: str) -> SegmentState:
    """The segment of this name.

    Raises:
        NotFoundError: there is none; names those that there are.
    """
    if name not in state.segments:
        known = ", ".join(sorted(state.segments)) or "none"
        raise NotFoundError(f"the log has no such segment; it has: {known}")
    return state.segments[name]


def update_to_exclude(state: FederationState, segment: str, round_number: int, participant: str) -> ExcludeTarget:
    """Find the update of a participant in a round.

    Raises:
        NotFoundError: it has none there.
    """
    found = segment_of(state, segment).rounds.get(round_number)
    if found is None or participant not in found.admissions:
        raise NotFoundError(
            f"round {round_number} of {segment} has no update of this participant: "
            f"see `sfrl round show {round_number} --segment {segment}`"
        )
    return ExcludeTarget(found.admissions[participant].statement_digest)


def model_to_roll_back_to(state: FederationState, segment: str, round_number: int) -> RollbackTarget:
    """Find the model that a round led to; round 0 stands for the model before the first.

    Raises:
        NotFoundError: the round is no step to the newest model.
    """
    found = segment_of(state, segment)
    if round_number == 0:
        return RollbackTarget(found.terms.model.initial)
    at = found.step_of(round_number)
    if at is None:
        steps = ", ".join(str(step.round) for step in found.lineage) or "none"
        raise NotFoundError(f"this round is no step to the newest model; the steps are: {steps}")
    return RollbackTarget(found.lineage[at].model)


def decision_at(state: FederationState, segment: str, index: int) -> Digest:
    """Find a recorded decision by its entry.

    Raises:
        NotFoundError: the entry is none of the segment's.
    """
    for digest, decision in state.decisions.items():
        if decision.index == index and decision.segment == segment:
            return digest
    raise NotFoundError(f"entry {index} is no decision of {segment} that has effect")


def draft_participant_revocation(state: FederationState, name: str, *, reason: str, now_us: int) -> SigningRequest:
    """Build the record that revokes a participant, for ever.

    Raises:
        NotFoundError: nobody of this name is recorded.
        DeniedError: `revoked`, it is so already.
        MalformedError: a reason out of its form.
    """
    record = state.participant(name)
    if record is None:
        known = ", ".join(sorted(each for kind, each in state.placed if kind == "participant")) or "none"
        raise NotFoundError(f"the log records no such participant; it records: {known}")
    if record.state == "revoked":
        raise DeniedError("revoked", f"{name} is revoked already")
    raw = build_participant(
        **Ground(state, now_us).succession(record.series),
        expires_us=max(record.expires_us, now_us + REVOCATION_DAYS * DAY_US),
        name=name,
        key=record.key,
        possession=record.possession,
        clearance=record.clearance,
        groups=record.groups,
        state="revoked",
        reason=reason,
    )
    return open_request(ParticipantRecord.payload_type, raw)


def draft_key_revocation(
    state: FederationState, spki_sha256: Digest, spiffe_id: SpiffeId | None, *, reason: str, now_us: int
) -> SigningRequest:
    """Build the revocation of one TLS key, for ever.

    Args:
        spiffe_id: whose it is, where the log has not issued for it.

    Raises:
        NotFoundError: the log does not know whose it is, and nobody says.
        MalformedError: it was issued to somebody else.
        DeniedError: `revoked`, it is so already.
    """
    issued = state.issued.get(spki_sha256)
    if spki_sha256 in state.revoked_keys:
        raise DeniedError("revoked", "this key is revoked already")
    if issued is None and spiffe_id is None:
        raise NotFoundError("the log has issued no identity for this key: say whose it is with --spiffe-id")
    if issued is not None and spiffe_id is not None and issued != spiffe_id:
        raise MalformedError("the log has issued this key to somebody else than the one named")
    owner = issued or spiffe_id
    assert owner is not None, "one of the two is there"
    raw = build_key_revocation(
        federation_id=state.federation_id,
        expires_us=now_us + REVOCATION_DAYS * DAY_US,
        spiffe_id=owner,
        spki_sha256=spki_sha256,
        reason=reason,
    )
    return open_request(KeyRevocation.payload_type, raw)


def draft_invitation(
    state: FederationState, name: str, join_key: PublicKey, *, clearance: int, groups: Collection[str], hours: float,
    record_days: float, now_us: int,
) -> SigningRequest:
    """Build the invitation of a name.

    Args:
        join_key: public part of the join token.
        hours: until when a key may be recorded under the name.
        record_days: how long the record will hold, from now.

    Raises:
        DeniedError: `revoked`, the name was revoked.
        MalformedError: a time, a name or a number out of its range.
    """
    record = state.participant(name)
    if record is not None and record.state == "revoked":
        raise DeniedError("revoked", f"{name} was revoked: invite the participant under another name")
    lifetime_us = int(hours * HOUR_US)
    if not 0 < lifetime_us <= JOIN_LIFETIME_US:
        raise MalformedError(f"an invitation ends after more than 0 and at most {JOIN_LIFETIME_US // HOUR_US} hours")
    raw = build_join(
        **Ground(state, now_us).succession(("join", name)),
        expires_us=now_us + min(lifetime_us, JOIN_LIFETIME_US - _MARGIN_US),
        name=name,
        join_key=join_key,
        clearance=clearance,
        groups=groups,
        record_expires_us=now_us + int(record_days * DAY_US),
    )
    return open_request(JoinDocument.payload_type, raw)


def draft_root(
    state: FederationState, *, add: Mapping[str, PublicKey], remove: Collection[str], thresholds: Mapping[str, int],
    days: float | None, now_us: int,
) -> SigningRequest:
    """Build the next root: operators added, replaced or removed, thresholds changed, expiry renewed.

    Args:
        add: public keys by name; of an operator in root, its next key.
        thresholds: by role, those that change.
        days: until it expires, from now; as before where it is None.

    Raises:
        NotFoundError: an operator to remove is not in root, or the log has no genesis.
        MalformedError: nothing would change; a threshold that nobody could meet, or an expiry in the past.
    """
    root = state.root
    if root is None:
        raise NotFoundError("the log has no genesis")
    unknown = sorted(set(remove) - root.operators.keys())
    if unknown:
        known = ", ".join(sorted(root.operators))
        raise NotFoundError(f"{', '.join(unknown)} is no operator of root v{root.version}; they are: {known}")
    if set(remove) & add.keys():
        raise MalformedError("an operator is either removed or given a key")
    operators = {name: key for name, key in root.operators.items() if name not in remove} | dict(add)
    before = {name: getattr(root.thresholds, name) for name in ("root", "governance", "enrolment", "revocation")}
    expires_us = root.expires_us if days is None else now_us + int(days * DAY_US)
    if expires_us <= now_us:
        raise MalformedError("the root in force has expired: say for how many days the next one holds, with --days")
    if (operators, {**before, **thresholds}, expires_us) == (dict(root.operators), before, root.expires_us):
        raise MalformedError("nothing would change: say whom to add or remove, a threshold, or --days")
    check_operators(operators, {**before, **thresholds})
    raw = build_root(
        **Ground(state, now_us).succession(("root", "")),
        expires_us=expires_us,
        trust_domain=root.trust_domain,
        log_host=root.log_host,
        operators=operators,
        thresholds=Thresholds(**{**before, **thresholds}),
    )
    return open_request(RootDocument.payload_type, raw)
