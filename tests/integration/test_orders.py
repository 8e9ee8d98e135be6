"""Operators intervene in a running federation: everything is on record, obeyed, and verified afterwards.

One history, told in order: a halt that refuses a submit, an excluded and a withdrawn update, a rollback that ends an
open round, a revocation after which the published rounds are derived again without whom it names, a decision that is
overridden, and a complaint that an auditor puts on record and the gatekeeper answers.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from sfrl_secure.aggregation.models import ModelSnapshot, parse_model
from sfrl_secure.audit.profile import read_operator_profile
from sfrl_secure.audit.report import Report
from sfrl_secure.cli.reading import LogReading
from sfrl_secure.crypto.envelope import envelope_to_json, sign_envelope
from sfrl_secure.errors import DeniedError, RoundStateError
from sfrl_secure.governance.orders import NoTarget, OrderAction, OrderTarget, OverrideTarget, ReaggregateTarget
from sfrl_secure.governance.statements import CloseCause, CloseOutcome
from sfrl_secure.ids import sha256
from sfrl_secure.operating.acts import (
    draft_order,
    draft_participant_revocation,
    model_to_roll_back_to,
    update_to_exclude,
)
from sfrl_secure.operating.following import connect, follow_state
from sfrl_secure.operating.signing import SigningRequest
from sfrl_secure.participant.decisions import Decision
from sfrl_secure.participant.rounds import OpenRound
from sfrl_secure.participant.sdk import Participant
from sfrl_secure.participant.sending import ClaimedPayload
from sfrl_secure.participant.submissions import Submitted
from sfrl_secure.rounds.reaggregation import left_out_by, reveals_of
from sfrl_secure.rounds.state import FederationState, RoundState, SegmentState

from .conftest import COORDINATES, ROVERS, SEGMENT, Site, Start, open_number, small_plan, submit, weight_of

R1, R2, R3 = ROVERS
BOTH, ONE = ("alice", "bob"), ("carol",)


class Operators:
    """The operators of a site: each reads the log, signs, and appends, as their own machines would."""

    def __init__(self, site: Site) -> None:
        self._profiles = {
            name: read_operator_profile(site.folder.operator(name) / "profile.toml") for name in (*BOTH, *ONE)
        }

    def state(self) -> FederationState:
        """What is in force now, verified."""
        profile = self._profiles["alice"]
        with connect(profile) as log:
            return follow_state(log, profile.open_trust_policy())

    def publish(self, signers: tuple[str, ...], draft: Callable[[FederationState, int], SigningRequest]) -> int:
        """Draft on the newest state, sign and append; give the index."""
        request = draft(self.state(), time.time_ns() // 1_000)
        keys = [self._profiles[name].open_signing_key() for name in signers]
        with connect(self._profiles[signers[0]]) as log:
            return log.append(sign_envelope(request.payload_type, request.payload, keys)).logged.index

    def order(
        self,
        action: OrderAction,
        target: OrderTarget | Callable[[FederationState], OrderTarget] = NoTarget(),  # noqa: B008 - never changes
        signers: tuple[str, ...] = BOTH,
    ) -> int:
        """Give an order; a target may depend on the state."""

        def draft(state: FederationState, now_us: int) -> SigningRequest:
            chosen = target(state) if callable(target) else target
            return draft_order(state, SEGMENT, action, chosen, reason="a test", hours=1, now_us=now_us)

        return self.publish(signers, draft)


@dataclass
class Told:
    """What happened, for the tests to look at.

    Attributes:
        sent: by round and rover.
        models: as rover 1 fetched them, by the round that began from each.
    """

    site: Site
    operators: Operators
    sent: dict[tuple[int, str], Submitted] = field(default_factory=dict)
    models: dict[int, ModelSnapshot] = field(default_factory=dict)
    halted: DeniedError | None = None
    complaint: dict[str, object] = field(default_factory=dict)
    decision: bytes = b""
    lineage_before: list[bytes] = field(default_factory=list)
    final: LogReading | None = None
    report: Report | None = None

    def send(self, rover: Participant, number: int) -> Submitted:
        self.sent[number, rover.name] = submit(rover, number)
        return self.sent[number, rover.name]

    def see(self, rover: Participant, number: int) -> OpenRound:
        opened = open_number(rover, number)
        self.models[number] = rover.model(opened)
        return opened

    @property
    def segment(self) -> SegmentState:
        assert self.final is not None
        return self.final.state.segments[SEGMENT]

    def round(self, number: int) -> RoundState:
        return self.segment.rounds[number]


@pytest.fixture(scope="module")
def told(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Told:
    site = start(small_plan())
    told = Told(site, Operators(site))
    rovers = {name: site.participant(name) for name in ROVERS}
    for number in (1, 2):
        told.see(rovers[R1], number)
        for name in ROVERS:
            told.send(rovers[name], number)
    _halt_and_exclude(told, rovers)
    _withdraw_and_decide(told, rovers)
    _roll_back(told, rovers)
    _complain(told, rovers, tmp_path_factory.mktemp("complaint"))
    _derive_again(told, rovers)
    told.final = site.wait_published(lambda log: log.state.segments[SEGMENT].last_round >= 7)
    told.report = site.verify()
    return told


def _halt_and_exclude(told: Told, rovers: dict[str, Participant]) -> None:
    opened = told.see(rovers[R1], 3)
    told.operators.order(OrderAction.HALT, signers=ONE)
    with pytest.raises(RoundStateError, match="halted"):
        rovers[R1].open_round(SEGMENT, 2, wait_seconds=1.0)
    with pytest.raises(DeniedError) as denied:
        submit(rovers[R1], 3, opened=opened)
    told.halted = denied.value
    told.operators.order(OrderAction.RESUME)
    for name in (R1, R2):
        told.send(rovers[name], 3)
    told.operators.order(OrderAction.EXCLUDE, lambda state: update_to_exclude(state, SEGMENT, 3, R2))
    told.send(rovers[R3], 3)


def _withdraw_and_decide(told: Told, rovers: dict[str, Participant]) -> None:
    told.see(rovers[R1], 4)
    taken_back = told.send(rovers[R1], 4)
    first = rovers[R1].withdraw(taken_back)
    assert rovers[R1].withdraw(taken_back) == first
    decided = Decision(rovers[R1].open_round(SEGMENT).base_model, predicted_class=2, confidence=0.9)  # type: ignore[union-attr]
    recorded = rovers[R1].record_decision(SEGMENT, b"a rock", decided)
    told.decision = recorded.statement_digest
    told.operators.order(OrderAction.OVERRIDE, OverrideTarget(recorded.statement_digest, 1))
    for name in (R2, R3):
        told.send(rovers[name], 4)


def _roll_back(told: Told, rovers: dict[str, Participant]) -> None:
    told.see(rovers[R1], 5)
    told.send(rovers[R1], 5)
    told.operators.order(OrderAction.ROLLBACK, lambda state: model_to_roll_back_to(state, SEGMENT, 3))


def _complain(told: Told, rovers: dict[str, Participant], folder: Path) -> None:
    opened = told.see(rovers[R1], 6)
    claimed = ClaimedPayload(b"never sent", 3, 1, root=sha256(b"no root"))
    unsent = rovers[R2].sign(rovers[R2].update_of(opened, claimed))
    file = folder / "complaint.json"
    file.write_bytes(envelope_to_json(unsent))
    auditor = told.site.folder.auditor("auditor-1") / "profile.toml"
    ended = subprocess.run(
        [sys.executable, "-m", "sfrl_secure.cli.main", "record", "complaint", str(file), "--profile", str(auditor),
         "--json"],
        capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    told.complaint = json.loads(ended.stdout)
    stream = f"segment/{SEGMENT}"
    told.site.wait_published(
        lambda log: any(key[1:] == (stream, 6, "not_received") for key in log.state.single_refusals)
    )


def _derive_again(told: Told, rovers: dict[str, Participant]) -> None:
    def whom_it_reveals(state: FederationState) -> ReaggregateTarget:
        segment = state.segments[SEGMENT]
        told.lineage_before = [step.model for step in segment.lineage]
        return ReaggregateTarget(1, reveals_of(segment, left_out_by(state, segment, 1)))

    told.operators.publish(
        ONE, lambda state, now_us: draft_participant_revocation(state, R3, reason="stolen", now_us=now_us)
    )
    told.operators.order(OrderAction.REAGGREGATE, whom_it_reveals)
    told.see(rovers[R1], 7)


def dropped(current: RoundState) -> list[tuple[str, str]]:
    assert current.closed is not None
    return [(drop.participant, drop.reason) for drop in current.closed.dropped]


def mean_of(told: Told, number: int, names: tuple[str, ...]) -> list[int]:
    """The weighted mean of some rovers' updates of a round, in exact fractions."""
    sums = [Fraction(0)] * COORDINATES
    for name in names:
        encoded = told.sent[number, name].encoded
        assert encoded is not None
        for index, value in zip(encoded.update.indices, encoded.update.values, strict=True):
            sums[int(index)] += weight_of(name) * int(value)
    weights = sum(weight_of(name) for name in names)
    return [round(each / weights) for each in sums]  # Python rounds a Fraction half to even


def changed(after: ModelSnapshot, before: ModelSnapshot) -> list[int]:
    return [int(value) for value in after.values - before.values]


def test_a_halted_segment_refuses_on_record_and_goes_on_when_it_is_resumed(told: Told) -> None:
    assert told.halted is not None
    assert told.halted.reason == "halted"
    assert told.halted.entry_index is not None
    assert R1 in told.round(3).admissions


def test_an_excluded_and_a_withdrawn_update_are_dropped_from_their_rounds(told: Told) -> None:
    assert dropped(told.round(3)) == [(R2, "excluded")]
    assert dropped(told.round(4)) == [(R1, "withdrawn")]
    assert changed(told.models[4], told.models[3]) == mean_of(told, 3, (R1, R3))
    assert changed(told.models[5], told.models[4]) == mean_of(told, 4, (R2, R3))


def test_a_rollback_ends_the_open_round_and_the_next_begins_from_the_earlier_model(told: Told) -> None:
    ended = told.round(5).closed
    assert ended is not None
    assert (ended.cause, ended.outcome) == (CloseCause.ORDER, CloseOutcome.ABORTED)
    assert told.models[6].to_bytes() == told.models[4].to_bytes()
    assert [step.round for step in told.segment.lineage] == [1, 2, 3]


def test_the_rounds_are_derived_again_without_the_revoked_rover(told: Told) -> None:
    models = [told.models[1]]
    manifest, grid = told.segment.terms.model.manifest, told.segment.terms.model.grid_exponent
    for step in told.segment.lineage:
        raw = (told.site.folder.objects_dir / step.model.hex()[:2] / step.model.hex()).read_bytes()
        models.append(parse_model(raw, manifest, grid))
    assert told.lineage_before != [step.model for step in told.segment.lineage]
    for number in (1, 2):
        assert changed(models[number], models[number - 1]) == mean_of(told, number, (R1, R2))
    # Rover 2 is excluded and rover 3 revoked: one is left, too few to hide among, and nothing is added up.
    assert models[3].to_bytes() == models[2].to_bytes()
    assert told.models[7].to_bytes() == models[3].to_bytes()
    assert told.segment.due == []
    assert np.any(told.models[7].values != told.models[6].values)


def test_a_decision_is_on_record_and_overridden(told: Told) -> None:
    assert told.final is not None
    (recorded,) = told.final.state.decisions.values()
    assert told.decision in told.final.state.decisions
    assert (recorded.participant, recorded.decided_class, recorded.overridden) == (R1, 2, 1)


def test_the_complaint_is_on_record_and_answered(told: Told) -> None:
    complaint = told.round(6).complaints[R2]
    assert complaint.index == told.complaint["index"]
    assert Path(str(told.complaint["receipt"])).is_file()


def test_nothing_in_the_log_is_void_and_the_verifier_says_verified(told: Told) -> None:
    assert told.final is not None
    assert told.report is not None
    assert told.final.voids == {}
    assert told.report.exit_code == 0, told.report.to_text()
    assert told.report.results_sound
    assert told.report.conduct_clean
