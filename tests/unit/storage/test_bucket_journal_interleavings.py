"""The journal in a bucket, in every order in which the requests of processes can come: there is one history.

See `interleavings` for what is checked in each state. A crash is a process that is never let go on.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.storage.interleavings import APPEND, DROP, OPEN, Exploration, created

WRITER = (OPEN, APPEND, APPEND)
WAITING = (OPEN, APPEND)
DROPPER = (OPEN, APPEND, DROP)
BUSY = (OPEN, APPEND, DROP, APPEND)


@pytest.mark.parametrize(
    ("scripts", "begun", "losses"),
    [
        pytest.param((WRITER, WAITING, DROPPER), (), 0, id="one writes, one waits where it opened, one drops"),
        pytest.param((BUSY, BUSY), (), 1, id="two do everything, a request is lost"),
        pytest.param(
            (WRITER, WAITING, DROPPER, (OPEN, DROP)), (0, 0, 1, 0), 0,
            id="a dropping under a mark is interrupted, and another process removes what it left",
        ),
        pytest.param(
            (WRITER, WAITING, DROPPER, (OPEN,)), (0, 0, 1, 1, 2, 2), 0,
            id="a dropping of a fence is interrupted, and another process removes what it left",
        ),
        pytest.param(
            (WRITER, WAITING, (OPEN, APPEND, APPEND, DROP), (OPEN,)), (0, 0, 1, 0, 2), 1,
            id="the same under a mark, a request is lost",
        ),
        pytest.param(
            ((OPEN, APPEND, APPEND, DROP), (OPEN, APPEND, APPEND, DROP), DROPPER), (0, 0, 1, 1), 0,
            id="three drop, of which two have written",
        ),
    ],
)
def test_in_whatever_order_requests_come_there_is_one_history(
    scripts: Sequence[Sequence[str]], begun: Sequence[int], losses: int
) -> None:
    exploration = Exploration(created(), scripts, losses=losses).let(*begun)
    exploration.visit_all()
    assert exploration.visited > 500


def test_what_a_journal_without_marks_allows_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfrl_secure.storage.bucket_journal.ranges_of", lambda _: (range(1),))
    exploration = Exploration(created(), (WRITER, WAITING, DROPPER)).let(0, 0, 1, 0)
    with pytest.raises(AssertionError, match="a name had two batches"):
        exploration.visit_all()


MANY = Exploration(created(), [(OPEN, APPEND, APPEND, DROP, APPEND, OPEN, APPEND, DROP)] * 5, losses=4)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 59), min_size=50, max_size=250))
def test_of_five_processes_that_come_and_go_there_is_one_history(choices: list[int]) -> None:
    MANY.walk(choices)
