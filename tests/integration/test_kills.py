"""Power cuts in the middle of a round: nothing acknowledged is lost, nothing is counted twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from sfrl_secure.participant.sdk import Participant
from sfrl_secure.participant.submissions import Submitted
from sfrl_secure.wire.receipts import ReceiptKind

from .conftest import ROVERS, SEGMENT, Site, Start, small_plan, submit

VICTIMS = ("gatekeeper", "aggregator", "audit_log", "verifier")


@pytest.fixture(scope="module")
def site(start: Start) -> Site:
    return start(small_plan())


@pytest.fixture(scope="module")
def rovers(site: Site) -> dict[str, Participant]:
    return {name: site.participant(name) for name in ROVERS}


@pytest.fixture(scope="module")
def acknowledged() -> dict[int, list[Submitted]]:
    """What the rovers were told was admitted, by round."""
    return {}


@pytest.fixture(scope="module")
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(len(ROVERS)) as made:
        yield made


@pytest.mark.parametrize("victim", VICTIMS)
def test_a_service_killed_in_a_round_goes_on_with_it(
    site: Site, rovers: dict[str, Participant], acknowledged: dict[int, list[Submitted]],
    threads: ThreadPoolExecutor, victim: str,
) -> None:  # fmt: skip
    number = VICTIMS.index(victim) + 1
    killed = site.service(victim)
    first, second, third = (rovers[name] for name in ROVERS)
    sent = [submit(first, number)]
    # One is on its way, at whatever step, when the power goes, and one begins without it; the SDK asks again until it
    # is back.
    waiting: list[Future[Submitted]] = [threads.submit(submit, second, number)]
    killed.kill()
    assert not killed.is_running
    waiting.append(threads.submit(submit, third, number))
    killed.start()
    killed.wait_ready()
    sent += [each.result(timeout=60) for each in waiting]
    acknowledged[number] = sent
    for rover, each in zip(rovers.values(), sent, strict=True):
        rover.receipt(each, ReceiptKind.COUNTED)


def test_what_was_acknowledged_is_what_was_counted_and_none_of_it_twice(
    site: Site, acknowledged: dict[int, list[Submitted]]
) -> None:
    assert list(acknowledged) == [1, 2, 3, 4]
    log = site.wait_published(lambda each: each.state.segments[SEGMENT].last_round > len(VICTIMS))
    assert log.voids == {}
    for number, sent in acknowledged.items():
        found = log.state.segments[SEGMENT].rounds[number]
        assert found.closed is not None
        assert (found.closed.counted_count, found.closed.dropped) == (3, ())
        counted = {name: each.statement_digest for name, each in found.admissions.items()}
        assert counted == {each.update.participant: each.statement_digest for each in sent}
        assert {each.index for each in sent} == {each.index for each in found.admissions.values()}
    admitted = Counter(each.statement_digest for sent in acknowledged.values() for each in sent)
    assert set(admitted.values()) == {1}
    assert len(log.state.admitted_updates) == len(admitted)


def test_an_update_that_is_sent_again_after_all_gets_the_answer_of_then(
    site: Site, rovers: dict[str, Participant], acknowledged: dict[int, list[Submitted]]
) -> None:
    rover, sent = rovers[ROVERS[0]], acknowledged[1][0]
    assert sent.encoded is not None
    again = rover.submit_update(sent.update, sent.encoded.payload)
    assert (again.index, again.statement_digest) == (sent.index, sent.statement_digest)


def test_the_verifier_finds_nothing_and_every_service_ends_well(site: Site) -> None:
    assert set(site.stop().values()) == {0}
    report = site.verify()
    assert report.exit_code == 0, report.to_text()
    assert report.models == len(VICTIMS)
