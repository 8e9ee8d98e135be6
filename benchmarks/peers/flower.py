"""Flower at the job of the round benchmark: its bare gRPC server, and its SuperLink.

Both have TLS of the server only, as their defaults and documentation have it. A client is a process; under a SuperNode
each round starts another one.

Runs in: a developer's machine.
Trusts: what is installed in the environment that is named.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from benchmarks.peers.certificates import write_server_certificate
from benchmarks.peers.job import Job, RoundTimes, read_stamps, round_seconds, stamps_path
from benchmarks.peers.ports import free_ports
from benchmarks.peers.processes import PeerProcesses

INSIDE = Path(__file__).parent / "inside"
_QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
_START_SECONDS = 60.0


def run_grpc(job: Job, environment: Path, folder: Path, timeout_seconds: float) -> RoundTimes:
    """Do the job with `start_server`.

    Raises:
        PeerError: it was not done.
    """
    certificate = write_server_certificate(folder)
    (port,) = free_ports(1)
    job.write(
        folder / "job.json",
        address=f"127.0.0.1:{port}",
        stamps=str(folder),
        authority=str(certificate.authority),
        certificate=str(certificate.certificate),
        key=str(certificate.key),
    )
    python = str(environment / "bin" / "python")
    marks = {"SFRL_BENCHMARK_JOB": str(folder / "job.json"), "FLWR_HOME": str(folder / "home"), **_QUIET}
    with PeerProcesses(folder, INSIDE, **marks) as peers:
        server = peers.start("server", [python, str(INSIDE / "flower_server.py")], server=True)
        peers.wait(lambda: "gRPC server running" in peers.end_of_log("server", 10_000), "the server", _START_SECONDS)
        for client in range(job.clients):
            peers.start(f"client-{client}", [python, str(INSIDE / "flower_client.py"), str(client)])
        peers.wait(lambda: server.poll() is not None, "the rounds", timeout_seconds)
        return _times(job, folder, peers)


def run_superlink(job: Job, environment: Path, folder: Path, timeout_seconds: float) -> RoundTimes:
    """Do the job with a SuperLink and SuperNodes.

    Raises:
        PeerError: it was not done.
    """
    certificate = write_server_certificate(folder)
    port, *node_ports = free_ports(1 + job.clients)
    job.write(folder / "job.json", stamps=str(folder))
    home = folder / "home"
    home.mkdir()
    (home / "config.toml").write_text(
        '[superlink]\ndefault = "bench"\n\n'
        f'[superlink.bench]\naddress = "127.0.0.1:{port}"\nroot-certificates = "{certificate.authority}"\n'
    )
    shutil.copytree(INSIDE / "flower_app", folder / "app")
    programs = environment / "bin"
    marks = {"SFRL_BENCHMARK_JOB": str(folder / "job.json"), "FLWR_HOME": str(home), **_QUIET}
    marks["PATH"] = f"{programs}:/usr/bin:/bin"
    tls = ["--ssl-certfile", certificate.certificate, "--ssl-keyfile", certificate.key]
    tls += ["--ssl-ca-certfile", certificate.authority]
    with PeerProcesses(folder, INSIDE, **marks) as peers:
        link = [programs / "flower-superlink", "--disable-runtime-dependency-installation", *tls, "--port", port]
        peers.start("superlink", list(map(str, link)), server=True)
        peers.wait(lambda: _listens(port), "the SuperLink", _START_SECONDS)
        for client, node_port in enumerate(node_ports):
            node = [programs / "flower-supernode", "--superlink", f"127.0.0.1:{port}", "--port", node_port]
            node += ["--root-certificates", certificate.authority, *tls, "--node-config", f"client={client}"]
            peers.start(f"supernode-{client}", list(map(str, node)))
        peers.run("flwr", [str(programs / "flwr"), "run", str(folder / "app"), "bench"], _START_SECONDS)
        peers.wait(lambda: _is_done(job, folder), "the rounds", timeout_seconds)
        return _times(job, folder, peers)


def _is_done(job: Job, folder: Path) -> bool:
    return all(job.rounds in read_stamps(stamps_path(folder, client)) for client in range(job.clients))


def _times(job: Job, folder: Path, peers: PeerProcesses) -> RoundTimes:
    stamps = [read_stamps(stamps_path(folder, client)) for client in range(job.clients)]
    return RoundTimes(round_seconds(stamps), peers.server_rss_mib)


def _listens(port: int) -> bool:
    wanted = f"0100007F:{port:04X}"
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(fields[1] == wanted and fields[3] == "0A" for fields in map(str.split, lines))
