"""The examples as anybody runs them, against running services; and the awaited face over real connections."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sfrl_secure.errors import SfrlError
from sfrl_secure.participant.aio import AsyncParticipant
from sfrl_secure.participant.rounds import OpenRound
from sfrl_secure.services.federation.plan import default_plan

from .conftest import Site, Start

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
ROUNDS = 2


@pytest.fixture(scope="module")
def site(start: Start) -> Site:
    """The federation that `sfrl init` makes, whose rounds close with the second update."""
    plan = default_plan()
    (segment,) = plan.segments
    return start(plan.model_copy(update={"segments": [segment.model_copy(update={"cohort_max": 2})]}))


def started(site: Site, name: str, rover: str) -> subprocess.Popen[str]:
    profile = site.folder.participant(rover) / "profile.toml"
    arguments = ("--profile", str(profile), "--segment", "example", "--rounds", str(ROUNDS))
    return subprocess.Popen(
        [sys.executable, str(EXAMPLES / name), *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def test_a_flower_client_and_a_torch_module_learn_together(site: Site) -> None:
    pytest.importorskip("torch")
    running = [started(site, "flower_numpy_client.py", "rover-1"), started(site, "train_torch.py", "rover-2")]
    said = [each.communicate(timeout=180)[0] for each in running]
    assert [each.returncode for each in running] == [0, 0], said
    for text in said:
        losses = [float(line.split("loss ")[1].split(",")[0]) for line in text.splitlines() if "loss" in line]
        assert len(losses) == ROUNDS
        assert losses[-1] < losses[0]
        assert "counted in model " in text
    models = {text.split("counted in model ")[1].split()[0] for text in said}
    assert len(models) == 1
    report = site.verify()
    assert report.exit_code == 0, report.to_text()


def test_an_awaited_call_that_is_left_ends_with_its_connections(site: Site) -> None:
    async def work() -> None:
        profile = site.folder.participant("rover-3") / "profile.toml"
        async with AsyncParticipant.from_profile(profile) as rover:
            opened = await rover.open_round("example")
            assert isinstance(opened, OpenRound)
            assert (await rover.model(opened)).manifest == opened.terms.model.manifest
            waiting = asyncio.create_task(rover.open_round("example", opened.number, wait_seconds=60))
            await asyncio.sleep(0.5)
            before = time.monotonic()
        assert time.monotonic() - before < 4
        with pytest.raises((asyncio.CancelledError, SfrlError)):
            await waiting

    asyncio.run(asyncio.wait_for(work(), 60))
