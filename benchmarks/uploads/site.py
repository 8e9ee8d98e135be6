"""A real federation on loopback for measuring uploads: every service a process of its own, rounds that stay open.

Two segments have the same model: `dense` takes the whole of it in float32, `sparse` some coordinates in int8. The
aggregator opens their rounds and is stopped then: what is measured is the way of an update to its entry in the log, and
nobody else decodes on the same CPUs meanwhile. The log signs and is witnessed as always.

Runs in: a developer's machine.
Trusts: its arguments.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sfrl_secure.cli.reading import LogReading, read_folded
from sfrl_secure.clock import SystemClock
from sfrl_secure.crypto.envelope import Envelope, sign_envelope
from sfrl_secure.errors import SfrlError, UnavailableError
from sfrl_secure.governance.statements import UPDATE_TYPE, PayloadFormat, UpdateStatement
from sfrl_secure.ids import sha256
from sfrl_secure.participant.profile import Profile, read_profile
from sfrl_secure.rounds.state import RoundState
from sfrl_secure.services.federation.create import Federation, create_federation
from sfrl_secure.services.federation.plan import FederationPlan, ParticipantPlan, SegmentPlan, TensorPlan
from sfrl_secure.services.federation.supervise import ServiceProcess, Supervisor
from sfrl_secure.sparse.encode import EncodedUpdate
from sfrl_secure.wire.entries import encode_envelope
from sfrl_secure.wire.statements import encode_update

DENSE, SPARSE = "dense", "sparse"
GRID = 24
_GROUP = "rovers"
_OPEN_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Signed:
    """An update that is signed and was not sent."""

    profile: Profile
    envelope: Envelope
    encoded: EncodedUpdate

    def write(self, path: Path) -> None:
        """Write it as a file: the length of the envelope, the envelope, the payload."""
        envelope = encode_envelope(self.envelope)
        with path.open("wb") as file:
            file.write(len(envelope).to_bytes(4, "little"))
            file.write(envelope)
            file.write(self.encoded.payload)


@dataclass(slots=True)
class UploadSite:
    """The federation and its processes."""

    federation: Federation
    supervisor: Supervisor
    rounds: dict[str, RoundState]

    @property
    def gatekeeper(self) -> ServiceProcess:
        """The gatekeeper's process."""
        return self.supervisor.of_role("gatekeeper")

    @property
    def address(self) -> str:
        """Where the gatekeeper listens."""
        return next(iter(self.federation.addresses.gatekeepers.values()))

    @property
    def gatekeeper_pid(self) -> int:
        """Its process."""
        process = self.gatekeeper.process
        assert process is not None
        return process.pid

    def profile(self, name: str) -> Profile:
        """A participant's profile."""
        return read_profile(self.federation.folder.participant(name) / "profile.toml")

    def sign(self, name: str, segment: str, encoded: EncodedUpdate) -> Signed:
        """Sign an update as a participant."""
        profile, opened = self.profile(name), self.rounds[segment]
        key = profile.open_signing_key()
        update = UpdateStatement(
            federation_id=self.federation.federation_id,
            segment=segment,
            participant=name,
            key_id=key.public_key.key_id,
            round=opened.number,
            round_opened=opened.opened,
            base_model=opened.base_model,
            payload_sha256=sha256(encoded.payload),
            payload_root=encoded.root,
            payload_bytes=len(encoded.payload),
            nonzeros=encoded.nonzeros,
            format=PayloadFormat(codec=2, support=encoded.support, values=encoded.value_type),
            weight=1,
            created_us=SystemClock().now_us(),
        )
        return Signed(profile, sign_envelope(UPDATE_TYPE, encode_update(update), [key]), encoded)

    def admitted(self) -> int:
        """Updates that the published log has admitted."""
        return len(read_folded(self.federation.folder.log_dir).state.admitted_updates)


@contextmanager
def running_site(folder: Path, participants: int, parameters: int, host: str = "127.0.0.1") -> Iterator[UploadSite]:
    """Make a federation in a new folder, and run it until the end of the block; its rounds are open."""
    federation = create_federation(folder, _plan(participants, parameters, host), SystemClock())
    supervisor = Supervisor(federation.folder)
    supervisor.start()
    try:
        rounds = _wait_open(federation)
        supervisor.of_role("aggregator").stop()
        yield UploadSite(federation, supervisor, rounds)
    finally:
        supervisor.stop()


def name_of(number: int) -> str:
    """A participant's name."""
    return f"rover-{number}"


def _plan(participants: int, parameters: int, host: str) -> FederationPlan:
    tensors = [TensorPlan(name="weights", shape=[parameters])]
    common = {
        "groups": [_GROUP],
        "tensors": tensors,
        "grid_exponent": GRID,
        "norm_max": 1e9,
        "magnitude_max": 1e3,
        "weight_max": 8_000,
        "duration_seconds": 36_000,
        "cohort_max": 500,
        "rounds_max": 1,
    }
    return FederationPlan(
        host=host,
        refusals_seconds=3600.0,
        participants=[ParticipantPlan(name=name_of(number), groups=[_GROUP]) for number in range(participants)],
        segments=[
            SegmentPlan(
                name=DENSE, value_types=["fp32"], support_modes=["dense"], nonzeros_max=parameters, **common
            ),
            SegmentPlan(
                name=SPARSE, value_types=["int8"], support_modes=["free"], nonzeros_max=parameters // 10, **common
            ),
        ],
    )




def _wait_open(federation: Federation) -> dict[str, RoundState]:
    deadline = time.monotonic() + _OPEN_SECONDS
    while time.monotonic() < deadline:
        try:
            reading: LogReading = read_folded(federation.folder.log_dir)
        except SfrlError:
            continue  # read while it was being replaced
        rounds = {name: reading.state.segments[name].open_round for name in (DENSE, SPARSE)}
        found = {name: opened for name, opened in rounds.items() if opened is not None}
        if len(found) == len(rounds):
            return found
        time.sleep(0.1)
    raise UnavailableError("no round was opened")
