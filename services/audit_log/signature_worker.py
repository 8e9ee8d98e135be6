"""A process that verifies signatures, and nothing else.

Threads of the log's own process would have to take its interpreter lock after each signature, and wait for it longer
than the verification takes. Here a request of many signatures is answered at once. It ends with its standard input.

A request is its length in bytes (u32), then for each signature: length of key (u16), of signature (u16) and of message
(u32), suite (u8), then the three. The answer is one byte for each: 1 where the signature holds. Little-endian.

Runs in: audit_log, as a process of its own.
Trusts: the log's process, which alone holds the other ends.
"""

from __future__ import annotations

import os
import signal
import struct
import sys
from collections.abc import Iterator, Sequence
from functools import lru_cache

from sfrl_secure.crypto.envelope import SignatureClaim
from sfrl_secure.crypto.keys import ED25519, HYBRID, PublicKey, parse_public_key, verify_signature
from sfrl_secure.errors import SignatureError

_SUITES = (ED25519, HYBRID)
_LENGTH = struct.Struct("<I")
_CLAIM = struct.Struct("<HHIB")


def encode_request(claims: Sequence[SignatureClaim]) -> bytes:
    """Write a request."""
    parts = [b""]
    for claim in claims:
        key = claim.key.raw
        parts += [
            _CLAIM.pack(len(key), len(claim.value), len(claim.message), _SUITES.index(claim.key.suite)),
            key,
            claim.value,
            claim.message,
        ]
    parts[0] = _LENGTH.pack(sum(map(len, parts)))
    return b"".join(parts)


def answer_to(request: bytes) -> bytes:
    """Verify what a request, without its length, holds."""
    return bytes(_holds(key, message, value) for key, message, value in _claims_of(request))


def read_exactly(descriptor: int, count: int) -> bytes:
    """Read `count` bytes from a pipe; fewer, where it ends before."""
    parts: list[bytes] = []
    while count and (part := os.read(descriptor, count)):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def main() -> None:
    """Answer requests from standard input until it ends. The arguments are the CPUs to run on."""
    # An interrupt at the terminal is for the log, which ends us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cpus = {int(each) for each in sys.argv[1:]}
    if cpus:
        os.sched_setaffinity(0, cpus)
    while len(head := read_exactly(0, _LENGTH.size)) == _LENGTH.size:
        (length,) = _LENGTH.unpack(head)
        answer = memoryview(answer_to(read_exactly(0, length)))
        while answer:
            answer = answer[os.write(1, answer) :]


def _claims_of(request: bytes) -> Iterator[tuple[PublicKey, bytes, bytes]]:
    at = 0
    while at < len(request):
        key_bytes, value_bytes, message_bytes, suite = _CLAIM.unpack_from(request, at)
        at += _CLAIM.size
        key = request[at : at + key_bytes]
        at += key_bytes
        value = request[at : at + value_bytes]
        at += value_bytes
        yield _key_of(_SUITES[suite], key), request[at : at + message_bytes], value
        at += message_bytes


@lru_cache(maxsize=256)
def _key_of(suite: str, raw: bytes) -> PublicKey:
    return parse_public_key(suite, raw)


def _holds(key: PublicKey, message: bytes, value: bytes) -> bool:
    try:
        verify_signature(key, message, value)
    except SignatureError:
        return False
    return True


if __name__ == "__main__":
    main()
