"""python-tuf as oracle: the same attack on a rules document here and on a TUF repository there gets the same verdict.

The same three Ed25519 keys sign on both sides, two of them suffice. Our documents map onto TUF so: a document is the
timestamp role, whose version and expiry the client checks; the digest of the version before is the snapshot's hash in
the timestamp. Where python-tuf is laxer, the difference has a test of its own at the end.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from securesystemslib.dsse import Envelope as DsseEnvelope
from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import CryptoSigner, Signature
from tuf.api.dsse import SimpleEnvelope
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import MetaFile, Root, Snapshot, Timestamp
from tuf.ngclient._internal.trusted_metadata_set import TrustedMetadataSet
from tuf.ngclient.config import EnvelopeType

from sfrl_secure.crypto.envelope import Envelope, sign_envelope
from sfrl_secure.crypto.keys import ED25519, SigningKey
from sfrl_secure.errors import DeniedError, MalformedError
from sfrl_secure.governance.authority import check_document_authority, check_succession
from sfrl_secure.governance.build import build_root, build_rules
from sfrl_secure.governance.documents import RulesDocument, Thresholds
from sfrl_secure.governance.root import parse_root
from sfrl_secure.governance.rules import parse_rules
from sfrl_secure.ids import ZERO_DIGEST

NAMES = ("ann", "bob", "eve", "mallory")
OPERATORS = NAMES[:3]
NOW = datetime.now(UTC)
NOW_US = int(NOW.timestamp()) * 1_000_000


@dataclass(frozen=True)
class Attempt:
    """Version 2 is in force; somebody publishes this."""

    version: int = 3
    signers: tuple[str, ...] = ("ann", "bob")
    days_left: int = 1
    is_previous_right: bool = True
    is_damaged: bool = False


HONEST = Attempt()

AGREED = {
    "honest": (HONEST, True),
    "all operators sign": (replace(HONEST, signers=OPERATORS), True),
    "one signature is missing": (replace(HONEST, signers=("ann",)), False),
    "nobody of ours signs": (replace(HONEST, signers=("mallory",)), False),
    "a stranger fills up": (replace(HONEST, signers=("ann", "mallory")), False),
    "rollback to version 1": (replace(HONEST, version=1), False),
    "version 2 again": (replace(HONEST, version=2), False),
    "expired": (replace(HONEST, days_left=-1), False),
    "mix and match": (replace(HONEST, is_previous_right=False), False),
    "bytes changed after signing": (replace(HONEST, is_damaged=True), False),
}


class OurSide:
    """A federation with version 2 of its rules in force."""

    def __init__(self) -> None:
        self.keys = {name: SigningKey.generate(ED25519) for name in NAMES}
        self.root = parse_root(
            build_root(
                expires_us=2**62,
                trust_domain="m",
                log_host="l",
                operators={name: self.keys[name].public_key for name in OPERATORS},
                thresholds=Thresholds(2, 2, 2, 2),
            )
        )
        first = self.rules(1, ZERO_DIGEST)
        self.in_force = self.rules(2, first.digest)
        self.twin = self.rules(2, first.digest, expires_us=2**61)

    def rules(self, version: int, previous: bytes, expires_us: int = 2**62) -> RulesDocument:
        return parse_rules(
            build_rules(federation_id=self.root.digest, version=version, previous=previous, expires_us=expires_us)
        )

    def takes(self, attempt: Attempt) -> bool:
        previous = (self.in_force if attempt.is_previous_right else self.twin).digest
        document = self.rules(attempt.version, previous, NOW_US + attempt.days_left * 86_400_000_000)
        envelope = sign_envelope(document.payload_type, document.raw, [self.keys[name] for name in attempt.signers])
        if attempt.is_damaged:
            document = parse_rules(document.raw + b"\n")
            envelope = Envelope(envelope.payload_type, document.raw, envelope.signatures)
        try:
            check_document_authority(document, envelope, self.root)
            check_succession(document, self.in_force, NOW_US)
        except DeniedError:
            return False
        return True


class TufSide:
    """A TUF client that trusts version 2 of the timestamp."""

    def __init__(self, ours: OurSide) -> None:
        self.signers = {name: CryptoSigner(key._ed25519) for name, key in ours.keys.items()}
        root = Root(version=1, expires=NOW + timedelta(days=9), consistent_snapshot=False)
        for name in OPERATORS:
            for role in root.roles:
                root.add_key(self.signers[name].public_key, role)
        for role in root.roles.values():
            role.threshold = 2
        self.root = self.envelope(root, OPERATORS).to_bytes()
        self.snapshot = self.envelope(Snapshot(version=1, expires=NOW + timedelta(days=9)), OPERATORS).to_bytes()
        twin = Snapshot(version=1, expires=NOW + timedelta(days=8))
        self.twin = self.envelope(twin, OPERATORS).to_bytes()

    def envelope(self, signed: Root | Timestamp | Snapshot, names: tuple[str, ...]) -> SimpleEnvelope:
        envelope = SimpleEnvelope.from_signed(signed)
        for name in names:
            envelope.sign(self.signers[name])
        return envelope

    def timestamp(self, version: int, days_left: int, names: tuple[str, ...]) -> SimpleEnvelope:
        timestamp = Timestamp(version=version, expires=NOW + timedelta(days=days_left))
        sha = hashlib.sha256(self.snapshot).hexdigest()
        timestamp.snapshot_meta = MetaFile(1, len(self.snapshot), {"sha256": sha})
        return self.envelope(timestamp, names)

    def takes(self, attempt: Attempt) -> bool:
        client = TrustedMetadataSet(self.root, EnvelopeType.SIMPLE)
        client.update_timestamp(self.timestamp(2, 9, OPERATORS).to_bytes())
        envelope = self.timestamp(attempt.version, attempt.days_left, attempt.signers)
        if attempt.is_damaged:
            envelope.payload += b"\n"
        try:
            client.update_timestamp(envelope.to_bytes())
            client.update_snapshot(self.snapshot if attempt.is_previous_right else self.twin)
        except RepositoryError:
            return False
        return True


@pytest.fixture(scope="module")
def ours() -> OurSide:
    return OurSide()


@pytest.fixture(scope="module")
def tuf(ours: OurSide) -> TufSide:
    return TufSide(ours)


@pytest.mark.parametrize("name", AGREED)
def test_both_sides_give_the_same_verdict(ours: OurSide, tuf: TufSide, name: str) -> None:
    attempt, is_good = AGREED[name]
    assert tuf.takes(attempt) is is_good
    assert ours.takes(attempt) is is_good


def test_a_strangers_signature_beside_enough_is_refused_here_alone(ours: OurSide, tuf: TufSide) -> None:
    attempt = replace(HONEST, signers=("ann", "bob", "mallory"))
    assert tuf.takes(attempt)
    assert not ours.takes(attempt)


def test_a_gap_in_the_versions_is_refused_here_alone(ours: OurSide, tuf: TufSide) -> None:
    attempt = replace(HONEST, version=4)
    assert tuf.takes(attempt)
    assert not ours.takes(attempt)


def test_one_key_under_two_key_ids_meets_a_threshold_of_two_there_and_never_here(ours: OurSide) -> None:
    signer = CryptoSigner(ours.keys["ann"]._ed25519)
    key, twin = signer.public_key, CryptoSigner(ours.keys["ann"]._ed25519).public_key
    twin.keyid = "f" * 64
    root = Root(version=1, expires=NOW + timedelta(days=9))
    root.add_key(key, "targets")
    root.add_key(twin, "targets")
    root.roles["targets"].threshold = 2
    envelope = SimpleEnvelope.from_signed(root)
    first = envelope.sign(signer)
    second = Signature(twin.keyid, first.signature)
    result = root.get_verification_result("targets", envelope.pae(), {first.keyid: first, twin.keyid: second})
    assert result.verified
    key_here = ours.keys["ann"].public_key
    operators = {"ann": key_here, "nan": key_here}
    twice = parse_root(
        build_root(
            expires_us=1, trust_domain="m", log_host="l", operators=operators, thresholds=Thresholds(1, 1, 1, 1)
        )
    )
    document = ours.in_force
    once = sign_envelope(document.payload_type, document.raw, [ours.keys["ann"]])
    with pytest.raises(DeniedError):
        check_document_authority(document, once, twice)
    with pytest.raises(MalformedError):
        Envelope(document.payload_type, document.raw, once.signatures * 2)


def test_a_signature_of_ours_is_one_that_securesystemslib_verifies(ours: OurSide) -> None:
    document = ours.in_force
    envelope = sign_envelope(document.payload_type, document.raw, [ours.keys["ann"]])
    key = CryptoSigner(ours.keys["ann"]._ed25519).public_key
    theirs = DsseEnvelope(
        document.raw, document.payload_type, {key.keyid: Signature(key.keyid, envelope.signatures[0].value.hex())}
    )
    key.verify_signature(theirs.signatures[key.keyid], theirs.pae())
    theirs.payload += b" "
    with pytest.raises(UnverifiedSignatureError):
        key.verify_signature(theirs.signatures[key.keyid], theirs.pae())
