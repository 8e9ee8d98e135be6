"""Long random histories of one segment: everything that services, participants and operators can write, and lies.

Honest parties go on most of the time, so that rounds come to their ends; in between comes whatever else there is, in
any order. Half of the segment's terms have a server step, a mask that changes, or the rule that makes clusters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

from simulator import HOUR_US, SEGMENT, Simulator, participant_id, service_id

from sfrl_secure.errors import ConflictError, DeniedError
from sfrl_secure.governance.aggregation_terms import (
    CLUSTERED_MEAN,
    AdaptiveTerms,
    ClipTerms,
    MomentumTerms,
    NextMaskTerms,
    RuleTerms,
)
from sfrl_secure.governance.statements import (
    Evidence,
    ModelFetch,
    ModelsFetched,
    PeerClass,
    RefusalCount,
    RefusalsCounted,
    TimeAnchored,
    UpdateRefused,
)
from sfrl_secure.governance.terms import RoundTerms
from sfrl_secure.ids import ZERO_DIGEST, sha256
from sfrl_secure.translog.checkpoint import Checkpoint
from sfrl_secure.wire.entries import encode_envelope

A1, G1, L1 = service_id("aggregator", "a1"), service_id("gatekeeper", "g1"), service_id("audit_log", "l1")
STREAM = f"segment/{SEGMENT}"
DURATION_US = 60_000_000
ROUNDS = RoundTerms(duration_us=DURATION_US, cohort_min=2, cohort_max=4, rounds_max=10**6)
SERVERS = (None, MomentumTerms(60_000, 65_536), AdaptiveTerms(60_000, 60_000, 1_000, 8))
CHANGES = (None, NextMaskTerms("votes", 2), NextMaskTerms("saliency", 1), NextMaskTerms("contribution", 3))
RULES = (RuleTerms(), RuleTerms(CLUSTERED_MEAN, alike_ppm=100_000))
MASKS = ((0, 3, 9, 17), (1, 2, 3, 4))


class History:
    """A federation that lives at random. `sim` has all of it.

    Attributes:
        seen: what was seen on the way, so that a test can tell that it happened.
    """

    def __init__(self, folder: Path, seed: int, *, with_false_drops: bool = True) -> None:
        """Found a federation.

        Args:
            with_false_drops: whether closings drop sound updates as defective: the log cannot see it, a verifier can.
        """
        self.sim = Simulator(folder)
        self._false_drops = 0.05 if with_false_drops else 0.0
        self.rng = Random(seed)
        self.seen: set[str] = set()
        self.sim.publish_terms(**self._terms())

    def live(self, entries: int) -> None:
        """Go on until the log has so many entries."""
        while len(self.sim.log.raw) < entries:
            act = self.rng.choice(ACTS) if self.rng.random() < 0.4 else History.go_on
            # What is refused was impossible just now: somebody else acts.
            with suppress(ConflictError, DeniedError):
                act(self)
            self.sim.clock.advance(self.rng.choice((0, 1, 1_000_000)))
            self._look()

    def begin_with_everything(self) -> None:
        """What chance may leave out, once each: whatever the seed, a long history has all of it."""
        sim = self.sim
        mask = sim.agree(0, 3, 9, 17, next=CHANGES[1])
        sim.publish_terms(
            round_terms=ROUNDS, server=SERVERS[1], rule=RULES[1], mask=mask, support_modes=["agreed", "free"]
        )
        self._round_of("rover-1", "rover-2", "rover-3", "rover-4")
        sim.publish_model()
        sim.invite("rover-9")
        sim.join("rover-9")
        sim.rotate_root()
        for act in (self.count_refusals, self.fetch, self.decide, self.override, self.anchor, self.refuse):
            act()
        # One update of each fate; too few are left.
        sim.open_round()
        for n, name in enumerate(("rover-1", "rover-2", "rover-3")):
            sim.admit(name, {n: 5, 9: 7})
        self.complain()
        sim.withdraw("rover-1")
        sim.exclude("rover-2")
        sim.record("rover-3", state="suspended")
        self._close_late()
        sim.record("rover-3")
        self._round_of("rover-1", "rover-2", "rover-3", defective=["rover-3"])
        # Derived again while a round waits for its model, which is abandoned; then while one is open, which is ended.
        sim.exclude("rover-1", 1)
        self.lie_as_operator()
        sim.reaggregate(1)
        self._look()
        sim.publish_model()
        sim.open_round()
        sim.halt()
        sim.roll_back(sim.initial_digest)
        sim.close_round()
        self._look()

    def _round_of(self, *names: str, defective: Sequence[str] = ()) -> None:
        self.sim.open_round()
        self.refuse()
        for n, name in enumerate(names):
            self.sim.admit(name, {n: 5, 9: 7})
        if len(names) == ROUNDS.cohort_max:
            self.sim.close_round(defective=defective)
        else:
            self._close_late(defective)
        self._look()

    def _close_late(self, defective: Sequence[str] = ()) -> None:
        self.sim.clock.advance(DURATION_US)
        self.sim.close_round(defective=defective)
        self._look()

    def _look(self) -> None:
        segment = self.sim.segment
        facts = {
            "due": bool(segment.due), "halted": segment.is_halted,
            "state": any(step.server_state for step in segment.lineage),
            "next mask": any(step.next_mask for step in segment.lineage),
            "cluster": len(segment.models) > 1 + len({each.model for each in segment.rounds.values() if each.model}),
            "left out": any(each.left_out for each in segment.rounds.values()),
            "void": bool(self.sim.log.voids),
        }  # fmt: skip
        self.seen |= {name for name, is_so in facts.items() if is_so}
        for each in segment.rounds.values():
            self.seen |= {"abandoned"} if each.is_abandoned else set()
            if each.closed is not None:
                drops = {drop.reason for drop in each.closed.dropped}
                self.seen |= {each.closed.cause.name, each.closed.outcome.name, *drops}

    def _terms(self) -> dict[str, Any]:
        rng, given = self.rng, {"round_terms": ROUNDS, "server": self.rng.choice(SERVERS)}
        given |= {"rule": rng.choice(RULES), "clip": rng.choice((None, ClipTerms(median_ppm=1_500_000)))}
        if rng.random() < 0.8:
            mask = self.sim.agree(*rng.choice(MASKS), next=rng.choice(CHANGES))
            given |= {"mask": mask, "support_modes": ["agreed", "free"]}
        return given

    def _name(self) -> str:
        return self.rng.choice(sorted(self.sim.rovers))

    def _round(self) -> int:
        return self.rng.randint(1, max(self.sim.segment.last_round, 1))

    # What honest services do next

    def go_on(self) -> None:
        sim, segment = self.sim, self.sim.segment
        current = segment.open_round
        if segment.due or (segment.awaits_model and not segment.is_halted):
            sim.publish_model()
        elif current is not None and (current.ended_by_order or current.is_full):
            sim.close_round(defective=self._defective())
        elif segment.is_halted:
            sim.resume()
        elif current is None:
            sim.open_round()
        elif self.rng.random() < 0.1:
            sim.clock.advance(DURATION_US)
            sim.close_round(defective=self._defective())
        else:
            self.admit()

    def _defective(self) -> list[str]:
        current = self.sim.segment.open_round
        assert current is not None
        return [name for name in current.admissions if self.rng.random() < self._false_drops]

    def admit(self) -> None:
        sim, current = self.sim, self.sim.segment.open_round
        if current is None:
            return
        weight, is_agreed = self.rng.randint(1, 9), current.mask is not None and self.rng.random() < 0.6
        mask = sim.mask_of(current)
        at = mask.indices.tolist() if is_agreed and mask is not None else self.rng.sample(range(20), 3)
        values = {index: self.rng.randint(1, 60) for index in at}
        sim.admit(self._name(), values, weight=weight, support="agreed" if is_agreed else "free")

    # What participants and gatekeepers say

    def refuse(self) -> None:
        current = self.sim.segment.open_round
        if current is not None and "rover-1" not in current.admissions:
            envelope, update, _ = self.sim.update("rover-1", weight=self.rng.randint(101, 400))
            body = UpdateRefused(
                participant_id("rover-1"), encode_envelope(envelope), envelope, update, sha256(b"request"),
                "weight_limit", None, (), Evidence.LOG,
            )  # fmt: skip
            self.sim.write(G1, STREAM, body)

    def count_refusals(self) -> None:
        now = self.sim.clock.now_us()
        counts = (RefusalCount("role", PeerClass.UNKNOWN, 1),)
        self.sim.write(G1, "log", RefusalsCounted(now, now, counts, sha256(b"requests")))

    def fetch(self) -> None:
        now, models = self.sim.clock.now_us(), sorted(self.sim.segment.models)
        fetches = (ModelFetch(self._name(), self.rng.choice(models)),)
        self.sim.write(G1, STREAM, ModelsFetched(now, now, fetches))

    def withdraw(self) -> None:
        if self.sim.segment.current is not None:
            self.sim.withdraw(self._name())

    def complain(self) -> None:
        if self.sim.segment.open_round is not None:
            self.sim.complain(self._name())

    def decide(self) -> None:
        self.sim.decide(self._name())

    def anchor(self) -> None:
        sim, size = self.sim, self.rng.randint(1, len(self.sim.log.raw))
        note = sim.log.note(size, sim.log.witnesses[:1])
        sim.write(L1, "log", TimeAnchored(note, Checkpoint(sim.origin, size, sim.log.tree.root(size))))

    # What operators publish

    def publish_terms(self) -> None:
        self.sim.publish_terms(**self._terms())

    def publish_others(self) -> None:
        self.rng.choice((self.sim.publish_services, self.sim.publish_rules, self.sim.rotate_root))()

    def record(self) -> None:
        # Whoever is revoked is so for good: the first three stay, or nothing goes on.
        name = self.rng.choice(("rover-2", "rover-3", "rover-4"))
        states = ("active", "suspended", "revoked") if name == "rover-4" else ("active", "suspended")
        self.sim.record(name, state=self.rng.choice(states))

    def reactivate(self) -> None:
        for name in sorted(self.sim.rovers):
            record = self.sim.state.participant(name)
            if record is not None and record.state == "suspended":
                self.sim.record(name)

    def invite(self) -> None:
        name = f"rover-{self.rng.randint(5, 9)}"
        if name not in self.sim.rovers:
            self.sim.invite(name)
            self.sim.join(name)

    def issue(self) -> None:
        name = self._name()
        spki = sha256(b"%s %d" % (name.encode(), self.rng.randint(0, 3)))
        self.sim.issue(name, spki=spki)

    def revoke_key(self) -> None:
        keys = sorted(key for key, owner in self.sim.state.issued.items() if owner.role == "participant")
        self.sim.revoke_key(self.rng.choice(keys))

    # Orders

    def halt(self) -> None:
        self.sim.halt()

    def exclude(self) -> None:
        current = self.sim.segment.rounds.get(self._round())
        if current is not None and current.admissions:
            self.sim.exclude(self.rng.choice(sorted(current.admissions)), current.number)

    def roll_back(self) -> None:
        lineage = self.sim.segment.lineage
        if lineage and self.rng.random() < 0.9:
            self.sim.roll_back(self.rng.choice(lineage[-3:]).model)
        else:
            self.sim.roll_back(self.sim.initial_digest)

    def reaggregate(self) -> None:
        self.exclude()
        lineage = self.sim.segment.lineage
        if lineage:
            self.sim.reaggregate(self.rng.choice(lineage[-4:]).round)

    def accept(self) -> None:
        self.sim.accept(self.rng.randrange(len(self.sim.log.raw)), "censorship")

    def override(self) -> None:
        decisions = list(self.sim.state.decisions)
        if decisions:
            self.sim.override(self.rng.choice(decisions), 5)

    # Lies

    def lie(self) -> None:
        """Something that is void: stale, of another mask or server state, unsigned for, or no statement at all."""
        sim = self.sim
        other = sha256(b"other")
        bodies = [sim.opening(), sim.opening(mask=other), sim.opening(server_state=other), sim.opening(round=10**6)]
        current = sim.segment.current
        if sim.segment.awaits_model and current is not None:
            honest = sim.model_of(current, current.base_model, current.server_state)
            bodies = [honest]  # type: ignore[list-item]
        body, stale = self.rng.choice(bodies), self.rng.random() < 0.5
        changes = {"reads_segment" if self.rng.random() < 0.5 else "reads_governance": ZERO_DIGEST} if stale else {}
        writer = G1 if self.rng.random() < 0.3 else A1
        if stale or writer is G1 or not sim.segment.awaits_model:
            sim.log.force(sim.sign(sim.statement(writer, STREAM, body, **changes)))

    def lie_as_operator(self) -> None:
        kind = "application/vnd.sfrl.segment-terms.v1+json"
        self.sim.log.force(self.sim.sign_document(kind, self.sim.terms_raw(**self._terms()), ["ann"]))

    def lie_about_time(self) -> None:
        self.sim.order("halt", signers=["eve"], expires_us=self.sim.clock.now_us() + 100 * HOUR_US)


ACTS: tuple[Callable[[History], None], ...] = (
    History.admit, History.refuse, History.count_refusals, History.fetch, History.withdraw, History.complain,
    History.decide, History.anchor, History.publish_terms, History.publish_terms, History.publish_others,
    History.record, History.reactivate, History.reactivate, History.invite, History.issue, History.revoke_key,
    History.halt, History.exclude, History.roll_back, History.reaggregate, History.reaggregate, History.accept,
    History.override, History.lie, History.lie, History.lie_as_operator, History.lie_about_time,
)  # fmt: skip
