from __future__ import annotations

import dataclasses
import itertools

import pytest

from sfrl_secure.crypto.envelope import (
    Envelope,
    Signature,
    add_signature,
    sign_envelope,
    verify_single,
    verify_threshold,
)
from sfrl_secure.crypto.keys import ED25519, HYBRID, PublicKey, SigningKey
from sfrl_secure.crypto.pae import statement_digest
from sfrl_secure.errors import MalformedError, SignatureError
from sfrl_secure.ids import Digest

UPDATE = "application/vnd.sfrl.update.v1"
STATEMENT = "application/vnd.sfrl.statement.v1"
BODY = b"exact bytes"

OPERATORS = {name: SigningKey.generate(ED25519) for name in ("ada", "bob", "eve")}
PUBLIC = {name: key.public_key for name, key in OPERATORS.items()}


def signed_by(*names: str) -> Envelope:
    return sign_envelope(UPDATE, BODY, [OPERATORS[name] for name in names])


def with_signatures(envelope: Envelope, *signatures: Signature) -> Envelope:
    return dataclasses.replace(envelope, signatures=tuple(sorted(signatures, key=lambda s: s.key_id)))


def test_one_signature_of_the_named_key_holds(any_key: SigningKey) -> None:
    verify_single(sign_envelope(UPDATE, BODY, [any_key]), any_key.public_key)


def test_the_digest_is_of_the_statement_and_not_of_its_signatures(any_key: SigningKey) -> None:
    envelope = sign_envelope(UPDATE, BODY, [any_key])
    assert envelope.digest == statement_digest(UPDATE, BODY) == signed_by("ada").digest
    assert envelope.digest != sign_envelope(STATEMENT, BODY, [any_key]).digest


def test_a_single_signature_is_of_that_key_and_no_other(any_key: SigningKey) -> None:
    with pytest.raises(SignatureError):
        verify_single(sign_envelope(UPDATE, BODY, [any_key]), PUBLIC["ada"])


def test_a_single_signature_does_not_stand_beside_another(any_key: SigningKey) -> None:
    envelope = sign_envelope(UPDATE, BODY, [any_key, OPERATORS["ada"]])
    for key in (any_key.public_key, PUBLIC["ada"]):
        with pytest.raises(SignatureError):
            verify_single(envelope, key)


def test_a_signature_under_another_keys_id_is_refused(any_key: SigningKey) -> None:
    envelope = sign_envelope(UPDATE, BODY, [any_key])
    # The key id is a hint: here it points to a stranger, although the signature itself would verify.
    moved = dataclasses.replace(envelope.signatures[0], key_id=PUBLIC["ada"].key_id)
    with pytest.raises(SignatureError):
        verify_single(with_signatures(envelope, moved), any_key.public_key)


def test_a_signature_moved_to_another_type_or_statement_is_refused(any_key: SigningKey) -> None:
    envelope = sign_envelope(UPDATE, BODY, [any_key])
    for moved in (
        dataclasses.replace(envelope, payload_type=STATEMENT),
        dataclasses.replace(envelope, statement=BODY + b"\n"),
    ):
        with pytest.raises(SignatureError):
            verify_single(moved, any_key.public_key)
        with pytest.raises(SignatureError):
            verify_threshold(moved, {"ada": any_key.public_key}, 1)


def test_a_hybrid_signature_stripped_to_ed25519_is_refused(hybrid_key: SigningKey) -> None:
    hybrid = hybrid_key.public_key
    alone = PublicKey(ED25519, hybrid.parts[:1])
    value = sign_envelope(UPDATE, BODY, [hybrid_key]).signatures[0].value[:64]
    with pytest.raises(MalformedError):
        Signature(hybrid.key_id, HYBRID, value)
    for key_id in (hybrid.key_id, alone.key_id):
        stripped = Envelope(UPDATE, BODY, (Signature(key_id, ED25519, value),))
        with pytest.raises(SignatureError):
            verify_single(stripped, hybrid)
        with pytest.raises(SignatureError):
            verify_threshold(stripped, {"ada": hybrid}, 1)


def test_a_suite_is_named_as_the_keys(hybrid_key: SigningKey) -> None:
    envelope = sign_envelope(UPDATE, BODY, [hybrid_key])
    with pytest.raises(MalformedError):
        dataclasses.replace(envelope.signatures[0], suite=ED25519)


def test_signatures_stand_in_order_of_key_id_whoever_signed_first() -> None:
    for order in itertools.permutations(OPERATORS.values()):
        envelope = sign_envelope(UPDATE, BODY, order)
        assert [s.key_id for s in envelope.signatures] == sorted(key.key_id for key in PUBLIC.values())
        assert {s.key_id: s.value for s in envelope.signatures} == {
            key.public_key.key_id: s.value
            for key in order
            for s in sign_envelope(UPDATE, BODY, [key]).signatures
        }


def test_signing_one_after_the_other_gives_the_same_envelope() -> None:
    envelope = signed_by("eve")
    for name in ("ada", "bob"):
        envelope = add_signature(envelope, OPERATORS[name])
    assert envelope == signed_by("ada", "bob", "eve")


def test_signatures_out_of_order_are_refused() -> None:
    envelope = signed_by("ada", "bob")
    with pytest.raises(MalformedError):
        dataclasses.replace(envelope, signatures=envelope.signatures[::-1])


def test_a_key_signs_once() -> None:
    envelope = signed_by("ada")
    with pytest.raises(MalformedError):
        dataclasses.replace(envelope, signatures=envelope.signatures * 2)
    with pytest.raises(MalformedError):
        add_signature(envelope, OPERATORS["ada"])
    with pytest.raises(MalformedError):
        sign_envelope(UPDATE, BODY, [OPERATORS["ada"], OPERATORS["ada"]])


def test_an_envelope_has_1_to_16_signatures() -> None:
    value = bytes(64)
    many = tuple(Signature(Digest(bytes([i]) * 32), ED25519, value) for i in range(17))
    assert len(Envelope(UPDATE, BODY, many[:16]).signatures) == 16
    for wrong in (many, ()):
        with pytest.raises(MalformedError):
            Envelope(UPDATE, BODY, wrong)


@pytest.mark.parametrize(
    ("suite", "length"), [(ED25519, 63), (ED25519, 65), (HYBRID, 64), (HYBRID, 2485), ("rsa", 64), ("", 0)]
)
def test_a_signature_is_of_a_known_suite_and_has_its_length(suite: str, length: int) -> None:
    with pytest.raises(MalformedError):
        Signature(Digest(bytes(32)), suite, bytes(length))


def test_a_signature_has_a_whole_key_id() -> None:
    with pytest.raises(MalformedError):
        Signature(Digest(bytes(31)), ED25519, bytes(64))


@pytest.mark.parametrize(
    "payload_type",
    [
        "",
        "application/json",
        "application/vnd.sfrl.",
        "application/vnd.other.update.v1",
        "application/vnd.sfrl.Update.v1",
        "application/vnd.sfrl.update v1",
        "application/vnd.sfrl.update.v1\n",
        "application/vndxsfrl.update.v1",
        " application/vnd.sfrl.update.v1",
        "application/vnd.sfrl.updat\u00e9",
        "application/vnd.sfrl." + "a" * 108,
    ],
)
def test_a_payload_type_that_is_not_ours_is_refused(payload_type: str) -> None:
    with pytest.raises(MalformedError):
        sign_envelope(payload_type, BODY, [OPERATORS["ada"]])


@pytest.mark.parametrize(
    "payload_type", ["application/vnd.sfrl.segment-terms.v1+json", "application/vnd.sfrl." + "a" * 107]
)
def test_a_payload_type_of_ours_is_taken_up_to_128_characters(payload_type: str) -> None:
    verify_single(sign_envelope(payload_type, BODY, [OPERATORS["ada"]]), PUBLIC["ada"])


@pytest.mark.parametrize("threshold", [1, 2, 3])
def test_a_threshold_counts_the_operators_that_signed(threshold: int) -> None:
    for count in range(1, 4):
        for names in itertools.combinations(sorted(OPERATORS), count):
            envelope = signed_by(*names[::-1])
            if count >= threshold:
                assert verify_threshold(envelope, PUBLIC, threshold) == names
            else:
                with pytest.raises(SignatureError):
                    verify_threshold(envelope, PUBLIC, threshold)


@pytest.mark.parametrize("threshold", [0, -1])
def test_a_threshold_below_one_is_never_met(threshold: int) -> None:
    with pytest.raises(SignatureError):
        verify_threshold(signed_by("ada", "bob"), PUBLIC, threshold)


def test_a_threshold_above_the_number_of_operators_is_never_met() -> None:
    with pytest.raises(SignatureError):
        verify_threshold(signed_by("ada", "bob", "eve"), PUBLIC, 4)


def test_a_strangers_signature_spoils_a_met_threshold() -> None:
    stranger = SigningKey.generate(ED25519)
    with pytest.raises(SignatureError):
        verify_threshold(add_signature(signed_by("ada", "bob"), stranger), PUBLIC, 2)


def test_one_bad_signature_spoils_a_met_threshold() -> None:
    envelope = signed_by("ada", "bob", "eve")
    for at, signature in enumerate(envelope.signatures):
        damaged = dataclasses.replace(signature, value=signature.value[:-1] + bytes([signature.value[-1] ^ 1]))
        others = (*envelope.signatures[:at], *envelope.signatures[at + 1 :])
        with pytest.raises(SignatureError):
            verify_threshold(with_signatures(envelope, damaged, *others), PUBLIC, 1)


def test_one_operator_is_not_counted_twice_under_another_key_id() -> None:
    envelope = signed_by("ada")
    again = dataclasses.replace(envelope.signatures[0], key_id=PUBLIC["bob"].key_id)
    with pytest.raises(SignatureError):
        verify_threshold(with_signatures(envelope, *envelope.signatures, again), PUBLIC, 2)


def test_two_names_with_one_key_are_refused_even_where_one_would_do() -> None:
    with pytest.raises(SignatureError):
        verify_threshold(signed_by("ada"), {**PUBLIC, "ada-again": PUBLIC["ada"]}, 1)


def test_suites_mix_under_one_threshold(hybrid_key: SigningKey) -> None:
    operators = {**PUBLIC, "zoe": hybrid_key.public_key}
    assert verify_threshold(add_signature(signed_by("bob"), hybrid_key), operators, 2) == ("bob", "zoe")
