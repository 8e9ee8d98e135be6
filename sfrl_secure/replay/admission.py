"""Admission, decided again: steps 3 to 9 from the log, 9 to 14 with the payload.

Each function gives the reason of the first step that fails, empty where none does.

Format: proto/README.md, "Admission".

Runs in: verifier.
Trusts: the replay's state. Nothing in an update.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from sfrl_secure.crypto.envelope import Envelope, verify_single
from sfrl_secure.errors import PayloadError, SignatureError
from sfrl_secure.ids import SpiffeId, sha256
from sfrl_secure.replay.decoder import decode_parts
from sfrl_secure.replay.documents import Participant
from sfrl_secure.replay.measuring import Meter
from sfrl_secure.replay.payload_codes import Integers
from sfrl_secure.replay.payload_header import VERSION, Expected, Mask
from sfrl_secure.replay.policy import RuleSet
from sfrl_secure.replay.quota import Usage
from sfrl_secure.replay.segments import Round
from sfrl_secure.replay.state import State
from sfrl_secure.replay.statements import Facts
from sfrl_secure.replay.terms import Terms
from sfrl_secure.replay.words import ByParticipant, Update

_PREFIXED = frozenset({"format", "shape", "declared", "length", "digest"})


@dataclass(frozen=True, slots=True)
class PayloadDecision:
    """What the rules and the payload say; `facts` as far as the steps came.

    Attributes:
        rule_ids: those that allow it, where `reason` is empty; those of the decision that denies, where it is the
            rules'; else none.
        leaf_ends: of each leaf of a payload that was decoded, the coordinate behind its last one.
    """

    reason: str
    facts: Facts | None = None
    rule_ids: tuple[str, ...] = ()
    leaf_ends: Integers | None = field(default=None, compare=False, repr=False)


def is_signed(state: State, envelope: Envelope, word: ByParticipant) -> bool:
    """Whether the key in force of the participant that a word names signed it, and nobody else."""
    participant = state.participant(word.participant)
    if participant is None or participant.key.key_id != word.key_id:
        return False
    try:
        verify_single(envelope, participant.key)
    except SignatureError:
        return False
    return True


def is_of(peer: SpiffeId, update: Update) -> bool:
    """Whether a peer is the participant that the update names."""
    return peer.role == "participant" and peer.name == update.participant


def may_bring(state: State, peer: SpiffeId, update: Update, now_us: int) -> bool:
    """Whether a peer is the participant that the update names, or a relay of its segment."""
    if is_of(peer, update):
        return True
    terms = state.terms(update.segment)
    record = state.participant(peer.name) if peer.role == "participant" else None
    if terms is None or record is None or not state.is_active(record.name, now_us):
        return False
    return not record.groups.isdisjoint(terms.relay_groups)


def log_reason(
    state: State, peer: SpiffeId | None, envelope: Envelope, update: Update, now_us: int, *, margin_us: int = 0
) -> str:
    """Steps 3 to 8, at the log's time.

    Args:
        peer: who sent the update; None for an admission, which says nothing of it.
        margin_us: how long before the deadline it had passed, where the door said so.
    """
    is_entitled = peer is None or may_bring(state, peer, update, now_us)
    if not is_entitled and envelope.digest in state.admitted:
        return "replayed"
    if not is_signed(state, envelope, update):
        return "bad_signature"
    if not state.is_active(update.participant, now_us):
        return "participant_inactive"
    if not is_entitled:
        return "wrong_peer"
    return _round_reason(state, update, now_us, margin_us)


def _round_reason(state: State, update: Update, now_us: int, margin_us: int) -> str:
    participant = state.participant(update.participant)
    assert participant is not None, "is_signed found the record"
    if update.federation_id != state.federation_id:
        return "wrong_federation"
    terms = state.terms(update.segment)
    if terms is None:
        return "unknown_segment"
    segment = state.segments[update.segment]
    opened = segment.open_round
    if opened is not None:
        terms = opened.terms  # frozen when the round opened
    if "submit" not in terms.operations or not participant.groups & terms.groups:
        return "not_granted"
    if segment.is_halted:
        return "halted"
    if opened is None or opened.is_ended or update.round != opened.number:
        return "round_not_open"
    if update.round_opened != opened.opened:
        return "wrong_prefix"
    if update.base_model != opened.base_model:
        return "wrong_base"
    if now_us >= opened.deadline_us - margin_us:
        return "deadline"
    if update.participant in opened.admissions:
        return "duplicate"
    if opened.is_full:
        return "round_full"
    usage = segment.usage.get(update.participant, Usage())
    return _limits_reason(terms, participant, update) or _quota_reason(terms, usage, update, now_us)


def _limits_reason(terms: Terms, participant: Participant, update: Update) -> str:
    floors = terms.leakage
    if participant.key.suite not in terms.suites:
        return "suite_not_allowed"
    if not _is_allowed_format(terms, update):
        return "format_not_allowed"
    if not 1 <= update.payload_bytes <= terms.payload_bytes_max:
        return "payload_too_large"
    if update.nonzeros > terms.nonzeros_max:
        return "too_dense"
    if update.nonzeros < floors.nonzeros_min:
        return "too_few_coordinates"
    if not floors.weight_min <= update.weight <= terms.weight_max:
        return "weight_limit"
    if update.noise_std < floors.noise_std_min:
        return "noise_too_small"
    return ""


def _is_allowed_format(terms: Terms, update: Update) -> bool:
    if update.codec != VERSION or update.support not in terms.support_modes or update.values not in terms.value_types:
        return False
    if update.support == "agreed":
        assert terms.mask is not None, "terms that allow agreed supports name a mask"
        return update.nonzeros == terms.mask.nonzeros
    return update.support != "dense" or update.nonzeros == terms.manifest.coordinates


def _quota_reason(terms: Terms, usage: Usage, update: Update, now_us: int) -> str:
    # At times before the window's length has passed since 1970 the window holds everything: no log time is 0.
    count, total = usage.since(max(0, now_us - terms.quota_us))
    if count + 1 > terms.quota_updates:
        return "quota_updates"
    if total + update.payload_bytes > terms.quota_bytes:
        return "quota_bytes"
    return ""


def passed(state: State, update: Update) -> tuple[Round, Participant]:
    """The open round and the record of an update that has passed steps 4 to 8."""
    opened, participant = state.segments[update.segment].open_round, state.participant(update.participant)
    assert opened is not None, "step 6 holds"
    assert participant is not None, "step 4 holds"
    return opened, participant


def submit_decision(rules: RuleSet | None, terms: Terms, participant: Participant, update: Update) -> PayloadDecision:
    """Step 9: the rules over the header."""
    if rules is None:
        return PayloadDecision("policy_denied")
    decision = rules.decide("submit", participant, terms, update, None)
    return PayloadDecision(decision.reason, rule_ids=decision.rule_ids)


def expected_payload(terms: Terms, update: Update, mask: Mask | None) -> Expected:
    """What an update's statement and its round's terms say of the payload."""
    return Expected(
        coordinates=terms.manifest.coordinates,
        nonzeros=update.nonzeros,
        support=update.support,
        value_type=update.values,
        grid_exponent=terms.grid_exponent,
        root=update.payload_root,
        mask=mask if update.support == "agreed" else None,
    )


def payload_decision(
    rules: RuleSet | None, opened: Round, participant: Participant, update: Update, payload: bytes
) -> PayloadDecision | None:
    """Steps 9 and 11 to 14; None where it takes the round's mask, which is not there.

    The caller has passed steps 4 to 8.
    """
    terms = opened.terms
    submit = submit_decision(rules, terms, participant, update)
    if submit.reason or rules is None:
        return submit
    if len(payload) != update.payload_bytes or sha256(payload) != update.payload_sha256:
        return PayloadDecision("digest_mismatch")
    if update.support == "agreed" and opened.mask_object is None:
        return None
    meter, ends = Meter(terms), []
    try:
        for part in decode_parts(payload, expected_payload(terms, update, opened.mask_object)):
            meter.add(part)
            ends.append(part.end)
    except PayloadError as error:
        return PayloadDecision(f"payload_{error.reason}" if error.reason in _PREFIXED else error.reason)
    decision = _measured_decision(rules, terms, participant, update, meter)
    if not decision.reason:
        decision = replace(decision, rule_ids=submit.rule_ids + decision.rule_ids)
    return replace(decision, leaf_ends=np.array(ends, np.int64))


def _measured_decision(
    rules: RuleSet, terms: Terms, participant: Participant, update: Update, meter: Meter
) -> PayloadDecision:
    """Steps 13 and 14, over what was measured."""
    facts = meter.facts()
    if facts.norm > terms.norm_max:
        return PayloadDecision("norm_limit", facts)
    if facts.largest_magnitude > terms.magnitude_max:
        return PayloadDecision("magnitude_limit", facts)
    if not terms.tensors.issuperset(facts.tensors):
        return PayloadDecision("tensor_not_allowed", facts)
    leak = meter.leak_reason(update.noise_std)
    if leak:
        return PayloadDecision(leak, facts)
    # Who is denied is told what denied: the rules of `submit` had let it through.
    admit = rules.decide("admit", participant, terms, update, facts)
    return PayloadDecision(admit.reason, facts, admit.rule_ids)
