"""Proofs for participants: rounds and receipts, built from the followed log.

Everything here leads to a checkpoint that the caller verifies for itself; nothing of it asks to be believed.

Format: proto/README.md, "Receipts".

Runs in: gatekeeper.
Trusts: the view and the follower, which verified the log.
"""

from __future__ import annotations

from typing import Protocol

from sfrl_secure.errors import NotFoundError, UnavailableError
from sfrl_secure.ids import Digest
from sfrl_secure.rounds.closing import counted_leaf, counted_of
from sfrl_secure.rounds.state import Admission, FederationState, RoundState
from sfrl_secure.services.view import FederationView
from sfrl_secure.translog.entries import LoggedEntry
from sfrl_secure.translog.merkle import leaf_hash
from sfrl_secure.translog.tree import MerkleTree
from sfrl_secure.wire.audit_service import AppendedEntry
from sfrl_secure.wire.gatekeeper_service import RoundAnswer
from sfrl_secure.wire.receipts import CountedProof, Receipt, ReceiptKind


class CoveredLog(Protocol):
    """A checkpoint and the size of its tree."""

    @property
    def tree_size(self) -> int:
        """Leaves under the checkpoint; 0 before the first."""
        ...

    @property
    def note(self) -> bytes:
        """The signed note."""
        ...


class FollowedLog(Protocol):
    """The log as the follower has it."""

    @property
    def signed(self) -> CoveredLog:
        """Newest checkpoint under the log's keys."""
        ...

    @property
    def witnessed(self) -> CoveredLog:
        """Newest checkpoint under the quorum."""
        ...

    def logged_entry(self, index: int, tree_size: int) -> LoggedEntry:
        """An entry with its path to the root at `tree_size`."""
        ...


class ProofBuilder:
    """Builds rounds' and receipts' proofs."""

    def __init__(self, view: FederationView, log: FollowedLog) -> None:
        self._view = view
        self._log = log

    def acknowledged(self, index: int) -> AppendedEntry:
        """Receipt A of an entry that the view has read."""
        signed = self._log.signed
        if signed.tree_size <= index:
            raise UnavailableError("the entry's checkpoint has not arrived yet")
        return AppendedEntry(self._log.logged_entry(index, signed.tree_size), signed.note)

    def open_round(self, segment_name: str, after_round: int, wait_seconds: float) -> RoundAnswer:
        """The segment's open round, once it is witnessed, with what proves it.

        Raises:
            DeniedError: `unknown_segment`.
            NotFoundError: no such round within `wait_seconds`.
        """

        def found(state: FederationState) -> bool:
            return self._round_or_end(state, segment_name, after_round) is not None

        self._view.wait_until(found, wait_seconds)
        with self._view.reading() as state:
            outcome = self._round_or_end(state, segment_name, after_round)
            if outcome is None:
                raise NotFoundError("no such round is open and witnessed yet")
            current, finished = outcome
            segment = state.segment(segment_name)
            model_index = segment.model_index
            # Whoever published the base may have lost its role since: each statement has its own document.
            services = {state.index_of_document(("services", ""))}
            published = [each for each in segment.rounds.values() if each.model_index == model_index >= 0]
            services |= {each.model_services_index for each in published}
        witnessed = self._log.witnessed
        size, note = witnessed.tree_size, witnessed.note
        return RoundAnswer(
            checkpoint=note,
            genesis=self._log.logged_entry(0, size),
            services=tuple(self._log.logged_entry(index, size) for index in sorted(services)),
            terms=self._log.logged_entry(current.terms_index, size),
            round_opened=None if finished else self._log.logged_entry(current.opened_index, size),
            base_model=self._log.logged_entry(model_index, size) if model_index >= 0 else None,
            finished=finished,
        )

    def _round_or_end(
        self, state: FederationState, segment_name: str, after_round: int
    ) -> tuple[RoundState, bool] | None:
        segment = state.segment(segment_name)
        current = segment.current
        witnessed = self._view.witnessed_size
        services_index = state.index_of_document(("services", ""))
        if current is None or max(current.opened_index, services_index, segment.model_index) >= witnessed:
            return None
        if current.is_open and current.number > after_round:
            return current, False
        over = current.number >= segment.terms.round.rounds_max and not current.is_open and not segment.awaits_model
        return (current, True) if over and current.closed_index < witnessed else None

    def receipt(self, segment_name: str, statement_digest: Digest, kind: ReceiptKind) -> Receipt:
        """A receipt for an admitted update.

        Raises:
            DeniedError: `unknown_segment`.
            NotFoundError: the update is not admitted, or the log has not come that far.
        """
        witnessed = self._log.witnessed
        size, note = witnessed.tree_size, witnessed.note
        with self._view.reading() as state:
            current, admission = self._admission(state, segment_name, statement_digest)
            closed = current.closed if kind is ReceiptKind.COUNTED else None
            counted = counted_of(current, closed) if closed is not None else ()
            last = current.model_index if kind is ReceiptKind.COUNTED else admission.index
            services = {admission.services_index}
            if kind is ReceiptKind.COUNTED:
                services |= {current.closed_services_index, current.model_services_index}
        if not 0 <= last < size or (kind is ReceiptKind.COUNTED and admission not in counted):
            raise NotFoundError("there is no receipt of this kind for the update yet")
        return Receipt(
            kind=kind,
            checkpoint=note,
            genesis=self._log.logged_entry(0, size),
            services=tuple(self._log.logged_entry(index, size) for index in sorted(services)),
            participant=self._log.logged_entry(admission.participant_index, size),
            admitted=self._log.logged_entry(admission.index, size),
            counted=self._counted(current, counted, admission, size) if kind is ReceiptKind.COUNTED else None,
        )

    def owner_of(self, segment_name: str, statement_digest: Digest) -> str:
        """Name of the participant whose admitted update this is.

        Raises:
            NotFoundError: no such admission.
        """
        with self._view.reading() as state:
            return self._admission(state, segment_name, statement_digest)[1].update.participant

    @staticmethod
    def _admission(
        state: FederationState, segment_name: str, statement_digest: Digest
    ) -> tuple[RoundState, Admission]:
        admission = state.admitted_updates.get(statement_digest)
        if admission is None or admission.update.segment != segment_name:
            raise NotFoundError("no update of this segment has this statement digest")
        return state.segment(segment_name).rounds[admission.update.round], admission

    def _counted(
        self, current: RoundState, counted: tuple[Admission, ...], admission: Admission, size: int
    ) -> CountedProof:
        tree = MerkleTree()
        for each in counted:
            tree.append(leaf_hash(counted_leaf(each)))
        place = counted.index(admission)
        return CountedProof(
            round_closed=self._log.logged_entry(current.closed_index, size),
            index=place,
            path=tree.inclusion_proof(place, tree.size).path,
            model_published=self._log.logged_entry(current.model_index, size),
        )
