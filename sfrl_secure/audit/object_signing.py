"""Signing for objects: a certificate alone reads nothing, so each object is asked for under the reader's signing key.

The federation that is named is the one whose genesis the mirrored log begins with; the trust policy's origin holds half
of its digest, so a log cannot name another.

Format: proto/sfrl/gatekeeper/v1/gatekeeper_service.proto, `ObjectRequest`; proto/README.md, "Enrolment".

Runs in: auditors' machines, verifier.
Trusts: the trust policy's origin; the mirrored log as far as that.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sfrl_secure.audit.published import read_unverified_entry
from sfrl_secure.clock import Clock
from sfrl_secure.crypto.envelope import Envelope, sign_envelope
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.errors import VerificationError
from sfrl_secure.governance.origin import origin_of
from sfrl_secure.governance.root import GenesisDocument
from sfrl_secure.governance.statements import OBJECT_REQUEST_TYPE, ObjectRequest
from sfrl_secure.ids import Digest, SpiffeId
from sfrl_secure.wire.participants import encode_object_request


@dataclass(frozen=True, slots=True)
class ObjectSigning:
    """Signs for one object after the other.

    Attributes:
        reader: the auditor or verifier that reads, over a TLS identity of its own.
        key: the one that the services document names it with.
    """

    federation_id: Digest
    reader: SpiffeId
    key: SigningKey
    clock: Clock

    def sign(self, digest: Digest) -> Envelope:
        """Sign a request for the object with this digest; it is good for a minute."""
        request = ObjectRequest(
            self.federation_id, self.reader, self.key.public_key.key_id, digest, self.clock.now_us()
        )
        return sign_envelope(OBJECT_REQUEST_TYPE, encode_object_request(request), [self.key])


def federation_of_log(log_dir: Path, size: int, origin: str) -> Digest:
    """Return the federation id that the first of a log folder's `size` entries gives.

    Raises:
        VerificationError: it is not the genesis of the log with this origin.
        NotFoundError, MissingEvidenceError, MalformedError: it is not there, or cannot be read.
    """
    content = read_unverified_entry(log_dir, size, 0).content
    if isinstance(content, GenesisDocument):
        federation_id = content.root.digest
        if origin_of(content.root.log_host, federation_id) == origin == content.origin:
            return federation_id
    raise VerificationError("the log does not begin with the genesis of its origin")
