"""Counting refusals: bounded memory, one root over what came, nothing lost between two entries."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from hypothesis import given, settings
from hypothesis import strategies as st

from sfrl_secure.clock import FixedClock
from sfrl_secure.governance.statements import PeerClass, RefusalCount
from sfrl_secure.ids import sha256
from sfrl_secure.rounds.refusals import PAIRS_MAX, RefusalCounter
from sfrl_secure.translog.merkle import leaf_hash, root_of

START_US = 1_760_000_000_000_000
DIGESTS = [sha256(b"%d" % i) for i in range(40)]


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 40))
def test_the_root_is_over_all_digests_in_order_of_arrival(count: int) -> None:
    counter = RefusalCounter(FixedClock(START_US))
    for digest in DIGESTS[:count]:
        counter.count("role", PeerClass.OPERATOR, digest)
    body = counter.take()
    assert body is not None
    assert body.requests_root == root_of(leaf_hash(digest) for digest in DIGESTS[:count])
    assert body.counts == (RefusalCount("role", PeerClass.OPERATOR, count),)


def test_counts_are_sorted_by_reason_and_then_by_class() -> None:
    counter = RefusalCounter(FixedClock(START_US))
    for reason, peer_class in (
        ("role", PeerClass.OPERATOR), ("certificate", PeerClass.UNKNOWN), ("role", PeerClass.PARTICIPANT),
        ("role", PeerClass.OPERATOR),
    ):
        counter.count(reason, peer_class, DIGESTS[0])
    body = counter.take()
    assert body is not None
    assert body.counts == (
        RefusalCount("certificate", PeerClass.UNKNOWN, 1),
        RefusalCount("role", PeerClass.PARTICIPANT, 1),
        RefusalCount("role", PeerClass.OPERATOR, 2),
    )


def test_nothing_refused_is_nothing_to_write() -> None:
    counter = RefusalCounter(FixedClock(START_US))
    assert counter.take() is None
    counter.count("role", PeerClass.OPERATOR, DIGESTS[0])
    assert counter.counted == 1


def test_an_interval_is_given_until_it_is_confirmed_and_the_next_begins_where_it_ends() -> None:
    clock = FixedClock(START_US)
    counter = RefusalCounter(clock)
    counter.count("role", PeerClass.OPERATOR, DIGESTS[0])
    clock.advance(10)
    first = counter.take()
    assert first is not None
    assert (first.from_us, first.until_us) == (START_US, START_US + 10)
    counter.count("certificate", PeerClass.UNKNOWN, DIGESTS[1])
    clock.advance(5)
    assert counter.take() == first
    counter.confirm(first)
    second = counter.take()
    assert second is not None
    assert (second.from_us, second.until_us) == (START_US + 10, START_US + 15)
    assert second.counts == (RefusalCount("certificate", PeerClass.UNKNOWN, 1),)
    assert second.requests_root == root_of([leaf_hash(DIGESTS[1])])
    counter.confirm(first)
    assert counter.take() == second


def test_an_interval_does_not_end_before_it_began_when_the_clock_goes_back() -> None:
    clock = FixedClock(START_US)
    counter = RefusalCounter(clock)
    counter.count("role", PeerClass.OPERATOR, DIGESTS[0])
    clock.advance(-100)
    body = counter.take()
    assert body is not None
    assert body.from_us == body.until_us == START_US


def test_reasons_beyond_the_bound_are_counted_together_and_none_is_lost() -> None:
    counter = RefusalCounter(FixedClock(START_US))
    for number in range(1_000):
        counter.count(f"reason_{number}", PeerClass.UNKNOWN, DIGESTS[0])
    body = counter.take()
    assert body is not None
    assert len(body.counts) == PAIRS_MAX
    assert sum(each.count for each in body.counts) == 1_000


def test_many_threads_lose_no_count() -> None:
    counter = RefusalCounter(FixedClock(START_US))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: counter.count("role", PeerClass.OPERATOR, DIGESTS[i % 40]), range(400)))
    body = counter.take()
    assert body is not None
    assert body.counts == (RefusalCount("role", PeerClass.OPERATOR, 400),)
