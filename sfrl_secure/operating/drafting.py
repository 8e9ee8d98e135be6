"""From a draft to a canonical document: the log knows the version, the predecessor and what stays as it is.

A draft can be built without a log too, on made-up ground: that is how `check` finds values out of their range. What is
built so is thrown away.

Format: proto/README.md, "Documents".

Runs in: operators' machines, cli.
Trusts: the state that it is given.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from sfrl_secure.crypto.keys import ED25519, SIGNATURE_BYTES, PublicKey, SigningKey, parse_public_key
from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.build import build_participant, build_root, build_rules, build_services
from sfrl_secure.governance.documents import Document, ParticipantRecord, RootDocument, RulesDocument, ServicesDocument
from sfrl_secure.governance.root import Thresholds
from sfrl_secure.governance.services import Signatory
from sfrl_secure.governance.terms import SegmentTerms
from sfrl_secure.ids import ZERO_DIGEST, Digest, parse_spiffe_id
from sfrl_secure.operating.draft_tables import (
    Draft,
    KeyTable,
    ParticipantDraft,
    RootDraft,
    RulesDraft,
    ServicesDraft,
    TermsDraft,
)
from sfrl_secure.operating.drafting_terms import build_drafted_terms
from sfrl_secure.operating.drafts import DraftFile, Problem
from sfrl_secure.operating.signing import SigningRequest, open_request
from sfrl_secure.operating.toml_lines import KeyPath
from sfrl_secure.operating.units import count, parse_moment
from sfrl_secure.rounds.state import FederationState

_KEY = re.compile(
    r"(?:segment-terms\.|services\.(?=services|auditors|key)|participant\.|root\.)?([a-z_]+(?:\.[a-z_]+)*)"
)


class Succession(TypedDict):
    """What places a document in its series."""

    federation_id: Digest
    version: int
    previous: Digest


@dataclass(frozen=True, slots=True)
class Ground:
    """What a document is built on: the federation and what is in force. Without a state it is made up."""

    state: FederationState | None
    now_us: int

    @property
    def root(self) -> RootDocument | None:
        """The root in force."""
        return None if self.state is None else self.state.root

    @property
    def trust_domain(self) -> str:
        """The federation's, or any."""
        return "federation.example" if self.root is None else self.root.trust_domain

    def in_force(self, series: tuple[str, str]) -> Document | None:
        """The last effective version of a document."""
        if series == ("root", ""):
            return self.root
        placed = None if self.state is None else self.state.placed.get(series)
        return None if placed is None else placed.document

    def succession(self, series: tuple[str, str]) -> Succession:
        """Version and predecessor of the next document of a series."""
        before = self.in_force(series)
        return Succession(
            federation_id=ZERO_DIGEST if self.state is None else self.state.federation_id,
            version=1 if before is None else before.version + 1,
            previous=ZERO_DIGEST if before is None else before.digest,
        )


def build_draft(file: DraftFile, ground: Ground) -> SigningRequest | tuple[Problem, ...]:
    """Build the document that a draft describes; or say what does not fit."""
    try:
        expires_us = parse_moment(file.draft.expires, ground.now_us)
        if expires_us <= ground.now_us:
            raise MalformedError("expires: that time has passed")
        payload_type, raw = _build(file, file.draft, ground, expires_us)
        return open_request(payload_type, raw)
    except MalformedError as error:
        return (file.problem(_key_of(str(error), file.lines), str(error)),)


def check_alone(file: DraftFile, now_us: int) -> tuple[Problem, ...]:
    """Everything that can be found wrong with a draft without knowing what is in force."""
    built = build_draft(file, Ground(None, now_us))
    return built if isinstance(built, tuple) else ()


def _build(file: DraftFile, draft: Draft, ground: Ground, expires_us: int) -> tuple[str, bytes]:
    match draft:
        case TermsDraft():
            placed = ground.succession(("segment-terms", draft.segment))
            before = ground.in_force(("segment-terms", draft.segment))
            assert before is None or isinstance(before, SegmentTerms), "a series has one type"
            model = None if before is None else before.model
            may_stand_in = ground.state is None
            raw = build_drafted_terms(draft, model, expires_us=expires_us, may_stand_in=may_stand_in, **placed)
            return SegmentTerms.payload_type, raw
        case ServicesDraft():
            return ServicesDocument.payload_type, _services(draft, ground, expires_us)
        case ParticipantDraft():
            return ParticipantRecord.payload_type, _participant(draft, ground, expires_us)
        case RootDraft():
            return RootDocument.payload_type, _root(draft, ground, expires_us)
        case RulesDraft():
            placed = ground.succession(("rules", ""))
            return RulesDocument.payload_type, build_rules(**placed, expires_us=expires_us, cedar=file.cedar)


def _services(draft: ServicesDraft, ground: Ground, expires_us: int) -> bytes:
    domain = ground.trust_domain

    def signatory(path: str, key: KeyTable, where: str) -> Signatory:
        return Signatory(parse_spiffe_id(f"spiffe://{domain}/{path}"), _key(key.suite, key.public_key, where))

    return build_services(
        **ground.succession(("services", "")),
        expires_us=expires_us,
        services=[signatory(f"service/{each.role}/{each.name}", each, "services") for each in draft.services],
        auditors=[signatory(f"auditor/{each.name}", each, "auditors") for each in draft.auditors],
        key_exchange=_set(draft.key_exchange, "key_exchange"),
    )


def _participant(draft: ParticipantDraft, ground: Ground, expires_us: int) -> bytes:
    series = ("participant", draft.name)
    before = ground.in_force(series)
    assert before is None or isinstance(before, ParticipantRecord), "a series has one type"
    if before is not None and before.state == "revoked":
        raise MalformedError("name: this participant was revoked, for ever; it can come back under another name")
    key, possession = _participant_key(draft, before, ground)
    return build_participant(
        **ground.succession(series),
        expires_us=expires_us,
        name=draft.name,
        key=key,
        possession=possession,
        clearance=draft.clearance,
        groups=_set(draft.groups, "groups"),
        state=draft.state,
        reason=draft.reason,
    )


def _participant_key(
    draft: ParticipantDraft, before: ParticipantRecord | None, ground: Ground
) -> tuple[PublicKey, bytes]:
    given = (draft.suite, draft.public_key, draft.possession)
    if draft.suite is None or draft.public_key is None or draft.possession is None:
        if given != (None, None, None):
            raise MalformedError("public_key: suite, public_key and possession are given together, or none of them")
        if before is not None:
            return before.key, before.possession
        if ground.state is None:
            return SigningKey.generate(ED25519).public_key, bytes(sum(SIGNATURE_BYTES[ED25519]))
        raise MalformedError(
            "name: no participant of this name is recorded, so its key is not known; `sfrl invite` lets it record one"
        )
    key = _key(draft.suite, draft.public_key, "public_key")
    try:
        return key, bytes.fromhex(draft.possession)
    except ValueError:
        raise MalformedError("possession: bytes in hexadecimal") from None


def _root(draft: RootDraft, ground: Ground, expires_us: int) -> bytes:
    root = ground.root
    if ground.state is not None and root is None:
        raise MalformedError("the log has no genesis")
    placed = ground.succession(("root", ""))
    if root is None:
        placed["version"] = 2
    operators = {name: _key(each.suite, each.public_key, f"operators.{name}") for name, each in draft.operators.items()}
    thresholds = draft.thresholds.model_dump()
    check_operators(operators, thresholds)
    return build_root(
        **placed,
        expires_us=expires_us,
        trust_domain=ground.trust_domain,
        log_host="log.example" if root is None else root.log_host,
        operators=operators,
        thresholds=Thresholds(**thresholds),
    )


def check_operators(operators: Mapping[str, PublicKey], thresholds: Mapping[str, int]) -> None:
    """Check that each operator of a root has a key of its own, and that they can meet every threshold.

    Raises:
        MalformedError: says whose key it is, or which role takes too many.
    """
    owners: dict[Digest, str] = {}
    for name in sorted(operators):
        first = owners.setdefault(operators[name].key_id, name)
        if first != name:
            raise MalformedError(f"operators.{name}: {name}'s key is {first}'s: each operator has a key of its own")
    for role, needed in thresholds.items():
        if needed > len(operators):
            raise MalformedError(
                f"thresholds.{role}: {count(len(operators), 'operator')} would be left and {role} takes {needed}: "
                "give it another threshold too"
            )


def _key(suite: str, public_key: str, where: str) -> PublicKey:
    try:
        return parse_public_key(suite, bytes.fromhex(public_key))
    except (ValueError, MalformedError) as error:
        reason = error if isinstance(error, MalformedError) else "bytes in hexadecimal"
        raise MalformedError(f"{where}: a public key as `sfrl policy key` prints it: {reason}") from None


def _set(values: Sequence[str], where: str) -> Sequence[str]:
    if len(set(values)) != len(values):
        raise MalformedError(f"{where}: nothing stands there twice")
    return values


def _key_of(reason: str, lines: Mapping[KeyPath, int]) -> KeyPath:
    """The draft's key that an error of a document names, in the draft's words."""
    matched = _KEY.match(reason)
    parts = matched[1].split(".") if matched else []
    path = tuple(part.removesuffix("_us") for part in parts if part != "manifest")
    # Where a key is named without its table, there is one of that name.
    inside = [each for each in lines if path and each[-1] == path[0]]
    return path if path[:1] in lines or not inside else inside[0]

