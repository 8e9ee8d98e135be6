"""What the round benchmark counts on: rounds timed alike for everybody, and nobody left running."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.__main__ import main
from benchmarks.peers.certificates import write_server_certificate
from benchmarks.peers.inside.same_job import Trainer, first_model
from benchmarks.peers.job import RESNET18, Job, read_stamps, resnet18_shapes, round_seconds, stamps_path
from benchmarks.peers.processes import PeakMemory, PeerError, PeerProcesses
from benchmarks.rounds import run as rounds
from benchmarks.rounds.run import PEERS, environments

SLEEPER = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], "
SLEEPER += "start_new_session=True); print('up', flush=True); time.sleep(60)"


def test_the_shapes_are_those_of_a_resnet_18() -> None:
    assert sum(math.prod(shape) for shape in resnet18_shapes().values()) == RESNET18


@pytest.mark.parametrize("parameters", [RESNET18, 300_000, 300_001])
def test_a_job_of_any_size_has_tensors_of_that_many_parameters(parameters: int) -> None:
    assert sum(math.prod(shape) for shape in Job(parameters=parameters).shapes.values()) == parameters


def test_rounds_are_timed_from_mean_to_mean_without_the_first() -> None:
    first = {1: 0.0, 2: 10.0, 3: 11.0, 4: 13.0}
    second = {1: 1.0, 2: 10.5, 3: 12.5, 4: 13.5}
    assert round_seconds([first, second]) == [1.5, 1.5]


def test_a_round_that_a_client_missed_is_not_counted() -> None:
    assert round_seconds([{1: 0.0, 2: 1.0, 3: 2.0, 4: 3.0}, {1: 0.0, 2: 1.0, 4: 3.0}]) == []


def test_a_client_notes_every_round_and_its_noise_depends_on_client_and_round(tmp_path: Path) -> None:
    job = {"stamps": str(tmp_path), "seed": 7, "parameters": 1_000}
    model = first_model(job)
    one, other = Trainer(job, 0), Trainer(job, 1)
    trained = [one.train(model), one.train(model), other.train(model)]
    assert sorted(read_stamps(stamps_path(tmp_path, 0))) == [1, 2]
    assert len({each.tobytes() for each in trained}) == 3
    assert all(0.0 < float(np.abs(each - model).max()) < 0.01 for each in trained)
    # A process for each round, as a SuperNode starts them, goes on counting.
    Trainer(job, 0).train(model)
    assert sorted(read_stamps(stamps_path(tmp_path, 0))) == [1, 2, 3]


def test_whatever_a_peer_starts_is_ended_with_it(tmp_path: Path) -> None:
    with PeerProcesses(tmp_path) as peers:
        process = peers.start("parent", [sys.executable, "-c", SLEEPER], server=True)
        peers.wait(lambda: "up" in peers.end_of_log("parent"), "the parent", 20.0)
        found = peers._marked()
        assert len(found) == 2
        peers.wait(lambda: peers.server_rss_mib > 0, "its memory", 20.0)
    assert process.poll() is not None
    assert not any(_is_running(pid) for pid in found)


def test_a_peer_that_fails_is_named_with_its_last_words(tmp_path: Path) -> None:
    with PeerProcesses(tmp_path) as peers:
        peers.start("server", [sys.executable, "-c", "raise SystemExit('no such port')"])
        with pytest.raises(PeerError, match=r"server ended with 1: no such port"):
            peers.wait(lambda: False, "the rounds", 20.0)


def test_a_peer_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    with PeerProcesses(tmp_path) as peers, pytest.raises(PeerError, match="takes over 0 s"):
        peers.run("slow", [sys.executable, "-c", "import time; time.sleep(60)"], 0.2)


def test_memory_is_that_of_a_process_and_of_those_under_it() -> None:
    filled = "import sys; kept = b'x' * 80_000_000; print('up', flush=True); sys.stdin.read()"
    over = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {filled!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", over], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process, PeakMemory([process.pid]) as memory:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        deadline = time.monotonic() + 20.0
        while memory.peak_mib < 80:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.communicate()


def test_a_peer_s_certificate_is_its_own_authority_s(tmp_path: Path) -> None:
    files = write_server_certificate(tmp_path)
    checked = subprocess.run(
        ["openssl", "verify", "-CAfile", files.authority, files.certificate], capture_output=True, check=False
    )
    assert checked.returncode == 0, checked.stderr
    assert files.key.stat().st_mode & 0o077 == 0


def test_peers_are_looked_for_where_they_are_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PEERS, raising=False)
    assert environments() == {}
    python = tmp_path / "nvflare" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    monkeypatch.setenv(PEERS, str(tmp_path))
    assert environments() == {"nvflare": tmp_path / "nvflare"}


def test_a_small_run_gives_every_key_and_null_for_peers_that_are_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(PEERS, raising=False)
    monkeypatch.setattr(rounds, "QUICK", Job(clients=2, parameters=20_000, rounds=4))
    assert main(["round", "--json", "--quick", "--dir", str(tmp_path)]) == 0
    figures = json.loads(capsys.readouterr().out)
    for kind in ("dense", "sparse"):
        assert figures[f"{kind}_seconds"] > 0
        assert figures[f"{kind}_verified"] is True
    for peer in ("flower_grpc", "flower_superlink", "nvflare"):
        assert figures[f"{peer}_seconds"] is None
    assert figures["server_rss_mib"] > 0
    assert figures["peer_rss_mib"] is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["round", "links"])
def test_what_a_benchmark_does_not_take_is_said(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--only=bare"]) == 2
    assert f"{name} takes" in capsys.readouterr().err


def _is_running(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
