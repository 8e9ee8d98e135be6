"""Renewing a TLS identity: before a call, when half of its life is over; or by hand.

Each time there is a new key. The certificate and its key are replaced together, so that a crash leaves a pair that
fits; the identity before stays good until it expires, so that calls under way end as they began, and a renewal that
finds nobody is tried again later. A new identity is used some seconds after it was issued: by then every gatekeeper has
read of it, not only the one that issued it.

Format: proto/README.md, "Enrolment".

Runs in: participant, operators' and auditors' machines, cli.
Trusts: the profile and its trust policy. Nothing that a gatekeeper answers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog

from sfrl_secure.clock import Clock
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.crypto.svid import PeerCertificate, open_svid
from sfrl_secure.crypto.x509 import renewal_due_us
from sfrl_secure.errors import DeniedError, MalformedError, SfrlError, UnavailableError
from sfrl_secure.ids import SpiffeId, parse_hex_digest
from sfrl_secure.participant.gatekeepers import FailoverChannel
from sfrl_secure.rpc.channel import ClientTls, RpcChannel, RpcStream
from sfrl_secure.rpc.clients import IdentityClient
from sfrl_secure.rpc.identity_requests import IdentityAsker, open_identity
from sfrl_secure.storage.files import FolderLock
from sfrl_secure.storage.tls_pair import TlsPair, replace_tls_pair
from sfrl_secure.translog.policy import TrustPolicy

RENEW_SECONDS = 20.0
"""Deadline of a renewal before a call; the caller waits for it."""

SETTLE_SECONDS = 5.0
"""A new identity is used from then on: each gatekeeper has heard the log, or admits nobody."""

PAUSE_SECONDS = 60.0
"""Between two attempts, at most; a certificate with less left is tried for more often."""

_log = structlog.get_logger()


class RenewableProfile(Protocol):
    """A profile of a participant, operator or auditor."""

    @property
    def spiffe_id(self) -> SpiffeId:
        """Who the profile is of."""
        ...

    @property
    def trust_domain(self) -> str:
        """Of the federation."""
        ...

    @property
    def gatekeepers(self) -> tuple[str, ...]:
        """Addresses."""
        ...

    @property
    def certificate(self) -> Path:
        """The TLS chain; `tls_key` its key."""
        ...

    @property
    def tls_key(self) -> Path:
        """The certificate's key."""
        ...

    @property
    def federation_id(self) -> str | None:
        """SHA-256 of root v1, in hex."""
        ...

    def open_tls(self) -> ClientTls:
        """Read certificate, key and service CA."""
        ...

    def open_signing_key(self) -> SigningKey:
        """Read the key that governance names."""
        ...

    def open_trust_policy(self) -> TrustPolicy:
        """Read the trust policy."""
        ...


@dataclass(frozen=True, slots=True)
class _Held:
    """An identity in memory, and what its certificate says."""

    tls: ClientTls
    said: PeerCertificate

    @property
    def due_us(self) -> int:
        return renewal_due_us(self.said.not_before_us, self.said.not_after_us)


def renew_now(profile: RenewableProfile, channel: FailoverChannel, clock: Clock) -> PeerCertificate:
    """Ask for the next identity over the one in force, and put it into the profile's files.

    Args:
        channel: to the profile's gatekeepers, under its identity in force.

    Raises:
        MalformedError: the profile has no `federation_id`, or another process renews it at this moment.
        DeniedError: refused, with the reason.
        VerificationError: what was answered is not the identity that was asked for; nothing was changed.
        NotFoundError, UnavailableError: no signing key; no gatekeeper answers.
    """
    if profile.federation_id is None:
        raise MalformedError(
            "the profile has no `federation_id`: ask an operator for it, and add the line federation_id = \"...\""
        )
    with FolderLock(profile.tls_key.parent):
        return _renew(profile, channel, clock, profile.federation_id)


def _renew(
    profile: RenewableProfile, channel: FailoverChannel, clock: Clock, federation_id: str
) -> PeerCertificate:
    policy = profile.open_trust_policy()
    current = _hold(profile.open_tls(), profile.trust_domain).said
    asker = IdentityAsker(profile.spiffe_id, parse_hex_digest(federation_id), profile.open_signing_key(), clock)
    for left in range(len(profile.gatekeepers), 0, -1):
        # Each is sent a request of its own: one that does not answer may have taken the one before.
        asked = asker.ask()
        client = IdentityClient(channel.preferred)
        try:
            answer = client.renew(asked.request, asked.csr, deadline_seconds=RENEW_SECONDS)
            break
        except UnavailableError:
            channel.turn()
            if left == 1:
                raise
        except DeniedError as denied:
            # No refusal: only the one with the CA's key issues.
            if denied.reason != "not_issuing" or left == 1:
                raise
            channel.turn()
    renewed = open_identity(
        asked, answer.issued, answer.checkpoint, answer.certificate, policy, renews=current.spki_sha256
    )
    replace_tls_pair(profile.certificate, profile.tls_key, TlsPair(asked.tls_key, answer.certificate))
    return renewed


class IdentityKeeper:
    """The identity that a profile's channels use; renews it when it is due. For the threads of one process."""

    def __init__(
        self,
        profile: RenewableProfile,
        clock: Clock,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        settle_seconds: float = SETTLE_SECONDS,
    ) -> None:
        """Read the profile's identity.

        Raises:
            NotFoundError, DeniedError, MalformedError: as `RenewableProfile.open_tls`.
        """
        self._profile, self._clock, self._monotonic = profile, clock, monotonic
        self._settle_seconds = settle_seconds
        self._held = _hold(profile.open_tls(), profile.trust_domain)
        self._next: tuple[_Held, float] | None = None
        self._try_from = 0.0

    def tls(self) -> ClientTls:
        """The identity to use now, for `RpcChannel(tls=...)`."""
        if self._next is not None and self._monotonic() >= self._next[1]:
            self._held, self._next = self._next[0], None
        return self._held.tls

    def look(self, channel: FailoverChannel) -> None:
        """Renew if it is due; whatever goes wrong is tried again later, as long as the identity in force is good.

        Raises:
            DeniedError: `certificate`, the identity has expired: nothing can be called with it any more.
        """
        self.tls()
        now_us = self._clock.now_us()
        has_expired = now_us >= self._held.said.not_after_us
        if self._next is None and now_us >= self._held.due_us and (has_expired or self._monotonic() >= self._try_from):
            self._try(channel, now_us)
        if not has_expired:
            return
        # What is new may not be known everywhere yet; what has expired is good nowhere.
        if self._next is not None and now_us < self._next[0].said.not_after_us:
            self._held, self._next = self._next[0], None
        else:
            raise DeniedError(
                "certificate",
                "the certificate has expired, and only a good one can be renewed: ask an operator to invite you again "
                "(`sfrl invite`), and run `sfrl enrol` with the new join file in a new folder",
            )

    def _try(self, channel: FailoverChannel, now_us: int) -> None:
        left_seconds = max(self._held.said.not_after_us - now_us, 0) / 1_000_000
        self._try_from = self._monotonic() + min(PAUSE_SECONDS, left_seconds / 8)
        if self._profile.federation_id is None:
            return
        try:
            found = self._find()
            if found is None and not left_seconds:
                return
            if found is None:
                renew_now(self._profile, channel, self._clock)
                found = _hold(self._profile.open_tls(), self._profile.trust_domain)
        except SfrlError as error:
            _log.warning("renewal_later", error=type(error).__name__)
            return
        self._try_from = self._monotonic()
        self._next = (found, self._try_from + self._settle_seconds)

    def _find(self) -> _Held | None:
        """What another process has put into the files since."""
        found = _hold(self._profile.open_tls(), self._profile.trust_domain)
        return found if found.said.not_after_us > self._held.said.not_after_us else None


class RenewingChannel(FailoverChannel):
    """A channel to whichever gatekeeper answers, under an identity that is renewed in time. Close it."""

    def __init__(
        self,
        profile: RenewableProfile,
        clock: Clock,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        settle_seconds: float = SETTLE_SECONDS,
    ) -> None:
        """Connect with the first call.

        Raises:
            NotFoundError, DeniedError, MalformedError: as `RenewableProfile.open_tls`.
        """
        self._keeper = IdentityKeeper(profile, clock, monotonic=monotonic, settle_seconds=settle_seconds)
        super().__init__(
            [
                RpcChannel(address, role="gatekeeper", trust_domain=profile.trust_domain, tls=self._keeper.tls)
                for address in profile.gatekeepers
            ],
            monotonic=monotonic,
        )
        self._inner = FailoverChannel(self._channels, monotonic=monotonic)

    def call(self, path: str, request: bytes, *, deadline_seconds: float) -> bytes:
        """Call as `FailoverChannel`, under an identity that is good.

        Raises:
            DeniedError: `certificate`, ours has expired.
            SfrlError: as `FailoverChannel`.
        """
        self._keeper.look(self._inner)
        return super().call(path, request, deadline_seconds=deadline_seconds)

    def stream(self, path: str, request: bytes, *, deadline_seconds: float) -> RpcStream:
        """Stream as `FailoverChannel`, under an identity that is good.

        Raises:
            DeniedError: `certificate`, ours has expired.
        """
        self._keeper.look(self._inner)
        return super().stream(path, request, deadline_seconds=deadline_seconds)

    def exchange(self, path: str, requests: Iterator[bytes], *, deadline_seconds: float) -> RpcStream:
        """Exchange as `FailoverChannel`, under an identity that is good.

        Raises:
            DeniedError: `certificate`, ours has expired.
        """
        self._keeper.look(self._inner)
        return super().exchange(path, requests, deadline_seconds=deadline_seconds)


def open_renewal_channel(profile: RenewableProfile) -> FailoverChannel:
    """A channel to the profile's gatekeepers for `renew_now`. Close it.

    Raises:
        NotFoundError, DeniedError, MalformedError: as `RenewableProfile.open_tls`.
        UnavailableError: the profile names no gatekeeper.
    """
    if not profile.gatekeepers:
        raise UnavailableError("the profile names no gatekeeper")
    tls = profile.open_tls()
    return FailoverChannel(
        [
            RpcChannel(address, role="gatekeeper", trust_domain=profile.trust_domain, tls=tls)
            for address in profile.gatekeepers
        ]
    )


def _hold(tls: ClientTls, trust_domain: str) -> _Held:
    return _Held(tls, open_svid(tls.chain, trust_domain))
