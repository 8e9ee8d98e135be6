"""NVFlare at the job of the round benchmark: provisioned with its own tool, mutual TLS, its default scheme.

Server and clients are started with the modules and arguments of their start scripts; the job is its FedAvg recipe for
numpy, handed in by an admin of the project.

Runs in: a developer's machine.
Trusts: what is installed in the environment that is named.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.peers.job import Job, RoundTimes, read_stamps, round_seconds, stamps_path
from benchmarks.peers.ports import free_ports
from benchmarks.peers.processes import PeerProcesses

INSIDE = Path(__file__).parent / "inside"
_ADMIN = "admin@benchmark.example"
_START_SECONDS = 90.0


def run(job: Job, environment: Path, folder: Path, timeout_seconds: float) -> RoundTimes:
    """Do the job.

    Raises:
        PeerError: it was not done.
    """
    (port,) = free_ports(1)
    job.write(folder / "job.json", stamps=str(folder))
    (folder / "project.yml").write_text(_project(job, port))
    python = str(environment / "bin" / "python")
    marks = {"SFRL_BENCHMARK_JOB": str(folder / "job.json"), "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(folder)}
    with PeerProcesses(folder, INSIDE, **marks) as peers:
        program = str(environment / "bin" / "nvflare")
        provision = [program, "provision", "-p", str(folder / "project.yml"), "-w", str(folder / "ws"), "--force"]
        peers.run("provision", provision, _START_SECONDS)
        peers.run("write-job", [python, str(INSIDE / "nvflare_job.py"), "write", str(folder)], _START_SECONDS)
        kits = folder / "ws" / "benchmark" / "prod_00"
        started = [python, "-u", "-m", "nvflare.private.fed.app.server.server_train", "-m", str(kits / "localhost")]
        started += ["-s", "fed_server.json", "--set", "secure_train=true", "org=bench", "config_folder=config"]
        peers.start("server", started, server=True)
        for client in range(job.clients):
            name = f"site-{client}"
            started = [python, "-u", "-m", "nvflare.private.fed.app.client.client_train", "-m", str(kits / name)]
            started += ["-s", "fed_client.json", "--set", "secure_train=true", f"uid={name}", "org=bench"]
            peers.start(name, [*started, "config_folder=config"])
        log = kits / "localhost" / "log.txt"
        registered = "New client site-"
        peers.wait(
            lambda: log.exists() and log.read_text(errors="replace").count(registered) >= job.clients,
            "the clients' registration",
            _START_SECONDS,
        )
        submit = [python, str(INSIDE / "nvflare_job.py"), "submit", str(folder), str(kits / _ADMIN)]
        peers.start("submit", submit)
        peers.wait(lambda: _is_done(job, folder), "the rounds", timeout_seconds)
        stamps = [read_stamps(stamps_path(folder, client)) for client in range(job.clients)]
        return RoundTimes(round_seconds(stamps), peers.server_rss_mib)


def _is_done(job: Job, folder: Path) -> bool:
    return all(job.rounds in read_stamps(stamps_path(folder, client)) for client in range(job.clients))


def _project(job: Job, port: int) -> str:
    clients = "".join(f"  - {{name: site-{client}, type: client, org: bench}}\n" for client in range(job.clients))
    return f"""api_version: 3
name: benchmark
description: the job of the round benchmark
participants:
  - {{name: localhost, type: server, org: bench, fed_learn_port: {port}}}
{clients}  - {{name: {_ADMIN}, type: admin, org: bench, role: project_admin}}
builders:
  - path: nvflare.lighter.impl.workspace.WorkspaceBuilder
    args: {{template_file: master_template.yml}}
  - path: nvflare.lighter.impl.static_file.StaticFileBuilder
    args: {{config_folder: config}}
  - path: nvflare.lighter.impl.cert.CertBuilder
  - path: nvflare.lighter.impl.signature.SignatureBuilder
"""
