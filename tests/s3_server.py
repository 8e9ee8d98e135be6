"""An S3-compatible server of its own, as a process on loopback, for tests of what lies in a bucket.

The environment of this process, and of those that it starts meanwhile, leads there.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

BUCKET = "federation"
WHO = "AWS4-HMAC-SHA256 Credential=tests/20260101/us-east-1/s3/aws4_request"

needs_s3_server = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("moto", "flask", "flask_cors")),
    reason="the S3 server for tests (moto, flask, flask-cors) is not installed",
)


@contextmanager
def running_s3_server() -> Iterator[str]:
    """Run a server with one empty bucket; give its address."""
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr is not None
            found = next(filter(None, (re.search(r"http://127\.0\.0\.1:[0-9]+", line) for line in process.stderr)))
            made = urllib.request.Request(f"{found[0]}/{BUCKET}", method="PUT", headers={"Authorization": WHO})
            with urllib.request.urlopen(made, timeout=20) as answer:
                assert answer.status == 200
            # It writes a line a request: nobody may let it wait for a reader.
            with ThreadPoolExecutor(1) as reading, pytest.MonkeyPatch.context() as environment:
                reading.submit(process.stderr.read)
                environment.setenv("AWS_ENDPOINT_URL", found[0])
                environment.setenv("AWS_ALLOW_HTTP", "true")
                environment.setenv("AWS_ACCESS_KEY_ID", "tests")
                environment.setenv("AWS_SECRET_ACCESS_KEY", "tests")
                environment.setenv("AWS_REGION", "us-east-1")
                yield found[0]
                process.kill()
        finally:
            process.kill()
