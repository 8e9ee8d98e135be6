"""The demo: rovers train on real rocks over mutual TLS, liars are refused, a verifier proves every round.

Runs in: cli.
Trusts: nothing that it shows: the verdict is another process's, from the log, the objects and the trust policy alone.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sfrl_secure.aggregation.models import ModelSnapshot, model_bytes, parse_model
from sfrl_secure.clock import SystemClock
from sfrl_secure.demo.baselines import metric_alone, metric_dense
from sfrl_secure.demo.crew import Crew
from sfrl_secure.demo.federation import LIAR, REFUSALS_SECONDS, ROVERS, SEGMENT, demo_plan
from sfrl_secure.demo.liars import BAD_ROVER, Liars, Lie
from sfrl_secure.demo.reading import LogSummary, summarise
from sfrl_secure.demo.report import DemoReport, TamperingFound
from sfrl_secure.demo.rocks import Rocks, load_rocks
from sfrl_secure.demo.scaling import scaling_of
from sfrl_secure.demo.tampering import altered_copies
from sfrl_secure.demo.task import first_model, held_out_samples, rover_samples
from sfrl_secure.errors import UnavailableError
from sfrl_secure.governance.manifest import ModelManifest
from sfrl_secure.learning.evaluate import accuracy
from sfrl_secure.learning.mlp import use_one_thread
from sfrl_secure.participant.rounds import OpenRound
from sfrl_secure.participant.sdk import Participant
from sfrl_secure.services.federation.configurations import WITNESSES
from sfrl_secure.services.federation.create import create_federation
from sfrl_secure.services.federation.folder import FederationFolder
from sfrl_secure.services.federation.supervise import Supervisor
from sfrl_secure.storage.objects import ObjectStore

LIARS_ROUND = 2
"""The liars act in this round, so that there is a closed one before it."""

_SILENCE_SECONDS = 180.0
_VERIFY_SECONDS = 300.0
_SETTLE_SECONDS = 15.0

Tell = Callable[[str, int, int], None]
"""Hears how far the demo is: what is being done, how much of it is done, of how much."""


@dataclass(slots=True)
class _Watched:
    """What the rovers and liars did."""

    bytes_of_updates: list[int]
    lies: list[Lie]
    receipt: str = ""


def run_demo(folder: Path, data_dir: Path, *, seed: int, rounds: int, tell: Tell) -> DemoReport:
    """Run the whole demo in a new folder.

    Args:
        data_dir: where the rocks' wheel lies.

    Raises:
        MissingEvidenceError: the rocks are not there.
        MalformedError: the folder is not empty.
        UnavailableError: a service or a rover ended; says which.
    """
    begun = time.monotonic()
    use_one_thread()
    tell("reading 22,640 rock analyses", 0, 1)
    rocks = load_rocks(data_dir)
    first = first_model(seed)
    tell("making keys, documents and the log", 0, 1)
    federation = create_federation(folder, demo_plan(rounds), SystemClock(), {SEGMENT: first})
    supervisor = Supervisor(federation.folder)
    crew = Crew(federation.folder, seed, rounds, LIARS_ROUND)
    crew.hand_out(rocks)
    tell("starting four services", 0, 1)
    try:
        supervisor.start()
        crew.start()
        watched = _watch(crew, federation.folder, rounds, tell)
        _settle(federation.folder, watched.lies)
    finally:
        crew.stop()
        codes = supervisor.stop()
    if any(codes.values()):
        raise UnavailableError(f"a service did not end cleanly: {codes}")
    summary = summarise(federation.folder.log_dir)
    tell("verifying, from log, objects and trust policy alone", 0, 1)
    verification = _verify(federation.folder)
    tampering = _tamper(federation.folder, summary, tell)
    metrics = _Metrics(rocks, first, seed, rounds, tell)
    last = _model_of(federation.folder, first, summary, rounds)
    return DemoReport(
        folder=federation.folder,
        participants=len(ROVERS) + 1,
        rounds=len(summary.models),
        summary=summary,
        bytes_of_updates=watched.bytes_of_updates,
        dense_bytes=4 * first.manifest.coordinates,
        metric_first=metrics.of(first),
        metric_last=metrics.of(last),
        metric_alone=metrics.alone,
        metric_dense=metrics.dense,
        lies=watched.lies,
        receipt=watched.receipt,
        verification=verification,
        tampering=tampering,
        seconds=time.monotonic() - begun,
    )


def _watch(crew: Crew, folder: FederationFolder, rounds: int, tell: Tell) -> _Watched:
    """Follow the rovers to their end; let the liars lie while the first rover holds its update back."""
    watched = _Watched([], [])
    held = admitted = False
    closed: OpenRound | None = None
    with Participant.from_profile(folder.participant(LIAR) / "profile.toml") as mallory:
        while (said := crew.next_line(_SILENCE_SECONDS)) is not None:
            if said.event == "submitted":
                watched.bytes_of_updates.append(said.fields["bytes"])
                tell("rounds", len(watched.bytes_of_updates), rounds * len(ROVERS))
                if closed is None and said.fields["round"] == 1:
                    closed = _round_of(mallory, 0)
                admitted |= said.rover == BAD_ROVER and said.fields["round"] == LIARS_ROUND
            held |= said.event == "holding"
            if said.event == "receipt" and said.fields["kind"] == "COUNTED" and not watched.receipt:
                watched.receipt = said.fields["path"]
            if held and admitted and not watched.lies:
                open_now = _round_of(mallory, LIARS_ROUND - 1)
                assert closed is not None
                for lie in Liars(folder, open_now, closed).run():
                    watched.lies.append(lie)
                    tell("liars", len(watched.lies), 15)
                crew.release()
    return watched


def _round_of(mallory: Participant, after_round: int) -> OpenRound:
    opened = mallory.open_round(SEGMENT, after_round)
    if not isinstance(opened, OpenRound):
        raise UnavailableError("the segment's rounds are over before the demo's")
    return opened


def _settle(folder: FederationFolder, lies: list[Lie]) -> None:
    """Wait until what is only counted is counted in the published log."""
    wanted = {lie.got for lie in lies if lie.entry_index is None}
    deadline = time.monotonic() + _SETTLE_SECONDS
    while time.monotonic() < deadline:
        time.sleep(REFUSALS_SECONDS / 2)
        if wanted <= summarise(folder.log_dir).refused.keys():
            return


def _verify(folder: FederationFolder) -> dict[str, object]:
    """Run the verifier as a process of its own; give what it printed, with its exit code."""
    finished = subprocess.run(
        [
            sys.executable, "-m", "sfrl_secure.cli.main", "audit", "verify", "--json",
            "--log", str(folder.log_dir),
            "--trust-policy", str(folder.trust_policy),
            "--objects", str(folder.objects_dir),
            # The demo's witness stands on the log's own machine, and is named as such.
            *(word for name in WITNESSES for word in ("--same-operator", name)),
        ],
        capture_output=True, timeout=_VERIFY_SECONDS, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        found = json.loads(finished.stdout)
    except ValueError:
        raise UnavailableError(f"the verifier ended with code {finished.returncode} and no report") from None
    return {**found, "exit_code": finished.returncode}


def _tamper(folder: FederationFolder, summary: LogSummary, tell: Tell) -> list[TamperingFound]:
    model = summary.models[max(summary.models)]
    found = []
    copies = altered_copies(folder, folder.root / "altered", model)
    for number, altered in enumerate(copies):
        tell("verifying altered copies", number + 1, len(copies))
        found.append(TamperingFound(altered.what, _verify(altered.folder)))
    return found


def _model_of(folder: FederationFolder, first: ModelSnapshot, summary: LogSummary, rounds: int) -> ModelSnapshot:
    digest = summary.models.get(rounds)
    if digest is None:
        raise UnavailableError("the last round has published no model")
    raw = ObjectStore(folder.objects_dir).get(digest, model_bytes(first.manifest))
    return parse_model(raw, first.manifest, first.grid_exponent)


class _Metrics:
    """Accuracies on the held-out rocks: of the shared model, of rovers alone, of dense federated averaging."""

    def __init__(self, rocks: Rocks, first: ModelSnapshot, seed: int, rounds: int, tell: Tell) -> None:
        manifest: ModelManifest = first.manifest
        scaling = scaling_of(manifest)
        weights: npt.NDArray[np.float32] = first.to_float32()
        shares = [rover_samples(rocks, scaling, region=region, seed=seed) for region in range(len(ROVERS))]
        self._held_out = held_out_samples(rocks, scaling, seed=seed)
        tell("training each rover alone, for comparison", 0, 1)
        self.alone = metric_alone(weights, manifest, shares, self._held_out, seed=seed, rounds=rounds)
        tell("dense federated averaging, for comparison", 0, 1)
        self.dense = metric_dense(weights, manifest, shares, self._held_out, seed=seed, rounds=rounds)

    def of(self, model: ModelSnapshot) -> float:
        """Accuracy of a model."""
        return accuracy(model.to_float32(), model.manifest, self._held_out)
