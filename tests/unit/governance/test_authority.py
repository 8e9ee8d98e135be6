"""The attacks of the TUF specification, section 1.5.2, as far as they concern documents, and our rules beside them."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from sfrl_secure.crypto.envelope import Envelope, Signature, sign_envelope
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.crypto.possession import prove_possession
from sfrl_secure.errors import DeniedError, MalformedError
from sfrl_secure.governance.authority import (
    KeyOwners,
    check_document_authority,
    check_succession,
    threshold_of,
)
from sfrl_secure.governance.build import build_root
from sfrl_secure.governance.documents import Document, Signatory, Thresholds
from sfrl_secure.governance.manifest import ModelManifest, TensorSpec
from sfrl_secure.governance.orders import (
    AcceptTarget,
    ExcludeTarget,
    NoTarget,
    OrderAction,
    OrderTarget,
    OverrideTarget,
    ReaggregateTarget,
    RollbackTarget,
)
from sfrl_secure.governance.root import parse_root
from sfrl_secure.governance.terms import ModelTerms
from sfrl_secure.ids import parse_spiffe_id, sha256

SERIES = ("services", "rules", "segment-terms", "participant", "join", "order")
Build = Callable[..., Document]
TARGETS: dict[OrderAction, OrderTarget] = {
    OrderAction.HALT: NoTarget(),
    OrderAction.RESUME: NoTarget(),
    OrderAction.EXCLUDE: ExcludeTarget(sha256(b"update")),
    OrderAction.ROLLBACK: RollbackTarget(sha256(b"model")),
    OrderAction.REAGGREGATE: ReaggregateTarget(7, ()),
    OrderAction.ACCEPT: AcceptTarget(41, "late"),
    OrderAction.OVERRIDE: OverrideTarget(sha256(b"decision"), 2),
}


def reason_of(refused: pytest.ExceptionInfo[DeniedError]) -> str:
    return refused.value.reason


def authority_of(federation, document: Document, *names: str) -> tuple[str, ...]:
    envelope = federation.sign(document.payload_type, document.raw, *names)
    return check_document_authority(document, envelope, federation.root)


@pytest.mark.parametrize("kind", SERIES)
def test_a_threshold_of_operators_publishes(federation, build: Build, kind: str) -> None:
    assert authority_of(federation, build(kind), "eve", "ann") == ("ann", "eve")
    assert authority_of(federation, build(kind), "ann", "bob", "eve") == ("ann", "bob", "eve")


@pytest.mark.parametrize("kind", SERIES)
def test_a_missing_signature_is_refused(federation, build: Build, kind: str) -> None:
    for name in federation.operators:
        with pytest.raises(DeniedError) as refused:
            authority_of(federation, build(kind), name)
        assert reason_of(refused) == "threshold"


def test_each_type_has_its_own_threshold(build: Build) -> None:
    key = SigningKey.generate("ed25519").public_key
    root = parse_root(
        build_root(
            expires_us=1,
            trust_domain="m",
            log_host="l",
            operators=dict.fromkeys(("a", "b", "c", "d"), key),
            thresholds=Thresholds(root=4, governance=3, enrolment=2, revocation=1),
        )
    )
    assert threshold_of(root, root) == 4
    assert [threshold_of(build(kind), root) for kind in SERIES] == [3, 3, 3, 2, 2, 3]
    for path, needed in (("participant/a", 1), ("auditor/a", 1), ("operator/a", 3), ("service/gatekeeper/a", 3),
                         ("service/aggregator/a", 3), ("service/audit_log/a", 3), ("service/verifier/a", 3)):
        revocation = build("key-revocation", spiffe_id=parse_spiffe_id(f"spiffe://mars.example/{path}"))
        assert threshold_of(revocation, root) == needed, path
    for action in OrderAction:
        order = build("order", action=action, target=TARGETS[action])
        assert threshold_of(order, root) == (1 if action is OrderAction.HALT else 3), action
    assert threshold_of(build("participant", state="suspended"), root) == 2
    assert threshold_of(build("participant", state="revoked"), root) == 1


def test_one_operator_revokes_where_two_enrol(federation, build: Build) -> None:
    revoked = build("participant", version=2, previous=sha256(b"x"), state="revoked")
    assert authority_of(federation, revoked, "bob") == ("bob",)
    with pytest.raises(DeniedError):
        authority_of(federation, build("participant", state="suspended"), "bob")


def test_one_operator_halts_and_revokes_a_key_where_two_resume(federation, build: Build) -> None:
    halt = build("order", action=OrderAction.HALT, target=NoTarget())
    resume = build("order", action=OrderAction.RESUME, target=NoTarget())
    assert authority_of(federation, halt, "bob") == ("bob",)
    assert authority_of(federation, build("key-revocation"), "eve") == ("eve",)
    with pytest.raises(DeniedError):
        authority_of(federation, resume, "bob")


def test_one_operator_does_not_count_twice(federation, build: Build) -> None:
    document = build("rules")
    once = federation.sign(document.payload_type, document.raw, "bob").signatures
    with pytest.raises(MalformedError):
        Envelope(document.payload_type, document.raw, once * 2)
    # A second signature by the same key under another key id is a stranger's.
    renamed = Signature(sha256(b"another id"), once[0].suite, once[0].value)
    both = tuple(sorted((*once, renamed), key=lambda s: s.key_id))
    with pytest.raises(DeniedError) as refused:
        check_document_authority(document, Envelope(document.payload_type, document.raw, both), federation.root)
    assert reason_of(refused) == "threshold"


def test_two_operators_with_one_key_are_no_threshold(federation, build: Build) -> None:
    key = federation.operators["bob"]
    root = parse_root(
        build_root(
            expires_us=federation.until_us,
            trust_domain="mars.example",
            log_host="l",
            operators={"bob": key.public_key, "rob": key.public_key},
            thresholds=Thresholds(1, 1, 1, 1),
        )
    )
    document = build("rules")
    envelope = sign_envelope(document.payload_type, document.raw, [key])
    with pytest.raises(DeniedError):
        check_document_authority(document, envelope, root)
    with pytest.raises(DeniedError) as refused:
        KeyOwners().check(root)
    assert reason_of(refused) == "key_reused"


def test_a_strangers_signature_spoils_a_threshold_that_is_met(federation, build: Build) -> None:
    document = build("rules")
    keys = [*federation.operators.values(), SigningKey.generate("ed25519")]
    with pytest.raises(DeniedError) as refused:
        check_document_authority(document, sign_envelope(document.payload_type, document.raw, keys), federation.root)
    assert reason_of(refused) == "threshold"


def test_an_operators_bad_signature_spoils_a_threshold_that_is_met(federation, build: Build) -> None:
    document = build("rules")
    good = federation.sign(document.payload_type, document.raw, "ann", "bob", "eve")
    for position, signature in enumerate(good.signatures):
        value = bytes([signature.value[0] ^ 1]) + signature.value[1:]
        damaged = list(good.signatures)
        damaged[position] = Signature(signature.key_id, signature.suite, value)
        envelope = Envelope(good.payload_type, good.statement, tuple(damaged))
        with pytest.raises(DeniedError):
            check_document_authority(document, envelope, federation.root)


def test_signatures_over_one_document_publish_no_other(federation, build: Build) -> None:
    document, other = build("rules"), build("rules", expires_us=federation.until_us + 1)
    envelope = federation.sign(document.payload_type, document.raw, "ann", "bob")
    with pytest.raises(DeniedError) as refused:
        check_document_authority(other, envelope, federation.root)
    assert reason_of(refused) == "threshold"
    moved = Envelope(document.payload_type, other.raw, envelope.signatures)
    with pytest.raises(DeniedError):
        check_document_authority(other, moved, federation.root)


def test_signatures_under_another_payload_type_publish_nothing(federation, build: Build) -> None:
    document = build("rules")
    envelope = federation.sign("application/vnd.sfrl.services.v1+json", document.raw, "ann", "bob")
    with pytest.raises(DeniedError):
        check_document_authority(document, envelope, federation.root)
    renamed = Envelope(document.payload_type, document.raw, envelope.signatures)
    with pytest.raises(DeniedError):
        check_document_authority(document, renamed, federation.root)


def test_a_key_of_another_holder_is_not_enrolled(federation, build: Build) -> None:
    stranger = SigningKey.generate("ed25519")
    wrong = [
        prove_possession(stranger, federation.id, "rover-1"),
        prove_possession(federation.rover, federation.id, "rover-2"),
        prove_possession(federation.rover, sha256(b"another federation"), "rover-1"),
        prove_possession(federation.rover, federation.id, "rover-1", sha256(b"tls")),
        b"",
    ]
    for possession in wrong:
        with pytest.raises(DeniedError) as refused:
            authority_of(federation, build("participant", possession=possession), "ann", "bob")
        assert reason_of(refused) == "possession"


def test_services_and_auditors_are_of_our_trust_domain(federation, build: Build) -> None:
    ours, theirs = "spiffe://mars.example/service/gatekeeper/g", "spiffe://venus.example/service/gatekeeper/g"
    key = federation.gatekeeper.public_key
    authority_of(federation, build("services", services=[Signatory(parse_spiffe_id(ours), key)]), "ann", "bob")
    for changes in (
        {"services": [Signatory(parse_spiffe_id(theirs), key)]},
        {"auditors": [Signatory(parse_spiffe_id("spiffe://venus.example/auditor/a"), key)]},
    ):
        with pytest.raises(DeniedError) as refused:
            authority_of(federation, build("services", **changes), "ann", "bob")
        assert reason_of(refused) == "trust_domain"


def test_rules_that_are_not_cedar_are_denied_behind_the_threshold(federation) -> None:
    members = json.loads(federation.rules()) | {"cedar": '@id("a") permit (principal, action, planet);'}
    document = federation.parse("rules", json.dumps(members).encode())
    with pytest.raises(DeniedError) as refused:
        authority_of(federation, document, "ann", "bob")
    assert reason_of(refused) == "rules"
    with pytest.raises(DeniedError) as refused:
        authority_of(federation, document, "ann")
    assert reason_of(refused) == "threshold"


@pytest.mark.parametrize("kind", SERIES)
def test_versions_follow_each_other(federation, build: Build, kind: str) -> None:
    first = build(kind)
    check_succession(first, None, federation.now_us)
    second = build(kind, version=2, previous=first.digest)
    check_succession(second, first, federation.now_us)
    check_succession(build(kind, version=3, previous=second.digest), second, federation.now_us)


@pytest.mark.parametrize("kind", SERIES)
def test_a_rollback_is_refused(federation, build: Build, kind: str) -> None:
    first = build(kind)
    second = build(kind, version=2, previous=first.digest)
    for older in (first, second, build(kind, version=1, previous=second.digest)):
        with pytest.raises(DeniedError) as refused:
            check_succession(older, second, federation.now_us)
        assert reason_of(refused) == "version"


@pytest.mark.parametrize("kind", SERIES)
def test_a_gap_in_the_versions_is_refused(federation, build: Build, kind: str) -> None:
    first = build(kind)
    for document, before in ((build(kind, version=2), None), (build(kind, version=3, previous=first.digest), first)):
        with pytest.raises(DeniedError) as refused:
            check_succession(document, before, federation.now_us)
        assert reason_of(refused) == "version"


@pytest.mark.parametrize("kind", SERIES)
def test_a_version_of_another_history_is_refused(federation, build: Build, kind: str) -> None:
    first, twin = build(kind), build(kind, expires_us=federation.until_us + 1)
    with pytest.raises(DeniedError) as refused:
        check_succession(build(kind, version=2, previous=twin.digest), first, federation.now_us)
    assert reason_of(refused) == "previous"
    with pytest.raises(DeniedError) as refused:
        check_succession(build(kind, previous=twin.digest), None, federation.now_us)
    assert reason_of(refused) == "previous"


@pytest.mark.parametrize("kind", SERIES)
def test_a_freeze_ends_with_the_expiry(federation, build: Build, kind: str) -> None:
    document = build(kind)
    check_succession(document, None, federation.until_us - 1)
    for log_time_us in (federation.until_us, federation.until_us + 1):
        with pytest.raises(DeniedError) as refused:
            check_succession(document, None, log_time_us)
        assert reason_of(refused) == "expired"


def test_an_expired_document_may_be_replaced(federation, build: Build) -> None:
    old = build("rules", expires_us=1)
    check_succession(build("rules", version=2, previous=old.digest), old, federation.now_us)


def test_later_terms_keep_the_model(federation, build: Build) -> None:
    first = build("segment-terms")
    model = first.model
    check_succession(
        build("segment-terms", version=2, previous=first.digest, sensitivity=9), first, federation.now_us
    )
    tensors = model.manifest.tensors
    others = [
        ModelTerms(model.manifest, 17, model.initial),
        ModelTerms(model.manifest, 16, sha256(b"other")),
        ModelTerms(ModelManifest(tensors, 17, model.manifest.constants), 16, model.initial),
        ModelTerms(ModelManifest(tensors, 16, {"ln_centre": (1, -2, 4)}), 16, model.initial),
        ModelTerms(
            ModelManifest((TensorSpec("a.weight", (3, 4), "int32"), *tensors[1:]), 16, model.manifest.constants),
            16,
            model.initial,
        ),
    ]
    for other in others:
        changed = build("segment-terms", version=2, previous=first.digest, model=other)
        with pytest.raises(DeniedError) as refused:
            check_succession(changed, first, federation.now_us)
        assert reason_of(refused) == "model_changed"


def test_the_model_is_what_it_says_and_not_how_it_is_spelled(federation, build: Build) -> None:
    first = build("segment-terms")
    members = json.loads(federation.terms(version=2, previous=first.digest))
    members["model"] = dict(reversed(members["model"].items()))
    check_succession(federation.parse("segment-terms", json.dumps(members).encode()), first, federation.now_us)


def test_nobody_is_revoked_before_being_recorded(federation, build: Build) -> None:
    """One operator may revoke alone; it must not bar names that nobody bears yet."""
    with pytest.raises(DeniedError) as refused:
        check_succession(build("participant", state="revoked"), None, federation.now_us)
    assert reason_of(refused) == "revoked"


def test_suspension_ends_and_revocation_does_not(federation, build: Build) -> None:
    first = build("participant", state="suspended")
    check_succession(build("participant", version=2, previous=first.digest), first, federation.now_us)
    revoked = build("participant", version=2, previous=first.digest, state="revoked")
    check_succession(revoked, first, federation.now_us)
    for state in ("active", "suspended", "revoked"):
        later = build("participant", version=3, previous=revoked.digest, state=state)
        with pytest.raises(DeniedError) as refused:
            check_succession(later, revoked, federation.now_us)
        assert reason_of(refused) == "revoked"
