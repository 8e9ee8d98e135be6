"""Who may publish a document, and what it may replace: TUF's rules, with the log's order for snapshot and timestamp.

Thresholds count operators, each with one key. A version follows the one in force, names its digest and has not
expired. A new root is signed for the root before and for itself. A participant's record may instead carry the one
signature of a join key. A key id never serves two names.

Format: proto/README.md, "When a document has effect".

Runs in: gatekeeper, aggregator, audit_log, participant.
Trusts: the root in force; the first is the one that the federation id names.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from sfrl_secure.crypto.envelope import Envelope, verify_single, verify_threshold
from sfrl_secure.crypto.keys import PublicKey
from sfrl_secure.crypto.possession import verify_possession
from sfrl_secure.errors import DeniedError, MalformedError, SignatureError, VerificationError
from sfrl_secure.governance.documents import (
    Document,
    GenesisDocument,
    JoinDocument,
    KeyRevocation,
    Order,
    ParticipantRecord,
    RootDocument,
    RulesDocument,
    SegmentTerms,
    ServicesDocument,
)
from sfrl_secure.governance.orders import OrderAction
from sfrl_secure.governance.origin import origin_of
from sfrl_secure.governance.policy import check_rules
from sfrl_secure.ids import ZERO_DIGEST, Digest

Owner = tuple[str, str]
"""Role and name that a key serves."""

_MEMBERS = frozenset({"participant", "auditor"})


def threshold_of(document: Document, root: RootDocument) -> int:
    """How many of root's operators must sign this document; a root has its own threshold to meet besides."""
    match document:
        case RootDocument() | GenesisDocument():
            return root.thresholds.root
        case KeyRevocation():
            # Whoever revokes for operators and services could end the federation.
            of_a_member = document.spiffe_id.role in _MEMBERS
            return root.thresholds.revocation if of_a_member else root.thresholds.governance
        case ParticipantRecord(state="revoked") | Order(action=OrderAction.HALT):
            return root.thresholds.revocation
        case ParticipantRecord() | JoinDocument():
            return root.thresholds.enrolment
        case ServicesDocument() | RulesDocument() | SegmentTerms() | Order():
            return root.thresholds.governance


def is_by_join_key(envelope: Envelope, join: JoinDocument | None) -> bool:
    """Whether the envelope claims exactly one signature, and that of the join key."""
    if join is None or len(envelope.signatures) != 1:
        return False
    return envelope.signatures[0].key_id == join.join_key.key_id


def check_document_authority(
    document: Document, envelope: Envelope, root: RootDocument, *, join: JoinDocument | None = None
) -> tuple[str, ...]:
    """Check that those signed exactly this document who may; then what is dearer to check than that.

    The caller has checked that root has not expired (a root alone may follow one that has), that the document's
    federation id is ours, and, of a record by a join key, that the join has not expired and is not spent.

    Args:
        root: the root in force before the document.
        join: the join in force of the participant whose record `document` is, where there is one.

    Returns: names of the operators who signed, sorted; of a root, those of either. None for a join key.

    Raises:
        DeniedError: `threshold`, too few operators, or a signature that is not an operator's or does not hold;
            `record_differs`, not the record that the join promises; `possession`, the participant did not sign for
            its key; `root_changed`, a root of another trust domain or log; `trust_domain`, a service or auditor of
            another; `rules`, not Cedar that fits the schema.
    """
    if envelope.payload_type != document.payload_type or envelope.statement != document.raw:
        raise DeniedError("threshold", "the envelope is another document's")
    if isinstance(document, ParticipantRecord) and join is not None and is_by_join_key(envelope, join):
        _check_join(document, envelope, join)
        names: tuple[str, ...] = ()
    elif isinstance(document, RootDocument):
        names = _check_rotation(document, envelope, root)
    else:
        names = _check_threshold(envelope, root, threshold_of(document, root))
    _check_content(document, root)
    return names


def _check_threshold(envelope: Envelope, root: RootDocument, threshold: int) -> tuple[str, ...]:
    try:
        return verify_threshold(envelope, root.operators, threshold)
    except SignatureError:
        raise DeniedError(
            "threshold", f"the document needs valid signatures by {threshold} operators, and no other signature"
        ) from None


def _check_rotation(document: RootDocument, envelope: Envelope, root: RootDocument) -> tuple[str, ...]:
    """Count the signatures for the root before and for the new one, each over its own operators.

    A signature is of an operator by the key that the root in question names, so that an operator who changes keys
    signs with both to count twice. Every signature is of an operator of either, and holds.
    """
    parts = []
    for counted, threshold in (
        (root, threshold_of(document, root)),
        (document, threshold_of(document, document)),
    ):
        ids = {key.key_id for key in counted.operators.values()}
        signatures = tuple(signature for signature in envelope.signatures if signature.key_id in ids)
        if len(signatures) < threshold:
            raise DeniedError("threshold", f"a root needs {threshold} operators of the root before, and of itself")
        part = Envelope(envelope.payload_type, envelope.statement, signatures)
        parts.append((signatures, _check_threshold(part, counted, threshold)))
    (of_old, old_names), (of_new, new_names) = parts
    if set(envelope.signatures) != {*of_old, *of_new}:
        raise DeniedError("threshold", "a signature is not of an operator of the root before or of the new one")
    return tuple(sorted({*old_names, *new_names}))


def _check_join(document: ParticipantRecord, envelope: Envelope, join: JoinDocument) -> None:
    try:
        verify_single(envelope, join.join_key)
    except SignatureError:
        raise DeniedError("threshold", "the join key's signature does not hold") from None
    promised = (join.name, "active", join.clearance, join.groups, join.record_expires_us)
    if (document.name, document.state, document.clearance, document.groups, document.expires_us) != promised:
        raise DeniedError("record_differs", "a record by a join key is active and says what the join says")


def _check_content(document: Document, root: RootDocument) -> None:
    if isinstance(document, RootDocument) and (
        document.trust_domain != root.trust_domain or document.log_host != root.log_host
    ):
        raise DeniedError("root_changed", "a root keeps the trust domain and the log of the one before")
    if isinstance(document, ParticipantRecord):
        try:
            verify_possession(document.key, document.possession, document.federation_id, document.name)
        except SignatureError:
            raise DeniedError("possession", "the record lacks its key's signature over federation and name") from None
    if isinstance(document, ServicesDocument) and any(
        signatory.spiffe_id.trust_domain != root.trust_domain for signatory in (*document.services, *document.auditors)
    ):
        raise DeniedError("trust_domain", "services and auditors are of the federation's trust domain")
    if isinstance(document, RulesDocument):
        try:
            check_rules(document.cedar)
        except MalformedError:
            raise DeniedError("rules", "the rules are not Cedar that fits the schema, each with its own @id") from None


def check_succession(document: Document, previous: Document | None, log_time_us: int) -> None:
    """Check that `document` may follow `previous`, the last effective version of its series, at this time.

    A root follows the root in force, which may have expired.

    Raises:
        DeniedError: `revoked`, `version`, `previous`, `expired`, `model_changed`.
    """
    assert previous is None or previous.series == document.series, "the caller looks up the document's own series"
    if isinstance(previous, ParticipantRecord) and previous.state == "revoked":
        raise DeniedError("revoked", "a revoked participant stays revoked")
    if previous is None and isinstance(document, ParticipantRecord) and document.state == "revoked":
        # Revocation may take one operator alone, who could bar names that nobody bears yet.
        raise DeniedError("revoked", "a participant is recorded before it is revoked")
    if document.version != (1 if previous is None else previous.version + 1):
        raise DeniedError("version", "a document's version is that of the one in force plus 1, or 1")
    if document.previous != (ZERO_DIGEST if previous is None else previous.digest):
        raise DeniedError("previous", "a document names the digest of the one that it replaces")
    if log_time_us >= document.expires_us:
        raise DeniedError("expired", "the document had expired before it was logged")
    if isinstance(document, SegmentTerms) and isinstance(previous, SegmentTerms) and document.model != previous.model:
        raise DeniedError("model_changed", "a segment keeps its model's manifest, grid and initial digest")


def open_genesis(
    envelope: Envelope, document: GenesisDocument, origin: str, log_vkeys: tuple[str, str]
) -> RootDocument:
    """Verify a genesis against a trust policy; its root is trusted from then on.

    Args:
        envelope: what `document` was parsed from.
        origin: the log's origin, from the trust policy.
        log_vkeys: the origin's Ed25519 and ML-DSA-44 vkeys, from the trust policy.

    Raises:
        SignatureError: root or genesis lacks the threshold `root` of root.
        VerificationError: the federation id is not root's digest, or origin or keys are not the trust policy's.
    """
    root = document.root
    if document.federation_id != root.digest:
        raise VerificationError("the federation id is not the digest of the root document")
    if document.origin != origin or origin != origin_of(root.log_host, root.digest):
        raise VerificationError("genesis is of another origin than the trust policy's")
    if document.log_keys != log_vkeys:
        raise VerificationError("genesis names other log keys than the trust policy")
    if envelope.payload_type != document.payload_type or envelope.statement != document.raw:
        raise SignatureError("the envelope is another document's")
    verify_threshold(document.root_envelope, root.operators, root.thresholds.root)
    verify_threshold(envelope, root.operators, root.thresholds.root)
    return root


@dataclass(slots=True)
class KeyOwners:
    """Which name each key id serves. Operators, services, auditors, participants and joins share one space."""

    _owners: dict[Digest, Owner] = field(default_factory=dict)

    def check(self, document: Document) -> None:
        """Check that no key of `document` serves another name, in the log or in the document; change nothing.

        Raises:
            DeniedError: `key_reused`.
        """
        self._merged(document)

    def claim(self, document: Document) -> None:
        """Record the keys of a document that has effect.

        Raises:
            DeniedError: `key_reused`; nothing was recorded.
        """
        self._owners.update(self._merged(document))

    def _merged(self, document: Document) -> dict[Digest, Owner]:
        claimed: dict[Digest, Owner] = {}
        if isinstance(document, JoinDocument) and document.join_key.key_id in self._owners:
            # Not even its own name's: whoever was once handed a token would be invited again.
            raise DeniedError("key_reused", "a join key served nothing before")
        for owner, key in _keys_of(document):
            if self._owners.get(key.key_id, owner) != owner or claimed.setdefault(key.key_id, owner) != owner:
                raise DeniedError("key_reused", "a key serves one name, for ever")
        return claimed


def _keys_of(document: Document) -> Iterator[tuple[Owner, PublicKey]]:
    match document:
        case RootDocument():
            yield from ((("operator", name), key) for name, key in document.operators.items())
        case GenesisDocument():
            yield from _keys_of(document.root)
        case ServicesDocument():
            for signatory in (*document.services, *document.auditors):
                yield (signatory.spiffe_id.role, signatory.spiffe_id.name), signatory.key
        case ParticipantRecord():
            yield ("participant", document.name), document.key
        case JoinDocument():
            yield ("join", document.name), document.join_key
        case RulesDocument() | SegmentTerms() | KeyRevocation() | Order():
            return
