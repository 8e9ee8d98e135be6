"""Metadata: what an update says of itself, and what its payload says.

A participant lies in its header, or sends values that betray single examples; a gatekeeper whose key is stolen writes
down what it never measured. The participant is refused and quoted; the gatekeeper's lie is found from the payload.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulated_statements import root_of
from simulator import DAY_US, GRID, MANIFEST, SEGMENT, Simulator, participant_id, payload_of, service_id

from sfrl_secure.errors import MalformedError, UnavailableError
from sfrl_secure.governance.statements import (
    Evidence,
    PayloadFormat,
    PeerClass,
    RefusalsCounted,
    UpdateAdmitted,
    UpdateRefused,
)
from sfrl_secure.governance.terms import LeakageBound, LeakageTerms
from sfrl_secure.ids import sha256
from sfrl_secure.sparse.mask import encode_mask
from sfrl_secure.wire.entries import encode_envelope

from .arena import LOG, NONE, OBJECT, Arena, Signed

G1 = service_id("gatekeeper", "g1")
STREAM = f"segment/{SEGMENT}"
VALUES = {0: 5, 3: -7, 17: 100}
PLACES = np.array(list(VALUES), dtype=np.int64)
RULES = """
@id("all") permit (principal, action, resource);
@id("sparse") forbid (principal, action == Action::"submit", resource) when { context.density_ppm > 170000 };
@id("quiet") forbid (principal, action == Action::"submit", resource) when { context.noise_std > 0 &&
  context.weight > 50 };
@id("frozen") forbid (principal, action == Action::"admit", resource) when { context.tensors.contains("a.bias") &&
  context.weight > 90 };
"""
GATE = LeakageTerms(
    nonzeros_min=2,
    weight_min=5,
    noise_std_min=0,
    rows=(LeakageBound("a.weight", 0, 2),),
    labels=(LeakageBound("a.bias", 0, 2),),
)
GUARDED = {"terms": {"leakage": GATE}}
WITH_RULES = {"rules": RULES}
# What passes the gate: two rows of the weights, two labels raised and two lowered.
SOUND = {0: 5, 7: -7, 16: 3, 17: -3, 18: 4, 19: -4}


@pytest.fixture
def arena(tmp_path: Path) -> Iterator[Arena]:
    with Arena(tmp_path) as made:
        made.sim.open_round()
        yield made


def own(**changes: Any) -> Callable[[Simulator], Signed]:
    """Rover 1's own update, changed and signed."""
    return lambda sim: sim.update("rover-1", **changes)


def byte(at: int, value: int) -> Callable[[Simulator], Signed]:
    """A payload with one byte changed, and signed for as it is."""

    def make(sim: Simulator) -> Signed:
        payload = bytearray(payload_of(VALUES))
        assert payload[at] != value
        payload[at] = value
        return sim.update("rover-1", payload=bytes(payload))

    return make


def sent(payload: bytes) -> Callable[[Simulator], Signed]:
    """As many bytes as were signed for come, and are others."""

    def make(sim: Simulator) -> Signed:
        envelope, update, _ = sim.update("rover-1", payload_bytes=len(payload))
        return envelope, update, payload

    return make


LIES: list[tuple[str, str, Evidence, dict[str, Any], Callable[[Simulator], Signed]]] = [
    ("no weight", "weight_limit", LOG, {}, own(weight=0)),
    ("one more than the weight", "weight_limit", LOG, {}, own(weight=101)),
    ("a weight that wraps", "weight_limit", LOG, {}, own(weight=2**63 - 1)),
    ("fewer examples than the gate asks for", "weight_limit", LOG, GUARDED, own(values=SOUND, weight=4)),
    ("no payload", "payload_too_large", LOG, {}, own(payload_bytes=0)),
    ("a payload of 2**63 - 1", "payload_too_large", LOG, {}, own(payload_bytes=2**63 - 1)),
    ("one byte more than the terms", "payload_too_large", LOG, {}, own(payload_bytes=4_097)),
    ("no coordinates", "too_few_coordinates", LOG, {}, own(nonzeros=0)),
    ("one coordinate where the gate asks for two", "too_few_coordinates", LOG, GUARDED, own(values={0: 5})),
    ("one coordinate too many", "too_dense", LOG, {}, own(values=dict.fromkeys(range(9), 1))),
    ("coordinates without end", "too_dense", LOG, {}, own(nonzeros=2**63 - 1)),
    ("another value type than the payload's", "format_not_allowed", LOG, {},
     own(format=PayloadFormat(2, "free", "fp32"))),
    ("the payload in another type than it says", "payload_format", OBJECT, {"terms": {"value_types": ["fp32", "int8"]}},
     own(format=PayloadFormat(2, "free", "fp32"))),
    ("a codec of tomorrow", "format_not_allowed", LOG, {}, own(format=PayloadFormat(3, "free", "int8"))),
    ("one byte fewer than was hashed", "digest_mismatch", NONE, {}, sent(payload_of(VALUES)[:-1])),
    ("one byte more than was hashed", "digest_mismatch", NONE, {}, sent(payload_of(VALUES) + b"\0")),
    ("the digest of another payload", "digest_mismatch", NONE, {}, own(payload_sha256=sha256(b"another"))),
    ("the root of another payload", "digest_mismatch", NONE, {}, own(payload_root=root_of(payload_of({0: 1})))),
    ("the digest and the root of another payload", "digest_mismatch", NONE, {},
     own(payload_sha256=sha256(b"another"), payload_root=sha256(b"another"))),
    ("one coordinate more than it sends", "payload_declared", OBJECT, {}, own(nonzeros=4)),
    ("one coordinate fewer than it sends", "payload_declared", OBJECT, {}, own(nonzeros=2)),
    ("a payload of another model", "payload_shape", OBJECT, {},
     own(payload=payload_of(VALUES, coordinates=MANIFEST.coordinates + 1))),
    ("a payload on another grid", "payload_format", OBJECT, {},
     own(payload=payload_of(VALUES, grid_exponent=GRID + 1))),
    ("a byte behind the payload", "payload_length", OBJECT, {}, own(payload=payload_of(VALUES) + b"\0")),
    ("a payload cut short", "payload_length", OBJECT, {}, own(payload=payload_of(VALUES)[:-1])),
    ("a leaf that is not its digest's", "digest_mismatch", NONE, {}, byte(-1, 0xFF)),
    ("a codec of yesterday in the payload", "payload_format", OBJECT, {}, byte(4, 1)),
    ("a mask for a payload", "payload_format", OBJECT, {}, own(payload=encode_mask(MANIFEST.coordinates, PLACES))),
    ("a leaf too many", "not_canonical", OBJECT, {}, byte(24, 2)),
    ("another magic", "payload_format", OBJECT, {}, byte(0, 0)),
    ("a norm over the terms", "norm_limit", OBJECT, {}, own(values=dict.fromkeys(range(5), 2**20))),
    ("one value over the terms", "magnitude_limit", OBJECT, {}, own(values={0: 2**21})),
    ("a tensor that is frozen", "tensor_not_allowed", OBJECT, {}, own(values={0: 1, 23: 1})),
    ("more than the rules' density", "policy_denied", LOG, WITH_RULES, own(values=dict.fromkeys(range(5), 1))),
    ("noise and a weight that the rules forbid", "policy_denied", LOG, WITH_RULES, own(noise_std=1, weight=51)),
    ("a tensor that the rules forbid", "policy_denied", OBJECT, WITH_RULES, own(weight=91)),
    # The leakage gate.
    ("less noise than the terms ask for", "noise_too_small", LOG,
     {"terms": {"leakage": replace(GATE, noise_std_min=8)}}, own(values=SOUND, noise_std=7)),
    ("noise that the values do not show", "leak_noise", OBJECT, {}, own(values={0: 1, 1: 1}, noise_std=3)),
    ("noise of 2**40 that nothing shows", "leak_noise", OBJECT, {}, own(noise_std=2**40)),
    ("one row of the input layer", "leak_rows", OBJECT, GUARDED,
     own(values={0: 5, 3: -7, 16: 3, 17: -3, 18: 4, 19: -4})),
    ("one label raised", "leak_labels", OBJECT, GUARDED, own(values={0: 5, 7: -7, 16: 3, 17: -3, 18: -4})),
    ("one label lowered", "leak_labels", OBJECT, GUARDED, own(values={0: 5, 7: -7, 16: 3, 17: 3, 18: -4})),
    ("a second label raised by an eighth of the largest", "leak_labels", OBJECT, GUARDED,
     own(values={0: 5, 7: -7, 16: 8, 17: -3, 18: 1, 19: -4})),
]  # fmt: skip


@pytest.mark.parametrize(
    ("reason", "evidence", "federation", "lie"), [pytest.param(*row[1:], id=row[0]) for row in LIES]
)
def test_a_lie_in_the_header_or_a_leak_in_the_payload_is_refused_for_what_it_is(
    tmp_path: Path, reason: str, evidence: Evidence, federation: dict[str, Any], lie: Callable[[Simulator], Signed]
) -> None:
    with Arena(tmp_path, **federation) as arena:
        arena.sim.open_round()
        signed = lie(arena.sim)
        refused = arena.refused(reason, lambda: arena.send("rover-1", signed), evidence)
        assert refused.update == signed[1]
        # What betrays examples is kept for auditors, and nobody else's: no admission names it.
        assert arena.sim.objects.is_stored(sha256(signed[2])) == (evidence is OBJECT)


@pytest.mark.parametrize("more", [-1, 1], ids=["one byte too few", "one byte too many"])
def test_a_stream_of_another_length_than_was_signed_for_decides_nothing(arena: Arena, more: int) -> None:
    """Nobody can tell a lie from a link that broke: nothing is refused, nothing is kept, and the rover sends again."""
    signed, size = arena.sim.update("rover-1"), len(arena.sim.log.raw)
    with pytest.raises(UnavailableError if more < 0 else MalformedError):
        arena.send("rover-1", signed, payload=(signed[2] + b"\0")[: len(signed[2]) + more])
    assert len(arena.sim.log.raw) == size
    assert not arena.sim.objects.is_stored(signed[1].payload_sha256)
    arena.send("rover-1", signed)
    assert "rover-1" in arena.sim.segment.rounds[1].admissions
    arena.verify()


def test_what_the_gate_and_the_rules_allow_is_admitted(tmp_path: Path) -> None:
    """Else every refusal above would say nothing."""
    with Arena(tmp_path, rules=RULES, **GUARDED) as arena:
        arena.sim.open_round()
        arena.send("rover-1", arena.sim.update("rover-1", {0: 5, 7: -7}, weight=5))
        arena.send("rover-2", arena.sim.update("rover-2", {16: 3, 17: -3, 18: 4, 19: -4}, weight=5))
        arena.verify()
        assert set(arena.sim.segment.rounds[1].admissions) == {"rover-1", "rover-2"}


def test_a_bomb_is_refused_by_its_header_before_its_payload_is_looked_at(arena: Arena) -> None:
    """28 bytes that claim 2**31 coordinates, all of them set."""
    header = b"SFRU\x02\x01\x01" + bytes([GRID]) + (2**31).to_bytes(8, "little") * 2 + (2**15).to_bytes(4, "little")
    bomb = arena.sim.update("rover-1", payload=header, payload_bytes=len(header))
    arena.refused("payload_shape", lambda: arena.send("rover-1", bomb), OBJECT)


def test_the_fourth_lie_of_a_kind_is_counted(arena: Arena) -> None:
    for weight in (101, 102, 103):
        lie = arena.sim.update("rover-1", weight=weight)
        arena.refused("weight_limit", partial(arena.send, "rover-1", lie))
    fourth = arena.sim.update("rover-1", weight=104)
    arena.counted("weight_limit", lambda: arena.send("rover-1", fourth))
    # Nobody else's place is taken, and another lie of the same rover has its own entry.
    other = arena.sim.update("rover-2", weight=101)
    arena.refused("weight_limit", lambda: arena.send("rover-2", other))
    (counts,) = (each.counts for each in arena.bodies(RefusalsCounted))
    assert [each.peer_class for each in counts] == [PeerClass.PARTICIPANT]


# A gatekeeper whose key is stolen


def admitted(arena: Arena, name: str = "rover-1", **changes: Any) -> UpdateAdmitted:
    """The words of an honest admission about another update, whose payload is stored."""
    sim = arena.sim
    envelope, update, payload = sim.update(name, **changes)
    sim.objects.put(payload)
    return replace(sim.admission(name), envelope_raw=encode_envelope(envelope), envelope=envelope, update=update)


HEADERS: list[tuple[str, dict[str, Any]]] = [
    ("weight_limit", {"weight": 0}), ("weight_limit", {"weight": 101}), ("payload_too_large", {"payload_bytes": 4_097}),
    ("payload_too_large", {"payload_bytes": 0}), ("too_dense", {"nonzeros": 9}),
    ("too_few_coordinates", {"nonzeros": 0}), ("format_not_allowed", {"format": PayloadFormat(2, "free", "fp32")}),
    ("wrong_federation", {"federation_id": sha256(b"another")}), ("wrong_base", {"base_model": sha256(b"another")}),
    ("wrong_prefix", {"round_opened": sha256(b"another")}),
]  # fmt: skip


@pytest.mark.parametrize(("code", "changes"), HEADERS)
def test_a_stolen_gatekeeper_admits_no_header_beyond_the_terms(
    arena: Arena, code: str, changes: dict[str, Any]
) -> None:
    body = admitted(arena, **changes)
    arena.denied(code, code, arena.sim.sign(arena.sim.statement(G1, STREAM, body)))


DEFECTS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("a payload over the norm", {"values": dict.fromkeys(range(5), 2**20)}, {}),
    ("a frozen tensor", {"values": {0: 1, 20: 1}}, {}),
    ("a payload of other length", {"payload_bytes": 5}, {}),
    ("noise that is not there", {"noise_std": 2**20}, {}),
    ("a norm that it made up", {}, {"norm": 1}),
    ("a magnitude that it made up", {}, {"largest_magnitude": 1}),
    ("tensors that it made up", {}, {"tensors": (0,)}),
    ("a density that it made up", {}, {"density_ppm": 1}),
    ("nonzeros that it made up", {}, {"nonzeros": 2}),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "facts"), [pytest.param(*row[1:], id=row[0]) for row in DEFECTS])
def test_what_a_stolen_gatekeeper_did_not_measure_is_found_and_never_counted(
    arena: Arena, changes: dict[str, Any], facts: dict[str, Any]
) -> None:
    sim = arena.sim
    body = admitted(arena, **changes)
    body = replace(body, facts=replace(body.facts, **facts))
    arena.found("defective", sim.sign(sim.statement(G1, STREAM, body)))
    for name in ("rover-2", "rover-3"):
        sim.admit(name)
    aggregator = sim.aggregator()
    assert [aggregator.step(), aggregator.step()] == [["CloseRound"], ["PublishModel"]]
    closed = sim.segment.rounds[1].closed
    assert closed is not None
    assert [(drop.participant, drop.reason) for drop in closed.dropped] == [("rover-1", "defective")]
    arena.verify()


def test_rules_that_did_not_allow_it_are_no_admission(arena: Arena) -> None:
    sim = arena.sim
    body = admitted(arena)
    for name, rule_ids in (("rover-1", ()), ("rover-2", ("cleared-submit",)), ("rover-3", ("cleared-admit",) * 2)):
        body = replace(admitted(arena, name), rule_ids=rule_ids)
        arena.found("defective", sim.sign(sim.statement(G1, STREAM, body)))


def test_a_payload_is_kept_as_long_as_the_terms_ask_for(arena: Arena) -> None:
    sim = arena.sim
    body = replace(admitted(arena), retain_until_us=sim.clock.now_us() + 90 * DAY_US - 1)
    arena.denied("retention", "retention", sim.sign(sim.statement(G1, STREAM, body)))
    body = replace(body, retain_until_us=sim.clock.now_us() + 90 * DAY_US)
    sim.log.order(sim.sign(sim.statement(G1, STREAM, body)))
    arena.verify()


def refusal(arena: Arena, reason: str, evidence: Evidence, signed: Signed, **changes: Any) -> UpdateRefused:
    envelope, update, payload = signed
    arena.sim.objects.put(payload)
    raw = encode_envelope(envelope)
    body = UpdateRefused(
        participant_id(update.participant), raw, envelope, update, sha256(raw), reason, None, (), evidence
    )
    return replace(body, **changes)


def test_a_sound_update_is_not_refused_for_its_header(arena: Arena) -> None:
    """Evidence in the log binds the gatekeeper to the log's own reason and rules."""
    sim = arena.sim
    for reason in ("weight_limit", "too_dense", "quota_updates", "halted", "policy_denied"):
        body = refusal(arena, reason, LOG, sim.update("rover-1"))
        arena.denied("refusal", "refusal_reason", sim.sign(sim.statement(G1, STREAM, body)))
    heavy = sim.update("rover-1", weight=101)
    body = refusal(arena, "weight_limit", LOG, heavy, rule_ids=("cleared-submit",))
    arena.denied("refusal", "refusal_rules", sim.sign(sim.statement(G1, STREAM, body)))
    body = refusal(arena, "norm_limit", OBJECT, heavy)
    arena.denied("refusal", "refusal_reason", sim.sign(sim.statement(G1, STREAM, body)))


def test_a_sound_update_is_not_refused_for_its_payload(arena: Arena) -> None:
    """The log cannot see it; whoever has the payload can."""
    sim = arena.sim
    sound = refusal(arena, "leak_rows", OBJECT, sim.update("rover-1"))
    arena.found("refusal_reason", sim.sign(sim.statement(G1, STREAM, sound)))
    loud = sim.update("rover-2", dict.fromkeys(range(5), 2**20))
    other = refusal(arena, "magnitude_limit", OBJECT, loud)
    arena.found("refusal_reason", sim.sign(sim.statement(G1, STREAM, other)))
    facts = sim.admission("rover-3").facts
    measured = refusal(arena, "norm_limit", OBJECT, loud, facts=facts)
    arena.found("refusal_facts", sim.sign(sim.statement(G1, STREAM, measured)))


def test_evidence_without_an_envelope_is_none(arena: Arena) -> None:
    sim = arena.sim
    body = refusal(arena, "malformed", LOG, sim.update("rover-1"), envelope_raw=b"", envelope=None, update=None)
    arena.denied("evidence", "refusal_evidence", sim.sign(sim.statement(G1, STREAM, body)))
