from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sfrl_secure.errors import MalformedError
from sfrl_secure.wire.generate import GENERATED, PROTO, generate, main, stale_files, write_files

pytest.importorskip("grpc_tools", reason="the compiler is a development dependency")


def test_the_generated_code_is_that_of_the_proto_files() -> None:
    if not PROTO.is_dir():
        pytest.skip("proto/ is in the source tree only")
    assert stale_files(generate(PROTO), GENERATED) == []
    assert main(["--check"]) == 0


def test_a_changed_a_missing_and_a_foreign_file_are_stale(tmp_path: Path) -> None:
    files = {"__init__.py": "", "a_pb2.py": "one", "a_pb2.pyi": "two"}
    write_files(files, tmp_path / "gen")
    assert stale_files(files, tmp_path / "gen") == []
    (tmp_path / "gen" / "a_pb2.py").write_text("other")
    (tmp_path / "gen" / "a_pb2.pyi").unlink()
    (tmp_path / "gen" / "b_pb2.py").write_text("")
    assert stale_files(files, tmp_path / "gen") == ["a_pb2.py", "a_pb2.pyi", "b_pb2.py"]
    write_files(files, tmp_path / "gen")
    assert stale_files(files, tmp_path / "gen") == []


def test_generated_code_claims_no_package_of_its_own() -> None:
    found = subprocess.run(
        [sys.executable, "-c", "import sfrl_secure.wire.gatekeeper_service, sys; print('sfrl' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == "False"


def test_nothing_to_compile_and_a_broken_file_are_told_apart_from_success(tmp_path: Path) -> None:
    with pytest.raises(MalformedError):
        generate(tmp_path)
    (tmp_path / "broken.proto").write_text("message {")
    with pytest.raises(MalformedError):
        generate(tmp_path)
