"""Proofs for participants: rounds and receipts.

Everything here leads to a checkpoint that the caller verifies for itself; nothing of it asks to be believed.

Format: proto/README.md, "Receipts".

Runs in: gatekeeper.
Trusts: the view and the follower, which verified the log.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from sfrl_secure.errors import NotFoundError, RoundStateError, UnavailableError
from sfrl_secure.ids import Digest
from sfrl_secure.limits import ROOTS_MAX
from sfrl_secure.rounds.closing import counted_leaf, counted_of
from sfrl_secure.rounds.state import Admission, FederationState, RoundState
from sfrl_secure.services.gatekeeper.proved_entries import CoveredLog, EntrySource, ProvedEntries
from sfrl_secure.services.view import FederationView
from sfrl_secure.translog.entries import LoggedEntry
from sfrl_secure.translog.merkle import leaf_hash
from sfrl_secure.translog.tree import MerkleTree
from sfrl_secure.wire.audit_service import AppendedEntry
from sfrl_secure.wire.gatekeeper_service import RoundAnswer
from sfrl_secure.wire.receipts import CountedProof, Receipt, ReceiptKind


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


class ProofBuilder:
    """Builds rounds' and receipts' proofs."""

    def __init__(self, view: FederationView, followed: FollowedLog, entries: EntrySource) -> None:
        self._view = view
        self._followed = followed
        self._entries = ProvedEntries(entries)

    def acknowledged(self, index: int) -> AppendedEntry:
        """Receipt A of an entry that the view has read.

        Raises:
            UnavailableError: its checkpoint has not come yet, or the log does not give the entry.
        """
        signed = self._followed.signed
        if signed.tree_size <= index:
            raise UnavailableError("the entry's checkpoint has not arrived yet")
        return AppendedEntry(self._entries.prove({index}, signed)[index], signed.note)

    def open_round(self, segment_name: str, after_round: int, wait_seconds: float) -> RoundAnswer:
        """The segment's open round, once it is witnessed, with what proves it.

        Raises:
            DeniedError: `unknown_segment`.
            NotFoundError: no such round within `wait_seconds`.
            RoundStateError: `halted`, the segment is so when the wait ends.
            UnavailableError: the log does not give the entries.
        """

        def found(state: FederationState) -> bool:
            return _round_or_end(state, segment_name, after_round, self._view.witnessed_size) is not None

        self._view.wait_until(found, wait_seconds)
        # The follower has it before the view is told.
        witnessed = self._followed.witnessed
        with self._view.reading() as state:
            outcome = _round_or_end(state, segment_name, after_round, witnessed.tree_size)
            if outcome is None:
                if state.segment(segment_name).is_halted:
                    raise RoundStateError("halted", "operators have halted the segment: no round until they resume it")
                raise NotFoundError("no such round is open and witnessed yet")
            current, finished = outcome
            segment = state.segment(segment_name)
            model_index = segment.model_index
            # Whoever published the base may have lost its role since: each statement has its own document.
            services = {state.index_of_document(("services", ""))}
            published = [each for each in segment.rounds.values() if each.model_index == model_index >= 0]
            services |= {each.model_services_index for each in published}
            roots = _roots_under(state, witnessed)
        opened_index = current.opened_index
        proved = self._entries.prove(
            {0, current.terms_index, *roots}
            | services
            | (set() if finished else {opened_index})
            | ({model_index} if model_index >= 0 else set()),
            witnessed,
        )
        return RoundAnswer(
            checkpoint=witnessed.note,
            genesis=proved[0],
            services=tuple(proved[index] for index in sorted(services)),
            terms=proved[current.terms_index],
            round_opened=None if finished else proved[opened_index],
            base_model=proved[model_index] if model_index >= 0 else None,
            finished=finished,
            roots=tuple(proved[index] for index in roots),
        )

    def receipt(self, segment_name: str, statement_digest: Digest, kind: ReceiptKind) -> Receipt:
        """A receipt for an admitted update.

        Raises:
            DeniedError: `unknown_segment`.
            NotFoundError: the update is not admitted, or the log has not come that far.
            UnavailableError: the log does not give the entries.
        """
        witnessed = self._followed.witnessed
        with self._view.reading() as state:
            current, admission = self._admission(state, segment_name, statement_digest)
            closed = current.closed if kind is ReceiptKind.COUNTED else None
            counted = counted_of(current, closed) if closed is not None else ()
            # The first model: what a re-aggregation left out was counted there, and in no later one.
            last = current.first_model_index if kind is ReceiptKind.COUNTED else admission.index
            services = {admission.services_index}
            wanted = {0, admission.participant_index, admission.index}
            join_index = state.invited_by.get(admission.participant.digest)
            wanted |= set() if join_index is None else {join_index}
            if kind is ReceiptKind.COUNTED:
                services |= {current.closed_services_index, current.first_services_index}
                wanted |= {current.closed_index, current.first_model_index}
            roots = _roots_under(state, witnessed)
        is_counted = admission in counted
        if not 0 <= last < witnessed.tree_size or (kind is ReceiptKind.COUNTED and not is_counted):
            raise NotFoundError("there is no receipt of this kind for the update yet")
        proved = self._entries.prove(wanted | services | set(roots), witnessed)
        return Receipt(
            kind=kind,
            checkpoint=witnessed.note,
            genesis=proved[0],
            services=tuple(proved[index] for index in sorted(services)),
            participant=proved[admission.participant_index],
            admitted=proved[admission.index],
            counted=_counted(current, counted, admission, proved) if is_counted else None,
            roots=tuple(proved[index] for index in roots),
            join=None if join_index is None else proved[join_index],
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


def _roots_under(state: FederationState, covered: CoveredLog) -> tuple[int, ...]:
    """Where the roots after genesis stand that `covered` proves.

    Raises:
        UnavailableError: they are more than an answer holds, and a chain with a gap proves nothing.
    """
    roots = tuple(index for index in state.root_indices if index < covered.tree_size)
    if len(roots) > ROOTS_MAX:
        raise UnavailableError(f"the federation has replaced its root more than {ROOTS_MAX} times")
    return roots


def _round_or_end(
    state: FederationState, segment_name: str, after_round: int, witnessed_size: int
) -> tuple[RoundState, bool] | None:
    """The newest round, and whether the segment is over with it; None where neither is to be given out yet."""
    segment = state.segment(segment_name)
    current = segment.current
    services_index = state.index_of_document(("services", ""))
    if current is None or max(current.opened_index, services_index, segment.model_index) >= witnessed_size:
        return None
    if current.is_open and current.number > after_round:
        # Nobody trains for what would be refused.
        return None if segment.is_halted or current.ended_by_order else (current, False)
    is_settled = not current.is_open and not segment.awaits_model and not segment.due
    over = current.number >= segment.terms.round.rounds_max and is_settled
    return (current, True) if over and current.closed_index < witnessed_size else None


def _counted(
    current: RoundState, counted: tuple[Admission, ...], admission: Admission, proved: Mapping[int, LoggedEntry]
) -> CountedProof:
    tree = MerkleTree()
    for each in counted:
        tree.append(leaf_hash(counted_leaf(each)))
    place = counted.index(admission)
    return CountedProof(
        round_closed=proved[current.closed_index],
        index=place,
        path=tree.inclusion_proof(place, tree.size).path,
        model_published=proved[current.first_model_index],
    )
