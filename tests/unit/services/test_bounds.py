from __future__ import annotations

from contextlib import ExitStack

import pytest

from sfrl_secure.errors import ExhaustedError
from sfrl_secure.ids import parse_spiffe_id
from sfrl_secure.services.audit_log.bounds import CallBound

ONE, TWO, THREE = (parse_spiffe_id(f"spiffe://sfrl.example/service/gatekeeper/{name}") for name in ("a", "b", "c"))


def test_calls_of_one_and_of_all_are_bounded_and_come_free_again() -> None:
    bound = CallBound(one_max=2, all_max=3)
    with ExitStack() as calls:
        calls.enter_context(bound.call_of(ONE))
        calls.enter_context(bound.call_of(ONE))
        with pytest.raises(ExhaustedError, match="one caller has at most 2"), bound.call_of(ONE):
            pass
        with bound.call_of(TWO), pytest.raises(ExhaustedError, match="at most 3"), bound.call_of(THREE):
            pass
        calls.enter_context(bound.call_of(THREE))
        assert bound.total() == 3
    assert bound.total() == 0
    with pytest.raises(RuntimeError), bound.call_of(ONE):
        raise RuntimeError
    assert bound.total() == 0
    # Nobody who has gone is remembered.
    assert not bound._calls
