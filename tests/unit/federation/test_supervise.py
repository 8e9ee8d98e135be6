"""Supervision: the order of the start, and that a service which does not become ready is told, not waited for."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from sfrl_secure.errors import MalformedError, UnavailableError
from sfrl_secure.services.federation.supervise import ServiceProcess, Supervisor
from sfrl_secure.storage.files import FolderLock

READY = """import time; print('{"event": "ready"}', flush=True); time.sleep(60)"""


def service(tmp_path: Path) -> ServiceProcess:
    return ServiceProcess("verifier", "v", tmp_path / "config.toml", tmp_path / "v.jsonl")


def instead(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """Run `program` where the service would run."""
    import subprocess

    real = subprocess.Popen

    def popen(_arguments: list[str], **more: object) -> object:
        return real([sys.executable, "-c", program], **more)

    monkeypatch.setattr("sfrl_secure.services.federation.supervise.subprocess.Popen", popen)


def test_services_start_witness_first_then_log_then_followers(federation) -> None:
    roles = [each.role for each in Supervisor(federation.folder).services]
    assert roles == ["verifier", "audit_log", "gatekeeper", "gatekeeper", "aggregator"]


def test_a_federation_is_run_by_one_supervisor(federation) -> None:
    first, second = Supervisor(federation.folder), Supervisor(federation.folder)
    with FolderLock(federation.folder.root / "service-logs"), pytest.raises(MalformedError, match="running already"):
        second.start()
    assert all(each.process is None for each in second.services + first.services)


def test_a_service_that_ends_is_told_with_its_code_and_log(tmp_path: Path) -> None:
    ended = service(tmp_path)
    ended.start()
    why = "NotFoundError: there is no such file"
    with pytest.raises(UnavailableError, match=rf"verifier v ended with code 2: {why}: see {tmp_path}/v.jsonl"):
        ended.wait_ready()
    assert not ended.is_running
    assert b"there is no such file" in ended.log_path.read_bytes()


def test_a_service_that_says_nothing_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instead(monkeypatch, "import time; time.sleep(60)")
    silent = service(tmp_path)
    silent.start()
    with pytest.raises(UnavailableError, match="is not ready"):
        silent.wait_ready(0.3)
    assert silent.stop() == -signal.SIGTERM


def test_readiness_of_an_earlier_start_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said_before = service(tmp_path)
    said_before.log_path.write_text('{"event": "ready"}\n')
    instead(monkeypatch, "import time; time.sleep(60)")
    said_before.start()
    with pytest.raises(UnavailableError):
        said_before.wait_ready(0.3)
    said_before.kill()


def test_a_service_that_does_not_end_when_asked_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    instead(monkeypatch, deaf + READY)
    stubborn = service(tmp_path)
    stubborn.start()
    stubborn.wait_ready(10)
    assert stubborn.stop(0.3) == -signal.SIGKILL


def test_when_one_does_not_start_those_that_run_are_stopped(
    federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = Supervisor(federation.folder)
    instead(monkeypatch, READY)
    started: list[ServiceProcess] = []
    real = ServiceProcess.start

    def start(self: ServiceProcess) -> None:
        if len(started) == 2:
            raise UnavailableError("no third one")
        started.append(self)
        real(self)

    monkeypatch.setattr(ServiceProcess, "start", start)
    with pytest.raises(UnavailableError, match="no third one"):
        supervisor.start()
    assert len(started) == 2
    assert not any(each.is_running for each in started)
