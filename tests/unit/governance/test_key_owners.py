"""A key id never serves two names: operators, services, auditors, participants and joins share one space."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.errors import DeniedError
from sfrl_secure.governance.authority import KeyOwners
from sfrl_secure.governance.documents import Document, Signatory
from sfrl_secure.ids import parse_spiffe_id

Build = Callable[..., Document]


def test_a_key_never_serves_two_names(federation, build: Build) -> None:
    owners = KeyOwners()
    owners.claim(federation.genesis)
    owners.claim(build("services"))
    owners.claim(build("participant"))
    used = {
        "an operator's": federation.operators["bob"],
        "a service's": federation.gatekeeper,
        "an auditor's": federation.auditor,
        "a participant's": federation.rover,
    }
    for whose, key in used.items():
        taken = build("participant", name="rover-2", key=key.public_key, possession=b"")
        with pytest.raises(DeniedError) as refused:
            owners.check(taken)
        assert refused.value.reason == "key_reused", whose
        service = Signatory(parse_spiffe_id("spiffe://mars.example/service/aggregator/a"), key.public_key)
        with pytest.raises(DeniedError):
            owners.check(build("services", services=[service]))
        auditor = Signatory(parse_spiffe_id("spiffe://mars.example/auditor/other"), key.public_key)
        with pytest.raises(DeniedError):
            owners.check(build("services", auditors=[auditor]))


def test_a_name_keeps_its_key_and_may_change_it(federation, build: Build) -> None:
    owners = KeyOwners()
    owners.claim(build("participant"))
    owners.claim(build("participant", version=2, clearance=6))
    new = SigningKey.generate("ed25519").public_key
    owners.claim(build("participant", key=new, possession=b""))
    owners.claim(build("participant"))
    with pytest.raises(DeniedError):
        owners.check(build("participant", name="rover-2", key=new, possession=b""))


def test_the_same_name_in_another_role_is_another_owner(federation, build: Build) -> None:
    owners = KeyOwners()
    owners.claim(build("services"))
    for changes in (
        {"name": "ada", "key": federation.auditor.public_key, "possession": b""},
        {"name": "g1", "key": federation.gatekeeper.public_key, "possession": b""},
    ):
        with pytest.raises(DeniedError):
            owners.check(build("participant", **changes))
    moved = Signatory(parse_spiffe_id("spiffe://mars.example/service/aggregator/g1"), federation.gatekeeper.public_key)
    with pytest.raises(DeniedError):
        owners.check(build("services", services=[moved]))


def test_one_document_gives_no_key_to_two_names(federation, build: Build) -> None:
    key = federation.gatekeeper.public_key
    names = ("spiffe://mars.example/service/gatekeeper/g1", "spiffe://mars.example/service/gatekeeper/g2")
    document = build("services", services=[Signatory(parse_spiffe_id(name), key) for name in names])
    with pytest.raises(DeniedError):
        KeyOwners().check(document)


def test_a_check_and_a_refused_claim_record_nothing(federation, build: Build) -> None:
    owners = KeyOwners()
    owners.check(build("participant"))
    owners.claim(build("participant", name="rover-2"))
    fresh = SigningKey.generate("ed25519").public_key
    pair = [
        Signatory(parse_spiffe_id("spiffe://mars.example/service/gatekeeper/g1"), fresh),
        Signatory(parse_spiffe_id("spiffe://mars.example/service/gatekeeper/g2"), federation.rover.public_key),
    ]
    with pytest.raises(DeniedError):
        owners.claim(build("services", services=pair))
    owners.check(build("participant", name="rover-3", key=fresh, possession=b""))


def test_a_join_key_served_nothing_before(federation, build: Build) -> None:
    owners = KeyOwners()
    owners.claim(federation.genesis)
    owners.claim(build("services"))
    owners.claim(build("participant"))
    owners.claim(build("join"))
    used = {
        "its own earlier join's": build("join", version=2),
        "another join's": build("join", name="rover-2"),
        "the invited participant's": build("join", join_key=federation.rover.public_key),
        "an operator's": build("join", join_key=federation.operators["bob"].public_key),
        "an auditor's": build("join", join_key=federation.auditor.public_key),
    }
    for whose, join in used.items():
        with pytest.raises(DeniedError) as refused:
            owners.check(join)
        assert refused.value.reason == "key_reused", whose
    owners.claim(build("join", version=2, join_key=SigningKey.generate("ed25519").public_key))


def test_a_join_key_serves_nothing_else_later(federation, build: Build) -> None:
    owners = KeyOwners()
    owners.claim(build("join"))
    token = federation.token.public_key
    for document in (
        build("participant", key=token, possession=b""),
        build("services", auditors=[Signatory(parse_spiffe_id("spiffe://mars.example/auditor/rover-1"), token)]),
        build("next-root", operators={**federation.root.operators, "bob": token}),
    ):
        with pytest.raises(DeniedError):
            owners.check(document)


def test_a_later_root_claims_its_operators_keys(federation, build: Build) -> None:
    owners = KeyOwners()
    owners.claim(federation.genesis)
    new = SigningKey.generate("ed25519").public_key
    operators = {"ann": federation.root.operators["ann"], "bob": new, "zoe": federation.auditor.public_key}
    owners.claim(build("next-root", operators=operators))
    with pytest.raises(DeniedError):
        owners.check(build("participant", key=new, possession=b""))
    # Who left keeps his key to himself, and nobody takes over another operator's.
    left = federation.root.operators["eve"]
    with pytest.raises(DeniedError):
        owners.check(build("participant", key=left, possession=b""))
    with pytest.raises(DeniedError):
        owners.check(build("next-root", version=3, operators={**operators, "ann": left}))
    owners.check(build("next-root", version=3, operators={**operators, "eve": left}))


def test_documents_without_keys_claim_nothing(build: Build) -> None:
    owners = KeyOwners()
    for kind in ("rules", "segment-terms", "order", "key-revocation"):
        owners.claim(build(kind))
    owners.claim(build("participant"))
