"""A commitment names one input and one salt."""

from __future__ import annotations

import hashlib

import pytest

from sfrl_secure.crypto.commitment import SALT_BYTES, commit_to_input, is_committed_input
from sfrl_secure.errors import MalformedError

SALT = bytes(range(SALT_BYTES))


def test_the_commitment_is_the_hash_that_the_specification_writes_down() -> None:
    written = hashlib.sha256(b"sfrl-secure/v1/decision-input\n" + SALT + b"a rock").digest()
    assert commit_to_input(SALT, b"a rock") == written


def test_another_input_or_another_salt_is_not_the_committed_one() -> None:
    commitment = commit_to_input(SALT, b"a rock")
    assert is_committed_input(commitment, SALT, b"a rock")
    assert not is_committed_input(commitment, SALT, b"a stone")
    assert not is_committed_input(commitment, SALT[::-1], b"a rock")


@pytest.mark.parametrize("size", [0, SALT_BYTES - 1, SALT_BYTES + 1])
def test_a_salt_of_another_length_commits_to_nothing(size: int) -> None:
    """A byte could be moved from the input into the salt, and one hash would commit to two inputs."""
    with pytest.raises(MalformedError):
        commit_to_input(bytes(size), b"a rock")
    commitment = commit_to_input(SALT, b"a rock")
    assert not is_committed_input(commitment, SALT[:-1], SALT[-1:] + b"a rock")
    assert not is_committed_input(commitment, SALT + b"a", b" rock")
