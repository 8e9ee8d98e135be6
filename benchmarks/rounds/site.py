"""Our own federation at the job of the round benchmark: every service and every participant a process of its own.

Mutual TLS both ways, signed updates, the log with its witness: nothing is switched off. One kind a federation: `dense`
sends the whole update in float32, `sparse` 1 % of it in int8.

Runs in: a developer's machine.
Trusts: its arguments.
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.peers.job import Job, RoundTimes, read_stamps, round_seconds, stamps_path
from benchmarks.peers.processes import PeakMemory
from sfrl_secure.aggregation.models import ModelSnapshot
from sfrl_secure.audit.report import Report
from sfrl_secure.audit.verify import verify_log
from sfrl_secure.clock import SystemClock
from sfrl_secure.errors import UnavailableError
from sfrl_secure.services.federation.create import Federation, create_federation
from sfrl_secure.services.federation.plan import FederationPlan, ParticipantPlan, SegmentPlan, TensorPlan
from sfrl_secure.services.federation.supervise import Supervisor

SEGMENT = "model"
KINDS = ("dense", "sparse")
DENSITY = 0.01
GRID = 24
_GROUP = "clients"
_LOOK_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class OwnRounds:
    """How our own rounds went.

    Attributes:
        verified: whether the verifier derives every model from log and objects alone; None where it was not asked.
    """

    times: RoundTimes
    verified: bool | None


def run_rounds(job: Job, kind: str, folder: Path, timeout_seconds: float, *, verify: bool) -> OwnRounds:
    """Do the job with updates of a kind.

    Raises:
        UnavailableError: it was not done.
    """
    federation = create_federation(folder / "federation", _plan(job, kind), SystemClock(), _first_model(job, kind))
    supervisor = Supervisor(federation.folder)
    supervisor.start()
    clients: list[subprocess.Popen[bytes]] = []
    try:
        running = [each.process for each in supervisor.services]
        with PeakMemory([each.pid for each in running if each is not None]) as memory:
            clients += [_start_client(job, kind, federation, folder, number) for number in range(job.clients)]
            _wait(clients, folder, timeout_seconds)
            peak = memory.peak_mib
    finally:
        for client in clients:
            client.kill()
            client.wait()
        supervisor.stop()
    stamps = [read_stamps(stamps_path(folder, number)) for number in range(job.clients)]
    verified = _report(federation).exit_code == 0 if verify else None
    return OwnRounds(RoundTimes(round_seconds(stamps), peak), verified)


def _plan(job: Job, kind: str) -> FederationPlan:
    is_dense = kind == "dense"
    return FederationPlan(
        participants=[ParticipantPlan(name=_name(number), groups=[_GROUP]) for number in range(job.clients)],
        segments=[
            SegmentPlan(
                name=SEGMENT,
                groups=[_GROUP],
                tensors=[TensorPlan(name=name, shape=list(shape)) for name, shape in job.shapes.items()],
                grid_exponent=GRID,
                value_types=["fp32"] if is_dense else ["int8"],
                support_modes=["dense"] if is_dense else ["free"],
                nonzeros_max=job.parameters if is_dense else job.parameters // 50,
                norm_max=1e6,
                magnitude_max=1e3,
                weight_max=10,
                duration_seconds=600,
                cohort_min=job.clients,
                cohort_max=job.clients,
                rounds_max=job.rounds,
            )
        ],
    )


def _first_model(job: Job, kind: str) -> dict[str, ModelSnapshot]:
    manifest = _plan(job, kind).segments[0].manifest
    values = np.random.default_rng(job.seed).standard_normal(job.parameters, dtype=np.float32)
    on_grid = np.rint(values.astype(np.float64) * 2**GRID).astype(np.int64)
    return {SEGMENT: ModelSnapshot(manifest, GRID, on_grid)}


def _start_client(job: Job, kind: str, federation: Federation, folder: Path, number: int) -> subprocess.Popen[bytes]:
    config = folder / f"client-{number}.json"
    profile = federation.folder.participant(_name(number)) / "profile.toml"
    nonzeros = round(job.parameters * DENSITY)
    job.write(config, profile=str(profile), segment=SEGMENT, kind=kind, nonzeros=nonzeros, stamps=str(folder))
    with _log_of(folder, number).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "benchmarks.rounds.participant", str(config), str(number)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=Path(__file__).resolve().parents[2],
            start_new_session=True,
        )


def _wait(clients: list[subprocess.Popen[bytes]], folder: Path, timeout_seconds: float) -> None:
    deadline = time.monotonic() + timeout_seconds
    while any(client.poll() is None for client in clients):
        for number, client in enumerate(clients):
            if client.returncode:
                last = _log_of(folder, number).read_text(errors="replace")[-600:].strip()
                raise UnavailableError(f"participant {number} ended with {client.returncode}: {last}")
        if time.monotonic() > deadline:
            raise UnavailableError(f"the rounds take over {timeout_seconds:.0f} s")
        time.sleep(_LOOK_SECONDS)


def _report(federation: Federation) -> Report:
    folder = federation.folder
    return verify_log(folder.log_dir, folder.trust_policy.read_bytes(), folder.objects_dir)


def _log_of(folder: Path, number: int) -> Path:
    return folder / f"client-{number}.log"


def _name(number: int) -> str:
    return f"client-{number}"
