"""A bucket: objects in an S3-compatible store, each written whole, some of them on a condition.

Two conditions keep writers apart: an object is made only where none is (`create`), or put only in the place of the one
that was read (`replace`, by its e-tag). The answer to either may be lost after it took effect, and the client repeats
requests by itself; so whoever is refused looks at what stands there: if it is what was to be written, it is ours. For
that the bytes of two writers must differ.

Where the store is, who we are and how long a request may take come from the environment (`AWS_ENDPOINT_URL`,
`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_TIMEOUT`), never from the address. Plain HTTP is refused unless
`AWS_ALLOW_HTTP` says true.

Source: docs.aws.amazon.com/AmazonS3, "Conditional writes".

Runs in: audit_log, gatekeeper, aggregator.
Trusts: the store, as far as it confirmed; nothing that an object holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import MemoryStore, S3Store

from sfrl_secure.errors import MalformedError, MissingEvidenceError, NotFoundError, UncertainStateError

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta

BucketStore = S3Store | MemoryStore

RETRY_SECONDS = 60
"""A request that fails is repeated for so long."""

_PART_BYTES = 5 * 1024 * 1024
_PARTS_AT_ONCE = 2
"""Length of a part of an object that comes in parts, and how many of them are on their way at once."""

_URL = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])((?:/[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}){0,8})/?")

# The builtin is what obstore raises for objects that are not there.
_MISSING = (FileNotFoundError,)


def open_bucket(url: str) -> tuple[BucketStore, str]:
    """Give the store of `s3://bucket/prefix`, and the prefix. Nothing is asked of it yet.

    Raises:
        MalformedError: another form of address, or settings in the environment that make no store.
    """
    matched = _URL.fullmatch(url)
    if matched is None:
        raise MalformedError("the address of a bucket is s3://bucket/prefix, and says nothing else")
    try:
        store = S3Store(
            matched[1],
            config={"conditional_put": "etag"},
            retry_config={"retry_timeout": timedelta(seconds=RETRY_SECONDS)},
        )
    except (BaseError, ValueError):
        raise MalformedError("the environment's AWS_ settings make no store") from None
    return store, matched[2].removeprefix("/")


class Bucket:
    """The objects below one prefix. Any thread may use it."""

    def __init__(self, store: BucketStore, prefix: str = "") -> None:
        """Use what lies below `prefix`, a path without a slash at either end."""
        self._store = store
        self._below = f"{prefix}/" if prefix else ""

    def folder(self, name: str) -> Bucket:
        """The objects below a name."""
        return Bucket(self._store, self._below + name)

    def read(self, name: str, bytes_max: int) -> bytes:
        """Read an object.

        Raises:
            NotFoundError: there is none.
            MalformedError: it is longer than `bytes_max`.
            MissingEvidenceError: the store does not give it.
        """
        return self.read_with_tag(name, bytes_max)[0]

    def read_with_tag(self, name: str, bytes_max: int) -> tuple[bytes, str]:
        """Read as `read`, with the e-tag that `replace` wants.

        Raises:
            NotFoundError, MalformedError, MissingEvidenceError: as `read`.
        """
        try:
            found = obstore.get(self._store, self._below + name)
            if found.meta["size"] > bytes_max:
                raise MalformedError(f"the object is longer than {bytes_max} bytes")
            data = bytes(found.bytes())
        except _MISSING:
            raise NotFoundError("there is no such object") from None
        except BaseError as error:
            raise MissingEvidenceError("the bucket does not give an object") from error
        if len(data) != found.meta["size"]:
            raise MissingEvidenceError("the bucket gave another number of bytes than it said")
        return data, found.meta["e_tag"] or ""

    def size_and_tag(self, name: str, bytes_max: int) -> tuple[int, str]:
        """Give an object's length and e-tag.

        Raises:
            NotFoundError, MalformedError, MissingEvidenceError: as `read`.
        """
        try:
            found = obstore.head(self._store, self._below + name)
        except _MISSING:
            raise NotFoundError("there is no such object") from None
        except BaseError as error:
            raise MissingEvidenceError("the bucket does not answer") from error
        if found["size"] > bytes_max:
            raise MalformedError(f"the object is longer than {bytes_max} bytes")
        return found["size"], found["e_tag"] or ""

    def read_range(self, name: str, start: int, length: int, tag: str) -> bytes:
        """Read a part of the object with an e-tag. The object has it.

        Raises:
            MissingEvidenceError: the store does not give it, or there is another object by now.
        """
        options: GetOptions = {"range": (start, start + length)}
        if tag:
            options["if_match"] = tag
        try:
            data = bytes(obstore.get(self._store, self._below + name, options=options).bytes())
        except (PreconditionError, *_MISSING) as error:
            raise MissingEvidenceError("an object was changed while it was read") from error
        except BaseError as error:
            raise MissingEvidenceError("the bucket does not give an object") from error
        if len(data) != length:
            raise MissingEvidenceError("the bucket gave another number of bytes than it said")
        return data

    def create(self, name: str, data: bytes) -> bool:
        """Make an object where none is, durably; whether `data` stands there now.

        Raises:
            UncertainStateError: it is not known what stands there, or will.
        """
        try:
            obstore.put(self._store, self._below + name, data, mode="create", use_multipart=False)
        except AlreadyExistsError as error:
            return self._look(name, data, error) is not None
        except BaseError as error:
            if self._look(name, data, error) is None:
                raise UncertainStateError("the bucket did not confirm an object") from error
        return True

    def replace(self, name: str, data: bytes, tag: str) -> str | None:
        """Put an object in place of the one with an e-tag, durably; give the new e-tag, None where another one stands
        there.

        Raises:
            UncertainStateError: it is not known what stands there, or will.
        """
        try:
            put = obstore.put(self._store, self._below + name, data, mode={"e_tag": tag}, use_multipart=False)
        except (PreconditionError, *_MISSING) as error:
            return self._look(name, data, error)
        except BaseError as error:
            now_tag = self._look(name, data, error)
            if now_tag is None:
                raise UncertainStateError("the bucket did not confirm an object") from error
            return now_tag
        return put["e_tag"] or ""

    def put(self, name: str, data: bytes, *, content_type: str, caching: str) -> None:
        """Put an object in place of whatever is there, durably.

        Raises:
            UncertainStateError: the store did not confirm.
        """
        try:
            obstore.put(
                self._store,
                self._below + name,
                data,
                attributes={"Content-Type": content_type, "Cache-Control": caching},
                use_multipart=False,
            )
        except BaseError as error:
            raise UncertainStateError("the bucket did not confirm an object") from error

    def put_parts(self, name: str, parts: Iterable[bytes]) -> None:
        """Put an object that comes in parts in place of whatever is there, durably, and at once when all have come.

        What `parts` raises is raised, and nothing is put. A few parts are in memory, never the object.

        Raises:
            UncertainStateError: the store did not confirm.
        """
        try:
            # Nothing stands there before it is closed, and where a part does not come it never is.
            writer = obstore.open_writer(
                self._store,
                self._below + name,
                attributes={"Content-Type": "application/octet-stream", "Cache-Control": "private"},
                buffer_size=_PART_BYTES,
                max_concurrency=_PARTS_AT_ONCE,
            )
            for part in parts:
                writer.write(part)
            writer.close()
        except BaseError as error:
            raise UncertainStateError("the bucket did not confirm an object") from error

    def remove(self, names: Sequence[str]) -> None:
        """Remove objects, in no order; those that are not there are no matter.

        Raises:
            UncertainStateError: the store did not confirm.
        """
        try:
            obstore.delete(self._store, [self._below + name for name in names])
        except _MISSING:
            return
        except BaseError as error:
            raise UncertainStateError("the bucket did not remove an object") from error

    def holds(self, name: str) -> bool:
        """Whether there is an object.

        Raises:
            MissingEvidenceError: the store does not say.
        """
        try:
            obstore.head(self._store, self._below + name)
        except _MISSING:
            return False
        except BaseError as error:
            raise MissingEvidenceError("the bucket does not answer") from error
        return True

    def sizes(self, folder: str) -> Iterator[tuple[str, int]]:
        """List the objects below a name, in the store's order: each one's name below it, and its length.

        Raises:
            MissingEvidenceError: the store does not list them.
        """
        for found in self._listed(folder):
            yield found["path"], found["size"]

    def ages(self, folder: str) -> Iterator[tuple[str, int]]:
        """List the objects below a name: each one's name below it, and when it was made, in microseconds.

        Raises:
            MissingEvidenceError: the store does not list them.
        """
        for found in self._listed(folder):
            yield found["path"], int(found["last_modified"].timestamp() * 1_000_000)

    def _listed(self, folder: str) -> Iterator[ObjectMeta]:
        below = f"{self._below}{folder}/" if folder else self._below
        try:
            for part in obstore.list(self._store, prefix=below, chunk_size=1000):
                for found in part:
                    yield {**found, "path": found["path"].removeprefix(below)}
        except BaseError as error:
            raise MissingEvidenceError("the bucket does not list its objects") from error

    def _look(self, name: str, data: bytes, refusal: Exception) -> str | None:
        """The e-tag of the object where it holds `data`; None where it is missing or holds something else.

        Raises:
            UncertainStateError: nobody can tell.
        """
        try:
            found, tag = self.read_with_tag(name, len(data))
        except (NotFoundError, MalformedError):
            return None
        except MissingEvidenceError:
            raise UncertainStateError("the bucket did not confirm an object, and does not say what stands there") \
                from refusal
        return tag if found == data else None
