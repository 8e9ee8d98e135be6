"""`python -m benchmarks round`: the same job through sfrl-secure and, where installed, through Flower and NVFlare.

N clients take the global model, return it plus seeded noise, and the mean is the next model; no training. All in one
run on one machine, one after the other, clients and server on the same CPUs. Peers are looked for in the environments
`flwr` and `nvflare` under the folder that SFRL_PEERS names; the figure of one that is not there is null.

A round's time is from the moment at which the clients have its model in hand, on average, to the same moment of the
next round: upload, mean and download, with all checks, signatures and log entries of whoever has them. The first round
is not counted. Noise is drawn inside the round; the sparse updates alone are drawn before.

`server_rss_mib` and `peer_rss_mib` are peaks of the sum over a server's processes.

Runs in: a developer's machine.
Trusts: its arguments.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import machine
from benchmarks.figures import Bar
from benchmarks.peers import flower, nvflare
from benchmarks.peers.job import Job, RoundTimes
from benchmarks.peers.processes import PeerError
from benchmarks.rounds.site import run_rounds
from sfrl_secure.errors import SfrlError

PEERS = "SFRL_PEERS"
NVFLARE_RATIO_MIN = 1.5
SPARSE_RATIO_MIN = 10.0
MEMORY_SHARE_MAX = 0.5

QUICK = Job(clients=3, parameters=300_000, rounds=4)
FULL = Job()
_TIMEOUT_SECONDS = 420.0


@dataclass(frozen=True, slots=True)
class Peer:
    """Somebody who does the same job.

    Attributes:
        environment: folder of its environment under `SFRL_PEERS`.
    """

    name: str
    environment: str
    run: Callable[[Job, Path, Path, float], RoundTimes]


ALL_PEERS = (
    Peer("flower_grpc", "flwr", flower.run_grpc),
    Peer("flower_superlink", "flwr", flower.run_superlink),
    Peer("nvflare", "nvflare", nvflare.run),
)


def run(*, quick: bool, folder: Path | None = None) -> dict[str, Any]:
    """Run the benchmark; give its figures.

    Args:
        folder: a folder on the disk that is to be used; a temporary one by default.
    """
    job = QUICK if quick else FULL
    figures: dict[str, Any] = {"benchmark": "round", "quick": quick, "cpus": len(os.sched_getaffinity(0))}
    figures["others_busy_cpus"] = round(machine.busy_cpus(), 2)
    figures |= {"clients": job.clients, "parameters": job.parameters, "rounds": job.rounds}
    errors: dict[str, str] = {}
    own_rss: list[float] = []
    for kind in ("dense", "sparse"):
        with tempfile.TemporaryDirectory(dir=folder, prefix=f"{kind}-") as made:
            try:
                own = run_rounds(job, kind, Path(made), _TIMEOUT_SECONDS, verify=True)
            except SfrlError as error:
                errors[kind] = str(error)
                figures |= _figures_of(kind, None)
                continue
        figures |= _figures_of(kind, own.times)
        figures[f"{kind}_verified"] = own.verified
        own_rss.append(own.times.rss_mib)
        if not own.verified:
            errors[f"{kind}_verified"] = "the verifier does not derive every model"
    peers = _run_peers(job, folder, errors)
    for peer in ALL_PEERS:
        figures |= _figures_of(peer.name, peers.get(peer.name))
    figures["server_rss_mib"] = round(max(own_rss), 1) if own_rss else None
    figures["peer_rss_mib"] = {name: round(times.rss_mib, 1) for name, times in peers.items()} or None
    figures |= _ratios(figures)
    figures["bars"] = {name: bar.to_json() for name, bar in bars_of(figures).items()}
    figures["errors"] = errors
    return figures


def environments() -> dict[str, Path]:
    """Where each peer's environment is, of those that are there."""
    folder = os.environ.get(PEERS)
    if not folder:
        return {}
    found = {peer.name: Path(folder) / peer.environment for peer in ALL_PEERS}
    return {name: path for name, path in found.items() if (path / "bin" / "python").exists()}


def bars_of(figures: dict[str, Any]) -> dict[str, Bar]:
    """What issue 5 asks of the figures."""
    least = min(figures["peer_rss_mib"].values()) if figures["peer_rss_mib"] else None
    share = None if least is None or figures["server_rss_mib"] is None else figures["server_rss_mib"] / least
    return {
        "flower_grpc_ratio": Bar(figures["flower_grpc_ratio"], 1.0, "at least as fast as Flower's bare gRPC server"),
        "nvflare_ratio": Bar(figures["nvflare_ratio"], NVFLARE_RATIO_MIN, f"at least {NVFLARE_RATIO_MIN} of NVFlare"),
        "sparse_ratio": Bar(figures["sparse_ratio"], SPARSE_RATIO_MIN, f"at least {SPARSE_RATIO_MIN} of NVFlare"),
        "rss_share": Bar(share, MEMORY_SHARE_MAX, f"at most {MEMORY_SHARE_MAX} of the leanest peer", at_most=True),
    }


def _run_peers(job: Job, folder: Path | None, errors: dict[str, str]) -> dict[str, RoundTimes]:
    found, found_in = {}, environments()
    for peer in ALL_PEERS:
        if peer.name not in found_in:
            continue
        with tempfile.TemporaryDirectory(dir=folder, prefix=f"{peer.name}-") as made:
            try:
                found[peer.name] = peer.run(job, found_in[peer.name], Path(made), _TIMEOUT_SECONDS)
            except PeerError as error:
                errors[peer.name] = str(error)
    return found


def _figures_of(name: str, times: RoundTimes | None) -> dict[str, Any]:
    """A round's median time, and its least and most."""
    if times is None or not times.seconds:
        return {f"{name}_seconds": None, f"{name}_spread_seconds": None}
    spread = [round(min(times.seconds), 3), round(max(times.seconds), 3)]
    return {f"{name}_seconds": round(median(times.seconds), 3), f"{name}_spread_seconds": spread}


def _ratios(figures: dict[str, Any]) -> dict[str, float | None]:
    """How many times as fast we are; null where one of the two was not measured."""

    def ratio(peer: str, own: str) -> float | None:
        theirs, ours = figures[f"{peer}_seconds"], figures[f"{own}_seconds"]
        return None if theirs is None or ours is None else round(theirs / ours, 2)

    return {
        "flower_grpc_ratio": ratio("flower_grpc", "dense"),
        "flower_superlink_ratio": ratio("flower_superlink", "dense"),
        "nvflare_ratio": ratio("nvflare", "dense"),
        "sparse_ratio": ratio("nvflare", "sparse"),
    }
