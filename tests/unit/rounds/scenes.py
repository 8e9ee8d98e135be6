"""Scenes for the tests of the fold: what to send, what came before it, and what must be true of what is void.

A scene is a function that prepares a `Simulator`; a case is the reason that is expected, a scene, and what is sent in
it. Whatever is sent goes through the fold, and through the verifier's own walk, which was written apart from it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import pytest
from simulator import SEGMENT, Simulator, auditor_id, participant_id, service_id

from sfrl_secure.crypto.envelope import Envelope, Signature, add_signature
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.errors import ConflictError, DeniedError
from sfrl_secure.governance.build import DEFAULT_RULES
from sfrl_secure.governance.statements import (
    Body,
    Evidence,
    ModelFetch,
    ModelPublished,
    ModelsFetched,
    PeerClass,
    RefusalCount,
    RefusalsCounted,
    RoundClosed,
    RoundOpened,
    Statement,
    UpdateAdmitted,
    UpdateRefused,
)
from sfrl_secure.governance.terms import LeakageTerms
from sfrl_secure.ids import Digest, parse_spiffe_id, sha256
from sfrl_secure.limits import DEADLINE_MARGIN_US, SINGLE_REFUSALS_MAX
from sfrl_secure.replay.fold import Replay
from sfrl_secure.rounds.closing import close_round
from sfrl_secure.wire.content import parse_content
from sfrl_secure.wire.entries import encode_envelope

STREAM = f"segment/{SEGMENT}"
A1, G1, L1 = service_id("aggregator", "a1"), service_id("gatekeeper", "g1"), service_id("audit_log", "l1")
V1, IRIS = service_id("verifier", "v1"), auditor_id("iris")
DURATION_US = 60_000_000
FORBIDDING = DEFAULT_RULES + """
@id("weight-of-ten")
forbid (principal, action == Action::"submit", resource) when { context.weight == 10 };
"""

Scene = Callable[[Simulator], object]
Send = Callable[[Simulator], Envelope]
Case = tuple[str, Scene, Send]


def says(body: Callable[[Simulator], Body], writer: Any = G1, stream: str = STREAM, **changes: Any) -> Send:
    """A statement of this body, on the newest heads."""
    return lambda sim: sim.sign(sim.statement(writer, stream, body(sim), **changes))


def opened(sim: Simulator) -> RoundOpened:
    return sim.opening()


def identity(name: str = "rover-1", spki: bytes = b"new key", **changes: Any) -> Callable[[Simulator], Body]:
    return lambda sim: sim.identity(name, spki=sha256(spki), **changes)


def named(spiffe_id: str, key: SigningKey | None = None, **changes: Any) -> Callable[[Simulator], Body]:
    return lambda sim: sim.identity(parse_spiffe_id(spiffe_id), spki=sha256(b"new key"), key=key, **changes)


def admitted(**changes: Any) -> Callable[[Simulator], Body]:
    """Rover 1's sound admission, with changes to its update."""

    def body(sim: Simulator) -> UpdateAdmitted:
        sound = sim.admission("rover-1")
        envelope, update, _ = sim.update("rover-1", **changes)
        return replace(sound, envelope=envelope, envelope_raw=encode_envelope(envelope), update=update)

    return body


def refused(
    reason: str = "weight_limit", evidence: Evidence = Evidence.LOG, peer: str = "rover-1", *, quoted: bool = True,
    rule_ids: tuple[str, ...] = (), **changes: Any,
) -> Callable[[Simulator], Body]:  # fmt: skip
    def body(sim: Simulator) -> UpdateRefused:
        envelope, update, _ = sim.update("rover-1", **{"weight": 101, **changes})
        return UpdateRefused(
            peer=participant_id(peer),
            envelope_raw=encode_envelope(envelope) if quoted else b"",
            envelope=envelope if quoted else None,
            update=update if quoted else None,
            request_digest=sha256(b"request"),
            reason=reason,
            facts=None,
            rule_ids=rule_ids,
            evidence=evidence,
        )

    return body


def closing(**changes: Any) -> Callable[[Simulator], Body]:
    def body(sim: Simulator) -> RoundClosed:
        current = sim.segment.current
        assert current is not None
        due = close_round(current, defective=(), is_active=lambda name: True, now_us=current.deadline_us)
        return replace(due, **changes)

    return body


def model(**changes: Any) -> Callable[[Simulator], Body]:
    def body(sim: Simulator) -> ModelPublished:
        current = sim.segment.current
        assert current is not None
        due = ModelPublished(
            current.number, current.closed_hash, current.base_model, sha256(b"aggregate"), sha256(b"model"),
            "weighted_mean/v1", 1,
        )  # fmt: skip
        return replace(due, **changes)

    return body


def fetched(name: str = "rover-1", digest: bytes | None = None) -> Callable[[Simulator], Body]:
    return lambda sim: ModelsFetched(
        sim.clock.now_us(), sim.clock.now_us(),
        (ModelFetch(name, sim.segment.model if digest is None else sha256(digest)),),
    )  # fmt: skip


def document(raw: Callable[[Simulator], bytes], kind: str, signers: tuple[str, ...] | None = None) -> Send:
    return lambda sim: sim.sign_document(f"application/vnd.sfrl.{kind}.v1+json", raw(sim), signers)


def terms(**changes: Any) -> Send:
    return document(lambda sim: sim.terms_raw(**changes), "segment-terms")


def record(name: str = "rover-1", signers: tuple[str, ...] | None = None, **changes: Any) -> Send:
    return document(lambda sim: sim.record_raw(name, **changes), "participant", signers)


def withdrawal(name: str = "rover-1", **changes: Any) -> Callable[[Simulator], Body]:
    return lambda sim: sim.withdrawal(name, **changes)


def complaint(name: str = "rover-1", **changes: Any) -> Callable[[Simulator], Body]:
    return lambda sim: sim.complaint(name, **changes)


def decision(name: str = "rover-1", **changes: Any) -> Callable[[Simulator], Body]:
    return lambda sim: sim.decision(name, **changes)


def dropping(name: str, reason: str) -> Callable[[Simulator], Body]:
    """The closing that is due, with this reason for a participant's drop."""

    def body(sim: Simulator) -> RoundClosed:
        due = closing()(sim)
        dropped = (replace(each, reason=reason) if each.participant == name else each for each in due.dropped)
        return replace(due, dropped=tuple(dropped))

    return body


def nothing(sim: Simulator) -> None:
    pass


def full(sim: Simulator) -> None:
    """An open round with its three admissions, one of them rover-1's."""
    sim.open_round()
    for name in ("rover-1", "rover-2", "rover-3"):
        sim.admit(name)


def closed(sim: Simulator) -> None:
    full(sim)
    sim.close_round()


def others(sim: Simulator) -> None:
    """An open round with three admissions, none of them rover-1's."""
    sim.open_round()
    for name in ("rover-2", "rover-3", "rover-4"):
        sim.admit(name)


def open_(sim: Simulator) -> None:
    sim.open_round()


def late(sim: Simulator) -> None:
    sim.open_round()
    sim.clock.advance(DURATION_US)


def halted(sim: Simulator) -> None:
    sim.halt()


def open_then_halted(sim: Simulator) -> None:
    sim.open_round()
    sim.halt()


def full_then_halted(sim: Simulator) -> None:
    full(sim)
    sim.halt()


def closed_then_halted(sim: Simulator) -> None:
    closed(sim)
    sim.halt()


def published(sim: Simulator) -> None:
    """One round with its model."""
    closed(sim)
    sim.publish_model()


def ended(sim: Simulator) -> None:
    """A second round, which an order has ended: rover-2's update is in it."""
    published(sim)
    sim.open_round()
    sim.admit("rover-2")
    sim.roll_back(sim.initial_digest)


def one_withdrawn(sim: Simulator) -> None:
    full(sim)
    sim.withdraw("rover-1")


def one_excluded(sim: Simulator) -> None:
    full(sim)
    sim.exclude("rover-1")


def suspended(sim: Simulator) -> None:
    sim.open_round()
    sim.record("rover-1", state="suspended")


def fetch_only(sim: Simulator) -> None:
    sim.publish_terms(operations=["fetch"])
    sim.open_round()


def of_other_groups(sim: Simulator) -> None:
    sim.record("rover-1", groups=["orbiters"])
    sim.open_round()


def hybrid_only(sim: Simulator) -> None:
    sim.publish_terms(suites=["ed25519+ml-dsa-44"])
    sim.open_round()


def guarded(sim: Simulator) -> None:
    """An open round whose terms ask for coordinates, weight and noise."""
    sim.publish_terms(leakage=LeakageTerms(nonzeros_min=3, weight_min=5, noise_std_min=50, rows=(), labels=()))
    sim.open_round()


def forbidden(sim: Simulator) -> None:
    """An open round, and rules that forbid rover-1's updates by their weight."""
    sim.publish_rules(cedar=FORBIDDING)
    sim.open_round()


def nearly_over(sim: Simulator) -> None:
    """The last moment before a gatekeeper's margin."""
    sim.open_round()
    sim.clock.advance(DURATION_US - DEADLINE_MARGIN_US - 1)


def in_the_margin(sim: Simulator) -> None:
    sim.open_round()
    sim.clock.advance(DURATION_US - DEADLINE_MARGIN_US)


def two_refused(sim: Simulator) -> None:
    sim.open_round()
    for n in range(2):
        sim.write(G1, STREAM, refused(weight=101 + n)(sim))


def three_refused(sim: Simulator) -> None:
    two_refused(sim)
    assert SINGLE_REFUSALS_MAX == 3
    sim.write(G1, STREAM, refused(weight=103)(sim))


def open_then_revoked(sim: Simulator) -> None:
    sim.open_round()
    sim.record("rover-2", state="revoked")


def used_up(sim: Simulator) -> None:
    for _ in range(3):
        sim.open_round()
        sim.clock.advance(DURATION_US)
        sim.close_round()


def services_expired(sim: Simulator) -> None:
    sim.publish_services(expires_us=sim.clock.now_us() + 1)
    sim.clock.advance(1)


def terms_expired(sim: Simulator) -> None:
    sim.publish_terms(expires_us=sim.clock.now_us() + 1)
    sim.clock.advance(1)


def with_signature(send: Send, change: Callable[[Signature], Signature]) -> Send:
    def signed(sim: Simulator) -> Envelope:
        envelope = send(sim)
        return replace(envelope, signatures=tuple(change(each) for each in envelope.signatures))

    return signed


def twice_signed(sim: Simulator) -> Envelope:
    return add_signature(says(opened, A1)(sim), sim.keys[G1])


def revoked(name: str) -> Callable[[Simulator], object]:
    return lambda sim: sim.record(name, state="revoked")


def two_segments(sim: Simulator) -> None:
    sim.open_round()
    sim.publish_terms(segment="sand")


def one_admitted(sim: Simulator) -> None:
    sim.open_round()
    sim.admit("rover-1")


def counted(sim: Simulator) -> Body:
    return RefusalsCounted(1, 1, (RefusalCount("role", PeerClass.UNKNOWN, 1),), sha256(b"requests"))


@dataclass
class Prepared:
    """A federation to which only void entries are added, and the verifier's own walk over its log."""

    sim: Simulator
    replay: Replay
    found: set[int | None] = field(default_factory=set)

    def walk(self) -> set[int | None]:
        """Indices of all entries that the verifier finds fault with."""
        for raw in self.sim.log.raw[self.replay.size :]:
            self.found |= {finding.index for finding in self.replay.step(raw)}
        return self.found


class Objects:
    """The simulator's store, as the replay reads it."""

    def __init__(self, sim: Simulator) -> None:
        self._store = sim.objects

    def read(self, digest: Digest, bytes_max: int) -> bytes | None:
        return self._store.get(digest, 2**30)[: bytes_max + 1] if self._store.is_stored(digest) else None

    def read_at(self, digest: Digest, offset: int, length: int) -> bytes | None:
        raw = self.read(digest, 2**30)
        return None if raw is None else raw[offset : offset + length]

    def holds(self, digest: Digest) -> bool:
        return self._store.is_stored(digest)


class Prepare:
    """One federation for each scene, to which only void entries are added."""

    def __init__(self, folder: Callable[[], Path]) -> None:
        self._folder = folder
        self._made: dict[Scene, Prepared] = {}

    def __call__(self, scene: Scene) -> Prepared:
        if scene not in self._made:
            sim = Simulator(self._folder())
            scene(sim)
            made = self._made[scene] = Prepared(sim, Replay(sim.policy.logs[0], Objects(sim)))
            assert made.walk() == set()
        return self._made[scene]


POSITION = {"streams", "statements", "size", "last_time_us", "owners"}


def without_position(sim: Simulator) -> str:
    """The state, but for where the next entry goes, written out: everything in it is a value."""
    state = sim.state
    values = {each.name: getattr(state, each.name) for each in fields(state) if each.name not in POSITION}
    return repr({**values, "owners": state.owners._owners})


def check_void(at: Prepared, reason: str, send: Send) -> None:
    """What is sent is refused for this reason; forced into the log, it is void and moves nothing but the position."""
    sim = at.sim
    envelope = send(sim)
    content = parse_content(envelope)
    place, before = sim.log.fold.place(content), without_position(sim)
    everything = copy.deepcopy(sim.state.streams), dict(sim.state.statements.indices), sim.state.size
    with pytest.raises((ConflictError, DeniedError)) as refusal:
        sim.log.fold.check(max(sim.clock.now_us(), sim.state.last_time_us), envelope, content)
    assert refusal.value.reason == reason
    assert without_position(sim) == before
    assert (sim.state.streams, sim.state.statements.indices, sim.state.size) == everything
    index = sim.log.force(envelope)
    assert sim.log.voids[index] == reason
    assert without_position(sim) == before
    after = sim.state.streams[place.stream]
    assert (after.next_seq, after.last) == (place.stream_seq + 1, sim.log.leaf(index))
    assert (sim.log.fold.index_of(envelope.digest) is not None) == isinstance(content, Statement)
    # The verifier's own fold, written apart from this one, says the same of every entry.
    assert at.walk() == set(sim.log.voids)


def check_sound(folder: Path, scene: Scene, send: Send) -> Simulator:
    """What is sent has effect, here and in the verifier."""
    sim = Simulator(folder)
    scene(sim)
    sim.log.append(send(sim))
    assert sim.log.voids == {}
    assert Prepared(sim, Replay(sim.policy.logs[0], Objects(sim))).walk() == set()
    return sim


def ids(cases: list[Case]) -> list[str]:
    """Names of cases: no two of a file are the same."""
    return [f"{number}-{case[0]}" for number, case in enumerate(cases)]


def findings(sim: Simulator) -> set[int | None]:
    """Indices of all entries that the verifier finds fault with."""
    return Prepared(sim, Replay(sim.policy.logs[0], Objects(sim))).walk()
