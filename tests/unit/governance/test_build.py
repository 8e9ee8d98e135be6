from __future__ import annotations

import json
from typing import Any

import pytest

from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.aggregation_terms import MaskTerms
from sfrl_secure.governance.build import build_genesis, build_root
from sfrl_secure.governance.documents import RootDocument, Thresholds
from sfrl_secure.governance.terms import LeakageBound, LeakageTerms, QuotaTerms, RoundTerms, SegmentTerms
from sfrl_secure.ids import sha256


def test_the_same_arguments_give_the_same_bytes(federation) -> None:
    assert federation.terms(groups=["b", "a"]) == federation.terms(groups=["a", "b"])
    assert federation.terms(relay_groups=["b", "a"]) == federation.terms(relay_groups={"a", "b"})
    modes = {"support_modes": ["dense", "agreed"], "mask": MaskTerms(sha256(b"mask"), 7)}
    assert federation.terms(**modes) == federation.terms(**{**modes, "support_modes": ["agreed", "dense"]})
    assert federation.participant(groups=["b", "a"]) == federation.participant(groups={"a", "b"})
    assert federation.rules() == federation.rules()


def test_documents_are_text_that_people_can_read(federation) -> None:
    for kind, raw in federation.raw.items():
        lines = raw.decode("ascii").splitlines()
        assert lines[1] == f' "type": "{kind.removeprefix("next-").removeprefix("agreed-").removeprefix("changing-")}",'
        assert len(lines) > 5


def test_terms_allow_all_tensors_unless_they_name_some(federation) -> None:
    terms = federation.parse("segment-terms", federation.terms(tensors=None))
    assert isinstance(terms, SegmentTerms)
    assert terms.tensors == ("a.weight", "a.bias", "b.weight")


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("terms", {"sensitivity": -1}),
        ("terms", {"groups": []}),
        ("terms", {"round_terms": RoundTerms(60_000_000, 6, 5, 100)}),
        ("terms", {"operations": ["delete"]}),
        ("terms", {"evidence_days": 1.5}),
        ("terms", {"evidence_days": float("nan")}),
        ("terms", {"evidence_days": {1}}),
        ("participant", {"state": "gone"}),
        ("participant", {"reason": "\ud800"}),
        ("participant", {"name": "Rover"}),
        ("services", {"services": []}),
        ("rules", {"cedar": "permit (principal, action, resource);"}),
        ("rules", {"version": 0}),
        ("terms", {"leakage": LeakageTerms(1, 1, 0, (LeakageBound("a.bias", 1, 1),), ())}),
        ("terms", {"quota": QuotaTerms(1, 1, 1)}),
        ("terms", {"support_modes": ["agreed"]}),
        ("terms", {"mask": MaskTerms(sha256(b"mask"), 7)}),
        ("terms", {"support_modes": ["agreed"], "mask": MaskTerms(sha256(b"mask"), 21)}),
        ("terms", {"support_modes": ["agreed"], "mask": MaskTerms(sha256(b"mask"), 0)}),
        ("terms", {"relay_groups": ["Lorries"]}),
        ("terms", {"relay_groups": ["lorries", "lorries"]}),
        ("services", {"key_exchange": []}),
        ("join", {"name": "Rover"}),
        ("key_revocation", {"reason": "\n"}),
        ("next_root", {"version": 1}),
        ("next_root", {"federation_id": None}),
    ],
)
def test_what_could_have_no_effect_is_not_built(federation, kind: str, changes: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        getattr(federation, kind)(**changes)


def test_a_threshold_that_no_envelope_can_meet_is_not_built() -> None:
    operators = {f"op{i}": SigningKey.generate("ed25519").public_key for i in range(17)}
    given: dict[str, Any] = {"expires_us": 1, "trust_domain": "m", "log_host": "l", "operators": operators}
    build_root(**given, thresholds=Thresholds(16, 16, 16, 16))
    for role in range(4):
        counts = [1, 1, 1, 1]
        counts[role] = 17
        with pytest.raises(MalformedError, match="16 signatures"):
            build_root(**given, thresholds=Thresholds(*counts))


def test_genesis_is_built_from_a_signed_root_and_from_nothing_else(federation) -> None:
    members = json.loads(federation.raw["genesis"])
    assert members["federation_id"] == federation.id.hex()
    assert members["origin"] == federation.origin
    other = federation.sign(RootDocument.payload_type, federation.raw["rules"], "ann")
    with pytest.raises(MalformedError):
        build_genesis(root_envelope=other, log_keys=federation.log_keys)
    mistyped = federation.sign("application/vnd.sfrl.rules.v1+json", federation.root_raw, "ann")
    with pytest.raises(MalformedError):
        build_genesis(root_envelope=mistyped, log_keys=federation.log_keys)
