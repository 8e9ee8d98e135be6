"""The log and its objects as an auditor reaches them: over gRPC; the checkpoint from wherever it is public.

Runs in: auditors' machines.
Trusts: the channel, for who answers. Nothing in the answers.
"""

from __future__ import annotations

from collections.abc import Sequence

from sfrl_secure.audit.public_log import read_public_checkpoint
from sfrl_secure.errors import MissingEvidenceError, NotFoundError, UnavailableError
from sfrl_secure.ids import Digest
from sfrl_secure.rpc.channel import call_with_retry
from sfrl_secure.rpc.clients import AuditLogClient, GatekeeperClient, ObjectSigner

NOTE_SECONDS = 600.0
"""A witnessed note is waited for so long: FollowLog sends it behind all the entries."""

RETRY_SECONDS = 20.0
"""Gatekeepers that do not answer are asked again for so long."""


class RemoteLog:
    """A log that is copied over the network."""

    def __init__(self, client: AuditLogClient, address: str, public_url: str | None = None) -> None:
        """Ask `client` for entries, and the public endpoint for the checkpoint where there is one.

        Args:
            address: where the client's log is, for errors.
        """
        self._client, self._address, self._public_url = client, address, public_url

    def newest_checkpoint(self, held_size: int) -> bytes:
        """Give the log's newest witnessed note, unverified.

        Without a public endpoint it comes from FollowLog, behind every entry that the mirror does not have.

        Raises:
            NotFoundError: nothing is published yet.
            UnavailableError: the log does not answer, or has no witnessed note in time.
        """
        if self._public_url is not None:
            return read_public_checkpoint(self._public_url)
        try:
            return self._followed(held_size)
        except NotFoundError:
            # It has fewer entries than it once signed for: its note says whether that is another history.
            return self._followed(0)

    def read_bundle(self, index: int, width: int) -> bytes:
        """Give an entry bundle, unverified.

        Raises:
            NotFoundError: there is none of that width.
            UnavailableError: the log does not answer.
        """
        try:
            return self._client.read_bundle(index, width)
        except UnavailableError:
            raise UnavailableError(f"the audit log at {self._address} does not answer") from None

    def _followed(self, first_index: int) -> bytes:
        stream = self._client.follow(first_index, deadline_seconds=NOTE_SECONDS)
        try:
            for batch in stream:
                if batch.checkpoint and not batch.entries:
                    return batch.checkpoint
        except UnavailableError:
            raise UnavailableError(
                f"the audit log at {self._address} does not answer, or no quorum of witnesses has signed"
            ) from None
        finally:
            stream.cancel()
        raise MissingEvidenceError("the log has shown no checkpoint under the quorum")


class RemoteObjects:
    """Objects that are copied over the network, from whichever gatekeeper answers."""

    def __init__(self, client: GatekeeperClient, addresses: Sequence[str], sign: ObjectSigner) -> None:
        """Ask `client`; where its gatekeepers are is for errors.

        Args:
            sign: signs for an object; asked anew for each attempt, because a request is good for a minute.
        """
        self._client, self._addresses, self._sign = client, tuple(addresses), sign

    def fetch_object(self, digest: Digest, bytes_max: int) -> bytes:
        """Give an object whose bytes have the digest.

        Raises:
            DeniedError, NotFoundError, MalformedError, DigestError: as `GatekeeperClient.fetch_object`.
            UnavailableError: no gatekeeper answers.
        """
        try:
            return call_with_retry(
                lambda _left: self._client.fetch_object(digest, bytes_max, sign=self._sign),
                deadline_seconds=RETRY_SECONDS,
            )
        except UnavailableError:
            raise UnavailableError(f"no gatekeeper answers: {', '.join(self._addresses)}") from None
