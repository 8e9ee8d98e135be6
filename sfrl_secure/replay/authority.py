"""When a document has effect.

Format: proto/README.md, "When a document has effect".

Runs in: verifier.
Trusts: the trust policy, through origin and log keys; from genesis on the root that it pins.
"""

from __future__ import annotations

from collections.abc import Iterator

from sfrl_secure.crypto.envelope import Envelope, verify_threshold
from sfrl_secure.crypto.keys import PublicKey
from sfrl_secure.crypto.possession import verify_possession
from sfrl_secure.errors import MalformedError, SignatureError
from sfrl_secure.ids import ZERO_DIGEST, Digest
from sfrl_secure.replay.docket import Position
from sfrl_secure.replay.documents import Document, Genesis, Participant, Root, Rules, Services
from sfrl_secure.replay.enrolment import check_invited, forget_fallen_names, invitation
from sfrl_secure.replay.findings import Void
from sfrl_secure.replay.interventions import Join, KeyRevocation, Order
from sfrl_secure.replay.policy import RuleSet
from sfrl_secure.replay.state import State
from sfrl_secure.replay.terms import Terms
from sfrl_secure.translog.policy import TrustedLog

_HOUR_US = 3_600_000_000
_LIFETIMES_US: dict[type, int] = {Join: 31 * 24 * _HOUR_US, Order: 72 * _HOUR_US}
"""How far ahead a document's end may lie at its index; others' is not bounded."""


def check_genesis(document: Document, envelope: Envelope, log: TrustedLog) -> None:
    """Check entry 0 against the trust policy's log."""
    genesis = document.content
    if not isinstance(genesis, Genesis):
        raise Void("genesis", "a genesis document at index 0", document.series[0])
    root = genesis.root
    if genesis.federation_id != genesis.root_digest:
        raise Void("genesis", "federation id is the digest of root", genesis.federation_id.hex())
    origin = f"{root.log_host}/sfrl/{genesis.root_digest.hex()[:32]}"
    if genesis.origin != log.origin or origin != log.origin:
        raise Void("genesis", "the trust policy's origin, made of log host and federation id", "another origin")
    if set(genesis.log_keys) != {key.vkey for key in log.generations[0]}:
        raise Void("genesis", "the trust policy's first keys of the log", "other keys")
    _check_threshold(genesis.root_envelope, root, "root")
    _check_threshold(envelope, root, "root")
    _claims(State(), document)


def check_document(state: State, document: Document, envelope: Envelope, log_time_us: int) -> None:
    """Check a document at an index above 0."""
    content = document.content
    root = state.root
    assert root is not None, "an ineffective genesis ends the walk"
    if isinstance(content, Genesis):
        raise Void("genesis", "one genesis, at index 0")
    if document.federation_id != state.federation_id:
        raise Void("wrong_federation", state.federation_id.hex(), document.federation_id.hex())
    if isinstance(content, Root):
        # An expired root takes nothing but its successor.
        _check_both_thresholds(envelope, root, content)
    else:
        if log_time_us >= root.expires_us:
            raise Void("root_expired", f"log time below {root.expires_us}", str(log_time_us))
        invited = invitation(state, document, envelope)
        if invited is not None:
            check_invited(state, document, envelope, invited, log_time_us)
        else:
            _check_threshold(envelope, root, _threshold_of(content))
    _check_succession(state, document, log_time_us)
    _check_content(state, document, root)
    lifetime_us = _LIFETIMES_US.get(type(content))
    if lifetime_us is not None and document.expires_us > log_time_us + lifetime_us:
        raise Void("lasts_too_long", f"an end by {log_time_us + lifetime_us}", str(document.expires_us))
    _claims(state, document)


def take_document(state: State, document: Document, envelope: Envelope, at: Position) -> None:
    """Put an effective document in force."""
    content = document.content
    invited = invitation(state, document, envelope)
    if invited is not None:
        state.spent_joins.add(invited[1].digest)
    state.owners.update(_claims(state, document))
    match content:
        case Genesis():
            state.root, state.federation_id = content.root, content.federation_id
            # Root stands inside genesis; its versions are counted from here.
            root, digest = content.root, content.root_digest
            state.in_force["root", ""] = Document(digest, digest, ("root", ""), 1, ZERO_DIGEST, root.expires_us, root)
            state.since["root", ""] = at.index
        case Root():
            state.root = content
        case Rules():
            state.rule_set = RuleSet(content.cedar)
        case KeyRevocation():
            state.revoked_keys.add(content.spki_sha256)
        case _:
            pass
    state.in_force[document.series] = document
    state.since[document.series] = at.index
    state.governance_head = at.leaf
    if isinstance(content, Root | Services) or (isinstance(content, Participant) and content.state == "revoked"):
        forget_fallen_names(state)


def _threshold_of(content: object) -> str:
    match content:
        case Participant(state="revoked") | Order(action="halt"):
            return "revocation"
        case KeyRevocation(spiffe_id=whose):
            # A single operator must not be able to shut the others out, or the services.
            return "revocation" if whose.role in ("participant", "auditor") else "governance"
        case Participant() | Join():
            return "enrolment"
        case _:
            return "governance"


def _check_threshold(envelope: Envelope, root: Root, name: str) -> None:
    needed = root.thresholds[name]
    try:
        verify_threshold(envelope, root.operators, needed)
    except SignatureError:
        raise Void(
            "threshold", f"valid signatures of {needed} operators or more (threshold {name}), and no other", "not these"
        ) from None


def _check_both_thresholds(envelope: Envelope, before: Root, after: Root) -> None:
    """A root is signed for under the one before it and under itself, each counted over its own operators."""
    known = {key.key_id: key for root in (before, after) for key in root.operators.values()}
    # Each signature is by somebody of either, and holds; a key stands here once, whoever's it is.
    signatories = {key_id.hex(): key for key_id, key in known.items()}
    try:
        verify_threshold(envelope, signatories, 1)
    except SignatureError:
        raise Void("threshold", "valid signatures of operators of this root or the one before", "another") from None
    signed = {each.key_id for each in envelope.signatures}
    for root, which in ((before, "the root before"), (after, "this root")):
        count = sum(key.key_id in signed for key in root.operators.values())
        if count < root.thresholds["root"]:
            raise Void("threshold", f"{root.thresholds['root']} operators of {which}", str(count))


def _check_succession(state: State, document: Document, log_time_us: int) -> None:
    before = state.in_force.get(document.series)
    version = 1 if before is None else before.version + 1
    previous = ZERO_DIGEST if before is None else before.digest
    if before is None and isinstance(document.content, Participant) and document.content.state == "revoked":
        raise Void("revoked", "a record before a revocation", "a revocation of nobody")
    if before is not None and isinstance(before.content, Participant) and before.content.state == "revoked":
        raise Void("revoked", "no version after a revocation", f"version {document.version}")
    if document.version != version:
        raise Void("version", f"version {version}", f"version {document.version}")
    if document.previous != previous:
        raise Void("previous", previous.hex(), document.previous.hex())
    if log_time_us >= document.expires_us:
        raise Void("expired", f"log time below {document.expires_us}", str(log_time_us))
    if (
        before is not None
        and isinstance(before.content, Terms)
        and isinstance(document.content, Terms)
        and before.content.model != document.content.model
    ):
        raise Void("model_changed", "the model of the terms before", "another")


def _check_content(state: State, document: Document, root: Root) -> None:
    content = document.content
    if isinstance(content, Root) and (content.trust_domain, content.log_host) != (root.trust_domain, root.log_host):
        raise Void("root_changed", f"{root.trust_domain} and {root.log_host}", "others")
    if isinstance(content, Join) and state.is_revoked(content.name):
        raise Void("revoked", "an invitation of a name that is not revoked", content.name)
    if isinstance(content, KeyRevocation):
        known = state.identities.get(content.spki_sha256)
        if known is not None and known.spiffe_id != content.spiffe_id:
            raise Void("wrong_name", known.spiffe_id, content.spiffe_id)
    if isinstance(content, Participant):
        try:
            verify_possession(content.key, content.possession, document.federation_id, content.name)
        except SignatureError:
            raise Void("possession", "the participant's signature over federation, name and key", "another") from None
    if isinstance(content, Services):
        for spiffe_id in (*content.services, *content.auditors):
            if spiffe_id.trust_domain != root.trust_domain:
                raise Void("trust_domain", root.trust_domain, spiffe_id.trust_domain)
    if isinstance(content, Rules):
        try:
            RuleSet(content.cedar)
        except MalformedError as error:
            raise Void("rules", str(error)) from None


def _claims(state: State, document: Document) -> dict[Digest, tuple[str, str]]:
    """Which name each key of the document serves; void where one serves another name already."""
    claimed: dict[Digest, tuple[str, str]] = {}
    for owner, key in _keys_of(document.content):
        known = state.owners.get(key.key_id, claimed.get(key.key_id, owner))
        # A join key served nothing before, no earlier invitation of its name either.
        is_used = isinstance(document.content, Join) and key.key_id in state.owners
        if known != owner or is_used:
            raise Void("key_reused", f"{known[0]} {known[1]}", f"{owner[0]} {owner[1]}")
        claimed[key.key_id] = owner
    return claimed


def _keys_of(content: object) -> Iterator[tuple[tuple[str, str], PublicKey]]:
    if isinstance(content, Genesis):
        content = content.root
    if isinstance(content, Root):
        yield from ((("operator", name), key) for name, key in content.operators.items())
    if isinstance(content, Services):
        for spiffe_id, key in (*content.services.items(), *content.auditors.items()):
            yield (spiffe_id.role, spiffe_id.name), key
    if isinstance(content, Participant):
        yield ("participant", content.name), content.key
    if isinstance(content, Join):
        yield ("join", content.name), content.key
