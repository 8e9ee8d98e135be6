"""What a new version of a document changes, in words, and for whom.

Two documents are compared, and where the state of the federation is known, it is said who gains or loses what. Nothing
is left out silently: a field that differs and has no words of its own is named.

Runs in: operators' machines, cli.
Trusts: the state that it is given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields

from sfrl_secure.governance.cedar_text import split_policies
from sfrl_secure.governance.documents import (
    Document,
    JoinDocument,
    ParticipantRecord,
    RootDocument,
    RulesDocument,
    SegmentTerms,
    ServicesDocument,
)
from sfrl_secure.governance.policy import check_rules
from sfrl_secure.governance.services import Signatory
from sfrl_secure.operating.changes_terms import terms_changes
from sfrl_secure.operating.document_words import key_words, names, title_of, words_of
from sfrl_secure.operating.units import time_in_words
from sfrl_secure.rounds.state import FederationState

NOTHING = "nothing changes but the version"


def changes_of(before: Document | None, after: Document, state: FederationState | None = None) -> tuple[str, ...]:
    """Say what changes when `after` takes the place of `before`.

    Args:
        before: of the same series; None where there is none, and all of `after` is new.
        state: the federation as it is, to say for whom.
    """
    if before is None:
        return (f"new: {title_of(after)}", *(f"  {said}" for said in words_of(after)), *_granted_anew(after, state))
    said = [*_expiry(before, after)]
    match before, after:
        case RootDocument(), RootDocument():
            said += _root(before, after)
        case ServicesDocument(), ServicesDocument():
            said += _services(before, after)
        case RulesDocument(), RulesDocument():
            said += _rules(before, after)
        case SegmentTerms(), SegmentTerms():
            said += terms_changes(before, after, state)
        case ParticipantRecord(), ParticipantRecord():
            said += _participant(before, after, state)
        case JoinDocument(), JoinDocument():
            said += _invitation(before, after)
        case _:
            said += [f"new: {each}" for each in words_of(after)]
    return tuple(said) or (NOTHING,)


def _granted_anew(after: Document, state: FederationState | None) -> tuple[str, ...]:
    if state is None or not isinstance(after, SegmentTerms):
        return ()
    found = [each.name for each in _records(state) if each.groups & after.groups and each.state == "active"]
    return (f"  granted now: {names(found)}",)


def _expiry(before: Document, after: Document) -> Iterator[str]:
    if before.expires_us != after.expires_us:
        word = "later" if after.expires_us > before.expires_us else "EARLIER"
        yield f"expires {word}: {time_in_words(before.expires_us)} -> {time_in_words(after.expires_us)}"


def _root(before: RootDocument, after: RootDocument) -> Iterator[str]:
    for name in sorted(before.operators.keys() - after.operators.keys()):
        yield f"operator {name} is removed: its signatures count no more, and its TLS identities open nothing"
    for name in sorted(after.operators.keys() - before.operators.keys()):
        yield f"operator {name} is new: {key_words(after.operators[name])}"
    for name in sorted(before.operators.keys() & after.operators.keys()):
        if before.operators[name] != after.operators[name]:
            yield f"operator {name} gets another key: {key_words(after.operators[name])}"
    for field in fields(before.thresholds):
        old, new = getattr(before.thresholds, field.name), getattr(after.thresholds, field.name)
        if old != new:
            yield f"threshold {field.name}: {old} -> {new} of {len(after.operators)} operators"
    if (before.trust_domain, before.log_host) != (after.trust_domain, after.log_host):
        yield "another trust domain or log: such a root has no effect"


def _services(before: ServicesDocument, after: ServicesDocument) -> Iterator[str]:
    old, new = _signatories(before), _signatories(after)
    for path in sorted(old.keys() - new.keys()):
        yield f"{path} is removed: it writes and reads nothing more, and its TLS identities open nothing"
    for path in sorted(new.keys() - old.keys()):
        yield f"{path} is new: {key_words(new[path].key)}"
    for path in sorted(old.keys() & new.keys()):
        if old[path].key != new[path].key:
            yield f"{path} gets another signing key: {key_words(new[path].key)}"
    for group in sorted(before.key_exchange - after.key_exchange):
        yield f"key exchange {group} is no longer admitted: whoever connects by it is refused"
    for group in sorted(after.key_exchange - before.key_exchange):
        yield f"key exchange {group} is admitted"


def _signatories(document: ServicesDocument) -> Mapping[str, Signatory]:
    listed = (*document.services, *document.auditors)
    return {f"{each.spiffe_id.role}/{each.spiffe_id.name}": each for each in listed}


def _rules(before: RulesDocument, after: RulesDocument) -> Iterator[str]:
    old, new = _by_id(before.cedar), _by_id(after.cedar)
    for rule_id in [each for each in old if each not in new]:
        yield f"rule {rule_id} is removed:"
        yield from (f"  - {text}" for text in old[rule_id])
    for rule_id in [each for each in new if each not in old]:
        yield f"rule {rule_id} is new:"
        yield from (f"  + {text}" for text in new[rule_id])
    for rule_id in [each for each in new if each in old and old[each] != new[each]]:
        yield f"rule {rule_id} changes:"
        yield from (f"  - {text}" for text in old[rule_id])
        yield from (f"  + {text}" for text in new[rule_id])
    if not new:
        yield "there is no rule left: every update is denied"
    if old == new and before.cedar != after.cedar:
        yield "only comments, spaces or the order of the rules change"


def _by_id(cedar: str) -> dict[str, tuple[str, ...]]:
    """Each rule's own lines, without comments and blank lines, by its id."""
    texts = split_policies(cedar)
    return {
        rule_id: tuple(
            line.rstrip() for line in policy.text.split("\n") if line.strip() and not line.lstrip().startswith("//")
        )
        for rule_id, policy in zip(check_rules(cedar), texts, strict=True)
    }


def _participant(
    before: ParticipantRecord, after: ParticipantRecord, state: FederationState | None
) -> Iterator[str]:
    if before.state != after.state:
        yield f"{after.name} was {before.state} and is {after.state}{f' ({after.reason})' if after.reason else ''}"
        if after.state == "revoked":
            yield f"{after.name} can never take part again; its updates in open rounds are dropped at their close"
    elif before.reason != after.reason:
        yield f"reason: {after.reason or 'none'}"
    if before.clearance != after.clearance:
        word = "rises" if after.clearance > before.clearance else "falls"
        yield f"clearance of {after.name} {word}: {before.clearance} -> {after.clearance}"
    if before.key != after.key:
        yield f"{after.name} gets another signing key: {key_words(after.key)}"
    for group in sorted(before.groups - after.groups):
        yield f"{after.name} leaves group {group}"
    for group in sorted(after.groups - before.groups):
        yield f"{after.name} joins group {group}"
    if state is None:
        return
    for segment in sorted(state.segments):
        terms = state.segments[segment].terms
        had, has = bool(before.groups & terms.groups), bool(after.groups & terms.groups)
        if had != has:
            yield f"{after.name} {'gains' if has else 'loses'} segment {segment}"
        elif has and (before.clearance >= terms.sensitivity) != (after.clearance >= terms.sensitivity):
            reached = after.clearance >= terms.sensitivity
            yield f"its clearance {'now reaches' if reached else 'falls below'} the sensitivity of segment {segment}"


def _invitation(before: JoinDocument, after: JoinDocument) -> Iterator[str]:
    yield f"the invitation before ends: a join file of version {before.version} lets nobody in any more"
    if before.clearance != after.clearance:
        yield f"clearance: {before.clearance} -> {after.clearance}"
    if before.groups != after.groups:
        yield f"groups: {names(before.groups)} -> {names(after.groups)}"
    if before.record_expires_us != after.record_expires_us:
        old, new = time_in_words(before.record_expires_us), time_in_words(after.record_expires_us)
        yield f"the record holds until: {old} -> {new}"


def _records(state: FederationState) -> Iterator[ParticipantRecord]:
    for kind, name in sorted(state.placed):
        record = state.participant(name) if kind == "participant" else None
        if record is not None:
            yield record
