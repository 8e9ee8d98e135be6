"""Keys for the tests of `crypto`, made once a run, and the folder of third-party vectors."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sfrl_secure.crypto.keys import ED25519, HYBRID, SigningKey

_CHECKOUT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def load_vector() -> Callable[[str], Any]:
    folder = Path(os.environ.get("SFRL_VECTORS", _CHECKOUT / ".." / "shared" / "vectors"))

    def load(name: str) -> Any:
        path = folder / name
        if not path.is_file():
            pytest.skip(f"third-party vector {name} is not there: set SFRL_VECTORS to the folder of the vectors")
        return json.loads(path.read_bytes())

    return load


@pytest.fixture(scope="session")
def ed25519_key() -> SigningKey:
    return SigningKey.generate(ED25519)


@pytest.fixture(scope="session")
def hybrid_key() -> SigningKey:
    return SigningKey.generate(HYBRID)


@pytest.fixture(scope="session", params=[ED25519, HYBRID])
def any_key(request: pytest.FixtureRequest) -> SigningKey:
    return SigningKey.generate(request.param)
