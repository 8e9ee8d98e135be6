"""A bucket: conditions keep writers apart, and a lost answer is looked up."""

from __future__ import annotations

import pytest
from obstore.store import MemoryStore, S3Store

from sfrl_secure.errors import MalformedError, MissingEvidenceError, NotFoundError, UncertainStateError
from sfrl_secure.storage.bucket import Bucket, open_bucket
from tests.unit.storage.buckets import objects_of, unanswered


@pytest.fixture
def bucket() -> Bucket:
    return Bucket(MemoryStore(), "a/prefix")


@pytest.mark.parametrize(
    ("url", "name", "prefix"),
    [
        ("s3://bucket", "bucket", ""),
        ("s3://bucket/", "bucket", ""),
        ("s3://my.bucket-1/logs/Federation_1.x/", "my.bucket-1", "logs/Federation_1.x"),
    ],
)
def test_an_address_names_a_bucket_and_a_prefix(
    url: str, name: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    store, found = open_bucket(url)
    assert isinstance(store, S3Store)
    assert (store.config["bucket"], found) == (name, prefix)


@pytest.mark.parametrize(
    "url",
    [
        "", "bucket", "s3:bucket", "s3://", "s3:///prefix", "s3://b", "s3://Bucket", "s3://bucket/../other",
        "s3://bucket/.hidden", "s3://bucket//a", "s3://bucket/a b", "s3://key:secret@bucket/a", "s3://bucket/a?key=b",
        "s3://bucket/a#b", "s3://bucket\n", "https://bucket.s3.amazonaws.com", "file:///tmp", "s3://bucket/%2e%2e",
        "s3://bucket" + "/a" * 9,
    ],
)
def test_an_address_that_says_anything_else_is_refused(url: str) -> None:
    with pytest.raises(MalformedError, match="address"):
        open_bucket(url)


def test_settings_of_the_environment_that_make_no_store_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "a secret in the wrong place")
    with pytest.raises(MalformedError, match="AWS_") as refused:
        open_bucket("s3://bucket")
    assert "secret" not in str(refused.value)


def test_objects_lie_below_the_prefix_and_come_back_within_the_bound() -> None:
    store = MemoryStore()
    bucket = Bucket(store, "a/prefix").folder("b")
    bucket.put("x/1", b"12345", content_type="text/plain", caching="no-store")
    assert objects_of(store) == {"a/prefix/b/x/1": b"12345"}
    assert bucket.read("x/1", 5) == b"12345"
    with pytest.raises(MalformedError, match="4 bytes"):
        bucket.read("x/1", 4)
    with pytest.raises(NotFoundError):
        bucket.read("x/2", 5)
    assert (bucket.holds("x/1"), bucket.holds("x/2"), bucket.holds("x")) == (True, False, False)
    Bucket(store).put("top", b"", content_type="text/plain", caching="no-store")
    assert sorted(objects_of(store)) == ["a/prefix/b/x/1", "top"]


def test_objects_are_listed_with_their_sizes_and_removed(bucket: Bucket) -> None:
    for index in range(3):
        bucket.put(f"x/{index}", bytes(index), content_type="text/plain", caching="no-store")
    bucket.put("xy", b"", content_type="text/plain", caching="no-store")
    assert list(bucket.sizes("x")) == [("0", 0), ("1", 1), ("2", 2)]
    bucket.remove(["x/0", "x/2", "x/none"])
    bucket.remove([])
    assert list(bucket.sizes("x")) == [("1", 1)]


def test_an_object_is_created_only_where_none_is(bucket: Bucket) -> None:
    assert bucket.create("a", b"ours")
    assert not bucket.create("a", b"more")
    assert not bucket.create("a", b"o")
    assert bucket.read("a", 10) == b"ours"
    # The answer to the first time was lost, and the client asked again.
    assert bucket.create("a", b"ours")


def test_an_object_is_replaced_only_where_the_one_that_was_read_stands(bucket: Bucket) -> None:
    bucket.create("a", b"first")
    _, tag = bucket.read_with_tag("a", 10)
    now_tag = bucket.replace("a", b"second", tag)
    assert now_tag
    assert bucket.replace("a", b"other", tag) is None
    assert bucket.replace("none", b"other", tag) is None
    # The same bytes under the older tag: a repeated request whose first answer was lost.
    assert bucket.replace("a", b"second", tag) == now_tag
    assert bucket.replace("a", b"third", now_tag)
    assert bucket.read("a", 10) == b"third"


@pytest.mark.parametrize("call", ["create", "replace"])
def test_a_write_whose_answer_is_lost_is_looked_up(bucket: Bucket, call: str) -> None:
    bucket.create("there", b"older")
    tag = bucket.read_with_tag("there", 10)[1]

    def write(data: bytes) -> object:
        return bucket.create("new", data) if call == "create" else bucket.replace("there", data, tag)

    name = "new" if call == "create" else "there"
    # Not there: it may still come, so nobody may say that it is not.
    with unanswered("put", takes_effect=False), pytest.raises(UncertainStateError):
        write(b"lost")
    with unanswered("put", takes_effect=True, then_dead=True), pytest.raises(UncertainStateError):
        write(b"unknown")
    assert bucket.read(name, 10) == b"unknown"
    with unanswered("put", takes_effect=True):
        assert bucket.create("another", b"ours")
    tag = bucket.read_with_tag("there", 10)[1]
    with unanswered("put", takes_effect=True):
        assert bucket.replace("there", b"ours", tag) == bucket.read_with_tag("there", 10)[1]


def test_a_refused_write_that_cannot_be_looked_up_is_an_uncertain_state(bucket: Bucket) -> None:
    bucket.create("a", b"theirs")
    with unanswered("get", takes_effect=False), pytest.raises(UncertainStateError):
        bucket.create("a", b"ours")
    with unanswered("get", takes_effect=False), pytest.raises(UncertainStateError):
        bucket.replace("a", b"ours", "another tag")


def test_a_store_that_does_not_answer_is_told_apart_from_one_that_has_nothing(bucket: Bucket) -> None:
    bucket.create("a/b", b"")
    for call, use in (
        ("get", lambda: bucket.read("a/b", 10)),
        ("head", lambda: bucket.holds("a/b")),
        ("list", lambda: list(bucket.sizes("a"))),
    ):
        with unanswered(call, takes_effect=False), pytest.raises(MissingEvidenceError):
            use()
    for call, change in (
        ("put", lambda: bucket.put("a/b", b"", content_type="text/plain", caching="no-store")),
        ("delete", lambda: bucket.remove(["a/b"])),
    ):
        with unanswered(call, takes_effect=False), pytest.raises(UncertainStateError):
            change()
