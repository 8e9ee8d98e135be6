from __future__ import annotations

from sfrl_secure.governance.origin import origin_of
from sfrl_secure.ids import sha256


def test_an_origin_is_host_and_half_of_the_federation_id() -> None:
    federation_id = sha256(b"root")
    assert origin_of("log.example:8080", federation_id) == f"log.example:8080/sfrl/{federation_id.hex()[:32]}"
