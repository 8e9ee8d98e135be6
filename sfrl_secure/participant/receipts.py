"""Receipts, verified: from the file and the trust policy alone, offline and years later.

ACKNOWLEDGED: the log signed that the update was admitted. WITNESSED: and the witness quorum saw it. COUNTED: and a
model was published that names a closing that names the update; the round's first model, since one that takes another's
place may leave the update out. None of them says that the entries had effect: that is the verifier's.

Format: proto/README.md, "Receipts".

Runs in: participant, cli.
Trusts: the trust policy. Nothing in the receipt.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sfrl_secure.crypto.envelope import verify_single
from sfrl_secure.errors import MalformedError, VerificationError
from sfrl_secure.governance.documents import ParticipantRecord, RootDocument
from sfrl_secure.governance.statements import (
    CloseOutcome,
    Cluster,
    ModelPublished,
    RoundClosed,
    UpdateAdmitted,
    UpdateStatement,
)
from sfrl_secure.ids import Digest
from sfrl_secure.participant.authority import Authority, ProvenStatement
from sfrl_secure.translog.entries import LoggedEntry
from sfrl_secure.translog.merkle import leaf_hash
from sfrl_secure.translog.opened import OpenedCheckpoint
from sfrl_secure.translog.policy import TrustPolicy
from sfrl_secure.translog.proofs import InclusionProof, verify_inclusion_of_hash
from sfrl_secure.wire.content import parse_content
from sfrl_secure.wire.entries import parse_entry
from sfrl_secure.wire.receipts import CountedProof, Receipt, ReceiptKind, parse_receipt


@dataclass(frozen=True, slots=True)
class ProvenReceipt:
    """What a receipt proves.

    Attributes:
        checkpoint: the one that all proofs lead to.
        logged: the admission, as it is in the log.
        statement_digest: of the update.
        index: leaf index of its admission; `log_time_us` the log's time there.
        tree_size: size of the log that the proofs lead to.
        witnesses: who cosigned, by the trust policy's names, sorted.
        roots: every root of the federation that it shows, from version 1 on.
        model: for COUNTED, the model that the update was counted in. Operators may have left it out since.
        counted_count: for COUNTED, how many updates were.
        cluster: for COUNTED, the group of updates that are alike which the update was in, and their model; None where
            it was in none, as under every rule but the clustered mean.
    """

    kind: ReceiptKind
    checkpoint: OpenedCheckpoint
    logged: LoggedEntry
    origin: str
    update: UpdateStatement
    statement_digest: Digest
    index: int
    log_time_us: int
    tree_size: int
    witnesses: tuple[str, ...]
    roots: tuple[RootDocument, ...]
    model: Digest | None = None
    counted_count: int = 0
    cluster: Cluster | None = None


def open_receipt(raw: bytes, policy: TrustPolicy, *, archived: bool = False) -> ProvenReceipt:
    """Verify a receipt.

    Args:
        archived: whether it may have been kept since before the log's keys were replaced. One that rests on retired
            keys alone, without witnesses, opens then, too: who asks looks at `checkpoint`.

    Raises:
        MalformedError: it is not a receipt.
        VerificationError: it does not prove what it says.
    """
    receipt = parse_receipt(raw)
    quorum = receipt.kind is not ReceiptKind.ACKNOWLEDGED
    authority = Authority(
        receipt.checkpoint,
        policy,
        receipt.genesis,
        receipt.services,
        roots=receipt.roots,
        quorum=quorum,
        archived=archived,
    )
    admitted, body = _open_admission(receipt, authority)
    update = body.update
    checkpoint = authority.opened.checkpoint
    proven = ProvenReceipt(
        kind=receipt.kind,
        checkpoint=authority.opened,
        logged=receipt.admitted,
        origin=checkpoint.origin,
        update=update,
        statement_digest=body.envelope.digest,
        index=admitted.index,
        log_time_us=admitted.entry.log_time_us,
        tree_size=checkpoint.size,
        witnesses=tuple(sorted(authority.opened.witness_times)),
        roots=authority.roots,
    )
    if receipt.counted is None:
        return proven
    model, closed = _open_counted(receipt.counted, authority, admitted, body)
    # The path shows that the update stands at this place of the counted list, and a place is in one cluster at most.
    cluster = next((each for each in model.clusters if receipt.counted.index in each.members), None)
    return replace(proven, model=model.model, counted_count=closed.counted_count, cluster=cluster)


def _open_admission(receipt: Receipt, authority: Authority) -> tuple[ProvenStatement, UpdateAdmitted]:
    record = authority.document(receipt.participant, ParticipantRecord, join=receipt.join)
    # The stream is the update's own segment's: the admission says which, and its signature covers both.
    segment = _segment_of(receipt)
    admitted, body = authority.statement(receipt.admitted, UpdateAdmitted, "gatekeeper", f"segment/{segment}")
    update = body.update
    if receipt.participant.index >= receipt.admitted.index:
        raise VerificationError("the participant's record came after the admission")
    if update.federation_id != authority.federation_id:
        raise VerificationError("the update belongs to another federation")
    if record.name != update.participant or record.key.key_id != update.key_id:
        raise VerificationError("the participant's record names another key than the update")
    # A revocation takes fewer operators than an enrolment: what it says of keys lets nobody take part.
    if record.state != "active" or admitted.entry.log_time_us >= record.expires_us:
        raise VerificationError("the participant's record does not say that it was active at the admission")
    verify_single(body.envelope, record.key)
    return admitted, body


def _segment_of(receipt: Receipt) -> str:
    content = parse_content(parse_entry(receipt.admitted.raw).envelope)
    body = getattr(content, "body", None)
    if not isinstance(body, UpdateAdmitted):
        raise MalformedError("the receipt's admission is not an update_admitted entry")
    return body.update.segment


def _open_counted(
    counted: CountedProof, authority: Authority, admitted: ProvenStatement, body: UpdateAdmitted
) -> tuple[ModelPublished, RoundClosed]:
    update = body.update
    stream = f"segment/{update.segment}"
    closing, closed = authority.statement(counted.round_closed, RoundClosed, "aggregator", stream)
    publishing, model = authority.statement(counted.model_published, ModelPublished, "aggregator", stream)
    if not admitted.index < closing.index < publishing.index:
        raise VerificationError("admission, closing and model are not in this order in the log")
    if closed.round != update.round or closed.outcome is not CloseOutcome.CLOSED:
        raise VerificationError("the closing is not that of the update's round, or the round was aborted")
    if model.round_closed != closing.entry_hash or model.round != closed.round:
        raise VerificationError("the model does not name this closing")
    if model.supersedes is not None:
        raise VerificationError("the model takes another one's place, and need not count what the closing does")
    if update.weight >= 2**32:
        raise VerificationError("no update that is counted has such a weight")
    leaf = leaf_hash(
        update.participant.encode("ascii") + b"\0" + body.envelope.digest + update.weight.to_bytes(4, "big")
    )
    try:
        proof = InclusionProof(counted.index, closed.counted_count, counted.path)
    except MalformedError as error:
        raise VerificationError(str(error)) from None
    verify_inclusion_of_hash(leaf, proof, closed.counted_root)
    return model, closed
