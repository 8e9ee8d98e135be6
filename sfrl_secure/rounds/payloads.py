"""Admission, the part that needs the payload: steps 9 and 11 to 14, while it comes.

The gatekeeper decides with it before it admits, the aggregator again before it counts: an admission that fails here is
defective and is dropped, whoever signed it. A payload is never held as a whole: its bytes are hashed, its leaves are
checked against the root that was signed, decoded and measured one after the other, and handed on.

Format: proto/README.md, "Admission", "Upload".

Runs in: gatekeeper, aggregator.
Trusts: the state of the fold. Nothing in the payload.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import cast

from sfrl_secure.errors import DeniedError, DigestError, MissingEvidenceError, PayloadError
from sfrl_secure.governance.documents import ParticipantRecord, RulesDocument
from sfrl_secure.governance.policy import MeasuredPolicyFacts
from sfrl_secure.governance.statements import MeasuredFacts, UpdateStatement
from sfrl_secure.governance.terms import SegmentTerms
from sfrl_secure.ids import Digest
from sfrl_secure.rounds.admission import (
    PolicyDenial,
    check_decision,
    check_submit_policy,
    header_facts,
    policy_of,
    subject_of,
)
from sfrl_secure.rounds.measuring import UpdateMeter
from sfrl_secure.rounds.state import Admission
from sfrl_secure.sparse.expected import ExpectedPayload
from sfrl_secure.sparse.header import SupportMode, ValueType
from sfrl_secure.sparse.mask import Mask
from sfrl_secure.sparse.reader import PayloadReader
from sfrl_secure.sparse.update import UpdatePart

_PREFIXED = frozenset({"format", "shape", "declared", "length"})

OnPart = Callable[[UpdatePart], None]


@dataclass(frozen=True, slots=True)
class MeasuredUpdate:
    """What was measured in an update, and the rules that allowed it."""

    facts: MeasuredFacts
    rule_ids: tuple[str, ...]


class MeasuredDenial(DeniedError):
    """A denial that came after measuring. Carries the facts, and the ids of the rules that forbid the update."""

    def __init__(self, denial: DeniedError, facts: MeasuredFacts) -> None:
        super().__init__(denial.reason, str(denial))
        self.facts = facts
        self.rule_ids = denial.rule_ids if isinstance(denial, PolicyDenial) else ()


class PayloadJudge:
    """Decides one update while its payload comes.

    `feed` takes the payload in pieces of any size. `hash` and `read` are its two halves: they share nothing, so that
    each may run in a thread of its own, if each is given every piece in order; `finish` comes after both.
    """

    def __init__(
        self,
        terms: SegmentTerms,
        rules: RulesDocument | None,
        record: ParticipantRecord,
        statement: UpdateStatement,
        mask: Mask | None = None,
        *,
        mask_digest: Digest | None = None,
        on_part: OnPart | None = None,
    ) -> None:
        """Take step 9 at once. Steps 3 to 8 passed.

        Args:
            mask: the round's mask; needed where the statement's support is agreed.
            mask_digest: the mask that the round began with (`RoundState.mask`).
            on_part: is given each part that was read, within `read`, before it is known whether the update is admitted.

        Raises:
            DeniedError: `policy_denied`, `policy_error`.
            MissingEvidenceError: the support is agreed, and there is no mask, or another one than the round's.
        """
        self._submit_ids = check_submit_policy(rules, terms, record, statement)
        assert rules is not None, "check_submit_policy denies without rules"
        self._terms, self._rules, self._record, self._statement = terms, rules, record, statement
        expected = expected_of(terms, statement, mask)
        if expected.mask is not None and expected.mask.digest != mask_digest:
            raise MissingEvidenceError("this is not the mask that the round began with")
        self._reader = PayloadReader(expected)
        self._meter = UpdateMeter(terms)
        self._on_part = on_part
        self._broken: PayloadError | None = None
        self._sha256 = hashlib.sha256()
        self._bytes = 0

    def feed(self, data: bytes | memoryview) -> None:
        """Take the next piece of the payload.

        Raises:
            DeniedError: `digest_mismatch`: as `hash` and `read`.
        """
        self.hash(data)
        self.read(data)

    def hash(self, data: bytes | memoryview) -> None:
        """Hash the next piece of the payload.

        Raises:
            DeniedError: `digest_mismatch`: there is more than was signed.
        """
        self._bytes += len(data)
        self._sha256.update(data)
        if self._bytes > self._statement.payload_bytes:
            raise _mismatch()

    def read(self, data: bytes | memoryview) -> None:
        """Read, check and measure what the next piece of the payload completes.

        What is not canonical is kept for `finish`: the refusal is shown with the whole payload.

        Raises:
            DeniedError: `digest_mismatch`: a part does not lead to the root that was signed.
        """
        if self._broken is not None:
            return
        try:
            for part in self._reader.feed(data):
                self._meter.add(part)
                if self._on_part is not None:
                    self._on_part(part)
        except PayloadError as error:
            self._break(error)

    def finish(self) -> MeasuredUpdate:
        """Decide the update: everything has come.

        Raises:
            DeniedError: the first of steps 11 to 14 that fails; `MeasuredDenial` once there were facts.
        """
        statement = self._statement
        if self._bytes != statement.payload_bytes or self._sha256.digest() != statement.payload_sha256:
            raise _mismatch()
        if self._broken is None:
            try:
                self._reader.finish()
            except PayloadError as error:
                self._break(error)
        if self._broken is not None:
            raise _denied(self._broken)
        facts = self._meter.facts()
        try:
            check_measured(self._terms, facts)
            self._meter.check_leakage(statement.noise_std)
            admit_ids = self._check_admit_policy(facts)
        except DeniedError as denial:
            raise MeasuredDenial(denial, facts) from None
        return MeasuredUpdate(facts, self._submit_ids + admit_ids)

    def check_signed(self, rest: Iterable[bytes]) -> None:
        """After a denial: check that what was judged, with the rest of it, has the digest that was signed.

        Whoever reads from a store that others write into must not take their bytes for the participant's.

        Raises:
            DigestError: it has another digest, and says nothing about what was signed.
        """
        for data in rest:
            self._sha256.update(data)
        if self._sha256.digest() != self._statement.payload_sha256:
            raise DigestError("an object's bytes are not what its name says")

    def _break(self, error: PayloadError) -> None:
        """Read no more; refuse at once what does not lead to the signed root, the rest could not be what was signed."""
        self._broken = error
        if error.reason == "digest":
            raise _mismatch() from None

    def _check_admit_policy(self, facts: MeasuredFacts) -> tuple[str, ...]:
        terms, record = self._terms, self._record
        names = tuple(terms.model.manifest.tensors[tensor].name for tensor in facts.tensors)
        decision = policy_of(self._rules).decide_admit(
            subject_of(record),
            (terms.segment, terms.sensitivity),
            header_facts(terms, record, self._statement),
            MeasuredPolicyFacts(norm=facts.norm, largest_magnitude=facts.largest_magnitude, tensors=names),
        )
        return check_decision(decision)


def _mismatch() -> DeniedError:
    return DeniedError("digest_mismatch", "the payload is not the one that the header names")


def _denied(error: PayloadError) -> DeniedError:
    if error.reason == "digest":
        return _mismatch()
    return DeniedError(f"payload_{error.reason}" if error.reason in _PREFIXED else error.reason, str(error))


def expected_of(terms: SegmentTerms, statement: UpdateStatement, mask: Mask | None) -> ExpectedPayload:
    """What the terms and the signed statement say about a payload. The statement's format is one of the terms'.

    Args:
        mask: the round's mask, or None; looked at where the statement's support is agreed.

    Raises:
        MissingEvidenceError: the support is agreed, and there is no mask.
    """
    is_agreed = statement.format.support == "agreed"
    if is_agreed and mask is None:
        raise MissingEvidenceError("the round's mask is not here")
    # What the terms allow is what there is: parse_terms took both from the same tables.
    return ExpectedPayload(
        coordinates=terms.model.manifest.coordinates,
        nonzeros=statement.nonzeros,
        support=cast(SupportMode, statement.format.support),
        value_type=cast(ValueType, statement.format.values),
        grid_exponent=terms.model.grid_exponent,
        payload_bytes=statement.payload_bytes,
        root=statement.payload_root,
        mask=mask if is_agreed else None,
    )


def check_measured(terms: SegmentTerms, facts: MeasuredFacts) -> None:
    """Step 13, its beginning: norm, largest magnitude and tensors are within the terms.

    Raises:
        DeniedError: `norm_limit`, `magnitude_limit`, `tensor_not_allowed`.
    """
    limits = terms.limits
    if facts.norm > limits.norm_max:
        raise DeniedError("norm_limit", f"an update's norm is at most {limits.norm_max} grid units")
    if facts.largest_magnitude > limits.magnitude_max:
        raise DeniedError("magnitude_limit", f"a value is at most {limits.magnitude_max} grid units")
    if not terms.allowed_tensor_indices.issuperset(facts.tensors):
        raise DeniedError("tensor_not_allowed", "the update touches a tensor that the terms do not allow")


def check_payload(
    terms: SegmentTerms,
    rules: RulesDocument | None,
    record: ParticipantRecord,
    statement: UpdateStatement,
    payload: bytes,
    mask: Mask | None = None,
    *,
    mask_digest: Digest | None = None,
) -> MeasuredUpdate:
    """Steps 9 and 11 to 14 for a payload that is here as a whole.

    Raises:
        DeniedError, MissingEvidenceError: as `PayloadJudge`.
    """
    judge = PayloadJudge(terms, rules, record, statement, mask, mask_digest=mask_digest)
    judge.feed(payload)
    return judge.finish()


def check_admission(
    admission: Admission,
    terms: SegmentTerms,
    payload: Iterable[bytes],
    mask: Mask | None = None,
    *,
    mask_digest: Digest | None = None,
    on_part: OnPart | None = None,
) -> None:
    """Decide an admission again from its payload, which comes in pieces of any size.

    Args:
        mask, mask_digest: as for `PayloadJudge`.
        on_part: is given each part before it is known whether the admission holds: whoever adds parts up must be able
            to take them back.

    Raises:
        DeniedError: it is defective: it should have been refused, or its entry states other facts or rules. All pieces
            were read, and they are what was signed; or else the rules deny it, whatever the payload.
        DigestError: the pieces are not what was signed: nothing is decided.
        MissingEvidenceError: the mask is not here.
    """
    judge = PayloadJudge(
        terms, admission.rules, admission.participant, admission.update, mask,
        mask_digest=mask_digest, on_part=on_part,
    )  # fmt: skip
    pieces = iter(payload)
    try:
        for piece in pieces:
            judge.feed(piece)
        again = judge.finish()
    except DeniedError:
        judge.check_signed(pieces)
        raise
    if again.facts != admission.facts or again.rule_ids != admission.rule_ids:
        raise DeniedError("facts", "the admission states other facts or rules than its payload gives")
