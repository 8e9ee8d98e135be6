"""A service's next certificate, in time: a thread asks for it when half of the present one's life is over.

A gatekeeper that issues asks itself, every other service asks such a gatekeeper over the identity in force. Each time
there is a new key; server and channels take the new identity with their next handshake and call, and no connection is
dropped. What does not succeed is tried again, more often as the end comes nearer, and the identity in force stays.

Format: proto/README.md, "Enrolment".

Runs in: gatekeeper, aggregator, audit_log, verifier.
Trusts: the service's own keys and the trust policy. Nothing that a gatekeeper answers.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

import structlog

from sfrl_secure.clock import Clock
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.crypto.svid import PeerCertificate
from sfrl_secure.crypto.x509 import renewal_due_us
from sfrl_secure.errors import MalformedError, SfrlError
from sfrl_secure.ids import Digest, SpiffeId, parse_hex_digest, parse_spiffe_id
from sfrl_secure.rpc.channel import RpcChannel
from sfrl_secure.rpc.identity_requests import AskedIdentity, ask_identity, open_identity
from sfrl_secure.services.config import ServiceConfig
from sfrl_secure.services.tls_files import ServiceTls
from sfrl_secure.translog.policy import TrustPolicy
from sfrl_secure.wire.identity_service import RENEW_IDENTITY, encode_renew_request, parse_renew_response

LOOK_SECONDS = 30.0
"""Longest sleep: the clock may be set, and the files may be replaced by hand."""

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0
RENEW_SECONDS = 20.0
STOP_SECONDS = 5.0

Obtain = Callable[[AskedIdentity, PeerCertificate], bytes]
"""Gets the certificate for what is asked, over the identity in force; verified, in PEM. Raises SfrlError."""

_log = structlog.get_logger()


class Renewal:
    """Keeps a service's identity good. `start`, then `stop` once."""

    def __init__(
        self,
        tls: ServiceTls,
        spiffe_id: SpiffeId,
        federation_id: Digest,
        key: SigningKey,
        clock: Clock,
        obtain: Obtain,
        *,
        on_renewed: Callable[[], None] = lambda: None,
        spread: Callable[[], float] = random.random,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare.

        Args:
            key: the service's signing key.
            on_renewed: told that the next identity is in use.
            spread: 0 to 1; so that many services do not come at once.
            close: called at the end.
        """
        self._tls, self._spiffe_id, self._federation_id = tls, spiffe_id, federation_id
        self._key, self._clock, self._obtain, self._close = key, clock, obtain, close
        self._on_renewed, self._spread = on_renewed, spread()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="renewal", daemon=True)

    def start(self) -> None:
        """Begin to watch the identity."""
        self._thread.start()

    def stop(self) -> None:
        """End; a renewal that is under way is left where it is."""
        self._ending.set()
        self._close()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)

    def due_us(self) -> int:
        """When the identity in force is to be renewed: at half-life, and up to a tenth of the rest later."""
        current = self._tls.current()
        due_us = renewal_due_us(current.not_before_us, current.not_after_us)
        return due_us + int((current.not_after_us - due_us) * self._spread / 10)

    def renew(self) -> None:
        """Get the next identity now, and use it.

        Raises:
            SfrlError: there is none; the identity in force stays.
        """
        current = self._tls.current()
        asked = ask_identity(self._spiffe_id, self._federation_id, self._key, self._clock.now_us())
        self._tls.replace(self._obtain(asked, current), asked.tls_key)
        _log.info("certificate_renewed", peer=str(self._spiffe_id))
        self._on_renewed()

    def _run(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        wait = 0.0
        while not self._ending.wait(wait):
            left_seconds = (self.due_us() - self._clock.now_us()) / 1_000_000
            if left_seconds > 0:
                pause, wait = FIRST_PAUSE_SECONDS, min(left_seconds, LOOK_SECONDS)
                continue
            try:
                self.renew()
            except SfrlError as error:
                _log.warning("renewal_later", error=f"{type(error).__name__}: {error}")
                wait, pause = pause, min(pause * 2, LONGEST_PAUSE_SECONDS)
            else:
                wait = 0.0


def open_renewal(
    config: ServiceConfig,
    tls: ServiceTls,
    key: SigningKey | None,
    policy: TrustPolicy,
    clock: Clock,
    on_renewed: Callable[[], None] = lambda: None,
) -> Renewal | None:
    """The renewal of a service that asks a gatekeeper; None where its configuration names none.

    Args:
        on_renewed: told that the next identity is in use.

    Raises:
        MalformedError: the configuration names a gatekeeper, and lacks `federation_id` or a signing key.
    """
    if config.renew_address is None:
        return None
    if key is None:
        raise MalformedError("a service with a `renew_address` has a table [signing]: its request is signed")
    channel = RpcChannel(
        config.renew_address, role="gatekeeper", trust_domain=config.trust_domain, tls=tls.client
    )

    def obtain(asked: AskedIdentity, current: PeerCertificate) -> bytes:
        # Once: the thread has pauses of its own, and a service that ends must not wait for a client's.
        request = encode_renew_request(asked.request, asked.csr)
        answer = parse_renew_response(channel.call(RENEW_IDENTITY, request, deadline_seconds=RENEW_SECONDS))
        open_identity(
            asked, answer.issued, answer.checkpoint, answer.certificate, policy, renews=current.spki_sha256
        )
        return answer.certificate

    return Renewal(
        tls, spiffe_id_of(config), federation_id_of(config), key, clock, obtain,
        on_renewed=on_renewed, close=channel.close,
    )  # fmt: skip


def spiffe_id_of(config: ServiceConfig) -> SpiffeId:
    """Who the service of a configuration is."""
    return parse_spiffe_id(f"spiffe://{config.trust_domain}/service/{config.role}/{config.name}")


def federation_id_of(config: ServiceConfig) -> Digest:
    """The federation id of a configuration.

    Raises:
        MalformedError: it has none.
    """
    if config.federation_id is None:
        raise MalformedError("a service whose certificate is renewed has a `federation_id` in its configuration")
    return parse_hex_digest(config.federation_id)
