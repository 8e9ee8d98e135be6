"""Proofs for participants: rounds and receipts.

Everything here leads to a checkpoint that the caller verifies for itself; nothing of it asks to be believed. The log is
asked for the entries and their paths, since we keep neither, and what it gives is held against the root that we have
followed it to.

Format: proto/README.md, "Receipts".

Runs in: gatekeeper.
Trusts: the view and the follower, which verified the log. Nothing that the log answers.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from threading import Lock
from typing import Protocol

import structlog

from sfrl_secure.errors import NotFoundError, RoundStateError, SfrlError, UnavailableError
from sfrl_secure.ids import Digest
from sfrl_secure.limits import PROVE_ENTRIES_MAX, ROOTS_MAX
from sfrl_secure.rounds.closing import counted_leaf, counted_of
from sfrl_secure.rounds.state import Admission, FederationState, RoundState
from sfrl_secure.services.view import FederationView
from sfrl_secure.translog.entries import LoggedEntry
from sfrl_secure.translog.merkle import leaf_hash
from sfrl_secure.translog.proofs import InclusionProof, verify_inclusion
from sfrl_secure.translog.tree import MerkleTree
from sfrl_secure.wire.audit_service import AppendedEntry
from sfrl_secure.wire.gatekeeper_service import RoundAnswer
from sfrl_secure.wire.receipts import CountedProof, Receipt, ReceiptKind

PROVED_MAX = 128
"""Entries that are kept with their paths: 8 MiB at most."""

_log = structlog.get_logger()

class CoveredLog(Protocol):
    """A checkpoint that the follower has verified."""

    @property
    def tree_size(self) -> int:
        """Leaves under the checkpoint; 0 before the first."""
        ...

    @property
    def root(self) -> Digest:
        """Their root."""
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


class EntrySource(Protocol):
    """Who gives entries with their paths: the audit log."""

    def prove(self, indices: Sequence[int], tree_size: int) -> tuple[LoggedEntry, ...]:
        """Give 1 to 64 entries, ascending, with their paths to the root at `tree_size`."""
        ...


class ProofBuilder:
    """Builds rounds' and receipts' proofs."""

    def __init__(self, view: FederationView, followed: FollowedLog, entries: EntrySource) -> None:
        self._view = view
        self._followed = followed
        self._entries = entries
        # By tree size and index; whoever asks for the same round shares them.
        self._proved: OrderedDict[tuple[int, int], LoggedEntry] = OrderedDict()
        self._lock = Lock()

    def acknowledged(self, index: int) -> AppendedEntry:
        """Receipt A of an entry that the view has read.

        Raises:
            UnavailableError: its checkpoint has not come yet, or the log does not give the entry.
        """
        signed = self._followed.signed
        if signed.tree_size <= index:
            raise UnavailableError("the entry's checkpoint has not arrived yet")
        return AppendedEntry(self._prove({index}, signed)[index], signed.note)

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
        proved = self._prove(
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
        proved = self._prove(wanted | services | set(roots), witnessed)
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

    def _prove(self, indices: AbstractSet[int], covered: CoveredLog) -> dict[int, LoggedEntry]:
        """Get entries with their paths to `covered`, which we have followed the log to.

        Raises:
            UnavailableError: the log gives no entries, or others than it has signed for.
        """
        size = covered.tree_size
        with self._lock:
            proved = {each: known for each in indices if (known := self._proved.get((size, each))) is not None}
        wanted = sorted(indices - proved.keys())
        if wanted:
            try:
                proved |= self._ask(wanted, covered)
            except SfrlError as error:
                # Whatever the log says, it is not the caller's doing, and it is no decision.
                _log.warning("proof_not_given", error=f"{type(error).__name__}: {error}", tree_size=size)
                raise UnavailableError("the log does not give what it has signed for: try again") from error
        with self._lock:
            for index, logged in proved.items():
                self._proved[size, index] = logged
                self._proved.move_to_end((size, index))
            while len(self._proved) > PROVED_MAX:
                self._proved.popitem(last=False)
        return proved

    def _ask(self, wanted: list[int], covered: CoveredLog) -> dict[int, LoggedEntry]:
        """Ask the log, in as few calls as it takes, and verify each answer under the root that it has signed."""
        found: list[LoggedEntry] = []
        for start in range(0, len(wanted), PROVE_ENTRIES_MAX):
            found += self._entries.prove(wanted[start : start + PROVE_ENTRIES_MAX], covered.tree_size)
        if [logged.index for logged in found] != wanted:
            raise UnavailableError("the log gives other entries than those asked for")
        for logged in found:
            verify_inclusion(logged.raw, InclusionProof(logged.index, covered.tree_size, logged.path), covered.root)
        return dict(zip(wanted, found, strict=True))


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
