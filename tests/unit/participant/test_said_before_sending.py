"""What is wrong with an update as it was handed in is said with what to do, before anything is sent."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from simulator import MANIFEST, SEGMENT, DirectChannel, Simulator

from sfrl_secure.errors import DeniedError, MalformedError
from sfrl_secure.participant.membership import Training
from sfrl_secure.participant.sdk import Participant
from sfrl_secure.wire.uploads import SUBMIT_UPDATE

N = MANIFEST.coordinates
INDICES, VALUES = np.array([1, 4], np.int64), np.array([0.5, -0.25])


def begin(sim: Simulator) -> tuple[Participant, DirectChannel, Training]:
    channel = DirectChannel(sim.gatekeeper(), "rover-1")
    rover = sim.participant("rover-1", channel)
    training = rover.join(SEGMENT).next_round(wait_seconds=0)
    assert training is not None
    return rover, channel, training


def take(sim: Simulator, *modes: str) -> None:
    limits = replace(sim.segment.terms.limits, nonzeros_max=N)
    more: dict[str, Any] = {"mask": sim.agree(1, 4, 18)} if "agreed" in modes else {"limits": limits}
    sim.publish_terms(support_modes=modes, tensors=None, **more)
    sim.open_round()


@pytest.mark.parametrize("given", [True, np.True_, 3.0, "3", None, np.float64(3), [3]])
def test_a_weight_that_is_no_whole_number_is_named(sim: Simulator, given: Any) -> None:
    sim.open_round()
    rover, channel, training = begin(sim)
    with pytest.raises(MalformedError, match=r"num_samples.* whole number"):
        training.submit(delta=np.ones(N), num_samples=given)
    with pytest.raises(MalformedError, match=r"num_samples.* whole number"):
        rover.submit(training.opened, INDICES, VALUES, given)
    assert SUBMIT_UPDATE not in channel.calls


@pytest.mark.parametrize("given", [0, -1, 101])
def test_a_weight_outside_the_terms_is_named_with_its_range(sim: Simulator, given: int) -> None:
    sim.open_round()
    rover, channel, training = begin(sim)
    for call in (
        lambda: training.submit(delta=np.ones(N), num_samples=given),
        lambda: rover.submit(training.opened, INDICES, VALUES, given),
    ):
        with pytest.raises(DeniedError, match=r"num_samples.* 1 to 100 ") as denied:
            call()
        assert (denied.value.reason, denied.value.entry_index) == ("weight_limit", None)
    assert SUBMIT_UPDATE not in channel.calls


def test_whole_numbers_of_numpy_are_weights(sim: Simulator) -> None:
    sim.open_round()
    _, _, training = begin(sim)
    receipt = training.submit(delta=np.full(N, 0.5), num_samples=np.int64(7))  # type: ignore[arg-type]
    assert receipt.submitted.update.weight == 7
    assert type(receipt.submitted.update.weight) is int


@pytest.mark.parametrize("given", [True, "0.5", 0.0, -0.1, 1.5, float("nan"), [0.5]])
def test_a_density_that_is_none_is_named_with_its_range(sim: Simulator, given: Any) -> None:
    sim.open_round()
    _, channel, training = begin(sim)
    with pytest.raises(MalformedError, match=r"density is a share.* above 0 and at most 1"):
        training.submit(delta=np.ones(N), num_samples=1, density=given)
    assert SUBMIT_UPDATE not in channel.calls


@pytest.mark.parametrize("mode", ["dense", "agreed"])
def test_a_density_is_for_free_support(sim: Simulator, mode: str) -> None:
    take(sim, mode)
    _, channel, training = begin(sim)
    with pytest.raises(MalformedError, match=f"update is {mode}: leave density out"):
        training.submit(delta=np.ones(N), num_samples=1, density=0.5)
    assert SUBMIT_UPDATE not in channel.calls


@pytest.mark.parametrize("given", [True, "0.5", None, float("nan"), -1.0])
def test_a_noise_that_is_none_is_named(sim: Simulator, given: Any) -> None:
    sim.open_round()
    _, channel, training = begin(sim)
    with pytest.raises(MalformedError, match="noise_std"):
        training.submit(delta=np.ones(N), num_samples=1, noise_std=given)
    assert SUBMIT_UPDATE not in channel.calls


@pytest.mark.parametrize("mode", ["dense", "agreed"])
def test_indices_where_the_terms_take_none_are_refused_with_what_to_send(sim: Simulator, mode: str) -> None:
    take(sim, mode)
    rover, channel, training = begin(sim)
    with pytest.raises(DeniedError, match=f"terms take {mode}: send new weights by tensor") as denied:
        rover.submit(training.opened, INDICES, VALUES, 1)
    assert denied.value.reason == "format_not_allowed"
    assert SUBMIT_UPDATE not in channel.calls


def test_too_many_indices_are_counted(sim: Simulator) -> None:
    limits = replace(sim.segment.terms.limits, nonzeros_max=3)
    sim.publish_terms(limits=limits)
    sim.open_round()
    rover, channel, training = begin(sim)
    with pytest.raises(DeniedError, match="has 5 values of at most 3") as denied:
        rover.submit(training.opened, np.arange(5), np.full(5, 0.5), 1)
    assert denied.value.reason == "too_dense"
    assert SUBMIT_UPDATE not in channel.calls


def test_a_second_update_is_told_which_round_has_the_first(sim: Simulator) -> None:
    sim.open_round()
    rover, _, training = begin(sim)
    training.submit(delta=np.full(N, 0.5), num_samples=1)
    size = len(sim.log.raw)
    with pytest.raises(DeniedError, match=r"round 1 of rocks has an update of yours.* wait for the next") as denied:
        rover.submit(training.opened, INDICES, VALUES, 1)
    assert (denied.value.reason, denied.value.entry_index) == ("duplicate", size)


def test_a_segment_that_is_none_is_named_with_where_to_look(sim: Simulator) -> None:
    rover = sim.participant("rover-1")
    with pytest.raises(DeniedError, match="no segment ice: `sfrl segment list`") as denied:
        rover.open_round("ice", wait_seconds=0)
    assert denied.value.reason == "unknown_segment"


def test_what_is_handed_in_and_handed_out_is_shown_on_one_line_without_bytes(sim: Simulator) -> None:
    sim.open_round()
    _, _, training = begin(sim)
    signed = training.prepare(delta=np.full(N, 0.5), num_samples=1)
    receipt = training.send(signed)
    assert repr(signed) == (
        f"SignedUpdate(rocks, round 1, rover-1: {signed.update.payload_bytes} bytes, free, int8)"
    )
    assert repr(receipt) == f"UpdateReceipt(rocks, round 1, rover-1: entry {receipt.index})"
    assert repr(receipt.submitted) == f"Submitted(rocks, round 1, rover-1: entry {receipt.index})"
