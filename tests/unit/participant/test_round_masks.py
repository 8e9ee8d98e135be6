"""The mask of a round, as a participant takes it: proven with the round, fetched for it, and used in no other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from simulator import SEGMENT, DirectChannel, Simulator, payload_of, service_id

from sfrl_secure.errors import DeniedError, NotFoundError, VerificationError
from sfrl_secure.governance.aggregation_terms import NextMaskTerms
from sfrl_secure.governance.terms import RoundTerms
from sfrl_secure.ids import ZERO_DIGEST, Digest, sha256
from sfrl_secure.participant.rounds import OpenRound, open_round
from sfrl_secure.participant.sdk import Participant
from sfrl_secure.participant.sending import ClaimedPayload
from sfrl_secure.sparse.topk import ErrorFeedback
from sfrl_secure.wire.downloads import FETCH_MODEL
from sfrl_secure.wire.gatekeeper_service import RoundAnswer

STREAM, A1 = f"segment/{SEGMENT}", service_id("aggregator", "a1")
THREE = ("rover-1", "rover-2", "rover-3")
VOTES = NextMaskTerms("votes", 3)
ROUNDS = RoundTerms(duration_us=60_000_000, cohort_min=2, cohort_max=3, rounds_max=30)


def terms(sim: Simulator, changes: NextMaskTerms | None = VOTES) -> None:
    mask = sim.agree(0, 3, 9, next=changes)
    sim.publish_terms(support_modes=["agreed"], mask=mask, round_terms=ROUNDS)


def finish(sim: Simulator, *mask: int) -> None:
    """Let the open round be counted, and the next one begin with these coordinates, whatever was voted for."""
    current = sim.segment.open_round
    assert current is not None
    at = sim.mask_of(current)
    assert at is not None
    for name in THREE:
        if name not in current.admissions:
            sim.admit(name, dict.fromkeys(at.indices.tolist(), 1), support="agreed")
    sim.close_round()
    sim.publish_model(next_mask=sim.agree(*mask).digest)
    sim.open_round()


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[Simulator]:
    """A segment whose second round has begun with another mask than the first."""
    made = Simulator(tmp_path)
    terms(made)
    made.open_round()
    finish(made, 1, 4, 8)
    yield made
    made.close()


@pytest.fixture
def rover(sim: Simulator) -> Iterator[Participant]:
    with sim.participant("rover-1", DirectChannel(sim.gatekeeper(), "rover-1")) as made:
        yield made


def now(rover: Participant) -> OpenRound:
    opened = rover.open_round(SEGMENT, wait_seconds=0)
    assert isinstance(opened, OpenRound)
    return opened


def next_round(sim: Simulator) -> None:
    sim.clock.advance(ROUNDS.duration_us)
    sim.close_round()
    sim.open_round()


# Proven with the round


def shown(sim: Simulator) -> RoundAnswer:
    return sim.gatekeeper().proofs.open_round(SEGMENT, 0, 0.0)


def opened_with(sim: Simulator, mask: Digest | None) -> OpenRound:
    """What a participant makes of the true answer, but for the mask of the round: the aggregator signed another."""
    answer, opening = shown(sim), sim.log.statement_at(sim.segment.rounds[sim.segment.last_round].opened_index)
    body = replace(opening.body, mask=mask)  # type: ignore[type-var] # it is a round_opened
    forced = sim.log.force(sim.sign(sim.statement(A1, STREAM, body, reads_segment=ZERO_DIGEST)))
    size = len(sim.log.raw)

    def moved(index: int) -> object:
        return sim.log.logged_entry(index, size)

    answer = replace(
        answer, checkpoint=sim.log.witnessed.note, round_opened=moved(forced), genesis=moved(0),
        terms=moved(answer.terms.index), services=tuple(moved(each.index) for each in answer.services),
        base_model=None if answer.base_model is None else moved(answer.base_model.index),
    )  # fmt: skip
    opened = open_round(answer, SEGMENT, sim.policy, sim.clock.now_us())
    assert isinstance(opened, OpenRound)
    return opened


def test_a_true_answer_proves_the_mask_that_was_published(sim: Simulator) -> None:
    opened = open_round(shown(sim), SEGMENT, sim.policy, sim.clock.now_us())
    assert isinstance(opened, OpenRound)
    assert opened.mask == sim.segment.rounds[2].mask == sim.segment.lineage[-1].next_mask


def test_a_mask_for_one_rover_is_refused(sim: Simulator) -> None:
    for lie in (sha256(b"a mask for one rover"), None):
        with pytest.raises(VerificationError, match="mask"):
            opened_with(sim, lie)
    assert opened_with(sim, sim.segment.rounds[2].mask).mask == sim.segment.rounds[2].mask


def test_before_the_first_model_a_round_has_the_mask_of_its_terms_alone(tmp_path: Path) -> None:
    sim = Simulator(tmp_path)
    terms(sim)
    sim.open_round()
    other = sim.agree(1, 2, 3).digest
    with pytest.raises(VerificationError, match="mask"):
        opened_with(sim, other)
    assert opened_with(sim, sim.segment.rounds[1].mask).mask == sim.segment.rounds[1].mask
    sim.close()


def test_under_terms_whose_mask_does_not_change_a_published_one_is_refused(sim: Simulator) -> None:
    published = sim.segment.rounds[2].mask
    terms(sim, None)
    next_round(sim)
    assert sim.segment.rounds[3].mask != published
    with pytest.raises(VerificationError, match="mask"):
        opened_with(sim, published)


def test_under_terms_without_a_mask_a_round_has_none(sim: Simulator) -> None:
    published = sim.segment.rounds[2].mask
    sim.publish_terms(round_terms=ROUNDS)
    next_round(sim)
    with pytest.raises(VerificationError, match="mask"):
        opened_with(sim, published)
    assert opened_with(sim, None).mask is None


# Fetched for it


def test_each_round_is_trained_for_under_its_own_mask(sim: Simulator, rover: Participant) -> None:
    for places in ([1, 4, 8], [2, 3, 5]):
        opened = now(rover)
        mask = rover.mask(opened)
        assert mask.digest == opened.mask == sim.segment.rounds[opened.number].mask
        training = rover.join(SEGMENT).next_round(wait_seconds=0)
        assert training is not None
        sent = training.submit(delta=np.full(24, 0.25, np.float32), num_samples=1).submitted
        assert sent.encoded is not None
        assert sent.encoded.update.indices.tolist() == mask.indices.tolist() == places
        finish(sim, 2, 3, 5)


def test_the_mask_of_the_round_before_does_not_do_for_what_is_made_without_a_link(
    sim: Simulator, rover: Participant
) -> None:
    opened = now(rover)
    rover.model(opened)
    rover.mask(opened)
    rover.check_kept(opened)
    finish(sim, 2, 3, 5)
    later = now(rover)
    rover.model(later)
    with pytest.raises(NotFoundError, match="mask of round 3"):
        rover.check_kept(later)
    rover.mask(later)
    rover.check_kept(later)
    # Both are kept: a round that is trained for still has its own.
    channel = rover._channel
    assert isinstance(channel, DirectChannel)
    asked = channel.calls.count(FETCH_MODEL)
    assert rover.mask(opened).digest == opened.mask
    assert channel.calls.count(FETCH_MODEL) == asked


# Used in no other


def old_payload(sim: Simulator, rover: Participant, opened: OpenRound) -> Callable[[], object]:
    """Send what was encoded under the first round's mask."""
    mask = sim.mask_of(sim.segment.rounds[1])
    assert mask is not None
    payload = payload_of(dict.fromkeys(mask.indices.tolist(), 3), support="agreed", mask=mask)
    return lambda: rover.submit_payload(opened, ClaimedPayload(payload, 3, 1, support="agreed"))


def test_an_update_under_the_mask_of_an_earlier_round_is_not_sent_and_says_what_to_do(
    sim: Simulator, rover: Participant
) -> None:
    opened, size = now(rover), len(sim.log.raw)
    with pytest.raises(DeniedError, match=r"another mask than round 2's.*fetch the round's") as denied:
        old_payload(sim, rover, opened)()
    assert (denied.value.reason, denied.value.entry_index) == ("payload_format", None)
    assert len(sim.log.raw) == size
    # The same change, encoded for the round, is taken.
    sent = rover.send(rover.prepare(opened, np.full(24, 0.25, np.float32), 1, ErrorFeedback(24)))
    assert sent.update.format.support == "agreed"


def test_where_the_terms_have_no_mask_the_gatekeeper_says_so(sim: Simulator, rover: Participant) -> None:
    sim.publish_terms(round_terms=ROUNDS)
    next_round(sim)
    opened = now(rover)
    with pytest.raises(DeniedError) as denied:
        old_payload(sim, rover, opened)()
    assert denied.value.reason == "format_not_allowed"
