"""The newest root that a participant was shown: it takes no answer that ends before it.

A gatekeeper could otherwise show the log as it was before operators were replaced, or a history of its own that those
who left have signed. What is kept is the version and the digest, in memory and in a file beside the receipts.

Format: `known-root`, one line: version, space, digest in hexadecimal. proto/README.md, "Rounds, as a participant asks
for them".

Runs in: participant, cli.
Trusts: its folder.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from sfrl_secure.errors import MalformedError, NotFoundError, VerificationError
from sfrl_secure.governance.documents import RootDocument
from sfrl_secure.ids import Digest, parse_hex_digest
from sfrl_secure.storage.files import SECRET_MODE, make_folder, read_bounded, write_atomically

FILE_NAME = "known-root"

_LINE = re.compile(rb"([1-9][0-9]{0,18}) ([0-9a-f]{64})\n")
_LINE_BYTES_MAX = 19 + 1 + 64 + 1


class KnownRoots:
    """The newest root that was shown. For one thread."""

    def __init__(self, folder: Path) -> None:
        """Remember in `folder`, which is made when there is something to remember."""
        self._folder = folder
        self._newest: tuple[int, Digest] | None = None

    def check(self, roots: Sequence[RootDocument]) -> None:
        """Check that `roots`, proven and from version 1 on without a gap, lead to the one that is known or further.

        Raises:
            VerificationError: they end before it, or its version is another root there.
            MalformedError: what is kept cannot be read.
        """
        known = self._known()
        if known is None:
            return
        version, digest = known
        if len(roots) < version:
            raise VerificationError(
                f"the answer ends before version {version} of the root, which was shown before: ask another gatekeeper"
            )
        if roots[version - 1].digest != digest:
            raise VerificationError(f"version {version} of the root is another one than was shown before")

    def keep(self, roots: Sequence[RootDocument]) -> None:
        """Remember the newest of `roots`, which were checked."""
        newest = (roots[-1].version, roots[-1].digest)
        if newest != self._known():
            make_folder(self._folder)
            line = b"%d %s\n" % (newest[0], newest[1].hex().encode("ascii"))
            write_atomically(self._folder / FILE_NAME, line, mode=SECRET_MODE)
            self._newest = newest

    def _known(self) -> tuple[int, Digest] | None:
        if self._newest is None:
            try:
                raw = read_bounded(self._folder / FILE_NAME, _LINE_BYTES_MAX)
            except NotFoundError:
                return None
            matched = _LINE.fullmatch(raw)
            if matched is None:
                raise MalformedError(f"the file {FILE_NAME} beside the receipts is not a version and a digest")
            self._newest = int(matched[1]), parse_hex_digest(matched[2].decode("ascii"))
        return self._newest
