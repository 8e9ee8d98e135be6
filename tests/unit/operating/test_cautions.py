"""What operators are told before they sign: names for digests, and what was perhaps not meant."""

from __future__ import annotations

import pytest
from simulator import NOW_US, SEGMENT, Simulator

from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.governance.aggregation_terms import MaskTerms
from sfrl_secure.governance.documents import Order, SegmentTerms, parse_document
from sfrl_secure.governance.orders import ExcludeTarget, OrderAction, OrderTarget, OverrideTarget, RollbackTarget
from sfrl_secure.governance.terms import LeakageTerms, UpdateLimits
from sfrl_secure.ids import sha256
from sfrl_secure.operating.acts import draft_invitation, draft_order
from sfrl_secure.operating.cautions import cautions_of
from sfrl_secure.operating.changes import changes_of
from sfrl_secure.operating.order_meaning import meaning_of


def order(sim: Simulator, action: str, target: OrderTarget) -> Order:
    now_us = sim.clock.now_us()
    request = draft_order(sim.state, SEGMENT, OrderAction(action), target, reason="", hours=1, now_us=now_us)
    assert isinstance(request.document, Order)
    return request.document


def test_a_digest_in_an_order_has_the_name_of_what_it_stands_for(sim: Simulator) -> None:
    sim.publish_terms(operations=["fetch", "record", "submit"])
    played = sim.play_round("rover-1", "rover-2", "rover-3")
    sim.play_round("rover-1", "rover-2", "rover-3")
    assert played.model is not None
    admission = played.admissions["rover-2"]
    excluded = order(sim, "exclude", ExcludeTarget(admission.statement_digest))
    said = f"the update of rover-2 in round 1, admitted by entry {admission.index}"
    assert meaning_of(excluded, sim.state) == said
    assert meaning_of(order(sim, "rollback", RollbackTarget(played.model)), sim.state) == "the model of round 1"
    initial = order(sim, "rollback", RollbackTarget(sim.initial_digest))
    assert meaning_of(initial, sim.state) == "the initial model"
    decision = sim.decide("rover-1")
    found = sim.state.decisions[decision]
    right = found.decided_class + 1
    said = f"rover-1's decision at entry {found.index}: {found.decided_class} -> {right}"
    assert meaning_of(order(sim, "override", OverrideTarget(decision, right)), sim.state) == said


def invite(sim: Simulator, name: str, groups: list[str]) -> tuple[str, ...]:
    request = draft_invitation(
        sim.state, name, SigningKey.generate("ed25519").public_key, clearance=1, groups=groups, hours=1,
        record_days=1, now_us=NOW_US,
    )  # fmt: skip
    return cautions_of(request.document, sim.state)


@pytest.mark.parametrize(
    ("name", "groups", "said"),
    [
        ("rover-9", ["rovers"], ()),
        ("rover-9", ["rvers"], ("no segment grants the group rvers: did you mean rovers?",)),
        ("rover-9", ["zzz"], ("no segment grants the group zzz",)),
        (
            "rover-1",
            ["rovers"],
            ("rover-1 is recorded already and is active: whoever enrols takes over the name, with a new key",),
        ),
    ],
)
def test_an_invitation_that_was_perhaps_not_meant_is_said(
    sim: Simulator, name: str, groups: list[str], said: tuple[str, ...]
) -> None:
    assert invite(sim, name, groups) == said


def test_terms_for_a_group_that_nobody_has_are_said(sim: Simulator) -> None:
    sim.publish_terms(groups=["rvers"])
    assert cautions_of(sim.segment.terms, sim.state) == (
        "no participant has the group rvers: did you mean rovers?",
    )  # fmt: skip
    sim.publish_terms(groups=["rovers"])
    assert cautions_of(sim.segment.terms, sim.state) == ()


def drafted_terms(sim: Simulator, **changes: object) -> tuple[str, ...]:
    """What is said of the next terms, before they are in force."""
    return cautions_of(parse_document(SegmentTerms.payload_type, sim.terms_raw(**changes)), sim.state)


def test_relays_are_said_when_they_come_and_not_again(sim: Simulator) -> None:
    read = "updates are signed and not encrypted: who brings another's can read it"
    assert drafted_terms(sim, relay_groups=["rovers"]) == (read,)
    assert drafted_terms(sim, relay_groups=["rvers"]) == (
        "no participant has the relay group rvers: did you mean rovers?", read,
    )  # fmt: skip
    sim.publish_terms(relay_groups=["rovers"])
    assert drafted_terms(sim, relay_groups=["rovers"]) == ()


def test_a_mask_must_lie_among_the_objects_and_a_new_one_again(sim: Simulator) -> None:
    def placed(word: bytes) -> str:
        return f"the mask {sha256(word).hex()} must lie among the objects before these terms do"

    agreed = {"support_modes": ["agreed"], "mask": MaskTerms(sha256(b"one"), 4)}
    assert drafted_terms(sim, **agreed) == (placed(b"one"),)
    sim.publish_terms(**agreed)
    assert drafted_terms(sim, **agreed) == ()
    assert drafted_terms(sim, **agreed | {"mask": MaskTerms(sha256(b"two"), 4)}) == (placed(b"two"),)


def test_terms_under_which_nobody_can_send_what_they_allow_are_said(sim: Simulator) -> None:
    limits = sim.segment.terms.limits
    coordinates = sim.segment.terms.model.manifest.coordinates
    too_few = f"a dense update has {coordinates} values and limits.nonzeros_max is 8: nobody can send one"
    assert drafted_terms(sim, support_modes=["dense", "free"]) == (too_few,)
    enough = UpdateLimits(4_096, coordinates, limits.norm_max, limits.magnitude_max, limits.weight_max)
    assert drafted_terms(sim, support_modes=["dense", "free"], limits=enough) == ()
    few = LeakageTerms(3, 1, 0, (), ())
    assert drafted_terms(sim, leakage=few) == ()
    small = {"support_modes": ["agreed"], "mask": MaskTerms(sha256(b"one"), 2), "leakage": few}
    none = "an agreed update has 2 values and leakage.nonzeros_min is 3: nobody can send one"
    assert none in drafted_terms(sim, **small)


def test_a_second_invitation_says_what_differs_and_nothing_twice(sim: Simulator) -> None:
    sim.invite("rover-9")
    before = sim.state.join("rover-9")
    sim.invite("rover-9", clearance=2)
    after = sim.state.join("rover-9")
    assert before is not None
    assert after is not None
    assert [each for each in changes_of(before, after) if not each.startswith("expires")] == [
        "the invitation before ends: a join file of version 1 lets nobody in any more",
        f"clearance: {before.clearance} -> 2",
    ]


def test_what_nobody_knows_has_no_meaning(sim: Simulator) -> None:
    sim.play_round("rover-1", "rover-2", "rover-3")
    known = order(sim, "exclude", ExcludeTarget(sim.segment.rounds[1].admissions["rover-1"].statement_digest))
    sim.segment.rounds[1].admissions.clear()
    assert meaning_of(known, sim.state) == ""
    assert sha256(b"") not in sim.state.decisions
