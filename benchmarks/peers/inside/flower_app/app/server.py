"""The job's server as a Flower ServerApp: message-based FedAvg, training only.

Runs in: a process that a SuperLink starts.
Trusts: the job's file.
"""

from __future__ import annotations

from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from same_job import first_model, read_job

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run all rounds."""
    job = read_job()
    strategy = FedAvg(
        fraction_evaluate=0.0, min_train_nodes=job["clients"], min_available_nodes=job["clients"]
    )
    strategy.start(grid=grid, initial_arrays=ArrayRecord([first_model(job)]), num_rounds=job["rounds"])
