"""Root rotation: the operators of the root before and those of the new one, each counted for itself."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import pytest

from sfrl_secure.crypto.envelope import Envelope, Signature, sign_envelope
from sfrl_secure.crypto.keys import PublicKey, SigningKey
from sfrl_secure.errors import DeniedError, MalformedError
from sfrl_secure.governance.authority import check_document_authority, check_succession
from sfrl_secure.governance.build import build_genesis, build_root
from sfrl_secure.governance.documents import RootDocument, Thresholds
from sfrl_secure.governance.root import parse_root

UNTIL_US = 2**62
KEYS = {
    name: SigningKey.generate("ed25519+ml-dsa-44" if name == "ann" else "ed25519")
    for name in ("ann", "bob", "cat", "dan", "eve", "bob-new", "mallory")
}
OLD = ("ann", "bob", "cat")
"""Of the root before, two must sign."""


def root_of(operators: Mapping[str, PublicKey], threshold: int, before: RootDocument | None = None) -> RootDocument:
    changes = (
        {}
        if before is None
        else {"federation_id": before.federation_id, "version": before.version + 1, "previous": before.digest}
    )
    return parse_root(
        build_root(
            expires_us=UNTIL_US,
            trust_domain="mars.example",
            log_host="log.mars.example",
            operators=operators,
            thresholds=Thresholds(threshold, 1, 1, 1),
            **changes,
        )
    )


def named(*names: str) -> dict[str, PublicKey]:
    return {name: KEYS[name].public_key for name in names}


FIRST = root_of(named(*OLD), 2)


def judge(document: RootDocument, before: RootDocument, *signers: str) -> tuple[str, ...] | str:
    """Names of the operators who signed, or the reason of the refusal."""
    envelope = sign_envelope(document.payload_type, document.raw, [KEYS[name] for name in signers])
    try:
        return check_document_authority(document, envelope, before)
    except DeniedError as denial:
        return denial.reason


def test_every_set_of_signers_is_judged_by_both_thresholds() -> None:
    """The whole space: who signs, of the old, of the new, of both and of neither."""
    new = ("cat", "dan", "eve")
    document = root_of(named(*new), 2, FIRST)
    people = (*sorted({*OLD, *new}), "mallory")
    passed = 0
    for count in range(1, len(people) + 1):
        for signers in combinations(people, count):
            enough = len({*signers} & {*OLD}) >= 2 and len({*signers} & {*new}) >= 2 and "mallory" not in signers
            assert judge(document, FIRST, *signers) == (tuple(sorted(signers)) if enough else "threshold"), signers
            passed += enough
    # With cat: one or both of ann and bob, one or both of dan and eve. Without: all four.
    assert passed == 3 * 3 + 1


def test_an_operator_with_a_new_key_counts_for_each_root_by_the_key_that_it_names() -> None:
    changed = {**named("ann", "cat"), "bob": KEYS["bob-new"].public_key}
    document = root_of(changed, 3, FIRST)
    assert judge(document, FIRST, "ann", "bob", "bob-new", "cat") == ("ann", "bob", "cat")
    assert judge(document, FIRST, "ann", "bob", "cat") == "threshold"
    # The new key is no operator's of the root before: ann alone is left there.
    lower = root_of(changed, 2, FIRST)
    assert judge(lower, FIRST, "ann", "bob-new") == "threshold"
    assert judge(lower, FIRST, "ann", "bob", "bob-new") == ("ann", "bob")


def test_a_root_cannot_lower_its_own_way_in() -> None:
    document = root_of(named("mallory"), 1, FIRST)
    assert judge(document, FIRST, "mallory") == "threshold"
    assert judge(document, FIRST, "ann", "mallory") == "threshold"
    assert judge(document, FIRST, "ann", "bob", "mallory") == ("ann", "bob", "mallory")


def test_each_signature_of_either_side_has_to_hold() -> None:
    document = root_of(named("cat", "dan", "eve"), 2, FIRST)
    signers = ("ann", "bob", "cat", "dan", "eve")
    good = sign_envelope(document.payload_type, document.raw, [KEYS[name] for name in signers])
    assert check_document_authority(document, good, FIRST) == signers
    for position, signature in enumerate(good.signatures):
        damaged = list(good.signatures)
        damaged[position] = Signature(
            signature.key_id, signature.suite, signature.value[:-1] + bytes([signature.value[-1] ^ 1])
        )
        with pytest.raises(DeniedError) as refused:
            check_document_authority(document, Envelope(good.payload_type, good.statement, tuple(damaged)), FIRST)
        assert refused.value.reason == "threshold"


def test_a_hybrid_operator_does_not_sign_with_the_half_of_its_key() -> None:
    document = root_of(named("ann", "bob"), 2, FIRST)
    good = sign_envelope(document.payload_type, document.raw, [KEYS["ann"], KEYS["bob"]])
    assert check_document_authority(document, good, FIRST) == ("ann", "bob")
    stripped = tuple(
        Signature(signature.key_id, "ed25519", signature.value[:64]) for signature in good.signatures
    )
    with pytest.raises(DeniedError):
        check_document_authority(document, Envelope(good.payload_type, good.statement, stripped), FIRST)


def test_two_operators_of_a_new_root_share_no_key() -> None:
    document = root_of({**named("ann", "bob"), "rob": KEYS["bob"].public_key}, 2, FIRST)
    assert judge(document, FIRST, "ann", "bob") == "threshold"


@pytest.mark.parametrize("key", ["trust_domain", "log_host"])
def test_trust_domain_and_log_stay(federation, build, key: str) -> None:
    document = build("next-root", **{key: "venus.example"})
    envelope = federation.sign(document.payload_type, document.raw, *federation.operators)
    with pytest.raises(DeniedError) as refused:
        check_document_authority(document, envelope, federation.root)
    assert refused.value.reason == "root_changed"


def test_a_root_follows_the_one_in_force(federation, build) -> None:
    second = build("next-root")
    check_succession(second, federation.root, federation.now_us)
    third = build("next-root", version=3, previous=second.digest)
    check_succession(third, second, federation.now_us)
    for document, before, reason in (
        (federation.root, federation.root, "version"),
        (second, second, "version"),
        (third, federation.root, "version"),
        (build("next-root", previous=second.digest), federation.root, "previous"),
        (build("next-root", expires_us=federation.now_us), federation.root, "expired"),
    ):
        with pytest.raises(DeniedError) as refused:
            check_succession(document, before, federation.now_us)
        assert refused.value.reason == reason


def test_an_expired_root_is_followed_by_one_that_is_not(federation, build) -> None:
    second = build("next-root", expires_us=federation.until_us + 10)
    check_succession(second, federation.root, federation.until_us + 5)


def test_genesis_holds_version_1_and_no_later_root(federation) -> None:
    raw = federation.next_root()
    envelope = federation.sign(RootDocument.payload_type, raw, *federation.operators)
    with pytest.raises(MalformedError):
        build_genesis(root_envelope=envelope, log_keys=federation.log_keys)


def test_the_federation_id_is_the_first_roots_digest_and_every_later_one_names_it(federation) -> None:
    second = parse_root(federation.next_root())
    assert federation.root.federation_id == federation.root.digest == second.federation_id
    assert second.digest != second.federation_id
