"""The journal in a bucket: one object a batch, named by the index of its first record, and made only where none is.

There is no lock. A process that slept appends where it last knew the end of the log; if an object stands there, it is
refused, and stops. So this must hold at every moment: where a process may still append, the log ends, or the name is
taken for good. For good a name is taken by a fence: a batch that leaves an empty object under its name when it is
dropped. Only a removal could break this, and two rules see to it that none does:

- To open the log, a process claims `floor` on condition, reads the batches, and puts a mark into `floor`, at the end
  that it found, on condition that nobody else has claimed it meanwhile. A batch at a mark is a fence. To drop, it
  replaces `floor` on the same condition, before anything goes.
- The first batch that a process appends is a fence, and says so.

Why that is enough. At n may append who opened the log when it ended there, and who wrote the batch that ends there.
The first has put a mark at n. Whoever opened the log before it drops nothing any more; whoever opens it afterwards
finds the mark, and hands it on until the batch at n says itself that it is a fence, or only an empty object is left.
The second is in question only where another process wrote the batch at n. That one did not write the batch before, so
it had opened the log there: its batch at n was its first.
A process may end, and a request arrive late, between any two steps. A mark is then one fence too many. What was dropped
and is still there is removed at the next opening, under the marks that it was dropped under; only then do these go.

`floor` says below which index everything was dropped. What a crash leaves below it is of no account, and a gap above it
means that a batch was lost.

Runs in: audit_log.
Trusts: the store, as far as it confirmed.
"""

from __future__ import annotations

import re
import secrets
import threading
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice

from sfrl_secure.errors import MalformedError, MissingEvidenceError, NotFoundError, UncertainStateError
from sfrl_secure.storage.bucket import Bucket
from sfrl_secure.storage.bucket_batch import (
    BATCH_OBJECT_BYTES_MAX,
    RUN_BYTES,
    BatchObject,
    encode_batch_object,
    parse_batch_object,
)
from sfrl_secure.storage.bucket_floor import (
    FLOOR_BYTES_MAX,
    FLOOR_OF_A_NEW_LOG,
    Floor,
    encode_floor,
    parse_floor,
    ranges_of,
)
from sfrl_secure.storage.recent_batches import RECENT_BYTES_MAX, RecentBatches

_FOLDER = "journal"
_FLOOR_NAME = "floor"
_FETCHES = 16

_BATCH_NAME = re.compile(r"[0-9]{20}")


@dataclass(frozen=True, slots=True)
class _Batch:
    first_index: int
    end_index: int
    is_fence: bool


class BucketJournal:
    """`log_store.LogJournal` in a bucket. One thread appends, one drops; any thread reads.

    Attributes:
        cut_bytes: 0: an object is there whole or not at all.
    """

    cut_bytes = 0

    def __init__(self, bucket: Bucket, *, recent_bytes_max: int = RECENT_BYTES_MAX) -> None:
        """Open a journal and read what is left of it.

        Raises:
            NotFoundError: there is none.
            UncertainStateError: it is damaged, or the store does not answer.
        """
        self._bucket = bucket
        self._run = secrets.token_bytes(RUN_BYTES)
        self._has_appended = False
        self._dead = False
        self._lock = threading.Lock()
        self._recent = RecentBatches(recent_bytes_max)
        try:
            self._floor, self._floor_tag = self._claim()
            self._batches = self._read_batches()
        except (MissingEvidenceError, MalformedError) as error:
            raise UncertainStateError("the journal cannot be read") from error
        self._mark()

    @staticmethod
    def create(bucket: Bucket, batches: Sequence[Sequence[bytes]]) -> None:
        """Make a journal that holds `batches`, one or more, in one object; never replace one.

        Raises:
            MalformedError: batches that no journal can hold.
            UncertainStateError: there is one already, or the store did not confirm.
        """
        data = encode_batch_object(secrets.token_bytes(RUN_BYTES), 0, batches, is_fence=True)
        if not bucket.create(_FLOOR_NAME, FLOOR_OF_A_NEW_LOG) or not bucket.create(_name(0), data):
            raise UncertainStateError("there is a journal already")

    @property
    def first_index(self) -> int:
        """Index of the first record that is still here."""
        return self._batches[0].first_index

    @property
    def count(self) -> int:
        """Index behind the last record; all are durable."""
        return self._batches[-1].end_index

    def append_batch(self, records: Sequence[bytes]) -> None:
        """Append records, 1 to 256: one request. They are durable when this returns.

        Raises:
            MalformedError: a batch that no journal can hold; nothing was asked of the store.
            UncertainStateError: the store did not confirm, or another process has appended, now or earlier: the journal
                takes nothing more.
        """
        if self._dead:
            raise UncertainStateError("the journal has failed before")
        batch = _Batch(self.count, self.count + len(records), not self._has_appended)
        data = encode_batch_object(self._run, batch.first_index, [records], is_fence=batch.is_fence)
        try:
            is_ours = self._bucket.create(_name(batch.first_index), data)
        except UncertainStateError:
            self._dead = True
            raise
        if not is_ours:
            self._dead = True
            raise UncertainStateError("another process has appended to this log")
        self._has_appended = True
        self._recent.keep(batch.first_index, tuple(records))
        with self._lock:
            self._batches = [*self._batches, batch]

    def record(self, index: int) -> bytes:
        """Read one record.

        Raises:
            NotFoundError: there is none at `index`, or it was dropped.
            UncertainStateError: the store gave other bytes than it took, or does not answer.
        """
        batches = self._batches
        at = bisect_right(batches, index, key=_first_index_of) - 1
        if at < 0 or index >= batches[at].end_index:
            raise NotFoundError("the journal has no such record, or has dropped it")
        batch = batches[at]
        records = self._recent.get(batch.first_index)
        if records is None:
            try:
                records = self._fetch(batch.first_index).records
            except (MalformedError, MissingEvidenceError) as error:
                raise UncertainStateError("the journal cannot be read") from error
            if batch.first_index + len(records) != batch.end_index:
                raise UncertainStateError("a batch of the journal is another one than before")
            self._recent.keep(batch.first_index, records)
        return records[index - batch.first_index]

    def drop_before(self, index: int) -> None:
        """Remove the batches whose records are all below `index`, never the newest.

        Raises:
            UncertainStateError: another process has, or the store did not confirm.
        """
        dropped = [batch for batch in self._batches[:-1] if batch.end_index <= index]
        if not dropped:
            return
        # The marks stay: what this leaves when it is interrupted is removed by them.
        self._replace_floor(replace(self._floor, first_index=dropped[-1].end_index))
        with self._lock:
            self._batches = self._batches[len(dropped):]
        for batch in dropped:
            self._recent.forget(batch.first_index)
        self._remove([(batch.first_index, batch.is_fence) for batch in dropped])

    def close(self) -> None:
        """Take nothing more; nothing is pending."""
        self._dead = True

    def _claim(self) -> tuple[Floor, str]:
        """Put our run into the floor; give the floor and its e-tag."""
        raw, tag = self._bucket.read_with_tag(_FLOOR_NAME, FLOOR_BYTES_MAX)
        floor = replace(parse_floor(raw), run=self._run)
        if next(self._bucket.sizes(_FOLDER), None) is None:
            if floor.first_index:
                raise UncertainStateError("the journal has lost its batches")
            # A creation that came no further: it may be asked for again, and finds the floor as it was.
            raise NotFoundError("there is no journal")
        now_tag = self._bucket.replace(_FLOOR_NAME, encode_floor(floor), tag)
        if now_tag is None:
            raise UncertainStateError("another process opens this log")
        return floor, now_tag

    def _read_batches(self) -> list[_Batch]:
        floor = self._floor.first_index
        sizes = {int(name): size for name, size in self._bucket.sizes(_FOLDER) if _BATCH_NAME.fullmatch(name)}
        batches: list[_Batch] = []
        for first_index, found in self._fetch_all(sorted(first for first in sizes if first >= floor)):
            if first_index != (batches[-1].end_index if batches else floor):
                raise UncertainStateError("a batch of the journal is missing")
            batches.append(_Batch(first_index, first_index + len(found.records), found.is_fence))
            self._recent.keep(first_index, found.records)
        if not batches:
            raise UncertainStateError("the journal has lost its batches")
        # What a crash in the middle of a removal has left.
        left = self._fetch_all(sorted(first for first, size in sizes.items() if first < floor and size))
        self._remove([(first, found.is_fence or self._floor.is_marked(first)) for first, found in left])
        return batches

    def _mark(self) -> None:
        """Mark the end of the log, where we may append from now on, and hand on the marks that are still of use."""
        open_marks = [
            batch.first_index
            for batch in self._batches
            if not batch.is_fence and self._floor.is_marked(batch.first_index)
        ]
        self._replace_floor(replace(self._floor, marked=ranges_of([*open_marks, self.count])))
        self._batches = [
            replace(batch, is_fence=batch.is_fence or self._floor.is_marked(batch.first_index))
            for batch in self._batches
        ]

    def _replace_floor(self, floor: Floor) -> None:
        """Put a floor in place of ours.

        Raises:
            UncertainStateError: another process has, or the store did not confirm.
        """
        tag = self._bucket.replace(_FLOOR_NAME, encode_floor(floor), self._floor_tag)
        if tag is None:
            raise UncertainStateError("another process has opened this log")
        self._floor, self._floor_tag = floor, tag

    def _remove(self, batches: Sequence[tuple[int, bool]]) -> None:
        for first_index, is_fence in batches:
            if is_fence:
                self._bucket.put(_name(first_index), b"", content_type="application/octet-stream", caching="no-store")
        self._bucket.remove([_name(first_index) for first_index, is_fence in batches if not is_fence])

    def _fetch(self, first_index: int) -> BatchObject:
        found = parse_batch_object(self._bucket.read(_name(first_index), BATCH_OBJECT_BYTES_MAX))
        if found.first_index != first_index:
            raise MalformedError("a batch of the journal bears another one's name")
        return found

    def _fetch_all(self, first_indices: Sequence[int]) -> Iterator[tuple[int, BatchObject]]:
        waiting = iter(first_indices)
        with ThreadPoolExecutor(_FETCHES, "journal-fetch") as pool:
            while part := list(islice(waiting, _FETCHES)):
                try:
                    yield from zip(part, pool.map(self._fetch, part), strict=True)
                except NotFoundError:
                    raise UncertainStateError("another process drops batches of this log") from None


def _name(first_index: int) -> str:
    return f"{_FOLDER}/{first_index:020}"


def _first_index_of(batch: _Batch) -> int:
    return batch.first_index
