"""The five rovers as processes, and what they say.

Each gets a profile and its own rocks, and tells the demo one JSON line a step.

Runs in: demo.
Trusts: the rovers' lines are for the table only; what counts stands in the log.
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sfrl_secure.demo.federation import ROVERS
from sfrl_secure.demo.rocks import Rocks, split_by_reference
from sfrl_secure.demo.task import HELD_OUT_FRACTION
from sfrl_secure.errors import UnavailableError
from sfrl_secure.services.federation.folder import FederationFolder

_STOP_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Said:
    """One line of one rover."""

    rover: str
    event: str
    fields: dict[str, Any]


@dataclass(slots=True)
class Crew:
    """The rovers' processes and everything that they have said."""

    folder: FederationFolder
    seed: int
    rounds: int
    hold: int
    _processes: dict[str, subprocess.Popen[str]] = field(default_factory=dict)
    _lines: queue.Queue[Said | None] = field(default_factory=queue.Queue)

    def hand_out(self, rocks: Rocks) -> None:
        """Give each rover the training rocks of its region: raw values, and nobody else's."""
        train, _ = split_by_reference(rocks, self.seed, HELD_OUT_FRACTION)
        for region, name in enumerate(ROVERS):
            mine = train & (rocks.region == region)
            np.savez(self._rocks_of(name), features=rocks.features[mine], eons=rocks.eon[mine])

    def start(self) -> None:
        """Start all; the first holds in round `hold`."""
        for region, name in enumerate(ROVERS):
            arguments = [
                "--profile", str(self.folder.participant(name) / "profile.toml"),
                "--rocks", str(self._rocks_of(name)),
                "--region", str(region),
                "--seed", str(self.seed),
                "--rounds", str(self.rounds),
                "--hold", str(self.hold if region == 0 else 0),
            ]  # fmt: skip
            log = (self.folder.participant(name) / "rover.jsonl").open("ab")
            process = subprocess.Popen(
                [sys.executable, "-m", "sfrl_secure.demo.rover", *arguments],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True,
            )  # fmt: skip
            log.close()
            self._processes[name] = process
            threading.Thread(target=self._listen, args=(name, process), daemon=True).start()

    def next_line(self, timeout_seconds: float) -> Said | None:
        """Wait for the next line of any rover; None once all have ended.

        Raises:
            UnavailableError: none in time, or a rover failed; says which, and where its log is.
        """
        while True:
            try:
                said = self._lines.get(timeout=timeout_seconds)
            except queue.Empty:
                raise UnavailableError(f"no rover has said anything for {timeout_seconds:.0f} seconds") from None
            if said is not None:
                if said.event == "failed":
                    raise UnavailableError(f"{said.rover} failed: {said.fields.get('message')}")
                return said
            for name, process in self._processes.items():
                code = process.poll()
                if code not in (None, 0):
                    raise UnavailableError(f"{name} ended with code {code}: see {self.folder.participant(name)}")
            if all(process.poll() is not None for process in self._processes.values()) and self._lines.empty():
                return None

    def release(self) -> None:
        """Let the rover that holds its update send it."""
        stdin = self._processes[ROVERS[0]].stdin
        assert stdin is not None
        stdin.write("go\n")
        stdin.flush()

    def stop(self) -> None:
        """End whoever still runs."""
        for process in self._processes.values():
            if process.poll() is None:
                process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    def _rocks_of(self, name: str) -> Path:
        return self.folder.participant(name) / "rocks.npz"

    def _listen(self, name: str, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            fields = json.loads(line)
            self._lines.put(Said(name, fields.pop("event"), fields))
        process.wait()
        self._lines.put(None)
