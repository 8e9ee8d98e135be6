"""Documents in words: whoever signs sees everything that the document says."""

from __future__ import annotations

import pytest
from simulator import Simulator, participant_id

from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.governance.aggregation_terms import MaskTerms
from sfrl_secure.governance.build import build_order
from sfrl_secure.governance.documents import DOCUMENT_TYPES, Document, parse_document
from sfrl_secure.governance.orders import (
    AcceptTarget,
    ExcludeTarget,
    Order,
    OrderAction,
    OrderTarget,
    OverrideTarget,
    ReaggregateTarget,
    RollbackTarget,
)
from sfrl_secure.ids import sha256
from sfrl_secure.operating.document_words import words_of

DIGEST = sha256(b"x")


def documents(sim: Simulator) -> list[Document]:
    sim.invite("rover-9")
    sim.halt(reason="smoke")
    sim.revoke_key(DIGEST, participant_id("rover-2"), reason="lost")
    return [placed.document for placed in sim.state.placed.values()]


def test_every_kind_of_document_has_words_and_its_digest(sim: Simulator) -> None:
    found = documents(sim)
    assert {document.payload_type for document in found} == DOCUMENT_TYPES
    for document in found:
        words = list(words_of(document))
        assert words[-1].split() == ["digest", document.digest.hex()]
        assert any(document.federation_id.hex() in line for line in words)
        assert all(line.isprintable() for line in words)


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        (("join", "rover-9"), ["rover-9, once", "clearance 5; groups rovers", "until 2027"]),
        (("key-revocation", DIGEST.hex()), [DIGEST.hex(), "participant/rover-2 (lost)", "for ever"]),
        (("order", "rocks"), ["halt rocks", "(smoke)"]),
        (("participant", "rover-1"), ["active", "clearance 5; groups rovers", "ed25519 key"]),
        (("root", ""), ["ann: ed25519 key", "governance 2", "revocation 1"]),
        (("services", ""), ["X25519, X25519MLKEM768", "gatekeeper/g1: ed25519 key"]),
        (
            ("segment-terms", "rocks"),
            ["weight 1 to 100", "1 to 8 nonzeros in at most 4 KiB", "norm at most 32", "2 to 3 updates within 1m",
             "a.weight, a.bias", "sensitivity 3", "quota", "a.weight: 4 x 4 int32", "frozen: 4 int32"],
        ),
        (("rules", ""), ["   1  // Rules to begin with", '@id("not-sparse")']),
    ],
)  # fmt: skip
def test_what_a_document_says_stands_in_its_words(
    sim: Simulator, series: tuple[str, str], expected: list[str]
) -> None:
    documents(sim)
    words = "\n".join(words_of(sim.state.placed[series].document))
    for each in expected:
        assert each in words


def test_a_mask_and_relays_are_said_where_there_are_any(sim: Simulator) -> None:
    assert not [each for each in words_of(sim.segment.terms) if each.startswith(("mask", "relays"))]
    sim.publish_terms(support_modes=["agreed", "free"], mask=MaskTerms(DIGEST, 7), relay_groups=["orbiters", "lorries"])
    words = list(words_of(sim.segment.terms))
    assert f"mask         agreed support is 7 coordinates of {DIGEST.hex()}; it stays" in words
    # Lines without a key go on with the limits of an update, and stand right below it.
    assert [each.startswith(" ") for each in words if each[0] == " " or each.startswith(("update", "mask"))] == [
        False, True, True, False,
    ]  # fmt: skip
    assert "relays       groups lorries, orbiters may bring others' updates" in words
    assert "update       int8, support agreed or free, signed ed25519" in words


@pytest.mark.parametrize(
    ("action", "target", "expected"),
    [
        ("exclude", ExcludeTarget(DIGEST), f"exclude the update {DIGEST.hex()} from rocks"),
        ("rollback", RollbackTarget(DIGEST), f"roll rocks back to the model {DIGEST.hex()}"),
        ("reaggregate", ReaggregateTarget(3, ("ann", "bob")), "from round 3 on again; this reveals what ann, bob sent"),
        ("reaggregate", ReaggregateTarget(3, ()), "this reveals nobody's updates"),
        ("accept", AcceptTarget(7, "void"), "accept the finding void at entry 7"),
        ("override", OverrideTarget(DIGEST, 4), f"override the decision {DIGEST.hex()} of rocks: its class is 4"),
    ],
)
def test_an_order_says_what_it_does(sim: Simulator, action: str, target: OrderTarget, expected: str) -> None:
    raw = build_order(
        federation_id=sim.federation_id, expires_us=9, segment="rocks", action=OrderAction(action), target=target
    )
    assert expected in "\n".join(words_of(parse_document(Order.payload_type, raw)))


def test_a_hybrid_key_is_named_by_its_one_id(sim: Simulator) -> None:
    key = SigningKey.generate("ed25519+ml-dsa-44")
    sim.rovers["rover-1"] = key
    sim.record("rover-1")
    words = "\n".join(words_of(sim.state.placed["participant", "rover-1"].document))
    assert f"ed25519+ml-dsa-44 key {key.public_key.key_id.hex()}" in words
