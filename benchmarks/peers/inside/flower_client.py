"""A client of Flower's bare gRPC server.

    python flower_client.py NUMBER

Runs in: an environment with flwr.
Trusts: the job's file.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from flwr.client import NumPyClient, start_client
from same_job import Trainer, read_job


class Client(NumPyClient):
    """Gives back what it gets, with noise."""

    def __init__(self, trainer: Trainer) -> None:
        """Train with this."""
        self._trainer = trainer

    def fit(self, parameters: list[np.ndarray], config: dict[str, object]) -> tuple[list[np.ndarray], int, dict]:
        """Do one round."""
        return [self._trainer.train(parameters[0])], 1, {}


def main() -> None:
    """Take part in all rounds."""
    job = read_job()
    start_client(
        server_address=job["address"],
        client=Client(Trainer(job, int(sys.argv[1]))).to_client(),
        root_certificates=Path(job["authority"]).read_bytes(),
    )


if __name__ == "__main__":
    main()
