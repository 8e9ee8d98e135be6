"""Uploads whose gatekeeper dies in their middle: it goes on where it was, or another one does.

No chunk that begins behind the first third is given before the gatekeeper is dead: it dies in the middle, with one
chunk under way, however fast or slow the machine is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from sfrl_secure.audit.published import read_unverified_entries
from sfrl_secure.governance.statements import Statement, UpdateAdmitted
from sfrl_secure.participant.sending import SignedUpdate
from sfrl_secure.participant.submissions import Submitted
from sfrl_secure.participant.wishes import Wish
from sfrl_secure.services.federation.plan import FederationPlan, SegmentPlan, TensorPlan
from sfrl_secure.services.federation.supervise import ServiceProcess
from sfrl_secure.sparse.topk import ErrorFeedback
from sfrl_secure.storage.objects import open_objects
from tests.s3_server import BUCKET, needs_s3_server, running_s3_server

from .conftest import ROVERS, Site, Start, open_number, small_plan

COORDINATES = 500_000
"""In float32 about 2 MB: more than a chunk that begins in the first third can be."""


class HeldPayload:
    """A payload whose rest is given when the middle is over, and what was asked of it.

    Attributes:
        rest: where the rest begins.
        reads: first byte and length of each chunk.
    """

    def __init__(self, payload: bytes | memoryview) -> None:
        self._payload = memoryview(payload)
        self.middle_is_over = threading.Event()
        self.reads: list[tuple[int, int]] = []
        self.rest = self.size // 3

    @property
    def size(self) -> int:
        return len(self._payload)

    def read(self, offset: int, length: int) -> memoryview:
        self.reads.append((offset, length))
        if offset >= self.rest:
            assert self.middle_is_over.wait(60)
        return self._payload[offset : offset + length]


class BrokenUpload:
    """An upload in whose middle something happens, once."""

    def __init__(self, site: Site, gatekeepers: tuple[str, ...], in_the_middle: Callable[[], None]) -> None:
        self._in_the_middle = in_the_middle
        self.durable_bytes = 0
        rover = site.participant(ROVERS[0], gatekeepers)
        signed = _signed(site, gatekeepers)
        self.payload = HeldPayload(signed.payload)  # type: ignore[arg-type] # it was encoded here, in memory
        self.submitted: Submitted = rover.send(replace(signed, payload=self.payload), on_progress=self._told)

    def _told(self, durable_bytes: int, size: int) -> None:
        if durable_bytes < self.payload.rest or self.payload.middle_is_over.is_set():
            return
        self.durable_bytes = durable_bytes
        try:
            self._in_the_middle()
        finally:
            self.payload.middle_is_over.set()


def _signed(site: Site, gatekeepers: tuple[str, ...]) -> SignedUpdate:
    rover = site.participant(ROVERS[0], gatekeepers)
    change = np.random.default_rng(7).normal(0, 0.01, COORDINATES).astype(np.float32)
    return rover.prepare(open_number(rover, 1), change, 10, ErrorFeedback(COORDINATES), wish=Wish("dense", "fp32"))


def plan(**changes: object) -> FederationPlan:
    """Rounds of a model of 2 MB, which stay open."""
    small = small_plan()
    segment = SegmentPlan.model_validate(
        {
            **small.segments[0].model_dump(),
            "tensors": [TensorPlan(name="weights", shape=[COORDINATES])],
            "value_types": ["fp32"],
            "support_modes": ["dense"],
            "nonzeros_max": COORDINATES,
        }
    )
    return small.model_copy(update={"segments": [segment], **changes})


def of_name(site: Site, name: str) -> ServiceProcess:
    return next(each for each in site.supervisor.services if each.name == name)


def admitted_by(site: Site, submitted: Submitted) -> str:
    """The gatekeeper that admitted the one update that there is."""
    log = site.wait_published(lambda each: bool(each.state.admitted_updates))
    assert list(log.state.admitted_updates) == [submitted.statement_digest]
    found = [
        each.content.writer.name
        for each in read_unverified_entries(site.folder.log_dir, log.state.size)
        if isinstance(each.content, Statement) and isinstance(each.content.body, UpdateAdmitted)
    ]
    assert len(found) == 1
    return found[0]


def check_little_was_sent_again(went: BrokenUpload) -> None:
    """Nothing that was known to be durable, and one chunk at most: the one that was under way."""
    reads, size = went.payload.reads, went.payload.size
    assert went.payload.rest <= went.durable_bytes < size
    # A call reads on without a gap: where there is one, another call begins.
    begins = [first for (before, length), (first, _) in pairwise(reads) if first != before + length]
    assert len(begins) <= 1
    assert all(first >= went.durable_bytes for first in begins)
    under_way = next(length for first, length in reads if first >= went.durable_bytes)
    assert sum(length for _, length in reads) - size <= under_way


def test_a_gatekeeper_that_was_killed_goes_on_with_what_was_durable(start: Start) -> None:
    site = start(plan())
    gatekeeper = site.service("gatekeeper")

    def power_cut() -> None:
        gatekeeper.kill()
        gatekeeper.start()
        gatekeeper.wait_ready()

    went = BrokenUpload(site, ("g1",), power_cut)
    check_little_was_sent_again(went)
    assert admitted_by(site, went.submitted) == "g1"
    assert list((site.folder.objects_dir / "uploads").iterdir()) == []
    site.stop()
    assert site.verify().exit_code == 0


@pytest.fixture
def bucket() -> Iterator[str]:
    """The address of a bucket's place for objects."""
    with ExitStack() as running:
        running.enter_context(running_s3_server())
        yield f"s3://{BUCKET}/objects"


@needs_s3_server
def test_another_gatekeeper_goes_on_where_the_objects_lie_in_a_bucket(start: Start, bucket: str) -> None:
    site = start(plan(gatekeepers=["g1", "g2"], objects_url=bucket))
    went = BrokenUpload(site, ("g1", "g2"), of_name(site, "g1").kill)
    check_little_was_sent_again(went)
    assert admitted_by(site, went.submitted) == "g2"
    update = went.submitted.update
    with open_objects(bucket).open(update.payload_sha256, update.payload_bytes) as stored:
        stored.check_digest()
    site.stop()
