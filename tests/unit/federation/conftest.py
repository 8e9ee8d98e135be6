"""One small federation, made once; tests read it and change copies."""

from __future__ import annotations

from pathlib import Path

import pytest

from sfrl_secure.clock import SystemClock
from sfrl_secure.services.federation.create import Federation, create_federation
from sfrl_secure.services.federation.plan import FederationPlan, ParticipantPlan, default_plan


@pytest.fixture(scope="session")
def plan() -> FederationPlan:
    """Two gatekeepers, and a participant with a hybrid key."""
    hybrid = ParticipantPlan(name="rover-pq", groups=["rovers"], suite="ed25519+ml-dsa-44")
    default = default_plan()
    return default.model_copy(
        update={"gatekeepers": ["gatekeeper-1", "gatekeeper-2"], "participants": [*default.participants, hybrid]}
    )


@pytest.fixture(scope="session")
def federation(plan: FederationPlan, tmp_path_factory: pytest.TempPathFactory) -> Federation:
    """A federation as `sfrl init` makes it."""
    root: Path = tmp_path_factory.mktemp("federation") / "new"
    return create_federation(root, plan, SystemClock())
