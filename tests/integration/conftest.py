"""Real services as processes on loopback, and participants that talk to them through the SDK."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from sfrl_secure.audit.report import Report
from sfrl_secure.audit.verify import verify_log
from sfrl_secure.cli.reading import LogReading, read_folded
from sfrl_secure.clock import SystemClock
from sfrl_secure.errors import SfrlError
from sfrl_secure.participant.profile import Profile, read_profile
from sfrl_secure.participant.rounds import OpenRound
from sfrl_secure.participant.sdk import Participant
from sfrl_secure.participant.submissions import Submitted
from sfrl_secure.services.federation.create import Federation, create_federation
from sfrl_secure.services.federation.folder import FederationFolder
from sfrl_secure.services.federation.plan import FederationPlan, ParticipantPlan, SegmentPlan, TensorPlan
from sfrl_secure.services.federation.supervise import ServiceProcess, Supervisor

ROVERS = ("rover-1", "rover-2", "rover-3")
SEGMENT = "rocks"
COORDINATES = 72
NONZEROS = 9
SETTLE_SECONDS = 30.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.integration)


def small_plan(*, segments: Sequence[str] = (SEGMENT,), gatekeepers: Sequence[str] = ("g1",)) -> FederationPlan:
    """Three rovers; a toy model of int32; a round closes when all three have sent."""
    return FederationPlan(
        gatekeepers=list(gatekeepers),
        refusals_seconds=0.2,
        participants=[ParticipantPlan(name=name, groups=["rovers"]) for name in ROVERS],
        segments=[
            SegmentPlan(
                name=name,
                groups=["rovers"],
                tensors=[TensorPlan(name="weight", shape=[8, 8]), TensorPlan(name="bias", shape=[8])],
                grid_exponent=16,
                nonzeros_max=16,
                norm_max=100.0,
                magnitude_max=10.0,
                weight_max=100,
                duration_seconds=60,
                cohort_min=2,
                cohort_max=3,
                rounds_max=100,
            )
            for name in segments
        ],
    )


@dataclass
class Site:
    """One federation and its running services."""

    federation: Federation
    supervisor: Supervisor
    _open: list[Participant] = field(default_factory=list)

    @property
    def folder(self) -> FederationFolder:
        return self.federation.folder

    def service(self, role: str) -> ServiceProcess:
        return self.supervisor.of_role(role)

    def profile(self, name: str, gatekeepers: Sequence[str] = ()) -> Profile:
        """A rover's profile, with certain gatekeepers' addresses if any are named."""
        profile = read_profile(self.folder.participant(name) / "profile.toml")
        addresses = tuple(self.federation.addresses.gatekeepers[each] for each in gatekeepers)
        return profile.model_copy(update={"gatekeepers": addresses}) if addresses else profile

    def participant(self, name: str, gatekeepers: Sequence[str] = ()) -> Participant:
        """A rover, closed with the site."""
        made = Participant.from_profile(self.profile(name, gatekeepers))
        self._open.append(made)
        return made

    def reading(self) -> LogReading:
        """The published log, folded."""
        return read_folded(self.folder.log_dir)

    def wait_published(self, holds: Callable[[LogReading], bool]) -> LogReading:
        """Wait until the published log says something."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            found = self._try_reading()
            if found is not None and holds(found):
                return found
            assert time.monotonic() < deadline, "the published log does not come to say it"
            time.sleep(0.1)

    def _try_reading(self) -> LogReading | None:
        try:
            return self.reading()
        except SfrlError:
            return None  # read while it was being replaced

    def verify(self) -> Report:
        """The verifier's report, from log, objects and trust policy alone."""
        return verify_log(self.folder.log_dir, self.folder.trust_policy.read_bytes(), self.folder.objects_dir)

    def stop(self) -> dict[str, int]:
        """End everything; give the services' exit codes."""
        for participant in self._open:
            participant.close()
        self._open.clear()
        return self.supervisor.stop()


Start = Callable[[FederationPlan], Site]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Make a federation and start its services; whatever still runs at the end is stopped."""
    sites: list[Site] = []

    def begin(plan: FederationPlan) -> Site:
        federation = create_federation(tmp_path_factory.mktemp("site") / "federation", plan, SystemClock())
        site = Site(federation, Supervisor(federation.folder))
        sites.append(site)
        site.supervisor.start()
        return site

    yield begin
    for site in sites:
        site.stop()


def changes_of(name: str, number: int) -> tuple[np.ndarray, np.ndarray]:
    """What a rover has learnt in a round: the same however often it is asked."""
    rng = np.random.default_rng([int(name.rpartition("-")[2]), number])
    indices = np.sort(rng.choice(COORDINATES, NONZEROS, replace=False)).astype(np.int64)
    return indices, rng.uniform(0.1, 2.0, NONZEROS) * rng.choice([-1.0, 1.0], NONZEROS)


def weight_of(name: str) -> int:
    """A rover's weight in the mean."""
    return 10 * int(name.rpartition("-")[2]) + 1


def open_number(participant: Participant, number: int, segment: str = SEGMENT) -> OpenRound:
    """Wait for a round of exactly this number."""
    opened = participant.open_round(segment, number - 1)
    assert isinstance(opened, OpenRound)
    assert opened.number == number
    return opened


def submit(
    participant: Participant, number: int, segment: str = SEGMENT, *, opened: OpenRound | None = None
) -> Submitted:
    """Send what the rover has learnt, to a round that it has opened before or opens now."""
    indices, values = changes_of(participant.name, number)
    return participant.submit(
        opened or open_number(participant, number, segment), indices, values, weight_of(participant.name),
        rng=np.random.default_rng(number),
    )  # fmt: skip
