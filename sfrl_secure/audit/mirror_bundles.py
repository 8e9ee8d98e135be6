"""Entry bundles on their way into a mirror: fetched once, and staged until a checkpoint proves them.

Format: c2sp.org/tlog-tiles, entry bundles.

Runs in: auditors' machines.
Trusts: nothing: what is staged is hashed like what is fetched.
"""

from __future__ import annotations

from typing import Protocol

from sfrl_secure.errors import MalformedError, MissingEvidenceError, NotFoundError, VerificationError
from sfrl_secure.storage.log_files import FolderLogFiles
from sfrl_secure.translog.tiles import BUNDLE_BYTES_MAX, TILE_WIDTH, Bundle, encode_bundle, parse_bundle


class LogSupply(Protocol):
    """Where a log is copied from; nothing that it gives is believed."""

    def newest_checkpoint(self, held_size: int) -> bytes:
        """Give the log's newest witnessed note.

        Args:
            held_size: entries that the mirror has already.
        """
        ...

    def read_bundle(self, index: int, width: int) -> bytes:
        """Give an entry bundle; NotFoundError where there is none of that width."""
        ...


def staged_entries(staged: FolderLogFiles, supply: LogSupply, bundle: Bundle) -> tuple[bytes, ...]:
    """The entries of a bundle: staged by a run before, or fetched now and staged.

    Raises:
        VerificationError: what the log gives is no bundle.
        MissingEvidenceError: it gives none.
        UnavailableError: it does not answer.
    """
    try:
        return parse_bundle(staged.read(bundle.path, BUNDLE_BYTES_MAX), bundle.width)
    except (NotFoundError, MalformedError):
        entries = _fetched(supply, bundle)
    staged.write(bundle.path, encode_bundle(entries))
    return entries


def _fetched(supply: LogSupply, bundle: Bundle) -> tuple[bytes, ...]:
    # A log that has grown on may have only the full bundle left.
    for width in (bundle.width, TILE_WIDTH):
        try:
            return parse_bundle(supply.read_bundle(bundle.index, width), width)[: bundle.width]
        except NotFoundError:
            continue
        except MalformedError as error:
            raise VerificationError(f"{bundle.path} cannot be cut into its entries: {error}") from None
    raise MissingEvidenceError(f"the log does not give {bundle.path}, which it has signed for")
