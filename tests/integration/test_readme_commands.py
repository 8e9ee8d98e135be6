"""The README's commands, from a first update to an overridden decision, run in a shell as they stand there.

The federation is the one that `sfrl init` makes without a plan, with rounds that leave a slow machine time.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sfrl_secure.clock import SystemClock
from sfrl_secure.services.federation.create import create_federation
from sfrl_secure.services.federation.plan import FederationPlan, default_plan
from sfrl_secure.services.federation.supervise import Supervisor

from .conftest import Site

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
SECTIONS = (
    "Your own federation", "Newcomers, and who leaves", "Rules and terms", "Orders", "Decisions on record",
    "Over links that come and go",
)  # fmt: skip
BLOCK_SECONDS = 120.0


def blocks_of(heading: str) -> list[str]:
    """The shell blocks of a section of the README, but for the one that makes and runs the federation."""
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## )", README, re.MULTILINE | re.DOTALL)
    assert found is not None, f"there is a section {heading}"
    blocks = re.findall(r"^```sh\n(.*?)^```$", found[1], re.MULTILINE | re.DOTALL)
    assert blocks, f"{heading} shows commands"
    return [block for block in blocks if "sfrl up " not in block]


class Shell:
    """Runs blocks one after the other, each where the one before ended."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.said = folder, ""
        self._environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def run(self, block: str) -> None:
        """Run a block; what it should take from earlier output (MODEL, INDEX) is put in."""
        for word, shown in (("MODEL", r"^model: ([0-9a-f]{64})$"), ("INDEX", r"^index: ([0-9]+)$")):
            if word in block:
                block = block.replace(word, re.findall(shown, self.said, re.MULTILINE)[-1])
        ended = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f"{block}\npwd"],
            cwd=self._folder, env=self._environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=BLOCK_SECONDS, check=False,
        )  # fmt: skip
        assert ended.returncode == 0, f"{block}\n{ended.stdout}"
        self.said += ended.stdout
        self._folder = Path(ended.stdout.splitlines()[-1])


def unhurried_plan() -> FederationPlan:
    """The default plan; a round is closed by its third update and not by the time that a block takes."""
    plan = default_plan()
    (segment,) = plan.segments
    return plan.model_copy(update={"segments": [segment.model_copy(update={"duration_seconds": 900})]})


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, str]]:
    """The federation after everything that the README shows, and all that was said."""
    folder = tmp_path_factory.mktemp("readme")
    federation = create_federation(folder / "fed", unhurried_plan(), SystemClock())
    site = Site(federation, Supervisor(federation.folder))
    try:
        site.supervisor.start()
        shell = Shell(folder)
        for heading in SECTIONS:
            for block in blocks_of(heading):
                shell.run(block)
        yield site, shell.said
    finally:
        site.stop()


def test_every_command_of_the_readme_does_what_it_is_shown_for(told: tuple[Site, str]) -> None:
    _, said = told
    for shown in (
        "VERIFIED", "you are    spiffe://", "renewed spiffe://", "weight at least: 1 -> 20", "input: True",
        "payload: whole", "kind: acknowledged",
    ):  # fmt: skip
        assert shown in said


def test_what_they_leave_behind_is_in_force(told: tuple[Site, str]) -> None:
    site, _ = told
    reading = site.wait_published(lambda found: {each.overridden for each in found.state.decisions.values()} == {4})
    (segment,) = reading.state.segments.values()
    assert segment.terms.leakage.weight_min == 20
    assert segment.rounds[1].left_out == {"rover-2"}
    assert not segment.is_halted


def test_the_verifier_finds_nothing_in_what_they_left(told: tuple[Site, str]) -> None:
    site, _ = told
    report = site.verify()
    assert report.exit_code == 0, report.to_text()
    assert report.conduct_clean
    assert (report.withdrawals, report.decisions, report.overridden) == (1, 1, 1)
    assert report.orders == {"halt": 1, "resume": 1, "reaggregate": 1, "override": 1}
