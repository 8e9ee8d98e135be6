"""The job's client as an NVFlare training script, run inside the client's job process.

Runs in: a process that an NVFlare client starts.
Trusts: the job's file.
"""

from __future__ import annotations

import nvflare.client as flare
from same_job import Trainer, read_job


def main() -> None:
    """Take part in all rounds."""
    flare.init()
    trainer = Trainer(read_job(), int(flare.get_site_name().rpartition("-")[2]))
    while flare.is_running():
        received = flare.receive()
        if received is None:
            break
        params = {name: trainer.train(value) for name, value in received.params.items()}
        flare.send(flare.FLModel(params=params, params_type=flare.ParamsType.FULL, metrics={"accuracy": 0.0}))


if __name__ == "__main__":
    main()
