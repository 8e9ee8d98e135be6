"""A draft of what is in force, to change and build again: the same integers come out of it as went in.

Format: TOML, `operating.draft_tables`.

Runs in: operators' machines, cli.
Trusts: nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from sfrl_secure.crypto.keys import PublicKey
from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.documents import (
    Document,
    ParticipantRecord,
    RootDocument,
    RulesDocument,
    SegmentTerms,
    ServicesDocument,
)
from sfrl_secure.governance.terms import LeakageBound
from sfrl_secure.operating.aggregation_tables import cap_lines, clip_lines, next_mask_lines, rule_lines, server_lines
from sfrl_secure.operating.document_words import title_of
from sfrl_secure.operating.units import format_duration, format_moment, format_size, shortest_on_grid


def draft_of(document: Document) -> str:
    """Write the draft that gives this document's next version, changed in nothing.

    Raises:
        MalformedError: documents of this kind are not drafted.
    """
    match document:
        case SegmentTerms():
            lines = _terms(document)
        case ServicesDocument():
            lines = _services(document)
        case ParticipantRecord():
            lines = _participant(document)
        case RootDocument():
            lines = _root(document)
        case RulesDocument():
            lines = _rules(document)
        case _:
            raise MalformedError("drafts are of terms, services, participants, rules and the root")
    head = f"# Made from {title_of(document)}. Change it, then: sfrl policy build\n"
    return head + "\n".join(lines) + "\n"


def key_draft(key: PublicKey) -> str:
    """A public key as drafts have it."""
    return f'# key id {key.key_id.hex()}\nsuite = "{key.suite}"\npublic_key = "{key.raw.hex()}"\n'


def _terms(terms: SegmentTerms) -> Iterator[str]:
    exponent = terms.model.grid_exponent
    yield 'kind = "segment-terms"'
    yield f"segment = {_text(terms.segment)}"
    yield f"expires = {format_moment(terms.expires_us)}"
    yield f"sensitivity = {terms.sensitivity}"
    yield f"groups = {_list(sorted(terms.groups))}"
    yield f"relay_groups = {_list(sorted(terms.relay_groups))}  # who may bring others' updates"
    yield f"operations = {_list(sorted(terms.operations))}"
    yield f"tensors = {_list(terms.tensors)}"
    yield f"value_types = {_list(sorted(terms.value_types))}"
    yield f"support_modes = {_list(sorted(terms.support_modes))}"
    yield f"suites = {_list(sorted(terms.suites))}"
    yield f"privacy = {_text(terms.privacy)}"
    yield f"evidence_days = {terms.evidence_days}"
    yield f"retention_days = {terms.retention_days}"
    yield "# The model stays as it is: [model] is for a new segment."
    if terms.mask is not None:
        yield "\n[mask]  # of the support mode agreed"
        yield f"digest = {_text(terms.mask.digest.hex())}"
        yield f"nonzeros = {terms.mask.nonzeros}"
        if terms.mask.next is not None:
            yield "\n[mask.next]  # how it changes from round to round"
            yield from next_mask_lines(terms.mask.next)
    yield "\n[rule]  # how a round's updates become one step; tables [clip], [cap], [server] may stand beside it"
    yield from rule_lines(terms.rule)
    if terms.clip is not None:
        yield "\n[clip]  # norm in parameter units"
        yield from clip_lines(terms.clip, exponent)
    if terms.cap is not None:
        yield "\n[cap]  # magnitude in parameter units"
        yield from cap_lines(terms.cap, exponent)
    if terms.server is not None:
        yield "\n[server]"
        yield from server_lines(terms.server, exponent)
    yield "\n[limits]  # norm and magnitude in parameter units"
    yield f"payload_bytes_max = {_text(format_size(terms.limits.payload_bytes_max))}"
    yield f"nonzeros_max = {terms.limits.nonzeros_max}"
    yield f"norm_max = {shortest_on_grid(terms.limits.norm_max, exponent)}"
    yield f"magnitude_max = {shortest_on_grid(terms.limits.magnitude_max, exponent)}"
    yield f"weight_max = {terms.limits.weight_max}"
    yield "\n[quota]  # of one participant"
    yield f"window = {_text(format_duration(terms.quota.window_us))}"
    yield f"updates_max = {terms.quota.updates_max}"
    yield f"bytes_max = {_text(format_size(terms.quota.bytes_max))}"
    yield "\n[round]"
    yield f"duration = {_text(format_duration(terms.round.duration_us))}"
    yield f"cohort_min = {terms.round.cohort_min}"
    yield f"cohort_max = {terms.round.cohort_max}"
    yield f"rounds_max = {terms.round.rounds_max}"
    yield "\n[leakage]  # noise in parameter units"
    yield f"nonzeros_min = {terms.leakage.nonzeros_min}"
    yield f"weight_min = {terms.leakage.weight_min}"
    yield f"noise_std_min = {shortest_on_grid(terms.leakage.noise_std_min, exponent, up=True)}"
    yield from _bounds("rows", terms.leakage.rows)
    yield from _bounds("labels", terms.leakage.labels)


def _bounds(key: str, bounds: Iterable[LeakageBound]) -> Iterator[str]:
    for bound in bounds:
        yield f"\n[[leakage.{key}]]"
        yield f"tensor = {_text(bound.tensor)}"
        yield f"axis = {bound.axis}"
        yield f"min = {bound.least}"


def _services(services: ServicesDocument) -> Iterator[str]:
    yield 'kind = "services"'
    yield f"expires = {format_moment(services.expires_us)}"
    yield f"key_exchange = {_list(sorted(services.key_exchange))}"
    for each in services.services:
        yield "\n[[services]]"
        yield f"role = {_text(each.spiffe_id.role)}"
        yield f"name = {_text(each.spiffe_id.name)}"
        yield from _key(each.key)
    for each in services.auditors:
        yield "\n[[auditors]]"
        yield f"name = {_text(each.spiffe_id.name)}"
        yield from _key(each.key)


def _participant(record: ParticipantRecord) -> Iterator[str]:
    yield 'kind = "participant"'
    yield f"name = {_text(record.name)}"
    yield f"expires = {format_moment(record.expires_us)}"
    yield f"clearance = {record.clearance}"
    yield f"groups = {_list(sorted(record.groups))}"
    yield f"state = {_text(record.state)}  # active, suspended, or revoked for ever"
    yield f"reason = {_text(record.reason)}"
    yield "# The signing key stays as it is."


def _root(root: RootDocument) -> Iterator[str]:
    yield 'kind = "root"'
    yield f"expires = {format_moment(root.expires_us)}"
    yield "\n[thresholds]"
    for name in ("root", "governance", "enrolment", "revocation"):
        yield f"{name} = {getattr(root.thresholds, name)}"
    for name in sorted(root.operators):
        yield f"\n[operators.{_text(name)}]"
        yield from _key(root.operators[name])


def _rules(rules: RulesDocument) -> Iterator[str]:
    yield 'kind = "rules"'
    yield f"expires = {format_moment(rules.expires_us)}"
    # A literal string takes no escapes, and Cedar writes no three quotes of this kind in a row outside of strings.
    if "'''" in rules.cedar:
        yield f"cedar = {_text(rules.cedar)}"
    else:
        yield f"cedar = '''\n{rules.cedar}'''"


def _key(key: PublicKey) -> Iterator[str]:
    yield f"suite = {_text(key.suite)}"
    yield f"public_key = {_text(key.raw.hex())}"


def _text(value: str) -> str:
    # JSON's strings are TOML's too, for the printable ASCII, tabs and line feeds of documents.
    return json.dumps(value)


def _list(values: Iterable[str]) -> str:
    return f"[{', '.join(map(_text, values))}]"
