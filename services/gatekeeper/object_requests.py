"""Who may read an object: whoever signs for it with a key that governance names, over a TLS identity of the same name.

A stolen TLS key of an auditor reads nothing, and neither does a stolen signing key; what was signed is good for a
minute, for one object.

Format: proto/README.md, "Enrolment".

Runs in: gatekeeper.
Trusts: the services document in force; the interceptor, for who calls. Nothing in a request.
"""

from __future__ import annotations

from sfrl_secure.crypto.envelope import verify_single
from sfrl_secure.errors import DeniedError, SignatureError
from sfrl_secure.governance.services import ServicesDocument
from sfrl_secure.ids import Digest, SpiffeId
from sfrl_secure.wire.gatekeeper_service import ObjectAsk

FRESH_US = 60_000_000
"""A request is at most this far from our time, before or after."""


def check_object_request(
    asked: ObjectAsk, peer: SpiffeId, services: ServicesDocument | None, federation_id: Digest, now_us: int
) -> None:
    """Check that the caller signed, just now, for the object that it asks for.

    The parser has seen to it that the signed request is for the digest that is asked for.

    Raises:
        DeniedError: `wrong_federation`, `wrong_peer`, `bad_signature`, `request_stale`.
    """
    request = asked.request
    if request.federation_id != federation_id:
        raise DeniedError("wrong_federation", "the request is for another federation")
    if request.reader != peer:
        raise DeniedError("wrong_peer", "the request is another reader's")
    # An expired services document names nobody's key.
    named = None if services is None or now_us >= services.expires_us else services.signatory(peer)
    if named is None or named.key.key_id != request.key_id:
        raise DeniedError("bad_signature", "the services document in force does not name this key for the reader")
    try:
        verify_single(asked.envelope, named.key)
    except SignatureError:
        raise DeniedError("bad_signature", "the request is not signed by exactly the reader's key") from None
    if abs(now_us - request.created_us) > FRESH_US:
        raise DeniedError("request_stale", f"a request is at most {FRESH_US // 1_000_000} s from the gatekeeper's time")
