"""The built wheel: the whole command, `sfrl serve` included, and no generic name in site-packages."""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    kept = ("pyproject.toml", "README.md", "LICENSE", "sfrl_secure", "services")
    source.mkdir()
    for name in kept:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(path, source / name)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout[-2000:] + built.stderr[-2000:]
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_the_wheel_claims_no_top_level_name_but_its_own(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"sfrl_secure"}


@pytest.mark.parametrize("service", ["gatekeeper", "aggregator", "audit_log", "verifier"])
def test_every_service_is_in_the_wheel(wheel: zipfile.ZipFile, service: str) -> None:
    assert f"sfrl_secure/services/{service}/serve.py" in wheel.namelist()


@pytest.mark.parametrize(
    "name",
    [
        "governance/sfrl.cedarschema",
        "governance/default_rules.cedar",
        "wire/gen/sfrl/audit/v1/entry_pb2.py",
        "py.typed",
    ],
)
def test_what_the_code_reads_is_in_the_wheel(wheel: zipfile.ZipFile, name: str) -> None:
    assert f"sfrl_secure/{name}" in wheel.namelist()


def test_the_wheel_gives_the_command(wheel: zipfile.ZipFile) -> None:
    name = next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    entries = configparser.ConfigParser()
    entries.read_string(wheel.read(name).decode())
    assert entries["console_scripts"]["sfrl"] == "sfrl_secure.cli.main:main"
