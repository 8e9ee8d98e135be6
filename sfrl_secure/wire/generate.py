"""Make the Python form of `proto/`, the same bytes each time.

The compiler is that of grpcio-tools, whose code loads on protobuf 6.33 and 7. The generated modules name each other
as `sfrl.*`; they are rewritten to live under `sfrl_secure.wire.gen`, so that no top-level package `sfrl` is claimed
while the names on the wire stay.

`python -m sfrl_secure.wire.generate` writes, `--check` compares and exits with 1 when what is committed is stale.

Runs in: development only.
Trusts: the files in `proto/`, and the compiler.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from sfrl_secure.errors import MalformedError

GENERATED = Path(__file__).resolve().parent / "gen"
PROTO = Path(__file__).resolve().parents[2] / "proto"

_IMPORT = re.compile(r"^from sfrl\.", re.MULTILINE)


def generate(proto: Path) -> dict[str, str]:
    """Compile every file below `proto`; return path relative to `gen/` and text, `__init__.py` files among them.

    Raises:
        MalformedError: the compiler refuses the files, or there are none.
    """
    # Imported here: a development tool, not there where the package is only used. It has no types.
    from grpc_tools import protoc  # type: ignore[import-untyped]

    sources = sorted(path.relative_to(proto).as_posix() for path in proto.rglob("*.proto"))
    if not sources:
        raise MalformedError("there is no .proto file to compile")
    with tempfile.TemporaryDirectory() as folder:
        arguments = [
            "protoc",
            f"--proto_path={proto}",
            *(f"--plugin={name}={_plugin(name)}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")),
            *(f"--{kind}_out={folder}" for kind in ("python", "grpc_python")),
            *(f"--{kind}_out=quiet:{folder}" for kind in ("mypy", "mypy_grpc")),
            *sources,
        ]
        if protoc.main(arguments) != 0:
            raise MalformedError("protoc refused the files")
        files = {
            path.relative_to(folder).as_posix(): _IMPORT.sub("from sfrl_secure.wire.gen.sfrl.", path.read_text("utf-8"))
            for path in sorted(Path(folder).rglob("*.py*"))
        }
    for name in list(files):
        for parent in Path(name).parents:
            files[(parent / "__init__.py").as_posix()] = ""
    return dict(sorted(files.items()))


def _plugin(name: str) -> str:
    # The interpreter's own folder first: a virtual environment that is not activated has no PATH.
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise MalformedError(f"{name} is not installed; it comes with mypy-protobuf")
    return found


def stale_files(files: dict[str, str], folder: Path) -> list[str]:
    """Name the files below `folder` that differ from `files`, are missing, or should not be there."""
    there = {
        path.relative_to(folder).as_posix(): path.read_text("utf-8")
        for path in folder.rglob("*.py*")
        if "__pycache__" not in path.parts
    }
    return sorted(name for name in files.keys() | there.keys() if files.get(name) != there.get(name))


def write_files(files: dict[str, str], folder: Path) -> None:
    """Make `folder` hold exactly `files`."""
    if folder.exists():
        shutil.rmtree(folder)
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8", newline="\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or, with `--check`, compare; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m sfrl_secure.wire.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only; exit with 1 when stale")
    parser.add_argument("--proto", type=Path, default=PROTO, help="folder of the .proto files")
    chosen = parser.parse_args(arguments)
    files = generate(chosen.proto)
    stale = stale_files(files, GENERATED)
    if chosen.check:
        sys.stdout.writelines(f"stale: {name}\n" for name in stale)
        return 1 if stale else 0
    write_files(files, GENERATED)
    sys.stdout.write(f"{len(files)} files, {len(stale)} changed\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
