"""The log's store and the objects on an S3-compatible server: a real process on loopback, spoken to over HTTP."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from sfrl_secure.errors import (
    DigestError,
    MalformedError,
    MissingEvidenceError,
    NotFoundError,
    UnavailableError,
    UncertainStateError,
)
from sfrl_secure.ids import sha256
from sfrl_secure.storage.bucket import Bucket, open_bucket
from sfrl_secure.storage.log_bucket import BucketLogStore
from sfrl_secure.storage.log_store import NOTHING_SIGNED
from sfrl_secure.storage.objects import open_objects
from sfrl_secure.storage.uploads import open_uploads
from tests.s3_server import BUCKET, WHO, needs_s3_server, running_s3_server

pytestmark = needs_s3_server

BATCHES = [[b"genesis"], [b"one", b"two"]]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A server with one empty bucket; its address."""
    with running_s3_server() as address:
        yield address


@pytest.fixture
def url(server: str, request: pytest.FixtureRequest) -> str:
    """The address of a place of the test's own."""
    return f"s3://{BUCKET}/{request.node.name.replace('[', '-').replace(']', '')}"


def test_an_object_is_created_once_and_replaced_only_by_its_tag(url: str) -> None:
    bucket = Bucket(*open_bucket(url))
    assert bucket.create("a", b"first")
    assert not bucket.create("a", b"other")
    data, tag = bucket.read_with_tag("a", 10)
    assert data == b"first"
    now_tag = bucket.replace("a", b"second", tag)
    assert now_tag
    assert bucket.replace("a", b"third", tag) is None
    assert bucket.replace("none", b"third", tag) is None
    assert bucket.read_with_tag("a", 10) == (b"second", now_tag)
    with pytest.raises(MalformedError):
        bucket.read("a", 5)
    with pytest.raises(NotFoundError):
        bucket.read("none", 5)
    assert (bucket.holds("a"), bucket.holds("none")) == (True, False)


def test_of_many_that_create_or_replace_at_once_one_succeeds(url: str) -> None:
    bucket = Bucket(*open_bucket(url))
    with ThreadPoolExecutor(8) as pool:
        for round_number in range(5):
            name = f"at-once/{round_number}"
            created = list(pool.map(lambda who: bucket.create(name, b"%d" % who), range(8)))  # noqa: B023
            assert sum(created) == 1
            tag = bucket.read_with_tag(name, 10)[1]
            tags = list(pool.map(lambda who: bucket.replace(name, b"new %d" % who, tag), range(8)))  # noqa: B023
            assert len([each for each in tags if each is not None]) == 1


def test_a_log_is_created_written_dropped_and_opened_again(url: str) -> None:
    place = open_bucket(url)
    with pytest.raises(UncertainStateError, match="no log here"):
        BucketLogStore.open(*place)
    BucketLogStore.create(*place, BATCHES)
    with pytest.raises(UncertainStateError, match="already"):
        BucketLogStore.create(*place, BATCHES)
    store = BucketLogStore.open(*place)
    assert store.signed.read() == NOTHING_SIGNED
    for index in range(3, 60, 3):
        store.journal.append_batch([b"entry %d" % at for at in range(index, index + 3)])
    store.signed.replace(b"note of 60")
    store.journal.drop_before(40)
    store.close()
    store = BucketLogStore.open(*place)
    assert (store.journal.first_index, store.journal.count) == (39, 60)
    assert [store.journal.record(at) for at in range(39, 60)] == [b"entry %d" % at for at in range(39, 60)]
    assert store.signed.read() == b"note of 60"
    with pytest.raises(NotFoundError):
        store.journal.record(38)


def test_of_two_processes_the_second_to_write_stops(url: str) -> None:
    place = open_bucket(url)
    BucketLogStore.create(*place, BATCHES)
    one = BucketLogStore.open(*place)
    one.journal.append_batch([b"three"])
    other = BucketLogStore.open(*place)
    for store in (one, other):
        store.signed.read()
    other.journal.append_batch([b"four"])
    with pytest.raises(UncertainStateError, match="another process"):
        one.journal.append_batch([b"four"])
    other.signed.replace(b"note of 5")
    with pytest.raises(UncertainStateError, match="somebody else"):
        one.signed.replace(b"another note")
    with pytest.raises(UncertainStateError, match="opened"):
        one.journal.drop_before(3)
    other.journal.drop_before(3)
    store = BucketLogStore.open(*place)
    assert [store.journal.record(index) for index in (3, 4)] == [b"three", b"four"]


def test_a_killed_process_leaves_what_it_was_told_is_durable(url: str) -> None:
    BucketLogStore.create(*open_bucket(url), BATCHES)
    program = (
        "import os, signal, sys\n"
        "from sfrl_secure.storage.log_bucket import BucketLogStore, open_bucket\n"
        "store = BucketLogStore.open(*open_bucket(sys.argv[1]))\n"
        "store.journal.append_batch([b'acknowledged']); os.kill(os.getpid(), signal.SIGKILL)"
    )
    ended = subprocess.run([sys.executable, "-c", program, url], check=False, env=os.environ)
    assert ended.returncode == -signal.SIGKILL
    assert BucketLogStore.open(*open_bucket(url)).journal.record(3) == b"acknowledged"


def test_published_files_bear_what_a_web_server_needs_to_know(server: str, url: str) -> None:
    place = open_bucket(url)
    BucketLogStore.create(*place, BATCHES)
    files = BucketLogStore.open(*place).files
    files.write("checkpoint", b"note")
    files.write("tile/0/000", bytes(8192))
    files.write("tile/0/000.p/7", bytes(224))
    assert list(files.names("tile")) == ["tile/0/000", "tile/0/000.p/7"]
    for name, length, content_type, caching in (
        ("checkpoint", 4, "text/plain; charset=utf-8", "public, max-age=1"),
        ("tile/0/000", 8192, "application/octet-stream", "public, max-age=31536000, immutable"),
    ):
        address = f"{server}/{url.removeprefix('s3://')}/log/{name}"
        asked = urllib.request.Request(address, headers={"Authorization": WHO})
        with urllib.request.urlopen(asked, timeout=20) as answer:
            assert len(answer.read()) == length
            assert (answer.headers["Content-Type"], answer.headers["Cache-Control"]) == (content_type, caching)
    files.remove("tile/0/000.p/7")
    assert list(files.names("tile")) == ["tile/0/000"]


def test_objects_are_kept_under_their_digest(url: str) -> None:
    objects = open_objects(url)
    digest = objects.put(b"payload")
    assert objects.put(b"payload") == digest == sha256(b"payload")
    assert objects.get(digest, 7) == b"payload"
    assert objects.is_stored(digest)
    with pytest.raises(NotFoundError):
        objects.get(sha256(b"other"), 7)
    Bucket(*open_bucket(url)).put(
        f"{digest.hex()[:2]}/{digest.hex()}", b"other!!", content_type="text/plain", caching="no-store"
    )
    with pytest.raises(DigestError):
        objects.get(digest, 7)


def test_an_upload_goes_on_and_becomes_an_object_that_is_read_in_parts(url: str) -> None:
    payload = os.urandom(11 * 1024 * 1024 + 5)
    statement, digest = sha256(b"statement"), sha256(payload)
    uploads, objects = open_uploads(f"{url}/uploads"), open_objects(f"{url}/objects")
    with uploads.begin(statement, len(payload)) as upload:
        upload.append(payload[:2_500_000])
        upload.append(payload[2_500_000:3_000_000])
        assert upload.sync() == 3_000_000
    with open_uploads(f"{url}/uploads").begin(statement, len(payload)) as upload:
        assert b"".join(upload.take_over()) == payload[:3_000_000]
        for at in range(3_000_000, len(payload), 1_000_000):
            upload.append(payload[at : at + 1_000_000])
        upload.commit(objects, digest)
    assert uploads.sweep(2**62) == 0
    with objects.open(digest, len(payload)) as reader:
        reader.check_digest()
        assert (reader.size, reader.read(5_000_000, 7)) == (len(payload), payload[5_000_000:5_000_007])
        Bucket(*open_bucket(f"{url}/objects")).put(
            f"{digest.hex()[:2]}/{digest.hex()}", b"other!!", content_type="text/plain", caching="no-store"
        )
        with pytest.raises(MissingEvidenceError):
            reader.read(0, 1)


def test_old_parts_of_uploads_are_swept(url: str) -> None:
    uploads = open_uploads(url)
    with uploads.begin(sha256(b"statement"), 100) as upload:
        upload.append(b"x" * 10)
        upload.sync()
    now_us = int(time.time() * 1_000_000)
    assert uploads.sweep(now_us - 3_600_000_000) == 0
    assert uploads.sweep(now_us + 3_600_000_000) == 1
    assert uploads.begin(sha256(b"statement"), 100).held == 0


def test_a_store_without_tls_is_refused_unless_the_environment_allows_it(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    with pytest.raises(UncertainStateError):
        BucketLogStore.create(*open_bucket(url), BATCHES)


def test_requests_take_no_longer_than_the_environment_says(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfrl_secure.storage.bucket.RETRY_SECONDS", 1)
    monkeypatch.setenv("AWS_TIMEOUT", "200ms")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        begun = time.monotonic()
        with pytest.raises(UnavailableError):
            BucketLogStore.open(*open_bucket(url))
        assert time.monotonic() - begun < 15


def test_a_server_that_is_away_at_a_start_is_unavailable(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfrl_secure.storage.bucket.RETRY_SECONDS", 1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(UnavailableError):
        BucketLogStore.open(*open_bucket(url))
    with pytest.raises(UncertainStateError):
        BucketLogStore.create(*open_bucket(url), BATCHES)
