"""Uploads: payloads on their way, by the name that their receiver gives them, in a folder or a bucket.

Each call writes what is its own alone, and takes over, as a copy, what an earlier call of the same upload left: two
calls, of one gatekeeper or of two that share the store, never write one file, so that neither can alter the other's
bytes, nor an object after it was committed.

What is taken over is hearsay: whoever sent it held the same signed statement, and need not have held its payload. Where
a part does not lead to the statement's root and some of the call's bytes were taken over, the caller at hand is not to
blame: `discard` forgets them all, and it begins again.

Format: proto/README.md, "Upload".

Runs in: gatekeeper.
Trusts: nothing that lies there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from sfrl_secure.errors import MalformedError
from sfrl_secure.ids import Digest
from sfrl_secure.storage.objects import BUCKET_SCHEME, Objects


class Upload(ABC):
    """One call's part in an upload. For one thread; a context manager.

    Left without `commit` or `discard`, it keeps what is durable, for whoever goes on.

    Attributes:
        held: bytes that an earlier call left; they count as this call's, durably, once `take_over` has ended.
        received: bytes that this call has by now, taken over ones among them.
    """

    held: int

    def __init__(self, payload_bytes: int) -> None:
        self.held = 0
        self.received = 0
        self._payload_bytes = payload_bytes
        self._is_over = False

    @abstractmethod
    def take_over(self) -> Iterator[bytes]:
        """Give the bytes that an earlier call left, in order, each copied into this call's own before it is given.

        They are durable here when the iterator has ended. Nothing was appended before, and it is done once or not.

        Raises:
            ExhaustedError: there is no room.
            MissingEvidenceError: they cannot be read.
            UncertainStateError: the store did not confirm.
        """

    def append(self, data: bytes | memoryview) -> None:
        """Take the next bytes. They are not durable yet.

        Raises:
            MalformedError: there are more than the payload has; none of `data` was taken.
            ExhaustedError: there is no room: the call is over.
            UncertainStateError: the store did not confirm.
        """
        assert self.received >= self.held, "what was left comes first"
        self._take(data)

    def _take(self, data: bytes | memoryview) -> None:
        assert not self._is_over, "nothing follows commit or discard"
        if self.received + len(data) > self._payload_bytes:
            raise MalformedError(f"this payload has {self._payload_bytes} bytes")
        self._append(data)
        self.received += len(data)

    @abstractmethod
    def sync(self) -> int:
        """Make all that was appended durable; give how many bytes are.

        Raises:
            UncertainStateError: the store did not confirm.
        """

    def commit(self, objects: Objects, digest: Digest) -> None:
        """Make the whole payload an object, durably, and forget whatever else there is of this upload.

        The caller has hashed all of it: it has this digest. Where another call of this upload was first, the object
        is there already, and that will do.

        Raises:
            ExhaustedError: there is no room.
            UnavailableError: another call took what was ours, and no object is there: try again.
            UncertainStateError: the store did not confirm.
        """
        assert not self._is_over, "an upload ends once"
        assert self.received == self._payload_bytes, "what was hashed is the whole payload"
        self._commit(objects, digest)
        self._is_over = True

    def discard(self) -> None:
        """Keep nothing of this upload: neither this call's, nor what other calls left.

        Raises:
            UncertainStateError: the store did not confirm.
        """
        if not self._is_over:
            self._is_over = True
            self._discard()

    @abstractmethod
    def _append(self, data: bytes | memoryview) -> None:
        """Take bytes that are within the payload's length."""

    @abstractmethod
    def _commit(self, objects: Objects, digest: Digest) -> None:
        """Make the whole payload an object."""

    @abstractmethod
    def _discard(self) -> None:
        """Forget this call's bytes and the remainders of others."""

    @abstractmethod
    def _leave(self) -> None:
        """Let go of what is open; keep what is durable."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._is_over:
            self._is_over = True
            self._leave()


class Uploads(Protocol):
    """Payloads on their way, wherever they are kept. Any thread, and any number of processes."""

    def begin(self, name: Digest, payload_bytes: int) -> Upload:
        """Begin, or go on with, the upload of one statement's payload.

        Args:
            name: of the statement and of who brings it.
            payload_bytes: what the statement says, within our limits.

        Raises:
            ExhaustedError: there is no room.
            MissingEvidenceError: the store does not say what it has.
            UncertainStateError: the store did not confirm.
        """
        ...

    def sweep(self, older_than_us: int) -> int:
        """Forget what nobody has gone on with since this time; give how many remainders that were.

        Raises:
            MissingEvidenceError: the store does not say what it has.
            UncertainStateError: the store did not confirm.
        """
        ...


def open_uploads(place: Path | str) -> Uploads:
    """Open the uploads of a folder, which lies on the file system of the objects' folder, or of `s3://bucket/prefix`.

    Raises:
        MalformedError: an address that is no bucket's.
        UncertainStateError: the folder could not be made.
    """
    if isinstance(place, str) and place.startswith(BUCKET_SCHEME):
        # Loaded by whoever needs it: a service with a folder has no part of it in memory.
        from sfrl_secure.storage.bucket import Bucket, open_bucket
        from sfrl_secure.storage.bucket_uploads import BucketUploads

        return BucketUploads(Bucket(*open_bucket(place)))
    from sfrl_secure.storage.folder_uploads import FolderUploads

    return FolderUploads(Path(place))
