"""A TUF client with python-tuf: the oracle for what a federation's log takes (`test_tuf_attacks`).

The operators' Ed25519 keys sign on both sides. Our root is TUF's root; the rules document is TUF's timestamp, whose
version and expiry the client checks; the digest of the version before is the snapshot's hash in the timestamp.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from securesystemslib.signer import CryptoSigner
from tuf.api.dsse import SimpleEnvelope
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import MetaFile, Root, Snapshot, Timestamp
from tuf.ngclient._internal.trusted_metadata_set import TrustedMetadataSet
from tuf.ngclient.config import EnvelopeType

from sfrl_secure.crypto.keys import SigningKey

NOW = datetime.now(UTC)

Keys = Mapping[str, SigningKey]


def sign(signed: Root | Timestamp | Snapshot, keys: Sequence[SigningKey]) -> bytes:
    """Sign metadata with each key; one that signs twice counts once there, too."""
    envelope = SimpleEnvelope.from_signed(signed)
    for key in keys:
        envelope.sign(CryptoSigner(key._ed25519))
    return envelope.to_bytes()


def build_root(version: int, operators: Keys, threshold: int, days_left: int) -> Root:
    """A root whose every role is the operators', with one threshold."""
    root = Root(version=version, expires=NOW + timedelta(days=days_left), consistent_snapshot=False)
    for name, role in root.roles.items():
        for key in operators.values():
            root.add_key(CryptoSigner(key._ed25519).public_key, name)
        role.threshold = threshold
    return root


class TufClient:
    """Trusts version 1 of the root, then whatever it took on earlier visits; each method is a visit, and says whether
    it took what was offered."""

    def __init__(self, operators: Keys, threshold: int, later: Sequence[SigningKey] = ()) -> None:
        """Begin; `later` are those who may be operators later, and have signed the snapshot as well."""
        everybody = [*operators.values(), *later]
        self._roots = [sign(build_root(1, operators, threshold, 9), list(operators.values()))]
        self._timestamp: bytes | None = None
        self.snapshot = sign(Snapshot(version=1, expires=NOW + timedelta(days=9)), everybody)
        self.twin = sign(Snapshot(version=1, expires=NOW + timedelta(days=8)), everybody)
        endless = Snapshot(version=1, expires=NOW + timedelta(days=9), unrecognized_fields={"x": "y" * 70_000})
        self.endless = sign(endless, everybody)

    def take_root(
        self, version: int, operators: Keys, threshold: int, signers: Sequence[SigningKey], *, days_left: int = 9
    ) -> bool:
        """Offer a root."""
        raw = sign(build_root(version, operators, threshold, days_left), signers)
        try:
            self._with_roots().update_root(raw)
        except RepositoryError:
            return False
        self._roots.append(raw)
        return True

    def take_timestamp(
        self,
        version: int,
        signers: Sequence[SigningKey],
        *,
        days_left: int = 1,
        snapshot: bytes | None = None,
        is_damaged: bool = False,
    ) -> bool:
        """Offer a timestamp that names the one snapshot, and then this snapshot."""
        timestamp = Timestamp(version=version, expires=NOW + timedelta(days=days_left))
        sha = hashlib.sha256(self.snapshot).hexdigest()
        timestamp.snapshot_meta = MetaFile(1, len(self.snapshot), {"sha256": sha})
        raw = sign(timestamp, signers)
        if is_damaged:
            envelope = SimpleEnvelope.from_bytes(raw)
            envelope.payload += b"\n"
            raw = envelope.to_bytes()
        trusted = self._with_roots()
        if self._timestamp is not None:
            # As python-tuf's updater does: a kept timestamp that the newest root does not bear out is forgotten.
            with suppress(RepositoryError):
                trusted.update_timestamp(self._timestamp)
        try:
            trusted.update_timestamp(raw)
            trusted.update_snapshot(self.snapshot if snapshot is None else snapshot)
        except RepositoryError:
            return False
        self._timestamp = raw
        return True

    def _with_roots(self) -> TrustedMetadataSet:
        trusted = TrustedMetadataSet(self._roots[0], EnvelopeType.SIMPLE)
        for raw in self._roots[1:]:
            trusted.update_root(raw)
        return trusted
