"""Receipts in words: what one proves and what not, which keys and witnesses vouch for it, what its log says today.

Runs in: cli.
Trusts: what `receipt_files` and `receipt_on_log` have verified.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sfrl_secure.audit.fraud_check import rests_on_retired_keys
from sfrl_secure.audit.receipt_on_log import Comparison, Verdict
from sfrl_secure.cli.words import count, time_in_words
from sfrl_secure.governance.statements import UpdateStatement
from sfrl_secure.participant.receipt_files import ProvenLogging, generation_of
from sfrl_secure.participant.receipts import ProvenReceipt
from sfrl_secure.translog.opened import OpenedCheckpoint
from sfrl_secure.translog.policy import TrustPolicy
from sfrl_secure.wire.content import stream_of
from sfrl_secure.wire.receipts import ReceiptKind

_NOT_PROVEN = (
    "that the entries had effect under the federation's rules, and that the model is the right sum:"
    " `sfrl audit verify` proves both",
    "that the participant's data was honest",
)
_NOT_PROVEN_BY_ENTRY = (
    "who wrote the entry: the file holds no operators' documents; our own receipts do",
    "that the entry had effect: `sfrl audit verify` proves it",
)


def in_words(
    proven: ProvenReceipt | ProvenLogging, policy: TrustPolicy, compared: Comparison | None
) -> Iterator[str]:
    """A receipt in lines."""
    checkpoint = proven.checkpoint
    yield f"holds    receipt {proven.kind.name} of {checkpoint.checkpoint.origin}"
    if isinstance(proven, ProvenReceipt):
        yield from _receipt_in_words(proven)
        open_points = (*_open_of(proven, compared), *_NOT_PROVEN)
    else:
        yield from _logging_in_words(proven)
        open_points = _NOT_PROVEN_BY_ENTRY
    entries = count(checkpoint.checkpoint.size, "entry", "entries")
    yield f"  - the log signed a history of {entries} with it, {_keys(checkpoint, policy)}"
    if proven.kind is not ReceiptKind.ACKNOWLEDGED:
        yield f"  - the witness quorum cosigned that history: {_witnesses(checkpoint)}"
    if isinstance(proven, ProvenReceipt) and proven.model is not None:
        number = proven.update.round
        yield f"  - the aggregator closed round {number} with this update among the {proven.counted_count} counted"
        yield f"  - and published model {proven.model.hex()} for that closing"
        if proven.cluster is not None:
            alike = count(len(proven.cluster.members), "update")
            yield f"  - and for this update's cluster, of {alike}, model {proven.cluster.model.hex()}"
    if compared is not None:
        yield from _comparison_in_words(compared)
    yield "not proven"
    yield from (f"  - {each}" for each in open_points)


def _receipt_in_words(proven: ProvenReceipt) -> Iterator[str]:
    update = proven.update
    yield (
        f"update   {update.participant}, segment {update.segment}, round {update.round}, "
        f"{count(update.nonzeros, 'nonzero')}, weight {update.weight}"
    )
    yield "proven"
    yield f"  - {update.participant}, with the key that the operators recorded, signed this update"
    yield f"  - a gatekeeper of theirs admitted it: entry {proven.index}, {time_in_words(proven.log_time_us)}"


def _logging_in_words(proven: ProvenLogging) -> Iterator[str]:
    entry, admitted = proven.entry, proven.admitted
    if admitted is not None:
        update = admitted.update
        yield (
            f"says     update of {update.participant} admitted: segment {update.segment}, round {update.round}, "
            f"{count(update.nonzeros, 'nonzero')}, weight {update.weight}"
        )
    stream = stream_of(entry.envelope)
    where = "of no stream" if stream is None else f"at position {entry.stream_seq} of {stream}"
    yield "proven"
    yield f"  - this is entry {proven.logged.index} of the log, {where}, {time_in_words(entry.log_time_us)}"


def _keys(opened: OpenedCheckpoint, policy: TrustPolicy) -> str:
    generation = generation_of(opened, policy)
    if generation.count == 1:
        return "under both its keys"
    under = f"under both keys of generation {generation.number} of {generation.count}"
    if opened.is_current:
        return f"{under}, the newest"
    later = generation.count - generation.number
    unsigned = f"generation {generation.count}" if later == 1 else f"the {later} after it"
    return f"{under}; {unsigned} did not sign it"


def _witnesses(opened: OpenedCheckpoint) -> str:
    times = sorted(opened.witness_times.items())
    names = ", ".join(name for name, _ in times)
    if not times:
        return "the trust policy asks for none"
    return f"{names}, the last one at {time_in_words(max(seconds for _, seconds in times) * 1_000_000)}"


def _comparison_in_words(compared: Comparison) -> Iterator[str]:
    yield "the log today"
    if compared.log is not None:
        opened = compared.log
        quorum = f"cosigned by {_witnesses(opened)}" if opened.quorum_met else "NOT under the witness quorum"
        yield f"  {count(opened.checkpoint.size, 'entry', 'entries')}, {quorum}"
    yield f"  {compared.verdict.value}: {compared.sentence}"
    if compared.counting is not None and compared.verdict is Verdict.CONSISTENT:
        yield f"  {compared.counting.fate.value}: {compared.counting.sentence}"


def _open_of(proven: ProvenReceipt, compared: Comparison | None) -> tuple[str, ...]:
    """What a later receipt would prove, and what none does."""
    if proven.model is not None:
        return ("that no order has left the update out of the round's model since: `sfrl audit verify` says so",)
    if compared is not None and compared.counting is not None:
        return ()
    return ("that the update was counted: the COUNTED receipt proves it, once the round is over",)


def in_json(
    proven: ProvenReceipt | ProvenLogging, policy: TrustPolicy, compared: Comparison | None
) -> dict[str, Any]:
    """A receipt as one JSON object."""
    checkpoint = proven.checkpoint
    generation = generation_of(checkpoint, policy)
    if isinstance(proven, ProvenReceipt):
        update: UpdateStatement | None = proven.update
    else:
        update = None if proven.admitted is None else proven.admitted.update
    said: dict[str, Any] = {
        "holds": True,
        "kind": proven.kind.name,
        "origin": checkpoint.checkpoint.origin,
        "index": proven.logged.index,
        "log_size": checkpoint.checkpoint.size,
        "key_generation": generation.number,
        "key_generations": generation.count,
        "older_keys_alone": rests_on_retired_keys(checkpoint, policy),
        "witnesses": sorted(checkpoint.witness_times),
        "witness_times": dict(sorted(checkpoint.witness_times.items())),
    }
    if update is not None:
        said |= {
            "participant": update.participant,
            "segment": update.segment,
            "round": update.round,
            "weight": update.weight,
        }
    if isinstance(proven, ProvenReceipt):
        said |= {
            "statement_digest": proven.statement_digest.hex(),
            "log_time_us": proven.log_time_us,
            "model": None if proven.model is None else proven.model.hex(),
            "counted": None if proven.model is None else proven.counted_count,
            "cluster_updates": None if proven.cluster is None else len(proven.cluster.members),
            "cluster_model": None if proven.cluster is None else proven.cluster.model.hex(),
        }
    else:
        said |= {"log_time_us": proven.entry.log_time_us}
        if proven.admitted is not None:
            said["statement_digest"] = proven.admitted.envelope.digest.hex()
    if compared is not None:
        said["log"] = {
            "verdict": compared.verdict.value,
            "sentence": compared.sentence,
            "size": None if compared.log is None else compared.log.checkpoint.size,
            "quorum_met": compared.log is not None and compared.log.quorum_met,
            "update": None if compared.counting is None else compared.counting.fate.value,
            "shown_by_evidence": compared.proof is not None,
        }
    return said
