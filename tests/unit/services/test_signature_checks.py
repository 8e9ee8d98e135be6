"""Signatures are verified the same here, and by a process that may be lost."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from sfrl_secure.crypto.envelope import Envelope, add_signature, sign_envelope, single_claim
from sfrl_secure.crypto.keys import ED25519, HYBRID, PublicKey, SigningKey
from sfrl_secure.services.audit_log.signature_checks import INLINE_MAX, SignatureChecks
from sfrl_secure.services.audit_log.signature_worker import answer_to, encode_request
from sfrl_secure.services.placement import share_one_cpu

TYPE = "application/vnd.sfrl.statement.v1"
KEYS = [SigningKey.generate(suite) for suite in (ED25519, HYBRID, ED25519)]


def made(count: int) -> tuple[list[tuple[Envelope, PublicKey]], list[bool]]:
    """Claims of which every third is another key's, and every fifth has two signatures."""
    claims, due = [], []
    for number in range(count):
        key = KEYS[number % 3]
        signer = KEYS[(number + 1) % 3] if number % 3 == 1 else key
        envelope = sign_envelope(TYPE, b"statement %d" % number, [signer])
        if number % 5 == 4:
            envelope = add_signature(envelope, SigningKey.generate(ED25519))
        claims.append((envelope, key.public_key))
        due.append(signer is key and number % 5 != 4)
    return claims, due


def forged(claims: list[tuple[Envelope, PublicKey]]) -> list[tuple[Envelope, PublicKey]]:
    """The same signatures under other statements."""
    return [(Envelope(TYPE, each.statement + b".", each.signatures), key) for each, key in claims]


@pytest.fixture(params=["here", "by a process"])
def checks(request: pytest.FixtureRequest) -> Iterator[SignatureChecks]:
    found = SignatureChecks({min(os.sched_getaffinity(0))} if request.param == "by a process" else ())
    yield found
    found.close()


@pytest.mark.parametrize("count", [0, 1, INLINE_MAX, INLINE_MAX + 1, 256])
def test_exactly_the_writers_single_signatures_hold(checks: SignatureChecks, count: int) -> None:
    claims, due = made(count)
    assert checks.hold(claims) == due
    assert checks.hold(forged(claims)) == [False] * count


def test_many_ask_at_once_and_each_gets_its_own_answer(checks: SignatureChecks) -> None:
    groups = [made(count) for count in range(10, 40)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda group: checks.hold(group[0]), groups)) == [due for _, due in groups]


def test_a_process_that_is_lost_costs_no_answer() -> None:
    checks = SignatureChecks({min(os.sched_getaffinity(0))})
    claims, due = made(30)
    (worker,) = checks._workers
    worker._process.kill()
    worker._process.wait()
    assert checks.hold(claims) == due
    assert checks.hold(claims) == due
    checks.close()


def test_a_process_ends_with_its_log_and_not_before() -> None:
    checks = SignatureChecks({min(os.sched_getaffinity(0))})
    (worker,) = checks._workers
    assert checks.hold(made(20)[0]) == made(20)[1]
    assert worker._process.poll() is None
    checks.close()
    assert worker._process.returncode == 0
    # Whoever comes later is served here.
    assert checks.hold(made(20)[0]) == made(20)[1]


def test_each_byte_of_a_request_counts() -> None:
    envelope = sign_envelope(TYPE, b"statement", [KEYS[0]])
    request = encode_request([single_claim(envelope, KEYS[0].public_key)] * 2)[4:]
    assert answer_to(request) == b"\x01\x01"
    changed = bytearray(request)
    changed[-1] ^= 1
    assert answer_to(bytes(changed)) == b"\x01\x00"
    assert answer_to(b"") == b""


def test_threads_share_one_cpu_and_the_others_are_given() -> None:
    before = os.sched_getaffinity(0)
    found: list[object] = []

    def place() -> None:
        found.append(share_one_cpu())
        found.append(os.sched_getaffinity(0))

    # An own thread: what it is allowed is no matter of the others'.
    thread = threading.Thread(target=place)
    thread.start()
    thread.join()
    assert found == [before - {max(before)}, {max(before)}]
    assert os.sched_getaffinity(0) == before
