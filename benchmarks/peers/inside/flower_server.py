"""Flower's bare gRPC server (its deprecated `start_server`), plain mean, TLS of the server only.

Runs in: an environment with flwr.
Trusts: the job's file.
"""

from __future__ import annotations

from pathlib import Path

from flwr.common import ndarrays_to_parameters
from flwr.server import ServerConfig, start_server
from flwr.server.strategy import FedAvg
from same_job import first_model, read_job


def main() -> None:
    """Serve the job's rounds."""
    job = read_job()
    strategy = FedAvg(
        fraction_evaluate=0.0,
        min_fit_clients=job["clients"],
        min_available_clients=job["clients"],
        initial_parameters=ndarrays_to_parameters([first_model(job)]),
    )
    start_server(
        server_address=job["address"],
        config=ServerConfig(num_rounds=job["rounds"]),
        strategy=strategy,
        certificates=tuple(Path(job[name]).read_bytes() for name in ("authority", "certificate", "key")),
    )


if __name__ == "__main__":
    main()
