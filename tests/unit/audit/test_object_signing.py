"""Signing for objects: for the federation that the mirrored log begins with, and for no other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from simulator import Simulator

from sfrl_secure.audit.object_signing import ObjectSigning, federation_of_log
from sfrl_secure.clock import FixedClock
from sfrl_secure.crypto.envelope import verify_single
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.errors import MissingEvidenceError, NotFoundError, VerificationError
from sfrl_secure.ids import parse_spiffe_id, sha256
from sfrl_secure.wire.gatekeeper_service import encode_object_request, parse_object_request

from .histories import History

READER = parse_spiffe_id("spiffe://mars.example/auditor/iris")


def test_each_object_is_signed_for_with_the_time_of_the_asking() -> None:
    key, clock = SigningKey.generate("ed25519"), FixedClock(1_000)
    signing = ObjectSigning(sha256(b"federation"), READER, key, clock)
    for digest in (sha256(b"one"), sha256(b"two")):
        clock.advance(5)
        asked = parse_object_request(encode_object_request(digest, signing.sign(digest)))
        verify_single(asked.envelope, key.public_key)
        request = asked.request
        assert (request.federation_id, request.reader, request.key_id) == (
            sha256(b"federation"), READER, key.public_key.key_id,
        )  # fmt: skip
        assert (request.digest, request.created_us) == (digest, clock.now_us())


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[Simulator]:
    made = Simulator(tmp_path / "sim")
    yield made
    made.close()


def test_the_federation_is_that_of_the_genesis_of_the_origin(sim: Simulator, tmp_path: Path) -> None:
    history = History(sim, sim.log.raw)
    log_dir = history.write(tmp_path / "log")
    assert federation_of_log(log_dir, history.size, sim.origin) == sim.state.federation_id
    for origin in ("log.mars.example/sfrl/" + "00" * 16, "other.example" + sim.origin):
        with pytest.raises(VerificationError, match="genesis of its origin"):
            federation_of_log(log_dir, history.size, origin)


def test_a_log_that_does_not_begin_with_a_genesis_names_no_federation(sim: Simulator, tmp_path: Path) -> None:
    history = History(sim, sim.log.raw)
    history.entries[0] = history.entries[1]
    log_dir = history.write(tmp_path / "log")
    with pytest.raises(VerificationError, match="genesis of its origin"):
        federation_of_log(log_dir, history.size, sim.origin)
    with pytest.raises(NotFoundError):
        federation_of_log(log_dir, 0, sim.origin)
    with pytest.raises(MissingEvidenceError):
        federation_of_log(tmp_path / "nothing", history.size, sim.origin)
