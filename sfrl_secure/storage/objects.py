"""Objects: payloads and models under the SHA-256 of their bytes, in a folder or a bucket.

Layout: `<first two hex digits>/<all 64 hex digits>`. A name can mean one content only, so any number of processes may
put and get at the same time. What comes out has the digest that it was asked by, whatever happened where it lay.

Format: proto/README.md, "Checkpoints, tiles, cosignatures".

Runs in: gatekeeper, aggregator, participant.
Trusts: nothing that a file or an object of a bucket holds.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sfrl_secure.errors import DigestError, ExhaustedError, MalformedError, MissingEvidenceError, NotFoundError
from sfrl_secure.ids import Digest, sha256
from sfrl_secure.limits import OBJECT_BYTES_MAX
from sfrl_secure.storage.files import make_folder, read_bounded, write_atomically, write_temporary
from sfrl_secure.storage.object_reader import BucketReader, FileReader, HashedObjects, ObjectReader
from sfrl_secure.storage.system import rename, sync_folder, unlink

if TYPE_CHECKING:
    from sfrl_secure.storage.bucket import Bucket

BUCKET_SCHEME = "s3://"

_LONG_BYTES = 1024 * 1024
"""From here on to begin a thread costs less than it saves."""


class Objects(Protocol):
    """Objects, wherever they are kept."""

    def put(self, data: bytes | memoryview) -> Digest:
        """Keep `data`; it is durable when this returns.

        Raises:
            ExhaustedError: there is no room, and nothing was kept.
            UncertainStateError: the store did not confirm.
        """
        ...

    def get(self, digest: Digest, bytes_max: int) -> bytes:
        """Give the object's bytes.

        Raises:
            NotFoundError: it is not here.
            MalformedError: it is longer than `bytes_max`.
            MissingEvidenceError: it is here and cannot be read.
            DigestError: what lies there has another digest.
        """
        ...

    def open(self, digest: Digest, bytes_max: int) -> ObjectReader:
        """Open the object to be read a piece at a time. Nothing is hashed yet: see `ObjectReader.check_digest`.

        Raises:
            NotFoundError, MalformedError, MissingEvidenceError: as `get`.
        """
        ...

    def adopt(self, file: Path, digest: Digest) -> None:
        """Make a file the object; it is durable when this returns. Who writes into the file later breaks it.

        The file is durable, and the caller has hashed its bytes. In a folder it is renamed, so it lies on the same
        file system, and is gone from where it was; into a bucket its bytes are put.

        Raises:
            ExhaustedError: there is no room, and nothing was kept.
            UncertainStateError: the store did not confirm.
        """
        ...

    def is_stored(self, digest: Digest) -> bool:
        """Whether something of that name is here; `get` says whether it is what it should be."""
        ...


def open_objects(place: Path | str) -> Objects:
    """Open the objects of a folder, or of `s3://bucket/prefix`.

    Raises:
        MalformedError: an address that is no bucket's.
        UncertainStateError: the folder could not be made.
    """
    if isinstance(place, str) and place.startswith(BUCKET_SCHEME):
        # Loaded by whoever needs it: a service with a folder has no part of it in memory.
        from sfrl_secure.storage.bucket import Bucket, open_bucket

        return BucketObjects(Bucket(*open_bucket(place)))
    return ObjectStore(Path(place))


class ObjectStore:
    """The objects below one folder."""

    def __init__(self, folder: Path) -> None:
        """Use `folder`; make it where it is missing.

        Raises:
            UncertainStateError: it could not be made.
        """
        self._folder = folder
        self._hashed = HashedObjects()
        make_folder(folder)

    def path(self, digest: Digest) -> Path:
        """Where the object lies, whether it is there or not."""
        return self._folder / _name(digest)

    def put(self, data: bytes | memoryview) -> Digest:
        """Keep `data`; it is durable when this returns. What is there already stays.

        A file of that name whose bytes have another digest is replaced: only these bytes may bear the name.

        Raises:
            ExhaustedError: the disk is full, and nothing was kept.
            UncertainStateError: the disk did not confirm.
        """
        if len(data) >= _LONG_BYTES:
            return self._put_long(data)
        digest = sha256(data)
        path = self.path(digest)
        if self._holds(path, data):
            # Whoever put it first may not have come to sync the folder yet.
            sync_folder(path.parent)
            return digest
        make_folder(path.parent)
        write_atomically(path, data)
        return digest

    def _put_long(self, data: bytes | memoryview) -> Digest:
        """Write and hash side by side: neither needs the interpreter, and each takes as long as the other.

        The file has its name only once it is durable and its name is known.
        """
        with ThreadPoolExecutor(1) as pool:
            hashed = pool.submit(sha256, data)
            temporary = write_temporary(self._folder, data)
            digest = hashed.result()
        path = self.path(digest)
        try:
            make_folder(path.parent)
            if self._holds(path, data):
                unlink(temporary)
            else:
                rename(temporary, path)
        except ExhaustedError:
            unlink(temporary)
            raise
        sync_folder(path.parent)
        return digest

    def get(self, digest: Digest, bytes_max: int) -> bytes:
        """Give the object's bytes.

        Raises:
            NotFoundError: it is not here.
            MalformedError: it is longer than `bytes_max`.
            DigestError: the file's bytes have another digest.
        """
        data = read_bounded(self.path(digest), bytes_max)
        if sha256(data) != digest:
            raise DigestError("an object's bytes are not what its name says")
        return data

    def open(self, digest: Digest, bytes_max: int) -> ObjectReader:
        """Open the object to be read a piece at a time; nothing is hashed yet.

        Raises:
            NotFoundError: it is not here.
            MalformedError: it is longer than `bytes_max`.
            MissingEvidenceError: it cannot be opened.
        """
        return FileReader(self.path(digest), digest, bytes_max, self._hashed)

    def adopt(self, file: Path, digest: Digest) -> None:
        """Rename a durable file, which lies on the same file system, so that it is the object.

        A file of that name that is there already is replaced: only these bytes may bear it.

        Raises:
            ExhaustedError: the disk is full; `file` is where it was.
            UncertainStateError: the disk did not confirm.
        """
        path = self.path(digest)
        make_folder(path.parent)
        rename(file, path)
        sync_folder(path.parent)

    def is_stored(self, digest: Digest) -> bool:
        """Whether a file of that name is here; `get` says whether it holds what it should."""
        return self.path(digest).is_file()

    @staticmethod
    def _holds(path: Path, data: bytes | memoryview) -> bool:
        try:
            return read_bounded(path, len(data)) == data
        except (NotFoundError, MalformedError, MissingEvidenceError):
            return False


class BucketObjects:
    """The objects below one prefix of a bucket."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._hashed = HashedObjects()

    def put(self, data: bytes | memoryview) -> Digest:
        """Keep `data`; it is durable when this returns. What is there already is not written again.

        An object of that name whose bytes have another digest is replaced: only these bytes may bear the name.

        Raises:
            UncertainStateError: the store did not confirm.
        """
        digest, body = sha256(data), bytes(data)
        if not self._bucket.create(_name(digest), body):
            self._bucket.put(_name(digest), body, content_type="application/octet-stream", caching="private")
        return digest

    def get(self, digest: Digest, bytes_max: int) -> bytes:
        """Give the object's bytes.

        Raises:
            NotFoundError: it is not here.
            MalformedError: it is longer than `bytes_max`.
            MissingEvidenceError: the store does not give it.
            DigestError: the object's bytes have another digest.
        """
        data = self._bucket.read(_name(digest), bytes_max)
        if sha256(data) != digest:
            raise DigestError("an object's bytes are not what its name says")
        return data

    def open(self, digest: Digest, bytes_max: int) -> ObjectReader:
        """Open the object to be read a piece at a time; nothing is hashed yet.

        Raises:
            NotFoundError: it is not here.
            MalformedError: it is longer than `bytes_max`.
            MissingEvidenceError: the store does not say.
        """
        return BucketReader(self._bucket, _name(digest), digest, bytes_max, self._hashed)

    def adopt(self, file: Path, digest: Digest) -> None:
        """Put a file's bytes in place of whatever bears the name; the file stays.

        Raises:
            MissingEvidenceError: the file cannot be read.
            UncertainStateError: the store did not confirm.
        """
        with FileReader(file, digest, OBJECT_BYTES_MAX, self._hashed) as reader:
            self.put_parts(reader.chunks(), digest)

    def put_parts(self, parts: Iterable[bytes], digest: Digest) -> None:
        """Put an object that comes in parts, whose caller has hashed them, in place of whatever bears the name.

        Raises:
            UncertainStateError: the store did not confirm.
        """
        self._bucket.put_parts(_name(digest), parts)

    def is_stored(self, digest: Digest) -> bool:
        """Whether an object of that name is here; `get` says whether it holds what it should.

        Raises:
            MissingEvidenceError: the store does not say.
        """
        return self._bucket.holds(_name(digest))


def _name(digest: Digest) -> str:
    name = digest.hex()
    return f"{name[:2]}/{name}"
