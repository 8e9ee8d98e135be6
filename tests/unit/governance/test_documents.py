from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sfrl_secure.crypto.envelope import envelope_to_json
from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.aggregation_terms import MaskTerms
from sfrl_secure.governance.documents import (
    DOCUMENT_TYPES,
    GenesisDocument,
    JoinDocument,
    KeyRevocation,
    Order,
    ParticipantRecord,
    RootDocument,
    RulesDocument,
    ServicesDocument,
    parse_document,
)
from sfrl_secure.governance.terms import LeakageBound, LeakageTerms, QuotaTerms, SegmentTerms
from sfrl_secure.ids import ZERO_DIGEST, parse_spiffe_id, sha256

KINDS = (
    "root", "genesis", "services", "rules", "segment-terms", "participant", "join", "key-revocation", "order",
)  # fmt: skip
FORMS = (*KINDS, "agreed-segment-terms")
"""Each kind, and terms with all that only the agreed support mode has."""

Path = tuple[str | int, ...]
Change = Callable[[bytes, Path, object], bytes]

# Keys of these objects are data: any name may stand there, so a missing one is no error of form.
MAPPINGS = {("operators",), ("model", "manifest", "constants")}


def paths_of(value: object, path: Path = ()) -> Iterator[Path]:
    """Every member and item below the top, by path."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in members:
        yield (*path, key)
        yield from paths_of(below, (*path, key))


def at(value: object, path: Path) -> object:
    for step in path:
        value = value[step]
    return value


@pytest.mark.parametrize("kind", KINDS)
def test_a_built_document_parses_back_and_is_named_by_its_bytes(federation, kind: str) -> None:
    raw = federation.raw[kind]
    document = federation.parse(kind, raw)
    assert document.raw == raw
    assert document.digest == sha256(raw)
    assert document.federation_id == federation.id
    assert document.previous == ZERO_DIGEST
    assert document.version == 1


def test_each_document_knows_its_series(federation) -> None:
    series = [federation.parse(kind, federation.raw[kind]).series for kind in KINDS]
    assert series == [
        ("root", ""), ("genesis", ""), ("services", ""), ("rules", ""),
        ("segment-terms", "rocks"), ("participant", "rover-1"), ("join", "rover-1"),
        ("key-revocation", sha256(b"spki").hex()), ("order", "rocks"),
    ]  # fmt: skip


def test_documents_carry_what_was_built(federation) -> None:
    terms = federation.parse("segment-terms", federation.raw["segment-terms"])
    assert isinstance(terms, SegmentTerms)
    assert terms.groups == {"rovers", "orbiters"}
    assert terms.operations == {"fetch", "submit"}
    assert terms.tensors == ("a.bias", "b.weight")
    assert terms.allowed_tensor_indices == {1, 2}
    assert terms.quota == QuotaTerms(window_us=3_600_000_000, updates_max=10, bytes_max=600_000)
    assert terms.leakage == LeakageTerms(
        nonzeros_min=2,
        weight_min=8,
        noise_std_min=3,
        rows=(LeakageBound("b.weight", axis=1, least=2), LeakageBound("b.weight", axis=2, least=1)),
        labels=(LeakageBound("a.bias", axis=0, least=2),),
    )
    assert (terms.model.grid_exponent, terms.model.manifest.constants["ln_centre"]) == (16, (1, -2, 3))
    assert (terms.limits.nonzeros_max, terms.round.cohort_max) == (20, 5)
    assert (terms.value_types, terms.support_modes) == ({"fp32", "int8"}, {"free"})
    assert (terms.mask, terms.relay_groups) == (None, frozenset())
    agreed = federation.parse("agreed-segment-terms", federation.raw["agreed-segment-terms"])
    assert isinstance(agreed, SegmentTerms)
    assert (agreed.mask, agreed.support_modes) == (MaskTerms(sha256(b"mask"), 7), {"agreed", "free"})
    assert agreed.relay_groups == {"lorries", "orbiters"}
    assert (terms.evidence_days, terms.retention_days) == (30, 90)
    record = federation.parse("participant", federation.raw["participant"])
    assert isinstance(record, ParticipantRecord)
    assert record.key == federation.rover.public_key
    assert (record.name, record.clearance, record.state) == ("rover-1", 5, "active")
    root = federation.root
    assert root.operators == {name: key.public_key for name, key in federation.operators.items()}
    assert root.thresholds == federation.thresholds
    assert (root.trust_domain, root.log_host) == ("mars.example", "log.mars.example")
    assert root.expires_us == federation.until_us
    genesis = federation.genesis
    assert (genesis.root, genesis.log_keys, genesis.origin) == (root, federation.log_keys, federation.origin)
    assert genesis.expires_us == 2**63 - 1
    rules = federation.parse("rules", federation.raw["rules"])
    assert isinstance(rules, RulesDocument)
    assert rules.cedar == json.loads(federation.raw["rules"])["cedar"]
    services = federation.parse("services", federation.services(key_exchange=["X25519MLKEM768"]))
    assert isinstance(services, ServicesDocument)
    assert services.key_exchange == {"X25519MLKEM768"}
    join = federation.parse("join", federation.raw["join"])
    assert isinstance(join, JoinDocument)
    assert join.join_key == federation.token.public_key
    assert (join.name, join.clearance, join.groups) == ("rover-1", 5, {"rovers"})
    assert join.record_expires_us == federation.until_us
    revocation = federation.parse("key-revocation", federation.raw["key-revocation"])
    assert isinstance(revocation, KeyRevocation)
    assert revocation.spki_sha256 == sha256(b"spki")
    assert (revocation.spiffe_id.name, revocation.reason) == ("rover-1", "lost with the arm")


def test_a_service_is_found_by_its_key_and_an_auditor_is_not(federation) -> None:
    services = federation.parse("services", federation.raw["services"])
    assert isinstance(services, ServicesDocument)
    found = services.service_by_key(federation.gatekeeper.public_key.key_id)
    assert found == services.services[0]
    assert services.service_by_key(federation.auditor.public_key.key_id) is None
    assert services.auditor_by_key(federation.auditor.public_key.key_id) == services.auditors[0]
    assert services.auditor_by_key(federation.gatekeeper.public_key.key_id) is None


def test_a_signatory_is_found_by_its_whole_spiffe_id(federation) -> None:
    services = federation.parse("services", federation.raw["services"])
    assert isinstance(services, ServicesDocument)
    for named in (services.services[0], services.auditors[0]):
        assert services.signatory(named.spiffe_id) == named
    assert services.signatory(parse_spiffe_id("spiffe://mars.example/service/aggregator/g1")) is None
    assert services.signatory(parse_spiffe_id("spiffe://venus.example/auditor/ada")) is None


@pytest.mark.parametrize("kind", FORMS)
def test_documents_are_values_that_can_be_keys(federation, kind: str) -> None:
    first, second = (federation.parse(kind, federation.raw[kind]) for _ in range(2))
    assert first == second
    assert hash(first) == hash(second)


@pytest.mark.parametrize("kind", FORMS)
def test_every_missing_key_is_refused(federation, change: Change, kind: str) -> None:
    raw = federation.raw[kind]
    removed = [p for p in paths_of(json.loads(raw)) if isinstance(p[-1], str) and p[:-1] not in MAPPINGS]
    assert removed
    for path in removed:
        with pytest.raises(MalformedError):
            federation.parse(kind, change(raw, path, ...))


@pytest.mark.parametrize("kind", FORMS)
def test_every_object_refuses_an_unknown_key(federation, change: Change, kind: str) -> None:
    raw = federation.raw[kind]
    document = json.loads(raw)
    objects = [()] + [p for p in paths_of(document) if isinstance(at(document, p), dict)]
    for path in objects:
        with pytest.raises(MalformedError):
            federation.parse(kind, change(raw, (*path, "unknown"), 1))


@pytest.mark.parametrize("kind", FORMS)
def test_every_value_of_another_type_is_refused(federation, change: Change, kind: str) -> None:
    raw = federation.raw[kind]
    document = json.loads(raw)
    others = (None, True, 1, "x", [], {})
    for path in paths_of(document):
        for other in others:
            # type, not isinstance: true must not pass for 1.
            if type(other) is not type(at(document, path)):
                with pytest.raises(MalformedError):
                    federation.parse(kind, change(raw, path, other))


@pytest.mark.parametrize("kind", KINDS)
def test_a_document_is_not_taken_for_another_kind(federation, kind: str) -> None:
    for other in KINDS:
        if other != kind:
            with pytest.raises(MalformedError):
                federation.parse(other, federation.raw[kind])


@pytest.mark.parametrize("payload_type", ["", "application/json", "application/vnd.sfrl.statement.v1", "rules"])
def test_other_payload_types_are_no_documents(federation, payload_type: str) -> None:
    with pytest.raises(MalformedError, match="payload type"):
        parse_document(payload_type, federation.raw["rules"])


def test_a_mask_is_there_exactly_where_agreed_support_is_allowed(federation, change: Change) -> None:
    agreed, free = federation.raw["agreed-segment-terms"], federation.raw["segment-terms"]
    mask = json.loads(agreed)["mask"]
    for modes in (["agreed"], ["agreed", "dense"], ["agreed", "dense", "free"]):
        federation.parse("segment-terms", change(agreed, ("support_modes",), modes))
        with pytest.raises(MalformedError, match="exactly where"):
            federation.parse("segment-terms", change(change(agreed, ("support_modes",), modes), ("mask",), None))
    for modes in (["free"], ["dense"], ["dense", "free"]):
        federation.parse("segment-terms", change(free, ("support_modes",), modes))
        with pytest.raises(MalformedError, match="exactly where"):
            federation.parse("segment-terms", change(change(free, ("support_modes",), modes), ("mask",), mask))


def test_a_mask_has_no_more_coordinates_than_an_update_may_have_values(federation, change: Change) -> None:
    raw = change(federation.raw["agreed-segment-terms"], ("limits", "nonzeros_max"), 9)
    federation.parse("segment-terms", change(raw, ("mask", "nonzeros"), 9))
    with pytest.raises(MalformedError, match="from 1 to 9"):
        federation.parse("segment-terms", change(raw, ("mask", "nonzeros"), 10))


def test_a_spiffe_id_stands_once_and_in_its_own_list(federation, change: Change) -> None:
    services = json.loads(federation.raw["services"])["services"]
    with pytest.raises(MalformedError, match="twice"):
        federation.parse("services", change(federation.raw["services"], ("services",), services * 2))
    small = {"suite": "ed25519", "public_key": federation.auditor.public_key.raw.hex()}
    many = [small | {"spiffe_id": f"spiffe://mars.example/service/gatekeeper/g{i}"} for i in range(65)]
    federation.parse("services", change(federation.raw["services"], ("services",), many[:64]))
    with pytest.raises(MalformedError, match="1 to 64"):
        federation.parse("services", change(federation.raw["services"], ("services",), many))


def test_more_than_64_operators_are_refused(federation, change: Change) -> None:
    (operator,) = [v for name, v in json.loads(federation.root_raw)["operators"].items() if name == "bob"]
    federation.parse("root", change(federation.root_raw, ("operators",), {f"op{i}": operator for i in range(64)}))
    with pytest.raises(MalformedError):
        federation.parse("root", change(federation.root_raw, ("operators",), {f"op{i}": operator for i in range(65)}))


def test_genesis_wants_its_origins_two_keys_in_order(federation, change: Change) -> None:
    first, second = federation.log_keys
    elsewhere = first.replace("log.", "lag.")
    for keys in ([second, first], [first, first], [first], [first, second, first], [elsewhere, second]):
        with pytest.raises(MalformedError):
            federation.parse("genesis", change(federation.raw["genesis"], ("log_keys",), keys))


def test_genesis_holds_the_envelope_of_a_root_and_of_nothing_else(federation, change: Change) -> None:
    envelope = federation.sign(RulesDocument.payload_type, federation.root_raw, "ann")
    text = base64.b64encode(envelope_to_json(envelope)).decode()
    with pytest.raises(MalformedError, match="root document"):
        federation.parse("genesis", change(federation.raw["genesis"], ("root",), text))


def test_base64_with_stray_bits_is_refused(federation, change: Change) -> None:
    text = json.loads(federation.raw["genesis"])["root"]
    padded = base64.b64encode(base64.b64decode(text) + b" " * (-len(base64.b64decode(text)) % 3 + 1)).decode()
    assert padded.endswith("==")
    federation.parse("genesis", change(federation.raw["genesis"], ("root",), padded))
    stray = padded[:-3] + chr(ord(padded[-3]) + 1) + "=="
    assert base64.b64decode(stray) == base64.b64decode(padded)
    with pytest.raises(MalformedError, match="stray"):
        federation.parse("genesis", change(federation.raw["genesis"], ("root",), stray))


@pytest.mark.parametrize("kind", KINDS)
def test_documents_are_strict_json(federation, kind: str) -> None:
    raw = federation.raw[kind]
    first = raw.index(b'"type"')
    adversaries = {
        "a repeated key": raw[:first] + f'"type": "{kind}", '.encode() + raw[first:],
        "left-over bytes": raw + b"{}",
        "a byte order mark": b"\xef\xbb\xbf" + raw,
        "a list": b"[" + raw + b"]",
        "a fraction": raw.replace(b": 1,", b": 1.0,", 1),
        "an exponent": raw.replace(b": 1,", b": 1e0,", 1),
        "not a number": raw.replace(b": 1,", b": NaN,", 1),
        "UTF-16": raw.decode().encode("utf-16"),
        "a comment": raw.replace(b"{", b"{ /**/", 1),
        "nothing": b"",
        "cut short": raw[:-1],
        "too long": raw[:-1] + b" " * 60_000 + b"}",
        "a lone surrogate": raw.replace(f'"{kind}"'.encode(), b'"\\ud800"', 1),
        "depth": raw.replace(f'"{kind}"'.encode(), b"[" * 5_000 + b"]" * 5_000, 1),
    }
    for name, damaged in adversaries.items():
        assert damaged != raw, name
        try:
            federation.parse(kind, damaged)
        except MalformedError:
            continue
        pytest.fail(f"{name} was taken")


def test_order_and_spacing_are_free_and_make_another_document(federation) -> None:
    raw = federation.raw["participant"]
    again = json.dumps(dict(reversed(json.loads(raw).items())), separators=(",", ":")).encode()
    first, second = federation.parse("participant", raw), federation.parse("participant", again)
    assert first.digest != second.digest
    assert isinstance(first, ParticipantRecord)
    assert isinstance(second, ParticipantRecord)
    assert (first.name, first.key, first.groups) == (second.name, second.key, second.groups)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(payload_type=st.sampled_from(sorted(DOCUMENT_TYPES)), raw=st.binary(max_size=64))
def test_arbitrary_bytes_are_malformed_and_nothing_else(payload_type: str, raw: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_document(payload_type, raw)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_changed_value_parses_or_is_malformed(federation, change: Change, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(FORMS))
    raw = federation.raw[kind]
    path = data.draw(st.sampled_from(sorted(paths_of(json.loads(raw)), key=str)))
    try:
        parsed = federation.parse(kind, change(raw, path, data.draw(JSON_VALUES)))
    except MalformedError:
        return
    assert parsed.payload_type in DOCUMENT_TYPES


def test_every_kind_has_its_payload_type() -> None:
    kinds = (
        RootDocument, GenesisDocument, ServicesDocument, RulesDocument, SegmentTerms, ParticipantRecord, JoinDocument,
        KeyRevocation, Order,
    )  # fmt: skip
    assert {kind.payload_type for kind in kinds} == DOCUMENT_TYPES
    assert len(DOCUMENT_TYPES) == len(KINDS)
