"""Verifying the signatures of many envelopes, on the CPUs that the log's threads leave free.

A few are verified by whoever asks; many go to processes of their own (`signature_worker`). A process that is lost costs
time and nothing else: what it did not answer is verified here.

Runs in: audit_log.
Trusts: its own processes.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Collection, Sequence
from contextlib import suppress

import structlog

from sfrl_secure.crypto.envelope import Envelope, SignatureClaim, single_claim
from sfrl_secure.crypto.keys import PublicKey, verify_signature
from sfrl_secure.errors import SignatureError
from sfrl_secure.services.audit_log.signature_worker import encode_request, read_exactly

INLINE_MAX = 8
"""So many signatures are verified by whoever asks: a request to another process costs about as much."""

WORKERS_MAX = 4

_log = structlog.get_logger()


class SignatureChecks:
    """Verifies signatures. Safe for any number of threads; close it."""

    def __init__(self, cpus: Collection[int] = ()) -> None:
        """Start one process for each of `cpus`, four at most; without any, verify where the caller runs."""
        self._workers = [_Worker(cpu) for cpu in sorted(cpus)[:WORKERS_MAX]]

    def hold(self, claims: Sequence[tuple[Envelope, PublicKey]]) -> list[bool]:
        """Say for each envelope whether it has exactly one signature, and that of the key."""
        held = [False] * len(claims)
        asked: list[tuple[int, SignatureClaim]] = []
        for at, (envelope, key) in enumerate(claims):
            with suppress(SignatureError):
                asked.append((at, single_claim(envelope, key)))
        for (at, _), holds in zip(asked, self._verify([claim for _, claim in asked]), strict=True):
            held[at] = holds
        return held

    def close(self) -> None:
        """End the processes."""
        for worker in self._workers:
            worker.close()

    def _verify(self, claims: Sequence[SignatureClaim]) -> Sequence[bool]:
        if len(claims) > INLINE_MAX:
            # The first that is free; where none is, whoever waits for the first waits no longer than for another.
            for worker in (*(each for each in self._workers if not each.is_busy), *self._workers[:1]):
                answered = worker.ask(claims)
                if answered is not None:
                    return answered
        return [_holds(claim) for claim in claims]


class _Worker:
    """One process; one request at a time."""

    def __init__(self, cpu: int) -> None:
        # -P: no folder that we happen to stand in gives it its modules.
        command = [sys.executable, "-P", "-m", "sfrl_secure.services.audit_log.signature_worker", str(cpu)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        self._lock = threading.Lock()
        self._is_lost = False

    @property
    def is_busy(self) -> bool:
        """Whether it has a request in work."""
        return self._lock.locked()

    def ask(self, claims: Sequence[SignatureClaim]) -> Sequence[bool] | None:
        """Give the answers, or None from a process that is lost."""
        request = encode_request(claims)
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        with self._lock:
            if self._is_lost:
                return None
            answer = b""
            try:
                left = memoryview(request)
                while left:
                    left = left[stdin.write(left) :]
                answer = read_exactly(stdout.fileno(), len(claims))
            except OSError:
                pass
            if len(answer) != len(claims):
                self._is_lost = True
                _log.error("signature_worker_lost")
                return None
        return [each == 1 for each in answer]

    def close(self) -> None:
        """End it."""
        with self._lock:
            self._is_lost = True
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    with suppress(OSError):
                        pipe.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _holds(claim: SignatureClaim) -> bool:
    try:
        verify_signature(claim.key, claim.message, claim.value)
    except SignatureError:
        return False
    return True
