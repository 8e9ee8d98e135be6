"""Taking part as people do it: join, train on the model, hand in weights, wait for the receipt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulator import GRID, MANIFEST, ROVERS, SEGMENT, DirectChannel, Simulator, SteppedAggregator

from sfrl_secure.errors import DeniedError, MalformedError, NotFoundError, PayloadError, UnavailableError
from sfrl_secure.ids import sha256
from sfrl_secure.participant.membership import Membership, Training
from sfrl_secure.participant.sdk import Participant
from sfrl_secure.wire.gatekeeper_service import GET_ROUND
from sfrl_secure.wire.receipts import ReceiptKind
from sfrl_secure.wire.uploads import SUBMIT_UPDATE

STEP = 2.0**-GRID
N = MANIFEST.coordinates


class Rover:
    """A participant in the segment, its channel, and a clock that its sleeping moves."""

    def __init__(self, sim: Simulator, name: str = "rover-1") -> None:
        self.channel = DirectChannel(sim.gatekeeper(), name)
        self.now = 0.0
        self.sleeping: Callable[[], object] = lambda: None
        self.sdk = Participant(
            name=name, key=sim.rovers[name], policy=sim.policy, channel=self.channel,
            receipts=sim.folder / "receipts" / name, clock=sim.clock, sleep=self._sleep, monotonic=lambda: self.now,
            rng=np.random.default_rng(1),
        )  # fmt: skip
        self.rocks: Membership = self.sdk.join(SEGMENT)

    def _sleep(self, seconds: float) -> None:
        self.now += seconds
        self.sleeping()

    def train(self) -> Training:
        training = self.rocks.next_round(wait_seconds=0)
        assert training is not None
        return training


def finish(aggregator: SteppedAggregator) -> None:
    assert [aggregator.step(), aggregator.step()] == [["CloseRound"], ["PublishModel"]]


def test_rovers_take_part_until_the_rounds_are_used_up(sim: Simulator) -> None:
    aggregator = sim.aggregator()
    aggregator.step()
    rovers = [Rover(sim, name) for name in ROVERS[:3]]
    rounds = [rover.rocks.rounds(wait_seconds=0) for rover in rovers]
    for number in (1, 2, 3):
        receipts = []
        for iterator in rounds:
            training = next(iterator)
            assert training.number == number
            weights = training.model.state_dict()
            assert {name: array.shape for name, array in weights.items()} == {
                tensor.name: tensor.shape for tensor in MANIFEST.tensors
            }
            weights["a.bias"] += np.float32(0.25)
            receipts.append(training.submit(weights, num_samples=8))
        finish(aggregator)
        for receipt in receipts:
            proven = receipt.wait(wait_seconds=0)
            assert (proven.index, proven.kind) == (receipt.index, ReceiptKind.COUNTED)
            assert receipt.path().is_file()
        aggregator.step()
    assert [next(iterator, None) for iterator in rounds] == [None] * 3
    final = rovers[0].rocks.final_model()
    initial = sim.initial.to_float32()
    # int8 rounds without bias: three rounds move the bias by three quarters, and nothing else.
    moved = final.vector() - initial
    assert moved[16:20] == pytest.approx(0.75, abs=0.02)
    assert not np.delete(moved, slice(16, 20)).any()
    assert sha256(final.snapshot.to_bytes()) == final.digest


def test_a_restarted_rover_goes_on_with_the_next_round(sim: Simulator) -> None:
    aggregator = sim.aggregator()
    aggregator.step()
    for name in ROVERS[:3]:
        Rover(sim, name).train().submit(delta=np.full(N, STEP), num_samples=1)
    with pytest.raises(NotFoundError, match="no such round opened"):
        Rover(sim).rocks.next_round(wait_seconds=0)
    finish(aggregator)
    aggregator.step()
    assert Rover(sim).train().number == 2


def test_a_gatekeeper_that_is_away_is_asked_again_while_there_is_time(sim: Simulator) -> None:
    sim.open_round()
    rover = Rover(sim)
    away = UnavailableError("away")
    asks = rover.channel.call

    def call(path: str, request: bytes, *, deadline_seconds: float) -> bytes:
        rover.now += 5.0
        return asks(path, request, deadline_seconds=deadline_seconds)

    rover.channel.call = call  # type: ignore[method-assign]
    rover.channel.broken = [away] * 30
    training = next(rover.rocks.rounds())
    assert training.number == 1
    rover.channel.broken = [away] * 1_000
    rover.now = 0.0
    with pytest.raises(UnavailableError):
        rover.rocks.next_round(wait_seconds=60.0)
    assert rover.now < 90.0
    assert rover.channel.calls.count(GET_ROUND) > 30


# What is handed in


def forms(change: np.ndarray) -> list[Any]:
    from sfrl_secure.participant.weights import by_name

    named = by_name(change, MANIFEST)
    return [change, change.astype(np.float64), named, list(named.values()), Tensor(change),
            {name: Tensor(array) for name, array in named.items()}]


class Tensor:
    """What tensors of other libraries can do; this one records gradients and lies on an accelerator."""

    def __init__(self, array: np.ndarray, done: str = "") -> None:
        self._array, self._done = array, done

    def detach(self) -> Tensor:
        return Tensor(self._array, "d")

    def cpu(self) -> Tensor:
        return Tensor(self._array, self._done + "c")

    def float(self) -> Tensor:
        return Tensor(self._array, self._done + "f")

    def numpy(self) -> np.ndarray:
        assert self._done == "dcf"
        return self._array


@pytest.mark.parametrize("form", range(6))
def test_weights_and_changes_come_in_any_form(sim: Simulator, form: int) -> None:
    sim.open_round()
    change = np.zeros(N, np.float32)
    change[[3, 17]] = [0.5, -0.25]
    training = Rover(sim).train()
    by_delta = training.prepare(delta=forms(change)[form], num_samples=1)
    new = training.model.vector() + change
    by_weights = training.prepare(forms(new)[form], num_samples=1)
    for signed in (by_delta, by_weights):
        assert signed.encoded is not None
        update = signed.encoded.update
        assert update.indices.tolist() == [3, 17]
        assert update.values * STEP == pytest.approx([0.5, -0.25], abs=0.01)


def test_tensors_that_updates_may_not_touch_are_left_out(sim: Simulator) -> None:
    sim.open_round()
    training = Rover(sim).train()
    weights = training.model.state_dict()
    weights["frozen"] += 9.0
    weights["a.weight"][0, 0] += 0.5
    signed = training.prepare(weights, num_samples=1)
    assert signed.encoded is not None
    assert signed.encoded.update.indices.tolist() == [0]
    del weights["frozen"]
    assert training.prepare(weights, num_samples=1).encoded is not None


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        ({"a.bias": np.zeros(4)}, r"add a\.weight"),
        ({"a.bias": np.zeros(4), "a.weight": np.zeros((4, 4)), "b": np.zeros(1)}, "leave it out"),
        ({"a.bias": np.zeros(4), "a.weight": np.zeros(16)}, r"tensor a\.weight has shape \(4, 4\)"),
        ([np.zeros((4, 4))], "3 tensors"),
        (np.zeros(N - 1), "24 coordinates"),
        (np.zeros((N, 1)), "24 coordinates"),
        (np.array(["a"] * N), "real numbers"),
        ({"a.bias": None, "a.weight": np.zeros((4, 4))}, "real numbers"),
        ({"a.bias": [[1], [1, 2]], "a.weight": np.zeros((4, 4))}, "are arrays"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_by_a_sentence_that_says_how_they_would(
    sim: Simulator, weights: Any, says: str
) -> None:
    sim.open_round()
    rover = Rover(sim)
    with pytest.raises(MalformedError, match=says):
        rover.train().submit(weights, num_samples=1)
    assert SUBMIT_UPDATE not in rover.channel.calls


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39])
def test_what_is_not_finite_is_not_sent(sim: Simulator, value: float) -> None:
    sim.open_round()
    rover = Rover(sim)
    with pytest.raises(PayloadError, match=r"tensor a\.weight at \[0, 0\] is none, the first of 20"):
        rover.train().submit(delta=np.full(N, value), num_samples=1)
    assert SUBMIT_UPDATE not in rover.channel.calls


def test_either_weights_or_a_change(sim: Simulator) -> None:
    sim.open_round()
    training = Rover(sim).train()
    for given in ({}, {"weights": np.zeros(N), "delta": np.zeros(N)}):
        with pytest.raises(MalformedError, match="give the new weights, or"):
            training.submit(num_samples=1, **given)  # type: ignore[arg-type]


# How it is encoded


def test_the_largest_are_sent_and_the_rest_is_owed(sim: Simulator) -> None:
    sim.publish_terms(tensors=None)
    aggregator = sim.aggregator()
    aggregator.step()
    rover = Rover(sim)
    change = np.zeros(N, np.float32)
    change[:4] = [0.5, 0.25, 0.125, 0.0625]
    training = rover.train()
    training.submit(delta=change, num_samples=1, density=2 / N)
    for name in ROVERS[1:3]:
        Rover(sim, name).train().submit(delta=change, num_samples=1)
    finish(aggregator)
    aggregator.step()
    signed = rover.train().prepare(delta=np.zeros(N, np.float32), num_samples=1, density=2 / N)
    assert signed.encoded is not None
    assert signed.encoded.update.indices.tolist() == [2, 3]


def test_what_is_not_admitted_stays_owed(sim: Simulator) -> None:
    sim.open_round()
    rover = Rover(sim)
    training = rover.train()
    change = np.zeros(N, np.float32)
    change[5] = 0.5
    rover.channel.broken = [DeniedError("policy_denied", "no")]
    with pytest.raises(DeniedError):
        training.submit(delta=change, num_samples=1)
    assert not rover.rocks.feedback_of(training.terms).residual.any()
    training.submit(delta=change, num_samples=1)
    assert abs(rover.rocks.feedback_of(training.terms).residual[5]) < 0.01


def test_a_dense_update_is_sent_where_the_terms_take_no_other(sim: Simulator) -> None:
    limits = replace(sim.segment.terms.limits, nonzeros_max=N)
    sim.publish_terms(support_modes=("dense",), value_types=("bf16", "fp32"), tensors=None, limits=limits)
    sim.open_round()
    rover = Rover(sim)
    training = rover.train()
    receipt = training.submit(delta=np.full(N, 0.5), num_samples=1)
    wanted = receipt.submitted.update.format
    assert (wanted.support, wanted.values, receipt.submitted.update.nonzeros) == ("dense", "bf16", N)
    assert not rover.rocks.feedback_of(training.terms).residual.any()


def test_an_agreed_update_has_the_masks_coordinates(sim: Simulator) -> None:
    sim.publish_terms(support_modes=("agreed",), mask=sim.agree(1, 4, 18))
    sim.open_round()
    rover = Rover(sim)
    receipt = rover.train().submit(delta=np.full(N, 0.5), num_samples=1)
    assert (receipt.submitted.update.format.support, receipt.submitted.update.nonzeros) == ("agreed", 3)
    assert receipt.submitted.encoded is not None
    assert receipt.submitted.encoded.update.indices.tolist() == [1, 4, 18]
    folder: Path = sim.folder / "receipts" / "rover-1" / "masks" / SEGMENT
    assert [path.name for path in folder.iterdir()] == [sim.segment.terms.mask.digest.hex()]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("wanted", "says"),
    [({"support": "dense"}, "support mode free"), ({"value_type": "bf16"}, "value type int8"),
     ({"density": 0.0}, "above 0"), ({"density": 1.5}, "at most 1")],
)
def test_what_the_terms_do_not_take_is_refused_with_what_they_take(
    sim: Simulator, wanted: dict[str, Any], says: str
) -> None:
    sim.open_round()
    rover = Rover(sim)
    with pytest.raises((DeniedError, MalformedError), match=says):
        rover.train().submit(delta=np.full(N, 0.5), num_samples=1, **wanted)
    assert SUBMIT_UPDATE not in rover.channel.calls


@pytest.mark.parametrize(
    ("reason", "terms", "given"),
    [
        ("norm_limit", {}, {"delta": np.full(N, 15.0)}),
        ("magnitude_limit", {}, {"delta": np.eye(1, N)[0] * 17.0}),
        ("too_few_coordinates", {}, {"delta": np.zeros(N)}),
        ("weight_limit", {}, {"num_samples": 101}),
        ("weight_limit", {}, {"num_samples": 0}),
    ],
)
def test_what_would_be_refused_is_refused_here_for_the_same_reason_and_not_sent(
    sim: Simulator, reason: str, terms: dict[str, Any], given: dict[str, Any]
) -> None:
    sim.open_round()
    rover, size = Rover(sim), len(sim.log.raw)
    with pytest.raises(DeniedError) as denied:
        rover.train().submit(**{"delta": np.full(N, 0.5), "num_samples": 1, **given})
    assert (denied.value.reason, denied.value.entry_index) == (reason, None)
    assert SUBMIT_UPDATE not in rover.channel.calls
    assert len(sim.log.raw) == size


# Receipts


def test_progress_is_told_in_durable_bytes(sim: Simulator) -> None:
    sim.open_round()
    told: list[tuple[int, int]] = []
    receipt = Rover(sim).train().submit(
        delta=np.full(N, 0.5), num_samples=1, on_progress=lambda *now: told.append(now)
    )
    length = receipt.submitted.update.payload_bytes
    assert told[-1] == (length, length)


def test_waiting_for_a_receipt_ends_some_time_after_the_round_should_have(sim: Simulator) -> None:
    sim.open_round()
    rover = Rover(sim)
    receipt = rover.train().submit(delta=np.full(N, 0.5), num_samples=1)
    with pytest.raises(NotFoundError, match="round 1 is still open: wait longer"):
        receipt.wait()
    assert 60.0 + 120.0 <= rover.now < 60.0 + 130.0
    asked = rover.channel.calls.count("/sfrl.gatekeeper.v1.GatekeeperService/GetReceipt")
    assert asked < 120, "the bytes of asking are the rover's"


def test_waiting_for_a_receipt_outlasts_a_gatekeeper_that_is_away(sim: Simulator) -> None:
    sim.open_round()
    rover = Rover(sim)
    receipt = rover.train().submit(delta=np.full(N, 0.5), num_samples=1)
    asks = rover.channel.call

    def call(path: str, request: bytes, *, deadline_seconds: float) -> bytes:
        rover.now += 5.0
        return asks(path, request, deadline_seconds=deadline_seconds)

    rover.channel.call = call  # type: ignore[method-assign]
    rover.channel.broken = [UnavailableError("away")] * 8
    assert receipt.wait(ReceiptKind.WITNESSED).index == receipt.index


def test_an_update_can_be_taken_back_by_its_receipt(sim: Simulator) -> None:
    sim.open_round()
    receipt = Rover(sim).train().submit(delta=np.full(N, 0.5), num_samples=1)
    assert receipt.withdraw().index == receipt.index + 1


def test_a_prepared_update_may_be_sent_by_the_same_rover_later(sim: Simulator) -> None:
    sim.open_round()
    rover = Rover(sim)
    training = rover.train()
    signed = training.prepare(delta=np.full(N, 0.5), num_samples=1)
    assert SUBMIT_UPDATE not in rover.channel.calls
    assert training.send(signed).statement_digest == signed.envelope.digest


def test_there_is_no_final_model_before_the_end(sim: Simulator) -> None:
    sim.open_round()
    with pytest.raises(NotFoundError, match="a round has a model of its own"):
        Rover(sim).rocks.final_model()


def test_a_segment_that_can_have_no_such_name_is_not_joined(sim: Simulator) -> None:
    with pytest.raises(MalformedError):
        sim.participant("rover-1").join("no such name")
