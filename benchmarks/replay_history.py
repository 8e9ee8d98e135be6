"""A federation's log in memory, whose rounds are admitted and closed as services would: for whoever reads it in time.

Everything in it is signed and has effect, so that two readers have all the work that a real log gives them. One
segment, with a cohort of a hundred or so; what its participants send was encoded before.

Runs in: a developer's machine.
Trusts: nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sfrl_secure.crypto.envelope import Envelope, sign_envelope
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.crypto.possession import prove_possession
from sfrl_secure.governance.aggregation_terms import MaskTerms
from sfrl_secure.governance.build import (
    build_genesis,
    build_participant,
    build_root,
    build_rules,
    build_services,
    build_terms,
)
from sfrl_secure.governance.documents import (
    GenesisDocument,
    ParticipantRecord,
    RootDocument,
    RulesDocument,
    SegmentTerms,
    ServicesDocument,
    Signatory,
    Thresholds,
)
from sfrl_secure.governance.origin import origin_of
from sfrl_secure.governance.root import parse_root
from sfrl_secure.governance.statements import (
    STATEMENT_TYPE,
    UPDATE_TYPE,
    Body,
    PayloadFormat,
    RoundOpened,
    Statement,
    UpdateAdmitted,
    UpdateStatement,
)
from sfrl_secure.governance.terms import ModelTerms, RoundTerms, UpdateLimits
from sfrl_secure.ids import ZERO_DIGEST, SpiffeId, parse_spiffe_id, sha256
from sfrl_secure.limits import VALUE_MAX, WEIGHT_SUM_MAX
from sfrl_secure.rounds.begins import round_begins_with
from sfrl_secure.rounds.closing import close_round
from sfrl_secure.rounds.fold import FederationFold
from sfrl_secure.rounds.payloads import check_payload
from sfrl_secure.rounds.state import RoundState, SegmentState
from sfrl_secure.sequencer.log_keys import LogKeys
from sfrl_secure.sparse.encode import EncodedUpdate
from sfrl_secure.sparse.header import CODEC_VERSION
from sfrl_secure.storage.objects import Objects
from sfrl_secure.translog.entries import LogEntry
from sfrl_secure.translog.merkle import leaf_hash
from sfrl_secure.translog.policy import TrustedLog
from sfrl_secure.wire.content import parse_content
from sfrl_secure.wire.entries import encode_entry, encode_envelope
from sfrl_secure.wire.statements import encode_statement, encode_update

_DOMAIN, _HOST, _SEGMENT = "bench.example", "log.bench.example", "segment"
_NOW_US, _DAY_US = 1_780_000_000_000_000, 86_400_000_000
_UNTIL_US = _NOW_US + 400 * _DAY_US


class History:
    """The log, and the fold over it.

    Attributes:
        entries: its leaves.
        fold: their state.
    """

    def __init__(self, objects: Objects, updates: int, model: ModelTerms, mask: MaskTerms | None, **terms: Any) -> None:
        """Begin a federation of so many participants. `terms`: members of the terms that are to be as given."""
        self._objects = objects
        self._now_us = _NOW_US
        self._operator = SigningKey.generate("ed25519")
        self._services = {_service(role): SigningKey.generate("ed25519") for role in ("gatekeeper", "aggregator")}
        self._people = {f"p{number:03}": SigningKey.generate("ed25519") for number in range(updates)}
        root = build_root(
            expires_us=_UNTIL_US, trust_domain=_DOMAIN, log_host=_HOST,
            operators={"op": self._operator.public_key}, thresholds=Thresholds(1, 1, 1, 1),
        )  # fmt: skip
        self._federation = parse_root(root).digest
        origin, keys = origin_of(_HOST, self._federation), LogKeys.generate()
        self.trusted = TrustedLog(origin, (keys.note_signer(origin).key, keys.cosigner(origin).key))
        self.fold = FederationFold(origin, keys.vkeys(origin))
        self.entries: list[bytes] = []
        self._last = ZERO_DIGEST
        vkeys = keys.vkeys(origin)
        self._publish(GenesisDocument, build_genesis(
            root_envelope=self._signed(RootDocument.payload_type, root), log_keys=vkeys
        ))  # fmt: skip
        common: dict[str, Any] = {"federation_id": self._federation, "expires_us": _UNTIL_US}
        services = [Signatory(name, key.public_key) for name, key in self._services.items()]
        self._publish(ServicesDocument, build_services(**common, services=services))
        self._publish(RulesDocument, build_rules(**common))
        self._publish(SegmentTerms, build_terms(**common, **_terms(updates, model, mask), **terms))
        for name, key in self._people.items():
            self._publish(ParticipantRecord, build_participant(
                **common, name=name, key=key.public_key, possession=prove_possession(key, self._federation, name),
                clearance=5, groups=["people"],
            ))  # fmt: skip

    @property
    def segment(self) -> SegmentState:
        """The one segment."""
        return self.fold.state.segments[_SEGMENT]

    @property
    def round(self) -> RoundState:
        """Its last round."""
        assert self.segment.current is not None, "a round was opened"
        return self.segment.current

    def open_round(self) -> None:
        """Open the next round."""
        begins, segment = round_begins_with(self.segment), self.segment
        self.state_by("aggregator", RoundOpened(
            segment.last_round + 1, segment.model, segment.terms.digest, begins.server_state, begins.mask
        ))  # fmt: skip

    def admit(self, updates: Sequence[EncodedUpdate], weights: Sequence[int]) -> None:
        """Admit an update of each participant, whose payloads are stored."""
        for (name, key), encoded, weight in zip(self._people.items(), updates, weights, strict=True):
            envelope, update = self._update(name, key, encoded, weight)
            record, current = self.fold.state.participant(name), self.round
            assert record is not None, "it was recorded"
            rules = self.fold.state.rules(self._now_us)
            measured = check_payload(
                current.terms, rules, record, update, encoded.payload, encoded.mask, mask_digest=current.mask
            )
            self.state_by("gatekeeper", UpdateAdmitted(
                envelope_raw=encode_envelope(envelope), envelope=envelope, update=update, facts=measured.facts,
                rule_ids=measured.rule_ids, retain_until_us=self._now_us + 31 * _DAY_US,
            ))  # fmt: skip

    def close(self) -> None:
        """Close the round with everybody in it."""
        self.state_by("aggregator", close_round(
            self.round, defective=(), is_active=lambda name: True, now_us=self._now_us
        ))  # fmt: skip

    def state_by(self, role: str, body: Body) -> None:
        """Write what a service states."""
        segment = self.segment
        statement = Statement(
            federation_id=self._federation, stream=f"segment/{_SEGMENT}", writer=_service(role),
            key_id=self._services[_service(role)].public_key.key_id,
            reads_governance=self.fold.state.governance_head, reads_segment=segment.control_head,
            valid_until_us=self._now_us + 30_000_000, request_id=sha256(b"%d" % len(self.entries))[:16], body=body,
        )  # fmt: skip
        self._append(sign_envelope(STATEMENT_TYPE, encode_statement(statement), [self._services[_service(role)]]))

    def _update(
        self, name: str, key: SigningKey, encoded: EncodedUpdate, weight: int
    ) -> tuple[Envelope, UpdateStatement]:
        current = self.round
        update = UpdateStatement(
            federation_id=self._federation, segment=_SEGMENT, participant=name, key_id=key.public_key.key_id,
            round=current.number, round_opened=current.opened, base_model=current.base_model,
            payload_sha256=sha256(encoded.payload), payload_root=encoded.root, payload_bytes=len(encoded.payload),
            nonzeros=encoded.nonzeros, format=PayloadFormat(CODEC_VERSION, encoded.support, encoded.value_type),
            weight=weight, created_us=self._now_us,
        )  # fmt: skip
        return sign_envelope(UPDATE_TYPE, encode_update(update), [key]), update

    def _publish(self, kind: Any, raw: bytes) -> None:
        self._append(self._signed(kind.payload_type, raw))

    def _signed(self, payload_type: str, raw: bytes) -> Envelope:
        return sign_envelope(payload_type, raw, [self._operator])

    def _append(self, envelope: Envelope) -> None:
        content = parse_content(envelope)
        place = self.fold.place(content)
        entry = LogEntry(self._last, self._now_us, place.stream_seq, place.stream_prev, envelope)
        raw = encode_entry(entry)
        void = self.fold.apply(len(self.entries), leaf_hash(raw), entry, content)
        assert void is None, "what is written here has effect"
        self.entries.append(raw)
        self._last = leaf_hash(raw)
        self._now_us += 1_000


def _service(role: str) -> SpiffeId:
    return parse_spiffe_id(f"spiffe://{_DOMAIN}/service/{role}/one")


def _terms(updates: int, model: ModelTerms, mask: MaskTerms | None) -> dict[str, Any]:
    """Members of terms that allow what is sent."""
    return {
        "segment": _SEGMENT, "sensitivity": 1, "groups": ["people"], "model": model, "value_types": ["int8"],
        "limits": UpdateLimits(
            payload_bytes_max=2**30, nonzeros_max=model.manifest.coordinates, norm_max=2**62,
            magnitude_max=VALUE_MAX, weight_max=WEIGHT_SUM_MAX // updates,
        ),
        "round_terms": RoundTerms(duration_us=_DAY_US, cohort_min=2, cohort_max=updates, rounds_max=100),
        "support_modes": ["free"] if mask is None else ["agreed", "free"], "mask": mask,
        "evidence_days": 1, "retention_days": 30,
    }  # fmt: skip

