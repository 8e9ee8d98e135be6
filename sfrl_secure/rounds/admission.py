"""Admission, the part that needs no payload: steps 4 to 9.

One function a step, in the order of the specification; the first that raises gives the reason. The gatekeeper walks
them before it takes a payload, the fold walks them again over an `update_admitted` entry, so that both mean the same.

Format: proto/README.md, "Admission".

Runs in: gatekeeper, aggregator, audit_log.
Trusts: the state of the fold. Nothing in the update.
"""

from __future__ import annotations

from functools import lru_cache

from sfrl_secure.crypto.envelope import Envelope, verify_single
from sfrl_secure.errors import DeniedError, RoundStateError, SignatureError
from sfrl_secure.governance.documents import ParticipantRecord, RulesDocument
from sfrl_secure.governance.policy import AdmissionPolicy, HeaderFacts, PolicyDecision, Subject
from sfrl_secure.governance.root import FORMATS
from sfrl_secure.governance.statements import UPDATE_TYPE, UpdateStatement
from sfrl_secure.governance.terms import SegmentTerms
from sfrl_secure.ids import Digest, SpiffeId
from sfrl_secure.limits import DEADLINE_MARGIN_US
from sfrl_secure.rounds.quota import check_quota
from sfrl_secure.rounds.state import FederationState, RoundState

NOT_RECEIVED = "not_received"
"""A gatekeeper's word about an update that it never had; it stands in nobody's way later."""

_NOT_SIGNED = "not signed by the key on record for its participant"


class PolicyDenial(DeniedError):
    """The rules do not allow the update. Carries the ids of those that forbid it; none where no rule permits it."""

    def __init__(self, decision: PolicyDecision) -> None:
        super().__init__(decision.reason, "the rules in force do not allow this update")
        self.rule_ids = decision.rule_ids


def check_signed(
    state: FederationState, envelope: Envelope, payload_type: str, participant: str, key_id: Digest
) -> ParticipantRecord:
    """The participant that a statement names is recorded, and signed it, alone, with its key in force.

    Raises:
        DeniedError: `bad_signature`.
    """
    record = state.participant(participant)
    if record is None or envelope.payload_type != payload_type or record.key.key_id != key_id:
        raise DeniedError("bad_signature", _NOT_SIGNED)
    try:
        verify_single(envelope, record.key)
    except SignatureError:
        raise DeniedError("bad_signature", _NOT_SIGNED) from None
    return record


def check_active(state: FederationState, record: ParticipantRecord, now_us: int) -> None:
    """The participant may take part now.

    Raises:
        DeniedError: `participant_inactive`.
    """
    if not state.is_active(record.name, now_us):
        raise DeniedError("participant_inactive", "the participant is suspended, revoked or expired")


def check_signer(state: FederationState, envelope: Envelope, update: UpdateStatement, now_us: int) -> ParticipantRecord:
    """Step 4: the participant that the update names is recorded, signed it with its key in force, and is active.

    Raises:
        DeniedError: `bad_signature`, `participant_inactive`.
    """
    record = check_signed(state, envelope, UPDATE_TYPE, update.participant, update.key_id)
    check_active(state, record, now_us)
    return record


def is_owner(peer: SpiffeId, update: UpdateStatement) -> bool:
    """Whether the peer is the participant that the update names."""
    return peer.role == "participant" and peer.name == update.participant


def is_relay(state: FederationState, peer: SpiffeId, segment_name: str, now_us: int) -> bool:
    """Whether the peer may bring others' updates to a segment now, by the segment's terms in force."""
    segment, record = state.segments.get(segment_name), state.participant(peer.name)
    if peer.role != "participant" or segment is None or record is None or not state.is_active(peer.name, now_us):
        return False
    return not record.groups.isdisjoint(segment.terms.relay_groups)


def may_bring(state: FederationState, peer: SpiffeId, update: UpdateStatement, now_us: int) -> bool:
    """Whether the peer is the participant that the update names, or a relay of the segment that it names."""
    return is_owner(peer, update) or is_relay(state, peer, update.segment, now_us)


def is_admitted(
    state: FederationState, peer: SpiffeId, envelope: Envelope, update: UpdateStatement, now_us: int
) -> bool:
    """Whether the update was admitted before, and the peer is whose it is or a relay: it gets the stored answer."""
    return envelope.digest in state.admitted_updates and may_bring(state, peer, update, now_us)


def check_peer(state: FederationState, peer: SpiffeId, update: UpdateStatement, now_us: int) -> None:
    """Step 5: the peer is the participant itself, or a relay of the segment.

    Raises:
        DeniedError: `wrong_peer`.
    """
    if not may_bring(state, peer, update, now_us):
        raise DeniedError("wrong_peer", "the update belongs to another participant, and the sender is no relay")


def check_round(
    state: FederationState, record: ParticipantRecord, update: UpdateStatement, now_us: int, *, margin_us: int
) -> RoundState:
    """Step 6: federation, segment, grant, halt, round, prefix, base and deadline.

    Args:
        margin_us: how long before the deadline updates are no longer taken: `DEADLINE_MARGIN_US` at the door, 0 in the
            log.

    Raises:
        DeniedError: `wrong_federation`, `unknown_segment`, `not_granted`.
        RoundStateError: `halted`, `round_not_open`, `wrong_prefix`, `wrong_base`, `deadline`.
    """
    if update.federation_id != state.federation_id:
        raise DeniedError("wrong_federation", "the update was signed for another federation")
    segment = state.segment(update.segment)
    opened = segment.open_round
    terms = segment.terms if opened is None else opened.terms
    if "submit" not in terms.operations or not record.groups & terms.groups:
        raise DeniedError("not_granted", "no group of the participant is granted updates in this segment")
    if segment.is_halted:
        raise RoundStateError("halted", "operators have halted the segment")
    if opened is None or opened.ended_by_order or update.round != opened.number:
        raise RoundStateError("round_not_open", "the round is not open")
    if update.round_opened != opened.opened:
        raise RoundStateError("wrong_prefix", "the update was signed for another history of the log")
    if update.base_model != opened.base_model:
        raise RoundStateError("wrong_base", "the update is relative to another model than the round's")
    if now_us >= opened.deadline_us - margin_us:
        raise RoundStateError("deadline", f"updates are taken until {margin_us // 1000} ms before the deadline")
    return opened


def check_cohort(opened: RoundState, update: UpdateStatement) -> None:
    """Step 7: one update a participant, and the cohort has room.

    Raises:
        RoundStateError: `duplicate`, `round_full`.
    """
    if update.participant in opened.admissions:
        raise RoundStateError("duplicate", "the participant already has an update in this round")
    if opened.is_full:
        raise RoundStateError("round_full", f"the round takes {opened.terms.round.cohort_max} updates")


def check_header_limits(terms: SegmentTerms, record: ParticipantRecord, update: UpdateStatement) -> None:
    """Step 8, what the header alone decides: suite, format, sizes, weight and noise are within the round's terms.

    Raises:
        DeniedError: `suite_not_allowed`, `format_not_allowed`, `payload_too_large`, `too_dense`,
            `too_few_coordinates`, `weight_limit`, `noise_too_small`.
    """
    limits, leakage = terms.limits, terms.leakage
    if record.key.suite not in terms.suites:
        raise DeniedError("suite_not_allowed", "the terms do not allow this signature suite")
    form = update.format
    is_ours = form.codec == FORMATS["codec"]
    if not is_ours or form.support not in terms.support_modes or form.values not in terms.value_types:
        raise DeniedError("format_not_allowed", "the terms do not allow this payload format")
    if form.support in {"agreed", "dense"} and update.nonzeros != _fixed_nonzeros(terms, form.support):
        raise DeniedError("format_not_allowed", "this support mode has another number of values")
    if not 1 <= update.payload_bytes <= limits.payload_bytes_max:
        raise DeniedError("payload_too_large", f"a payload has 1 to {limits.payload_bytes_max} bytes")
    if update.nonzeros > limits.nonzeros_max:
        raise DeniedError("too_dense", f"an update has at most {limits.nonzeros_max} nonzeros")
    if update.nonzeros < leakage.nonzeros_min:
        raise DeniedError("too_few_coordinates", f"an update has at least {leakage.nonzeros_min} nonzeros")
    if not leakage.weight_min <= update.weight <= limits.weight_max:
        raise DeniedError("weight_limit", f"a weight is {leakage.weight_min} to {limits.weight_max}")
    if update.noise_std < leakage.noise_std_min:
        raise DeniedError("noise_too_small", f"noise has a standard deviation of {leakage.noise_std_min} or more")


def _fixed_nonzeros(terms: SegmentTerms, support: str) -> int:
    if support == "dense":
        return terms.model.manifest.coordinates
    assert terms.mask is not None, "terms that allow the agreed mode have a mask"
    return terms.mask.nonzeros


def header_facts(terms: SegmentTerms, record: ParticipantRecord, update: UpdateStatement) -> HeaderFacts:
    """What the rules see before the payload."""
    return HeaderFacts(
        round=update.round,
        weight=update.weight,
        nonzeros=update.nonzeros,
        payload_bytes=update.payload_bytes,
        density_ppm=update.nonzeros * 1_000_000 // terms.model.manifest.coordinates,
        value_type=update.format.values,
        support_mode=update.format.support,
        suite=record.key.suite,
        noise_std=update.noise_std,
    )


@lru_cache(maxsize=8)
def policy_of(rules: RulesDocument) -> AdmissionPolicy:
    """The rules, parsed once a document."""
    return AdmissionPolicy(rules)


def subject_of(record: ParticipantRecord) -> Subject:
    """Who asks, as the rules see it."""
    return Subject(record.name, record.clearance, record.groups)


def check_decision(decision: PolicyDecision) -> tuple[str, ...]:
    """Turn a policy decision into its rule ids.

    Raises:
        PolicyDenial: `policy_denied`, `policy_error`.
    """
    if not decision.allowed:
        raise PolicyDenial(decision)
    return decision.rule_ids


def check_submit_policy(
    rules: RulesDocument | None, terms: SegmentTerms, record: ParticipantRecord, update: UpdateStatement
) -> tuple[str, ...]:
    """Step 9: the rules allow `submit` over header facts; give the ids of the rules that do.

    Raises:
        DeniedError: `policy_denied`, `policy_error`.
    """
    if rules is None:
        raise DeniedError("policy_denied", "no rules are in force")
    facts = header_facts(terms, record, update)
    return check_decision(
        policy_of(rules).decide_submit(subject_of(record), (terms.segment, terms.sensitivity), facts)
    )


def check_log_steps(
    state: FederationState,
    peer: SpiffeId | None,
    envelope: Envelope,
    update: UpdateStatement,
    now_us: int,
    *,
    margin_us: int = DEADLINE_MARGIN_US,
) -> tuple[ParticipantRecord, RoundState]:
    """Steps 3 to 8 in order: everything that the log alone decides, but for the rules.

    Args:
        peer: who sent the update; None in an admission, where it no longer matters.

    Raises:
        DeniedError, RoundStateError: the first step that fails.
    """
    if peer is not None and envelope.digest in state.admitted_updates and not may_bring(state, peer, update, now_us):
        raise DeniedError("replayed", "the update was admitted when its participant, or a relay, sent it")
    record = check_signer(state, envelope, update, now_us)
    if peer is not None:
        check_peer(state, peer, update, now_us)
    opened = check_round(state, record, update, now_us, margin_us=margin_us)
    check_cohort(opened, update)
    check_header_limits(opened.terms, record, update)
    check_quota(state.segment(update.segment), opened.terms.quota, update, now_us)
    return record, opened


def denial_in_log(
    state: FederationState,
    peer: SpiffeId,
    envelope: Envelope,
    update: UpdateStatement,
    now_us: int,
    *,
    margin_us: int = 0,
) -> tuple[str, tuple[str, ...]] | None:
    """The reason and rule ids that steps 3 to 9 give at this point of the log, or None where they pass."""
    try:
        record, opened = check_log_steps(state, peer, envelope, update, now_us, margin_us=margin_us)
        check_submit_policy(state.rules(now_us), opened.terms, record, update)
    except PolicyDenial as denial:
        return denial.reason, denial.rule_ids
    except DeniedError as denial:
        return denial.reason, ()
    return None
