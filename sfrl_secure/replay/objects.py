"""Objects, as the replay asks for them: whole and compared with their name, or a leaf at a time.

Format: proto/README.md, "Checkpoints, tiles, cosignatures", folder of the objects.

Runs in: verifier.
Trusts: nothing.
"""

from __future__ import annotations

from typing import Protocol

from sfrl_secure.ids import Digest


class Objects(Protocol):
    """A store that is read under digests. It checks that what it gives has the digest, but for `read_at`."""

    def read(self, digest: Digest, bytes_max: int) -> bytes | None:
        """Give an object's first `bytes_max` + 1 bytes, so that a longer one is seen; None where it is missing.

        Raises:
            DigestError: the whole object has another SHA-256 than its name.
        """

    def read_at(self, digest: Digest, offset: int, length: int) -> bytes | None:
        """Give at most so many of an object's bytes; None where it is missing.

        Nothing is compared with the name: whoever asks knows the hash of what he asks for.
        """

    def holds(self, digest: Digest) -> bool:
        """Say whether an object is there, and check all its bytes.

        Raises:
            DigestError: it has another SHA-256 than its name.
        """
