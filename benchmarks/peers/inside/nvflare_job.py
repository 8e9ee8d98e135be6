"""Write the job's NVFlare form, or hand it in and wait for its end.

    python nvflare_job.py write FOLDER
    python nvflare_job.py submit FOLDER ADMIN_KIT

Runs in: an environment with nvflare.
Trusts: the job's file.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from nvflare.app_common.np.recipes import NumpyFedAvgRecipe
from nvflare.fuel.flare_api.flare_api import new_secure_session
from same_job import first_model, read_job

NAME = "same_job"
ADMIN = "admin@benchmark.example"


def write(folder: Path) -> None:
    """Write the job, and the model before round 1."""
    job = read_job()
    np.save(folder / "first.npy", first_model(job))
    recipe = NumpyFedAvgRecipe(
        name=NAME,
        initial_ckpt=str(folder / "first.npy"),
        min_clients=job["clients"],
        num_rounds=job["rounds"],
        train_script=str(Path(__file__).parent / "nvflare_client.py"),
    )
    recipe.export(str(folder / "jobs"))


def submit(folder: Path, kit: str) -> None:
    """Hand the job in, and wait until it is done."""
    session = new_secure_session(ADMIN, kit, timeout=60.0)
    try:
        number = session.submit_job(str(folder / "jobs" / NAME))
        print(session.monitor_job(number, timeout=600.0))
    finally:
        session.close()


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(Path(sys.argv[2]))
    else:
        submit(Path(sys.argv[2]), sys.argv[3])
