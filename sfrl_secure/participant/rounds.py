"""Rounds, opened: what a participant may train on.

A round is believed only when its opening, its terms and its base model are proven under the witness quorum, with a
fresh cosignature, and no root older than one that was shown before. There is no switch to skip it: a model made for one
rover would read that rover's data.

Format: proto/README.md, "Receipts" for the proofs; PROTOCOL 6.

Runs in: participant.
Trusts: the trust policy, and the participant's own clock for freshness.
"""

from __future__ import annotations

from dataclasses import dataclass

from sfrl_secure.errors import VerificationError
from sfrl_secure.governance.statements import ModelPublished, RoundOpened
from sfrl_secure.governance.terms import SegmentTerms
from sfrl_secure.ids import Digest
from sfrl_secure.participant.authority import Authority
from sfrl_secure.participant.known_roots import KnownRoots
from sfrl_secure.translog.policy import TrustPolicy
from sfrl_secure.wire.gatekeeper_service import RoundAnswer

FRESH_SECONDS = 600
"""Oldest witness cosignature that a participant acts on."""


@dataclass(frozen=True, slots=True)
class OpenRound:
    """A round that may be trained for.

    Attributes:
        opened: entry hash of round_opened, which an update signs.
        deadline_us: log time; updates are taken until 2 s before.
        mask: the coordinates of its agreed updates; None where its terms have no mask.
    """

    federation_id: Digest
    segment: str
    number: int
    opened: Digest
    base_model: Digest
    terms: SegmentTerms
    deadline_us: int
    mask: Digest | None = None


@dataclass(frozen=True, slots=True)
class FinishedSegment:
    """No further round opens under the terms in force; `model` is the newest."""

    segment: str
    model: Digest
    terms: SegmentTerms


def open_round(
    answer: RoundAnswer, segment: str, policy: TrustPolicy, now_us: int, known: KnownRoots | None = None
) -> OpenRound | FinishedSegment:
    """Verify a gatekeeper's answer about a segment's open round.

    Args:
        known: the roots that were shown before; those of a good answer are kept there.

    Raises:
        VerificationError: a proof does not hold, no cosignature of the quorum is fresh, or the roots are older than, or
            others than, those that were shown before.
        MalformedError: something does not parse.
    """
    authority = Authority(
        answer.checkpoint, policy, answer.genesis, answer.services, roots=answer.roots, quorum=True
    )
    check_fresh(authority, now_us)
    if known is not None:
        known.check(authority.roots)
    opened = _open(answer, segment, authority)
    if known is not None:
        known.keep(authority.roots)
    return opened


def _open(answer: RoundAnswer, segment: str, authority: Authority) -> OpenRound | FinishedSegment:
    stream = f"segment/{segment}"
    terms = authority.document(answer.terms, SegmentTerms)
    if terms.segment != segment:
        raise VerificationError("the terms are another segment's")
    model, next_mask = terms.model.initial, None
    if answer.base_model is not None:
        published = authority.statement(answer.base_model, ModelPublished, "aggregator", stream)[1]
        model, next_mask = published.model, published.next_mask
    if answer.finished or answer.round_opened is None:
        return FinishedSegment(segment, model, terms)
    proven, body = authority.statement(answer.round_opened, RoundOpened, "aggregator", stream, in_force_now=True)
    if body.terms_digest != terms.digest:
        raise VerificationError("the round was opened under other terms")
    if body.base_model != model:
        raise VerificationError("the round's base is not the model that was published")
    if body.mask not in _masks(terms, next_mask):
        raise VerificationError("the round's mask is neither that of its terms nor the one that was published")
    return OpenRound(
        federation_id=authority.federation_id,
        segment=segment,
        number=body.round,
        opened=proven.entry_hash,
        base_model=body.base_model,
        terms=terms,
        deadline_us=proven.entry.log_time_us + terms.round.duration_us,
        mask=body.mask,
    )


def _masks(terms: SegmentTerms, published: Digest | None) -> tuple[Digest | None, ...]:
    """What a round can begin with. Which of two it is depends on the terms of an earlier round: auditors see to it."""
    if terms.mask is None:
        return (None,)
    goes_on = terms.mask.next is not None and published is not None
    return (terms.mask.digest, published) if goes_on else (terms.mask.digest,)


def check_fresh(authority: Authority, now_us: int) -> None:
    """Check that the quorum is met by cosignatures of the last `FRESH_SECONDS`.

    Raises:
        VerificationError: it is not: the log may be held back from us.
    """
    times = authority.opened.witness_times
    fresh = {name for name, seconds in times.items() if abs(now_us // 1_000_000 - seconds) <= FRESH_SECONDS}
    if not authority.policy.is_quorum(fresh):
        raise VerificationError(f"the witness quorum is older than {FRESH_SECONDS} seconds")
