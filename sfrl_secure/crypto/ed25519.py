"""Ed25519, verified strictly.

Beyond RFC 8032: A and R are canonical encodings and not of small order, and S < L. The rule is ours, whatever the
library behind it takes. That is libsodium, because a log spends much of its time here and OpenSSL takes twice as long;
the tests hold the verdicts of the two together.

Source: RFC 8032, section 5.1; Chalkias, Garillot and Nikolaenko, "Taming the many EdDSAs" (2020).

Runs in: everything.
Trusts: nothing.
"""

from __future__ import annotations

from typing import Final

from nacl.bindings import crypto_sign_open
from nacl.exceptions import CryptoError

from sfrl_secure.errors import MalformedError, SignatureError

_P: Final = 2**255 - 19
_L: Final = 2**252 + 27742317777372353535851937790883648493
_D: Final = -121665 * pow(121666, -1, _P) % _P
_SQRT_MINUS_ONE: Final = pow(2, (_P - 1) // 4, _P)


def _small_order_y() -> frozenset[int]:
    """The y of the eight points of small order: 1, -1, 0 and the two of order 8."""
    # A point of order 8 doubles to one of order 4, which has y = 0: then y**2 = -x**2, so d*y**4 + 2*y**2 - 1 = 0.
    found = {0, 1, _P - 1}
    root = _square_root((1 + _D) % _P)
    assert root is not None
    for sign in (root, -root):
        square = (-1 + sign) * pow(_D, -1, _P) % _P
        y = _square_root(square)
        if y is not None:
            found |= {y, -y % _P}
    return frozenset(found)


def _square_root(square: int) -> int | None:
    root = pow(square, (_P + 3) // 8, _P)
    for candidate in (root, root * _SQRT_MINUS_ONE % _P):
        if candidate * candidate % _P == square % _P:
            return candidate
    return None


_SMALL_ORDER_Y: Final = _small_order_y()


def _is_on_curve(y: int) -> bool:
    # -x**2 + y**2 = 1 + d*x**2*y**2, solved for x**2; the denominator is never 0, because -d is no square.
    return _square_root((y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P) is not None


def _is_acceptable_point(encoded: bytes) -> bool:
    number = int.from_bytes(encoded, "little")
    y = number & (2**255 - 1)
    # y = 1 and y = -1, whose x is 0 and has no sign, are of small order: refused with their second encodings.
    return y < _P and y not in _SMALL_ORDER_Y


def check_ed25519_public_key(public_key: bytes) -> None:
    """Check that a key is the canonical encoding of a point on the curve that is not of small order.

    Raises:
        MalformedError: it is not.
    """
    if len(public_key) != 32 or not _is_acceptable_point(public_key):
        raise MalformedError("an Ed25519 key is 32 bytes, canonical, and not of small order")
    # A key that no signature can hold under is refused when it is recorded, not when it is first needed.
    if not _is_on_curve(int.from_bytes(public_key, "little") & (2**255 - 1)):
        raise MalformedError("an Ed25519 key is a point on the curve")


def verify_ed25519_strict(public_key: bytes, message: bytes, signature: bytes) -> None:
    """Verify a signature under the strict rule.

    Raises:
        SignatureError: it does not hold, or key or signature is one of those that the rule refuses.
    """
    if len(public_key) != 32 or not _is_acceptable_point(public_key):
        raise SignatureError("the Ed25519 key is not acceptable")
    if len(signature) != 64 or not _is_acceptable_point(signature[:32]):
        raise SignatureError("the Ed25519 signature is not acceptable")
    if int.from_bytes(signature[32:], "little") >= _L:
        raise SignatureError("the Ed25519 signature is not acceptable")
    try:
        crypto_sign_open(signature + message, public_key)
    except (CryptoError, ValueError):
        raise SignatureError("the Ed25519 signature does not hold") from None
