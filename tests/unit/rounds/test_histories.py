"""Long random histories, walked by the verifier: it finds fault with what is void and with nothing else.

The simulated aggregator works rounds out with the library's own code, and the verifier with its own: masks that change,
states of the server's step, clusters, and all of it again after rollbacks and re-aggregations.
"""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sfrl_secure.replay.fold import Replay

from .histories import History
from .scenes import Objects

NOT_OF_AN_ENTRY = {"censorship"}
"""What a verifier holds against gatekeepers, at an entry that has effect."""


@settings(deadline=None, max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_the_verifier_finds_fault_with_exactly_what_is_void(tmp_path_factory: Any, seed: int) -> None:
    history = History(tmp_path_factory.mktemp("history"), seed, with_false_drops=False)
    history.live(90)
    history.sim.close()
    replay = Replay(history.sim.policy.logs[0], Objects(history.sim))
    for raw in history.sim.log.raw:
        replay.step(raw)
    found = {each.index for each in replay.docket.findings if each.code not in NOT_OF_AN_ENTRY}
    assert found == set(history.sim.log.voids), replay.docket.findings
    assert replay.missing == ()
