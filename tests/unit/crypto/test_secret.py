from __future__ import annotations

import copy
import pickle

import pytest

from sfrl_secure.crypto.secret import SecretBytes

VALUE = b"very secret bytes"


def test_a_secret_prints_nothing_of_its_content() -> None:
    secret = SecretBytes(VALUE)
    for text in (repr(secret), str(secret), f"{secret}", f"{secret!r:>40}", f"{[secret]}"):
        assert "very" not in text
        assert VALUE.hex() not in text


def test_a_secret_gives_its_bytes_only_when_asked() -> None:
    assert SecretBytes(VALUE).expose() == VALUE
    with pytest.raises(TypeError):
        bytes(SecretBytes(VALUE))  # type: ignore[call-overload]


def test_two_secrets_match_by_content_only() -> None:
    assert SecretBytes(VALUE).matches(SecretBytes(VALUE))
    assert not SecretBytes(VALUE).matches(SecretBytes(VALUE + b"."))
    assert not SecretBytes(VALUE).matches(SecretBytes(b""))


def test_secrets_are_not_compared_with_equals() -> None:
    secret = SecretBytes(VALUE)
    with pytest.raises(TypeError):
        _ = secret == SecretBytes(VALUE)
    with pytest.raises(TypeError):
        _ = secret != VALUE


def test_a_secret_is_not_hashable() -> None:
    with pytest.raises(TypeError):
        hash(SecretBytes(VALUE))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_secret_is_not_serialised(protocol: int) -> None:
    with pytest.raises(TypeError):
        pickle.dumps(SecretBytes(VALUE), protocol)
    with pytest.raises(TypeError):
        copy.deepcopy(SecretBytes(VALUE))


def test_a_secret_keeps_its_own_copy() -> None:
    buffer = bytearray(VALUE)
    secret = SecretBytes(buffer)
    buffer[0] = 0
    assert secret.expose() == VALUE
